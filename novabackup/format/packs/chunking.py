"""Cutting content into chunks, the unit of sharing, at places that the content itself decides.

Where the records of a file are known (see `regions`), cuts lie between records, and the bytes of a record say whether
there is one before it. So content that was moved, as the lists of an inverted file are when one of them grows, is cut
at the same places again. All else is cut with FastCDC.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
from pyfastcdc import FastCDC

from novabackup.format.packs.regions import Layout

__all__ = ["AVERAGE_CHUNK", "LARGEST_CHUNK", "SMALLEST_CHUNK", "Chunker", "Piece"]

SMALLEST_CHUNK = 4 << 10
AVERAGE_CHUNK = 16 << 10
LARGEST_CHUNK = 64 << 10

_SPREAD = 4
"""A chunk of records is at most so many times as long as it should be on average."""
_WORD = 8
_MIX = np.uint64(0x9E3779B97F4A7C15)
_GATHERED = 1024

Ends = np.ndarray[tuple[int], np.dtype[np.int64]]
"""Where chunks end, from the beginning of the first one on; shape ``(chunks,)``."""


@attrs.frozen
class Piece:
    """Chunks that follow each other.

    Attributes:
        data: Their bytes.
        ends: Where each ends in ``data``; the last one at its end.
        width: Bytes of the words that they consist of; 1 if unknown.
    """

    data: memoryview
    ends: Ends
    width: int


@attrs.frozen
class _Stretch:
    """A part of the file that is cut in one way; without records with FastCDC."""

    start: int
    end: int
    record: int = 0
    width: int = 1
    fixed: bool = False
    aim: int = AVERAGE_CHUNK

    @property
    def longest(self) -> int:
        """Bytes of its longest chunk."""
        return max(_SPREAD * self.aim, self.record) if self.record else LARGEST_CHUNK


class Chunker:
    """Cuts one file, which comes in blocks of any size: the same bytes give the same chunks."""

    def __init__(self, size: int, layout: Layout) -> None:
        """Prepare to cut.

        Args:
            size: Bytes of the whole file.
            layout: Where its records are.
        """
        self._stretches = _stretches(size, layout)
        self._stretch = next(self._stretches, _Stretch(0, size))
        self._at = 0
        self._tail = b""
        self._fastcdc = FastCDC(AVERAGE_CHUNK, min_size=SMALLEST_CHUNK, max_size=LARGEST_CHUNK)

    def feed(self, block: bytes | memoryview) -> Iterator[Piece]:
        """Take the next block.

        Args:
            block: The bytes that follow those of the last block.

        Yields:
            Chunks whose ends are certain. When the whole file has been fed, all of them have been yielded.
        """
        rest = memoryview(block)
        while self._tail and rest:
            # What was left begins a chunk that ends in this block: only its neighbourhood is copied.
            joined = memoryview(self._tail + rest[: self._stretch.longest + self._stretch.record])
            ends = self._ends(joined)
            if not len(ends):
                self._tail += rest
                return
            end = int(ends[0])
            yield self._piece(joined[:end], ends[:1])
            left = len(self._tail) - end
            self._tail = self._tail[end:]
            rest = rest[max(0, -left) :]
        while rest:
            ends = self._ends(rest)
            if not len(ends):
                break
            end = int(ends[-1])
            yield self._piece(rest[:end], ends)
            rest = rest[end:]
        self._tail += rest

    def skip(self, length: int) -> Iterator[Piece]:
        """Pass over bytes whose chunks are known already; a chunk ends where they begin, and one begins behind them.

        Args:
            length: How many.

        Yields:
            What was left of the bytes before them.
        """
        if self._tail:
            tail, self._tail = memoryview(self._tail), b""
            yield self._piece(tail, np.array([len(tail)], np.int64))
        self._move(length)

    def _piece(self, data: memoryview, ends: Ends) -> Piece:
        width = self._stretch.width
        self._move(len(data))
        return Piece(data, ends, width)

    def _move(self, length: int) -> None:
        self._at += length
        while self._at >= self._stretch.end and (following := next(self._stretches, None)):
            self._stretch = following

    def _ends(self, view: memoryview) -> Ends:
        """Find the certain ends of chunks in the bytes from the present position on, within the present stretch."""
        stretch = self._stretch
        view = view[: stretch.end - self._at]
        step = max(1, stretch.aim // stretch.record) * stretch.record if stretch.fixed else stretch.record
        if step and (inside := (self._at - stretch.start) % step):
            # Only after a skip: on to where the next record begins.
            ends = np.arange(step - inside, len(view) + 1, step)[:1]
        elif stretch.fixed:
            ends = np.arange(step, len(view) + 1, step)
        elif stretch.record:
            ends = _between_records(view, stretch)
        else:
            ends = self._by_content(view)
        if self._at + len(view) == stretch.end and (not len(ends) or ends[-1] != len(view)):
            ends = np.append(ends, len(view))
        return ends

    def _by_content(self, view: memoryview) -> Ends:
        # FastCDC decides from a chunk's own first byte on, so only the last chunk, which the end of the bytes may have
        # ended, waits for more.
        ends = np.array([chunk.offset + chunk.length for chunk in self._fastcdc.cut_buf(view)], np.int64)
        return ends[: np.searchsorted(ends, len(view))]


def _stretches(size: int, layout: Layout) -> Iterator[_Stretch]:
    at = 0
    for first in range(0, len(layout), _GATHERED):
        for row in layout[first : first + _GATHERED]:
            if row["start"] > at:
                yield _Stretch(at, int(row["start"]))
            at = int(row["end"])
            yield _Stretch(
                int(row["start"]), at, int(row["record"]), int(row["width"]), bool(row["fixed"]), int(row["aim"])
            )
    if at < size:
        yield _Stretch(at, size)


def _between_records(view: memoryview, stretch: _Stretch) -> Ends:
    """Cut before records whose bytes say so, and where a chunk would become too long."""
    record = stretch.record
    if 2 * record >= stretch.aim:
        return np.arange(record, len(view) + 1, record)
    count = len(view) // record
    if count < 2:
        return np.empty(0, np.int64)
    said = _mixed(view, record, count) < np.uint64(2**32 * record // stretch.aim)
    # Not if the record before says so, too: equal records, such as empty ones, would each become a chunk.
    cuts = (np.flatnonzero(said[1:] & ~said[:-1]) + 1) * record
    longest = stretch.longest // record * record
    edges = np.concatenate(([0], cuts, [len(view)]))
    extra = (np.diff(edges) - 1) // longest
    if not extra.any():
        return cuts
    starts = np.repeat(edges[:-1], extra)
    steps = np.arange(len(starts)) - np.repeat(np.cumsum(extra) - extra, extra) + 1
    return np.sort(np.concatenate((cuts, starts + steps * longest)))


def _mixed(view: memoryview, record: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Make a number below 2**32 of some bytes of each record: of its beginning, its middle and its end."""
    if record < _WORD:
        mixed = np.zeros(count, np.uint64)
        for column in np.ndarray((count, record), np.uint8, view, strides=(record, 1)).T:
            mixed = mixed << np.uint64(8) | column
    else:
        mixed = np.full(count, _MIX)
        for place in sorted({0, record // 2 - record // 2 % _WORD, record - _WORD}):
            words = np.ndarray(count, "<u8", view, place, (record,))
            mixed = (mixed ^ words ^ mixed >> np.uint64(29)) * _MIX
    return ((mixed ^ mixed >> np.uint64(31)) * _MIX) >> np.uint64(32)
