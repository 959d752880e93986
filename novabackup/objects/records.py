"""The snapshot records of a repository.

Packs are written first, the snapshot that names them last; nothing is ever changed. A crash leaves packs that nothing
names, which `prune` removes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from novabackup.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import FORGOTTEN, snapshot_key
from novabackup.format.records import Forgotten, Point, SnapshotRecord, encode, identify, snapshot_id
from novabackup.objects.access import Access

_LOG = logging.getLogger("novabackup")


class Records:
    """Reads and writes the snapshots of one repository. They never change, so what has been read stays true."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._saved = ""
        self._records: dict[str, SnapshotRecord] = {}
        self._previous: dict[str, str] = {}
        access.on_reseal(self._records.clear)
        access.on_reseal(self._previous.clear)

    def names(self) -> list[str]:
        """List the ids of all existing snapshots, oldest first, readable or not."""
        return self._access.names()

    def read(self, name: str) -> SnapshotRecord:
        """Read a snapshot.

        Raises:
            NotFoundError: There is none with this id.
            IntegrityError: Its bytes are not those that were written, or they belong to another snapshot.
        """
        if name not in self._records:
            key = snapshot_key(name)
            try:
                record, data, previous = self._access.read_record(key, SnapshotRecord)
            except FileNotFoundError:
                raise NotFoundError(f"there is no snapshot {name} in {self._access.url}") from None
            found = identify(data)
            if found != name:
                raise IntegrityError(
                    f"{self._access.url}/{key}: expected snapshot {name}, found the record of {found}. "
                    "The object was renamed or replaced"
                )
            self._records[name] = record
            self._previous[name] = previous
        return self._records[name]

    def point(self, name: str) -> Point:
        """Read a snapshot, with its id; see `read`."""
        return Point(name, self.read(name))

    def newest_first(self) -> Iterator[Point]:
        """Read all snapshots; damaged ones are skipped with a warning."""
        for name in reversed(self.names()):
            try:
                yield self.point(name)
            except (ArchivedError, IntegrityError, FormatError) as error:
                _LOG.warning("snapshot %s is skipped: %s", name, error)
            except NotFoundError:
                continue  # forgotten by another process since it was listed

    def all(self) -> Iterator[SnapshotRecord]:
        """Read the records of all snapshots, newest first; damaged ones are skipped with a warning."""
        return (point.record for point in self.newest_first())

    def save(self, record: SnapshotRecord) -> Point:
        """Write a snapshot: the commit. Every pack that it names must be stored already."""
        access = self._access
        name = snapshot_id(record)
        previous = self._newest() if access.encrypted else ""
        key = snapshot_key(name)
        try:
            access.storage.add(key, [access.protection.close_record(encode(record), key, previous)])
        except FileExistsError:  # by its name it is the same; if it is damaged, it is replaced
            access.write_record(key, record, previous)
        self._records[name], self._previous[name], self._saved = record, previous, name
        return Point(name, record)

    def replace(self, point: Point) -> None:
        """Rewrite a snapshot whose content has moved to other packs."""
        self._access.write_record(snapshot_key(point.id), point.record, self.previous(point.id))
        self._records[point.id] = point.record

    def put_back(self, record: SnapshotRecord) -> str:
        """Write a snapshot that another copy of the repository still had, replacing a damaged one; return its id."""
        name = snapshot_id(record)
        previous = self._newest(but=name) if self._access.encrypted else ""
        self._access.write_record(snapshot_key(name), record, previous)
        self._records.pop(name, None)
        return name

    def _newest(self, but: str = "") -> str:
        """Name an existing snapshot, so that its later absence is noticed.

        It must be readable: otherwise a forged object would be named in the place of a real one.
        """
        names = [name for name in self.names() if name != but]
        if self._saved in names:
            return self._saved
        return next((name for name in reversed(names) if self._readable(name)), "")

    def previous(self, name: str) -> str:
        """Return the snapshot that this one names as its predecessor; empty if it names none."""
        self.read(name)
        return self._previous[name]

    def forget(self, names: Sequence[str]) -> None:
        """Remove snapshots; the packs that only they needed are left to `prune`."""
        if names and self._access.encrypted:
            expected = [self.previous(name) for name in names if self._readable(name)]
            note = Forgotten(snapshots=tuple(names), expected=tuple(filter(None, expected)))
            self._access.write_dated(FORGOTTEN, note)
        for name in names:
            self._records.pop(name, None)
            self._access.storage.delete(snapshot_key(name))

    def forgotten(self) -> Iterator[tuple[str, Forgotten]]:
        """Read which snapshots were removed on purpose; records that cannot be read are skipped with a warning."""
        return self._access.readable_records(list(self._access.storage.keys(FORGOTTEN)), Forgotten)

    def named_as_previous(self) -> set[str]:
        """Return the snapshots that readable ones name as their predecessors."""
        return {self.previous(name) for name in self.names() if self._readable(name)}

    def _readable(self, name: str) -> bool:
        try:
            self.read(name)
        except (ArchivedError, IntegrityError, FormatError, NotFoundError):
            return False
        return True
