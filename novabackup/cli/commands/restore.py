"""The commands restore and recover."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from novabackup import guard
from novabackup._support.text import count
from novabackup.cli.config.units import parse_time
from novabackup.cli.context import BY_DEFAULT, Options, Span
from novabackup.cli.json_fields import plan_fields, plan_table
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, Table, number, size
from novabackup.errors import ConfigurationError
from novabackup.operations.restore.plan import RestorePlan, Step


def restore(
    snapshot: str | None = None,
    /,
    *,
    at: Annotated[str | None, Parameter(metavar="TIME")] = None,
    to: Annotated[str | None, Parameter(metavar="URL")] = None,
    path: tuple[str, ...] = (),
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(alias="-y")] = False,
    timeout: Span | None = None,
    options: Options = BY_DEFAULT,
) -> Result:
    """Restore a snapshot to the store, or to another folder.

    What is replaced is kept as a snapshot with the tag before-restore. Asks for confirmation on a terminal.

    Args:
        snapshot: An id, the beginning of one, or latest.
        at: Instead of a snapshot: the contents of the store at a time, such as "2026-01-25 14:30" (local time, to the
            end of that minute) or 2026-01-25T14:30+01:00.
        to: Where to; by default the store that the snapshot was taken of.
        path: Only this file or pattern; may be repeated.
        dry_run: Show what would be done, and do nothing.
        yes: Do not ask.
        timeout: How long to wait for another writer, such as 5m.
    """
    if (snapshot is None) == (at is None):
        found = "neither" if snapshot is None else "both"
        raise ConfigurationError(
            f"expected either a snapshot or --at, found {found}. Such as: novabackup restore latest"
        )
    with options.open() as context:
        chosen = context.snapshot(snapshot) if snapshot is not None else context.at(parse_time(at or ""))
        target = context.target(chosen, to)
        plan = chosen.plan_restore(target, path)
        if dry_run:
            title = f"Nothing was done. To bring {plan.store} to snapshot {plan.snapshot}:"
            return Result.of_plan(plan_fields(plan), [title, plan_table(plan)], dry_run=True)
        question = f"Bring {plan.store} to snapshot {plan.snapshot}?"
        if plan.replaces and not context.terminal.agrees(question, [plan_table(plan)], yes=yes):
            return Result.refused({"dry_run": True, **plan_fields(plan)})
        store = context.store_at(plan.store)
        with lifecycle(context, "restore", store) as execution, context.progress("Restoring") as bar:
            execution.snapshot = chosen
            done = chosen.restore(target, path, timeout=context.timeout(timeout), callback=bar)
            execution.done = _summary(done)
        return Result.of_plan(plan_fields(done), [_summary(done)], dry_run=False)


def recover(*, dry_run: bool = False, timeout: Span | None = None, options: Options = BY_DEFAULT) -> Result:
    """Put back what an interrupted ingestion or restore left half-written.

    Does nothing if nothing was interrupted.

    Args:
        dry_run: Show what would be done, and do nothing.
        timeout: How long to wait for a writer that is still running, such as 5m.
    """
    with options.open() as context:
        store, repository = context.store, context.repository
        if dry_run:
            found = guard.plan_recover(store, repository)
        else:
            with context.progress("Recovering") as bar:
                found = guard.recover(store, repository, timeout=context.timeout(timeout), callback=bar)
        fields = {
            "store": store.url,
            "interrupted": found and found.phase,
            "snapshot": found and found.snapshot,
            "kept": found and found.kept,
            "actions": plan_fields(found.plan)["actions"] if found and found.plan else [],
        }
        lines: list[Table | str] = [str(found) if found else f"{store.url}: nothing to recover from"]
        if found and found.plan:
            if dry_run:
                lines = [f"{found.store}: interrupted in phase {found.phase}. Nothing was done. To put it back:"]
            lines.append(plan_table(found.plan))
            if found.kept:
                lines.append(f"What was found is kept as snapshot {found.kept}")
        return Result.of_plan(fields, lines, dry_run=dry_run)


def _summary(plan: RestorePlan) -> str:
    written, kept, aside = (plan.paths(step) for step in (Step.WRITE, Step.KEEP, Step.SET_ASIDE))
    amount = size(sum(action.size for action in plan.actions))
    parts = [f"{count(len(written), 'file')} written ({amount})", f"{number(len(kept))} right already"]
    parts += [f"{number(len(aside))} taken away"] if aside else []
    return f"{plan.store} is at snapshot {plan.snapshot}: {', '.join(parts)}"
