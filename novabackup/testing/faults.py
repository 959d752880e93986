"""A storage that fails on purpose, at an operation that the test chooses."""

from __future__ import annotations

import contextlib
import copy
import enum
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NoReturn

from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Frozen, Guarantees, Item, Lock, Part, Proof, Reader, Source, Storage

__all__ = ["Fault", "FaultyStorage", "Moment", "Then", "die", "fail_with"]

Fault = Callable[[], None]
"""What happens at the chosen operation: it raises, or ends the process."""


class Moment(enum.Enum):
    """When a fault occurs: before the operation has any effect, or after all of it, so that only the answer is lost."""

    BEFORE = "before"
    AFTER = "after"


class Then(enum.Enum):
    """Whether the operations after the fault work again, or all fail as well."""

    WORKS = "works"
    BROKEN = "broken"


def fail_with(error: BaseException) -> Fault:
    """Return a fault that raises.

    Args:
        error: What to raise, as a new copy each time, such as ``OSError(errno.ENOSPC, "no space left")``.
    """

    def fault() -> None:
        raise copy.copy(error)

    return fault


def die() -> NoReturn:
    """End this process as ``kill -9`` does: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class FaultyStorage(Storage):
    """A storage that counts its operations and fails at a chosen one.

    Each call counts, and so does each `Reader.read`, `Reader.confirm` and `Reader.file`, and each block that `write`
    takes: so it can fail in the middle of a file. To try every point, run once with ``at=0``, which never fails, and
    then for each number up to `operations`.

    Attributes:
        operations: How many operations have begun.
        log: Their names and keys, in order, such as ``write packs/ab``.
    """

    def __init__(
        self,
        inner: Storage,
        at: int = 0,
        fault: Fault = die,
        moment: Moment = Moment.BEFORE,
        then: Then = Then.WORKS,
    ) -> None:
        """Wrap a storage.

        Args:
            inner: The wrapped storage.
            at: Number of the operation that fails, from 1.
            fault: What happens there, such as `fail_with` or `die`.
            moment: Before or after the operation.
            then: Whether later operations work or fail.
        """
        self.url = inner.url
        self.block = inner.block
        self.parallel = inner.parallel
        self.reads_back = inner.reads_back
        self.kinds = inner.kinds
        self.log: list[str] = []
        self._inner = inner
        self._at = at
        self._fault = fault
        self._moment = moment
        self._then = then
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"FaultyStorage({self._inner!r}, at={self._at})"

    @property
    def requests(self) -> int:
        """How many requests have been sent to a server so far."""
        return self._inner.requests

    @property
    def operations(self) -> int:
        """How many operations have begun."""
        return len(self.log)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count one operation, and let it fail if it is its turn.

        Args:
            name: For the log.
        """
        with self._counting:
            self.log.append(name)
            number = len(self.log)
        struck = 0 < self._at < number and self._then is Then.BROKEN
        if struck or (number == self._at and self._moment is Moment.BEFORE):
            self._fault()
        yield
        if number == self._at and self._moment is Moment.AFTER:
            self._fault()

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects."""
        with self.step(f"entries {prefix}"):
            return iter(list(self._inner.entries(prefix)))

    def entry(self, key: str) -> Entry:
        """Describe one object."""
        with self.step(f"entry {key}"):
            return self._inner.entry(key)

    def open(self, key: str) -> Reader:
        """Open one version of an object."""
        with self.step(f"open {key}"), contextlib.ExitStack() as stack:
            reader = stack.enter_context(self._inner.open(key))
            faulty = _FaultyReader(self, reader)
            stack.pop_all()
            return faulty

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes."""
        with self.step(f"read part {key}"):
            return self._inner.read_part(key, start, length)

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which objects exist."""
        with self.step("present"):
            return self._inner.present(keys)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List keys."""
        with self.step(f"keys {prefix}"):
            return iter(list(self._inner.keys(prefix)))

    def source(self, key: str, identity: str) -> Source | None:
        """Offer an object as a source."""
        source: Source | None = None
        try:
            with self.step(f"source {key}"):
                source = self._inner.source(key, identity)
        except BaseException:
            if source is not None:
                source.close()
            raise
        return source

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object."""
        with self.step(f"write {key}"):
            return self._inner.write(key, self._counted(key, blocks), attributes)

    def _counted(self, key: str, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            with self.step(f"block {key}"):
                yield block

    def add(self, key: str, blocks: Iterable[Block]) -> Entry:
        """Write an object that will never change."""
        with self.step(f"add {key}"):
            return self._inner.add(key, self._counted(key, blocks))

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not exist yet."""
        with self.step(f"create {key}"):
            return self._inner.create(key, data)

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named."""
        with self.step(f"swap {key}"):
            return self._inner.swap(key, data, identity)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.step(f"delete {key}"):
            self._inner.delete(key)

    def move(self, key: str, to: str) -> None:
        """Give an object another key."""
        with self.step(f"move {key} {to}"):
            self._inner.move(key, to)

    def sync(self, keys: Iterable[str]) -> None:
        """Make written objects durable."""
        with self.step("sync"):
            self._inner.sync(keys)

    def hold(self, key: str) -> AbstractContextManager[None] | None:
        """Take a lock; release it if only the answer is to be lost."""
        lock: AbstractContextManager[None] | None = None
        try:
            with self.step(f"hold {key}"):
                lock = self._inner.hold(key)
        except BaseException as error:
            if lock is not None:
                lock.__exit__(type(error), error, error.__traceback__)
            raise
        return lock

    def refuses(self, key: str) -> str | None:
        """Return why a key is refused; never fails."""
        return self._inner.refuses(key)

    def local_path(self, key: str) -> Path | None:
        """Return the path of an object on this host; never fails."""
        return self._inner.local_path(key)

    def look(self, key: str) -> Item | None:
        """Describe the object, link or folder of a key."""
        with self.step(f"look {key}"):
            return self._inner.look(key)

    def walk(self, prefix: str, enter: Callable[[str], bool]) -> Iterator[Item]:
        """List everything below a folder."""
        with self.step(f"walk {prefix}"):
            return iter(list(self._inner.walk(prefix, enter)))

    def make_link(self, key: str, target: str, attributes: Attributes | None = None) -> None:
        """Create or replace a link."""
        with self.step(f"link {key}"):
            self._inner.make_link(key, target, attributes)

    def make_folder(self, key: str, attributes: Attributes | None = None) -> None:
        """Create a folder, or set its attributes."""
        with self.step(f"folder {key}"):
            self._inner.make_folder(key, attributes)

    def remove(self, key: str) -> bool:
        """Remove a link or an empty folder."""
        with self.step(f"remove {key}"):
            return self._inner.remove(key)

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Remove what interrupted writes left behind."""
        with self.step("sweep"):
            return self._inner.sweep(older_than, keys)

    def frozen(self, keys: Collection[str]) -> list[Frozen]:
        """Return which objects cannot be read yet."""
        with self.step("frozen"):
            return self._inner.frozen(keys)

    def thaw(self, frozen: Frozen, days: int, tier: str) -> None:
        """Request that an object becomes readable."""
        with self.step(f"thaw {frozen.key}"):
            self._inner.thaw(frozen, days, tier)

    def locks(self, keys: Collection[str]) -> list[Lock]:
        """Return which objects may not be deleted yet."""
        with self.step("locks"):
            return self._inner.locks(keys)

    def protect(self, keys: Iterable[str]) -> None:
        """Lock objects for as long as new ones are locked."""
        with self.step("protect"):
            self._inner.protect(keys)

    def probe(self) -> Guarantees:
        """Find out what the backend really guarantees."""
        with self.step("probe"):
            return self._inner.probe()


class _FaultyReader(Reader):
    """A reader whose operations count."""

    def __init__(self, storage: FaultyStorage, inner: Reader) -> None:
        self.entry = inner.entry
        self._storage = storage
        self._inner = inner

    def read(self, start: int, length: int) -> bytes:
        """Read a range."""
        with self._storage.step(f"read {self.entry.key}"):
            return self._inner.read(start, length)

    def readinto(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer."""
        with self._storage.step(f"read {self.entry.key}"):
            self._inner.readinto(start, buffer)

    def confirm(self) -> None:
        """Check that the version is unchanged."""
        with self._storage.step(f"confirm {self.entry.key}"):
            self._inner.confirm()

    def proof(self) -> Proof:
        """Return the proof of the whole content."""
        return self._inner.proof()

    def file(self) -> BinaryIO:
        """Return the content as a file."""
        with self._storage.step(f"file {self.entry.key}"):
            return self._inner.file()

    def close(self) -> None:
        """Release the object; always works."""
        self._inner.close()
