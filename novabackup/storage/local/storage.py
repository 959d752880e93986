"""Files below a folder of this host: replaced by rename, flushed to the disk, one version read at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from novabackup._support.paths import unsafe
from novabackup.errors import ChangedError, ConfigurationError, printable
from novabackup.format.records import Attributes
from novabackup.storage.base import (
    Block,
    Entry,
    Folder,
    Guarantees,
    Item,
    Link,
    Part,
    Reader,
    Source,
    Storage,
    clipped,
)
from novabackup.storage.local.posix import (
    OURS,
    READ,
    TICK_NS,
    UNSYNCABLE,
    FileLock,
    LocalSource,
    TemporaryFile,
    identity_of,
    make_folder,
    passing_lock,
    pread,
    remains,
    remains_in,
    remove_remains,
    settle,
    sync_folder,
    sync_path,
    tolerate,
    wait_until_older,
)
from novabackup.storage.local.reader import LocalReader
from novabackup.storage.local.trees import describe, entry_of, kind_of, put_folder, put_link, take_away, walk

_LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


class LocalStorage(Storage):
    """Files below a folder of this host.

    A symbolic link below the root is followed as long as it stays inside, by every operation on objects alike: writing
    or deleting means the file that it leads to, and the link stays. One that leads out is a ``ConfigurationError``.
    `look`, `walk`, `move` and the methods for links and folders take what stands under a key as it is.

    The identities that `entry`, `entries` and the writing methods give are what the kernel says at that moment, for
    comparison only; the one that `open` gives is vouched for, or empty.

    Attributes:
        url: The real path of the folder.
    """

    kinds = frozenset({Entry, Link, Folder})

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
        return entry_of(key, self._regular(self._path(key), key))

    def open(self, key: str) -> Reader:
        """Open one version of an object; waits up to some ticks if it was changed just now."""
        path = self._path(key)
        self._regular(path, key)
        descriptor = os.open(path, READ)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(
                    errno.ENOENT, "another process replaced it by something else meanwhile", self._url(key)
                )
            with tolerate(*UNSYNCABLE):
                os.fdatasync(descriptor)
            status, trusted = settle(descriptor)
            return LocalReader(descriptor, path, self._url(key), status, entry_of(key, status, trusted=trusted))
        except BaseException:
            os.close(descriptor)
            raise

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes."""
        with self._opened(key) as (descriptor, size):
            return Part(pread(descriptor, *clipped(start, length, size), self._url(key)), size)

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """Open a regular file; give its descriptor and its size."""
        path = self._path(key)
        self._regular(path, key)
        descriptor = os.open(path, READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(
                    errno.ENOENT, "another process replaced it by something else meanwhile", self._url(key)
                )
            yield descriptor, status.st_size
        finally:
            os.close(descriptor)

    def source(self, key: str, identity: str) -> Source | None:
        """Offer a file whose bytes the kernel copies, or shares where the file system can."""
        try:
            path = self._path(key)
            self._regular(path, key)
            descriptor = os.open(path, READ)
        except (OSError, ConfigurationError):
            return None
        if identity_of(os.fstat(descriptor)) != identity:
            os.close(descriptor)
            return None
        return LocalSource(descriptor, self._url(key))

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by renaming a finished and flushed temporary file.

        Without ``attributes``, a file that is replaced hands on its permission bits and owner.
        """
        path = self._path(key)
        return self._replace(key, path, blocks, attributes, self._look(path, key))

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, by linking a finished and flushed temporary file.

        On a file system without hard links, an empty object is seen for a moment, and stays if the process dies then.
        """
        path = self._path(key)
        with TemporaryFile(path, secret=False) as draft:
            draft.fill((data,))
            draft.flush()
            try:
                os.link(draft.path, path, follow_symlinks=False)
            except FileExistsError as error:
                raise FileExistsError(error.errno, error.strerror, self._url(key)) from None
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
            sync_folder(path.parent)
            return entry_of(key, os.fstat(draft.descriptor))

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named; excludes other processes of this host."""
        path = self._path(key)
        found = "nothing"
        # A lock file and not the folder itself: NFS locks only what is open for writing.
        token = hashlib.sha256(path.name.encode()).hexdigest()[:16]
        if self._look(path, key) is not None:
            with passing_lock(path.with_name(f".novabackup-{token}.lock")):
                status = self._look(path, key)
                found = identity_of(status) if status else found
                if status and identity == found:
                    # Each version lives longer than a tick. Otherwise a file number used again within one would make
                    # a later version look like an earlier one.
                    wait_until_older(status, TICK_NS)
                    return self._replace(key, path, (data,), None, status)
        raise ChangedError(
            f"{self._url(key)}: expected the version {identity!r}, found {found!r}. "
            "Another process replaced it meanwhile"
        )

    def delete(self, key: str) -> None:
        """Remove an object, durably; one that is not there is no error."""
        path = self._path(key)
        if self._look(path, key) is not None:
            path.unlink(missing_ok=True)
        self._sync_nearest(path.parent)

    def move(self, key: str, to: str) -> None:
        """Rename whatever stands under a key, also a link or a folder; what was at the other key before is replaced."""
        source = self._own(key)
        target = self._path(to)
        self._look(target, to)
        make_folder(target.parent)
        source.replace(target)
        for folder in {source.parent, target.parent}:
            sync_folder(folder)

    def sync(self, keys: Iterable[str]) -> None:
        """Flush files and the folders that they are in, up to the root."""
        folders: set[Path] = set()
        for key in keys:
            path = self._own(key)
            item = describe(path, key)
            if isinstance(item, Link) and self._stays_inside(key):
                path = self._path(key)
                item = describe(path, key)
            if isinstance(item, Folder):
                folders.add(path)
            elif isinstance(item, Entry):
                with contextlib.suppress(FileNotFoundError):
                    sync_path(path, READ)
            folders.update(parent for parent in path.parents if parent.is_relative_to(self._root))
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                sync_folder(folder)

    def hold(self, key: str) -> AbstractContextManager[None]:
        """Take a lock on a file, which is created if need be and stays; the kernel releases it with this process."""
        path = self._path(key)
        self._look(path, key)
        make_folder(path.parent)
        lock = FileLock(path)
        try:
            lock.take()
        except BlockingIOError as error:
            lock.release()
            raise BlockingIOError(
                error.errno, "expected a free lock, found that another process holds it", str(path)
            ) from None
        except BaseException:
            lock.release()
            raise
        return lock

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Remove temporary files of interrupted writes, and lock files that no process holds."""
        if not self._root.is_dir():
            return 0
        with TemporaryFile(self._root / "clock", secret=True) as draft:
            # The times of files are the server's where the folder is mounted from one, so its clock has to tell.
            now = os.fstat(draft.descriptor).st_mtime
            found = remains(self._root) if keys is None else remains_in(self._folders_of(keys))
            return sum(remove_remains(path, now - older_than) for path in found if path != draft.path)

    def probe(self) -> Guarantees:
        """Return what the kernel guarantees: links and renames are exclusive, and locks exclude."""
        return Guarantees(exclusive_create=True, compare_and_swap=True)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List keys, without a look at each file where a folder holds nothing else."""
        folder = self._path(prefix) if prefix else self._root
        try:
            with os.scandir(folder) as listing:
                items = [(item.name, item.is_file(follow_symlinks=False)) for item in listing]
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        if not all(is_file for _name, is_file in items):
            return super().keys(prefix)
        start = f"{prefix}/" if prefix else ""
        names = (name for name, _is_file in items if not (name.startswith(".novabackup-") and OURS.fullmatch(name)))
        return iter(sorted([start + name for name in names]))

    # -- links and folders -------------------------------------------------------------------------------------------

    def refuses(self, key: str) -> str | None:
        """Return why nothing can be under a key here."""
        reason = unsafe(key)
        if not reason and any(OURS.fullmatch(part) for part in key.split("/")):
            reason = "names of this form are for temporary files"
        return reason

    def local_path(self, key: str) -> Path:
        """Return where an object is, links that stay inside followed."""
        return self._path(key)

    def look(self, key: str) -> Item | None:
        """Describe what stands under a key itself."""
        return describe(self._own(key), key)

    def walk(self, prefix: str, enter: Callable[[str], bool]) -> Iterator[Item]:
        """List all that is below a folder; below it no link is followed."""
        folder = self._path(prefix) if prefix else self._root
        return walk(folder, f"{prefix}/" if prefix else "", enter)

    def make_link(self, key: str, target: str, attributes: Attributes | None = None) -> None:
        """Create or replace a link by renaming a finished one."""
        path = self._own(key)
        if not isinstance(describe(path, key), Link | None):
            raise FileExistsError(errno.EEXIST, "expected a link or nothing, found something else", self._url(key))
        put_link(path, target, attributes)

    def make_folder(self, key: str, attributes: Attributes | None = None) -> None:
        """Create a folder, and give it attributes."""
        path = self._own(key)
        if not isinstance(describe(path, key), Folder | None):
            raise NotADirectoryError(
                errno.ENOTDIR, "expected a folder or nothing, found something else", self._url(key)
            )
        put_folder(path, attributes)

    def remove(self, key: str) -> bool:
        """Remove a link itself or an empty folder, durably."""
        return take_away(self._own(key))

    def _own(self, key: str) -> Path:
        """Return the path of a key itself; links on the way to it are followed if they stay inside."""
        self._check(key)
        parent, _, name = key.rpartition("/")
        return (self._path(parent) if parent else self._root) / name

    def _folders_of(self, keys: Iterable[str]) -> set[Path]:
        """Return the folders that objects are in, but for those outside, where nothing was ever written."""
        folders = set()
        for key in keys:
            self._check(key)
            with contextlib.suppress(ConfigurationError):
                folders.add(self._own(key).parent)
        return folders

    def _stays_inside(self, key: str) -> bool:
        return Path(os.path.realpath(self._root / key)).is_relative_to(self._root)

    # -- paths -------------------------------------------------------------------------------------------------------

    def _url(self, key: str) -> str:
        return printable(f"{self.url}/{key}")

    def _check(self, key: str) -> None:
        reason = self.refuses(key)
        if reason:
            raise ConfigurationError(f"{self.url}: the key {key!r} cannot be used: {reason}")

    def _path(self, key: str) -> Path:
        """Find where a key leads to, through links that stay inside."""
        self._check(key)
        direct = self._direct(key)
        if direct is not None:
            return direct
        path = Path(os.path.realpath(self._root / key))
        if not path.is_relative_to(self._root):
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

    def _direct(self, key: str) -> Path | None:
        """Return the path of a key if no link is on the way from the root, as is nearly always so."""
        path = self.url
        for part in key.split("/"):
            path = f"{path}/{part}"
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    return None
            except (FileNotFoundError, NotADirectoryError):
                break
            except OSError:
                return None
        return Path(self.url, key)

    def _look(self, path: Path, key: str) -> os.stat_result | None:
        """Return the status of a file that may be missing.

        Anything but a regular file is refused before it is opened: opening a pipe blocks, opening a device can act.
        """
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(
                f"{self._url(key)}: expected a regular file, found {kind_of(status.st_mode)}. Move it out of the way"
            )
        return status

    def _regular(self, path: Path, key: str) -> os.stat_result:
        """Return the status of a file that has to exist."""
        status = self._look(path, key)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._url(key))
        return status

    def _replace(
        self,
        key: str,
        path: Path,
        blocks: Iterable[Block],
        attributes: Attributes | None,
        old: os.stat_result | None,
    ) -> Entry:
        with TemporaryFile(path, secret=bool(attributes or old)) as draft:
            draft.fill(blocks)
            if attributes:
                draft.adopt(attributes.uid, attributes.gid, attributes.mode)
                os.utime(draft.descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
            elif old:
                draft.adopt(old.st_uid, old.st_gid, stat.S_IMODE(old.st_mode))
            draft.flush()
            draft.publish()
            sync_folder(path.parent)
            return entry_of(key, os.fstat(draft.descriptor))

    def _sync_nearest(self, folder: Path) -> None:
        """Flush the folder that a missing file would be in, or the nearest existing one above it."""
        for nearest in (folder, *folder.parents):
            try:
                return sync_folder(nearest)
            except (FileNotFoundError, NotADirectoryError):
                if nearest == self._root:
                    return None
        return None

    def _walk(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[Entry]:
        """Yield the files below a folder in the order of their keys; ``above`` keeps links from leading in a circle."""
        try:
            with os.scandir(folder) as listing:
                items = [(item.name, _is_folder(item)) for item in listing]
        except (FileNotFoundError, NotADirectoryError):
            return  # there is none, or it went away meanwhile
        # A folder sorts as its keys do: with the slash that follows its name.
        for name, is_folder in sorted((f"{name}/" if is_folder else name, is_folder) for name, is_folder in items):
            path = folder / name
            if path.is_symlink():
                path = self._path(prefix + name.rstrip("/"))
            if is_folder:
                if path not in above:
                    yield from self._walk(path, prefix + name, (*above, path))
            elif not OURS.fullmatch(name):
                # What goes away between listing and looking is no entry; nor are pipes, sockets and devices.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode):
                        yield entry_of(prefix + name, status)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is no folder, nor anything else
            return False
        raise
