"""The sections of a configuration: settings with their types and defaults; docs/cli.md describes each of them."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import attrs
import msgspec

from novabackup.cli.config.readers import (
    Document,
    Location,
    Patience,
    Read,
    Seconds,
    Section,
    Text,
    Texts,
    WrongValueError,
    at,
    choice,
    entries,
    file_system_options,
    refuse_unknown,
    secret,
    wrong,
)
from novabackup.cli.config.secrets import Secret, revealed
from novabackup.cli.config.values import (
    WATCHED,
    AnyComponent,
    Headers,
    Labels,
    Layout,
    Pattern,
    Program,
    Programs,
    Rate,
    Retention,
    TextfilePath,
    Unit,
    WatchedCommands,
    WebUrl,
)
from novabackup.format.packs import Compression

if TYPE_CHECKING:
    # Every command reads a configuration; only those whose configuration names these things load them.
    from novabackup.integrations.hooks import Hooks
    from novabackup.integrations.metrics import Sink
    from novabackup.integrations.probes import HealthCheck, Query
    from novabackup.integrations.schedule import Job, When
    from novabackup.integrations.service import Service


def _key(document: Document, value: object) -> KeySettings:
    if not isinstance(value, dict):
        raise WrongValueError(
            "expected a table such as { passphrase = … } or { keyfile = … }, found something else (not shown)"
        )
    return document.read(KeySettings, value)


def _copies(document: Document, value: object) -> dict[str, CopySettings]:
    return entries(value, functools.partial(document.read, CopySettings))


def _compression(_document: Document, value: object) -> str:
    return choice([one.value for one in Compression], value)


# -- store and repositories --------------------------------------------------------------------------------------------


class StoreSettings(Section, frozen=True):
    """What is backed up: ``[store]``."""

    url: Location | None = None
    layout: Layout | None = None
    components: Annotated[tuple[AnyComponent, ...], msgspec.Meta(min_length=1, description="a list of components")] = ()
    include: Texts = ()
    exclude: Texts | None = None
    options: Read[Mapping[str, Any], file_system_options] = msgspec.field(default_factory=dict)
    single_writer: bool = False
    timeout: Seconds | None = None

    def __post_init__(self) -> None:
        if self.layout and self.components:
            raise WrongValueError("expected layout or components, found both. Keep one of them")


class KeySettings(Section, frozen=True):
    """What opens an encrypted repository: one of these."""

    passphrase: Read[Secret, secret] | None = None
    keyfile: Location | None = None

    def __post_init__(self) -> None:
        if (self.passphrase is None) == (self.keyfile is None):
            raise WrongValueError(
                f"expected one of passphrase and keyfile, found {'both' if self.passphrase else 'none'}"
            )


class RepositorySettings(Section, frozen=True):
    """Where backups are kept: ``[repository]``."""

    url: Location | None = None
    key: Read[KeySettings, _key] | None = None
    storage_class: Text | None = None
    compression: Read[str, _compression] = Compression.FAST.value
    options: Read[Mapping[str, Any], file_system_options] = msgspec.field(default_factory=dict)


class CopySettings(RepositorySettings, frozen=True, kw_only=True):
    """Another repository that snapshots are copied to: ``[copies.<name>]``."""

    url: Location
    retention: Retention | None = None
    limit: Rate | None = None


# -- the service and what is asked of it -------------------------------------------------------------------------------


class ServiceSettings(Section, frozen=True):
    """What reads the files, and is stopped while they change: ``[service]``."""

    unit: Unit | None = None
    manager: Literal["system", "user"] = "system"
    stop: Program | None = None
    start: Program | None = None
    running: Program | None = None
    name: Text = "the service"
    timeout: Patience = 90.0
    during: Annotated[
        tuple[Literal["restore", "run", "snapshot"], ...], msgspec.Meta(description='a list such as ["restore"]')
    ] = ("restore",)

    def __post_init__(self) -> None:
        commands = [name for name in ("stop", "start", "running") if getattr(self, name) is not None]
        if self.unit is not None and commands:
            raise WrongValueError(
                f"expected a unit, or commands to stop and start, found unit and {' and '.join(commands)}"
            )
        if self.unit is None and (self.stop is None or self.start is None):
            raise WrongValueError(
                f"expected a unit, or commands for stop and start, found {' and '.join(commands) or 'none'}"
            )

    def made(self) -> Service:
        """Return what stops and starts it."""
        from novabackup.integrations.service import Command, SystemdUnit  # noqa: PLC0415 - as above

        if self.unit is not None:
            return SystemdUnit(self.unit, manager=self.manager, timeout=self.timeout)
        return Command(
            stop=self.stop or (),
            start=self.start or (),
            running=self.running,
            timeout=self.timeout,
            label=self.name,
        )


class HealthSettings(Section, frozen=True, kw_only=True):
    """Where the service reports its health: ``[health]``."""

    url: WebUrl
    timeout: Patience = 120.0
    interval: Patience = 1.0
    expect: Pattern | None = None
    headers: Headers = msgspec.field(default_factory=dict)

    def made(self) -> HealthCheck:
        """Return the probe."""
        from novabackup.integrations.probes import HealthCheck, healthy  # noqa: PLC0415 - as above

        expect = healthy if self.expect is None else _Matches(self.expect)
        return HealthCheck(
            self.url, timeout=self.timeout, interval=self.interval, expect=expect, headers=revealed(self.headers)
        )


@attrs.frozen
class _Matches:
    """Returns whether a response matches a pattern."""

    pattern: str

    def __call__(self, response: object) -> bool:
        text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
        return re.search(self.pattern, text, re.IGNORECASE) is not None


class QuerySettings(Section, frozen=True, kw_only=True):
    """A question whose answer shows that the service works: ``[query]``."""

    url: WebUrl
    question: Text | None = None
    body: Annotated[
        dict[str, Any] | None, msgspec.Meta(description='a table such as { query = "How do I check brake pads?" }')
    ] = None
    expect: Pattern = r"\S"
    timeout: Patience = 60.0
    headers: Headers = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.question is None) == (self.body is None):
            raise WrongValueError(
                f"expected one of question and body, found {'both' if self.body is not None else 'none'}"
            )

    def made(self) -> Query:
        """Return the probe."""
        from novabackup.integrations.probes import Query  # noqa: PLC0415 - as above

        payload = self.body if self.body is not None else {"query": self.question}
        return Query(self.url, payload, self.expect, timeout=self.timeout, headers=revealed(self.headers))


# -- hooks and metrics -------------------------------------------------------------------------------------------------


class HooksSettings(Section, frozen=True):
    """What runs around commands: ``[hooks]``."""

    before: Programs = ()
    success: Programs = ()
    failure: Programs = ()
    after: Programs = ()
    timeout: Patience = 300.0
    during: WatchedCommands = tuple(WATCHED)

    def made(self) -> Hooks:
        """Return the hooks."""
        from novabackup.integrations.hooks import Hooks  # noqa: PLC0415 - as above

        return Hooks(
            before=self.before, success=self.success, failure=self.failure, after=self.after, timeout=self.timeout
        )


class MetricsSettings(Section, frozen=True):
    """Where metrics go after each run: ``[metrics]``."""

    textfile: TextfilePath | None = None
    push: WebUrl | None = None
    grouping: Labels | None = None
    headers: Headers = msgspec.field(default_factory=dict)
    scope: Literal["repository", "store"] = "repository"
    runs: Location | None = None

    def sinks(self) -> tuple[Sink, ...]:
        """Return what receives the metrics."""
        from novabackup.integrations.metrics import Pushgateway, Textfile  # noqa: PLC0415 - as above

        made: list[Sink] = [Textfile(self.textfile)] if self.textfile is not None else []
        if self.push is not None:
            made.append(Pushgateway(self.push, grouping=self.grouping, headers=revealed(self.headers)))
        return tuple(made)


# -- recovery and schedule ---------------------------------------------------------------------------------------------


class RecoverySettings(Section, frozen=True):
    """How a whole installation is recovered: ``[recovery]``."""

    to: Location | None = None
    owner: Text = ""
    environment: Programs | None = None


@attrs.frozen(kw_only=True)
class ScheduleSettings:
    """What is done regularly: ``[schedule]``."""

    name: str = ""
    state: str | None = None
    jobs: tuple[Job, ...] = ()


_JOBS: dict[str, Callable[[When], tuple[str, ...]]] = {
    "snapshot": lambda when: ("snapshot", "--tag", when.period.value),
    "forget": lambda _when: ("forget", "--prune"),
    "prune": lambda _when: ("prune",),
    "mirror": lambda _when: ("mirror", "--prune"),
    "verify": lambda _when: ("verify",),
    "check": lambda _when: ("check", "--read-data-subset", "10%"),
    "drill": lambda _when: ("drill",),
    "metrics": lambda _when: ("metrics",),
}
"""What the jobs with these names run by default."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,20}")


class _JobTable(Section, frozen=True):
    when: Text | None = None
    run: Texts | None = None


def _schedule(document: Document, value: object) -> ScheduleSettings:
    """Read ``[schedule]``: times by the names of jobs, such as ``snapshot = "daily 03:00"``."""
    if not isinstance(value, dict):
        raise wrong('a table such as { snapshot = "daily 03:00" }', value)
    jobs = {key: one for key, one in value.items() if key not in ("name", "state")}
    refuse_unknown((key for key, one in jobs.items() if isinstance(one, str)), ("name", "state", *_JOBS))
    return ScheduleSettings(
        name=at("name", functools.partial(_schedule_name, document), value["name"]) if "name" in value else "",
        state=at("state", functools.partial(document.read, Location), value["state"]) if "state" in value else None,
        jobs=tuple(at(name, functools.partial(_job, document, name), one) for name, one in jobs.items()),
    )


def _schedule_name(document: Document, value: object) -> str:
    name: str = document.read(Text, value)
    if not _NAME.fullmatch(name):
        raise wrong("a name of small letters, digits and dashes", name)
    return name


def _job(document: Document, name: str, value: object) -> Job:
    from novabackup.integrations.schedule import Job, When  # noqa: PLC0415 - as above

    if not isinstance(value, str | dict):
        raise wrong('a time such as "daily 03:00", or a table with when and run', value)
    table = document.read(_JobTable, {"when": value} if isinstance(value, str) else value)
    if name not in _JOBS and table.run is None:
        raise WrongValueError('expected the key run, such as run = ["snapshot", "--tag", "hourly"], found none')
    if table.when is None:
        raise WrongValueError('expected the key when, such as when = "daily 03:00", found none')
    when = When.parse(table.when) if isinstance(value, str) else at("when", When.parse, table.when)
    run = _JOBS[name](when) if table.run is None else table.run
    if not run or run[0] in ("novabackup", "schedule"):
        expected = 'the arguments of novabackup, such as ["snapshot", "--tag", "hourly"]'
        raise WrongValueError(str(wrong(expected, run[0] if run else [])), ("run",))
    return Job(name, run, when)


# -- all of it ---------------------------------------------------------------------------------------------------------


class Config(Section, frozen=True):
    """The contents of a configuration file."""

    store: StoreSettings = StoreSettings()
    repository: RepositorySettings = RepositorySettings()
    retention: Retention | None = None
    copies: Read[Mapping[str, CopySettings], _copies] = msgspec.field(default_factory=dict)
    service: ServiceSettings | None = None
    health: HealthSettings | None = None
    query: QuerySettings | None = None
    hooks: HooksSettings = HooksSettings()
    metrics: MetricsSettings | None = None
    recovery: RecoverySettings = RecoverySettings()
    schedule: Read[ScheduleSettings, _schedule] = ScheduleSettings()


def secrets_in(value: object) -> Iterator[Secret]:
    """Yield where the secrets of a configuration, or of a part of it, are kept."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping | Section):
        inside = value if isinstance(value, Mapping) else msgspec.structs.asdict(value)
        for one in inside.values():
            yield from secrets_in(one)


def state_folder() -> Path:
    """Return the folder for state of this host: the system's for root, otherwise the user's."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named, "novabackup").expanduser()
    return Path("/var/lib/novabackup" if os.geteuid() == 0 else "~/.local/state/novabackup").expanduser()
