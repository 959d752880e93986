"""Cutting content into chunks, the unit of sharing, at places that the content itself decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyfastcdc import FastCDC

__all__ = ["AVERAGE_CHUNK", "LARGEST_CHUNK", "SMALLEST_CHUNK", "cut"]

SMALLEST_CHUNK = 2 << 10
AVERAGE_CHUNK = 8 << 10
LARGEST_CHUNK = 64 << 10


def cut(blocks: Iterable[bytes]) -> Iterator[memoryview]:
    """Cut a stream with FastCDC.

    The same bytes give the same chunks, however they are split into blocks: FastCDC decides from a chunk's own first
    byte on, so only the last chunk of a buffer, which may have been ended by the buffer, waits for more.

    Args:
        blocks: The content, in order, in pieces of any size.

    Yields:
        The chunks in order; together they are the content, exactly.
    """
    chunker = FastCDC(AVERAGE_CHUNK, min_size=SMALLEST_CHUNK, max_size=LARGEST_CHUNK)
    waiting = b""
    for block in blocks:
        buffer = memoryview(waiting + block if waiting else block)
        sure = 0
        for chunk in chunker.cut_buf(buffer):
            end = chunk.offset + chunk.length
            if end == len(buffer):
                break
            yield buffer[sure:end]
            sure = end
        waiting = bytes(buffer[sure:])
    for chunk in chunker.cut_buf(waiting):
        yield memoryview(waiting)[chunk.offset : chunk.offset + chunk.length]
