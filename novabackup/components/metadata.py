"""Counts the entries of metadata files in JSON and JSON Lines, and notices those that were cut off."""

from __future__ import annotations

import codecs
import io
import json
import re
from typing import Annotated

import attrs
import msgspec

from novabackup.components import child
from novabackup.components.base import Component, check_single, damage
from novabackup.model import Problem, Report
from novabackup.storage.base import RawReader, Reader

__all__ = ["JsonLines", "Metadata"]

_BOM = codecs.BOM_UTF8
_SPACE = b" \t\r\n"
# What json.dump writes and json.load reads although it is no JSON: these words, and escapes of half a character.
_PYTHON_ONLY = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
_MEMORY = 256 << 20
_MEMORY_FACTOR = 32
_SECONDS = 60.0
_SECONDS_PER_BYTE = 1e-6
_BLOCK = 1 << 20
_MAX_COUNT = (1 << 63) - 1
_Count = Annotated[int, msgspec.Meta(le=_MAX_COUNT)]
_AGAIN = "Write it anew, or restore it from a snapshot"


class _WrongError(ValueError):
    """The content is not what it should be; the text says how."""


@attrs.frozen
class Metadata(Component):
    """A JSON file with one entry for each vector: a list, an object keyed by id, or an object that states the count.

    The whole file is read and parsed, since JSON tells its length nowhere; values are not turned into Python objects,
    so the memory taken is about the size of the file.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        count_key: Name of the value of a top-level object that states the count: an integer, or a list or an object
            whose length it is. Without it, the length of the top-level list or object is the count.
    """

    path: str = attrs.field(validator=check_single)
    count_key: str | None = attrs.field(default=None, kw_only=True)

    def inspect(self, reader: Reader) -> Report:
        """Parse the file and count its entries.

        Args:
            reader: The file, opened.

        Returns:
            Count and shape; a problem where the file is no JSON or states no count.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
        """
        report = Report(component=type(self).__name__, path=self.path, exists=True, size=reader.entry.size)
        try:
            kind, count = self._count(reader)
        except _WrongError as error:
            return attrs.evolve(report, problems=(damage(self.path, f"{error}. {_AGAIN}"),))
        return attrs.evolve(report, kind=kind, count=count)

    def _count(self, reader: Reader) -> tuple[str, int]:
        if not reader.entry.size:
            raise _WrongError("expected JSON, found an empty file")
        data = reader.read(0, reader.entry.size)
        _check_text(data)
        view = memoryview(data)[len(_BOM) if data.startswith(_BOM) else 0 :]
        try:
            return self._parse(view)
        except RecursionError:
            raise _WrongError("expected metadata as JSON, found JSON nested too deeply to be read") from None
        except msgspec.DecodeError as error:
            if not _PYTHON_ONLY.search(data):
                raise _WrongError(f"expected JSON, found {len(data)} bytes that are not: {error}") from error
        return self._ask_python(reader)

    def _parse(self, view: memoryview) -> tuple[str, int]:
        start = bytes(view[:64]).lstrip(_SPACE)[:1]
        if start == b"[" and self.count_key is None:
            return "list", len(msgspec.json.decode(view, type=list[msgspec.Raw]))
        if start == b"{" and self.count_key is None:
            return "dict", len(msgspec.json.decode(view, type=dict[str, msgspec.Raw]))
        # The start may lie behind more white space than was looked at, or be no container at all: let the parser say.
        raw = msgspec.json.decode(view, type=msgspec.Raw)
        body = memoryview(raw)
        shape = {b"[": "list", b"{": "dict"}.get(bytes(body[:1]))
        if shape == "list" and self.count_key is None:
            return shape, len(msgspec.json.decode(body, type=list[msgspec.Raw]))
        if shape != "dict":
            raise self._no_count(shape or "a single value")
        entries = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if self.count_key is None:
            return shape, len(entries)
        return shape, self._stated(entries)

    def _stated(self, entries: dict[str, msgspec.Raw]) -> int:
        assert self.count_key is not None
        if self.count_key not in entries:
            raise self._no_count("an object without it")
        raw = entries[self.count_key]
        first = bytes(memoryview(raw)[:1])
        if first == b"[":
            return len(msgspec.json.decode(raw, type=list[msgspec.Raw]))
        if first == b"{":
            return len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
        if first.isdigit():
            try:
                return msgspec.json.decode(raw, type=_Count)
            except msgspec.ValidationError:
                pass
        raise self._no_count(f"the value {bytes(memoryview(raw)[:40])!r}")

    def _no_count(self, found: str) -> _WrongError:
        if self.count_key is None:
            return _WrongError(f"expected a JSON list or object, found {found}")
        return _WrongError(f"expected an object that states a count as {self.count_key!r}, found {found}")

    def _ask_python(self, reader: Reader) -> tuple[str, int]:
        size = reader.entry.size
        limits = child.Limits(memory=_MEMORY + _MEMORY_FACTOR * size, seconds=_SECONDS + size * _SECONDS_PER_BYTE)
        outcome = child.run("_json_child.py", reader, {"count_key": self.count_key}, limits)
        if outcome.failure is not None:
            raise _WrongError(f"expected JSON, found {size} bytes that are not: {outcome.failure}")
        if outcome.answer["count"] is None:
            raise self._no_count(f"a {outcome.answer['shape']} that is none")
        return str(outcome.answer["shape"]), int(outcome.answer["count"])


@attrs.frozen
class JsonLines(Component):
    """A JSON Lines file: one JSON value to a line, and one line for each vector; blank lines do not count.

    Attributes:
        path: The file.
        optional: Absence is no problem.
    """

    path: str = attrs.field(validator=check_single)

    def inspect(self, reader: Reader) -> Report:
        """Parse every line; the memory taken is that of the longest line.

        Args:
            reader: The file, opened.

        Returns:
            The number of lines that are not blank; a problem that names the first line that is no JSON.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
        """
        report = Report(
            component=type(self).__name__, path=self.path, exists=True, size=reader.entry.size, kind="JSON Lines"
        )
        count = 0
        with io.BufferedReader(RawReader(reader), _BLOCK) as lines:
            for number, whole in enumerate(lines, start=1):
                line = whole.removeprefix(_BOM) if number == 1 else whole
                if not line.strip(_SPACE):
                    continue
                problem = self._check(number, line, last=not whole.endswith(b"\n"))
                if problem is not None:
                    return attrs.evolve(report, problems=(problem,))
                count += 1
        return attrs.evolve(report, count=count)

    def _check(self, number: int, line: bytes, *, last: bool) -> Problem | None:
        try:
            _check_text(line)
            msgspec.json.decode(line, type=msgspec.Raw)
        except RecursionError:
            reason = "nested too deeply to be read"
        except _WrongError as error:
            reason = str(error)
        except msgspec.DecodeError as error:
            reason = "" if _python_reads(line) else str(error)
        else:
            return None
        if not reason:
            return None
        cut = " (the last line, without an end: the file was probably cut off)" if last else ""
        return damage(self.path, f"expected one JSON value in line {number}{cut}, found {reason}. {_AGAIN}")


def _check_text(data: bytes) -> None:
    """Raise where bytes are not UTF-8, which the JSON parser does not look at in values that it only skips."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    try:
        for start in range(0, len(view), _BLOCK):
            decoder.decode(view[start : start + _BLOCK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _WrongError(f"expected UTF-8 text, found bytes that are not: {error.reason}") from error


def _python_reads(line: bytes) -> bool:
    """Tell whether Python's json reads a line although it is no JSON."""
    if not _PYTHON_ONLY.search(line):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
