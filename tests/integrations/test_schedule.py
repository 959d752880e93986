"""Work is done when it is due: a missed run is caught up, runs do not overlap, and only files of ours are touched."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novabackup import ConfigurationError
from novabackup.integrations.errors import ServiceError
from novabackup.integrations.installing import (
    CRON,
    SYSTEMD,
    Crontab,
    Installation,
    cron_table,
    systemd_units,
)
from novabackup.integrations.schedule import Job, Scheduler, When

NOW = datetime(2026, 1, 25, 14, 30, tzinfo=timezone(timedelta(hours=1)))  # a Sunday
WHENS = st.builds(
    lambda period, hour, minute: When.parse(f"{period} {hour}:{minute:02}"),
    st.sampled_from(["hourly", "daily", "weekly", "monthly"]),
    st.integers(0, 23),
    st.integers(0, 59),
)
LONGEST = {
    "hourly": timedelta(hours=1),
    "daily": timedelta(days=1),
    "weekly": timedelta(days=7),
    "monthly": timedelta(days=31),
}


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("hourly", "2026-01-25T14:00"),
        ("hourly 0:45", "2026-01-25T13:45"),
        ("daily", "2026-01-25T00:00"),
        ("daily 14:30", "2026-01-25T14:30"),
        ("daily 14:31", "2026-01-24T14:31"),
        ("weekly 03:00", "2026-01-19T03:00"),
        ("monthly", "2026-01-01T00:00"),
    ],
)
def test_the_last_time_at_which_it_was_due(text, last):
    assert When.parse(text).last(NOW).isoformat(timespec="minutes")[:16] == last


@given(WHENS, st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_it_was_due_within_a_period_and_not_in_the_future(when, now):
    last = when.last(now)
    assert last <= now
    assert now - last <= LONGEST[when.period]
    assert when.last(last) == last
    assert last.minute == when.minute


@pytest.mark.parametrize("text", ["", "yearly", "daily 24:00", "daily 3:60", "daily 3", "hourly daily"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigurationError, match="expected hourly, daily, weekly or monthly"):
        When.parse(text)


def test_systemd_understands_the_times():
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("needs systemd-analyze")
    for text in ("hourly", "daily 03:30", "weekly 04:00", "monthly 05:15"):
        subprocess.run([analyze, "calendar", When.parse(text).calendar], check=True, capture_output=True)


BACKUP = Job("backup", ("snapshot", "--tag", "hourly"), When.parse("hourly"))
CHECK = Job("check", ("check",), When.parse("daily 03:30"))


def test_units_hold_what_systemd_needs():
    units = systemd_units([BACKUP, CHECK], ["/opt/my venv/bin/novabackup", "schedule", "run"])
    assert sorted(units) == [
        "novabackup-backup.service",
        "novabackup-backup.timer",
        "novabackup-check.service",
        "novabackup-check.timer",
    ]
    assert 'ExecStart="/opt/my venv/bin/novabackup" schedule run backup\n' in units["novabackup-backup.service"]
    assert "OnCalendar=*-*-* 03:30:00\nPersistent=true\n" in units["novabackup-check.timer"]


def test_words_that_systemd_or_cron_would_take_for_something_else_are_quoted():
    unit = systemd_units([BACKUP], ["/opt/50%/$HOME/a;b", "x"])["novabackup-backup.service"]
    assert 'ExecStart="/opt/50%%/$$HOME/a;b" x backup' in unit
    assert "'/opt/50\\%/a b' due" in cron_table(["/opt/50%/a b", "due"], "nova")
    with pytest.raises(ConfigurationError):
        cron_table(["a\nb"], "nova")
    with pytest.raises(ConfigurationError):
        Job("../evil", ("check",), When.parse("daily"))


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """A systemd that notes what it is told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\ntest ! -e {tmp_path}/refuse\n')
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    (tmp_path / "system").mkdir()
    return attrs.evolve(SYSTEMD, folder=tmp_path / "system")


def names(manager):
    return sorted(path.name for path in manager.folder.iterdir())


def test_a_schedule_is_installed_changed_and_taken_away(systemd, tmp_path):
    program = ["/usr/bin/novabackup", "schedule", "run"]
    plan = Installation.plan(systemd, systemd_units([BACKUP, CHECK], program))
    assert names(systemd) == []
    assert f"write {systemd.folder}/novabackup-check.timer" in str(plan)
    plan.execute()
    assert len(names(systemd)) == 4
    (systemd.folder / "novabackup-mine.timer").write_text("of somebody else")
    Installation.plan(systemd, systemd_units([BACKUP], program)).execute()
    assert names(systemd) == ["novabackup-backup.service", "novabackup-backup.timer", "novabackup-mine.timer"]
    Installation.plan(systemd, {}).execute()
    assert names(systemd) == ["novabackup-mine.timer"]
    assert (tmp_path / "told").read_text().splitlines() == [
        "daemon-reload",
        "enable --now novabackup-backup.timer novabackup-check.timer",
        "disable --now novabackup-check.timer",
        "daemon-reload",
        "enable --now novabackup-backup.timer",
        "disable --now novabackup-backup.timer",
        "daemon-reload",
    ]


def test_a_file_of_somebody_else_is_never_overwritten(systemd):
    (systemd.folder / "novabackup-backup.timer").write_text("of somebody else")
    with pytest.raises(ConfigurationError, match="was not written by novabackup"):
        Installation.plan(systemd, systemd_units([BACKUP], ["x"]))


def test_a_systemd_that_refuses_is_told(systemd, tmp_path):
    (tmp_path / "refuse").touch()
    with pytest.raises(ServiceError, match="daemon-reload: expected it to succeed, found exit status 1"):
        Installation.plan(systemd, systemd_units([BACKUP], ["x"])).execute()


def test_cron_is_told_by_one_file(tmp_path):
    manager = attrs.evolve(CRON, folder=tmp_path)
    Installation.plan(manager, {"novabackup": cron_table(["/usr/bin/novabackup", "schedule", "run"], "nova")}).execute()
    text = (tmp_path / "novabackup").read_text()
    assert "*/10 * * * * nova /usr/bin/novabackup schedule run\n@reboot nova" in text
    Installation.plan(manager, {}).execute()
    assert names(manager) == []


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def run(scheduler, clock, fails=()):
    done = []

    def work(job):
        done.append(job.name)
        return job.name not in fails

    scheduler.run(work, now=clock)
    return done


def test_each_job_is_done_when_it_is_due_and_once(tmp_path):
    clock, scheduler = Clock(NOW), Scheduler([BACKUP, CHECK], tmp_path)
    assert run(scheduler, clock) == ["backup", "check"], "never done yet"
    assert run(scheduler, clock) == []
    clock.now += timedelta(minutes=29)
    assert run(scheduler, clock) == []
    clock.now += timedelta(minutes=2)
    assert run(Scheduler([BACKUP, CHECK], tmp_path), clock) == ["backup"], "also by another process"
    clock.now += timedelta(hours=13)
    assert [job.name for job in scheduler.due(clock.now)] == ["backup", "check"]
    assert run(scheduler, clock) == ["backup", "check"]


def test_what_was_missed_is_caught_up_once(tmp_path):
    clock, scheduler = Clock(NOW), Scheduler([BACKUP], tmp_path)
    run(scheduler, clock)
    clock.now += timedelta(days=30, minutes=5)  # the host was off
    assert run(scheduler, clock) == ["backup"]
    assert run(scheduler, clock) == []


def test_what_failed_is_due_again(tmp_path):
    clock, scheduler = Clock(NOW), Scheduler([BACKUP, CHECK], tmp_path)
    assert run(scheduler, clock, fails=["backup"]) == ["backup", "check"]
    assert run(scheduler, clock) == ["backup"]


def test_a_clock_that_was_ahead_stops_nothing(tmp_path):
    clock, scheduler = Clock(NOW + timedelta(days=400)), Scheduler([BACKUP], tmp_path)
    run(scheduler, clock)
    clock.now = NOW
    assert run(scheduler, clock) == ["backup"]
    assert run(scheduler, clock) == []


def test_runs_do_not_overlap(tmp_path):
    scheduler = Scheduler([BACKUP], tmp_path)
    inside, may_end = threading.Event(), threading.Event()

    def slow(job):
        inside.set()
        return may_end.wait(60)

    first = threading.Thread(target=scheduler.run, args=(slow,))
    first.start()
    assert inside.wait(60)
    try:
        assert Scheduler([BACKUP], tmp_path).run(lambda job: pytest.fail("beside another run")) is None
    finally:
        may_end.set()
        first.join()
    assert Scheduler([BACKUP], tmp_path).run(lambda job: True, now=lambda: datetime.now().astimezone()) in (
        {},
        {"backup": True},
    )


def test_a_job_that_is_asked_for_is_done_due_or_not(tmp_path):
    scheduler = Scheduler([BACKUP, CHECK], tmp_path)
    for _ in range(2):
        assert scheduler.run(lambda job: True, only="check") == {"check": True}
    with pytest.raises(ConfigurationError, match="expected one of the jobs backup, check, found 'czech'"):
        scheduler.run(lambda job: True, only="czech")


@pytest.mark.parametrize("damage", ["", "[]", '{"backup": 3}', '{"backup": "9999-12-31T23:59:59-23:00"}', "\0"])
def test_a_damaged_note_makes_everything_due(tmp_path, damage):
    (tmp_path / "schedule.json").write_text(damage)
    assert run(Scheduler([BACKUP], tmp_path), Clock(NOW)) == ["backup"]
    assert run(Scheduler([BACKUP], tmp_path), Clock(NOW)) == []


LINES = st.lists(
    st.sampled_from(
        [
            "",
            "MAILTO=nova",
            "# mine",
            "0 1 * * * true",
            "# Written by novabackup schedule; changes are lost when it is installed again.",
            "# For /etc/novabackup.toml",
            "# The end of what novabackup schedule has written",
            "*/10 * * * * mine",
        ]
    ),
    max_size=8,
)


@given(LINES, st.sampled_from(["/etc/novabackup.toml", "/srv/novabackup.toml"]))
def test_a_line_of_somebody_else_in_a_crontab_is_never_lost(lines, of):
    table = "".join(f"{line}\n" for line in lines)

    program = ["/usr/bin/novabackup", "schedule", "run"]
    with_ours = Crontab.plan(table, program, of=of)
    assert Crontab.plan(with_ours.after, program, of=of).current
    without = Crontab.plan(with_ours.after, [], of=of)
    assert without.installed
    for after in (with_ours.after, without.after):
        kept = [line for line in after.splitlines() if not line.startswith("# ")]
        assert [line for line in kept if "novabackup schedule run" not in line] == [
            line for line in lines if not line.startswith("# ")
        ]
    assert "schedule run" not in without.after
