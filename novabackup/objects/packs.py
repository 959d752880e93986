"""The packs of a repository, which hold the content."""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from novabackup.errors import IntegrityError
from novabackup.format.layout import DAMAGED, KEYS, PACK_NAME, PACKS, pack_key
from novabackup.format.packs import (
    HEADER,
    Frame,
    Pack,
    Table,
    open_frame,
    opened_frame,
    prove_frame,
    read_table,
    unsealed,
)
from novabackup.format.records import FileEntry
from novabackup.objects.access import Access
from novabackup.objects.known_chunks import Runs
from novabackup.storage import Entry, Storage

_LOG = logging.getLogger("novabackup")
_Content = TypeVar("_Content")

LARGEST_LIST = 64 << 20
"""Bytes of the longest list of runs that is read: as much as a snapshot itself may have."""
MAP_ROW = "<u4"
"""Type of the numbers in a list of runs that is content itself: pack, first chunk, number of chunks."""


MOST_TABLES = 512 << 20
"""Bytes of memory for tables of packs: they hold the hashes of about 100 GB of content."""


class _Tables:
    """Tables of packs that have been read; those that were not asked for longest go when they take too much memory."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._size = 0
        self._mutex = threading.Lock()

    def get(self, pack_id: str) -> Table | None:
        """Give a table if it is here."""
        with self._mutex:
            if pack_id in self._tables:
                self._tables.move_to_end(pack_id)
            return self._tables.get(pack_id)

    def keep(self, pack_id: str, table: Table) -> None:
        """Keep a table."""
        with self._mutex:
            self._drop(pack_id)
            self._tables[pack_id] = table
            self._size += table.memory
            while self._size > MOST_TABLES and len(self._tables) > 1:
                self._drop(next(iter(self._tables)))

    def drop(self, pack_id: str) -> None:
        """Keep a table no longer."""
        with self._mutex:
            self._drop(pack_id)

    def clear(self) -> None:
        """Keep none."""
        with self._mutex:
            self._tables.clear()
            self._size = 0

    def _drop(self, pack_id: str) -> None:
        if table := self._tables.pop(pack_id, None):
            self._size -= table.memory


class Packs:
    """Reads and writes the packs of one repository."""

    def __init__(self, access: Access, writing: Storage, folder: str = "") -> None:
        """Work on the packs, without touching them yet.

        Args:
            access: The repository.
            writing: Its storage, as new packs are written to it.
            folder: Prefix of the keys that are read.
        """
        self._access = access
        self._writing = writing
        self._avoided: frozenset[str] = frozenset()
        self._folder = folder
        self._tables = _Tables()
        self._reading: dict[str, threading.Lock] = {}
        self._mutex = threading.Lock()
        access.on_reseal(self._tables.clear)

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self._access.url

    @property
    def reads_back(self) -> bool:
        """Whether new packs can be read at once."""
        return self._writing.reads_back

    def avoiding(self, packs: Iterable[str]) -> Packs:
        """Return the same packs, without sharing some of them."""
        twin = copy.copy(self)
        twin._avoided = self._avoided.union(packs)
        return twin

    def set_aside(self) -> Packs:
        """Return the packs that a repair has set aside because they are damaged."""
        return Packs(self._access, self._writing, f"{DAMAGED}/")

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """List packs."""
        for entry in self._access.storage.entries(PACKS):
            found = PACK_NAME.fullmatch(entry.key)
            if found:
                yield found[1], entry

    def present(self, packs: Iterable[str]) -> set[str]:
        """Tell which packs are there to be shared."""
        keys = {pack_key(pack): pack for pack in packs if pack not in self._avoided}
        return {keys[key] for key in self._access.storage.present(keys)}

    def frozen(self, packs: Iterable[str]) -> set[str]:
        """Tell which packs lie in an archive and cannot be read before they have been thawed."""
        keys = {pack_key(pack): pack for pack in packs}
        return {keys[found.key] for found in self._access.storage.frozen(keys)}

    def add(self, pack: Pack) -> None:
        """Store a pack."""
        self._writing.add(pack_key(pack.id), pack.blocks)

    def protect(self, packs: Collection[str]) -> None:
        """Lock what a new snapshot needs for as long as the snapshot itself will be, where a bucket locks by itself.

        Args:
            packs: Those that were there before.
        """
        if packs or self._access.encrypted:
            keys = (
                key
                for folder in ([KEYS] if self._access.encrypted else [])
                for key in self._access.storage.keys(folder)
            )
            self._access.storage.protect(itertools.chain(map(pack_key, sorted(packs)), keys))

    def delete(self, pack_id: str) -> None:
        """Remove a pack that no snapshot names."""
        self.forget_table(pack_id)
        self._access.storage.delete(pack_key(pack_id))

    def forget_table(self, pack_id: str) -> None:
        """Read the table of a pack anew when it is asked for again."""
        self._tables.drop(pack_id)

    def table(self, pack_id: str, *, reaching: int = 0) -> Table:
        """Read and check the table of a pack.

        Args:
            pack_id: Which pack.
            reaching: How many chunks it must have at least, since a snapshot names them.

        Raises:
            IntegrityError: The pack is gone or damaged, or has fewer chunks.
        """
        table = self._tables.get(pack_id)
        if table is None:
            table = self._table(pack_id)
        if reaching > len(table):
            raise IntegrityError(f"pack {pack_id} has {len(table)} chunks; a snapshot names {reaching}")
        return table

    def _table(self, pack_id: str) -> Table:
        """Read the table of a pack, once for all threads that ask for it at the same time."""
        with self._mutex:
            reading = self._reading.setdefault(pack_id, threading.Lock())
        try:
            with reading:
                table = self._tables.get(pack_id)
                if table is None:
                    table = _twice(
                        lambda: read_table(
                            pack_id, self._access.protection, lambda length: self._read(pack_id, -length, length)
                        )
                    )
                    self._tables.keep(pack_id, table)
                return table
        finally:
            self._reading.pop(pack_id, None)

    def frames(self, pack_id: str, frames: Sequence[Frame]) -> list[memoryview]:
        """Read neighbouring frames of a pack by one request.

        Args:
            pack_id: Which pack.
            frames: Frames of its table that follow each other.

        Returns:
            The content of each. The stored bytes have been checked; whoever does not check the hash of a whole file
            calls `proved` instead.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        return _twice(lambda: [open_frame(pack_id, frame, packed) for frame, packed in self._unsealed(pack_id, frames)])

    def words(self, pack_id: str, frames: Sequence[Frame]) -> list[tuple[memoryview, int]]:
        """Read neighbouring frames as `proved` does; give the width of the words in each, too, or 1."""
        return _twice(
            lambda: [
                opened_frame(pack_id, self.table(pack_id).seal, frame, packed)
                for frame, packed in self._unsealed(pack_id, frames)
            ]
        )

    def packed(self, pack_id: str, frames: Sequence[Frame]) -> list[bytes | memoryview]:
        """Read neighbouring frames as they are, still compressed; their bytes have been checked.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        return _twice(lambda: [packed for _frame, packed in self._unsealed(pack_id, frames)])

    def _unsealed(self, pack_id: str, frames: Sequence[Frame]) -> Iterator[tuple[Frame, bytes | memoryview]]:
        """Read neighbouring frames; they are still compressed."""
        start, end = frames[0].offset, frames[-1].offset + frames[-1].stored
        stored = memoryview(self._read(pack_id, start, end - start)[0])
        seal = self.table(pack_id).seal
        for frame in frames:
            yield frame, unsealed(pack_id, seal, frame, stored[frame.offset - start :][: frame.stored])

    def proved(self, pack_id: str, frames: Sequence[Frame]) -> list[memoryview]:
        """Read neighbouring frames and check what came out of them, too.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        content = self.frames(pack_id, frames)
        for frame, raw in zip(frames, content, strict=True):
            prove_frame(pack_id, self.table(pack_id).seal, frame, raw)
        return content

    def runs(self, entry: FileEntry) -> Runs:
        """Read where the content of a file is.

        Returns:
            Rows of number of the pack in ``entry.packs``, first chunk and number of chunks; shape ``(runs, 3)``.

        Raises:
            IntegrityError: The list of the runs is damaged or gone.
        """
        rows: Runs = np.array(entry.runs, np.int64).reshape(-1, 3)
        if not entry.depth:
            return rows
        size = 0
        for pack, first, count in entry.runs:
            sizes = self.table(entry.packs[pack], reaching=first + count).sizes[first : first + count]
            size += int(sizes.sum(dtype=np.int64))
        if size > LARGEST_LIST or size % 12:
            raise IntegrityError(
                f"{entry.path}: expected a list of runs, a multiple of 12 bytes up to {LARGEST_LIST}, found {size}"
            )
        return self.listed(
            entry, b"".join(self._content(entry.packs[n], first, count) for n, first, count in entry.runs)
        )

    @staticmethod
    def listed(entry: FileEntry, data: bytes) -> Runs:
        """Read the list of a file's runs, which is content itself; see `runs`."""
        if len(data) > LARGEST_LIST or len(data) % 12:
            raise IntegrityError(f"{entry.path}: expected a list of runs, a multiple of 12 bytes, found {len(data)}")
        rows: Runs = np.frombuffer(data, MAP_ROW).astype(np.int64).reshape(-1, 3)
        if len(rows) and (rows[:, 0].max() >= len(entry.packs) or rows[:, 2].min() < 1):
            raise IntegrityError(f"{entry.path}: the list of its runs names what cannot be")
        return rows

    def _content(self, pack_id: str, first: int, count: int) -> bytes:
        """Read a few consecutive chunks; each has been checked against its hash."""
        table = self.table(pack_id)
        parts = []
        for frame in table.frames_of(first, count):
            (raw,) = self.proved(pack_id, [frame])
            ends = np.cumsum(table.sizes[frame.first : frame.first + frame.chunks], dtype=np.int64)
            begin = max(first, frame.first) - frame.first
            end = min(first + count, frame.first + frame.chunks) - frame.first
            parts.append(raw[int(ends[begin - 1]) if begin else 0 : int(ends[end - 1])])
        return b"".join(parts)

    def check_header(self, pack_id: str) -> None:
        """Check the few bytes of a pack that no hash covers.

        Raises:
            IntegrityError: They are not what they must be.
        """
        if self._read(pack_id, 0, len(HEADER))[0] != HEADER:
            raise IntegrityError(f"pack {pack_id}: the first {len(HEADER)} bytes are not the header of a pack")

    def _read(self, pack_id: str, start: int, length: int) -> tuple[bytes, int]:
        """Read a range of a pack; a negative start counts from the end. Give the size of the whole, too."""
        try:
            part = self._access.storage.read_part(self._folder + pack_key(pack_id), start, length)
        except FileNotFoundError:
            raise IntegrityError(
                f"pack {pack_id} is not in {self.url} any more. Restore it from another copy of the repository"
            ) from None
        return part.data, part.size


def _twice(read: Callable[[], _Content]) -> _Content:
    """Read again what is not what it must be: it may have been altered on the way only."""
    try:
        return read()
    except IntegrityError as error:
        _LOG.info("%s: it is read again", error.args[0])
        return read()


def neighbours(frames: Iterable[Frame], most: int) -> Iterator[tuple[Frame, ...]]:
    """Group frames of one pack, which come in order, so that each group can be read by one request.

    Args:
        frames: Some frames of the pack.
        most: Bytes of content that a group may have, unless it is a single frame.
    """
    group: list[Frame] = []
    for frame in frames:
        if group and (frame.number != group[-1].number + 1 or sum(one.size for one in group) + frame.size > most):
            yield tuple(group)
            group = []
        group.append(frame)
    if group:
        yield tuple(group)
