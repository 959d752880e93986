"""One guarded stretch of work on a store: the journal, the snapshot, the exit checks, the rollback."""

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
    Problem,
    RollbackError,
    StoreBusyError,
    causes,
)
from novabackup.format.records import FAILED_TAG, REPLACED_TAG, Point, SnapshotRecord
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
from novabackup.transaction.journal import Held, refuse_if_busy_within
from novabackup.transaction.owner import Life, whereabouts

_LOG = logging.getLogger("novabackup")

_KEEP_FAILED = 3
"""How many snapshots with `FAILED_TAG` a store keeps: by count, since a clock may be wrong."""


@attrs.frozen(kw_only=True)
class Call:
    """How a caller waits.

    Attributes:
        timeout: Seconds to wait for another writer; None does not wait.
        callback: Progress in bytes.
        context: Thread and task of the caller.
    """

    timeout: float | None = None
    callback: Callback = DEFAULT_CALLBACK
    context: str = attrs.field(factory=whereabouts)


@attrs.frozen(kw_only=True)
class Recovery:
    """What `recover` did, or would do.

    Attributes:
        store: URL of the store.
        phase: How far the interrupted work had come.
        snapshot: Id of the snapshot that the store was brought to; empty if nothing had been touched.
        plan: What was done with each file; None if nothing had been touched.
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
"""Opens the repository that a journal names, by its URL."""


class Session:
    """One run of a guarded block."""

    def __init__(self, store: IndexStore, objects: Objects, opener: Opener, call: Call) -> None:
        """Prepare; nothing is touched until `enter`.

        Args:
            store: What is guarded.
            objects: Where the snapshot goes.
            opener: Opens another repository, when an interrupted block used one.
            call: How the caller waits.
        """
        self._store = store
        self._objects = objects
        self._opener = opener
        self._call = call
        self._pid = os.getpid()
        self._entered: tuple[Held, Point] | None = None

    def enter(self, target: Request | Point) -> Point:
        """Become the only writer, finish what a dead one left, and fix the snapshot to go back to.

        Args:
            target: What to record of the snapshot that is taken, or an existing snapshot.
        """
        held = _acquire(self._store, self._objects, self._call)
        try:
            if _finish_inherited(held, self._store, self._objects, self._opener, self._call):
                held.update(phase="backup", snapshot="", paths=(), kept="")
            refuse_if_busy_within(self._store, self._call.context)
            if isinstance(target, Request):
                _refuse_archive(self._objects)
                avoid = self._objects.packs.frozen
                point = backup.execute(self._objects, self._store, target, self._call.callback, avoid)
            else:
                point = target
                require_readable(self._objects, point, "a block must be able to go back at once")
            held.update(phase="block", repository=self._objects.url, snapshot=point.id, paths=(), kept="")
        except RollbackError:
            raise
        except BaseException:
            _give_up(held)  # nothing of the store has been touched
            raise
        self._entered = held, point
        if point.record.problems:
            problems = "; ".join(map(str, point.record.problems))
            _LOG.warning("%s had problems before the block: %s", self._store.url, problems)
        return point

    def exit(self, error: BaseException | None) -> None:
        """End the block: commit what it wrote, or put everything back.

        Args:
            error: What the block raised; None if it ended normally.

        Raises:
            CheckFailedError: The block ended normally, but the indexes do not agree; they have been rolled back.
            RollbackError: The store could not be put back.
        """
        if os.getpid() != self._pid or self._entered is None:
            return  # a forked child leaves the block of its parent
        (held, point), self._entered = self._entered, None
        if error is not None:
            self._roll_back(held, point, error)
            return
        try:
            problems = self._new_problems(point.record)
            if not problems:
                self._commit(held, point.record)
                return
        except BaseException as caught:
            self._roll_back(held, point, caught)
            raise
        self._roll_back(held, point, None)
        raise CheckFailedError(
            f"{self._store.url}: after the block the index files do not belong together, so every file was "
            f"put back to snapshot {point.id}. What the block had written is kept as a snapshot with the tag "
            f"{FAILED_TAG!r}. Found",
            problems,
        )

    def _new_problems(self, record: SnapshotRecord) -> tuple[Problem, ...]:
        known = {entry.path: entry for entry in record.files}
        reports, found = self._store.judge(known)
        gone = checks.emptied(reports, known) if checks.all_present in self._store.checks else ()
        problems = (*found, *gone)
        new = checks.new_problems(record.problems, problems)
        if problems and not new:
            _LOG.warning("%s still has the problems that it had before the block", self._store.url)
        return tuple(new)

    def _commit(self, held: Held, record: SnapshotRecord) -> None:
        # What the block wrote must survive a power cut before the journal, which could undo it, is released.
        storage, then = self._store.storage, [entry.path for entry in record.files]
        now = find_all(storage, self._store.selection, then, self._objects.url).values()
        storage.sync(sorted({*(item.key for item in now if not isinstance(item, Other)), *then}))
        try:
            held.release()
        except StoreBusyError:
            held.abandon()
            raise

    def _roll_back(self, held: Held, point: Point, cause: BaseException | None) -> None:
        try:
            _put_back(held, self._store, self._objects, point.record, FAILED_TAG, self._call.callback)
            held.release()
        except BaseException as failure:
            held.abandon()
            if isinstance(failure, StoreBusyError):
                raise
            raise RollbackError(
                f"{self._store.url} could not be put back to snapshot {point.id} of {self._objects.url}: "
                f"{failure}. The journal is still there. Remove the cause (free space, fix permissions, restore the "
                "repository from a copy), then call recover(store)"
            ) from _chained(failure, cause)
        # Marked, since the caller of the guard learns of it anyway, from the error that it raises.
        _LOG.warning("%s was put back to snapshot %s", self._store.url, point.id, extra={"told": True})
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


def _acquire(store: IndexStore, objects: Objects, call: Call) -> Held:
    return journal.acquire(
        store.storage, objects.url, context=call.context, timeout=call.timeout, single_writer=store.single_writer
    )


def _give_up(held: Held) -> None:
    try:
        held.release()
    except BaseException as error:
        _LOG.warning("the journal of a block that never began stays: %s", error)
        held.abandon()
        if not isinstance(error, Exception):
            raise


def _finish_inherited(held: Held, store: IndexStore, objects: Objects, opener: Opener, call: Call) -> Recovery | None:
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
        done = _put_back(held, store, objects, record, FAILED_TAG, call.callback)
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
        return "It needs the key of the repository: call recover(store, Repository(url, key=...))"
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
    todo = survey(store, objects, Point(held.journal.snapshot, record), held.journal.paths)
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
    from novabackup.operations import forget  # noqa: PLC0415 - most blocks end well

    try:
        points = objects.records.newest_first()
        failed = [point.id for point in points if point.record.store == url and FAILED_TAG in point.record.tags]
        old = failed[_KEEP_FAILED:]
        stay = {*pins.pinned(objects.access), *forget.locked(objects.storage, old)} if old else set()
        objects.records.forget([name for name in old if name not in stay])
    except Exception as error:  # noqa: BLE001 - tidying up must not turn a good rollback into an error
        _LOG.warning("old %s snapshots of %s could not be forgotten: %s", FAILED_TAG, url, error)


def recover(store: IndexStore, opener: Opener, call: Call) -> Recovery | None:
    """Finish what a dead writer left in a store.

    Returns:
        What was done; None when there was nothing to do.
    """
    found = journal.read(store.storage)
    if found is None:
        return None
    objects = opener(found[0].repository)
    held = _acquire(store, objects, call)
    done = _finish_inherited(held, store, objects, opener, call)
    try:
        held.release()
    except BaseException:
        held.abandon()  # everything is restored, but that is not recorded: the next recovery finds nothing left to do
        raise
    if done is not None and done.kept:
        _forget_old_failures(objects, store.url)
    return done


def plan_recover(store: IndexStore, opener: Opener) -> Recovery | None:
    """Plan what `recover` would do; change nothing, and do not wait.

    Raises:
        StoreBusyError: The writer is alive.
    """
    state = journal.look(store.storage, whereabouts())
    found = journal.read(store.storage)
    if state is None or found is None:
        return None
    if state.life in (Life.ALIVE, Life.NESTED):
        raise StoreBusyError(f"{store.url} is being written to: {state.rival}. There is nothing to recover from")
    left = found[0]
    if left.phase == "backup":
        return Recovery(store=store.url, phase=left.phase, snapshot="", plan=None)
    objects = opener(left.repository)
    todo = survey(store, objects, objects.records.point(left.snapshot), left.paths)
    return Recovery(store=store.url, phase=left.phase, snapshot=left.snapshot, plan=todo, kept=left.kept)


def restore(
    store: IndexStore, objects: Objects, point: Point, opener: Opener, paths: Collection[str], call: Call
) -> RestorePlan:
    """Bring a store to a snapshot, under the journal, so that `recover` finishes a restore that was killed.

    Returns:
        What was done.

    Raises:
        ArchivedError: Content has to be thawed first; nothing has been touched.
        IntegrityError: Content is damaged. A store that had files is as it was; one that was empty has the files that
            could be restored.
        RollbackError: It was interrupted in the middle; the journal is still there.
    """
    held = _acquire(store, objects, call)
    try:
        _finish_inherited(held, store, objects, opener, call)
        refuse_if_busy_within(store, call.context)
        todo = survey(store, objects, point, paths)
        require_readable(objects, point, "a restore reads what it writes", todo.paths(Step.WRITE))
        kept = _keep(store, objects, REPLACED_TAG) if todo.replaces else ""
        held.update(phase="restore", repository=objects.url, snapshot=point.id, paths=tuple(paths), kept=kept)
    except RollbackError:
        raise
    except BaseException:
        _give_up(held)
        raise
    try:
        done = _restored(held, store, objects, point.record, call.callback)
        if isinstance(done, NovaBackupError) and kept:
            held.update(phase="rollback", snapshot=kept, paths=(), kept="")
            _put_back(held, store, objects, objects.records.read(kept), REPLACED_TAG, DEFAULT_CALLBACK)
        held.release()
    except BaseException as failure:
        held.abandon()
        raise RollbackError(
            f"{store.url}: the restore of {point.id} was interrupted: {failure}. The journal is still there. Remove "
            "the cause, then call recover(store), which finishes it"
        ) from failure
    if isinstance(done, NovaBackupError):
        raise done
    return done


def _restored(
    held: Held, store: IndexStore, objects: Objects, record: SnapshotRecord, callback: Callback
) -> RestorePlan | IntegrityError | FormatError:
    """Bring a store to a snapshot; return what was done, or the damage that prevented it."""
    try:
        return _put_back(held, store, objects, record, REPLACED_TAG, callback)
    except (IntegrityError, FormatError) as damage:
        return damage


def survey(store: IndexStore, objects: Objects, point: Point, paths: Collection[str]) -> RestorePlan:
    """Plan a restore to what is in the store now; change nothing."""
    said = Selection.of(point.record)
    # What the store leaves out by now is not removed either.
    selection = attrs.evolve(said, excluded=tuple(dict.fromkeys((*said.excluded, *store.exclude))))
    known = [entry.path for entry in point.record.items]
    found = find_all(store.storage, selection, known, objects.url)
    return plan(point.id, point.record, store.storage, found, paths)
