"""The command full-recovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from novabackup.cli.config.sections import secrets_in
from novabackup.cli.config.units import parse_time
from novabackup.cli.context import BY_DEFAULT, Context, Options
from novabackup.cli.lifecycle import lifecycle, probes_of
from novabackup.cli.output import Result, Table, local, problem_lines, table
from novabackup.cli.progress import Unseen
from novabackup.errors import ConfigurationError, IntegrityError, StoreBusyError
from novabackup.format.records import SIDE_TAGS
from novabackup.integrations.errors import RecoveryError
from novabackup.integrations.recovery import (
    FullRecovery,
    RecoveryPlan,
    RecoveryReport,
    RecoveryStep,
    StepReport,
    unfinished,
)
from novabackup.repository.snapshot import Snapshot

_WITH_BYTES = (RecoveryStep.VERIFY, RecoveryStep.RESTORE)
_DOING = {
    RecoveryStep.VERIFY: "Verifying",
    RecoveryStep.STOP: "Stopping",
    RecoveryStep.SET_ASIDE: "Setting aside",
    RecoveryStep.RESTORE: "Restoring",
    RecoveryStep.OWNER: "Setting owners",
    RecoveryStep.ENVIRONMENT: "Creating the environment",
    RecoveryStep.START: "Starting",
    RecoveryStep.CHECK: "Asking the service",
}


def full_recovery(
    snapshot: str | None = None,
    /,
    *,
    at: Annotated[str | None, Parameter(metavar="TIME")] = None,
    to: Annotated[str | None, Parameter(metavar="FOLDER")] = None,
    owner: Annotated[str | None, Parameter(metavar="USER[:GROUP]")] = None,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(alias="-y")] = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Recover a whole installation on an empty or broken machine.

    Verifies the snapshot, stops the service, sets the old installation aside, restores, sets owners, creates the
    virtual environment, starts the service, waits until it is healthy and asks it a question. If it is interrupted or
    fails, it continues where it was when it is run again. Asks for confirmation on a terminal.

    Args:
        snapshot: An id, the beginning of one, or latest; by default the newest healthy one.
        at: Instead of a snapshot: the contents of the store at a time, such as "2026-01-25 14:30" (local time, to the
            end of that minute) or 2026-01-25T14:30+01:00.
        to: Folder of the installation; by default that of [recovery], or else the store.
        owner: User and group that will own all of it; by default that of [recovery], or else as it was.
        dry_run: Show what would be done, and do nothing.
        yes: Do not ask.
    """
    if snapshot is not None and at is not None:
        raise ConfigurationError("expected either a snapshot or --at, found both")
    with options.open() as context:
        folder = _folder(context, to)
        begun = unfinished(folder)
        found = _snapshot(context, snapshot, at, begun)
        with context.progress(_DOING[RecoveryStep.VERIFY]) as bar:
            settings = context.config.recovery
            recovery = FullRecovery(
                found,
                folder,
                service=context.config.service.made() if context.config.service else None,
                owner=settings.owner if owner is None else owner,
                environment=settings.environment,
                probes=probes_of(context),
                callback=bar,
            )
            plan = recovery.plan()
            if dry_run:
                return Result.of_plan(_plan_fields(plan, found), _plan_lines(plan, found), dry_run=True)
            for line in _warnings(found, begun):
                context.terminal.warning(line)
            question = f"Recover {plan.to} from snapshot {plan.snapshot}?"
            if not context.terminal.agrees(question, _plan_lines(plan, found), yes=yes):
                return Result.refused({"dry_run": True, **_plan_fields(plan, found)})
            with lifecycle(context, "full-recovery", context.store_at(found.store)) as execution:
                execution.snapshot = found
                report = _run(context, recovery, plan, bar)
        return Result.of_plan(_report_fields(report), _report_lines(report), dry_run=False)


def _run(context: Context, recovery: FullRecovery, plan: RecoveryPlan, bar: Unseen) -> RecoveryReport:
    """Recover, and show each step."""
    for step in plan.steps:
        if step.seconds is not None:
            context.terminal.step(_line(step, "done before"))
    coming = iter([step.step for step in plan.steps if step.seconds is None])
    with ExitStack() as shown:

        def begin() -> None:
            shown.close()
            step = next(coming, None)
            if step in _WITH_BYTES:
                bar.rest(_DOING[step])
            elif step is not None:
                shown.enter_context(context.terminal.waiting(_DOING[step]))

        def show(step: StepReport) -> None:
            shown.close()
            context.terminal.step(_line(step, "done"))
            begin()

        begin()
        try:
            return recovery.run(show)
        except RecoveryError as error:
            if isinstance(error.__cause__, IntegrityError):
                error.add_note("choose another snapshot: novabackup list")
            raise
        except StoreBusyError as error:
            error.add_note("when it has ended, check what it has done: novabackup probe")
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or another signal
                error.add_note("to continue where it was, run the same command again")
            raise


def _folder(context: Context, to: str | None) -> Path:
    """Return the folder of the installation."""
    named = to or context.config.recovery.to or (context.known_store.url if context.known_store is not None else None)
    if named is None:
        raise ConfigurationError(
            "expected a folder for the installation, found none: neither --to, nor [recovery] to, nor a store is named"
        )
    parts = urlsplit(named)
    if "://" in named and parts.scheme != "file":
        raise ConfigurationError(
            f"expected a folder of this host, found a place of {parts.scheme}. Name a folder with --to; a store "
            "elsewhere is restored by: novabackup restore"
        )
    folder = Path(parts.path if parts.scheme == "file" else named).absolute()
    for what, path in _needed(context):
        if path.is_relative_to(folder):
            raise ConfigurationError(
                f"{what} {path} lies in {folder}, which is set aside, so that a recovery could not continue. "
                "Copy it to another place and name that"
            )
    return folder


def _needed(context: Context) -> Iterator[tuple[str, Path]]:
    """Return what a recovery reads, also when it continues after an interruption."""
    if context.found is not None:
        yield "the configuration", context.found.absolute()
    url = context.repository.url
    if "://" not in url:
        yield "the repository", Path(url).absolute()
    key = context.config.repository.key
    if key is not None and key.keyfile is not None:
        yield "the key", Path(key.keyfile)
    for found in secrets_in(context.config):
        if found.form == "file":
            yield "the secret", Path(found.where)


def _snapshot(context: Context, name: str | None, at: str | None, begun: str) -> Snapshot:
    """Find the snapshot: by default that of an unfinished recovery, or else the newest healthy one."""
    if at is not None:
        return context.at(parse_time(at))
    if name or begun:
        return context.snapshot(name or begun)
    latest = context.snapshot("latest")
    every = context.repository.snapshots() if latest.problems else []
    healthy = [
        one
        for one in every
        if one.store == latest.store and not one.problems and not SIDE_TAGS & set(one.tags) and one.time < latest.time
    ]
    if not healthy:
        return latest
    found = max(healthy, key=lambda one: one.time)
    context.terminal.warning(
        f"snapshot {latest.id} of {local(latest.time)} is newer, but its files were damaged already. "
        f"To recover from it all the same: novabackup full-recovery {latest.id}"
    )
    return found


def _warnings(found: Snapshot, begun: str) -> list[str]:
    warnings = []
    if begun:
        warnings.append(f"a recovery from snapshot {begun} was begun before and is not finished: this continues it")
    if found.problems:
        warnings.append(
            "\n".join([f"snapshot {found.id} was unhealthy when it was taken:", *problem_lines(found.problems)])
        )
    return warnings


# -- output -----------------------------------------------------------------------------------------------------------


def _line(step: StepReport, done: str) -> str:
    place = f"{list(RecoveryStep).index(step.step) + 1}/{len(RecoveryStep)}"
    return f"{place} {step.step.value}: {step.says} ({done}, {step.seconds or 0.0:.1f} s)"


def _steps(steps: tuple[StepReport, ...]) -> list[dict[str, object]]:
    return [{"step": step.step.value, "says": step.says, "seconds": step.seconds} for step in steps]


def _plan_fields(plan: RecoveryPlan, found: Snapshot) -> dict[str, object]:
    return {"snapshot": plan.snapshot, "taken": found.time, "to": plan.to, "steps": _steps(plan.steps)}


def _plan_lines(plan: RecoveryPlan, found: Snapshot) -> list[Table | str]:
    rows = [
        (f"{number}", step.step.value, step.says, "" if step.seconds is None else f"done, {step.seconds:.1f} s")
        for number, step in enumerate(plan.steps, 1)
    ]
    title = f"To recover {plan.to} from snapshot {plan.snapshot} of {local(found.time)}:"
    return [table(">", "!Step", "What", "!State", rows=rows, title=title)]


def _report_fields(report: RecoveryReport) -> dict[str, object]:
    return {
        "snapshot": report.snapshot,
        "taken": report.taken,
        "to": report.to,
        "aside": report.aside or None,
        "steps": _steps(report.steps),
        "seconds": report.seconds,
    }


def _report_lines(report: RecoveryReport) -> list[Table | str]:
    took = ", ".join(f"{step.step.value} {step.seconds or 0.0:.1f}" for step in report.steps)
    return [
        f"{report.to} is recovered from snapshot {report.snapshot}",
        f"Recovery time: {report.seconds:.1f} s ({took})",
        f"What came after {local(report.taken)} is not in it",
        f"The former installation is {report.aside}; remove it when all is well"
        if report.aside
        else "There was no installation before",
    ]
