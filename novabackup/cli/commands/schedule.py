"""The commands schedule show, install, remove and run."""

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

from novabackup._support.text import count
from novabackup.cli.app import app
from novabackup.cli.child import run_to_end
from novabackup.cli.config.sections import secrets_in, state_folder
from novabackup.cli.context import BY_DEFAULT, Context, Options
from novabackup.cli.exits import Exit
from novabackup.cli.output import Result, local, table
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

_RUNS_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_LINGERING = Path("/var/lib/systemd/linger")
_SIGNALLED = 128
_READABLE = 100
_CHANGED = "The schedule has changed since then: novabackup schedule install"

Kind = Literal["systemd", "cron"]
_OTHER: Mapping[Kind, Kind] = {"systemd": "cron", "cron": "systemd"}


def show(*, options: Options = BY_DEFAULT) -> Result:
    """Show the jobs, when each was last done, and what starts them."""
    with options.open() as context:
        jobs = _checked(context)
        now = datetime.now().astimezone()
        last = _scheduler(context, jobs).last_runs()
        starters = list(_starters(context, jobs))
        overdue = {job.name for job in jobs if job.name in last and job.is_due(last[job.name], now)}
        # Cron also runs jobs that were never run; a timer waits for the time.
        by_cron = any(kind == "cron" for kind, *_ in starters)
        rows = [
            (
                job.name,
                str(job.when),
                local(last[job.name]) if job.name in last else "never",
                "overdue"
                if job.name in overdue
                else "now"
                if by_cron and job.name not in last
                else local(job.when.next(now)),
                _typed(job),
            )
            for job in jobs
        ]
        path = str(_configuration(context))
        return Result(
            fields={
                "configuration": path,
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
                table("!Job", "!When", "!Last done", "!Next", "Command", rows=rows, title=f"Schedule of {path}"),
                *(_told(kind, plan) for kind, _user, plan in starters),
                *([] if starters else ["Nothing starts these jobs yet: novabackup schedule install"]),
                *([] if all(plan.current for *_, plan in starters) else [_CHANGED]),
            ],
        )


def install(
    *,
    with_: Annotated[Kind | None, Parameter(name="--with")] = None,
    user: bool = False,
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Make systemd timers or cron start the jobs of [schedule].

    Jobs that were missed while the machine was off are caught up, and no two jobs run at a time. An earlier schedule of
    this configuration is replaced. Run it again after changes to the schedule.

    Args:
        with_: By default systemd where it runs, else cron.
        user: For this user only; the default for all users but root.
        dry_run: Show what would be written and run, and do nothing.
    """
    with options.open() as context:
        jobs, user = _checked(context), _alone(user)
        if context.options.store or context.options.repository or context.options.layout:
            raise ConfigurationError(
                "expected a store and a repository that the configuration names, found options or variables, which "
                f"jobs do not get. Write them into {context.found}"
            )
        kind = with_ or _usual(user=user)
        plan = _plan(context, jobs, kind, user=user)
        former = _plan(context, (), _OTHER[kind], user=user)
        plans = [former, plan] if former.installed else [plan]
        for warning in _warnings(context, kind, user=user):
            context.terminal.warning(warning)
        if not dry_run:
            for one in plans:
                one.execute()
        lines = [line for one in plans for line in str(one).splitlines()]
        fields = {"with": kind, "steps": lines, "files": plan.texts}
        if dry_run:
            shown = ["Nothing was done. To be done:", *_listed(lines), "What would be written is shown with --json"]
            return Result.of_plan(fields, shown, dry_run=True)
        done = f"{count(len(jobs), 'job')} installed with {plan.where}. What is done when: novabackup schedule show"
        return Result.of_plan(fields, [done], dry_run=False)


def remove(*, user: bool = False, dry_run: bool = False, options: Options = BY_DEFAULT) -> Result:
    """Remove the schedule that install has written; backups stay.

    Args:
        user: That of this user; the default for all users but root.
        dry_run: Show what would be removed, and do nothing.
    """
    with options.open() as context:
        plans = [plan for kind in _OTHER if (plan := _plan(context, (), kind, user=_alone(user))).installed]
        if not dry_run:
            for plan in plans:
                plan.execute()
        lines = [line for plan in plans for line in str(plan).splitlines()]
        shown = ["Nothing was done. To be done:", *_listed(lines)] if dry_run else ["The schedule is removed"]
        return Result.of_plan({"steps": lines}, shown if plans else ["There is no schedule to remove"], dry_run=dry_run)


def run(job: str | None = None, /, *, options: Options = BY_DEFAULT) -> Result:
    """Run the jobs that are due, as timers and cron do.

    A job that ended with 0 or 1 is done; with any other code it is due again. If another run is working, nothing is
    done here. Ends with the highest exit code of a job.

    Args:
        job: Run this one, due or not; wait for another run to end.
    """
    with options.open() as context:
        codes: dict[str, int] = {}

        def do(one: Job) -> bool:
            codes[one.name] = code = run_to_end(sys.executable, _command(context, one))
            if code >= _SIGNALLED:
                raise _EndedError
            return code in (Exit.OK, Exit.WRONG)  # running it again would not repair what was found

        try:
            done = _scheduler(context, _jobs(context)).run(do, only=job or "")
        except _EndedError:
            done = {}
        lines = [
            f"{name} ended with {code}{'' if code == Exit.WRONG else ', and is due again'}"
            for name, code in codes.items()
            if code
        ]
        if done is None:
            rest = ["Another run is working; it does what is due"]
        else:
            rest = [f"{name} is done" for name, code in codes.items() if not code] or (
                [] if codes else ["Nothing is due"]
            )
        return Result(
            fields={"jobs": [{"name": name, "exit": code} for name, code in codes.items()], "busy": done is None},
            shown=lines,
            done=rest,
            exit=max(codes.values(), default=Exit.OK),
            aside=True,
        )


class _EndedError(Exception):
    """A signal has ended a job; it is for the jobs after it, too."""


# -- jobs --------------------------------------------------------------------------------------------------------------


def _jobs(context: Context) -> tuple[Job, ...]:
    if not context.config.schedule.jobs:
        raise ConfigurationError(
            f"expected a schedule in {context.found or 'a configuration file'}, found none. Write there, such as: "
            '[schedule] snapshot = "daily 03:00"'
        )
    return context.config.schedule.jobs


def _checked(context: Context) -> tuple[Job, ...]:
    """Report mistakes in the command lines of jobs now, not when they are due at night."""
    for job in _jobs(context):
        try:
            app().parse_args(job.command, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise ConfigurationError(
                f"{context.found}: schedule.{job.name}: {_typed(job)}: {str(error).rstrip()}"
            ) from None
    return context.config.schedule.jobs


def _typed(job: Job) -> str:
    return f"novabackup {shlex.join(job.command)}"


def _command(context: Context, job: Job) -> list[str]:
    """Return the command line of a job, with the configuration of its schedule."""
    words = list(job.command)
    end = words.index("--") if "--" in words else len(words)
    ours = ["--config", str(_configuration(context)), *(["--quiet"] if context.options.quiet else [])]
    # -P: modules in the working folder must not be imported.
    return [sys.executable, "-P", "-m", "novabackup", *words[:end], *ours, *words[end:]]


def _configuration(context: Context) -> Path:
    assert context.found is not None  # there would be no jobs
    return context.found.absolute()


def _scheduler(context: Context, jobs: Sequence[Job]) -> Scheduler:
    settings = context.config.schedule
    path = str(_configuration(context))
    readable = settings.name or path.strip("/").replace("/", "-")[-_READABLE:]
    # By the whole path: each configuration has its own record of what was done.
    own = f"{readable}-{blake3(os.fsencode(path)).hexdigest(8)}"
    return Scheduler(jobs, settings.state or state_folder() / "schedule" / own)


# -- systemd and cron --------------------------------------------------------------------------------------------------


def _user() -> str:
    """Return the name of the effective user, which the environment may not have, as after ``su``."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _alone(user: bool) -> bool:
    return user or os.geteuid() != 0


def _plan(context: Context, jobs: Sequence[Job], kind: Kind, *, user: bool) -> Installation | Crontab:
    """Plan what to change so that these jobs are started; without jobs, so that none is."""
    of, name = str(_configuration(context)) if context.found else "", context.config.schedule.name
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
        "expected systemd or cron, found neither. Install cron, or have another scheduler run this every few minutes: "
        "novabackup schedule run"
    )


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"  - {line}" for line in lines]


def _warnings(context: Context, kind: Kind, *, user: bool) -> Iterator[str]:
    for found in secrets_in(context.config):
        if found.form == "env":
            yield (
                f"{found.asked_by}: {kind} starts jobs without the variable {found.where}. Keep that secret in a file: "
                '{ file = "/path" }'
            )
    about = _configuration(context).stat()
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield (
            f"{_configuration(context)} can be changed by other users, who could so run commands as "
            f"{_user()}. Make that user its only writer: chown and chmod go-w"
        )
    if kind == "systemd" and user and not (_LINGERING / _user()).exists():
        yield "your timers run only while you are logged in. To run them always: loginctl enable-linger"


# -- output -----------------------------------------------------------------------------------------------------------


def _starters(context: Context, jobs: Sequence[Job]) -> Iterator[tuple[Kind, bool, Installation | Crontab]]:
    """Return what starts the jobs now."""
    for user in (False, True):
        for kind in _OTHER:
            if _plan(context, (), kind, user=user).installed:
                yield kind, user, _plan(context, jobs, kind, user=user)


def _told(kind: Kind, plan: Installation | Crontab) -> str:
    if kind == "cron":
        return f"Started by {plan.where}, which runs every {TICK} minutes what is due"
    return f"Started by {plan.where}; what was missed while the machine was off is caught up when it is on again"
