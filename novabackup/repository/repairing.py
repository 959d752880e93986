"""Mending what is damaged, in a repository and in a store: the part of a repository's interface that is about that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup.format.records import Problem
from novabackup.objects.objects import Objects
from novabackup.operations.backup import request
from novabackup.repository.find import Catalog
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore
from novabackup.transaction.journal import refuse_if_interrupted
from novabackup.transaction.owner import whereabouts

if TYPE_CHECKING:
    from novabackup.operations.rebuild.rebuild import Hints, RebuildPlan, Rebuilt
    from novabackup.operations.rebuild.texts import Tokenize
    from novabackup.operations.repair.plan import RepairPlan

__all__ = ["Repairing"]


class Repairing(Catalog):
    """Repairs the repository from copies, and writes the BM25 index of a store anew."""

    def plan_repair(
        self,
        *,
        from_: Catalog | Iterable[Catalog] = (),
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
        from novabackup.operations.repair import execute as repair  # noqa: PLC0415 - only who calls this waits for it

        return repair.plan(self._objects, _several(from_), store, problems, callback)

    def repair(
        self,
        plan: RepairPlan | None = None,
        *,
        from_: Catalog | Iterable[Catalog] = (),
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
        from novabackup.operations.repair import execute as repair  # noqa: PLC0415 - only who calls this waits for it

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
        from novabackup.operations.rebuild.rebuild import Hints  # noqa: PLC0415 - only who calls this waits for it

        return self._rebuilt(store, Hints(text_field=text_field, tokenize=tokenize, sign_key=sign_key)).plan

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
        from novabackup.operations.rebuild import rebuild as rebuilding  # noqa: PLC0415 - only who calls this waits for it

        wishes = rebuilding.Hints(text_field=text_field, tokenize=tokenize, sign_key=sign_key)
        rebuilt = self._rebuilt(store, wishes)
        if rebuilt.plan.problems:
            asked = request(("before-rebuild",), rebuilt.plan.path)
            self._stores[store.url] = store
            guard = Snapshot(self._origin(), asked, store, timeout=timeout)
            rebuilding.execute(store, rebuilt, guard)
        return rebuilt.plan

    def _rebuilt(self, store: IndexStore, wishes: Hints) -> Rebuilt:
        from novabackup.operations.rebuild import rebuild as rebuilding  # noqa: PLC0415 - only who calls this waits for it

        refuse_if_interrupted(store, context=whereabouts(), timeout=None)
        self._objects.access.require()
        return rebuilding.plan(store, self._objects, wishes)


def _several(repositories: Catalog | Iterable[Catalog]) -> list[Objects]:
    given = [repositories] if isinstance(repositories, Catalog) else repositories
    return [repository._objects for repository in given]
