"""Replace the data key of a repository whose key or passphrase may have leaked: `execute`."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator, Sequence

from fsspec.callbacks import Callback

from novabackup.errors import ChangedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import snapshot_key
from novabackup.format.records import (
    Condemned,
    Drill,
    Forgotten,
    Pin,
    Point,
    Sealed,
    SnapshotRecord,
    decode,
    snapshot_id,
)
from novabackup.objects import slots
from novabackup.objects.objects import Objects
from novabackup.operations.copy import Copier, Paces, loose_packs

_LOG = logging.getLogger("novabackup")

_RECENT = 4
_Small = Condemned | Drill | Forgotten | Pin
_SMALL: tuple[tuple[str, type[_Small]], ...] = (
    ("condemned", Condemned),
    ("drills", Drill),
    ("forgotten", Forgotten),
    ("pins", Pin),
)


def execute(objects: Objects, callback: Callback) -> tuple[str, ...]:
    """Seal everything with a new data key.

    Nothing is lost if this is interrupted: until the last snapshot is sealed again, the slot of the current key holds
    the old data key, too, and calling it again continues. No other process may write to the repository meanwhile.

    Args:
        objects: The repository.
        callback: Progress in bytes (an fsspec callback).

    Returns:
        Labels of the keys that no longer open the repository, since their data key is gone; add them again.

    Raises:
        ConfigurationError: It is not encrypted.
        IntegrityError: Something cannot be read, and would be lost with its data key; nothing is removed.
    """
    opened = objects.access.opened
    if not opened.slot:
        raise ConfigurationError(f"{objects.url} is not encrypted, so there is no data key to replace")
    # Before a new key exists: a key that cannot read everything must not begin, or only it could read what it writes.
    _require_readable(objects)
    if len(opened.data_keys) == 1:
        objects.access.replace_slot([secrets.token_bytes(32), *opened.data_keys])
    newest = objects.access.opened.data_keys[:1]
    done: set[str] = set()
    while names := [
        name for name in objects.records.names() if name not in done
    ]:  # another process may have added some
        _snapshots(objects, names, callback)
        done.update(names)
    for folder, kind in _SMALL:
        for key in objects.access.record_keys(folder):
            with contextlib.suppress(FileNotFoundError):
                objects.access.write_record(key, objects.access.read_record(key, kind)[0])
    for pack in loose_packs(objects):
        if _is_old(objects, pack):  # while the old key is still available
            objects.packs.delete(pack)
    others = [(name, slot) for name, slot in slots.slots(objects.storage, opened.repository) if name != opened.slot]
    # While the slot of the current key still shows that this is unfinished: nobody must rely on keys that open nothing.
    for name, slot in others:
        _LOG.warning("key %s (%r) does not open %s any more", name, slot.label, objects.url)
        slots.remove_slot(objects.storage, name)
    objects.access.replace_slot(newest)
    return tuple(slot.label for _name, slot in others)


def _require_readable(objects: Objects) -> None:
    """Read every record: one that cannot be read would be lost with its data key."""
    for _name, _record in _records(objects, objects.records.names()):
        pass
    for folder, kind in _SMALL:
        for key in objects.access.record_keys(folder):
            with contextlib.suppress(FileNotFoundError):
                objects.access.read_record(key, kind)


def _snapshots(objects: Objects, names: Sequence[str], callback: Callback) -> None:
    """Seal snapshots and their content with the newest data key."""
    there = dict(_records(objects, names))
    sizes = {name: record.size for name, record in there.items()}
    callback.set_size(sum(sizes.values()))
    done = [name for name in there if _is_done(objects, name)]
    recent = [there[name] for name in done[-_RECENT:]]
    with Copier(objects, objects, recent, loose_packs(objects), Paces()) as copier:
        for name, record in there.items():
            if name in done:
                callback.relative_update(sizes[name])
                continue
            copied = copier.bring(record, callback)
            if copied is None:
                raise ChangedError(f"{objects.url}: expected packs that stay. Let no prune run meanwhile")
            if snapshot_id(copied) != name:
                raise IntegrityError(f"snapshot {name} has fields that this version of novabackup would lose: upgrade")
            objects.records.replace(Point(name, copied))
            _LOG.info("snapshot %s of %s is sealed with the new data key", name, objects.url)


def _records(objects: Objects, names: Sequence[str]) -> Iterator[tuple[str, SnapshotRecord]]:
    for name in names:
        with contextlib.suppress(NotFoundError):  # forgotten since it was listed
            yield name, objects.records.read(name)


def _is_old(objects: Objects, pack: str) -> bool:
    try:
        return objects.packs.table(pack).seal.key != objects.access.protection.key
    except (IntegrityError, FormatError):
        return False  # damaged: kept for inspection


def _is_done(objects: Objects, name: str) -> bool:
    key = objects.access.protection.key
    try:
        sealed = decode(objects.storage.read(snapshot_key(name)), Sealed, name)
        return sealed.key == key and all(
            objects.packs.table(pack).seal.key == key for pack in objects.records.read(name).packs
        )
    except (FileNotFoundError, NotFoundError):
        return True  # forgotten since it was listed
