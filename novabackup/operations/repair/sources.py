"""Where the content of a file can be recovered from although packs that hold it are damaged."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack

import attrs
import numpy as np
from fsspec.callbacks import Callback

from novabackup.errors import ArchivedError, ChangedError, ConfigurationError, FormatError, IntegrityError
from novabackup.format.records import FileEntry, SnapshotRecord
from novabackup.objects.known_chunks import NOWHERE
from novabackup.objects.objects import Objects
from novabackup.objects.packer import Location, Packer
from novabackup.operations.copy import Copier, Paces
from novabackup.operations.repair.chunks import Salvage, remains_of
from novabackup.storage import Storage
from novabackup.storage.raw import hash_of
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")

Content = tuple[str, int]
"""Identifies the content of a file: hash and size."""


def content_of(entry: FileEntry) -> Content:
    """Return what identifies the content of a file."""
    return entry.blake3, entry.size


def require_tables(objects: Objects, packs: Iterable[str]) -> None:
    """Check that the tables of packs can be read; raise an `IntegrityError` or `ArchivedError` otherwise."""
    for pack in packs:
        objects.packs.table(pack)


@attrs.frozen(kw_only=True)
class Source:
    """A source of the content of a file.

    Attributes:
        name: Where the content comes from, as text.
        store: Stores it and returns where it is then. Raises an `IntegrityError` if that fails.
    """

    name: str
    store: Callable[[], Location]


class Sources:
    """Finds the sources of files: this repository, others, and live files. Finding them writes nothing."""

    def __init__(self, objects: Objects, others: Sequence[Objects], store: IndexStore | None) -> None:
        self._objects = objects
        self._others = others
        self._store = store
        self._bad: Collection[str] = ()
        self._wanted: Collection[Content] = ()
        self._copiers: dict[int, Copier] = {}
        self._exit = ExitStack()

    def close(self) -> None:
        """Stop all threads."""
        self._exit.close()

    def avoid(self, bad: Collection[str]) -> None:
        """Set which packs are damaged; has to be called first."""
        self._bad = bad

    def want(self, wanted: Collection[Content]) -> None:
        """Set which contents will be asked for."""
        self._wanted = wanted

    def brought(self, other: Objects, record: SnapshotRecord) -> SnapshotRecord:
        """Copy a snapshot from another repository; content that is here already is shared."""
        if id(other) not in self._copiers:
            near = {
                pack for known in self._objects.records.all() if known.store == record.store for pack in known.packs
            }
            loose = sorted(near.union(record.packs))
            copier = Copier(other, self._objects.avoiding(self._bad), (), loose, Paces())
            self._copiers[id(other)] = self._exit.enter_context(copier)
        brought = self._copiers[id(other)].bring(record, Callback())
        if brought is None:
            raise ChangedError(f"{self._objects.url}: expected packs that stay. Let no prune run during a repair")
        return brought

    def of(self, entry: FileEntry, reasons: list[str]) -> Iterator[Source]:
        """Yield the sources of a file, the cheapest first; add to ``reasons`` why others cannot be used."""
        yield from self._by_chunks(entry, reasons)
        yield from self._from_others(entry, reasons)
        yield from self._from_the_store(entry)

    # -- chunk by chunk ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _salvage(self) -> Salvage:
        return Salvage(self._objects, [remains_of(self._objects, pack) for pack in self._bad], self._others)

    @functools.cached_property
    def _packer(self) -> Packer:
        return self._exit.enter_context(Packer(self._objects.avoiding(self._bad), ()))

    def _by_chunks(self, entry: FileEntry, reasons: list[str]) -> Iterator[Source]:
        try:
            runs = self._salvage.runs(entry)
        except (ArchivedError, IntegrityError, FormatError) as error:
            reasons.append(str(error.args[0]))
            return
        if runs is None:
            reasons.append("the list of its chunks was damaged")
            return
        lacking: dict[str, int] = {}
        unknown: set[str] = set()
        sources: set[str] = set()
        for number, first, count in runs.tolist():
            pack = entry.packs[number]
            if pack not in self._bad:
                continue
            if not self._salvage.knows(pack, first + count):
                unknown.add(pack)
                continue
            lacking[pack] = lacking.get(pack, 0) + self._salvage.lacks(pack, first, count)
            sources |= self._salvage.sources(pack, first, count)
        reasons += [f"pack {pack} or its table is missing" for pack in sorted(unknown)]
        reasons += [f"{size} bytes in pack {pack} are damaged" for pack, size in sorted(lacking.items()) if size]
        if unknown or any(lacking.values()):
            return

        def store() -> Location:
            places = [NOWHERE]
            for number, first, count in runs.tolist():
                pack = entry.packs[number]
                take = functools.partial(self._salvage.bring, self._packer) if pack in self._bad else self._packer.keep
                places.append(take(pack, first, count))
            return self._packer.locate([np.concatenate(places)])[0]

        elsewhere = sorted(sources - {self._objects.url})
        yield Source(name=" and ".join([*elsewhere, "what is left here"]), store=store)

    # -- from a copied snapshot --------------------------------------------------------------------------------------

    @functools.cached_property
    def _elsewhere(self) -> dict[Content, list[tuple[Objects, SnapshotRecord, FileEntry]]]:
        """Files of other repositories with wanted content, one of each repository."""
        found: dict[Content, list[tuple[Objects, SnapshotRecord, FileEntry]]] = {}
        for other in self._others:
            for record in other.records.all():
                for entry in record.files:
                    known = found.setdefault(content_of(entry), []) if content_of(entry) in self._wanted else None
                    if known is not None and not any(where is other for where, _record, _entry in known):
                        known.append((other, record, entry))
        return found

    def _from_others(self, entry: FileEntry, reasons: list[str]) -> Iterator[Source]:
        for other, record, there in self._elsewhere.get(content_of(entry), ()):
            try:
                require_tables(other, there.packs)
            except (ArchivedError, IntegrityError, FormatError) as error:
                reasons.append(f"{other.url}: {error.args[0]}")
                continue
            alone = attrs.evolve(record, files=(there,))
            yield Source(name=other.url, store=functools.partial(self._copied, other, alone))

    def _copied(self, other: Objects, alone: SnapshotRecord) -> Location:
        (entry,) = self.brought(other, alone).files
        return Location.of(entry)

    # -- from the live files -----------------------------------------------------------------------------------------

    @functools.cached_property
    def _live(self) -> dict[Content, str]:
        """Paths of live files with wanted content, by content."""
        found: dict[Content, str] = {}
        sizes = {size for _hash, size in self._wanted}
        if self._store is None:
            return found
        for file in self._store.files():
            if file.entry.size in sizes:
                try:
                    found.setdefault((hash_of(self._store.storage, file.entry.key), file.entry.size), file.entry.key)
                except (OSError, ChangedError, ConfigurationError) as error:
                    _LOG.info("%s/%s cannot be used: %s", self._store.url, file.entry.key, error)
        return found

    def _from_the_store(self, entry: FileEntry) -> Iterator[Source]:
        path = self._live.get(content_of(entry))
        if path is not None and self._store is not None:
            store = functools.partial(self._stored, self._store.storage, path, content_of(entry))
            yield Source(name=f"{self._store.url}/{path}", store=store)

    def _stored(self, storage: Storage, path: str, wanted: Content) -> Location:
        try:
            with storage.open(path) as reader:
                stored = self._packer.store(reader, storage.block, storage.parallel, None, int)
                reader.confirm()
            if (stored.blake3, stored.size) != wanted:
                raise ChangedError(path)
        except (FileNotFoundError, ChangedError):
            raise IntegrityError(f"{storage.url}/{path} was changed meanwhile") from None
        return self._packer.finish([stored])[0]
