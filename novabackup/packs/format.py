"""The pack: frames one after the other, then a table that says and proves what is in them.

Layout, all numbers little-endian (``docs/format.md`` has the whole of it)::

    header   16 bytes   "NOVAPACK", version u16, 6 zero bytes
    frames              each compressed on its own; about 1 MiB before compression
    table               columns of frames and chunks, compressed or not
    footer   32 bytes   "NOVATAIL", version u16, codec u8, encryption u8, stored size u32, raw size u32, 12 zero bytes

The id of a pack is the BLAKE3 hash of table and footer as stored. The table holds the hash of every frame and of every
chunk, so the id covers every byte, and a part of a pack can be checked without reading the rest.
"""

from __future__ import annotations

import itertools
import secrets
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from blake3 import blake3

from novabackup.errors import FormatError, IntegrityError
from novabackup.packs.codecs import compress, decompress

__all__ = ["HEADER", "Frame", "Pack", "PackBuilder", "Table", "open_frame", "read_table"]

_VERSION = 1
HEADER = struct.pack("<8sH6x", b"NOVAPACK", _VERSION)
_FOOTER = struct.Struct("<8sHBBII12s")
_COUNTS = struct.Struct("<16sII")
_HASH = 32
_FRAME_ROW = np.dtype([("codec", "<u4"), ("stored", "<u4"), ("size", "<u4"), ("chunks", "<u4"), ("hash", f"V{_HASH}")])
_CHUNK_ROW = np.dtype([("size", "<u4"), ("hash", f"V{_HASH}")])

FRAME_SIZE = 1 << 20
PACK_SIZE = 32 << 20
_LARGEST_TABLE = 64 << 20
_LARGEST_FRAME = 16 << 20
_FIRST_LOOK = 64 << 10


@attrs.frozen(kw_only=True)
class Frame:
    """One frame of a pack: where it is, and which chunks it holds."""

    number: int
    codec: int
    offset: int
    stored: int
    size: int
    first: int
    chunks: int
    hash: bytes


@attrs.frozen(kw_only=True, eq=False)
class Table:
    """What is in a pack.

    Attributes:
        frames: The frames, in order.
        sizes: Size of each chunk in bytes; shape ``(chunks,)``.
        hashes: BLAKE3 of each chunk.
        size: Bytes of the whole pack.
    """

    frames: tuple[Frame, ...]
    sizes: np.ndarray[tuple[int], np.dtype[np.uint32]]
    hashes: tuple[bytes, ...]
    size: int
    _starts: tuple[int, ...]

    def frames_of(self, first: int, count: int) -> Sequence[Frame]:
        """Give the frames that hold the chunks ``first`` to ``first + count - 1``."""
        begin = bisect_right(self._starts, first) - 1
        end = bisect_right(self._starts, first + count - 1)
        return self.frames[begin:end]


@attrs.frozen(kw_only=True)
class Pack:
    """A finished pack, ready to be stored."""

    id: str
    blocks: tuple[bytes, ...]
    size: int


class PackBuilder:
    """Collects chunks into frames, and frames into a pack."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = [HEADER]
        self._rows: list[tuple[int, int, int, int, bytes]] = []
        self._chunks: list[tuple[int, bytes]] = []
        self._open: list[bytes | memoryview] = []
        self._open_size = 0
        self._stored = 0

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def full(self) -> bool:
        """Whether the pack has reached the size at which it should be stored."""
        return self._stored + self._open_size >= PACK_SIZE

    def add(self, chunk: bytes | memoryview, digest: bytes) -> int:
        """Put a chunk in.

        Args:
            chunk: Its bytes.
            digest: Their BLAKE3 hash.

        Returns:
            The number of the chunk in this pack.
        """
        self._chunks.append((len(chunk), digest))
        self._open.append(bytes(chunk))
        self._open_size += len(chunk)
        if self._open_size >= FRAME_SIZE:
            self._close_frame()
        return len(self._chunks) - 1

    def _close_frame(self) -> None:
        raw = b"".join(self._open)
        codec, stored = compress(raw)
        self._blocks.append(stored)
        self._rows.append((codec, len(stored), len(raw), len(self._open), blake3(stored).digest()))
        self._stored += len(stored)
        self._open = []
        self._open_size = 0

    def finish(self) -> Pack:
        """Close the pack; nothing may be added afterwards."""
        if self._open:
            self._close_frame()
        # Random, so that no two packs ever have the same id: one that is about to be deleted cannot be taken for
        # one that has just been written with the same content.
        salt = secrets.token_bytes(16)
        raw = (
            _COUNTS.pack(salt, len(self._rows), len(self._chunks))
            + np.array(self._rows, _FRAME_ROW).tobytes()
            + np.array(self._chunks, _CHUNK_ROW).tobytes()
        )
        codec, stored = compress(raw)
        footer = _FOOTER.pack(b"NOVATAIL", _VERSION, codec, 0, len(stored), len(raw), bytes(12))
        self._blocks += [stored, footer]
        return Pack(
            id=blake3(stored + footer).hexdigest(),
            blocks=tuple(self._blocks),
            size=sum(len(block) for block in self._blocks),
        )


def read_table(pack_id: str, size: int, read: Callable[[int, int], bytes]) -> Table:
    """Read and check the table of a pack.

    Args:
        pack_id: Its id, which the table must hash to.
        size: Bytes of the whole pack, as the storage says.
        read: Reads ``(start, length)``.

    Returns:
        The table; every size in it adds up with ``size``.

    Raises:
        IntegrityError: These are not the bytes that were written.
        FormatError: They are, but of a newer format.
    """
    tail_at = max(0, size - _FIRST_LOOK)
    tail = read(tail_at, size - tail_at)
    if len(tail) < _FOOTER.size:
        raise IntegrityError(f"pack {pack_id}: expected at least {_FOOTER.size} bytes, found {size}")
    magic, version, codec, encryption, stored_size, raw_size, rest = _FOOTER.unpack(tail[-_FOOTER.size :])
    whole = stored_size + _FOOTER.size
    if magic != b"NOVATAIL" or whole > min(size, _LARGEST_TABLE) or raw_size > _LARGEST_TABLE:
        raise IntegrityError(f"pack {pack_id}: the last {_FOOTER.size} bytes are not the end of a pack")
    if whole > len(tail):
        tail = read(size - whole, whole)
    tail = tail[-whole:]
    if blake3(tail).hexdigest() != pack_id:
        raise IntegrityError(f"pack {pack_id}: its table does not match the hash that the pack is named by")
    if version != _VERSION or encryption or any(rest):
        raise FormatError(f"pack {pack_id}: expected version {_VERSION}, found {version}: upgrade novabackup")
    return _parse(pack_id, decompress(codec, tail[: -_FOOTER.size], raw_size), size, whole)


def _parse(pack_id: str, raw: bytes | memoryview, size: int, tail: int) -> Table:
    _salt, frame_count, chunk_count = _COUNTS.unpack_from(raw) if len(raw) >= _COUNTS.size else (b"", 1, 1)
    frames_end = _COUNTS.size + frame_count * _FRAME_ROW.itemsize
    if frames_end + chunk_count * _CHUNK_ROW.itemsize != len(raw):
        raise FormatError(
            f"pack {pack_id}: the table says {frame_count} frames and {chunk_count} chunks in {len(raw)} bytes"
        )
    rows = np.frombuffer(raw, _FRAME_ROW, frame_count, _COUNTS.size)
    chunks = np.frombuffer(raw, _CHUNK_ROW, chunk_count, frames_end)
    offsets = np.concatenate(([len(HEADER)], len(HEADER) + np.cumsum(rows["stored"], dtype=np.int64)))
    starts = np.concatenate(([0], np.cumsum(rows["chunks"], dtype=np.int64)))
    ends = np.concatenate(([0], np.cumsum(chunks["size"], dtype=np.int64)))
    if (
        int(offsets[-1]) + tail != size
        or int(starts[-1]) != chunk_count
        or np.any(rows["chunks"] == 0)
        or np.any(rows["size"] > _LARGEST_FRAME)
        or not np.array_equal(np.diff(ends[starts]), rows["size"])
    ):
        raise FormatError(f"pack {pack_id}: the sizes in the table do not add up")
    frames = tuple(
        Frame(
            number=number,
            codec=int(row["codec"]),
            offset=int(offset),
            stored=int(row["stored"]),
            size=int(row["size"]),
            first=int(first),
            chunks=int(row["chunks"]),
            hash=row["hash"].tobytes(),
        )
        for number, (row, offset, first) in enumerate(zip(rows, offsets[:-1], starts[:-1], strict=True))
    )
    return Table(
        frames=frames,
        sizes=chunks["size"],
        hashes=tuple(digest.tobytes() for digest in chunks["hash"]),
        size=size,
        starts=tuple(frame.first for frame in frames),
    )


def open_frame(pack_id: str, table: Table, frame: Frame, stored: bytes | memoryview) -> list[memoryview]:
    """Check a frame's bytes and take it apart.

    Args:
        pack_id: For messages.
        table: Table of the pack.
        frame: Which frame.
        stored: Its bytes as they are in the pack.

    Returns:
        The chunks of the frame; each has been checked against its own hash.

    Raises:
        IntegrityError: The bytes are not those that were written.
    """
    if len(stored) != frame.stored or blake3(stored).digest() != frame.hash:
        raise IntegrityError(
            f"pack {pack_id}: frame {frame.number}, {frame.stored} bytes from {frame.offset} on, does not match "
            "its hash"
        )
    raw = memoryview(decompress(frame.codec, stored, frame.size))
    sizes = table.sizes[frame.first : frame.first + frame.chunks].tolist()
    ends = list(itertools.accumulate(sizes))
    pieces = [raw[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    for number, piece in enumerate(pieces, frame.first):
        if blake3(piece).digest() != table.hashes[number]:
            raise IntegrityError(f"pack {pack_id}: chunk {number} does not match its hash")
    return pieces
