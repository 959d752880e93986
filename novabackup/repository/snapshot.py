"""A point that a store can go back to: read it, compare it, restore it; used in ``with``, it goes back by itself."""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support import html as _html
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.layout import pin_key
from novabackup.format.records import FileEntry, Point, Problem, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.objects.reader import ContentReader
from novabackup.operations.backup import Request
from novabackup.operations.restore.plan import RestorePlan
from novabackup.storage import Storage
from novabackup.store.reports import snapshot_html, snapshots_html
from novabackup.store.store import IndexStore
from novabackup.transaction import session
from novabackup.transaction.guarded import Guard
from novabackup.transaction.session import Call, Opener

if TYPE_CHECKING:
    from novabackup.operations.archives.export import Exported
    from novabackup.operations.compatibility import Compatibility
    from novabackup.operations.diff import Diff
    from novabackup.operations.thaw import ThawPlan
    from novabackup.operations.verify import Level, Verification

_LOG = logging.getLogger("novabackup")

_P = ParamSpec("_P")
_T = TypeVar("_T")


@attrs.frozen(kw_only=True)
class Origin:
    """Where a snapshot belongs.

    Attributes:
        objects: Its repository.
        open_store: Opens the store that it was taken of.
        open_repository: Opens another repository that an interrupted block may have used.
    """

    objects: Objects
    open_store: Callable[[SnapshotRecord], IndexStore]
    open_repository: Opener


class Snapshot:
    """A point that a store can go back to.

    ``repo["<id>"]`` and ``repo.backup(store)`` return an existing one; ``snapshot(store)`` returns one that is taken
    each time its block is entered. All guard a block: ``with``, ``async with``, or as a decorator.
    """

    def __init__(
        self,
        origin: Origin,
        target: Point | Request,
        store: IndexStore | None = None,
        *,
        timeout: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> None:
        """Made by `Repository` and `novabackup.snapshot`, not by hand.

        Args:
            origin: Where it belongs.
            target: An existing snapshot, or what to take when a block is entered.
            store: The store; by default the one that the record names.
            timeout: Seconds to wait for another writer.
            callback: Progress in bytes, in a block (an fsspec callback).
        """
        self._origin = origin
        self._taken = target if isinstance(target, Point) else None
        self._own_store = store
        self._guard = Guard(
            store=lambda: self._target(None),
            objects=origin.objects,
            opener=origin.open_repository,
            target=target,
            timeout=timeout,
            callback=callback,
        )

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def _point(self) -> Point:
        if self._taken is None:
            raise ConfigurationError(
                "this snapshot has not been taken yet: it is taken when its block is entered. "
                "Use it in `with snapshot(store) as before:`, or take one at once with Repository(...).backup(store)"
            )
        return self._taken

    @property
    def _record(self) -> SnapshotRecord:
        return self._point.record

    @property
    def id(self) -> str:
        """Time and hash, such as ``20260125T143000Z-0c3503f2a9c81d0e4b57``."""
        return self._point.id

    @property
    def time(self) -> datetime:
        """When it was taken, in UTC."""
        return self._record.time

    @property
    def store(self) -> str:
        """URL of the store that it was taken of."""
        return self._record.store

    @property
    def tags(self) -> tuple[str, ...]:
        """Its labels."""
        return self._record.tags

    @property
    def message(self) -> str:
        """What was said of it."""
        return self._record.message

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Its files by path."""
        return MappingProxyType({entry.path: entry for entry in self._record.files})

    @property
    def links(self) -> Mapping[str, str]:
        """What its symbolic links lead to, by path."""
        return MappingProxyType({entry.path: entry.target for entry in self._record.links})

    @property
    def folders(self) -> tuple[str, ...]:
        """Paths of its folders, empty ones among them, where a `Tree` was declared."""
        return tuple(entry.path for entry in self._record.folders)

    @property
    def skipped(self) -> tuple[Problem, ...]:
        """What was in the store and is not in the snapshot, such as sockets, and why."""
        return self._record.skipped

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What the checks found when it was taken; empty for a healthy store."""
        return self._record.problems

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self._record.size

    @property
    def added(self) -> int:
        """Bytes that the repository grew by for it."""
        return self._record.added

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of Python and of the packages that write such files, where it was taken."""
        return MappingProxyType(self._record.versions)

    @property
    def pinned(self) -> bool:
        """Whether it stays whatever a policy says; asks the repository each time."""
        return self._origin.objects.storage.exists(pin_key(self.id))

    def open(self, path: str) -> io.BufferedReader:
        """Open a file of the snapshot for reading; it can seek.

        Args:
            path: Relative to the store.

        Raises:
            NotFoundError: The snapshot has no such file.
            IntegrityError: Its content is damaged; also raised while reading.
        """
        return io.BufferedReader(ContentReader(self._origin.objects, self._file(path)), 1 << 20)

    def _file(self, path: str) -> FileEntry:
        try:
            return self.files[path]
        except KeyError:
            names = ", ".join(self.files) or "no files at all"
            raise NotFoundError(f"snapshot {self.id} has no file {path!r}; it has {names}") from None

    def verify(
        self,
        level: Level | str = "hashes",
        *,
        folder: str | os.PathLike[str] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Verification:
        """Make sure that the snapshot can be restored.

        Args:
            level: How thoroughly: ``structure``, ``hashes`` (every byte), ``open`` (restored elsewhere and opened) or
                ``queries`` (asked again what it was asked when it was taken).
            folder: Where it is restored to for a while; by default the system's folder for temporary files.
            callback: Told of the bytes read.

        Returns:
            What was done, and how long it took.

        Raises:
            ArchivedError: Content has to be thawed first.
            IntegrityError: Files are damaged; ``problems`` names each.
            CheckFailedError: The files are whole, and do not open here, do not agree, or answer otherwise.
            OSError: There is no room to restore to.
        """
        from novabackup.operations import verify  # noqa: PLC0415

        return verify.execute(
            self._origin.objects, self._point, level, functools.partial(self._restored, callback), folder, callback
        )

    def _restored(self, callback: Callback, place: str) -> IndexStore:
        store = self._target(place)
        self.restore(to=store, callback=callback)
        return store

    def compatibility(self, store: IndexStore | None = None) -> Compatibility:
        """Tell whether the files will load here: compare what wrote them with what is installed.

        Args:
            store: Where they are to go: the dimension of the index that is there now, and the embedding model, are
                compared, too.
        """
        from novabackup.operations import compatibility  # noqa: PLC0415

        paths = [path for path, entry in self.files.items() if entry.report and entry.report.dimension is not None]
        live = store.inspect_existing(paths) if store else ()
        return compatibility.compare(self._record, compatibility.here(), live, store.embedding_model if store else "")

    def export(
        self,
        to: str | os.PathLike[str] | Storage,
        *,
        storage_options: Mapping[str, Any] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Exported:
        """Write it as a plain archive: ``nova-backup-<date>_<time>.tar.gz``, and a ``.sha256`` beside it.

        The time in the name is that of the snapshot in UTC. ``sha256sum -c`` and ``tar -xzf`` understand the two, and
        the same snapshot always gives the same bytes. Nobody sees half an archive. It is not encrypted, even if the
        repository is.

        Args:
            to: A folder, or a file whose name ends with ``.tar.gz``; a path, any URL, or a storage.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            callback: Told of the bytes of the files.

        Returns:
            Where it is, its size and its checksum.

        Raises:
            ConfigurationError: Something else is there under that name; it is not replaced.
            IntegrityError: Content is damaged; nothing was written.
        """
        from novabackup.operations.archives import export as exporting  # noqa: PLC0415 - only who calls this waits for it

        return exporting.execute(self._origin.objects, self._point, to, storage_options, callback)

    def diff(self, other: Snapshot) -> Diff:
        """Compare with a later snapshot, file by file and link by link.

        Args:
            other: The later one, from this or another repository: what it has and this one has not counts as added.
        """
        from novabackup.operations.diff import compare  # noqa: PLC0415

        return compare(self._point, other._point)

    # -- restoring ---------------------------------------------------------------------------------------------------

    def plan_restore(
        self,
        to: str | os.PathLike[str] | Storage | IndexStore | None = None,
        paths: Collection[str | os.PathLike[str]] = (),
    ) -> RestorePlan:
        """Say what `restore` would do, and do nothing; its ``warnings`` say what may not load here."""
        store = self._target(to)
        todo = session.survey(store, self._origin.objects, self._point, _several(paths))
        return attrs.evolve(todo, warnings=tuple(map(str, self.compatibility(store))))

    def restore(
        self,
        to: str | os.PathLike[str] | Storage | IndexStore | None = None,
        paths: Collection[str | os.PathLike[str]] = (),
        *,
        timeout: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RestorePlan:
        """Bring a store to this snapshot.

        Files that the snapshot says were not there are set aside; what is replaced is kept as a snapshot of its own
        first.

        Args:
            to: Path, URL or store; by default the store that the snapshot was taken of.
            paths: Files or patterns to limit it to; by default all.
            timeout: Seconds to wait for another writer.
            callback: Told of the bytes written.

        Returns:
            What was done.

        Raises:
            NotFoundError: A path is not in the snapshot.
            StoreBusyError: Another writer is at work there.
            ArchivedError: Content has to be thawed first; nothing has been touched.
            IntegrityError: Content is damaged. A store that had files is as it was; an empty one has what could be had.
            RollbackError: It was interrupted in the middle; ``recover(store)`` finishes it.
        """
        store = self._target(to)
        for concern in self.compatibility(store):
            level = logging.INFO if concern.severity == "note" else logging.WARNING
            _LOG.log(level, "snapshot %s, restored to %s: %s", self.id, store.url, concern)
        return session.restore(
            store,
            self._origin.objects,
            self._point,
            self._origin.open_repository,
            _several(paths),
            Call(timeout=timeout, callback=callback),
        )

    def plan_thaw(self, paths: Collection[str | os.PathLike[str]] = ()) -> ThawPlan:
        """Say which packs of the snapshot lie in an archive and cannot be read yet; ask for nothing.

        Args:
            paths: Files or patterns to limit it to; by default all.

        Raises:
            NotFoundError: A path is not in the snapshot.
        """
        from novabackup.operations import thaw  # noqa: PLC0415

        return thaw.plan(self._origin.objects, self._point, _several(paths))

    def thaw(
        self,
        paths: Collection[str | os.PathLike[str]] = (),
        *,
        days: int = 7,
        tier: str = "Standard",
        timeout: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> ThawPlan:
        """Ask for what lies in an archive to become readable, which takes minutes to days; calling again does no harm.

        Args:
            paths: Files or patterns to limit it to; by default all.
            days: How long it is to stay readable.
            tier: How fast it is to come, which is a matter of money: ``Bulk``, ``Standard`` or ``Expedited``.
            timeout: Seconds to wait until all can be read; None does not wait.
            callback: Told of the packs that can be read, while waiting.

        Returns:
            What was asked for.

        Raises:
            NotFoundError: A path is not in the snapshot.
            ConfigurationError: It cannot be asked for like this.
            ArchivedError: It cannot be read yet when the time is over; it goes on all the same.
        """
        from novabackup.operations import thaw  # noqa: PLC0415

        todo = self.plan_thaw(paths)
        thaw.execute(self._origin.objects, todo, self._point, days=days, tier=tier, timeout=timeout, callback=callback)
        return todo

    def _target(self, to: str | os.PathLike[str] | Storage | IndexStore | None) -> IndexStore:
        if isinstance(to, IndexStore):
            return to
        own = self._own_store or self._origin.open_store(self._record)
        return own if to is None else own.at(to)

    # -- guarding ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Snapshot:
        self._taken = self._guard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.__exit__(kind, error, trace)

    async def __aenter__(self) -> Snapshot:
        self._taken = await self._guard.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._guard.__aexit__(kind, error, trace)

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Guard every call of a function, or of a coroutine function.

        Raises:
            ConfigurationError: The function is a generator, whose body does not run when it is called.
        """
        return self._guard.decorate(function)

    # -- showing -----------------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return self is other or (self._taken is not None and other._taken is not None and self.id == other.id)

    def __hash__(self) -> int:
        return hash(self._taken.id) if self._taken else id(self)

    def __repr__(self) -> str:
        if self._taken is None:
            return f"Snapshot(of {self._own_store.url if self._own_store else '?'}, not taken yet)"
        size = _html.size(self.size)
        return f"Snapshot({self.id!r}, files={len(self._record.files)}, size={size!r}, tags={self.tags!r})"

    def _repr_html_(self) -> str:
        if self._taken is None:
            return _html.table(repr(self), [], [])
        return snapshot_html(self._point)


def _several(paths: Collection[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(paths, str):
        raise ConfigurationError(f"paths must be a list of paths, found the single text {paths!r}: write [{paths!r}]")
    return tuple(os.fspath(path) for path in paths)


class Snapshots(tuple[Snapshot, ...]):
    """Snapshots, oldest first."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return snapshots_html(snapshot._point for snapshot in self)
