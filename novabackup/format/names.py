"""Names of files are bytes, and JSON holds text: how bytes that are no UTF-8 are written in a record.

In the program such a byte is what Python makes of it, half a character. In a record it is NUL, which no name can hold,
and two hexadecimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["NUL", "escape", "unescape", "with_texts"]

NUL = b"\\u0000"
"""How JSON spells it."""
_ESCAPED = re.compile("\0(00|[89a-f][0-9a-f])")
_TO_ESCAPE = re.compile("[\udc80-\udcff]|\0(?=00|[89a-f][0-9a-f])")


def escape(text: str) -> str:
    """Turn what Python makes of such bytes into text that JSON can hold."""
    return _TO_ESCAPE.sub(lambda found: f"\0{ord(found[0]) & 0xFF:02x}", text)


def unescape(text: str) -> str:
    """Turn it back."""
    return _ESCAPED.sub(lambda found: chr(0xDC00 + int(found[1], 16)) if found[1] != "00" else "\0", text)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in plain data."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): with_texts(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(one, change) for one in value]
    return value
