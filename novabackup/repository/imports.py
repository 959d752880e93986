"""What a repository takes in that was kept elsewhere before: the part of its interface that is about that."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar, cast

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup.format.records import Point
from novabackup.operations.backup import request
from novabackup.repository.find import Catalog
from novabackup.repository.snapshot import Snapshot, Snapshots
from novabackup.store.store import IndexStore

if TYPE_CHECKING:
    from novabackup.operations.archives.import_ import Archive
    from novabackup.operations.archives.plan import ImportPlan
    from novabackup.operations.archives.pre_ingest import PreIngest

__all__ = ["Imports"]

_Described = TypeVar("_Described", "Archive", "PreIngest")


class Imports(Catalog):
    """Takes in plain archives, and the copies that a script made before each ingestion."""

    def plan_import_archive(self, archive: str | os.PathLike[str] | Archive, store: IndexStore) -> ImportPlan:
        """Read an archive from end to end, say what `import_archive` would take in, and do nothing.

        Args:
            archive: Path or URL, or an `Archive` that says more.
            store: The store whose state it holds.
        """
        from novabackup.operations.archives import import_  # noqa: PLC0415 - only who calls this waits for it

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
        """Take a plain archive in as a snapshot of the time from when it is, with the tag ``imported``.

        The store is not touched. A ``.sha256`` beside the archive must match. An archive that was taken in before is
        not taken in again.

        Args:
            archive: Path or URL, or an `Archive` that says more.
            store: The store whose state it holds; its components say which files are taken in.
            tags: Further labels.
            message: Free text; by default the name of the archive.
            callback: Told of the bytes that have been dealt with.

        Returns:
            The snapshot. Its ``problems`` are those of the files in the archive.

        Raises:
            FileNotFoundError: There is no such archive.
            IntegrityError: It is damaged, or holds links, devices or paths that it must not; nothing was taken in.
            NotFoundError: It holds no file of the store.
            ConfigurationError: It goes beyond the bounds, or its time cannot be.
        """
        from novabackup.operations.archives import import_  # noqa: PLC0415 - only who calls this waits for it

        asked = request(tags, message)
        taken = import_.execute(self._objects, _described(import_.Archive, archive), store, asked, callback)
        return self._taken_in(store, taken)

    def plan_import_pre_ingest(
        self, folder: str | os.PathLike[str] | PreIngest, store: IndexStore
    ) -> tuple[ImportPlan, ...]:
        """Say which snapshots `import_pre_ingest` would make, oldest first, and do nothing.

        Args:
            folder: Path or URL of the folder that the copies are in, or a `PreIngest` that says more.
            store: The store that they were copied from.
        """
        from novabackup.operations.archives import pre_ingest  # noqa: PLC0415 - only who calls this waits for it

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
        """Take ``*.pre_ingest_<time>`` files in: each time is a snapshot with the tags ``pre-ingest`` and ``imported``.

        The files stay there. Those that were taken in before are not taken in again.

        Args:
            folder: Path or URL of the folder that they are in, or a `PreIngest` that says more.
            store: The store that they were copied from; it is not touched.
            tags: Further labels.
            message: Free text; by default the time in the names.
            callback: Told of the bytes that have been dealt with, for each snapshot anew.

        Returns:
            The snapshots, oldest first. Files that were not copied are among their ``problems``.

        Raises:
            ChangedError: Somebody changed a file meanwhile.
        """
        from novabackup.operations.archives import pre_ingest  # noqa: PLC0415 - only who calls this waits for it

        described, asked = _described(pre_ingest.PreIngest, folder), request(tags, message)
        taken = pre_ingest.execute(self._objects, described, store, asked, callback)
        return Snapshots(self._taken_in(store, one) for one in taken)

    def _taken_in(self, store: IndexStore, point: Point) -> Snapshot:
        self._stores[store.url] = store
        return self._snapshot(point.id, point.record)


def _described(kind: type[_Described], what: str | os.PathLike[str] | _Described) -> _Described:
    return what if isinstance(what, kind) else kind(cast("str | os.PathLike[str]", what))
