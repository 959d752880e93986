"""What is in a repository: its snapshots, found and listed; and whether all of it is in order."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support.text import first_of
from novabackup.components import Component, Files, Tree
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.records import SIDE_TAGS, Point, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.operations import check as verification
from novabackup.operations import usage
from novabackup.operations.usage import Usage
from novabackup.repository.snapshot import Origin, Snapshot, Snapshots
from novabackup.storage import open_storage
from novabackup.store import layouts
from novabackup.store.reports import Problems
from novabackup.store.store import IndexStore

__all__ = ["Catalog", "name_of", "protocol", "url_of"]

_LATEST = "latest"
_LAYOUTS = (layouts.NOVA, layouts.NOVA_VEHICLE, layouts.NOVA_MULTI_DOMAIN)


class Catalog:
    """What `Repository` can tell without changing anything."""

    def __init__(self, objects: Objects, storage_options: Mapping[str, Any]) -> None:
        """Look at a repository; nothing is read yet.

        Args:
            objects: What is there.
            storage_options: What the storage was opened with.
        """
        self._objects = objects
        self._storage_options = dict(storage_options)
        self._stores: dict[str, IndexStore] = {}

    @property
    def url(self) -> str:
        """Where the repository is, without credentials."""
        return self._objects.url

    def snapshots(
        self, *, tags: Iterable[str] = (), store: str | os.PathLike[str] | IndexStore | None = None
    ) -> Snapshots:
        """List snapshots, oldest first; damaged ones are left out with a warning, and named by `check`.

        Args:
            tags: Only those that have all of these.
            store: Only those of this store: a path, a URL or the store itself.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.access.require()
        wanted = {tags} if isinstance(tags, str) else set(tags)
        url = url_of(store)
        return Snapshots(
            self._snapshot(point)
            for point in reversed(list(self._objects.records.newest_first()))
            if wanted <= set(point.record.tags) and url in (None, point.record.store)
        )

    def __getitem__(self, name: str) -> Snapshot:
        """Find a snapshot by its id, the beginning of its id, or ``"latest"``.

        The latest is the newest that holds what a store was meant to hold: not what a failed block left behind, nor
        what a restore replaced, so that restoring the latest twice is the same as restoring it once.

        Raises:
            TypeError: The name is not text: for positions, use `snapshots`.
            NotFoundError: There is none, or several begin like this.
            IntegrityError: It is damaged.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"a snapshot is found by its id, not by {name!r}. For positions: repository.snapshots()[-1]"
            )
        self._objects.access.require()
        return self._snapshot(self._objects.records.point(self._resolve(name)))

    def at(self, time: datetime, *, store: str | os.PathLike[str] | IndexStore | None = None) -> Snapshot:
        """Find the snapshot that says what a store held at a time: the newest that was taken by then.

        What a failed block left behind, and what a restore replaced, is passed over, since the store did not keep it.

        Args:
            time: With its time zone.
            store: A path, a URL or the store itself; may be left out where all snapshots are of one store.

        Raises:
            NotFoundError: There is no repository, or no snapshot that old.
            ConfigurationError: The time has no zone, or there are snapshots of several stores and none is named.
        """
        if time.tzinfo is None:
            raise ConfigurationError(f"{time} has no time zone, so it names no moment: use time.astimezone()")
        found = [snapshot for snapshot in self.snapshots(store=store) if _was_meant(snapshot.tags)]
        stores = sorted({snapshot.store for snapshot in found})
        if len(stores) > 1:
            raise ConfigurationError(
                f"{self.url} has snapshots of {len(stores)} stores, so the time alone names none: pass store=, one of "
                f"{', '.join(stores)}"
            )
        by_then = [snapshot for snapshot in found if snapshot.time <= time]
        if not by_then:
            moments = [moment.astimezone(time.tzinfo) for moment in (time, *(snapshot.time for snapshot in found[:1]))]
            asked, *oldest = [moment.isoformat(" ", "seconds") for moment in moments]
            there = f"the oldest is of {oldest[0]}" if oldest else "it has none"
            raise NotFoundError(f"{self.url} has no snapshot of {asked} or before: {there}")
        return by_then[-1]

    def _resolve(self, name: str) -> str:
        names = self._objects.records.names()
        if name == _LATEST:
            points = self._objects.records.newest_first()
            newest = next((point.id for point in points if _was_meant(point.record.tags)), None)
            if newest is None:
                raise NotFoundError(f"{self.url} has no snapshot yet, so there is no latest one")
            return newest
        # The time and the hash are both natural beginnings for a person to type.
        found = [known for known in names if known.startswith(name) or known.partition("-")[2].startswith(name)]
        if not name or not found:
            last = f"the newest is {names[-1]}" if names else "it has none"
            raise NotFoundError(f"{self.url} has no snapshot {name!r}: {last}. List them with snapshots()")
        if len(found) > 1 and name not in found:
            raise NotFoundError(
                f"{name!r} is the beginning of {len(found)} snapshots: {first_of(found)}. Give more of the id"
            )
        return name if name in found else found[0]

    def _names(self, what: str | Snapshot | Iterable[str | Snapshot]) -> list[str]:
        named = [what] if isinstance(what, str | Snapshot) else what
        return [self._resolve(name_of(item)) for item in named]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is exactly one snapshot that ``repo[name]`` would find."""
        if isinstance(name, Snapshot):
            name = name.id
        if not isinstance(name, str):
            return False
        self._objects.access.require()
        try:
            self._resolve(name)
        except NotFoundError:
            return False
        return True

    def __len__(self) -> int:
        self._objects.access.require()
        return len(self._objects.records.names())

    def __bool__(self) -> bool:
        return True  # a repository is something even when it is empty or not there yet

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots())

    def stored_bytes(self) -> int:
        """Add up the packs, also those that no snapshot needs any more; they are listed for it.

        Raises:
            NotFoundError: There is no repository here.
        """
        self._objects.access.require()
        return sum(entry.size for _pack, entry in self._objects.packs.entries())

    def usage(self, *, callback: Callback = DEFAULT_CALLBACK) -> Usage:
        """Tell what the repository holds and what it takes: snapshots, bytes, packs, and what sharing saves.

        Args:
            callback: Told of the packs; the table of each is read.

        Raises:
            NotFoundError: There is no repository here.
            IntegrityError: A pack that a snapshot needs, or a snapshot, is damaged: nothing could be counted rightly.
        """
        return usage.measure(self._objects, callback)

    def check(self, *, read_data_subset: str | None = None, callback: Callback = DEFAULT_CALLBACK) -> Problems:
        """Check that every snapshot can be read and that every pack that it names is there.

        Args:
            read_data_subset: Also read packs and check every byte: ``"100%"`` for all, ``"10%"`` for a random tenth,
                ``"2/7"`` for the second of seven parts, so that seven runs read everything.
            callback: Told of the packs.

        Returns:
            The problems; empty for a healthy repository. A snapshot that a problem concerns is named in it.

        Raises:
            NotFoundError: There is no repository here.
            ConfigurationError: The subset cannot be understood.
        """
        return verification.execute(self._objects, read_data_subset, callback)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _snapshot(self, point: Point) -> Snapshot:
        return Snapshot(self._origin(), point, self._stores.get(point.record.store))

    def _origin(self) -> Origin:
        return Origin(objects=self._objects, open_store=self._open_store, open_repository=self.opener())

    def opener(self) -> Callable[[str], Objects]:
        """Give a function that opens the repository a journal names: this one if it is the same."""

        def open_(url: str) -> Objects:
            if url == self.url:
                return self._objects
            return Objects(open_storage(url, self._options_for(url)))

        return open_

    def _options_for(self, url: str) -> Mapping[str, Any]:
        """Credentials are handed on only within one kind of backend, never to another."""
        return self._storage_options if protocol(url) == protocol(self.url) else {}

    def _open_store(self, record: SnapshotRecord) -> IndexStore:
        """Open the store that a snapshot names, when the program has not shown it to this object."""
        return IndexStore(
            record.store,
            components=_components(record),
            exclude=record.excluded,
            storage_options=self._options_for(record.store),
        )

    def __repr__(self) -> str:
        return f"Repository({self.url!r})"

    def _repr_html_(self) -> str:
        try:
            shown = self.snapshots()._repr_html_()
        except NotFoundError:
            shown = "<p>nothing there yet: a repository comes into being with its first backup</p>"
        return f"<p>{html.escape(self.url)}</p>{shown}"


def url_of(store: str | os.PathLike[str] | IndexStore | None) -> str | None:
    """Give the URL of a store out of what users pass."""
    if isinstance(store, str | os.PathLike):
        return open_storage(store).url
    return None if store is None else store.url


def name_of(snapshot: str | Snapshot) -> str:
    """Give the id out of what users pass."""
    return snapshot.id if isinstance(snapshot, Snapshot) else snapshot


def _was_meant(tags: Collection[str]) -> bool:
    """Tell a snapshot of what a store was to hold from one of what was in the way of that."""
    return SIDE_TAGS.isdisjoint(tags)


def _components(record: SnapshotRecord) -> tuple[Component, ...]:
    """Find the ready-made layout with these paths, or their components in an installation; others are known by name."""
    for layout in _LAYOUTS:
        if {component.path for component in layout} == set(record.declared):
            return layout
    known = {component.path: component for component in layouts.NOVA_INSTALLATION}
    components = [known.get(path) or _by_name(path, record) for path in record.declared]
    beside = {path for component in components for path in component.beside}
    return tuple(component for component in components if component.path not in beside)


def _by_name(path: str, record: SnapshotRecord) -> Component:
    return Tree(path) if path in record.trees else Files(path, optional=True)


def protocol(url: str) -> str:
    """Give the kind of backend that a URL names; ``file`` for a path."""
    found = re.match(r"([a-z0-9+]+)://", url)
    return found[1] if found else "file"
