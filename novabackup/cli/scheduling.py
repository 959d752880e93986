"""Commands about what is done again and again: schedule show, install, remove, run."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from blake3 import blake3
from cyclopts import CycloptsError, Parameter

from novabackup.cli.app import app
from novabackup.cli.child import run_to_end
from novabackup.cli.config.sections import secrets_in, state_folder
from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer, Column, Table, count, local
from novabackup.cli.work import BY_DEFAULT, Options, Work
from novabackup.errors import ConfigurationError
from novabackup.integrations.installing import (
    CRON,
    SYSTEMD,
    TICK,
    Crontab,
    Installation,
    cron_table,
    crontab,
    systemd_of_user,
    systemd_units,
)
from novabackup.integrations.schedule import Job, Scheduler

__all__ = ["install", "remove", "run", "show"]

_RUNS_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_LINGERING = Path("/var/lib/systemd/linger")
_SIGNALLED = 128
_READABLE = 100

Kind = Literal["systemd", "cron"]
_OTHER: Mapping[Kind, Kind] = {"systemd": "cron", "cron": "systemd"}


def show(*, options: Options = BY_DEFAULT) -> Answer:
    """Show what is done when, by which command, how it went last, and who starts it."""
    with options.open() as work:
        return _shown(work, _checked(work))


def install(
    *,
    with_: Annotated[Kind | None, Parameter(name="--with")] = None,
    user: bool = False,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Let systemd timers or cron start what [schedule] in the configuration says.

    What was missed while the machine was off is caught up, and no two jobs run at a time. What an earlier schedule of
    this configuration has left is removed. Run it again when the schedule has changed.

    Args:
        with_: By default systemd where it runs, else cron.
        user: For this user alone; always so for others than root.
        dry_run: Show what would be written and run, and do nothing.
    """
    with options.open() as work:
        return _installed(work, _checked(work), with_, user=_alone(user), dry_run=dry_run)


def remove(*, user: bool = False, dry_run: bool = False, options: Options = BY_DEFAULT) -> Answer:
    """Take away what install has written; what was backed up stays.

    Args:
        user: That of this user; always so for others than root.
        dry_run: Show what would be removed, and do nothing.
    """
    with options.open() as work:
        plans = [plan for kind in _OTHER if (plan := _plan(work, (), kind, user=_alone(user))).installed]
        if not dry_run:
            for plan in plans:
                plan.execute()
        lines = [line for plan in plans for line in str(plan).splitlines()]
        said = ["Nothing was done. To be done:", *_listed(lines)] if dry_run else ["The schedule is removed"]
        return Answer.of_plan({"steps": lines}, said if plans else ["There is no schedule to remove"], dry_run=dry_run)


def run(job: str | None = None, /, *, options: Options = BY_DEFAULT) -> Answer:
    """Do what is due, one job after the other; this is what timers and cron start.

    A job that ended with 0 or 1 is done; with any other code it is due again. If another run is at it, that one sees to
    it. Ends with the highest code of a job.

    Args:
        job: Do this one, due or not; wait for a run that is under way.
    """
    with options.open() as work:
        codes: dict[str, int] = {}

        def do(one: Job) -> bool:
            codes[one.name] = code = run_to_end(sys.executable, _command(work, one))
            if code >= _SIGNALLED:
                raise _EndedError
            return code in (Exit.OK, Exit.WRONG)  # what was found wrong is not mended by doing it again

        try:
            done = _scheduler(work, _jobs(work)).run(do, only=job or "")
        except _EndedError:
            done = {}
        lines = [
            f"{name} ended with {code}{'' if code == Exit.WRONG else ', and is due again'}"
            for name, code in codes.items()
            if code
        ]
        if done is None:
            rest = ["Another run is at work, and sees to it"]
        else:
            rest = [f"{name} is done" for name, code in codes.items() if not code] or (
                [] if codes else ["Nothing is due"]
            )
        return Answer(
            fields={"jobs": [{"name": name, "exit": code} for name, code in codes.items()], "busy": done is None},
            shown=lines,
            done=rest,
            exit=max(codes.values(), default=Exit.OK),
            aside=True,
        )


class _EndedError(Exception):
    """A signal has ended a job, and is meant for all that would follow."""


# -- jobs --------------------------------------------------------------------------------------------------------------


def _jobs(work: Work) -> tuple[Job, ...]:
    if not work.config.schedule.jobs:
        raise ConfigurationError(
            f"expected a schedule in {work.found or 'a configuration file'}, found none. Write there, such as: "
            '[schedule] snapshot = "daily 03:00"'
        )
    return work.config.schedule.jobs


def _checked(work: Work) -> tuple[Job, ...]:
    """Find mistakes in the command lines of jobs now, and not at three in the morning."""
    for job in _jobs(work):
        try:
            app().parse_args(job.command, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise ConfigurationError(
                f"{work.found}: schedule.{job.name}: {_typed(job)}: {str(error).rstrip()}"
            ) from None
    return work.config.schedule.jobs


def _typed(job: Job) -> str:
    return f"novabackup {shlex.join(job.command)}"


def _command(work: Work, job: Job) -> list[str]:
    """Give the command line of a job: with the configuration that the schedule is from."""
    words = list(job.command)
    end = words.index("--") if "--" in words else len(words)
    ours = ["--config", str(_configuration(work)), *(["--quiet"] if work.options.quiet else [])]
    # -P: what lies in the folder where somebody stands is no part of the program.
    return [sys.executable, "-P", "-m", "novabackup", *words[:end], *ours, *words[end:]]


def _configuration(work: Work) -> Path:
    assert work.found is not None  # there would be no jobs
    return work.found.absolute()


def _scheduler(work: Work, jobs: Sequence[Job]) -> Scheduler:
    said = work.config.schedule
    path = str(_configuration(work))
    readable = said.name or path.strip("/").replace("/", "-")[-_READABLE:]
    # By the path alone: what one configuration has done is not done for another.
    own = f"{readable}-{blake3(os.fsencode(path)).hexdigest(8)}"
    return Scheduler(jobs, said.state or state_folder() / "schedule" / own)


# -- who starts them ---------------------------------------------------------------------------------------------------


def _user() -> str:
    """Name the user that this process works as, who may be another one than the environment says, as after ``su``."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _alone(user: bool) -> bool:
    return user or os.geteuid() != 0


def _plan(work: Work, jobs: Sequence[Job], kind: Kind, *, user: bool) -> Installation | Crontab:
    """Find out what to change so that these jobs are started; none for taking the schedule away."""
    of, name = str(_configuration(work)) if work.found else "", work.config.schedule.name
    beside = Path(sys.executable).with_name("novabackup")
    program = [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "novabackup"]
    program += ["schedule", "run", "--quiet", "--config", of]
    if kind == "systemd":
        units = systemd_units(jobs, program, name=name, of=of)
        return Installation.plan(systemd_of_user() if user else SYSTEMD, units, of=of)
    if user:
        if jobs and not shutil.which("crontab"):
            raise ConfigurationError("expected the program crontab, found none. Install cron, or use --with systemd")
        return Crontab.plan(crontab(), program if jobs else (), of=of)
    file = f"novabackup-{name}" if name else "novabackup"
    return Installation.plan(CRON, {file: cron_table(program, _user(), of=of)} if jobs else {}, of=of)


def _usual(*, user: bool) -> Kind:
    if _RUNS_SYSTEMD.is_dir() and shutil.which("systemctl"):
        return "systemd"
    if shutil.which("crontab") if user else CRON.folder.is_dir():
        return "cron"
    raise ConfigurationError(
        "expected systemd or cron, found neither. Install cron, or let whatever starts programs here run this every "
        "few minutes: novabackup schedule run"
    )


def _installed(work: Work, jobs: Sequence[Job], said: Kind | None, *, user: bool, dry_run: bool) -> Answer:
    if work.options.store or work.options.repository or work.options.layout:
        raise ConfigurationError(
            "expected a store and a repository that the configuration names, found options or variables, which nobody "
            f"gives when a job is started. Write them into {work.found}"
        )
    kind = said or _usual(user=user)
    plan = _plan(work, jobs, kind, user=user)
    former = _plan(work, (), _OTHER[kind], user=user)
    plans = [former, plan] if former.installed else [plan]
    for warning in _warnings(work, kind, user=user):
        work.terminal.warning(warning)
    if not dry_run:
        for one in plans:
            one.execute()
    lines = [line for one in plans for line in str(one).splitlines()]
    fields = {"with": kind, "steps": lines, "files": plan.texts}
    if dry_run:
        shown = ["Nothing was done. To be done:", *_listed(lines), "What would be written is shown with --json"]
        return Answer.of_plan(fields, shown, dry_run=True)
    done = f"{count(len(jobs), 'job')} installed with {plan.where}. What is done when: novabackup schedule show"
    return Answer.of_plan(fields, [done], dry_run=False)


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"  - {line}" for line in lines]


def _warnings(work: Work, kind: Kind, *, user: bool) -> Iterator[str]:
    for found in secrets_in(work.config):
        if found.form == "env":
            yield (
                f"{found.asked_by}: {kind} starts jobs without the variable {found.where}. Keep that secret in a file: "
                '{ file = "/path" }'
            )
    about = _configuration(work).stat()
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield (
            f"{_configuration(work)} can be changed by other users, who thus can have commands run as "
            f"{_user()}. Let it belong to that user alone: chown and chmod go-w"
        )
    if kind == "systemd" and user and not (_LINGERING / _user()).exists():
        yield "your timers run only while you are logged in. To have them run always: loginctl enable-linger"


# -- what it looks like ------------------------------------------------------------------------------------------------


def _shown(work: Work, jobs: Sequence[Job]) -> Answer:
    now = datetime.now().astimezone()
    last = _scheduler(work, jobs).last_runs()
    starters = list(_starters(work, jobs))
    overdue = {job.name for job in jobs if job.name in last and job.is_due(last[job.name], now)}
    # Cron does what never was done, too; a timer waits for its time.
    soon = {job.name for job in jobs if job.name not in last} if any(kind == "cron" for kind, *_ in starters) else set()
    rows = [
        (
            job.name,
            str(job.when),
            local(last[job.name]) if job.name in last else "never",
            "overdue" if job.name in overdue else "now" if job.name in soon else local(job.when.next(now)),
            _typed(job),
        )
        for job in jobs
    ]
    columns = [
        Column("Job", whole=True),
        Column("When", whole=True),
        Column("Last done", whole=True),
        Column("Next", whole=True),
        Column("Command"),
    ]
    return Answer(
        fields={
            "configuration": str(_configuration(work)),
            "jobs": [
                {
                    "name": job.name,
                    "when": str(job.when),
                    "command": list(job.command),
                    "last": last.get(job.name),
                    "next": job.when.next(now),
                    "overdue": job.name in overdue,
                }
                for job in jobs
            ],
            "started_by": [{"with": kind, "user": user, "current": plan.current} for kind, user, plan in starters],
        },
        shown=[
            Table(columns=columns, rows=rows, title=f"Schedule of {_configuration(work)}"),
            *(_told(kind, plan) for kind, _user, plan in starters),
            *([] if starters else ["Nothing starts these jobs yet: novabackup schedule install"]),
            *(
                ["The schedule has changed since then: novabackup schedule install"]
                if any(not plan.current for _kind, _user, plan in starters)
                else []
            ),
        ],
    )


def _starters(work: Work, jobs: Sequence[Job]) -> Iterator[tuple[Kind, bool, Installation | Crontab]]:
    """Find who starts the jobs now."""
    for user in (False, True):
        for kind in _OTHER:
            if _plan(work, (), kind, user=user).installed:
                yield kind, user, _plan(work, jobs, kind, user=user)


def _told(kind: Kind, plan: Installation | Crontab) -> str:
    if kind == "cron":
        return f"Started by {plan.where}: every {TICK} minutes it is looked what is due"
    return f"Started by {plan.where}; what was missed while the machine was off is caught up when it is on again"
