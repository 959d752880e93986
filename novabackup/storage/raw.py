"""Content that can be read anywhere, as one of Python's raw binary files; and its hash."""

from __future__ import annotations

import io
from collections.abc import Iterator

from blake3 import blake3

from novabackup.storage.base import Reader, Storage

__all__ = ["RawFile", "RawReader", "hash_of", "read_blocks"]

_BLOCK = 4 << 20


def hash_of(storage: Storage, key: str) -> str:
    """Return the BLAKE3 hash of the current content.

    Raises:
        FileNotFoundError: There is nothing.
        ChangedError: It was changed meanwhile.
    """
    whole = blake3()
    with storage.open(key) as reader:
        for block in read_blocks(reader):
            whole.update(block)
        reader.confirm()
    return whole.hexdigest()


def read_blocks(reader: Reader) -> Iterator[bytes]:
    """Read all of a file, block by block; `Reader.confirm` is up to the caller."""
    for start in range(0, reader.entry.size, _BLOCK):
        yield reader.read(start, min(_BLOCK, reader.entry.size - start))


class RawFile(io.RawIOBase):
    """What Python's raw binary files have in common that can be read at any position."""

    def __init__(self, size: int) -> None:
        """Begin at the start.

        Args:
            size: Bytes of the whole content.
        """
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position


class RawReader(RawFile):
    """A reader as a raw binary file, so that ``io.BufferedReader`` and parsers can work on it."""

    def __init__(self, reader: Reader) -> None:
        """Read from a reader that the caller closes.

        Args:
            reader: What to read.
        """
        super().__init__(reader.entry.size)
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the position on."""
        length = max(0, min(len(buffer), self._size - self._position))
        buffer[:length] = self._reader.read(self._position, length)
        self._position += length
        return length
