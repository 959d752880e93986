"""Drills: restore an old snapshot elsewhere, and record whether and how fast it works: `plan` and `execute`."""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from novabackup._support import commands, html
from novabackup._support.scratch import scratch
from novabackup._support.tables import TableData, Tabular
from novabackup.errors import ArchivedError, CheckFailedError, IntegrityError, NotFoundError, NovaBackupError
from novabackup.format.layout import DRILL_NAME, DRILLS
from novabackup.format.records import FAILED_TAG, Drill, Problem, SnapshotRecord
from novabackup.objects.access import Access
from novabackup.objects.objects import Objects
from novabackup.operations import thaw
from novabackup.operations.compatibility import compare, here, versions
from novabackup.operations.verify import Stopwatch, Trial, open_and_query
from novabackup.store.reports import Reports
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")
_DRILLS_KEPT = 100

FOLDER_VARIABLE = "NOVABACKUP_DRILL_FOLDER"
"""Environment variable with the folder of the restored store, for a command."""
SNAPSHOT_VARIABLE = "NOVABACKUP_DRILL_SNAPSHOT"
"""Environment variable with the id of the snapshot, for a command."""


def _command(value: Sequence[str]) -> tuple[str, ...]:
    return commands.arguments(value) if value else ()


@attrs.frozen(kw_only=True)
class Rules:
    """What a drill has to pass, and where it takes place.

    Attributes:
        command: Program and arguments of the user's own, such as ``["pytest", "tests/test_retrieval.py"]``; it passes
            with exit status 0. Empty for none.
        working_folder: Where the command runs; by default in the restored store.
        command_timeout: Seconds that the command may take.
        rto: Seconds that restoring, opening and the queries may take together; None for no limit.
        folder: Where the snapshot is restored to temporarily; by default the system's folder for temporary files.
    """

    command: Sequence[str] = attrs.field(default=(), converter=_command)
    working_folder: str | os.PathLike[str] | None = None
    command_timeout: float = attrs.field(default=600.0, validator=attrs.validators.gt(0.0))
    rto: float | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.gt(0.0)))
    folder: str | os.PathLike[str] | None = None


@attrs.frozen(kw_only=True)
class DrillPlan(Tabular):
    """Which snapshot a drill restores.

    Attributes:
        snapshot: Its id.
        store: URL of the store that it was taken of.
        size: Bytes that are restored.
        candidates: Ids of all snapshots that it was chosen from.
    """

    snapshot: str
    store: str
    size: int
    candidates: tuple[str, ...]

    def _table(self) -> TableData:
        row = (self.snapshot, self.store, html.size(self.size), len(self.candidates))
        return "Drill", ["snapshot", "store", "to restore", "chosen from"], [row]


def plan(objects: Objects, store: str | None, chance: random.Random) -> DrillPlan:
    """Choose a snapshot of a store, or of any, at random: healthy, not the newest of its store, and readable now.

    Raises:
        NotFoundError: There is no such snapshot.
        ArchivedError: All such snapshots have to be thawed first.
    """
    known = [point for point in objects.records.newest_first() if store in (None, point.record.store)]
    newest: dict[str, str] = {}
    for point in known:
        newest.setdefault(point.record.store, point.id)
    fitting = {
        point.id: point for point in known if point.id != newest[point.record.store] and _is_healthy(point.record)
    }
    if not fitting:
        raise NotFoundError(
            f"{objects.url} has no snapshot for a drill{f' of {store}' if store else ''}: expected one that is "
            f"healthy, not empty, and not the newest of its store, found {len(known)} others. Take more, or name one"
        )
    names = sorted(fitting)
    for name in chance.sample(names, len(names)):
        if not thaw.plan(objects, fitting[name]):
            record = fitting[name].record
            return DrillPlan(snapshot=name, store=record.store, size=record.size, candidates=tuple(names))
    raise ArchivedError(
        f"{objects.url}: each of the {len(names)} snapshots that a drill could restore lies in an archive. Thaw one "
        "with Snapshot.thaw(), then name it"
    )


def _is_healthy(record: SnapshotRecord) -> bool:
    return bool(record.files) and not record.problems and FAILED_TAG not in record.tags


def execute(
    objects: Objects,
    name: str,
    store: IndexStore,
    rules: Rules,
    restore: Callable[[IndexStore], object],
    *,
    timer: Callable[[], float] | None = None,
) -> Drill:
    """Restore, open, query and run a command; record the result, success or failure.

    Args:
        objects: The repository.
        name: Id of the snapshot.
        store: Describes the kind of store.
        rules: What it has to pass.
        restore: Restores the snapshot to a store.
        timer: Monotonic clock in seconds.

    Returns:
        The result.

    Raises:
        IntegrityError: It failed because content is damaged.
        CheckFailedError: It failed for another reason.
        OSError: It could not take place: there is no room.
    """
    point = objects.records.point(name)
    record = point.record
    thaw.require_readable(objects, point, "a drill restores it")
    began = datetime.now(UTC)
    watch = Stopwatch(timer) if timer else Stopwatch()
    with scratch(rules.folder, record.size) as place:
        restored = store.at(place)
        failure = _restore(restore, restored, watch)
        trial, done = Trial(reports=Reports()), None
        if failure is None:
            trial = open_and_query(restored, record, watch)
            done = _run(rules, name, place, watch)
    concerns = compare(record, here())
    drill = Drill(
        time=began,
        snapshot=name,
        store=record.store,
        host=socket.gethostname(),
        versions=dict(versions()),
        size=record.size,
        milliseconds={step: round(1000 * seconds) for step, seconds in watch.seconds.items()},
        rto_milliseconds=None if rules.rto is None else round(1000 * rules.rto),
        queries=trial.repeated.number,
        command=tuple(rules.command),
        status=done.status if done else None,
        output=done.output if done else "",
        notes=(*trial.notes, *(str(concern) for concern in concerns)),
        problems=(*_not_restored(failure), *trial.problems, *_command_failed(rules, done)),
    )
    drill = attrs.evolve(drill, problems=(*drill.problems, *_too_slow(drill)))
    _record(objects, drill)
    if drill.good:
        _LOG.info("%s", drill)
        return drill
    text = f"the drill of snapshot {name} of {objects.url} failed; its result is in Repository.drills(). Found"
    if isinstance(failure, IntegrityError):
        raise IntegrityError(text, drill.problems) from failure
    raise CheckFailedError(text, drill.problems) from failure


def _restore(
    restore: Callable[[IndexStore], object], store: IndexStore, watch: Stopwatch
) -> NovaBackupError | OSError | None:
    """Restore like any user would; return the error, which is what a drill is there to find."""
    try:
        with watch.step("restore"):
            restore(store)
    except (NovaBackupError, OSError) as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, Exception):
            raise error.__cause__ from None  # a keyboard interrupt is no result
        return error
    return None


def _not_restored(failure: NovaBackupError | OSError | None) -> tuple[Problem, ...]:
    if failure is None:
        return ()
    if isinstance(failure, IntegrityError) and failure.problems:
        return failure.problems
    message = f"expected a restore of all files, found {type(failure).__name__}: {failure}"
    return (Problem(code="not-restored", message=message),)


def _run(rules: Rules, snapshot: str, place: Path, watch: Stopwatch) -> commands.Outcome | None:
    if not rules.command:
        return None
    with watch.step("command"):
        return commands.run(
            rules.command,
            timeout=rules.command_timeout,
            environment={**os.environ, FOLDER_VARIABLE: str(place), SNAPSHOT_VARIABLE: snapshot},
            folder=place if rules.working_folder is None else rules.working_folder,
        )


def _command_failed(rules: Rules, done: commands.Outcome | None) -> tuple[Problem, ...]:
    if done is None or done.good:
        return ()
    message = f"expected exit status 0 of {rules.command[0]}, found {done}"
    return (Problem(code="command-failed", message=message),)


def _too_slow(drill: Drill) -> tuple[Problem, ...]:
    limit = drill.rto_milliseconds
    if limit is None or drill.recovery_milliseconds <= limit:
        return ()
    steps = ", ".join(f"{step} {took / 1000:g} s" for step, took in drill.milliseconds.items() if step != "command")
    message = (
        f"expected a recovery within {limit / 1000:g} s, found that it took {drill.recovery_milliseconds / 1000:g} s "
        f"({steps}). Keep a copy of the repository closer, or allow more"
    )
    return (Problem(code="too-slow", message=message),)


def drill_keys(access: Access) -> list[str]:
    """List the keys of existing results, oldest first, readable or not."""
    return sorted(filter(DRILL_NAME.fullmatch, access.storage.keys(DRILLS)))


def results(access: Access) -> list[Drill]:
    """Read the results of drills, oldest first; results that cannot be read are skipped with a warning."""
    found = (drill for _key, drill in access.readable_records(drill_keys(access), Drill))
    return sorted(found, key=lambda drill: drill.time)  # keys have whole seconds, and several may share one


def write_result(access: Access, drill: Drill) -> None:
    """Write a result, and delete the oldest of many."""
    access.write_dated(DRILLS, drill)
    for old in drill_keys(access)[:-_DRILLS_KEPT]:
        try:
            access.storage.delete(old)
        except PermissionError as error:
            _LOG.info("%s stays: %s", old, error)


def _record(objects: Objects, drill: Drill) -> None:
    """Record the result; if that fails, only log it, since the caller gets the result anyway."""
    try:
        write_result(objects.access, drill)
    except OSError as error:
        _LOG.error("%s: the result of the drill could not be recorded: %s", objects.url, error)
