"""A guarded stretch of work on a store: the journal, the snapshot, the exit checks, the rollback."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup.errors import (
    CheckFailedError,
    ConfigurationError,
    DecryptionError,
    FormatError,
    IntegrityError,
    NovaBackupError,
    RollbackError,
    StoreBusyError,
    causes,
)
from novabackup.format.records import FAILED_TAG, REPLACED_TAG, Point, Problem, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.operations import backup, pins
from novabackup.operations.backup import Request
from novabackup.operations.restore.execute import Kept, execute
from novabackup.operations.restore.plan import RestorePlan, Step, plan
from novabackup.operations.thaw import require_readable
from novabackup.storage import Other
from novabackup.store import checks
from novabackup.store.selection import Selection, find_all
from novabackup.store.store import IndexStore
from novabackup.transaction import journal
from novabackup.transaction.busy import refuse_if_busy_within
from novabackup.transaction.journal import Held
from novabackup.transaction.owner import Life

__all__ = [
    "Recovery",
    "Session",
    "plan_recover",
    "recover",
    "restore",
]

_LOG = logging.getLogger("novabackup")

KEEP_FAILED = 3
"""How many snapshots with `FAILED_TAG` a store keeps: counted, since a clock may lie."""


@attrs.frozen(kw_only=True)
class Recovery:
    """What `recover` did.

    Attributes:
        store: URL of the store.
        phase: How far the interrupted work had come.
        snapshot: Id of the snapshot that the store was brought to; empty if nothing had been touched yet.
        plan: What was done with each file; None if nothing had been touched yet.
        kept: Id of the snapshot that holds what was found before; empty if there is none.
    """

    store: str
    phase: str
    snapshot: str
    plan: RestorePlan | None
    kept: str = ""

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.store}: interrupted before anything was touched; nothing had to be put back"
        return f"{self.store}: interrupted in phase {self.phase}; brought to snapshot {self.snapshot}"


Opener = Callable[[str], Objects]
"""Opens the repository that a journal names."""


class Session:
    """One run of a guarded block."""

    def __init__(self, store: IndexStore, objects: Objects, opener: Opener, callback: Callback) -> None:
        """Prepare; nothing is touched until `enter`.

        Args:
            store: What is guarded.
            objects: Where the snapshot goes.
            opener: Opens another repository, when an interrupted block used one.
            callback: Told of the bytes of the snapshot, or of the rollback.
        """
        self._store = store
        self._objects = objects
        self._opener = opener
        self._callback = callback
        self._pid = os.getpid()
        self._held: Held | None = None
        self._snapshot = ""
        self._record: SnapshotRecord | None = None

    def enter(self, point: Request | Point, *, context: str, timeout: float | None) -> Point:
        """Become the only writer, finish what a dead one left, and fix the point to go back to.

        Args:
            point: What to say of the snapshot that is taken, or a snapshot that is there already.
            context: Thread and task that the guard belongs to.
            timeout: Seconds to wait for another writer.

        Returns:
            Id and record of the snapshot.
        """
        held = _acquire(self._store, self._objects, context, timeout)
        try:
            if _finish_inherited(held, self._store, self._objects, self._opener, self._callback):
                held.update(phase="backup", snapshot="", paths=(), kept="")
            refuse_if_busy_within(self._store, context)
            if isinstance(point, Request):
                _refuse_archive(self._objects)
                avoid = self._objects.packs.frozen
                point = backup.execute(self._objects, self._store, point, self._callback, avoid)
                self._snapshot, self._record = point.id, point.record
            else:
                self._snapshot, self._record = point.id, point.record
                require_readable(self._objects, point.id, point.record, "a block must be able to go back at once")
            held.update(phase="block", repository=self._objects.url, snapshot=self._snapshot, paths=(), kept="")
        except RollbackError:
            raise
        except BaseException:
            _give_up(held)  # nothing of the store has been touched
            raise
        self._held = held
        if self._record.problems:
            _LOG.warning(
                "%s had problems before the block: %s", self._store.url, "; ".join(map(str, self._record.problems))
            )
        return Point(self._snapshot, self._record)

    def exit(self, error: BaseException | None) -> None:
        """End the block: commit what it wrote, or put everything back.

        Args:
            error: What the block raised; None if it ended well.

        Raises:
            CheckFailedError: The block ended well, and the indexes do not agree; they have been rolled back.
            RollbackError: The store could not be put back.
        """
        if os.getpid() != self._pid or self._held is None:
            return  # a forked child leaves the block of its parent
        held, self._held = self._held, None
        if error is None:
            problems: tuple[Problem, ...] = ()
            try:
                problems = self._new_problems()
                if not problems:
                    self._commit(held)
                    return
            except BaseException as caught:
                self._roll_back(held, caught)
                raise
            self._roll_back(held, None)
            raise CheckFailedError(
                f"{self._store.url}: after the block the index files do not belong together, so every file was "
                f"put back to snapshot {self._snapshot}. What the block had written is kept as a snapshot with the tag "
                f"{FAILED_TAG!r}. Found",
                problems,
            )
        self._roll_back(held, error)

    def _new_problems(self) -> tuple[Problem, ...]:
        assert self._record is not None
        known = {entry.path: entry for entry in self._record.files}
        reports, found = self._store.judge(known)
        gone = checks.emptied(reports, known) if checks.all_present in self._store.checks else ()
        problems = (*found, *gone)
        new = checks.new_problems(self._record.problems, problems)
        if problems and not new:
            _LOG.warning("%s still has the problems that it had before the block", self._store.url)
        return tuple(new)

    def _commit(self, held: Held) -> None:
        assert self._record is not None
        # What the block wrote must outlast a power cut before the journal, which could undo it, is given up.
        storage, then = self._store.storage, [entry.path for entry in self._record.files]
        now = find_all(storage, self._store.selection, then, self._objects.url).values()
        storage.sync(sorted({*(item.key for item in now if not isinstance(item, Other)), *then}))
        try:
            held.release()
        except StoreBusyError:
            held.abandon()
            raise

    def _roll_back(self, held: Held, cause: BaseException | None) -> None:
        assert self._record is not None
        try:
            _put_back(held, self._store, self._objects, self._record, FAILED_TAG, self._callback)
            held.release()
        except BaseException as failure:
            held.abandon()
            if isinstance(failure, StoreBusyError):
                raise
            raise RollbackError(
                f"{self._store.url} could not be put back to snapshot {self._snapshot} of {self._objects.url}: "
                f"{failure}. The journal is still there. Remove the cause (free space, mend permissions, restore the "
                "repository from a copy), then call recover(store)"
            ) from _chained(failure, cause)
        # Marked, since whoever called the guard is told so anyhow, by the error that it raises.
        _LOG.warning("%s was put back to snapshot %s", self._store.url, self._snapshot, extra={"told": True})
        _forget_old_failures(self._objects, self._store.url)


def _refuse_archive(objects: Objects) -> None:
    """Refuse to guard a block by a snapshot that goes where nothing can be read back at once."""
    if not objects.packs.reads_back:
        raise ConfigurationError(
            f"{objects.url}: a block must be able to go back at once, and what is written in this storage class has to "
            "be thawed first. Guard with a repository of another class, such as GLACIER_IR; for this one, take plain "
            "backups with Repository.backup(store)"
        )


def _chained(failure: BaseException, cause: BaseException | None) -> BaseException:
    """Append the error that the rollback was for to the causes of the one that stopped it, so that both are shown."""
    chain = list(causes(failure))
    if chain[-1].__cause__ is None and not any(error in chain for error in causes(cause)):
        chain[-1].__cause__ = cause
    return failure


def _acquire(store: IndexStore, objects: Objects, context: str, timeout: float | None) -> Held:
    return journal.acquire(
        store.storage, objects.url, context=context, timeout=timeout, single_writer=store.single_writer
    )


def _give_up(held: Held) -> None:
    try:
        held.release()
    except BaseException as error:
        _LOG.warning("the journal of a block that never began stays: %s", error)
        held.abandon()
        if not isinstance(error, Exception):
            raise


def _finish_inherited(
    held: Held, store: IndexStore, objects: Objects, opener: Opener, callback: Callback
) -> Recovery | None:
    """Finish what a dead owner left; afterwards the store is in one piece and the journal still held."""
    left = held.inherited
    if left is None:
        return None
    try:
        if left.phase == "backup":
            return Recovery(store=store.url, phase=left.phase, snapshot="", plan=None)
        if left.repository != objects.url:
            objects = opener(left.repository)
        record = objects.records.read(left.snapshot)
        done = _put_back(held, store, objects, record, FAILED_TAG, callback)
    except BaseException as failure:
        held.abandon()
        raise RollbackError(
            f"{store.url}: an interrupted {left.phase} could not be brought to snapshot {left.snapshot} of "
            f"{left.repository}: {failure}. {_way_on(failure)}"
        ) from failure
    _LOG.warning("%s: an interrupted %s was brought to snapshot %s", store.url, left.phase, left.snapshot)
    return Recovery(store=store.url, phase=left.phase, snapshot=left.snapshot, plan=done, kept=held.journal.kept)


def _way_on(failure: BaseException) -> str:
    if isinstance(failure, DecryptionError):
        return "Only who has its key can go on: call recover(store, Repository(url, key=...))"
    return (
        "Remove the cause (for a repository that needs credentials: recover(store, Repository(url, "
        "storage_options=...))), then call recover(store)"
    )


def _put_back(
    held: Held, store: IndexStore, objects: Objects, record: SnapshotRecord, tag: str, callback: Callback
) -> RestorePlan:
    """Bring a store to a snapshot; what is there now is kept in the repository first.

    The journal must name the snapshot. Every step can be done again after a crash: the journal says whether what was
    there has been kept already, so that a half-restored store is never kept in its place.
    """
    # Nobody else writes here now, so whatever is unfinished beside these files belongs to a dead writer. It goes first,
    # since that moves the times of folders.
    paths = [entry.path for entry in record.items if not store.storage.refuses(entry.path)]
    store.storage.sweep(0.0, [journal.JOURNAL_KEY, *paths])
    todo = survey(store, objects, held.journal.snapshot, record, held.journal.paths)
    if held.journal.phase == "block":
        held.update(phase="rollback", kept=_keep(store, objects, tag) if todo.changes else "")
    said = held.journal
    kept: SnapshotRecord | None = None
    if said.kept:
        try:
            kept = objects.records.read(said.kept)
        except NovaBackupError as error:
            _LOG.warning("snapshot %s cannot be read, so files are set aside: %s", said.kept, error)
    execute(todo, objects, record, store.storage, Kept.of(kept), callback)
    return todo


def _keep(store: IndexStore, objects: Objects, tag: str) -> str:
    """Keep what is there now; give the id of the snapshot, or nothing if that cannot be done."""
    try:
        return backup.execute(objects, store, Request(tags=(tag,)), DEFAULT_CALLBACK, objects.packs.frozen).id
    except Exception as error:  # noqa: BLE001 - putting back matters more; what cannot be kept is set aside
        _LOG.warning("what is in %s now could not be kept as a snapshot, so it is set aside: %s", store.url, error)
        return ""


def _forget_old_failures(objects: Objects, url: str) -> None:
    """Keep only the newest of the snapshots of what failed blocks left behind."""
    try:
        failed = [
            point.id
            for point in objects.records.points()
            if point.record.store == url and FAILED_TAG in point.record.tags
        ]
        old = failed[KEEP_FAILED:]
        stay = {*pins.pinned(objects), *objects.records.locked(old)} if old else set()
        objects.records.forget([name for name in old if name not in stay])
    except Exception as error:  # noqa: BLE001 - tidying up must not turn a good rollback into an error
        _LOG.warning("old %s snapshots of %s could not be forgotten: %s", FAILED_TAG, url, error)


def recover(
    store: IndexStore, opener: Opener, *, context: str, timeout: float | None, callback: Callback
) -> Recovery | None:
    """Finish what a dead writer left in a store.

    Returns:
        What was done; None when there was nothing to do.
    """
    found = journal.read(store.storage)
    if found is None:
        return None
    objects = opener(found[0].repository)
    held = _acquire(store, objects, context, timeout)
    done = _finish_inherited(held, store, objects, opener, callback)
    try:
        held.release()
    except BaseException:
        held.abandon()  # all is back, but nobody knows: the next recovery finds nothing left to do
        raise
    if done is not None and done.kept:
        _forget_old_failures(objects, store.url)
    return done


def plan_recover(store: IndexStore, opener: Opener, *, context: str) -> Recovery | None:
    """Say what `recover` would do; nothing is touched, and nobody is waited for.

    Raises:
        StoreBusyError: The writer is alive.
    """
    state = journal.look(store.storage, context)
    found = journal.read(store.storage)
    if state is None or found is None:
        return None
    if state.life in (Life.ALIVE, Life.NESTED):
        raise StoreBusyError(f"{store.url} is being written to: {state.rival}. There is nothing to recover from")
    left = found[0]
    if left.phase == "backup":
        return Recovery(store=store.url, phase=left.phase, snapshot="", plan=None)
    objects = opener(left.repository)
    todo = survey(store, objects, left.snapshot, objects.records.read(left.snapshot), left.paths)
    return Recovery(store=store.url, phase=left.phase, snapshot=left.snapshot, plan=todo, kept=left.kept)


def restore(
    store: IndexStore,
    objects: Objects,
    point: Point,
    opener: Opener,
    *,
    paths: Collection[str],
    context: str,
    timeout: float | None,
    callback: Callback,
) -> RestorePlan:
    """Bring a store to a snapshot, under the journal, so that a killed restore is finished by `recover`.

    Returns:
        What was done.

    Raises:
        ArchivedError: Content has to be thawed first; nothing has been touched.
        IntegrityError: Content is damaged. A store that had files is as it was; in an empty one the files that could be
            had are there.
        RollbackError: It was interrupted in the middle; the journal says how to go on.
    """
    name, record = point.id, point.record
    held = _acquire(store, objects, context, timeout)
    try:
        _finish_inherited(held, store, objects, opener, callback)
        refuse_if_busy_within(store, context)
        todo = survey(store, objects, name, record, paths)
        require_readable(objects, name, record, "a restore reads what it writes", todo.paths(Step.WRITE))
        kept = _keep(store, objects, REPLACED_TAG) if todo.replaces else ""
        held.update(phase="restore", repository=objects.url, snapshot=name, paths=tuple(paths), kept=kept)
    except RollbackError:
        raise
    except BaseException:
        _give_up(held)
        raise
    try:
        try:
            done = _put_back(held, store, objects, record, REPLACED_TAG, callback)
        except (IntegrityError, FormatError):
            if kept:
                held.update(phase="rollback", snapshot=kept, paths=(), kept="")
                _put_back(held, store, objects, objects.records.read(kept), REPLACED_TAG, DEFAULT_CALLBACK)
            held.release()
            raise
        held.release()
    except (IntegrityError, FormatError):
        raise
    except BaseException as failure:
        held.abandon()
        raise RollbackError(
            f"{store.url}: the restore of {name} was interrupted: {failure}. The journal is still there. Remove "
            "the cause, then call recover(store), which finishes it"
        ) from failure
    return done


def survey(
    store: IndexStore, objects: Objects, name: str, record: SnapshotRecord, paths: Collection[str]
) -> RestorePlan:
    """Plan a restore to what is in the store now, changing nothing."""
    said = Selection.of(record)
    # What the store leaves out by now is not taken away either.
    selection = attrs.evolve(said, excluded=tuple(dict.fromkeys((*said.excluded, *store.exclude))))
    known = [entry.path for entry in record.items]
    return plan(name, record, store.storage, find_all(store.storage, selection, known, objects.url), paths)
