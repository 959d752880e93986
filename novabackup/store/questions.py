"""Asks the files of a store: questions for a snapshot that is taken, and the same again for one that was restored."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from novabackup._support.threads import Lane
from novabackup.components import Component
from novabackup.components.base import Answers, Questions
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.format.records import FileEntry, Probe, Problem, SnapshotRecord
from novabackup.store.probing import Probing, difference, shown
from novabackup.store.store import DeclaredFile, IndexStore

__all__ = ["Learned", "Repeated", "learn", "repeat"]

_LOG = logging.getLogger("novabackup")

_FILES_AT_ONCE = 2
_SECONDS_AGAIN = 600.0
_LARGEST_SUMMARY = 64 << 10
_MODEL_KEYS = ("embedding_model", "embedding_model_name", "model_name")
_LONGEST_MODEL = 200


@attrs.frozen(kw_only=True)
class Learned:
    """What was found out about a store beside its content.

    Attributes:
        probes: Questions and answers.
        classes: What each pickle asks for, by path.
        embedding_model: What made the vectors; empty if nobody said.
    """

    probes: tuple[Probe, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    embedding_model: str = ""


def learn(
    store: IndexStore,
    files: Sequence[DeclaredFile],
    entries: Sequence[FileEntry],
    recent: Sequence[SnapshotRecord],
    probing: Probing | None,
) -> Learned:
    """Ask the files of a store; of files that have not changed, what earlier snapshots say is taken over.

    Args:
        store: The store.
        files: Its files.
        entries: The same, as they are in the snapshot that is being taken.
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
                _LOG.info("%s is not asked anything, since it is large", file.entry.key)
    if probing is not None:
        with Lane(_FILES_AT_ONCE, len(wanted) + 1) as lane:
            found = lane.each(functools.partial(_ask, store, probing.questions), wanted)
            answers |= {file.entry.key: answer for file, answer in zip(wanted, found, strict=True)}
    probes = [probe for path in by_path for probe in answers.get(path, Answers()).probes]
    return Learned(
        probes=(*probes, *_user_probes(store, entries, recent, probing)),
        classes={path: answer.classes for path, answer in sorted(answers.items()) if answer.classes},
        embedding_model=_embedding_model(store, files, by_path, recent, probing),
    )


def _can_be_asked(component: Component) -> bool:
    return type(component).probe is not Component.probe


def _known(recent: Sequence[SnapshotRecord]) -> dict[tuple[str, str], Answers]:
    """Gather what earlier snapshots know of files, by path and hash."""
    known: dict[tuple[str, str], Answers] = {}
    for record in reversed(recent):  # the newest has the last word
        hashes = {entry.path: entry.blake3 for entry in record.files}
        for path in {*record.classes, *(probe.path for probe in record.probes)} & hashes.keys():
            known[path, hashes[path]] = Answers(
                probes=tuple(probe for probe in record.probes if probe.path == path),
                classes=record.classes.get(path, ()),
            )
    return known


def _same(entries: Iterable[FileEntry | None], record: SnapshotRecord) -> bool:
    """Tell whether files have the same content in an earlier snapshot."""
    then = {entry.path: entry.blake3 for entry in record.files}
    return all(entry is not None and then.get(entry.path) == entry.blake3 for entry in entries)


def _ask(store: IndexStore, questions: Questions, file: DeclaredFile) -> Answers:
    """Ask one file. What it does not answer must not cost the snapshot, so it is only logged."""
    try:
        with store.storage.open(file.entry.key) as reader:
            answer = file.component.probe(reader, questions)
            reader.confirm()
    except FileNotFoundError:
        raise
    except (OSError, ConfigurationError) as error:
        _LOG.info("%s could not be asked anything: %s", file.entry.key, error)
        return Answers()
    for problem in answer.problems:
        _LOG.info("%s was asked, and did not answer: %s", file.entry.key, problem)
    return answer


def _user_probes(
    store: IndexStore, entries: Sequence[FileEntry], recent: Sequence[SnapshotRecord], probing: Probing | None
) -> tuple[Probe, ...]:
    """Put the user's own queries; what was answered of the very same store is taken over."""
    for record in recent:
        known = tuple(probe for probe in record.probes if probe.text)
        unchanged = len(record.files) == len(entries) and _same(entries, record)
        if known and unchanged and (probing is None or tuple(probe.text for probe in known) == probing.queries):
            return known
    if probing is None or probing.ask is None or not entries:
        return ()
    try:
        return tuple(_put(store, probing, text) for text in probing.queries)
    except Exception as error:  # noqa: BLE001 - a search of the user's own that fails must not cost the snapshot
        _LOG.warning("%s: the queries could not be put: %s: %s", store.url, type(error).__name__, error)
        return ()


def _put(store: IndexStore, probing: Probing, text: str) -> Probe:
    assert probing.ask is not None
    found = [(one, float(score)) for one, score in probing.ask(store.url, text)][: probing.nearest]
    return Probe(
        path="",
        text=text,
        # Numbers of numpy are ids too.
        ids=tuple(one if isinstance(one, str) else int(one) for one, _score in found),
        scores=tuple(f"{score:.9g}" for _one, score in found),
    )


def _embedding_model(
    store: IndexStore,
    files: Sequence[DeclaredFile],
    by_path: Mapping[str, FileEntry],
    recent: Sequence[SnapshotRecord],
    probing: Probing | None,
) -> str:
    """Name what made the vectors: as the program says, or as a small JSON file of the store does."""
    if store.embedding_model:
        return store.embedding_model
    small = [file for file in files if file.entry.key.endswith(".json") and file.entry.size <= _LARGEST_SUMMARY]
    for record in recent:
        if record.embedding_model and small and _same((by_path.get(file.entry.key) for file in small), record):
            return record.embedding_model
    for file in small if probing is not None else ():
        try:
            with store.storage.open(file.entry.key) as reader:
                said = json.loads(reader.read(0, reader.entry.size))
                reader.confirm()
        except (ConfigurationError, PermissionError, ValueError, RecursionError):
            continue
        for key in _MODEL_KEYS if isinstance(said, dict) else ():
            name = said.get(key)
            if isinstance(name, str) and 0 < len(name) <= _LONGEST_MODEL and name.isprintable():
                return name
    return ""


# -- again ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Repeated:
    """What became of the questions when they were put again.

    Attributes:
        number: How many were put.
        notes: What could not be asked, and why.
        problems: Which answers are others.
    """

    number: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def repeat(store: IndexStore, probes: Collection[Probe]) -> Repeated:
    """Put recorded questions again, to a store that should be the same.

    Args:
        store: The store.
        probes: Questions with the answers that are expected.
    """
    if not probes:
        return Repeated(notes=("no queries were recorded with this snapshot",))
    files = {file.entry.key: file for file in store.files()}
    number, notes, problems = 0, [], []
    for path in dict.fromkeys(probe.path for probe in probes):
        asked = [probe for probe in probes if probe.path == path]
        try:
            answer = _ask_again(store, files.get(path), asked)
        except ConfigurationError as error:
            notes.append(f"{path or 'the store'}: its queries were not repeated: {error}")
            continue
        except (OSError, ChangedError) as error:
            problems.append(Problem(code="unreadable", paths=(path,), message=f"{type(error).__name__}: {error}"))
            continue
        number += len(asked)
        problems += answer.problems or _differences(asked, answer.probes)
    return Repeated(number=number, notes=tuple(notes), problems=tuple(problems))


def _ask_again(store: IndexStore, file: DeclaredFile | None, asked: Sequence[Probe]) -> Answers:
    if not asked[0].path:
        return _put_again(store, asked)
    if file is None:
        raise FileNotFoundError(f"{asked[0].path} is not there")
    if not _can_be_asked(file.component):
        raise ConfigurationError(
            f"{type(file.component).__name__} asks nothing. Pass the store as it was backed up, with its components"
        )
    nearest = max(1, *(len(probe.ids) for probe in asked))
    with store.storage.open(file.entry.key) as reader:
        return file.component.probe(reader, Questions(again=tuple(asked), nearest=nearest, seconds=_SECONDS_AGAIN))


def _put_again(store: IndexStore, asked: Sequence[Probe]) -> Answers:
    probing = store.probing
    if probing is None or probing.ask is None:
        raise ConfigurationError("they need the function that they were put to. Pass a store with Probing(ask=...)")
    nearest = max(1, *(len(probe.ids) for probe in asked))
    try:
        return Answers(probes=tuple(_put(store, attrs.evolve(probing, nearest=nearest), probe.text) for probe in asked))
    except Exception as error:  # noqa: BLE001 - whatever the user's own search raises is the finding
        message = f"expected answers, found {type(error).__name__}: {error}"
        return Answers(problems=(Problem(code="other-answers", message=message),))


def _differences(asked: Sequence[Probe], answered: Sequence[Probe]) -> list[Problem]:
    found = []
    for number, before in enumerate(asked):
        said = difference(before, answered[number]) if number < len(answered) else "expected an answer, found none"
        if said:
            message = f"{shown(before)}: {said}. Compare the versions of faiss, and those of the model"
            paths = (before.path,) if before.path else ()
            found.append(Problem(code="other-answers", paths=paths, message=message))
    return found
