"""A whole installation comes back onto an empty machine, whatever interrupts it, and nothing that was there is lost."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

import fake_nova
import nova
import servers
import trees
from novabackup import ConfigurationError, IndexStore, Repository, StoreBusyError
from novabackup.components import Files, Tree
from novabackup.integrations.errors import RecoveryError
from novabackup.integrations.probes import HealthCheck, Query
from novabackup.integrations.recovery import FullRecovery, RecoveryStep
from novabackup.integrations.service import Callables, Command

PARTS = [Tree("vector_db"), Tree("config"), Files(".env", optional=True)]


@pytest.fixture
def installation(tmp_path) -> Path:
    folder = tmp_path / "opt" / "nova-nic"
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "nova.toml").write_text("port = 5000\n")
    (folder / ".env").write_text("MODEL=all-MiniLM-L6-v2\n")
    nova.build(folder / "vector_db", nova.texts(20))
    return folder


@pytest.fixture
def snapshot(installation, tmp_path):
    return Repository(tmp_path / "repository").backup(IndexStore(installation, components=PARTS))


@pytest.fixture
def service(installation, tmp_path):
    port = servers.free_port()
    commands = fake_nova.commands(installation / "vector_db", port, tmp_path / "nova.pid")
    made = Command(**commands)
    url = f"http://127.0.0.1:{port}"
    yield (
        made,
        [HealthCheck(f"{url}/health"), Query(f"{url}/api/ask", {"query": "How do I check brake pads?"}, "brake")],
    )
    made.stop()


def test_onto_an_empty_machine(snapshot, installation, service, tmp_path):
    before = trees.contents(installation)
    shutil.rmtree(installation.parent)
    unit, probes = service
    recovery = FullRecovery(snapshot, installation, service=unit, probes=probes)
    told = []
    report = recovery.run(told.append)
    assert trees.contents(installation) == before
    assert unit.running()
    assert [step.step for step in told] == list(RecoveryStep)
    assert report.aside == ""
    assert f"{installation} is recovered from snapshot {snapshot.id}" in str(report)
    assert "there was no installation before" in str(report)
    assert report.seconds == pytest.approx(sum(step.seconds for step in told))
    assert list(installation.parent.iterdir()) == [installation], "no note is left"


def test_in_place_of_a_broken_one_which_is_set_aside(snapshot, installation, service):
    good = trees.contents(installation)
    (installation / "vector_db" / "faiss_index.bin").write_bytes(b"garbage")
    (installation / "written since").write_text("still wanted?")
    broken = trees.contents(installation)
    unit, probes = service
    unit.start()
    report = FullRecovery(snapshot, installation, service=unit, probes=probes).run()
    assert trees.contents(installation) == good
    assert trees.contents(Path(report.aside)) == broken
    assert unit.running()


def test_a_plan_says_what_would_be_done_and_does_nothing(snapshot, installation, tmp_path):
    before = trees.contents(tmp_path)
    stops = []
    service = Callables(stop=lambda: stops.append(1), start=lambda: stops.append(2))
    text = str(FullRecovery(snapshot, installation, service=service, environment=[["make", "venv"]]).plan())
    assert trees.contents(tmp_path) == before
    assert not stops
    for word in ("1. verify", "2. stop", f"{installation} is renamed", "make venv", "8. check", "no probes were named"):
        assert word in text


class Broken(Exception):
    pass


@pytest.mark.parametrize("after", [step for step in RecoveryStep if step is not RecoveryStep.CHECK])
def test_interrupted_after_any_step_it_goes_on_and_does_no_step_twice(snapshot, installation, after):
    good = trees.contents(installation)
    (installation / "vector_db" / "metadata.json").write_text("[]")
    done = []

    def told(report):
        done.append(report.step)
        if report.step is after:
            raise KeyboardInterrupt

    recovery = FullRecovery(snapshot, installation)
    with pytest.raises(KeyboardInterrupt):
        recovery.run(told)
    again = FullRecovery(snapshot, installation)
    assert [step.seconds is not None for step in again.plan().steps] == [step in done for step in RecoveryStep]
    report = again.run(lambda step: done.append(step.step))
    assert done == list(RecoveryStep)
    assert trees.contents(installation) == good
    assert len(list(installation.parent.glob("*.old.*"))) == 1
    assert Path(report.aside, "vector_db", "metadata.json").read_text() == "[]"


@pytest.mark.parametrize("step", ["stop", "start", "check"])
def test_a_step_that_fails_says_so_and_is_done_again(snapshot, installation, step):
    good = trees.contents(installation)
    failing = {step}

    def act(name):
        if name in failing:
            raise Broken("the disk is on fire")

    def recovery():
        service = Callables(stop=lambda: act("stop"), start=lambda: act("start"))
        return FullRecovery(snapshot, installation, service=service, probes=[lambda: act("check")])

    with pytest.raises(
        RecoveryError, match=f"(?s)the step '{step}' .* failed: .*the disk is on fire.* goes on with this step"
    ):
        recovery().run()
    failing.clear()
    recovery().run()
    assert trees.contents(installation) == good


def test_killed_while_it_renames_nothing_is_renamed_twice(snapshot, installation, monkeypatch):
    """Once before and once after the renaming."""
    good = trees.contents(installation)
    rename = Path.rename
    for acts in (False, True):

        def killed(path, target, acts=acts):
            if acts:
                rename(path, target)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Path, "rename", killed)
            FullRecovery(snapshot, installation).run()
        report = FullRecovery(snapshot, installation).run()
        assert trees.contents(Path(report.aside)) == trees.contents(installation) == good
        assert [path.name for path in installation.parent.glob("*.old.*")] == [Path(report.aside).name]
        shutil.rmtree(report.aside)


def test_a_damaged_snapshot_is_found_out_before_anything_is_touched(snapshot, installation, tmp_path):
    before = trees.contents(installation)
    for pack in Path(tmp_path / "repository" / "packs").rglob("*"):
        if pack.is_file():
            pack.write_bytes(pack.read_bytes()[:-1])
    stops = []
    service = Callables(stop=lambda: stops.append(1), start=lambda: None)
    with pytest.raises(RecoveryError, match="the step 'verify'"):
        FullRecovery(Repository(tmp_path / "repository")["latest"], installation, service=service).run()
    assert not stops
    assert trees.contents(installation) == before


def test_another_recovery_that_was_begun_is_not_mixed_up_with_this_one(snapshot, installation, tmp_path):
    repository = Repository(tmp_path / "repository")
    (installation / ".env").write_text("MODEL=another\n")
    other = repository.backup(IndexStore(installation, components=PARTS))
    failing = Callables(stop=lambda: 1 / 0, start=lambda: None)
    with contextlib.suppress(RecoveryError):
        FullRecovery(snapshot, installation, service=failing).run()
    with pytest.raises(ConfigurationError, match=f"from snapshot {snapshot.id} was begun"):
        FullRecovery(other, installation).run()
    note = installation.parent / ".nova-nic.recovery.json"
    note.write_text("{")
    with pytest.raises(ConfigurationError, match="expected a record of a recovery"):
        FullRecovery(snapshot, installation).plan()
    note.rename(tmp_path / "old-note")
    FullRecovery(other, installation).run()


def test_two_at_once_do_not_get_into_each_others_way(snapshot, installation):
    good = trees.contents(installation)
    refused = []

    def told(report):
        with pytest.raises(StoreBusyError, match="found another recovery at work"):
            FullRecovery(snapshot, installation).run()
        refused.append(report.step)

    FullRecovery(snapshot, installation).run(told)
    assert refused == list(RecoveryStep)
    assert trees.contents(installation) == good
    assert [path.name for path in installation.parent.iterdir() if path.name.startswith(".")] == []


def test_a_note_of_another_time_or_of_somebody_else_moves_nothing(snapshot, installation, tmp_path):
    def failing():
        raise Broken

    with contextlib.suppress(RecoveryError):
        FullRecovery(snapshot, installation, probes=[failing]).run()
    note = installation.parent / ".nova-nic.recovery.json"
    shutil.rmtree(installation)
    with pytest.raises(ConfigurationError, match=r"says that .* is restored, and it is not there"):
        FullRecovery(snapshot, installation).run()
    for aside in (tmp_path / "elsewhere", f"{installation}.old.x/../../elsewhere"):
        note.write_text(json.dumps({"snapshot": snapshot.id, "aside": str(aside), "done": {}}))
        with pytest.raises(ConfigurationError, match="expected a record of a recovery"):
            FullRecovery(snapshot, installation).run()


def test_a_password_in_a_command_for_the_environment_is_not_shown(snapshot, installation, caplog):
    url = "https://nova:s3cret@packages.example/simple"
    caplog.set_level("DEBUG")
    recovery = FullRecovery(snapshot, installation, environment=[[sys.executable, "-c", "raise SystemExit(1)", url]])
    assert "https://…@packages.example/simple" in str(recovery.plan())
    with pytest.raises(RecoveryError) as caught:
        recovery.run()
    assert "s3cret" not in f"{recovery.plan()}{caught.value}{caplog.text}"


def test_the_virtual_environment_is_made_anew(installation, tmp_path):
    (installation / "requirements.txt").write_text("")
    parts = [*PARTS, Files("requirements.txt")]
    snapshot = Repository(tmp_path / "repository").backup(IndexStore(installation, components=parts))
    report = FullRecovery(snapshot, installation).run()
    (said,) = (step.says for step in report.steps if step.step is RecoveryStep.ENVIRONMENT)
    assert said.startswith(f"{sys.executable} -m venv")
    assert (installation / ".venv" / "bin" / "python").exists()


def test_a_virtual_environment_that_cannot_be_made_stops_before_the_start(snapshot, installation):
    starts = []
    service = Callables(stop=lambda: None, start=lambda: starts.append(1))
    environment = [[sys.executable, "-c", "raise SystemExit('no matching distribution')"]]
    with pytest.raises(RecoveryError, match="no matching distribution"):
        FullRecovery(snapshot, installation, service=service, environment=environment).run()
    assert not starts


def test_all_files_get_the_owner_and_links_lead_nobody_elsewhere(installation, tmp_path):
    if os.geteuid():
        pytest.skip("needs root")
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    (installation / "config" / "link").symlink_to(outside)
    snapshot = Repository(tmp_path / "repository").backup(IndexStore(installation, components=PARTS))
    user = pwd.getpwnam("nobody")
    FullRecovery(snapshot, installation, owner="nobody").run()
    found = {path.lstat().st_uid for path in [installation, *installation.rglob("*")]}
    assert found == {user.pw_uid}
    assert outside.stat().st_uid == 0
    with pytest.raises(ConfigurationError, match="expected an owner that is known on this host"):
        FullRecovery(snapshot, installation, owner="nobody-of-this-name").run()


def test_no_space_is_noticed_before_anything_is_touched(snapshot, installation, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    before = trees.contents(installation)
    with pytest.raises(RecoveryError, match="bytes of free space, found 1"):
        FullRecovery(snapshot, installation).run()
    assert trees.contents(installation) == before
    assert not (installation.parent / ".nova-nic.recovery.json").exists()
