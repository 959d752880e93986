"""Monitors the work on a repository: each run is timed, recorded, and delivered as metrics."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from novabackup.integrations._about import id_of, told
from novabackup.integrations.metrics import HELP, Metric, Sink, measure
from novabackup.integrations.runs import Kind, Run, RunLog
from novabackup.integrations.tracing import traced
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore

if TYPE_CHECKING:
    import prometheus_client.core

__all__ = ["Collector", "Monitor", "Observation"]

_LOG = logging.getLogger("novabackup")


def _log(value: RunLog | str | os.PathLike[str]) -> RunLog:
    return value if isinstance(value, RunLog) else RunLog(value)


def _sinks(value: Iterable[Sink]) -> tuple[Sink, ...]:
    return tuple(value)


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.define
class Observation:
    """A run in progress.

    Attributes:
        snapshot: Set by the block to the snapshot that it took, restored or verified.
    """

    snapshot: Snapshot | None = None


@attrs.frozen(eq=False)
class Monitor:
    """Monitors one repository.

    Attributes:
        repository: The repository.
        log: Where runs are recorded across processes: a folder or a `RunLog`.
        sinks: Where metrics go: `Textfile`, `Pushgateway`, or your own functions.
        store: Only this store; by default all in the repository. Where several hosts share a repository, each names its
            own, since it does not know about failures on the others.
        clock: Returns the current time, with a time zone.
        timer: Monotonic clock, in seconds.
    """

    repository: Repository
    log: RunLog = attrs.field(converter=_log)
    sinks: Sequence[Sink] = attrs.field(default=(), kw_only=True, converter=_sinks)
    store: IndexStore | None = attrs.field(default=None, kw_only=True)
    clock: Callable[[], datetime] = attrs.field(default=_now, kw_only=True, repr=False)
    timer: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True, repr=False)

    @contextlib.contextmanager
    def observed(self, kind: Kind, store: IndexStore | None = None) -> Iterator[Observation]:
        """Monitor a block of work: whether it succeeds, and how long it takes.

        If the run cannot be recorded or its metrics cannot be delivered, that is logged as an error; successful work
        stays successful.

        Args:
            kind: Kind of work.
            store: The store; None for work on the repository as a whole.

        Yields:
            The observation; set its ``snapshot``.
        """
        url = store.url if store else ""
        observation = Observation()
        begun = self.timer()
        error = ""
        try:
            with traced(f"novabackup {kind}", store=url, repository=self.repository.url):
                yield observation
        except BaseException as failure:
            error = told(failure)
            raise
        finally:
            run = Run(
                kind=kind,
                store=url,
                repository=self.repository.url,
                ended=self.clock(),
                duration=self.timer() - begun,
                error=error,
                snapshot=id_of(observation.snapshot),
            )
            self._tell(run)

    def _tell(self, run: Run) -> None:
        runs: tuple[Run, ...] = ()
        try:
            self.log.record(run)
            runs = self.log.runs()
        except Exception as error:  # noqa: BLE001 - monitoring must not break the work
            _LOG.error("%s: this %s could not be recorded: %s", self.log, run.kind, told(error))
        try:
            metrics = measure(self.repository, {*runs, run}, store=self.store, now=self.clock())
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.error("%s could not be measured: %s", self.repository.url, told(error))
            return
        for sink in self.sinks:
            try:
                sink(metrics)
            except Exception as error:  # noqa: BLE001 - as above; the other sinks still get it
                _LOG.error("%s did not take the metrics: %s", sink, told(error))

    def measure(self) -> tuple[Metric, ...]:
        """Measure the repository now."""
        return measure(self.repository, self.log.runs(), store=self.store, now=self.clock())

    def publish(self) -> None:
        """Measure the repository and deliver the metrics, such as between two runs.

        Raises:
            OSError: A file could not be written, or the log could not be read.
            MetricsError: A Pushgateway did not take the metrics.
        """
        metrics = self.measure()
        for sink in self.sinks:
            sink(metrics)


@attrs.frozen(eq=False)
class Collector:
    """A collector for a registry of ``prometheus_client``: ``REGISTRY.register(Collector(monitor))``.

    Each scrape lists the repository and reads new snapshots; registering it reads nothing.

    Attributes:
        monitor: Source of the metrics.
    """

    monitor: Monitor

    def describe(self) -> Iterator[prometheus_client.core.Metric]:
        """Describe the metrics."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - an extra

        return (GaugeMetricFamily(name, text) for name, text in HELP.items())

    def collect(self) -> Iterator[prometheus_client.core.Metric]:
        """Measure, and yield the metrics."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - an extra

        for metric in self.monitor.measure():
            family = GaugeMetricFamily(metric.name, metric.help)
            for sample in metric.samples:
                family.add_sample(metric.name, dict(sample.labels), sample.value)
            yield family
