"""Which files, links and folders belong to a store: those that are declared and not excluded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from novabackup._support.paths import RESERVED, above, covered, fixed_part, is_pattern, matches
from novabackup.components import Component
from novabackup.errors import ConfigurationError
from novabackup.format.records import SnapshotRecord
from novabackup.storage import Entry, Item, Link, Storage

__all__ = ["DeclaredFile", "Selection", "below", "find", "find_all", "is_in", "without_crossed_links"]


@attrs.frozen
class DeclaredFile:
    """A file that exists, and the component that declares it."""

    component: Component
    entry: Entry


@attrs.frozen(kw_only=True)
class Selection:
    """What belongs to a store.

    Attributes:
        declared: Paths and patterns.
        trees: Those of them that select links and folders, too.
        excluded: Patterns of files and folders that patterns do not select; a plain path is never excluded.
    """

    declared: tuple[str, ...]
    trees: frozenset[str] = frozenset()
    excluded: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: SnapshotRecord) -> Selection:
        """Return the selection of a store when a snapshot was taken of it."""
        return cls(declared=record.declared, trees=frozenset(record.trees), excluded=record.excluded)

    def selects(self, path: str) -> bool:
        """Return whether a path belongs to the store."""
        return path in self.declared or (
            any(matches(path, pattern) for pattern in self.declared) and not covered(path, self.excluded)
        )


def below(root: str, url: str) -> str | None:
    """Return the path of a URL below a root; None if it is elsewhere."""
    root = root.rstrip("/") + "/"
    return url[len(root) :].rstrip("/") if url.startswith(root) else None


def is_in(folder: str | None, key: str) -> bool:
    """Return whether a key is a folder or below it; False if the folder is None."""
    return folder is not None and (key == folder or key.startswith(f"{folder}/"))


def find(storage: Storage, path: str, selection: Selection, hidden: str | None = None) -> list[Item]:
    """Find what a declared path or pattern selects, without novabackup's own files.

    Args:
        storage: Where the store is.
        path: A declared path or pattern.
        selection: What belongs to the store.
        hidden: A folder that does not belong to it, such as that of a repository.
    """
    if not is_pattern(path):
        try:
            return [storage.entry(path)]
        except FileNotFoundError:
            return []

    enter = _Entering(selection.excluded, hidden)
    prefix = fixed_part(path)
    if path not in selection.trees:
        return [entry for entry in storage.entries(prefix) if matches(entry.key, path) and enter(entry.key)]
    top = storage.look(prefix) if prefix else None
    found: list[Item] = []
    if top is not None and matches(prefix, path) and enter(prefix):
        found.append(top)
        if isinstance(top, Link):
            return found
    return found + [item for item in storage.walk(prefix, enter) if matches(item.key, path) and enter(item.key)]


class _Entering:
    """Decides whether a key is part of a store; called for every file, so each folder is decided once."""

    def __init__(self, excluded: tuple[str, ...], hidden: str | None) -> None:
        self._excluded = excluded
        self._hidden = hidden
        self._folders: dict[str, bool] = {}

    def __call__(self, key: str) -> bool:
        folder = key.rpartition("/")[0]
        if folder and folder not in self._folders:
            self._folders[folder] = self(folder)
        return (
            (not folder or self._folders[folder])
            and key not in (RESERVED, self._hidden)
            and not any(matches(key, pattern) for pattern in self._excluded)
        )


def find_all(storage: Storage, selection: Selection, also: Iterable[str], outside: str) -> dict[str, Item]:
    """Find everything that belongs to a store and exists now.

    Args:
        storage: Where the store is.
        selection: What belongs to it.
        also: Paths that are looked up even if nothing selects them.
        outside: URL of the repository, whose files are no part of the store.

    Returns:
        Items by path. If a declared plain path is no file, but for example a folder or a link out of the store, an
        entry without size and identity stands for the obstacle.
    """
    hidden = below(storage.url, outside)
    live: dict[str, Item] = {}
    for path in sorted(selection.declared, key=is_pattern):  # a plain path is followed, not taken for a link
        try:
            found = find(storage, path, selection, hidden)
        except ConfigurationError:
            found = _with_links_out(storage, path, selection, hidden) if is_pattern(path) else [_obstacle(path)]
        for one in found:
            live.setdefault(one.key, one)
    for path in also:
        if path not in live and not selection.selects(path):
            try:
                item = storage.look(path)
            except ConfigurationError:
                item = _obstacle(path)
            if item is not None:
                live[path] = item
    return without_crossed_links({key: item for key, item in live.items() if not is_in(hidden, key)})


def without_crossed_links(items: Mapping[str, Item]) -> dict[str, Item]:
    """Leave out links that lead to other items: they are followed, so they are no items of their own."""
    links = [key for key, item in items.items() if isinstance(item, Link)]
    crossed = {folder for key in items for folder in above(key)} if links else set()
    return {key: item for key, item in items.items() if not (isinstance(item, Link) and key in crossed)}


def _with_links_out(storage: Storage, path: str, selection: Selection, hidden: str | None) -> list[Item]:
    """Find what a pattern selects although a link leads out of the store, as after an ingest that created one."""
    everything = attrs.evolve(selection, trees=frozenset({path}))
    found: list[Item] = []
    for item in find(storage, path, everything, hidden):
        if isinstance(item, Link):
            try:
                found.append(storage.entry(item.key))
            except FileNotFoundError:
                continue
            except ConfigurationError:
                found.append(_obstacle(item.key))
        elif isinstance(item, Entry):
            found.append(item)
    return found


def _obstacle(path: str) -> Entry:
    return Entry(key=path, size=0, identity="", modified=0.0)
