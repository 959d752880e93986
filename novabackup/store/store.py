"""A store: where the live files are, which components are declared there, and how they are checked."""

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
from novabackup.store import checks
from novabackup.store.checks import Check
from novabackup.store.layouts import LEFT_OUT, NOVA
from novabackup.store.questions import Occasion, Probing
from novabackup.store.reports import Problems, Reports
from novabackup.store.selection import DeclaredFile, Selection, below, find, is_in, without_crossed_links

__all__ = ["Contents", "IndexStore"]

_PROBING = Probing()
_Found = tuple[Report, tuple[Problem, ...]]
_Reading = Callable[[Component, Storage, Entry], _Found]


@attrs.frozen(kw_only=True)
class Contents:
    """What is in a store.

    Attributes:
        files: The files.
        links: The symbolic links of its trees.
        folders: The folders of its trees, and their parents.
        others: Anything else in its trees, which has no content that could be backed up.
    """

    files: list[DeclaredFile]
    links: list[Link]
    folders: list[Folder]
    others: list[Other]


class IndexStore:
    """Index files that belong together, at any fsspec URL.

    Creating an instance touches no file. The folder need not exist: then the store is one before its first ingest.

    Attributes:
        storage: Where the files are.
        components: The kinds of files that are expected there.
        checks: Rules that must hold between them.
        exclude: Patterns of files that are no part of the store.
        single_writer: The user states that no other process writes to this store, so that a guard accepts a storage
            without locks.
        probing: Queries to run on the indexes when a snapshot is taken; None for none.
        embedding_model: What makes the vectors; recorded with each snapshot.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | Storage,
        *,
        components: Iterable[Component] = NOVA,
        checks: Iterable[Check] = checks.DEFAULT,
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
            exclude: Patterns of files and folders that the patterns of components do not select; a component that
                names one file selects it all the same. By default `novabackup.layouts.LEFT_OUT` if a component is a
                `Tree`, and otherwise nothing.
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            single_writer: State that no other process writes here.
            probing: Queries to run on the indexes when a snapshot is taken, so that a drill can repeat them; None for
                none.
            embedding_model: Name of what makes the vectors, such as ``all-MiniLM-L6-v2``; recorded with each snapshot.
                By default it is the ``embedding_model`` in a small JSON file of the store.

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
        self._check_declared()

    def _check_declared(self) -> None:
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
        """Return a store with the same components and checks in another place."""
        return IndexStore(
            url,
            components=self.components,
            checks=self.checks,
            exclude=self.exclude,
            probing=self.probing,
            embedding_model=self.embedding_model,
        )

    def probing_on(self, occasion: Occasion) -> Probing | None:
        """Return which queries to run on this occasion; None for none."""
        return self.probing if self.probing is not None and occasion in self.probing.on else None

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self.storage.url

    @property
    def declared(self) -> tuple[str, ...]:
        """Paths and patterns of the components, and of files beside them."""
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
        """Return the declared files that exist, each once, with the first component that declares it."""
        return self.contents().files

    def contents(self, outside: str = "", *, components: Iterable[Component] | None = None) -> Contents:
        """Find everything that is declared and exists.

        Args:
            outside: URL of a repository, which is no part of the store even if it is in its folder.
            components: Only what these declare; by default all.

        Returns:
            Each file once, with the first component that declares it.

        Raises:
            ConfigurationError: Where a file is declared there is a link out of the store, or something that is no file.
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
                parent = self.storage.look(folder)
                if isinstance(parent, Folder):  # no part of the tree, but needed to reach it
                    found.setdefault(folder, (component, parent))
        kept = without_crossed_links({key: item for key, (_component, item) in found.items()})
        items = [found[key] for key in kept]
        return Contents(
            files=[DeclaredFile(component, item) for component, item in items if isinstance(item, Entry)],
            links=[item for _component, item in items if isinstance(item, Link)],
            folders=[item for _component, item in items if isinstance(item, Folder)],
            others=[item for _component, item in items if isinstance(item, Other)],
        )

    def inspect(self, *, callback: Callback = DEFAULT_CALLBACK) -> Reports:
        """Report on each file: whether it exists, size, count, dimension, kind, what it was written with.

        Args:
            callback: Progress in components (an fsspec callback).

        Returns:
            One report for each file, and one for each required component whose file does not exist.
        """
        return Reports(report for report, _problems in self._read(_inspected, {}, callback))

    def check(self, *, callback: Callback = DEFAULT_CALLBACK) -> Problems:
        """Read every file in full, and apply the checks.

        Args:
            callback: Progress in components (an fsspec callback).

        Returns:
            The problems; empty if the store is healthy, or if none of its files exists, as before its first ingest.
        """
        return self.judge({}, callback=callback)[1]

    def judge(
        self, known: Mapping[str, FileEntry], *, callback: Callback = DEFAULT_CALLBACK
    ) -> tuple[Reports, Problems]:
        """Check the store as `check` does, but skip files that have not changed since a snapshot.

        Args:
            known: Files of the snapshot by path; a file that still has the identity recorded there is not opened.
            callback: Progress in components (an fsspec callback).

        Returns:
            The reports and the problems.
        """
        results = list(self._read(_examined, known, callback))
        reports = Reports(report for report, _problems in results)
        damage = [problem for _report, problems in results for problem in problems]
        return reports, Problems(dict.fromkeys([*damage, *checks.run(self.checks, reports)]))

    def inspect_existing(self, paths: Collection[str]) -> Reports:
        """Report on some of the files, leaving out those that do not exist."""
        components = [component for component in self.components if component.path in paths]
        reports = [report for component in components for report, _ in self._read_one(component, _inspected, {})]
        return Reports(report for report in reports if report.exists)

    def _read(self, read: _Reading, known: Mapping[str, FileEntry], callback: Callback) -> Iterator[_Found]:
        callback.set_size(len(self.components))
        for component in self.components:
            yield from self._read_one(component, read, known)
            callback.relative_update(1)

    def _read_one(self, component: Component, read: _Reading, known: Mapping[str, FileEntry]) -> Iterator[_Found]:
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
                    found = read(component, self.storage, entry)
                except ChangedError:
                    found = read(component, self.storage, entry)  # perhaps it was only altered on the way
                yield found
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


def _inspected(component: Component, storage: Storage, entry: Entry) -> _Found:
    with component.open(storage, entry) as reader:
        return component.inspect(reader), ()


def _examined(component: Component, storage: Storage, entry: Entry) -> _Found:
    with component.open(storage, entry) as reader:
        report = component.inspect(reader)
        problems = component.examine(reader, report)
        reader.confirm()
        return report, tuple(problems)


def _unreadable(name: str, path: str, size: int | None, error: Exception) -> _Found:
    problem = Problem(
        code="unreadable",
        paths=(path,),
        message=printable(f"expected a file that can be read, found {type(error).__name__}: {error}"),
    )
    return Report(component=name, path=path, exists=True, size=size, problems=(problem,)), ()
