"""Snapshots: listed, read, saved and forgotten.

Packs come first, the snapshot that names them last; nothing that is there is ever changed. What a crash leaves behind
is packs that nobody names, which `prune` collects.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from novabackup.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import FORGOTTEN, SNAPSHOT_NAME, SNAPSHOTS, dated_key, snapshot_key
from novabackup.format.records import Forgotten, Point, SnapshotRecord, encode, snapshot_id
from novabackup.objects.access import Access
from novabackup.storage import Lock

_LOG = logging.getLogger("novabackup")

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""A storage that names a later time names none."""


class Records:
    """Reads and writes the snapshots of one repository. They never change, so what has been read stays true."""

    def __init__(self, access: Access) -> None:
        """Read and write records by way of an open repository."""
        self._access = access
        self._saved = ""
        self._records: dict[str, SnapshotRecord] = {}
        self._previous: dict[str, str] = {}
        access.caches += [self._records, self._previous]

    def names(self) -> list[str]:
        """List the ids of all snapshots that are there, oldest first, readable or not."""
        return self._access.names()

    def read(self, name: str) -> SnapshotRecord:
        """Read a snapshot.

        Raises:
            NotFoundError: There is none of this id.
            IntegrityError: Its bytes are not those that were written, or they belong to another snapshot.
        """
        if name not in self._records:
            self._records[name], self._previous[name] = self._access.read_snapshot(name)
        return self._records[name]

    def all(self) -> Iterator[SnapshotRecord]:
        """Read all snapshots, newest first; damaged ones are passed over with a warning."""
        return (point.record for point in self.points())

    def points(self) -> Iterator[Point]:
        """Read all snapshots with their ids, newest first; damaged ones are passed over with a warning."""
        for name in reversed(self.names()):
            try:
                yield Point(name, self.read(name))
            except (ArchivedError, IntegrityError, FormatError) as error:
                _LOG.warning("snapshot %s is passed over: %s", name, error)
            except NotFoundError:
                continue  # forgotten by another process since it was listed

    def save(self, record: SnapshotRecord) -> str:
        """Write a snapshot: the commit. Every pack that it names must be stored already.

        Returns:
            Its id.
        """
        name = snapshot_id(record)
        previous = self._newest() if self._access.encrypted else ""
        key = snapshot_key(name)
        try:
            self._access.storage.add(key, [self._access.protection.close_record(encode(record), key, previous)])
        except FileExistsError:  # by its name it is the same; if it is damaged, it is replaced
            self._access.write_record(key, record, previous)
        self._records[name], self._previous[name], self._saved = record, previous, name
        return name

    def replace(self, name: str, record: SnapshotRecord) -> None:
        """Write a snapshot anew, whose content has moved to other packs."""
        self._access.write_record(snapshot_key(name), record, self.previous(name))
        self._records[name] = record

    def put_back(self, record: SnapshotRecord) -> str:
        """Write a snapshot that another copy of the repository still had, also where something damaged stands.

        Returns:
            Its id.
        """
        name = snapshot_id(record)
        self._access.write_record(snapshot_key(name), record, self._newest(but=name) if self._access.encrypted else "")
        self._records.pop(name, None)
        return name

    def _newest(self, but: str = "") -> str:
        """Name a snapshot that is there, whose absence whoever reads the next one will notice.

        It must be readable: what somebody else has put there would be remembered in the place of a real one.
        """
        names = [name for name in self.names() if name != but]
        if self._saved in names:
            return self._saved
        return next((name for name in reversed(names) if self.readable(name)), "")

    def previous(self, name: str) -> str:
        """Give the snapshot that was there when this one was written; empty if that was not noted."""
        self.read(name)
        return self._previous[name]

    def forget(self, names: Sequence[str]) -> None:
        """Remove snapshots; the packs that only they needed are for `prune`."""
        if names and self._access.encrypted:
            expected = [self.previous(name) for name in names if self.readable(name)]
            self.note_forgotten(Forgotten(snapshots=tuple(names), expected=tuple(filter(None, expected))))
        for name in names:
            self._records.pop(name, None)
            self._access.storage.delete(snapshot_key(name))

    def locked(self, names: Iterable[str]) -> dict[str, Lock]:
        """Tell which snapshots may not be deleted yet, since their bucket protects them."""
        keys = {snapshot_key(name): name for name in names}
        return {keys[lock.key]: lock for lock in self._access.storage.locks(keys)}

    def readable(self, name: str) -> bool:
        """Return whether a snapshot can be read."""
        try:
            self.read(name)
        except (ArchivedError, IntegrityError, FormatError, NotFoundError):
            return False
        return True

    def note_forgotten(self, record: Forgotten) -> str:
        """Note that snapshots are removed on purpose; give the key of the note."""
        key = dated_key(FORGOTTEN)
        self._access.write_record(key, record)
        return key

    def forgotten(self) -> Iterator[tuple[str, Forgotten]]:
        """Read which snapshots were removed on purpose; notes that cannot be read are passed over with a warning."""
        return self._access.readable_records(list(self._access.storage.keys(FORGOTTEN)), Forgotten)

    def stored(self) -> dict[str, datetime]:
        """Tell when each snapshot was written, by the storage's own clock; where it does not say, it is left out."""
        return {
            found[1]: datetime.fromtimestamp(entry.modified, UTC)
            for entry in self._access.storage.entries(SNAPSHOTS)
            if 0 < entry.modified < _END_OF_TIME and (found := SNAPSHOT_NAME.fullmatch(entry.key))
        }
