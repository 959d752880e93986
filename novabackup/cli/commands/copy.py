"""The commands copy and mirror."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Context, Options, Rate
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, Table, size, table
from novabackup.errors import ConfigurationError
from novabackup.operations.copy import CopyPlan
from novabackup.retention import REMOTE


def copy(
    *snapshots: str,
    to: Annotated[str, Parameter(metavar="NAME_OR_URL")],
    limit: Rate | None = None,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Copy snapshots to another repository.

    Only what it does not have yet is sent. A copy that was interrupted continues when it is run again.

    Args:
        snapshots: Ids or the beginnings of ids; by default all.
        to: A name of [copies] in the configuration, or a URL or path, which is opened with the key of [repository].
        limit: Bytes per second to read and send at most, such as 5MB.
        dry_run: Show what would be done, and do nothing.
    """
    with options.open() as context:
        target = context.copy(to)
        plan = context.repository.plan_copy([context.snapshot(name) for name in snapshots] or None, to=target)
        if not dry_run:
            with lifecycle(context, "copy"), context.progress("Copying") as bar:
                context.repository.copy(plan, to=target, limit=limit or context.copy_limit(to), callback=bar)
        fields = {"repository": context.repository.url, "to": target.url, **_copy_fields(plan)}
        return Result.of_plan(fields, _copy_lines(plan, target.url, dry_run=dry_run), dry_run=dry_run)


def _copy_fields(plan: CopyPlan) -> dict[str, object]:
    return {"copied": plan.copy, "there": plan.there, "damaged": plan.damaged, "size": plan.size}


def _copy_lines(plan: CopyPlan, to: str, *, dry_run: bool) -> list[Table | str]:
    would = "would be copied" if dry_run else "copied"
    line = f"{count(len(plan.copy), 'snapshot')} {would} to {to} ({size(plan.size)} before sharing)"
    lines: list[Table | str] = [f"{line}; {len(plan.there)} there already"]
    if dry_run and plan.copy:
        lines.append(table("!Snapshot", rows=[(name,) for name in plan.copy]))
    lines += [f"Snapshot {name} is damaged and cannot be copied" for name in plan.damaged]
    return lines


def mirror(
    *names: str, limit: Rate | None = None, prune: bool = False, dry_run: bool = False, options: Options = BY_DEFAULT
) -> Result:
    """Update copies, each under its own retention.

    What that keeps is copied, what it does not keep is forgotten in the copy. Nothing is forgotten in a copy only
    because it is gone here. Copies are the tables [copies.NAME] of the configuration; one without a retention keeps
    what the policy remote says.

    Args:
        names: Which copies; by default all.
        limit: Bytes per second to read and send at most, such as 5MB.
        prune: Also free what the copies no longer need, as the command prune does.
        dry_run: Show what would be done, and do nothing.
    """
    with options.open() as context:
        wanted = dict.fromkeys(names or context.config.copies)
        if not wanted:
            raise ConfigurationError(
                "expected tables such as [copies.offsite] in the configuration, found none. For one copy without such "
                "a table: novabackup copy --to URL"
            )
        for name in wanted:
            context.copy_settings(name)  # a wrong name is reported before anything is done
        with nullcontext() if dry_run else lifecycle(context, "mirror"):
            results = [_mirrored(context, name, limit, prune=prune, dry_run=dry_run) for name in wanted]
        copies = [dict(result.fields) for result in results]
        return Result(
            fields={"dry_run": dry_run, "repository": context.repository.url, "copies": copies},
            shown=[part for result in results for part in result.shown],
            done=[part for result in results for part in result.done],
        )


def _mirrored(context: Context, name: str, limit: float | None, *, prune: bool, dry_run: bool) -> Result:
    target = context.copy(name)
    plan = context.repository.plan_mirror(to=target, policy=context.copy_settings(name).retention or REMOTE)
    forget = plan.forget
    for warning in forget.warnings:
        context.terminal.warning(warning)
    gone = f"{count(len(forget.forgotten), 'snapshot')} {'would be forgotten' if dry_run else 'forgotten'} there"
    gone += f" under {forget.policy}" + (f": {', '.join(forget.forgotten)}" if forget.forgotten else "")
    lines = [*_copy_lines(plan.copy, target.url, dry_run=dry_run), gone]
    fields = {
        "name": name,
        "to": target.url,
        **_copy_fields(plan.copy),
        "policy": forget.policy,
        "forgotten": forget.forgotten,
    }
    if not dry_run:
        with context.progress(f"Copying to {name}") as bar:
            context.repository.mirror(plan, to=target, limit=limit or context.copy_limit(name), callback=bar)
        if prune:
            pruned = target.prune()
            lines.append(f"{count(len(pruned.delete), 'pack')} deleted there, {size(pruned.size)} freed")
            fields |= {"freed_bytes": pruned.size}
    return Result.of_plan(fields, lines, dry_run=dry_run)
