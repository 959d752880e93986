"""What the configuration says of the world around backups: the service, its health, hooks, metrics, the schedule."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from novabackup.cli.config.readers import (
    Found,
    Place,
    choice,
    keys,
    location,
    seconds,
    secret,
    section,
    setting,
    text,
    texts,
)
from novabackup.cli.config.secrets import Secret, revealed
from novabackup.errors import ConfigurationError

if TYPE_CHECKING:
    # Every command reads a configuration; only those whose configuration names these things wait for them.
    from novabackup.integrations.hooks import Hooks
    from novabackup.integrations.metrics import Sink
    from novabackup.integrations.probes import HealthCheck, Query
    from novabackup.integrations.runs import Kind
    from novabackup.integrations.schedule import Job, When
    from novabackup.integrations.service import Service

__all__ = [
    "WATCHED",
    "HealthSettings",
    "HooksSettings",
    "MetricsSettings",
    "QuerySettings",
    "RecoverySettings",
    "ScheduleSettings",
    "ServiceSettings",
    "query",
    "schedule",
    "secrets_in",
    "service",
    "state_folder",
]

_Made = TypeVar("_Made")

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
"""The commands that hooks run around, and as what their runs are remembered."""

_OURS = "novabackup.cli."
_STOPPING = ("restore", "run", "snapshot")
_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password", re.IGNORECASE)


def state_folder() -> Path:
    """Give the folder for what this host has to remember: that of the system for root, else that of the user."""
    named = os.environ.get("XDG_STATE_HOME")
    if named:
        return Path(named, "novabackup").expanduser()
    return Path("/var/lib/novabackup" if os.geteuid() == 0 else "~/.local/state/novabackup").expanduser()


def secrets_in(value: Any) -> Iterator[Secret]:
    """Find where the secrets of a configuration, or of a part of it, are kept.

    Args:
        value: A configuration, a section of it, or options.
    """
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from secrets_in(one)
    elif attrs.has(type(value)) and type(value).__module__.startswith(_OURS):
        for said in attrs.asdict(value, recurse=False).values():
            yield from secrets_in(said)


# -- values ------------------------------------------------------------------------------------------------------------


def _understood(place: Place, make: Callable[[], _Made]) -> _Made:
    """Make something of the library, whose complaints get the place in front."""
    try:
        return make()
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _patience(place: Place, value: object) -> float:
    found = seconds(place, value)
    if not found:
        raise place.wrong("more than no time", value)
    return found


def _command(place: Place, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise place.wrong(
            'a command as a list such as ["systemctl", "stop", "nova-nic"]; no shell takes it apart', value
        )
    return tuple(text(place / number, word) for number, word in enumerate(value))


def _commands(place: Place, value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not all(isinstance(one, list) for one in value):
        raise place.wrong('a list of commands, each a list, such as [["mount", "/mnt/backups"]]', value)
    return tuple(_command(place / number, one) for number, one in enumerate(value))


def _words(*known: str) -> Callable[[Place, object], tuple[str, ...]]:
    """Read a list of words that are known."""

    def read(place: Place, value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise place.wrong(f"a list of some of {', '.join(known)}", value)
        return tuple(choice(*known)(place / number, word) for number, word in enumerate(value))

    return read


def _web(place: Place, value: object) -> str:
    from novabackup.integrations.probes import HealthCheck  # noqa: PLC0415 - as above

    said = text(place, value)
    return _understood(place, lambda: HealthCheck(said).url)


def _unit(place: Place, value: object) -> str:
    from novabackup.integrations.service import SystemdUnit  # noqa: PLC0415 - as above

    said = text(place, value)
    return _understood(place, lambda: SystemdUnit(said).unit)


def _pattern(place: Place, value: object) -> str:
    said = text(place, value)
    try:
        re.compile(said)
    except re.error as error:
        raise ConfigurationError(f"{place}: expected a regular expression, found {said!r}: {error}") from None
    return said


def _table(place: Place, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.wrong('a table such as { query = "How do I check brake pads?" }', value)
    return value


def _labels(place: Place, value: object) -> dict[str, str]:
    from novabackup.integrations.metrics import Pushgateway  # noqa: PLC0415 - as above

    said = {name: text(place / name, label) for name, label in _table(place, value).items()}
    return dict(_understood(place, lambda: Pushgateway("http://localhost", grouping=said).grouping or {}))


def _headers(place: Place, value: object) -> dict[str, str | Secret]:
    """Read headers of HTTP; one that is secret must be said to be elsewhere."""
    if not isinstance(value, dict):
        raise place.wrong('a table such as { Authorization = { env = "NOVA_TOKEN" } }', value)
    found: dict[str, str | Secret] = {}
    for name, said in value.items():
        plain = isinstance(said, str) and not _SECRET_HEADER.search(name)
        found[name] = text(place / name, said) if plain else secret(place / name, said)
    return found


def _prom(place: Place, value: object) -> str:
    from novabackup.integrations.metrics import Textfile  # noqa: PLC0415 - as above

    said = location(place, value)
    return str(_understood(place, lambda: Textfile(said).path))


def _when(place: Place, value: object) -> When:
    from novabackup.integrations.schedule import When  # noqa: PLC0415 - as above

    said = text(place, value)
    return _understood(place, lambda: When.parse(said))


# -- the service and what is asked of it -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """What reads the files, and is stopped while they change: ``[service]``.

    Attributes:
        unit: A unit of systemd.
        manager: ``system``, or ``user`` for a unit of one's own.
        stop: Instead of a unit: the command that returns when the service has ended.
        start: The command that starts it in the background.
        running: The command that ends with 0 when it runs.
        name: What to call it, where it is no unit.
        timeout: Seconds that stopping or starting may take.
        during: The commands for which it is stopped; for a full recovery it always is.
    """

    unit: str | None = setting(_unit, None)
    manager: str = setting(choice("system", "user"), "system")
    stop: tuple[str, ...] | None = setting(_command, None)
    start: tuple[str, ...] | None = setting(_command, None)
    running: tuple[str, ...] | None = setting(_command, None)
    name: str = setting(text, "the service")
    timeout: float = setting(_patience, 90.0)
    during: tuple[str, ...] = setting(_words(*_STOPPING), ("restore",))

    def made(self) -> Service:
        """Make what stops and starts it."""
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


def service(place: Place, value: object) -> ServiceSettings:
    """Read ``[service]``: a unit, or the commands that stop and start it."""
    found = section(ServiceSettings)(place, value)
    commands = [name for name in ("stop", "start", "running") if getattr(found, name) is not None]
    if found.unit is not None and commands:
        raise place.wrong("a unit, or commands to stop and start", Found(f"unit and {' and '.join(commands)}"))
    if found.unit is None and (found.stop is None or found.start is None):
        raise place.wrong("a unit, or commands for stop and start", Found(" and ".join(commands) or "none"))
    return found


@attrs.frozen(kw_only=True)
class HealthSettings:
    """Where the service says whether it is well: ``[health]``.

    Attributes:
        url: What is polled.
        timeout: Seconds to go on.
        interval: Seconds between two polls.
        expect: Regular expression for what a healthy service says; by default its JSON has the status healthy or ok.
        headers: To send along; secrets are told by where they are kept.
    """

    url: str = setting(_web)
    timeout: float = setting(_patience, 120.0)
    interval: float = setting(_patience, 1.0)
    expect: str | None = setting(_pattern, None)
    headers: Mapping[str, Any] = setting(_headers, attrs.Factory(dict))

    def made(self) -> HealthCheck:
        """Make the probe."""
        from novabackup.integrations.probes import HealthCheck, healthy  # noqa: PLC0415 - as above

        expect = healthy if self.expect is None else _Says(self.expect)
        return HealthCheck(
            self.url, timeout=self.timeout, interval=self.interval, expect=expect, headers=revealed(self.headers)
        )


@attrs.frozen
class _Says:
    """Tells whether an answer says something."""

    pattern: str

    def __call__(self, said: object) -> bool:
        written = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        return re.search(self.pattern, written, re.IGNORECASE) is not None


@attrs.frozen(kw_only=True)
class QuerySettings:
    """A question whose answer shows that the service works: ``[query]``.

    Attributes:
        url: Where it is posted.
        question: Sent as ``{"query": …}``.
        body: Instead of a question: all that is sent, as JSON.
        expect: Regular expression that the answer must have; by default any that is not empty.
        timeout: Seconds that it may take.
        headers: To send along; secrets are told by where they are kept.
    """

    url: str = setting(_web)
    question: str | None = setting(text, None)
    body: Mapping[str, Any] | None = setting(_table, None)
    expect: str = setting(_pattern, r"\S")
    timeout: float = setting(_patience, 60.0)
    headers: Mapping[str, Any] = setting(_headers, attrs.Factory(dict))

    def made(self) -> Query:
        """Make the probe."""
        from novabackup.integrations.probes import Query  # noqa: PLC0415 - as above

        payload = self.body if self.body is not None else {"query": self.question}
        return Query(self.url, payload, self.expect, timeout=self.timeout, headers=revealed(self.headers))


def query(place: Place, value: object) -> QuerySettings:
    """Read ``[query]``: a question, or all that is sent."""
    found = section(QuerySettings)(place, value)
    if (found.question is None) == (found.body is None):
        raise place.wrong("one of question and body", Found("both" if found.body is not None else "none"))
    return found


# -- hooks and metrics -------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class HooksSettings:
    """What others want to have done around commands: ``[hooks]``.

    Attributes:
        before: Commands that run first; if one fails, nothing is done.
        success: Commands that run when all went well.
        failure: Commands that run when it did not: when the command is about to end with another code than 0.
        after: Commands that run last, in any case.
        timeout: Seconds that each may take.
        during: The commands of novabackup that they run around.
    """

    before: tuple[tuple[str, ...], ...] = setting(_commands, ())
    success: tuple[tuple[str, ...], ...] = setting(_commands, ())
    failure: tuple[tuple[str, ...], ...] = setting(_commands, ())
    after: tuple[tuple[str, ...], ...] = setting(_commands, ())
    timeout: float = setting(_patience, 300.0)
    during: tuple[str, ...] = setting(_words(*WATCHED), tuple(WATCHED))

    def made(self) -> Hooks:
        """Make the hooks."""
        from novabackup.integrations.hooks import Hooks  # noqa: PLC0415 - as above

        return Hooks(
            before=self.before, success=self.success, failure=self.failure, after=self.after, timeout=self.timeout
        )


@attrs.frozen(kw_only=True)
class MetricsSettings:
    """Who is told how backups are, after each run: ``[metrics]``.

    Attributes:
        textfile: File for the textfile collector of node_exporter.
        push: URL of a Pushgateway.
        grouping: Labels of what is pushed; by default the repository.
        headers: To send along with it; secrets are told by where they are kept.
        scope: ``repository`` for all that is in it, or ``store`` for the configured store alone.
        runs: Folder where it is remembered how runs went.
    """

    textfile: str | None = setting(_prom, None)
    push: str | None = setting(_web, None)
    grouping: Mapping[str, str] | None = setting(_labels, None)
    headers: Mapping[str, Any] = setting(_headers, attrs.Factory(dict))
    scope: str = setting(choice("repository", "store"), "repository")
    runs: str | None = setting(location, None)

    def sinks(self) -> tuple[Sink, ...]:
        """Make what metrics are handed to."""
        from novabackup.integrations.metrics import Pushgateway, Textfile  # noqa: PLC0415 - as above

        made: list[Sink] = [Textfile(self.textfile)] if self.textfile is not None else []
        if self.push is not None:
            made.append(Pushgateway(self.push, grouping=self.grouping, headers=revealed(self.headers)))
        return tuple(made)


# -- recovery and schedule ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RecoverySettings:
    """How a whole installation comes back: ``[recovery]``.

    Attributes:
        to: Its folder; by default that of the store.
        owner: ``user`` or ``user:group`` that all of it is to belong to.
        environment: Commands that make the virtual environment, in place of ``.venv`` and ``requirements.txt``.
    """

    to: str | None = setting(location, None)
    owner: str = setting(text, "")
    environment: tuple[tuple[str, ...], ...] | None = setting(_commands, None)


@attrs.frozen(kw_only=True)
class ScheduleSettings:
    """What is done again and again: ``[schedule]``.

    Attributes:
        name: Parts the schedules of several configurations on one host.
        state: Folder where it is noted what was done.
        jobs: What is done when, in this order where several are due.
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
"""What the jobs with these names do where nothing else is said."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,20}")


def schedule(place: Place, value: object) -> ScheduleSettings:
    """Read ``[schedule]``: times by the names of jobs, such as ``snapshot = "daily 03:00"``."""
    if not isinstance(value, dict):
        raise place.wrong('a table such as { snapshot = "daily 03:00" }', value)
    name = text(place / "name", value["name"]) if "name" in value else ""
    if name and not _NAME.fullmatch(name):
        raise (place / "name").wrong("a name of small letters, digits and dashes", name)
    state = location(place / "state", value["state"]) if "state" in value else None
    jobs = tuple(_job(place / key, key, said) for key, said in value.items() if key not in ("name", "state"))
    return ScheduleSettings(name=name, state=state, jobs=jobs)


def _job(place: Place, name: str, value: object) -> Job:
    from novabackup.integrations.schedule import Job  # noqa: PLC0415 - as above

    if not isinstance(value, str | dict):
        raise place.wrong('a time such as "daily 03:00", or a table with when and run', value)
    said = {"when": value} if isinstance(value, str) else value
    if name not in _JOBS and "run" not in said:
        if isinstance(value, str):
            keys(attrs.evolve(place, path=place.path[:-1]), {name: value}, ("name", "state", *_JOBS))
        raise place.wrong('the key run, such as run = ["snapshot", "--tag", "hourly"]', Found("none"))
    keys(place, said, ("when", "run"))
    if "when" not in said:
        raise place.wrong('the key when, such as when = "daily 03:00"', Found("none"))
    when = _when(place / "when" if isinstance(value, dict) else place, said["when"])
    run = texts(place / "run", said["run"]) if "run" in said else _JOBS[name](when)
    if not run or run[0] in ("novabackup", "schedule"):
        raise (place / "run").wrong(
            'what follows the word novabackup, such as ["snapshot", "--tag", "hourly"]', run[0] if run else []
        )
    return _understood(place, lambda: Job(name, run, when))
