"""Write gzip on all cores; the same content always gives the same bytes.

Measured on one core, for floats, JSON and pickles: level 1 takes 40, 308 and 264 MB/s, level 6 takes 35, 119 and 44,
for 0, 10 and 7 % less. Floats hold no repetitions; not searching for them gives 125 MB/s and the same size. So a
sample of each block decides whether repetitions are searched for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from novabackup._support.threads import Workers, cores

_BLOCK = 1 << 20
_WINDOW = 32 << 10
"""How far back deflate refers: each block gets the end of the one before, so that cutting costs nothing."""
_SAMPLE = 8 << 10
_WORTH_IT = 0.97

_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
"""Without a name, a time and a system, which would make the bytes differ each time."""
_END = b"\x03\x00"
"""An empty last block of deflate."""


def gzipped(content: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Compress pieces of any length to one gzip member, several blocks at once."""
    checksum = size = 0

    def windows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal checksum, size
        before = b""
        for block in _regrouped(content):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
            yield block, before
            before = block[-_WINDOW:]

    yield _HEADER
    with Workers(cores(), cores() + 1) as workers:
        yield from workers.each(_deflate, windows())
    yield _END + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _regrouped(content: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Cut content into blocks of one length."""
    pending = bytearray()
    for piece in content:
        pending += piece
        while len(pending) >= _BLOCK:
            yield bytes(pending[:_BLOCK])
            del pending[:_BLOCK]
    if pending:
        yield bytes(pending)


def _deflate(block_and_before: tuple[bytes, bytes]) -> bytes:
    block, before = block_and_before
    middle = len(block) // 2
    sample = block[:_SAMPLE] + block[middle : middle + _SAMPLE] + block[-_SAMPLE:]
    by_matches = len(_squeeze(sample, b"", zlib.Z_DEFAULT_STRATEGY))
    by_entropy = len(_squeeze(sample, b"", zlib.Z_HUFFMAN_ONLY))
    worth_it = by_matches < _WORTH_IT * by_entropy
    return _squeeze(block, before, zlib.Z_DEFAULT_STRATEGY if worth_it else zlib.Z_HUFFMAN_ONLY)


def _squeeze(data: bytes, before: bytes, strategy: int) -> bytes:
    """Compress to whole bytes that more can follow."""
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy, before)
    return squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH)
