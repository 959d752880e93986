"""Files below a folder of a server that speaks SFTP: replaced by rename, created by link, swapped by succession."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from novabackup.errors import ChangedError, ConfigurationError
from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Guarantees, Part, Reader, clipped
from novabackup.storage.generic import KeyedStorage, ObjectReader, naming
from novabackup.storage.local.posix import OURS
from novabackup.storage.sftp.client import SftpClient
from novabackup.storage.sftp.connection import READ, Connection, File, Status, together
from novabackup.storage.sftp.paths import Folders
from novabackup.storage.sftp.swap import Successions, remove_remains
from novabackup.storage.sftp.temporary import Creation, TemporaryFile
from novabackup.storage.sftp.url import Address
from novabackup.storage.sftp.versions import (
    EXACT,
    Clock,
    describe,
    describe_content,
    describe_open,
    place,
    same_file,
    temporary,
)

_Result = TypeVar("_Result")
_Work = Callable[[Connection], Coroutine[Any, Any, _Result]]


class SftpStorage(KeyedStorage):
    """Files below a folder of an SFTP server.

    A symbolic link below the root is followed as long as it stays inside; one that leads out is a
    ``ConfigurationError``. The server's key is always verified.

    The protocol tells the time of a change in whole seconds and no more. So the identity of a file up to 64 KiB holds a
    hash of its content; that of a larger one is its size and time. Such a one that was changed just now is waited for
    by `open`, by the server's clock, until its next change must show. A program that changes a large file and sets its
    time back to the very second goes unnoticed.
    """

    block = 4 << 20
    parallel = 4

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """Name the place; nothing is sent yet.

        Args:
            url: ``sftp://[user@]host[:port]/path``; ``/~/path`` is below the home of the user.
            storage_options: What asyncssh takes, such as ``username``, ``password``, ``client_keys``, ``passphrase``
                and ``known_hosts``.

        Raises:
            ConfigurationError: The URL or an option cannot be used.
        """
        address = Address.of(url)
        super().__init__(address.url)
        self._client = SftpClient(address, storage_options or {})
        self._folders = Folders(self.url, address.folder)
        self._clock = Clock()
        self._successions = Successions(self._client, self._folders, self._clock)

    @property
    def requests(self) -> int:
        """How many requests have been sent so far."""
        return self._client.requests

    # -- looking and reading -----------------------------------------------------------------------------------------

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys; of small ones, the content is read."""

        async def one(connection: Connection, key: str, path: str, status: Status) -> Entry | None:
            try:
                return await describe(connection, key, path, status)
            except FileNotFoundError:
                return None  # it went away since it was listed

        async def work(connection: Connection) -> list[Entry | None]:
            return await together(one(connection, *found) for found in await self._folders.files(connection, prefix))

        return iter([entry for entry in self._do(prefix, work) if entry is not None])

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List keys without a look into the files."""
        return iter(
            [
                key
                for key, _path, _status in self._do(prefix, lambda connection: self._folders.files(connection, prefix))
            ]
        )

    def entry(self, key: str) -> Entry:
        """Describe one object; of a small one, the content is read."""
        self.checked(key)

        async def work(connection: Connection) -> Entry:
            return await describe(connection, key, *await self._folders.regular(connection, key))

        return self._do(key, work)

    def exists(self, key: str) -> bool:
        """Return whether there is an object under the key."""
        return bool(self.present([key]))

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which of these objects exist, with all requests at once."""
        every = [self.checked(key) for key in keys]

        async def work(connection: Connection) -> list[tuple[str, Status | None]]:
            return await together(self._folders.find_file(connection, key) for key in every)

        found = self._do(every[0] if len(every) == 1 else "", work) if every else []
        return {key for key, (_path, status) in zip(every, found, strict=True) if status is not None}

    def open(self, key: str) -> Reader:
        """Open one version of an object; waits up to some seconds if a large one was changed just now."""
        self.checked(key)

        async def work(connection: Connection) -> _SftpReader:
            path, status = await self._folders.regular(connection, key)
            file = await connection.open(path, READ)
            try:
                entry, data = await describe_open(file, key, status)
                if data is not None:
                    file.close()
                    return _SftpReader(self, entry, data)
                entry, vouched = await self._clock.settle(file, key, await self._folders.root(connection))
                return _SftpReader(self, entry, file, vouched=vouched)
            except BaseException:
                file.close()
                raise

        return self._do(key, work)

    def fetch(self, entry: Entry, start: int, length: int) -> bytes:
        """Read a range."""
        return self.read_part(entry.key, start, length).data

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes."""
        self.checked(key)

        async def work(connection: Connection) -> Part:
            path, status = await self._folders.regular(connection, key)
            async with await connection.open(path, READ) as file:
                return Part(await file.read(*clipped(start, length, status.size)), status.size)

        return self._do(key, work)

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by renaming a finished and flushed temporary file.

        Without ``attributes``, a file that is replaced hands on its permission bits and owner. Of a time, the server
        keeps the whole seconds.
        """
        path, old = self._target(key)
        draft = TemporaryFile(self._client, path, self.locate(key), secret=bool(attributes or old))

        async def begin(connection: Connection) -> None:
            await self._with_folder(connection, path, lambda: draft.open(connection))

        try:
            self._do(key, begin)
            draft.fill(blocks)
            status = self._do(key, lambda connection: draft.finish(connection, attributes, old))
            entry = draft.described(key, status)
            self._do(key, lambda connection: draft.publish(connection, entry))
        except BaseException:
            draft.discard()
            raise
        if attributes is None:
            self._clock.note(status)
        return entry

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, by linking a finished and flushed temporary file.

        Where the server has no hard links, by a rename that most servers refuse when there is something; `probe` says
        that others are not excluded then.
        """
        path, old = self._target(key)
        draft = temporary(posixpath.dirname(path))
        try:
            if old is None:
                status = self._do(
                    key, lambda connection: self._with_folder(connection, path, lambda: place(connection, draft, data))
                )
                self._clock.note(status)
            if old is not None or not self._do(key, Creation(draft, path).carry_out):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.locate(key))
        finally:
            self._client.remove(draft)
        self._do(key, lambda connection: connection.sync_folder(posixpath.dirname(path)))
        return describe_content(key, status, data)

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is the version named; only content up to 64 KiB, which identifies a version."""
        self.checked(key)
        if len(data) > EXACT:
            raise ConfigurationError(f"{self.locate(key)}: expected at most {EXACT} bytes to swap, found {len(data)}")
        try:
            with naming(self.locate(key)):
                return self._successions.swap(key, data, identity)
        except ChangedError as error:
            raise self._changed(key, identity, str(error)) from None

    def delete(self, key: str) -> None:
        """Remove an object, durably; one that is not there is no error."""
        self.checked(key)

        async def work(connection: Connection) -> None:
            path, status = await self._folders.find_file(connection, key)
            if status is not None:
                await connection.remove(path)
            await self._folders.sync_nearest(connection, posixpath.dirname(path))

        self._do(key, work)

    def move(self, key: str, to: str) -> None:
        """Rename whatever stands under a key, also a link or a folder; what was at the other key before is replaced."""
        self.checked(key)
        target, _old = self._target(to)
        asked = False

        async def work(connection: Connection) -> None:
            nonlocal asked
            source, status = await self._folders.find_itself(connection, key)
            if status is None:
                if asked and await connection.look(target) is not None:
                    return  # it was done, and the answer got lost
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
            await self._folders.make_folders(connection, posixpath.dirname(target))
            asked = True
            await connection.replace(source, target)
            for folder in {posixpath.dirname(source), posixpath.dirname(target)}:
                await connection.sync_folder(folder)

        self._do(key, work)

    def sync(self, keys: Iterable[str]) -> None:
        """Flush files and the folders that they are in, up to the root."""
        every = [self.checked(key) for key in keys]

        async def one(connection: Connection, key: str) -> str:
            path, status = await self._folders.find_file(connection, key)
            if status is not None:
                with contextlib.suppress(FileNotFoundError):
                    await connection.sync_file(path)
            return path

        async def work(connection: Connection) -> None:
            await self._folders.sync_above(connection, await together(one(connection, key) for key in every))

        if every:
            self._do("", work)

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Remove temporary files of interrupted writes, and what decided about versions that are long gone."""
        beside = None if keys is None else [self.checked(key) for key in keys]

        async def work(connection: Connection) -> int:
            root = await self._folders.root(connection)
            found = await self._folders.remains(connection, beside) if await connection.look(root) else []
            now = await self._clock.look(connection, root) if found else None
            return 0 if now is None else await remove_remains(connection, found, now, older_than)

        return self._do("", work)

    def checked(self, key: str) -> str:
        """Return the key if it is safe to use.

        Raises:
            ConfigurationError: It is not.
        """
        super().checked(key)
        if any(OURS.fullmatch(part) for part in key.split("/")):
            raise ConfigurationError(
                f"{self.url}: the key {key!r} cannot be used: names of this form are for temporary files"
            )
        return key

    def _try(self, key: str) -> Guarantees:
        path, _old = self._target(key)
        first, second = (temporary(posixpath.dirname(path)) for _ in range(2))

        async def work(connection: Connection) -> Guarantees:
            await connection.remove(path)
            await self._with_folder(connection, path, lambda: place(connection, first, b"first"))
            await place(connection, second, b"second")
            exclusive = (
                await _works(connection.link(first, path))
                and not await _works(connection.link(second, path))
                and await same_file(connection, first, path)  # a copy would let a crash leave half of it
            )
            swaps = (
                exclusive
                and await _works(connection.replace(second, path))
                and not await _works(connection.replace(second, path))
            )
            return Guarantees(exclusive_create=exclusive, compare_and_swap=swaps)

        try:
            return self._do(key, work)
        finally:
            self._client.remove(first, second, path)

    def _target(self, key: str) -> tuple[str, Status | None]:
        """Find where to write, and the existing object."""
        self.checked(key)
        return self._do(key, lambda connection: self._folders.find_file(connection, key))

    async def _with_folder(
        self, connection: Connection, path: str, work: Callable[[], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        """Do something beside a file; make the folder if it turns out to be missing."""
        try:
            return await work()
        except FileNotFoundError:
            await self._folders.make_folders(connection, posixpath.dirname(path))
            return await work()

    def _do(self, key: str, work: _Work[_Result]) -> _Result:
        if key:
            self.checked(key)
        with naming(self.locate(key) if key else self.url):
            return self._client.run(work)


class _SftpReader(ObjectReader):
    """One version of a file: the content of a small one, or an open file, which stays when another takes its place."""

    def __init__(self, storage: SftpStorage, entry: Entry, content: bytes | File, *, vouched: bool = True) -> None:
        super().__init__(storage, entry if vouched else attrs.evolve(entry, identity=""))
        self._sftp = storage
        self._raw = entry
        self._content = content

    def _fetch(self, start: int, length: int) -> bytes:
        if isinstance(self._content, bytes):
            return self._content[start : start + length]

        async def work(connection: Connection) -> bytes:
            return await (await self._file(connection)).read(start, length)

        return self._sftp._do(self.entry.key, work)

    async def _file(self, connection: Connection) -> File:
        """Return the open file; open it again where the connection broke, if it is still the same version."""
        assert isinstance(self._content, File)
        if self._content.connection is not connection:
            path = await self._still(connection)
            file = await connection.open(path, READ)
            if self._content.connection is connection:
                file.close()  # another thread was faster
            else:
                self._content = file
        return self._content

    async def _still(self, connection: Connection) -> str:
        """Check that the version is in its place; give the path."""
        key = self.entry.key
        path, status = await self._sftp._folders.find_file(connection, key)
        found = "nothing"
        with contextlib.suppress(FileNotFoundError):
            found = "nothing" if status is None else (await describe(connection, key, path, status)).identity
        if found != self._raw.identity:
            raise self._sftp._changed(key, self._raw.identity, found)
        return path

    def confirm(self) -> None:
        """Compare what is in its place now, and the open file, with what was opened."""

        async def work(connection: Connection) -> None:
            await self._still(connection)
            if isinstance(self._content, File):
                status = await (await self._file(connection)).look()
                if (status.size, status.mtime) != (self._raw.size, int(self._raw.modified)):
                    raise self._sftp._changed(self.entry.key, self._raw.identity, f"{status.size}-{status.mtime}")

        self._sftp._do(self.entry.key, work)

    def close(self) -> None:
        """Close the file and those that `file` gave."""
        super().close()
        if isinstance(self._content, File):
            self._sftp._client.finish_with(self._content.connection, self._content.close)


async def _works(request: Coroutine[Any, Any, None]) -> bool:
    try:
        await request
    except (ConnectionError, TimeoutError):
        raise
    except OSError:
        return False
    return True
