"""Stops a service before work on its files and starts it again afterwards, however the work ends."""

from __future__ import annotations

import abc
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from novabackup._support import commands
from novabackup._support.commands import Outcome
from novabackup.errors import ConfigurationError
from novabackup.integrations._about import told
from novabackup.integrations.errors import ServiceError

__all__ = ["Callables", "Command", "Service", "SystemdUnit", "stopped"]

_LOG = logging.getLogger("novabackup")

_seconds = attrs.validators.gt(0.0)
_JOURNAL_LINES = 10
_JOURNAL_SECONDS = 10.0
_RUNNING = frozenset({"active", "activating", "reloading", "refreshing"})
"""States in which systemd runs a unit or is about to, as between two attempts of one that keeps failing."""
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*")


class Service(abc.ABC):
    """A program that reads the files of a store and must be stopped while they change."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name for messages."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop it, and return when it has ended; no error if it does not run.

        Raises:
            ServiceError: It could not be stopped.
        """

    @abc.abstractmethod
    def start(self) -> None:
        """Start it; no error if it runs already.

        Raises:
            ServiceError: It could not be started.
        """

    @abc.abstractmethod
    def running(self) -> bool:
        """Return whether it runs.

        Raises:
            ServiceError: That cannot be determined.
        """


@attrs.frozen
class SystemdUnit(Service):
    """A systemd unit.

    Attributes:
        unit: Its name, such as ``nova-nic``.
        manager: ``system``, or ``user`` for a unit of the current user.
        timeout: Timeout for stopping or starting, in seconds.
        systemctl: The program with any prefix, such as ``("sudo", "-n", "systemctl")``.
    """

    unit: str = attrs.field()
    manager: str = attrs.field(default="system", kw_only=True, validator=attrs.validators.in_(("system", "user")))
    timeout: float = attrs.field(default=90.0, kw_only=True, validator=_seconds)
    systemctl: Sequence[str] = attrs.field(default=("systemctl",), kw_only=True, converter=commands.arguments)

    @unit.validator
    def _is_a_name(self, _field: object, value: str) -> None:
        if not _UNIT.fullmatch(value):
            raise ConfigurationError(f"expected the name of a systemd unit such as nova-nic, found {value!r}")

    @property
    def name(self) -> str:
        """Name of the unit."""
        return self.unit

    def stop(self) -> None:
        """Stop the unit."""
        self._do("stop")

    def start(self) -> None:
        """Start the unit; the error of a failure holds the last lines of its journal."""
        self._do("start")

    def running(self) -> bool:
        """Return whether systemd runs the unit, or is about to; a failed unit does not run."""
        done = self._call("show", "--property=LoadState,ActiveState")
        states = dict(line.partition("=")[::2] for line in done.output.splitlines())
        if not done.good or "ActiveState" not in states:
            raise ServiceError(f"{self.unit}: expected systemctl to report the state of this unit, found {done}")
        if states.get("LoadState") == "not-found":
            raise ServiceError(
                f"{self.unit}: expected a unit of this name, found that systemd ({self.manager}) has none. "
                "Fix the name, or the manager"
            )
        return states["ActiveState"] in _RUNNING

    def _do(self, verb: str) -> None:
        done = self._call(verb)
        if not done.good:
            raise ServiceError(
                f"{self.unit}: expected systemctl to {verb} this unit, found {done}\n"
                f"The last lines of its journal:\n{self._journal()}\n"
                f"Remove the cause, then: {' '.join(self.systemctl)} {verb} {self.unit}"
            )

    def _call(self, *words: str) -> Outcome:
        manager = ("--user",) if self.manager == "user" else ()
        return commands.run((*self.systemctl, *manager, *words, "--", self.unit), timeout=self.timeout)

    def _journal(self) -> str:
        which = "--user-unit" if self.manager == "user" else "--unit"
        before = self.systemctl[:-1]  # reading the journal needs the same rights
        command = (*before, "journalctl", "--no-pager", "--quiet", f"--lines={_JOURNAL_LINES}", f"{which}={self.unit}")
        done = commands.run(command, timeout=_JOURNAL_SECONDS)
        return (done.output or "(none)") if done.good else f"(journalctl: {done})"


@attrs.frozen(kw_only=True)
class Command(Service):
    """A service that commands stop and start: your own program, ``docker compose``, an init script.

    Attributes:
        stop_command: Returns when the service has ended.
        start_command: Starts it in the background and returns.
        running_command: Exits with status 0 if the service runs; without it, the service is assumed to run.
        timeout: Timeout of each command, in seconds.
        label: Name for messages; by default the program that starts it.
    """

    stop_command: Sequence[str] = attrs.field(alias="stop", converter=commands.arguments)
    start_command: Sequence[str] = attrs.field(alias="start", converter=commands.arguments)
    running_command: Sequence[str] | None = attrs.field(
        default=None, alias="running", converter=attrs.converters.optional(commands.arguments)
    )
    timeout: float = attrs.field(default=90.0, validator=_seconds)
    label: str = ""

    @property
    def name(self) -> str:
        """Its label, or the program that starts it, whose arguments are not shown, since they may hold secrets."""
        return self.label or self.start_command[0]

    def stop(self) -> None:
        """Run the command that stops it."""
        self._do("stop", self.stop_command)

    def start(self) -> None:
        """Run the command that starts it."""
        self._do("start", self.start_command)

    def running(self) -> bool:
        """Return whether it runs, by its command."""
        if self.running_command is None:
            return True
        done = commands.run(self.running_command, timeout=self.timeout)
        if done.status is None:
            raise ServiceError(
                f"{self.running_command[0]}: expected a command that reports whether the service runs, found {done}"
            )
        return done.good

    def _do(self, verb: str, command: Sequence[str]) -> None:
        done = commands.run(command, timeout=self.timeout)
        if not done.good:
            raise ServiceError(
                f"{command[0]}: expected this command to {verb} the service, found {done}\n"
                f"Remove the cause, then {verb} the service by hand"
            )


@attrs.frozen(kw_only=True)
class Callables(Service):
    """A service that functions stop and start: one in this process, or one that a library controls.

    Attributes:
        stop_function: Returns when the service has ended.
        start_function: Starts it and returns.
        running_function: Returns whether it runs; without it, the service is assumed to run.
        name: Name for messages.
    """

    stop_function: Callable[[], object] = attrs.field(alias="stop")
    start_function: Callable[[], object] = attrs.field(alias="start")
    running_function: Callable[[], bool] | None = attrs.field(default=None, alias="running")
    name: str = "the service"

    def stop(self) -> None:
        """Call the function that stops it; its exceptions pass through."""
        self.stop_function()

    def start(self) -> None:
        """Call the function that starts it; its exceptions pass through."""
        self.start_function()

    def running(self) -> bool:
        """Return whether it runs, by its function."""
        return self.running_function is None or self.running_function()


@contextlib.contextmanager
def stopped(service: Service, *, probes: Iterable[Callable[[], object]] = ()) -> Iterator[None]:
    """Stop a service for as long as a block runs; also usable as a decorator.

    It is started again however the block ends: also after an exception or Ctrl-C, and when stopping it failed
    half-way. A service that did not run before is not started afterwards; to start one that had crashed, call its
    ``start`` after the block.

    Args:
        service: The service.
        probes: Called once it is started again, such as a `HealthCheck` or a `Query`; each raises if the service is
            unhealthy.

    Raises:
        ServiceError: It could not be stopped, or could not be started again. If the block has failed, too, its
            exception is raised, with this one as a note, so that both are seen.
        UnhealthyError: It runs again, but a probe failed; the same rule applies.
    """
    if not service.running():
        _LOG.info("%s does not run, so it is neither stopped nor started", service.name)
        yield
        return
    try:
        service.stop()
        _LOG.info("%s is stopped", service.name)
        yield
    except BaseException as failure:
        try:
            _start(service, probes)
        except Exception as second:  # noqa: BLE001 - added as a note; callers act on the exception of the block
            _LOG.error("%s is not back: %s", service.name, told(second))
            failure.add_note(f"Besides, {service.name} is not back: {told(second)}")
        raise
    _start(service, probes)


def _start(service: Service, probes: Iterable[Callable[[], object]]) -> None:
    service.start()
    _LOG.info("%s is started again", service.name)
    for probe in probes:
        probe()
