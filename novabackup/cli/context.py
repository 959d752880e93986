"""The context of a command: the options that all commands share, and the store and repository that they name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Group, Parameter

from novabackup.cli.config import file as config_file
from novabackup.cli.config.secrets import revealed
from novabackup.cli.config.sections import Config, CopySettings, RepositorySettings, StoreSettings
from novabackup.cli.config.units import parse_duration, parse_size
from novabackup.cli.config.values import LAYOUTS
from novabackup.cli.output import Terminal, size
from novabackup.cli.progress import Unseen, progress
from novabackup.components import Tree
from novabackup.errors import ConfigurationError, NotFoundError, Problem
from novabackup.keys import Key, KeyFile, Passphrase
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot
from novabackup.storage import protocol_of
from novabackup.store import checks
from novabackup.store.store import IndexStore

_WHERE = Group("Where", sort_key=8)
_HOW = Group("Output", sort_key=9)
_DEFAULT_FOLDER = "backups"
_LATEST = "latest"
_ANY_TIME = datetime.max.replace(tzinfo=UTC)


def _read_by(read: Callable[[str], float]) -> Callable[[object, tuple[object, ...]], float]:
    """Turn a parser of texts into a converter of options."""
    return lambda _hint, tokens: read(str(getattr(tokens[0], "value", tokens[0])))


Span = Annotated[float, Parameter(converter=_read_by(parse_duration), metavar="SPAN")]
"""An option that takes a duration: ``90s``, ``5m``, ``2h``, ``1d``."""
Rate = Annotated[float, Parameter(converter=_read_by(parse_size), metavar="SIZE")]
"""An option that takes a number of bytes per second: ``500kB``, ``5MB``."""


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
    def open(self) -> Iterator[Context]:
        """Read the configuration, and show warnings of the library until the block ends."""
        terminal = Terminal(as_json=self.json, quiet=self.quiet)
        found = config_file.find(self.config)
        with terminal.log_shown():
            yield Context(options=self, config=config_file.load(found), found=found, terminal=terminal)


BY_DEFAULT = Options()
"""No option was given."""


@attrs.frozen(kw_only=True, slots=False)
class Context:
    """Store, repository and terminal of one run of a command.

    Attributes:
        options: The options from the command line.
        config: The contents of the configuration file.
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
        settings = self.config.store
        url = self.options.store or settings.url
        if url is None:
            return None
        if self.options.layout:
            parts = [*LAYOUTS[self.options.layout]]
        else:
            beside = (Tree(pattern) for pattern in settings.include)
            parts = [*(settings.components or LAYOUTS[settings.layout or "nova"]), *beside]
        return IndexStore(
            url,
            components=parts,
            exclude=settings.exclude,
            storage_options=_options_for(url, settings),
            single_writer=settings.single_writer,
        )

    @property
    def store(self) -> IndexStore:
        """The store; an error if neither the command line nor the configuration names one."""
        if self.known_store is None:
            raise ConfigurationError(self._nothing_names("a store", "--store", "[store]"))
        return self.known_store

    @functools.cached_property
    def repository(self) -> Repository:
        """The repository; an error if neither it nor a store is named."""
        settings = self.config.repository
        url = self.options.repository or settings.url
        if url is not None:
            return self._repository(url, settings, _options_for(url, settings))
        if self.known_store is None:
            raise ConfigurationError(self._nothing_names("a repository", "--repository", "[repository]"))
        inside = f"{self.known_store.url.rstrip('/')}/{_DEFAULT_FOLDER}"
        return self._repository(inside, settings, self.known_store.storage_options)

    def copy_settings(self, name: str) -> CopySettings:
        """Return the configuration of a copy."""
        found = self.config.copies.get(name)
        if found is None:
            known = ", ".join(self.config.copies) or "no copies"
            raise ConfigurationError(
                f"expected the name of a copy, found {name!r}; {self.found or 'the configuration'} has {known}. "
                f"Write [copies.{name}] there; a folder of that name is ./{name}"
            )
        return found

    def copy(self, name: str) -> Repository:
        """Return another repository, by its name in the configuration or by its path or URL.

        Without a key of its own it is opened with the key of the repository, so that what is encrypted stays encrypted.
        """
        if "/" in name and name not in self.config.copies:
            return self._repository(name, self.config.repository, _options_for(name, self.config.repository))
        settings = self.copy_settings(name)
        return self._repository(settings.url, settings, revealed(settings.options))

    def copy_limit(self, name: str) -> float | None:
        """Return the bytes per second that a copy may take; None for no limit."""
        found = self.config.copies.get(name)
        return found.limit if found else None

    def options_for(self, url: str) -> dict[str, Any]:
        """Return the options of the repository for another place, if it is one of the same kind."""
        return _options_for(url, self.config.repository) if self.config.repository.url else {}

    def _repository(self, url: str, settings: RepositorySettings, storage_options: Mapping[str, Any]) -> Repository:
        return Repository(
            url,
            key=_key_for(settings if settings.key else self.config.repository),
            storage_options=storage_options,
            storage_class=settings.storage_class,
            compression=settings.compression,
        )

    def _nothing_names(self, what: str, option: str, table: str) -> str:
        name = config_file.NAME
        where = f"{self.found} has no url in {table}" if self.found else f"there is no {name} here or above"
        return (
            f"expected {what}, found none: {option} was not given, and {where}. Pass it, or write into "
            f'{self.found or name}: store.url = "vector_db"'
        )

    def snapshot(self, name: str) -> Snapshot:
        """Find a snapshot by its id, the beginning of its id, or as the latest of the store that is named."""
        if name == _LATEST:
            return self.at(_ANY_TIME)
        len(self.repository)  # raises another error if there is no repository at all
        try:
            return self.repository[name]
        except NotFoundError as error:
            error.add_note("to see the snapshots: novabackup list")
            raise

    def at(self, time: datetime) -> Snapshot:
        """Find the newest snapshot of the named store that was taken by a time."""
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
        """Open the live files of the store and compare their contents; check that not all of them are gone."""
        reports, problems = self.store.judge({}, callback=callback)
        with suppress(NotFoundError):
            newest = self.at(_ANY_TIME)
            return [*problems, *checks.emptied(reports, checks.last_known(newest.files, newest.problems))]
        return problems

    def store_at(self, url: str) -> IndexStore | None:
        """Return the configured store if its URL is this one."""
        own = self.known_store
        return own if own is not None and own.url == url else None

    def target(self, snapshot: Snapshot, to: str | None) -> IndexStore | str | None:
        """Return where a snapshot is restored to, with the settings of the configured store where they apply."""
        if to is None:
            return self.store_at(snapshot.store)
        own = self.known_store
        if own is not None and own.storage_options and protocol_of(to) == protocol_of(own.url):
            return IndexStore(to, components=own.components, exclude=own.exclude, storage_options=own.storage_options)
        return to

    def timeout(self, option: float | None) -> float | None:
        """Return the seconds to wait for another writer."""
        return self.config.store.timeout if option is None else option

    def progress(self, label: str, show: Callable[[float], str] = size) -> AbstractContextManager[Unseen]:
        """Return a callback for one long call, which shows a bar on a terminal; by default its amounts are bytes."""
        if not self.terminal.shows_progress:
            return nullcontext(Unseen())
        return progress(self.terminal.err, label, show)


def _options_for(url: str, settings: StoreSettings | RepositorySettings) -> dict[str, Any]:
    """Return the configured options, unless the URL that they are for was replaced by one of another kind."""
    fits = settings.url is None or protocol_of(url) == protocol_of(settings.url)
    return revealed(settings.options) if fits else {}


def _key_for(settings: RepositorySettings) -> Key | None:
    """Fetch what opens the repository."""
    key = settings.key
    if key is None:
        return None
    if key.keyfile is not None:
        return KeyFile(key.keyfile)
    return Passphrase(key.passphrase.reveal()) if key.passphrase is not None else None
