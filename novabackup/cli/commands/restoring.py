"""Commands that bring files back: restore, recover."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.around import around
from novabackup.cli.config.durations import moment
from novabackup.cli.json_fields import plan_fields, plan_table
from novabackup.cli.output import Answer, Table, count, number, size
from novabackup.cli.work import BY_DEFAULT, Options, Span
from novabackup.errors import ConfigurationError
from novabackup.guard import plan_recover
from novabackup.guard import recover as _recover
from novabackup.operations.restore.plan import RestorePlan, Step

__all__ = ["recover", "restore"]


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
) -> Answer:
    """Bring the store, or another folder, to a snapshot.

    What is replaced is kept as a snapshot with the tag before-restore. On a terminal it is asked for first.

    Args:
        snapshot: An id, the beginning of one, or latest.
        at: Instead of a snapshot: what the store held at a time, such as "2026-01-25 14:30" (local time, to the end of
            that minute) or 2026-01-25T14:30+01:00.
        to: Where to; by default the store that the snapshot was taken of.
        path: Only this file or pattern; may be repeated.
        dry_run: Say what would be done, and do nothing.
        yes: Do not ask.
        timeout: How long to wait for another writer, such as 5m.
    """
    if (snapshot is None) == (at is None):
        raise ConfigurationError(
            "expected either a snapshot or --at, found "
            + ("neither" if snapshot is None else "both")
            + ". Such as: novabackup restore latest"
        )
    with options.open() as work:
        found = work.snapshot(snapshot) if snapshot is not None else work.at(moment(at or ""))
        target = work.target(found, to)
        plan = found.plan_restore(target, path)
        if dry_run:
            title = f"Nothing was done. To bring {plan.store} to snapshot {plan.snapshot}:"
            return Answer.of_plan(plan_fields(plan), [title, plan_table(plan)], dry_run=True)
        question = f"Bring {plan.store} to snapshot {plan.snapshot}?"
        if plan.replaces and not work.terminal.agrees(question, [plan_table(plan)], yes=yes):
            return Answer.refused({"dry_run": True, **plan_fields(plan)})
        with around(work, "restore", work.store_at(plan.store)) as seen, work.progress("Restoring") as bar:
            seen.snapshot = found
            done = found.restore(target, path, timeout=work.timeout(timeout), callback=bar)
            seen.done = _summary(done)
        return Answer.of_plan(plan_fields(done), [_summary(done)], dry_run=False)


def recover(*, dry_run: bool = False, timeout: Span | None = None, options: Options = BY_DEFAULT) -> Answer:
    """Put back what an ingestion or a restore that died left half-written; do nothing if there is nothing to do.

    Args:
        dry_run: Say what would be done, and do nothing.
        timeout: How long to wait for a writer that is alive, such as 5m.
    """
    with options.open() as work:
        if dry_run:
            found = plan_recover(work.store, work.repository)
        else:
            with work.progress("Recovering") as bar:
                found = _recover(work.store, work.repository, timeout=work.timeout(timeout), callback=bar)
        fields = {
            "store": work.store.url,
            "interrupted": found and found.phase,
            "snapshot": found and found.snapshot,
            "kept": found and found.kept,
            "actions": plan_fields(found.plan)["actions"] if found and found.plan else [],
        }
        lines: list[Table | str] = [str(found) if found else f"{work.store.url}: nothing to recover from"]
        if found and found.plan:
            if dry_run:
                lines = [f"{found.store}: interrupted in phase {found.phase}. Nothing was done. To put it back:"]
            lines.append(plan_table(found.plan))
            if found.kept:
                lines.append(f"What was found is kept as snapshot {found.kept}")
        return Answer.of_plan(fields, lines, dry_run=dry_run)


def _summary(plan: RestorePlan) -> str:
    written, kept, aside = (plan.paths(step) for step in (Step.WRITE, Step.KEEP, Step.SET_ASIDE))
    amount = size(sum(action.size for action in plan.actions))
    parts = [f"{count(len(written), 'file')} written ({amount})", f"{number(len(kept))} right already"]
    parts += [f"{number(len(aside))} taken away"] if aside else []
    return f"{plan.store} is at snapshot {plan.snapshot}: {', '.join(parts)}"
