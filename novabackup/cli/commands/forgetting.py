"""Commands that make room: forget, prune."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from novabackup.cli.durations import span
from novabackup.cli.output import Answer, Column, Table, count, local, size
from novabackup.cli.shapes import short_ids
from novabackup.cli.work import BY_DEFAULT, Options, Span, Work
from novabackup.errors import ConfigurationError
from novabackup.prune import GRACE, PrunePlan
from novabackup.retention import Policy

__all__ = ["forget", "prune"]

Keep = Annotated[int | None, Parameter(validator=Number(gte=0), metavar="N")]


def forget(
    *snapshots: str,
    keep_last: Keep = None,
    keep_hourly: Keep = None,
    keep_daily: Keep = None,
    keep_weekly: Keep = None,
    keep_monthly: Keep = None,
    keep_tag: tuple[str, ...] = (),
    prune: bool = False,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Forget snapshots: those that are named, or those that a policy does not keep.

    The policy is given by options, or else by [retention] in the configuration. It never forgets the last healthy
    snapshot of a store.

    Args:
        snapshots: Ids or the beginnings of ids.
        keep_last: Keep the newest so many of each store.
        keep_hourly: Keep the newest of each of the last so many hours that have one.
        keep_daily: The same for days.
        keep_weekly: The same for weeks.
        keep_monthly: The same for months.
        keep_tag: Keep every snapshot with this tag; may be repeated.
        prune: Free what they needed, as the command prune does.
        dry_run: Say what would be done, and do nothing.
    """
    said = {
        "last": keep_last,
        "hourly": keep_hourly,
        "daily": keep_daily,
        "weekly": keep_weekly,
        "monthly": keep_monthly,
        "tags": keep_tag or None,
    }
    given = {name: value for name, value in said.items() if value is not None}
    if snapshots and given:
        raise ConfigurationError("expected snapshots or options of a policy, found both. Use one of them")
    with options.open() as work:
        if snapshots:
            verdicts: list[tuple[str, tuple[str, ...]]] = [(work.snapshot(name).id, ()) for name in snapshots]
        else:
            policy = Policy(**given) if given else work.config.retention  # type: ignore[arg-type]
            if policy is None:
                raise ConfigurationError(
                    "expected snapshots, options of a policy such as --keep-daily 30, or [retention] in the "
                    "configuration; found none of them, so nothing was forgotten"
                )
            plan = work.repository.plan_forget(policy)
            verdicts = [(verdict.id, verdict.reasons) for verdict in plan.verdicts]
        answer = _verdicts(work, verdicts, dry_run=dry_run)
        if not dry_run:
            work.repository.forget([name for name, reasons in verdicts if not reasons])
        return _with_prune(work, answer) if prune and not dry_run else answer


def _verdicts(work: Work, verdicts: list[tuple[str, tuple[str, ...]]], *, dry_run: bool) -> Answer:
    every = work.repository.snapshots()
    times = {snapshot.id: snapshot.time for snapshot in every}
    short = short_ids([*times, *(name for name, _reasons in verdicts if name not in times)])
    forgotten = [name for name, reasons in verdicts if not reasons]
    rows = [
        (
            short[name],
            local(times[name]) if name in times else "",
            "keep" if reasons else "forget",
            ", ".join(reasons),
        )
        for name, reasons in verdicts
    ]
    columns = [Column("ID", whole=True), Column("Time", whole=True), Column("What", whole=True), Column("Why")]
    verb = "would be forgotten" if dry_run else "forgotten"
    return Answer.of_plan(
        {
            "repository": work.repository.url,
            "forgotten": forgotten,
            "verdicts": [{"id": name, "keep": bool(reasons), "reasons": list(reasons)} for name, reasons in verdicts],
        },
        [
            *([Table(columns=columns, rows=rows)] if rows else []),
            f"{len(forgotten)} of {count(len(every), 'snapshot')} {verb}",
        ],
        dry_run=dry_run,
    )


def _with_prune(work: Work, answer: Answer) -> Answer:
    pruned = _pruned(work.repository.prune(), dry_run=False)
    return Answer(fields={**answer.fields, "prune": pruned.fields}, done=[*answer.done, *pruned.done])


def prune(*, grace: Span | None = None, dry_run: bool = False, options: Options = BY_DEFAULT) -> Answer:
    """Free what no snapshot needs, in two steps: condemned now, deleted by a prune a grace period later.

    Args:
        grace: How long after it was condemned a pack is deleted, such as 2d; by default 1d. 0 is safe only while
            nothing else writes to the repository.
        dry_run: Say what would be done, and do nothing.
    """
    with options.open() as work:
        span = GRACE if grace is None else timedelta(seconds=grace)
        plan = work.repository.plan_prune(grace=span)
        return _pruned(plan if dry_run else work.repository.prune(plan), dry_run=dry_run)


def _pruned(plan: PrunePlan, *, dry_run: bool) -> Answer:
    would = "would be " if dry_run else ""
    line = (
        f"{count(len(plan.delete), 'pack')} {would}deleted, {size(plan.size)} freed; "
        f"{count(len(plan.condemn), 'pack')} {would}condemned"
    )
    line += f", to be deleted by a prune in {span(plan.grace)} or later" if plan.condemn else ""
    fields = {
        "deleted": list(plan.delete),
        "condemned": list(plan.condemn),
        "freed_bytes": plan.size,
        "grace_seconds": plan.grace,
    }
    return Answer.of_plan(fields, [line], dry_run=dry_run)
