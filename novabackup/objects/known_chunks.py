"""The chunks that are stored already, found by their hashes many at a time: a hash table in arrays.

A dict of Python objects would take 250 bytes for each chunk, and a look for each; this takes about 50, and a handful of
calls for some hundred chunks.
"""

from __future__ import annotations

import numpy as np

from novabackup.format.packs.format import Hashes

__all__ = ["NOWHERE", "UNKNOWN", "KnownChunks", "Places", "Runs", "following", "split"]

Places = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Where chunks are: a number of a pack, which means something to the caller, and the number of the chunk in it."""

Runs = np.ndarray[tuple[int, int], np.dtype[np.int64]]
"""Number of a pack, first chunk in it, number of chunks; shape ``(runs, 3)``."""

NOWHERE: Places = np.empty(0, np.int64)
UNKNOWN = -1

_PACK = 32
"""A place is the number of a pack, shifted by so many bits, and the number of a chunk in it."""
_CHUNK = (1 << _PACK) - 1
_SMALLEST = 1 << 12
_EMPTY = -1


def following(pack: int, first: int, count: int) -> Places:
    """Return the places of chunks of a pack that follow each other."""
    place = (pack << _PACK) + first
    return np.arange(place, place + count)


def split(places: Places) -> tuple[Places, Places]:
    """Take places apart into the numbers of packs and of the chunks in them."""
    return places >> _PACK, places & _CHUNK


class KnownChunks:
    """Says where a chunk with a given hash is."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._count = 0
        self._hashes = np.empty((_SMALLEST, 4), np.uint64)
        self._places: Places = np.empty(_SMALLEST, np.int64)
        self._slots = np.full(2 * _SMALLEST, _EMPTY, np.int32)

    def __len__(self) -> int:
        return self._count

    def find(self, hashes: Hashes) -> Places:
        """Look chunks up.

        Args:
            hashes: Their BLAKE3 hashes; shape ``(chunks, 32)``.

        Returns:
            The place of each, or `UNKNOWN`; shape ``(chunks,)``.
        """
        rows = _words(hashes)
        places = np.full(len(rows), UNKNOWN, np.int64)
        mask = len(self._slots) - 1
        asked = np.arange(len(rows))
        slots = self._first_slots(rows)
        while len(asked):
            found = self._slots[slots]
            there = found != _EMPTY
            asked, slots, found = asked[there], slots[there], found[there]
            # The whole hash is compared: an attacker can make its beginning collide, and with it the slot.
            same = (self._hashes[found] == rows[asked]).all(axis=1)
            places[asked[same]] = self._places[found[same]]
            asked, slots = asked[~same], (slots[~same] + 1) & mask
        return places

    def add(self, hashes: Hashes, places: Places) -> None:
        """Note chunks.

        Args:
            hashes: Their BLAKE3 hashes; shape ``(chunks, 32)``. None may be known already, or be there twice.
            places: Where they are; not negative.
        """
        rows = _words(hashes)
        total = self._count + len(rows)
        if total > len(self._hashes):
            self._grow(total)
        self._hashes[self._count : total] = rows
        self._places[self._count : total] = places
        self._settle(np.arange(self._count, total, dtype=np.int32))
        self._count = total

    def add_new(self, hashes: Hashes, places: Places) -> None:
        """Note those chunks that are not known yet; of several with one hash, the first."""
        fresh = np.flatnonzero(self.find(hashes) == UNKNOWN)
        _, firsts = np.unique(np.ascontiguousarray(hashes[fresh]).view("V32").reshape(-1), return_index=True)
        chosen = fresh[np.sort(firsts)]
        self.add(hashes[chosen], places[chosen])

    def _first_slots(self, rows: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> Places:
        return (rows[:, 0] & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def _settle(self, entries: np.ndarray[tuple[int], np.dtype[np.int32]]) -> None:
        """Return each entry a slot; where several want one, the last to be written there stays and the others go on."""
        mask = len(self._slots) - 1
        slots = self._first_slots(self._hashes[entries])
        while len(entries):
            free = self._slots[slots] == _EMPTY
            self._slots[slots[free]] = entries[free]
            lost = self._slots[slots] != entries
            entries, slots = entries[lost], (slots[lost] + 1) & mask

    def _grow(self, total: int) -> None:
        capacity = len(self._hashes)
        while capacity < total:
            capacity *= 2
        self._hashes = np.concatenate((self._hashes[: self._count], np.empty((capacity - self._count, 4), np.uint64)))
        self._places = np.concatenate((self._places[: self._count], np.empty(capacity - self._count, np.int64)))
        self._slots = np.full(2 * capacity, _EMPTY, np.int32)
        self._settle(np.arange(self._count, dtype=np.int32))


def _words(hashes: Hashes) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.ascontiguousarray(hashes).view(np.uint64).reshape(-1, 4)
