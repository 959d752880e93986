"""Runs scheduled jobs that are due: a missed run is caught up, and runs do not overlap."""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from novabackup._support import commands
from novabackup.errors import ConfigurationError
from novabackup.storage import open_storage

__all__ = ["Job", "Period", "Scheduler", "When"]

_LOG = logging.getLogger("novabackup")

_WHEN = re.compile(r"(hourly|daily|weekly|monthly)(?: (\d{1,2}):(\d{2}))?")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_STATE = "schedule.json"


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
        hour: Hour of the day; not for hourly jobs.
        minute: Minute of the hour.
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
        """Return the latest time up to ``now``, in the time zone of the host, at which it was due."""
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

    def next(self, now: datetime) -> datetime:
        """Return the first time after ``now``, in the time zone of the host, at which it will be due."""
        point = self.last(now)
        if self.period is Period.MONTHLY:
            return (point.replace(day=28) + timedelta(days=4)).replace(day=1)
        days = {Period.HOURLY: 0, Period.DAILY: 1, Period.WEEKLY: 7}[self.period]
        return point + timedelta(days=days, hours=0 if days else 1)


def _is_a_name(_job: object, _field: object, value: str) -> None:
    if not _NAME.fullmatch(value):
        raise ConfigurationError(f"expected a job name of lower-case letters, digits and dashes, found {value!r}")


@attrs.frozen
class Job:
    """Recurring work.

    Attributes:
        name: Its name in systemd and in the log.
        command: Arguments of ``novabackup``.
        when: When it is due.
    """

    name: str = attrs.field(validator=_is_a_name)
    command: tuple[str, ...] = attrs.field(converter=commands.arguments)
    when: When

    def is_due(self, last_run: datetime | None, now: datetime) -> bool:
        """Return whether it is due.

        A run in the future, by a clock that was wrong, does not count.

        Args:
            last_run: When its last successful run began; None if there was none.
            now: The current time, in the time zone of the host.
        """
        return last_run is None or last_run > now or last_run < self.when.last(now)


class Scheduler:
    """Runs the jobs that are due, one at a time across all processes."""

    def __init__(self, jobs: Iterable[Job], folder: str | os.PathLike[str]) -> None:
        """Create a scheduler; nothing runs yet.

        Args:
            jobs: The jobs.
            folder: Holds the record of successful runs, and the lock that keeps runs from overlapping.
        """
        self.jobs = tuple(jobs)
        self._folder = Path(folder)

    def due(self, now: datetime) -> tuple[Job, ...]:
        """Return the jobs that are due, in their order."""
        noted = self.last_runs()
        return tuple(job for job in self.jobs if job.is_due(noted.get(job.name), now))

    def run(
        self,
        work: Callable[[Job], bool],
        *,
        only: str = "",
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> dict[str, bool] | None:
        """Run the jobs that are due.

        Args:
            work: Runs a job; returns whether it succeeded. A failed job is due again.
            only: Run this job, due or not.
            now: Returns the current time, in the time zone of the host.

        Returns:
            The jobs that ran, and whether they succeeded; None if another run is in progress and will run them.

        Raises:
            ConfigurationError: There is no job of that name.
        """
        if only and only not in {job.name for job in self.jobs}:
            known = ", ".join(job.name for job in self.jobs)
            raise ConfigurationError(f"expected one of the jobs {known}, found {only!r}. Check [schedule]")
        # A job that was named waits for its turn; a run of all due jobs leaves them to the run in progress.
        with self._locked(wait=bool(only)) as alone:
            if not alone:
                return None
            done = {}
            for job in self.jobs:
                begun = now()
                if job.name == only if only else job.is_due(self.last_runs().get(job.name), begun):
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

    def last_runs(self) -> dict[str, datetime]:
        """Return when the last successful run of each job began; a job without one is missing."""
        try:
            said = json.loads(open_storage(self._folder).read(_STATE))
            return {str(name): datetime.fromisoformat(time).astimezone(UTC) for name, time in said.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, OverflowError):
            _LOG.warning("%s is damaged, so every job is due", self._folder / _STATE)
            return {}

    def _note(self, name: str, begun: datetime) -> None:
        noted = {**self.last_runs(), name: begun.astimezone(UTC)}
        text = json.dumps({job: time.isoformat() for job, time in sorted(noted.items())}, indent=1)
        open_storage(self._folder).write(_STATE, [text.encode() + b"\n"])
