"""A whole installation comes back by one command, which says what it does, goes on where it stopped, and what to do."""

from __future__ import annotations

import os
import re
import shutil

import pytest

import nova
import trees
from novabackup import Repository
from novabackup.integrations.recovery import RecoveryStep


@pytest.fixture
def snapshot(cli, live, place):
    assert cli("snapshot").code == 0
    return Repository(place / "backups")["latest"]


def test_onto_an_empty_machine(cli, live, snapshot):
    good = trees.contents(live.folder)
    shutil.rmtree(live.folder)
    said = cli("full-recovery")
    assert said.code == 0
    assert trees.contents(live.folder) == good
    assert live.running()
    assert [line[:3] for line in said.err.splitlines()] == [f"{number}/8" for number in range(1, 9)]
    assert re.search(r"^Recovery time: [\d.]+ s \(verify [\d.]+, stop [\d.]+, set aside ", said.out, re.MULTILINE)
    assert "There was no installation before" in said.out


def test_what_is_there_is_set_aside(cli, live, snapshot, place):
    (live.folder / "vector_db/faiss_index.bin").write_bytes(b"garbage")
    broken = trees.contents(live.folder)
    report = cli("full-recovery", "--json").json
    assert report["snapshot"] == snapshot.id
    assert [step["step"] for step in report["steps"]] == [step.value for step in RecoveryStep]
    assert report["seconds"] == pytest.approx(sum(step["seconds"] for step in report["steps"]))
    assert trees.contents(place / report["aside"]) == broken
    assert live.running()


def test_a_dry_run_prints_the_plan_and_does_nothing(cli, live, snapshot, place):
    before = trees.contents(place)
    said = cli("full-recovery", "--dry-run")
    assert (said.code, said.err) == (0, "")
    for step in RecoveryStep:
        assert re.search(rf"^ *\d +{step.value} +\S", said.out, re.MULTILINE), step
    assert "/health says that all is well" in said.out
    assert "/api/ask answers with 'brake'" in said.out
    plan = cli("full-recovery", "--dry-run", "--json").json
    assert (plan["dry_run"], plan["snapshot"], plan["to"]) == (True, snapshot.id, str(live.folder))
    assert all(step["seconds"] is None for step in plan["steps"])
    assert trees.contents(place) == before
    assert live.running()


def test_a_point_in_time_and_another_folder(cli, live, snapshot, place):
    good = trees.contents(live.folder)
    moment = snapshot.time.astimezone().isoformat()
    (live.folder / "config/nova.toml").write_text("port = 1\n")
    cli("snapshot")
    (place / "novabackup.toml").write_text(re.sub(r"(?s)\[service\].*", "", live.configuration))
    said = cli("full-recovery", "--at", moment, "--to", "elsewhere", "--json")
    assert said.code == 0
    assert said.json["snapshot"] == snapshot.id
    assert trees.contents(place / "elsewhere") == good


def test_one_that_failed_names_the_step_and_goes_on_with_it(cli, live, snapshot, place):
    (live.folder / "vector_db/metadata.json").write_text("[]")
    impatient = live.configuration.replace('expect = "brake"', 'expect = "exhaust"')
    (place / "novabackup.toml").write_text(impatient)
    said = cli("full-recovery")
    assert said.code == 7
    assert "the step 'check' of the recovery" in said.err
    assert "Remove the cause, then run the recovery again: it goes on with this step" in said.err
    (place / "novabackup.toml").write_text(live.configuration)
    cli("snapshot")  # a newer snapshot does not lead it astray
    assert "done, " in cli("full-recovery", "--dry-run").out
    said = cli("full-recovery")
    assert said.code == 0
    assert f"a recovery from snapshot {snapshot.id} was begun before and is not finished: this continues it" in said.err
    assert said.err.count("(done before, ") == 7
    assert "8/8 check" in said.err
    assert len(list(place.glob("nova-nic.old.*"))) == 1


def test_another_snapshot_is_refused_while_one_is_not_finished(cli, live, snapshot, place):
    (place / "novabackup.toml").write_text(live.configuration.replace('expect = "brake"', 'expect = "exhaust"'))
    assert cli("full-recovery").code == 7
    newer = cli("snapshot", "--json").json["snapshot"]["id"]
    said = cli("full-recovery", newer)
    assert said.code == 2
    assert f"a recovery from snapshot {snapshot.id} was begun and is not finished" in said.err


def test_damage_in_the_snapshot_is_found_before_anything_is_touched(cli, live, snapshot, place):
    before = trees.contents(live.folder)
    for pack in (place / "backups/packs").rglob("*"):
        if pack.is_file():
            pack.write_bytes(bytes(byte ^ 255 for byte in pack.read_bytes()))
    said = cli("full-recovery", "--json")
    assert said.code == said.error["exit"] == 1
    assert "the step 'verify'" in said.error["message"]
    assert said.error["hint"] == "choose another snapshot: novabackup list"
    assert trees.contents(live.folder) == before
    assert live.running()


def test_the_newest_healthy_snapshot_is_taken_unless_another_is_named(cli, live, snapshot, place):
    (live.folder / "vector_db/metadata.json").write_text("[")
    assert cli("snapshot").code == 1
    said = cli("full-recovery", "--dry-run")
    assert snapshot.id in said.out
    assert "is newer, but its files were damaged already" in said.err
    assert snapshot.id not in cli("full-recovery", "latest", "--dry-run").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["latest", "--at", "2026-01-25"], "expected either a snapshot or --at, found both"),
        (["--to", "."], "the configuration"),
        (["--to", "s3://bucket/nova"], "expected a folder of this host, found a place of s3"),
        (["--owner", "nobody-of-that-name"], "expected an owner that is known on this host"),
        (["--at", "1999-01-01"], "has no snapshot"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(cli, live, snapshot, arguments, said):
    answer = cli("full-recovery", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert live.running()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 130)])
def test_on_a_terminal_it_is_asked_for_first(terminal, live, snapshot, place, answer, code):
    good = nova.contents(live.folder / "vector_db")
    (live.folder / "vector_db/metadata.json").write_text("[]")
    screen = terminal("full-recovery", columns=240)
    screen.child.expect(r"\[y/N\]")
    assert "is renamed" in screen.text
    screen.child.sendline(answer)
    assert screen.end() == code
    assert (nova.contents(live.folder / "vector_db") == good) is (code == 0)
    assert live.running()


def test_commands_of_the_configuration_make_the_environment(cli, live, snapshot, place):
    alone = re.sub(r"(?s)\[service\].*", "", live.configuration)
    recovery = '[recovery]\nto = "opt/nova"\nenvironment = [["touch", "made"]]\n'
    (place / "novabackup.toml").write_text(alone + recovery)
    assert cli("full-recovery").code == 0
    assert (place / "opt/nova/made").exists()


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does_so(terminal, cli, live, snapshot, place):
    os.mkfifo(place / "ready")
    waiting = '[recovery]\nenvironment = [["sh", "-c", "test -e go || { echo > ../ready; exec sleep 600; }"]]\n'
    (place / "novabackup.toml").write_text(f"{live.configuration}\n{waiting}")
    screen = terminal("full-recovery", "--yes", columns=240)
    (place / "ready").read_text()
    screen.child.expect("Creating the environment")
    screen.child.sendintr()
    assert screen.end() == 130
    assert "Hint: to continue where it was, run the same command again" in screen.text
    assert not live.running()
    (live.folder / "go").touch()
    said = cli("full-recovery")
    assert said.code == 0
    assert (said.err.count("(done before, "), said.err.count("(done, ")) == (5, 3)
    assert live.running()
