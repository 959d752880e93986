"""Reading the content of a snapshot's files out of packs; every byte is checked on the way."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from blake3 import blake3

from novabackup.errors import FormatError, IntegrityError
from novabackup.model import FileEntry, Problem, SnapshotRecord
from novabackup.objects import Objects
from novabackup.storage.base import RawFile

__all__ = ["ContentReader", "blocks"]


def blocks(objects: Objects, record: SnapshotRecord, entry: FileEntry) -> Iterator[bytes]:
    """Read a file.

    Whoever writes what this yields must not let it be seen before the last block has been had: only then is the whole
    known to be right.

    Args:
        objects: The repository.
        record: The snapshot.
        entry: One of its files.

    Yields:
        The content, in order; each block has been checked against the hashes of its chunks.

    Raises:
        IntegrityError: Content is damaged or gone, or the whole does not match the file's hash.
    """
    whole = blake3()
    size = 0
    for number, first, count in entry.runs:
        try:
            for chunks in objects.chunks(record.packs[number], first, count):
                block = b"".join(chunks)
                whole.update(block)
                size += len(block)
                yield block
        except (IntegrityError, FormatError) as error:
            raise _damaged(objects, entry, str(error.args[0])) from error
    if size != entry.size or whole.hexdigest() != entry.blake3:
        raise _damaged(objects, entry, f"expected {entry.size} bytes with hash {entry.blake3}, found {size} others")


def _damaged(objects: Objects, entry: FileEntry, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{entry.path} cannot be had from {objects.url}. Restore it from another snapshot or another copy of the "
        "repository",
        [Problem(code="damaged", paths=(entry.path,), message=reason)],
    )


class ContentReader(RawFile):
    """One file of a snapshot as a raw binary file; each chunk that is read has been checked."""

    def __init__(self, objects: Objects, record: SnapshotRecord, entry: FileEntry) -> None:
        """Open a file of a snapshot.

        Args:
            objects: The repository.
            record: The snapshot.
            entry: One of its files.

        Raises:
            IntegrityError: A pack that the file needs is gone or its table is damaged, or the sizes do not add up.
        """
        super().__init__(entry.size)
        self._objects = objects
        self._record = record
        self._entry = entry
        self._frame: tuple[int, bytes] = (0, b"")
        try:
            sizes = [self._run_size(run) for run in entry.runs]
        except (IntegrityError, FormatError) as error:
            raise _damaged(objects, entry, str(error.args[0])) from error
        self._starts = [0, *accumulate(sizes)]
        if self._starts[-1] != entry.size:
            raise _damaged(objects, entry, f"expected {entry.size} bytes, found {self._starts[-1]}")

    def _run_size(self, run: tuple[int, int, int]) -> int:
        number, first, count = run
        table = self._objects.table(self._record.packs[number])
        if first + count > len(table.hashes):
            raise IntegrityError(f"pack {self._record.packs[number]} has fewer chunks than the snapshot names")
        return int(table.sizes[first : first + count].sum())

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the position on.

        Raises:
            IntegrityError: The content there is damaged.
        """
        if self._position >= self._size:
            return 0
        start, content = self._frame
        if not start <= self._position < start + len(content):
            start, content = self._frame = self._load(self._position)
        piece = content[self._position - start :][: len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, position: int) -> tuple[int, bytes]:
        """Read the part of one frame that holds a position; give where it begins in the file, and its content."""
        run = bisect_right(self._starts, position) - 1
        number, first, count = self._entry.runs[run]
        pack_id = self._record.packs[number]
        table = self._objects.table(pack_id)
        ends = [self._starts[run], *(self._starts[run] + table.sizes[first : first + count].cumsum(dtype=int)).tolist()]
        chunk = first + bisect_right(ends, position) - 1
        (frame,) = table.frames_of(chunk, 1)
        begin = max(first, frame.first)
        end = min(first + count, frame.first + frame.chunks)
        try:
            (chunks,) = self._objects.chunks(pack_id, begin, end - begin)
        except (IntegrityError, FormatError) as error:
            raise _damaged(self._objects, self._entry, str(error.args[0])) from error
        return ends[begin - first], b"".join(chunks)
