"""The live files: a place, and the components that are expected there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support.arguments import expect
from novabackup._support.paths import RESERVED, above, fixed_part, is_pattern, unsafe
from novabackup.components import Component
from novabackup.errors import ChangedError, ConfigurationError, printable
from novabackup.format.records import FileEntry, Problem, Report
from novabackup.storage import Entry, Folder, Item, Link, Other, Storage, open_storage
from novabackup.store import checks as _checks
from novabackup.store.checks import Check
from novabackup.store.layouts import LEFT_OUT, NOVA
from novabackup.store.questions import Occasion, Probing
from novabackup.store.reports import Problems, Reports
from novabackup.store.selection import DeclaredFile, Selection, below, find, is_in, without_crossed_links

__all__ = ["Contents", "IndexStore"]

_PROBING = Probing()
_Look = Callable[[Component, Storage, Entry], tuple[Report, tuple[Problem, ...]]]


@attrs.frozen(kw_only=True)
class Contents:
    """What is in a store.

    Attributes:
        files: The files.
        links: The symbolic links of its trees.
        folders: The folders of its trees, and those that the trees are in.
        others: What else is in its trees, and has no content that could be kept.
    """

    files: list[DeclaredFile]
    links: list[Link]
    folders: list[Folder]
    others: list[Other]


class IndexStore:
    """The index files that belong together, at any fsspec URL.

    Creating a store touches nothing; a store whose folder is not there yet is a store before its first ingest.

    Attributes:
        storage: Where the files are.
        components: What is expected there.
        checks: What must hold between them.
        exclude: Patterns of what is no part of the store.
        single_writer: Declared by the user: nobody else writes to this store, so a storage that cannot exclude others
            is good enough for a guard.
        probing: What the indexes are asked when a snapshot is taken; None for nothing.
        embedding_model: What makes the vectors, for the record.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Storage,
        *,
        components: Iterable[Component] = NOVA,
        checks: Iterable[Check] = _checks.DEFAULT,
        exclude: Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        single_writer: bool = False,
        probing: Probing | None = _PROBING,
        embedding_model: str = "",
    ) -> None:
        """Describe a store.

        Args:
            url: Local path, any fsspec URL, or a storage.
            components: The kinds of files, such as one of `novabackup.layouts`.
            checks: Functions from reports to problems.
            exclude: Patterns of what the components' patterns do not select, with all that is below; a component that
                names one file has it all the same. By default `novabackup.layouts.LEFT_OUT` where a component is a
                `Tree`, and otherwise nothing.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            single_writer: State that nobody else writes here.
            probing: What the indexes are asked when a snapshot is taken, so that a drill can ask it again; None for
                nothing.
            embedding_model: Name of what makes the vectors, such as ``all-MiniLM-L6-v2``; kept with each snapshot. By
                default it is looked for as ``embedding_model`` in small JSON files of the store.

        Raises:
            ConfigurationError: The URL or a pattern cannot be used, or a component is declared twice.
        """
        self.storage = open_storage(url, storage_options)
        self.storage_options = dict(storage_options or {})
        self.components = tuple(components)
        for component in self.components:
            expect(component, Component, "components=layouts.NOVA, or a list such as [Faiss('faiss_index.bin')]")
        self.checks = tuple(checks)
        self.single_writer = single_writer
        if exclude is None:
            exclude = LEFT_OUT if any(component.whole for component in self.components) else ()
        self.exclude = _patterns(exclude)
        self.probing = probing
        self.embedding_model = embedding_model
        self._refuse_impossible_components()

    def _refuse_impossible_components(self) -> None:
        if not self.components:
            raise ConfigurationError(f"{self.url}: a store needs at least one component, found none")
        seen: set[str] = set()
        for path in self.declared:
            if path in seen:
                raise ConfigurationError(f"{self.url}: {path} is declared twice. Keep one component for each file")
            if path.partition("/")[0] == RESERVED:
                raise ConfigurationError(f"{self.url}: {path} is in {RESERVED}/, which belongs to novabackup")
            seen.add(path)

    def at(self, url: str | os.PathLike[str] | Storage) -> IndexStore:
        """Describe the same kind of store in another place."""
        return IndexStore(
            url,
            components=self.components,
            checks=self.checks,
            exclude=self.exclude,
            probing=self.probing,
            embedding_model=self.embedding_model,
        )

    def probing_on(self, occasion: Occasion) -> Probing | None:
        """Tell what the indexes are asked on an occasion; None for nothing."""
        return self.probing if self.probing is not None and occasion in self.probing.on else None

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self.storage.url

    @property
    def declared(self) -> tuple[str, ...]:
        """Paths and patterns of the components, and of what belongs beside their files."""
        paths = tuple(component.path for component in self.components)
        return paths + tuple(path for component in self.components for path in component.beside)

    @property
    def _beside(self) -> frozenset[str]:
        return frozenset(path for component in self.components for path in component.beside)

    @property
    def selection(self) -> Selection:
        """What belongs to the store."""
        trees = frozenset(component.path for component in self.components if component.whole)
        return Selection(declared=self.declared, trees=trees, excluded=self.exclude)

    def files(self) -> list[DeclaredFile]:
        """Find the declared files that are there.

        Returns:
            Each file once, with the first component that declares it.
        """
        return self.contents().files

    def contents(self, outside: str = "", *, components: Iterable[Component] | None = None) -> Contents:
        """Find what is there of all that is declared.

        Args:
            outside: URL of a repository, which is no part of the store even if it lies within.
            components: Only what these declare; by default all.

        Returns:
            Each file once, with the first component that declares it.

        Raises:
            ConfigurationError: A link leads out of the store where a file is declared, or something else is in its way.
        """
        selection = self.selection
        hidden = below(self.url, outside) if outside else None
        beside = self._beside
        found: dict[str, tuple[Component, Item]] = {}
        chosen = self.components if components is None else tuple(components)
        for component in sorted(chosen, key=lambda component: is_pattern(component.path)):
            for item in find(self.storage, component.path, selection, hidden):
                if item.key not in beside and not is_in(hidden, item.key):
                    found.setdefault(item.key, (component, item))
        for component in chosen:
            for folder in above(fixed_part(component.path)) if component.whole else ():
                around = self.storage.look(folder)
                if isinstance(around, Folder):  # no part of the tree, but needed to reach it
                    found.setdefault(folder, (component, around))
        kept = without_crossed_links({key: item for key, (_component, item) in found.items()})
        items = [found[key] for key in kept]
        return Contents(
            files=[DeclaredFile(component, item) for component, item in items if isinstance(item, Entry)],
            links=[item for _component, item in items if isinstance(item, Link)],
            folders=[item for _component, item in items if isinstance(item, Folder)],
            others=[item for _component, item in items if isinstance(item, Other)],
        )

    def inspect(self, *, callback: Callback = DEFAULT_CALLBACK) -> Reports:
        """Look at each component: whether it exists, size, count, dimension, kind, what it was written with.

        Args:
            callback: Told of each file.

        Returns:
            One report for each file, and one for each required component whose file is not there.
        """
        return Reports(report for report, _problems in self._look(_cheap, {}, callback))

    def check(self, *, callback: Callback = DEFAULT_CALLBACK) -> Problems:
        """Open every file thoroughly and compare what the components say.

        Args:
            callback: Told of each file.

        Returns:
            The problems; empty when the store is healthy. A store of which no file is there yet has none, as before its
            first ingest; `inspect` tells what is there.
        """
        return self.judge({}, callback=callback)[1]

    def judge(
        self, known: Mapping[str, FileEntry], *, callback: Callback = DEFAULT_CALLBACK
    ) -> tuple[Reports, Problems]:
        """Check the store, sparing the files that have not changed since they were known.

        Args:
            known: Files of a snapshot by path; a file that still has the identity noted there is not opened.
            callback: Told of each file.

        Returns:
            The reports and the problems.
        """
        looked = list(self._look(_thorough, known, callback))
        reports = Reports(report for report, _problems in looked)
        damage = [problem for _report, problems in looked for problem in problems]
        found = [*damage, *_checks.run(self.checks, reports)]
        return reports, Problems(dict.fromkeys(found))

    def _look(
        self, look: _Look, known: Mapping[str, FileEntry], callback: Callback
    ) -> Iterator[tuple[Report, tuple[Problem, ...]]]:
        callback.set_size(len(self.components))
        for component in self.components:
            yield from self._look_at(component, look, known)
            callback.relative_update(1)

    def look_at(self, paths: Collection[str]) -> Reports:
        """Take the cheap look at some files, as far as they are there."""
        components = [component for component in self.components if component.path in paths]
        reports = [report for component in components for report, _ in self._look_at(component, _cheap, {})]
        return Reports(report for report in reports if report.exists)

    def _look_at(
        self, component: Component, look: _Look, known: Mapping[str, FileEntry]
    ) -> Iterator[tuple[Report, tuple[Problem, ...]]]:
        name = type(component).__name__
        beside = self._beside
        try:
            items = find(self.storage, component.path, self.selection)
            entries = [item for item in items if isinstance(item, Entry) and item.key not in beside]
        except (OSError, ConfigurationError) as error:
            if is_pattern(component.path):
                raise
            yield _unreadable(name, component.path, None, error)
            return
        if not entries and not component.optional:
            yield component.absent(), ()
        for entry in entries:
            before = known.get(entry.key)
            if before and before.report and before.identity and before.identity == entry.identity:
                yield before.report, ()
                continue
            try:
                try:
                    looked = look(component, self.storage, entry)
                except ChangedError:
                    looked = look(component, self.storage, entry)  # perhaps it was only altered on the way
                yield looked
            except (OSError, ChangedError, ConfigurationError) as error:
                yield _unreadable(name, entry.key, entry.size, error)

    def _repr_html_(self) -> str:
        return self.inspect()._repr_html_()

    def __repr__(self) -> str:
        return f"IndexStore({self.url!r}, components={len(self.components)})"


def _patterns(exclude: Iterable[str]) -> tuple[str, ...]:
    if isinstance(exclude, str):
        raise ConfigurationError(f"exclude must be a list of patterns, found the text {exclude!r}: write [{exclude!r}]")
    patterns = tuple(exclude)
    for pattern in patterns:
        reason = unsafe(pattern)
        if reason:
            raise ConfigurationError(f"the pattern {pattern!r} in exclude cannot be used: {reason}")
    return patterns


def _cheap(component: Component, storage: Storage, entry: Entry) -> tuple[Report, tuple[Problem, ...]]:
    with component.open(storage, entry) as reader:
        return component.inspect(reader), ()


def _thorough(component: Component, storage: Storage, entry: Entry) -> tuple[Report, tuple[Problem, ...]]:
    with component.open(storage, entry) as reader:
        report = component.inspect(reader)
        problems = component.examine(reader, report)
        reader.confirm()
        return report, tuple(problems)


def _unreadable(name: str, path: str, size: int | None, error: Exception) -> tuple[Report, tuple[Problem, ...]]:
    problem = Problem(
        code="unreadable",
        paths=(path,),
        message=printable(f"expected a file that can be read, found {type(error).__name__}: {error}"),
    )
    return Report(component=name, path=path, exists=True, size=size, problems=(problem,)), ()
