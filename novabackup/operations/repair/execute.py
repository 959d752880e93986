"""Repair a damaged repository from what is left of it, from copies and from live files, deleting nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence

import attrs
from fsspec.callbacks import Callback

from novabackup.errors import ArchivedError, ChangedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import PACK_NAME, SNAPSHOT_NAME, pack_key, snapshot_key
from novabackup.format.records import FileEntry, Point, Problem, SnapshotRecord
from novabackup.format.sealing import OtherKeyError
from novabackup.objects.condemned import condemn, condemned
from novabackup.objects.objects import Objects
from novabackup.objects.packer import Location
from novabackup.objects.reader import blocks
from novabackup.operations import check
from novabackup.operations.copy import require_lossless
from novabackup.operations.repair import quarantine
from novabackup.operations.repair.plan import Loss, Remedy, Repair, RepairPlan, Task
from novabackup.operations.repair.quarantine import is_damage
from novabackup.operations.repair.records import SmallObjects
from novabackup.operations.repair.sources import Content, Source, Sources, content_of, require_tables
from novabackup.storage import Entry
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")


def plan(
    objects: Objects,
    others: Sequence[Objects],
    store: IndexStore | None,
    problems: Iterable[Problem] | None,
    callback: Callback,
) -> RepairPlan:
    """Find what is damaged and where it can be recovered from; write nothing.

    Args:
        objects: The repository.
        others: Other repositories that may have the same content.
        store: Live files that may have it.
        problems: Known problems; by default everything is read to find them.
        callback: Progress in packs (an fsspec callback).
    """
    objects.access.require()
    found = tuple(check.execute(objects, "100%", callback) if problems is None else problems)
    with _Planner(objects, others, store, found) as planner:
        repairs = tuple(task.repair for task in planner.tasks() if task.repair)
        return RepairPlan(repository=objects.url, problems=found, actions=repairs, lost=tuple(planner.lost))


def execute(
    objects: Objects, others: Sequence[Objects], store: IndexStore | None, todo: RepairPlan, callback: Callback
) -> RepairPlan:
    """Execute a plan. Everything is checked again first, so an interrupted repair can be repeated.

    Returns:
        What was done, and what is lost in the end.

    Raises:
        ChangedError: Another process prunes the repository.
        OSError: A place cannot be reached, or written to.
    """
    with _Planner(objects, others, store, todo.problems) as planner:
        tasks = list(planner.tasks())
        callback.set_size(len(tasks))
        done = []
        for task in tasks:
            repair = task.repair
            try:
                task.do()
            except (IntegrityError, ArchivedError, FormatError) as error:
                assert repair is not None
                _LOG.error("%s %s could not be repaired: %s", repair.key, repair.path, error)
                planner.lost.append(Loss(key=repair.key, path=repair.path, message=str(error.args[0])))
            else:
                done += [repair] if repair else []
            callback.relative_update(1)
        return attrs.evolve(todo, actions=tuple(done), lost=tuple(planner.lost))


class _Planner:
    """Plans what to do about each problem; writes nothing. A context manager, since copies keep threads."""

    def __init__(
        self, objects: Objects, others: Sequence[Objects], store: IndexStore | None, problems: Iterable[Problem]
    ) -> None:
        self._objects = objects
        self._others = [other for other in others if other.url != objects.url]
        self._keys = dict.fromkeys(problem.paths[0] for problem in problems if problem.paths)
        self._bad: dict[str, Entry | None] = {}
        """Packs that are damaged or missing here and intact nowhere."""
        self._sources = Sources(objects, self._others, store)
        self._recovered: dict[Content, Location] = {}
        self._proved: set[Content] = set()
        self._kept: set[str] = set()
        """Snapshots whose damaged records have been copied aside."""
        self._small = SmallObjects(objects, self._others)
        self.lost = self._small.lost

    def __enter__(self) -> _Planner:
        for objects in (self._objects, *self._others):
            objects.access.require()
        return self

    def __exit__(self, *_about: object) -> None:
        self._sources.close()

    def tasks(self) -> Iterator[Task]:
        """Yield what to do, in this order."""
        packs = [found[1] for key in self._keys if (found := PACK_NAME.fullmatch(key))]
        names = [found[1] for key in self._keys if (found := SNAPSHOT_NAME.fullmatch(key))]
        for problem in check.small_objects(self._objects):
            if problem.paths[0] in self._keys:
                yield from self._small.tasks(problem.paths[0])
        needed = {pack for record in self._objects.records.all() for pack in record.packs}
        needed.update(pack for name in names for _other, record in self._copies(name, []) for pack in record.packs)
        for pack in packs:
            yield from self._pack(pack, needed=pack in needed)
        self._sources.avoid(self._bad)
        there = [pack for pack, entry in self._bad.items() if entry is not None]
        if there:
            # Or a backup that runs at the same time could share them.
            yield Task(repair=None, do=functools.partial(condemn, self._objects.access, there))
        for name in names:
            yield from self._snapshot(name)
        if self._bad:
            yield from self._files()
        for pack in there:
            repair = Repair(step=Remedy.SET_ASIDE, key=pack_key(pack))
            yield Task(repair=repair, do=functools.partial(quarantine.move, self._objects.storage, pack_key(pack)))

    # -- packs -------------------------------------------------------------------------------------------------------

    def _pack(self, pack: str, *, needed: bool) -> Iterator[Task]:
        key = pack_key(pack)
        try:
            entry = self._objects.storage.entry(key)
        except FileNotFoundError:
            entry = None
        try:
            if entry is not None and not self._is_damaged(self._objects, pack, entry):
                return
        except (FormatError, OtherKeyError) as error:
            if isinstance(error, FormatError) or not needed:  # by a snapshot that this key opens
                self.lost.append(Loss(key=key, message=f"{error.args[0]}. It stays as it is"))
                return
        if needed:
            for other in self._others:
                if self._has_whole(other, pack):
                    repair = Repair(step=Remedy.COPY, key=key, source=other.url)
                    yield Task(repair=repair, do=functools.partial(self._copy_pack, other, pack))
                    return
        if needed or entry is not None:
            self._bad[pack] = entry

    @staticmethod
    def _is_damaged(objects: Objects, pack: str, entry: Entry) -> bool:
        """Return whether a pack is damaged; one in an archive counts as intact.

        Raises:
            FormatError: It is of a newer version, and may be intact.
            OtherKeyError: It needs another key, and may be intact.
        """
        try:
            check.check_pack(objects, pack, entry, whole=True)
        except OtherKeyError:
            raise
        except IntegrityError:
            return True
        except ArchivedError:
            return False
        except OSError as error:
            if not is_damage(error):
                raise
            return True
        return False

    def _has_whole(self, other: Objects, pack: str) -> bool:
        try:
            return not other.storage.frozen([pack_key(pack)]) and not self._is_damaged(
                other, pack, other.storage.entry(pack_key(pack))
            )
        except (FileNotFoundError, FormatError, OtherKeyError):
            return False

    def _copy_pack(self, other: Objects, pack: str) -> None:
        key = pack_key(pack)
        if self._objects.storage.exists(key):
            quarantine.move(self._objects.storage, key)
        entry = self._objects.storage.write(key, quarantine.stored(other.storage, key))
        self._objects.packs.forget_table(pack)
        check.check_pack(self._objects, pack, entry, whole=self._objects.packs.reads_back)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshot(self, name: str) -> Iterator[Task]:
        key = snapshot_key(name)
        reasons: list[str] = []
        try:
            self._objects.records.read(name)
        except NotFoundError:
            if self._was_forgotten(name):
                return
        except OtherKeyError as error:
            reasons.append(str(error.args[0]))
        except IntegrityError:
            pass
        except (ArchivedError, FormatError) as error:
            self.lost.append(Loss(key=key, message=f"{error.args[0]}. It stays as it is"))
            return
        else:
            return
        for other, record in self._copies(name, reasons):
            repair = Repair(step=Remedy.COPY, key=key, source=other.url)
            yield Task(repair=repair, do=functools.partial(self._copy_snapshot, other, name, record))
            return
        why = "; ".join(reasons) or "no given repository has it"
        message = f"the whole snapshot: {why}. Give one that has it, or forget the snapshot"
        self.lost.append(Loss(key=key, message=message))

    def _was_forgotten(self, name: str) -> bool:
        """Return whether a byte-for-byte copy still records that a snapshot was removed on purpose."""
        alike = (
            other
            for other in self._others
            if other.access.encrypted and self._objects.access.protection.key == other.access.protection.key
        )
        return any(name in note.snapshots for other in alike for _key, note in other.records.forgotten())

    def _copies(self, name: str, reasons: list[str]) -> Iterator[tuple[Objects, SnapshotRecord]]:
        """Find repositories that have a snapshot; add to ``reasons`` why one that has it cannot be used."""
        for other in self._others:
            try:
                record = other.records.read(name)
                require_tables(other, record.packs)
                yield other, record
            except NotFoundError:
                continue
            except (ArchivedError, IntegrityError, FormatError) as error:
                reasons.append(f"{other.url}: {error.args[0]}")

    def _copy_snapshot(self, other: Objects, name: str, record: SnapshotRecord) -> None:
        packs = frozenset(record.packs)
        there = self._objects.storage.present([pack_key(pack) for pack in packs])
        if len(there) < len(packs) or not packs.isdisjoint(self._bad):
            record = self._sources.brought(other, record)
        require_lossless(name, record)
        quarantine.keep(self._objects.storage, snapshot_key(name))
        self._objects.records.put_back(record)

    # -- files -------------------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[Task]:
        """Find the files that need bad packs, and the sources of each."""
        points = list(self._objects.records.newest_first())
        broken = [(point.id, entry) for point in points[::-1] for entry in point.record.files if self._is_broken(entry)]
        contents = {content_of(entry) for _name, entry in broken}
        for point in points:
            for entry in point.record.files:
                if content_of(entry) in contents and not self._is_broken(entry):
                    self._recovered.setdefault(content_of(entry), Location.of(entry))
        self._sources.want(contents)
        known: dict[FileEntry, tuple[list[Source], list[str]]] = {}
        for name, entry in broken:
            bare = attrs.evolve(entry, attributes=None, identity="", report=None)
            if bare not in known:
                reasons: list[str] = []
                known[bare] = list(self._sources_of(entry, reasons)), reasons
            sources, reasons = known[bare]
            if sources:
                repair = Repair(step=Remedy.STORE, key=snapshot_key(name), path=entry.path, source=sources[0].name)
                yield Task(repair=repair, do=functools.partial(self._store_file, name, entry.path, sources))
            else:
                why = "; ".join(reasons) or "its content was not found"
                message = f"{why}. Give a copy of the repository that has it, or the store if it still has this version"
                self.lost.append(Loss(key=snapshot_key(name), path=entry.path, message=message))

    def _is_broken(self, entry: FileEntry) -> bool:
        return not self._bad.keys().isdisjoint(entry.packs)

    def _sources_of(self, entry: FileEntry, reasons: list[str]) -> Iterator[Source]:
        content = content_of(entry)
        if content in self._recovered:
            yield Source(name="another snapshot here", store=functools.partial(self._recovered.__getitem__, content))
        yield from self._sources.of(entry, reasons)

    def _store_file(self, name: str, path: str, sources: Sequence[Source]) -> None:
        key = snapshot_key(name)
        if not self._objects.storage.exists(key):
            return  # forgotten since
        record = self._objects.records.read(name)
        (entry,) = (entry for entry in record.files if entry.path == path)
        if content_of(entry) not in self._proved:
            self._recovered[content_of(entry)] = self._recover(entry, sources)
            self._proved.add(content_of(entry))
        recovered = self._recovered[content_of(entry)].noted_in(entry)
        files = tuple(recovered if other.path == path else other for other in record.files)
        changed = attrs.evolve(record, files=files)
        require_lossless(name, changed)
        if name not in self._kept:
            quarantine.keep(self._objects.storage, key)
            self._kept.add(name)
        fresh = set(changed.packs).difference(record.packs)
        self._objects.packs.protect(fresh)
        if any(not fresh.isdisjoint(doomed.packs) for _entry, doomed in condemned(self._objects.access)):
            raise ChangedError(f"{self._objects.url}: expected packs that stay. Let no prune run during a repair")
        self._objects.records.replace(Point(name, changed))

    def _recover(self, entry: FileEntry, sources: Sequence[Source]) -> Location:
        """Use the first source that works: the whole file is read and compared with its hash."""
        errors = []
        for source in sources:
            try:
                location = source.store()
                if self._objects.packs.reads_back:
                    for _block in blocks(self._objects, location.noted_in(entry)):
                        pass
            except (ArchivedError, IntegrityError, FormatError) as error:
                errors.append(f"from {source.name}: {error}")
            else:
                return location
        raise IntegrityError("; ".join(errors))
