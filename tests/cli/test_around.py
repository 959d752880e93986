"""What the configuration wants around commands: hooks, a service that is stopped and asked, runs remembered."""

from __future__ import annotations

import json
import re

import pytest

import nova
from novabackup import Repository

NOTE = '["sh", "-c", "echo $NOVABACKUP_EVENT $NOVABACKUP_WORK $NOVABACKUP_SNAPSHOT $NOVABACKUP_ERROR >> events"]'
HOOKS = f"[hooks]\nbefore = [{NOTE}]\nsuccess = [{NOTE}]\nfailure = [{NOTE}]\nafter = [{NOTE}]\n"
METRICS = '[metrics]\ntextfile = "nova.prom"\nruns = "runs"\n'


@pytest.fixture
def configured(store, place):
    """Add to the configuration."""

    def add(*tables: str) -> None:
        with (place / "novabackup.toml").open("a") as file:
            file.write("\n" + "\n".join(tables))

    return add


def events(place):
    return (place / "events").read_text().splitlines()


def gauge(place, name, **labels):
    for line in (place / "nova.prom").read_text().splitlines():
        if line.startswith(f"nova_backup_{name}{{") and all(
            f'{key}="{value}"' in line for key, value in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return None


class TestHooks:
    def test_a_snapshot_runs_those_before_for_success_and_after(self, cli, configured, place):
        configured(HOOKS)
        taken = cli("snapshot", "--json").json["snapshot"]["id"]
        assert events(place) == ["before snapshot", f"success snapshot {taken}", f"after snapshot {taken}"]

    @pytest.mark.parametrize("command", ["verify", "drill", "check", "forget", "restore", "copy", "run"])
    def test_other_commands_do_so_too_and_say_which_they_are(self, cli, configured, place, command):
        cli("snapshot")
        configured(HOOKS, '[retention]\nlast = 3\n[copies.usb]\nurl = "usb"\n')
        arguments = {"restore": ["latest"], "copy": ["--to", "usb"], "run": ["--", "true"]}
        drill = Repository(place / "backups")["latest"].id  # there is no older one to choose by chance
        assert cli(command, *arguments.get(command, [drill] if command == "drill" else [])).code == 0
        assert [event.split()[:2] for event in events(place)] == [
            [name, command] for name in ("before", "success", "after")
        ]

    def test_commands_that_are_not_named_have_none(self, cli, configured, place):
        configured(HOOKS + 'during = ["verify"]\n')
        assert cli("snapshot").code == 0
        assert not (place / "events").exists()
        assert cli("verify").code == 0
        assert len(events(place)) == 3

    def test_nothing_is_done_when_one_before_fails(self, cli, configured, place):
        configured(f'[hooks]\nbefore = [["false"]]\nfailure = [{NOTE}]\n')
        said = cli("snapshot")
        assert said.code == 7
        assert "false: expected this hook (before) to succeed, found exit status 1" in said.err
        assert "nothing was done" in said.err
        assert not (place / "backups").exists()
        assert events(place)[0].startswith("failure snapshot HookError: false:")

    def test_one_behind_that_fails_is_told_and_breaks_nothing(self, cli, configured, place):
        configured('[hooks]\nsuccess = [["sh", "-c", "echo no mail today; false"]]\n')
        said = cli("snapshot")
        assert said.code == 0
        assert "Warning: a hook failed" in said.err
        assert "no mail today" in said.err
        assert len(Repository(place / "backups")) == 1

    def test_a_command_that_ends_with_1_has_failed_for_them(self, cli, configured, place, store):
        configured(HOOKS)
        (store / "metadata.json").write_text("[")
        assert cli("snapshot").code == 1
        assert events(place)[1].startswith("failure snapshot 2")
        assert "damaged (metadata.json)" in events(place)[1]

    def test_no_key_of_the_repository_reaches_them(self, cli, configured, place, monkeypatch):
        monkeypatch.setenv("NOVABACKUP_PASSPHRASE", "correct horse")
        configured('[hooks]\nbefore = [["sh", "-c", "env > environment"]]\n')
        assert cli("snapshot").code == 0
        assert "correct horse" not in (place / "environment").read_text()

    def test_a_dry_run_runs_none(self, cli, configured, place):
        cli("snapshot")
        configured(HOOKS, "[retention]\nlast = 3\n")
        for command in (["restore", "latest"], ["forget"], ["prune"]):
            assert cli(*command, "--dry-run").code == 0
        assert not (place / "events").exists()


class TestMetrics:
    def test_each_run_is_remembered_and_handed_over(self, cli, configured, place, store):
        configured(METRICS)
        assert cli("snapshot").code == 0
        assert gauge(place, "success", store=store) == 1
        assert gauge(place, "run_success", kind="backup") == 1
        assert cli("verify").code == 0
        assert gauge(place, "run_success", kind="verify", store=store) == 1

    def test_an_attempt_that_fails_shows_though_it_leaves_no_snapshot(self, cli, configured, place, store):
        configured(METRICS)
        cli("snapshot")
        good = gauge(place, "timestamp")
        (store / "faiss_index.bin").unlink()
        (store / "faiss_index.bin").mkdir()
        (place / "backups/config.json").write_text("not ours")
        assert cli("snapshot").code != 0
        assert gauge(place, "run_success", kind="backup") == 0
        assert good is not None

    def test_a_snapshot_of_a_broken_store_is_a_backup_and_no_failure(self, cli, configured, place, store):
        configured(METRICS)
        (store / "metadata.json").write_text("[")
        assert cli("snapshot").code == 1
        assert gauge(place, "success") == 1
        assert gauge(place, "problems") >= 1

    def test_damage_that_a_verification_finds_is_a_failure(self, cli, configured, place):
        configured(METRICS)
        cli("snapshot")
        for pack in (place / "backups/packs").rglob("*"):
            if pack.is_file():
                pack.write_bytes(bytes(byte ^ 255 for byte in pack.read_bytes()))
        assert cli("verify").code == 1
        assert gauge(place, "run_success", kind="verify") == 0

    def test_metrics_go_where_the_configuration_says(self, cli, configured, place):
        configured(METRICS)
        cli("snapshot")
        (place / "nova.prom").unlink()
        assert cli("metrics").out.endswith("metrics are handed over\n")
        assert gauge(place, "run_success", kind="backup") == 1
        assert "nova_backup_run_success{" in cli("metrics", "--print").out
        assert cli("metrics", "--print", "--textfile", "x.prom").code == 2

    def test_a_pushgateway_that_is_gone_breaks_no_backup(self, cli, configured, place):
        configured('[metrics]\npush = "http://127.0.0.1:1"\n')
        said = cli("snapshot")
        assert said.code == 0
        assert "did not take the metrics" in said.err
        assert (place.parent / "state/novabackup/runs").is_dir()


class TestService:
    def test_it_is_stopped_for_a_restore_started_and_asked_afterwards(self, cli, live, place):
        good = nova.contents(live.folder / "vector_db")
        cli("snapshot")
        (live.folder / "vector_db/metadata.json").write_text("[]")
        before = (place / "nova.pid").read_text()
        said = cli("restore", "latest")
        assert said.code == 0
        said_so = ["nova is stopped", "nova is started again", "/health says that all is well", "/api/ask answers with"]
        assert all(words in line for words, line in zip(said_so, said.err.splitlines(), strict=True)), said.err
        assert live.running()
        assert (place / "nova.pid").read_text() != before
        assert nova.contents(live.folder / "vector_db") == good

    def test_it_goes_on_during_other_commands_and_a_restore_to_another_folder(self, cli, live, place):
        broken = live.configuration.replace('stop = ["', 'stop = ["/no/such/program", "')
        (place / "novabackup.toml").write_text(broken)
        for command in (["snapshot"], ["verify"], ["restore", "latest", "--to", "elsewhere"]):
            assert cli(*command).code == 0
        said = cli("restore", "latest")
        assert said.code == 7
        assert "/no/such/program: expected this command to stop the service" in said.err

    def test_one_that_is_not_well_afterwards_is_told_with_a_code_of_its_own(self, cli, live, place):
        (live.folder / "vector_db/metadata.json").write_text("[]")
        cli("snapshot")
        impatient = live.configuration.replace("[health]\n", "[health]\ntimeout = 0.3\ninterval = 0.1\n")
        (place / "novabackup.toml").write_text(impatient)
        said = cli("restore", "latest", "--json")
        assert said.code == said.error["exit"] == 7
        assert said.error["kind"] == "UnhealthyError"
        assert "the indexes do not agree" in said.error["message"]
        assert f"only the service is not as it should be: {live.folder} is at snapshot" in said.error["hint"]

    def test_it_is_down_while_a_guarded_command_runs_and_back_when_that_has_failed(self, cli, live, place):
        configuration = live.configuration.replace("[service]\n", '[service]\nduring = ["run"]\n')
        configuration = configuration.replace("nova-installation", "nova").replace('"nova-nic"', '"nova-nic/vector_db"')
        (place / "novabackup.toml").write_text(configuration)
        breaking = "ls nova.pid; echo '[' > nova-nic/vector_db/metadata.json; exit 3"
        said = cli("run", "--", "sh", "-c", f"({breaking}) 2> seen; exit 3")
        assert said.code == 3
        assert "No such file" in (place / "seen").read_text()
        assert live.running()
        assert json.loads((live.folder / "vector_db/metadata.json").read_text())

    def test_that_it_does_not_start_again_is_said_beside_the_error(self, cli, live, place):
        configuration = re.sub(r"start = \[[^]]*\]", 'start = ["/no/such/program"]', live.configuration)
        configuration = configuration.replace("[service]\n", '[service]\nduring = ["snapshot"]\n')
        (place / "novabackup.toml").write_text(configuration)
        (place / "backups").mkdir()
        (place / "backups/config.json").write_text("of somebody else")
        said = cli("snapshot")
        assert said.code not in (0, 7)
        assert "config.json" in said.err
        assert "Besides, nova is not back: ServiceError" in said.err
        assert "Hint: Besides" not in said.err
