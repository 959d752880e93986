"""Commands that keep snapshots in a second place: copy, mirror."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.around import around
from novabackup.cli.output import Answer, Column, Table, count, size
from novabackup.cli.work import BY_DEFAULT, Options, Rate, Work
from novabackup.errors import ConfigurationError
from novabackup.operations.copy import CopyPlan
from novabackup.operations.mirror import MirrorPlan
from novabackup.operations.prune import PrunePlan
from novabackup.retention import REMOTE

__all__ = ["copy", "mirror"]


def copy(
    *snapshots: str,
    to: Annotated[str, Parameter(metavar="NAME_OR_URL")],
    limit: Rate | None = None,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Copy snapshots to another repository; only what is not there yet is sent.

    A copy that was interrupted goes on where it was when it is run again.

    Args:
        snapshots: Ids or the beginnings of ids; by default all.
        to: A name of [copies] in the configuration, or a URL or path, which is opened with the key of [repository].
        limit: Bytes a second that are read and sent at most, such as 5MB.
        dry_run: Say what would be done, and do nothing.
    """
    with options.open() as work:
        target = work.copy(to)
        plan = work.repository.plan_copy([work.snapshot(name) for name in snapshots] or None, to=target)
        if not dry_run:
            with around(work, "copy"), work.progress("Copying") as bar:
                work.repository.copy(plan, to=target, limit=limit or work.copy_limit(to), callback=bar)
        fields = {"repository": work.repository.url, "to": target.url, **_copy_fields(plan)}
        return Answer.of_plan(fields, _copy_lines(plan, target.url, dry_run=dry_run), dry_run=dry_run)


def _copy_fields(plan: CopyPlan) -> dict[str, object]:
    return {"copied": list(plan.copy), "there": list(plan.there), "damaged": list(plan.damaged), "size": plan.size}


def _copy_lines(plan: CopyPlan, to: str, *, dry_run: bool) -> list[Table | str]:
    would = "would be copied" if dry_run else "copied"
    line = f"{count(len(plan.copy), 'snapshot')} {would} to {to} ({size(plan.size)} before sharing)"
    lines: list[Table | str] = [f"{line}; {len(plan.there)} there already"]
    if dry_run and plan.copy:
        lines.append(Table(columns=[Column("Snapshot", whole=True)], rows=[(name,) for name in plan.copy]))
    lines += [f"Snapshot {name} is damaged and cannot be copied" for name in plan.damaged]
    return lines


def mirror(
    *names: str, limit: Rate | None = None, prune: bool = False, dry_run: bool = False, options: Options = BY_DEFAULT
) -> Answer:
    """Keep copies in step, each under its own retention: copy what it keeps there, and forget there what it does not.

    Nothing is forgotten in a copy only because it is gone here. Copies are the tables [copies.NAME] of the
    configuration; one without a retention keeps what the policy remote says.

    Args:
        names: Which copies; by default all.
        limit: Bytes a second that are read and sent at most, such as 5MB.
        prune: Also free in the copies what they do not need any more, as the command prune does.
        dry_run: Say what would be done, and do nothing.
    """
    with options.open() as work:
        wanted = dict.fromkeys(names or work.config.copies)
        if not wanted:
            raise ConfigurationError(
                "expected tables such as [copies.offsite] in the configuration, found none. For one copy without such "
                "a table: novabackup copy --to URL"
            )
        for name in wanted:
            work.copy_settings(name)  # a name that is wrong is told before anything is done
        with nullcontext() if dry_run else around(work, "mirror"):
            answers = [_mirrored(work, name, limit, prune=prune, dry_run=dry_run) for name in wanted]
        fields = {
            "dry_run": dry_run,
            "repository": work.repository.url,
            "copies": [dict(answer.fields) for answer in answers],
        }
        return Answer(
            fields=fields,
            shown=[part for answer in answers for part in answer.shown],
            done=[part for answer in answers for part in answer.done],
        )


def _mirrored(work: Work, name: str, limit: float | None, *, prune: bool, dry_run: bool) -> Answer:
    target = work.copy(name)
    plan = work.repository.plan_mirror(to=target, policy=work.copy_settings(name).retention or REMOTE)
    for warning in plan.forget.warnings:
        work.terminal.warning(warning)
    pruned: PrunePlan | None = None
    if not dry_run:
        with work.progress(f"Copying to {name}") as bar:
            work.repository.mirror(plan, to=target, limit=limit or work.copy_limit(name), callback=bar)
        pruned = target.prune() if prune else None
    lines = [*_copy_lines(plan.copy, target.url, dry_run=dry_run), _forget_line(plan, dry_run=dry_run)]
    fields = {
        "name": name,
        "to": target.url,
        **_copy_fields(plan.copy),
        "policy": plan.forget.policy,
        "forgotten": list(plan.forget.forgotten),
    }
    if pruned:
        lines.append(f"{count(len(pruned.delete), 'pack')} deleted there, {size(pruned.size)} freed")
        fields |= {"freed_bytes": pruned.size}
    return Answer.of_plan(fields, lines, dry_run=dry_run)


def _forget_line(plan: MirrorPlan, *, dry_run: bool) -> str:
    verb = "would be forgotten" if dry_run else "forgotten"
    gone = plan.forget.forgotten
    return f"{count(len(gone), 'snapshot')} {verb} there under {plan.forget.policy}" + (
        f": {', '.join(gone)}" if gone else ""
    )
