"""Content on its way to an SFTP server: under a temporary name until it is complete, over connections that break."""

from __future__ import annotations

import errno
import posixpath
from collections import deque
from collections.abc import Iterable, Iterator

from blake3 import blake3

from novabackup.errors import IntegrityError
from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Span
from novabackup.storage.generic import naming
from novabackup.storage.sftp.client import Call, SftpClient
from novabackup.storage.sftp.connection import CREATE, Connection, File, Status
from novabackup.storage.sftp.versions import EXACT, describe, describe_content, rough_entry, same_file, temporary

_BATCH = 2 << 20
_BATCHES_AHEAD = 4
"""Bytes under way are bounded by these two; enough for 80 MB/s where an answer takes a tenth of a second."""
_BLOCK = 8 << 20
_LINKLESS = (errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.EINVAL)
"""What servers answer whose file system has no hard links."""


class TemporaryFile:
    """A temporary file beside the one that it is to become.

    Attributes:
        path: Of the file.
    """

    def __init__(self, client: SftpClient, target: str, url: str, *, secret: bool) -> None:
        """Make up its name; nothing is sent yet.

        Args:
            client: Does the work.
            target: The file that it is to become.
            url: Of that file, for messages.
            secret: Keep it from other users until `finish` says more.
        """
        self.path = temporary(posixpath.dirname(target))
        self._target = target
        self._url = url
        self._client = client
        self._mode = 0o600 if secret else None
        self._file: File | None = None
        self._is_suspect = False
        self._size = 0
        self._head = b""
        self._hash = blake3()
        self._published = False

    async def open(self, connection: Connection) -> File:
        """Open it, again if the connection is another one by now."""
        if self._file is None or self._file.connection is not connection:
            file = await connection.open(self.path, CREATE, self._mode)
            if self._file is not None:
                # The server may have been started again and forgotten what it had not flushed.
                self._is_suspect = True
            if self._file is not None and self._file.connection is connection:
                file.close()  # another batch was faster
            else:
                self._file = file
        return self._file

    def fill(self, blocks: Iterable[Block]) -> None:
        """Write content, some of it ahead of the answers."""
        under_way: deque[Call[None]] = deque()
        try:
            for batch in _batches(blocks):
                if len(under_way) == _BATCHES_AHEAD:
                    self._wait(under_way.popleft())
                self._head = self._head or batch
                self._hash.update(batch)
                under_way.append(self._send(self._size, batch))
                self._size += len(batch)
            while under_way:
                self._wait(under_way.popleft())
        finally:
            for call in under_way:
                call.give_up()

    def _wait(self, call: Call[None]) -> None:
        with naming(self._url):
            call.result()

    def _send(self, start: int, data: bytes) -> Call[None]:
        async def send(connection: Connection) -> None:
            await (await self.open(connection)).write(start, data)

        return self._client.start(send)

    async def finish(self, connection: Connection, attributes: Attributes | None, old: Status | None) -> Status:
        """Set its attributes, or those of the file that it replaces, flush and close it; may be done again.

        Raises:
            IntegrityError: It is not what was written.
        """
        file = await self.open(connection)
        if attributes is not None:
            await file.adopt(attributes.uid, attributes.gid, attributes.mode)
            await file.touch(max(0, attributes.mtime_ns // 1_000_000_000))
        elif old is not None:
            await file.adopt(old.uid, old.gid, old.mode)
        await file.sync()
        status = await file.look()
        if status.size != self._size or (self._is_suspect and await self._reread(file) != self._hash.digest()):
            raise IntegrityError(
                f"{self._url}: expected the {self._size} bytes that were written, found others ({status.size} bytes): "
                "the server lost some of them when the connection broke. Write it again"
            )
        file.close()
        return status

    async def _reread(self, file: File) -> bytes:
        found = blake3()
        for start in range(0, self._size, _BLOCK):
            found.update(await file.read(start, min(_BLOCK, self._size - start)))
        return found.digest()

    def described(self, key: str, status: Status) -> Entry:
        """Describe the object that it is to become."""
        return describe_content(key, status, self._head) if self._size <= EXACT else rough_entry(key, status)

    async def publish(self, connection: Connection, entry: Entry) -> None:
        """Rename it; when the answer to an earlier attempt got lost, find out whether that was done."""
        if not self._published or await connection.look(self.path) is not None:
            self._published = True
            await self._replace(connection)
        else:
            status = await connection.look(self._target)
            found = None if status is None else await describe(connection, entry.key, self._target, status)
            if found is None or found.identity != entry.identity:
                raise OSError(errno.EIO, "another process replaced or removed it while it was written", self._url)
        await connection.sync_folder(posixpath.dirname(self._target))

    async def _replace(self, connection: Connection) -> None:
        try:
            await connection.replace(self.path, self._target)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            if await connection.look(self._target) is not None:
                raise OSError(
                    errno.ENOTSUP,
                    "expected a server that can replace a file by renaming (posix-rename@openssh.com), found one that "
                    "cannot: only new files can be written there",
                    self._url,
                ) from error
            await connection.rename(self.path, self._target)

    def discard(self) -> None:
        """Remove it, if that can be done at once."""
        if self._file is not None:
            self._client.finish_with(self._file.connection, self._file.close)
        self._client.remove(self.path)


class Creation:
    """The link that makes a new object visible; knows its own work when the answer to it got lost."""

    def __init__(self, draft: str, path: str) -> None:
        """Be about to link.

        Args:
            draft: A finished file.
            path: Where it is to be seen.
        """
        self._draft = draft
        self._path = path
        self._asked = False

    async def carry_out(self, connection: Connection) -> bool:
        """Link it; tell whether it could be had. May be done again."""
        if self._asked and await same_file(connection, self._draft, self._path):
            return True
        self._asked = True
        try:
            await connection.link(self._draft, self._path)
        except ConnectionError:
            raise
        except OSError as error:
            if error.errno == errno.EEXIST or await connection.look(self._path) is not None:
                return False
            if error.errno not in _LINKLESS:
                raise
            await connection.rename(self._draft, self._path)
        return True


def _batches(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Put content together into pieces that are worth a round trip, and copies: the blocks may be used again."""
    waiting = bytearray()
    for block in blocks:
        if isinstance(block, Span):
            waiting += block.source.read(block.start, block.length)
        elif len(block) >= _BATCH and not waiting:
            yield bytes(block)
        else:
            waiting += block
        if len(waiting) >= _BATCH:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)
