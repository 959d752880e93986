"""Plan how to bring a store to the state of a snapshot; change nothing."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping

import attrs

from novabackup._support import html
from novabackup._support.paths import above, matches
from novabackup._support.tables import TableData, Tabular
from novabackup.errors import ConfigurationError, NotFoundError, printable
from novabackup.format.records import FileEntry, FolderEntry, LinkEntry, SnapshotRecord
from novabackup.storage import Entry, Folder, Item, Link, Other, Storage

_NAMED = 5
"""Names in an error message, at most."""


class Step(enum.StrEnum):
    """What a restore does with one file, link or folder."""

    KEEP = "keep"
    """It is the very version that the snapshot has."""
    WRITE = "write"
    """It differs or is missing: the version of the snapshot is written."""
    SET_ASIDE = "set aside"
    """The snapshot does not have it: it is removed if the repository holds it, and moved aside otherwise.

    A folder is removed if it is empty in the end, and stays otherwise."""
    LEAVE_OUT = "leave out"
    """The target cannot hold it: there are no links and folders on an object store."""


class Kind(enum.StrEnum):
    """What an action is about."""

    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


@attrs.frozen(kw_only=True)
class Action:
    """What is done with one file, link or folder.

    Attributes:
        step: What is done.
        path: The file, link or folder.
        kind: Which of them it is.
        size: Bytes that are written.
        replaces: What is at the path now will be gone.
        in_the_way: What is at the path now is of another kind, and is removed or set aside first.
    """

    step: Step
    path: str
    kind: Kind = Kind.FILE
    size: int = 0
    replaces: bool = False
    in_the_way: bool = False


@attrs.frozen(kw_only=True)
class RestorePlan(Tabular):
    """What a restore would do.

    Attributes:
        snapshot: Id of the snapshot.
        store: URL of the store that it is restored to.
        actions: One for each file, link and folder.
        warnings: What may not load here once it is restored, as text.
    """

    snapshot: str
    store: str
    actions: tuple[Action, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change the store."""
        return tuple(action for action in self.actions if action.step in (Step.WRITE, Step.SET_ASIDE))

    @property
    def replaces(self) -> bool:
        """Whether anything that is in the store now will be gone."""
        return any(action.replaces for action in self.actions)

    def paths(self, step: Step | str, kind: Kind | str = Kind.FILE) -> tuple[str, ...]:
        """Return the paths of one step: of files, or of links or folders."""
        return tuple(action.path for action in self.actions if action.step == step and action.kind == kind)

    def of(self, step: Step, kind: Kind) -> tuple[Action, ...]:
        """Return the actions of one step and kind."""
        return tuple(action for action in self.actions if action.step is step and action.kind is kind)

    def _table(self) -> TableData:
        rows = [(str(action.step), str(action.kind), action.path, html.size(action.size)) for action in self.actions]
        return f"Restore of {self.snapshot} to {self.store}", ["step", "kind", "file", "bytes to write"], rows


_Known = FileEntry | LinkEntry | FolderEntry


def plan(
    snapshot: str, record: SnapshotRecord, storage: Storage, live: Mapping[str, Item], paths: Collection[str] = ()
) -> RestorePlan:
    """Decide what to do with each file, link and folder.

    Args:
        snapshot: Id of the snapshot.
        record: Its record.
        storage: Where it is restored to; not touched.
        live: What is at the declared paths now.
        paths: Files, links and folders to limit the restore to, with the folders that they are in; empty for all.

    Raises:
        NotFoundError: A path is not in the snapshot.
        ConfigurationError: The target cannot hold a name.
    """
    known = {entry.path: entry for entry in record.items}
    require_paths(snapshot, known, paths)
    wanted = {path for path in [*known, *live] if not paths or any(matches(path, wish) for wish in paths)}
    if paths:
        around = {folder for path in wanted for folder in above(path)} - wanted
        wanted |= {path for path in around if isinstance(known.get(path), FolderEntry) and path not in live}
    actions = [_action(path, known.get(path), live.get(path), storage) for path in sorted(wanted)]
    todo = tuple(action for action in actions if action is not None)
    _refuse_names(snapshot, storage, [action.path for action in todo if action.step is Step.WRITE])
    return RestorePlan(snapshot=snapshot, store=storage.url, actions=todo)


def require_paths(snapshot: str, known: Collection[str], paths: Collection[str]) -> None:
    """Raise a `NotFoundError` if a path or pattern matches none of the paths of a snapshot."""
    for path in paths:
        if not any(matches(name, path) for name in known):
            names = printable(", ".join(sorted(known))) or "no files at all"
            raise NotFoundError(f"snapshot {snapshot} has no file {path!r}; it has {names}")


def _refuse_names(snapshot: str, storage: Storage, paths: Collection[str]) -> None:
    refused = [(path, reason) for path in paths if (reason := storage.refuses(path))]
    if refused:
        some = "; ".join(f"{path!r}: {reason}" for path, reason in refused[:_NAMED])
        raise ConfigurationError(
            f"{storage.url} cannot hold {len(refused)} of the names in snapshot {snapshot} ({some}). Restore it to a "
            "local folder, or the other files with paths="
        )


def _action(path: str, entry: _Known | None, now: Item | None, storage: Storage) -> Action | None:
    if entry is None:
        if isinstance(now, Other):
            return None  # snapshots do not record such files, so it may have been there
        return Action(step=Step.SET_ASIDE, path=path, kind=_kind_of(now), replaces=not isinstance(now, Folder))
    kind, expected, same = _kinds[type(entry)]
    if expected not in storage.kinds:
        return Action(step=Step.LEAVE_OUT, path=path, kind=kind)
    if isinstance(now, expected) and same(entry, now):
        return Action(step=Step.KEEP, path=path, kind=kind)
    in_the_way = now is not None and not isinstance(now, expected)
    return Action(
        step=Step.WRITE,
        path=path,
        kind=kind,
        size=entry.size if isinstance(entry, FileEntry) else 0,
        replaces=in_the_way or (now is not None and kind is not Kind.FOLDER),
        in_the_way=in_the_way,
    )


def _kind_of(now: Item | None) -> Kind:
    return Kind.LINK if isinstance(now, Link) else Kind.FOLDER if isinstance(now, Folder) else Kind.FILE


def _same_file(entry: FileEntry, now: Entry) -> bool:
    return bool(entry.identity) and now.identity == entry.identity


def _same_link(entry: LinkEntry, now: Link) -> bool:
    if entry.target != now.target:
        return False
    wanted = entry.attributes
    # A link has no permission bits.
    return wanted is None or attrs.evolve(wanted, mode=now.attributes.mode) == now.attributes


def _same_folder(entry: FolderEntry, now: Folder) -> bool:
    return entry.attributes in (None, now.attributes)


_kinds: dict[type, tuple[Kind, type[Item], Callable[..., bool]]] = {
    FileEntry: (Kind.FILE, Entry, _same_file),
    LinkEntry: (Kind.LINK, Link, _same_link),
    FolderEntry: (Kind.FOLDER, Folder, _same_folder),
}
