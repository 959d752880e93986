"""Time spans and moments as people write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from novabackup.errors import ConfigurationError

__all__ = ["moment", "seconds_of", "span"]

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_TO_THE_MINUTE = re.compile(r"\d[T ]\d\d:\d\d(?!:)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = 100 * 366 * 86400


def seconds_of(said: str) -> float:
    """Read a time span such as ``90``, ``90s``, ``5m``, ``2h``, ``1d`` or ``1w``.

    Returns:
        Seconds.

    Raises:
        ValueError: It is none.
    """
    found = _SPAN.fullmatch(said.strip())
    if not found:
        raise ValueError(f"expected a time span such as 90s, 5m, 2h or 1d, found {said!r}")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"expected a time span of 100 years at most, found {said!r}")
    return seconds


def span(seconds: float) -> str:
    """Show a time span as `seconds_of` reads it."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit] and not seconds % _UNITS[unit]:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def moment(said: str) -> datetime:
    """Read a date with or without a time of day, in ISO 8601; without an offset it is local time.

    Returns:
        The moment, with its time zone; the first one of the day for a date alone, and the last one of the minute where
        seconds are not said: tables show times to the minute, and what they show is to be found by it.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        found = datetime.fromisoformat(said.strip()).astimezone()
        return found + timedelta(minutes=1, microseconds=-1) if _TO_THE_MINUTE.search(said) else found
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f'expected a time such as "2026-01-25 14:30" (local) or "2026-01-25T14:30+01:00", found {said!r}'
        ) from None
