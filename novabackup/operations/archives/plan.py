"""What an import would do: which files of an archive belong to the store, and of what time they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import attrs

from novabackup._support import html
from novabackup._support.paths import RESERVED, is_pattern, matches, unsafe
from novabackup._support.tables import TableData, Tabular
from novabackup._support.text import first_of
from novabackup.errors import IntegrityError, NotFoundError
from novabackup.format.records import Problem

_SHOWN = 20
_DATE = re.compile(r"(?<!\d)(\d{4})(\d\d)(\d\d)(?:[_T-]?(\d\d)(\d\d)(\d\d))?(?!\d)")
_WRITTEN = re.compile(r"novabackup snapshot \S+ of (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?\+00:00)")
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=1)
"""Clocks and time zones of other hosts may be wrong."""


@attrs.frozen(kw_only=True)
class Intake:
    """A file that is imported.

    Attributes:
        path: Where it belongs in the store.
        source: What it is called in the archive, or in the folder.
        size: In bytes.
    """

    path: str
    source: str
    size: int


@attrs.frozen(kw_only=True)
class ImportPlan(Tabular):
    """What an import would do.

    Attributes:
        source: URL of the archive, or of the folder.
        store: URL of the store whose state it is.
        time: When the store had this state, in UTC.
        root: The folder in the archive that corresponds to the store, with a trailing slash; empty for the top.
        files: What would be imported.
        left_out: Other files of the archive, which no component of the store declares.
        problems: Why the import will be refused; empty if it will not.
        vouched: A ``.sha256`` file beside the archive has its checksum, which is right.
    """

    source: str
    store: str
    time: datetime
    root: str = ""
    files: tuple[Intake, ...]
    left_out: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    vouched: bool = False

    @property
    def size(self) -> int:
        """Bytes of the files that would be imported."""
        return sum(file.size for file in self.files)

    def require(self, declared: Collection[str]) -> None:
        """Check that this can be imported.

        Args:
            declared: What the store declares, for the message.

        Raises:
            IntegrityError: There are problems.
            NotFoundError: There are no files of this store.
        """
        if self.problems:
            raise IntegrityError(
                f"{self.source} holds what an archive of {self.store} cannot hold. Nothing was imported. If you trust "
                "it, unpack it with tar, inspect it, and back up the folder",
                self.problems,
            )
        if not self.files:
            raise NotFoundError(
                f"{self.source} holds none of the files of {self.store}: expected {', '.join(declared)}, found "
                f"{first_of(self.left_out) or 'nothing'}. Declare other components, or say with root= which folder of "
                "it is the store"
            )

    def _table(self) -> TableData:
        rows = [("import", file.path, html.size(file.size)) for file in self.files]
        rows += [("refuse", ", ".join(problem.paths), problem.message) for problem in self.problems]
        rows += [("leave out", name, "") for name in self.left_out[:_SHOWN]]
        if len(self.left_out) > _SHOWN:
            rows.append(("leave out", f"{len(self.left_out) - _SHOWN} more", ""))
        when = f"{self.time:%Y-%m-%d %H:%M:%S} UTC"
        return f"Import of {self.source} as {self.store} of {when}", ["what", "file", ""], rows


# -- where files belong ----------------------------------------------------------------------------------------------


def tidy(name: str) -> str | None:
    """Return the name of a member without ``./`` and double slashes; None if it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        return None
    return "/".join(parts)


def choose_root(names: Collection[str], declared: Collection[str], store: str = "") -> str:
    """Find the folder of an archive that corresponds to the store: the one with most of what is declared.

    Args:
        names: Tidy names of the regular files.
        declared: Paths and patterns of the components.
        store: Name of the store's own folder.

    Returns:
        The folder with a trailing slash; empty for the top.
    """
    places = _by_file_name(declared)
    found: defaultdict[str, set[str]] = defaultdict(set)
    exact: defaultdict[str, int] = defaultdict(int)
    for name in names:
        folder, _, last = name.rpartition("/")
        paths = places.get(last, ())
        for path in paths:
            if f"/{name}".endswith(f"/{path}"):
                root = name[: -len(path)]
                found[root].add(path)
                exact[root] += 1
        if len(paths) == 1:
            found[f"{folder}/" if folder else ""].add(paths[0])
    if found:
        return min(found, key=lambda root: (-len(found[root]), -exact[root], root.count("/"), root))
    # Only patterns can tell: either everything is in one folder, or the store is at the top.
    tops = {name.partition("/")[0] for name in names}
    top = tops.pop() if len(tops) == 1 else ""
    inside, outside = (len(place(names, root, declared)) for root in (f"{top}/", ""))
    named = top != "" and (top == store or named_time(top, UTC) is not None)
    return f"{top}/" if inside > outside or (inside == outside and named) else ""


def place(names: Iterable[str], root: str, declared: Collection[str], hidden: str | None = None) -> dict[str, str]:
    """Map paths of the store to names in the archive.

    A declared path is found where it is. Beyond that, a file at the top of the root belongs to the one component with
    that file name: Nova's own script copies ``vector_db/faiss_index.bin`` and ``.env`` into one flat folder.

    Args:
        names: Tidy names of the regular files.
        root: The folder that corresponds to the store.
        declared: Paths and patterns of the components.
        hidden: Where the repository is, if it is within the store: its files are no index files.
    """
    fixed = {path for path in declared if not is_pattern(path)}
    patterns = [path for path in declared if is_pattern(path)]
    places = _by_file_name(declared)
    placed: dict[str, str] = {}
    flat: dict[str, str] = {}
    for name in names:
        if not name.startswith(root):
            continue
        path = name[len(root) :]
        if path.partition("/")[0] == RESERVED or (hidden is not None and path.startswith(hidden)):
            continue
        if path in fixed or any(matches(path, pattern) for pattern in patterns):
            placed[path] = name
        elif len(paths := places.get(path, ())) == 1:
            flat[paths[0]] = name
    return {**flat, **placed}


def _by_file_name(declared: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """List declared paths, but not patterns, by file name."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in declared:
        if not is_pattern(path):
            places[path.rpartition("/")[2]].append(path)
    return places


def impossible(path: str) -> str | None:
    """Return why a path cannot be one of a store, or None."""
    reason = unsafe(path)
    if reason is None:
        try:
            path.encode()
        except UnicodeEncodeError:
            reason = "it is not valid Unicode"
    return reason


# -- what time it is of ----------------------------------------------------------------------------------------------


def named_time(name: str, zone: tzinfo | None) -> tuple[datetime, bool] | None:
    """Read the time in a file's name, as ``date +%Y%m%d_%H%M%S`` writes it.

    Args:
        name: Such as ``nova-backup-20260125_143000.tar.gz``.
        zone: Its time zone; None for that of this host, as it was on that day.

    Returns:
        The time in UTC and whether it is exact; else it is the beginning of a day. None if there is no date.
    """
    found = _DATE.search(name)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(number or 0) for number in found.groups())
    try:
        time = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        return time.astimezone(UTC), found[4] is not None  # a time without a zone counts as one of this host
    except (ValueError, OverflowError):
        return None


def moment(name: str, zone: tzinfo | None, modified_ns: Iterable[int], otherwise: float) -> datetime:
    """Decide of what time an archive is: as its name says; if that is only a day, or nothing, by its newest file.

    Args:
        name: Its file name.
        zone: Time zone of the name; None for that of this host.
        modified_ns: When the files in it were changed; 0 where that is not known.
        otherwise: When the archive itself was changed, in seconds since the epoch.
    """
    newest = datetime.fromtimestamp(max(modified_ns, default=0) // 10**9 or otherwise, UTC)
    named = named_time(name, zone)
    if named is None:
        return newest
    time, exact = named
    return newest if not exact and time < newest < time + timedelta(days=1) else time


def written_time(comment: str) -> datetime | None:
    """Read the time that novabackup writes into the header of its own archives; None if there is none."""
    found = _WRITTEN.fullmatch(comment)
    try:
        return datetime.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def is_plausible(time: datetime) -> bool:
    """Return whether a time is possible: one in the future would make a snapshot the latest one for years."""
    return _FIRST <= time <= datetime.now(UTC) + _AHEAD
