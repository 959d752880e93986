"""Where snapshots are kept: take, list, pin, check, forget, prune."""

from __future__ import annotations

import errno
import html
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup import backup as _backup
from novabackup import (
    copying,
    forgetting,
    layouts,
    mirroring,
    prune,
    rebuilding,
    reencryption,
    repair,
    retention,
    session,
    verification,
)
from novabackup.backup import Request
from novabackup.components import Component, Files
from novabackup.copying import CopyPlan, Paces
from novabackup.errors import NotFoundError
from novabackup.keyring import KeyRing
from novabackup.keys import Key
from novabackup.mirroring import MirrorPlan
from novabackup.model import Pin, Problem, SnapshotRecord
from novabackup.objects import Objects
from novabackup.owner import whereabouts
from novabackup.pace import Pace
from novabackup.prune import PrunePlan
from novabackup.rebuilding import RebuildPlan
from novabackup.repair_plan import RepairPlan
from novabackup.retention import ForgetPlan, Policy
from novabackup.snapshots import Origin, Snapshot, Snapshots
from novabackup.storage import Storage, open_storage
from novabackup.store import IndexStore
from novabackup.texts import Tokenize
from novabackup.views import Problems

__all__ = ["Repository"]

_LOG = logging.getLogger("novabackup")

_LATEST = "latest"
_LAYOUTS = (layouts.NOVA, layouts.NOVA_VEHICLE, layouts.NOVA_MULTI_DOMAIN)


class Repository:
    """Snapshots of stores, at any fsspec URL.

    Making this object touches nothing. The repository comes into being with its first backup; reading from one that is
    not there is a `NotFoundError`.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Storage,
        *,
        key: Key | None = None,
        storage_options: Mapping[str, Any] | None = None,
        storage_class: str | None = None,
    ) -> None:
        """Name a repository.

        Args:
            url: Local path, any fsspec URL, or a storage.
            key: Opens an encrypted repository; one that does not exist yet is created encrypted. See `novabackup.keys`.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            storage_class: Where there are such, the class that new content is written in, such as ``STANDARD_IA``; what
                is read all the time, such as the list of snapshots, stays in the usual one.

        Raises:
            ConfigurationError: The URL cannot be used, or there are no storage classes.
        """
        self._storage_options = dict(storage_options or {})
        storage = open_storage(url, storage_options)
        self._objects = Objects(storage, key, storage.classed(storage_class) if storage_class is not None else None)
        self._stores: dict[str, IndexStore] = {}

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self._objects.url

    @property
    def keys(self) -> KeyRing:
        """The keys that open it: list, add, change and remove them."""
        return KeyRing(self._objects)

    # -- taking ------------------------------------------------------------------------------------------------------

    def backup(
        self,
        store: IndexStore,
        *,
        tags: Iterable[str] = (),
        message: str = "",
        timeout: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Snapshot:
        """Take a snapshot of a store at once, without a block.

        Args:
            store: What to back up.
            tags: Labels.
            message: Free text.
            timeout: Seconds to wait for a writer that is at work in the store.
            callback: Told of the bytes that have been dealt with.

        Returns:
            The snapshot.

        Raises:
            StoreBusyError: A guard is at work in the store.
            RollbackError: An interrupted ingest left it half-written: call ``recover(store)`` first.
            ChangedError: Files went on changing while they were read.
            FormatError: The URL holds something that is not a repository, or one of a newer format.
        """
        session.refuse_if_interrupted(store, context=whereabouts(), timeout=timeout)
        taken = _backup.take(self._objects, store, request(tags, message), callback)
        self._stores[store.url] = store
        return self._snapshot(*taken)

    def guard(
        self, store: IndexStore, request_: Request, *, timeout: float | None, callback: Callback = DEFAULT_CALLBACK
    ) -> Snapshot:
        """Give a snapshot that is taken when its block is entered; see `novabackup.snapshot`."""
        self._stores[store.url] = store
        return Snapshot(self._origin(), request=request_, store=store, timeout=timeout, callback=callback)

    # -- listing -----------------------------------------------------------------------------------------------------

    def snapshots(
        self, *, tags: Iterable[str] = (), store: str | os.PathLike[str] | IndexStore | None = None
    ) -> Snapshots:
        """List snapshots, oldest first; damaged ones are left out with a warning, and named by `check`.

        Args:
            tags: Only those that have all of these.
            store: Only those of this store: a path, a URL or the store itself.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.require()
        wanted = {tags} if isinstance(tags, str) else set(tags)
        url = open_storage(store).url if isinstance(store, str | os.PathLike) else store and store.url
        return Snapshots(
            self._snapshot(name, record)
            for name, record in reversed(list(self._objects.named_records()))
            if wanted <= set(record.tags) and url in (None, record.store)
        )

    def __getitem__(self, name: str) -> Snapshot:
        """Find a snapshot by its id, the beginning of its id, or ``"latest"``.

        Raises:
            TypeError: The name is not text: for positions, use `snapshots`.
            NotFoundError: There is none, or several begin like this.
            IntegrityError: It is damaged.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"a snapshot is found by its id, not by {name!r}. For positions: repository.snapshots()[-1]"
            )
        self._objects.require()
        found = self._resolve(name)
        return self._snapshot(found, self._objects.record(found))

    def _resolve(self, name: str) -> str:
        names = self._objects.names()
        if name == _LATEST:
            newest = next(self._objects.named_records(), None)
            if newest is None:
                raise NotFoundError(f"{self.url} has no snapshot yet, so there is no latest one")
            return newest[0]
        # The time and the hash are both natural beginnings for a person to type.
        found = [known for known in names if known.startswith(name) or known.partition("-")[2].startswith(name)]
        if not name or not found:
            last = f"the newest is {names[-1]}" if names else "it has none"
            raise NotFoundError(f"{self.url} has no snapshot {name!r}: {last}. List them with snapshots()")
        if len(found) > 1 and name not in found:
            some = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
            raise NotFoundError(f"{name!r} is the beginning of {len(found)} snapshots: {some}. Give more of the id")
        return name if name in found else found[0]

    def _names(self, what: str | Snapshot | Iterable[str | Snapshot]) -> list[str]:
        named = [what] if isinstance(what, str | Snapshot) else what
        return [self._resolve(_name(item)) for item in named]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is exactly one snapshot that ``repo[name]`` would find."""
        if isinstance(name, Snapshot):
            name = name.id
        if not isinstance(name, str):
            return False
        self._objects.require()
        try:
            self._resolve(name)
        except NotFoundError:
            return False
        return True

    def __len__(self) -> int:
        self._objects.require()
        return len(self._objects.names())

    def __bool__(self) -> bool:
        return True  # a repository is something even when it is empty or not there yet

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots())

    # -- copying -----------------------------------------------------------------------------------------------------

    def plan_copy(self, snapshots: Iterable[str | Snapshot] | None = None, *, to: Repository) -> CopyPlan:
        """Say what `copy` would do; do nothing."""
        self._objects.require()
        names = self._objects.names() if snapshots is None else self._names(snapshots)
        return copying.plan(self._objects, names, to._objects)

    def copy(
        self,
        snapshots: CopyPlan | Iterable[str | Snapshot] | None = None,
        *,
        to: Repository,
        limit: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> CopyPlan:
        """Copy snapshots to another repository, which may have other keys and another storage class.

        Only content that is not there yet is sent; every byte is checked on the way. A copied snapshot keeps its id,
        time, tags and message. A copy that was interrupted goes on where it was when it is called again.

        Args:
            snapshots: Which: a plan, ids, or snapshots; by default all.
            to: The other repository; it comes into being with its first snapshot.
            limit: Bytes per second that are read at most, and as many that are sent; by default as fast as it goes.
            callback: Told of the bytes of files that have been dealt with.

        Returns:
            What was done.

        Raises:
            NotFoundError: A snapshot is not there; then none is copied.
            IntegrityError: Content is damaged here; snapshots copied before it stay.
        """
        todo = snapshots if isinstance(snapshots, CopyPlan) else self.plan_copy(snapshots, to=to)
        paces = Paces(reading=Pace(limit), sending=Pace(limit)) if limit else Paces()
        copying.copy(self._objects, todo, to._objects, paces, callback)
        return todo

    def plan_mirror(self, *, to: Repository, policy: Policy | str | Mapping[str, Any] = retention.REMOTE) -> MirrorPlan:
        """Say what `mirror` would do; do nothing.

        Args:
            to: The other repository; it need not exist yet.
            policy: What it is to hold, as a policy or in any form that `Policy.of` reads.
        """
        self._objects.require()
        return mirroring.plan(self._objects, to._objects, Policy.of(policy))

    def mirror(
        self,
        plan: MirrorPlan | None = None,
        *,
        to: Repository,
        policy: Policy | str | Mapping[str, Any] = retention.REMOTE,
        limit: float | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> MirrorPlan:
        """Keep another repository in step, under a retention of its own.

        Snapshots of both are judged together: what the policy keeps is copied there if it is not there yet, and what it
        does not keep is forgotten there. Nothing is forgotten here, and nothing there for the mere reason that it is
        gone here. Old content is freed by ``to.prune()``.

        Args:
            plan: What `plan_mirror` said; made anew by default.
            to: The other repository.
            policy: What it is to hold; not asked if there is a plan.
            limit: As for `copy`.
            callback: As for `copy`.

        Returns:
            What was done.
        """
        todo = plan or self.plan_mirror(to=to, policy=policy)
        self.copy(todo.copy, to=to, limit=limit, callback=callback)
        if todo.forget.forgotten:
            to.forget(todo.forget)
        return todo

    def reencrypt(self, *, callback: Callback = DEFAULT_CALLBACK) -> tuple[str, ...]:
        """Replace the data key, for when a key or passphrase may have become known, and seal everything anew.

        Interrupted, it goes on when it is called again. Nobody else may write to the repository meanwhile.

        Args:
            callback: Told of the bytes of files that have been dealt with.

        Returns:
            Labels of all other keys, which do not open the repository any more: add them again with ``keys.add``.

        Raises:
            ConfigurationError: The repository is not encrypted.
            IntegrityError: Something cannot be read, and would be lost with its data key; nothing is taken away.
        """
        self._objects.require()
        return reencryption.reencrypt(self._objects, callback)

    def stored_bytes(self) -> int:
        """Add up the packs, also those that no snapshot needs any more; they are listed for it.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.require()
        return sum(entry.size for _pack, entry in self._objects.pack_entries())

    # -- checking ----------------------------------------------------------------------------------------------------

    def check(self, *, read_data_subset: str | None = None, callback: Callback = DEFAULT_CALLBACK) -> Problems:
        """Check that every snapshot can be read and that every pack that it names is there.

        Args:
            read_data_subset: Also read packs and check every byte: ``"100%"`` for all, ``"10%"`` for a random tenth,
                ``"2/7"`` for the second of seven parts, so that seven runs read everything.
            callback: Told of the packs.

        Returns:
            The problems; empty for a healthy repository. A snapshot that a problem concerns is named in it.

        Raises:
            NotFoundError: There is no repository here.
            ConfigurationError: The subset cannot be understood.
        """
        return verification.check(self._objects, read_data_subset, callback)

    def plan_repair(
        self,
        *,
        from_: Repository | Iterable[Repository] = (),
        store: IndexStore | None = None,
        problems: Iterable[Problem] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairPlan:
        """Say what `repair` would do and what cannot be had back; write nothing.

        Args:
            from_: Other repositories that may have the same content: copies made by `copy` or `mirror`, whatever their
                keys, copies made byte by byte, or repositories of the same stores.
            store: Live files that may still be what a snapshot has.
            problems: What `check` found; by default everything is read to find out.
            callback: Told of the packs that are read.

        Returns:
            The plan; ``print`` shows it. ``lost`` says what cannot be had back, file by file. Content of other
            repositories is read in whole only when the plan is carried out.

        Raises:
            NotFoundError: There is no repository here, or at a place to repair from.
        """
        return repair.plan(self._objects, _several(from_), store, problems, callback)

    def repair(
        self,
        plan: RepairPlan | None = None,
        *,
        from_: Repository | Iterable[Repository] = (),
        store: IndexStore | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairPlan:
        """Mend what is damaged, from what is left of it, from other repositories and from live files.

        Packs are copied back from a copy that has the very same ones; otherwise files are brought together again from
        chunks with the same hashes or from a copied snapshot, and their snapshots say where they are now. Each file is
        read and compared with its hash before its snapshot is changed. What was damaged is kept below ``damaged/``.
        Interrupted, it goes on when it is called again. Let no prune run beside it.

        Args:
            plan: What `plan_repair` said; made anew by default. Everything is looked at again all the same.
            from_: As for `plan_repair`.
            store: As for `plan_repair`.
            callback: Told of the steps.

        Returns:
            What was done. ``lost`` says what could not be had back; `check` goes on naming it.

        Raises:
            NotFoundError: There is no repository here, or at a place to repair from.
            ChangedError: Somebody prunes here meanwhile.
        """
        others = _several(from_)
        todo = plan or repair.plan(self._objects, others, store, None, DEFAULT_CALLBACK)
        return repair.execute(self._objects, others, store, todo, callback)

    def plan_rebuild_bm25(
        self,
        store: IndexStore,
        *,
        text_field: str | None = None,
        tokenize: Tokenize | None = None,
        sign_key: bytes | None = None,
    ) -> RebuildPlan:
        """Say how `rebuild_bm25` would write the BM25 index of a store anew; write nothing.

        Args:
            store: The store. All its other files must be healthy and agree.
            text_field: Member of the metadata's entries that holds the text; by default what is usual.
            tokenize: Cuts a text into words as the ingestion does; by default the usual ways are tried.
            sign_key: Key of the signature, where the index is signed; by default the one of its component.

        Returns:
            The plan; ``print`` shows it. It has no ``problems`` if there is nothing to do.

        Raises:
            ConfigurationError: The index cannot be made; the message says what is missing.
            NotFoundError: No snapshot has a healthy one to learn from.
            RollbackError: An interrupted ingest left the store half-written: call ``recover(store)`` first.
        """
        return self._rebuilt(store, rebuilding.Wishes(text_field=text_field, tokenize=tokenize, sign_key=sign_key)).plan

    def rebuild_bm25(
        self,
        store: IndexStore,
        *,
        text_field: str | None = None,
        tokenize: Tokenize | None = None,
        sign_key: bytes | None = None,
        timeout: float | None = None,
    ) -> RebuildPlan:
        """Write the BM25 index of a store anew from the texts of its metadata, when it alone is damaged.

        Shape, parameters and the way texts are cut into words are those of the newest snapshot that has a healthy
        index; an index made in this way from that snapshot's texts must be the same, or nothing is written. It happens
        in a guarded block: if the store is not healthy afterwards, it is put back. The damaged file is set aside.

        Args:
            store: As for `plan_rebuild_bm25`.
            text_field: As for `plan_rebuild_bm25`.
            tokenize: As for `plan_rebuild_bm25`.
            sign_key: As for `plan_rebuild_bm25`.
            timeout: Seconds to wait for another writer.

        Returns:
            What was done.

        Raises:
            ConfigurationError: The index cannot be made; the message says what is missing.
            NotFoundError: No snapshot has a healthy one to learn from.
            StoreBusyError: Another writer is at work in the store.
            ChangedError: The metadata was changed meanwhile.
        """
        wishes = rebuilding.Wishes(text_field=text_field, tokenize=tokenize, sign_key=sign_key)
        rebuilt = self._rebuilt(store, wishes)
        if rebuilt.plan.problems:
            guard = self.guard(store, request(("before-rebuild",), rebuilt.plan.path), timeout=timeout)
            rebuilding.execute(store, rebuilt, guard)
        return rebuilt.plan

    def _rebuilt(self, store: IndexStore, wishes: rebuilding.Wishes) -> rebuilding.Rebuilt:
        session.refuse_if_interrupted(store, context=whereabouts(), timeout=None)
        self._objects.require()
        return rebuilding.build(store, self._objects, wishes)

    # -- pinning -----------------------------------------------------------------------------------------------------

    def pin(self, snapshot: str | Snapshot, message: str = "") -> None:
        """Let a snapshot stay, whatever a policy says, until `unpin`.

        Args:
            snapshot: Which one. One that is pinned already gets the new message.
            message: Why, for people.

        Raises:
            NotFoundError: It is not there.
        """
        self._objects.require()
        self._objects.pin(self._resolve(_name(snapshot)), message)

    def unpin(self, snapshot: str | Snapshot) -> None:
        """Take the pin of a snapshot away; the snapshot stays until it is forgotten.

        Args:
            snapshot: Which one; the whole id, if the snapshot itself is gone.

        Raises:
            NotFoundError: It is not there, or not pinned.
        """
        self._objects.require()
        pinned, name = self._objects.pinned(), _name(snapshot)
        found = name if name in pinned else self._resolve(name)
        if found not in pinned:
            raise NotFoundError(f"snapshot {found} in {self.url} is not pinned. pins() lists those that are")
        self._objects.unpin(found)

    def pins(self) -> dict[str, Pin | None]:
        """List pinned snapshots: their ids, with time and message of each pin; None for a pin that is damaged.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.require()
        return {name: self._objects.read_pin(name) for name in sorted(self._objects.pinned())}

    # -- forgetting --------------------------------------------------------------------------------------------------

    def plan_forget(self, policy: Policy | str | Mapping[str, Any] = retention.DEFAULT) -> ForgetPlan:
        """Say which snapshots a policy would keep, and why, store by store; do nothing.

        Args:
            policy: What to keep, as a policy or in any form that `Policy.of` reads.

        Returns:
            The plan; ``print`` shows it. Snapshots that cannot be read are not in it and stay.

        Raises:
            NotFoundError: There is no repository here.
            ConfigurationError: The policy cannot be understood.
        """
        self._objects.require()
        return forgetting.plan(self._objects, Policy.of(policy))

    def forget(self, what: ForgetPlan | Iterable[str | Snapshot]) -> tuple[str, ...]:
        """Forget snapshots; `prune` later frees what only they needed.

        What a plan says is looked at again first: a snapshot that has been pinned since, or that is the last healthy
        one of its store by now, stays, and a warning is logged.

        Args:
            what: A plan, or snapshots that are named one by one. Those of a plan that their bucket protects for now
                stay, with a warning: a later plan has them again.

        Returns:
            Ids of the snapshots that are gone.

        Raises:
            NotFoundError: A snapshot that is named is not there; then none is forgotten.
            ConfigurationError: A snapshot that is named is pinned; then none is forgotten.
            PermissionError: A snapshot that is named may not be deleted yet; then none is forgotten.
        """
        self._objects.require()
        if isinstance(what, ForgetPlan):
            names = forgetting.still_forgotten(self._objects, what)
        else:
            names = forgetting.unpinned(self._objects, self._names(what))
        locked = self._objects.locked(names)
        said = "; ".join(f"{name} is {lock}" for name, lock in locked.items())
        if locked and not isinstance(what, ForgetPlan):
            raise PermissionError(errno.EACCES, f"may not be forgotten yet: {said}. Wait until then", self.url)
        if locked:
            _LOG.warning("%s: some snapshots may not be forgotten yet: %s", self.url, said)
        gone = tuple(name for name in names if name not in locked)
        self._objects.forget(gone)
        return gone

    def plan_prune(self, *, grace: timedelta = prune.GRACE) -> PrunePlan:
        """Say what `prune` would delete and condemn; delete nothing."""
        self._objects.require()
        return prune.plan(self._objects, grace)

    def prune(self, plan: PrunePlan | None = None, *, grace: timedelta = prune.GRACE) -> PrunePlan:
        """Free what no snapshot needs, in two steps: what is condemned now is deleted by a prune a grace period later.

        Args:
            plan: What `plan_prune` said; made anew by default.
            grace: How long no writer that shares old content takes to commit. Zero is safe only while nothing else
                writes to the repository.

        Returns:
            What was done.

        Raises:
            IntegrityError: A snapshot cannot be read, so nobody knows what it needs; nothing is deleted.
        """
        todo = plan or self.plan_prune(grace=grace)
        prune.execute(self._objects, todo)
        return todo

    # -- inside ------------------------------------------------------------------------------------------------------

    def _snapshot(self, name: str, record: SnapshotRecord) -> Snapshot:
        return Snapshot(self._origin(), taken=(name, record), store=self._stores.get(record.store))

    def _origin(self) -> Origin:
        return Origin(objects=self._objects, open_store=self._open_store, open_repository=self.opener())

    def opener(self) -> Callable[[str], Objects]:
        """Give a function that opens the repository a journal names: this one if it is the same."""

        def open_(url: str) -> Objects:
            if url == self.url:
                return self._objects
            return Objects(open_storage(url, self._options_for(url)))

        return open_

    def _options_for(self, url: str) -> Mapping[str, Any]:
        """Credentials are handed on only within one kind of backend, never to another."""
        return self._storage_options if protocol(url) == protocol(self.url) else {}

    def _open_store(self, record: SnapshotRecord) -> IndexStore:
        """Open the store that a snapshot names, when the program has not shown it to this object."""
        return IndexStore(
            record.store, components=_components(record.declared), storage_options=self._options_for(record.store)
        )

    def __repr__(self) -> str:
        return f"Repository({self.url!r})"

    def _repr_html_(self) -> str:
        try:
            shown = self.snapshots()._repr_html_()
        except NotFoundError:
            shown = "<p>nothing there yet: a repository comes into being with its first backup</p>"
        return f"<p>{html.escape(self.url)}</p>{shown}"


def request(tags: Iterable[str], message: str) -> Request:
    """Make a request out of what users pass; a single tag may be given as plain text."""
    return Request(tags=(tags,) if isinstance(tags, str) else tuple(tags), message=message)


def _several(repositories: Repository | Iterable[Repository]) -> list[Objects]:
    given = [repositories] if isinstance(repositories, Repository) else repositories
    return [repository._objects for repository in given]


def _name(snapshot: str | Snapshot) -> str:
    return snapshot.id if isinstance(snapshot, Snapshot) else snapshot


def _components(declared: Collection[str]) -> tuple[Component, ...]:
    """Find the ready-made layout with these paths; other files are known by name only."""
    for layout in _LAYOUTS:
        if {component.path for component in layout} == set(declared):
            return layout
    return tuple(Files(path, optional=True) for path in declared)


def protocol(url: str) -> str:
    """Give the kind of backend that a URL names; ``file`` for a path."""
    found = re.match(r"([a-z0-9+]+)://", url)
    return found[1] if found else "file"
