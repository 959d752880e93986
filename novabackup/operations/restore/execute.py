"""Bringing a store to the state of a snapshot: the execution of a plan, which can be done again after a crash."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping

import attrs
from fsspec.callbacks import Callback

from novabackup._support.paths import RESERVED
from novabackup._support.threads import Workers
from novabackup.errors import ChangedError, ConfigurationError, printable
from novabackup.format.records import FileEntry, FolderEntry, LinkEntry, SnapshotRecord
from novabackup.objects.packs import Objects
from novabackup.objects.reader import Base, blocks
from novabackup.operations.restore.plan import Action, Kind, RestorePlan, Step
from novabackup.storage import Block, Entry, Folder, Link, Storage
from novabackup.storage.raw import hash_of

__all__ = ["Kept", "execute", "set_aside"]

_LOG = logging.getLogger("novabackup")

ASIDE = f"{RESERVED}/aside"
_FILES_AT_ONCE = 2
"""One thread writes a file in order; two files keep two of them at work."""
_SMALL = 256 << 10
_SMALL_AT_ONCE = 12
"""Small files mostly wait for the disk to say that they are on it; it can say so for many at once."""


@attrs.frozen
class Kept:
    """What is in the repository of what is there now, so that it may be replaced.

    Attributes:
        files: Files by path.
        links: What links lead to, by path.
    """

    files: Mapping[str, FileEntry]
    links: Mapping[str, str]

    @classmethod
    def of(cls, record: SnapshotRecord | None) -> Kept:
        """Give what a snapshot holds; nothing without one."""
        if record is None:
            return cls({}, {})
        return cls({entry.path: entry for entry in record.files}, {link.path: link.target for link in record.links})


def execute(
    todo: RestorePlan, objects: Objects, record: SnapshotRecord, storage: Storage, kept: Kept, callback: Callback
) -> None:
    """Carry a plan out; each file is replaced at once or not at all, and the whole can be done again.

    Folders come first and what is not wanted goes, then files are written. Links come after the files, so that no file
    is written through one of them, and last the attributes of folders, whose times every change in them moves.

    Args:
        todo: The plan.
        objects: The repository.
        record: The snapshot.
        storage: Where the store is.
        kept: What may be replaced, since the repository holds it; all else is set aside first.
        callback: Told of the bytes written.

    Raises:
        IntegrityError: Content is damaged; files that do not need it have been restored all the same.
        OSError: The store cannot be written to.
    """
    work = _Work(todo, objects, storage, kept, _Progress(callback, sum(action.size for action in todo.actions)))
    files = {entry.path: entry for entry in record.files}
    links = {entry.path: entry for entry in record.links}
    folders = {entry.path: entry for entry in record.folders}
    opened = _opened(todo)

    def write(action: Action) -> None:
        work.try_to(action, functools.partial(work.write, action, files[action.path]))

    writes = sorted(todo.of(Step.WRITE, Kind.FILE), key=lambda action: -action.size)  # no large file is last, alone
    large = [action for action in writes if action.size > _SMALL]
    small = writes[len(large) :]
    with Workers(_FILES_AT_ONCE, len(large) + 1) as few, Workers(_SMALL_AT_ONCE, len(small) + 1) as many:
        try:
            for action in opened:
                work.try_to(action, functools.partial(work.open_folder, action))
            for action in (*todo.of(Step.SET_ASIDE, Kind.FILE), *todo.of(Step.SET_ASIDE, Kind.LINK)):
                work.try_to(action, functools.partial(work.take_away, action))
            for action in reversed(todo.of(Step.SET_ASIDE, Kind.FOLDER)):
                work.try_to(action, functools.partial(work.take_folder_away, action))
            for _done in itertools.chain(few.each(write, large), many.each(write, small)):
                pass
            for action in todo.of(Step.WRITE, Kind.LINK):
                work.try_to(action, functools.partial(work.link, action, links[action.path]))
            for action in reversed(opened):
                if action.path in folders:
                    work.try_to(action, functools.partial(work.close_folder, action, folders[action.path]))
        except BaseException:
            work.progress.stop()  # so that an interrupt need not wait for the end of a large file
            raise
    work.end()


def _opened(todo: RestorePlan) -> tuple[Action, ...]:
    """Choose the folders that something is changed in, and those that are not as they should be, from the top down."""
    around = {action.path.rpartition("/")[0] for action in todo.changes}
    return tuple(
        action
        for action in todo.actions
        if action.kind is Kind.FOLDER
        and (action.step is Step.WRITE or (action.path in around and action.step is not Step.LEAVE_OUT))
    )


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


class _Work:
    """The single steps of one restore; what fails is remembered, since one file must not cost the others."""

    def __init__(self, todo: RestorePlan, objects: Objects, storage: Storage, kept: Kept, progress: _Progress) -> None:
        self.progress = progress
        self._todo = todo
        self._objects = objects
        self._storage = storage
        self._kept = kept
        self._errors: list[Exception] = []
        self._not_owned: list[str] = []

    def try_to(self, action: Action, step: Callable[[], None]) -> None:
        """Do one step; remember the error."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - raised when the others are done
            _LOG.error("%s of %s could not be restored: %s", printable(action.path), self._todo.snapshot, error)
            self._errors.append(error)

    def end(self) -> None:
        """Say what could not be had; raise the first error."""
        left_out = [action for action in self._todo.actions if action.step is Step.LEAVE_OUT]
        if left_out:
            _LOG.warning(
                "%s has no links and folders of its own: %d of snapshot %s are left out",
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
        """Make a folder, or make sure that what is in it can be changed."""
        if action.in_the_way:
            self._clear(action.path)
        self._storage.make_folder(action.path)

    def close_folder(self, action: Action, entry: FolderEntry) -> None:
        """Give a folder its attributes, when nothing in it will change any more."""
        now = self._storage.look(action.path)
        if entry.attributes and not (isinstance(now, Folder) and now.attributes == entry.attributes):
            self._storage.make_folder(action.path, entry.attributes)

    def take_folder_away(self, action: Action) -> None:
        """Remove a folder that the snapshot does not have, if nothing is left in it."""
        if not self._storage.remove(action.path):
            _LOG.info("%s/%s stays: something is in it", self._storage.url, printable(action.path))

    def link(self, action: Action, entry: LinkEntry) -> None:
        """Make a link."""
        now = self._storage.look(action.path)
        known = (entry.target, self._kept.links.get(action.path))
        if not (now is None or (isinstance(now, Link) and now.target in known)):
            self._clear(action.path)
        self._storage.make_link(action.path, entry.target, entry.attributes)

    # -- files -------------------------------------------------------------------------------------------------------

    def write(self, action: Action, entry: FileEntry) -> None:
        """Write a file."""
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
                content = self.progress.follow(blocks(self._objects, entry, base))
                now = self._storage.write(entry.path, content, entry.attributes).attributes
            except Exception:
                if aside is not None:
                    self._storage.move(aside, entry.path)
                raise
        if now and entry.attributes and (now.uid, now.gid) != (entry.attributes.uid, entry.attributes.gid):
            self._not_owned.append(entry.path)

    def take_away(self, action: Action) -> None:
        """Remove what the snapshot does not have; only what the repository holds is removed for good."""
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
        """Take something away that is in the way, whatever it is; give where it is now, if it is anywhere."""
        now = self._storage.look(path)
        if now is None:
            return None
        before = self._kept.files.get(path)
        if isinstance(now, Entry) and before is not None and before.identity and before.identity == now.identity:
            self._storage.delete(path)
            return None
        # An empty folder is nothing that could be wanted; one that is not empty is not removed.
        nothing = isinstance(now, Folder) or (isinstance(now, Link) and self._kept.links.get(path) == now.target)
        return None if nothing and self._storage.remove(path) else self._set_aside(path)

    def _set_aside(self, path: str) -> str:
        return set_aside(self._storage, path, self._todo.snapshot)


def set_aside(storage: Storage, path: str, snapshot: str) -> str:
    """Move something out of the way, to a name that nothing has yet; give that name.

    Args:
        storage: Where the store is.
        path: What is in the way.
        snapshot: The one that it makes way for.
    """
    for number in itertools.count():
        to = f"{ASIDE}/{snapshot}/{number}/{path}"
        if storage.look(to) is None:
            break
    _LOG.warning("%s/%s is set aside as %s", storage.url, printable(path), printable(to))
    storage.move(path, to)
    return to


def _base(storage: Storage, before: FileEntry | None) -> Base | None:
    """Open what is there now as a source of what has not changed, if a snapshot says what is in it."""
    if before is None or not before.identity:
        return None
    source = storage.source(before.path, before.identity)
    return None if source is None else Base(source=source, entry=before)


def _is_kept(storage: Storage, entry: FileEntry, before: FileEntry | None) -> bool:
    """Tell whether nothing is lost when what is there now is replaced."""
    try:
        now = storage.entry(entry.path)
        if before is not None and now.identity and before.identity == now.identity:
            return True
        return now.size == entry.size and hash_of(storage, entry.path) == entry.blake3
    except FileNotFoundError:
        return True
    except (OSError, ChangedError, ConfigurationError):
        return False
