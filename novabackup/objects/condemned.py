"""Packs that no snapshot needs any more and that will be deleted after a grace period."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from novabackup.errors import ConfigurationError
from novabackup.format.layout import CONDEMNED, clock_key, dated_key
from novabackup.format.records import Condemned
from novabackup.objects.objects import Objects
from novabackup.storage import Entry


def listed(objects: Objects) -> Iterator[tuple[Entry, Condemned]]:
    """Read what `prune` has condemned; a record that cannot be read condemns nothing."""
    # Without what a killed `clock` left there.
    entries = {entry.key: entry for entry in objects.storage.entries(CONDEMNED) if entry.key.endswith(".json")}
    return ((entries[key], record) for key, record in objects.access.readable_records(entries, Condemned))


def add(objects: Objects, packs: Iterable[str]) -> None:
    """Say that packs will be deleted when a grace period has passed and still no snapshot names them."""
    objects.access.write_record(dated_key(CONDEMNED), Condemned(packs=tuple(sorted(packs))))


def clock(objects: Objects) -> float:
    """Tell the time by the storage's own clock, in seconds since the epoch.

    Raises:
        ConfigurationError: The storage does not say when objects were written.
    """
    key = clock_key()
    try:
        now = objects.storage.write(key, [b""]).modified
    finally:
        objects.storage.delete(key)
    if now <= 0:
        raise ConfigurationError(
            f"{objects.url} does not tell when objects were written, so nothing can be pruned there"
        )
    return now
