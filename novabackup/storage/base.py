"""The interface of a storage: bytes under keys, written atomically and durably, read one version at a time."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import attrs

from novabackup._support.paths import unportable
from novabackup.errors import ChangedError, ConfigurationError, IntegrityError, printable
from novabackup.format.records import Attributes
from novabackup.storage._proof import Proof
from novabackup.storage.items import Entry, Folder, Frozen, Item, Link, Lock, Other

__all__ = [
    "Block",
    "Entry",
    "Folder",
    "Frozen",
    "Guarantees",
    "Item",
    "Link",
    "Lock",
    "Other",
    "Part",
    "Proof",
    "Reader",
    "Source",
    "Span",
    "Storage",
]

SMALL_OBJECT = 64 << 20
"""No record is larger than this; `Storage.read` refuses more, so that a forged size takes no memory."""

_USUAL_RECORD = 64 << 10


@attrs.frozen(kw_only=True)
class Guarantees:
    """What a storage was seen to do, by trying it.

    Attributes:
        exclusive_create: Of several writers that `create` one key, one wins and the others get an error.
        compare_and_swap: `swap` replaces only the version that was named.
    """

    exclusive_create: bool
    compare_and_swap: bool


@attrs.frozen
class Part:
    """A range of an object.

    Attributes:
        data: Its bytes.
        size: Bytes of the whole object.
    """

    data: bytes
    size: int


class Source(abc.ABC):
    """One version of an object whose bytes its storage can copy without handing them out; a context manager."""

    @abc.abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Read a range, exactly ``length`` bytes."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the object; may be called again."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@attrs.frozen
class Span:
    """Bytes of a source, as a block for `Storage.write`."""

    source: Source
    start: int
    length: int

    def __len__(self) -> int:
        return self.length


Block = bytes | memoryview | Span
"""A piece of content that is to be written."""


class Reader(abc.ABC):
    """One version of one object, open for reading; a context manager.

    Attributes:
        entry: What was opened. Every byte read belongs to this version.
    """

    entry: Entry

    @abc.abstractmethod
    def read(self, start: int, length: int) -> bytes:
        """Read a range.

        Args:
            start: Offset in bytes.
            length: Bytes wanted; must lie within ``entry.size``.

        Returns:
            Exactly ``length`` bytes.

        Raises:
            ChangedError: The object is no longer the version that was opened.
        """

    def readinto(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with as many bytes from an offset on; otherwise as `read`."""
        buffer[:] = self.read(start, len(buffer))

    @abc.abstractmethod
    def confirm(self) -> None:
        """Check that all that was read came from one unchanged version.

        Raises:
            ChangedError: The object was changed or replaced since it was opened.
        """

    def proof(self) -> Proof:
        """Return the proof for a caller that reads the whole content in pieces."""
        return Proof()

    @abc.abstractmethod
    def file(self) -> BinaryIO:
        """Return the content as a real file with a descriptor, for a child process to read.

        The file is at offset 0, read-only, and closed together with the reader. A storage that is not a local file
        system copies the content to an anonymous temporary file first.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the object; may be called again."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Storage(abc.ABC):
    """Bytes under keys. Each write is atomic, and durable when the call returns.

    Keys are relative paths in POSIX form that never leave the root; a key that could is a ``ConfigurationError``.
    Missing objects are ``FileNotFoundError``; other errors of the operating system or the backend pass through as
    ``OSError`` with the URL of the object in them.

    Attributes:
        url: Where the storage is, without credentials.
        block: Bytes that are best read at once.
        parallel: How many reads or writes are best under way at once.
        kinds: What can be under its keys; `Entry` everywhere, `Link` and `Folder` where there are such.
        reads_back: Whether what is written can be read at once.
    """

    url: str
    block: int = 2 << 20
    parallel: int = 1
    kinds: frozenset[type[Item]] = frozenset({Entry})
    reads_back: bool = True

    @property
    def requests(self) -> int:
        """How many requests have been sent to a server so far; 0 where there is none."""
        return 0

    @abc.abstractmethod
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys.

        Args:
            prefix: A folder such as ``packs``; empty for all. A folder that is not there has no entries.
        """

    @abc.abstractmethod
    def entry(self, key: str) -> Entry:
        """Describe one object without reading it.

        Raises:
            FileNotFoundError: There is none.
        """

    @abc.abstractmethod
    def open(self, key: str) -> Reader:
        """Open one version of an object.

        Raises:
            FileNotFoundError: There is none.
        """

    @abc.abstractmethod
    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object: afterwards the object has all of the new content, before it all of the old.

        If ``blocks`` raises, nothing is changed.

        Args:
            key: Where.
            blocks: The content, in order; spans only of sources that this storage gave.
            attributes: Permission bits, owner (where permitted) and time to set, where the storage has such.

        Returns:
            The object as it is now.
        """

    def add(self, key: str, blocks: Iterable[Block]) -> Entry:
        """Write an object that will never change, under a key that nothing else has.

        Args:
            key: Where.
            blocks: As for `write`.

        Raises:
            FileExistsError: There is something else, and the storage can tell without a further look.
        """
        return self.write(key, blocks)

    @abc.abstractmethod
    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, in whole or not at all.

        Raises:
            FileExistsError: There is one already, and it is not this very call's own work. A storage that cannot
                exclude others says so in `probe`, and does here what it can.
        """

    @abc.abstractmethod
    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named.

        Raises:
            ChangedError: It is another version by now, or gone.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object, durably; one that is not there is no error."""

    @abc.abstractmethod
    def move(self, key: str, to: str) -> None:
        """Give an object another key; what was at that key before is replaced.

        Where the storage knows other things than objects, such as folders and links, whatever stands under the key is
        moved as it is: this is how something that is in the way is set aside.
        """

    @abc.abstractmethod
    def sync(self, keys: Iterable[str]) -> None:
        """Make durable what others wrote under these keys, and that other keys are gone; a missing key is no error."""

    @abc.abstractmethod
    def hold(self, key: str) -> AbstractContextManager[None] | None:
        """Take a lock that the system itself releases when this process dies.

        Returns:
            The lock, taken already, to be released on exit; None for storages without such locks.

        Raises:
            BlockingIOError: Another process holds it.
        """

    @abc.abstractmethod
    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Remove what interrupted writes left behind and no caller can see: temporary files, unfinished uploads.

        Args:
            older_than: Seconds, by the storage's clock; the remains of writes that may still be running stay.
            keys: Look only beside these objects; by default everywhere.

        Returns:
            How many were removed.
        """

    @abc.abstractmethod
    def probe(self) -> Guarantees:
        """Find out by trying, once per storage object, what the backend really does; leaves nothing behind."""

    def read(self, key: str) -> bytes:
        """Read a small object in whole.

        Raises:
            FileNotFoundError: There is none.
            IntegrityError: It is larger than any record can be.
        """
        part = self.read_part(key, 0, _USUAL_RECORD)
        if part.size > SMALL_OBJECT:
            raise IntegrityError(
                f"{self.url}/{key}: expected a record of at most {SMALL_OBJECT} bytes, found {part.size}"
            )
        if part.size > len(part.data):
            part = self.read_part(key, 0, part.size)
        if part.size != len(part.data):
            raise ChangedError(f"{self.url}/{key}: another process replaced it while it was read")
        return part.data

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes, so that no version has to be pinned.

        Args:
            key: Which object.
            start: Offset in bytes; a negative one counts from the end. What lies before the object is left out.
            length: Bytes wanted; what lies behind the end is left out.

        Raises:
            FileNotFoundError: There is none.
        """
        with self.open(key) as reader:
            return Part(reader.read(*clipped(start, length, reader.entry.size)), reader.entry.size)

    def exists(self, key: str) -> bool:
        """Return whether there is an object under the key."""
        try:
            self.entry(key)
        except FileNotFoundError:
            return False
        return True

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which of these objects exist, with as few requests as possible."""
        return {key for key in keys if self.exists(key)}

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys of objects below a folder, freshly, in order; cheaper than `entries` where that looks at each.

        Args:
            prefix: As for `entries`.
        """
        return (entry.key for entry in self.entries(prefix))

    def classed(self, storage_class: str) -> Storage:
        """Return a storage for the same place that writes into a storage class.

        Raises:
            ConfigurationError: There are no storage classes here.
        """
        raise ConfigurationError(
            f"{self.url}: expected a place that has storage classes (s3://…) for storage_class={storage_class!r}. "
            "Leave it out"
        )

    def frozen(self, keys: Collection[str]) -> list[Frozen]:
        """Return which of these objects cannot be read before they have been thawed; a missing key is no error."""
        return []

    def thaw(self, frozen: Frozen, days: int, tier: str) -> None:
        """Ask for an object to become readable, which may take hours.

        Args:
            frozen: What `frozen` returned for it.
            days: For how long.
            tier: How fast, as the storage names it.
        """
        raise ConfigurationError(f"{self.url}: nothing is ever frozen there")

    def locks(self, keys: Collection[str]) -> list[Lock]:
        """Return which of these objects may not be deleted yet; a missing key is no error."""
        return []

    def protect(self, keys: Iterable[str]) -> None:  # noqa: B027 - most have nothing to do
        """Lock objects for as long as new ones are, where new ones are locked by themselves.

        Args:
            keys: Which objects; not looked at where nothing is ever locked.
        """

    def source(self, key: str, identity: str) -> Source | None:
        """Offer an object as a source of blocks for `write`.

        Args:
            key: Which object.
            identity: The version that is meant.

        Returns:
            The source, to be closed; None if there is no such version, or where copying is no cheaper than writing.
        """
        return None

    def refuses(self, key: str) -> str | None:
        """Return why nothing can be under a key here; None for a key that can be used."""
        return unportable(key)

    def local_path(self, key: str) -> Path | None:
        """Return where on this host an object is, for programs that can only open files; None where it is elsewhere."""
        return None

    # -- links and folders, where a storage has such; others know objects alone ------------------------------------

    def look(self, key: str) -> Item | None:
        """Describe what stands under a key itself: a link is not followed. None if there is nothing."""
        try:
            return self.entry(key)
        except FileNotFoundError:
            return None

    def walk(self, prefix: str, enter: Callable[[str], bool]) -> Iterator[Item]:
        """List all that is below a folder, freshly, in the order of keys; a folder comes before what is in it.

        Links are listed and not followed; on the way to the folder they are, as by every other method.

        Args:
            prefix: The folder; empty for all. One that is not there has nothing in it.
            enter: Whether to look into a folder, by its key.
        """
        return self.entries(prefix)

    def make_link(self, key: str, target: str, attributes: Attributes | None = None) -> None:
        """Create a link, or replace one, at once and durably; nothing of it is followed.

        Args:
            key: Where.
            target: What it says.
            attributes: Owner (where permitted) and time to set.

        Raises:
            FileExistsError: Something other than a link exists there.
            ConfigurationError: Links cannot be kept here.
        """
        raise ConfigurationError(f"{self.url}: expected objects only, found the link {printable(key)}")

    def make_folder(self, key: str, attributes: Attributes | None = None) -> None:
        """Create a folder and those that it is in; an existing one only gets what is asked for.

        Args:
            key: Where.
            attributes: Permission bits, owner (where permitted) and time to set. Without, its owner gets the right to
                change what is in it.

        Raises:
            OSError: Something other than a folder exists there.
            ConfigurationError: Folders cannot be kept here.
        """
        raise ConfigurationError(f"{self.url}: expected objects only, found the folder {printable(key)}")

    def remove(self, key: str) -> bool:
        """Remove a link itself or an empty folder, durably; nothing else.

        Returns:
            Whether there is nothing under the key now.
        """
        return self.look(key) is None


def clipped(start: int, length: int, size: int) -> tuple[int, int]:
    """Return which offset and how many bytes of an object `Storage.read_part` means."""
    begin = max(0, size + start) if start < 0 else min(start, size)
    return begin, min(length, size - begin)
