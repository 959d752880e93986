"""What a repository holds and what it takes: counted from its snapshots and the tables of its packs."""

from __future__ import annotations

import attrs
from fsspec.callbacks import Callback

from novabackup._support import html as _html
from novabackup._support.threads import Lane
from novabackup.errors import IntegrityError
from novabackup.objects.packs import Objects

__all__ = ["Usage", "measure"]


@attrs.frozen(kw_only=True)
class Usage:
    """What a repository holds and what it takes; all sizes in bytes.

    Attributes:
        snapshots: How many there are.
        logical: All files of all snapshots, as if each were a copy.
        content: What is stored of that once what is the same is stored once, before compression.
        stored: The packs that hold it, as they are stored.
        packs: How many packs snapshots need.
        orphaned_packs: How many packs no snapshot needs; `prune` deletes them.
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
        """How many times smaller sharing makes it: 10.0 for ten snapshots of an unchanged store."""
        return self.logical / self.content if self.content else 1.0

    @property
    def compression(self) -> float:
        """How many times smaller compression makes what is left."""
        return self.content / self.stored if self.stored else 1.0

    def _repr_html_(self) -> str:
        rows = [
            ("snapshots", self.snapshots),
            ("all their files", _html.size(self.logical)),
            ("what is the same stored once", _html.size(self.content)),
            ("stored, compressed", _html.size(self.stored)),
            ("packs", self.packs),
            ("packs that no snapshot needs", f"{self.orphaned_packs} ({_html.size(self.orphaned)})"),
        ]
        return _html.table("Repository", ["what", "how much"], rows)


def measure(objects: Objects, callback: Callback) -> Usage:
    """Count.

    Args:
        objects: The repository.
        callback: Told of the packs.

    Raises:
        IntegrityError: A snapshot or a pack that one needs is damaged or gone.
    """
    objects.require()
    records = [objects.record(name) for name in objects.names()]
    sizes = {pack: entry.size for pack, entry in objects.pack_entries()}
    needed = sorted({pack for record in records for pack in record.packs})
    missing = [pack for pack in needed if pack not in sizes]
    if missing:
        raise IntegrityError(
            f"{objects.url}: expected every pack that a snapshot names, found {len(missing)} missing, {missing[0]} "
            "among them. Let `check` name the snapshots that need them"
        )
    callback.set_size(len(needed))

    def content(pack: str) -> int:
        return sum(frame.size for frame in objects.table(pack).frames)

    total = 0
    with Lane(objects.storage.parallel, 2 * objects.storage.parallel) as lane:
        for size in lane.each(content, needed):
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
