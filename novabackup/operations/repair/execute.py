"""Mending a damaged repository from copies of it, from what is left, and from the live files; nothing is deleted."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence

import attrs
from fsspec.callbacks import Callback

from novabackup.errors import ArchivedError, ChangedError, FormatError, IntegrityError, NotFoundError
from novabackup.format.records import FileEntry, Problem, SnapshotRecord, snapshot_id
from novabackup.format.sealing import OtherKeyError
from novabackup.objects.packer import Location
from novabackup.objects.packs import Objects, pack_key, snapshot_key
from novabackup.objects.reader import blocks
from novabackup.objects.records import PACK_NAME, SNAPSHOT_NAME
from novabackup.operations import check as verification
from novabackup.operations.repair import quarantine as aside
from novabackup.operations.repair.plan import Loss, Remedy, Repair, RepairPlan, Task
from novabackup.operations.repair.quarantine import is_damage
from novabackup.operations.repair.records import SmallObjects
from novabackup.operations.repair.sources import Content, Source, Sources, content_of, require_tables
from novabackup.storage import Entry
from novabackup.store.store import IndexStore

__all__ = ["execute", "plan"]

_LOG = logging.getLogger("novabackup")


def plan(
    objects: Objects,
    others: Sequence[Objects],
    store: IndexStore | None,
    problems: Iterable[Problem] | None,
    callback: Callback,
) -> RepairPlan:
    """Find out what is damaged and where it can be had; write nothing.

    Args:
        objects: The repository.
        others: Other repositories that may have the same content.
        store: Live files that may have it.
        problems: What is known to be wrong; by default everything is read to find out.
        callback: Told of the packs that are read.
    """
    objects.require()
    found = tuple(verification.execute(objects, "100%", callback) if problems is None else problems)
    with _Bench(objects, others, store, found) as bench:
        actions = tuple(work.action for work in bench.works() if work.action)
        return RepairPlan(repository=objects.url, problems=found, actions=actions, lost=tuple(bench.lost))


def execute(
    objects: Objects, others: Sequence[Objects], store: IndexStore | None, todo: RepairPlan, callback: Callback
) -> RepairPlan:
    """Carry a plan out; everything is looked at again first, so it may be interrupted and done again.

    Returns:
        What was done and what was lost in the end.

    Raises:
        ChangedError: Somebody prunes the repository meanwhile.
        OSError: A place cannot be reached, or written to.
    """
    with _Bench(objects, others, store, todo.problems) as bench:
        works = list(bench.works())
        callback.set_size(len(works))
        done = []
        for work in works:
            try:
                work.do()
            except (IntegrityError, ArchivedError, FormatError) as error:
                assert work.action is not None
                _LOG.error("%s %s could not be mended: %s", work.action.key, work.action.path, error)
                bench.lost.append(Loss(key=work.action.key, path=work.action.path, message=str(error.args[0])))
            else:
                done += [work.action] if work.action else []
            callback.relative_update(1)
        return attrs.evolve(todo, actions=tuple(done), lost=tuple(bench.lost))


class _Bench:
    """Decides about each problem. Looking at it writes nothing; a context manager, since copies keep threads."""

    def __init__(
        self, objects: Objects, others: Sequence[Objects], store: IndexStore | None, problems: Iterable[Problem]
    ) -> None:
        self._objects = objects
        self._others = [other for other in others if other.url != objects.url]
        self._keys = dict.fromkeys(problem.paths[0] for problem in problems if problem.paths)
        self._bad: dict[str, Entry | None] = {}
        """Packs that are damaged or gone and that nobody has as they were."""
        self._ways = Sources(objects, self._others, store)
        self._mended: dict[Content, Location] = {}
        self._proved: set[Content] = set()
        self._kept: set[str] = set()
        """Snapshots whose records are kept aside as they were found."""
        self._small = SmallObjects(objects, self._others)
        self.lost = self._small.lost

    def __enter__(self) -> _Bench:
        for objects in (self._objects, *self._others):
            objects.require()
        return self

    def __exit__(self, *_about: object) -> None:
        self._ways.close()

    def works(self) -> Iterator[Task]:
        """Say what is to be done, in this order."""
        packs = [found[1] for key in self._keys if (found := PACK_NAME.fullmatch(key))]
        names = [found[1] for key in self._keys if (found := SNAPSHOT_NAME.fullmatch(key))]
        for problem in verification.small_objects(self._objects):
            if problem.paths[0] in self._keys:
                yield from self._small.works(problem.paths[0])
        needed = {pack for record in self._objects.records() for pack in record.packs}
        needed.update(pack for name in names for _other, record in self._copies(name, []) for pack in record.packs)
        for pack in packs:
            yield from self._pack(pack, needed=pack in needed)
        self._ways.avoid(self._bad)
        there = [pack for pack, entry in self._bad.items() if entry is not None]
        if there:
            # Or a backup that runs beside this could rely on them.
            yield Task(action=None, do=functools.partial(self._objects.condemn, there))
        for name in names:
            yield from self._snapshot(name)
        if self._bad:
            yield from self._files()
        for pack in there:
            action = Repair(step=Remedy.SET_ASIDE, key=pack_key(pack))
            yield Task(action=action, do=functools.partial(aside.move, self._objects.storage, pack_key(pack)))

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
        except FormatError as error:
            self.lost.append(Loss(key=key, message=f"{error.args[0]}. It stays as it is"))
            return
        except OtherKeyError as error:
            if not needed:  # by a snapshot that this key opens
                self.lost.append(Loss(key=key, message=f"{error.args[0]}. It stays as it is"))
                return
        if needed:
            for other in self._others:
                if self._has_whole(other, pack):
                    action = Repair(step=Remedy.COPY, key=key, source=other.url)
                    yield Task(action=action, do=functools.partial(self._copy_pack, other, pack))
                    return
        if needed or entry is not None:
            self._bad[pack] = entry

    @staticmethod
    def _is_damaged(objects: Objects, pack: str, entry: Entry) -> bool:
        """Tell whether a pack is damaged; one that has to be thawed before anybody knows is not.

        Raises:
            FormatError: It is one of a newer version, and may be as it should be.
            OtherKeyError: It may be so for whoever has another key.
        """
        try:
            verification.check_pack(objects, pack, entry, whole=True)
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
            aside.move(self._objects.storage, key)
        entry = self._objects.storage.write(key, aside.stored(other.storage, key))
        self._objects.forget_table(pack)
        verification.check_pack(self._objects, pack, entry, whole=self._objects.reads_back)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshot(self, name: str) -> Iterator[Task]:
        key = snapshot_key(name)
        reasons: list[str] = []
        try:
            self._objects.record(name)
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
            action = Repair(step=Remedy.COPY, key=key, source=other.url)
            yield Task(action=action, do=functools.partial(self._copy_snapshot, other, name, record))
            return
        why = "; ".join(reasons) or "no other repository that was given has it"
        message = f"the whole snapshot: {why}. Give one that has it, or forget the snapshot"
        self.lost.append(Loss(key=key, message=message))

    def _was_forgotten(self, name: str) -> bool:
        """Tell whether a copy made byte by byte still knows that a snapshot was removed on purpose."""
        alike = (
            other for other in self._others if other.encrypted and self._objects.protection.key == other.protection.key
        )
        return any(name in note.snapshots for other in alike for _key, note in other.forgotten())

    def _copies(self, name: str, reasons: list[str]) -> Iterator[tuple[Objects, SnapshotRecord]]:
        """Find repositories that have a snapshot; notes why one that seems to have it is of no use."""
        for other in self._others:
            try:
                record = other.record(name)
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
            record = self._ways.brought(other, record)
        self._refuse_unknown(name, record)
        aside.keep(self._objects.storage, snapshot_key(name))
        self._objects.put_back(record)

    def _refuse_unknown(self, name: str, record: SnapshotRecord) -> None:
        if snapshot_id(record) != name:
            raise FormatError(f"snapshot {name} says things that this version of novabackup would lose: upgrade")

    # -- files -------------------------------------------------------------------------------------------------------

    def _files(self) -> Iterator[Task]:
        """Find the files that need bad packs, and how each can be had again."""
        records = list(self._objects.named_records())
        broken = [(name, entry) for name, record in records[::-1] for entry in record.files if self._is_broken(entry)]
        contents = {content_of(entry) for _name, entry in broken}
        for _name, record in records:
            for entry in record.files:
                if content_of(entry) in contents and not self._is_broken(entry):
                    self._mended.setdefault(content_of(entry), Location.of(entry))
        self._ways.want(contents)
        known: dict[FileEntry, tuple[list[Source], list[str]]] = {}
        for name, entry in broken:
            bare = attrs.evolve(entry, attributes=None, identity="", report=None)
            if bare not in known:
                reasons: list[str] = []
                known[bare] = list(self._ways_of(entry, reasons)), reasons
            ways, reasons = known[bare]
            if ways:
                action = Repair(step=Remedy.STORE, key=snapshot_key(name), path=entry.path, source=ways[0].source)
                yield Task(action=action, do=functools.partial(self._store_file, name, entry.path, ways))
            else:
                why = "; ".join(reasons) or "nobody has its content"
                message = f"{why}. Give a copy of the repository that has it, or the store if it has this very file"
                self.lost.append(Loss(key=snapshot_key(name), path=entry.path, message=message))

    def _is_broken(self, entry: FileEntry) -> bool:
        return not self._bad.keys().isdisjoint(entry.packs)

    def _ways_of(self, entry: FileEntry, reasons: list[str]) -> Iterator[Source]:
        content = content_of(entry)
        if content in self._mended:
            yield Source(source="another snapshot here", go=functools.partial(self._mended.__getitem__, content))
        yield from self._ways.of(entry, reasons)

    def _store_file(self, name: str, path: str, ways: Sequence[Source]) -> None:
        key = snapshot_key(name)
        if not self._objects.storage.exists(key):
            return  # forgotten since
        record = self._objects.record(name)
        (entry,) = (entry for entry in record.files if entry.path == path)
        if content_of(entry) not in self._proved:
            self._mended[content_of(entry)] = self._go(entry, ways)
            self._proved.add(content_of(entry))
        mended = self._mended[content_of(entry)].noted_in(entry)
        files = tuple(mended if other.path == path else other for other in record.files)
        changed = attrs.evolve(record, files=files)
        self._refuse_unknown(name, changed)
        if name not in self._kept:
            aside.keep(self._objects.storage, key)
            self._kept.add(name)
        fresh = set(changed.packs).difference(record.packs)
        self._objects.protect(fresh)
        if any(not fresh.isdisjoint(condemned.packs) for _entry, condemned in self._objects.condemned()):
            raise ChangedError(f"{self._objects.url}: expected packs that stay. Let no prune run beside a repair")
        self._objects.replace(name, changed)

    def _go(self, entry: FileEntry, ways: Sequence[Source]) -> Location:
        """Go the first way that leads there: the whole file is read and compared with its hash."""
        errors = []
        for way in ways:
            try:
                location = way.go()
                if self._objects.reads_back:
                    for _block in blocks(self._objects, location.noted_in(entry)):
                        pass
            except (ArchivedError, IntegrityError, FormatError) as error:
                errors.append(f"from {way.source}: {error}")
            else:
                return location
        raise IntegrityError("; ".join(errors))
