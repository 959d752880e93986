"""Writing a damaged BM25 index anew from the texts of the metadata, when it alone is damaged.

How it was written is learned from the newest snapshot that has a healthy one: shape, parameters, and how texts were cut
into words. That counts as known only if an index written in this way from the texts of that snapshot is the same.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

import attrs
from blake3 import blake3

from novabackup._support import html as _html
from novabackup._support import text as _text
from novabackup.components import Bm25, Component, JsonLines, Metadata
from novabackup.components.pickles import FEW, Recipe, digests, hashed, sign
from novabackup.errors import (
    ArchivedError,
    ChangedError,
    ConfigurationError,
    FormatError,
    IntegrityError,
    NotFoundError,
    printable,
)
from novabackup.format.records import FileEntry, Problem, SnapshotRecord
from novabackup.objects.packs import Objects
from novabackup.objects.reader import blocks
from novabackup.operations.rebuild.texts import TOKENIZERS, Tokenize, entries, fields, texts
from novabackup.operations.rebuild.write import AGAIN, PARAMETERS, require_writable, write
from novabackup.operations.restore.execute import set_aside
from novabackup.storage import Block, Entry, Reader, Span
from novabackup.storage.raw import read_blocks
from novabackup.store import checks
from novabackup.store.store import IndexStore

__all__ = ["Hints", "RebuildPlan", "Rebuilt", "execute", "plan"]

_LOG = logging.getLogger("novabackup")


@attrs.frozen(kw_only=True)
class Hints:
    """What the caller knows of the index.

    Attributes:
        text_field: Member of the entries that holds the text.
        tokenize: Cuts a text into words.
        sign_key: Key of the signature.
    """

    text_field: str | None = None
    tokenize: Tokenize | None = None
    sign_key: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RebuildPlan:
    """What `rebuild_bm25` would do, or has done.

    Attributes:
        store: URL of the store.
        path: The BM25 index.
        problems: What is wrong with it; if nothing is, nothing is done.
        metadata: The file that the texts come from.
        text_field: Member of its entries that holds the text; empty if the entries are texts themselves.
        tokenizer: How texts are cut into words, as Python.
        kind: What is written.
        parameters: Its parameters.
        learned_from: Id of the snapshot that has a healthy one, and that all this was proved with.
        count: Number of documents.
        size: Bytes that are written.
    """

    store: str
    path: str
    problems: tuple[Problem, ...]
    metadata: str = ""
    text_field: str = ""
    tokenizer: str = ""
    kind: str = ""
    parameters: tuple[tuple[str, float], ...] = ()
    learned_from: str = ""
    count: int = 0
    size: int = 0

    def __str__(self) -> str:
        if not self.problems:
            return printable(f"{self.store}: nothing is wrong with {self.path}")
        return "\n".join([printable(f"{self.store}: {self.path} is written anew"), *_text.aligned(self._rows())])

    def _rows(self) -> list[tuple[str, str]]:
        return [
            *(("problem", problem.message) for problem in self.problems),
            ("kind", self.kind),
            ("parameters", ", ".join(f"{name}={value:g}" for name, value in self.parameters)),
            ("documents", f"{self.count}, {self.size} bytes"),
            ("texts", f"{self.metadata}, {self.text_field or 'entries'}"),
            ("words", self.tokenizer),
            ("learned from", f"snapshot {self.learned_from}"),
        ]

    def _repr_html_(self) -> str:
        caption = f"{self.store}: {self.path} is written anew" if self.problems else str(self)
        return _html.table(caption, ["what", "how"], self._rows() if self.problems else [])


@attrs.frozen(kw_only=True)
class Rebuilt:
    """An index that is ready to be written.

    Attributes:
        plan: What is said of it.
        data: Its bytes; empty if there is nothing to do.
        texts: Hash and size of the metadata that it was made from.
        before: The file as the snapshot has it that it was learned from.
    """

    plan: RebuildPlan
    data: bytes = attrs.field(default=b"", repr=False)
    texts: tuple[str, int] = ("", 0)
    before: FileEntry | None = None


def plan(store: IndexStore, objects: Objects, wishes: Hints) -> Rebuilt:
    """Make an index in memory; nothing is written.

    Args:
        store: The store.
        objects: The repository with snapshots of it.
        wishes: What the caller knows.

    Raises:
        ConfigurationError: It cannot be made; the message says what is missing.
        NotFoundError: No snapshot has a healthy one.
        IntegrityError: What was made is not what it should be.
    """
    component, metadata = _components(store)
    problems = _only_its_own(store, component)
    todo = RebuildPlan(store=store.url, path=component.path, problems=problems)
    if not problems:
        return Rebuilt(plan=todo)
    learned = _learn(store, objects, component, metadata, wishes)
    content = _live(store, metadata)
    found = entries(metadata, content)
    way = learned.only_way(found)
    words = way.words(found)
    data = write(way.recipe, words)
    if way.recipe.signature:
        data = sign(data, learned.key, way.recipe.signature)
    _prove(component, way.recipe, words, data)
    parameters = [(name, float(member[1])) for name, member in way.recipe.members.items() if name in PARAMETERS]
    signed = ", signed" if way.recipe.signature else ""
    return Rebuilt(
        plan=attrs.evolve(
            todo,
            metadata=metadata.path,
            text_field=way.field,
            tokenizer=way.name,
            kind=f"{way.recipe.kind}, pickle protocol {way.recipe.protocol}{signed}",
            parameters=tuple(parameters),
            learned_from=learned.snapshot,
            count=len(words),
            size=len(data),
        ),
        data=data,
        texts=(blake3(content).hexdigest(), len(content)),
        before=learned.before,
    )


class Before(Protocol):
    """What a guarded block gives of the snapshot that was taken on entering."""

    @property
    def id(self) -> str:
        """Id of the snapshot."""

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Its files by path."""


def execute(store: IndexStore, rebuilt: Rebuilt, guard: AbstractContextManager[Before]) -> None:
    """Write the index in a guarded block: if the store is not healthy then, it is put back.

    Args:
        store: The store.
        rebuilt: What is written.
        guard: A snapshot of the store that is taken when its block is entered.

    Raises:
        ChangedError: The metadata is not what the index was made from.
    """
    todo = rebuilt.plan
    with guard as before:
        now = before.files.get(todo.metadata)
        if now is None or (now.blake3, now.size) != rebuilt.texts:
            raise ChangedError(f"{store.url}/{todo.metadata} was changed while {todo.path} was made: try again")
        if todo.path in before.files:
            set_aside(store.storage, todo.path, before.id)
        attributes = rebuilt.before.attributes if rebuilt.before else None
        if attributes is not None:
            attributes = attrs.evolve(attributes, mtime_ns=time.time_ns())
        store.storage.write(todo.path, [rebuilt.data], attributes)


# -- what is damaged -------------------------------------------------------------------------------------------------


def _components(store: IndexStore) -> tuple[Bm25, Component]:
    """Find the BM25 index of a store, and the file that has its texts."""
    indexes = [component for component in store.components if isinstance(component, Bm25)]
    metadata = [
        component
        for component in store.components
        if isinstance(component, Metadata | JsonLines) and not component.optional
    ]
    if len(indexes) != 1 or len(metadata) != 1:
        paths = ", ".join(component.path for component in (*indexes, *metadata)) or "none"
        raise ConfigurationError(
            f"{store.url}: expected one BM25 index, and one file of metadata in JSON that has its texts, among the "
            f"components, found {paths}. {AGAIN}"
        )
    return indexes[0], metadata[0]


def _only_its_own(store: IndexStore, component: Bm25) -> tuple[Problem, ...]:
    """Check the store; refuse if anything but the BM25 index is damaged."""
    reports, found = store.judge({})
    problems = tuple(problem for problem in found if component.path in problem.paths)
    others = [problem for problem in found if component.path not in problem.paths]
    others += checks.run(store.checks, [report for report in reports if report.path != component.path])
    if others:
        raise ConfigurationError(
            f"{store.url}: {component.path} can be written anew only while all other files are healthy and agree, "
            f"found {'; '.join(map(str, dict.fromkeys(others)))}. {AGAIN}"
        )
    return problems


def _live(store: IndexStore, metadata: Component) -> bytes:
    with store.storage.open(metadata.path) as reader:
        content = b"".join(read_blocks(reader))
        reader.confirm()
    return content


# -- how it was written ----------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Method:
    """A way to write an index from entries.

    Attributes:
        recipe: Of the index that is written.
        field: Member of the entries that holds the text.
        name: How texts are cut into words, for people.
        tokenize: Does so.
    """

    recipe: Recipe
    field: str
    name: str
    tokenize: Tokenize

    def words(self, found: Sequence[Any]) -> list[list[str]]:
        """Cut the texts of entries into words."""
        cut = [list(self.tokenize(text)) for text in texts(found, self.field)]
        if not all(isinstance(word, str) for words in cut for word in words):
            raise ConfigurationError(
                f"expected tokenize to give a list of texts for each text, found others: {self.name}"
            )
        return cut

    def leads_to(self, found: Sequence[Any]) -> bool:
        """Tell whether it gives the words that the index has."""
        head, whole = _corpus(self.recipe)
        some = found[:FEW]
        return (len(found) == len(some) or _digests(self.words(some))[1] == head) and (
            _digests(self.words(found))[1] == whole
        )


@attrs.frozen(kw_only=True)
class _Learned:
    """What a snapshot with a healthy index teaches.

    Attributes:
        snapshot: Its id.
        before: The index in it.
        ways: All that lead from its texts to its index.
        key: Key of the signature.
    """

    snapshot: str
    before: FileEntry
    ways: tuple[_Method, ...]
    key: bytes = attrs.field(default=b"", repr=False)

    def only_way(self, found: Sequence[Any]) -> _Method:
        """Choose the way; refuse if there are several that lead to different words now."""
        usable = [way for way in self.ways if not way.field or way.field in fields(found, way.field)]
        if len({_digests(way.words(found)) for way in usable}) > 1:
            names = " and ".join(f"{way.name} of {way.field or 'entries'}" for way in usable)
            raise ConfigurationError(
                f"{names} all give the words of snapshot {self.snapshot}, but not the same words now. Say which is "
                "right: text_field= and tokenize="
            )
        return usable[0]


def _learn(store: IndexStore, objects: Objects, component: Bm25, metadata: Component, wishes: Hints) -> _Learned:
    """Find the newest snapshot with a healthy index, and out how that was written."""
    for name, record in objects.named_records():
        if record.store != store.url:
            continue
        files = {entry.path: entry for entry in record.files if not _is_unwell(record, entry.path)}
        if not {component.path, metadata.path} <= files.keys():
            continue
        try:
            with _spooled(component.path, blocks(objects, files[component.path])) as reader:
                recipe = component.recipe(reader)
                found = entries(metadata, b"".join(_plain(blocks(objects, files[metadata.path]))))
                if recipe.count != len(found):
                    continue
                require_writable(recipe, f"{component.path} in snapshot {name}")
                key = _key(component, recipe, reader, name, wishes)
        except (ArchivedError, IntegrityError, FormatError) as error:
            _LOG.warning("snapshot %s is no help: %s", name, error)
            continue
        ways = _ways(component, recipe, found, name, wishes)
        return _Learned(snapshot=name, before=files[component.path], ways=ways, key=key)
    raise NotFoundError(
        f"{objects.url} has no snapshot of {store.url} with a healthy {component.path} and {metadata.path}, from which "
        f"its shape could be learned. {AGAIN}"
    )


def _is_unwell(record: SnapshotRecord, path: str) -> bool:
    return any(path in problem.paths for problem in record.problems)


def _key(component: Bm25, recipe: Recipe, reader: Reader, snapshot: str, wishes: Hints) -> bytes:
    """Give the key to sign with; it must be the one that the snapshot's index was signed with."""
    if not recipe.signature:
        return b""
    key = wishes.sign_key or component.key
    if not key:
        raise ConfigurationError(f"{component.path} is signed: pass the key of the signature, sign_key=")
    if not component.is_signed_with(reader, key):
        raise ConfigurationError(
            f"{component.path} in snapshot {snapshot} was signed with another key than the one given: pass that"
        )
    return key


def _ways(component: Bm25, recipe: Recipe, found: Sequence[Any], snapshot: str, wishes: Hints) -> tuple[_Method, ...]:
    """Find the ways to cut the texts of a snapshot into the words of its index, and prove one of them."""
    own = wishes.tokenize
    known = TOKENIZERS if own is None else {getattr(own, "__qualname__", repr(own)): own}
    tried = [
        _Method(recipe=recipe, field=field, name=name, tokenize=tokenize)
        for field in fields(found, wishes.text_field)
        for name, tokenize in known.items()
    ]
    ways = tuple(way for way in tried if way.leads_to(found))
    if not ways:
        raise ConfigurationError(
            f"expected that {' or '.join(dict.fromkeys(way.name for way in tried))} cuts the texts of snapshot "
            f"{snapshot} into the words that its {component.path} has, found that none does. Pass the function that "
            "the ingestion uses: tokenize="
        )
    with _spooled(component.path, [write(recipe, ways[0].words(found))]) as reader:
        again = component.recipe(reader)
    if attrs.evolve(again, signature=recipe.signature) != recipe:
        differ = [name for name, member in recipe.members.items() if again.members.get(name) != member]
        raise ConfigurationError(
            f"an index made from the texts of snapshot {snapshot} is not the one in it: "
            f"{', '.join(differ) or 'its form'} would differ. Install the version of rank-bm25 that wrote it. {AGAIN}"
        )
    return ways


# -- writing it ------------------------------------------------------------------------------------------------------


def _prove(component: Bm25, recipe: Recipe, words: list[list[str]], data: bytes) -> None:
    """Read what was made as the next check will, and compare it with the words.

    Raises:
        IntegrityError: It is not what it should be.
    """
    with _spooled(component.path, [data]) as reader:
        made = component.recipe(reader)
        report = component.inspect(reader)
        problems = (*report.problems, *component.examine(reader, report))
    lengths = _lengths(made)
    same = (
        {name: member[0] for name, member in made.members.items()}
        == {name: member[0] for name, member in recipe.members.items()}
        and made.count == report.count == len(words)
        and _corpus(made) == _digests(words)
        and lengths in (None, hashed(list(map(len, words))))
    )
    if problems or not same:
        raise IntegrityError(f"{component.path}: what was made is not what it should be; nothing was written", problems)


def _innermost(recipe: Recipe) -> Mapping[str, Any]:
    members = recipe.members
    return members["index"][1]["members"] if members.get("index", [""])[0] == "index" else members


def _corpus(recipe: Recipe) -> tuple[str, str]:
    """Give the hashes of the words that an index has, of the first documents and of all."""
    for name in ("doc_freqs", "index"):
        member = _innermost(recipe).get(name, [""])
        if member[0] in ("frequencies", "postings"):
            return member[1], member[2]
    return "", ""


def _lengths(recipe: Recipe) -> str | None:
    found: str | None = recipe.members.get("doc_len", ["", None])[1]
    return found


def _digests(words: list[list[str]]) -> tuple[str, str]:
    return digests(map(Counter, words))


# -- reading ---------------------------------------------------------------------------------------------------------


def _plain(content: Iterable[Block]) -> Iterator[bytes | memoryview]:
    for block in content:
        assert not isinstance(block, Span)  # there was no base
        yield block


def _spooled(path: str, content: Iterable[Block]) -> _Spooled:
    """Give content as a file that a child process can read; it has been checked when it is all there."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the reader
    try:
        for block in _plain(content):
            file.write(block)
        file.flush()
        return _Spooled(path, file)
    except BaseException:
        file.close()
        raise


class _Spooled(Reader):
    """A temporary file that nobody else has."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.entry = Entry(key=path, size=os.fstat(file.fileno()).st_size, identity="", modified=0.0)
        self._file = file

    def read(self, start: int, length: int) -> bytes:
        """Read a range."""
        return os.pread(self._file.fileno(), length, start)

    def confirm(self) -> None:
        """Do nothing: nobody can have changed it."""

    def file(self) -> BinaryIO:
        """Give the file itself; the child begins at its start."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Let go of it, for good."""
        self._file.close()
