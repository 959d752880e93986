"""Opening or creating a repository, and reading and writing single records, sealed as the repository is."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import attrs

from novabackup.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import (
    CONDEMNED,
    CONFIG_KEY,
    FOREIGN,
    PACK_NAME,
    SLOT_NAME,
    SNAPSHOT_NAME,
    SNAPSHOTS,
    snapshot_key,
)
from novabackup.format.records import Config, KeySlot, Record, SnapshotRecord, decode, encode, identify
from novabackup.format.sealing import Protection
from novabackup.keys import Key
from novabackup.objects.founding import (
    Opened,
    open_with,
    read_config,
    rewrite_config,
    still_opens,
    write_founding,
    write_slot,
)
from novabackup.storage import Entry, Storage

_LOG = logging.getLogger("novabackup")

_SNAPSHOT_NAMES = re.compile(rf"(?<=\0){SNAPSHOT_NAME.pattern}(?=\0)")
_OURS = re.compile(rf"{PACK_NAME.pattern}|{SNAPSHOT_NAME.pattern}|{CONDEMNED}/.*|{SLOT_NAME.pattern}", re.DOTALL)
_Record = TypeVar("_Record")


class _Cache(Protocol):
    def clear(self) -> None: ...


class Access:
    """Opens one repository, and reads and writes records in it.

    Attributes:
        storage: Where the repository is.
        caches: What has been read with the keys of the repository; cleared when these change.
    """

    def __init__(self, storage: Storage, key: Key | None = None) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            key: What opens it if it is encrypted, or is to open it once it is created.
        """
        self.storage = storage
        self.caches: list[_Cache] = []
        self._key = key
        self._opened: Opened | None = None

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.storage.url

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
    def exposed(self) -> bool:
        """Whether others than the users of this host may be able to read what is in the repository."""
        # A key opens an encrypted repository, or creates one; with any other repository it is an error.
        return self._key is None and self.storage.local_path(CONFIG_KEY) is None

    @property
    def encrypted(self) -> bool:
        """Whether whoever has the storage alone can read nothing."""
        return bool(self.protection.key)

    def reopen(self, key: Key, slot: str, wrapped: KeySlot) -> None:
        """Go on with another key, of the slot that is named."""
        self._key, self._opened = key, attrs.evolve(self.opened, slot=slot, wrapped=wrapped)

    def replace_slot(self, data_keys: Sequence[bytes]) -> None:
        """Let the key at hand open the repository with other data keys, the newest first."""
        assert self._key is not None
        self._opened = write_slot(self.storage, self._key, self.opened, data_keys)

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
        if self._opened is not None and not still_opens(self.storage, self._opened):
            self.forget_cached()
        if self._opened is None:
            self._opened = open_with(self.storage, self._key, config)

    def forget_cached(self) -> None:
        """Trust nothing that has been read so far: all records and packs may have been sealed again."""
        self._opened = None
        for cache in self.caches:
            cache.clear()

    def _refuse_foreign_config(self, error: IntegrityError) -> None:
        """Tell a damaged repository from a folder that has a ``config.json`` of something else."""
        if not self.names():
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected a {CONFIG_KEY} of novabackup, found another "
                "one and no snapshots. Check the URL, or choose another folder"
            ) from error

    def _found(self) -> Config:
        if self.names():
            # A ruin: what it was is told by those who know. The key knows best, since snapshots may be copies.
            self._open(None)
            known = self.opened.wrapped or self._any_snapshot()
            kept = known.repository if known else secrets.token_hex(16)
            rewrite_config(self.storage, kept, encrypted=self.encrypted)
            return read_config(self.storage)
        names = {entry.key.partition("/")[0] for entry in self.storage.entries()}
        if names & FOREIGN and not all(self._is_ours(entry) for entry in self.storage.entries()):
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected an empty folder or a {CONFIG_KEY}, found "
                f"{', '.join(sorted(names & FOREIGN))}. Choose another folder"
            )
        self._opened = write_founding(self.storage, self._key, secrets.token_hex(16))
        return read_config(self.storage)

    @staticmethod
    def _is_ours(entry: Entry) -> bool:
        name = entry.key
        return name.partition("/")[0] not in FOREIGN or bool(_OURS.fullmatch(name))

    def _any_snapshot(self) -> SnapshotRecord | None:
        """Read the newest snapshot that can be read."""
        for name in reversed(self.names()):
            try:
                return self.read_snapshot(name)[0]
            except (ArchivedError, IntegrityError, FormatError) as error:
                _LOG.warning("snapshot %s is passed over: %s", name, error)
            except NotFoundError:
                continue
        return None

    def names(self) -> list[str]:
        """List the ids of all snapshots that are there, oldest first, readable or not."""
        # All at once, since there may be thousands, and each backup looks.
        keys = "\0".join(("", *self.storage.keys(SNAPSHOTS), ""))
        return _SNAPSHOT_NAMES.findall(keys)

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

    def readable_records(self, keys: Iterable[str], kind: type[_Record]) -> Iterator[tuple[str, _Record]]:
        """Read records that may have gone since they were listed; damaged ones are passed over with a warning."""
        for key in keys:
            try:
                yield key, self.read_record(key, kind)[0]
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is passed over: %s", key, error)
            except FileNotFoundError:
                continue

    def record_keys(self, folder: str) -> list[str]:
        """List the keys of records in a folder, without what a killed `clock` left beside them."""
        return [key for key in self.storage.keys(folder) if key.endswith(".json")]

    def read_snapshot(self, name: str) -> tuple[SnapshotRecord, str]:
        """Read a snapshot, and the id of the one that it says was there before it.

        Raises:
            NotFoundError: There is none of this id.
            IntegrityError: Its bytes are not those that were written, or they belong to another snapshot.
        """
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
        return record, previous
