"""Durations, times, sizes and rates as users write them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from novabackup.errors import ConfigurationError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")
_TO_THE_MINUTE = re.compile(r"\d[T ]\d\d:\d\d(?!:)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST = 100 * 366 * 86400

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?(?:/s)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``90``, ``90s``, ``5m``, ``2h``, ``1d`` or ``1w``."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError(f"expected a duration such as 90s, 5m, 2h or 1d, found {text!r}")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"expected a duration of 100 years at most, found {text!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """Format seconds as `parse_duration` reads them."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and not seconds % _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def parse_size(text: str) -> float:
    """Return the bytes, or bytes per second, of a size such as ``500kB``, ``5MB``, ``5M`` or ``1.5GiB``."""
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise ValueError(f"expected a number of bytes such as 500kB, 5MB or 1GiB, found {text!r}")
    unit = 1024 if found[3] else 1000
    return float(found[1]) * float(unit ** _POWERS[found[2].lower()])


def parse_time(text: str) -> datetime:
    """Parse an ISO 8601 date with or without a time of day; without an offset it is local time.

    A date alone is the start of that day. A time without seconds is the end of that minute: tables show times to the
    minute, and a time copied from a table must find its snapshot.
    """
    try:
        found = datetime.fromisoformat(text.strip()).astimezone()
        return found + timedelta(minutes=1, microseconds=-1) if _TO_THE_MINUTE.search(text) else found
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f'expected a time such as "2026-01-25 14:30" (local) or "2026-01-25T14:30+01:00", found {text!r}'
        ) from None
