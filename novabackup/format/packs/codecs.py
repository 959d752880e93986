"""Codecs: how a frame's bytes are stored.

Each has a number that stands in the pack and never changes.
"""

from __future__ import annotations

import enum
import struct
from typing import TypeVar

import numpy as np
import zstandard

from novabackup.errors import FormatError, IntegrityError

__all__ = ["WIDEST", "Codec", "Compression", "Compressor", "decompress", "word_width"]

Plane = np.ndarray[tuple[int], np.dtype[np.uint8]]
_Content = TypeVar("_Content", memoryview, Plane)

WIDEST = 8
"""Bytes of the widest words that `Codec.PLANES` takes apart."""

_WORTH_IT = 0.97
"""What saves less than 3 % is stored as it is: reading it back is then free."""
_SAMPLE = 8 << 10


def _fast(window: int, table: int) -> zstandard.ZstdCompressionParameters:
    """Give parameters of the fastest strategy, with a window and a hash table of so many bits."""
    return zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=window,
        hash_log=table,
        chain_log=table,
        search_log=1,
        min_match=7,
        target_length=0,
    )


_MATCHES = _fast(window=20, table=15)
"""Between levels 1 and 2: on pickles and JSON as small as the second, to 1 %, and nearly as fast as the first."""

_SMALL_LEVEL = 9
"""On program texts 0.21 instead of 0.26 at 25 MB/s; level 15 gives 0.207 at 4 MB/s."""

_ENTROPY = _fast(window=18, table=6)
"""Hardly looks for repetitions, of which the exponents of floats have none: 3.5 times as fast as level 1 on them, and
14 % smaller, since nothing is spent on chance matches."""


class Compression(enum.Enum):
    """How much time to spend on making new content small; it can be read in the same time."""

    FAST = "fast"
    """Keeps up with a disk: what guards an ingest must not slow it down."""
    SMALL = "small"
    """For what is kept for long or sent far: text is up to a fifth smaller, and takes up to ten times as long."""


class Codec(enum.IntEnum):
    """The codecs of format 1."""

    STORED = 0
    ZSTD = 1
    PLANES = 2


class Compressor:
    """Compresses frames, one after the other; each thread needs one of its own.

    What it works with is kept from frame to frame: fresh memory costs a page fault for each 4 KiB, which for a frame is
    about as much as the compression.
    """

    def __init__(self, compression: Compression = Compression.FAST) -> None:
        """Prepare.

        Args:
            compression: How much time to spend.
        """
        if compression is Compression.SMALL:
            self._by_matches = zstandard.ZstdCompressor(level=_SMALL_LEVEL)
        else:
            self._by_matches = zstandard.ZstdCompressor(compression_params=_MATCHES)
        self._by_entropy = zstandard.ZstdCompressor(compression_params=_ENTROPY)
        self._scratch = np.empty(0, np.uint8)

    def compress(
        self, raw: bytes | bytearray | memoryview, width: int = 1, into: bytearray | None = None
    ) -> tuple[Codec, bytes | memoryview]:
        """Store a frame in the smaller way.

        Args:
            raw: Content of the frame.
            width: Bytes of the words that it consists of, such as 4 for floats of 32 bits; 1 for any other content.
            into: A buffer at least as long as the content, which the result may be part of.

        Returns:
            The codec that was chosen, and the bytes to store: a part of ``raw`` or of ``into``, or bytes of their own.
        """
        view = memoryview(raw)
        if width > 1:
            packed: bytes | memoryview | None = self._planes(view, width, into)
            return (Codec.STORED, view) if packed is None else (Codec.PLANES, packed)
        packed = self._squeeze(view)
        return (Codec.STORED, view) if packed is None else (Codec.ZSTD, packed)

    def _squeeze(self, view: memoryview) -> bytes | None:
        """Compress; None if that is not worth it, which a sample tells at once of most that cannot be compressed."""
        if len(view) > 8 * _SAMPLE:
            sample = b"".join(_samples(view))
            if len(self._by_matches.compress(sample)) >= _WORTH_IT * len(sample):
                return None
        packed = self._by_matches.compress(view)
        return packed if len(packed) < _WORTH_IT * len(view) else None

    def _planes(self, view: memoryview, width: int, into: bytearray | None) -> memoryview | None:
        """Sort words into planes, one for the first byte of each word and so on, and compress each that shrinks."""
        count = len(view) // width
        words = np.frombuffer(view, np.uint8, count * width).reshape(-1, width)
        compressors = [self._choose(words[:, number]) for number in range(width)]
        if not any(compressors):
            return None
        room = memoryview(into or bytearray(len(view)))[: len(view)]
        lengths = []
        end = 1 + 4 * width
        for number, compressor in enumerate(compressors):
            plane = words[:, number]
            packed = compressor.compress(self._contiguous(plane)) if compressor else b""
            # A plane of its own length would be taken for one that is stored as it is.
            stored = np.frombuffer(packed, np.uint8) if 0 < len(packed) < count else plane
            if end + len(stored) > len(room):
                return None
            np.frombuffer(room, np.uint8)[end : end + len(stored)] = stored
            lengths.append(len(stored))
            end += len(stored)
        rest = view[count * width :]
        if end + len(rest) >= _WORTH_IT * len(view):
            return None
        room[: 1 + 4 * width] = struct.pack(f"<B{width}I", width, *lengths)
        room[end : end + len(rest)] = rest
        return room[: end + len(rest)]

    def _choose(self, plane: Plane) -> zstandard.ZstdCompressor | None:
        """Decide by a sample how a plane is compressed, if at all."""
        sample = np.concatenate(_samples(plane)).data
        by_entropy = len(self._by_entropy.compress(sample))
        by_matches = len(self._by_matches.compress(sample))
        if min(by_entropy, by_matches) >= _WORTH_IT * len(sample):
            return None
        return self._by_matches if by_matches < _WORTH_IT * by_entropy else self._by_entropy

    def _contiguous(self, plane: Plane) -> memoryview:
        if len(self._scratch) < len(plane):
            self._scratch = np.empty(len(plane), np.uint8)
        self._scratch[: len(plane)] = plane
        return self._scratch[: len(plane)].data


def decompress(codec: int, stored: bytes | memoryview, size: int) -> bytes | memoryview:
    """Get a frame's content back.

    Args:
        codec: Number of the codec.
        stored: What is in the pack.
        size: Bytes that must come out; no more memory than that is taken.

    Returns:
        The content.

    Raises:
        FormatError: The codec is not known here.
        IntegrityError: The stored bytes do not give ``size`` bytes.
    """
    if codec == Codec.STORED:
        raw: bytes | memoryview = stored
    elif codec == Codec.ZSTD:
        raw = _unsqueeze(stored, size)
    elif codec == Codec.PLANES:
        raw = _join(memoryview(stored), size)
    else:
        raise FormatError(f"codec {codec} is not known to this version: upgrade novabackup")
    if len(raw) != size:
        raise IntegrityError(f"a frame should hold {size} bytes, found {len(raw)}")
    return raw


def word_width(codec: int, stored: bytes | memoryview) -> int:
    """Tell how wide the words of a frame are, so that it can be compressed again as it was; 1 if unknown."""
    return stored[0] if codec == Codec.PLANES and 1 < stored[0] <= WIDEST else 1


def _samples(content: _Content) -> tuple[_Content, _Content, _Content]:
    """Take some of the beginning, the middle and the end."""
    middle = len(content) // 2
    return content[:_SAMPLE], content[middle : middle + _SAMPLE], content[-_SAMPLE:]


def _join(stored: memoryview, size: int) -> memoryview:
    width = stored[0] if stored else 0
    if not 1 < width <= WIDEST or len(stored) < 1 + 4 * width:
        raise IntegrityError(f"a frame of planes says that its words have {width} bytes")
    lengths = struct.unpack_from(f"<{width}I", stored, 1)
    count, rest = divmod(size, width)
    if 1 + 4 * width + sum(lengths) + rest != len(stored):
        raise IntegrityError(f"the planes of a frame do not add up to its {len(stored)} bytes")
    raw = np.empty(size, np.uint8)
    words = raw[: count * width].reshape(-1, width)
    at = 1 + 4 * width
    for number, length in enumerate(lengths):
        plane = stored[at : at + length]
        words[:, number] = np.frombuffer(plane if length == count else _unsqueeze(plane, count), np.uint8)
        at += length
    raw[count * width :] = np.frombuffer(stored[at:], np.uint8)
    return raw.data


def _unsqueeze(stored: bytes | memoryview, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(stored) != size:
            raise IntegrityError(f"a compressed frame says that it holds another number of bytes than {size}")
        raw = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"a compressed frame of {len(stored)} bytes cannot be decompressed: {error}") from error
    if len(raw) != size:
        raise IntegrityError(f"compressed bytes should give {size} bytes, gave {len(raw)}")
    return raw
