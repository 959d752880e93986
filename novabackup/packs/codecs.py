"""Codecs: how a frame's bytes are stored. Each has a number that stands in the pack and never changes."""

from __future__ import annotations

import enum

import zstandard

from novabackup.errors import FormatError, IntegrityError

__all__ = ["Codec", "compress", "decompress"]


class Codec(enum.IntEnum):
    """The codecs of format 1."""

    STORED = 0
    ZSTD = 1


_LEVEL = 1
_WORTH_IT = 0.97
"""Compressed frames that save less than 3 % are stored as they are: reading them back is then free."""


def compress(raw: bytes) -> tuple[Codec, bytes]:
    """Store a frame in the smaller way.

    Args:
        raw: Content of the frame.

    Returns:
        The codec that was chosen, and the bytes to store.
    """
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(raw)
    if len(packed) < _WORTH_IT * len(raw):
        return Codec.ZSTD, packed
    return Codec.STORED, raw


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
        try:
            if zstandard.frame_content_size(stored) != size:
                raise IntegrityError(f"a compressed frame says that it holds another number of bytes than {size}")
            raw = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(stored, max_output_size=size)
        except zstandard.ZstdError as error:
            raise IntegrityError(
                f"a compressed frame of {len(stored)} bytes cannot be decompressed: {error}"
            ) from error
    else:
        raise FormatError(f"codec {codec} is not known to this version: upgrade novabackup")
    if len(raw) != size:
        raise IntegrityError(f"a frame should hold {size} bytes, found {len(raw)}")
    return raw
