"""Collects the evidence for a report: the state of a repository, its store and its copies at one time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from novabackup.errors import NotFoundError, NovaBackupError, StoreBusyError
from novabackup.format.records import SIDE_TAGS, Drill, FileEntry, Pin, Problem
from novabackup.guard import plan_recover
from novabackup.integrations._about import told
from novabackup.integrations.runs import Run
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot, Snapshots
from novabackup.retention import DEFAULT, ForgetPlan, Policy, Verdict
from novabackup.store.store import IndexStore

_DAMAGED_PIN = "the pin is damaged"


@attrs.frozen(kw_only=True)
class Limits:
    """Age limits after which someone should act; the same as in the alert rules for Prometheus.

    Attributes:
        backup: The newest healthy snapshot, here and in each copy.
        verify: The last verification, where runs are recorded.
        drill: The last drill.
    """

    backup: timedelta = timedelta(hours=48)
    verify: timedelta = timedelta(days=8)
    drill: timedelta = timedelta(days=40)


@attrs.frozen(kw_only=True)
class Point:
    """One snapshot.

    Attributes:
        id: Its id.
        time: When it was taken.
        store: URL of its store.
        tags: Its tags.
        message: Its message.
        files: Number of files.
        size: Bytes of its files.
        added: Bytes that the repository grew by for it.
        vectors: Number of vectors in its indexes, or of documents if it has none; None if nothing was counted.
        problems: What the checks found when it was taken.
        pin: Why it is pinned; None if it is not.
        kept: Whether the policy keeps it; None if that is not known.
        reasons: Why, or why not.
    """

    id: str
    time: datetime
    store: str
    tags: tuple[str, ...] = ()
    message: str = ""
    files: int = 0
    size: int = 0
    added: int = 0
    vectors: int | None = None
    problems: tuple[Problem, ...] = ()
    pin: str | None = None
    kept: bool | None = None
    reasons: tuple[str, ...] = ()

    @property
    def is_backup(self) -> bool:
        """Whether it holds what its store was meant to hold: not what a rollback or a restore replaced."""
        return not SIDE_TAGS & set(self.tags)


@attrs.frozen(kw_only=True)
class Live:
    """The live files of a store.

    Attributes:
        problems: What is wrong with them.
        missing: Files that are gone, and that the newest backup has.
        error: Why they could not be checked; empty if they could.
        interrupted: What an interrupted ingest or restore left behind; empty if there is none.
        busy: Who is writing to them now, so that they were not checked; empty if nobody is.
    """

    problems: tuple[Problem, ...] = ()
    missing: tuple[str, ...] = ()
    error: str = ""
    interrupted: str = ""
    busy: str = ""


@attrs.frozen(kw_only=True)
class Copy:
    """Another repository that should have the snapshots, too.

    Attributes:
        name: Its name.
        url: Its URL.
        error: Why it cannot be read; empty if it can.
        snapshots: Number of its snapshots.
        newest: When its newest healthy snapshot was taken; None if there is none.
    """

    name: str
    url: str
    error: str = ""
    snapshots: int = 0
    newest: datetime | None = None


@attrs.frozen(kw_only=True)
class Seen:
    """The evidence for a report.

    Attributes:
        time: When it was collected.
        repository: URL of the repository.
        store: URL of the one store that the report covers; empty for the whole repository.
        error: Why the repository cannot be read, so that nothing else is known of it; empty if it can.
        points: Its snapshots, oldest first.
        elsewhere: How many snapshots of other stores it has.
        problems: What is wrong with the repository.
        stored: Bytes of all packs.
        drills: Results of drills, oldest first.
        verified: The last known verification; None if there is none.
        remembers: Whether runs are recorded, so that a verification would be known.
        policy: What `forget` would keep, as text.
        warnings: What `forget` would warn of.
        live: The live files; None if they were not checked.
        copies: Other repositories.
        limits: Age limits.
    """

    time: datetime
    repository: str
    store: str = ""
    error: str = ""
    points: tuple[Point, ...] = ()
    elsewhere: int = 0
    problems: tuple[Problem, ...] = ()
    stored: int = 0
    drills: tuple[Drill, ...] = ()
    verified: Run | None = None
    remembers: bool = False
    policy: str = ""
    warnings: tuple[str, ...] = ()
    live: Live | None = None
    copies: tuple[Copy, ...] = ()
    limits: Limits = Limits()

    @property
    def backups(self) -> tuple[Point, ...]:
        """The snapshots that hold what a store was meant to hold, oldest first."""
        return tuple(point for point in self.points if point.is_backup)

    @property
    def healthy(self) -> Point | None:
        """The newest of them without problems."""
        return next((point for point in reversed(self.backups) if not point.problems), None)

    @property
    def drill(self) -> Drill | None:
        """The last drill."""
        return self.drills[-1] if self.drills else None


def survey(
    repository: Repository,
    *,
    store: IndexStore | None = None,
    policy: Policy | str | Mapping[str, Any] = DEFAULT,
    runs: Iterable[Run] | None = None,
    copies: Mapping[str, Repository] | None = None,
    limits: Limits | None = None,
    now: datetime | None = None,
) -> Seen:
    """Inspect a repository, the live files of a store, and copies; arguments as for `report`."""
    policy = Policy.of(policy)
    ours = [run for run in runs or () if run.kind == "verify" and run.repository == repository.url]
    ours = [run for run in ours if store is None or run.store in ("", store.url)]
    wanted = store.url if store else ""
    seen = Seen(
        time=now or datetime.now(UTC),
        repository=repository.url,
        store=wanted,
        verified=max(ours, key=lambda run: run.ended, default=None),
        remembers=runs is not None,
        policy=str(policy),
        copies=tuple(_copy(name, other, wanted) for name, other in (copies or {}).items()),
        limits=limits or Limits(),
    )
    every: Snapshots | tuple[Snapshot, ...] = ()
    try:
        every = repository.snapshots()
        pins = repository.pins()
        plan = repository.plan_forget(policy)
        verdicts = {verdict.id: verdict for verdict in plan.verdicts}
        mine = [snapshot for snapshot in every if wanted in ("", snapshot.store)]
        seen = attrs.evolve(
            seen,
            points=tuple(_point(snapshot, pins, verdicts.get(snapshot.id)) for snapshot in mine),
            elsewhere=len(every) - len(mine),
            problems=tuple(repository.check()),
            stored=repository.stored_bytes(),
            drills=tuple(drill for drill in repository.drills() if wanted in ("", drill.store)),
            warnings=_warnings(plan, wanted),
        )
    except (NovaBackupError, OSError) as error:
        seen = attrs.evolve(seen, error=_said(error))
    return attrs.evolve(seen, live=_live(store, repository, every)) if store else seen


def _said(error: NovaBackupError | OSError) -> str:
    """Describe an error for people: our own errors need no class name."""
    text = told(error)
    return text.removeprefix(f"{type(error).__name__}: ") if isinstance(error, NovaBackupError) else text


def _warnings(plan: ForgetPlan, store: str) -> tuple[str, ...]:
    return tuple(plan.warnings) if not store or all(one.store == store for one in plan.verdicts) else ()


def _live(store: IndexStore, repository: Repository, snapshots: Iterable[Snapshot]) -> Live:
    backups = [one for one in snapshots if one.store == store.url and not SIDE_TAGS & set(one.tags)]
    try:
        found = plan_recover(store, repository)
        if found is not None:
            return Live(interrupted=f"interrupted in phase {found.phase}, to go back to snapshot {found.snapshot}")
        reports, problems = store.judge({})
        gone = {report.path for report in reports if not report.exists}
        return Live(problems=tuple(problems), missing=tuple(sorted(gone & backups[-1].files.keys())) if backups else ())
    except StoreBusyError as error:
        return Live(busy=_said(error))
    except (NovaBackupError, OSError) as error:
        return Live(error=_said(error))


def _copy(name: str, repository: Repository, store: str) -> Copy:
    try:
        found = [one for one in repository.snapshots() if store in ("", one.store)]
    except NotFoundError:
        return Copy(name=name, url=repository.url)  # nothing has been copied yet
    except (NovaBackupError, OSError) as error:
        return Copy(name=name, url=repository.url, error=_said(error))
    good = [one.time for one in found if not one.problems and not SIDE_TAGS & set(one.tags)]
    return Copy(name=name, url=repository.url, snapshots=len(found), newest=max(good, default=None))


def _point(snapshot: Snapshot, pins: Mapping[str, Pin | None], verdict: Verdict | None) -> Point:
    pin = pins.get(snapshot.id)
    return Point(
        id=snapshot.id,
        time=snapshot.time,
        store=snapshot.store,
        tags=snapshot.tags,
        message=snapshot.message,
        files=len(snapshot.files),
        size=snapshot.size,
        added=snapshot.added,
        vectors=_vectors(snapshot.files.values()),
        problems=snapshot.problems,
        pin=(pin.message if pin else _DAMAGED_PIN) if snapshot.id in pins else None,
        kept=verdict.kept if verdict else None,
        reasons=verdict.reasons if verdict else (),
    )


def _vectors(files: Iterable[FileEntry]) -> int | None:
    reports = [entry.report for entry in files if entry.report and entry.report.count is not None]
    indexes = [report.count or 0 for report in reports if report.dimension is not None]
    return sum(indexes) if indexes else max((report.count or 0 for report in reports), default=None)


# -- for programs ------------------------------------------------------------------------------------------------------


def facts(seen: Seen) -> dict[str, Any]:
    """Return all evidence for programs: mappings, lists, texts, numbers and times."""
    found: dict[str, Any] = attrs.asdict(seen, value_serializer=_plain)
    found["limits"] = {name: span.total_seconds() for name, span in attrs.asdict(seen.limits).items()}
    found["healthy"] = seen.healthy and seen.healthy.id
    return found


def _plain(_instance: object, _field: object, value: Any) -> Any:
    plain: Callable[[Any], Any] = list if isinstance(value, tuple) else lambda same: same
    return plain(value)
