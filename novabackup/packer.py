"""Bringing content into a repository: what is stored already is named again, the rest goes into new packs."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import attrs
from blake3 import blake3

from novabackup.errors import FormatError, IntegrityError
from novabackup.model import FileEntry, Run, SnapshotRecord
from novabackup.objects import Objects
from novabackup.packs import PackBuilder, cut

__all__ = ["Packer", "Stored"]


@attrs.frozen(kw_only=True)
class Stored:
    """Content that a packer has dealt with: its size, its hash, and where it is."""

    size: int
    blake3: str
    runs: tuple[Run, ...]


class Packer:
    """Stores the content of one snapshot.

    Attributes:
        added: Bytes of new packs so far.
    """

    def __init__(self, objects: Objects, recent: Iterable[SnapshotRecord]) -> None:
        """Prepare to store.

        Args:
            objects: The repository.
            recent: Snapshots whose packs are searched for chunks that need not be stored again.
        """
        self._objects = objects
        self._recent = tuple(recent)
        # A pack that is condemned may be deleted before this snapshot is committed, so nothing is shared with it.
        self._condemned = {pack for _entry, record in objects.condemned() for pack in record.packs}
        self._usable = functools.cache(self._is_usable)
        self._packs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._known: dict[bytes, tuple[str, int]] | None = None
        self._builder = PackBuilder()
        self._finished: dict[str, str] = {}
        self.added = 0

    def share(self, record: SnapshotRecord, entry: FileEntry) -> tuple[Run, ...] | None:
        """Name the content of a file of an older snapshot again, without reading it.

        Returns:
            Its runs, or None if a pack of it is gone or condemned.
        """
        if not all(self._usable(record.packs[pack]) for pack, _first, _count in entry.runs):
            return None
        return tuple((self._number(record.packs[pack]), first, count) for pack, first, count in entry.runs)

    def store(self, blocks: Iterable[bytes]) -> Stored:
        """Store content that was read.

        Args:
            blocks: The content, in order.

        Returns:
            Where it is; valid once `finish` has been called.
        """
        known = self._known_chunks()
        whole = blake3()
        runs: list[tuple[str, int, int]] = []
        size = 0
        for chunk in cut(blocks):
            whole.update(chunk)
            size += len(chunk)
            digest = blake3(chunk).digest()
            place = known.get(digest)
            if place is None:
                place = known[digest] = self._add(chunk, digest)
            pack, first, count = runs[-1] if runs else ("", 0, 0)
            if (pack, first + count) == place:
                runs[-1] = (pack, first, count + 1)
            else:
                runs.append((*place, 1))
        return Stored(
            size=size,
            blake3=whole.hexdigest(),
            runs=tuple((self._number(pack), first, count) for pack, first, count in runs),
        )

    def finish(self) -> tuple[str, ...]:
        """Store the last pack.

        Returns:
            Ids of the packs that the runs count in.
        """
        if len(self._builder):
            self._flush()
        return tuple(self._finished.get(pack, pack) for pack in self._packs)

    def condemned_meanwhile(self) -> bool:
        """Tell whether a pack that the runs name was condemned since; if so, this content must be stored anew."""
        return any(not set(record.packs).isdisjoint(self._packs) for _entry, record in self._objects.condemned())

    def _add(self, chunk: memoryview, digest: bytes) -> tuple[str, int]:
        if self._builder.full:
            self._flush()
        return self._building(), self._builder.add(chunk, digest)

    def _building(self) -> str:
        """Name the pack that is being built: its id is known only when it is finished."""
        return f"new {len(self._finished)}"

    def _flush(self) -> None:
        pack = self._builder.finish()
        self._objects.add_pack(pack)
        self._finished[self._building()] = pack.id
        self.added += pack.size
        self._builder = PackBuilder()

    def _number(self, pack_id: str) -> int:
        if pack_id not in self._numbers:
            self._numbers[pack_id] = len(self._packs)
            self._packs.append(pack_id)
        return self._numbers[pack_id]

    def _is_usable(self, pack_id: str) -> bool:
        return pack_id not in self._condemned and self._objects.has_pack(pack_id)

    def _known_chunks(self) -> dict[bytes, tuple[str, int]]:
        if self._known is None:
            self._known = {}
            for pack_id in dict.fromkeys(pack for record in self._recent for pack in record.packs):
                if not self._usable(pack_id):
                    continue
                try:
                    hashes = self._objects.table(pack_id).hashes
                except (IntegrityError, FormatError):
                    continue  # damaged: nothing is shared with it, so this snapshot will be whole
                for chunk, digest in enumerate(hashes):
                    self._known.setdefault(digest, (pack_id, chunk))
        return self._known
