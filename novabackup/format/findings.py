"""What is found out by trying: the answers of indexes, and how drills went.

`novabackup.format.records` writes all of them as parts of records, or as records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from novabackup.format.entries import Problem, moment, natural, safe_path

__all__ = ["FORMAT_VERSION", "Drill", "Probe"]

FORMAT_VERSION = 1

_LONGEST = 10**13
"""Milliseconds, some centuries."""


def _finite_numbers(_instance: object, field: attrs.Attribute[Any], values: Sequence[str]) -> None:
    for value in values:
        _text(_instance, field, value)
        if not math.isfinite(float(value)):
            raise ValueError(f"{field.name} holds {value!r}, which is no finite number")


def _texts(_instance: object, field: attrs.Attribute[Any], values: Sequence[str]) -> None:
    for value in values:
        _text(_instance, field, value)


def _text(_instance: object, field: attrs.Attribute[Any], value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{field.name}: expected text, found {type(value).__name__}")
    value.encode()  # half a character, which no record can hold, is a ValueError


def _names(_instance: object, field: attrs.Attribute[Any], values: Sequence[int | str]) -> None:
    for value in values:
        if not isinstance(value, int):
            _text(_instance, field, value)
        elif not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{field.name} holds {value}, which is no id of 64 bits")


def _duration(_instance: object, field: attrs.Attribute[Any], value: int | None) -> None:
    if value is not None and not 0 <= value <= _LONGEST:
        raise ValueError(f"{field.name} is {value} ms, which is impossible")


def _durations(instance: object, field: attrs.Attribute[Any], values: Mapping[str, int]) -> None:
    _duration(instance, field, min(values.values(), default=0))
    _duration(instance, field, sum(values.values()))


@attrs.frozen(kw_only=True)
class Probe:
    """One question to an index, and what the index answered; one of ``vector``, ``words`` and ``text`` is the question.

    Attributes:
        path: The file that was asked; empty where the store as a whole was.
        vector: Half-precision floats, little-endian; for a binary index its bytes as they are.
        words: Tokens, as the BM25 index has them.
        text: What a person would ask.
        ids: What was found, the best first.
        scores: Distance or score of each, as decimal text, since not everybody writes the same float in the same way.
    """

    path: str
    vector: bytes = b""
    words: tuple[str, ...] = attrs.field(default=(), validator=_texts)
    text: str = attrs.field(default="", validator=_text)
    ids: tuple[int | str, ...] = attrs.field(default=(), validator=_names)
    scores: tuple[str, ...] = attrs.field(default=(), validator=_finite_numbers)

    def __attrs_post_init__(self) -> None:
        if self.path:
            safe_path(self, attrs.fields(Probe).path, self.path)
        if [bool(self.vector), bool(self.words), bool(self.text)].count(True) != 1:
            raise ValueError("a probe asks one thing")
        if len(self.ids) != len(self.scores):
            raise ValueError("a probe has a score for each id")


@attrs.frozen(kw_only=True)
class Drill:
    """How it went when a snapshot was restored elsewhere, on trial.

    Attributes:
        version: Format version.
        time: When it began, in UTC, by the clock of the host that did it.
        snapshot: Id of the snapshot.
        store: URL of the store that it was taken of.
        host: Name of the host.
        versions: Versions of Python and of the packages that read such files, there.
        size: Bytes that were restored.
        milliseconds: How long each step took: ``restore``, ``open``, ``queries``, ``command``.
        rto_milliseconds: How long restoring, opening and the queries may take; None if it was not given.
        queries: How many recorded queries were repeated.
        command: The user's own command and its arguments; empty if there was none.
        status: Exit status of the command; None if there was none, or it did not come to that.
        output: The last lines of the command.
        notes: What could not be tried, and why; what differs between there and where the snapshot was taken.
        problems: What failed; empty if all went well.
    """

    version: int = FORMAT_VERSION
    time: datetime = attrs.field(validator=moment)
    snapshot: str
    store: str
    host: str = ""
    versions: dict[str, str] = attrs.field(factory=dict)
    size: int = attrs.field(default=0, validator=natural)
    milliseconds: dict[str, int] = attrs.field(factory=dict, validator=_durations)
    rto_milliseconds: int | None = attrs.field(default=None, validator=_duration)
    queries: int = attrs.field(default=0, validator=natural)
    command: tuple[str, ...] = ()
    status: int | None = None
    output: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def good(self) -> bool:
        """Whether all went well."""
        return not self.problems

    @property
    def recovery_milliseconds(self) -> int:
        """How long it took until the restored store had answered: all but the user's own command."""
        return sum(took for step, took in self.milliseconds.items() if step != "command")

    def __str__(self) -> str:
        word = "passed" if self.good else "FAILED"
        limit = "" if self.rto_milliseconds is None else f" of {self.rto_milliseconds / 1000:g} s allowed"
        took = f"{self.recovery_milliseconds / 1000:.2f} s{limit}"
        lines = [
            f"drill of {self.snapshot} {word}: {took}, {self.queries} queries repeated",
            *(f"  - {problem}" for problem in self.problems),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)
