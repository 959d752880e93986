"""Bringing a store to the state of a snapshot: a plan that changes nothing, and its execution."""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

import attrs
from blake3 import blake3
from fsspec.callbacks import Callback

from novabackup import _html
from novabackup._paths import RESERVED, matches
from novabackup.content import Base, blocks
from novabackup.errors import ChangedError, ConfigurationError, NotFoundError
from novabackup.lanes import Lane
from novabackup.model import FileEntry, SnapshotRecord
from novabackup.objects import Objects
from novabackup.storage import Block, Entry, Storage
from novabackup.store import find

__all__ = ["Action", "RestorePlan", "Step", "execute", "live_files", "plan", "set_aside"]

_LOG = logging.getLogger("novabackup")

ASIDE = f"{RESERVED}/aside"
_BLOCK = 4 << 20
_FILES_AT_ONCE = 2
"""One thread writes a file in order; two files keep two of them at work."""


class Step(enum.StrEnum):
    """What a restore does with one file."""

    KEEP = "keep"
    """It is the very version that the snapshot has."""
    WRITE = "write"
    """It differs or is gone: the snapshot's content is written."""
    SET_ASIDE = "set aside"
    """The snapshot knows that it was not there: it is kept in the repository, or else moved away, and gone from "
    "here."""


@attrs.frozen(kw_only=True)
class Action:
    """One step of a restore.

    Attributes:
        step: What is done.
        path: With which file.
        size: Bytes that are written.
        replaces: Something is there now that will not be there any more.
    """

    step: Step
    path: str
    size: int = 0
    replaces: bool = False


@attrs.frozen(kw_only=True)
class RestorePlan:
    """What a restore would do.

    Attributes:
        snapshot: Id of the snapshot.
        store: URL of the store that it goes to.
        actions: One for each file.
    """

    snapshot: str
    store: str
    actions: tuple[Action, ...]

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change something."""
        return tuple(action for action in self.actions if action.step is not Step.KEEP)

    @property
    def replaces(self) -> bool:
        """Whether something that is there now will not be there any more."""
        return any(action.replaces for action in self.actions)

    def paths(self, step: Step | str) -> tuple[str, ...]:
        """List the files with which this is done."""
        return tuple(action.path for action in self.actions if action.step == step)

    def _repr_html_(self) -> str:
        return _html.table(
            f"Restore of {self.snapshot} to {self.store}",
            ["step", "file", "bytes to write"],
            ((str(action.step), action.path, _html.size(action.size)) for action in self.actions),
        )


def live_files(storage: Storage, declared: Collection[str], outside: str) -> dict[str, Entry]:
    """Find what is there now under declared paths and patterns.

    Args:
        storage: Where the store is.
        declared: Paths and patterns.
        outside: URL of the repository, whose files are nobody's index files.
    """
    root = storage.url.rstrip("/") + "/"
    hidden = outside[len(root) :].rstrip("/") + "/" if outside.startswith(root) else None
    live: dict[str, Entry] = {}
    for path in declared:
        try:
            found = find(storage, path)
        except ConfigurationError:
            # A folder, a link out of the store or the like stands where a file should be: it is in the way.
            found = [Entry(key=path, size=0, identity="", modified=0.0)]
        live.update((entry.key, entry) for entry in found if hidden is None or not entry.key.startswith(hidden))
    return live


def plan(
    snapshot: str, record: SnapshotRecord, store: str, live: Mapping[str, Entry], paths: Collection[str] = ()
) -> RestorePlan:
    """Decide what to do with each file.

    Args:
        snapshot: Id of the snapshot.
        record: What it says.
        store: URL of the store, for people.
        live: What is there now under the declared paths.
        paths: Files to limit the restore to; empty for all.

    Returns:
        The plan.

    Raises:
        NotFoundError: A path is not in the snapshot.
    """
    known = {entry.path: entry for entry in record.files}
    for path in paths:
        if not any(matches(name, path) for name in known):
            raise NotFoundError(
                f"snapshot {snapshot} has no file {path!r}; it has {', '.join(sorted(known)) or 'no files at all'}"
            )
    wanted = {path for path in [*known, *live] if not paths or any(matches(path, wish) for wish in paths)}
    return RestorePlan(
        snapshot=snapshot, store=store, actions=tuple(_action(path, known, live) for path in sorted(wanted))
    )


def _action(path: str, known: Mapping[str, FileEntry], live: Mapping[str, Entry]) -> Action:
    entry = known.get(path)
    if entry is None:
        return Action(step=Step.SET_ASIDE, path=path, replaces=True)
    now = live.get(path)
    if now is not None and entry.identity and now.identity == entry.identity:
        return Action(step=Step.KEEP, path=path)
    return Action(step=Step.WRITE, path=path, size=entry.size, replaces=now is not None)


def execute(
    todo: RestorePlan,
    objects: Objects,
    record: SnapshotRecord,
    storage: Storage,
    kept: Mapping[str, FileEntry],
    callback: Callback,
) -> None:
    """Carry a plan out; each file is replaced at once or not at all, and the whole can be done again.

    Args:
        todo: The plan.
        objects: The repository.
        record: The snapshot.
        storage: Where the store is.
        kept: Files whose present version is in the repository already, so that they may be replaced; others are set
            aside first.
        callback: Told of the bytes written.

    Raises:
        IntegrityError: Content is damaged; files that do not need it have been restored all the same.
        OSError: The store cannot be written to.
    """
    known = {entry.path: entry for entry in record.files}
    progress = _Progress(callback, sum(action.size for action in todo.actions))

    def write(action: Action) -> None:
        _write(objects, known[action.path], storage, kept, todo.snapshot, progress)

    def take_away(action: Action) -> None:
        _take_away(storage, action.path, kept, todo.snapshot)

    writes = [action for action in todo.actions if action.step is Step.WRITE]
    writes.sort(key=lambda action: -action.size)  # so that no large file is left for the end, alone
    with Lane(_FILES_AT_ONCE, len(writes) + 1) as lane:
        try:
            errors = [_failure(todo, take_away, action) for action in todo.actions if action.step is Step.SET_ASIDE]
            errors += lane.each(functools.partial(_failure, todo, write), writes)
        except BaseException:
            progress.stop()  # so that an interrupt need not wait for the end of a large file
            raise
    for error in errors:
        if error is not None:
            raise error


def _failure(todo: RestorePlan, work: Callable[[Action], None], action: Action) -> Exception | None:
    """Do something with one file; give the error, since one file that cannot be had must not cost the others."""
    try:
        work(action)
    except Exception as error:  # noqa: BLE001 - raised when the others are done
        _LOG.error("%s of %s could not be restored: %s", action.path, todo.snapshot, error)
        return error
    return None


class _StoppedError(Exception):
    """The restore was given up while another thread was writing."""


class _Progress:
    """Tells of bytes that were written, from several threads; stops them all when told to."""

    def __init__(self, callback: Callback, size: int) -> None:
        callback.set_size(size)
        self._callback = callback
        self._telling = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let each thread end at its next block."""
        self._stopped.set()

    def follow(self, content: Iterator[Block]) -> Iterator[Block]:
        """Hand content on, and tell of it."""
        for block in content:
            if self._stopped.is_set():
                raise _StoppedError
            yield block
            with self._telling:
                self._callback.relative_update(len(block))


def _write(
    objects: Objects,
    entry: FileEntry,
    storage: Storage,
    kept: Mapping[str, FileEntry],
    snapshot: str,
    progress: _Progress,
) -> None:
    with contextlib.ExitStack() as stack:
        base = _base(storage, kept.get(entry.path))
        if base is not None:
            stack.enter_context(base.source)
        aside = None
        if not _is_kept(storage, entry, kept):
            aside = set_aside(storage, entry.path, snapshot)
        try:
            storage.write(entry.path, progress.follow(blocks(objects, entry, base)), entry.attributes)
        except Exception:
            if aside is not None:
                storage.move(aside, entry.path)
            raise


def _base(storage: Storage, before: FileEntry | None) -> Base | None:
    """Open what is there now as a source of what has not changed, if a snapshot says what is in it."""
    if before is None or not before.identity:
        return None
    source = storage.source(before.path, before.identity)
    return None if source is None else Base(source=source, entry=before)


def _take_away(storage: Storage, path: str, kept: Mapping[str, FileEntry], snapshot: str) -> None:
    """Remove a file that the snapshot does not have; only what the repository holds is removed for good."""
    before = kept.get(path)
    try:
        if before is not None and before.identity and before.identity == storage.entry(path).identity:
            storage.delete(path)
            return
    except FileNotFoundError:
        return
    except ConfigurationError:
        _LOG.debug("%s is no file", path)
    set_aside(storage, path, snapshot)


def _is_kept(storage: Storage, entry: FileEntry, kept: Mapping[str, FileEntry]) -> bool:
    """Tell whether nothing is lost when what is there now is replaced."""
    try:
        now = storage.entry(entry.path)
        before = kept.get(entry.path)
        if before is not None and now.identity and before.identity == now.identity:
            return True
        return now.size == entry.size and _hash(storage, entry.path) == entry.blake3
    except FileNotFoundError:
        return True
    except (OSError, ChangedError, ConfigurationError):
        return False


def _hash(storage: Storage, path: str) -> str:
    whole = blake3()
    with storage.open(path) as reader:
        for start in range(0, reader.entry.size, _BLOCK):
            whole.update(reader.read(start, min(_BLOCK, reader.entry.size - start)))
        reader.confirm()
    return whole.hexdigest()


def set_aside(storage: Storage, path: str, snapshot: str) -> str:
    """Move a file out of the way, to a name that nothing has yet; give that name."""
    for number in itertools.count():
        to = f"{ASIDE}/{snapshot}/{number}/{path}"
        if not storage.exists(to):
            break
    _LOG.warning("%s/%s is set aside as %s", storage.url, path, to)
    storage.move(path, to)
    return to
