"""The records of a repository under their keys: sealed as it is, read once, never changed.

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

from novabackup.errors import ArchivedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.format.records import (
    Condemned,
    Drill,
    Forgotten,
    Pin,
    SnapshotRecord,
    encode,
    identify,
    snapshot_id,
)
from novabackup.keys import Key
from novabackup.objects.access import PACK_NAME, SNAPSHOT_NAME, Opening
from novabackup.storage import Entry, Lock, Storage

__all__ = ["ASIDE", "PACK_NAME", "PIN_NAME", "SNAPSHOT_NAME", "Records", "pin_key", "snapshot_key"]

_LOG = logging.getLogger("novabackup")

ASIDE = "damaged"
"""The folder for objects that were damaged and have been replaced; nothing in it is read but by people and `repair`."""
PIN_NAME = re.compile(r"pins/(\d{8}T\d{6}Z-[0-9a-f]{20})\.json")
_MANY_NOTES = 2
_DRILL_NAME = re.compile(r"drills/\d{8}T\d{6}Z-[0-9a-f]{16}\.json")
_DRILLS_KEPT = 100
_Record = TypeVar("_Record")
_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""A storage that names a later time names none."""


def pin_key(name: str) -> str:
    """Give the key of the pin of a snapshot."""
    return f"pins/{name}.json"


def snapshot_key(name: str) -> str:
    """Give the key of a snapshot."""
    return f"snapshots/{name}.json"


class Records(Opening):
    """Reads and writes the records of one repository. They never change, so what has been read stays true."""

    def __init__(self, storage: Storage, key: Key | None = None) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            key: What opens it if it is encrypted, or is to open it once it is created.
        """
        super().__init__(storage, key)
        self._saved = ""
        self._records: dict[str, SnapshotRecord] = {}
        self._previous: dict[str, str] = {}

    def forget_cached(self) -> None:
        """Believe nothing any more that has been read: everything may have been sealed anew."""
        super().forget_cached()
        self._records.clear()
        self._previous.clear()

    def _any_snapshot(self) -> SnapshotRecord | None:
        return next(self.records(), None)

    def record_keys(self, folder: str) -> list[str]:
        """List the keys of records in a folder, without what a killed `clock` left beside them."""
        return [key for key in self.storage.keys(folder) if key.endswith(".json")]

    def _readable_records(self, keys: Iterable[str], kind: type[_Record]) -> Iterator[tuple[str, _Record]]:
        """Read records that may have gone since they were listed; those that are damaged are passed over, too."""
        for key in keys:
            try:
                yield key, self.read_record(key, kind)[0]
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is passed over: %s", key, error)
            except FileNotFoundError:
                continue

    # -- snapshots ---------------------------------------------------------------------------------------------------

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
        previous = self._newest() if self.encrypted else ""
        key = snapshot_key(name)
        try:
            self.storage.add(key, [self.protection.close_record(encode(record), key, previous)])
        except FileExistsError:  # by its name it is the same; if it is damaged, it is replaced
            self.write_record(key, record, previous)
        self._records[name], self._previous[name], self._saved = record, previous, name
        return name

    def replace(self, name: str, record: SnapshotRecord) -> None:
        """Write a snapshot anew, whose content has moved to other packs."""
        self.write_record(snapshot_key(name), record, self.previous(name))
        self._records[name] = record

    def put_back(self, record: SnapshotRecord) -> str:
        """Write a snapshot that another copy of the repository still had, also where something damaged stands.

        Returns:
            Its id.
        """
        name = snapshot_id(record)
        self.write_record(snapshot_key(name), record, self._newest(but=name) if self.encrypted else "")
        self._records.pop(name, None)
        return name

    def _newest(self, but: str = "") -> str:
        """Name a snapshot that is there, whose absence whoever reads the next one will notice.

        It must be readable: what somebody else has put there would be remembered in the place of a real one.
        """
        names = [name for name in self.names() if name != but]
        if self._saved in names:
            return self._saved
        return next((name for name in reversed(names) if self._readable(name)), "")

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

    def locked(self, names: Iterable[str]) -> dict[str, Lock]:
        """Tell which snapshots may not be deleted yet, since their bucket protects them."""
        keys = {snapshot_key(name): name for name in names}
        return {keys[lock.key]: lock for lock in self.storage.locks(keys)}

    def _readable(self, name: str) -> bool:
        try:
            self.record(name)
        except (ArchivedError, IntegrityError, FormatError, NotFoundError):
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
        return self._readable_records(list(self.storage.keys("forgotten")), Forgotten)

    def stored(self) -> dict[str, datetime]:
        """Tell when each snapshot was written, by the storage's own clock; where it does not say, it is left out."""
        return {
            found[1]: datetime.fromtimestamp(entry.modified, UTC)
            for entry in self.storage.entries("snapshots")
            if 0 < entry.modified < _END_OF_TIME and (found := SNAPSHOT_NAME.fullmatch(entry.key))
        }

    # -- pins --------------------------------------------------------------------------------------------------------

    def pinned(self) -> set[str]:
        """Tell which snapshots have a pin: it counts by being there, readable or not."""
        return {found[1] for key in self.storage.keys("pins") if (found := PIN_NAME.fullmatch(key))}

    def pin(self, name: str, message: str) -> None:
        """Pin a snapshot; a pin that it has already is replaced."""
        self.write_record(pin_key(name), Pin(time=datetime.now(UTC), message=message))

    def unpin(self, name: str) -> None:
        """Take the pin of a snapshot away."""
        self.storage.delete(pin_key(name))

    def read_pin(self, name: str) -> Pin | None:
        """Read a pin.

        Returns:
            The pin; None if it is damaged.

        Raises:
            NotFoundError: There is none.
        """
        try:
            return self.read_record(pin_key(name), Pin)[0]
        except FileNotFoundError:
            raise NotFoundError(f"snapshot {name} in {self.url} is not pinned") from None
        except (IntegrityError, FormatError) as error:
            _LOG.warning("the pin holds, but what it says is lost: %s", error)
            return None

    # -- drills ------------------------------------------------------------------------------------------------------

    def drill_keys(self) -> list[str]:
        """List the results of drills that are there, oldest first, readable or not."""
        return sorted(filter(_DRILL_NAME.fullmatch, self.storage.keys("drills")))

    def drills(self) -> list[Drill]:
        """Read how drills went, oldest first; results that cannot be read are passed over with a warning."""
        found = (drill for _key, drill in self._readable_records(self.drill_keys(), Drill))
        return sorted(found, key=lambda drill: drill.time)  # keys tell seconds, in which several may fit

    def note_drill(self, record: Drill) -> str:
        """Note how a drill went; give the key of the note. The oldest of many notes go."""
        key = _dated("drills")
        self.write_record(key, record)
        for old in self.drill_keys()[:-_DRILLS_KEPT]:
            try:
                self.storage.delete(old)
            except PermissionError as error:
                _LOG.info("%s stays: %s", old, error)
        return key

    # -- condemned packs ---------------------------------------------------------------------------------------------

    def condemned(self) -> Iterator[tuple[Entry, Condemned]]:
        """Read what `prune` has condemned; a record that cannot be read condemns nothing."""
        # Without what a killed `clock` left there.
        entries = {entry.key: entry for entry in self.storage.entries("condemned") if entry.key.endswith(".json")}
        return ((entries[key], record) for key, record in self._readable_records(entries, Condemned))

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
