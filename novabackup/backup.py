"""Taking a snapshot: which files of a store, read when nobody changes them, and the record that commits it."""

from __future__ import annotations

import itertools
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime

import attrs
from fsspec.callbacks import Callback

from novabackup import checks
from novabackup.asking import learn
from novabackup.compatibility import versions
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.lanes import Lane
from novabackup.model import FileEntry, Report, SnapshotRecord
from novabackup.objects import Objects
from novabackup.packer import Packer, Stored
from novabackup.probing import Probing
from novabackup.storage import Reader
from novabackup.store import DeclaredFile, IndexStore

__all__ = ["Request", "declared_files", "take"]

_LOG = logging.getLogger("novabackup")

_TRIES = 3
_RECENT = 4
"""Snapshots whose packs are searched for chunks: enough to find what an ingest and its rollback moved about."""

COMMIT_WITHIN = 600.0
"""Seconds between reading what is condemned and the commit; much less than the shortest grace period of `prune`."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody sets, and that goes on while the machine sleeps, where the system has one."""


@attrs.frozen(kw_only=True)
class Request:
    """What the caller says about a snapshot.

    Attributes:
        tags: Labels.
        message: Free text.
        probing: What the indexes are asked; None for nothing that is not known already.
    """

    tags: tuple[str, ...] = ()
    message: str = ""
    probing: Probing | None = None


def declared_files(objects: Objects, store: IndexStore) -> list[DeclaredFile]:
    """Find the declared files of a store, without those of a repository that lies within it.

    Raises:
        ConfigurationError: The repository is the folder of the store itself.
    """
    root = store.url.rstrip("/") + "/"
    if objects.url.rstrip("/") + "/" == root:
        raise ConfigurationError(
            f"the repository cannot be the folder of the store itself ({store.url}): choose a folder in it or elsewhere"
        )
    files = store.files()
    if not objects.url.startswith(root):
        return files
    folder = objects.url[len(root) :].rstrip("/") + "/"
    return [file for file in files if not file.entry.key.startswith(folder)]


def take(objects: Objects, store: IndexStore, request: Request, callback: Callback) -> tuple[str, SnapshotRecord]:
    """Take a snapshot of a store.

    Args:
        objects: The repository; it is created if there is nothing yet.
        store: What to read.
        request: Tags and message.
        callback: Told of the bytes that have been dealt with.

    Returns:
        Id and record of the snapshot, which is committed.

    Raises:
        ChangedError: Files went on changing while they were read.
    """
    declared_files(objects, store)  # a URL that cannot be is refused before a repository comes into being
    repository = objects.ensure()
    before = store.storage.requests, objects.storage.requests
    for _try in range(_TRIES):
        record = _read_all(objects, store, request, repository, callback)
        if record is not None:
            name = objects.save(record)
            _LOG.info(
                "snapshot %s of %s: %d files, %d bytes, %d added, %d requests for the store, %d for the repository",
                name,
                store.url,
                len(record.files),
                sum(entry.size for entry in record.files),
                record.added,
                store.storage.requests - before[0],
                objects.storage.requests - before[1],
            )
            return name, record
        _LOG.info("%s or the content that it shares with older snapshots changed meanwhile: once more", store.url)
    raise ChangedError(
        f"{store.url}: expected files that stay as they are for as long as it takes to read them, found changes in "
        f"each of {_TRIES} tries. Stop what writes there and take the snapshot again"
    )


def _read_all(
    objects: Objects, store: IndexStore, request: Request, repository: str, callback: Callback
) -> SnapshotRecord | None:
    """Read the store once; None if something changed meanwhile so that it must be done again."""
    files = declared_files(objects, store)
    callback.set_size(sum(file.entry.size for file in files))
    callback.absolute_update(0)
    recent = list(itertools.islice(_of_store(objects, store.url), _RECENT))
    with Packer(objects, recent) as packer:
        try:
            entries = _files(packer, recent[:1], store, files, callback)
            learned = learn(store, files, entries, recent, request.probing)
        except (ChangedError, FileNotFoundError) as error:
            _LOG.debug("%s", error)
            return None
        objects.protect(packer.shared)
        looked = time.clock_gettime(_CLOCK)
        if packer.condemned_meanwhile() or not _still(declared_files(objects, store), entries):
            return None
        added = packer.added
    record = SnapshotRecord(
        repository=repository,
        time=datetime.now(UTC),
        store=store.url,
        declared=store.declared,
        files=entries,
        tags=request.tags,
        message=request.message,
        host=socket.gethostname(),
        writer=f"novabackup {versions().get('novabackup', 'not installed')}",
        versions=dict(versions()),
        problems=tuple(checks.run(store.checks, _reports(store, entries))),
        added=added,
        probes=learned.probes,
        classes=dict(learned.classes),
        embedding_model=learned.embedding_model,
    )
    # A process that stood still for hours just here could commit content that `prune` has deleted by now.
    return record if time.clock_gettime(_CLOCK) - looked < COMMIT_WITHIN else None


@attrs.frozen
class _Read:
    """A file that was read: all that is known of it but where it is and what the component says."""

    entry: FileEntry
    stored: Stored
    report: Future[Report]


def _files(
    packer: Packer, last: list[SnapshotRecord], store: IndexStore, files: list[DeclaredFile], callback: Callback
) -> tuple[FileEntry, ...]:
    """Bring files into the repository; unread are those that are the very version that the last snapshot has."""
    known = {entry.path: entry for record in last for entry in record.files}
    entries: dict[str, FileEntry] = {}
    read: list[_Read] = []
    with ExitStack() as stack:
        # A file is inspected while the next one is stored, so the smallest is the last one.
        beside = stack.enter_context(Lane(1, 1))
        for file in sorted(files, key=lambda file: -file.entry.size):
            before = known.get(file.entry.key)
            unchanged = before and before.identity and before.identity == file.entry.identity
            if before and unchanged and packer.can_share(before):
                entries[before.path] = before
                callback.relative_update(before.size)
            else:
                reader = store.storage.open(file.entry.key)
                stack.callback(reader.close)
                read.append(_read(packer, store, file, reader, before, beside, callback))
        locations = packer.finish([one.stored for one in read])
        for one, location in zip(read, locations, strict=True):
            entries[one.entry.path] = attrs.evolve(
                one.entry,
                report=one.report.result(),
                packs=location.packs,
                runs=location.runs,
                depth=location.depth,
            )
    return tuple(entries[file.entry.key] for file in files)


def _read(
    packer: Packer,
    store: IndexStore,
    file: DeclaredFile,
    reader: Reader,
    before: FileEntry | None,
    beside: Lane,
    callback: Callback,
) -> _Read:
    storage = store.storage
    stored = packer.store(reader, storage.block, storage.parallel, before, callback.relative_update)

    def inspect() -> Report:
        with reader:  # closed at once: there may be more files than a process may have open
            report = file.component.inspect(reader)
            reader.confirm()
            return report

    entry = FileEntry(
        path=file.entry.key,
        size=stored.size,
        blake3=stored.blake3,
        packs=(),
        runs=(),
        attributes=reader.entry.attributes,
        identity=reader.entry.identity,
    )
    return _Read(entry, stored, beside.submit(inspect))


def _still(files: list[DeclaredFile], entries: tuple[FileEntry, ...]) -> bool:
    """Tell whether all files are what they were when each was read, so that together they are one state."""
    now = {file.entry.key: file.entry for file in files}
    return now.keys() == {entry.path for entry in entries} and all(
        now[entry.path].size == entry.size and entry.identity in ("", now[entry.path].identity) for entry in entries
    )


def _of_store(objects: Objects, url: str) -> Iterator[SnapshotRecord]:
    return (record for record in objects.records() if record.store == url)


def _reports(store: IndexStore, entries: tuple[FileEntry, ...]) -> list[Report]:
    there = {entry.path for entry in entries}
    absent = [
        Report(component=type(component).__name__, path=component.path, exists=False)
        for component in store.components
        if not component.optional and component.path not in there
    ]
    return [entry.report for entry in entries if entry.report] + absent
