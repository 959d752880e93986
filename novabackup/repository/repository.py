"""Where snapshots are kept: take, copy, pin, forget, prune."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup import retention
from novabackup._support.arguments import expect
from novabackup._support.rate import RateLimit
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.packs import Compression
from novabackup.format.records import Pin
from novabackup.keys import Key
from novabackup.objects.objects import Objects
from novabackup.operations import backup as _backup
from novabackup.operations import copy as copying
from novabackup.operations import forget as forgetting
from novabackup.operations import mirror as mirroring
from novabackup.operations import pins, prune
from novabackup.operations import reencrypt as reencryption
from novabackup.operations.backup import Request, request
from novabackup.operations.copy import CopyPlan, Paces
from novabackup.operations.mirror import MirrorPlan
from novabackup.operations.prune import PrunePlan
from novabackup.repository.drilling import Drilling
from novabackup.repository.find import name_of, protocol
from novabackup.repository.imports import Imports
from novabackup.repository.keyring import KeyRing
from novabackup.repository.repairing import Repairing
from novabackup.repository.snapshot import Snapshot
from novabackup.retention import ForgetPlan, Policy
from novabackup.storage import Storage, open_storage
from novabackup.store.store import IndexStore
from novabackup.transaction.journal import refuse_if_interrupted
from novabackup.transaction.owner import whereabouts

__all__ = ["Repository", "protocol", "request"]


class Repository(Imports, Drilling, Repairing):
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
        compression: Compression | str = Compression.FAST,
        plaintext_secrets: Iterable[str] = (),
    ) -> None:
        """Name a repository.

        Args:
            url: Local path, any fsspec URL, or a storage.
            key: Opens an encrypted repository; one that does not exist yet is created encrypted. See `novabackup.keys`.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            storage_class: Where there are such, the class that new content is written in, such as ``STANDARD_IA``; what
                is read all the time, such as the list of snapshots, stays in the usual one.

            compression: How much time to spend on making new content small: ``"fast"`` or ``"small"``.
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
        super().__init__(Objects(storage, key, packs, _compression(compression), accepted), storage_options or {})

    @property
    def keys(self) -> KeyRing:
        """The keys that open it: list, add, change and remove them."""
        return KeyRing(self._objects)

    # -- taking ------------------------------------------------------------------------------------------------------

    def create(self) -> str:
        """Bring the repository into being before its first backup does; one that is there stays as it is.

        Returns:
            The id of the repository.

        Raises:
            FormatError: The URL holds something that is not a repository, or one of a newer format.
        """
        return self._objects.access.ensure()

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
        expect(store, IndexStore, 'IndexStore("vector_db")')
        refuse_if_interrupted(store, context=whereabouts(), timeout=timeout)
        asked = request(tags, message, store.probing_on("backup"))
        taken = _backup.execute(self._objects, store, asked, callback)
        return self._taken_in(store, taken)

    def guard(
        self, store: IndexStore, request_: Request, *, timeout: float | None, callback: Callback = DEFAULT_CALLBACK
    ) -> Snapshot:
        """Give a snapshot that is taken when its block is entered; see `novabackup.snapshot`."""
        self._stores[store.url] = store
        return Snapshot(self._origin(), request_, store, timeout=timeout, callback=callback)

    # -- copying -----------------------------------------------------------------------------------------------------

    def plan_copy(self, snapshots: Iterable[str | Snapshot] | None = None, *, to: Repository) -> CopyPlan:
        """Say what `copy` would do; do nothing.

        Args:
            snapshots: Which: ids or snapshots; by default all.
            to: The other repository; it need not exist yet.

        Raises:
            NotFoundError: There is no repository here, or a snapshot is not there.
        """
        expect(to, Repository, "to=Repository(url)")
        self._objects.access.require()
        names = self._objects.records.names() if snapshots is None else self._names(snapshots)
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
            ConfigurationError: Nothing could ever go through with that limit.
            IntegrityError: Content is damaged here; every snapshot that does not need it was copied.
        """
        paces = _paces(limit)
        todo = snapshots if isinstance(snapshots, CopyPlan) else self.plan_copy(snapshots, to=to)
        copying.execute(self._objects, todo, to._objects, paces, callback)
        return todo

    def plan_mirror(self, *, to: Repository, policy: Policy | str | Mapping[str, Any] = retention.REMOTE) -> MirrorPlan:
        """Say what `mirror` would do; do nothing.

        Args:
            to: The other repository; it need not exist yet.
            policy: What it is to hold, as a policy or in any form that `Policy.of` reads.

        Raises:
            NotFoundError: There is no repository here.
            ConfigurationError: The policy cannot be understood, or the other repository is this one.
        """
        expect(to, Repository, "to=Repository(url)")
        if to.url == self.url:  # a copy into itself does nothing, but a mirror would forget what only it is not to hold
            raise ConfigurationError(f"expected another repository, found {self.url} on both sides. Look at the URLs")
        self._objects.access.require()
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

        Raises:
            ConfigurationError: The policy cannot be understood, or the other repository is this one.
            IntegrityError: Content is damaged here; what could be copied was, and nothing was forgotten.
        """
        todo = plan or self.plan_mirror(to=to, policy=policy)
        mirroring.execute(self._objects, todo, to._objects, _paces(limit), callback)
        return todo

    def reencrypt(self, *, callback: Callback = DEFAULT_CALLBACK) -> tuple[str, ...]:
        """Replace the data key, for when a key or passphrase may have become known, and seal everything anew.

        The key that opened the repository opens it as before. If that is the one that may have become known, call
        ``keys.change`` first; call it afterwards in any case.

        Interrupted, it goes on when it is called again. Nobody else may write to the repository meanwhile.

        Args:
            callback: Told of the bytes of files that have been dealt with.

        Returns:
            Labels of all other keys, which do not open the repository any more: add them again with ``keys.add``.

        Raises:
            ConfigurationError: The repository is not encrypted.
            IntegrityError: Something cannot be read, and would be lost with its data key; nothing is taken away.
        """
        self._objects.access.require()
        return reencryption.execute(self._objects, callback)

    # -- pinning -----------------------------------------------------------------------------------------------------

    def pin(self, snapshot: str | Snapshot, message: str = "") -> None:
        """Let a snapshot stay, whatever a policy says, until `unpin`.

        Args:
            snapshot: Which one. One that is pinned already gets the new message.
            message: Why, for people.

        Raises:
            NotFoundError: It is not there.
        """
        self._objects.access.require()
        pins.pin(self._objects.access, self._resolve(name_of(snapshot)), message)

    def unpin(self, snapshot: str | Snapshot) -> None:
        """Take the pin of a snapshot away; the snapshot stays until it is forgotten.

        Args:
            snapshot: Which one; the whole id, if the snapshot itself is gone.

        Raises:
            NotFoundError: It is not there, or not pinned.
        """
        self._objects.access.require()
        pinned, name = pins.pinned(self._objects.access), name_of(snapshot)
        found = name if name in pinned else self._resolve(name)
        if found not in pinned:
            raise NotFoundError(f"snapshot {found} in {self.url} is not pinned. pins() lists those that are")
        pins.unpin(self._objects.access, found)

    def pins(self) -> dict[str, Pin | None]:
        """List pinned snapshots: their ids, with time and message of each pin; None for a pin that is damaged.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.access.require()
        return {name: pins.read(self._objects.access, name) for name in sorted(pins.pinned(self._objects.access))}

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
        self._objects.access.require()
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
        self._objects.access.require()
        return forgetting.execute(self._objects, what if isinstance(what, ForgetPlan) else self._names(what))

    def plan_prune(self, *, grace: timedelta = prune.GRACE) -> PrunePlan:
        """Say what `prune` would delete and condemn; delete nothing.

        Args:
            grace: As for `prune`.

        Raises:
            NotFoundError: There is no repository here.
            IntegrityError: A snapshot cannot be read, so nobody knows what it needs.
        """
        self._objects.access.require()
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


def _paces(limit: float | None) -> Paces:
    if limit is None:
        return Paces()
    if not limit > 0:
        raise ConfigurationError(f"expected a limit of more than 0 bytes a second, or None for no limit, found {limit}")
    return Paces(reading=RateLimit(limit), sending=RateLimit(limit))


def _compression(name: Compression | str) -> Compression:
    try:
        return Compression(name)
    except ValueError:
        known = " or ".join(repr(one.value) for one in Compression)
        raise ConfigurationError(f"compression is {known}, found {name!r}") from None
