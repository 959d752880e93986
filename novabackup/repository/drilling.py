"""Restoring old snapshots on trial: the part of a repository's interface that is about drills."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup.format.records import Drill
from novabackup.operations import drill as drills
from novabackup.operations import drill_notes
from novabackup.operations.drill import DrillPlan
from novabackup.repository.find import Catalog, name_of, url_of
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore

__all__ = ["Drilling"]


class Drilling(Catalog):
    """Chooses a snapshot, restores it elsewhere, and remembers how it went."""

    def plan_drill(
        self, *, store: str | os.PathLike[str] | IndexStore | None = None, seed: int | None = None
    ) -> DrillPlan:
        """Choose a snapshot for a drill by chance: a healthy one that is not the newest of its store; do nothing.

        Args:
            store: Only those of this store: a path, a URL or the store itself.
            seed: Makes the choice the same each time.

        Raises:
            NotFoundError: There is no such snapshot.
            ArchivedError: All of them have to be thawed first.
        """
        self._objects.access.require()
        return drills.plan(self._objects, url_of(store), random.Random(seed))  # noqa: S311 - no secret depends on it

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
        """Restore an old snapshot elsewhere, on trial, and note in the repository how it went.

        It is restored to a folder for temporary files, opened and compared; the queries that were recorded with it are
        put again; then a command of your own may look at it. The folder goes away whatever happens.

        Args:
            snapshot: Which: a plan, an id, or a snapshot; by default what `plan_drill` chooses.
            store: What kind of store it is, where the repository does not know its components, or to choose among the
                snapshots of this store only. It is not touched.
            command: Program and arguments, such as ``["pytest", "tests/test_retrieval.py"]``. It passes with exit
                status 0, and finds the restored store in ``NOVABACKUP_DRILL_FOLDER``.
            working_folder: Where the command runs; by default in the restored store.
            command_timeout: Seconds that the command may take.
            rto: Recovery time objective: seconds that restoring, opening and the queries may take together.
            folder: Where to restore to; by default the system's folder for temporary files.
            callback: Told of the bytes restored.

        Returns:
            How it went.

        Raises:
            NotFoundError: There is no such snapshot, or none that fits.
            CheckFailedError: It failed; ``problems`` says how. The result is noted all the same.
            IntegrityError: It failed since content is damaged; the same holds.
            ArchivedError: Content has to be thawed first.
            OSError: There is no room to restore to.
        """
        rules = drills.Rules(
            command=command,
            working_folder=working_folder,
            command_timeout=command_timeout,
            rto=rto,
            folder=folder,
        )
        if snapshot is None:
            snapshot = self.plan_drill(store=store)
        found = self[snapshot.snapshot if isinstance(snapshot, DrillPlan) else name_of(snapshot)]
        kind = store or self._stores.get(found.store) or self._open_store(self._objects.records.read(found.id))
        return drills.execute(self._objects, found.id, kind, rules, lambda to: found.restore(to=to, callback=callback))

    def drills(self) -> tuple[Drill, ...]:
        """Tell how the last drills went, oldest first.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.access.require()
        return tuple(drill_notes.read(self._objects))
