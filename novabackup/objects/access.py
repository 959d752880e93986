"""Access to one repository: opening it, or creating it where there is nothing; reading and writing single records."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from novabackup.errors import FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import CONFIG_KEY, FOREIGN, SNAPSHOTS, dated_key, is_foreign, snapshot_key, snapshot_names
from novabackup.format.records import Config, KeySlot, Record, SnapshotRecord, decode, encode
from novabackup.format.sealing import Protection
from novabackup.keys import Key
from novabackup.objects.slots import Opened, create, open_with, read_config, rewrite_config, still_opens, write_slot
from novabackup.storage import Storage

_LOG = logging.getLogger("novabackup")
_Record = TypeVar("_Record")


class Access:
    """Opens one repository, and reads and writes single records as it is sealed."""

    def __init__(self, storage: Storage, key: Key | None = None) -> None:
        """Work on a storage, without touching it yet.

        Args:
            storage: Where the repository is, or will be.
            key: What opens it if it is encrypted, or is to open it once it is created.
        """
        self.storage = storage
        self.has_key = key is not None
        self._key = key
        self._opened: Opened | None = None
        self._caches: list[Callable[[], None]] = []

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self.storage.url

    @property
    def opened(self) -> Opened:
        """How the repository is sealed, and which key opened it.

        Raises:
            NotFoundError: There is no repository.
            DecryptionError: It is encrypted, and the key does not open it.
            ConfigurationError: It is not encrypted, and a key was given.
            FormatError: It is of a newer format.
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
        """Whether the storage alone reveals nothing."""
        return bool(self.protection.key)

    def on_reseal(self, clear: Callable[[], None]) -> None:
        """Register a cache to clear when everything may have been sealed with another data key."""
        self._caches.append(clear)

    def reopen(self, key: Key, slot: str, wrapped: KeySlot) -> None:
        """Continue with another key, of the slot that is named."""
        self._key, self._opened = key, attrs.evolve(self.opened, slot=slot, wrapped=wrapped)

    def replace_slot(self, data_keys: Sequence[bytes]) -> None:
        """Let the current key open the repository with other data keys, the newest first."""
        assert self._key is not None
        self._opened = write_slot(self.storage, self._key, self.opened, data_keys)

    def require(self) -> None:
        """Require a repository to read, and open it.

        A lost or damaged ``config.json`` is no obstacle while there are packs and snapshots, which have all that is
        needed.

        Raises:
            NotFoundError: There is none.
            FormatError: It is of a newer format.
            DecryptionError: It is encrypted, and the key does not open it.
        """
        config = None
        try:
            config = read_config(self.storage)
        except FileNotFoundError:
            if not self.names():
                raise NotFoundError(
                    f"there is no repository at {self.url}: expected a {CONFIG_KEY} there and found none. "
                    "Check the URL; a repository is created by its first backup"
                ) from None
            _LOG.warning("%s/%s is missing; the snapshots are read without it", self.url, CONFIG_KEY)
        except IntegrityError as error:
            self._refuse_foreign_config(error)
            _LOG.warning("%s; the snapshots are read without it", error.args[0])
        self._open(config)

    def ensure(self) -> str:
        """Require a repository to write to, and create it where there is nothing.

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
            config = self._create()
        except IntegrityError as error:
            self._refuse_foreign_config(error)
            raise IntegrityError(
                f"{error.args[0]}, or rename it: the next backup rewrites it from what the snapshots say",
                error.problems,
            ) from error
        self._open(config)
        return config.id

    def _open(self, config: Config | None) -> None:
        if self._opened is not None and not still_opens(self.storage, self._opened):
            self._opened = None
            for clear in self._caches:
                clear()
        if self._opened is None:
            self._opened = open_with(self.storage, self._key, config)

    def _refuse_foreign_config(self, error: IntegrityError) -> None:
        """Distinguish a damaged repository from a folder that has another program's ``config.json``."""
        if not self.names():
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected a {CONFIG_KEY} of novabackup, found another "
                "one and no snapshots. Check the URL, or choose another folder"
            ) from error

    def _create(self) -> Config:
        if names := self.names():
            # Only the config is lost. The key knows the id best, since snapshots may be copies from elsewhere.
            self._open(None)
            listed = map(snapshot_key, reversed(names))
            readable = (record for _key, record in self.readable_records(listed, SnapshotRecord))
            known = self.opened.wrapped or next(readable, None)
            kept = known.repository if known else secrets.token_hex(16)
            rewrite_config(self.storage, kept, encrypted=self.encrypted)
            return read_config(self.storage)
        keys = [entry.key for entry in self.storage.entries()]
        if any(map(is_foreign, keys)):
            found = ", ".join(sorted({key.partition("/")[0] for key in keys} & FOREIGN))
            raise FormatError(
                f"{self.url} is not a novabackup repository: expected an empty folder or a {CONFIG_KEY}, found "
                f"{found}. Choose another folder"
            )
        self._opened = create(self.storage, self._key, secrets.token_hex(16))
        return read_config(self.storage)

    def names(self) -> list[str]:
        """List the ids of all existing snapshots, oldest first, readable or not."""
        return snapshot_names(list(self.storage.keys(SNAPSHOTS)))

    # -- single records ----------------------------------------------------------------------------------------------

    def record_keys(self, folder: str) -> list[str]:
        """List the keys of records in a folder."""
        return [key for key in self.storage.keys(folder) if key.endswith(".json")]

    def read_record(self, key: str, kind: type[_Record]) -> tuple[_Record, bytes, str]:
        """Read a record.

        Args:
            key: Under which key.
            kind: Its class.

        Returns:
            The record, its unsealed bytes, and the snapshot that it names as its predecessor.

        Raises:
            FileNotFoundError: There is none.
            IntegrityError: It is damaged, or was not sealed for that place.
            FormatError: It is of a newer format.
        """
        where = f"{self.url}/{key}"
        data, previous = self.protection.open_record(self.storage.read(key), key, where)
        return decode(data, kind, where), data, previous

    def readable_records(self, keys: Iterable[str], kind: type[_Record]) -> Iterator[tuple[str, _Record]]:
        """Read records with their keys; damaged ones are skipped with a warning, deleted ones silently."""
        for key in keys:
            try:
                yield key, self.read_record(key, kind)[0]
            except (IntegrityError, FormatError) as error:
                _LOG.warning("%s is skipped: %s", key, error)
            except FileNotFoundError:
                continue

    def write_record(self, key: str, record: Record, previous: str = "") -> None:
        """Write a record, sealed as the repository is."""
        self.storage.write(key, [self.protection.close_record(encode(record), key, previous)])

    def write_dated(self, folder: str, record: Record) -> str:
        """Write a record under a new key that tells the time; return the key."""
        key = dated_key(folder, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", secrets.token_hex(8))
        self.write_record(key, record)
        return key
