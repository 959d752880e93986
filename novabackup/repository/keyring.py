"""The keys of an encrypted repository: listed, added, changed, removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import attrs

from novabackup._support import html as _html
from novabackup.errors import ArchivedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.format.records import KeySlot
from novabackup.format.sealing import OtherKeyError
from novabackup.keys import Key
from novabackup.objects import slots
from novabackup.objects.objects import Objects
from novabackup.objects.slots import Opened

__all__ = ["KeyInfo", "KeyRing"]


@attrs.frozen(kw_only=True)
class KeyInfo:
    """What is known of one key without having it.

    Attributes:
        id: Names it.
        kind: ``passphrase``, ``file`` or ``external``.
        label: Whose it is.
        time: When it was added.
        current: It is the one that opened the repository just now.
    """

    id: str
    kind: str
    label: str
    time: datetime
    current: bool


class KeyRing:
    """All keys that open a repository.

    Each key can read and write everything. To remove one does not change the data key, which whoever had the key may
    have kept: for that there is `Repository.reencrypt`.
    """

    def __init__(self, objects: Objects) -> None:
        """Made by `Repository.keys`, not by hand.

        Args:
            objects: The repository.
        """
        self._objects = objects

    def __iter__(self) -> Iterator[KeyInfo]:
        opened = self._opened()
        for name, slot in slots.slots(self._objects.storage, opened.repository):
            yield KeyInfo(id=name, kind=slot.kind, label=slot.label, time=slot.time, current=name == opened.slot)

    def __len__(self) -> int:
        return sum(1 for _key in self)

    def add(self, key: Key, label: str = "") -> str:
        """Let another key open the repository, too.

        Args:
            key: The new one.
            label: Whose it is.

        Returns:
            Its id.
        """
        return self._add(key, label)[0]

    def remove(self, id: str) -> None:
        """Take a key away.

        Args:
            id: Which one.

        Raises:
            NotFoundError: There is none.
            ConfigurationError: It is the last one, or the only one that is known to open everything: without it,
                nobody could read that any more.
        """
        opened = self._opened()
        there = {key.id for key in self}
        if id not in there:
            raise NotFoundError(f"{self._objects.url} has no key {id!r}; it has {', '.join(sorted(there))}")
        if len(there) == 1:
            raise ConfigurationError(
                f"{id} is the last key of {self._objects.url}: add another one before you remove it"
            )
        if id == opened.slot and len(opened.data_keys) > 1:
            raise ConfigurationError(
                f"{id} alone opens everything in {self._objects.url}, whose data key is just being replaced: finish "
                "that with reencrypt() first"
            )
        if id != opened.slot and (name := self._not_opened()):
            raise ConfigurationError(
                f"{self._objects.url}: {name} is sealed with a data key that this key does not open, and {id} may be "
                "the only one that does. If somebody is replacing the data key, let reencrypt() be finished first"
            )
        slots.remove_slot(self._objects.storage, id)

    def _not_opened(self) -> str:
        """Name a snapshot that needs another key; empty if there is none."""
        for name in self._objects.records.names():
            try:
                self._objects.records.read(name)
            except OtherKeyError:
                return name
            except (ArchivedError, IntegrityError, FormatError, NotFoundError):
                continue  # damaged or gone, whatever the key
        return ""

    def change(self, key: Key, label: str | None = None) -> str:
        """Replace the key that opened the repository; no data are rewritten.

        Args:
            key: The new one, with which this object works from now on.
            label: Whose it is; by default as before.

        Returns:
            Its id.
        """
        opened = self._opened()
        assert opened.wrapped is not None
        new, slot = self._add(key, opened.wrapped.label if label is None else label)
        # The new one is there before the old one goes: a crash in between leaves both.
        slots.remove_slot(self._objects.storage, opened.slot)
        self._objects.access.reopen(key, new, slot)
        return new

    def _add(self, key: Key, label: str) -> tuple[str, KeySlot]:
        opened = self._opened()
        return slots.add_slot(self._objects.storage, key, opened.data_keys, opened.repository, label)

    def _opened(self) -> Opened:
        self._objects.access.require()  # somebody may have replaced the data key since
        opened = self._objects.access.opened
        if not opened.slot:
            raise ConfigurationError(
                f"{self._objects.url} is not encrypted, so it has no keys. To encrypt what is in it, copy it into a "
                "new repository: Repository(url).copy(to=Repository(other, key=...)), or novabackup copy --to NAME, "
                "with url and key in a table [copies.NAME] of novabackup.toml"
            )
        return opened

    def __repr__(self) -> str:
        return f"KeyRing({self._objects.url!r})"

    def _repr_html_(self) -> str:
        rows = [(key.id, key.kind, key.label, f"{key.time:%Y-%m-%d %H:%M:%S} UTC", key.current) for key in self]
        return _html.table("Keys", ["id", "kind", "label", "added", "opened it"], rows)
