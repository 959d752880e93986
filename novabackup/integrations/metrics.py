"""Metrics of a repository for Prometheus, and the ways to deliver them."""

from __future__ import annotations

import base64
import logging
import os
import re
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from novabackup.errors import ConfigurationError, NovaBackupError
from novabackup.format.records import FAILED_TAG, SIDE_TAGS, Attributes, Drill
from novabackup.integrations import _http
from novabackup.integrations._about import told
from novabackup.integrations.errors import MetricsError
from novabackup.integrations.runs import Run
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot
from novabackup.storage import open_storage
from novabackup.store.store import IndexStore

__all__ = [
    "HELP",
    "Look",
    "Metric",
    "Pushgateway",
    "Sample",
    "Sink",
    "Textfile",
    "derive",
    "exposition",
    "look",
    "measure",
]

_LOG = logging.getLogger("novabackup")

HELP: Mapping[str, str] = {
    "nova_backup_success": "Whether the last attempt at a backup succeeded (1) or failed (0).",
    "nova_backup_timestamp": "When the newest backup was taken, in seconds since the epoch.",
    "nova_backup_age_seconds": "How old the newest backup was when this was measured.",
    "nova_backup_size_bytes": "Bytes of the files in the newest backup.",
    "nova_backup_added_bytes": "Bytes that the repository grew by for the newest backup.",
    "nova_backup_files": "Files in the newest backup.",
    "nova_backup_entries": "Vectors, documents or entries in a file of the newest backup.",
    "nova_backup_problems": "What the checks found wrong with the store when the newest backup was taken.",
    "nova_backup_healthy_timestamp": "When the newest backup without problems was taken, in seconds since the epoch.",
    "nova_backup_rollback_timestamp": "When a failed ingest was last rolled back, in seconds since the epoch.",
    "nova_backup_snapshots": "Snapshots of the store, of all kinds.",
    "nova_backup_tag_snapshots": "Snapshots of the store with a tag.",
    "nova_backup_tag_timestamp": "When the newest snapshot with a tag was taken, in seconds since the epoch.",
    "nova_backup_run_success": "Whether the last run of a kind of work succeeded (1) or failed (0).",
    "nova_backup_run_timestamp": "When a kind of work last succeeded, in seconds since the epoch.",
    "nova_backup_run_attempt_timestamp": "When a kind of work last ended, well or not, in seconds since the epoch.",
    "nova_backup_run_duration_seconds": "How long the last run of a kind of work took.",
    "nova_backup_drill_recovery_seconds": "How long the last drill took until the restored store had answered.",
    "nova_backup_drill_rto_seconds": "How long that may take (recovery time objective), as the last drill was told.",
    "nova_backup_repository_up": "Whether the repository could be read (1) or not (0).",
    "nova_backup_repository_bytes": "Bytes of all packs in the repository.",
    "nova_backup_damaged_snapshots": "Snapshots in the repository that cannot be read.",
}
"""All metrics and their meaning. All are gauges; times are seconds since the epoch."""

_SKEW = timedelta(minutes=5)
"""How far the clocks of hosts may differ."""

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_READABLE_BY_ALL = 0o644
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@attrs.frozen(kw_only=True)
class Sample:
    """One sample of a metric.

    Attributes:
        labels: Its labels.
        value: Its value.
    """

    labels: Mapping[str, str]
    value: float = attrs.field(converter=float)


@attrs.frozen(kw_only=True)
class Metric:
    """A gauge with all of its samples.

    Attributes:
        name: One of `HELP`.
        samples: In a stable order.
    """

    name: str
    samples: tuple[Sample, ...]

    @property
    def help(self) -> str:
        """Its meaning."""
        return HELP[self.name]


@attrs.frozen(kw_only=True)
class Look:
    """The state of a repository at one time.

    Attributes:
        url: URL of the repository.
        readable: False if it could not be read; then nothing else is known.
        snapshots: Its snapshots, or those of one store.
        damaged: How many snapshots cannot be read.
        stored: Bytes of all packs.
        drills: Results of drills, oldest first.
    """

    url: str
    readable: bool = True
    snapshots: tuple[Snapshot, ...] = ()
    damaged: int = 0
    stored: int = 0
    drills: tuple[Drill, ...] = ()


def measure(
    repository: Repository,
    runs: Iterable[Run] = (),
    *,
    store: IndexStore | None = None,
    now: datetime | None = None,
) -> tuple[Metric, ...]:
    """Read a repository and derive its metrics; an unreadable one is reported as a metric, not as an error.

    Args:
        repository: The repository.
        runs: Recorded runs, such as `RunLog.runs`; those on other repositories are ignored.
        store: Only this store; by default all that have snapshots or runs.
        now: The current time; by default by the clock.
    """
    ours = [run for run in runs if run.repository == repository.url and (store is None or run.store in ("", store.url))]
    return derive(look(repository, store), ours, now or datetime.now(UTC))


def look(repository: Repository, store: IndexStore | None = None) -> Look:
    """Read the state of a repository: list its packs, and read new snapshots and the results of drills."""
    try:
        # Before the snapshots are read, so that one that is taken meanwhile does not seem to be damaged.
        names = len(repository)
        every = repository.snapshots()
        return Look(
            url=repository.url,
            snapshots=tuple(snapshot for snapshot in every if store is None or snapshot.store == store.url),
            damaged=max(0, names - len(every)),
            stored=repository.stored_bytes(),
            drills=tuple(drill for drill in repository.drills() if store is None or drill.store == store.url),
        )
    except (NovaBackupError, OSError) as error:
        _LOG.warning("%s cannot be measured: %s", repository.url, told(error))
        return Look(url=repository.url, readable=False)


def derive(seen: Look, runs: Sequence[Run], now: datetime) -> tuple[Metric, ...]:
    """Derive metrics.

    Args:
        seen: State of the repository.
        runs: Runs on it, in any order.
        now: The current time.

    Returns:
        The metrics that have samples, in the order of `HELP`.
    """
    gauges = _Gauges(repository=seen.url)
    # A run in the future is ignored: a clock was wrong, and the run would hide every failure until then.
    runs = [run for run in (*runs, *map(_run, seen.drills)) if run.ended <= now + _SKEW]
    gauges.add("repository_up", seen.readable)
    if seen.readable:
        gauges.add("repository_bytes", seen.stored)
        gauges.add("damaged_snapshots", seen.damaged)
    by_store: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in sorted(seen.snapshots, key=lambda snapshot: snapshot.time):
        by_store[snapshot.store].append(snapshot)
    for store in sorted({*by_store, *(run.store for run in runs if run.kind == "backup")}):
        attempts = [run for run in runs if run.kind == "backup" and run.store == store]
        backups = [snapshot for snapshot in by_store[store] if not SIDE_TAGS & set(snapshot.tags)]
        _add_outcome(gauges, store, backups if seen.readable else None, attempts, now)
        if seen.readable:
            _add_snapshots(gauges, store, by_store[store], backups)
    _add_runs(gauges, runs)
    for store, drill in sorted({drill.store: drill for drill in seen.drills if drill.time <= now + _SKEW}.items()):
        gauges.add("drill_recovery_seconds", drill.recovery_milliseconds / 1000, store=store)
        if drill.rto_milliseconds is not None:
            gauges.add("drill_rto_seconds", drill.rto_milliseconds / 1000, store=store)
    return gauges.metrics()


def _run(drill: Drill) -> Run:
    """Convert a drill in the repository to a run, so that drills count without a log of runs."""
    return Run(
        kind="drill",
        store=drill.store,
        repository="",
        ended=drill.time + timedelta(milliseconds=sum(drill.milliseconds.values())),
        duration=sum(drill.milliseconds.values()) / 1000,
        error="; ".join(map(str, drill.problems)),
        snapshot=drill.snapshot,
    )


class _Gauges:
    """Collects samples by metric."""

    def __init__(self, **labels: str) -> None:
        self._labels = labels
        self._samples: dict[str, list[Sample]] = defaultdict(list)

    def add(self, name: str, value: float, **labels: str) -> None:
        self._samples[f"nova_backup_{name}"].append(Sample(labels={**self._labels, **labels}, value=value))

    def metrics(self) -> tuple[Metric, ...]:
        assert self._samples.keys() <= HELP.keys()
        return tuple(Metric(name=name, samples=tuple(self._samples[name])) for name in HELP if name in self._samples)


def _add_outcome(
    gauges: _Gauges, store: str, backups: Sequence[Snapshot] | None, attempts: Sequence[Run], now: datetime
) -> None:
    """Add the outcome of the last attempt, by the newest evidence: a recorded run, or a snapshot in the repository.

    If the repository cannot be read, only the runs are known. If it can, only a snapshot that exists counts as a
    backup, whatever was recorded.
    """
    last = max(attempts, key=lambda run: run.ended, default=None)
    newest = max((snapshot.time for snapshot in backups or () if snapshot.time <= now + _SKEW), default=None)
    if last and (newest is None or last.ended >= newest):
        gauges.add("success", last.good, store=store)
    else:
        gauges.add("success", newest is not None, store=store)
    if backups is None:
        known = max((run.ended for run in attempts if run.good), default=None)
    else:
        known = backups[-1].time if backups else None
    if known is not None:
        gauges.add("timestamp", known.timestamp(), store=store)
        gauges.add("age_seconds", max(0.0, (now - known).total_seconds()), store=store)


def _add_snapshots(gauges: _Gauges, store: str, every: Sequence[Snapshot], backups: Sequence[Snapshot]) -> None:
    if backups:
        newest = backups[-1]
        gauges.add("size_bytes", newest.size, store=store)
        gauges.add("added_bytes", newest.added, store=store)
        gauges.add("files", len(newest.files), store=store)
        gauges.add("problems", len(newest.problems), store=store)
        for path, entry in newest.files.items():
            if entry.report and entry.report.count is not None:
                gauges.add("entries", entry.report.count, store=store, file=path)
    for snapshot in reversed(backups):
        if not snapshot.problems:
            gauges.add("healthy_timestamp", snapshot.time.timestamp(), store=store)
            break
    gauges.add("snapshots", len(every), store=store)
    for tag in sorted({tag for snapshot in every for tag in snapshot.tags}):
        tagged = [snapshot for snapshot in every if tag in snapshot.tags]
        gauges.add("tag_snapshots", len(tagged), store=store, tag=tag)
        gauges.add("tag_timestamp", tagged[-1].time.timestamp(), store=store, tag=tag)
        if tag == FAILED_TAG:
            gauges.add("rollback_timestamp", tagged[-1].time.timestamp(), store=store)


def _add_runs(gauges: _Gauges, runs: Iterable[Run]) -> None:
    by_kind: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.ended):
        by_kind[run.kind, run.store].append(run)
    for (kind, store), known in sorted(by_kind.items()):
        last = known[-1]
        gauges.add("run_success", last.good, store=store, kind=kind)
        gauges.add("run_attempt_timestamp", last.ended.timestamp(), store=store, kind=kind)
        gauges.add("run_duration_seconds", last.duration, store=store, kind=kind)
        good = [run for run in known if run.good]
        if good:
            gauges.add("run_timestamp", good[-1].ended.timestamp(), store=store, kind=kind)


def exposition(metrics: Iterable[Metric]) -> str:
    """Write metrics in the text format of Prometheus."""
    lines: list[str] = []
    for metric in metrics:
        text = metric.help.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {metric.name} {text}", f"# TYPE {metric.name} gauge"]
        for sample in metric.samples:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
            lines.append(f"{metric.name}{{{labels}}} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(value: str) -> str:
    # A file name may not be valid UTF-8; a reader would then reject the whole text.
    valid = value.encode(errors="replace").decode()
    return valid.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


Sink = Callable[[Sequence[Metric]], object]
"""Delivers metrics."""


@attrs.frozen
class Textfile:
    """A file for the textfile collector of node_exporter, replaced atomically and readable by its user.

    Attributes:
        path: Path of the file; its name ends with ``.prom``, since no other is collected.
    """

    path: Path = attrs.field(converter=Path)

    @path.validator
    def _is_collected(self, _field: object, value: Path) -> None:
        if value.suffix != ".prom":
            raise ConfigurationError(f"{value}: expected a name that ends with .prom, since no other is collected")

    def __str__(self) -> str:
        return str(self.path)

    def __call__(self, metrics: Sequence[Metric]) -> None:
        """Write the file.

        Raises:
            OSError: It cannot be written.
        """
        attributes = Attributes(mode=_READABLE_BY_ALL, uid=os.geteuid(), gid=os.getegid(), mtime_ns=time.time_ns())
        open_storage(self.path.parent).write(self.path.name, [exposition(metrics).encode()], attributes)


@attrs.frozen
class Pushgateway:
    """A Pushgateway, for jobs that end before Prometheus could scrape them.

    A push replaces all metrics that were pushed to the same group before.

    Attributes:
        url: Such as ``http://localhost:9091``.
        job: Label ``job`` of the group.
        grouping: Other labels of the group; by default the repository, so that several do not replace each other.
        headers: Additional headers, such as an authorisation.
        timeout: Timeout in seconds.
    """

    url: str = attrs.field(converter=_http.checked_url)
    job: str = attrs.field(default="novabackup", kw_only=True, validator=attrs.validators.min_len(1))
    grouping: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict, kw_only=True, repr=False, converter=_http.checked_headers)
    timeout: float = attrs.field(default=10.0, kw_only=True, validator=attrs.validators.gt(0.0))

    @grouping.validator
    def _are_labels(self, _field: object, value: Mapping[str, str] | None) -> None:
        for name in value or ():
            if not _LABEL.fullmatch(name) or name == "job":
                raise ConfigurationError(f"expected names of labels other than job, found {name!r}")

    def __str__(self) -> str:
        return _http.shown(self.url)

    def __call__(self, metrics: Sequence[Metric]) -> None:
        """Push the metrics, replacing the group.

        Raises:
            MetricsError: The Pushgateway did not accept them.
        """
        grouping = self.grouping
        if grouping is None:
            grouping = {"repository": next((s.labels.get("repository", "") for m in metrics for s in m.samples), "")}
        path = "".join(_segment(name, value) for name, value in {"job": self.job, **grouping}.items())
        where = _http.shown(self.url)
        try:
            answer = _http.request(
                "PUT",
                f"{self.url.rstrip('/')}/metrics{path}",
                timeout=self.timeout,
                body=exposition(metrics).encode(),
                headers={"Content-Type": _CONTENT_TYPE, **self.headers},
            )
        except OSError as error:
            raise MetricsError(
                f"{where}: expected a Pushgateway that accepts metrics, found none: {told(error)}. "
                "Check that it runs, and the URL"
            ) from error
        if answer.status not in (200, 202):
            raise MetricsError(f"{where}: expected a Pushgateway that accepts metrics, found {answer}. Check its log")


def _segment(label: str, value: str) -> str:
    """Encode a label as a part of a path; as base64 if the value contains a slash or is empty."""
    if value and "/" not in value:
        return f"/{label}/{urllib.parse.quote(value, safe='')}"
    return f"/{label}@base64/{base64.urlsafe_b64encode(value.encode()).decode() or '='}"
