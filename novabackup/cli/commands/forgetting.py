"""Commands that make room: forget, prune."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta

from novabackup.cli.around import around
from novabackup.cli.config.durations import span
from novabackup.cli.json_fields import short_ids
from novabackup.cli.output import Answer, Column, Table, count, local, size
from novabackup.cli.work import BY_DEFAULT, Options, Span, Work
from novabackup.errors import ConfigurationError
from novabackup.operations.prune import GRACE, PrunePlan
from novabackup.retention import ForgetPlan, Policy

__all__ = ["forget", "prune"]


def forget(
    *snapshots: str,
    policy: str | None = None,
    prune: bool = False,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Forget snapshots: those that are named, or those that a policy does not keep.

    The policy is that of --policy, or else of [retention] in the configuration. It never forgets the last healthy
    snapshot of a store, nor one that is pinned.

    Args:
        snapshots: Ids or the beginnings of ids.
        policy: What to keep, such as "last 3, daily 30, weekly 12, tag pre-ingest 7d", or the name of a ready-made
            policy: default, local, remote, cold.
        prune: Free what they needed, as the command prune does.
        dry_run: Say what would be done, and do nothing.
    """
    if snapshots and policy is not None:
        raise ConfigurationError("expected snapshots or a policy, found both. Use one of them")
    with options.open() as work:
        names = [work.snapshot(name).id for name in snapshots]
        judge = None if names else _policy(work, policy)
        with nullcontext() if dry_run else around(work, "forget"):
            answer = _judged(work, judge, dry_run=dry_run) if judge else _named(work, names, dry_run=dry_run)
        if not prune or dry_run:
            return answer
        with around(work, "prune"):
            return _with_prune(work, answer)


def _policy(work: Work, said: str | None) -> Policy:
    found = Policy.of(said) if said is not None else work.config.retention
    if found is None:
        raise ConfigurationError(
            "expected snapshots, --policy, or [retention] in the configuration; found none of them, so nothing was "
            "forgotten. Such as: novabackup forget --policy default --dry-run"
        )
    return found


def _named(work: Work, names: Sequence[str], *, dry_run: bool) -> Answer:
    many = len(work.repository)
    gone = tuple(names) if dry_run else work.repository.forget(names)
    verb = "would be forgotten" if dry_run else "forgotten"
    fields = {"repository": work.repository.url, "forgotten": list(gone)}
    return Answer.of_plan(fields, [f"{len(gone)} of {count(many, 'snapshot')} {verb}"], dry_run=dry_run)


def _judged(work: Work, policy: Policy, *, dry_run: bool) -> Answer:
    plan = work.repository.plan_forget(policy)
    for warning in plan.warnings:
        work.terminal.warning(warning)
    gone = plan.forgotten if dry_run else work.repository.forget(plan)
    verb = "would be forgotten" if dry_run else "forgotten"
    fields = {
        "repository": work.repository.url,
        "policy": plan.policy,
        "warnings": list(plan.warnings),
        "forgotten": list(gone),
        "verdicts": [
            {
                "id": verdict.id,
                "time": verdict.time,
                "store": verdict.store,
                "tags": list(verdict.tags),
                "state": verdict.state.value,
                "keep": verdict.kept,
                "reasons": list(verdict.reasons),
            }
            for verdict in plan.verdicts
        ],
    }
    line = f"{len(gone)} of {count(len(plan.verdicts), 'snapshot')} {verb} under {plan.policy}"
    return Answer.of_plan(fields, [*_tables(plan), line], dry_run=dry_run)


def _tables(plan: ForgetPlan) -> Iterator[Table]:
    """Show what becomes of each snapshot, store by store."""
    short = short_ids([verdict.id for verdict in plan.verdicts])
    columns = [Column("ID", whole=True), Column("Time", whole=True), Column("What", whole=True), Column("Why")]
    for store in dict.fromkeys(verdict.store for verdict in plan.verdicts):
        rows = [
            (short[one.id], local(one.time), "keep" if one.kept else "forget", "; ".join(one.reasons))
            for one in plan.verdicts
            if one.store == store
        ]
        yield Table(columns=columns, rows=rows, title=f"Snapshots of {store}")


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
        if dry_run:
            return _pruned(plan, dry_run=True)
        with around(work, "prune"):
            return _pruned(work.repository.prune(plan), dry_run=False)


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
