"""Take a snapshot: read the files of a store while nothing changes them, and commit its record: `execute`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import posixpath
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime

import attrs
from fsspec.callbacks import Callback

from novabackup._support.paths import is_pattern, matches
from novabackup._support.text import first_of
from novabackup._support.threads import Workers
from novabackup.errors import ChangedError, ConfigurationError, printable
from novabackup.format.records import (
    Attributes,
    FileEntry,
    FolderEntry,
    LinkEntry,
    Point,
    Problem,
    Report,
    SnapshotRecord,
)
from novabackup.objects.objects import Objects
from novabackup.objects.packer import Packer, Stored
from novabackup.operations.compatibility import versions
from novabackup.storage import Reader, Storage
from novabackup.store import checks
from novabackup.store.questions import Probing, learn
from novabackup.store.secrets import LARGEST, require_accepted, secret_content, secret_name
from novabackup.store.selection import DeclaredFile
from novabackup.store.store import Contents, IndexStore

_LOG = logging.getLogger("novabackup")

_TRIES = 3
_RECENT = 4
"""Snapshots whose packs are searched for chunks: enough to find what an ingest and its rollback moved."""


@attrs.frozen(kw_only=True)
class Past:
    """What is recorded for a state that is imported, instead of where and when it has been unpacked.

    Attributes:
        time: When the store had this state.
        store: URL of the store.
        attributes: Attributes of files, by path.
    """

    time: datetime
    store: str
    attributes: Mapping[str, Attributes]


@attrs.frozen(kw_only=True)
class Request:
    """What the caller wants of a snapshot.

    Attributes:
        tags: Labels.
        message: Free text.
        past: Describes an imported state; None for the present one.
        probing: Queries to run on the indexes; None to run no new ones.
    """

    tags: tuple[str, ...] = ()
    message: str = ""
    past: Past | None = None
    probing: Probing | None = None


def request(tags: Iterable[str], message: str, probing: Probing | None = None) -> Request:
    """Build a request; a single tag may be given as a string."""
    return Request(tags=(tags,) if isinstance(tags, str) else tuple(tags), message=message, probing=probing)


Avoid = Callable[[Collection[str]], Collection[str]]
"""Selects those of older packs that must not be shared."""


def execute(
    objects: Objects, store: IndexStore, request: Request, callback: Callback, avoid: Avoid = lambda packs: ()
) -> Point:
    """Take a snapshot of a store.

    Args:
        objects: The repository; it is created if it does not exist.
        store: What to read.
        request: Tags and message.
        callback: Progress in bytes (an fsspec callback).
        avoid: Selects those of older packs that must not be shared.

    Returns:
        The committed snapshot.

    Raises:
        ChangedError: Files kept changing while they were read.
        PermissionError: Files cannot be read; each is named.
        ConfigurationError: Files hold secrets that others could read in the repository.
    """
    before = store.storage.requests, objects.storage.requests
    taking = _Taking(objects, store, request, callback, avoid)
    contents = taking.contents()  # refuses a bad URL before a repository is created
    taking.refuse_secrets(contents)
    repository = objects.access.ensure()
    changed = ""
    for _try in range(_TRIES):
        try:
            record = taking.record(contents, repository)
        except _AgainError as error:
            changed = str(error)
            _LOG.info("%s: %s: trying again", store.url, changed)
            contents = taking.contents()
            continue
        point = objects.records.save(record)
        _LOG.info(
            "snapshot %s of %s: %d files, %d bytes, %d added, %d requests for the store, %d for the repository",
            point.id,
            record.store,
            len(record.files),
            record.size,
            record.added,
            store.storage.requests - before[0],
            objects.storage.requests - before[1],
        )
        return point
    raise ChangedError(
        f"{store.url}: expected files that stay as they are for as long as it takes to read them, found changes in "
        f"each of {_TRIES} tries: {changed}. Stop what writes there and take the snapshot again"
    )


class _AgainError(Exception):
    """The store has to be read again; the message says why."""


@attrs.frozen
class _Taking:
    """One snapshot that is being taken."""

    objects: Objects
    store: IndexStore
    request: Request
    callback: Callback
    avoid: Avoid

    def contents(self) -> Contents:
        """List the store, without a repository that lies within it; it must not be the folder of the store itself."""
        if self.objects.url.rstrip("/") == self.store.url.rstrip("/"):
            raise ConfigurationError(
                f"the repository cannot be the folder of the store itself ({self.store.url}): choose a folder in it or "
                "elsewhere"
            )
        return self.store.contents(self.objects.url)

    def refuse_secrets(self, contents: Contents) -> None:
        """Refuse passwords and keys that others could read in the repository."""
        if not self.objects.exposed:
            return
        secrets: dict[str, str] = {}
        for file in contents.files:
            path = file.entry.key
            what = secret_name(path)
            # A file that is declared by name is known; one that matches a pattern is not.
            if file.entry.size <= LARGEST and is_pattern(file.component.path):
                with contextlib.suppress(FileNotFoundError):
                    what = secret_content(path, self.store.storage.read_part(path, 0, LARGEST).data)
            if what:
                secrets[path] = what
        require_accepted(secrets, self.objects.plaintext_secrets, self.objects.url)

    def record(self, contents: Contents, repository: str) -> SnapshotRecord:
        """Read the store once and store its content; return the record to commit."""
        store, request, files = self.store, self.request, contents.files
        self.callback.set_size(sum(file.entry.size for file in files))
        self.callback.absolute_update(0)
        recent = self._related()
        avoided = self.avoid({pack for record in recent for pack in record.packs})
        with Packer(self.objects, recent, avoid=avoided) as packer:
            try:
                entries = self._files(packer, recent, files)
                learned = learn(store, files, entries, recent, request.probing)
            except (ChangedError, FileNotFoundError) as error:
                raise _AgainError(printable(str(error))) from error
            self.objects.packs.protect(packer.shared)
            if packer.condemned_meanwhile():
                raise _AgainError("content that it shares with older snapshots is about to be pruned")
            if not self._is_unchanged(files, entries):
                raise _AgainError("files changed after they had been read")
            added = packer.added
        reports = _reports(store, entries)
        problems = tuple(checks.run(store.checks, reports))
        if checks.all_present in store.checks:
            for last in recent[:1]:
                known = checks.last_known([entry.path for entry in last.files], last.problems)
                problems += checks.emptied(reports, known)
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
            problems=problems,
            added=added,
            trees=tuple(component.path for component in store.components if component.whole),
            excluded=store.exclude,
            links=tuple(LinkEntry(path=x.key, target=x.target, attributes=x.attributes) for x in contents.links),
            folders=tuple(FolderEntry(path=x.key, attributes=x.attributes) for x in contents.folders),
            skipped=_skipped(contents),
            probes=learned.probes,
            classes=dict(learned.classes),
            embedding_model=learned.embedding_model,
        )
        if request.past is not None:
            record = _as_it_was(record, request.past)
        for problem in record.skipped:
            _LOG.warning("%s: %s", store.url, problem)
        if packer.too_late():
            raise _AgainError("this process stood still for long")
        return record

    def _related(self) -> list[SnapshotRecord]:
        """Choose snapshots of the same store that are likely to share much content, as they are close in time."""
        past = self.request.past
        url = self.store.url if past is None else past.store
        records = (record for record in self.objects.records.all() if record.store == url)
        if past is None:
            return list(itertools.islice(records, _RECENT))
        moment = past.time
        return sorted(records, key=lambda record: abs(record.time - moment))[:_RECENT]

    def _files(self, packer: Packer, recent: list[SnapshotRecord], files: list[DeclaredFile]) -> tuple[FileEntry, ...]:
        """Store files in the repository; those that are unchanged since a recent snapshot are not read."""
        known = {entry.path: entry for record in reversed(recent) for entry in record.files}
        entries: dict[str, FileEntry] = {}
        read: list[_Read] = []
        refused: list[str] = []
        with ExitStack() as stack:
            # A file is inspected while the next one is stored, so the smallest comes last.
            inspecting = stack.enter_context(Workers(1, 1))
            reading = _Reading(packer, self.store.storage, inspecting, stack, self.callback)
            for file in sorted(files, key=lambda file: -file.entry.size):
                before = known.get(file.entry.key)
                unchanged = before and before.identity and before.identity == file.entry.identity
                if before and unchanged and packer.can_share(before):
                    entries[before.path] = before
                    self.callback.relative_update(before.size)
                    continue
                try:
                    read += [reading.together(file, before)] if file.component.together else reading.alone(file, before)
                except PermissionError:
                    refused.append(file.entry.key)
            if refused:
                some = printable(first_of(sorted(refused)))
                raise PermissionError(
                    errno.EACCES,
                    f"expected files that can be read, found {len(refused)} that cannot: {some}. Run the backup as a "
                    "user who can read them, or leave them out with exclude=",
                    self.store.url,
                )
            locations = packer.finish([one.stored for one in read])
            for one, location in zip(read, locations, strict=True):
                entries[one.entry.path] = location.noted_in(attrs.evolve(one.entry, report=one.report.result()))
        return tuple(entries[file.entry.key] for file in files if file.entry.key in entries)

    def _is_unchanged(self, files: list[DeclaredFile], entries: tuple[FileEntry, ...]) -> bool:
        """Return whether files that belong together are unchanged since each was read, so that they are one state."""
        together = [component for component in self.store.components if component.together]
        now = {file.entry.key: file.entry for file in self.store.contents(self.objects.url, components=together).files}
        then = {file.entry.key for file in files if file.component.together}
        return now.keys() == then and all(
            now[entry.path].size == entry.size and entry.identity in ("", now[entry.path].identity)
            for entry in entries
            if entry.path in then
        )


@attrs.frozen
class _Read:
    """A file that was read; its location and report come later."""

    entry: FileEntry
    stored: Stored
    report: Future[Report]


@attrs.frozen
class _Reading:
    """Reads files, one after the other."""

    packer: Packer
    storage: Storage
    inspecting: Workers
    stack: ExitStack
    callback: Callback

    def together(self, file: DeclaredFile, before: FileEntry | None) -> _Read:
        """Read a file that must not change until all others have been read."""
        reader = file.component.open(self.storage, file.entry)
        self.stack.callback(reader.close)

        def inspect() -> Report:
            with reader:  # closed at once: there may be more files than a process may have open
                report = file.component.inspect(reader)
                reader.confirm()
                return report

        entry, stored = self._store(file, reader, before)
        return _Read(entry, stored, self.inspecting.submit(inspect))

    def alone(self, file: DeclaredFile, before: FileEntry | None) -> list[_Read]:
        """Read a file that may change as soon as it has been read; return nothing if it was removed."""
        for left in reversed(range(_TRIES)):
            try:
                with file.component.open(self.storage, file.entry) as reader:
                    entry, stored = self._store(file, reader, before)
                    report: Future[Report] = Future()
                    report.set_result(file.component.inspect(reader))
                    reader.confirm()
                    return [_Read(entry, stored, report)]
            except FileNotFoundError:
                return []
            except ChangedError:
                if not left:
                    raise
        return []

    def _store(self, file: DeclaredFile, reader: Reader, before: FileEntry | None) -> tuple[FileEntry, Stored]:
        storage, opened = self.storage, reader.entry
        stored = self.packer.store(reader, storage.block, storage.parallel, before, self.callback.relative_update)
        entry = FileEntry(
            path=file.entry.key,
            size=stored.size,
            blake3=stored.blake3,
            packs=(),
            runs=(),
            attributes=opened.attributes,
            identity=opened.identity,
        )
        return entry, stored


def _skipped(contents: Contents) -> tuple[Problem, ...]:
    """List what is in the store and not in the snapshot."""
    found = [
        Problem(
            code="skipped",
            paths=(item.key,),
            message=f"expected a file, a folder or a link, found {item.kind}: it has no content to back up",
        )
        for item in contents.others
    ]
    return tuple(found) + tuple(
        Problem(
            code="skipped",
            paths=(link.key,),
            message=f"the link to {printable(link.target)} is backed up; its target, outside of the store, is not",
        )
        for link in contents.links
        if posixpath.normpath(posixpath.join(posixpath.dirname(link.key), link.target)).startswith(("/", ".."))
    )


def _as_it_was(record: SnapshotRecord, past: Past) -> SnapshotRecord:
    """Remove what describes the place where the files were unpacked; the host that they came from is not known."""
    files = [attrs.evolve(entry, identity="", attributes=past.attributes.get(entry.path)) for entry in record.files]
    folders = [attrs.evolve(folder, attributes=None) for folder in record.folders]
    return attrs.evolve(
        record, time=past.time, store=past.store, host="", versions={}, files=tuple(files), folders=tuple(folders)
    )


def _reports(store: IndexStore, entries: tuple[FileEntry, ...]) -> list[Report]:
    there = {entry.path for entry in entries}
    absent = [
        component.absent()
        for component in store.components
        if not component.optional and not any(matches(path, component.path) for path in there)
    ]
    return [entry.report for entry in entries if entry.report] + absent
