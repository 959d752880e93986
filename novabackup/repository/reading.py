"""What can be done with a repository that may only be read: find snapshots, check them, copy them elsewhere."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup import retention
from novabackup._support.arguments import expect
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.packs import Compression
from novabackup.format.records import Drill, Pin, Point, SnapshotRecord
from novabackup.keys import Key
from novabackup.objects.objects import Objects
from novabackup.operations import pins
from novabackup.repository.find import components_of, name_of, resolve, taken_by, url_of
from novabackup.repository.snapshot import Origin, Snapshot, Snapshots
from novabackup.retention import Policy
from novabackup.storage import Storage, open_storage, protocol_of
from novabackup.store.reports import Problems
from novabackup.store.store import IndexStore

if TYPE_CHECKING:
    from novabackup.operations.copy import CopyPlan
    from novabackup.operations.mirror import MirrorPlan
    from novabackup.operations.usage import Usage

# Verbs are imported by the methods that need them, so that a guard loads none of them.


class ReadableRepository:
    """The half of `Repository` that changes nothing in it."""

    def __init__(
        self,
        url: str | os.PathLike[str] | Storage,
        *,
        key: Key | None = None,
        storage_options: Mapping[str, Any] | None = None,
        storage_class: str | None = None,
        compression: Compression | str = Compression.FAST,
        plaintext_secrets: Iterable[str] = (),
    ) -> None:
        """Name a repository.

        Args:
            url: Local path, any fsspec URL, or a storage.
            key: Opens an encrypted repository; a new one is created encrypted. See `novabackup.keys`.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            storage_class: The class in which new content is written, such as ``STANDARD_IA``, on storage that has
                classes. What every backup reads, such as the list of snapshots, stays in the standard one.
            compression: How much time to spend on compressing new content: ``"fast"`` or ``"small"``.
            plaintext_secrets: Paths and patterns of files with passwords and keys, such as ``[".env"]``, that may be
                kept here although the repository is neither encrypted nor on this host. All others are refused.

        Raises:
            ConfigurationError: The URL cannot be used, there are no storage classes, or no such compression.
        """
        if key is not None:
            expect(key, Key, "key=Passphrase.from_env(), or another of novabackup.keys")
        storage = open_storage(url, storage_options)
        packs = storage.classed(storage_class) if storage_class is not None else None
        accepted = (plaintext_secrets,) if isinstance(plaintext_secrets, str) else tuple(plaintext_secrets)
        self._objects = Objects(storage, key, packs, _compression(compression), accepted)
        self._storage_options = dict(storage_options or {})
        self._stores: dict[str, IndexStore] = {}

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self._objects.url

    # -- finding -----------------------------------------------------------------------------------------------------

    def snapshots(
        self, *, tags: Iterable[str] = (), store: str | os.PathLike[str] | IndexStore | None = None
    ) -> Snapshots:
        """List snapshots, oldest first; damaged ones are left out with a warning, and reported by `check`.

        Args:
            tags: Only those that have all of these.
            store: Only those of this store: a path, a URL or the store itself.
        """
        self._objects.access.require()
        wanted = {tags} if isinstance(tags, str) else set(tags)
        url = url_of(store)
        return Snapshots(
            self._snapshot(point)
            for point in reversed(list(self._objects.records.newest_first()))
            if wanted <= set(point.record.tags) and url in (None, point.record.store)
        )

    def __getitem__(self, name: str) -> Snapshot:
        """Find a snapshot by its id, the beginning of its id, or ``"latest"``.

        The latest is the newest that holds what a store was meant to hold: not what a failed block left behind, nor
        what a restore replaced, so that restoring the latest twice is the same as restoring it once.

        Raises:
            TypeError: The name is not text: for positions, use `snapshots`.
            NotFoundError: There is none, or several begin like this.
            IntegrityError: It is damaged.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"a snapshot is found by its id, not by {name!r}. For positions: repository.snapshots()[-1]"
            )
        self._objects.access.require()
        return self._snapshot(self._objects.records.point(resolve(self._objects, name)))

    def at(self, time: datetime, *, store: str | os.PathLike[str] | IndexStore | None = None) -> Snapshot:
        """Find the snapshot of what a store held at a time: the newest that was taken by then.

        Snapshots of what a failed block left behind, or a restore replaced, are skipped, since the store did not keep
        that.

        Args:
            time: With its time zone.
            store: A path, a URL or the store itself; needed only if there are snapshots of several stores.

        Raises:
            NotFoundError: There is no repository, or no snapshot that old.
            ConfigurationError: The time has no zone, or there are snapshots of several stores and none is named.
        """
        if time.tzinfo is None:
            raise ConfigurationError(f"{time} has no time zone, so it names no moment: use time.astimezone()")
        return taken_by(self.url, self.snapshots(store=store), time)

    def __contains__(self, name: object) -> bool:
        """Return whether there is exactly one snapshot that ``repo[name]`` would find."""
        if isinstance(name, Snapshot):
            name = name.id
        if not isinstance(name, str):
            return False
        self._objects.access.require()
        try:
            resolve(self._objects, name)
        except NotFoundError:
            return False
        return True

    def __len__(self) -> int:
        self._objects.access.require()
        return len(self._objects.records.names())

    def __bool__(self) -> bool:
        return True  # also when it is empty or does not exist yet

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots())

    # -- checking ----------------------------------------------------------------------------------------------------

    def check(self, *, read_data_subset: str | None = None, callback: Callback = DEFAULT_CALLBACK) -> Problems:
        """Check that every snapshot can be read and that every pack that it needs exists.

        Args:
            read_data_subset: Also read packs and check every byte: ``"100%"`` for all, ``"10%"`` for a random tenth,
                ``"2/7"`` for the second of seven parts, so that seven runs read everything.
            callback: Progress in packs.

        Returns:
            The problems, each with the snapshots that it concerns; empty for a healthy repository.

        Raises:
            ConfigurationError: The subset cannot be parsed.
        """
        from novabackup.operations import check  # noqa: PLC0415

        return check.execute(self._objects, read_data_subset, callback)

    def stored_bytes(self) -> int:
        """Add up the sizes of all packs, including those that no snapshot needs any more."""
        self._objects.access.require()
        return sum(entry.size for _pack, entry in self._objects.packs.entries())

    def usage(self, *, callback: Callback = DEFAULT_CALLBACK) -> Usage:
        """Measure what the repository holds and takes: snapshots, bytes, packs, sharing; progress is in packs.

        Raises:
            IntegrityError: A pack that a snapshot needs, or a snapshot, is damaged, so nothing can be counted.
        """
        from novabackup.operations import usage  # noqa: PLC0415

        return usage.measure(self._objects, callback)

    def drills(self) -> tuple[Drill, ...]:
        """Return the results of the last drills, oldest first."""
        from novabackup.operations import drill  # noqa: PLC0415

        self._objects.access.require()
        return tuple(drill.results(self._objects.access))

    def pins(self) -> dict[str, Pin | None]:
        """Return the ids of pinned snapshots, with time and message of each pin; None for a damaged pin."""
        self._objects.access.require()
        return {name: pins.read(self._objects.access, name) for name in sorted(pins.pinned(self._objects.access))}

    # -- copying -----------------------------------------------------------------------------------------------------

    def plan_copy(self, snapshots: Iterable[str | Snapshot] | None = None, *, to: ReadableRepository) -> CopyPlan:
        """Plan a copy of snapshots (ids or snapshots; by default all) to a repository, which need not exist yet."""
        from novabackup.operations import copy  # noqa: PLC0415

        _expect_repository(to)
        self._objects.access.require()
        names = self._objects.records.names() if snapshots is None else self._names(snapshots)
        return copy.plan(self._objects, names, to._objects)

    def copy(
        self,
        snapshots: CopyPlan | Iterable[str | Snapshot] | None = None,
        *,
        to: ReadableRepository,
        limit: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> CopyPlan:
        """Copy snapshots to another repository, which may have other keys and another storage class.

        Only content that it lacks is sent; every byte is checked on the way. A copied snapshot keeps its id, time, tags
        and message. Call it again to continue a copy that was interrupted.

        Args:
            snapshots: Which: a plan, ids, or snapshots; by default all.
            to: The other repository; it is created with its first snapshot.
            limit: Maximum bytes per second, for reading and for sending; by default none.
            callback: Progress.

        Returns:
            What was done.

        Raises:
            NotFoundError: A snapshot does not exist; then none is copied.
            ConfigurationError: The limit is not positive.
            IntegrityError: Content is damaged here; every snapshot that does not need it was copied.
        """
        from novabackup.operations import copy  # noqa: PLC0415

        paces = copy.Paces.of(limit)
        todo = snapshots if isinstance(snapshots, copy.CopyPlan) else self.plan_copy(snapshots, to=to)
        copy.execute(self._objects, todo, to._objects, paces, callback)
        return todo

    def plan_mirror(
        self, *, to: ReadableRepository, policy: Policy | str | Mapping[str, Any] = retention.REMOTE
    ) -> MirrorPlan:
        """Plan a mirror.

        Args:
            to: The other repository; it need not exist yet.
            policy: What it is to hold, as a policy or in any form that `Policy.of` reads.

        Raises:
            ConfigurationError: The policy cannot be parsed, or the other repository is this one.
        """
        from novabackup.operations import mirror  # noqa: PLC0415

        _expect_repository(to)
        if to.url == self.url:  # a copy to itself does nothing, but a mirror would forget what its policy does not keep
            raise ConfigurationError(f"expected another repository, found {self.url} on both sides. Check the URLs")
        self._objects.access.require()
        return mirror.plan(self._objects, to._objects, Policy.of(policy))

    def mirror(
        self,
        plan: MirrorPlan | None = None,
        *,
        to: ReadableRepository,
        policy: Policy | str | Mapping[str, Any] = retention.REMOTE,
        limit: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> MirrorPlan:
        """Bring another repository up to date, under its own retention policy.

        The snapshots of both are judged together: what the policy keeps is copied there if it is missing, and what it
        does not keep is forgotten there. Nothing is forgotten here, and nothing there only because it is missing here.
        ``to.prune()`` frees the space.

        Args:
            plan: From `plan_mirror`; by default a new one.
            to: The other repository.
            policy: What it is to hold, if there is no plan.
            limit: As for `copy`.
            callback: Progress.

        Returns:
            What was done.

        Raises:
            ConfigurationError: The policy cannot be parsed, or the other repository is this one.
            IntegrityError: Content is damaged here; the rest was copied, and nothing was forgotten.
        """
        from novabackup.operations import copy, mirror  # noqa: PLC0415

        todo = plan or self.plan_mirror(to=to, policy=policy)
        mirror.execute(self._objects, todo, to._objects, copy.Paces.of(limit), callback)
        return todo

    # -- inside ------------------------------------------------------------------------------------------------------

    def _names(self, what: str | Snapshot | Iterable[str | Snapshot]) -> list[str]:
        named = [what] if isinstance(what, str | Snapshot) else what
        return [resolve(self._objects, name_of(item)) for item in named]

    def _snapshot(self, point: Point) -> Snapshot:
        return Snapshot(self._origin(), point, self._stores.get(point.record.store))

    def _origin(self) -> Origin:
        return Origin(objects=self._objects, open_store=self._open_store, open_repository=self.opener())

    def opener(self) -> Callable[[str], Objects]:
        """Return a function that opens the repository that a journal names: this one if it is the same."""

        def open_(url: str) -> Objects:
            if url == self.url:
                return self._objects
            return Objects(open_storage(url, self._options_for(url)))

        return open_

    def _options_for(self, url: str) -> Mapping[str, Any]:
        """Credentials are passed on only within one kind of backend, never to another."""
        return self._storage_options if protocol_of(url) == protocol_of(self.url) else {}

    def _open_store(self, record: SnapshotRecord) -> IndexStore:
        """Open the store that a snapshot names, when the program has not passed it to this object."""
        return IndexStore(
            record.store,
            components=components_of(record),
            exclude=record.excluded,
            storage_options=self._options_for(record.store),
        )

    def __repr__(self) -> str:
        return f"Repository({self.url!r})"

    def _repr_html_(self) -> str:
        try:
            shown = self.snapshots()._repr_html_()
        except NotFoundError:
            shown = "<p>does not exist yet: a repository is created by its first backup</p>"
        return f"<p>{html.escape(self.url)}</p>{shown}"


def _expect_repository(to: object) -> None:
    if not isinstance(to, ReadableRepository):
        raise ConfigurationError(f"expected a Repository, found a {type(to).__name__}: write to=Repository(url)")


def _compression(name: Compression | str) -> Compression:
    try:
        return Compression(name)
    except ValueError:
        known = " or ".join(repr(one.value) for one in Compression)
        raise ConfigurationError(f"compression is {known}, found {name!r}") from None
