"""The sections of a configuration: which settings there are, their types and their defaults."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import attrs
import msgspec

from novabackup import components
from novabackup.cli.config.readers import (
    Document,
    Location,
    Patience,
    Rate,
    Seconds,
    Section,
    Text,
    Texts,
    WrongValueError,
    at,
    choice,
    custom,
    entries,
    file_system_options,
    refuse_unknown,
    secret,
    wrong,
)
from novabackup.cli.config.secrets import Secret, revealed
from novabackup.errors import ConfigurationError
from novabackup.format.packs import Compression
from novabackup.retention import Policy
from novabackup.store import layouts

if TYPE_CHECKING:
    # Every command reads a configuration; only those whose configuration names these things load them.
    from novabackup.integrations.hooks import Hooks
    from novabackup.integrations.metrics import Sink
    from novabackup.integrations.probes import HealthCheck, Query
    from novabackup.integrations.runs import Kind
    from novabackup.integrations.schedule import Job, When
    from novabackup.integrations.service import Service


def _dashed(name: str) -> str:
    """Return the name of a constant or a class as the command line and the configuration spell it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


LAYOUTS: dict[str, tuple[components.Component, ...]] = {
    _dashed(name): layout
    for name in layouts.__all__
    if isinstance(layout := getattr(layouts, name), tuple)
    and all(isinstance(one, components.Component) for one in layout)
}
"""The ready-made lists of components by their names in the configuration."""

_COMPONENTS: dict[str, type[components.Component]] = {
    _dashed(name): getattr(components, name) for name in components.__all__ if name != components.Component.__name__
}

WATCHED: Mapping[str, Kind] = {
    "snapshot": "backup",
    "run": "ingest",
    "restore": "restore",
    "full-recovery": "restore",
    "verify": "verify",
    "check": "check",
    "drill": "drill",
    "forget": "forget",
    "prune": "prune",
    "copy": "copy",
    "mirror": "copy",
}
"""The commands that hooks run around, and the kind of run as which each is recorded."""

_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)


# -- values ------------------------------------------------------------------------------------------------------------


def _one_of(known: Mapping[str, object]) -> type:
    return custom(lambda _document, value: choice(known, value))


def _component(document: Document, value: object) -> components.Component:
    if not isinstance(value, dict):
        raise wrong('a table such as { kind = "faiss", path = "faiss_index.bin" }', value)
    kind = _COMPONENTS[at("kind", functools.partial(choice, _COMPONENTS), value.get("kind", "none"))]
    names = [field.name for field in attrs.fields(kind)]
    types = {"optional": bool, "timeout": Seconds}
    optional = [(name, types.get(name, Text), None) for name in names if name != "path"]
    table = msgspec.defstruct(kind.__name__, [("kind", str), ("path", Text), *optional], bases=(Section,))
    read = document.read(table, value)
    return kind(**{name: getattr(read, name) for name in names if name in value})


def _policy(_document: Document, value: object) -> Policy:
    """Read a policy: a text, or a table whose rules are checked one by one, so that an error names the line."""
    if not isinstance(value, str | dict):
        raise wrong('a text such as "daily 30, weekly 12", or a table such as { daily = 30 }', value)
    if isinstance(value, dict):
        refuse_unknown(value, attrs.fields_dict(Policy))
        for key, rule in value.items():
            if key == "tags" and isinstance(rule, dict):
                for tag, rules in rule.items():
                    _check_rule((key, tag), {key: {tag: rules}})
            else:
                beside = "daily" if key == "yearly" else "yearly"  # a rule of 0 is fine beside others
                _check_rule((key,), {beside: "forever", key: rule})
    return Policy.of(value)


def _check_rule(path: tuple[str, ...], table: Mapping[str, Any]) -> None:
    try:
        Policy.of(table)
    except ConfigurationError as error:
        raise WrongValueError(str(error).removeprefix(f"{path[-1]!r}: "), path) from None


def _headers(document: Document, value: object) -> dict[str, str | Secret]:
    """Read HTTP headers; a secret one must be kept elsewhere."""
    if not isinstance(value, dict):
        raise wrong('a table such as { Authorization = { env = "NOVA_TOKEN" } }', value)

    def read(name: str, header: object) -> str | Secret:
        if isinstance(header, str) and not _SECRET_HEADER.search(name):
            return document.read(Text, header)
        return secret(document, header)

    return {name: at(name, functools.partial(read, name), header) for name, header in value.items()}


def _pattern(document: Document, value: object) -> str:
    pattern: str = document.read(Text, value)
    try:
        re.compile(pattern)
    except re.error as error:
        raise WrongValueError(f"expected a regular expression, found {pattern!r}: {error}") from None
    return pattern


def _web_url(document: Document, value: object) -> str:
    from novabackup.integrations.probes import HealthCheck  # noqa: PLC0415 - as above

    return HealthCheck(document.read(Text, value)).url


def _systemd_unit(document: Document, value: object) -> str:
    from novabackup.integrations.service import SystemdUnit  # noqa: PLC0415 - as above

    return SystemdUnit(document.read(Text, value)).unit


def _labels(document: Document, value: object) -> dict[str, str]:
    from novabackup.integrations.metrics import Pushgateway  # noqa: PLC0415 - as above

    labels = entries(value, functools.partial(document.read, Text), 'a table such as { instance = "nova-1" }')
    return dict(Pushgateway("http://localhost", grouping=labels).grouping or {})


def _textfile(document: Document, value: object) -> str:
    from novabackup.integrations.metrics import Textfile  # noqa: PLC0415 - as above

    return str(Textfile(document.read(Location, value)).path)


def _key(document: Document, value: object) -> KeySettings:
    if not isinstance(value, dict):
        raise WrongValueError(
            "expected a table such as { passphrase = … } or { keyfile = … }, found something else (not shown)"
        )
    return document.read(KeySettings, value)


def _copies(document: Document, value: object) -> dict[str, CopySettings]:
    return entries(value, functools.partial(document.read, CopySettings))


if TYPE_CHECKING:
    AComponent: TypeAlias = components.Component
    APolicy: TypeAlias = Policy
    ASecret: TypeAlias = Secret
    ALayout: TypeAlias = str
    ACompression: TypeAlias = str
    ACommand: TypeAlias = str
    APattern: TypeAlias = str
    AWebUrl: TypeAlias = str
    AUnit: TypeAlias = str
    ATextfile: TypeAlias = str
    AKey: TypeAlias = "KeySettings"
    Copies: TypeAlias = Mapping[str, "CopySettings"]
    Headers: TypeAlias = Mapping[str, str | Secret]
    Labels: TypeAlias = Mapping[str, str]
    FileSystemOptions: TypeAlias = Mapping[str, Any]
else:
    AComponent = custom(_component)
    APolicy = custom(_policy)
    ASecret = custom(secret)
    ALayout = _one_of(LAYOUTS)
    ACompression = _one_of({one.value: one for one in Compression})
    ACommand = _one_of(WATCHED)
    APattern = custom(_pattern)
    AWebUrl = custom(_web_url)
    AUnit = custom(_systemd_unit)
    ATextfile = custom(_textfile)
    AKey = custom(_key)
    Copies = custom(_copies)
    Headers = custom(_headers)
    Labels = custom(_labels)
    FileSystemOptions = custom(file_system_options)

Program = Annotated[
    tuple[Text, ...],
    msgspec.Meta(
        min_length=1,
        description='a command as a list such as ["systemctl", "stop", "nova-nic"]; it is not run by a shell',
    ),
]
Programs = Annotated[
    tuple[Program, ...],
    msgspec.Meta(description='a list of commands, each a list, such as [["mount", "/mnt/backups"]]'),
]


# -- store and repositories --------------------------------------------------------------------------------------------


class StoreSettings(Section, frozen=True):
    """What is backed up: ``[store]``.

    Attributes:
        url: Where the index files are.
        layout: Name of a ready-made list of components.
        components: The components themselves, instead of a layout.
        include: Folders and patterns that belong to the store as well.
        exclude: APatterns that the components' patterns do not select; None for the usual ones.
        options: Options of the file system; secrets by where they are kept.
        single_writer: No other process writes there.
        timeout: Seconds to wait for another writer.
    """

    url: Location | None = None
    layout: ALayout | None = None
    components: Annotated[tuple[AComponent, ...], msgspec.Meta(min_length=1, description="a list of components")] = ()
    include: Texts = ()
    exclude: Texts | None = None
    options: FileSystemOptions = msgspec.field(default_factory=dict)
    single_writer: bool = False
    timeout: Seconds | None = None

    def __post_init__(self) -> None:
        if self.layout and self.components:
            raise WrongValueError("expected layout or components, found both. Keep one of them")


class KeySettings(Section, frozen=True):
    """What opens an encrypted repository: one of these.

    Attributes:
        passphrase: Where the passphrase is kept.
        keyfile: Path of a file with a random key.
    """

    passphrase: ASecret | None = None
    keyfile: Location | None = None

    def __post_init__(self) -> None:
        if (self.passphrase is None) == (self.keyfile is None):
            raise WrongValueError(
                f"expected one of passphrase and keyfile, found {'both' if self.passphrase else 'none'}"
            )


class RepositorySettings(Section, frozen=True):
    """Where backups are kept: ``[repository]``.

    Attributes:
        url: The repository; by default ``backups`` in the store.
        key: What opens it; a repository that is created with a key is encrypted.
        storage_class: The storage class of new content, where the storage has such classes.
        compression: How much time to spend on compression.
        options: Options of the file system; secrets by where they are kept.
    """

    url: Location | None = None
    key: AKey | None = None
    storage_class: Text | None = None
    compression: ACompression = Compression.FAST.value
    options: FileSystemOptions = msgspec.field(default_factory=dict)


class CopySettings(RepositorySettings, frozen=True, kw_only=True):
    """Another repository that snapshots are copied to: ``[copies.<name>]``.

    Attributes:
        url: Where it is.
        retention: What `mirror` keeps there; None for the policy remote.
        limit: Bytes per second to read and send at most; None for no limit.
    """

    url: Location
    retention: APolicy | None = None
    limit: Rate | None = None


# -- the service and what is asked of it -------------------------------------------------------------------------------


class ServiceSettings(Section, frozen=True):
    """What reads the files, and is stopped while they change: ``[service]``.

    Attributes:
        unit: A systemd unit.
        manager: ``system``, or ``user`` for a unit of the user's own.
        stop: Instead of a unit: the command that returns when the service has ended.
        start: The command that starts it in the background.
        running: The command that ends with 0 while it runs.
        name: Its name in messages, if it is not a unit.
        timeout: Seconds that stopping or starting may take.
        during: The commands for which it is stopped; for a full recovery it always is.
    """

    unit: AUnit | None = None
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
    """Where the service reports its health: ``[health]``.

    Attributes:
        url: What is polled.
        timeout: Seconds to keep polling.
        interval: Seconds between two polls.
        expect: Regular expression for the response of a healthy service; by default its JSON has the status healthy or
            ok.
        headers: HTTP headers; secrets by where they are kept.
    """

    url: AWebUrl
    timeout: Patience = 120.0
    interval: Patience = 1.0
    expect: APattern | None = None
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
    """A question whose answer shows that the service works: ``[query]``.

    Attributes:
        url: Where it is posted.
        question: Sent as ``{"query": …}``.
        body: Instead of a question: all that is sent, as JSON.
        expect: Regular expression that the answer must match; by default any that is not empty.
        timeout: Seconds that it may take.
        headers: HTTP headers; secrets by where they are kept.
    """

    url: AWebUrl
    question: Text | None = None
    body: Annotated[
        dict[str, Any] | None, msgspec.Meta(description='a table such as { query = "How do I check brake pads?" }')
    ] = None
    expect: APattern = r"\S"
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
    """What runs around commands: ``[hooks]``.

    Attributes:
        before: Commands that run first; if one fails, nothing is done.
        success: Commands that run after success.
        failure: Commands that run after a failure: when the exit code is about to be another than 0.
        after: Commands that run last, in any case.
        timeout: Seconds that each may take.
        during: The commands of novabackup that they run around.
    """

    before: Programs = ()
    success: Programs = ()
    failure: Programs = ()
    after: Programs = ()
    timeout: Patience = 300.0
    during: Annotated[tuple[ACommand, ...], msgspec.Meta(description='a list such as ["snapshot", "run"]')] = tuple(
        WATCHED
    )

    def made(self) -> Hooks:
        """Return the hooks."""
        from novabackup.integrations.hooks import Hooks  # noqa: PLC0415 - as above

        return Hooks(
            before=self.before, success=self.success, failure=self.failure, after=self.after, timeout=self.timeout
        )


class MetricsSettings(Section, frozen=True):
    """Where metrics go after each run: ``[metrics]``.

    Attributes:
        textfile: File for the textfile collector of node_exporter.
        push: URL of a Pushgateway.
        grouping: Labels of what is pushed; by default the repository.
        headers: HTTP headers for the Pushgateway; secrets by where they are kept.
        scope: ``repository`` for all that is in it, or ``store`` for the configured store alone.
        runs: Folder where runs are recorded.
    """

    textfile: ATextfile | None = None
    push: AWebUrl | None = None
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
    """How a whole installation is recovered: ``[recovery]``.

    Attributes:
        to: Its folder; by default that of the store.
        owner: ``user`` or ``user:group`` that owns all of it.
        environment: Commands that create the virtual environment, instead of ``.venv`` and ``requirements.txt``.
    """

    to: Location | None = None
    owner: Text = ""
    environment: Programs | None = None


@attrs.frozen(kw_only=True)
class ScheduleSettings:
    """What is done regularly: ``[schedule]``.

    Attributes:
        name: Distinguishes the schedules of several configurations on one host.
        state: Folder where it is recorded what was done.
        jobs: What is done when, in this order if several are due.
    """

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


if TYPE_CHECKING:
    Schedule: TypeAlias = ScheduleSettings
else:
    Schedule = custom(_schedule)


# -- all of it ---------------------------------------------------------------------------------------------------------


class Config(Section, frozen=True):
    """The contents of a configuration file.

    Attributes:
        store: What is backed up.
        repository: Where to.
        retention: What `forget` keeps; None if the file does not say.
        copies: Other repositories by their names.
        service: What is stopped while files change; None if there is no service.
        health: Where the service reports its health; None if it is not asked.
        query: A question to the service; None if it is not asked one.
        hooks: What runs around commands.
        metrics: Where metrics go; None if runs are not even recorded.
        recovery: How a whole installation is recovered.
        schedule: What is done regularly.
    """

    store: StoreSettings = StoreSettings()
    repository: RepositorySettings = RepositorySettings()
    retention: APolicy | None = None
    copies: Copies = msgspec.field(default_factory=dict)
    service: ServiceSettings | None = None
    health: HealthSettings | None = None
    query: QuerySettings | None = None
    hooks: HooksSettings = HooksSettings()
    metrics: MetricsSettings | None = None
    recovery: RecoverySettings = RecoverySettings()
    schedule: Schedule = ScheduleSettings()


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
