"""Bring a store to the state of a snapshot by a plan, which can be executed again after a crash."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping

import attrs
from fsspec.callbacks import Callback

from novabackup._support.paths import RESERVED
from novabackup._support.threads import Workers
from novabackup.errors import ChangedError, ConfigurationError, printable
from novabackup.format.records import FileEntry, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.objects.reader import Base, blocks
from novabackup.operations.restore.plan import Action, Kind, RestorePlan, Step
from novabackup.storage import Block, Entry, Folder, Link, Storage
from novabackup.storage.raw import hash_of

_LOG = logging.getLogger("novabackup")

ASIDE = f"{RESERVED}/aside"
_FILES_AT_ONCE = 2
"""One thread writes a file in order, so two files use two of them."""
_SMALL = 256 << 10
_SMALL_AT_ONCE = 12
"""Small files mostly wait for the disk to sync, which works for many at once."""


@attrs.frozen
class Kept:
    """Files and link targets by path that the repository holds, so that they may be replaced in the store."""

    files: Mapping[str, FileEntry]
    links: Mapping[str, str]

    @classmethod
    def of(cls, record: SnapshotRecord | None) -> Kept:
        """Return what a snapshot holds; nothing without one."""
        if record is None:
            return cls({}, {})
        return cls({entry.path: entry for entry in record.files}, {link.path: link.target for link in record.links})


def execute(
    todo: RestorePlan, objects: Objects, record: SnapshotRecord, storage: Storage, kept: Kept, callback: Callback
) -> None:
    """Execute a plan. Each file is replaced atomically, and an interrupted restore can be repeated.

    Folders are made and unwanted files removed first, then files are written. Links come after the files, so that no
    file is written through one of them, and the attributes of folders last, since every change in a folder sets its
    time. What the repository holds, as in ``kept``, is replaced; anything else is set aside first.

    Raises:
        IntegrityError: Content is damaged; files that do not need it have been restored.
        OSError: The store cannot be written to.
    """
    progress = _Progress(callback, sum(action.size for action in todo.actions))
    restore = _Restore(todo, objects, record, storage, kept, progress)
    opened = _opened(todo)

    def write(action: Action) -> None:
        restore.attempt(restore.write, action)

    writes = sorted(todo.of(Step.WRITE, Kind.FILE), key=lambda action: -action.size)  # no large file is last, alone
    large = [action for action in writes if action.size > _SMALL]
    small = writes[len(large) :]
    with Workers(_FILES_AT_ONCE, len(large) + 1) as few, Workers(_SMALL_AT_ONCE, len(small) + 1) as many:
        try:
            for action in opened:
                restore.attempt(restore.open_folder, action)
            for action in (*todo.of(Step.SET_ASIDE, Kind.FILE), *todo.of(Step.SET_ASIDE, Kind.LINK)):
                restore.attempt(restore.take_away, action)
            for action in reversed(todo.of(Step.SET_ASIDE, Kind.FOLDER)):
                restore.attempt(restore.take_folder_away, action)
            for _done in itertools.chain(few.each(write, large), many.each(write, small)):
                pass
            for action in todo.of(Step.WRITE, Kind.LINK):
                restore.attempt(restore.link, action)
            for action in reversed(opened):
                restore.attempt(restore.close_folder, action)
        except BaseException:
            progress.stop()  # so that an interrupt need not wait for the end of a large file
            raise
    restore.finish()


def _opened(todo: RestorePlan) -> tuple[Action, ...]:
    """Return the folders that are changed themselves or have changes in them, from the top down."""
    around = {action.path.rpartition("/")[0] for action in todo.changes}
    return tuple(
        action
        for action in todo.actions
        if action.kind is Kind.FOLDER
        and (action.step is Step.WRITE or (action.path in around and action.step is not Step.LEAVE_OUT))
    )


class _StoppedError(Exception):
    """The restore was stopped while another thread was writing."""


class _Progress:
    """Reports the bytes written by several threads, and can stop all of them."""

    def __init__(self, callback: Callback, size: int) -> None:
        callback.set_size(size)
        self._callback = callback
        self._mutex = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make each thread end at its next block."""
        self._stopped.set()

    def follow(self, content: Iterator[Block]) -> Iterator[Block]:
        """Pass content on, and report it."""
        for block in content:
            if self._stopped.is_set():
                raise _StoppedError
            yield block
            with self._mutex:
                self._callback.relative_update(len(block))


class _Restore:
    """The single steps of one restore; errors are collected, since a damaged file must not prevent the others."""

    def __init__(
        self,
        todo: RestorePlan,
        objects: Objects,
        record: SnapshotRecord,
        storage: Storage,
        kept: Kept,
        progress: _Progress,
    ) -> None:
        self._todo = todo
        self._objects = objects
        self._files = {entry.path: entry for entry in record.files}
        self._links = {entry.path: entry for entry in record.links}
        self._folders = {entry.path: entry for entry in record.folders}
        self._storage = storage
        self._kept = kept
        self._progress = progress
        self._errors: list[Exception] = []
        self._not_owned: list[str] = []

    def attempt(self, step: Callable[[Action], None], action: Action) -> None:
        """Do one step; keep its error."""
        try:
            step(action)
        except Exception as error:  # noqa: BLE001 - raised after the other steps
            _LOG.error("%s of %s could not be restored: %s", printable(action.path), self._todo.snapshot, error)
            self._errors.append(error)

    def finish(self) -> None:
        """Log what could not be restored; raise the first error."""
        left_out = [action for action in self._todo.actions if action.step is Step.LEAVE_OUT]
        if left_out:
            _LOG.warning(
                "%s cannot hold links and folders: %d of snapshot %s are left out",
                self._storage.url,
                len(left_out),
                self._todo.snapshot,
            )
        if self._not_owned:
            _LOG.warning(
                "%d files of snapshot %s could not be given to their owners, such as %s: restore as root for that",
                len(self._not_owned),
                self._todo.snapshot,
                printable(self._not_owned[0]),
            )
        for error in self._errors:
            raise error

    # -- folders and links -------------------------------------------------------------------------------------------

    def open_folder(self, action: Action) -> None:
        """Make a folder, or make its content writable."""
        if action.in_the_way:
            self._clear(action.path)
        self._storage.make_folder(action.path)

    def close_folder(self, action: Action) -> None:
        """Set the attributes of a folder when all changes in it are done."""
        entry = self._folders.get(action.path)
        if entry is None:
            return
        now = self._storage.look(action.path)
        if entry.attributes and not (isinstance(now, Folder) and now.attributes == entry.attributes):
            self._storage.make_folder(action.path, entry.attributes)

    def take_folder_away(self, action: Action) -> None:
        """Remove a folder that the snapshot does not have, if it is empty."""
        if not self._storage.remove(action.path):
            _LOG.info("%s/%s stays: it is not empty", self._storage.url, printable(action.path))

    def link(self, action: Action) -> None:
        """Make a link."""
        entry = self._links[action.path]
        now = self._storage.look(action.path)
        known = (entry.target, self._kept.links.get(action.path))
        if not (now is None or (isinstance(now, Link) and now.target in known)):
            self._clear(action.path)
        self._storage.make_link(action.path, entry.target, entry.attributes)

    # -- files -------------------------------------------------------------------------------------------------------

    def write(self, action: Action) -> None:
        """Write a file."""
        entry = self._files[action.path]
        before = self._kept.files.get(entry.path)
        with contextlib.ExitStack() as stack:
            base = None
            if action.in_the_way:
                aside = self._clear(entry.path)
            else:
                base = _base(self._storage, before)
                if base is not None:
                    stack.enter_context(base.source)
                aside = None if _is_kept(self._storage, entry, before) else self._set_aside(entry.path)
            try:
                content = self._progress.follow(blocks(self._objects, entry, base))
                now = self._storage.write(entry.path, content, entry.attributes).attributes
            except Exception:
                if aside is not None:
                    self._storage.move(aside, entry.path)
                raise
        if now and entry.attributes and (now.uid, now.gid) != (entry.attributes.uid, entry.attributes.gid):
            self._not_owned.append(entry.path)

    def take_away(self, action: Action) -> None:
        """Remove what the snapshot does not have if the repository holds it; set it aside otherwise."""
        path = action.path
        if action.kind is Kind.LINK:
            self._clear(path)
            return
        before = self._kept.files.get(path)
        try:
            if before is not None and before.identity and before.identity == self._storage.entry(path).identity:
                self._storage.delete(path)
                return
        except FileNotFoundError:
            return
        except ConfigurationError:
            _LOG.debug("%s is no file", printable(path))
        self._set_aside(path)

    def _clear(self, path: str) -> str | None:
        """Remove what is at a path, or set it aside; return its new path in that case."""
        now = self._storage.look(path)
        if now is None:
            return None
        before = self._kept.files.get(path)
        if isinstance(now, Entry) and before is not None and before.identity and before.identity == now.identity:
            self._storage.delete(path)
            return None
        # An empty folder is no loss; one that is not empty is not removed.
        no_loss = isinstance(now, Folder) or (isinstance(now, Link) and self._kept.links.get(path) == now.target)
        return None if no_loss and self._storage.remove(path) else self._set_aside(path)

    def _set_aside(self, path: str) -> str:
        return set_aside(self._storage, path, self._todo.snapshot)


def set_aside(storage: Storage, path: str, snapshot: str) -> str:
    """Move a file, link or folder to an unused name, which is returned, to make way for that of a snapshot."""
    for number in itertools.count():
        to = f"{ASIDE}/{snapshot}/{number}/{path}"
        if storage.look(to) is None:
            break
    _LOG.warning("%s/%s is set aside as %s", storage.url, printable(path), printable(to))
    storage.move(path, to)
    return to


def _base(storage: Storage, before: FileEntry | None) -> Base | None:
    """Open the present file as a source of unchanged content, if a snapshot describes it."""
    if before is None or not before.identity:
        return None
    source = storage.source(before.path, before.identity)
    return None if source is None else Base(source=source, entry=before)


def _is_kept(storage: Storage, entry: FileEntry, before: FileEntry | None) -> bool:
    """Return whether the present file can be replaced without losing anything."""
    try:
        now = storage.entry(entry.path)
        if before is not None and now.identity and before.identity == now.identity:
            return True
        return now.size == entry.size and hash_of(storage, entry.path) == entry.blake3
    except FileNotFoundError:
        return True
    except (OSError, ChangedError, ConfigurationError):
        return False
