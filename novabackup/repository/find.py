"""Find snapshots by what users type: an id, its beginning, ``latest``, a time, a store."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import datetime

from novabackup._support.text import first_of
from novabackup.components import Component, Files, Tree
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.records import SIDE_TAGS, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.repository.snapshot import Snapshot
from novabackup.storage import open_storage
from novabackup.store import layouts
from novabackup.store.store import IndexStore

_LATEST = "latest"
_LAYOUTS = (layouts.NOVA, layouts.NOVA_VEHICLE, layouts.NOVA_MULTI_DOMAIN)


def resolve(objects: Objects, name: str) -> str:
    """Return the id of the one snapshot that a name means."""
    names = objects.records.names()
    if name == _LATEST:
        points = objects.records.newest_first()
        newest = next((point.id for point in points if was_meant(point.record.tags)), None)
        if newest is None:
            raise NotFoundError(f"{objects.url} has no snapshot yet, so there is no latest one")
        return newest
    # People type the beginning of the time or of the hash.
    found = [known for known in names if known.startswith(name) or known.partition("-")[2].startswith(name)]
    if not name or not found:
        last = f"the newest is {names[-1]}" if names else "it has none"
        raise NotFoundError(f"{objects.url} has no snapshot {name!r}: {last}. List them with snapshots()")
    if len(found) > 1 and name not in found:
        raise NotFoundError(
            f"{name!r} is the beginning of {len(found)} snapshots: {first_of(found)}. Give more of the id"
        )
    return name if name in found else found[0]


def taken_by(url: str, snapshots: Sequence[Snapshot], time: datetime) -> Snapshot:
    """Return the newest of some snapshots, oldest first, that was taken by a time and holds what a store kept."""
    found = [snapshot for snapshot in snapshots if was_meant(snapshot.tags)]
    stores = sorted({snapshot.store for snapshot in found})
    if len(stores) > 1:
        raise ConfigurationError(
            f"{url} has snapshots of {len(stores)} stores, so the time alone names none: pass store=, one of "
            f"{', '.join(stores)}"
        )
    by_then = [snapshot for snapshot in found if snapshot.time <= time]
    if not by_then:
        moments = [moment.astimezone(time.tzinfo) for moment in (time, *(snapshot.time for snapshot in found[:1]))]
        asked, *oldest = [moment.isoformat(" ", "seconds") for moment in moments]
        has = f"the oldest is of {oldest[0]}" if oldest else "it has none"
        raise NotFoundError(f"{url} has no snapshot of {asked} or before: {has}")
    return by_then[-1]


def url_of(store: str | os.PathLike[str] | IndexStore | None) -> str | None:
    """Return the URL of a store that a user passes."""
    if isinstance(store, str | os.PathLike):
        return open_storage(store).url
    return None if store is None else store.url


def name_of(snapshot: str | Snapshot) -> str:
    """Return the id of a snapshot that a user passes."""
    return snapshot.id if isinstance(snapshot, Snapshot) else snapshot


def was_meant(tags: Collection[str]) -> bool:
    """Return whether a snapshot holds what a store was meant to hold, not what a rollback or restore replaced."""
    return SIDE_TAGS.isdisjoint(tags)


def components_of(record: SnapshotRecord) -> tuple[Component, ...]:
    """Return the ready-made layout with the paths of a snapshot, or the known components, or plain files."""
    for layout in _LAYOUTS:
        if {component.path for component in layout} == set(record.declared):
            return layout
    known = {component.path: component for component in layouts.NOVA_INSTALLATION}
    components = [known.get(path) or _by_name(path, record) for path in record.declared]
    beside = {path for component in components for path in component.beside}
    return tuple(component for component in components if component.path not in beside)


def _by_name(path: str, record: SnapshotRecord) -> Component:
    return Tree(path) if path in record.trees else Files(path, optional=True)
