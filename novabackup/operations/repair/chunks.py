"""Find chunks of damaged packs by their hashes: in what is left of them, in other packs, in other repositories."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import attrs
import numpy as np

from novabackup._support.threads import Workers
from novabackup.errors import ArchivedError, FormatError, IntegrityError
from novabackup.format.packs import Frame, Piece, Table
from novabackup.format.records import FileEntry
from novabackup.objects.condemned import condemned
from novabackup.objects.known_chunks import UNKNOWN, KnownChunks, Places, Runs, following, split
from novabackup.objects.objects import Objects
from novabackup.objects.packer import Packer
from novabackup.operations.copy import piece_of
from novabackup.operations.repair.quarantine import is_damage

_LOG = logging.getLogger("novabackup")

_Content = TypeVar("_Content")
_Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@attrs.frozen(kw_only=True, eq=False)
class Remains:
    """What is left of a damaged pack.

    Attributes:
        pack: Its id.
        objects: The repository, reading the pack from where it is now.
        table: Its table; None if that is lost, and with it the list of its chunks.
        intact: Whether each chunk is intact; shape ``(chunks,)``.
    """

    pack: str
    objects: Objects
    table: Table | None
    intact: _Mask


def remains_of(objects: Objects, pack: str) -> Remains:
    """Read what is left of a damaged pack, from its place and from where it may have been set aside."""
    best = Remains(pack=pack, objects=objects, table=None, intact=np.zeros(0, np.bool_))
    for place in (objects, objects.set_aside()):
        table = _table(place, pack)
        if table is None:
            continue
        intact = np.zeros(len(table), np.bool_)
        for frame in table.frames:
            intact[frame.first : frame.first + frame.chunks] = _is_intact(place, pack, frame)
        if best.table is None or intact.sum() > best.intact.sum():
            best = Remains(pack=pack, objects=place, table=table, intact=intact)
    return best


def _unless_damaged(read: Callable[[], _Content]) -> _Content | None:
    """Return what is read; None if it is damaged or lies in an archive."""
    try:
        return read()
    except (ArchivedError, IntegrityError, FormatError) as error:
        _LOG.debug("%s", error)
    except OSError as error:
        if not is_damage(error):
            raise
    return None


def _table(objects: Objects, pack: str) -> Table | None:
    return _unless_damaged(lambda: objects.packs.table(pack))


def _is_intact(objects: Objects, pack: str, frame: Frame) -> bool:
    return _unless_damaged(lambda: objects.packs.proved(pack, [frame])) is not None


class Salvage:
    """Finds each chunk of the damaged packs; chunks of other repositories have been checked.

    Hashes can be compared with those of repositories that have the same data key, or none.
    """

    def __init__(self, objects: Objects, remains: Iterable[Remains], others: Sequence[Objects]) -> None:
        self._objects = objects
        self._remains = {found.pack: found for found in remains}
        self._others = others
        self._homes: list[tuple[Objects, str]] = []
        self._useless: dict[tuple[int, str], list[Frame]] = {}
        """Damaged frames of other repositories."""
        self._went: dict[str, Places] = {}
        self._origins = self._search()
        while self._some_damaged():
            self._origins = self._search()

    def knows(self, pack: str, reaching: int) -> bool:
        """Return whether the content of a damaged pack is known, at least for so many chunks."""
        return pack in self._origins and reaching <= len(self._origins[pack])

    def lacks(self, pack: str, first: int, count: int) -> int:
        """Count the bytes of chunks that were not found; the pack must be one that is known."""
        table = self._remains[pack].table
        assert table is not None
        lost = self._origins[pack][first : first + count] == UNKNOWN
        return int(table.sizes[first : first + count][lost].sum(dtype=np.int64))

    def sources(self, pack: str, first: int, count: int) -> set[str]:
        """Return the URLs of the repositories that chunks of a damaged pack come from."""
        homes, _chunks = split(self._origins[pack][first : first + count])
        return {self._homes[home][0].url for home in np.unique(homes[homes >= 0]).tolist()}

    def runs(self, entry: FileEntry) -> Runs | None:
        """Return the runs of a file like `Objects.runs`, even if their list was damaged; None if it is lost."""
        if not entry.depth or not any(pack in self._remains for pack, _first, _count in self._named(entry)):
            return self._objects.packs.runs(entry)
        parts = []
        for pack, first, count in self._named(entry):
            if pack not in self._remains:
                parts += [piece.data for piece in _pieces(self._objects, pack, first, count)]
            elif not self.knows(pack, first + count) or self.lacks(pack, first, count):
                return None
            else:
                parts += [piece.data for _at, piece in self._read(pack, np.arange(first, first + count))]
        return self._objects.packs.listed(entry, b"".join(parts))

    @staticmethod
    def _named(entry: FileEntry) -> Iterator[tuple[str, int, int]]:
        return ((entry.packs[number], first, count) for number, first, count in entry.runs)

    def bring(self, packer: Packer, pack: str, first: int, count: int) -> Places:
        """Store chunks of a damaged pack again, or reuse them where they are; always with the same packer."""
        table = self._remains[pack].table
        assert table is not None
        went = self._went.setdefault(pack, np.full(len(table), UNKNOWN, np.int64))
        wanted = first + np.flatnonzero(went[first : first + count] == UNKNOWN)
        for chunks in _together(wanted, self._origins[pack]):
            home, at = self._home(pack, int(chunks[0]))
            objects, where = self._homes[home]
            if objects is self._objects and where not in self._remains:
                went[chunks] = packer.keep(where, at, len(chunks))
                continue
            for begin, piece in self._read(pack, chunks):
                went[begin : begin + len(piece.ends)] = packer.place([piece])
        return went[first : first + count]

    def _home(self, pack: str, chunk: int) -> tuple[int, int]:
        homes, chunks = split(self._origins[pack][chunk : chunk + 1])
        return int(homes[0]), int(chunks[0])

    def _read(self, pack: str, wanted: Places) -> Iterator[tuple[int, Piece]]:
        """Read chunks of a damaged pack from where they were found; each piece with the number of its first chunk."""
        for chunks in _together(wanted, self._origins[pack]):
            home, at = self._home(pack, int(chunks[0]))
            begin = int(chunks[0])
            for piece in _pieces(*self._homes[home], at, len(chunks)):
                yield begin, piece
                begin += len(piece.ends)

    # -- the search --------------------------------------------------------------------------------------------------

    def _search(self) -> dict[str, Places]:
        """Find a place for each chunk; `UNKNOWN` if there is none."""
        self._homes = []
        wanted = _Wanted(self._remains.values())
        doomed = {pack for _entry, record in condemned(self._objects.access) for pack in record.packs}
        for pack, table in _tables(self._objects, self._remains.keys() | doomed, wanted):
            wanted.take(table, self._new_home(self._objects, pack))
        for found in self._remains.values():
            if found.table is not None:
                wanted.take(found.table, self._new_home(found.objects, found.pack), found.intact)
        for other in self._others:
            for pack, table in _tables(other, frozenset(), wanted):
                usable = np.ones(len(table), np.bool_)
                for frame in self._useless.get((id(other), pack), ()):
                    usable[frame.first : frame.first + frame.chunks] = False
                wanted.take(table, self._new_home(other, pack), usable)
        return wanted.places()

    def _new_home(self, objects: Objects, pack: str) -> int:
        self._homes.append((objects, pack))
        return len(self._homes) - 1

    def _some_damaged(self) -> bool:
        """Read what was found in others; return whether some is damaged, so that the search must be repeated."""
        needed: dict[int, set[int]] = {}
        for origins in self._origins.values():
            for home, chunk in zip(*(part.tolist() for part in split(origins[origins != UNKNOWN])), strict=True):
                if any(self._homes[home][0] is other for other in self._others):
                    needed.setdefault(home, set()).add(chunk)
        found = False
        for home, chunks in needed.items():
            objects, pack = self._homes[home]
            table = objects.packs.table(pack)
            for number in sorted({frame.number for chunk in chunks for frame in table.frames_of(chunk, 1)}):
                if not _is_intact(objects, pack, table.frames[number]):
                    self._useless.setdefault((id(objects), pack), []).append(table.frames[number])
                    found = True
        return found


class _Wanted:
    """The chunks of damaged packs by their hashes; the first place that is found for one stays."""

    def __init__(self, remains: Iterable[Remains]) -> None:
        self._known: dict[str, KnownChunks] = {}
        self._ranks: dict[str, Places] = {}
        """For each pack, the number of each chunk among all wanted ones; the same for the same content."""
        total = 0
        for found in remains:
            if found.table is None:
                continue
            known = self._known.setdefault(found.table.seal.key, KnownChunks())
            known.add_new(found.table.hashes, np.arange(total, total + len(found.table)))
            self._ranks[found.pack] = known.find(found.table.hashes)
            total += len(found.table)
        self._places = np.full(total, UNKNOWN, np.int64)

    def complete(self) -> bool:
        """Return whether all have a place."""
        return not any(np.any(self._places[ranks] == UNKNOWN) for ranks in self._ranks.values())

    def take(self, table: Table, home: int, usable: _Mask | None = None) -> None:
        """Use chunks of a pack, by default all, for those that have no place yet; ``home`` numbers the pack."""
        known = self._known.get(table.seal.key)
        if known is None:  # hashes made with another key cannot be compared
            return
        ranks = known.find(table.hashes)
        offered = ranks != UNKNOWN if usable is None else (ranks != UNKNOWN) & usable
        chunks = np.flatnonzero(offered)
        chunks = chunks[self._places[ranks[chunks]] == UNKNOWN]
        self._places[ranks[chunks]] = following(home, 0, len(table))[chunks]

    def places(self) -> dict[str, Places]:
        """Return the place of each chunk of each known pack."""
        return {pack: self._places[ranks] for pack, ranks in self._ranks.items()}


def _tables(objects: Objects, without: Iterable[str], wanted: _Wanted) -> Iterator[tuple[str, Table]]:
    """Read the tables of a repository until all chunks have a place."""
    left_out = frozenset(without)
    if wanted.complete():
        return
    packs = [pack for pack, _entry in objects.packs.entries() if pack not in left_out]
    parallel = objects.storage.parallel
    with Workers(parallel, 2 * parallel) as workers:
        for pack, table in workers.each(lambda pack: (pack, _table(objects, pack)), packs):
            if table is not None:
                yield pack, table
            if wanted.complete():
                return


def _together(chunks: Places, origins: Places) -> Iterator[Places]:
    """Split chunks of one pack into runs that are consecutive both there and where they were found."""
    if not len(chunks):
        return
    breaks = np.flatnonzero((np.diff(chunks) != 1) | (np.diff(origins[chunks]) != 1)) + 1
    yield from np.split(chunks, breaks)


def _pieces(objects: Objects, pack: str, first: int, count: int) -> Iterator[Piece]:
    """Read consecutive chunks, a frame at a time; each frame is checked."""
    table = objects.packs.table(pack)
    for frame in table.frames_of(first, count):
        (content,) = objects.packs.words(pack, [frame])
        begin = max(first, frame.first) - frame.first
        stop = min(first + count, frame.first + frame.chunks) - frame.first
        yield piece_of(table, frame, content, begin, stop)
