"""The command that brings a whole installation back: full-recovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from novabackup.cli.around import around, probes_of
from novabackup.cli.config.durations import moment
from novabackup.cli.config.sections import secrets_in
from novabackup.cli.output import Answer, Column, Table, local, problem_lines
from novabackup.cli.unseen import Unseen
from novabackup.cli.work import BY_DEFAULT, Options, Work
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

__all__ = ["full_recovery"]

_WITH_BYTES = (RecoveryStep.VERIFY, RecoveryStep.RESTORE)
_DOING = {
    RecoveryStep.VERIFY: "Verifying",
    RecoveryStep.STOP: "Stopping",
    RecoveryStep.ASIDE: "Setting aside",
    RecoveryStep.RESTORE: "Restoring",
    RecoveryStep.OWNER: "Setting owners",
    RecoveryStep.ENVIRONMENT: "Making the environment",
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
) -> Answer:
    """Bring a whole installation back, onto an empty machine or in place of a broken one, which is set aside.

    Verifies the snapshot, stops the service, sets aside what is there, restores, sets owners, makes the virtual
    environment, starts the service, waits until it is healthy and asks it a question. One that was interrupted, or that
    failed, goes on where it was when it is run again. On a terminal it is asked for first.

    Args:
        snapshot: An id, the beginning of one, or latest; by default the newest healthy one.
        at: Instead of a snapshot: what the store held at a time, such as "2026-01-25 14:30" (local time, to the end of
            that minute) or 2026-01-25T14:30+01:00.
        to: Folder of the installation; by default that of [recovery], or else the store.
        owner: User and group that all of it is to belong to; by default that of [recovery], or else as it was.
        dry_run: Say what would be done, and do nothing.
        yes: Do not ask.
    """
    if snapshot is not None and at is not None:
        raise ConfigurationError("expected either a snapshot or --at, found both")
    with options.open() as work:
        folder = _folder(work, to)
        begun = unfinished(folder)
        found = _snapshot(work, snapshot, at, begun)
        with work.progress(_DOING[RecoveryStep.VERIFY]) as bar:
            said = work.config.recovery
            recovery = FullRecovery(
                found,
                folder,
                service=work.config.service.made() if work.config.service else None,
                owner=said.owner if owner is None else owner,
                environment=said.environment,
                probes=probes_of(work),
                callback=bar,
            )
            plan = recovery.plan()
            if dry_run:
                return Answer.of_plan(_plan_fields(plan, found), _plan_lines(plan, found), dry_run=True)
            for line in _warnings(found, begun):
                work.terminal.warning(line)
            if not work.terminal.agrees(_question(plan), _plan_lines(plan, found), yes=yes):
                return Answer.refused({"dry_run": True, **_plan_fields(plan, found)})
            with around(work, "full-recovery", work.store_at(found.store)) as seen:
                seen.snapshot = found
                report = _run(work, recovery, plan, bar)
        return Answer(fields={"dry_run": False, **_report_fields(report)}, done=_report_lines(report))


def _run(work: Work, recovery: FullRecovery, plan: RecoveryPlan, bar: Unseen) -> RecoveryReport:
    """Recover, and tell of each step."""
    for step in plan.steps:
        if step.seconds is not None:
            work.terminal.step(_line(step, "done before"))
    coming = iter([step.step for step in plan.steps if step.seconds is None])
    with ExitStack() as shown:

        def begin() -> None:
            shown.close()
            step = next(coming, None)
            if step in _WITH_BYTES:
                bar.rest(_DOING[step])
            elif step is not None:
                shown.enter_context(work.terminal.waiting(_DOING[step]))

        def told(step: StepReport) -> None:
            shown.close()
            work.terminal.step(_line(step, "done"))
            begin()

        begin()
        try:
            return recovery.run(told)
        except RecoveryError as error:
            if isinstance(error.__cause__, IntegrityError):
                error.add_note("choose another snapshot: novabackup list")
            raise
        except StoreBusyError as error:
            error.add_note("look at what it has done when it has ended: novabackup probe")
            raise
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or another signal
                error.add_note("to go on where it was, run the same command again")
            raise


def _folder(work: Work, to: str | None) -> Path:
    """Say where the installation is to be."""
    named = to or work.config.recovery.to or (work.known_store.url if work.known_store is not None else None)
    if named is None:
        raise ConfigurationError(
            "expected a folder for the installation, found none: neither --to, nor [recovery] to, nor a store is named"
        )
    parts = urlsplit(named)
    if "://" in named and parts.scheme != "file":
        raise ConfigurationError(
            f"expected a folder of this host, found a place of {parts.scheme}. Name a folder with --to; a store "
            "elsewhere is brought back by: novabackup restore"
        )
    folder = Path(parts.path if parts.scheme == "file" else named).absolute()
    for what, path in _needed(work):
        if path.is_relative_to(folder):
            raise ConfigurationError(
                f"{what} {path} lies in {folder}, which is set aside, so that a recovery could not go on. "
                "Copy it to another place and name it there"
            )
    return folder


def _needed(work: Work) -> Iterator[tuple[str, Path]]:
    """Name what a recovery reads, also when it goes on after an interruption."""
    if work.found is not None:
        yield "the configuration", work.found.absolute()
    url = work.repository.url
    if "://" not in url:
        yield "the repository", Path(url).absolute()
    key = work.config.repository.key
    if key is not None and key.keyfile is not None:
        yield "the key", Path(key.keyfile)
    for found in secrets_in(work.config):
        if found.form == "file":
            yield "the secret", Path(found.where)


def _snapshot(work: Work, name: str | None, at: str | None, begun: str) -> Snapshot:
    """Find the snapshot; without a word about it, the one of a recovery that was begun, or the newest healthy one."""
    if at is not None:
        return work.at(moment(at))
    if name or begun:
        return work.snapshot(name or begun)
    latest = work.snapshot("latest")
    every = work.repository.snapshots() if latest.problems else []
    healthy = [
        one
        for one in every
        if one.store == latest.store and not one.problems and not SIDE_TAGS & set(one.tags) and one.time < latest.time
    ]
    if not healthy:
        return latest
    found = max(healthy, key=lambda one: one.time)
    work.terminal.warning(
        f"snapshot {latest.id} of {local(latest.time)} is newer, but its files were damaged already. "
        f"To recover from it all the same: novabackup full-recovery {latest.id}"
    )
    return found


def _warnings(found: Snapshot, begun: str) -> list[str]:
    said = []
    if begun:
        said.append(f"a recovery from snapshot {begun} was begun before and is not finished: this goes on with it")
    if found.problems:
        said.append(
            "\n".join([f"snapshot {found.id} was unhealthy when it was taken:", *problem_lines(found.problems)])
        )
    return said


def _question(plan: RecoveryPlan) -> str:
    return f"Recover {plan.to} from snapshot {plan.snapshot}?"


# -- what it looks like ------------------------------------------------------------------------------------------------


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
    columns = [Column("", right=True), Column("Step", whole=True), Column("What"), Column("State", whole=True)]
    title = f"To recover {plan.to} from snapshot {plan.snapshot} of {local(found.time)}:"
    return [Table(columns=columns, rows=rows, title=title)]


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
