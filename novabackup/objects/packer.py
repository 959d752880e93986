"""Bringing content into a repository: what is stored already is named again, the rest goes into new packs.

One thread cuts, hashes chunks and looks them up, in order. Beside it, others read ahead, see whether a frame of the
last snapshot is still where it was, hash the whole file, compress frames and store packs. Each of these has a bound on
what may be under way, so memory does not grow with the file.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType

import attrs
import numpy as np
from blake3 import blake3

from novabackup._support.threads import Buffers, Workers, cores
from novabackup.format.packs import (
    FRAME_SIZE,
    HASH,
    Chunker,
    Compression,
    Compressor,
    Frame,
    Hashes,
    PackBuilder,
    Piece,
    SealedPack,
    Sizes,
    SqueezedFrame,
    find_regions,
    squeeze_frame,
)
from novabackup.format.records import FileEntry, Run, SnapshotRecord
from novabackup.format.sealing import PackSeal
from novabackup.objects.condemned import condemned
from novabackup.objects.known import Segment, Stock
from novabackup.objects.known_chunks import NOWHERE, UNKNOWN, Places, Runs, following, split
from novabackup.objects.objects import Objects
from novabackup.objects.packs import MAP_ROW
from novabackup.storage import Reader

__all__ = ["Location", "Packer", "Stored"]

MOST_RUNS = 256
"""A file of more runs keeps their list in a pack, so that a snapshot stays small enough to read thousands of them."""

COMMIT_WITHIN = 600.0
"""Seconds between reading what is condemned and the commit; much less than the shortest grace period of `prune`."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody sets, and that goes on while the machine sleeps, where the system has one."""

_BLOCKS_AHEAD = 2
_PACKS_AHEAD = 1
_NEW = 1 << 30
"""New packs are numbered from here on; below are those of the stock."""


@attrs.frozen(kw_only=True, eq=False)
class Stored:
    """Content that a packer has dealt with.

    Attributes:
        size: In bytes.
        blake3: Hash of the whole.
    """

    size: int
    blake3: str
    _places: Places


@attrs.frozen(kw_only=True)
class Location:
    """Where content is, as a `FileEntry` says it."""

    packs: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    depth: int = 0

    @classmethod
    def of(cls, entry: FileEntry) -> Location:
        """Tell where the content of a file is."""
        return cls(packs=entry.packs, runs=entry.runs, depth=entry.depth)

    def noted_in(self, entry: FileEntry) -> FileEntry:
        """Give the file as its entry is when its content is here."""
        return attrs.evolve(entry, packs=self.packs, runs=self.runs, depth=self.depth)


@attrs.define
class _NewPack:
    """A pack that is or was built here.

    Attributes:
        id: Its id; known once it is stored, and so is its size in bytes.
        numbers: The number of each chunk, in the order in which they were added; known once it is sealed.
    """

    id: str = ""
    size: int = 0
    numbers: Places = NOWHERE


_Part = list[Segment]
"""Segments that follow each other and are read at once."""


class _Compressors(threading.local):
    """A compressor for each thread."""

    def __init__(self, compression: Compression) -> None:
        self.own = Compressor(compression)


class Packer:
    """Stores the content of one snapshot; a context manager that leaves nothing running."""

    def __init__(
        self,
        objects: Objects,
        recent: Iterable[SnapshotRecord],
        loose: Collection[str] = (),
        pace: Callable[[int], object] = int,
        avoid: Collection[str] = (),
    ) -> None:
        """Prepare to store.

        Args:
            objects: The repository.
            recent: Snapshots whose packs are searched for chunks that need not be stored again.
            loose: Packs that are searched as well, although no snapshot may name them.
            pace: Called with the number of bytes before they are stored; may wait.
            avoid: Packs that nothing is shared with.
        """
        self._objects = objects
        self._digest = objects.access.protection.digest
        self._pace = pace
        self._stock = Stock(objects, recent, loose, avoid)
        self._new: list[_NewPack] = []
        self._named: set[str] = set()
        self._looked = time.clock_gettime(_CLOCK)
        self._exit = ExitStack()
        enter = self._exit.enter_context
        self._whole = enter(Workers(1, _BLOCKS_AHEAD))
        self._compress = enter(Workers(cores(), 1))
        self._store = enter(Workers(max(1, objects.storage.parallel), max(_PACKS_AHEAD, objects.storage.parallel)))
        self._frames = Buffers(FRAME_SIZE)
        self._compressors = _Compressors(objects.compression)
        self._builder = self._new_builder()

    def __enter__(self) -> Packer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def can_share(self, entry: FileEntry) -> bool:
        """Tell whether the content of a file of an older snapshot can be named again, without reading it."""
        usable = self._stock.has(entry.packs)
        if usable:
            self._named.update(entry.packs)
        return usable

    # -- content that is read ----------------------------------------------------------------------------------------

    def store(
        self,
        reader: Reader,
        block: int,
        parallel: int,
        before: FileEntry | None,
        told: Callable[[int], object],
    ) -> Stored:
        """Store the content of a file.

        Args:
            reader: The file.
            block: Bytes to read at once.
            parallel: How many reads to have under way at once.
            before: The same file in a recent snapshot: files mostly grow at their end, so what was there may still be.
            told: Told of the bytes that have been dealt with.

        Returns:
            What `finish` needs to say where it is.

        Raises:
            ChangedError: The file was changed meanwhile, or altered on its way here.
        """
        size = reader.entry.size
        buffers = Buffers(min(block, size))

        def read(part: _Part) -> tuple[_Part, list[bool], bytearray, memoryview]:
            buffer = buffers.take()
            start = part[0].start
            data = memoryview(buffer)[: part[-1].start + part[-1].length - start]
            reader.readinto(start, data)
            return part, [self._is_there(segment, data[segment.start - start :]) for segment in part], buffer, data

        whole, proof = blake3(), reader.proof()

        def take_in(buffer: bytearray, data: memoryview) -> None:
            whole.update(data)
            proof.update(data)
            buffers.give_back(buffer)

        chunker = Chunker(size, find_regions(size, reader.read))
        places = []
        threads = max(parallel, cores())
        with Workers(threads, threads + 1) as workers:
            parts = list(_parts(self._stock.segments(before, size, block), block))
            # A small file is not worth a thread.
            for part, known, buffer, data in workers.each(read, parts) if len(parts) > 1 else map(read, parts):
                for segment, is_known in zip(part, known, strict=True):
                    if is_known:
                        places += [self.place(list(chunker.skip(segment.length))), segment.places]
                    else:
                        begin = segment.start - part[0].start
                        places.append(self.place(list(chunker.feed(data[begin : begin + segment.length]))))
                self._whole.hand_over(functools.partial(take_in, buffer, data))
                told(len(data))
        places.append(self.place(list(chunker.skip(0))))
        self._whole.drain()
        proof.confirm()
        return Stored(size=size, blake3=whole.hexdigest(), places=np.concatenate(places))

    def find(self, hashes: Hashes) -> Places:
        """Find chunks by hashes of this repository's own kind; `UNKNOWN` are those that have to be stored."""
        return self._stock.find(hashes)

    def shares(self, pack: str) -> bool:
        """Tell whether new files may name chunks of a pack that was there before."""
        return self._stock.shares(pack)

    def keep(self, pack: str, first: int, count: int) -> Places:
        """Name chunks of a pack that is there, whatever else is known of it; give their places."""
        return following(self._stock.number(pack), first, count)

    def place_frame(self, frame: Frame, packed: bytes | memoryview, sizes: Sizes, hashes: Hashes) -> Places | None:
        """Store a frame of another pack as it is, if none of its chunks is there yet.

        Args:
            frame: What the table of that pack says of it; the pack has the same key as those that are built here.
            packed: Its content, unsealed and still compressed.
            sizes: Bytes of each of its chunks.
            hashes: The hash of each; shape ``(chunks, 32)``.

        Returns:
            The place of each chunk; None if nothing was stored, since `place` would store less.
        """
        if np.any(self._stock.find(hashes) != UNKNOWN) or _has_twice(hashes):
            return None
        if self._builder.full:
            self._flush()
        first = self._builder.add_frame(frame, packed, sizes, hashes)
        places = following(_NEW + len(self._new) - 1, first, len(sizes))
        self._stock.note(hashes, places)
        return places

    def place(self, pieces: list[Piece]) -> Places:
        """Find chunks, or put them into the pack that is being built; give the place of each."""
        digests = [digest for piece in pieces for digest in self._digests(piece)]
        if not digests:
            return NOWHERE
        hashes = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, HASH)
        places = self._stock.find(hashes)
        missing = np.flatnonzero(places == UNKNOWN)
        if not len(missing):
            return places
        firsts: dict[bytes, int] = {}
        for number in missing.tolist():
            firsts.setdefault(digests[number], number)
        fresh = np.fromiter(firsts.values(), np.int64, len(firsts))
        starts = np.cumsum([0, *(len(piece.ends) for piece in pieces)])
        breaks = np.append(np.flatnonzero(np.diff(fresh) != 1) + 1, np.searchsorted(fresh, starts[1:-1]))
        for run in np.split(fresh, np.unique(breaks)):
            if len(run):
                number = int(np.searchsorted(starts, run[0], side="right")) - 1
                first, end = int(run[0] - starts[number]), int(run[-1] - starts[number]) + 1
                places[run] = self._add(pieces[number], hashes[run], first, end)
        self._stock.note(hashes[fresh], places[fresh])
        if len(fresh) < len(missing):
            again = [firsts[digests[number]] for number in missing.tolist()]
            places[missing] = places[again]
        return places

    def _is_there(self, segment: Segment, data: memoryview) -> bool:
        return segment.expected is not None and self._digest(data[: segment.length]) == segment.expected

    def _digests(self, piece: Piece) -> Iterator[bytes]:
        start = 0
        for end in piece.ends.tolist():
            yield self._digest(piece.data[start:end])
            start = end

    def _add(self, piece: Piece, hashes: Hashes, first: int, end: int) -> Places:
        """Put chunks of a piece that follow each other into packs."""
        if self._builder.full:
            self._flush()
        start = int(piece.ends[first - 1]) if first else 0
        part = Piece(piece.data[start : piece.ends[end - 1]], piece.ends[first:end] - start, piece.width)
        number = self._builder.add(part, hashes)
        return following(_NEW + len(self._new) - 1, number, end - first)

    def _new_builder(self) -> PackBuilder:
        self._new.append(_NewPack())
        return PackBuilder(self._objects.access.protection.new_pack(), self._frames.take, self._squeeze)

    def _squeeze(self, seal: PackSeal, number: int, raw: bytearray, length: int, width: int) -> Future[SqueezedFrame]:
        def squeeze() -> SqueezedFrame:
            into = bytearray(length) if length > FRAME_SIZE else self._frames.take()
            frame = squeeze_frame(self._compressors.own, seal, number, memoryview(raw)[:length], width, into)
            for buffer in (raw, into):
                if not (isinstance(frame.stored, memoryview) and frame.stored.obj is buffer):
                    self._frames.give_back(buffer)
            return frame

        return self._compress.submit(squeeze)

    def _flush(self) -> None:
        """Let the pack that is being built be stored, and begin another."""
        sealed, pack = self._builder.seal(), self._new[-1]
        pack.numbers = sealed.numbers
        self._store.hand_over(functools.partial(self._save, sealed, pack))
        self._builder = self._new_builder()

    def _save(self, sealed: SealedPack, to: _NewPack) -> None:
        pack = sealed.pack()
        self._pace(pack.size)
        self._objects.packs.add(pack)
        to.id, to.size = pack.id, pack.size
        for buffer in sealed.buffers():
            self._frames.give_back(buffer)

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish(self, contents: Sequence[Stored]) -> list[Location]:
        """Store what is left.

        Args:
            contents: All that was stored.

        Returns:
            Where each content is.
        """
        return self.locate([stored._places for stored in contents])

    def locate(self, places: Sequence[Places]) -> list[Location]:
        """Store what is left; say where files are, each of which consists of the chunks at the places given."""
        self._finish_packs()
        runs = [self._runs(of_file) for of_file in places]
        lists = {number: self._list(rows) for number, rows in enumerate(runs) if len(rows) > MOST_RUNS}
        if lists:
            self._finish_packs()
        located = []
        for number, rows in enumerate(runs):
            packs, numbered = self._by_first_use(rows)
            if number in lists:
                located.append(self._indirect(packs, self._runs(lists[number])))
            else:
                located.append(Location(packs=packs, runs=_tuples(numbered)))
            self._named.update(located[-1].packs)
        return located

    @property
    def added(self) -> int:
        """Bytes of new packs that are stored."""
        return sum(pack.size for pack in self._new)

    @property
    def shared(self) -> set[str]:
        """Packs that the snapshot names and that were there before."""
        return self._named - {pack.id for pack in self._new}

    def condemned_meanwhile(self) -> bool:
        """Tell whether a pack that the snapshot names was condemned since; if so, its content must be stored anew."""
        self._looked = time.clock_gettime(_CLOCK)
        return any(not self._named.isdisjoint(record.packs) for _entry, record in condemned(self._objects.access))

    def too_late(self) -> bool:
        """Tell whether it is too long ago that this was looked at; if so, the snapshot must not be committed.

        A process that stood still for hours just there could commit content that `prune` has deleted by now.
        """
        return time.clock_gettime(_CLOCK) - self._looked >= COMMIT_WITHIN

    def _finish_packs(self) -> None:
        if len(self._builder):
            self._flush()
        self._store.drain()

    def _runs(self, places: Places) -> Runs:
        """Turn places into rows of pack, first chunk and number of chunks; shape ``(runs, 3)``."""
        packs, chunks = split(places)
        for number in np.unique(packs[packs >= _NEW]).tolist():
            here = packs == number
            chunks[here] = self._new[number - _NEW].numbers[chunks[here]]
        breaks = np.flatnonzero((np.diff(packs) != 0) | (np.diff(chunks) != 1)) + 1
        starts = np.concatenate(([0], breaks)) if len(places) else breaks
        counts = np.diff(np.append(starts, len(places)))
        return np.stack((packs[starts], chunks[starts], counts), axis=1)

    def _id(self, number: int) -> str:
        return self._new[number - _NEW].id if number >= _NEW else self._stock.packs[number]

    def _by_first_use(self, rows: Runs) -> tuple[tuple[str, ...], Runs]:
        """Number the packs of one file anew, in the order in which it needs them."""
        used, firsts, inverse = np.unique(rows[:, 0], return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        numbered = rows.copy()
        numbered[:, 0] = rank[inverse.reshape(-1)]
        return tuple(map(self._id, used[order].tolist())), numbered

    def _list(self, rows: Runs) -> Places:
        """Store the list of a file's runs as content; give its places."""
        _packs, numbered = self._by_first_use(rows)
        data = numbered.astype(MAP_ROW).tobytes()
        chunker = Chunker(len(data), find_regions(0, lambda start, length: b""))
        return self.place(list(chunker.feed(data)))

    def _indirect(self, packs: tuple[str, ...], rows: Runs) -> Location:
        """Say where a list of runs is; the packs that it counts in come first."""
        own, _ = self._by_first_use(rows)
        together = tuple(dict.fromkeys((*packs, *own)))
        numbers = {pack: number for number, pack in enumerate(together)}
        runs = tuple((numbers[self._id(pack)], first, count) for pack, first, count in rows.tolist())
        return Location(packs=together, runs=runs, depth=1)


def _parts(segments: Iterable[Segment], most: int) -> Iterator[_Part]:
    """Put segments together that are read at once."""
    part: _Part = []
    for segment in segments:
        if part and segment.start + segment.length - part[0].start > most:
            yield part
            part = []
        part.append(segment)
    if part:
        yield part


def _has_twice(hashes: Hashes) -> bool:
    return len(np.unique(np.ascontiguousarray(hashes).view(f"V{HASH}"))) < len(hashes)


def _tuples(rows: Runs) -> tuple[Run, ...]:
    return tuple((pack, first, count) for pack, first, count in rows.tolist())
