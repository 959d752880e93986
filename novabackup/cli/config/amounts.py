"""Numbers of bytes as people write them."""

from __future__ import annotations

import re

__all__ = ["bytes_of"]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?(?:/s)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def bytes_of(said: str) -> float:
    """Read a number of bytes, or of bytes a second, such as ``500kB``, ``5MB``, ``5M`` or ``1.5GiB``.

    Returns:
        Bytes; more than none.

    Raises:
        ValueError: It is none.
    """
    found = _AMOUNT.fullmatch(said.strip())
    if not found or not float(found[1]):
        raise ValueError(f"expected a number of bytes such as 500kB, 5MB or 1GiB, found {said!r}")
    unit = 1024 if found[3] else 1000
    return float(found[1]) * float(unit ** _POWERS[found[2].lower()])
