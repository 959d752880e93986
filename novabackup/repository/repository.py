"""Where snapshots are kept: a repository, with one method for each verb."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup import retention
from novabackup._support.arguments import expect
from novabackup.errors import NotFoundError
from novabackup.format.records import Drill, Point, Problem
from novabackup.objects.objects import Objects
from novabackup.operations import backup as backups
from novabackup.operations import pins
from novabackup.operations.backup import Request, request
from novabackup.repository.find import name_of, resolve, url_of
from novabackup.repository.reading import ReadableRepository
from novabackup.repository.snapshot import Snapshot, Snapshots
from novabackup.retention import ForgetPlan, Policy
from novabackup.store.store import IndexStore
from novabackup.transaction.journal import refuse_if_interrupted
from novabackup.transaction.owner import whereabouts

if TYPE_CHECKING:
    from novabackup.operations.archives.import_ import Archive
    from novabackup.operations.archives.plan import ImportPlan
    from novabackup.operations.archives.pre_ingest import PreIngest
    from novabackup.operations.drill import DrillPlan
    from novabackup.operations.prune import PrunePlan
    from novabackup.operations.rebuild.rebuild import RebuildPlan, Rebuilt
    from novabackup.operations.rebuild.texts import Tokenize
    from novabackup.operations.repair.plan import RepairPlan
    from novabackup.repository.keyring import KeyRing

__all__ = ["Repository", "request"]

# Verbs are imported by the methods that need them, so that a guard loads none of them.

_Described = TypeVar("_Described", "Archive", "PreIngest")
_GRACE = timedelta(days=1)


class Repository(ReadableRepository):
    """Snapshots of stores, at any fsspec URL.

    Making this object touches nothing. The repository is created by its first backup; reading from one that does not
    exist is a `NotFoundError`. Where a method takes ``callback``, it is an fsspec callback that shows the progress, in
    bytes unless it says otherwise. Plans change nothing; ``print`` shows them.
    """

    @property
    def keys(self) -> KeyRing:
        """The keys that open it: list, add, change and remove them."""
        from novabackup.repository.keyring import KeyRing  # noqa: PLC0415

        return KeyRing(self._objects)

    # -- taking ------------------------------------------------------------------------------------------------------

    def create(self) -> str:
        """Create the repository before its first backup does, if it does not exist; return its id.

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
            timeout: Seconds to wait for a writer that is using the store.
            callback: Progress.

        Raises:
            StoreBusyError: A guard is using the store.
            RollbackError: An interrupted ingest left it half-written: call ``recover(store)`` first.
            ChangedError: Files kept changing while they were read.
            FormatError: The URL holds something that is not a repository, or one of a newer format.
        """
        expect(store, IndexStore, 'IndexStore("vector_db")')
        refuse_if_interrupted(store, context=whereabouts(), timeout=timeout)
        asked = request(tags, message, store.probing_on("backup"))
        return self._known(store, backups.execute(self._objects, store, asked, callback))

    def guard(
        self, store: IndexStore, request_: Request, *, timeout: float | None, callback: Callback = DEFAULT_CALLBACK
    ) -> Snapshot:
        """Return a snapshot that is taken when its block is entered; see `novabackup.snapshot`."""
        self._stores[store.url] = store
        return Snapshot(self._origin(), request_, store, timeout=timeout, callback=callback)

    # -- drills ------------------------------------------------------------------------------------------------------

    def plan_drill(
        self, *, store: str | os.PathLike[str] | IndexStore | None = None, seed: int | None = None
    ) -> DrillPlan:
        """Choose a snapshot for a drill at random: a healthy one that is not the newest of its store.

        Args:
            store: Only those of this store: a path, a URL or the store itself.
            seed: Makes the choice repeatable.

        Raises:
            NotFoundError: There is no such snapshot.
            ArchivedError: All of them have to be thawed first.
        """
        from novabackup.operations import drill  # noqa: PLC0415

        self._objects.access.require()
        return drill.plan(self._objects, url_of(store), random.Random(seed))  # noqa: S311 - no secret depends on it

    def drill(
        self,
        snapshot: DrillPlan | str | Snapshot | None = None,
        *,
        store: IndexStore | None = None,
        command: Sequence[str] = (),
        working_folder: str | os.PathLike[str] | None = None,
        command_timeout: float = 600.0,
        rto: float | None = None,
        folder: str | os.PathLike[str] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Drill:
        """Restore an old snapshot to a temporary folder, open and query it, and record the result in the repository.

        Args:
            snapshot: Which: a plan, an id, or a snapshot; by default what `plan_drill` chooses.
            store: The kind of store, where the repository does not know its components, or to choose among the
                snapshots of this store only. It is not touched.
            command: Program and arguments, such as ``["pytest", "tests/test_retrieval.py"]``. It passes with exit
                status 0, and finds the restored store in ``NOVABACKUP_DRILL_FOLDER``.
            working_folder: Where the command runs; by default in the restored store.
            command_timeout: Seconds that the command may take.
            rto: Recovery time objective: seconds that restoring, opening and the queries may take together.
            folder: Where to restore to; by default the system's folder for temporary files.
            callback: Progress.

        Raises:
            NotFoundError: There is no such snapshot, or none that is suitable.
            CheckFailedError: It failed; ``problems`` says how. The result is recorded all the same.
            IntegrityError: It failed because content is damaged; the result is recorded all the same.
            ArchivedError: Content has to be thawed first.
            OSError: There is no space to restore to.
        """
        from novabackup.operations import drill  # noqa: PLC0415

        rules = drill.Rules(
            command=command, working_folder=working_folder, command_timeout=command_timeout, rto=rto, folder=folder
        )
        chosen = snapshot if snapshot is not None else self.plan_drill(store=store)
        found = self[chosen.snapshot if isinstance(chosen, drill.DrillPlan) else name_of(chosen)]
        kind = store or self._stores.get(found.store) or self._open_store(found._record)
        return drill.execute(self._objects, found.id, kind, rules, lambda to: found.restore(to=to, callback=callback))

    def reencrypt(self, *, callback: Callback = DEFAULT_CALLBACK) -> tuple[str, ...]:
        """Replace the data key, for when a key or passphrase may have become known, and seal everything again.

        The key that opened the repository still opens it. If that one may have become known, call ``keys.change``
        before; always call it afterwards. Call this again to continue after an interruption. No other process may write
        to the repository meanwhile.

        Returns:
            Labels of all other keys, which no longer open the repository: add them again with ``keys.add``.

        Raises:
            ConfigurationError: The repository is not encrypted.
            IntegrityError: Something cannot be read, and would be lost with its data key; nothing is removed.
        """
        from novabackup.operations import reencrypt  # noqa: PLC0415

        self._objects.access.require()
        return reencrypt.execute(self._objects, callback)

    # -- keeping and forgetting --------------------------------------------------------------------------------------

    def pin(self, snapshot: str | Snapshot, message: str = "") -> None:
        """Keep a snapshot under every policy until `unpin`; a pinned one gets the new message."""
        self._objects.access.require()
        pins.pin(self._objects.access, resolve(self._objects, name_of(snapshot)), message)

    def unpin(self, snapshot: str | Snapshot) -> None:
        """Remove the pin of a snapshot, named by its whole id if the snapshot itself no longer exists.

        Raises:
            NotFoundError: It does not exist, or is not pinned.
        """
        self._objects.access.require()
        pinned, name = pins.pinned(self._objects.access), name_of(snapshot)
        found = name if name in pinned else resolve(self._objects, name)
        if found not in pinned:
            raise NotFoundError(f"snapshot {found} in {self.url} is not pinned. pins() lists those that are")
        pins.unpin(self._objects.access, found)

    def plan_forget(self, policy: Policy | str | Mapping[str, Any] = retention.DEFAULT) -> ForgetPlan:
        """Plan which snapshots a policy keeps, and why, store by store.

        Args:
            policy: What to keep, as a policy or in any form that `Policy.of` reads.

        Returns:
            The plan. Snapshots that cannot be read are not in it and stay.

        Raises:
            ConfigurationError: The policy cannot be parsed.
        """
        from novabackup.operations import forget  # noqa: PLC0415

        self._objects.access.require()
        return forget.plan(self._objects, Policy.of(policy))

    def forget(self, what: ForgetPlan | Iterable[str | Snapshot]) -> tuple[str, ...]:
        """Forget snapshots; `prune` later frees what only they needed.

        A plan is checked again first: a snapshot that was pinned since, that is the last healthy one of its store by
        now, or that its bucket protects, stays with a warning.

        Args:
            what: A plan, or snapshots that are named one by one.

        Returns:
            Ids of the snapshots that were forgotten.

        Raises:
            NotFoundError: A named snapshot does not exist; then none is forgotten.
            ConfigurationError: A named snapshot is pinned; then none is forgotten.
            PermissionError: A named snapshot may not be deleted yet; then none is forgotten.
        """
        from novabackup.operations import forget  # noqa: PLC0415

        self._objects.access.require()
        return forget.execute(self._objects, what if isinstance(what, ForgetPlan) else self._names(what))

    def plan_prune(self, *, grace: timedelta = _GRACE) -> PrunePlan:
        """Plan what `prune` would delete and condemn; see there."""
        from novabackup.operations import prune  # noqa: PLC0415

        self._objects.access.require()
        return prune.plan(self._objects, grace)

    def prune(self, plan: PrunePlan | None = None, *, grace: timedelta = _GRACE) -> PrunePlan:
        """Free what no snapshot needs, in two steps: what is condemned now is deleted by a prune a grace period later.

        Args:
            plan: From `plan_prune`; by default a new one.
            grace: How long any writer that shares old content takes to commit. Zero is safe only while no other process
                writes to the repository.

        Returns:
            What was done.

        Raises:
            IntegrityError: A snapshot cannot be read, so it is not known what it needs; nothing is deleted.
        """
        from novabackup.operations import prune  # noqa: PLC0415

        todo = plan or self.plan_prune(grace=grace)
        prune.execute(self._objects, todo)
        return todo

    # -- repairing ---------------------------------------------------------------------------------------------------

    def plan_repair(
        self,
        *,
        from_: ReadableRepository | Iterable[ReadableRepository] = (),
        store: IndexStore | None = None,
        problems: Iterable[Problem] | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairPlan:
        """Plan a repair: what can be recovered, from where, and what is lost.

        Args:
            from_: Other repositories that may have the same content: copies made by `copy` or `mirror`, with any keys,
                copies made byte by byte, or repositories of the same stores.
            store: Live files that may still be as in a snapshot.
            problems: What `check` found; by default everything is read to find out.
            callback: Progress in packs.

        Raises:
            NotFoundError: There is no repository here, or at a place to repair from.
        """
        from novabackup.operations.repair import execute as repair  # noqa: PLC0415

        return repair.plan(self._objects, _several(from_), store, problems, callback)

    def repair(
        self,
        plan: RepairPlan | None = None,
        *,
        from_: ReadableRepository | Iterable[ReadableRepository] = (),
        store: IndexStore | None = None,
        callback: Callback = DEFAULT_CALLBACK,
    ) -> RepairPlan:
        """Repair what is damaged, from its own remains, from other repositories and from live files.

        Each file is read and compared with its hash before its snapshot is changed. What was damaged is kept below
        ``damaged/``. Call it again to continue after an interruption. Do not run `prune` at the same time.

        Args:
            plan: From `plan_repair`; by default a new one. Everything is checked again in any case.
            from_: As for `plan_repair`.
            store: As for `plan_repair`.
            callback: Progress in steps.

        Returns:
            What was done; ``lost`` lists what could not be recovered.

        Raises:
            NotFoundError: There is no repository here, or at a place to repair from.
            ChangedError: Another process prunes here meanwhile.
        """
        from novabackup.operations.repair import execute as repair  # noqa: PLC0415

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
        """Plan how `rebuild_bm25` would rebuild the BM25 index of a store; see there."""
        return self._rebuilt(store, text_field, tokenize, sign_key).plan

    def rebuild_bm25(
        self,
        store: IndexStore,
        *,
        text_field: str | None = None,
        tokenize: Tokenize | None = None,
        sign_key: bytes | None = None,
        timeout: float | None = None,
    ) -> RebuildPlan:
        """Rebuild the BM25 index of a store from the texts in its metadata, when only that index is damaged.

        Shape, parameters and tokenization are those of the newest snapshot with a healthy index; an index built in this
        way from that snapshot's texts must be the same, or nothing is written. This runs in a guarded block. The
        damaged file is set aside.

        Args:
            store: The store. All its other files must be healthy and agree.
            text_field: Member of the metadata's entries that holds the text; by default a common one.
            tokenize: Splits a text into words as the ingestion does; by default common ways are tried.
            sign_key: Key of the signature, where the index is signed; by default that of its component.
            timeout: Seconds to wait for another writer.

        Returns:
            What was done; it has no ``problems`` if there was nothing to do.

        Raises:
            ConfigurationError: The index cannot be built; the message says what is missing.
            NotFoundError: No snapshot has a healthy one to learn from.
            RollbackError: An interrupted ingest left the store half-written: call ``recover(store)`` first.
            StoreBusyError: Another writer is using the store.
            ChangedError: The metadata changed meanwhile.
        """
        from novabackup.operations.rebuild import rebuild  # noqa: PLC0415

        rebuilt = self._rebuilt(store, text_field, tokenize, sign_key)
        if rebuilt.plan.problems:
            asked = request(("before-rebuild",), rebuilt.plan.path)
            rebuild.execute(store, rebuilt, self.guard(store, asked, timeout=timeout))
        return rebuilt.plan

    def _rebuilt(
        self, store: IndexStore, text_field: str | None, tokenize: Tokenize | None, sign_key: bytes | None
    ) -> Rebuilt:
        from novabackup.operations.rebuild import rebuild  # noqa: PLC0415

        refuse_if_interrupted(store, context=whereabouts(), timeout=None)
        self._objects.access.require()
        hints = rebuild.Hints(text_field=text_field, tokenize=tokenize, sign_key=sign_key)
        return rebuild.plan(store, self._objects, hints)

    # -- importing ---------------------------------------------------------------------------------------------------

    def plan_import_archive(self, archive: str | os.PathLike[str] | Archive, store: IndexStore) -> ImportPlan:
        """Read an archive completely and plan what `import_archive` would import; see there."""
        from novabackup.operations.archives import import_  # noqa: PLC0415

        return import_.plan(_described(import_.Archive, archive), store, self._objects.url)

    def import_archive(
        self,
        archive: str | os.PathLike[str] | Archive,
        store: IndexStore,
        *,
        tags: Iterable[str] = (),
        message: str = "",
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Snapshot:
        """Import a plain archive as a snapshot with the archive's time and the tag ``imported``.

        The store is not touched. A ``.sha256`` next to the archive must match. An archive is imported only once.

        Args:
            archive: Path or URL, or an `Archive` with more details.
            store: The store whose state it holds; its components decide which files are imported.
            tags: Further labels.
            message: Free text; by default the name of the archive.
            callback: Progress.

        Returns:
            The snapshot. Its ``problems`` are those of the files in the archive.

        Raises:
            FileNotFoundError: There is no such archive.
            IntegrityError: It is damaged, or has links, devices or paths that it must not have; nothing was imported.
            NotFoundError: It has no file of the store.
            ConfigurationError: It exceeds the bounds, or its time is impossible.
        """
        from novabackup.operations.archives import import_  # noqa: PLC0415

        described, asked = _described(import_.Archive, archive), request(tags, message)
        return self._known(store, import_.execute(self._objects, described, store, asked, callback))

    def plan_import_pre_ingest(
        self, folder: str | os.PathLike[str] | PreIngest, store: IndexStore
    ) -> tuple[ImportPlan, ...]:
        """Plan the snapshots that `import_pre_ingest` would make, oldest first; see there."""
        from novabackup.operations.archives import pre_ingest  # noqa: PLC0415

        return pre_ingest.plan(_described(pre_ingest.PreIngest, folder), store)

    def import_pre_ingest(
        self,
        folder: str | os.PathLike[str] | PreIngest,
        store: IndexStore,
        *,
        tags: Iterable[str] = (),
        message: str = "",
        callback: Callback = DEFAULT_CALLBACK,
    ) -> Snapshots:
        """Import ``*.pre_ingest_<time>`` files: each time is a snapshot with the tags ``pre-ingest`` and ``imported``.

        The files stay there. Each is imported only once.

        Args:
            folder: Path or URL of their folder, or a `PreIngest` with more details.
            store: The store that they were copied from; it is not touched.
            tags: Further labels.
            message: Free text; by default the time in the names.
            callback: Progress, for each snapshot separately.

        Returns:
            The snapshots, oldest first. Files that were not copied are among their ``problems``.

        Raises:
            ChangedError: Another process changed a file meanwhile.
        """
        from novabackup.operations.archives import pre_ingest  # noqa: PLC0415

        described, asked = _described(pre_ingest.PreIngest, folder), request(tags, message)
        points = pre_ingest.execute(self._objects, described, store, asked, callback)
        return Snapshots(self._known(store, point) for point in points)

    def _known(self, store: IndexStore, point: Point) -> Snapshot:
        self._stores[store.url] = store
        return self._snapshot(point)


def _described(kind: type[_Described], what: str | os.PathLike[str] | _Described) -> _Described:
    return what if isinstance(what, kind) else kind(cast("str | os.PathLike[str]", what))


def _several(repositories: ReadableRepository | Iterable[ReadableRepository]) -> list[Objects]:
    given = [repositories] if isinstance(repositories, ReadableRepository) else repositories
    return [repository._objects for repository in given]
