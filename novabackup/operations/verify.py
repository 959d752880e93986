"""How far a snapshot is looked into before it is believed: from its record to the answers of its restored indexes."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import attrs
import numpy as np
from fsspec.callbacks import Callback

from novabackup._support import html as _html
from novabackup._support.scratch import scratch
from novabackup.errors import CheckFailedError, ConfigurationError, IntegrityError
from novabackup.format.records import FileEntry, Problem, SnapshotRecord
from novabackup.objects.packs import Objects
from novabackup.objects.reader import blocks
from novabackup.operations import thaw
from novabackup.store import checks
from novabackup.store.questions import Repeated, repeat
from novabackup.store.reports import Reports
from novabackup.store.store import IndexStore

__all__ = ["Level", "Stopwatch", "Tried", "Verification", "execute", "try_out"]


class Level(enum.StrEnum):
    """How thorough a verification is; each does what those before it do."""

    STRUCTURE = "structure"
    """The record can be read, the packs are there, and their tables hold what the record names."""
    HASHES = "hashes"
    """Every byte is read and compared with its hash."""
    OPEN = "open"
    """The files are restored to a folder for temporary files, opened, and compared with each other."""
    QUERIES = "queries"
    """The queries that were recorded with the snapshot are put again, and answered as they were."""


@attrs.frozen(kw_only=True)
class Verification:
    """What was verified, and found to be right.

    Attributes:
        snapshot: Id of the snapshot.
        level: How thorough it was.
        files: How many files it has.
        size: Bytes of them.
        seconds: How long each step took.
        reports: What the components said of the restored files; empty below `Level.OPEN`.
        queries: How many recorded queries were repeated.
        notes: What could not be tried, and why.
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
        lines = [f"{self.snapshot}: {self.files} files, {_html.size(self.size)}, right in {self.level} ({took}){asked}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


class Stopwatch:
    """Times the steps of some work.

    Attributes:
        seconds: How long each step took, in order.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        """Have timed nothing yet.

        Args:
            timer: Tells seconds that only go forward.
        """
        self.seconds: dict[str, float] = {}
        self._timer = timer

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, also one that fails."""
        begun = self._timer()
        try:
            yield
        finally:
            self.seconds[name] = self._timer() - begun


@attrs.frozen(kw_only=True)
class Tried:
    """What a restored store was like.

    Attributes:
        reports: Of its components.
        repeated: What became of the recorded queries.
        problems: What is wrong now and was not when the snapshot was taken; other answers among it.
        notes: What could not be tried, and why.
    """

    reports: Reports
    repeated: Repeated = attrs.field(factory=Repeated)
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def execute(
    objects: Objects,
    point: tuple[str, SnapshotRecord],
    level: Level | str,
    restore: Callable[[str], IndexStore],
    folder: str | os.PathLike[str] | None,
    callback: Callback,
) -> Verification:
    """Verify a snapshot.

    Args:
        objects: The repository.
        point: Id and record.
        level: How thoroughly.
        restore: Restores it to a path, and gives the store there.
        folder: Where, for a while.
        callback: Told of the bytes.

    Returns:
        What was done.

    Raises:
        ConfigurationError: There is no such level.
        ArchivedError: Content has to be thawed first.
        IntegrityError: The repository does not hold what the snapshot names.
        CheckFailedError: It does, and the indexes do not open here, do not agree, or answer otherwise.
    """
    name, record = point
    level = _level(level)
    thaw.require_readable(objects, name, record, f"verifying {level} reads the packs")
    watch = Stopwatch()
    callback.set_size(record.size)
    tried = Tried(reports=Reports())
    if level is Level.STRUCTURE:
        with watch.step("structure"):
            _require(objects, name, record, (_structure(objects, entry) for entry in record.files))
    elif level is Level.HASHES:
        with watch.step("hashes"):
            _require(objects, name, record, (_hashes(objects, entry, callback) for entry in record.files))
    else:  # each byte is compared with its hash on the way
        with scratch(folder, record.size) as place:
            with watch.step("restore"):
                store = restore(str(place))
            tried = try_out(store, record, watch, level)
    if tried.problems:
        raise CheckFailedError(
            f"snapshot {name} of {objects.url} was restored, byte for byte, and did not pass the level {level} here. "
            "Compare with where it was taken: Snapshot.compatibility() says what is different. Found",
            tried.problems,
        )
    return Verification(
        snapshot=name,
        level=level,
        files=len(record.files),
        size=record.size,
        seconds=watch.seconds,
        reports=tried.reports,
        queries=tried.repeated.number,
        notes=tried.notes,
    )


def _level(value: Level | str) -> Level:
    try:
        return Level(value)
    except ValueError:
        raise ConfigurationError(f"level= is one of {', '.join(Level)}, found {value!r}") from None


def _require(objects: Objects, name: str, record: SnapshotRecord, damage: Iterator[tuple[Problem, ...]]) -> None:
    found = list(damage)
    problems = [problem for some in found for problem in some]
    if problems:
        raise IntegrityError(
            f"{sum(map(bool, found))} of {len(record.files)} files of snapshot {name} in {objects.url} are "
            "damaged. Restore the others with paths=, and these from another snapshot or copy of the repository",
            problems,
        )


def _structure(objects: Objects, entry: FileEntry) -> tuple[Problem, ...]:
    """Follow a file to its chunks, without reading them."""
    try:
        size = 0
        for pack, first, count in objects.runs(entry).tolist():
            sizes = objects.table(entry.packs[pack], reaching=first + count).sizes[first : first + count]
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


def try_out(store: IndexStore, record: SnapshotRecord, watch: Stopwatch, level: Level = Level.QUERIES) -> Tried:
    """Open a store that was restored, and ask it what it was asked when the snapshot was taken.

    Args:
        store: The store.
        record: The snapshot.
        watch: Times the steps ``open`` and ``queries``.
        level: Whether to ask at all.
    """
    with watch.step("open"):
        reports, problems = store.judge({})
        new = checks.new_problems(record.problems, problems)
    notes = [
        f"{problem.code} was there already when the snapshot was taken" for problem in problems if problem not in new
    ]
    if level is not Level.QUERIES:
        return Tried(reports=reports, problems=tuple(new), notes=tuple(notes))
    with watch.step("queries"):
        repeated = repeat(store, record.probes)
    return Tried(
        reports=reports,
        repeated=repeated,
        problems=(*new, *repeated.problems),
        notes=(*notes, *repeated.notes),
    )
