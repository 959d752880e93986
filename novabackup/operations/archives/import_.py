"""Taking in what was kept before: archives of the whole, and the copies that a script made before each ingestion."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from typing import Any, BinaryIO

import attrs
from blake3 import blake3
from fsspec.callbacks import Callback

from novabackup.errors import ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.format.records import Attributes, Problem, SnapshotRecord
from novabackup.objects.packs import Objects
from novabackup.operations import backup
from novabackup.operations.archives.plan import (
    ImportPlan,
    Intake,
    choose_root,
    impossible,
    is_sound,
    moment,
    named_time,
    place,
    tidy,
    written_time,
)
from novabackup.operations.archives.tar import Bounds, Member, Tar
from novabackup.operations.archives.urls import folder_and_name
from novabackup.operations.backup import Past, Request
from novabackup.storage import Reader, Storage, open_storage
from novabackup.store.store import IndexStore

__all__ = ["Archive", "PreIngest", "import_archive", "import_pre_ingest", "plan_archive", "plan_pre_ingest"]

_LOG = logging.getLogger("novabackup")

IMPORTED_TAG = "imported"
PRE_INGEST_TAG = "pre-ingest"
_COPY = re.compile(r"([^/]+)\.pre_ingest_(\d{8}_\d{6})")
_SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_LARGEST_SUM = 1 << 20
_BLOCK = 4 << 20
_MOST_PROBLEMS = 20

_Block = bytes | memoryview
_Contents = Generator[tuple[Intake, Attributes | None, Iterator[_Block]], None, None]
"""Files with their content, which is to be read before the next file is asked for."""


def _aware(_instance: object, _field: attrs.Attribute[datetime | None], value: datetime | None) -> None:
    if value is not None and value.tzinfo is None:
        raise ConfigurationError(f"expected a time with a time zone, found {value}: datetime(..., tzinfo=UTC)")


@attrs.frozen
class Archive:
    """An archive to take in, and what is to be known of it. A plain path or URL will mostly do.

    Attributes:
        url: The file: ``.tar``, ``.tar.gz``, ``.tar.bz2``, ``.tar.xz`` or ``.tar.zst``, at a path or any URL.
        root: The folder in it that stands for the store; found by itself where that is not said.
        time: From when it is; by default what novabackup or its name says, or else the time of its newest file.
        tz: Whose time its name tells; by default that of this host. ``date`` in a shell script writes local time.
        bounds: What it may cost before it is given up.
        storage_options: Keyword arguments for the fsspec file system; never written anywhere.
    """

    url: str | os.PathLike[str]
    root: str | None = attrs.field(default=None, kw_only=True)
    time: datetime | None = attrs.field(default=None, kw_only=True, validator=_aware)
    tz: tzinfo | None = attrs.field(default=None, kw_only=True)
    bounds: Bounds = attrs.field(factory=Bounds, kw_only=True)
    storage_options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, repr=False)


@attrs.frozen
class PreIngest:
    """A folder with files such as ``faiss_index.bin.pre_ingest_20260125_143000``. A plain path or URL will mostly do.

    Attributes:
        url: The folder, at a path or any URL.
        tz: Whose time the names tell; by default that of this host.
        storage_options: Keyword arguments for the fsspec file system; never written anywhere.
    """

    url: str | os.PathLike[str]
    tz: tzinfo | None = attrs.field(default=None, kw_only=True)
    storage_options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, repr=False)


# -- archives --------------------------------------------------------------------------------------------------------


def plan_archive(archive: Archive, store: IndexStore, repository: str) -> ImportPlan:
    """Read an archive from end to end and say what an import would take in.

    Args:
        archive: Which.
        store: The store whose state it is.
        repository: URL of the repository, whose own files in the archive are left out.

    Raises:
        FileNotFoundError: There is none.
        IntegrityError: It is damaged, or not what its ``.sha256`` says.
        ConfigurationError: It goes beyond the bounds, or its time cannot be.
    """
    with _opened(archive) as opened:
        return _plan(opened, archive, store, repository)


def import_archive(
    objects: Objects, archive: Archive, store: IndexStore, request: Request, callback: Callback
) -> tuple[str, SnapshotRecord]:
    """Take an archive in as a snapshot.

    Args:
        objects: The repository.
        archive: What to take in.
        store: The store whose state it is; it is not touched.
        request: Tags and message.
        callback: Told of the bytes that have been dealt with.

    Returns:
        Id and record of the snapshot; of the one that is there if the archive was taken in before.

    Raises:
        FileNotFoundError: There is no such archive.
        IntegrityError: It is damaged, not what its ``.sha256`` says, or holds what it must not. Nothing was taken in.
        NotFoundError: It holds no file of the store.
        ConfigurationError: It goes beyond the bounds, or its time cannot be.
    """
    with _opened(archive) as opened:
        plan = _plan(opened, archive, store, objects.url)
        plan.require(store.declared)
        wanted = {file.source: file for file in plan.files}

        def contents() -> _Contents:
            tar = Tar(opened.file, opened.url, archive.bounds)
            for member in tar:
                file = wanted.get(tidy(member.name) or "")
                if file is not None and not member.kind:
                    yield file, member.attributes, tar.content(member)
            opened.reader.confirm()

        return _take(objects, plan, store, contents(), _said(request, (IMPORTED_TAG,), opened.name), callback)


@attrs.frozen
class _Opened:
    """One version of an archive, as a real file."""

    url: str
    name: str
    storage: Storage
    reader: Reader
    file: BinaryIO

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_error: object) -> None:
        self.reader.close()


def _opened(archive: Archive) -> _Opened:
    folder, name = folder_and_name(archive.url)
    storage = open_storage(folder, archive.storage_options)
    reader = storage.open(name)
    try:
        return _Opened(f"{storage.url}/{name}", name, storage, reader, reader.file())
    except BaseException:
        reader.close()
        raise


def _plan(opened: _Opened, archive: Archive, store: IndexStore, repository: str) -> ImportPlan:
    vouched = _check_sum(opened)
    tar = Tar(opened.file, opened.url, archive.bounds)
    members: dict[str, Member] = {}
    twice: set[str] = set()
    problems: list[Problem] = []
    for member in tar:
        name = tidy(member.name)
        if name is None:
            problems.append(
                _problem("unsafe-path", member.name, "expected a path inside of the archive, found another")
            )
        elif member.kind != "a folder":
            twice.update({name} & members.keys())
            members[name] = member
        if len(problems) > _MOST_PROBLEMS:
            break
    opened.reader.confirm()
    root = _given(archive.root, store, members)
    placed = place(members, root, store.declared, hidden(repository, store.url))
    for path, name in placed.items():
        problems += _refused(path, members[name], twice=name in twice)
    taken = {path: members[name] for path, name in placed.items()}
    modified_ns = [member.attributes.mtime_ns for member in taken.values()]
    time = (
        archive.time
        or written_time(tar.comment)
        or moment(opened.name, archive.tz, modified_ns, opened.reader.entry.modified)
    )
    if not is_sound(time):
        raise ConfigurationError(
            f"{opened.url}: expected a time between 1970 and now, found {time:%Y-%m-%d %H:%M:%S}. Say from when it is "
            "with archives.Archive(..., time=...)"
        )
    return ImportPlan(
        source=opened.url,
        store=store.url,
        time=time.astimezone(UTC),
        root=root,
        files=tuple(Intake(path=path, source=placed[path], size=taken[path].size) for path in sorted(placed)),
        left_out=tuple(sorted(members.keys() - set(placed.values()))),
        problems=tuple(problems[:_MOST_PROBLEMS]),
        vouched=vouched,
    )


def _given(root: str | None, store: IndexStore, members: Mapping[str, Member]) -> str:
    if root is None:
        files = [name for name, member in members.items() if not member.kind]
        return choose_root(files, store.declared, store.url.rpartition("/")[2])
    given = tidy(root) or ""
    return f"{given}/" if given else ""


def _refused(path: str, member: Member, *, twice: bool) -> Iterator[Problem]:
    reason = impossible(path)
    if reason:
        yield _problem("unsafe-path", member.name, f"expected a path that can be used, but {reason}")
    elif member.kind:
        yield _problem("no-file", path, f"expected a regular file, found {member.kind}")
    elif twice:
        yield _problem("twice", path, "expected one file of this name, found several, and nobody knows which counts")


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, paths=(path.encode("utf-8", "backslashreplace").decode(),), message=message)


def hidden(repository: str, store: str) -> str | None:
    """Say where in a store a repository is, if it is there."""
    root = store.rstrip("/") + "/"
    return repository[len(root) :].rstrip("/") + "/" if repository.startswith(root) else None


def _check_sum(opened: _Opened) -> bool:
    """Compare an archive with what ``sha256sum`` said of it.

    Returns:
        Whether there is such a file.
    """
    key = f"{opened.name}.sha256"
    try:
        text = opened.storage.read_part(key, 0, _LARGEST_SUM).data.decode("utf-8", "replace")
    except FileNotFoundError:
        return False
    lines = [found for line in text.splitlines() if (found := _SUM.fullmatch(line))]
    # The archive may have been renamed since, and the name in there may be a path of another host.
    own = [found for found in lines if found[2].rpartition("/")[2] == opened.name] or lines
    if len({found[1].lower() for found in own}) != 1:
        raise IntegrityError(
            f"{opened.url}.sha256: expected a line of sha256sum for {opened.name}, found {len(own)}. Nothing was taken "
            "in. Remove that file if the archive is right without it"
        )
    whole = hashlib.sha256()
    for block in iter(lambda: opened.file.read(_BLOCK), b""):
        whole.update(block)
    opened.reader.confirm()
    expected = own[0][1].lower()
    if whole.hexdigest() != expected:
        message = f"expected SHA-256 {expected}, found {whole.hexdigest()}"
        raise IntegrityError(
            f"{opened.url} is not what its .sha256 says. Nothing was taken in. Get the archive anew, or take another",
            [Problem(code="damaged", paths=(opened.name,), message=message)],
        )
    return True


# -- copies from before an ingestion ---------------------------------------------------------------------------------


def plan_pre_ingest(folder: PreIngest, store: IndexStore) -> tuple[ImportPlan, ...]:
    """Say which snapshots an import of the copies in a folder would make, oldest first.

    Args:
        folder: Where the copies are.
        store: The store that they were made of.
    """
    storage = open_storage(folder.url, folder.storage_options)
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for key in storage.keys():  # noqa: SIM118 - no mapping
        found = _COPY.fullmatch(key)
        if found:
            groups[found[2]][found[1]] = key
    plans = []
    for stamp, copies in groups.items():
        named = named_time(stamp, folder.tz)
        if named is None or not is_sound(named[0]):
            _LOG.warning(
                "%s: %s is passed over, since %s is no time that has passed",
                storage.url,
                ", ".join(copies.values()),
                stamp,
            )
            continue
        placed = place(copies, "", store.declared)
        if placed:
            plans.append(
                ImportPlan(
                    source=storage.url,
                    store=store.url,
                    time=named[0],
                    files=tuple(
                        Intake(path=path, source=copies[name], size=storage.entry(copies[name]).size)
                        for path, name in sorted(placed.items())
                    ),
                    left_out=tuple(sorted(copies[name] for name in copies.keys() - set(placed.values()))),
                )
            )
    return tuple(sorted(plans, key=lambda plan: plan.time))


def import_pre_ingest(
    objects: Objects, folder: PreIngest, store: IndexStore, request: Request, callback: Callback
) -> list[tuple[str, SnapshotRecord]]:
    """Take copies from before ingestions in, each time as a snapshot. What was not copied is one of its problems.

    Args:
        objects: The repository.
        folder: Where the copies are; they stay there.
        store: The store that they were made of; it is not touched.
        request: Tags and message.
        callback: Told of the bytes that have been dealt with.

    Returns:
        Ids and records of the snapshots, oldest first; those that were taken in before are among them.
    """
    storage = open_storage(folder.url, folder.storage_options)
    taken = []
    for plan in plan_pre_ingest(folder, store):
        said = _said(request, (PRE_INGEST_TAG, IMPORTED_TAG), plan.files[0].source.partition(".pre_ingest_")[2])
        taken.append(_take(objects, plan, store, _copies(storage, plan), said, callback))
    return taken


def _copies(storage: Storage, plan: ImportPlan) -> _Contents:
    for file in plan.files:
        with storage.open(file.source) as reader:
            size = reader.entry.size
            blocks = (reader.read(start, min(_BLOCK, size - start)) for start in range(0, size, _BLOCK))
            yield file, reader.entry.attributes, blocks
            reader.confirm()


# -- what both have in common ----------------------------------------------------------------------------------------


def _said(request: Request, tags: tuple[str, ...], source: str) -> Request:
    return attrs.evolve(
        request,
        tags=tuple(dict.fromkeys((*tags, *request.tags))),
        message=request.message or f"imported from {source}",
    )


def _take(
    objects: Objects,
    plan: ImportPlan,
    store: IndexStore,
    contents: _Contents,
    request: Request,
    callback: Callback,
) -> tuple[str, SnapshotRecord]:
    """Unpack into a folder of one's own, then take a snapshot of that."""
    with tempfile.TemporaryDirectory(prefix="novabackup-") as folder:
        _make_sure_of_room(folder, plan)
        stage = open_storage(folder)
        unpacked: dict[str, tuple[int, str]] = {}
        attributes: dict[str, Attributes] = {}
        with closing(contents):
            for file, own, content in contents:
                unpacked[file.path] = _unpack(stage, file.path, content)
                if own is not None:
                    attributes[file.path] = own
        if unpacked.keys() != {file.path for file in plan.files}:
            raise IntegrityError(f"{plan.source} held other files when it was read for the second time. Try again")
        known = _known(objects, plan, unpacked)
        if known is not None:
            _LOG.info("%s was taken in before, as snapshot %s", plan.source, known[0])
            return known
        staged = IndexStore(stage, components=store.components, checks=store.checks, exclude=store.exclude)
        past = Past(time=plan.time, store=store.url, attributes=attributes)
        return backup.take(objects, staged, attrs.evolve(request, past=past), callback)


def _unpack(stage: Storage, path: str, content: Iterable[_Block]) -> tuple[int, str]:
    """Write a file; give its size and hash."""
    whole = blake3()

    def hashed() -> Iterator[_Block]:
        for block in content:
            whole.update(block)
            yield block

    size = stage.write(path, hashed()).size
    return size, whole.hexdigest()


def _make_sure_of_room(folder: str, plan: ImportPlan) -> None:
    free = shutil.disk_usage(folder).free
    if plan.size > free:
        raise OSError(
            errno.ENOSPC,
            f"expected room for {plan.size} bytes to unpack {plan.source}, found {free}. Set TMPDIR to another disk",
            folder,
        )


def _known(
    objects: Objects, plan: ImportPlan, unpacked: Mapping[str, tuple[int, str]]
) -> tuple[str, SnapshotRecord] | None:
    """Find the snapshot of the same time, store and content."""
    start = f"{plan.time:%Y%m%dT%H%M%SZ}-{plan.time.microsecond:05x}"
    for name in objects.names():
        if name.startswith(start):
            try:
                record = objects.record(name)
            except (IntegrityError, FormatError, NotFoundError):
                continue  # damaged or forgotten, so it does not stand in for this one
            same = {entry.path: (entry.size, entry.blake3) for entry in record.files} == unpacked
            if same and record.store == plan.store:
                return name, record
    return None
