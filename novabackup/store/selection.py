"""Which of the things in a place belong to a store: what is declared there, without what is left out."""

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
        excluded: Patterns of what a pattern does not select, with all that is below; a plain path is never left out.
    """

    declared: tuple[str, ...]
    trees: frozenset[str] = frozenset()
    excluded: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: SnapshotRecord) -> Selection:
        """Give what belonged to a store when a snapshot was taken of it."""
        return cls(declared=record.declared, trees=frozenset(record.trees), excluded=record.excluded)

    def selects(self, path: str) -> bool:
        """Tell whether a thing with this path would have been found."""
        return path in self.declared or (
            any(matches(path, pattern) for pattern in self.declared) and not covered(path, self.excluded)
        )


def below(root: str, url: str) -> str | None:
    """Give the folder below a root that a URL names; None if it is elsewhere."""
    root = root.rstrip("/") + "/"
    return url[len(root) :].rstrip("/") if url.startswith(root) else None


def is_in(folder: str | None, key: str) -> bool:
    """Tell whether a key is a folder or below it; nothing is in None."""
    return folder is not None and (key == folder or key.startswith(f"{folder}/"))


def find(storage: Storage, path: str, selection: Selection, hidden: str | None = None) -> list[Item]:
    """Find what a declared path or pattern names, without novabackup's own.

    Args:
        storage: Where the store is.
        path: One of those that are declared.
        selection: What belongs to the store.
        hidden: A folder in it that does not, such as that of a repository.
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
    """Tells whether something is part of a store; called for every file, so each folder is looked at once."""

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
    """Find what is there now.

    Args:
        storage: Where the store is.
        selection: What belongs to it.
        also: Paths that are looked up even if nothing selects them.
        outside: URL of the repository, whose files are nobody's index files.

    Returns:
        Each thing by its path. Where something else than a file stands under a path that is declared by itself, such as
        a folder or a link out of the store, an entry of no size and identity says that it is in the way.
    """
    hidden = below(storage.url, outside)
    live: dict[str, Item] = {}
    for path in sorted(selection.declared, key=is_pattern):  # what is named by itself is not taken for a link
        try:
            found = find(storage, path, selection, hidden)
        except ConfigurationError:
            found = _as_it_stands(storage, path, selection, hidden) if is_pattern(path) else [_obstacle(path)]
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
    """Leave out links that something else is reached through: they are followed, so they are nothing of their own."""
    links = [key for key, item in items.items() if isinstance(item, Link)]
    crossed = {folder for key in items for folder in above(key)} if links else set()
    return {key: item for key, item in items.items() if not (isinstance(item, Link) and key in crossed)}


def _as_it_stands(storage: Storage, path: str, selection: Selection, hidden: str | None) -> list[Item]:
    """Find what a pattern names where a link leads out of the store, as after an ingest that made one."""
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
