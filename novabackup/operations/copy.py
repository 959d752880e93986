"""Copy snapshots to another repository, which may have other keys; send only what it lacks: `plan` and `execute`."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import attrs
import numpy as np
from fsspec.callbacks import Callback

from novabackup._support import html
from novabackup._support.rate import RateLimit
from novabackup._support.tables import TableData, Tabular
from novabackup._support.threads import Workers, cores
from novabackup.errors import (
    ArchivedError,
    ChangedError,
    ConfigurationError,
    FormatError,
    IntegrityError,
    NotFoundError,
)
from novabackup.format.layout import snapshot_key
from novabackup.format.packs import Codec, Compression, Frame, Piece, Table, opened_frame
from novabackup.format.records import FileEntry, Problem, SnapshotRecord, snapshot_id
from novabackup.objects.known_chunks import NOWHERE, UNKNOWN, Places, following, split
from novabackup.objects.objects import Objects
from novabackup.objects.packer import Packer
from novabackup.objects.packs import neighbours
from novabackup.objects.reader import read_file
from novabackup.store.secrets import LARGEST, require_accepted, secret_content, secret_name

_LOG = logging.getLogger("novabackup")

_RECENT = 4
"""Snapshots of each store whose packs are searched for content that the target has already."""
_TRIES = 3
_NAMED = 5
_ARCHIVED = "archived"
_LOADS_AHEAD = 2


@attrs.frozen(kw_only=True)
class CopyPlan(Tabular):
    """What `copy` would do.

    Attributes:
        copy: Ids of the snapshots to copy, oldest first.
        there: Ids of those that the other repository has already.
        damaged: Ids of those that cannot be read; `copy` copies the others, then raises an error.
        size: Bytes of all files of the snapshots to copy; less is sent, as most of it is shared.
    """

    copy: tuple[str, ...]
    there: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    size: int

    def _table(self) -> TableData:
        kinds = (("copy", self.copy), ("exists", self.there), ("damaged", self.damaged))
        rows = [(kind, name) for kind, names in kinds for name in names]
        return f"Copy, {html.size(self.size)} before sharing", ["what", "snapshot"], rows


def plan(source: Objects, names: Iterable[str], target: Objects) -> CopyPlan:
    """Find which snapshots the target lacks; it need not exist yet."""
    try:
        target.access.require()
    except NotFoundError:
        there: set[str] = set()
    else:
        there = {point.id for point in target.records.newest_first()}
    wanted = sorted(set(names))
    size = 0
    missing, damaged = [], []
    for name in wanted:
        if name in there:
            continue
        try:
            size += source.records.read(name).size
        except (IntegrityError, FormatError) as error:
            _LOG.warning("snapshot %s cannot be copied: %s", name, error)
            damaged.append(name)
        else:
            missing.append(name)
    return CopyPlan(
        copy=tuple(missing), there=tuple(name for name in wanted if name in there), damaged=tuple(damaged), size=size
    )


@attrs.frozen(kw_only=True)
class Paces:
    """Rate limits: called with a number of bytes before they are read from the source or sent to the target."""

    reading: Callable[[int], object] = int
    sending: Callable[[int], object] = int

    @classmethod
    def of(cls, limit: float | None) -> Paces:
        """Limit reading and sending to some bytes per second each; None does not limit."""
        if limit is None:
            return cls()
        if not limit > 0:
            raise ConfigurationError(
                f"expected a limit of more than 0 bytes a second, or None for no limit, found {limit}"
            )
        return cls(reading=RateLimit(limit), sending=RateLimit(limit))


def execute(source: Objects, todo: CopyPlan, target: Objects, paces: Paces, callback: Callback) -> None:
    """Execute a plan. Each snapshot is committed on its own, so an interrupted copy is continued by copying again.

    The target is created if it does not exist.

    Raises:
        IntegrityError: Content of the source is damaged; snapshots that do not need it were copied.
        ArchivedError: Content of the source has to be thawed first; snapshots that do not need it were copied.
        ChangedError: Another process prunes the target all the time.
        ConfigurationError: Files hold secrets that others could read in the target.
    """
    unread = _refuse_secrets(source, todo, target)
    target.access.ensure()
    callback.set_size(todo.size)
    left = {name: source.records.read(name) for name in todo.copy if name not in unread}
    alike = source.access.protection.key == target.access.protection.key
    problems = [_problem(name, "its record cannot be read") for name in todo.damaged]
    problems += [_problem(name, error) for name, error in unread.items()]
    for _try in range(_TRIES):
        stores = {record.store for record in left.values()}
        recent = _recent(target, stores)
        with Copier(source, target, recent, loose_packs(target), paces) as copier:
            for record in [] if alike else recent:  # otherwise chunks are found by their hashes
                copier.learn(record)
            for name, record in list(left.items()):
                try:
                    if not _carry(copier, source, name, record, target, callback):
                        break
                except (ArchivedError, IntegrityError, FormatError) as error:
                    problems.append(_problem(name, error))
                del left[name]
                callback.absolute_update(todo.size - sum(one.size for one in left.values()))
        if not left:
            break
    else:
        raise ChangedError(
            f"{target.url}: expected packs that stay, found that some were condemned in each of {_TRIES} tries. Let no "
            "prune run during a copy"
        )
    if not problems:
        return
    failed = (
        f"{len(problems)} of {len(todo.copy) + len(todo.damaged)} snapshots of {source.url} could not be copied to "
        f"{target.url}; the others were."
    )
    if all(problem.code == _ARCHIVED for problem in problems):
        names = ", ".join(path for problem in problems[:_NAMED] for path in problem.paths)
        raise ArchivedError(f"{failed} Thaw those whose content lies in an archive first: {names}")
    raise IntegrityError(f"{failed} Repair the source from another copy, or forget what is damaged", problems)


def _carry(
    copier: Copier, source: Objects, name: str, record: SnapshotRecord, target: Objects, callback: Callback
) -> bool:
    """Copy one snapshot; return False if it has to be tried again."""
    copied = copier.bring(record, callback)
    if copied is None or copier.too_late():
        _LOG.info("packs of %s were condemned meanwhile, or may have been: trying again", target.url)
        return False
    require_lossless(name, copied)
    target.records.save(copied)
    _LOG.info("snapshot %s was copied to %s, %d bytes added", name, target.url, copied.added)
    return True


def require_lossless(name: str, record: SnapshotRecord) -> None:
    """Raise a `FormatError` if a record that is to be written again has lost fields of a newer version."""
    if snapshot_id(record) != name:
        raise FormatError(f"snapshot {name} has fields that this version of novabackup would lose: upgrade novabackup")


def _problem(name: str, what: Exception | str) -> Problem:
    code = _ARCHIVED if isinstance(what, ArchivedError) else "damaged"
    message = what if isinstance(what, str) else str(what.args[0])
    return Problem(code=code, paths=(snapshot_key(name),), message=message)


def _refuse_secrets(source: Objects, todo: CopyPlan, target: Objects) -> dict[str, Exception]:
    """Refuse passwords and keys that others could read in the target; return the snapshots that cannot be read."""
    unread: dict[str, Exception] = {}
    if not target.exposed:
        return unread
    secrets: dict[str, str] = {}
    looked: dict[tuple[str, str], str | None] = {}
    for name in todo.copy:
        for entry in source.records.read(name).files:
            known = (entry.path, entry.blake3)
            if known not in looked:
                small = entry.size <= LARGEST
                try:
                    content = read_file(source, entry) if small else b""
                except (ArchivedError, IntegrityError, FormatError) as error:
                    unread[name] = error
                    continue
                looked[known] = secret_content(entry.path, content) if small else secret_name(entry.path)
            if what := looked[known]:
                secrets[entry.path] = what
    require_accepted(secrets, target.plaintext_secrets, target.url)
    return unread


def loose_packs(objects: Objects) -> list[str]:
    """Find packs that no snapshot names, such as those of an interrupted copy."""
    named = {pack for record in objects.records.all() for pack in record.packs}
    return [pack for pack, _entry in objects.packs.entries() if pack not in named]


def _recent(objects: Objects, stores: set[str]) -> list[SnapshotRecord]:
    found: dict[str, list[SnapshotRecord]] = {store: [] for store in stores}
    for record in objects.records.all():
        if record.store in stores and len(found[record.store]) < _RECENT:
            found[record.store].append(record)
    return [record for records in found.values() for record in records]


class Copier:
    """Copies snapshots, one after the other; remembers where each chunk went. A context manager."""

    def __init__(
        self,
        source: Objects,
        target: Objects,
        recent: Sequence[SnapshotRecord],
        loose: Sequence[str],
        paces: Paces,
    ) -> None:
        """Prepare to share content with some recent snapshots of the target and with loose packs of it."""
        self._source = source
        self._target = target
        self._reading = paces.reading
        self._packer = Packer(target, recent, loose, paces.sending)
        self._went: dict[str, Places] = {}
        """Where each chunk of a pack of the source is in the target."""

    def __enter__(self) -> Copier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._packer.__exit__(kind, error, trace)

    def learn(self, there: SnapshotRecord) -> None:
        """Learn where chunks went from a snapshot of the target that the source can read, too; hashes may differ."""
        with contextlib.suppress(ArchivedError, FormatError, IntegrityError, NotFoundError):
            files = {entry.path: entry for entry in self._source.records.read(snapshot_id(there)).files}
            for other in there.files:
                entry = files[other.path]
                mine, sizes = _chunks(self._source, entry, functools.partial(_counted_in, entry.packs))
                theirs, same = _chunks(self._target, other, self._shared)
                if not np.array_equal(sizes, same):
                    continue  # a copy with other chunks
                numbers, chunks = split(mine)
                for number in np.unique(numbers).tolist():
                    chosen = (numbers == number) & (theirs != UNKNOWN)
                    self._places(entry.packs[number])[chunks[chosen]] = theirs[chosen]

    def _shared(self, pack: str, first: int, count: int) -> Places:
        """Return places of chunks of a pack of the target; `UNKNOWN` if it must not be shared."""
        return self._packer.keep(pack, first, count) if self._packer.shares(pack) else np.full(count, UNKNOWN)

    def bring(self, record: SnapshotRecord, callback: Callback) -> SnapshotRecord | None:
        """Copy the content of a snapshot.

        Returns:
            The record to write to the target; None if packs that it would share were condemned meanwhile.
        """
        before = self._packer.added
        every = [self._source.packs.runs(entry).tolist() for entry in record.files]
        # Of the whole snapshot, since small files share frames.
        needed: dict[str, list[_Range]] = {}
        for entry, runs in zip(record.files, every, strict=True):
            for number, first, count in runs:
                needed.setdefault(entry.packs[number], []).append((first, count))
        places = []
        for entry, runs in zip(record.files, every, strict=True):
            packs = dict.fromkeys(entry.packs[number] for number, _first, _count in runs)
            self._fetch({pack: needed.pop(pack) for pack in packs if pack in needed})
            found = [self._places(entry.packs[number])[first : first + count] for number, first, count in runs]
            places.append(np.concatenate([NOWHERE, *found]))
            callback.relative_update(entry.size)
        locations = self._packer.locate(places)
        self._target.packs.protect(self._packer.shared)
        if self._packer.condemned_meanwhile():
            return None
        files = tuple(location.noted_in(entry) for entry, location in zip(record.files, locations, strict=True))
        return attrs.evolve(record, files=files, added=self._packer.added - before)

    def too_late(self) -> bool:
        """Return whether the last result of `bring` must not be committed any more; see `Packer.too_late`."""
        return self._packer.too_late()

    def _fetch(self, needed: Mapping[str, list[_Range]]) -> None:
        """Copy chunks that the target lacks, given as ranges by pack."""
        loads = [load for pack, ranges in needed.items() for load in self._loads(pack, ranges)]
        parallel = max(cores(), self._source.storage.parallel)
        with Workers(parallel, parallel + _LOADS_AHEAD) as workers:
            for pack, store in workers.each(self._read, loads):
                store(self._packer, self._places(pack))

    def _loads(self, pack: str, ranges: list[_Range]) -> list[_Load]:
        """Find the chunks of a pack that the target lacks, and the frames that hold them."""
        table = self._source.packs.table(pack, reaching=max(first + count for first, count in ranges))
        wanted = np.zeros(len(table), np.bool_)
        for first, count in ranges:
            wanted[first : first + count] = True
        wanted &= self._places(pack) == UNKNOWN
        starts = np.array([frame.first for frame in table.frames], np.int64)
        numbers = np.unique(np.searchsorted(starts, np.flatnonzero(wanted), side="right") - 1)
        frames = [table.frames[number] for number in numbers.tolist()]
        kinds: dict[type[_Load], list[Frame]] = {_Whole: [], _Load: []}
        for frame in frames:
            kinds[_Whole if self._can_stay(table, frame, wanted) else _Load].append(frame)
        return [
            kind(pack=pack, table=table, frames=group, wanted=wanted)
            for kind, chosen in kinds.items()
            for group in neighbours(chosen, self._source.storage.block)
        ]

    def _can_stay(self, table: Table, frame: Frame, wanted: _Wanted) -> bool:
        """Return whether a frame can be copied as it is, without compressing it again."""
        return (
            table.seal.key == self._target.access.protection.key
            and self._target.compression is Compression.FAST  # otherwise it would not be small enough
            and frame.codec in set(Codec)
            and bool(wanted[frame.first : frame.first + frame.chunks].all())
        )

    def _places(self, pack: str) -> Places:
        """Return where each chunk of a pack of the source is in the target, as far as is known."""
        if pack not in self._went:
            table = self._source.packs.table(pack)
            alike = table.seal.key == self._target.access.protection.key
            # Only hashes that were made with the same key can be compared.
            self._went[pack] = self._packer.find(table.hashes) if alike else np.full(len(table), UNKNOWN, np.int64)
        return self._went[pack]

    def _read(self, load: _Load) -> tuple[str, _Store]:
        self._reading(sum(frame.stored for frame in load.frames))
        return load.pack, load.read(self._source)


_Range = tuple[int, int]
"""First chunk, and number of chunks."""
_Wanted = np.ndarray[tuple[int], np.dtype[np.bool_]]
_Store = Callable[[Packer, Places], None]
"""Stores what was read, and records where each chunk went."""


@attrs.frozen(kw_only=True, eq=False)
class _Load:
    """Frames of one pack that are read together; their wanted chunks go into new frames of the target."""

    pack: str
    table: Table
    frames: tuple[Frame, ...]
    wanted: _Wanted

    def read(self, source: Objects) -> _Store:
        """Read the frames."""
        return functools.partial(self._store, source.packs.words(self.pack, self.frames))

    def _store(self, content: list[tuple[memoryview, int]], packer: Packer, went: Places) -> None:
        for frame, opened in zip(self.frames, content, strict=True):
            self._store_chunks(frame, opened, packer, went)

    def _store_chunks(self, frame: Frame, opened: tuple[memoryview, int], packer: Packer, went: Places) -> None:
        """Store the wanted chunks of a frame."""
        wanted = np.flatnonzero(self.wanted[frame.first : frame.first + frame.chunks])
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
            first, stop = int(run[0]), int(run[-1]) + 1
            places = packer.place([piece_of(self.table, frame, opened, first, stop)])
            went[frame.first + first : frame.first + stop] = places


class _Whole(_Load):
    """Frames of which every chunk is wanted: they are copied as they are, without compressing them again."""

    def read(self, source: Objects) -> _Store:
        """Read the frames, still compressed."""
        content = [(packed, self._is_right(frame, packed)) for frame, packed in self._packed(source)]
        return functools.partial(self._keep, content)

    def _packed(self, source: Objects) -> Iterable[tuple[Frame, bytes | memoryview]]:
        return zip(self.frames, source.packs.packed(self.pack, self.frames), strict=True)

    def _is_right(self, frame: Frame, packed: bytes | memoryview) -> bool:
        """Return whether the chunks have the hashes in the table, since content is shared by them."""
        raw, _width = opened_frame(self.pack, self.table.seal, frame, packed)
        start = 0
        for number in range(frame.first, frame.first + frame.chunks):
            end = start + int(self.table.sizes[number])
            if self.table.seal.digest(raw[start:end]) != self.table.hashes[number].tobytes():
                return False
            start = end
        return True

    def _keep(self, content: list[tuple[bytes | memoryview, bool]], packer: Packer, went: Places) -> None:
        for frame, (packed, right) in zip(self.frames, content, strict=True):
            chunks = slice(frame.first, frame.first + frame.chunks)
            sizes, hashes = self.table.sizes[chunks], self.table.hashes[chunks]
            places = packer.place_frame(frame, packed, sizes, hashes) if right else None
            if places is None:  # also if a part of it has been copied meanwhile
                self._store_chunks(frame, opened_frame(self.pack, self.table.seal, frame, packed), packer, went)
            else:
                went[chunks] = places


def piece_of(table: Table, frame: Frame, opened: tuple[memoryview, int], first: int, stop: int) -> Piece:
    """Return the chunks ``first`` to ``stop - 1`` of an opened frame, counted within the frame."""
    content, width = opened
    ends = np.cumsum(table.sizes[frame.first : frame.first + stop], dtype=np.int64)
    start = int(ends[first - 1]) if first else 0
    return Piece(content[start : int(ends[stop - 1])], ends[first:stop] - start, width)


def _counted_in(packs: tuple[str, ...], pack: str, first: int, count: int) -> Places:
    return following(packs.index(pack), first, count)


def _chunks(objects: Objects, entry: FileEntry, name: Callable[[str, int, int], Places]) -> tuple[Places, Places]:
    """Return place and size of each chunk of a file; ``name`` gives the places of consecutive chunks of a pack."""
    places, sizes = [NOWHERE], [NOWHERE]
    for index, first, count in objects.packs.runs(entry).tolist():
        pack = entry.packs[index]
        places.append(name(pack, first, count))
        sizes.append(objects.packs.table(pack, reaching=first + count).sizes[first : first + count].astype(np.int64))
    return np.concatenate(places), np.concatenate(sizes)
