"""Import an archive of a whole store: `plan` and `execute`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, BinaryIO

import attrs
from fsspec.callbacks import Callback

from novabackup.errors import ConfigurationError, IntegrityError
from novabackup.format.records import Point, Problem
from novabackup.objects.objects import Objects
from novabackup.operations.archives import staging
from novabackup.operations.archives.plan import (
    ImportPlan,
    Intake,
    choose_root,
    impossible,
    is_plausible,
    moment,
    place,
    tidy,
    written_time,
)
from novabackup.operations.archives.staging import IMPORTED_TAG, Contents
from novabackup.operations.archives.tar import Bounds, Member, Tar
from novabackup.operations.archives.urls import folder_and_name
from novabackup.operations.backup import Request
from novabackup.storage import Reader, Storage, open_storage
from novabackup.store.store import IndexStore

_SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_LARGEST_SUM = 1 << 20
_BLOCK = 4 << 20
_MOST_PROBLEMS = 20


def _aware(_instance: object, _field: attrs.Attribute[datetime | None], value: datetime | None) -> None:
    if value is not None and value.tzinfo is None:
        raise ConfigurationError(f"expected a time with a time zone, found {value}: datetime(..., tzinfo=UTC)")


@attrs.frozen
class Archive:
    """An archive to import. Usually a path or URL is enough.

    Attributes:
        url: The file: ``.tar``, ``.tar.gz``, ``.tar.bz2``, ``.tar.xz`` or ``.tar.zst``, at a path or any URL.
        root: The folder in it that corresponds to the store; by default it is searched for.
        time: When the store had this state; by default as novabackup or its name says, else that of its newest file.
        tz: Time zone of the time in its name; by default that of this host. ``date`` in a script writes local time.
        bounds: What it may cost before it is refused.
        storage_options: Keyword arguments for the fsspec file system; never written anywhere.
    """

    url: str | os.PathLike[str]
    root: str | None = attrs.field(default=None, kw_only=True)
    time: datetime | None = attrs.field(default=None, kw_only=True, validator=_aware)
    tz: tzinfo | None = attrs.field(default=None, kw_only=True)
    bounds: Bounds = attrs.field(factory=Bounds, kw_only=True)
    storage_options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, repr=False)


def plan(archive: Archive, store: IndexStore, repository: str) -> ImportPlan:
    """Read an archive from end to end and plan its import; change nothing.

    Files of the repository itself, which is at the URL ``repository``, are left out.

    Raises:
        FileNotFoundError: There is none.
        IntegrityError: It is damaged, or its checksum is not the one in its ``.sha256``.
        ConfigurationError: It exceeds the bounds, or its time is not possible.
    """
    with _opened(archive) as opened:
        return _plan(opened, archive, store, repository)


def execute(objects: Objects, archive: Archive, store: IndexStore, request: Request, callback: Callback) -> Point:
    """Import an archive as a snapshot of a store, which is not touched.

    Returns:
        Id and record of the snapshot; of the existing one if the archive was imported before.

    Raises:
        FileNotFoundError: There is no such archive.
        IntegrityError: It is damaged, its checksum is wrong, or it holds what it must not. Nothing was imported.
        NotFoundError: It holds no file of the store.
        ConfigurationError: It exceeds the bounds, or its time is not possible.
    """
    with _opened(archive) as opened:
        todo = _plan(opened, archive, store, objects.url)
        todo.require(store.declared)
        wanted = {file.source: file for file in todo.files}

        def contents() -> Contents:
            tar = Tar(opened.file, opened.url, archive.bounds)
            for member in tar:
                file = wanted.get(tidy(member.name) or "")
                if file is not None and not member.kind:
                    yield file, member.attributes, tar.content(member)
            opened.reader.confirm()

        labelled = staging.labelled(request, (IMPORTED_TAG,), opened.name)
        return staging.back_up(objects, todo, store, contents(), labelled, callback)


@attrs.frozen
class _Opened:
    """One version of an archive, as a real file."""

    url: str
    name: str
    storage: Storage
    reader: Reader
    file: BinaryIO


@contextlib.contextmanager
def _opened(archive: Archive) -> Iterator[_Opened]:
    folder, name = folder_and_name(archive.url)
    storage = open_storage(folder, archive.storage_options)
    with storage.open(name) as reader:
        yield _Opened(f"{storage.url}/{name}", name, storage, reader, reader.file())


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
    root = _root(archive.root, store, members)
    placed = place(members, root, store.declared, _hidden(repository, store.url))
    for path, name in placed.items():
        problems += _refused(path, members[name], twice=name in twice)
    taken = {path: members[name] for path, name in placed.items()}
    modified_ns = [member.attributes.mtime_ns for member in taken.values()]
    time = (
        archive.time
        or written_time(tar.comment)
        or moment(opened.name, archive.tz, modified_ns, opened.reader.entry.modified)
    )
    if not is_plausible(time):
        raise ConfigurationError(
            f"{opened.url}: expected a time between 1970 and now, found {time:%Y-%m-%d %H:%M:%S}. Say of what time it "
            "is with archives.Archive(..., time=...)"
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


def _root(root: str | None, store: IndexStore, members: Mapping[str, Member]) -> str:
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
        yield _problem("twice", path, "expected one file of this name, found several, and it is not clear which counts")


def _problem(code: str, path: str, message: str) -> Problem:
    return Problem(code=code, paths=(path.encode("utf-8", "backslashreplace").decode(),), message=message)


def _hidden(repository: str, store: str) -> str | None:
    """Return where in a store its repository is; None if it is elsewhere."""
    root = store.rstrip("/") + "/"
    return repository[len(root) :].rstrip("/") + "/" if repository.startswith(root) else None


def _check_sum(opened: _Opened) -> bool:
    """Compare an archive with its ``.sha256``; return whether there is one."""
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
            f"{opened.url}.sha256: expected a line of sha256sum for {opened.name}, found {len(own)}. Nothing was "
            "imported. Remove that file if the archive is right without it"
        )
    whole = hashlib.sha256()
    for block in iter(lambda: opened.file.read(_BLOCK), b""):
        whole.update(block)
    opened.reader.confirm()
    expected = own[0][1].lower()
    if whole.hexdigest() != expected:
        message = f"expected SHA-256 {expected}, found {whole.hexdigest()}"
        raise IntegrityError(
            f"{opened.url} does not match its .sha256. Nothing was imported. Get the archive again, or use another",
            [Problem(code="damaged", paths=(opened.name,), message=message)],
        )
    return True
