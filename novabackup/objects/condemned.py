"""Packs that `prune` will delete: condemning them, and reading what is condemned."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator

from novabackup.errors import ConfigurationError
from novabackup.format.layout import CONDEMNED, clock_key
from novabackup.format.records import Condemned
from novabackup.objects.access import Access
from novabackup.storage import Entry


def condemned(access: Access) -> Iterator[tuple[Entry, Condemned]]:
    """Read what `prune` has condemned; a record that cannot be read condemns nothing."""
    # Without the objects that a killed `storage_time` left there.
    entries = {entry.key: entry for entry in access.storage.entries(CONDEMNED) if entry.key.endswith(".json")}
    return ((entries[key], record) for key, record in access.readable_records(entries, Condemned))


def condemn(access: Access, packs: Iterable[str]) -> None:
    """Record that packs will be deleted when a grace period has passed and still no snapshot names them."""
    access.write_dated(CONDEMNED, Condemned(packs=tuple(sorted(packs))))


def storage_time(access: Access) -> float:
    """Return the time of the storage's own clock, in seconds since the epoch.

    Raises:
        ConfigurationError: The storage does not say when objects were written.
    """
    key = clock_key(secrets.token_hex(8))
    try:
        now = access.storage.write(key, [b""]).modified
    finally:
        access.storage.delete(key)
    if now <= 0:
        raise ConfigurationError(f"{access.url} does not say when objects were written, so nothing can be pruned there")
    return now
