"""Replacing the data key of a repository, for when an old key or passphrase may have become known."""

from __future__ import annotations

import contextlib
import logging
import secrets

from fsspec.callbacks import Callback

from novabackup import founding
from novabackup.copying import Copier, Paces, loose_packs
from novabackup.errors import ChangedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.model import Condemned, Forgotten, Pin, Sealed, decode, snapshot_id
from novabackup.objects import Objects, snapshot_key

__all__ = ["reencrypt"]

_LOG = logging.getLogger("novabackup")

_RECENT = 4


def reencrypt(objects: Objects, callback: Callback) -> tuple[str, ...]:
    """Seal everything with a new data key.

    Nothing is lost when this is interrupted: until the last snapshot is sealed anew, the slot of the key at hand holds
    the old data key, too, and calling it again goes on. Nobody else may write to the repository meanwhile.

    Args:
        objects: The repository.
        callback: Told of the bytes of files that have been dealt with.

    Returns:
        Labels of the keys that do not open the repository any more, since their data key is gone; add them again.

    Raises:
        ConfigurationError: It is not encrypted.
        IntegrityError: Something cannot be read, and would be lost with its data key; nothing is taken away.
    """
    opened = objects.opened
    if not opened.slot:
        raise ConfigurationError(f"{objects.url} is not encrypted, so there is no data key to replace")
    if len(opened.data_keys) == 1:
        objects.replace_slot([secrets.token_bytes(32), *opened.data_keys])
    newest = objects.opened.data_keys[:1]
    _snapshots(objects, callback)
    kinds: list[tuple[str, type[Condemned | Forgotten | Pin]]] = [
        ("condemned", Condemned),
        ("forgotten", Forgotten),
        ("pins", Pin),
    ]
    for folder, kind in kinds:
        for key in objects.record_keys(folder):
            with contextlib.suppress(FileNotFoundError):
                objects.write_record(key, objects.read_record(key, kind)[0])
    for pack in loose_packs(objects):
        if _is_old(objects, pack):  # asked while the old key is still at hand
            objects.delete_pack(pack)
    objects.replace_slot(newest)
    others = [(name, slot) for name, slot in founding.slots(objects.storage) if name != opened.slot]
    for name, _slot in others:
        founding.remove_slot(objects.storage, name)
    return tuple(slot.label for _name, slot in others)


def _snapshots(objects: Objects, callback: Callback) -> None:
    """Seal all snapshots and their content with the newest key."""
    names = objects.names()
    sizes = {name: sum(entry.size for entry in objects.record(name).files) for name in names}  # all can be read
    callback.set_size(sum(sizes.values()))
    done = [name for name in names if _is_done(objects, name)]
    recent = [objects.record(name) for name in done[-_RECENT:]]
    with Copier(objects, objects, recent, loose_packs(objects), Paces()) as copier:
        for name in names:
            if name in done:
                callback.relative_update(sizes[name])
                continue
            copied = copier.bring(objects.record(name), callback)
            if copied is None:
                raise ChangedError(f"{objects.url}: expected packs that stay. Let no prune run beside this")
            if snapshot_id(copied) != name:
                raise IntegrityError(f"snapshot {name} says things that this version of novabackup would lose: upgrade")
            objects.replace(name, copied)
            _LOG.info("snapshot %s of %s is sealed with the new data key", name, objects.url)


def _is_old(objects: Objects, pack: str) -> bool:
    try:
        return objects.table(pack).seal.key != objects.protection.key
    except (IntegrityError, FormatError):
        return False  # damaged: left for people to look at


def _is_done(objects: Objects, name: str) -> bool:
    key = objects.protection.key
    try:
        sealed = decode(objects.storage.read(snapshot_key(name)), Sealed, name)
        return sealed.key == key and all(objects.table(pack).seal.key == key for pack in objects.record(name).packs)
    except (FileNotFoundError, NotFoundError):
        return True  # forgotten since it was listed
