"""What the tests of components share: a reader over bytes that notes what was read, and looks by one call."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

from novabackup.components import Component
from novabackup.format.records import Problem, Report
from novabackup.storage.base import Entry, Reader


class NotingReader(Reader):
    """Reads bytes; ``ranges`` holds what was asked for, ``given`` whether the whole was handed out as a file."""

    def __init__(self, data: bytes, key: str) -> None:
        self.entry = Entry(key=key, size=len(data), identity="1", modified=0.0)
        self.ranges: list[tuple[int, int]] = []
        self.given = 0
        self._data = data
        self._files: list[BinaryIO] = []

    def read(self, start: int, length: int) -> bytes:
        assert start >= 0
        assert start + length <= self.entry.size, "a component asked for bytes behind the end"
        self.ranges.append((start, length))
        return self._data[start : start + length]

    def confirm(self) -> None:
        pass

    def file(self) -> BinaryIO:
        self.given += 1
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the reader
        file.write(self._data)
        file.seek(0)
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()


def inspect(component: Component, data: bytes) -> Report:
    """Take the cheap look."""
    with NotingReader(data, component.path) as reader:
        return component.inspect(reader)


def examine(component: Component, data: bytes) -> tuple[Report, tuple[Problem, ...]]:
    """Take the thorough look after the cheap one; all problems of both."""
    with NotingReader(data, component.path) as reader:
        report = component.inspect(reader)
        return report, (*report.problems, *component.examine(reader, report))


def only(problems: tuple[Problem, ...]) -> Problem:
    """Expect one problem, of the kind that names one damaged file and says what to do."""
    assert len(problems) == 1, problems
    assert problems[0].code == "damaged"
    assert len(problems[0].paths) == 1
    assert "expected" in problems[0].message
    assert "found" in problems[0].message
    assert "restore it" in problems[0].message
    return problems[0]


PACKAGE = Path(__file__).parents[2] / "novabackup" / "components"
