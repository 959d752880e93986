"""SQLite databases: copied by SQLite's online backup while a service writes to them, and checked."""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO, ClassVar

import attrs

from novabackup.components import _child
from novabackup.components.base import Isolated
from novabackup.errors import printable
from novabackup.format.records import Problem, Report
from novabackup.storage.base import Entry, Reader, Storage

__all__ = ["Sqlite"]

_MAGIC = b"SQLite format 3\0"
_HEAD = 100
_MEMORY = 512 << 20
_SLACK = 16 << 20
"""Bytes by which a database may grow between being listed and being copied, in addition to its log."""
_BLOCK = 4 << 20
_EXPECTED = "expected an SQLite database, found"


@attrs.frozen
class Sqlite(Isolated):
    """An SQLite database, which may be in use.

    In a store on this host, SQLite's online backup copies it into a temporary file: one state between two transactions,
    with everything that was committed before. Writers go on; only in the older journal modes they wait while the pages
    are copied. The database is opened read-only, in a child process. The files beside it (``-wal``, ``-shm``,
    ``-journal``) are not backed up, since the copy does not need them, and are set aside by a restore, since they would
    change the restored database. Stop the service before you restore.

    Elsewhere the file is read as it stands, and a log or journal beside it is a problem.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        timeout: Seconds to copy and check it, waiting for locks included; by default a minute and a second for each
            10 MB.
    """

    together: ClassVar[bool] = False
    _advice: ClassVar[str] = "Restore it from a snapshot, or let SQLite's own .recover get out what it can"

    @property
    def beside(self) -> tuple[str, ...]:
        """The log, its index and the rollback journal."""
        return tuple(f"{self.path}{end}" for end in ("-wal", "-shm", "-journal"))

    def open(self, storage: Storage, entry: Entry) -> Reader:
        """Copy the database and open the copy; raises ``OSError`` if another process keeps it locked."""
        path = storage.local_path(entry.key)
        if path is None:
            return _AsItStands(storage.open(entry.key), self._waiting(storage))
        log = storage.look(f"{self.path}-wal")
        size = entry.size + (log.size if isinstance(log, Entry) else 0)
        with tempfile.TemporaryDirectory(prefix="novabackup-") as folder:
            copy = Path(folder, "copy")
            result = self._run(size, str(path), copy)
            if "busy" in result.answer:
                raise OSError(
                    errno.EBUSY,
                    f"expected a database that can be read, found that {result.answer['busy']} "
                    f"after {self._seconds(size):g} s. Stop the process that locks it, or give Sqlite(…, timeout=) "
                    "more seconds",
                    printable(str(path)),
                )
            if "damaged" in result.answer:
                damage = self._damage(f"{_EXPECTED} otherwise: {result.answer['damaged']}")
                return _AsItStands(storage.open(entry.key), (damage,))
            if result.failure is not None:
                storage.open(entry.key).close()  # raises a better error if the file is gone or may not be read
                raise OSError(errno.EIO, f"the database could not be copied: {result.failure}", printable(str(path)))
            file = copy.open("rb")
        size = os.fstat(file.fileno()).st_size
        return _Copy(file, attrs.evolve(entry, size=size, identity=""), self._findings(result))

    def inspect(self, reader: Reader) -> Report:
        """Read the header, which holds sizes and versions; report damage there, or found while it was copied."""
        entry, report = reader.entry, self._present(reader)
        known = reader.problems if isinstance(reader, _Looked) else ()
        head = reader.read(0, min(_HEAD, entry.size))
        if not head:
            return attrs.evolve(report, kind="SQLite, empty", problems=known)
        if len(head) < _HEAD or not head.startswith(_MAGIC):
            damage = self._damage(f"{_EXPECTED} a file of {entry.size} bytes that starts with {head[:16]!r}")
            return attrs.evolve(report, problems=known or (damage,))
        page, pages = struct.unpack_from(">H", head, 16)[0], struct.unpack_from(">I", head, 28)[0]
        page = 1 << 16 if page == 1 else page
        user, written = struct.unpack_from(">I", head, 60)[0], struct.unpack_from(">I", head, 96)[0]
        counted = head[24:28] == head[92:96]  # otherwise a very old SQLite wrote it, which did not count
        if page < 512 or page & (page - 1) or (counted and entry.size != page * pages):
            found = f"{entry.size} bytes for {pages} pages of {page} bytes"
            known = known or (self._damage(f"expected whole pages, found {found}"),)
        return attrs.evolve(
            report,
            kind=f"SQLite, {entry.size // max(1, page)} pages of {page} bytes, user_version {user}",
            written_with=f"SQLite {written // 1_000_000}.{written // 1000 % 1000}.{written % 1000}"
            if counted
            else None,
            problems=known,
        )

    def examine(self, reader: Reader, report: Report) -> tuple[Problem, ...]:
        """Let SQLite check all pages (``PRAGMA quick_check``) in a child process; a copy has been checked already."""
        if isinstance(reader, _Copy) or report.problems:
            return ()
        with tempfile.TemporaryDirectory(prefix="novabackup-") as folder:
            copy = Path(folder, "copy")
            with copy.open("wb") as file:
                for start in range(0, reader.entry.size, _BLOCK):
                    file.write(reader.read(start, min(_BLOCK, reader.entry.size - start)))
            return self._findings(self._run(reader.entry.size, None, copy))

    def _run(self, size: int, source: str | None, copy: Path) -> _child.Result:
        seconds = self._seconds(size)
        # It gives up by itself, and is killed a little later if it does not.
        limits = _child.Limits(memory=_MEMORY, seconds=seconds + 5, written=2 * size + _SLACK)
        arguments = {"source": source, "copy": str(copy), "seconds": seconds}
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a file of no bytes
            return _child.run("_sqlite_child.py", nothing, arguments, limits)

    def _findings(self, result: _child.Result) -> tuple[Problem, ...]:
        wrong = [result.failure] if result.failure is not None else [str(text) for text in result.answer["wrong"]]
        expected = "expected a database that SQLite finds nothing wrong with, found"
        return tuple(self._damage(f"{expected}: {text}") for text in wrong)

    def _waiting(self, storage: Storage) -> tuple[Problem, ...]:
        """Report the files beside a database on another host whose content belongs into it."""
        beside = [storage.look(path) for path in self.beside]
        return tuple(
            Problem(
                code="unfinished",
                paths=(self.path, item.key),
                message="expected a database that no process is writing to, since it is not on this host, found "
                "changes that are not written into it yet. Take the snapshot on the host where it is, or stop "
                "the service",
            )
            for item in beside
            if isinstance(item, Entry) and item.size and not item.key.endswith("-shm")
        )


class _Looked(Reader):
    """A reader of a database with problems that are known already."""

    problems: tuple[Problem, ...]


class _Copy(_Looked):
    """A copy in a temporary file that has no name any more."""

    def __init__(self, file: BinaryIO, entry: Entry, problems: tuple[Problem, ...]) -> None:
        self.entry = entry
        self.problems = problems
        self._files = [file]

    def read(self, start: int, length: int) -> bytes:
        if start < 0 or length < 0 or start + length > self.entry.size:
            raise ValueError(f"bytes {start} to {start + length} of {self.entry.size} were asked for")
        data = os.pread(self._files[0].fileno(), length, start)
        while len(data) < length:
            data += os.pread(self._files[0].fileno(), length - len(data), start + len(data))
        return data

    def confirm(self) -> None:
        """Do nothing: no other process has this copy."""

    def file(self) -> BinaryIO:
        """Copy it once more, since the file needs an offset of its own."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._files.append(file)
        for start in range(0, self.entry.size, _BLOCK):
            file.write(self.read(start, min(_BLOCK, self.entry.size - start)))
        file.seek(0)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()


class _AsItStands(_Looked):
    """A database that is read like any other file."""

    def __init__(self, inner: Reader, problems: tuple[Problem, ...]) -> None:
        # The files beside it can change its content, so its identity does not prove that it is unchanged.
        self.entry = attrs.evolve(inner.entry, identity="")
        self.problems = problems
        self._inner = inner

    def read(self, start: int, length: int) -> bytes:
        return self._inner.read(start, length)

    def readinto(self, start: int, buffer: memoryview) -> None:
        self._inner.readinto(start, buffer)

    def confirm(self) -> None:
        self._inner.confirm()

    def file(self) -> BinaryIO:
        return self._inner.file()

    def close(self) -> None:
        self._inner.close()
