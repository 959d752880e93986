"""Reading the content of a snapshot's files out of packs; every byte is checked on the way."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future

import attrs
import numpy as np
from blake3 import blake3

from novabackup._support.threads import Workers, cores
from novabackup.errors import FormatError, IntegrityError
from novabackup.format.packs import Frame
from novabackup.format.records import FileEntry, Problem
from novabackup.objects.known_chunks import NOWHERE, Places, Runs, following, split
from novabackup.objects.objects import Objects
from novabackup.objects.packs import neighbours
from novabackup.storage import Source, Span
from novabackup.storage.base import Block
from novabackup.storage.raw import RawFile

__all__ = ["Base", "ContentReader", "blocks", "read_file"]

_LOADS_AHEAD = 2
_LOADS_KEPT = 3
"""Runs go to and fro between frames of different kinds, and between old packs and new ones."""
_HASHED_AT_ONCE = 1 << 20
_SHORTEST_SPAN = 16 << 10
"""Less than that is had sooner from a frame that is at hand than by a call for each."""


@attrs.frozen(kw_only=True)
class Base:
    """A file of the store that may hold much of the content that is wanted.

    Attributes:
        source: The file, open.
        entry: What a snapshot of this very version says of it.
    """

    source: Source
    entry: FileEntry


@attrs.frozen
class _Slice:
    """Bytes of one frame."""

    pack: str
    frame: Frame
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@attrs.frozen(eq=False)
class _Load:
    """Frames that are read together: they follow each other in one pack."""

    pack: str
    frames: tuple[Frame, ...]


def blocks(objects: Objects, entry: FileEntry, base: Base | None = None) -> Iterator[Block]:
    """Read a file.

    Whoever writes what this yields must not let it be seen before the last block has been had: only then is the whole
    known to be right.

    Args:
        objects: The repository.
        entry: The file.
        base: Where bytes may be copied from instead of reading them from the repository; these are hashed, too.

    Yields:
        The content, in order, and spans of the base.

    Raises:
        IntegrityError: Content is damaged or gone, or the whole does not match the file's hash.
    """
    whole = blake3()
    size = 0
    try:
        plan = _plan(objects, entry, base)
        if (planned := sum(map(len, plan))) != entry.size:
            raise IntegrityError(f"expected {entry.size} bytes, found runs of {planned}")
        with Workers(1, _LOADS_AHEAD) as hashing:
            for block in _fetched(objects, plan):
                if isinstance(block, Span):
                    hashing.hand_over(functools.partial(_hash_span, whole, block))
                else:
                    hashing.hand_over(functools.partial(whole.update, block))
                size += len(block)
                yield block
            hashing.drain()
    except (IntegrityError, FormatError) as error:
        raise _damaged(objects, entry, str(error.args[0])) from error
    if size != entry.size or whole.hexdigest() != entry.blake3:
        raise _damaged(objects, entry, f"expected {entry.size} bytes with hash {entry.blake3}, found {size} others")


def read_file(objects: Objects, entry: FileEntry) -> bytes:
    """Return the whole content of a file, checked like by `blocks`."""
    return b"".join(block for block in blocks(objects, entry) if not isinstance(block, Span))


def _hash_span(whole: blake3, span: Span) -> None:
    end = span.start + span.length
    for start in range(span.start, end, _HASHED_AT_ONCE):
        whole.update(span.source.read(start, min(_HASHED_AT_ONCE, end - start)))


def _damaged(objects: Objects, entry: FileEntry, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{entry.path} cannot be had from {objects.url}. Restore it from another snapshot or another copy of the "
        "repository",
        [Problem(code="damaged", paths=(entry.path,), message=reason)],
    )


# -- what to read ----------------------------------------------------------------------------------------------------


def _plan(objects: Objects, entry: FileEntry, base: Base | None) -> list[_Slice | Span]:
    """Say, in order, from which frames the content comes, and which of it is copied."""
    runs = objects.packs.runs(entry)
    if base is None:
        return [piece for run in runs.tolist() for piece in _slices(objects, entry.packs[run[0]], run[1], run[2])]
    plan: list[_Slice | Span] = []
    for pack, first, count, start, length in _overlap(objects, entry, runs, base.entry):
        if start < 0 or length < _SHORTEST_SPAN:
            plan += _slices(objects, entry.packs[pack], first, count)
        elif plan and isinstance(last := plan[-1], Span) and last.start + last.length == start:
            plan[-1] = Span(base.source, last.start, last.length + length)
        else:
            plan.append(Span(base.source, start, length))
    return plan


def _slices(objects: Objects, pack: str, first: int, count: int) -> list[_Slice]:
    """Find the parts of frames that hold consecutive chunks."""
    table = objects.packs.table(pack, reaching=first + count)
    found = []
    for frame in table.frames_of(first, count):
        before = max(first - frame.first, 0)
        behind = min(first + count - frame.first, frame.chunks)
        start = int(table.sizes[frame.first : frame.first + before].sum(dtype=np.int64))
        length = int(table.sizes[frame.first + before : frame.first + behind].sum(dtype=np.int64))
        found.append(_Slice(pack, frame, start, start + length))
    return found


def _overlap(objects: Objects, entry: FileEntry, runs: Runs, base: FileEntry) -> list[list[int]]:
    """Compare a file with another, chunk by chunk.

    Returns:
        For consecutive chunks that are all in the base, one after the other, or all not: number of the pack, first
        chunk, number of chunks; where they begin in the base, or -1; how many bytes they are.
    """
    packs = {pack: number for number, pack in enumerate(dict.fromkeys((*entry.packs, *base.packs)))}
    wanted, sizes = _chunks(objects, entry, runs, packs)
    there, there_sizes = _chunks(objects, base, objects.packs.runs(base), packs)
    there_starts = np.cumsum(there_sizes) - there_sizes
    order = np.argsort(there, kind="stable")
    at = np.minimum(np.searchsorted(there, wanted, sorter=order), max(0, len(there) - 1))
    starts = np.full(len(wanted), -1, np.int64)
    if len(there):
        found = there[order[at]] == wanted
        starts[found] = there_starts[order[at[found]]]
    ends = starts + sizes
    together = (starts[1:] == ends[:-1]) & (starts[:-1] >= 0) | (starts[1:] < 0) & (starts[:-1] < 0)
    breaks = np.flatnonzero(~together | (np.diff(wanted) != 1)) + 1
    firsts = np.concatenate(([0], breaks)) if len(wanted) else breaks
    counts = np.diff(np.append(firsts, len(wanted)))
    lengths = np.add.reduceat(sizes, firsts) if len(wanted) else sizes
    # The packs of the file come first in this numbering, so their numbers are its own.
    rows = (*split(wanted[firsts]), counts, starts[firsts], lengths)
    found_rows: list[list[int]] = np.stack(rows, axis=1).tolist()
    return found_rows


def _chunks(objects: Objects, entry: FileEntry, runs: Runs, packs: dict[str, int]) -> tuple[Places, Places]:
    """Give the place and the size of every chunk of a file."""
    places, sizes = [NOWHERE], [np.empty(0, np.int64)]
    for pack, first, count in runs.tolist():
        table = objects.packs.table(entry.packs[pack], reaching=first + count)
        places.append(following(packs[entry.packs[pack]], first, count))
        sizes.append(table.sizes[first : first + count].astype(np.int64))
    return np.concatenate(places), np.concatenate(sizes)


# -- reading it ------------------------------------------------------------------------------------------------------


def _fetched(objects: Objects, plan: list[_Slice | Span]) -> Iterator[Block]:
    """Read what is planned, ahead of whoever takes it."""
    loads = _loads(plan, objects.storage.block)
    ahead = max(_LOADS_AHEAD, objects.storage.parallel)
    kept: OrderedDict[_Load, Future[list[memoryview]]] = OrderedDict()
    under_way: deque[tuple[_Slice | Span, _Load | None]] = deque()
    wanted: Counter[_Load | None] = Counter()

    def take() -> Block:
        piece, load = under_way.popleft()
        if isinstance(piece, Span):
            return piece
        assert load is not None
        wanted[load] -= 1
        if not wanted[load]:
            del wanted[load]
        raw = kept[load].result()[piece.frame.number - load.frames[0].number]
        return raw[piece.start : piece.stop]

    with Workers(max(cores(), objects.storage.parallel), ahead) as workers:
        for piece in plan:
            load = None if isinstance(piece, Span) else loads[piece.pack, piece.frame.number]
            if load is not None:
                while load not in wanted and len(wanted) >= ahead:
                    yield take()
                if load not in kept:
                    kept[load] = workers.submit(functools.partial(objects.packs.frames, load.pack, load.frames))
                kept.move_to_end(load)
                wanted[load] += 1
                for old in [old for old in kept if old not in wanted][: max(0, len(kept) - ahead - _LOADS_KEPT)]:
                    del kept[old]
            under_way.append((piece, load))
        while under_way:
            yield take()


def _loads(plan: list[_Slice | Span], most: int) -> dict[tuple[str, int], _Load]:
    """Group the frames that are needed, so that neighbours are read by one request."""
    needed: dict[str, dict[int, Frame]] = {}
    for piece in plan:
        if isinstance(piece, _Slice):
            needed.setdefault(piece.pack, {})[piece.frame.number] = piece.frame
    loads: dict[tuple[str, int], _Load] = {}
    for pack, frames in needed.items():
        for group in neighbours([frames[number] for number in sorted(frames)], most):
            load = _Load(pack, group)
            loads.update({(pack, frame.number): load for frame in group})
    return loads


class ContentReader(RawFile):
    """One file of a snapshot as a raw binary file; each frame that is read has been checked."""

    def __init__(self, objects: Objects, entry: FileEntry) -> None:
        """Open a file of a snapshot.

        Args:
            objects: The repository.
            entry: The file.

        Raises:
            IntegrityError: A pack that the file needs is gone or its table is damaged, or the sizes do not add up.
        """
        super().__init__(entry.size)
        self._objects = objects
        self._entry = entry
        self._content: tuple[int, memoryview] = (0, memoryview(b""))
        self._frame: tuple[tuple[str, int] | None, memoryview] = (None, memoryview(b""))
        try:
            self._slices = [piece for piece in _plan(objects, entry, None) if isinstance(piece, _Slice)]
        except (IntegrityError, FormatError) as error:
            raise _damaged(objects, entry, str(error.args[0])) from error
        sizes = [0, *map(len, self._slices)]
        self._starts: list[int] = np.cumsum(sizes).tolist()
        if self._starts[-1] != entry.size:
            raise _damaged(objects, entry, f"expected {entry.size} bytes, found {self._starts[-1]}")

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the position on.

        Raises:
            IntegrityError: The content there is damaged.
        """
        if self._position >= self._size:
            return 0
        start, content = self._content
        if not start <= self._position < start + len(content):
            start, content = self._content = self._load(self._position)
        piece = content[self._position - start :][: len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, position: int) -> tuple[int, memoryview]:
        """Read the part of one frame that holds a position; give where it begins in the file, and its content."""
        number = bisect_right(self._starts, position) - 1
        piece = self._slices[number]
        key = (piece.pack, piece.frame.number)
        if self._frame[0] != key:
            try:
                self._frame = key, self._objects.packs.proved(piece.pack, [piece.frame])[0]
            except (IntegrityError, FormatError) as error:
                raise _damaged(self._objects, self._entry, str(error.args[0])) from error
        return self._starts[number], self._frame[1][piece.start : piece.stop]
