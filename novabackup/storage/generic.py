"""Whole objects in any fsspec file system: for ``memory://``, and for backends that have no module of their own."""

from __future__ import annotations

import abc
import contextlib
import errno
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, BinaryIO, cast

from blake3 import blake3
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from novabackup._support.paths import unportable
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Guarantees, Part, Reader, Span, Storage, clipped

_LOG = logging.getLogger("novabackup")

SPOOLED = 64 << 20
"""Up to this size, content waits in memory until it is complete; above, in a temporary file."""
_BLOCK = 8 << 20
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "md5", "content_md5", "checksum", "version_id")
"""Fields by which file systems tell versions apart. Times are not among them: two changes may share one."""
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_NUMBERS: dict[type[OSError], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
    TimeoutError: errno.ETIMEDOUT,
}

# memory:// is one store for all of the process; so is what keeps its writers apart.
_memory_lock = threading.Lock()


@contextlib.contextmanager
def naming(url: str) -> Iterator[None]:
    """Put the URL of the object into errors of the backend, most of which have none."""
    try:
        yield
    except OSError as error:
        raise named(error, url) from error


def named(error: OSError, url: str) -> OSError:
    """Return an error of the backend as the OSError that its number stands for, with the URL of the object in it."""
    number = error.errno or next((found for kind, found in _NUMBERS.items() if isinstance(error, kind)), errno.EIO)
    text = error.strerror or (os.strerror(number) if number == errno.ENOENT else str(error))
    return OSError(number, text, url)


def spool(blocks: Iterable[Block]) -> tuple[BinaryIO, int]:
    """Collect content before any of it is sent: an exception in the middle must not publish the first half.

    Returns:
        A file at offset 0 for the caller to close, and its size.
    """
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(SPOOLED))  # noqa: SIM115
    try:
        for block in blocks:
            file.write(block.source.read(block.start, block.length) if isinstance(block, Span) else block)
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file, size


class ObjectReader(Reader):
    """A reader for storages that are not local files."""

    def __init__(self, storage: KeyedStorage, entry: Entry) -> None:
        self.entry = entry
        self._storage = storage
        self._files: list[BinaryIO] = []

    def read(self, start: int, length: int) -> bytes:
        """Read a range."""
        key, size = self.entry.key, self.entry.size
        if start < 0 or length < 0 or start + length > size:
            raise ValueError(f"{self._storage.locate(key)}: bytes {start} to {start + length} of {size} were asked for")
        if not length:
            return b""
        data = self._fetch(start, length)
        if len(data) != length:
            raise ChangedError(
                f"{self._storage.locate(key)}: expected {length} bytes at {start}, found {len(data)}. "
                "Another process replaced it while it was read"
            )
        return data

    def _fetch(self, start: int, length: int) -> bytes:
        """Read a range of this very version, or raise."""
        try:
            data = self._storage.fetch(self.entry, start, length)
        except FileNotFoundError:
            raise ChangedError(
                f"{self._storage.locate(self.entry.key)}: another process removed it while it was read"
            ) from None
        self.confirm()
        return data

    def confirm(self) -> None:
        """Compare with what the storage says of the object now."""
        key = self.entry.key
        try:
            found = self._storage.entry(key)
        except FileNotFoundError:
            raise ChangedError(f"{self._storage.locate(key)}: another process removed it while it was read") from None
        if found != self.entry:
            raise ChangedError(
                f"{self._storage.locate(key)}: expected the version that was opened ({self.entry.size} bytes, "
                f"{self.entry.identity!r}), found {found.size} bytes, {found.identity!r}. "
                "Another process replaced it while it was read"
            )

    def file(self) -> BinaryIO:
        """Copy the content to an anonymous temporary file."""
        try:
            return self._copied()
        except ChangedError as error:
            _LOG.info("%s", error)
            return self._copied()  # it may have been altered on the way only

    def _copied(self) -> BinaryIO:
        file = cast(BinaryIO, tempfile.NamedTemporaryFile())  # noqa: SIM115 - closed by close()
        self._files.append(file)
        for start in range(0, self.entry.size, _BLOCK):
            file.write(self.read(start, min(_BLOCK, self.entry.size - start)))
        file.seek(0)  # also flushes, for processes that read from the descriptor
        return file

    def close(self) -> None:
        """Close the files that `file` gave."""
        for file in self._files:
            file.close()


class KeyedStorage(Storage):
    """What storages of whole objects have in common: the names of objects."""

    def __init__(self, url: str) -> None:
        """Keep the URL.

        Args:
            url: Where the storage is, without credentials.
        """
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self._guarantees: Guarantees | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def locate(self, key: str) -> str:
        """Return the URL of an object, for messages."""
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{key}"

    @abc.abstractmethod
    def fetch(self, entry: Entry, start: int, length: int) -> bytes:
        """Read a range of an object, if it is still the version named and the backend can tell."""

    def checked(self, key: str) -> str:
        """Return the key if it is safe to use.

        Raises:
            ConfigurationError: It is not.
        """
        reason = unportable(key)
        if reason:
            raise ConfigurationError(f"{self.url}: the key {key!r} cannot be used: {reason}")
        return key

    def sync(self, keys: Iterable[str]) -> None:
        """Do nothing: an object is durable once it exists."""
        for key in keys:
            self.checked(key)

    def hold(self, key: str) -> AbstractContextManager[None] | None:
        """Return None: there are no such locks."""
        self.checked(key)
        return None

    def probe(self) -> Guarantees:
        """Try on an object of its own; done once, and remembered."""
        if self._guarantees is None:
            key = f".novabackup/probe-{secrets.token_hex(8)}"
            try:
                self._guarantees = self._try(key)
            finally:
                self.delete(key)
        return self._guarantees

    @abc.abstractmethod
    def _try(self, key: str) -> Guarantees:
        """Create an object twice and swap it with a wrong and a right identity, to see what the backend does."""

    def _changed(self, key: str, identity: str, found: str) -> ChangedError:
        return ChangedError(
            f"{self.locate(key)}: expected the version {identity!r}, found {found!r}. "
            "Another process replaced it meanwhile"
        )


class ObjectStorage(KeyedStorage):
    """Whole objects in any fsspec file system whose uploads are atomic.

    Of what such backends promise only the least is used: `swap` compares and then writes, and `probe` says so.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, url: str) -> None:
        """Use a folder of a file system.

        Args:
            fs: The file system; must not cache listings.
            root: Path of the folder in it.
            url: Where that is, without credentials.
        """
        super().__init__(url)
        self._fs = fs
        self._root = root.rstrip("/")

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys."""
        folder = self._path(prefix) if prefix else self._root
        with naming(self.url):
            try:
                self._fs.invalidate_cache()
                found: Mapping[str, Mapping[str, Any]] = self._fs.find(folder, detail=True)
            except FileNotFoundError:
                found = {}
        start = len(self._root) + 1
        return (
            entry
            for path, info in sorted(found.items())
            if info["type"] == "file" and path.startswith(f"{folder}/")
            for entry in self._listed(path[start:], info)
        )

    def entry(self, key: str) -> Entry:
        """Describe one object without reading it."""
        path = self._path(key)
        with naming(self.locate(key)):
            info = self._fs.info(path)
            if info["type"] != "file":
                raise FileNotFoundError(errno.ENOENT, "there is a folder, not an object")
            return self._entry(key, info)

    def open(self, key: str) -> Reader:
        """Open one version of an object."""
        return ObjectReader(self, self.entry(key))

    def fetch(self, entry: Entry, start: int, length: int) -> bytes:
        """Read a range."""
        with naming(self.locate(entry.key)):
            return bytes(self._fs.cat_file(self._path(entry.key), start=start, end=start + length))

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes."""
        path = self._path(key)
        with naming(self.locate(key)):
            size = self._fs.info(path)["size"]
            begin, count = clipped(start, length, size)
            return Part(bytes(self._fs.cat_file(path, start=begin, end=begin + count)) if count else b"", size)

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by one upload of the finished content; attributes are not kept."""
        path = self._path(key)
        file, _ = spool(blocks)
        with file, self._alone(), naming(self.locate(key)):
            self._put(path, file)
            return self._entry(key, self._fs.info(path))

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet."""
        path = self._path(key)
        with self._alone(), naming(self.locate(key)):
            if self._fs.exists(path):
                raise FileExistsError(errno.EEXIST, "there is one already")
            self._fs.pipe_file(path, data, mode="create")
            return self._entry(key, self._fs.info(path))

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named: compares first, which excludes no other writer."""
        path = self._path(key)
        with self._alone():
            try:
                found = self.entry(key).identity
            except FileNotFoundError:
                found = "nothing"
            if not identity or found != identity:
                raise self._changed(key, identity, found)
            with naming(self.locate(key)):
                self._fs.pipe_file(path, data)
                return self._entry(key, self._fs.info(path))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        path = self._path(key)
        # rm_file and not rm, which takes the name for a pattern
        with self._alone(), naming(self.locate(key)), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def move(self, key: str, to: str) -> None:
        """Copy an object, look at the copy, and remove the original."""
        source, target = self._path(key), self._path(to)
        size = self.entry(key).size
        if source == target:
            return
        with self._alone(), naming(self.locate(key)):
            self._fs.cp_file(source, target)
            if (copied := self._fs.info(target)["size"]) != size:
                raise OSError(errno.EIO, f"expected {size} bytes in the copy {self.locate(to)}, found {copied}")
            self._fs.rm_file(source)

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Find nothing: unfinished uploads of such backends cannot be listed."""
        self.sync(keys or ())
        return 0

    def _try(self, key: str) -> Guarantees:
        path = self._path(key)
        self._fs.pipe_file(path, b"first", mode="create")
        try:
            self._fs.pipe_file(path, b"second", mode="create")
        except OSError:
            return Guarantees(exclusive_create=self._fs.cat_file(path) == b"first", compare_and_swap=False)
        return Guarantees(exclusive_create=False, compare_and_swap=False)

    def _put(self, path: str, file: BinaryIO) -> None:
        # Small content goes by the call that file systems make atomic. Larger content has to be a named file.
        data = file.read(SPOOLED + 1)
        if len(data) <= SPOOLED:
            self._fs.pipe_file(path, data)
            return
        with tempfile.NamedTemporaryFile() as named:
            named.write(data)
            del data
            while block := file.read(_BLOCK):
                named.write(block)
            named.flush()
            self._fs.put_file(named.name, path)

    def _path(self, key: str) -> str:
        return f"{self._root}/{self.checked(key)}"

    def _alone(self) -> AbstractContextManager[Any]:
        """Keep other writers out, where there is a way."""
        return contextlib.nullcontext()

    def _listed(self, key: str, info: Mapping[str, Any]) -> Iterator[Entry]:
        yield self._entry(key, info)

    def _entry(self, key: str, info: Mapping[str, Any]) -> Entry:
        return Entry(key=key, size=info["size"], identity=self._identity(info), modified=_modified(info))

    def _identity(self, info: Mapping[str, Any]) -> str:
        for field in _VERSIONS:
            if value := info.get(field):
                return f"{value}-{info['size']}"
        return ""


class MemoryStorage(ObjectStorage):
    """Objects in this process, for tests: ``memory://``, or a `MemoryFileSystem` of one's own.

    Objects are distinguished by a hash of their content: the times that the file system keeps may repeat.
    """

    def open(self, key: str) -> Reader:
        """Open one version of an object, by taking a copy of it."""
        path = self._path(key)
        with naming(self.locate(key)):
            return _MemoryReader(self, self.entry(key), self._fs.cat_file(path))

    def _try(self, key: str) -> Guarantees:
        first = self.create(key, b"first")
        try:
            self.create(key, b"second")
        except FileExistsError:
            exclusive = True
        else:
            exclusive = False
        second = self.swap(key, b"second", first.identity)
        try:
            self.swap(key, b"third", first.identity)
        except ChangedError:
            return Guarantees(exclusive_create=exclusive, compare_and_swap=self.entry(key) == second)
        return Guarantees(exclusive_create=exclusive, compare_and_swap=False)

    def _alone(self) -> AbstractContextManager[Any]:
        return _memory_lock

    def _listed(self, key: str, info: Mapping[str, Any]) -> Iterator[Entry]:
        with contextlib.suppress(FileNotFoundError):  # it went away since it was listed
            yield self._entry(key, info)

    def _entry(self, key: str, info: Mapping[str, Any]) -> Entry:
        # Size, hash and time of one and the same object, which others may replace in between.
        try:
            found = cast(MemoryFileSystem, self._fs).store[info["name"]]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.locate(key)) from None
        data = found.getvalue()
        return Entry(key=key, size=len(data), identity=blake3(data).hexdigest(), modified=found.modified.timestamp())


class _MemoryReader(ObjectReader):
    """A reader of a copy."""

    def __init__(self, storage: MemoryStorage, entry: Entry, data: bytes) -> None:
        super().__init__(storage, entry)
        self._data = data
        if blake3(data).hexdigest() != entry.identity:
            raise ChangedError(f"{storage.locate(entry.key)}: another process replaced it while it was opened")

    def _fetch(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]


def _modified(info: Mapping[str, Any]) -> float:
    """Read the time of the last change, under whatever name and in whatever form it comes."""
    value = next((info[field] for field in _TIMES if info.get(field) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)
