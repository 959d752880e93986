"""The live files: a place, and the components that are expected there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup import checks as _checks
from novabackup._paths import RESERVED, is_pattern, matches
from novabackup.checks import Check
from novabackup.components import Component
from novabackup.errors import ChangedError, ConfigurationError
from novabackup.layouts import NOVA
from novabackup.model import FileEntry, Problem, Report
from novabackup.probing import Probing
from novabackup.storage import Entry, Storage, open_storage
from novabackup.views import Problems, Reports

__all__ = ["DeclaredFile", "IndexStore", "find"]

_PROBING = Probing()
_Look = Callable[[Component, Storage, Entry], tuple[Report, tuple[Problem, ...]]]


@attrs.frozen
class DeclaredFile:
    """A file that is there, and the component that knows its kind."""

    component: Component
    entry: Entry


class IndexStore:
    """The index files that belong together, at any fsspec URL.

    Creating a store touches nothing; a store whose folder is not there yet is a store before its first ingest.

    Attributes:
        storage: Where the files are.
        components: What is expected there.
        checks: What must hold between them.
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
            storage_options: Keyword arguments for the fsspec file system; never written anywhere.
            single_writer: State that nobody else writes here.
            probing: What the indexes are asked when a snapshot is taken, so that a drill can ask it again; None for
                nothing.
            embedding_model: Name of what makes the vectors, such as ``all-MiniLM-L6-v2``; kept with each snapshot. By
                default it is looked for as ``embedding_model`` in small JSON files of the store.

        Raises:
            ConfigurationError: The URL cannot be used, or a component is declared twice.
        """
        self.storage = open_storage(url, storage_options)
        self.storage_options = dict(storage_options or {})
        self.components = tuple(components)
        self.checks = tuple(checks)
        self.single_writer = single_writer
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
            probing=self.probing,
            embedding_model=self.embedding_model,
        )

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self.storage.url

    @property
    def declared(self) -> tuple[str, ...]:
        """Paths and patterns of the components."""
        return tuple(component.path for component in self.components)

    def files(self) -> list[DeclaredFile]:
        """Find the declared files that are there.

        Returns:
            Each file once, with the first component that declares it.
        """
        found: dict[str, DeclaredFile] = {}
        for component in sorted(self.components, key=lambda component: is_pattern(component.path)):
            for entry in find(self.storage, component.path):
                found.setdefault(entry.key, DeclaredFile(component, entry))
        return list(found.values())

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

        Returns:
            The problems; empty when the store is healthy.
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
        try:
            entries = find(self.storage, component.path)
        except (OSError, ConfigurationError) as error:
            if is_pattern(component.path):
                raise
            yield _unreadable(name, component.path, None, error)
            return
        if not entries and not component.optional:
            yield Report(component=name, path=component.path, exists=False), ()
        for entry in entries:
            before = known.get(entry.key)
            if before and before.report and before.identity and before.identity == entry.identity:
                yield before.report, ()
                continue
            try:
                yield look(component, self.storage, entry)
            except (OSError, ChangedError, ConfigurationError) as error:
                yield _unreadable(name, entry.key, entry.size, error)

    def _repr_html_(self) -> str:
        return self.inspect()._repr_html_()

    def __repr__(self) -> str:
        return f"IndexStore({self.url!r}, components={len(self.components)})"


def find(storage: Storage, path: str) -> list[Entry]:
    """Find the files that a declared path or pattern names, without novabackup's own."""
    if not is_pattern(path):
        try:
            return [storage.entry(path)]
        except FileNotFoundError:
            return []
    fixed: list[str] = []
    for part in path.split("/")[:-1]:
        if is_pattern(part):
            break
        fixed.append(part)
    return [
        entry
        for entry in storage.entries("/".join(fixed))
        if matches(entry.key, path) and entry.key.partition("/")[0] != RESERVED
    ]


def _cheap(component: Component, storage: Storage, entry: Entry) -> tuple[Report, tuple[Problem, ...]]:
    with storage.open(entry.key) as reader:
        return component.inspect(reader), ()


def _thorough(component: Component, storage: Storage, entry: Entry) -> tuple[Report, tuple[Problem, ...]]:
    with storage.open(entry.key) as reader:
        report = component.inspect(reader)
        problems = component.examine(reader, report)
        reader.confirm()
        return report, tuple(problems)


def _unreadable(name: str, path: str, size: int | None, error: Exception) -> tuple[Report, tuple[Problem, ...]]:
    problem = Problem(
        code="unreadable",
        paths=(path,),
        message=f"expected a file that can be read, found {type(error).__name__}: {error}",
    )
    return Report(component=name, path=path, exists=True, size=size, problems=(problem,)), ()
