"""Measure what a repository holds and stores, from its snapshots and the tables of its packs: `measure`."""

from __future__ import annotations

import attrs
from fsspec.callbacks import Callback

from novabackup._support import html
from novabackup._support.tables import TableData, Tabular
from novabackup._support.threads import Workers
from novabackup.errors import IntegrityError
from novabackup.objects.objects import Objects


@attrs.frozen(kw_only=True)
class Usage(Tabular):
    """What a repository holds and stores; all sizes in bytes.

    Attributes:
        snapshots: Number of snapshots.
        logical: All files of all snapshots, as if each were a full copy.
        content: What is left of that after deduplication, before compression.
        stored: The packs that hold it, as stored.
        packs: Number of packs that snapshots need.
        orphaned_packs: Number of packs that no snapshot needs; `prune` deletes them.
        orphaned: Their size.
    """

    snapshots: int
    logical: int
    content: int
    stored: int
    packs: int
    orphaned_packs: int
    orphaned: int

    @property
    def sharing(self) -> float:
        """Factor of deduplication: 10.0 for ten snapshots of an unchanged store."""
        return self.logical / self.content if self.content else 1.0

    @property
    def compression(self) -> float:
        """Factor of compression."""
        return self.content / self.stored if self.stored else 1.0

    def _table(self) -> TableData:
        rows = [
            ("snapshots", self.snapshots),
            ("all their files", html.size(self.logical)),
            ("after deduplication", html.size(self.content)),
            ("stored, compressed", html.size(self.stored)),
            ("packs", self.packs),
            ("packs that no snapshot needs", f"{self.orphaned_packs} ({html.size(self.orphaned)})"),
        ]
        return "Repository", ["what", "how much"], rows


def measure(objects: Objects, callback: Callback) -> Usage:
    """Measure a repository, with progress in packs.

    Raises:
        IntegrityError: A snapshot, or a pack that one needs, is damaged or missing.
    """
    objects.access.require()
    records = [objects.records.read(name) for name in objects.records.names()]
    sizes = {pack: entry.size for pack, entry in objects.packs.entries()}
    needed = sorted({pack for record in records for pack in record.packs})
    missing = [pack for pack in needed if pack not in sizes]
    if missing:
        raise IntegrityError(
            f"{objects.url}: expected every pack that a snapshot names, found {len(missing)} missing, {missing[0]} "
            "among them. Run check() to find the snapshots that need them"
        )
    callback.set_size(len(needed))

    def content(pack: str) -> int:
        return sum(frame.size for frame in objects.packs.table(pack).frames)

    total = 0
    with Workers(objects.storage.parallel, 2 * objects.storage.parallel) as workers:
        for size in workers.each(content, needed):
            total += size
            callback.relative_update(1)
    orphans = sizes.keys() - set(needed)
    return Usage(
        snapshots=len(records),
        logical=sum(entry.size for record in records for entry in record.files),
        content=total,
        stored=sum(sizes[pack] for pack in needed),
        packs=len(needed),
        orphaned_packs=len(orphans),
        orphaned=sum(sizes[pack] for pack in orphans),
    )
