"""When work is due, and how systemd or cron are told: a missed run is caught up, and runs do not overlap.

Everything here is a pure function but `Scheduler.run`, which does what is due, and `Installation`, which writes files.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from novabackup import _commands
from novabackup.errors import ConfigurationError
from novabackup.integrations.errors import ServiceError
from novabackup.storage import open_storage

__all__ = [
    "CRON",
    "SYSTEMD",
    "Installation",
    "Job",
    "Manager",
    "Period",
    "Scheduler",
    "When",
    "cron_table",
    "systemd_units",
]

_LOG = logging.getLogger("novabackup")

_WHEN = re.compile(r"(hourly|daily|weekly|monthly)(?: (\d{1,2}):(\d{2}))?")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_MARK = "# Written by novabackup schedule; changes are lost when it is installed again."
_STATE = "schedule.json"
_TIMEOUT = 30.0
_TICK = 10
"""Minutes between two looks of cron at what is due."""


class Period(enum.StrEnum):
    """How often a job is due."""

    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    """On Mondays."""
    MONTHLY = "monthly"
    """On the first."""


@attrs.frozen
class When:
    """The times at which a job is due, in the time zone of the host.

    Attributes:
        period: How often.
        hour: At which hour; not for hourly jobs.
        minute: At which minute.
    """

    period: Period
    hour: int = attrs.field(default=0, validator=attrs.validators.in_(range(24)))
    minute: int = attrs.field(default=0, validator=attrs.validators.in_(range(60)))

    @classmethod
    def parse(cls, text: str) -> When:
        """Read ``hourly``, ``daily``, ``weekly`` or ``monthly``, with a time such as ``daily 03:30``.

        Raises:
            ConfigurationError: It is something else.
        """
        found = _WHEN.fullmatch(text.strip())
        if not found or (found[2] and (int(found[2]) > 23 or int(found[3]) > 59)):
            raise ConfigurationError(
                f"expected hourly, daily, weekly or monthly, perhaps with a time as in 'daily 03:30', found {text!r}"
            )
        return cls(Period(found[1]), int(found[2] or 0), int(found[3] or 0))

    def __str__(self) -> str:
        if self.period is Period.HOURLY:
            return f"hourly at minute {self.minute}" if self.minute else "hourly"
        return f"{self.period} {self.hour:02}:{self.minute:02}"

    @property
    def calendar(self) -> str:
        """The same as an ``OnCalendar=`` of systemd.timer(5)."""
        time = f"{self.hour:02}:{self.minute:02}:00"
        return {
            Period.HOURLY: f"*-*-* *:{self.minute:02}:00",
            Period.DAILY: f"*-*-* {time}",
            Period.WEEKLY: f"Mon *-*-* {time}",
            Period.MONTHLY: f"*-*-01 {time}",
        }[self.period]

    def last(self, now: datetime) -> datetime:
        """Give the newest time up to now at which it was due.

        Args:
            now: With the time zone of the host.
        """
        if self.period is Period.HOURLY:
            point = now.replace(minute=self.minute, second=0, microsecond=0)
            return point if point <= now else point - timedelta(hours=1)
        point = now.replace(hour=self.hour, minute=self.minute, second=0, microsecond=0)
        if self.period is Period.WEEKLY:
            point -= timedelta(days=point.weekday())
        if self.period is Period.MONTHLY:
            point = point.replace(day=1)
        if point <= now:
            return point
        if self.period is Period.MONTHLY:
            return (point - timedelta(days=1)).replace(day=1)
        return point - timedelta(days=7 if self.period is Period.WEEKLY else 1)


def _is_a_name(_job: object, _field: object, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise ConfigurationError(f"expected a name of small letters, digits and dashes for a job, found {value!r}")


@attrs.frozen
class Job:
    """Some work that is done again and again.

    Attributes:
        name: Names it, in systemd and in the log.
        command: What ``novabackup`` is called with.
        when: When it is due.
    """

    name: str = attrs.field(validator=_is_a_name)
    command: tuple[str, ...] = attrs.field(converter=_commands.arguments)
    when: When

    def is_due(self, last_run: datetime | None, now: datetime) -> bool:
        """Tell whether it is due.

        A run that lies in the future, by a clock that was wrong, does not count.

        Args:
            last_run: When it was begun last and ended well; None if never.
            now: With the time zone of the host.
        """
        return last_run is None or last_run > now or last_run < self.when.last(now)


# -- what systemd and cron are told ----------------------------------------------------------------------------------


def systemd_units(jobs: Iterable[Job], program: Sequence[str]) -> dict[str, str]:
    """Write a timer and a service for each job.

    Args:
        jobs: The jobs.
        program: What runs a job whose name follows, with absolute paths.

    Returns:
        Texts of unit files by their names.
    """
    units = {}
    for job in jobs:
        command = " ".join(map(_systemd_quoted, (*program, job.name)))
        units[f"novabackup-{job.name}.service"] = (
            f"{_MARK}\n[Unit]\nDescription=novabackup: {job.name}\nAfter=network-online.target\n"
            f"Wants=network-online.target\n\n[Service]\nType=oneshot\nExecStart={command}\nNice=10\n"
            "IOSchedulingClass=idle\n"
        )
        units[f"novabackup-{job.name}.timer"] = (
            f"{_MARK}\n[Unit]\nDescription=novabackup: {job.name}, {job.when}\n\n[Timer]\n"
            f"OnCalendar={job.when.calendar}\nPersistent=true\nRandomizedDelaySec=60\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
    return units


def _systemd_quoted(word: str) -> str:
    # systemd.service(5): % and $ stand for something unless doubled.
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", word) or not word else escaped


def cron_table(program: Sequence[str], user: str) -> str:
    """Write a file for ``/etc/cron.d``: every few minutes, and after a boot, all that is due is done.

    Args:
        program: What does all that is due, with absolute paths.
        user: As whom.
    """
    line = shlex.join(program).replace("%", r"\%")  # crontab(5): a % is a new line
    if "\n" in line or not re.fullmatch(r"[A-Za-z0-9_.-]+", user):
        raise ConfigurationError(f"cron cannot be told {line!r} for the user {user!r}")
    return f"{_MARK}\nSHELL=/bin/sh\n*/{_TICK} * * * * {user} {line}\n@reboot {user} {line}\n"


# -- installing ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Manager:
    """Who starts jobs on a host.

    Attributes:
        name: ``systemd`` or ``cron``.
        folder: Where its files are.
        pattern: What ours are called.
        after: Commands that make it read its files anew; ``{timer}`` stands for each timer.
    """

    name: str
    folder: Path
    pattern: str
    reload: tuple[tuple[str, ...], ...] = ()


SYSTEMD = Manager("systemd", Path("/etc/systemd/system"), "novabackup-*", (("systemctl", "daemon-reload"),))
CRON = Manager("cron", Path("/etc/cron.d"), "novabackup")


@attrs.frozen(kw_only=True)
class Installation:
    """What installing a schedule would write and remove.

    Attributes:
        manager: Who is told.
        write: Texts of files by their paths.
        remove: Files of an earlier schedule that are not needed any more.
        commands: What is run afterwards.
    """

    manager: Manager
    write: Mapping[Path, str]
    remove: tuple[Path, ...]
    commands: tuple[tuple[str, ...], ...]

    @classmethod
    def plan(cls, manager: Manager, files: Mapping[str, str]) -> Installation:
        """Find out what to do so that these files, and no others of ours, are there.

        Args:
            manager: Who is told.
            files: Texts by names; nothing for taking the schedule away.

        Raises:
            ConfigurationError: A file of that name is there which novabackup did not write.
        """
        write = {manager.folder / name: text for name, text in files.items()}
        there = set(manager.folder.glob(manager.pattern))
        for path in sorted(there):
            if not _ours(path):
                if path in write:
                    raise ConfigurationError(f"{path} is there and was not written by novabackup: rename it first")
                there.discard(path)
        remove = tuple(sorted(there - write.keys()))
        timers = [path.name for path in write if path.suffix == ".timer"]
        old = [path.name for path in remove if path.suffix == ".timer"]
        commands = [
            *([("systemctl", "disable", "--now", *old)] if old else []),
            *manager.reload,
            *([("systemctl", "enable", "--now", *timers)] if timers else []),
        ]
        return cls(manager=manager, write=write, remove=remove, commands=tuple(commands))

    def __str__(self) -> str:
        lines = [f"write {path}" for path in self.write] + [f"remove {path}" for path in self.remove]
        return "\n".join([*lines, *(f"run {shlex.join(command)}" for command in self.commands)])

    def execute(self) -> None:
        """Write and remove the files, and let the manager read them.

        Raises:
            ServiceError: The manager refuses; the files are there.
            OSError: A file cannot be written.
        """
        for command in self.commands:
            if command[1:2] == ("disable",):
                self._call(command)
        storage = open_storage(self.manager.folder)
        for path, text in self.write.items():
            storage.write(path.name, [text.encode()])
        for path in self.remove:
            storage.delete(path.name)
        for command in self.commands:
            if command[1:2] != ("disable",):
                self._call(command)

    def _call(self, command: Sequence[str]) -> None:
        outcome = _commands.run(command, timeout=_TIMEOUT)
        if not outcome.good:
            raise ServiceError(f"{shlex.join(command)}: expected it to end well, found {outcome}. Run it by hand")


def _ours(path: Path) -> bool:
    try:
        with path.open(errors="replace") as file:
            return file.readline().rstrip("\n") == _MARK
    except OSError:
        return False


# -- running ---------------------------------------------------------------------------------------------------------


class Scheduler:
    """Does what is due, one job at a time, whoever asks."""

    def __init__(self, jobs: Iterable[Job], folder: str | os.PathLike[str]) -> None:
        """Nothing is done yet.

        Args:
            jobs: The jobs.
            folder: Where it is noted what was done; also holds the lock by which runs do not overlap.
        """
        self.jobs = tuple(jobs)
        self._folder = Path(folder)

    def due(self, now: datetime) -> tuple[Job, ...]:
        """Give the jobs that are due, in their order."""
        noted = self._noted()
        return tuple(job for job in self.jobs if job.is_due(noted.get(job.name), now))

    def run(
        self,
        work: Callable[[Job], bool],
        *,
        only: str = "",
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> dict[str, bool] | None:
        """Do what is due.

        Args:
            work: Does a job; tells whether it went well. One that did not is due again.
            only: Do this job, due or not.
            now: Tells the time, with the time zone of the host.

        Returns:
            What was done, and whether it went well; None if another run is at it and will see to it.

        Raises:
            ConfigurationError: There is no job of that name.
        """
        if only and only not in {job.name for job in self.jobs}:
            known = ", ".join(job.name for job in self.jobs)
            raise ConfigurationError(f"expected one of the jobs {known}, found {only!r}. Look at [schedule]")
        # A job that is asked for waits for its turn; whoever looks what is due leaves that to the one who is at it.
        with self._locked(wait=bool(only)) as alone:
            if not alone:
                return None
            done = {}
            for job in self.jobs:
                begun = now()
                if job.name == only if only else job.is_due(self._noted().get(job.name), begun):
                    done[job.name] = work(job)
                    if done[job.name]:
                        self._note(job.name, begun)
            return done

    @contextlib.contextmanager
    def _locked(self, *, wait: bool) -> Iterator[bool]:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            self._folder / "schedule.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _noted(self) -> dict[str, datetime]:
        try:
            said = json.loads(open_storage(self._folder).read(_STATE))
            return {str(name): datetime.fromisoformat(time).astimezone(UTC) for name, time in said.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, OverflowError):
            _LOG.warning("%s is damaged, so every job is due", self._folder / _STATE)
            return {}

    def _note(self, name: str, begun: datetime) -> None:
        noted = {**self._noted(), name: begun.astimezone(UTC)}
        text = json.dumps({job: time.isoformat() for job, time in sorted(noted.items())}, indent=1)
        open_storage(self._folder).write(_STATE, [text.encode() + b"\n"])
