"""Counts the entries of a JSON file window by window, so that memory does not grow with the file.

A window of the text ends at a comma. It is parsed between added brackets: those before it open the containers that are
open where the window begins, those after it close the ones that are open at the comma. If that parses, the window is
valid JSON between these two places, as JSON is unambiguous: a comma within a string, or at another depth, would not
parse. So it does not matter how the comma was found, and a file is JSON if each of its windows parses.

The comma is guessed from the text between earlier entries, which is nearly always right and costs nothing. If no guess
parses, brackets are counted. Memory has to hold the longest single string or number, and no larger part of a file.
"""

from __future__ import annotations

import array
import codecs
import itertools
import json
import re
import secrets
from collections.abc import Sized
from typing import Annotated, Any, NoReturn

import msgspec

from novabackup.components import _json_cuts
from novabackup.components._json_cuts import Cut
from novabackup.storage.base import Reader

__all__ = ["BOM", "SPACE", "NoCountError", "NotJsonError", "check_text", "measure", "python_reads"]

SPACE = b" \t\r\n"
BOM = codecs.BOM_UTF8
_PYTHON_ONLY = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
"""What json.dump writes and json.load reads although it is no JSON: these words, and escapes of lone surrogates."""

_WINDOW = 256 << 10
"""Bytes parsed at a time: they fit into the CPU cache, and other threads wait no longer than that takes."""
_FIRST_WINDOW = 16 << 10
"""Smaller windows for counting brackets, which is slow."""
_MANY = 8 << 10
"""Windows with more entries than this do not grow, as each entry takes memory while it is counted."""
_READ = 8 << 20
"""Bytes read at a time: each read may be a request to a server."""
_TRIES = 4
"""Commas tried before brackets are counted; more would take longer than counting."""
_MAX_COUNT = (1 << 63) - 1
_Count = Annotated[int, msgspec.Meta(le=_MAX_COUNT)]

# Random keys, so that no file can contain them, of the entries that are added before and after a window.
_AHEAD, _BEHIND = secrets.token_hex(16), secrets.token_hex(16)
_LIST, _DICT = b"[{"
_CLOSERS = bytes.maketrans(b"[{", b"]}")
_SPACES = re.compile(rb"[ \t\r\n]*")
_POSITION = re.compile(r" \(byte (\d+)\)\Z")


class NotJsonError(ValueError):
    """The file is no JSON, not even for Python; the text says why."""


class NoCountError(ValueError):
    """The file is JSON, but no list or object, or has no count; the text says what was found instead."""


class _Object(msgspec.Struct, gc=False):
    """Any object: decoding one validates all of it and keeps nothing."""


_OBJECTS: dict[int, msgspec.json.Decoder[Any]] = {
    _LIST: msgspec.json.Decoder(list[_Object]),
    _DICT: msgspec.json.Decoder(dict[str, _Object]),
}
_VALUES: dict[int, msgspec.json.Decoder[Any]] = {
    _LIST: msgspec.json.Decoder(list[msgspec.Raw]),
    _DICT: msgspec.json.Decoder(dict[str, msgspec.Raw]),
}


def measure(reader: Reader, key: str | None) -> tuple[str, int]:
    """Count the entries of a JSON list or object.

    Args:
        reader: The file, opened.
        key: Key of a top-level object whose value is the count, an integer or its own length; None to count the entries
            of the top level.

    Returns:
        ``list`` or ``dict``, the type of the top level, and the count.

    Raises:
        NotJsonError: It is no JSON.
        NoCountError: It has no such count.
        OSError: The file could not be read.
        ChangedError: It was changed meanwhile.
    """
    try:
        return _Walk(reader, key).run()
    except RecursionError:
        raise NotJsonError("expected metadata as JSON, found JSON nested too deeply to be read") from None


def python_reads(text: bytes) -> bool:
    """Return whether Python's json reads a text although it is no JSON."""
    if not _PYTHON_ONLY.search(text):
        return False
    try:
        json.loads(text.decode())
    except (ValueError, RecursionError):
        return False
    return True


def check_text(data: bytes) -> None:
    """Require UTF-8, which the parser does not check in values that it only skips.

    Raises:
        NotJsonError: They are not.
    """
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    try:
        for start in range(0, len(view), _READ):
            decoder.decode(view[start : start + _READ])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"expected UTF-8 text, found bytes that are not: {error.reason}") from error


class _Tally:
    """Counts the elements of a list, or the distinct keys of an object, part by part."""

    def __init__(self) -> None:
        self._elements = 0
        # Only hashes of keys are kept. Python randomises them in each process, so that a file cannot be made to contain
        # keys with equal hashes; among ten million keys there are two with a probability of 0.000003.
        self._keys = array.array("q")

    def add(self, entries: Sized, made_up: int) -> None:
        """Count a part.

        Args:
            entries: The elements, or a dict; it is changed.
            made_up: Elements of a list that were counted already, or are not in the file. In a dict, their keys tell.
        """
        if isinstance(entries, dict):
            entries.pop(_AHEAD, None)
            entries.pop(_BEHIND, None)
            self._keys.extend(map(hash, entries))
        else:
            self._elements += len(entries) - made_up

    def total(self) -> int:
        if not self._keys:
            return self._elements
        import numpy as np  # noqa: PLC0415 - importing the components takes no time for it

        keys = np.frombuffer(self._keys, np.int64)
        keys.sort()
        return 1 + int(np.count_nonzero(keys[1:] != keys[:-1]))


class _Walk:
    """One pass over a file."""

    def __init__(self, reader: Reader, key: str | None) -> None:
        self._reader = reader
        self._size = reader.entry.size
        self._width = _FIRST_WINDOW
        self._block = b""
        self._base = 0  # of the block in the file
        self._start = 0  # in the block, of the text that is not parsed yet
        self._held = b""  # text before that which is not parsed either
        self._kind = _LIST
        self._decoder = _OBJECTS[_LIST]
        self._deep = b""  # the brackets that are open there, without that of the top level
        self._comma = False  # the previous character is a comma
        self._separator: _json_cuts.Separator | None = None
        self._lenient = False  # try json.loads on text that msgspec refuses
        self._entries = _Tally()
        self._key = key
        self._stated: _Tally | int | str = "an object without it"
        self._stating = False  # the container open below the top level is the value that states the count

    def run(self) -> tuple[str, int]:
        self._begin()
        while True:
            end = self._fill(max(self._width, len(self._held)))
            if self._base + end == self._size:
                self._finish()
                break
            if self._follow(end):
                continue
            self._width = _FIRST_WINDOW
            if self._search(end):
                self._check_rest()
                break
        if self._key is None:
            return ("list" if self._kind == _LIST else "dict"), self._entries.total()
        if isinstance(self._stated, str):
            raise NoCountError(self._stated)
        return "dict", self._stated if isinstance(self._stated, int) else self._stated.total()

    def _fill(self, width: int) -> int:
        """Read at least ``width`` bytes into the block, or all that are left; return where the window ends in it."""
        at = self._base + len(self._block)
        if len(self._block) - self._start < width and at < self._size:
            self._held += self._block[self._start :]
            self._block = b""  # two blocks at a time would take twice the memory
            self._block = self._reader.read(at, min(max(_READ, width), self._size - at))
            self._base, self._start = at, 0
        return min(self._start + width, len(self._block))

    def _skip_space(self) -> bool:
        """Advance to the next byte that is no white space; return whether there is one."""
        while True:
            self._start = _behind_space(self._block, self._start)
            if self._start < len(self._block):
                return True
            if self._base + self._start == self._size:
                return False
            self._fill(1)

    def _begin(self) -> None:
        self._fill(len(BOM))
        self._start = len(BOM) if self._block.startswith(BOM) else 0
        if not self._skip_space():
            self._refuse("there is nothing but white space")
        self._kind = self._block[self._start]
        if self._kind not in _VALUES:
            self._single()
        if self._kind == _LIST and self._key is not None:
            raise NoCountError("list")
        self._decoder = (_OBJECTS if self._key is None else _VALUES)[self._kind]
        self._start += 1

    def _single(self) -> NoReturn:
        """Raise the error for a file that is neither a list nor an object."""
        text = self._block[self._start :]
        if self._base + len(self._block) == self._size:
            check_text(text)
        try:
            msgspec.json.decode(text, type=msgspec.Raw)
        except msgspec.DecodeError as error:
            if not python_reads(text):
                self._refuse(*_reason(error), length=len(text))
        raise NoCountError("a single value")

    def _finish(self) -> None:
        """Parse the rest, which contains the closing bracket of the top level."""
        cut = Cut(len(self._held) + len(self._block) - self._start, comma=False)
        self._advance(self._held + self._block[self._start :], cut, tail=b"")

    def _check_rest(self) -> None:
        """Require that only white space follows the top level."""
        self._held = self._held.lstrip(SPACE)
        if self._held or self._skip_space():
            self._refuse("trailing characters", 0)

    def _follow(self, end: int) -> bool:
        """Parse up to where an entry is guessed to end; return whether the guess was right."""
        separator = self._separator
        if separator is None:
            return False
        head, tail = self._head(), self._tail(separator.deep, comma=True)
        limit = end
        for _ in range(_TRIES):
            found = self._block.rfind(separator.text, self._start, limit)
            if found < 0:
                return False
            limit = found + len(separator.text) - 1
            comma = found + separator.lead
            text = b"".join((head, self._held, memoryview(self._block)[self._start : comma], tail))
            check_text(text)
            try:
                entries = self._parse(text)
            except (msgspec.DecodeError, ValueError):
                continue
            if separator.deep and len(entries) > 1:
                return False  # an entry of the top level ended and another began, at an unknown place
            self._count(entries, separator.deep, comma=True)
            self._held, self._start = b"", comma + 1
            if len(entries) < _MANY:
                self._width = min(2 * self._width, _WINDOW)
            return True
        return False

    def _search(self, end: int) -> bool:
        """Parse up to a comma that is found by counting brackets; return whether the top level ends before one."""
        window = self._held + self._block[self._start : end]
        self._start = end
        self._held = window
        cuts = _json_cuts.find(window, b"%c" % self._kind + self._deep)
        if cuts is None:
            self._advance(window, Cut(len(window), comma=False), tail=b"")
            self._refuse("brackets do not match")
        done = 0
        for cut in cuts.places:
            tail = b"" if cuts.closed else self._tail(cut.deep, comma=cut.comma)
            self._advance(window[done : cut.at], cut, tail)
            done = cut.at + cut.comma
            self._held = window[done:]
        self._separator = cuts.separator or self._separator
        return cuts.closed

    def _head(self) -> bytes:
        """Return the text that opens the open containers, with a filler for the entries before."""
        parts = [b"%c" % self._kind]
        for before, bracket in itertools.pairwise(b"%c" % self._kind + self._deep):
            parts.append(b'"%b":%c' % (_AHEAD.encode(), bracket) if before == _DICT else b"%c" % bracket)
        if self._comma:
            parts.append(_filler(self._kind, self._deep, _AHEAD))
            parts.append(b",")
        return b"".join(parts)

    def _tail(self, deep: bytes, *, comma: bool) -> bytes:
        """Return a filler for the entries that follow, and the text that closes the open containers."""
        filler = b"," + _filler(self._kind, deep, _BEHIND) if comma else b""
        return filler + (b"%c" % self._kind + deep).translate(_CLOSERS)[::-1]

    def _advance(self, part: bytes, cut: Cut, tail: bytes) -> None:
        """Parse text that must be valid, and count it."""
        head = self._head()
        text = b"".join((head, part, tail))
        check_text(text)
        try:
            entries = self._parse(text)
        except (msgspec.DecodeError, ValueError) as error:
            if not self._lenient and _PYTHON_ONLY.search(part):
                self._lenient = True
                self._advance(part, cut, tail)
                return
            self._refuse(*_reason(error), ahead=len(head), length=len(part))
        self._count(entries, cut.deep, comma=cut.comma)

    def _parse(self, text: bytes) -> Any:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError:
            self._decoder = _VALUES[self._kind]  # some are no objects
            return self._parse(text)
        except msgspec.DecodeError:
            if not self._lenient:
                raise
            return json.loads(text.decode())

    def _count(self, entries: Any, deep: bytes, *, comma: bool) -> None:
        """Count a parsed window and advance: ``deep`` and ``comma`` are the state after it, as for `Cut`."""
        if self._key is None:
            self._entries.add(entries, _made_up(self._deep, self._comma, deep, comma))
        else:
            self._state(entries, deep, comma=comma)
        self._deep, self._comma = deep, comma

    def _state(self, entries: dict[str, Any], deep: bytes, *, comma: bool) -> None:
        """Find the value that states the count: the last one under that key."""
        assert self._key is not None
        rest = entries.pop(_AHEAD, None)
        if self._stating and isinstance(self._stated, _Tally):
            value = _open(rest)
            assert isinstance(value, (list, dict))
            self._stated.add(value, _made_up(self._deep[1:], self._comma, deep[1:], comma and bool(deep)))
        if self._key in entries:
            self._stating = True
            value = _open(entries[self._key])
            if isinstance(value, (list, dict)):
                self._stated = _Tally()
                self._stated.add(value, _made_up(b"", False, deep[1:], comma and bool(deep)))
            else:
                self._stated = value
        # A container that is open below the top level is everything in the window after its first comma.
        self._stating = self._stating and bool(deep)

    def _refuse(self, reason: str, position: int | None = None, ahead: int = 0, length: int = 0) -> NoReturn:
        if position is not None:
            place = self._base + self._start - len(self._held)
            reason += f" (byte {place + min(max(position - ahead, 0), length)})"
        raise NotJsonError(f"expected JSON, found {self._size} bytes that are not: {reason}")


def _behind_space(block: bytes, start: int) -> int:
    match = _SPACES.match(block, start)
    assert match is not None
    return match.end()


def _filler(kind: int, deep: bytes, key: str) -> bytes:
    """Return a filler for an entry; below the top level without brackets, which would nest deeper than the file."""
    value = b"0" if deep else b"{}"
    return b'"%b":%b' % (key.encode(), value) if (deep or b"%c" % kind)[-1] == _DICT else value


def _made_up(deep: bytes, comma: bool, deep_behind: bytes, comma_behind: bool) -> int:
    """Return how many elements of a part of a list are fillers, or the rest of an element that was counted before."""
    return int(bool(deep) or comma) + int(comma_behind and not deep_behind)


def _open(value: object) -> list[Any] | dict[str, Any] | int | str:
    """Return a list, an object or a count; for other values, a text that says what it is."""
    if not isinstance(value, msgspec.Raw):  # Python had to read it
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT:
            return value
        return value if isinstance(value, (list, dict)) else f"the value {str(value)[:40]!r}"
    text = memoryview(value)
    if text[0] in _VALUES:
        opened: list[Any] | dict[str, Any] = _VALUES[text[0]].decode(text)
        return opened
    if bytes(text[:1]).isdigit():
        try:
            return msgspec.json.decode(text, type=_Count)
        except msgspec.ValidationError:
            pass
    return f"the value {bytes(text[:40])!r}"


def _reason(error: Exception) -> tuple[str, int | None]:
    """Split the message of a parser into reason and position."""
    if isinstance(error, json.JSONDecodeError):
        return error.msg, len(error.doc[: error.pos].encode())
    found = _POSITION.search(str(error))
    return (str(error)[: found.start()], int(found[1])) if found else (str(error), None)
