"""What a repository holds already that a new snapshot can share: chunks by their hashes, frames by where they were."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import attrs
import numpy as np

from novabackup._support.threads import Workers
from novabackup.errors import ArchivedError, FormatError, IntegrityError
from novabackup.format.packs import FRAME_SIZE, Frame, Hashes, Table
from novabackup.format.records import FileEntry, SnapshotRecord
from novabackup.objects.condemned import condemned
from novabackup.objects.known_chunks import NOWHERE, KnownChunks, Places, following
from novabackup.objects.objects import Objects

__all__ = ["MOST_CRUMBS", "Segment", "Stock"]

_LOG = logging.getLogger("novabackup")

MOST_CRUMBS = 32
"""Packs of which a snapshot may need less than a frame before their content is brought together."""


@attrs.frozen(eq=False)
class Segment:
    """Bytes of a file, and what they may be.

    Attributes:
        start: Where they begin.
        length: How many they are.
        expected: BLAKE3 of what may be there; None if nothing is expected.
        places: Where the chunks are that it consists of then.
    """

    start: int
    length: int
    expected: bytes | None = None
    places: Places = NOWHERE


class Stock:
    """The content of some recent snapshots. Nothing is read of it before it is asked for.

    Attributes:
        packs: Ids of the packs that places count in, by their numbers.
    """

    def __init__(
        self,
        objects: Objects,
        recent: Iterable[SnapshotRecord],
        loose: Collection[str] = (),
        avoid: Collection[str] = (),
    ) -> None:
        """Look at what is condemned, since a snapshot must know that before it relies on anything.

        Args:
            objects: The repository.
            recent: Snapshots whose packs may be shared, the newest first.
            loose: Other packs that may be shared.
            avoid: Packs that may not.
        """
        self.packs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._objects = objects
        self._recent = tuple(recent)
        self._wanted = dict.fromkeys([*(pack for record in self._recent for pack in record.packs), *loose])
        # A pack that is condemned may be deleted before the new snapshot is committed, so nothing is shared with it.
        self._avoided = {*avoid, *(pack for _entry, record in condemned(objects.access) for pack in record.packs)}

    def has(self, packs: Iterable[str]) -> bool:
        """Tell whether packs of the recent snapshots are there and not condemned."""
        return self._usable.issuperset(packs)

    def number(self, pack: str) -> int:
        """Give the number that places count a pack by."""
        if pack not in self._numbers:
            self._numbers[pack] = len(self.packs)
            self.packs.append(pack)
        return self._numbers[pack]

    def find(self, hashes: Hashes) -> Places:
        """Look chunks up, also those that were noted; shape ``(chunks,)``."""
        return self._known.find(hashes)

    def shares(self, pack: str) -> bool:
        """Tell whether new files may name chunks of a pack."""
        return pack in self._tables

    def note(self, hashes: Hashes, places: Places) -> None:
        """Add new chunks, each of which is not known yet."""
        self._known.add(hashes, places)

    def segments(self, before: FileEntry | None, size: int, most: int) -> Iterator[Segment]:
        """Divide a file; a frame that may still be where it was is a segment.

        Args:
            before: The same file in a recent snapshot: files mostly grow at their end, so what was there may still be.
            size: Bytes of the file now.
            most: Bytes of the longest segment.
        """
        at = 0
        for start, pack, frame in self._frames_of(before) if before else ():
            if frame.size > most or start + frame.size > size:
                continue
            yield from _unknown(at, start, most)
            at = start + frame.size
            yield Segment(start, frame.size, frame.raw, following(pack, frame.first, frame.chunks))
        yield from _unknown(at, size, most)

    @functools.cached_property
    def _usable(self) -> frozenset[str]:
        return frozenset(self._objects.packs.present(self._wanted.keys() - self._avoided))

    @functools.cached_property
    def _tables(self) -> dict[str, Table]:
        """The tables of usable packs."""
        usable = self._usable - self._crumbs
        wanted = [pack for pack in self._wanted if pack in usable]
        parallel = self._objects.storage.parallel
        with Workers(parallel, 2 * parallel) as workers:
            return {pack: table for pack, table in workers.each(self._table, wanted) if table is not None}

    def _table(self, pack: str) -> tuple[str, Table | None]:
        try:
            table = self._objects.packs.table(pack)
        except (ArchivedError, IntegrityError, FormatError) as error:
            # Out of reach or damaged: nothing is shared with it chunk by chunk, so the new snapshot will be whole.
            _LOG.info("%s", error)
            return pack, None
        # What another data key seals is not hashed alike, and must not be needed once that key is gone.
        return pack, table if table.seal.key == self._objects.access.protection.key else None

    @functools.cached_property
    def _crumbs(self) -> frozenset[str]:
        """The packs of which the last snapshot needs little, once they are many: that content is stored anew, together.

        Otherwise a store that grows by a little every hour would be scattered over thousands of packs.
        """
        needed: Counter[str] = Counter()
        for record in self._recent[:1]:
            if len(record.packs) <= MOST_CRUMBS:
                break
            for entry in record.files:
                with contextlib.suppress(ArchivedError, IntegrityError, FormatError):
                    for pack, first, count in self._objects.packs.runs(entry).tolist():
                        sizes = self._objects.packs.table(entry.packs[pack]).sizes[first : first + count]
                        needed[entry.packs[pack]] += int(sizes.sum(dtype=np.int64))
        crumbs = frozenset(pack for pack, size in needed.items() if size < FRAME_SIZE)
        return crumbs if len(crumbs) > MOST_CRUMBS else frozenset()

    @functools.cached_property
    def _known(self) -> KnownChunks:
        known = KnownChunks()
        for pack, table in self._tables.items():
            known.add_new(table.hashes, following(self.number(pack), 0, len(table)))
        return known

    def _frames_of(self, before: FileEntry) -> Iterator[tuple[int, int, Frame]]:
        """Find the frames of which a file had the whole: where they were in it, and in which pack they are."""
        if before.depth:
            return  # its content was moved about so much that hardly any is where it was
        at = 0
        for pack, first, count in before.runs:
            table = self._tables.get(before.packs[pack])
            if table is None:
                return
            for frame in table.frames_of(first, count) if first + count <= len(table) else ():
                begin, end = max(first, frame.first), min(first + count, frame.first + frame.chunks)
                if end - begin == frame.chunks:
                    yield at, self.number(before.packs[pack]), frame
                    at += frame.size
                else:
                    at += int(table.sizes[begin:end].sum(dtype=np.int64))


def _unknown(start: int, end: int, most: int) -> Iterator[Segment]:
    return (Segment(at, min(most, end - at)) for at in range(start, end, most))
