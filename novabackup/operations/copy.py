"""Copying snapshots to another repository, which may have other keys; only what is not there yet is sent."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import attrs
import numpy as np
from fsspec.callbacks import Callback

from novabackup._support import html as _html
from novabackup._support.threads import Workers, cores
from novabackup.errors import ArchivedError, ChangedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.packs import Codec, Compression, Frame, Piece, Table, opened_frame
from novabackup.format.records import FileEntry, Problem, SnapshotRecord, snapshot_id
from novabackup.objects.known_chunks import NOWHERE, UNKNOWN, Places, following, split
from novabackup.objects.packer import Packer
from novabackup.objects.packs import Objects, neighbours, snapshot_key
from novabackup.objects.reader import blocks
from novabackup.storage import Span
from novabackup.store.secrets import LOOKED_INTO, require_leave, secret_content, secret_name

__all__ = ["Copier", "CopyPlan", "Paces", "execute", "loose_packs", "plan"]

_LOG = logging.getLogger("novabackup")

_RECENT = 4
"""Snapshots of each store whose packs are searched for what is there already."""
_TRIES = 3
_NAMED = 5
_ARCHIVED = "archived"
_LOADS_AHEAD = 2


@attrs.frozen(kw_only=True)
class CopyPlan:
    """What `copy` would do.

    Attributes:
        copy: Ids of the snapshots to copy, oldest first.
        there: Ids of those that the other repository has already.
        damaged: Ids of those that cannot be read here; `copy` does the others, then it is an error.
        size: Bytes of all files of the snapshots to copy; what is sent is less, as most of it is shared.
    """

    copy: tuple[str, ...]
    there: tuple[str, ...]
    damaged: tuple[str, ...] = ()
    size: int

    def _repr_html_(self) -> str:
        kinds = (("copy", self.copy), ("is there", self.there), ("is damaged", self.damaged))
        rows = [(kind, name) for kind, names in kinds for name in names]
        return _html.table(f"Copy, {_html.size(self.size)} before sharing", ["what", "snapshot"], rows)


def plan(source: Objects, names: Iterable[str], target: Objects) -> CopyPlan:
    """Find out which snapshots the other repository lacks.

    Args:
        source: Where they are.
        names: Their ids.
        target: Where they go; it need not exist yet.
    """
    try:
        target.require()
    except NotFoundError:
        there: set[str] = set()
    else:
        there = {name for name, _record in target.named_records()}
    wanted = sorted(set(names))
    size = 0
    missing, damaged = [], []
    for name in wanted:
        if name in there:
            continue
        try:
            size += source.record(name).size
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
    """What is called with a number of bytes before they go; may wait.

    Attributes:
        reading: For what is read from the source.
        sending: For what is written to the target.
    """

    reading: Callable[[int], object] = int
    sending: Callable[[int], object] = int


def execute(source: Objects, todo: CopyPlan, target: Objects, paces: Paces, callback: Callback) -> None:
    """Carry a plan out; each snapshot is committed on its own, so whoever is interrupted goes on by copying again.

    Args:
        source: Where the snapshots are.
        todo: Which.
        target: Where they go; it is created if there is nothing yet.
        paces: Hold it back.
        callback: Told of the bytes that have been dealt with.

    Raises:
        IntegrityError: Content of the source is damaged; what does not need it was copied.
        ArchivedError: Content of the source has to be thawed first; what does not need it was copied.
        ChangedError: Somebody prunes the target all the time.
        ConfigurationError: Files hold secrets, and others could read them where they would go.
    """
    unread = _refuse_secrets(source, todo, target)
    target.ensure()
    callback.set_size(todo.size)
    left = {name: source.record(name) for name in todo.copy if name not in unread}
    alike = source.protection.key == target.protection.key
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
            "prune run beside a copy"
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
    raise IntegrityError(f"{failed} Mend the source from another copy, or forget what is damaged", problems)


def _carry(
    copier: Copier, source: Objects, name: str, record: SnapshotRecord, target: Objects, callback: Callback
) -> bool:
    """Copy one snapshot; False if that has to be begun anew."""
    copied = copier.bring(record, callback)
    if copied is None or copier.too_late():
        _LOG.info("packs of %s were condemned meanwhile, or may have been: once more", target.url)
        return False
    if snapshot_id(copied) != name:
        raise FormatError(
            f"snapshot {name} of {source.url} says things that this version of novabackup does not know and would "
            "lose: upgrade novabackup"
        )
    target.save(copied)
    _LOG.info("snapshot %s was copied to %s, %d bytes added", name, target.url, copied.added)
    return True


def _problem(name: str, what: Exception | str) -> Problem:
    code = _ARCHIVED if isinstance(what, ArchivedError) else "damaged"
    message = what if isinstance(what, str) else str(what.args[0])
    return Problem(code=code, paths=(snapshot_key(name),), message=message)


def _refuse_secrets(source: Objects, todo: CopyPlan, target: Objects) -> dict[str, Exception]:
    """Look for passwords and keys, where others could read them; give the snapshots that cannot be looked into."""
    unread: dict[str, Exception] = {}
    if not target.exposed:
        return unread
    secrets: dict[str, str] = {}
    looked: dict[tuple[str, str], str | None] = {}
    for name in todo.copy:
        for entry in source.record(name).files:
            known = (entry.path, entry.blake3)
            if known not in looked:
                small = entry.size <= LOOKED_INTO
                try:
                    content = _all(source, entry) if small else b""
                except (ArchivedError, IntegrityError, FormatError) as error:
                    unread[name] = error
                    continue
                looked[known] = secret_content(entry.path, content) if small else secret_name(entry.path)
            if what := looked[known]:
                secrets[entry.path] = what
    require_leave(secrets, target.plaintext_secrets, target.url)
    return unread


def _all(source: Objects, entry: FileEntry) -> bytes:
    return b"".join(block for block in blocks(source, entry) if not isinstance(block, Span))


def loose_packs(objects: Objects) -> list[str]:
    """Find packs that no snapshot names, such as those of a copy that was interrupted."""
    named = {pack for record in objects.records() for pack in record.packs}
    return [pack for pack, _entry in objects.pack_entries() if pack not in named]


def _recent(objects: Objects, stores: set[str]) -> list[SnapshotRecord]:
    found: dict[str, list[SnapshotRecord]] = {store: [] for store in stores}
    for record in objects.records():
        if record.store in stores and len(found[record.store]) < _RECENT:
            found[record.store].append(record)
    return [record for records in found.values() for record in records]


class Copier:
    """Brings snapshots over, one after the other; remembers where each chunk went. A context manager."""

    def __init__(
        self,
        source: Objects,
        target: Objects,
        recent: Sequence[SnapshotRecord],
        loose: Sequence[str],
        paces: Paces,
    ) -> None:
        """Prepare.

        Args:
            source: Where snapshots come from.
            target: Where they go.
            recent: Snapshots of the target that share content with them.
            loose: Packs of the target that may do so as well.
            paces: Hold it back.
        """
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
        """See from a snapshot that both have where its chunks went, since their hashes may differ.

        Args:
            there: The snapshot, in the target; nothing is learned of one that the source has not, or cannot read.
        """
        with contextlib.suppress(ArchivedError, FormatError, IntegrityError, NotFoundError):
            files = {entry.path: entry for entry in self._source.record(snapshot_id(there)).files}
            for other in there.files:
                entry = files[other.path]
                mine, sizes = _chunks(self._source, entry, functools.partial(_counted_in, entry.packs))
                theirs, same = _chunks(self._target, other, self._shared)
                if not np.array_equal(sizes, same):
                    continue  # a copy that was cut anew
                numbers, chunks = split(mine)
                for number in np.unique(numbers).tolist():
                    chosen = (numbers == number) & (theirs != UNKNOWN)
                    self._places(entry.packs[number])[chunks[chosen]] = theirs[chosen]

    def _shared(self, pack: str, first: int, count: int) -> Places:
        """Name chunks of a pack of the target, `UNKNOWN` if nothing may be shared with it."""
        return self._packer.keep(pack, first, count) if self._packer.shares(pack) else np.full(count, UNKNOWN)

    def bring(self, record: SnapshotRecord, callback: Callback) -> SnapshotRecord | None:
        """Bring the content of a snapshot over.

        Args:
            record: The snapshot, in the source.
            callback: Told of the bytes that have been dealt with.

        Returns:
            The snapshot as it is to be written in the target; None if packs that it would share were condemned
            meanwhile.
        """
        before = self._packer.added
        every = [self._source.runs(entry).tolist() for entry in record.files]
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
        self._target.protect(self._packer.shared)
        if self._packer.condemned_meanwhile():
            return None
        files = tuple(location.noted_in(entry) for entry, location in zip(record.files, locations, strict=True))
        return attrs.evolve(record, files=files, added=self._packer.added - before)

    def too_late(self) -> bool:
        """Tell whether what `bring` gave last must not be committed any more; see `Packer.too_late`."""
        return self._packer.too_late()

    def _fetch(self, needed: Mapping[str, list[_Range]]) -> None:
        """Bring chunks over that are not there yet.

        Args:
            needed: The ranges of chunks by their packs.
        """
        loads = [load for pack, ranges in needed.items() for load in self._loads(pack, ranges)]
        parallel = max(cores(), self._source.storage.parallel)
        with Workers(parallel, parallel + _LOADS_AHEAD) as workers:
            for pack, store in workers.each(self._read, loads):
                store(self._packer, self._places(pack))

    def _loads(self, pack: str, ranges: list[_Range]) -> list[_Load]:
        """Find the chunks of a pack that are not in the target yet, and the frames that hold them."""
        table = self._source.table(pack, reaching=max(first + count for first, count in ranges))
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
        """Tell whether a frame may go into a pack of the target as it is, without being compressed once more."""
        return (
            table.seal.key == self._target.protection.key
            and self._target.compression is Compression.FAST  # for what is to be small it would not be good enough
            and frame.codec in set(Codec)
            and bool(wanted[frame.first : frame.first + frame.chunks].all())
        )

    def _places(self, pack: str) -> Places:
        """Give where each chunk of a pack of the source is in the target, as far as is known."""
        if pack not in self._went:
            table = self._source.table(pack)
            alike = table.seal.key == self._target.protection.key
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
"""Stores what was read, and notes where each chunk of the pack that it came from went."""


@attrs.frozen(kw_only=True, eq=False)
class _Load:
    """Frames of one pack that are read together, and which chunks of the pack are wanted.

    They are taken apart, and the chunks go into frames of the target.
    """

    pack: str
    table: Table
    frames: tuple[Frame, ...]
    wanted: _Wanted

    def read(self, source: Objects) -> _Store:
        """Read the frames."""
        return functools.partial(self._store, source.words(self.pack, self.frames))

    def _store(self, content: list[tuple[memoryview, int]], packer: Packer, went: Places) -> None:
        for frame, (raw, width) in zip(self.frames, content, strict=True):
            self._take_apart(frame, raw, width, packer, went)

    def _take_apart(self, frame: Frame, raw: memoryview, width: int, packer: Packer, went: Places) -> None:
        """Store the wanted chunks of a frame."""
        sizes = self.table.sizes[frame.first : frame.first + frame.chunks]
        ends = np.cumsum(sizes, dtype=np.int64)
        wanted = np.flatnonzero(self.wanted[frame.first : frame.first + frame.chunks])
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
            start = int(ends[run[0] - 1]) if run[0] else 0
            piece = Piece(raw[start : int(ends[run[-1]])], ends[run] - start, width)
            first = frame.first + int(run[0])
            went[first : first + len(run)] = packer.place([piece])


class _Whole(_Load):
    """Frames of which every chunk is wanted: they stay as they are, without being compressed once more."""

    def read(self, source: Objects) -> _Store:
        """Read the frames, still compressed."""
        content = [(packed, self._is_right(frame, packed)) for frame, packed in self._packed(source)]
        return functools.partial(self._keep, content)

    def _packed(self, source: Objects) -> Iterable[tuple[Frame, bytes | memoryview]]:
        return zip(self.frames, source.packed(self.pack, self.frames), strict=True)

    def _is_right(self, frame: Frame, packed: bytes | memoryview) -> bool:
        """Tell whether the chunks have the hashes that the table says, by which others would be taken for them.

        Raises:
            IntegrityError: The frame is not what went in.
        """
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
            if places is None:  # or something of it has gone to the target meanwhile
                raw, width = opened_frame(self.pack, self.table.seal, frame, packed)
                self._take_apart(frame, raw, width, packer, went)
            else:
                went[chunks] = places


def _counted_in(packs: tuple[str, ...], pack: str, first: int, count: int) -> Places:
    return following(packs.index(pack), first, count)


def _chunks(objects: Objects, entry: FileEntry, name: Callable[[str, int, int], Places]) -> tuple[Places, Places]:
    """Give place and size of each chunk of a file; chunks of a pack that follow each other are named by a function."""
    places, sizes = [NOWHERE], [NOWHERE]
    for index, first, count in objects.runs(entry).tolist():
        pack = entry.packs[index]
        places.append(name(pack, first, count))
        sizes.append(objects.table(pack, reaching=first + count).sizes[first : first + count].astype(np.int64))
    return np.concatenate(places), np.concatenate(sizes)
