"""The commands forget and prune, which free space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta

from novabackup._support.text import count
from novabackup.cli.config.units import format_duration
from novabackup.cli.context import BY_DEFAULT, Context, Options, Span
from novabackup.cli.json_fields import short_ids
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, Table, local, size, table
from novabackup.errors import ConfigurationError
from novabackup.operations.prune import GRACE, PrunePlan
from novabackup.retention import ForgetPlan, Policy


def forget(
    *snapshots: str,
    policy: str | None = None,
    prune: bool = False,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Forget snapshots by their ids, or those that a policy does not keep.

    The policy is that of --policy, or else of [retention] in the configuration. It never forgets the last healthy
    snapshot of a store, nor one that is pinned.

    Args:
        snapshots: Ids or the beginnings of ids.
        policy: What to keep, such as "last 3, daily 30, weekly 12, tag pre-ingest 7d", or the name of a ready-made
            policy: default, local, remote, cold.
        prune: Free what only they needed, as the command prune does.
        dry_run: Show what would be done, and do nothing.
    """
    if snapshots and policy is not None:
        raise ConfigurationError("expected snapshots or a policy, found both. Use one of them")
    with options.open() as context:
        names = [context.snapshot(name).id for name in snapshots]
        judge = None if names else _policy(context, policy)
        with nullcontext() if dry_run else lifecycle(context, "forget"):
            forgotten = (
                _by_policy(context, judge, dry_run=dry_run) if judge else _named(context, names, dry_run=dry_run)
            )
        if not prune or dry_run:
            return forgotten
        with lifecycle(context, "prune"):
            pruned = _pruned(context.repository.prune(), dry_run=False)
        return Result(
            fields={**forgotten.fields, "prune": pruned.fields},
            done=[*forgotten.done, *pruned.done],
        )


def _policy(context: Context, option: str | None) -> Policy:
    found = Policy.of(option) if option is not None else context.config.retention
    if found is None:
        raise ConfigurationError(
            "expected snapshots, --policy, or [retention] in the configuration; found none of them, so nothing was "
            "forgotten. Such as: novabackup forget --policy default --dry-run"
        )
    return found


def _named(context: Context, names: Sequence[str], *, dry_run: bool) -> Result:
    many = len(context.repository)
    gone = tuple(names) if dry_run else context.repository.forget(names)
    fields = {"repository": context.repository.url, "forgotten": gone}
    return Result.of_plan(fields, [_summary(len(gone), many, dry_run=dry_run)], dry_run=dry_run)


def _by_policy(context: Context, policy: Policy, *, dry_run: bool) -> Result:
    plan = context.repository.plan_forget(policy)
    for warning in plan.warnings:
        context.terminal.warning(warning)
    gone = plan.forgotten if dry_run else context.repository.forget(plan)
    fields = {
        "repository": context.repository.url,
        "policy": plan.policy,
        "warnings": plan.warnings,
        "forgotten": gone,
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
    line = f"{_summary(len(gone), len(plan.verdicts), dry_run=dry_run)} under {plan.policy}"
    return Result.of_plan(fields, [*_tables(plan), line], dry_run=dry_run)


def _summary(gone: int, many: int, *, dry_run: bool) -> str:
    return f"{gone} of {count(many, 'snapshot')} {'would be forgotten' if dry_run else 'forgotten'}"


def _tables(plan: ForgetPlan) -> Iterator[Table]:
    """Show the verdict on each snapshot, store by store."""
    short = short_ids([verdict.id for verdict in plan.verdicts])
    for store in dict.fromkeys(verdict.store for verdict in plan.verdicts):
        rows = [
            (short[one.id], local(one.time), "keep" if one.kept else "forget", "; ".join(one.reasons))
            for one in plan.verdicts
            if one.store == store
        ]
        yield table("!ID", "!Time", "!What", "Why", rows=rows, title=f"Snapshots of {store}")


def prune(*, grace: Span | None = None, dry_run: bool = False, options: Options = BY_DEFAULT) -> Result:
    """Free what no snapshot needs.

    In two steps: packs are condemned now, and deleted by a prune a grace period later.

    Args:
        grace: How long after it was condemned a pack is deleted, such as 2d; by default 1d. 0 is safe only while no
            other process writes to the repository.
        dry_run: Show what would be done, and do nothing.
    """
    with options.open() as context:
        plan = context.repository.plan_prune(grace=GRACE if grace is None else timedelta(seconds=grace))
        if dry_run:
            return _pruned(plan, dry_run=True)
        with lifecycle(context, "prune"):
            return _pruned(context.repository.prune(plan), dry_run=False)


def _pruned(plan: PrunePlan, *, dry_run: bool) -> Result:
    would = "would be " if dry_run else ""
    line = (
        f"{count(len(plan.delete), 'pack')} {would}deleted, {size(plan.size)} freed; "
        f"{count(len(plan.condemn), 'pack')} {would}condemned"
    )
    line += f", to be deleted by a prune in {format_duration(plan.grace)} or later" if plan.condemn else ""
    fields = {
        "deleted": plan.delete,
        "condemned": plan.condemn,
        "freed_bytes": plan.size,
        "grace_seconds": plan.grace,
    }
    return Result.of_plan(fields, [line], dry_run=dry_run)
