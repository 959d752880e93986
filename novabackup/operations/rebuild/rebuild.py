"""Rebuild a damaged BM25 index from the texts of the metadata, if nothing else is damaged: `plan` and `execute`.

How the index was written is learned from the newest snapshot with a healthy one: shape, parameters, and tokenizer. It
counts as known only if an index written in this way from the texts of that snapshot is the same.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import attrs
from blake3 import blake3

from novabackup._support import html
from novabackup._support.text import aligned
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
from novabackup.format.records import FileEntry, Problem
from novabackup.objects.objects import Objects
from novabackup.objects.reader import blocks, read_file
from novabackup.operations.rebuild.texts import TOKENIZERS, Tokenize, entries, fields, texts
from novabackup.operations.rebuild.write import AGAIN, PARAMETERS, require_writable, write
from novabackup.operations.restore.execute import set_aside
from novabackup.storage import Block, Reader, open_storage
from novabackup.storage.raw import read_blocks
from novabackup.store import checks
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")


@attrs.frozen(kw_only=True)
class Hints:
    """What the caller knows about the index: member with the text, tokenizer, and key of the signature."""

    text_field: str | None = None
    tokenize: Tokenize | None = None
    sign_key: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RebuildPlan:
    """What `rebuild_bm25` would do, or has done.

    Attributes:
        store: URL of the store.
        path: The BM25 index.
        problems: What is wrong with it; empty if there is nothing to do.
        metadata: The file with the texts.
        text_field: Member of its entries that holds the text; empty if the entries are texts themselves.
        tokenizer: How texts are split into words, as Python code.
        kind: Class and pickle protocol of the index.
        parameters: Its parameters.
        learned_from: Id of the snapshot with a healthy index, which all this was verified with.
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
        return "\n".join([printable(f"{self.store}: {self.path} is rebuilt"), *aligned(self._rows())])

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
        caption = f"{self.store}: {self.path} is rebuilt" if self.problems else str(self)
        return html.table(caption, ["what", "how"], self._rows() if self.problems else [])


@attrs.frozen(kw_only=True)
class Rebuilt:
    """An index that is ready to be written.

    Attributes:
        plan: Its description.
        data: Its bytes; empty if there is nothing to do.
        texts: Hash and size of the metadata that it was made from.
        before: The healthy index in the snapshot that it was learned from.
    """

    plan: RebuildPlan
    data: bytes = attrs.field(default=b"", repr=False)
    texts: tuple[str, int] = ("", 0)
    before: FileEntry | None = None


def plan(store: IndexStore, objects: Objects, hints: Hints) -> Rebuilt:
    """Build the index in memory; write nothing.

    Raises:
        ConfigurationError: It cannot be made; the message says what is missing.
        NotFoundError: No snapshot has a healthy one.
        IntegrityError: The new index is not as expected.
    """
    component, metadata = _components(store)
    problems = _only_its_own(store, component)
    todo = RebuildPlan(store=store.url, path=component.path, problems=problems)
    if not problems:
        return Rebuilt(plan=todo)
    learned = _learn(store, objects, component, metadata, hints)
    content = _live(store, metadata)
    found = entries(metadata, content)
    method = learned.method(found)
    words = method.words(found)
    data = write(method.recipe, words)
    if method.recipe.signature:
        data = sign(data, learned.key, method.recipe.signature)
    _prove(component, method.recipe, words, data)
    parameters = [(name, float(member[1])) for name, member in method.recipe.members.items() if name in PARAMETERS]
    signed = ", signed" if method.recipe.signature else ""
    return Rebuilt(
        plan=attrs.evolve(
            todo,
            metadata=metadata.path,
            text_field=method.field,
            tokenizer=method.name,
            kind=f"{method.recipe.kind}, pickle protocol {method.recipe.protocol}{signed}",
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
    """The snapshot that a guarded block takes on entry."""

    @property
    def id(self) -> str:
        """Id of the snapshot."""

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Its files by path."""


def execute(store: IndexStore, rebuilt: Rebuilt, guard: AbstractContextManager[Before]) -> None:
    """Write the index in the block of a guard, which puts the store back if it is not healthy afterwards.

    Raises:
        ChangedError: The metadata has changed since the index was made.
    """
    todo = rebuilt.plan
    with guard as before:
        now = before.files.get(todo.metadata)
        if now is None or (now.blake3, now.size) != rebuilt.texts:
            raise ChangedError(f"{store.url}/{todo.metadata} was changed while {todo.path} was rebuilt: try again")
        if todo.path in before.files:
            set_aside(store.storage, todo.path, before.id)
        attributes = rebuilt.before.attributes if rebuilt.before else None
        if attributes is not None:
            attributes = attrs.evolve(attributes, mtime_ns=time.time_ns())
        store.storage.write(todo.path, [rebuilt.data], attributes)


# -- what is damaged -------------------------------------------------------------------------------------------------


def _components(store: IndexStore) -> tuple[Bm25, Component]:
    """Find the BM25 index of a store, and the file with its texts."""
    indexes = [component for component in store.components if isinstance(component, Bm25)]
    metadata = [
        component
        for component in store.components
        if isinstance(component, Metadata | JsonLines) and not component.optional
    ]
    if len(indexes) != 1 or len(metadata) != 1:
        paths = ", ".join(component.path for component in (*indexes, *metadata)) or "none"
        raise ConfigurationError(
            f"{store.url}: expected one BM25 index, and one JSON metadata file with its texts, among the "
            f"components, found {paths}. {AGAIN}"
        )
    return indexes[0], metadata[0]


def _only_its_own(store: IndexStore, component: Bm25) -> tuple[Problem, ...]:
    """Return what is wrong with the BM25 index; refuse if anything else is damaged."""
    reports, found = store.judge({})
    problems = tuple(problem for problem in found if component.path in problem.paths)
    others = [problem for problem in found if component.path not in problem.paths]
    others += checks.run(store.checks, [report for report in reports if report.path != component.path])
    if others:
        raise ConfigurationError(
            f"{store.url}: {component.path} can be rebuilt only while all other files are healthy and agree, "
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
    """One possible way to write an index from entries: its recipe, member with the text, and tokenizer with a name."""

    recipe: Recipe
    field: str
    name: str
    tokenize: Tokenize

    def words(self, found: Sequence[Any]) -> list[list[str]]:
        """Split the texts of entries into words."""
        cut = [list(self.tokenize(text)) for text in texts(found, self.field)]
        if not all(isinstance(word, str) for words in cut for word in words):
            raise ConfigurationError(
                f"expected tokenize to return a list of words for each text, found something else: {self.name}"
            )
        return cut

    def fits(self, found: Sequence[Any]) -> bool:
        """Return whether it gives the words that the index has."""
        head, whole = _corpus(self.recipe)
        some = found[:FEW]
        return (len(found) == len(some) or _digests(self.words(some))[1] == head) and (
            _digests(self.words(found))[1] == whole
        )


@attrs.frozen(kw_only=True)
class _Learned:
    """What is learned from a snapshot with a healthy index: the methods that fit, and the key of the signature."""

    snapshot: str
    before: FileEntry
    methods: tuple[_Method, ...]
    key: bytes = attrs.field(default=b"", repr=False)

    def method(self, found: Sequence[Any]) -> _Method:
        """Choose the method; refuse if several fit that give different words for the entries now."""
        usable = [one for one in self.methods if not one.field or one.field in fields(found, one.field)]
        if len({_digests(one.words(found)) for one in usable}) > 1:
            names = " and ".join(f"{one.name} of {one.field or 'entries'}" for one in usable)
            raise ConfigurationError(
                f"{names} all give the words of snapshot {self.snapshot}, but different words now. Choose one "
                "with text_field= and tokenize="
            )
        return usable[0]


def _learn(store: IndexStore, objects: Objects, component: Bm25, metadata: Component, hints: Hints) -> _Learned:
    """Find the newest snapshot with a healthy index, and how it was written."""
    for point in objects.records.newest_first():
        name, record = point.id, point.record
        if record.store != store.url:
            continue
        unhealthy = {path for problem in record.problems for path in problem.paths}
        files = {entry.path: entry for entry in record.files if entry.path not in unhealthy}
        if not {component.path, metadata.path} <= files.keys():
            continue
        try:
            with _spooled(component.path, blocks(objects, files[component.path])) as reader:
                recipe = component.recipe(reader)
                found = entries(metadata, read_file(objects, files[metadata.path]))
                if recipe.count != len(found):
                    continue
                require_writable(recipe, f"{component.path} in snapshot {name}")
                key = _key(component, recipe, reader, name, hints)
        except (ArchivedError, IntegrityError, FormatError) as error:
            _LOG.warning("snapshot %s cannot be used: %s", name, error)
            continue
        methods = _methods(component, recipe, found, name, hints)
        return _Learned(snapshot=name, before=files[component.path], methods=methods, key=key)
    raise NotFoundError(
        f"{objects.url} has no snapshot of {store.url} with a healthy {component.path} and {metadata.path} to learn "
        f"its shape from. {AGAIN}"
    )


def _key(component: Bm25, recipe: Recipe, reader: Reader, snapshot: str, hints: Hints) -> bytes:
    """Return the key to sign with; it must be the one that the snapshot's index was signed with."""
    if not recipe.signature:
        return b""
    key = hints.sign_key or component.key
    if not key:
        raise ConfigurationError(f"{component.path} is signed: pass the key of the signature with sign_key=")
    if not component.is_signed_with(reader, key):
        raise ConfigurationError(
            f"{component.path} in snapshot {snapshot} was not signed with the given key: pass its own with sign_key="
        )
    return key


def _methods(component: Bm25, recipe: Recipe, found: Sequence[Any], snapshot: str, hints: Hints) -> tuple[_Method, ...]:
    """Find the methods that split the texts of a snapshot into the words of its index, and verify one of them."""
    own = hints.tokenize
    known = TOKENIZERS if own is None else {getattr(own, "__qualname__", repr(own)): own}
    tried = [
        _Method(recipe=recipe, field=field, name=name, tokenize=tokenize)
        for field in fields(found, hints.text_field)
        for name, tokenize in known.items()
    ]
    methods = tuple(one for one in tried if one.fits(found))
    if not methods:
        raise ConfigurationError(
            f"expected that {' or '.join(dict.fromkeys(one.name for one in tried))} splits the texts of snapshot "
            f"{snapshot} into the words of its {component.path}, found that none does. Pass the function that the "
            "ingestion uses with tokenize="
        )
    with _spooled(component.path, [write(recipe, methods[0].words(found))]) as reader:
        again = component.recipe(reader)
    if attrs.evolve(again, signature=recipe.signature) != recipe:
        differ = [name for name, member in recipe.members.items() if again.members.get(name) != member]
        raise ConfigurationError(
            f"an index made from the texts of snapshot {snapshot} is not the one in it: "
            f"{', '.join(differ) or 'its form'} would differ. Install the version of rank-bm25 that wrote it. {AGAIN}"
        )
    return methods


# -- writing it ------------------------------------------------------------------------------------------------------


def _prove(component: Bm25, recipe: Recipe, words: list[list[str]], data: bytes) -> None:
    """Read the new index as the next check will, and compare it with the words."""
    with _spooled(component.path, [data]) as reader:
        made = component.recipe(reader)
        report = component.inspect(reader)
        problems = (*report.problems, *component.examine(reader, report))
    lengths = made.members.get("doc_len", ["", None])[1]
    same = (
        {name: member[0] for name, member in made.members.items()}
        == {name: member[0] for name, member in recipe.members.items()}
        and made.count == report.count == len(words)
        and _corpus(made) == _digests(words)
        and lengths in (None, hashed(list(map(len, words))))
    )
    if problems or not same:
        raise IntegrityError(f"{component.path}: the new index is not as expected; nothing was written", problems)


def _corpus(recipe: Recipe) -> tuple[str, str]:
    """Return the hashes of the words of an index: of the first documents and of all."""
    members = recipe.members
    if members.get("index", [""])[0] == "index":
        members = members["index"][1]["members"]
    for name in ("doc_freqs", "index"):
        member = members.get(name, [""])
        if member[0] in ("frequencies", "postings"):
            return member[1], member[2]
    return "", ""


def _digests(words: list[list[str]]) -> tuple[str, str]:
    return digests(map(Counter, words))


@contextlib.contextmanager
def _spooled(path: str, content: Iterable[Block]) -> Iterator[Reader]:
    """Write content to a temporary file that a child process can read."""
    with tempfile.TemporaryDirectory(prefix="novabackup-") as folder:
        storage = open_storage(folder)
        storage.write(path, content)
        with storage.open(path) as reader:
            yield reader
