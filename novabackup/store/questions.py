"""Queries that are recorded with a snapshot of a store, and run again when it is restored for a drill."""

from __future__ import annotations

import functools
import json
import logging
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import attrs

from novabackup._support.threads import Workers
from novabackup.components import Component
from novabackup.components.base import Answers, Questions
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.format.records import FileEntry, Probe, Problem, SnapshotRecord
from novabackup.storage import Storage
from novabackup.store.selection import DeclaredFile

__all__ = ["Ask", "Learned", "Occasion", "Probing", "Repeated", "difference", "learn", "repeat"]

_LOG = logging.getLogger("novabackup")

Ask = Callable[[str, str], Iterable[tuple[int | str, float]]]
"""The user's own search, through the real embedding model: takes the path or URL of a store and a query; returns ids
with scores, the best first."""

Occasion = Literal["backup", "guard"]

_FILES_AT_ONCE = 2
_SECONDS_AGAIN = 600.0
_LARGEST_SUMMARY = 64 << 10
_MODEL_KEYS = ("embedding_model", "embedding_model_name", "model_name")
_LONGEST_MODEL = 200
_RELATIVE = 1e-4
"""Versions of faiss, and processors, add numbers up in different orders."""
_CANCELLED = 1e-6
"""Of the squared length of a vector: what cancellation leaves of a distance of zero."""


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    texts = () if isinstance(value, str) else tuple(value)
    if (isinstance(value, str) and value) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(f"expected queries as a list of texts, found {value!r}")
    return texts


@attrs.frozen(kw_only=True)
class Probing:
    """Which queries are recorded with a snapshot of a store.

    A file that has not changed since an earlier snapshot is not queried again: its recorded answers are reused.

    Attributes:
        number: Queries to run on each index.
        nearest: Results to keep of each query.
        seconds: Time limit for one file; a file that takes longer is skipped, and the snapshot is taken without it.
        largest: Bytes of the largest file that is queried. Querying reads the file once more: for a large index that
            takes seconds, longer than the backup of its changes.
        on: When: ``backup`` (plain backups) or ``guard`` (the snapshot before a guarded block, which waits for it).
        queries: Texts to pass to `ask`, such as typical queries of users.
        ask: The user's own search.
    """

    number: int = attrs.field(
        default=3, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(20))
    )
    nearest: int = attrs.field(
        default=5, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(100))
    )
    seconds: float = attrs.field(default=20.0, validator=attrs.validators.gt(0.0))
    largest: int = attrs.field(default=16 << 20, validator=attrs.validators.ge(0))
    on: tuple[Occasion, ...] = attrs.field(default=("backup",), converter=tuple)
    queries: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ask: Ask | None = None

    def __attrs_post_init__(self) -> None:
        if bool(self.queries) != (self.ask is not None):
            raise ConfigurationError(
                "expected queries together with ask=, the function that runs them, found "
                f"{'only ask=' if self.ask else 'only queries'}. Pass both, or neither"
            )
        if not set(self.on) <= {"backup", "guard"}:
            raise ConfigurationError(f"on= is a list of 'backup' and 'guard', found {self.on!r}")


class Queried(Protocol):
    """What is needed of an `IndexStore`, which itself needs `Probing`."""

    storage: Storage
    probing: Probing | None
    embedding_model: str

    def files(self) -> list[DeclaredFile]: ...


# -- when a snapshot is taken -----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Learned:
    """What a snapshot records about a store besides its content.

    Attributes:
        probes: Queries and answers.
        classes: Classes that each pickle names, by path.
        embedding_model: What made the vectors; empty if unknown.
    """

    probes: tuple[Probe, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    embedding_model: str = ""


def learn(
    store: Queried,
    files: Sequence[DeclaredFile],
    entries: Sequence[FileEntry],
    recent: Sequence[SnapshotRecord],
    probing: Probing | None,
) -> Learned:
    """Query the files of a store; reuse the answers in earlier snapshots for files that have not changed.

    Args:
        store: The store.
        files: Its files.
        entries: The same files as the new snapshot records them.
        recent: Earlier snapshots of the store, the newest first.
        probing: What to ask; None asks nothing.

    Raises:
        ChangedError: A file was changed meanwhile.
        FileNotFoundError: A file went away meanwhile.
    """
    answers: dict[str, Answers] = {}
    wanted: list[DeclaredFile] = []
    by_path = {entry.path: entry for entry in entries}
    known = _known(recent)
    for file in files:
        entry = by_path.get(file.entry.key)
        if entry is not None and (entry.path, entry.blake3) in known:
            answers[entry.path] = known[entry.path, entry.blake3]
        elif probing is not None and _can_be_asked(file.component):
            if file.entry.size <= probing.largest:
                wanted.append(file)
            else:
                _LOG.info("%s is not queried, since it is large", file.entry.key)
    if probing is not None:
        questions = Questions(number=probing.number, nearest=probing.nearest, seconds=probing.seconds)
        with Workers(_FILES_AT_ONCE, len(wanted) + 1) as workers:
            found = workers.each(functools.partial(_ask, store.storage, questions), wanted)
            answers |= {file.entry.key: answer for file, answer in zip(wanted, found, strict=True)}
    probes = [probe for path in by_path for probe in answers.get(path, Answers()).probes]
    return Learned(
        probes=(*probes, *_user_probes(store.storage.url, entries, recent, probing)),
        classes={path: answer.classes for path, answer in sorted(answers.items()) if answer.classes},
        embedding_model=store.embedding_model or _embedding_model(store.storage, files, by_path, recent, probing),
    )


def _can_be_asked(component: Component) -> bool:
    return type(component).probe is not Component.probe


def _known(recent: Sequence[SnapshotRecord]) -> dict[tuple[str, str], Answers]:
    """Gather the answers in earlier snapshots, by path and hash of the file."""
    known: dict[tuple[str, str], Answers] = {}
    for record in reversed(recent):  # the newest overwrites the others
        hashes = {entry.path: entry.blake3 for entry in record.files}
        for path in {*record.classes, *(probe.path for probe in record.probes)} & hashes.keys():
            known[path, hashes[path]] = Answers(
                probes=tuple(probe for probe in record.probes if probe.path == path),
                classes=record.classes.get(path, ()),
            )
    return known


def _same(entries: Iterable[FileEntry | None], record: SnapshotRecord) -> bool:
    """Return whether files have the same content in an earlier snapshot."""
    then = {entry.path: entry.blake3 for entry in record.files}
    return all(entry is not None and then.get(entry.path) == entry.blake3 for entry in entries)


def _ask(storage: Storage, questions: Questions, file: DeclaredFile) -> Answers:
    """Query one file. A file that cannot be queried must not cost the snapshot, so failures are only logged."""
    try:
        with storage.open(file.entry.key) as reader:
            answer = file.component.probe(reader, questions)
            reader.confirm()
    except FileNotFoundError:
        raise
    except (OSError, ConfigurationError) as error:
        _LOG.info("%s could not be queried: %s", file.entry.key, error)
        return Answers()
    for problem in answer.problems:
        _LOG.info("%s was queried and did not answer: %s", file.entry.key, problem)
    return answer


def _user_probes(
    url: str, entries: Sequence[FileEntry], recent: Sequence[SnapshotRecord], probing: Probing | None
) -> tuple[Probe, ...]:
    """Run the user's own queries; reuse the answers in a snapshot of exactly the same files."""
    for record in recent:
        known = tuple(probe for probe in record.probes if probe.text)
        unchanged = len(record.files) == len(entries) and _same(entries, record)
        if known and unchanged and (probing is None or tuple(probe.text for probe in known) == probing.queries):
            return known
    if probing is None or probing.ask is None or not entries:
        return ()
    try:
        return tuple(_search(url, probing.ask, text, probing.nearest) for text in probing.queries)
    except Exception as error:  # noqa: BLE001 - a search of the user's own that fails must not cost the snapshot
        _LOG.warning("%s: the queries could not be run: %s: %s", url, type(error).__name__, error)
        return ()


def _search(url: str, ask: Ask, text: str, nearest: int) -> Probe:
    found = [(one, float(score)) for one, score in ask(url, text)][:nearest]
    return Probe(
        path="",
        text=text,
        # Numbers of numpy are ids too.
        ids=tuple(one if isinstance(one, str) else int(one) for one, _score in found),
        scores=tuple(f"{score:.9g}" for _one, score in found),
    )


def _embedding_model(
    storage: Storage,
    files: Sequence[DeclaredFile],
    by_path: Mapping[str, FileEntry],
    recent: Sequence[SnapshotRecord],
    probing: Probing | None,
) -> str:
    """Find the name of what made the vectors in a small JSON file of the store."""
    small = [file for file in files if file.entry.key.endswith(".json") and file.entry.size <= _LARGEST_SUMMARY]
    for record in recent:
        if record.embedding_model and small and _same((by_path.get(file.entry.key) for file in small), record):
            return record.embedding_model
    for file in small if probing is not None else ():
        try:
            with storage.open(file.entry.key) as reader:
                content = json.loads(reader.read(0, reader.entry.size))
                reader.confirm()
        except (ConfigurationError, PermissionError, ValueError, RecursionError):
            continue
        for key in _MODEL_KEYS if isinstance(content, dict) else ():
            name = content.get(key)
            if isinstance(name, str) and 0 < len(name) <= _LONGEST_MODEL and name.isprintable():
                return name
    return ""


# -- when it is restored ----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Repeated:
    """The result of running recorded queries again.

    Attributes:
        number: Queries that were run.
        notes: What could not be queried, and why.
        problems: Which answers differ.
    """

    number: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def repeat(store: Queried, probes: Collection[Probe]) -> Repeated:
    """Run recorded queries again, on a store that should be the same.

    Args:
        store: The store.
        probes: Queries with the expected answers.
    """
    if not probes:
        return Repeated(notes=("no queries were recorded with this snapshot",))
    by_path = {file.entry.key: file for file in store.files()}
    number, notes, problems = 0, [], []
    for path in dict.fromkeys(probe.path for probe in probes):
        asked = [probe for probe in probes if probe.path == path]
        nearest = max(1, *(len(probe.ids) for probe in asked))
        try:
            if path:
                answer = _ask_again(store.storage, path, by_path.get(path), tuple(asked), nearest)
            else:
                answer = _search_again(store.storage.url, store.probing, asked, nearest)
        except ConfigurationError as error:
            notes.append(f"{path or 'the store'}: its queries were not repeated: {error}")
            continue
        except (OSError, ChangedError) as error:
            problems.append(Problem(code="unreadable", paths=(path,), message=f"{type(error).__name__}: {error}"))
            continue
        number += len(asked)
        problems += answer.problems or _differences(asked, answer.probes)
    return Repeated(number=number, notes=tuple(notes), problems=tuple(problems))


def _ask_again(
    storage: Storage, path: str, file: DeclaredFile | None, asked: tuple[Probe, ...], nearest: int
) -> Answers:
    if file is None:
        raise FileNotFoundError(f"{path} is not there")
    if not _can_be_asked(file.component):
        raise ConfigurationError(
            f"{type(file.component).__name__} runs no queries. Pass the store as it was backed up, with its components"
        )
    with storage.open(file.entry.key) as reader:
        return file.component.probe(reader, Questions(again=asked, nearest=nearest, seconds=_SECONDS_AGAIN))


def _search_again(url: str, probing: Probing | None, asked: Sequence[Probe], nearest: int) -> Answers:
    if probing is None or probing.ask is None:
        raise ConfigurationError("they need the function that ran them. Pass a store with Probing(ask=...)")
    try:
        return Answers(probes=tuple(_search(url, probing.ask, probe.text, nearest) for probe in asked))
    except Exception as error:  # noqa: BLE001 - whatever the user's own search raises is the finding
        message = f"expected answers, found {type(error).__name__}: {error}"
        return Answers(problems=(Problem(code="other-answers", message=message),))


def _differences(asked: Sequence[Probe], answered: Sequence[Probe]) -> list[Problem]:
    problems = []
    for number, before in enumerate(asked):
        found = difference(before, answered[number]) if number < len(answered) else "expected an answer, found none"
        if found:
            message = f"{_shown(before)}: {found}. Compare the versions of faiss, and those of the model"
            paths = (before.path,) if before.path else ()
            problems.append(Problem(code="other-answers", paths=paths, message=message))
    return problems


def _shown(probe: Probe) -> str:
    if probe.vector:
        return f"{probe.path}: a vector of {len(probe.vector)} bytes"
    return f"{probe.path}: {' '.join(probe.words)}" if probe.words else repr(probe.text)


def difference(before: Probe, now: Probe) -> str:
    """Compare two answers to the same query.

    Scores may differ by a ten-thousandth of the largest. Results whose scores are that close may come in any order, and
    at the end of an index's list one may replace another; the user's own search must find the same results.

    Returns:
        What differs, for people; empty if nothing does.
    """
    if len(before.ids) != len(now.ids):
        return f"expected {len(before.ids)} results, found {len(now.ids)}"
    scores, found = [float(score) for score in before.scores], [float(score) for score in now.scores]
    close = _RELATIVE * max((abs(score) for score in scores), default=0.0) + _CANCELLED * _squared_length(before.vector)
    then, today = dict(zip(before.ids, scores, strict=True)), dict(zip(now.ids, found, strict=True))
    for place, (one, other) in enumerate(zip(scores, found, strict=True)):
        if abs(one - other) > close:
            return (
                f"expected {before.ids[place]} with {one:g} in place {place + 1}, found {now.ids[place]} with {other:g}"
            )
    for name, score in then.items():
        if name in today and abs(score - today[name]) > close:
            return f"expected {name} with {score:g}, found it with {today[name]:g}"
        if name not in today and (before.text or abs(score - scores[-1]) > 2 * close):
            return f"expected {name} with {score:g} among the results, found {list(now.ids)}"
    return ""


def _squared_length(vector: bytes) -> float:
    if len(vector) % 2:
        return 0.0
    values = struct.unpack(f"<{len(vector) // 2}e", vector)
    length = sum(value * value for value in values)
    return length if length < float("inf") else 0.0
