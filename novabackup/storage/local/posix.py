"""What POSIX calls need beside them to be safe: drafts, locks that end with their process, times that can be trusted.

What was measured, and shaped this module:

* The times of a file move in ticks (up to 10 ms; 1-2 s on some file systems), so a file that was changed *just now*
  can change again and keep its times: `settle` waits until that can no longer be.
* A write through a memory map shows in the times only when it is the first to its page since the page was flushed:
  flush, then look. File systems that live in memory (tmpfs) never show such writes: no identity is vouched for there.
* A lock by ``flock`` belongs to the open file, and so to every forked child as well: children close their copy.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
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

from novabackup.errors import ChangedError
from novabackup.storage.base import Block, Source, Span

OURS = re.compile(r"\.novabackup-[0-9a-f]{16}\.(tmp|lock|swap)")
"""Names of the files that a writer needs for a while."""
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TICK_NS = 20_000_000
"""Longer than the tick by which any usual kernel moves the times of files."""
UNSYNCABLE = (errno.EROFS, errno.EINVAL, errno.EPERM, errno.ENOTSUP)
"""What fsync answers where there is nothing to flush, or no such thing as flushing."""
UNOWNABLE = (errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What is answered where the owner may not be set, is not known in this container, or does not exist at all."""
PAGE = 4096
"""What a hole in a file consists of, on any usual file system."""

_UNCOPYABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)
"""What is answered where the kernel or a file system cannot copy ranges."""
_COPIED_AT_ONCE = 1 << 20
_ZERO_PAGE = bytes(PAGE)
_COARSE_NS = 2_500_000_000
"""Longer than the coarsest tick of any file system (FAT: 2 s)."""
_PATIENCE = 5
"""How often to wait for a file that another process keeps writing to before it is no longer vouched for."""
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")


class TemporaryFile:
    """A temporary file beside the one that it is to become; gone on exit unless it was published."""

    def __init__(self, target: Path, *, secret: bool) -> None:
        """Create it.

        Args:
            target: The file that it is to become; its folder is created if need be.
            secret: Keep it from other users until `adopt` says more. Otherwise it gets the usual permissions from the
                start, as only the kernel can apply the umask without a race.
        """
        make_folder(target.parent)
        self.target = target
        self.path = target.with_name(f".novabackup-{secrets.token_hex(8)}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.descriptor = os.open(self.path, flags, 0o600 if secret else 0o666)
        self._at = 0

    def __enter__(self) -> TemporaryFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.descriptor)

    def fill(self, blocks: Iterable[Block]) -> None:
        """Write the content; what is zero is left out, so that the file takes no space for it (a hole)."""
        sources: set[LocalSource] = set()
        for block in blocks:
            if isinstance(block, Span):
                assert isinstance(block.source, LocalSource)
                sources.add(block.source)
                self._copy(block.source, block.start, block.length)
            else:
                self._write(block)
        for source in sources:
            source.confirm()
        with self._naming():
            if os.fstat(self.descriptor).st_size < self._at:  # it ends with a hole
                os.ftruncate(self.descriptor, self._at)

    def _write(self, block: bytes | memoryview) -> None:
        view = memoryview(block).cast("B")
        for start, stop, zero in zeros(view, self._at):
            if zero:
                self._skip(stop - start)
                continue
            rest = view[start:stop]
            while rest:
                with self._naming():
                    written = os.write(self.descriptor, rest)
                self._at += written
                rest = rest[written:]

    def _skip(self, length: int) -> None:
        self._at += length
        os.lseek(self.descriptor, self._at, os.SEEK_SET)

    def _copy(self, source: LocalSource, start: int, length: int) -> None:
        at = start
        for begin, end in content_of(source.descriptor, start, start + length):
            self._skip(begin - at)
            self._copy_content(source, begin, end - begin)
            at = end
        self._skip(start + length - at)

    def _copy_content(self, source: LocalSource, start: int, length: int) -> None:
        """Let the kernel copy, which shares the blocks on file systems that can (XFS, Btrfs)."""
        while length and hasattr(os, "copy_file_range"):
            try:
                with self._naming():
                    copied = os.copy_file_range(source.descriptor, self.descriptor, length, start)
            except OSError as error:
                if error.errno not in _UNCOPYABLE:
                    raise
                break
            if not copied:
                break  # the end of the file, of which reading says more
            self._at += copied
            start += copied
            length -= copied
        while length:
            block = source.read(start, min(length, _COPIED_AT_ONCE))
            self._write(block)
            start += len(block)
            length -= len(block)

    def adopt(self, uid: int, gid: int, mode: int) -> None:
        """Set owner and permissions; where the owner cannot be had, the bits that lend his rights go."""
        adopt(self.descriptor, uid, gid, mode)

    def flush(self) -> None:
        """Make what was written durable."""
        with self._naming():
            os.fsync(self.descriptor)

    def publish(self) -> None:
        """Put the file in the place of its target."""
        self.path.replace(self.target)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Add the path to errors of calls that know only a descriptor."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.target)
            raise


class LocalSource(Source):
    """An open file whose bytes are copied."""

    def __init__(self, descriptor: int, url: str) -> None:
        self.descriptor = descriptor
        self._url = url
        self._identity = identity_of(os.fstat(descriptor))

    def read(self, start: int, length: int) -> bytes:
        """Read a range."""
        return pread(self.descriptor, start, length, self._url)

    def confirm(self) -> None:
        """Check that it is still what it was when it was opened."""
        if identity_of(os.fstat(self.descriptor)) != self._identity:
            raise ChangedError(f"{self._url}: another process changed it while it was copied")

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def adopt(descriptor: int, uid: int, gid: int, mode: int) -> None:
    """Set owner and permissions of an open file or folder; where the owner cannot be had, the bits that lend his go."""
    for owner in ((uid, gid), (-1, gid)):
        with tolerate(*UNOWNABLE):
            os.fchown(descriptor, *owner)
            break
    status = os.fstat(descriptor)
    if status.st_uid != uid:
        mode &= ~stat.S_ISUID
    if status.st_gid != gid:
        mode &= ~stat.S_ISGID
    with tolerate(*UNOWNABLE):
        os.fchmod(descriptor, mode)  # after fchown, which clears those bits


def zeros(block: memoryview, at: int) -> Iterator[tuple[int, int, bool]]:
    """Divide a block into runs of pages that are zero and of others.

    Args:
        block: Bytes.
        at: Where in the file they go, since a hole consists of whole pages of the file.

    Yields:
        Start, end, and whether all of it is zero.
    """
    start = 0
    for page in _zero_pages(block, -at % PAGE):
        if page[0] > start:
            yield start, page[0], False
        yield *page, True
        start = page[1]
    if start < len(block):
        yield start, len(block), False


def _zero_pages(block: memoryview, first: int) -> Iterator[tuple[int, int]]:
    """Find the pages that are zero; of the pages that a block begins and ends within, only its part has to be."""
    starts = bytes(block[first::PAGE])
    if first and first <= len(block) and not any(block[:first]):
        yield 0, first
    number = starts.find(0)  # one byte decides for most pages
    while number >= 0:
        start = first + number * PAGE
        end = min(start + PAGE, len(block))
        if bytes(block[start:end]) == _ZERO_PAGE[: end - start]:
            yield start, end
        number = starts.find(0, number + 1)


def content_of(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find what is no hole in a range of an open file."""
    while start < end:
        try:
            begin = os.lseek(descriptor, start, os.SEEK_DATA)
            stop = min(os.lseek(descriptor, begin, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno != errno.ENXIO:
                yield start, end  # a file system that cannot tell
            return
        if begin >= end:
            return
        yield begin, stop
        start = stop


def pread(descriptor: int, start: int, length: int, url: str) -> bytes:
    """Read exactly so many bytes."""
    blocks = []
    while length:
        block = os.pread(descriptor, length, start)
        if not block:
            raise ChangedError(
                f"{url}: expected {length} bytes more, found the end at {start}. "
                "Another process truncated it while it was read"
            )
        blocks.append(block)
        start += len(block)
        length -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


class FileLock(AbstractContextManager[None]):
    """An open file to be locked; a forked child gives its copy up at once.

    The lock belongs to the open file, which both share: a child that outlives its killed parent would keep it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        _open_locks.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def take(self, *, wait: bool = False) -> None:
        """Lock it.

        Raises:
            BlockingIOError: Another process holds it, and waiting was not asked for.
        """
        fcntl.flock(self.descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Unlock and close; may be called again."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            # Unlocked by name, as a fork that went past Python may hold a copy of the descriptor.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def abandon(self) -> None:
        """Close a child's copy without unlocking what the parent holds."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def stands(self) -> bool:
        """Return whether the path still leads to this file, which others may have removed before it was locked."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False


# The one thing here that all of a process shares, since descriptors are and a fork copies them all.
_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _abandon_locks() -> None:
    for lock in list(_open_locks):
        lock.abandon()


os.register_at_fork(after_in_child=_abandon_locks)


@contextlib.contextmanager
def passing_lock(path: Path) -> Iterator[None]:
    """Wait for a lock whose file exists only while a process holds it or waits for it."""
    while True:
        with (lock := FileLock(path)):
            lock.take(wait=True)
            if lock.stands():
                try:
                    yield
                finally:
                    path.unlink(
                        missing_ok=True
                    )  # while it is held: a process that waits for it finds it gone and starts again
                return


def remains(root: Path) -> list[Path]:
    """Find what interrupted writes left behind below a folder, without following links."""
    return [Path(folder, name) for folder, _, names in os.walk(root) for name in names if OURS.fullmatch(name)]


def remains_in(folders: Iterable[Path]) -> list[Path]:
    """Find what interrupted writes left behind in some folders, not below them."""
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir() if OURS.fullmatch(path.name)]


def remove_remains(path: Path, before: float) -> bool:
    """Remove what an interrupted write left behind, if it is old and no process holds it."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        status = os.lstat(path)
        unfinished_link = stat.S_ISLNK(status.st_mode) and path.suffix == ".tmp"
        if (stat.S_ISREG(status.st_mode) or unfinished_link) and status.st_mtime <= before:
            # A process that swaps an object right now holds its lock file; no process ever locks a temporary file.
            with (lock := FileLock(path)) if path.suffix == ".lock" else contextlib.nullcontext():
                if path.suffix == ".lock":
                    lock.take()
                path.unlink()
                return True
    return False


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, durably."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        return
    except FileNotFoundError:
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)  # not from the start again: some places refuse folders in just this way
        sync_folder(folder.parent)
    else:
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    sync_path(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_path(path: Path, flags: int) -> None:
    """Make one file or folder durable, opened with some flags."""
    descriptor = os.open(path, flags)
    try:
        with tolerate(*UNSYNCABLE):
            os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def tolerate(*numbers: int) -> Iterator[None]:
    """Go on after errors that only say that a file system does not do such a thing."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def settle(descriptor: int) -> tuple[os.stat_result, bool]:
    """Look at an open file once its times can be trusted to move with the next change.

    Returns:
        What the kernel says, and whether every later change of the content will change it.
    """
    for _ in range(_PATIENCE):
        status = os.fstat(descriptor)
        age = time.time_ns() - status.st_ctime_ns
        if age < 0 or (status.st_ctime_ns % 1_000_000 == 0 and age < _COARSE_NS):
            return status, False  # clocks that differ, or a coarse file system
        if age >= TICK_NS:
            return status, not _in_memory(status.st_dev)
        time.sleep((TICK_NS - age) / 1e9)
    return os.fstat(descriptor), False


def wait_until_older(status: os.stat_result, age: int) -> None:
    """Wait until a file was changed at least some nanoseconds ago."""
    rest = age - (time.time_ns() - status.st_ctime_ns)
    if 0 < rest <= age:
        time.sleep(rest / 1e9)


def _in_memory(device: int) -> bool:
    """Return whether a file system keeps files in memory only, and so never notices writes through memory maps."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        fields = line.split()
        if fields[2] == number:
            return fields[fields.index("-") + 1] in _IN_MEMORY
    return False


def identity_of(status: os.stat_result) -> str:
    """Return what changes whenever a file is written or replaced."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{status.st_ctime_ns}"
