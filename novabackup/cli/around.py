"""What happens around a command as the configuration says: hooks, a service that is stopped, runs remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import attrs

from novabackup.cli.config.sections import WATCHED, state_folder
from novabackup.cli.output import Terminal
from novabackup.cli.work import Work
from novabackup.integrations.errors import ServiceError, UnhealthyError
from novabackup.integrations.hooks import Occasion
from novabackup.integrations.monitoring import Monitor, Observation
from novabackup.integrations.runs import RunLog
from novabackup.integrations.service import Service, stopped
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore

__all__ = ["Around", "around", "monitor_of", "probes_of"]


@attrs.define
class Around:
    """One command while it is under way.

    Attributes:
        snapshot: Set by the block to the snapshot that it took, restored or verified.
        failure: Set by the block to what it found wrong, where it tells that in its answer and raises nothing: the run
            has failed, for hooks and for metrics.
        complaint: The same, where the work itself went well: for hooks only.
        done: Set by the block to what it has done, in a sentence, for when the service is not back afterwards.
    """

    snapshot: Snapshot | None = None
    failure: Exception | None = None
    complaint: Exception | None = None
    done: str = ""


@contextmanager
def around(work: Work, command: str, store: IndexStore | None = None) -> Iterator[Around]:
    """Do around a block what the configuration wants around this command.

    Args:
        work: Store, repository and configuration.
        command: Which command.
        store: The configured store, if it is about that one, whose service is stopped where ``service.during`` has the
            command; None for another place, or the repository as a whole.

    Yields:
        What the block tells about itself.
    """
    seen = Around()
    with (
        _told_in_the_answer(lambda: seen.failure),
        _remembered(work, command, store) as run,
        _told_in_the_answer(lambda: seen.complaint),
        _hooked(work, command, store) as occasion,
    ):
        try:
            with _stopped(work, command, store):
                yield seen
        except (ServiceError, UnhealthyError) as error:
            if seen.done:
                error.add_note(f"only the service is not as it should be: {seen.done}")
            raise
        finally:
            run.snapshot = seen.snapshot
            occasion.snapshot = seen.snapshot or ""
        for wrong in (seen.failure, seen.complaint):
            if wrong is not None:
                raise wrong


@contextmanager
def _told_in_the_answer(wrong: Callable[[], Exception | None]) -> Iterator[None]:
    """Let an exception go that was only for what stands around."""
    try:
        yield
    except Exception as error:
        if error is not wrong():
            raise


def _remembered(work: Work, command: str, store: IndexStore | None) -> AbstractContextManager[Observation]:
    monitor = monitor_of(work)
    return monitor.observed(WATCHED[command], store) if monitor else nullcontext(Observation())


def _hooked(work: Work, command: str, store: IndexStore | None) -> AbstractContextManager[Occasion]:
    if command not in work.config.hooks.during:
        return nullcontext(Occasion())
    return work.config.hooks.made().around(store or "", work.repository, work=command)


def _stopped(work: Work, command: str, store: IndexStore | None) -> AbstractContextManager[None]:
    said = work.config.service
    if said is None or store is None or command not in said.during:
        return nullcontext()
    probes = [_ToldProbe(probe, work.terminal) for probe in probes_of(work)]
    return stopped(_ToldService(said.made(), work.terminal), probes=probes)


@attrs.frozen
class _ToldService(Service):
    """A service that somebody watches being stopped and started."""

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
class _ToldProbe:
    """A probe whose success is told."""

    probe: Callable[[], object]
    terminal: Terminal

    def __call__(self) -> None:
        self.probe()
        self.terminal.step(str(self.probe))


def probes_of(work: Work) -> tuple[Callable[[], object], ...]:
    """Make what asks the service whether it is well: its health first, then the question."""
    return tuple(said.made() for said in (work.config.health, work.config.query) if said is not None)


def monitor_of(work: Work) -> Monitor | None:
    """Make what watches over runs; None if the configuration has no ``[metrics]``."""
    said = work.config.metrics
    if said is None:
        return None
    store = work.known_store if said.scope == "store" else None
    return Monitor(work.repository, RunLog(said.runs or state_folder() / "runs"), sinks=said.sinks(), store=store)
