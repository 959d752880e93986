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
from novabackup.storage.sftp.link import Link, Status, together

_FOLDERS_AT_ONCE = 16

Found = tuple[str, str, Status]
"""Key, real path and status of a file."""


class Tree:
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

    async def root(self, link: Link) -> str:
        """Find the real path of the folder."""
        if self._root is None:
            if self._folder == "~" or self._folder.startswith("~/"):
                home = await link.real(".")
                self._root = await _real(link, posixpath.normpath(posixpath.join(home, self._folder[2:])))
            else:
                self._root = await _real(link, self._folder)
        return self._root

    async def find(self, link: Link, key: str) -> tuple[str, Status | None]:
        """Find where a key leads to, and what stands there; None if there is nothing.

        Raises:
            ConfigurationError: It leads out of the root.
        """
        root = await self.root(link)
        direct = _join(root, key)
        real, status = await asyncio.gather(_real_or_none(link, direct), link.look(direct))
        if real == direct:
            return direct, status
        real = await _real(link, direct)
        if real != root and not real.startswith(_join(root, "")):
            raise ConfigurationError(
                f"{self._url}/{key}: expected a file inside of {self._url}, found that a symbolic link leads to "
                f"{real}. Replace the link by what it stands for, or open the folder that it leads to"
            )
        return real, await link.look(real)

    async def find_itself(self, link: Link, key: str) -> tuple[str, Status | None]:
        """Find what stands under a key, be it a link, which is then not followed."""
        parent, _, name = key.rpartition("/")
        folder = (await self.find(link, parent))[0] if parent else await self.root(link)
        path = _join(folder, name)
        return path, await link.look(path)

    async def find_file(self, link: Link, key: str) -> tuple[str, Status | None]:
        """Find a file that may be missing.

        Raises:
            ConfigurationError: Something else is there, or it leads out of the root.
        """
        path, status = await self.find(link, key)
        self.check(key, status)
        return path, status

    def check(self, key: str, status: Status | None) -> None:
        """Make sure that what stands under a key is a file or nothing.

        Anything else is refused before it is opened: opening a pipe blocks the server, opening a device can act.
        """
        if status is not None and not status.is_file:
            raise ConfigurationError(
                f"{self._url}/{key}: expected a regular file, found {kind_of(status.mode)}. Move it out of the way"
            )

    async def regular(self, link: Link, key: str) -> tuple[str, Status]:
        """Find a file that has to be there."""
        path, status = await self.find_file(link, key)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        return path, status

    async def files(self, link: Link, prefix: str) -> list[Found]:
        """List the files below a folder in the order of their keys, without what belongs to writers."""
        if prefix:
            folder, status = await self.find(link, prefix)
        else:
            folder = await self.root(link)
            status = await link.look(folder)
        if status is None or not status.is_folder:
            return []
        return sorted(await self._below(link, folder, f"{prefix}/" if prefix else "", (folder,)))

    async def _below(self, link: Link, folder: str, prefix: str, above: tuple[str, ...]) -> list[Found]:
        """List a folder; ``above`` (the folders passed on the way) keeps links from leading in a circle."""
        found: list[Found] = []
        folders: list[tuple[str, str]] = []
        for name, status in await _names(link, folder):
            path, what = _join(folder, name), status
            if status.is_link:
                path, there = await self.find(link, prefix + name)
                if there is None:
                    continue
                what = there
            if what.is_folder:
                if path not in above:
                    folders.append((path, f"{prefix}{name}/"))
            elif what.is_file and not OURS.fullmatch(name):
                found.append((prefix + name, path, what))
        deeper = await together(
            (self._below(link, path, longer, (*above, path)) for path, longer in folders), _FOLDERS_AT_ONCE
        )
        return [*found, *(item for items in deeper for item in items)]

    async def remains(self, link: Link, keys: Sequence[str] | None) -> list[tuple[str, Status]]:
        """Find what writers left behind, beside some objects or everywhere, without following links."""
        root = await self.root(link)
        if keys is None:
            return await self._remains_below(link, root)
        folders = {posixpath.dirname((await self.find(link, key))[0]) for key in keys}
        listed = await together((_names(link, folder) for folder in folders), _FOLDERS_AT_ONCE)
        return [
            (_join(folder, name), status)
            for folder, names in zip(folders, listed, strict=True)
            for name, status in names
            if status.is_file and OURS.fullmatch(name)
        ]

    async def _remains_below(self, link: Link, folder: str) -> list[tuple[str, Status]]:
        names = await _names(link, folder)
        found = [(_join(folder, name), status) for name, status in names if status.is_file and OURS.fullmatch(name)]
        deeper = await together(
            (self._remains_below(link, _join(folder, name)) for name, status in names if status.is_folder),
            _FOLDERS_AT_ONCE,
        )
        return [*found, *(item for items in deeper for item in items)]

    async def make_folders(self, link: Link, folder: str) -> None:
        """Make a folder and those above it, durably."""
        status = await link.look(folder)
        if status is None:
            parent = posixpath.dirname(folder)
            await self.make_folders(link, parent)
            try:
                await link.make_folder(folder)
            except OSError:
                # Somebody else may have been faster.
                status = await link.look(folder)
                if status is None or not status.is_folder:
                    raise
            else:
                await link.sync_folder(parent)
        elif not status.is_folder and not status.is_link:
            raise NotADirectoryError(errno.ENOTDIR, "expected a folder, found a file", folder)

    async def sync_nearest(self, link: Link, folder: str) -> None:
        """Flush a folder, or the nearest one above it that is there."""
        root = await self.root(link)
        while folder == root or folder.startswith(_join(root, "")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                await link.sync_folder(folder)
                return
            if folder in ("/", root):
                return
            folder = posixpath.dirname(folder)

    async def sync_above(self, link: Link, paths: Iterable[str]) -> None:
        """Flush the folders that files are in, up to the root."""
        root = await self.root(link)
        folders: set[str] = set()
        for path in paths:
            folder = posixpath.dirname(path)
            while folder.startswith(root) and folder not in folders:
                folders.add(folder)
                folder = posixpath.dirname(folder)
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                await link.sync_folder(folder)


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


async def _names(link: Link, folder: str) -> Sequence[tuple[str, Status]]:
    """List a folder; nothing if it went away meanwhile."""
    try:
        return await link.list(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


async def _real_or_none(link: Link, path: str) -> str | None:
    try:
        return await link.real(path)
    except FileNotFoundError:
        return None


async def _real(link: Link, path: str) -> str:
    """Follow all links on a path of which any number of parts may be missing at its end."""
    missing: list[str] = []
    while (real := await _real_or_none(link, path)) is None and path != "/":
        path, name = posixpath.split(path)
        missing.insert(0, name)
    return posixpath.join(real or "/", *missing)
