"""Metadata in JSON and JSON Lines: counts the entries, and notices files that are truncated."""

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
from novabackup.components.base import OneFile
from novabackup.format.records import Report
from novabackup.storage.base import Reader
from novabackup.storage.raw import RawReader

__all__ = ["JsonLines", "Metadata"]

_BLOCK = 1 << 20


@attrs.frozen
class Metadata(OneFile):
    """A JSON file with one entry for each vector: a list, an object keyed by id, or an object that states the count.

    The whole file is read and parsed, since JSON states no lengths, but only a part of it is in memory at a time:
    a few megabytes, with eight bytes for each key of an object, or the longest single string.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        count_key: Name of the value of a top-level object that states the count: an integer, or a list or an object
            whose length it is. Without it, the length of the top-level list or object is the count.
    """

    count_key: str | None = attrs.field(default=None, kw_only=True)

    def inspect(self, reader: Reader) -> Report:
        """Parse the file and count its entries; report a problem if it is no JSON or states no count."""
        report = self._present(reader)
        try:
            if not reader.entry.size:
                raise NotJsonError("expected JSON, found an empty file")
            kind, count = measure(reader, self.count_key)
        except NotJsonError as error:
            return self._damaged(report, str(error))
        except NoCountError as error:
            what = "a JSON list or object"
            if self.count_key is not None:
                what = f"an object that states a count as {self.count_key!r}"
            return self._damaged(report, f"expected {what}, found {error}")
        return attrs.evolve(report, kind=kind, count=count)


@attrs.frozen
class JsonLines(OneFile):
    """A JSON Lines file: one JSON value to a line, and one line for each vector; blank lines do not count.

    Attributes:
        path: The file.
        optional: Absence is no problem.
    """

    def inspect(self, reader: Reader) -> Report:
        """Count the lines that are not blank; report a problem that names the first line that is no JSON.

        The memory taken is that of the longest line.
        """
        report = attrs.evolve(self._present(reader), kind="JSON Lines")
        count = 0
        with io.BufferedReader(RawReader(reader), _BLOCK) as lines:
            for number, whole in enumerate(lines, start=1):
                line = whole.removeprefix(BOM) if number == 1 else whole
                if not line.strip(SPACE):
                    continue
                reason = _not_json(line)
                if reason is not None:
                    where = f"line {number}"
                    if not whole.endswith(b"\n"):
                        where += " (the last line, without an end: the file was probably cut off)"
                    return self._damaged(report, f"expected one JSON value in {where}, found {reason}")
                count += 1
        return attrs.evolve(report, count=count)


def _not_json(line: bytes) -> str | None:
    """Return why a line is no JSON value; None if it is one, or if Python's json reads it."""
    try:
        check_text(line)
        msgspec.json.decode(line, type=msgspec.Raw)
    except RecursionError:
        return "nested too deeply to be read"
    except NotJsonError as error:
        return str(error)
    except msgspec.DecodeError as error:
        return None if python_reads(line) else str(error)
    return None
