"""What the configuration does around a command: hooks run, the service is stopped, the run is recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import attrs

from novabackup.cli.config.sections import state_folder
from novabackup.cli.config.values import WATCHED
from novabackup.cli.context import Context
from novabackup.cli.output import Terminal
from novabackup.integrations.errors import ServiceError, UnhealthyError
from novabackup.integrations.hooks import Work
from novabackup.integrations.monitoring import Monitor, Observation
from novabackup.integrations.runs import RunLog
from novabackup.integrations.service import Service, stopped
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore

_T = TypeVar("_T")


@attrs.define
class Execution:
    """One command while it runs; its block sets the attributes.

    Attributes:
        snapshot: The snapshot that it took, restored or verified.
        failure: What it found wrong and reports in its result, without raising it: for hooks and metrics it failed.
        complaint: The same, but the command itself succeeded: for hooks alone it failed.
        done: What it did, in a sentence, for an error about the service afterwards.
    """

    snapshot: Snapshot | None = None
    failure: Exception | None = None
    complaint: Exception | None = None
    done: str = ""


@contextmanager
def lifecycle(context: Context, command: str, store: IndexStore | None = None) -> Iterator[Execution]:
    """Do around a block what the configuration says for this command; yields where the block reports.

    The store is the configured one, if the command works on it: its service is stopped if ``service.during`` has the
    command. It is None for another place, or the repository as a whole.
    """
    execution = Execution()
    with (
        _failing_with(_recorded(context, command, store), lambda: execution.failure) as run,
        _failing_with(_hooked(context, command, store), lambda: execution.failure or execution.complaint) as work,
    ):
        try:
            with _service_stopped(context, command, store):
                yield execution
        except (ServiceError, UnhealthyError) as error:
            if execution.done:
                error.add_note(f"only the service is not as it should be: {execution.done}")
            raise
        finally:
            run.snapshot = execution.snapshot
            work.snapshot = execution.snapshot or ""


@contextmanager
def _failing_with(manager: AbstractContextManager[_T], failure: Callable[[], Exception | None]) -> Iterator[_T]:
    """Enter a context manager; leave it as if a block that succeeded had raised the failure, which goes no further."""
    value = manager.__enter__()
    try:
        yield value
    except BaseException:
        if not manager.__exit__(*sys.exc_info()):
            raise
    else:
        reported = failure()
        manager.__exit__(type(reported) if reported else None, reported, None)


def _recorded(context: Context, command: str, store: IndexStore | None) -> AbstractContextManager[Observation]:
    monitor = monitor_of(context)
    return monitor.observed(WATCHED[command], store) if monitor else nullcontext(Observation())


def _hooked(context: Context, command: str, store: IndexStore | None) -> AbstractContextManager[Work]:
    if command not in context.config.hooks.during:
        return nullcontext(Work())
    return context.config.hooks.made().around(store or "", context.repository, work=command)


def _service_stopped(context: Context, command: str, store: IndexStore | None) -> AbstractContextManager[None]:
    service = context.config.service
    if service is None or store is None or command not in service.during:
        return nullcontext()
    probes = [_ReportedProbe(probe, context.terminal) for probe in probes_of(context)]
    return stopped(_ReportedService(service.made(), context.terminal), probes=probes)


@attrs.frozen
class _ReportedService(Service):
    """A service whose stops and starts are shown."""

    service: Service
    terminal: Terminal

    @property
    def name(self) -> str:
        return self.service.name

    def stop(self) -> None:
        self.service.stop()
        self.terminal.step(f"{self.name} is stopped")

    def start(self) -> None:
        self.service.start()
        self.terminal.step(f"{self.name} is started again")

    def running(self) -> bool:
        return self.service.running()


@attrs.frozen
class _ReportedProbe:
    """A probe whose success is shown."""

    probe: Callable[[], object]
    terminal: Terminal

    def __call__(self) -> None:
        self.probe()
        self.terminal.step(str(self.probe))


def probes_of(context: Context) -> tuple[Callable[[], object], ...]:
    """Return what asks the service whether it works: its health first, then the question."""
    return tuple(one.made() for one in (context.config.health, context.config.query) if one is not None)


def monitor_of(context: Context) -> Monitor | None:
    """Return what records runs; None if the configuration has no ``[metrics]``."""
    metrics = context.config.metrics
    if metrics is None:
        return None
    store = context.known_store if metrics.scope == "store" else None
    log = RunLog(metrics.runs or state_folder() / "runs")
    return Monitor(context.repository, log, sinks=metrics.sinks(), store=store)
