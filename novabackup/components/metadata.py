"""Counts the entries of metadata files in JSON and JSON Lines, and notices those that were cut off."""

from __future__ import annotations

import io

import attrs
import msgspec

from novabackup.components._json_count import (
    BOM,
    SPACE,
    NoCountError,
    NotJsonError,
    check_text,
    measure,
    python_reads,
)
from novabackup.components.base import Component, check_single, damage
from novabackup.format.records import Problem, Report
from novabackup.storage.base import Reader
from novabackup.storage.raw import RawReader

__all__ = ["JsonLines", "Metadata"]

_BLOCK = 1 << 20
_AGAIN = "Write it anew, or restore it from a snapshot"


@attrs.frozen
class Metadata(Component):
    """A JSON file with one entry for each vector: a list, an object keyed by id, or an object that states the count.

    The whole file is read and parsed, since JSON tells its length nowhere, but only a piece of it is held at a time:
    a few megabytes, with eight bytes for each key of an object, or the longest single string.

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
            if not reader.entry.size:
                raise NotJsonError("expected JSON, found an empty file")
            kind, count = measure(reader, self.count_key)
        except NotJsonError as error:
            return attrs.evolve(report, problems=(damage(self.path, f"{error}. {_AGAIN}"),))
        except NoCountError as error:
            what = "a JSON list or object"
            if self.count_key is not None:
                what = f"an object that states a count as {self.count_key!r}"
            return attrs.evolve(report, problems=(damage(self.path, f"expected {what}, found {error}. {_AGAIN}"),))
        return attrs.evolve(report, kind=kind, count=count)


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
                line = whole.removeprefix(BOM) if number == 1 else whole
                if not line.strip(SPACE):
                    continue
                problem = self._check(number, line, last=not whole.endswith(b"\n"))
                if problem is not None:
                    return attrs.evolve(report, problems=(problem,))
                count += 1
        return attrs.evolve(report, count=count)

    def _check(self, number: int, line: bytes, *, last: bool) -> Problem | None:
        try:
            check_text(line)
            msgspec.json.decode(line, type=msgspec.Raw)
        except RecursionError:
            reason = "nested too deeply to be read"
        except NotJsonError as error:
            reason = str(error)
        except msgspec.DecodeError as error:
            reason = "" if python_reads(line) else str(error)
        else:
            return None
        if not reason:
            return None
        cut = " (the last line, without an end: the file was probably cut off)" if last else ""
        return damage(self.path, f"expected one JSON value in line {number}{cut}, found {reason}. {_AGAIN}")
