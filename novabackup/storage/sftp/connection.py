"""One connection to an SFTP server: its requests, with limits on their time, and with errors of the operating system.

What was measured, and shaped this module:

* The file calls of asyncssh read a large range in tasks that an interrupt does not end, and fill holes with zeros when
  a file shrinks under them. So ranges are cut into requests here.
* Version 3 of the protocol, the only one that OpenSSH speaks, has one answer, "Failure", for a full disk, for a name
  that is taken and for a folder in the way. What it means is found out by looking.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import asyncssh
import attrs
from asyncssh.constants import (
    FILEXFER_TYPE_UNKNOWN,
    FX_BAD_MESSAGE,
    FX_DIR_NOT_EMPTY,
    FX_FILE_ALREADY_EXISTS,
    FX_FILE_IS_A_DIRECTORY,
    FX_INVALID_FILENAME,
    FX_LINK_LOOP,
    FX_NO_SPACE_ON_FILESYSTEM,
    FX_NO_SUCH_FILE,
    FX_NO_SUCH_PATH,
    FX_NOT_A_DIRECTORY,
    FX_OP_UNSUPPORTED,
    FX_PERMISSION_DENIED,
    FX_QUOTA_EXCEEDED,
    FX_WRITE_PROTECT,
)

from novabackup.format.records import Attributes

_LOG = logging.getLogger("novabackup")

READ = asyncssh.FXF_READ
WRITE = asyncssh.FXF_WRITE
CREATE = asyncssh.FXF_READ | asyncssh.FXF_WRITE | asyncssh.FXF_CREAT

_PATIENCE = 60.0
"""Seconds that a server may take for one answer."""
_AT_ONCE = 64
"""Requests under way for one piece of work; with 255 KiB in each, enough for any line."""
_CHUNK = 32 << 10
"""What every server takes in one request; most say that they take more."""
_LARGEST_CHUNK = 255 << 10
_NO_ROOM = 1 << 20
"""A disk with less room than this is full."""

_NUMBERS = {
    FX_NO_SUCH_FILE: errno.ENOENT,
    FX_NO_SUCH_PATH: errno.ENOENT,
    FX_PERMISSION_DENIED: errno.EACCES,
    FX_BAD_MESSAGE: errno.EINVAL,
    FX_OP_UNSUPPORTED: errno.ENOTSUP,
    FX_WRITE_PROTECT: errno.EROFS,
    FX_FILE_ALREADY_EXISTS: errno.EEXIST,
    FX_NO_SPACE_ON_FILESYSTEM: errno.ENOSPC,
    FX_QUOTA_EXCEEDED: errno.EDQUOT,
    FX_DIR_NOT_EMPTY: errno.ENOTEMPTY,
    FX_NOT_A_DIRECTORY: errno.ENOTDIR,
    FX_INVALID_FILENAME: errno.EINVAL,
    FX_LINK_LOOP: errno.ELOOP,
    FX_FILE_IS_A_DIRECTORY: errno.EISDIR,
}
_SAID = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.EROFS, errno.EIO)}
"""What servers say that send the text of the system's error along with a general one."""

_Result = TypeVar("_Result")


class LostError(ConnectionError):
    """The connection broke; whether the request had an effect is not known."""


@attrs.frozen(kw_only=True)
class Status:
    """What a server says of a file.

    Attributes:
        size: In bytes.
        mtime: Time of the last change in whole seconds since the epoch, by the server's clock.
        atime: Time of the last access in whole seconds.
        mode: Type and permission bits.
        uid: Owner; None where the server does not say.
        gid: Group; None where the server does not say.
    """

    size: int
    mtime: int
    atime: int
    mode: int
    uid: int | None
    gid: int | None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def attributes(self) -> Attributes | None:
        """What a snapshot keeps of it."""
        if self.uid is None or self.gid is None:
            return None
        return Attributes(mode=stat.S_IMODE(self.mode), uid=self.uid, gid=self.gid, mtime_ns=self.mtime * 1_000_000_000)


class Connection:
    """A connection whose requests may be under way all at once.

    Attributes:
        is_broken: It is of no use any more.
    """

    def __init__(self, ssh: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient, count: Callable[[], None]) -> None:
        """Use a connection.

        Args:
            ssh: Is aborted when it breaks.
            sftp: Its SFTP channel.
            count: Called for each request.
        """
        self.is_broken = False
        self._ssh = ssh
        self._sftp = sftp
        self._count = count
        self._unanswered: set[asyncio.Task[None]] = set()
        self.read_size = min(sftp.limits.max_read_len or _CHUNK, _LARGEST_CHUNK)
        self.write_size = min(sftp.limits.max_write_len or _CHUNK, _LARGEST_CHUNK)

    def drop(self) -> None:
        """Abort the connection at once; may be called again."""
        if not self.is_broken:
            self.is_broken = True
            self._ssh.abort()

    async def ask(
        self, path: str, request: Callable[..., Awaitable[_Result]], *arguments: Any, patience: float = _PATIENCE
    ) -> _Result:
        """Send a request and wait for its answer.

        Args:
            path: What it is about, for messages.
            request: What asyncssh offers.
            arguments: For that.
            patience: Seconds to wait.

        Raises:
            LostError: The connection broke.
            OSError: The server refuses, or does not answer.
        """
        self._count()
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                return await request(*arguments)
        except TimeoutError as error:
            if not limit.expired():
                raise self._lost(error, path) from error
            self.drop()
            raise TimeoutError(
                errno.ETIMEDOUT, f"expected an answer of the server within {patience:g} s, found none", path
            ) from None
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise self._lost(error, path) from error
        except asyncssh.SFTPError as error:
            raise _explained(error, path) from error
        except (asyncssh.Error, OSError, EOFError) as error:
            raise self._lost(error, path) from error

    def send(self, path: str, request: Callable[[], Awaitable[None]]) -> None:
        """Send a request, before any that comes later, and take no notice of the answer."""

        async def sent() -> None:
            with contextlib.suppress(OSError):
                await self.ask(path, request)

        task = asyncio.ensure_future(sent())
        self._unanswered.add(task)
        task.add_done_callback(self._unanswered.discard)

    def _lost(self, error: Exception, path: str) -> LostError:
        self.drop()
        return LostError(errno.ECONNRESET, f"the connection to the server broke: {error}", path)

    async def real(self, path: str) -> str:
        """Follow all links on a path; only its last part may be missing."""
        return await self.ask(path, self._sftp.realpath, path)

    async def look(self, path: str) -> Status | None:
        """Return the status of a path without following a link there; None if nothing is there."""
        try:
            return _status(await self.ask(path, self._sftp.lstat, path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    async def list(self, folder: str) -> Sequence[tuple[str, Status]]:
        """List the names in a folder, with what stands there."""

        async def names() -> list[tuple[str, Status]]:
            return [
                (str(item.filename), _status(item.attrs))
                async for item in self._sftp.scandir(folder)
                if item.filename not in (".", "..") and "/" not in str(item.filename)
            ]

        return await self.ask(folder, names, patience=10 * _PATIENCE)

    async def open(self, path: str, flags: int, mode: int | None = None) -> File:
        """Open a file.

        Args:
            path: Which file.
            flags: `READ`, `WRITE` or `CREATE`.
            mode: Permission bits of a new file; None for what the server's umask leaves.
        """
        permissions = asyncssh.SFTPAttrs() if mode is None else asyncssh.SFTPAttrs(permissions=mode)

        async def opened() -> asyncssh.SFTPClientFile:
            # A block size of 0 keeps asyncssh from cutting requests itself.
            return await self._sftp.open(path, flags, permissions, encoding=None, block_size=0)

        return File(self, path, await self.ask(path, opened))

    async def replace(self, path: str, to: str) -> None:
        """Rename; what was there is replaced."""
        await self.ask(path, self._sftp.posix_rename, path, to)

    async def rename(self, path: str, to: str) -> None:
        """Rename; servers refuse if there is something already, some of them without excluding others meanwhile."""
        await self.ask(path, self._sftp.rename, path, to)

    async def link(self, path: str, to: str) -> None:
        """Give a file a second name, which must not be there yet."""
        await self.ask(path, self._sftp.link, path, to)

    async def remove(self, path: str) -> bool:
        """Remove a file; tell whether there was one."""
        try:
            await self.ask(path, self._sftp.remove, path)
        except FileNotFoundError:
            return False
        return True

    async def make_folder(self, path: str) -> None:
        """Make one folder."""
        await self.ask(path, self._sftp.mkdir, path)

    async def touch(self, path: str, atime: int, mtime: int) -> None:
        """Set the times of a file."""
        await self.ask(path, self._sftp.setstat, path, asyncssh.SFTPAttrs(atime=atime, mtime=mtime))

    async def sync_file(self, path: str) -> None:
        """Flush a file to the disk, where the server knows how to."""
        async with await self.open(path, READ) as file:
            await file.sync()

    async def sync_folder(self, path: str) -> None:
        """Flush a folder to the disk, where the server opens folders and knows how to."""
        try:
            await self.sync_file(path)
        except (FileNotFoundError, ConnectionError, TimeoutError):
            raise
        except OSError as error:
            _LOG.debug("the folder %s cannot be flushed: %s", path, error)


class File:
    """An open file; a context manager."""

    def __init__(self, connection: Connection, path: str, file: asyncssh.SFTPClientFile) -> None:
        """Take charge of it."""
        self.connection = connection
        self._path = path
        self._file = file

    async def __aenter__(self) -> File:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def read(self, start: int, length: int) -> bytes:
        """Read a range; less if the file ends before."""
        step = self.connection.read_size
        chunks = await together(
            self._read_chunk(at, min(step, start + length - at)) for at in range(start, start + length, step)
        )
        # What follows a short piece is left out: the file was cut off while it was read.
        short = next((number for number, chunk in enumerate(chunks[:-1]) if len(chunk) < step), len(chunks))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks[: short + 1])

    async def _read_chunk(self, start: int, length: int) -> bytes:
        chunks: list[bytes] = []
        while length:
            chunk = await self.connection.ask(self._path, self._read_once, start, length)
            if not chunk:
                break
            chunks.append(chunk[:length])
            start += len(chunk)
            length -= len(chunk[:length])
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_once(self, start: int, length: int) -> bytes:
        data: bytes = await self._file.read(length, start)
        return data

    async def write(self, start: int, data: bytes) -> None:
        """Write a range."""
        step = self.connection.write_size
        try:
            await together(
                self.connection.ask(self._path, self._file.write, data[at : at + step], start + at)
                for at in range(0, len(data), step)
            )
        except OSError as error:
            raise await self._full_or(error) from error

    async def _full_or(self, error: OSError) -> OSError:
        """Find out whether "Failure" means a full disk."""
        if error.errno == errno.EIO:
            with contextlib.suppress(OSError):
                disk = await self.connection.ask(self._path, self._file.statvfs)
                if disk.blocks and disk.bavail * (disk.frsize or disk.bsize) < _NO_ROOM:
                    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        return error

    async def look(self) -> Status:
        """Return the status of the open file."""
        return _status(await self.connection.ask(self._path, self._file.stat))

    async def adopt(self, uid: int | None, gid: int | None, mode: int) -> None:
        """Set owner and permissions; where the owner cannot be had, the bits that lend his rights go."""
        found = await self.look()
        if uid is not None and gid is not None and found.uid is not None and (found.uid, found.gid) != (uid, gid):
            for owner in ((uid, gid), (found.uid, gid)):
                with _tolerated():
                    await self._set(asyncssh.SFTPAttrs(uid=owner[0], gid=owner[1]))
                    break
            found = await self.look()
        mode = stat.S_IMODE(mode)
        if found.uid != uid:
            mode &= ~stat.S_ISUID
        if found.gid != gid:
            mode &= ~stat.S_ISGID
        with _tolerated():
            await self._set(asyncssh.SFTPAttrs(permissions=mode))  # after the owner, which clears those bits

    async def touch(self, mtime: int) -> None:
        """Set the times."""
        await self._set(asyncssh.SFTPAttrs(atime=mtime, mtime=mtime))

    async def _set(self, what: asyncssh.SFTPAttrs) -> None:
        await self.connection.ask(self._path, self._file.setstat, what)

    async def sync(self) -> None:
        """Flush it to the disk, where the server knows how to."""
        try:
            await self.connection.ask(self._path, self._file.fsync)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.EACCES, errno.EROFS):
                raise await self._full_or(error) from error

    def close(self) -> None:
        """Let go of it without waiting for the answer; a connection that broke has done so already."""
        if not self.connection.is_broken:
            self.connection.send(self._path, self._file.close)


@contextlib.contextmanager
def _tolerated() -> Iterator[None]:
    """Go on where an owner or a permission may not be set, or where there is no such thing."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EINVAL, errno.ENOTSUP):
            raise


async def together(work: Iterable[Coroutine[Any, Any, _Result]], most: int = _AT_ONCE) -> list[_Result]:
    """Do several things at once, and leave none of them running when one fails or the caller is interrupted.

    Args:
        work: What to do.
        most: How many may be under way.

    Returns:
        The results, in order.
    """
    every = list(work)
    if len(every) == 1:
        return [await every[0]]
    free = asyncio.Semaphore(most)

    async def one(item: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            async with free:
                return await item
        finally:
            item.close()  # one that never began would be warned of

    tasks = [asyncio.ensure_future(one(item)) for item in every]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for item in every:
            item.close()
        raise


def _status(found: asyncssh.SFTPAttrs) -> Status:
    mode = found.permissions
    if mode is None:
        mode = stat.S_IFREG if found.type in (asyncssh.FILEXFER_TYPE_REGULAR, FILEXFER_TYPE_UNKNOWN) else stat.S_IFDIR
    return Status(
        size=found.size or 0,
        mtime=int(found.mtime or 0),
        atime=int(found.atime or 0),
        mode=mode,
        uid=found.uid,
        gid=found.gid,
    )


def _explained(error: asyncssh.SFTPError, path: str) -> OSError:
    number = _NUMBERS.get(error.code) or _SAID.get(error.reason, errno.EIO)
    text = os.strerror(number) if number in (errno.ENOENT, errno.ENOSPC) else f"the server says {error.reason!r}"
    return OSError(number, text, path)
