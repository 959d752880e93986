"""The objects of a repository under their keys, and the order of writes that keeps them consistent.

Packs come first, the snapshot that names them last; nothing that is there is ever changed. What a crash leaves behind
is packs that nobody names, which `prune` collects.
"""

from __future__ import annotations

import copy
import logging
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from blake3 import blake3

from novabackup.errors import ArchivedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.model import Condemned, Config, FileEntry, SnapshotRecord, decode, encode, identify, snapshot_id
from novabackup.packs import HEADER, Frame, Pack, Runs, Table, open_frame, prove_frame, read_table
from novabackup.storage import Entry, Frozen, Lock, Storage

__all__ = ["MAP_ROW", "README_KEY", "Objects", "neighbours", "pack_key", "snapshot_key"]

_LOG = logging.getLogger("novabackup")

CONFIG_KEY = "config.json"
README_KEY = "README.txt"
_SNAPSHOT_NAME = re.compile(r"snapshots/(\d{8}T\d{6}Z-[0-9a-f]{20})\.json")
_SNAPSHOT_NAMES = re.compile(rf"(?<=\0){_SNAPSHOT_NAME.pattern}(?=\0)")
_PACK_NAME = re.compile(r"packs/[0-9a-f]{2}/([0-9a-f]{64})")
_FOREIGN = frozenset({"config", "data", "index", "keys", "locks", "packs", "snapshots", "condemned"})
"""Top-level names that, without our config.json, show somebody else's repository (restic's, borg's) or a ruin."""

LARGEST_LIST = 64 << 20
"""Bytes of the longest list of runs that is read: as much as a snapshot itself may have."""
MAP_ROW = "<u4"
"""Type of the numbers in a list of runs that is content itself: pack, first chunk, number of chunks."""

_README = """\
This folder is a novabackup repository: snapshots of search indexes, and the content of their files.

  config.json           format version and identity of the repository
  snapshots/*.json      one file for each snapshot: JSON that lists its files and where their content is
  packs/??/*            the content, in compressed frames of chunks; a pack is named by a hash and never changes
  condemned/*.json      packs that no snapshot needs any more and that will be deleted later

To get data out:  pip install novabackup, then in Python:

  from novabackup import Repository
  repository = Repository("path or URL of this folder")
  repository["latest"].restore(to="a folder")

Without novabackup: docs/format.md of the project describes every byte. In short: a pack ends with 32 bytes that begin
with NOVATAIL and give, at offset 12 and 16, the stored and the raw size of the table before them. The table lists
frames (codec 0 as is, codec 1 zstandard, codec 2 bytes of words sorted into planes) and chunks. A file in a snapshot is
the runs [pack, first chunk, count] put together (with depth 1, these give the list of runs), and its "blake3" is what
b3sum must print for the result.

Do not change, rename or delete single files here.
"""


def sealed_readme() -> bytes:
    """Give the README with a last line that tells whether the text above has been altered."""
    return f"{_README}\nblake3 of the text above: {blake3(_README.encode()).hexdigest()}\n".encode()


def readme_intact(data: bytes) -> bool:
    """Tell whether a README is as some version of novabackup wrote it."""
    text, _, seal = data.rpartition(b"\nblake3 of the text above: ")
    return seal == blake3(text).hexdigest().encode() + b"\n"


def pack_key(pack_id: str) -> str:
    """Give the key of a pack."""
    return f"packs/{pack_id[:2]}/{pack_id}"


def snapshot_key(name: str) -> str:
    """Give the key of a snapshot."""
    return f"snapshots/{name}.json"


class Objects:
    """Reads and writes the objects of one repository. Objects never change, so what has been read stays true."""

    def __init__(self, storage: Storage, packs: Storage | None = None) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            packs: The same place, as packs are written to it; by default as everything else.
        """
        self.storage = storage
        self._packs = packs or storage
        self._out_of_reach: Callable[[Collection[str]], Iterable[Frozen]] = lambda keys: ()
        self._records: dict[str, SnapshotRecord] = {}
        self._tables: dict[str, Table] = {}

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.storage.url

    @property
    def reads_back(self) -> bool:
        """Whether new packs can be read at once."""
        return self._packs.reads_back

    def within_reach(self) -> Objects:
        """Give the same repository once more; that one shares nothing that has to be thawed before it can be read."""
        twin = copy.copy(self)
        twin._out_of_reach = self.storage.frozen
        return twin

    # -- the repository itself ---------------------------------------------------------------------------------------

    def require(self) -> None:
        """Make sure that there is a repository to read.

        A lost or damaged ``config.json`` costs nothing while packs and snapshots are there: they say all that is
        needed.

        Raises:
            NotFoundError: There is none.
            FormatError: It is one of a newer format.
        """
        try:
            self._config()
        except FileNotFoundError:
            if not self.names():
                raise NotFoundError(
                    f"there is no repository at {self.url}: expected a {CONFIG_KEY} there and found none. "
                    "Check the URL; a repository comes into being with its first backup"
                ) from None
            _LOG.warning("%s/%s is missing; the snapshots are read without it", self.url, CONFIG_KEY)
        except IntegrityError as error:
            self._refuse_foreign_config(error)
            _LOG.warning("%s; the snapshots are read without it", error.args[0])

    def ensure(self) -> str:
        """Make sure that there is a repository to write to, and create it where there is nothing.

        Returns:
            The id of the repository.

        Raises:
            FormatError: There is something else, or a repository of a newer format.
            IntegrityError: Its ``config.json`` is damaged.
        """
        try:
            return self._config().id
        except FileNotFoundError:
            pass
        except IntegrityError as error:
            self._refuse_foreign_config(error)
            raise IntegrityError(
                f"{error.args[0]}, or rename it: the next backup writes it anew from what the snapshots say",
                error.problems,
            ) from error
        return self._found()

    def _refuse_foreign_config(self, error: IntegrityError) -> None:
        """Tell a damaged repository from a folder that has a ``config.json`` of something else."""
        if not self.names():
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected a {CONFIG_KEY} of novabackup, found another "
                "one and "
                "no snapshots. Check the URL, or choose another folder"
            ) from error

    def _config(self) -> Config:
        return decode(self.storage.read(CONFIG_KEY), Config, f"{self.url}/{CONFIG_KEY}")

    def _found(self) -> str:
        known = next(self.records(), None)
        if known is None:
            names = {entry.key.partition("/")[0] for entry in self.storage.entries()}
            if names & _FOREIGN and not all(self._is_ours(entry) for entry in self.storage.entries()):
                raise FormatError(
                    f"{self.url} is not a novabackup repository: expected an empty folder or a {CONFIG_KEY}, found "
                    f"{', '.join(sorted(names & _FOREIGN))}. Choose another folder"
                )
        config = Config(id=known.repository if known else secrets.token_hex(16))
        try:
            self.storage.create(CONFIG_KEY, encode(config))
            self.storage.add(README_KEY, [sealed_readme()])
        except FileExistsError:
            _LOG.debug("%s was created by somebody else at the same moment, or parts of it were there", self.url)
        # Read back rather than believed: where creation does not exclude, the last of several writers wins.
        return self._config().id

    @staticmethod
    def _is_ours(entry: Entry) -> bool:
        name = entry.key
        if name.partition("/")[0] not in _FOREIGN:
            return True
        return bool(_PACK_NAME.fullmatch(name) or _SNAPSHOT_NAME.fullmatch(name) or name.startswith("condemned/"))

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """List the ids of all snapshots that are there, oldest first, readable or not."""
        # All at once, since there may be thousands, and each backup looks.
        keys = "\0".join(("", *self.storage.keys("snapshots"), ""))
        return _SNAPSHOT_NAMES.findall(keys)

    def record(self, name: str) -> SnapshotRecord:
        """Read a snapshot.

        Raises:
            NotFoundError: There is none of this id.
            IntegrityError: Its bytes are not those that were written, or they belong to another snapshot.
        """
        if name not in self._records:
            key = snapshot_key(name)
            try:
                data = self.storage.read(key)
            except FileNotFoundError:
                raise NotFoundError(f"there is no snapshot {name} in {self.url}") from None
            record = decode(data, SnapshotRecord, f"{self.url}/{key}")
            found = identify(data)
            if found != name:
                raise IntegrityError(
                    f"{self.url}/{key}: expected snapshot {name}, found the record of {found}. "
                    "The object was renamed or replaced"
                )
            self._records[name] = record
        return self._records[name]

    def records(self) -> Iterator[SnapshotRecord]:
        """Read all snapshots, newest first; damaged ones are passed over with a warning."""
        return (record for _name, record in self.named_records())

    def named_records(self) -> Iterator[tuple[str, SnapshotRecord]]:
        """Read all snapshots with their ids, newest first; damaged ones are passed over with a warning."""
        for name in reversed(self.names()):
            try:
                yield name, self.record(name)
            except (ArchivedError, IntegrityError, FormatError) as error:
                _LOG.warning("snapshot %s is passed over: %s", name, error)
            except NotFoundError:
                continue  # forgotten by somebody else since it was listed

    def save(self, record: SnapshotRecord) -> str:
        """Write a snapshot: the commit. Every pack that it names must be stored already.

        Returns:
            Its id.
        """
        name = snapshot_id(record)
        self.storage.add(snapshot_key(name), [encode(record)])
        self._records[name] = record
        return name

    def forget(self, name: str) -> None:
        """Remove a snapshot; the packs that only it needed are for `prune`."""
        self._records.pop(name, None)
        self.storage.delete(snapshot_key(name))

    def locked(self, names: Iterable[str]) -> dict[str, Lock]:
        """Tell which snapshots may not be forgotten yet, since their bucket protects them."""
        keys = {snapshot_key(name): name for name in names}
        return {keys[lock.key]: lock for lock in self.storage.locks(keys)}

    # -- packs -------------------------------------------------------------------------------------------------------

    def pack_entries(self) -> Iterator[tuple[str, Entry]]:
        """List packs."""
        for entry in self.storage.entries("packs"):
            found = _PACK_NAME.fullmatch(entry.key)
            if found:
                yield found[1], entry

    def present(self, packs: Iterable[str]) -> set[str]:
        """Tell which packs are there to be shared."""
        keys = {pack_key(pack): pack for pack in packs}
        there = self.storage.present(keys)
        return {keys[key] for key in there - {found.key for found in self._out_of_reach(there)}}

    def add_pack(self, pack: Pack) -> None:
        """Store a pack."""
        self._packs.add(pack_key(pack.id), pack.blocks)

    def protect(self, packs: Collection[str]) -> None:
        """Lock packs that a new snapshot shares for as long as the snapshot itself will be, where a bucket does so."""
        if packs:
            self.storage.protect(map(pack_key, sorted(packs)))

    def delete_pack(self, pack_id: str) -> None:
        """Remove a pack that no snapshot names."""
        self._tables.pop(pack_id, None)
        self.storage.delete(pack_key(pack_id))

    def table(self, pack_id: str, *, reaching: int = 0) -> Table:
        """Read and check the table of a pack.

        Args:
            pack_id: Which pack.
            reaching: How many chunks it must have at least, since a snapshot names them.

        Raises:
            IntegrityError: The pack is gone or damaged, or has fewer chunks.
        """
        if pack_id not in self._tables:
            self._tables[pack_id] = read_table(pack_id, lambda length: self._read(pack_id, -length, length))
        table = self._tables[pack_id]
        if reaching > len(table):
            raise IntegrityError(f"pack {pack_id} has {len(table)} chunks; a snapshot names {reaching}")
        return table

    def frames(self, pack_id: str, frames: Sequence[Frame]) -> list[memoryview]:
        """Read neighbouring frames of a pack by one request.

        Args:
            pack_id: Which pack.
            frames: Frames of its table that follow each other.

        Returns:
            The content of each. The stored bytes have been checked; whoever does not check the hash of a whole file
            calls `proved` instead.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        start, end = frames[0].offset, frames[-1].offset + frames[-1].stored
        stored = memoryview(self._read(pack_id, start, end - start)[0])
        return [open_frame(pack_id, f, stored[f.offset - start : f.offset - start + f.stored]) for f in frames]

    def proved(self, pack_id: str, frames: Sequence[Frame]) -> list[memoryview]:
        """Read neighbouring frames and check what came out of them, too.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        content = self.frames(pack_id, frames)
        for frame, raw in zip(frames, content, strict=True):
            prove_frame(pack_id, frame, raw)
        return content

    def runs(self, entry: FileEntry) -> Runs:
        """Read where the content of a file is.

        Returns:
            Rows of number of the pack in ``entry.packs``, first chunk and number of chunks; shape ``(runs, 3)``.

        Raises:
            IntegrityError: The list of the runs is damaged or gone.
        """
        rows: Runs = np.array(entry.runs, np.int64).reshape(-1, 3)
        if not entry.depth:
            return rows
        size = 0
        for pack, first, count in entry.runs:
            sizes = self.table(entry.packs[pack], reaching=first + count).sizes[first : first + count]
            size += int(sizes.sum(dtype=np.int64))
        if size > LARGEST_LIST or size % 12:
            raise IntegrityError(
                f"{entry.path}: expected a list of runs, a multiple of 12 bytes up to {LARGEST_LIST}, found {size}"
            )
        data = b"".join(self._content(entry.packs[pack], first, count) for pack, first, count in entry.runs)
        rows = np.frombuffer(data, MAP_ROW).astype(np.int64).reshape(-1, 3)
        if len(rows) and (rows[:, 0].max() >= len(entry.packs) or rows[:, 2].min() < 1):
            raise IntegrityError(f"{entry.path}: the list of its runs names what cannot be")
        return rows

    def _content(self, pack_id: str, first: int, count: int) -> bytes:
        """Read a few consecutive chunks; each has been checked against its hash."""
        table = self.table(pack_id)
        parts = []
        for frame in table.frames_of(first, count):
            (raw,) = self.proved(pack_id, [frame])
            ends = np.cumsum(table.sizes[frame.first : frame.first + frame.chunks], dtype=np.int64)
            begin = max(first, frame.first) - frame.first
            end = min(first + count, frame.first + frame.chunks) - frame.first
            parts.append(raw[int(ends[begin - 1]) if begin else 0 : int(ends[end - 1])])
        return b"".join(parts)

    def check_header(self, pack_id: str) -> None:
        """Check the few bytes of a pack that no hash covers.

        Raises:
            IntegrityError: They are not what they must be.
        """
        if self._read(pack_id, 0, len(HEADER))[0] != HEADER:
            raise IntegrityError(f"pack {pack_id}: the first {len(HEADER)} bytes are not the header of a pack")

    def _read(self, pack_id: str, start: int, length: int) -> tuple[bytes, int]:
        """Read a range of a pack; a negative start counts from the end. Give the size of the whole, too."""
        try:
            part = self.storage.read_part(pack_key(pack_id), start, length)
        except FileNotFoundError:
            raise IntegrityError(
                f"pack {pack_id} is not in {self.url} any more. Restore it from another copy of the repository"
            ) from None
        return part.data, part.size

    # -- condemned packs ---------------------------------------------------------------------------------------------

    def condemned(self) -> Iterator[tuple[Entry, Condemned]]:
        """Read what `prune` has condemned; a record that cannot be read condemns nothing."""
        for entry in self.condemned_entries():
            try:
                yield entry, decode(self.storage.read(entry.key), Condemned, f"{self.url}/{entry.key}")
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is passed over: %s", entry.key, error)
            except FileNotFoundError:
                continue

    def condemned_entries(self) -> Iterator[Entry]:
        """List the records of what is condemned, without what a killed `clock` left beside them."""
        return (entry for entry in self.storage.entries("condemned") if entry.key.endswith(".json"))

    def condemn(self, packs: Iterable[str]) -> None:
        """Say that packs will be deleted when a grace period has passed and still no snapshot names them."""
        now = datetime.now(UTC)
        key = f"condemned/{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}.json"
        self.storage.write(key, [encode(Condemned(packs=tuple(sorted(packs))))])

    def clock(self) -> float:
        """Tell the time by the storage's own clock, in seconds since the epoch.

        Raises:
            ConfigurationError: The storage does not say when objects were written.
        """
        key = f"condemned/clock-{secrets.token_hex(8)}"
        try:
            now = self.storage.write(key, [b""]).modified
        finally:
            self.storage.delete(key)
        if now <= 0:
            raise ConfigurationError(
                f"{self.url} does not tell when objects were written, so nothing can be pruned there"
            )
        return now


def neighbours(frames: Iterable[Frame], most: int) -> Iterator[tuple[Frame, ...]]:
    """Group frames of one pack, which come in order, so that each group can be read by one request.

    Args:
        frames: Some frames of the pack.
        most: Bytes of content that a group may have, unless it is a single frame.
    """
    group: list[Frame] = []
    for frame in frames:
        if group and (frame.number != group[-1].number + 1 or sum(one.size for one in group) + frame.size > most):
            yield tuple(group)
            group = []
        group.append(frame)
    if group:
        yield tuple(group)
