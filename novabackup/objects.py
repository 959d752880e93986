"""The objects of a repository under their keys, and the order of writes that keeps them consistent.

Packs come first, the snapshot that names them last; nothing that is there is ever changed. What a crash leaves behind
is packs that nobody names, which `prune` collects.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from novabackup.errors import ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.founding import (
    CONFIG_KEY,
    FOREIGN,
    Opened,
    open_with,
    read_config,
    rewrite_config,
    slots,
    write_founding,
    write_slot,
)
from novabackup.keys import Key
from novabackup.model import (
    Condemned,
    Config,
    FileEntry,
    Forgotten,
    Record,
    SnapshotRecord,
    decode,
    encode,
    identify,
    snapshot_id,
)
from novabackup.packs import HEADER, Frame, Pack, Runs, Table, open_frame, prove_frame, read_table, unsealed, word_width
from novabackup.sealing import Protection
from novabackup.storage import Entry, Storage

__all__ = ["MAP_ROW", "Objects", "neighbours", "pack_key", "snapshot_key"]

_LOG = logging.getLogger("novabackup")

_SNAPSHOT_NAME = re.compile(r"snapshots/(\d{8}T\d{6}Z-[0-9a-f]{20})\.json")
_PACK_NAME = re.compile(r"packs/[0-9a-f]{2}/([0-9a-f]{64})")
_Record = TypeVar("_Record")
_OURS = re.compile(rf"{_PACK_NAME.pattern}|{_SNAPSHOT_NAME.pattern}|condemned/.*|keys/[0-9a-f]{{16}}\.json", re.DOTALL)
_SNAPSHOT_NAMES = re.compile(rf"(?<=\0){_SNAPSHOT_NAME.pattern}(?=\0)")
LARGEST_LIST = 64 << 20
"""Bytes of the longest list of runs that is read: as much as a snapshot itself may have."""
_MANY_NOTES = 2
MAP_ROW = "<u4"
"""Type of the numbers in a list of runs that is content itself: pack, first chunk, number of chunks."""


def pack_key(pack_id: str) -> str:
    """Give the key of a pack."""
    return f"packs/{pack_id[:2]}/{pack_id}"


def snapshot_key(name: str) -> str:
    """Give the key of a snapshot."""
    return f"snapshots/{name}.json"


class Objects:
    """Reads and writes the objects of one repository. Objects never change, so what has been read stays true."""

    def __init__(self, storage: Storage, key: Key | None = None) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            key: What opens it if it is encrypted, or is to open it once it is created.
        """
        self.storage = storage
        self._key = key
        self._opened: Opened | None = None
        self._saved = ""
        self._records: dict[str, SnapshotRecord] = {}
        self._previous: dict[str, str] = {}
        self._tables: dict[str, Table] = {}

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.storage.url

    # -- the repository itself ---------------------------------------------------------------------------------------

    @property
    def opened(self) -> Opened:
        """How the repository is sealed, and with what it was opened.

        Raises:
            NotFoundError: There is no repository.
            DecryptionError: It is encrypted, and the key does not open it.
            ConfigurationError: It is not encrypted, and a key was given.
            FormatError: It is one of a newer format.
        """
        if self._opened is None:
            self.require()
        assert self._opened is not None
        return self._opened

    @property
    def protection(self) -> Protection:
        """How the repository is sealed; see `opened`."""
        return self.opened.protection

    @property
    def encrypted(self) -> bool:
        """Whether whoever has the storage alone can read nothing."""
        return bool(self.protection.key)

    def reopen(self, key: Key) -> None:
        """Open the repository with another key from now on."""
        self._key, self._opened = key, None

    def replace_slot(self, data_keys: Sequence[bytes]) -> None:
        """Let the key at hand open the repository with other data keys, the newest first."""
        assert self._key is not None
        write_slot(self.storage, self.opened.slot, self._key, data_keys, read_config(self.storage).id)
        self._opened = None

    def require(self) -> None:
        """Make sure that there is a repository to read, and open it.

        A lost or damaged ``config.json`` costs nothing while packs and snapshots are there: they say all that is
        needed.

        Raises:
            NotFoundError: There is none.
            FormatError: It is one of a newer format.
            DecryptionError: It is encrypted, and the key does not open it.
        """
        config = None
        try:
            config = read_config(self.storage)
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
        self._open(config)

    def ensure(self) -> str:
        """Make sure that there is a repository to write to, and create it where there is nothing.

        Returns:
            The id of the repository.

        Raises:
            FormatError: There is something else, or a repository of a newer format.
            IntegrityError: Its ``config.json`` is damaged.
            DecryptionError: It is encrypted, and the key does not open it.
        """
        try:
            config = read_config(self.storage)
        except FileNotFoundError:
            config = self._found()
        except IntegrityError as error:
            self._refuse_foreign_config(error)
            raise IntegrityError(
                f"{error.args[0]}, or rename it: the next backup writes it anew from what the snapshots say",
                error.problems,
            ) from error
        self._open(config)
        return config.id

    def _open(self, config: Config | None) -> None:
        if self._opened is None:
            self._opened = open_with(self.storage, self._key, config)

    def _refuse_foreign_config(self, error: IntegrityError) -> None:
        """Tell a damaged repository from a folder that has a ``config.json`` of something else."""
        if not self.names():
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected a {CONFIG_KEY} of novabackup, found another "
                "one and "
                "no snapshots. Check the URL, or choose another folder"
            ) from error

    def _found(self) -> Config:
        if self.names():
            # A ruin: what it was is told by those who know.
            self._open(None)
            known = next(self.records(), None)
            kept = next((slot.repository for _name, slot in slots(self.storage)), known.repository if known else "")
            rewrite_config(self.storage, kept or secrets.token_hex(16), encrypted=self.encrypted)
            return read_config(self.storage)
        names = {entry.key.partition("/")[0] for entry in self.storage.entries()}
        if names & FOREIGN and not all(self._is_ours(entry) for entry in self.storage.entries()):
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected an empty folder or a {CONFIG_KEY}, found "
                f"{', '.join(sorted(names & FOREIGN))}. Choose another folder"
            )
        write_founding(self.storage, self._key, secrets.token_hex(16))
        # Read back rather than believed: where creation does not exclude, the last of several writers wins.
        return read_config(self.storage)

    @staticmethod
    def _is_ours(entry: Entry) -> bool:
        name = entry.key
        return name.partition("/")[0] not in FOREIGN or bool(_OURS.fullmatch(name))

    # -- records -----------------------------------------------------------------------------------------------------

    def read_record(self, key: str, kind: type[_Record]) -> tuple[_Record, bytes, str]:
        """Read a record.

        Args:
            key: Under which key.
            kind: Its class.

        Returns:
            The record, its bytes once they are no longer sealed, and the snapshot that it says was there before it.

        Raises:
            FileNotFoundError: There is none.
            IntegrityError: It is damaged, or not what was sealed for that place.
            FormatError: It is of a newer format.
        """
        where = f"{self.url}/{key}"
        data, previous = self.protection.open_record(self.storage.read(key), key, where)
        return decode(data, kind, where), data, previous

    def write_record(self, key: str, record: Record, previous: str = "") -> None:
        """Write a record, sealed as the repository is."""
        self.storage.write(key, [self.protection.close_record(encode(record), key, previous)])

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
                record, data, previous = self.read_record(key, SnapshotRecord)
            except FileNotFoundError:
                raise NotFoundError(f"there is no snapshot {name} in {self.url}") from None
            found = identify(data)
            if found != name:
                raise IntegrityError(
                    f"{self.url}/{key}: expected snapshot {name}, found the record of {found}. "
                    "The object was renamed or replaced"
                )
            self._records[name] = record
            self._previous[name] = previous
        return self._records[name]

    def records(self) -> Iterator[SnapshotRecord]:
        """Read all snapshots, newest first; damaged ones are passed over with a warning."""
        return (record for _name, record in self.named_records())

    def named_records(self) -> Iterator[tuple[str, SnapshotRecord]]:
        """Read all snapshots with their ids, newest first; damaged ones are passed over with a warning."""
        for name in reversed(self.names()):
            try:
                yield name, self.record(name)
            except (IntegrityError, FormatError) as error:
                _LOG.warning("snapshot %s is passed over: %s", name, error)
            except NotFoundError:
                continue  # forgotten by somebody else since it was listed

    def save(self, record: SnapshotRecord) -> str:
        """Write a snapshot: the commit. Every pack that it names must be stored already.

        Returns:
            Its id.
        """
        name = snapshot_id(record)
        previous = self._newest() if self.encrypted else ""
        self.write_record(snapshot_key(name), record, previous)
        self._records[name], self._previous[name], self._saved = record, previous, name
        return name

    def replace(self, name: str, record: SnapshotRecord) -> None:
        """Write a snapshot anew, whose content has moved to other packs."""
        self.write_record(snapshot_key(name), record, self.previous(name))
        self._records[name] = record

    def _newest(self) -> str:
        """Name a snapshot that is there, whose absence whoever reads the next one will notice."""
        names = self.names()
        return self._saved if self._saved in names else names[-1] if names else ""

    def previous(self, name: str) -> str:
        """Give the snapshot that was there when this one was written; empty if that was not noted."""
        self.record(name)
        return self._previous[name]

    def forget(self, names: Sequence[str]) -> None:
        """Remove snapshots; the packs that only they needed are for `prune`."""
        if names and self.encrypted:
            expected = [self.previous(name) for name in names if self._readable(name)]
            self.note_forgotten(Forgotten(snapshots=tuple(names), expected=tuple(filter(None, expected))))
        for name in names:
            self._records.pop(name, None)
            self.storage.delete(snapshot_key(name))

    def _readable(self, name: str) -> bool:
        try:
            self.record(name)
        except (IntegrityError, FormatError, NotFoundError):
            return False
        return True

    def note_forgotten(self, record: Forgotten) -> str:
        """Note that snapshots are removed on purpose; give the key of the note."""
        key = _dated("forgotten")
        self.write_record(key, record)
        return key

    def gather_forgotten(self) -> None:
        """Put all notes of what was forgotten into one that says no more than is still needed."""
        notes = list(self.forgotten())
        if len(notes) < _MANY_NOTES:
            return
        forgotten = {name for _key, note in notes for name in note.snapshots}
        named = {self.previous(name) for name in self.names() if self._readable(name)}
        expected = {name for _key, note in notes for name in note.expected} - forgotten
        together = Forgotten(snapshots=tuple(sorted(forgotten & named)), expected=tuple(sorted(expected)))
        if together.snapshots or together.expected:
            self.note_forgotten(together)
        for key, _note in notes:
            self.storage.delete(key)

    def forgotten(self) -> Iterator[tuple[str, Forgotten]]:
        """Read which snapshots were removed on purpose; notes that cannot be read are passed over with a warning."""
        for key in list(self.storage.keys("forgotten")):
            try:
                yield key, self.read_record(key, Forgotten)[0]
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is passed over: %s", key, error)
            except FileNotFoundError:
                continue

    # -- packs -------------------------------------------------------------------------------------------------------

    def pack_entries(self) -> Iterator[tuple[str, Entry]]:
        """List packs."""
        for entry in self.storage.entries("packs"):
            found = _PACK_NAME.fullmatch(entry.key)
            if found:
                yield found[1], entry

    def present(self, packs: Iterable[str]) -> set[str]:
        """Tell which packs are there."""
        keys = {pack_key(pack): pack for pack in packs}
        return {keys[key] for key in self.storage.present(keys)}

    def add_pack(self, pack: Pack) -> None:
        """Store a pack."""
        self.storage.write(pack_key(pack.id), pack.blocks)

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
            self._tables[pack_id] = read_table(
                pack_id, self.protection, lambda length: self._read(pack_id, -length, length)
            )
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
        return [open_frame(pack_id, frame, packed) for frame, packed in self._unsealed(pack_id, frames)]

    def words(self, pack_id: str, frames: Sequence[Frame]) -> list[tuple[memoryview, int]]:
        """Read neighbouring frames as `proved` does; give the width of the words in each, too, or 1."""
        found = []
        for frame, packed in self._unsealed(pack_id, frames):
            raw = open_frame(pack_id, frame, packed)
            prove_frame(pack_id, self.table(pack_id).seal, frame, raw)
            found.append((raw, word_width(frame.codec, packed)))
        return found

    def _unsealed(self, pack_id: str, frames: Sequence[Frame]) -> Iterator[tuple[Frame, bytes | memoryview]]:
        """Read neighbouring frames; they are still compressed."""
        start, end = frames[0].offset, frames[-1].offset + frames[-1].stored
        stored = memoryview(self._read(pack_id, start, end - start)[0])
        seal = self.table(pack_id).seal
        for frame in frames:
            yield frame, unsealed(pack_id, seal, frame, stored[frame.offset - start :][: frame.stored])

    def proved(self, pack_id: str, frames: Sequence[Frame]) -> list[memoryview]:
        """Read neighbouring frames and check what came out of them, too.

        Raises:
            IntegrityError: The pack is gone or damaged.
        """
        content = self.frames(pack_id, frames)
        for frame, raw in zip(frames, content, strict=True):
            prove_frame(pack_id, self.table(pack_id).seal, frame, raw)
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
        for entry in self.storage.entries("condemned"):
            try:
                yield entry, self.read_record(entry.key, Condemned)[0]
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is passed over: %s", entry.key, error)
            except FileNotFoundError:
                continue

    def condemn(self, packs: Iterable[str]) -> None:
        """Say that packs will be deleted when a grace period has passed and still no snapshot names them."""
        self.write_record(_dated("condemned"), Condemned(packs=tuple(sorted(packs))))

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


def _dated(folder: str) -> str:
    return f"{folder}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}.json"


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
