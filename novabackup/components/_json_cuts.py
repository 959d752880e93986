"""Finds where a JSON text can be cut in two by counting brackets, and what separates its entries there."""

from __future__ import annotations

import bisect
import re

import attrs

__all__ = ["Cut", "Cuts", "Separator", "find"]

_CLOSERS = {0x5B: 0x5D, 0x7B: 0x7D}
_OUTSIDE_STRINGS = b' \t\r\n"[]{},:+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
_CONTROL = re.compile(rb"[\x00-\x1f]")
# Up to a bracket that encloses others, or up to the limit of repetitions, which bounds the memory. The first group is
# the last comma outside of the containers that are skipped.
_STEP = re.compile(rb"(?:[^][{},]+|(,)|[\[{][^][{}]*[\]}]){0,32}([][{}])?")
_SAMPLES = 16
_BEFORE, _AFTER = 16, 48
_CLOSING = re.compile(rb"[ \t\r\n\]}]*\Z")
_OPENING = re.compile(rb'[ \t\r\n\[{]*"?')
_OPENING_AND_KEY = re.compile(rb'[ \t\r\n\[{]*(?:"(?:[^"\\]*"[ \t\r\n]*:)?)?')


@attrs.frozen
class Cut:
    """A place to cut a text at.

    Attributes:
        at: Position of the comma; without one, the position after the bracket.
        deep: The brackets that are open there, without that of the top level.
        comma: Whether there is a comma, which then belongs to neither part.
    """

    at: int
    deep: bytes = b""
    comma: bool = True


@attrs.frozen
class Separator:
    """The text between two entries.

    Attributes:
        text: The comma, and what is the same before and after it each time.
        lead: Bytes of that before the comma.
        deep: As for `Cut`.
    """

    text: bytes
    lead: int
    deep: bytes


@attrs.frozen
class Cuts:
    """Where a text can be cut.

    Attributes:
        places: In order; none if the text is within a single string or number. Of two, the first is where the last
            complete entry of the top level ends, so that the text between the two is the beginning of one entry.
        separator: The text between entries at the last place, if there is a comma.
        closed: The top level ends in this text, at the only place.
    """

    places: tuple[Cut, ...]
    separator: Separator | None = None
    closed: bool = False


class _Level:
    """A container that is open."""

    def __init__(self, bracket: int, start: int = 0) -> None:
        self.bracket = bracket
        self.start = start
        self.commas: list[int] = []

    @property
    def last(self) -> int:
        return self.commas[-1] if self.commas else self.start

    def note(self, comma: int) -> None:
        """Keep the first commas and the last one."""
        if len(self.commas) == _SAMPLES:
            self.commas.pop()
        self.commas.append(comma)


def find(window: bytes, brackets: bytes) -> Cuts | None:
    """Find where to cut a text, as near to its end as is useful.

    Args:
        window: The text, from the beginning of an entry, or after the bracket that opens a container.
        brackets: The brackets that are open there.

    Returns:
        The places; None if this cannot be JSON.
    """
    # Escapes occur only in strings, and matter only if they escape a quotation mark. Lengths stay the same.
    plain = window.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in window else window
    parts = plain.split(b'"')
    text = b'"'.join(parts[::2])  # everything outside of strings
    if text.translate(None, _OUTSIDE_STRINGS) or (len(parts) % 2 == 0 and _CONTROL.search(parts[-1])):
        return None
    levels = [_Level(bracket) for bracket in brackets]
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        assert step is not None
        position = step.end()
        if step.start(1) >= 0:
            levels[-1].note(step.start(1))
        if step[2] is None:
            continue
        bracket = step[2][0]
        if bracket in _CLOSERS:
            levels.append(_Level(bracket, position))
        elif _CLOSERS[levels.pop().bracket] != bracket:
            return None
        elif not levels:
            return Cuts((Cut(_place(parts, text, position), comma=False),), closed=True)
    # Not deep down, where the separator may soon change, and not where little is gained: windows grow with what is left
    # over. Each level was opened after the last comma of the one around it, so they are in order.
    half = bisect.bisect_left(levels, len(window) // 2, key=lambda level: _place(parts, text, level.last))
    best = min(half, len(levels) - 1)
    places = tuple(
        Cut(
            _place(parts, text, levels[depth].last),
            bytes(level.bracket for level in levels[1 : depth + 1]),
            comma=bool(levels[depth].commas),
        )
        for depth in sorted({0, best})
        if levels[depth].last
    )
    if not places or not places[-1].comma:
        return Cuts(places)
    deep = places[-1].deep
    commas = [_place(parts, text, comma) for comma in levels[len(deep)].commas]
    return Cuts(places, _separator(window, commas, deep))


def _place(parts: list[bytes], text: bytes, position: int) -> int:
    """Turn a position in the text outside of strings into one in the whole text."""
    strings = text.count(b'"', 0, position)
    return sum(map(len, parts[: 2 * strings])) + 2 * strings + position - (text.rfind(b'"', 0, position) + 1)


def _separator(window: bytes, commas: list[int], deep: bytes) -> Separator:
    """Return what is the same around all commas, without values, which change from entry to entry."""
    if len(commas) > 1 and commas[-1] + _AFTER >= len(window):
        commas = commas[:-1]
    # A single sample does not show whether keys change.
    behind = _OPENING_AND_KEY if len(commas) > 1 else _OPENING
    before = _CLOSING.search(_common([window[max(0, comma - _BEFORE) : comma][::-1] for comma in commas])[::-1])
    after = behind.match(_common([window[comma + 1 : comma + 1 + _AFTER] for comma in commas]))
    assert before is not None
    assert after is not None
    return Separator(before[0] + b"," + after[0], len(before[0]), deep)


def _common(texts: list[bytes]) -> bytes:
    """Return the common prefix of all texts."""
    first, last = min(texts), max(texts)
    return first[: next((at for at, byte in enumerate(first) if last[at] != byte), len(first))]
