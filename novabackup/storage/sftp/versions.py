"""Which version of a file this is, by the little that SFTP tells: size, time in whole seconds, and the content itself.

Version 3 of the protocol knows neither the change time nor the number of a file. So a file up to 64 KiB is
distinguished by a hash of its content, which is read each time. Of a larger one, size and time are all there is, and
two changes within one second may share them: it is vouched for only when the server's clock has gone on since its last
change.
"""

from __future__ import annotations

import asyncio
import posixpath
import secrets
import time

from blake3 import blake3

from novabackup.storage.base import Entry
from novabackup.storage.sftp.connection import CREATE, READ, Connection, File, Status

EXACT = 64 << 10
"""Files up to this size are distinguished by their content, larger ones by size and time."""
_TICK = 2.0
"""Seconds within which two changes may share one time: servers tell whole seconds, and some file systems even ones."""
_PATIENCE = 4
"""How often to wait for a file that another process keeps writing to before it is no longer vouched for."""
_KEPT = 600.0
"""Seconds for which a look at the server's clock is good."""


def rough_entry(key: str, status: Status, identity: str | None = None) -> Entry:
    """Describe a file by what the server says of it."""
    return Entry(
        key=key,
        size=status.size,
        identity=f"{status.size}-{status.mtime}" if identity is None else identity,
        modified=float(status.mtime),
        attributes=status.attributes,
    )


def describe_content(key: str, status: Status, data: bytes) -> Entry:
    """Describe a small file by its content."""
    return Entry(
        key=key,
        size=len(data),
        identity=f"{len(data)}-{status.mtime}-{blake3(data).hexdigest(length=16)}",
        modified=float(status.mtime),
        attributes=status.attributes,
    )


async def describe(connection: Connection, key: str, path: str, status: Status) -> Entry:
    """Describe a file; one that may not be read has no identity."""
    if status.size > EXACT:
        return rough_entry(key, status)
    try:
        async with await connection.open(path, READ) as file:
            return (await describe_open(file, key, status))[0]
    except PermissionError:
        return rough_entry(key, status, "")


async def describe_open(file: File, key: str, seen: Status) -> tuple[Entry, bytes | None]:
    """Describe an open file; give its content too if it is small.

    Args:
        file: The file.
        key: Of the object.
        seen: What was seen before it was opened; another file may have taken its place since.
    """
    status, data = await asyncio.gather(file.look(), file.read(0, min(seen.size, EXACT + 1)))
    if status.size != len(data) and status.size <= EXACT:
        data = await file.read(0, EXACT + 1)
    if max(status.size, len(data)) > EXACT:
        return rough_entry(key, status), None
    return describe_content(key, status, data), data


def temporary(folder: str) -> str:
    """Make up the name of a temporary file."""
    return posixpath.join(folder, f".novabackup-{secrets.token_hex(8)}.tmp")


async def place(connection: Connection, path: str, data: bytes, like: Status | None = None) -> Status:
    """Write a small temporary file, and flush it; may be repeated.

    Args:
        connection: To the server.
        path: A unique name.
        data: All of its content.
        like: Whose permissions and owner it is to have, as far as that is permitted.
    """
    async with await connection.open(path, CREATE, None if like is None else 0o600) as file:
        await file.write(0, data)
        if like is not None:
            await file.adopt(like.uid, like.gid, like.mode)
        await file.sync()
        return await file.look()


async def same_file(connection: Connection, path: str, other: str) -> bool:
    """Return whether two names are of one file, by setting the time of access under one and looking under the other."""
    mine, theirs = await connection.look(path), await connection.look(other)
    if mine is None or theirs is None or (mine.size, mine.mtime) != (theirs.size, theirs.mtime):
        return False
    mark = secrets.randbelow(1 << 30)
    await connection.touch(path, mark, mine.mtime)
    seen = await connection.look(other)
    return seen is not None and seen.atime == mark


class Clock:
    """What the server's clock says at least, by the times of the files that it writes."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._ahead: float | None = None
        self._noted = 0.0

    def note(self, written: Status) -> None:
        """Learn from a file that the server wrote just now, and whose time was not set."""
        now = time.monotonic()
        ahead = written.mtime - now
        if self._ahead is None or ahead > self._ahead or now - self._noted > _KEPT:
            self._ahead, self._noted = ahead, now

    async def now(self, connection: Connection, folder: str) -> float | None:
        """Return the time, in seconds since the epoch; None where no file can be written to read the time from.

        Args:
            connection: To the server.
            folder: Where to write if need be.
        """
        if self._ahead is None or time.monotonic() - self._noted > _KEPT:
            return await self.look(connection, folder)
        return self._ahead + time.monotonic()

    async def look(self, connection: Connection, folder: str) -> float | None:
        """Return the time of a file that is written for this purpose."""
        path = temporary(folder)
        try:
            written = await place(connection, path, b"")
            await connection.remove(path)
        except (ConnectionError, TimeoutError):
            raise
        except OSError:
            return None
        self._ahead = None
        self.note(written)
        return float(written.mtime)

    async def settle(self, file: File, key: str, folder: str) -> tuple[Entry, bool]:
        """Describe a large open file once its time can be trusted to move with the next change.

        Args:
            file: The file.
            key: Of the object.
            folder: Where to write to look at the clock.

        Returns:
            What there is, and whether every later change will show.
        """
        await file.sync()  # writes through memory maps of the server's own programs show in the times only then
        status = await file.look()
        for _ in range(_PATIENCE):
            now = await self.now(file.connection, folder)
            if now is not None and now < status.mtime:
                now = await self.look(file.connection, folder)
            if now is None or now < status.mtime - _TICK:
                break  # nothing may be written there, or clocks differ
            wait = status.mtime + _TICK - now
            if wait <= 0:
                return rough_entry(key, status), True
            await asyncio.sleep(wait)
            status = await file.look()
        return rough_entry(key, status), False
