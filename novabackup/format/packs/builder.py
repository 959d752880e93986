"""Building packs: chunks are collected into frames of their own kind, which are compressed while others are filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import attrs
import numpy as np

from novabackup.format.packs.chunking import Piece
from novabackup.format.packs.format import Frame, Hashes, Pack, Sizes, SqueezedFrame, resealed_frame, write_pack
from novabackup.format.sealing import PackSeal

__all__ = ["FRAME_SIZE", "PACK_SIZE", "PackBuilder", "SealedPack"]

FRAME_SIZE = 1 << 20
PACK_SIZE = 12 << 20
"""Bytes before compression at which a pack is stored."""

Squeeze = Callable[[PackSeal, int, bytearray, int, int], "Future[SqueezedFrame]"]
"""Lets a frame be compressed and sealed, now or later: the seal of the pack, the number of the frame in it, a buffer,
how many bytes of it, and the width of the words in it."""

Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]


@attrs.define
class _Open:
    """A frame that is being filled."""

    frame: int
    width: int
    raw: bytearray
    length: int = 0


@attrs.frozen(kw_only=True)
class SealedPack:
    """A pack to which nothing will be added.

    Attributes:
        numbers: For each chunk, in the order in which they were added, its number in the pack; shape ``(chunks,)``.
    """

    numbers: Numbers
    _seal: PackSeal
    _frames: tuple[Future[SqueezedFrame], ...]
    _counts: tuple[int, ...]
    _sizes: Sizes
    _hashes: Hashes

    def pack(self) -> Pack:
        """Wait until all frames are compressed, and put the pack together."""
        frames = [frame.result() for frame in self._frames]
        return write_pack(self._seal, frames, self._counts, self._sizes, self._hashes)

    def buffers(self) -> Iterator[bytearray]:
        """Return the buffers that the pack is in, which can be used again once it is stored."""
        for frame in self._frames:
            stored = frame.result().stored
            if isinstance(stored, memoryview) and isinstance(stored.obj, bytearray):
                yield stored.obj


class PackBuilder:
    """Collects chunks into frames, and frames into a pack.

    Content of different kinds goes into frames of its own, since a frame has one codec; so the order of chunks in the
    pack is known only when the pack is sealed.
    """

    def __init__(self, seal: PackSeal, buffer: Callable[[], bytearray], squeeze: Squeeze) -> None:
        """Begin a pack.

        Args:
            seal: Of the pack.
            buffer: Gives a buffer of `FRAME_SIZE` bytes.
            squeeze: Starts the compression of a frame.
        """
        self._seal = seal
        self._buffer = buffer
        self._squeeze = squeeze
        self._open: dict[int, _Open] = {}
        self._frames: list[Future[SqueezedFrame] | None] = []
        self._of_frame: list[tuple[int, int]] = []
        self._sizes: list[Sizes] = []
        self._hashes: list[Hashes] = []
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether the pack has reached the size at which it should be stored."""
        return self._size >= PACK_SIZE

    def add(self, piece: Piece, hashes: Hashes) -> int:
        """Put chunks in that follow each other.

        Args:
            piece: The chunks.
            hashes: The hash of each; shape ``(chunks, 32)``.

        Returns:
            How many chunks were added before them.
        """
        before = self._count
        sizes = np.diff(piece.ends, prepend=0)
        begin = start = 0
        while begin < len(sizes):
            frame = self._open.get(piece.width) or self._begin(piece.width, int(sizes[begin]))
            # As many chunks as there is room for.
            end = int(np.searchsorted(piece.ends, start + len(frame.raw) - frame.length, side="right"))
            stop = int(piece.ends[end - 1]) if end > begin else start
            frame.raw[frame.length : frame.length + stop - start] = piece.data[start:stop]
            frame.length += stop - start
            if end > begin:
                self._of_frame.append((frame.frame, end - begin))
            if end < len(sizes):
                self._close(frame)
            begin, start = end, stop
        self._sizes.append(sizes.astype(np.uint32))
        self._hashes.append(hashes)
        self._count += len(sizes)
        self._size += start
        return before

    def add_frame(self, frame: Frame, packed: bytes | memoryview, sizes: Sizes, hashes: Hashes) -> int:
        """Put in a frame of another pack of the same key, as it is.

        Args:
            frame: What the table of that pack says of it.
            packed: Its content, unsealed and still compressed; stays as it is until the pack is stored.
            sizes: Bytes of each of its chunks.
            hashes: The hash of each; shape ``(chunks, 32)``.

        Returns:
            How many chunks were added before them.
        """
        before, number = self._count, len(self._frames)
        done: Future[SqueezedFrame] = Future()
        done.set_result(resealed_frame(self._seal, number, frame, packed))
        self._frames.append(done)
        self._of_frame.append((number, len(sizes)))
        self._sizes.append(sizes)
        self._hashes.append(hashes)
        self._count += len(sizes)
        self._size += frame.size
        return before

    def _begin(self, width: int, first: int) -> _Open:
        """Begin a frame that has room for its first chunk at least, however long that is."""
        raw = self._buffer() if first <= FRAME_SIZE else bytearray(first)
        frame = self._open[width] = _Open(len(self._frames), width, raw)
        self._frames.append(None)
        return frame

    def _close(self, frame: _Open) -> None:
        del self._open[frame.width]
        self._frames[frame.frame] = self._squeeze(self._seal, frame.frame, frame.raw, frame.length, frame.width)

    def seal(self) -> SealedPack:
        """Close the pack; nothing may be added afterwards."""
        for frame in list(self._open.values()):
            self._close(frame)
        frames, counts = np.array(self._of_frame, np.int64).reshape(-1, 2).T
        of_frame = np.repeat(frames, counts)
        order = np.argsort(of_frame, kind="stable")
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order))
        return SealedPack(
            numbers=numbers,
            seal=self._seal,
            frames=tuple(frame for frame in self._frames if frame is not None),
            counts=tuple(np.bincount(of_frame, minlength=len(self._frames)).tolist()),
            sizes=np.concatenate(self._sizes)[order],
            hashes=np.concatenate(self._hashes)[order],
        )
