"""What is done when: shown, told to systemd or cron, and done; nothing that is somebody else's is touched."""

from __future__ import annotations

import fcntl
import json
import os
import re

import attrs
import pytest

from novabackup import Repository
from novabackup.cli.commands import schedule as scheduling

SCHEDULE = """
[schedule]
snapshot = "daily 03:30"
forget = "weekly 04:00"
often = { when = "hourly", run = ["snapshot", "--tag", "often"] }

[retention]
daily = 30
"""
PROGRAMS = {
    "systemctl": 'echo "$@" >> {place}/told\n',
    "crontab": (
        'if [ "$1" = -l ]; then cat {place}/table 2>/dev/null || {{ echo "no crontab for nova" >&2; exit 1; }}\n'
        'else cat "$1" > {place}/table; fi\n'
    ),
}


@pytest.fixture
def scheduled(store, place, tmp_path, monkeypatch):
    """A configuration with a schedule; and a systemd and a cron that do nothing but note what they are told."""
    with (place / "novabackup.toml").open("a") as file:
        file.write(SCHEDULE)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text("#!/bin/sh\n" + text.format(place=place))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return place / "novabackup.toml"


@pytest.fixture
def units(tmp_path):
    return tmp_path / "settings/systemd/user"


class TestShow:
    def test_who_looks_sees_what_happens_when_and_who_starts_it(self, cli, scheduled):
        said = cli("schedule", "show")
        assert said.code == 0
        for line in (
            r"snapshot +daily 03:30 +never +20\d\d-\d\d-\d\d 03:30 +novabackup snapshot --tag daily",
            r"forget +weekly 04:00 +never +20\d\d-\d\d-\d\d 04:00 +novabackup forget --prune",
            r"often +hourly +never +20\d\d-\d\d-\d\d \d\d:00 +novabackup snapshot --tag often",
            "Nothing starts these jobs yet: novabackup schedule install",
        ):
            assert re.search(f"^{line}$", said.out, re.MULTILINE), line
        jobs = cli("schedule", "show", "--json").json["jobs"]
        assert [(job["name"], job["last"], job["overdue"]) for job in jobs] == [
            ("snapshot", None, False),
            ("forget", None, False),
            ("often", None, False),
        ]

    def test_it_fits_into_a_terminal(self, terminal, scheduled):
        screen = terminal("schedule", "show")
        assert screen.end() == 0
        assert max(map(len, screen.text.splitlines())) <= 80

    def test_a_run_that_was_missed_shows(self, cli, scheduled, place):
        with scheduled.open("a") as file:
            file.write('[schedule.late]\nwhen = "daily 01:00"\nrun = ["verify"]\n')
        scheduled.write_text(scheduled.read_text().replace("[schedule]\n", '[schedule]\nstate = "state"\n'))
        (place / "state").mkdir()
        (place / "state/schedule.json").write_text('{"late": "2026-01-01T00:00:00+00:00"}')
        assert re.search(r"late +daily 01:00 +2026-01-01 01:00 +overdue", cli("schedule", "show").out)


class TestInstall:
    def test_systemd_gets_timers_which_go_when_they_are_taken_away(self, cli, scheduled, units, place):
        planned = cli("schedule", "install", "--user", "--with", "systemd", "--dry-run")
        assert f"write {units}/novabackup-often.timer" in planned.out
        assert not units.exists()
        assert cli("schedule", "install", "--user", "--with", "systemd").code == 0
        names = {f"novabackup-{job}.{kind}" for job in ("snapshot", "forget", "often") for kind in ("service", "timer")}
        assert {path.name for path in units.iterdir()} == names
        service = (units / "novabackup-often.service").read_text()
        assert re.search(rf"^ExecStart=/.* schedule run --quiet --config {scheduled} often$", service, re.MULTILINE)
        assert "OnCalendar=Mon *-*-* 04:00:00\nPersistent=true" in (units / "novabackup-forget.timer").read_text()
        assert f"Started by systemd, by files in {units}" in cli("schedule", "show").out
        scheduled.write_text(scheduled.read_text().replace('forget = "weekly 04:00"\n', ""))
        assert "has changed since then" in cli("schedule", "show").out
        assert cli("schedule", "install", "--user", "--with", "systemd").code == 0
        assert "has changed since then" not in cli("schedule", "show").out
        assert not (units / "novabackup-forget.timer").exists()
        assert cli("schedule", "remove", "--user", "--dry-run").code == 0
        assert (units / "novabackup-often.timer").exists()
        assert cli("schedule", "remove", "--user").out == "The schedule is removed\n"
        assert list(units.iterdir()) == []
        assert (place / "told").read_text().splitlines()[-2:] == [
            "--user disable --now novabackup-often.timer novabackup-snapshot.timer",
            "--user daemon-reload",
        ]

    def test_the_crontab_of_a_user_keeps_what_else_is_in_it(self, cli, scheduled, place):
        own = "MAILTO=nova\n# mine\n0 1 * * * true\n"
        (place / "table").write_text(own)
        assert cli("schedule", "install", "--user", "--with", "cron").code == 0
        table = (place / "table").read_text()
        assert table.startswith(own)
        assert re.search(rf"^\*/10 \* \* \* \* /.* schedule run --quiet --config {scheduled}$", table, re.MULTILINE)
        assert cli("schedule", "install", "--user", "--with", "cron").code == 0
        assert (place / "table").read_text() == table
        assert "which runs every 10 minutes what is due" in cli("schedule", "show").out
        assert cli("schedule", "remove", "--user").code == 0
        assert (place / "table").read_text() == own

    def test_a_crontab_that_cannot_be_read_is_not_replaced(self, cli, scheduled, place, tmp_path):
        (place / "table").write_text("mine\n")
        (tmp_path / "programs/crontab").write_text(
            '#!/bin/sh\nif [ "$1" = -l ]; then echo no >&2; exit 1; fi\n> table\n'
        )
        said = cli("schedule", "install", "--user", "--with", "cron")
        assert said.code == 7
        assert "crontab -l: expected the crontab" in said.err
        assert (place / "table").read_text() == "mine\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for whom the system is the default")
    def test_for_the_system_it_is_a_file_of_cron_as_root(self, cli, scheduled, monkeypatch, tmp_path):
        folder = tmp_path / "cron.d"
        folder.mkdir()
        monkeypatch.setattr(scheduling, "CRON", attrs.evolve(scheduling.CRON, folder=folder))
        monkeypatch.setattr(scheduling, "_RUNS_SYSTEMD", tmp_path / "none")
        monkeypatch.setenv("LOGNAME", "nova")  # as su leaves it
        assert cli("schedule", "install").code == 0
        assert "*/10 * * * * root /" in (folder / "novabackup").read_text()
        assert f"Started by cron, by files in {folder}, which runs every 10 minutes" in cli("schedule", "show").out
        assert re.search(r"snapshot +daily 03:30 +never +now ", cli("schedule", "show").out)
        assert cli("schedule", "remove").code == 0
        assert list(folder.iterdir()) == []

    def test_no_umask_lets_others_write_what_cron_and_systemd_obey(self, cli, scheduled, units):
        before = os.umask(0)
        try:
            assert cli("schedule", "install", "--user", "--with", "systemd").code == 0
        finally:
            os.umask(before)
        assert {path.stat().st_mode & 0o777 for path in units.iterdir()} == {0o644}

    def test_from_one_to_the_other_leaves_only_one(self, cli, scheduled, units, place):
        cli("schedule", "install", "--user", "--with", "systemd")
        said = cli("schedule", "install", "--user", "--with", "cron")
        assert said.code == 0
        assert list(units.iterdir()) == []
        assert [one["with"] for one in cli("schedule", "show", "--json").json["started_by"]] == ["cron"]

    def test_two_configurations_do_not_take_each_others_timers(self, cli, scheduled, units, place):
        cli("schedule", "install", "--user", "--with", "systemd")
        other = place / "other.toml"
        other.write_text(scheduled.read_text())
        said = cli("schedule", "install", "--user", "--with", "systemd", "--config", other)
        assert said.code == 2
        assert f"is there, and for another configuration, {scheduled}" in said.err
        other.write_text(other.read_text().replace("[schedule]\n", '[schedule]\nname = "other"\n'))
        assert cli("schedule", "install", "--user", "--with", "systemd", "--config", other).code == 0
        assert cli("schedule", "remove", "--user").code == 0
        assert sorted(path.name for path in units.glob("*.timer")) == [
            f"novabackup-other-{job}.timer" for job in ("forget", "often", "snapshot")
        ]

    def test_what_jobs_would_lack_is_told_beforehand(self, cli, scheduled):
        text = scheduled.read_text()
        scheduled.write_text(
            text.replace("[repository]\n", '[repository]\nkey = { passphrase = { env = "NOVA_PASS" } }\n')
        )
        said = cli("schedule", "install", "--user", "--with", "systemd", "--dry-run")
        assert "repository.key.passphrase: systemd starts jobs without the variable NOVA_PASS" in said.err
        assert "can be changed by other users" not in said.err
        scheduled.chmod(0o666)
        said = cli("schedule", "install", "--user", "--with", "systemd", "--dry-run")
        assert "can be changed by other users, who could so run commands as" in said.err
        refused = cli("schedule", "install", "--store", "elsewhere", "--dry-run")
        assert refused.code == 2
        assert "expected a store and a repository that the configuration names" in refused.err

    @pytest.mark.parametrize(
        ("systemd", "crontab", "said"), [(True, True, "systemctl"), (False, True, "crontab"), (False, False, "neither")]
    )
    def test_by_default_it_is_what_is_there(self, cli, scheduled, monkeypatch, tmp_path, systemd, crontab, said):
        monkeypatch.setattr(scheduling, "_RUNS_SYSTEMD", tmp_path if systemd else tmp_path / "none")
        if not crontab:
            (tmp_path / "programs/crontab").unlink()
        answer = cli("schedule", "install", "--user", "--dry-run")
        assert said in answer.out + answer.err


class TestRun:
    def test_what_is_due_is_done_once_in_order(self, cli, scheduled, place):
        said = cli("schedule", "run")
        assert said.code == 0
        assert said.err.splitlines() == ["snapshot is done", "forget is done", "often is done"]
        assert [snapshot.tags for snapshot in Repository(place / "backups").snapshots()] == [("daily",), ("often",)]
        assert cli("schedule", "run").err == "Nothing is due\n"
        assert json.loads(cli("schedule", "run", "--json").err) == {"jobs": [], "busy": False}
        shown = cli("schedule", "show").out
        assert "never" not in shown

    def test_a_job_that_fails_is_due_again_and_one_that_found_damage_is_not(self, cli, scheduled, store):
        (store / "metadata.json").write_text("[")
        text = scheduled.read_text().replace('often = { when = "hourly", run = ["snapshot", "--tag", "often"] }\n', "")
        scheduled.write_text(text.replace('"weekly 04:00"', '{ when = "daily", run = ["show", "nope"] }'))
        said = cli("schedule", "run", "--quiet")
        assert said.code == 2
        assert said.err == "snapshot ended with 1\nforget ended with 2, and is due again\n"
        assert json.loads(cli("schedule", "run", "--json").err)["jobs"] == [{"name": "forget", "exit": 2}]

    def test_what_one_configuration_has_done_is_not_done_for_another(self, cli, scheduled, place):
        (place / "a").mkdir()
        text = f'[repository]\nurl = "{place}/backups"\n[schedule]\nverify = "daily"\n'
        for path in ("a/b.toml", "a-b.toml"):
            (place / path).write_text(text)
        cli("snapshot")
        for path in ("a/b.toml", "a-b.toml"):
            assert cli("schedule", "run", "--config", path).err.endswith("verify is done\n")

    def test_a_folder_in_which_somebody_stands_is_no_part_of_the_program(self, cli, scheduled, place):
        (place / "novabackup.py").write_text("open('hostile', 'w')")
        (place / "json.py").write_text("open('hostile', 'w')")
        assert cli("schedule", "run").code == 0
        assert not (place / "hostile").exists()

    def test_whoever_comes_while_another_run_is_at_work_leaves_it_to_that(self, cli, scheduled, place):
        scheduled.write_text(scheduled.read_text().replace("[schedule]\n", '[schedule]\nstate = "state"\n'))
        (place / "state").mkdir()
        with (place / "state/schedule.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = cli("schedule", "run")
        assert (said.code, said.err) == (0, "Another run is working; it does what is due\n")
        assert not (place / "backups").exists()

    def test_ctrl_c_ends_the_job_and_all_that_would_follow(self, terminal, scheduled, place):
        os.mkfifo(place / "ready")
        scheduled.write_text(
            '[store]\nurl = "vector_db"\n[hooks]\nbefore = [["sh", "-c", "echo > ready; exec sleep 600"]]\n'
            '[schedule]\nsnapshot = "daily"\nverify = "daily"\n'
        )
        screen = terminal("schedule", "run")
        (place / "ready").read_text()
        screen.child.sendintr()
        assert screen.end() == 130
        assert "verify" not in screen.text
        assert "snapshot ended with 130, and is due again" in screen.text


MISTAKES = [
    ('snapshot = "dayly"', "novabackup.toml:8: schedule.snapshot: expected hourly, daily, weekly or monthly"),
    ('snapshoot = "daily"', "novabackup.toml:8: schedule.snapshoot: unknown key; did you mean snapshot?"),
    ('mine = { when = "daily" }', "novabackup.toml:8: schedule.mine: expected the key run"),
    ('mine = { run = ["check"] }', "novabackup.toml:8: schedule.mine: expected the key when"),
    (
        'mine = { when = "daily", run = ["novabackup", "check"] }',
        "schedule.mine.run: expected the arguments of novabackup",
    ),
    (
        'Mine = { when = "daily", run = ["check"] }',
        "novabackup.toml:8: schedule.Mine: expected a job name of lower-case letters",
    ),
    ("snapshot = 3", "novabackup.toml:8: schedule.snapshot: expected a time"),
    ('snapshot = { when = "daily", run = ["snapshot", "--tga"] }', "snapshot --tga: Unknown option: --tga"),
    ('name = "A b"', "novabackup.toml:8: schedule.name: expected a name of small letters"),
    ("", "expected a schedule in"),
]


@pytest.mark.parametrize(("line", "said"), MISTAKES)
def test_mistakes_are_found_before_anything_is_installed(cli, store, place, line, said):
    with (place / "novabackup.toml").open("a") as file:
        file.write(f"\n[schedule]\n{line}\n")
    answer = cli("schedule", "install", "--user", "--with", "systemd")
    assert answer.code == 2
    assert said in answer.err
