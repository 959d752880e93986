"""Verify a snapshot, from its record up to the answers of its restored indexes: `execute`."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import numpy as np
from fsspec.callbacks import Callback

from novabackup._support import html
from novabackup._support.scratch import scratch
from novabackup.errors import CheckFailedError, ConfigurationError, IntegrityError
from novabackup.format.records import FileEntry, Point, Problem, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.objects.reader import blocks
from novabackup.operations import thaw
from novabackup.store import checks
from novabackup.store.questions import Repeated, repeat
from novabackup.store.reports import Reports
from novabackup.store.store import IndexStore


class Level(enum.StrEnum):
    """How thorough a verification is; each level includes those before it."""

    STRUCTURE = "structure"
    """The record can be read, the packs exist, and their tables hold what the record names."""
    HASHES = "hashes"
    """Every byte is read and compared with its hash."""
    OPEN = "open"
    """The files are restored to a folder for temporary files, opened, and compared with each other."""
    QUERIES = "queries"
    """The queries that were recorded with the snapshot are repeated, and have the same answers."""


@attrs.frozen(kw_only=True)
class Verification:
    """The result of a successful verification.

    Attributes:
        snapshot: Id of the snapshot.
        level: How thorough it was.
        files: Number of its files.
        size: Bytes of its files.
        seconds: Duration of each step.
        reports: Reports of the components on the restored files; empty below `Level.OPEN`.
        queries: Number of recorded queries that were repeated.
        notes: What could not be verified, and why.
    """

    snapshot: str
    level: Level
    files: int
    size: int
    seconds: Mapping[str, float]
    reports: Reports = attrs.field(factory=Reports)
    queries: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        took = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in self.seconds.items())
        asked = f", {self.queries} queries repeated" if self.level is Level.QUERIES else ""
        lines = [f"{self.snapshot}: {self.files} files, {html.size(self.size)}, right in {self.level} ({took}){asked}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


class Stopwatch:
    """Measures how long each step of an operation takes, in ``seconds``."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._timer = timer

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, even if it fails."""
        begun = self._timer()
        try:
            yield
        finally:
            self.seconds[name] = self._timer() - begun


@attrs.frozen(kw_only=True)
class Trial:
    """What was found when a restored store was opened and queried.

    Attributes:
        reports: Reports of its components.
        repeated: Results of the recorded queries.
        problems: What is wrong now and was not when the snapshot was taken, other answers included.
        notes: What could not be verified, and why.
    """

    reports: Reports
    repeated: Repeated = attrs.field(factory=Repeated)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def execute(
    objects: Objects,
    point: Point,
    level: Level | str,
    restore: Callable[[str], IndexStore],
    folder: str | os.PathLike[str] | None,
    callback: Callback,
) -> Verification:
    """Verify a snapshot.

    Args:
        objects: The repository.
        point: The snapshot.
        level: How thoroughly.
        restore: Restores it to a path, and returns the store there.
        folder: Where to restore it to temporarily; by default the system's folder for temporary files.
        callback: Progress in bytes (an fsspec callback).

    Raises:
        ConfigurationError: There is no such level.
        ArchivedError: Content has to be thawed first.
        IntegrityError: The repository does not hold what the snapshot names.
        CheckFailedError: It does, but the indexes do not open here, do not agree, or have other answers.
    """
    name, record = point.id, point.record
    level = _level(level)
    thaw.require_readable(objects, point, f"verifying {level} reads the packs")
    watch = Stopwatch()
    callback.set_size(record.size)
    trial = Trial(reports=Reports())
    if level is Level.STRUCTURE:
        with watch.step("structure"):
            _require(objects, point, (_structure(objects, entry) for entry in record.files))
    elif level is Level.HASHES:
        with watch.step("hashes"):
            _require(objects, point, (_hashes(objects, entry, callback) for entry in record.files))
    else:  # a restore compares every byte with its hash
        with scratch(folder, record.size) as place:
            with watch.step("restore"):
                store = restore(str(place))
            trial = open_and_query(store, record, watch, level)
    if trial.problems:
        raise CheckFailedError(
            f"snapshot {name} of {objects.url} was restored byte for byte, but did not pass the level {level} here. "
            "Compare with where it was taken: Snapshot.compatibility() lists the differences. Found",
            trial.problems,
        )
    return Verification(
        snapshot=name,
        level=level,
        files=len(record.files),
        size=record.size,
        seconds=watch.seconds,
        reports=trial.reports,
        queries=trial.repeated.number,
        notes=trial.notes,
    )


def _level(value: Level | str) -> Level:
    try:
        return Level(value)
    except ValueError:
        raise ConfigurationError(f"level= is one of {', '.join(Level)}, found {value!r}") from None


def _require(objects: Objects, point: Point, damage: Iterator[tuple[Problem, ...]]) -> None:
    found = list(damage)
    problems = [problem for some in found for problem in some]
    if problems:
        raise IntegrityError(
            f"{sum(map(bool, found))} of {len(point.record.files)} files of snapshot {point.id} in {objects.url} are "
            "damaged. Restore the others with paths=, and these from another snapshot or copy of the repository",
            problems,
        )


def _structure(objects: Objects, entry: FileEntry) -> tuple[Problem, ...]:
    """Check that the chunks of a file exist, without reading them."""
    try:
        size = 0
        for pack, first, count in objects.packs.runs(entry).tolist():
            sizes = objects.packs.table(entry.packs[pack], reaching=first + count).sizes[first : first + count]
            size += int(sizes.sum(dtype=np.int64))
    except IntegrityError as error:
        return error.problems or (Problem(code="damaged", paths=(entry.path,), message=str(error)),)
    if size != entry.size:
        message = f"expected chunks of {entry.size} bytes, found {size}. Restore it from another snapshot"
        return (Problem(code="damaged", paths=(entry.path,), message=message),)
    return ()


def _hashes(objects: Objects, entry: FileEntry, callback: Callback) -> tuple[Problem, ...]:
    try:
        for block in blocks(objects, entry):
            callback.relative_update(len(block))
    except IntegrityError as error:
        return error.problems
    return ()


def open_and_query(store: IndexStore, record: SnapshotRecord, watch: Stopwatch, level: Level = Level.QUERIES) -> Trial:
    """Open a restored store and, at `Level.QUERIES`, repeat the recorded queries; ``watch`` measures both."""
    with watch.step("open"):
        reports, problems = store.judge({})
        new = checks.new_problems(record.problems, problems)
    notes = [
        f"{problem.code} was already found when the snapshot was taken" for problem in problems if problem not in new
    ]
    if level is not Level.QUERIES:
        return Trial(reports=reports, problems=tuple(new), notes=tuple(notes))
    with watch.step("queries"):
        repeated = repeat(store, record.probes)
    return Trial(
        reports=reports,
        repeated=repeated,
        problems=(*new, *repeated.problems),
        notes=(*notes, *repeated.notes),
    )
