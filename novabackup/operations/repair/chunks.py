"""Finding chunks of damaged packs by their hashes: in what is left of them, in other packs, in other repositories."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import attrs
import numpy as np

from novabackup._support.threads import Workers
from novabackup.errors import ArchivedError, FormatError, IntegrityError
from novabackup.format.packs import Frame, Piece, Table
from novabackup.format.records import FileEntry
from novabackup.objects.known_chunks import UNKNOWN, KnownChunks, Places, Runs, following, split
from novabackup.objects.packer import Packer
from novabackup.objects.packs import Objects
from novabackup.operations.repair.quarantine import is_damage

__all__ = ["Remains", "Salvage", "look_at"]

_LOG = logging.getLogger("novabackup")

_Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


@attrs.frozen(kw_only=True, eq=False)
class Remains:
    """What is left of a damaged pack.

    Attributes:
        pack: Its id.
        objects: The repository, reading the pack from where it is now.
        table: Its table; None if that is lost, and with it all knowledge of what was in the pack.
        intact: Whether each chunk is still what it was; shape ``(chunks,)``.
    """

    pack: str
    objects: Objects
    table: Table | None
    intact: _Mask


def look_at(objects: Objects, pack: str) -> Remains:
    """Look at what is left of a damaged pack, where it should be and where it may have been set aside.

    Args:
        objects: The repository.
        pack: Id of the pack.

    Raises:
        OSError: The storage cannot be read now.
    """
    best = Remains(pack=pack, objects=objects, table=None, intact=np.zeros(0, np.bool_))
    for place in (objects, objects.set_aside()):
        table = _table(place, pack)
        if table is None:
            continue
        intact = np.zeros(len(table), np.bool_)
        for frame in table.frames:
            intact[frame.first : frame.first + frame.chunks] = _proves(place, pack, frame)
        if best.table is None or intact.sum() > best.intact.sum():
            best = Remains(pack=pack, objects=place, table=table, intact=intact)
    return best


def _table(objects: Objects, pack: str) -> Table | None:
    try:
        return objects.table(pack)
    except (ArchivedError, IntegrityError, FormatError) as error:
        _LOG.debug("%s", error)
    except OSError as error:
        if not is_damage(error):
            raise
    return None


def _proves(objects: Objects, pack: str, frame: Frame) -> bool:
    try:
        objects.proved(pack, [frame])
    except (ArchivedError, IntegrityError, FormatError) as error:
        _LOG.debug("%s", error)
        return False
    except OSError as error:
        if not is_damage(error):
            raise
        return False
    return True


class Salvage:
    """Knows for each chunk of the damaged packs where it can still be had; what others give has been proved."""

    def __init__(self, objects: Objects, remains: Iterable[Remains], others: Sequence[Objects]) -> None:
        """Search.

        Args:
            objects: The repository.
            remains: Its damaged packs.
            others: Other repositories; hashes can be compared with those that have the same data key, or none.
        """
        self._objects = objects
        self._remains = {found.pack: found for found in remains}
        self._others = others
        self._homes: list[tuple[Objects, str]] = []
        self._useless: dict[tuple[int, str], list[Frame]] = {}
        """Frames of other repositories that are damaged as well."""
        self._went: dict[str, Places] = {}
        self._origins = self._search()
        while self._disprove():
            self._origins = self._search()

    def knows(self, pack: str, reaching: int) -> bool:
        """Tell whether it is known what was in a damaged pack, at least for so many chunks."""
        return pack in self._origins and reaching <= len(self._origins[pack])

    def lacks(self, pack: str, first: int, count: int) -> int:
        """Count the bytes of chunks that cannot be had; the pack must be one that is known."""
        table = self._remains[pack].table
        assert table is not None
        lost = self._origins[pack][first : first + count] == UNKNOWN
        return int(table.sizes[first : first + count][lost].sum(dtype=np.int64))

    def sources(self, pack: str, first: int, count: int) -> set[str]:
        """Name the repositories that chunks of a damaged pack come from."""
        homes, _chunks = split(self._origins[pack][first : first + count])
        return {self._homes[home][0].url for home in np.unique(homes[homes >= 0]).tolist()}

    def runs(self, entry: FileEntry) -> Runs | None:
        """Read where the content of a file is, like `Objects.runs`, also where the list of that was damaged.

        Returns:
            The runs; None if the list cannot be had.
        """
        if not entry.depth or not any(pack in self._remains for pack, _first, _count in self._named(entry)):
            return self._objects.runs(entry)
        parts = []
        for pack, first, count in self._named(entry):
            if pack not in self._remains:
                parts += [piece.data for piece in _pieces(self._objects, pack, first, count)]
            elif not self.knows(pack, first + count) or self.lacks(pack, first, count):
                return None
            else:
                parts += [piece.data for _at, piece in self._read(pack, np.arange(first, first + count))]
        return self._objects.listed(entry, b"".join(parts))

    @staticmethod
    def _named(entry: FileEntry) -> Iterator[tuple[str, int, int]]:
        return ((entry.packs[number], first, count) for number, first, count in entry.runs)

    def bring(self, packer: Packer, pack: str, first: int, count: int) -> Places:
        """Store chunks of a damaged pack anew, or name them where they are; always with the same packer.

        Raises:
            IntegrityError: Somebody damaged them since they were found.
        """
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
        """Read chunks of a damaged pack from where they are; each piece with the number of its first chunk."""
        for chunks in _together(wanted, self._origins[pack]):
            home, at = self._home(pack, int(chunks[0]))
            begin = int(chunks[0])
            for piece in _pieces(*self._homes[home], at, len(chunks)):
                yield begin, piece
                begin += len(piece.ends)

    # -- the search --------------------------------------------------------------------------------------------------

    def _search(self) -> dict[str, Places]:
        """Find a place for each chunk, `UNKNOWN` where there is none."""
        self._homes = []
        wanted = _Wanted(self._remains.values())
        condemned = {pack for _entry, record in self._objects.condemned() for pack in record.packs}
        for pack, table in _tables(self._objects, self._remains.keys() | condemned, wanted):
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

    def _disprove(self) -> bool:
        """Read what others would give; tell whether some of it is damaged, so that the search has to be done again."""
        needed: dict[int, set[int]] = {}
        for origins in self._origins.values():
            for home, chunk in zip(*(part.tolist() for part in split(origins[origins != UNKNOWN])), strict=True):
                if any(self._homes[home][0] is other for other in self._others):
                    needed.setdefault(home, set()).add(chunk)
        found = False
        for home, chunks in needed.items():
            objects, pack = self._homes[home]
            table = objects.table(pack)
            for number in sorted({frame.number for chunk in chunks for frame in table.frames_of(chunk, 1)}):
                if not _proves(objects, pack, table.frames[number]):
                    self._useless.setdefault((id(objects), pack), []).append(table.frames[number])
                    found = True
        return found


class _Wanted:
    """The chunks of damaged packs, found by their hashes; the first place that is taken for one stays."""

    def __init__(self, remains: Iterable[Remains]) -> None:
        self._known: dict[str, KnownChunks] = {}
        self._ranks: dict[str, Places] = {}
        """For each pack, the number of each chunk among all that are wanted; the same for the same content."""
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
        """Tell whether all have a place."""
        return not any(np.any(self._places[ranks] == UNKNOWN) for ranks in self._ranks.values())

    def take(self, table: Table, home: int, usable: _Mask | None = None) -> None:
        """Take chunks of a pack for those that have no place yet.

        Args:
            table: Of the pack.
            home: Number that places count it by.
            usable: Which of its chunks; by default all.
        """
        known = self._known.get(table.seal.key)
        if known is None:  # hashes that were made with another key say nothing
            return
        ranks = known.find(table.hashes)
        offered = ranks != UNKNOWN if usable is None else (ranks != UNKNOWN) & usable
        chunks = np.flatnonzero(offered)
        chunks = chunks[self._places[ranks[chunks]] == UNKNOWN]
        self._places[ranks[chunks]] = following(home, 0, len(table))[chunks]

    def places(self) -> dict[str, Places]:
        """Give the place of each chunk of each pack that is known."""
        return {pack: self._places[ranks] for pack, ranks in self._ranks.items()}


def _tables(objects: Objects, without: Iterable[str], wanted: _Wanted) -> Iterator[tuple[str, Table]]:
    """Read the tables of a repository, as long as something is wanted."""
    left_out = frozenset(without)
    if wanted.complete():
        return
    packs = [pack for pack, _entry in objects.pack_entries() if pack not in left_out]
    parallel = objects.storage.parallel
    with Workers(parallel, 2 * parallel) as workers:
        for pack, table in workers.each(lambda pack: (pack, _table(objects, pack)), packs):
            if table is not None:
                yield pack, table
            if wanted.complete():
                return


def _together(chunks: Places, origins: Places) -> Iterator[Places]:
    """Part chunks of one pack so that those of each part follow each other, there and where they come from."""
    if not len(chunks):
        return
    breaks = np.flatnonzero((np.diff(chunks) != 1) | (np.diff(origins[chunks]) != 1)) + 1
    yield from np.split(chunks, breaks)


def _pieces(objects: Objects, pack: str, first: int, count: int) -> Iterator[Piece]:
    """Read chunks that follow each other, a frame at a time; each frame has been proved."""
    table = objects.table(pack)
    for frame in table.frames_of(first, count):
        ((raw, width),) = objects.words(pack, [frame])
        ends = np.cumsum(table.sizes[frame.first : frame.first + frame.chunks], dtype=np.int64)
        begin = max(first, frame.first) - frame.first
        stop = min(first + count, frame.first + frame.chunks) - frame.first
        start = int(ends[begin - 1]) if begin else 0
        yield Piece(raw[start : int(ends[stop - 1])], ends[begin:stop] - start, width)
