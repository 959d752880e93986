"""Files below a folder of this host: replaced by rename, flushed to the disk, and told apart by what the kernel says.

What is here is for POSIX systems. What was measured of them, and shaped this module:

* The times of a file move in ticks (up to 10 ms; 1-2 s on some file systems), so a file that was changed *just now*
  can change again and keep its times. `LocalStorage.open` waits until that can no longer be.
* A write through a memory map shows in the times only when it is the first to its page since the page was flushed:
  `LocalStorage.open` flushes first. File systems that live in memory (tmpfs) never show such writes at all: there, no
  identity is vouched for.
* A lock by ``flock`` belongs to the open file and so to every forked child as well: children close their copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from novabackup._paths import unsafe
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.model import Attributes
from novabackup.storage.base import Entry, Guarantees, Reader, Storage

__all__ = ["LocalStorage"]

_OURS = re.compile(r"\.novabackup-[0-9a-f]{16}\.(tmp|lock)")
_TICK_NS = 20_000_000
"""Longer than the tick by which any usual kernel moves the times of files."""
_COARSE_NS = 2_500_000_000
"""Longer than the coarsest tick of any file system (FAT: 2 s)."""
_PATIENCE = 5
"""How often `open` waits for a file that somebody keeps writing to before it stops vouching for it."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNSYNCABLE = (errno.EROFS, errno.EINVAL, errno.EPERM, errno.ENOTSUP)
_LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")


class LocalStorage(Storage):
    """Files below a folder of this host.

    A symbolic link below the root is followed as long as it stays inside, by every operation alike: writing or
    deleting means the file that it leads to, and the link stays. One that leads out is a ``ConfigurationError``.

    The identities that `entry`, `entries` and the writing methods give are what the kernel says at that moment, for
    comparison only; the one that `open` gives is vouched for, or empty.

    Attributes:
        url: The real path of the folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Name the folder; it need not be there yet.

        Args:
            root: The folder; may itself be reached through symbolic links.

        Raises:
            ConfigurationError: There is something else than a folder.
        """
        self._root = Path(os.path.realpath(root))
        self.url = str(self._root)
        if self._root.exists() and not self._root.is_dir():
            raise ConfigurationError(f"{self.url}: expected a folder, found a file. Name the folder that holds it")

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r})"

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys."""
        folder = self._path(prefix) if prefix else self._root
        return self._walk(folder, f"{prefix}/" if prefix else "", (folder,))

    def entry(self, key: str) -> Entry:
        """Describe one object; the identity is for comparison, since no time is waited for."""
        return _entry(key, self._regular(self._path(key), key))

    def open(self, key: str) -> Reader:
        """Open one version of an object; waits up to some ticks if it was changed just now."""
        path = self._path(key)
        self._regular(path, key)
        descriptor = os.open(path, _READ)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._irregular(path, key)
            with _tolerate(*_UNSYNCABLE):
                os.fdatasync(descriptor)
            status, trusted = _settle(descriptor)
            return _LocalReader(descriptor, path, self._url(key), status, _entry(key, status, trusted=trusted))
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, key: str, blocks: Iterable[bytes], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by renaming a finished and flushed temporary file.

        Without ``attributes``, a file that is replaced hands on its permission bits and owner.
        """
        path = self._path(key)
        return self._replace(key, path, blocks, attributes, self._regular(path, key, missing=True))

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, by linking a finished and flushed temporary file.

        On a file system without hard links, an empty object is seen for a moment, and stays if the process dies then.
        """
        path = self._path(key)
        with _Draft(path, secret=False) as draft:
            draft.fill((data,))
            draft.flush()
            try:
                os.link(draft.path, path, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _LINKLESS:
                    raise
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                try:
                    draft.publish()
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
            else:
                draft.path.unlink()  # before the entry is made: it moves the time
            _sync_folder(path.parent)
            return _entry(key, os.fstat(draft.descriptor))

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named; excludes other processes of this host."""
        path = self._path(key)
        found = "nothing"
        # A lock file and not the folder itself: NFS locks only what is open for writing.
        token = hashlib.sha256(path.name.encode()).hexdigest()[:16]
        if self._regular(path, key, missing=True) is not None:
            with _passing_lock(path.with_name(f".novabackup-{token}.lock")):
                status = self._regular(path, key, missing=True)
                found = _identity(status) if status else found
                if status and identity == found:
                    # Each version lives longer than a tick. Otherwise a file number used again within one would make
                    # a later version look like an earlier one.
                    _wait_until_older(status, _TICK_NS)
                    return self._replace(key, path, (data,), None, status)
        raise ChangedError(
            f"{self._url(key)}: expected the version {identity!r}, found {found!r}. Somebody else replaced it meanwhile"
        )

    def delete(self, key: str) -> None:
        """Remove an object, durably; one that is not there is no error."""
        path = self._path(key)
        if self._regular(path, key, missing=True) is not None:
            path.unlink(missing_ok=True)
        self._sync_nearest(path.parent)

    def move(self, key: str, to: str) -> None:
        """Give an object another key; what was at that key before is replaced."""
        source, target = self._path(key), self._path(to)
        self._regular(source, key)
        self._regular(target, to, missing=True)
        _make_folder(target.parent)
        source.replace(target)
        for folder in {source.parent, target.parent}:
            _sync_folder(folder)

    def sync(self, keys: Iterable[str]) -> None:
        """Flush files and the folders that they are in, up to the root."""
        folders: set[Path] = set()
        for key in keys:
            path = self._path(key)
            if self._regular(path, key, missing=True) is not None:
                with contextlib.suppress(FileNotFoundError):
                    _sync_path(path, _READ)
            folders.update(parent for parent in path.parents if parent.is_relative_to(self._root))
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                _sync_folder(folder)

    def hold(self, key: str) -> AbstractContextManager[None]:
        """Take a lock on a file, which is created if need be and stays; the kernel releases it with this process."""
        path = self._path(key)
        self._regular(path, key, missing=True)
        _make_folder(path.parent)
        lock = _Lock(path)
        try:
            fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.release()
            raise BlockingIOError(error.errno, "expected a free lock, found that somebody holds it", str(path)) from None
        except BaseException:
            lock.release()
            raise
        return lock

    def sweep(self, older_than: float) -> int:
        """Remove temporary files of interrupted writes, and lock files that nobody holds."""
        if not self._root.is_dir():
            return 0
        with _Draft(self._root / "clock", secret=True) as draft:
            # The times of files are the server's where the folder is mounted from one, so its clock has to tell.
            now = os.fstat(draft.descriptor).st_mtime
            return sum(
                _remove_remains(path, now - older_than) for path in _remains(self._root) if path != draft.path
            )

    def probe(self) -> Guarantees:
        """Say what the kernel promises: links and renames are exclusive, and locks exclude."""
        return Guarantees(exclusive_create=True, compare_and_swap=True)

    def _url(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _path(self, key: str) -> Path:
        """Find where a key leads to, through links that stay inside."""
        reason = unsafe(key)
        if not reason:
            try:
                key.encode()
            except UnicodeEncodeError:
                reason = "it is not valid Unicode"
            if any(_OURS.fullmatch(part) for part in key.split("/")):
                reason = "names of this form are for temporary files"
        if reason:
            raise ConfigurationError(f"{self.url}: the key {key!r} cannot be used: {reason}")
        path = Path(os.path.realpath(self._root / key))
        if path == self._root or not path.is_relative_to(self._root):
            link = self._root
            for part in key.split("/"):
                link /= part
                if link.is_symlink():
                    break
            raise ConfigurationError(
                f"{self._url(key)}: expected a file inside of {self.url}, found that the link {link} leads to {path}. "
                "Replace the link by what it stands for, or open the folder that it leads to"
            )
        return path

    def _regular(self, path: Path, key: str, *, missing: bool = False) -> os.stat_result | None:
        """Look at a file; anything but a regular one is refused before it is opened, as opening can block or act.

        With ``missing``, None is given for a file that is not there.
        """
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if missing and isinstance(error, FileNotFoundError):
                return None
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._url(key)) from None
        if not stat.S_ISREG(status.st_mode):
            raise self._irregular(path, key)
        return status
