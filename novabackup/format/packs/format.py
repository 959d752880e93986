"""The pack: frames one after the other, then a table that says and proves what is in them.

Layout, all numbers little-endian (``docs/format.md`` has the whole of it)::

    header   16 bytes   "NOVAPACK", version u16, 6 zero bytes
    frames              each compressed on its own; about 1 MiB before compression
    table               columns of frames and chunks, compressed or not
    footer   32 bytes   "NOVATAIL", version u16, codec u8, encryption u8, stored size u32, raw size u32, 12 bytes of key

The id of a pack is the BLAKE3 hash of table and footer as stored. The table holds the hash of every frame and of every
chunk, so the id covers every byte, and a part of a pack can be checked without reading the rest.
"""

from __future__ import annotations

import secrets
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

import attrs
import numpy as np
from blake3 import blake3

from novabackup.errors import FormatError, IntegrityError
from novabackup.format.packs.codecs import Codec, Compressor, decompress, word_width
from novabackup.format.sealing import PackSeal, Protection

__all__ = [
    "HASH",
    "HEADER",
    "Frame",
    "Hashes",
    "Pack",
    "Sizes",
    "SqueezedFrame",
    "Table",
    "open_frame",
    "opened_frame",
    "prove_frame",
    "read_table",
    "resealed_frame",
    "sealed_frame",
    "squeeze_frame",
    "unsealed",
    "write_pack",
]

_VERSION = 1
HEADER = struct.pack("<8sH6x", b"NOVAPACK", _VERSION)
_FOOTER = struct.Struct("<8sHBBII12s")
_COUNTS = struct.Struct("<16sII")
HASH = 32
"""Bytes of a hash."""
_FRAME_ROW = np.dtype(
    [
        ("codec", "<u4"),
        ("stored", "<u4"),
        ("size", "<u4"),
        ("chunks", "<u4"),
        ("hash", f"V{HASH}"),
        ("raw", f"V{HASH}"),
    ]
)
_CHUNK_ROW = np.dtype([("size", "<u4"), ("hash", f"V{HASH}")])

Sizes = np.ndarray[tuple[int], np.dtype[np.uint32]]
"""Bytes of each chunk; shape ``(chunks,)``."""
Hashes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
"""Hash of each chunk; shape ``(chunks, 32)``."""

_LARGEST_TABLE = 64 << 20
_LARGEST_FRAME = 16 << 20
_FIRST_LOOK = 64 << 10
_HIGHEST_ENCRYPTION = 1
_FRAME_MEMORY = 400
"""Bytes that a `Frame` takes with what it holds."""


@attrs.frozen(kw_only=True)
class Frame:
    """One frame of a pack: where it is, and which chunks it holds.

    Attributes:
        hash: BLAKE3 of the stored bytes, which is checked before they are decompressed.
        raw: Hash of the content, by which it is found again.
    """

    number: int
    codec: int
    offset: int
    stored: int
    size: int
    first: int
    chunks: int
    hash: bytes
    raw: bytes


@attrs.frozen(kw_only=True, eq=False)
class Table:
    """What is in a pack.

    Attributes:
        frames: The frames, in order.
        sizes: Size of each chunk in bytes; shape ``(chunks,)``.
        hashes: Hash of each chunk; shape ``(chunks, 32)``.
        size: Bytes of the whole pack.
        seal: What opens its frames, and makes such hashes.
        padding: Bytes of nothing that stand behind the frames, sealed like one; None if there are none.
    """

    frames: tuple[Frame, ...]
    sizes: Sizes
    hashes: Hashes
    size: int
    seal: PackSeal
    padding: Frame | None
    _starts: tuple[int, ...]

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        return self.sizes.nbytes + self.hashes.nbytes + _FRAME_MEMORY * len(self.frames)

    def __len__(self) -> int:
        """Count the chunks."""
        return len(self.sizes)

    def frames_of(self, first: int, count: int) -> Sequence[Frame]:
        """Return the frames that hold the chunks ``first`` to ``first + count - 1``."""
        begin = bisect_right(self._starts, first) - 1
        end = bisect_right(self._starts, first + count - 1)
        return self.frames[begin:end]


@attrs.frozen(kw_only=True)
class Pack:
    """A finished pack, ready to be stored."""

    id: str
    blocks: tuple[bytes | memoryview, ...]
    size: int


@attrs.frozen(kw_only=True)
class SqueezedFrame:
    """A frame as it will be stored.

    Attributes:
        stored: Its bytes; may be part of a buffer, which must not be used again before the frame is stored.
    """

    codec: Codec
    stored: bytes | memoryview
    size: int
    hash: bytes
    raw: bytes


def squeeze_frame(
    compressor: Compressor, seal: PackSeal, number: int, raw: memoryview, width: int, into: bytearray
) -> SqueezedFrame:
    """Compress and seal a frame.

    Args:
        compressor: Of this thread.
        seal: Of the pack.
        number: Of the frame in the pack.
        raw: The chunks of the frame, one after the other.
        width: Bytes of the words that they consist of; 1 if unknown.
        into: A buffer at least as long, which the result may be part of.
    """
    codec, packed = compressor.compress(raw, width, into)
    return sealed_frame(seal, number, codec, packed, raw)


def sealed_frame(
    seal: PackSeal, number: int, codec: int, packed: bytes | memoryview, raw: bytes | memoryview
) -> SqueezedFrame:
    """Seal a frame that has been compressed.

    Args:
        seal: Of the pack.
        number: Of the frame in the pack.
        codec: How it was compressed.
        packed: The result of that.
        raw: The content.
    """
    stored = seal.close(number, packed)
    return SqueezedFrame(
        codec=Codec(codec), stored=stored, size=len(raw), hash=blake3(stored).digest(), raw=seal.digest(raw)
    )


def resealed_frame(seal: PackSeal, number: int, frame: Frame, packed: bytes | memoryview) -> SqueezedFrame:
    """Seal a frame of another pack for this one as it is, without looking into it.

    Args:
        seal: Of this pack; of the same key as that of the other one, so that hashes of content stay what they are.
        number: Of the frame in this pack.
        frame: What the table of the other pack says of it.
        packed: What `unsealed` gave.
    """
    stored = seal.close(number, packed)
    return SqueezedFrame(
        codec=Codec(frame.codec), stored=stored, size=frame.size, hash=blake3(stored).digest(), raw=frame.raw
    )


def write_pack(
    seal: PackSeal, frames: Sequence[SqueezedFrame], counts: Iterable[int], sizes: Sizes, hashes: Hashes
) -> Pack:
    """Put a pack together.

    Args:
        seal: That the frames are sealed with.
        frames: Its frames, in order.
        counts: How many chunks each holds.
        sizes: Size of each chunk, in the order of the frames.
        hashes: Hash of each chunk.
    """
    counts = list(counts)
    before = len(HEADER) + sum(len(frame.stored) for frame in frames) + _FOOTER.size
    table = _COUNTS.size + (len(frames) + 1) * _FRAME_ROW.itemsize + len(sizes) * _CHUNK_ROW.itemsize
    padding = seal.padding(before + table + seal.table_overhead)
    if padding is not None:
        nothing = bytes(padding)
        frames = [*frames, sealed_frame(seal, len(frames), Codec.STORED, nothing, nothing)]
        counts.append(0)
    rows = np.array(
        [(f.codec, len(f.stored), f.size, n, f.hash, f.raw) for f, n in zip(frames, counts, strict=True)], _FRAME_ROW
    )
    chunks = np.empty(len(sizes), _CHUNK_ROW)
    chunks["size"] = sizes
    chunks["hash"] = np.ascontiguousarray(hashes).view(f"V{HASH}").reshape(-1)
    # Random, so that no two packs ever have the same id: one that is about to be deleted cannot be taken for one that
    # has just been written with the same content.
    salt = secrets.token_bytes(16)
    raw = _COUNTS.pack(salt, len(rows), len(chunks)) + rows.tobytes() + chunks.tobytes()
    # Where sizes are to say nothing, that of the table must not depend on what is in it.
    codec, packed = Compressor().compress(raw) if padding is None else (Codec.STORED, raw)
    length = len(packed) + seal.table_overhead
    footer = _FOOTER.pack(b"NOVATAIL", _VERSION, codec, seal.encryption, length, len(raw), seal.mark)
    stored = seal.close_table(bytes(packed), footer)
    blocks = (HEADER, *(frame.stored for frame in frames), stored, footer)
    return Pack(id=blake3(stored + footer).hexdigest(), blocks=blocks, size=sum(map(len, blocks)))


def read_table(pack_id: str, protection: Protection, read_end: Callable[[int], tuple[bytes, int]]) -> Table:
    """Read and check the table of a pack.

    Args:
        pack_id: Its id, which the table must hash to.
        protection: How the repository is sealed.
        read_end: Reads so many bytes at the end of the pack, fewer if it has not so many; gives them and the size of
            the whole pack.

    Returns:
        The table; every size in it adds up with that of the pack.

    Raises:
        IntegrityError: These are not the bytes that were written.
        FormatError: They are, but of a newer format.
    """
    tail, size = read_end(_FIRST_LOOK)
    if len(tail) < _FOOTER.size:
        raise IntegrityError(f"pack {pack_id}: expected at least {_FOOTER.size} bytes, found {size}")
    magic, version, codec, encryption, stored_size, raw_size, mark = _FOOTER.unpack(tail[-_FOOTER.size :])
    whole = stored_size + _FOOTER.size
    if magic != b"NOVATAIL" or whole > min(size, _LARGEST_TABLE) or raw_size > _LARGEST_TABLE:
        raise IntegrityError(f"pack {pack_id}: the last {_FOOTER.size} bytes are not the end of a pack")
    if whole > len(tail):
        tail, size = read_end(whole)
    tail = tail[-whole:]
    if blake3(tail).hexdigest() != pack_id:
        raise IntegrityError(f"pack {pack_id}: its table does not match the hash that the pack is named by")
    if version != _VERSION or encryption > _HIGHEST_ENCRYPTION:
        raise FormatError(
            f"pack {pack_id}: expected version {_VERSION} and encryption up to {_HIGHEST_ENCRYPTION}, found {version} "
            f"and {encryption}: upgrade novabackup"
        )
    stored, footer = tail[: -_FOOTER.size], tail[-_FOOTER.size :]
    seal = protection.pack_seal(pack_id, encryption, mark, stored)
    try:
        packed = seal.open_table(stored, footer)
    except IntegrityError as error:
        raise IntegrityError(f"pack {pack_id}: its table is not what was sealed: {error}") from None
    return _parse(pack_id, seal, decompress(codec, packed, raw_size), size, whole)


def _parse(pack_id: str, seal: PackSeal, raw: bytes | memoryview, size: int, tail: int) -> Table:
    _salt, frame_count, chunk_count = _COUNTS.unpack_from(raw) if len(raw) >= _COUNTS.size else (b"", 1, 1)
    frames_end = _COUNTS.size + frame_count * _FRAME_ROW.itemsize
    if frames_end + chunk_count * _CHUNK_ROW.itemsize != len(raw):
        raise FormatError(
            f"pack {pack_id}: the table says {frame_count} frames and {chunk_count} chunks in {len(raw)} bytes"
        )
    rows = np.frombuffer(raw, _FRAME_ROW, frame_count, _COUNTS.size)
    chunks = np.frombuffer(raw, _CHUNK_ROW, chunk_count, frames_end)
    full = rows if seal.padding(0) is None else rows[:-1]  # the last one is padding
    offsets = np.concatenate(([len(HEADER)], len(HEADER) + np.cumsum(rows["stored"], dtype=np.int64)))
    starts = np.concatenate(([0], np.cumsum(rows["chunks"], dtype=np.int64)))
    ends = np.concatenate(([0], np.cumsum(chunks["size"], dtype=np.int64)))
    if int(offsets[-1]) + tail != size:
        raise IntegrityError(f"pack {pack_id}: expected {int(offsets[-1]) + tail} bytes, found {size}")
    if (
        int(starts[-1]) != chunk_count
        or np.any(full["chunks"] == 0)
        or np.any(rows["size"] > _LARGEST_FRAME)
        or not np.array_equal(np.diff(ends[starts])[: len(full)], full["size"])
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
            raw=row["raw"].tobytes(),
        )
        for number, (row, offset, first) in enumerate(zip(rows, offsets[:-1], starts[:-1], strict=True))
    )
    padding = frames[-1] if len(full) < len(frames) else None
    return Table(
        seal=seal,
        padding=padding,
        frames=frames[: len(frames) - (padding is not None)],
        sizes=chunks["size"].astype(np.uint32),
        hashes=np.frombuffer(chunks["hash"].tobytes(), np.uint8).reshape(-1, HASH),
        size=size,
        starts=tuple(frame.first for frame in frames if frame is not padding),
    )


def open_frame(pack_id: str, frame: Frame, packed: bytes | memoryview) -> memoryview:
    """Decompress a frame.

    Args:
        pack_id: For messages.
        frame: Which frame; from a table that was checked against the pack's id.
        packed: What `unsealed` gave.

    Returns:
        The content of the frame: its chunks, one after the other. A caller that does not check the hash of the whole
        file has to call `prove_frame`.

    Raises:
        IntegrityError: The bytes do not give what went in.
    """
    try:
        return memoryview(decompress(frame.codec, packed, frame.size))
    except IntegrityError as error:
        raise IntegrityError(f"pack {pack_id}: frame {frame.number}: {error.args[0]}") from error


def unsealed(pack_id: str, seal: PackSeal, frame: Frame, stored: bytes | memoryview) -> bytes | memoryview:
    """Check a frame's bytes and open their seal; they are still compressed.

    Raises:
        IntegrityError: The bytes are not those that were written.
    """
    where = f"pack {pack_id}: frame {frame.number}, {frame.stored} bytes from {frame.offset} on,"
    if len(stored) != frame.stored or blake3(stored).digest() != frame.hash:
        raise IntegrityError(f"{where} does not match its hash")
    try:
        return seal.open(frame.number, stored)
    except IntegrityError as error:
        raise IntegrityError(f"{where} is not what was sealed: {error}") from None


def prove_frame(pack_id: str, seal: PackSeal, frame: Frame, raw: memoryview) -> None:
    """Check what came out of a frame, where no hash of a whole file will.

    Raises:
        IntegrityError: It is not what went in.
    """
    if seal.digest(raw) != frame.raw:
        raise IntegrityError(
            f"pack {pack_id}: frame {frame.number} is stored as it was written, but does not give the content that "
            "went in"
        )


def opened_frame(pack_id: str, seal: PackSeal, frame: Frame, packed: bytes | memoryview) -> tuple[memoryview, int]:
    """Decompress a frame and check what came out, so that it can be compressed again as it was.

    Returns:
        The content, and the width of the words in it; 1 if unknown.

    Raises:
        IntegrityError: It is not what went in.
    """
    raw = open_frame(pack_id, frame, packed)
    prove_frame(pack_id, seal, frame, raw)
    return raw, word_width(frame.codec, packed)
