"""Where keys lead to on an SFTP server: real paths below a root, folders that are made when missing, listings."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import posixpath
from collections.abc import Iterable, Sequence

from novabackup.errors import ConfigurationError
from novabackup.storage.local.posix import OURS
from novabackup.storage.local.trees import kind_of
from novabackup.storage.sftp.connection import Connection, Status, together

_FOLDERS_AT_ONCE = 16

Found = tuple[str, str, Status]
"""Key, real path and status of a file."""


class Folders:
    """A folder of a server and what is below it.

    A symbolic link is followed as long as it stays inside; one that leads out is a ``ConfigurationError``.
    """

    def __init__(self, url: str, folder: str) -> None:
        """Name the folder; nothing is asked yet.

        Args:
            url: Of the folder, for messages.
            folder: Its absolute path; one that begins with ``~/`` is below the home of the user.
        """
        self._url = url
        self._folder = folder
        self._root: str | None = None

    async def root(self, connection: Connection) -> str:
        """Find the real path of the folder."""
        if self._root is None:
            if self._folder == "~" or self._folder.startswith("~/"):
                home = await connection.real(".")
                self._root = await _real(connection, posixpath.normpath(posixpath.join(home, self._folder[2:])))
            else:
                self._root = await _real(connection, self._folder)
        return self._root

    async def find(self, connection: Connection, key: str) -> tuple[str, Status | None]:
        """Find where a key leads to, and what stands there; None if there is nothing.

        Raises:
            ConfigurationError: It leads out of the root.
        """
        root = await self.root(connection)
        direct = _join(root, key)
        real, status = await asyncio.gather(_real_or_none(connection, direct), connection.look(direct))
        if real == direct:
            return direct, status
        real = await _real(connection, direct)
        if real != root and not real.startswith(_join(root, "")):
            raise ConfigurationError(
                f"{self._url}/{key}: expected a file inside of {self._url}, found that a symbolic link leads to "
                f"{real}. Replace the link by what it stands for, or open the folder that it leads to"
            )
        return real, await connection.look(real)

    async def find_itself(self, connection: Connection, key: str) -> tuple[str, Status | None]:
        """Find what stands under a key, be it a link, which is then not followed."""
        parent, _, name = key.rpartition("/")
        folder = (await self.find(connection, parent))[0] if parent else await self.root(connection)
        path = _join(folder, name)
        return path, await connection.look(path)

    async def find_file(self, connection: Connection, key: str) -> tuple[str, Status | None]:
        """Find a file that may be missing.

        Raises:
            ConfigurationError: Something else exists there, or it leads out of the root.
        """
        path, status = await self.find(connection, key)
        self.check(key, status)
        return path, status

    def check(self, key: str, status: Status | None) -> None:
        """Check that what stands under a key is a file or nothing.

        Anything else is refused before it is opened: opening a pipe blocks the server, opening a device can act.
        """
        if status is not None and not status.is_file:
            raise ConfigurationError(
                f"{self._url}/{key}: expected a regular file, found {kind_of(status.mode)}. Move it out of the way"
            )

    async def regular(self, connection: Connection, key: str) -> tuple[str, Status]:
        """Find a file that has to be there."""
        path, status = await self.find_file(connection, key)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        return path, status

    async def files(self, connection: Connection, prefix: str) -> list[Found]:
        """List the files below a folder in the order of their keys, without what belongs to writers."""
        if prefix:
            folder, status = await self.find(connection, prefix)
        else:
            folder = await self.root(connection)
            status = await connection.look(folder)
        if status is None or not status.is_folder:
            return []
        return sorted(await self._below(connection, folder, f"{prefix}/" if prefix else "", (folder,)))

    async def _below(self, connection: Connection, folder: str, prefix: str, above: tuple[str, ...]) -> list[Found]:
        """List a folder; ``above`` (the folders passed on the way) keeps links from leading in a circle."""
        found: list[Found] = []
        folders: list[tuple[str, str]] = []
        for name, status in await _names(connection, folder):
            path, what = _join(folder, name), status
            if status.is_link:
                path, there = await self.find(connection, prefix + name)
                if there is None:
                    continue
                what = there
            if what.is_folder:
                if path not in above:
                    folders.append((path, f"{prefix}{name}/"))
            elif what.is_file and not OURS.fullmatch(name):
                found.append((prefix + name, path, what))
        deeper = await together(
            (self._below(connection, path, longer, (*above, path)) for path, longer in folders), _FOLDERS_AT_ONCE
        )
        return [*found, *(item for items in deeper for item in items)]

    async def remains(self, connection: Connection, keys: Sequence[str] | None) -> list[tuple[str, Status]]:
        """Find what writers left behind, beside some objects or everywhere, without following links."""
        root = await self.root(connection)
        if keys is None:
            return await self._remains_below(connection, root)
        folders = {posixpath.dirname((await self.find(connection, key))[0]) for key in keys}
        listed = await together((_names(connection, folder) for folder in folders), _FOLDERS_AT_ONCE)
        return [
            (_join(folder, name), status)
            for folder, names in zip(folders, listed, strict=True)
            for name, status in names
            if status.is_file and OURS.fullmatch(name)
        ]

    async def _remains_below(self, connection: Connection, folder: str) -> list[tuple[str, Status]]:
        names = await _names(connection, folder)
        found = [(_join(folder, name), status) for name, status in names if status.is_file and OURS.fullmatch(name)]
        deeper = await together(
            (self._remains_below(connection, _join(folder, name)) for name, status in names if status.is_folder),
            _FOLDERS_AT_ONCE,
        )
        return [*found, *(item for items in deeper for item in items)]

    async def make_folders(self, connection: Connection, folder: str) -> None:
        """Make a folder and those above it, durably."""
        status = await connection.look(folder)
        if status is None:
            parent = posixpath.dirname(folder)
            await self.make_folders(connection, parent)
            try:
                await connection.make_folder(folder)
            except OSError:
                # Another process may have been faster.
                status = await connection.look(folder)
                if status is None or not status.is_folder:
                    raise
            else:
                await connection.sync_folder(parent)
        elif not status.is_folder and not status.is_link:
            raise NotADirectoryError(errno.ENOTDIR, "expected a folder, found a file", folder)

    async def sync_nearest(self, connection: Connection, folder: str) -> None:
        """Flush a folder, or the nearest existing one above it."""
        root = await self.root(connection)
        while folder == root or folder.startswith(_join(root, "")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                await connection.sync_folder(folder)
                return
            if folder in ("/", root):
                return
            folder = posixpath.dirname(folder)

    async def sync_above(self, connection: Connection, paths: Iterable[str]) -> None:
        """Flush the folders that files are in, up to the root."""
        root = await self.root(connection)
        folders: set[str] = set()
        for path in paths:
            folder = posixpath.dirname(path)
            while folder.startswith(root) and folder not in folders:
                folders.add(folder)
                folder = posixpath.dirname(folder)
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                await connection.sync_folder(folder)


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


async def _names(connection: Connection, folder: str) -> Sequence[tuple[str, Status]]:
    """List a folder; nothing if it went away meanwhile."""
    try:
        return await connection.list(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


async def _real_or_none(connection: Connection, path: str) -> str | None:
    try:
        return await connection.real(path)
    except FileNotFoundError:
        return None


async def _real(connection: Connection, path: str) -> str:
    """Follow all links on a path of which any number of parts may be missing at its end."""
    missing: list[str] = []
    while (real := await _real_or_none(connection, path)) is None and path != "/":
        path, name = posixpath.split(path)
        missing.insert(0, name)
    return posixpath.join(real or "/", *missing)
