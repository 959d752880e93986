"""A service is stopped before the work and is back after it, however the work ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import nova
from novabackup import CheckFailedError, snapshot
from novabackup.errors import ConfigurationError
from novabackup.integrations.errors import ServiceError, UnhealthyError
from novabackup.integrations.probes import HealthCheck, Query
from novabackup.integrations.service import Callables, Command, SystemdUnit, stopped

SYSTEMCTL = """
state = Path(__file__).with_name("state")
with Path(__file__).with_name("calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
words = [word for word in sys.argv[1:] if not word.startswith("--")]
verb, unit = words
if verb == "show":
    print("LoadState=" + ("loaded" if unit == "nova-nic" else "not-found"))
    print("ActiveState=" + state.read_text())
elif Path(__file__).with_name(verb + "-fails").exists():
    print(f"Job for {unit}.service failed.", file=sys.stderr)
    sys.exit(1)
else:
    state.write_text({"stop": "inactive", "start": "active"}[verb])
"""


@pytest.fixture
def systemd(script):
    """A systemctl that keeps the state of nova-nic in a file; give the folder that it is in."""
    folder = script("systemctl", SYSTEMCTL).parent
    script("journalctl", "print('nova-nic[42]: no space left on device', *sys.argv[1:])")
    (folder / "state").write_text("active")
    return folder


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def recorder(did: list[str], *, start_fails: Exception | None = None, runs: bool = True) -> Callables:
    def start() -> None:
        did.append("start")
        if start_fails:
            raise start_fails

    return Callables(stop=lambda: did.append("stop"), start=start, running=lambda: runs)


def test_a_unit_is_stopped_for_the_block_and_started_behind_it(systemd):
    with stopped(SystemdUnit("nova-nic")):
        assert (systemd / "state").read_text() == "inactive"
    assert (systemd / "state").read_text() == "active"
    assert calls(systemd) == [
        "show --property=LoadState,ActiveState -- nova-nic",
        "stop -- nova-nic",
        "start -- nova-nic",
    ]


def test_a_users_own_unit_and_one_that_needs_rights(systemd, script):
    script("sudo", "os.execvp(sys.argv[2], sys.argv[2:])")
    with stopped(SystemdUnit("nova-nic", manager="user", systemctl=["sudo", "-n", "systemctl"])):
        pass
    assert calls(systemd)[-1] == "--user start -- nova-nic"


@pytest.mark.parametrize("state", ["inactive", "failed", "deactivating"])
def test_a_unit_that_does_not_run_is_left_alone(systemd, state):
    (systemd / "state").write_text(state)
    with stopped(SystemdUnit("nova-nic")):
        pass
    assert len(calls(systemd)) == 1


def test_a_unit_that_systemd_restarts_again_and_again_is_stopped_too(systemd):
    (systemd / "state").write_text("activating")
    with stopped(SystemdUnit("nova-nic")):
        assert (systemd / "state").read_text() == "inactive"


def test_a_unit_that_is_not_there_is_named_before_anything_is_done(systemd):
    with pytest.raises(ServiceError, match=r"nova-nik: expected a unit of this name"), stopped(SystemdUnit("nova-nik")):
        pytest.fail("the block ran")


def test_the_error_of_a_unit_shows_its_journal(systemd):
    (systemd / "start-fails").touch()
    with pytest.raises(ServiceError) as caught:
        SystemdUnit("nova-nic").start()
    for text in (
        "Job for nova-nic.service failed",
        "exit status 1",
        "no space left on device --no-pager --quiet --lines=10 --unit=nova-nic",
        "Remove the cause, then: systemctl start nova-nic",
    ):
        assert text in str(caught.value)


def test_without_systemd_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="could not be started: No such file"):
        SystemdUnit("nova-nic").running()


@pytest.mark.parametrize("name", ["", "--force", "nova nic", "nova/nic", "a;b"])
def test_only_names_of_units_are_handed_to_systemctl(name):
    with pytest.raises(ConfigurationError, match="name of a systemd unit"):
        SystemdUnit(name)


@pytest.mark.parametrize("raised", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_service_is_started_again_when_the_block_fails(raised):
    did: list[str] = []
    with pytest.raises(type(raised)) as caught, stopped(recorder(did)):
        did.append("block")
        raise raised
    assert caught.value is raised
    assert did == ["stop", "block", "start"]


def test_a_service_is_started_again_when_it_could_be_stopped_only_half():
    did: list[str] = []

    def stop() -> None:
        raise ServiceError("one of two workers does not end")

    service = Callables(stop=stop, start=lambda: did.append("start"))
    with pytest.raises(ServiceError, match="one of two workers"), stopped(service):
        did.append("block")
    assert did == ["start"]


def test_when_the_block_fails_and_the_service_does_not_start_both_are_seen(caplog):
    did: list[str] = []
    service = recorder(did, start_fails=ServiceError("port in use"))
    with pytest.raises(ValueError, match="no embedding") as caught, stopped(service):
        raise ValueError("no embedding")
    assert caught.value.__notes__ == ["Besides, the service is not back: ServiceError: port in use"]
    assert "the service is not back" in caplog.text


def test_a_service_that_does_not_start_is_an_error_after_a_good_block():
    with (
        pytest.raises(ServiceError, match="port in use"),
        stopped(recorder([], start_fails=ServiceError("port in use"))),
    ):
        pass


def test_a_service_that_did_not_run_is_not_started_and_not_probed():
    did: list[str] = []
    with stopped(recorder(did, runs=False), probes=[lambda: did.append("probe")]):
        did.append("block")
    assert did == ["block"]


def test_it_decorates_functions():
    did: list[str] = []

    @stopped(recorder(did))
    def ingest() -> None:
        did.append("ingest")

    ingest()
    assert did == ["stop", "ingest", "start"]


def test_ctrl_c_at_the_terminal_starts_the_service_again_and_hits_none_of_its_commands(tmp_path):
    log = tmp_path / "log"
    program = textwrap.dedent(f"""
        import sys, time
        from novabackup.integrations.service import Command, stopped
        append = "import sys; open({str(log)!r}, 'a').write(sys.argv[1])"
        service = Command(stop=[sys.executable, "-c", append, "stop "], start=[sys.executable, "-c", append, "start "])
        with stopped(service):
            print("in the block", flush=True)
            time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
    with process, process.stdout as output:
        assert output.readline() == b"in the block\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    assert log.read_text() == "stop start "


class TestCommands:
    def test_a_failing_command_is_told_with_its_last_words(self):
        service = Command(stop=["sh", "-c", "echo the reason >&2; exit 3", "--password=secret"], start=["true"])
        with pytest.raises(ServiceError, match=r"(?s)sh: .*exit status 3.*the reason") as caught:
            service.stop()
        assert "secret" not in str(caught.value)

    def test_a_command_that_does_not_end_is_killed_with_its_children(self, tmp_path):
        child = tmp_path / "child"
        stop = ["sh", "-c", f"sleep 600 & echo $! > {child}; wait"]
        with pytest.raises(ServiceError, match=r"no end within 0.5 s"):
            Command(stop=stop, start=["true"], timeout=0.5).stop()
        assert gone(int(child.read_text()))

    def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_command(self, tmp_path):
        child = tmp_path / "child"
        Command(stop=["true"], start=["sh", "-c", f"sleep 600 & echo $! > {child}"]).start()
        os.kill(int(child.read_text()), signal.SIGKILL)  # an error, had it ended before the command did

    def test_only_the_end_of_a_long_output_is_kept(self):
        service = Command(stop=["sh", "-c", "yes noise | head -c 3000000; echo the end; exit 1"], start=["true"])
        with pytest.raises(ServiceError) as caught:
            service.stop()
        assert "the end" in str(caught.value)
        assert len(str(caught.value)) < 1000

    def test_whether_it_runs_is_told_by_a_command_if_there_is_one(self):
        def command(*running: str) -> Command:
            return Command(stop=["true"], start=["true"], running=running or None)

        assert command().running()
        assert command("true").running()
        assert not command("false").running()
        with pytest.raises(ServiceError, match="could not be started"):
            command("/no/such/program").running()

    @pytest.mark.parametrize("line", ["systemctl stop nova", [], [""], ["kill", 3]])
    def test_a_command_is_a_list_of_texts(self, line):
        with pytest.raises(ConfigurationError):
            Command(stop=line, start=["true"])


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


class TestNova:
    """The whole of it, with a server that loads the indexes when it starts."""

    def test_an_ingest_while_the_service_is_stopped_is_served_afterwards(self, folder, store, running_nova):
        ask = Query(f"{running_nova.url}/api/ask", {"query": "gearbox oil"}, "drain the gearbox")
        health = HealthCheck(f"{running_nova.url}/health")
        with pytest.raises(UnhealthyError, match="'drain the gearbox', found HTTP 200"):
            ask()
        with stopped(Command(**running_nova.commands), probes=[health, ask]), snapshot(store):
            nova.ingest(folder, ["Drain the gearbox oil while it is warm."])
        assert health() == {"status": "healthy", "vectors": 21, "documents": 21, "entries": 21}

    def test_a_failed_ingest_is_rolled_back_before_the_service_starts_again(self, folder, store, running_nova):
        before = nova.contents(folder)
        service = Command(**running_nova.commands)
        health = HealthCheck(f"{running_nova.url}/health")
        with pytest.raises(CheckFailedError), stopped(service, probes=[health]), snapshot(store):
            assert not service.running()
            (folder / "metadata.json").write_text("[]")
        assert nova.contents(folder) == before
        assert health()["entries"] == 20

    def test_a_damaged_store_is_seen_by_the_probes(self, folder, running_nova):
        health = HealthCheck(f"{running_nova.url}/health", timeout=0.2, interval=0.05)
        with pytest.raises(UnhealthyError, match=r"HTTP 503.*do not agree"):  # noqa: SIM117
            with stopped(Command(**running_nova.commands), probes=[health]):
                (folder / "metadata.json").write_text("[]")
