"""What every command works with: the options that all share, and the store and repository that they lead to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Group, Parameter

from novabackup.cli.config import file as _config
from novabackup.cli.config.amounts import bytes_of
from novabackup.cli.config.durations import seconds_of
from novabackup.cli.config.file import LAYOUTS, Config, CopySettings, RepositorySettings, StoreSettings
from novabackup.cli.config.secrets import revealed
from novabackup.cli.output import Terminal, size
from novabackup.cli.unseen import Unseen
from novabackup.components import Tree
from novabackup.errors import ConfigurationError, NotFoundError
from novabackup.format.records import Problem
from novabackup.keys import Key, KeyFile, Passphrase
from novabackup.repository.repository import Repository, protocol
from novabackup.repository.snapshot import Snapshot
from novabackup.store import checks
from novabackup.store.store import IndexStore

__all__ = ["BY_DEFAULT", "Options", "Rate", "Span", "Work"]

_WHERE = Group("Where", sort_key=8)
_HOW = Group("Output", sort_key=9)
_DEFAULT_FOLDER = "backups"
_LATEST = "latest"


def _read_by(read: Callable[[str], float]) -> Callable[[object, tuple[object, ...]], float]:
    """Make what reads the value of an option out of what reads a text."""
    return lambda _hint, tokens: read(str(getattr(tokens[0], "value", tokens[0])))


Span = Annotated[float, Parameter(converter=_read_by(seconds_of), metavar="SPAN")]
"""An option that takes a time span: ``90s``, ``5m``, ``2h``, ``1d``."""
Rate = Annotated[float, Parameter(converter=_read_by(bytes_of), metavar="SIZE")]
"""An option that takes a number of bytes a second: ``500kB``, ``5MB``."""


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Options:
    """Options that every command has.

    Attributes:
        config: The configuration file; by default novabackup.toml here or in a folder above, then the user's and the
            system's.
        store: Path or URL of the index files.
        repository: Path or URL of the repository; by default the folder backups in the store.
        layout: Which files the store has.
        json: Print one JSON document.
        quiet: Print only what was asked for and what is wrong; no progress.
        debug: Print tracebacks of errors.
    """

    config: Annotated[Path | None, Parameter(group=_WHERE, env_var="NOVABACKUP_CONFIG")] = None
    store: Annotated[str | None, Parameter(group=_WHERE, env_var="NOVABACKUP_STORE", metavar="URL")] = None
    repository: Annotated[
        str | None, Parameter(alias="-r", group=_WHERE, env_var="NOVABACKUP_REPOSITORY", metavar="URL")
    ] = None
    layout: Annotated[str | None, Parameter(group=_WHERE, choices=tuple(LAYOUTS), metavar="NAME")] = None
    json: Annotated[bool, Parameter(group=_HOW)] = False
    quiet: Annotated[bool, Parameter(alias="-q", group=_HOW)] = False
    debug: Annotated[bool, Parameter(group=_HOW)] = False

    @contextmanager
    def open(self) -> Iterator[Work]:
        """Read the configuration, and show what the library warns of meanwhile.

        Yields:
            What a command works with.

        Raises:
            ConfigurationError: The configuration cannot be used.
        """
        terminal = Terminal(as_json=self.json, quiet=self.quiet)
        found = _config.find(self.config)
        with terminal.log_shown():
            yield Work(options=self, config=_config.load(found), found=found, terminal=terminal)


BY_DEFAULT = Options()
"""No option was given."""


@attrs.frozen(kw_only=True, slots=False)
class Work:
    """Store, repository and terminal of one run of a command.

    Attributes:
        options: What was said on the command line.
        config: What the configuration file says.
        found: That file; None if there is none.
        terminal: Where to ask and to show progress.
    """

    options: Options
    config: Config
    found: Path | None
    terminal: Terminal

    @functools.cached_property
    def known_store(self) -> IndexStore | None:
        """The store, if the command line or the configuration names one."""
        url = self.options.store or self.config.store.url
        if url is None:
            return None
        said = self.config.store
        layout = self.options.layout or said.layout or "nova"
        own = said.components if not self.options.layout else ()
        beside = [Tree(pattern) for pattern in said.include] if not self.options.layout else []
        return IndexStore(
            url,
            components=[*(own or LAYOUTS[layout]), *beside],
            exclude=said.exclude,
            storage_options=_options_for(url, said),
            single_writer=said.single_writer,
        )

    @property
    def store(self) -> IndexStore:
        """The store.

        Raises:
            ConfigurationError: Neither the command line nor the configuration names one.
        """
        if self.known_store is None:
            raise ConfigurationError(self._nothing_names("a store", "--store", "[store]"))
        return self.known_store

    @functools.cached_property
    def repository(self) -> Repository:
        """The repository.

        Raises:
            ConfigurationError: Neither it nor a store is named.
        """
        url = self.options.repository or self.config.repository.url
        if url is not None:
            return self._repository(url, self.config.repository, _options_for(url, self.config.repository))
        if self.known_store is None:
            raise ConfigurationError(self._nothing_names("a repository", "--repository", "[repository]"))
        inside = f"{self.known_store.url.rstrip('/')}/{_DEFAULT_FOLDER}"
        return self._repository(inside, self.config.repository, self.known_store.storage_options)

    def copy_settings(self, name: str) -> CopySettings:
        """Give what the configuration says of a copy.

        Raises:
            ConfigurationError: It says nothing of one that is called so.
        """
        found = self.config.copies.get(name)
        if found is None:
            known = ", ".join(self.config.copies) or "no copies"
            raise ConfigurationError(
                f"expected the name of a copy, found {name!r}; {self.found or 'the configuration'} has {known}. "
                f"Write [copies.{name}] there; a folder of that name is ./{name}"
            )
        return found

    def copy(self, name: str) -> Repository:
        """Give another repository, by its name in the configuration or by its path or URL.

        It is opened with the key of the first one where nothing else is said, so that what is encrypted stays so.

        Raises:
            ConfigurationError: It is a mere word, and the configuration has no copy of that name.
        """
        if "/" in name and name not in self.config.copies:
            return self._repository(name, self.config.repository, _options_for(name, self.config.repository))
        said = self.copy_settings(name)
        return self._repository(said.url, said, revealed(said.options))

    def options_for(self, url: str) -> dict[str, Any]:
        """Give the options for another place: those of the repository, if it is one of the same kind."""
        return _options_for(url, self.config.repository) if self.config.repository.url else {}

    def copy_limit(self, name: str) -> float | None:
        """Give the bytes a second that a copy may take; None for any number."""
        found = self.config.copies.get(name)
        return found.limit if found else None

    def _repository(self, url: str, said: RepositorySettings, storage_options: Mapping[str, Any]) -> Repository:
        return Repository(
            url,
            key=_key_for(said if said.key else self.config.repository),
            storage_options=storage_options,
            storage_class=said.storage_class,
            compression=said.compression,
        )

    def _nothing_names(self, what: str, option: str, table: str) -> str:
        where = f"{self.found} has no url in {table}" if self.found else f"there is no {_config.NAME} here or above"
        return (
            f"expected {what}, found none: {option} was not given, and {where}. Pass it, or write into "
            f'{self.found or _config.NAME}: store.url = "vector_db"'
        )

    def snapshot(self, name: str) -> Snapshot:
        """Find a snapshot by its id, the beginning of its id, or as the latest of the store that is named.

        Raises:
            NotFoundError: There is none.
            ConfigurationError: The latest is wanted, and there are several stores and none is named.
        """
        if name == _LATEST:
            return self.at(datetime.max.replace(tzinfo=UTC))
        len(self.repository)  # that there is no repository at all is another error
        try:
            return self.repository[name]
        except NotFoundError as error:
            error.add_note("see what there is: novabackup list")
            raise

    def at(self, time: datetime) -> Snapshot:
        """Find the newest snapshot that was taken by a time, of the store that is named.

        Raises:
            NotFoundError: There is none that old.
            ConfigurationError: There are snapshots of several stores, and none is named.
        """
        if self.known_store is None:
            return self.repository.at(time)
        try:
            return self.repository.at(time, store=self.known_store)
        except NotFoundError:
            others = sorted({snapshot.store for snapshot in self.repository.snapshots()} - {self.known_store.url})
            if not others:
                raise
            raise NotFoundError(
                f"{self.repository.url} has no snapshot of {self.known_store.url} from that time or before. It has "
                f"some of {', '.join(others)}: name one with --store, or a snapshot by its id"
            ) from None

    def live_problems(self, callback: Unseen) -> Sequence[Problem]:
        """Open the live files of the store, and compare what is in them; nor may all files be gone that it had."""
        reports, problems = self.store.judge({}, callback=callback)
        with suppress(NotFoundError):
            newest = self.at(datetime.max.replace(tzinfo=UTC))
            return [*problems, *checks.emptied(reports, checks.last_known(newest.files, newest.problems))]
        return problems

    def store_at(self, url: str) -> IndexStore | None:
        """Give the configured store if it is the one at a URL."""
        own = self.known_store
        return own if own is not None and own.url == url else None

    def target(self, snapshot: Snapshot, to: str | None) -> IndexStore | str | None:
        """Say where a snapshot is restored to: with the settings of the configured store, if it is that one."""
        if to is None:
            return self.store_at(snapshot.store)
        own = self.known_store
        if own is not None and own.storage_options and protocol(to) == protocol(own.url):
            return IndexStore(to, components=own.components, exclude=own.exclude, storage_options=own.storage_options)
        return to

    def timeout(self, said: float | None) -> float | None:
        """Give the seconds to wait for another writer."""
        return self.config.store.timeout if said is None else said

    def progress(self, label: str, show: Callable[[float], str] = size) -> AbstractContextManager[Unseen]:
        """Give a callback for one long call, which shows a bar where somebody watches."""
        if not self.terminal.shows_progress:
            return nullcontext(Unseen())
        from novabackup.cli.progress import progress  # noqa: PLC0415 - only who watches waits for it

        return progress(self.terminal, label, show)


def _options_for(url: str, said: StoreSettings | RepositorySettings) -> dict[str, Any]:
    """Give the options of the configuration, unless the URL that they are for was replaced by one of another kind."""
    fits = said.url is None or protocol(url) == protocol(said.url)
    return revealed(said.options) if fits else {}


def _key_for(said: RepositorySettings) -> Key | None:
    """Fetch what opens the repository."""
    if said.key is None:
        return None
    if said.key.keyfile is not None:
        return KeyFile(said.key.keyfile)
    return Passphrase(said.key.passphrase.reveal()) if said.key.passphrase is not None else None
