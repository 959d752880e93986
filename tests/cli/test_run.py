"""`novabackup run` guards any command, whatever becomes of it, of the terminal and of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nova
from novabackup import IndexStore, Repository

AS_USUAL = ("env", "--default-signal=INT,QUIT,HUP")
"""A shell has what it starts in the background ignore what is typed, and tests can be started so."""

BREAK = "echo '[' > vector_db/metadata.json"


def start(*arguments, **options):
    """Start novabackup in a session of its own, without a terminal."""
    return subprocess.Popen(
        [*AS_USUAL, sys.executable, "-m", "novabackup", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def wait_for(path: Path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


@pytest.fixture
def before(store):
    return nova.contents(store)


def test_a_command_that_ends_well_stays(cli, store, before):
    ingest = "import nova, pathlib; nova.ingest(pathlib.Path('vector_db'), nova.texts(2, first=5))"
    tests = str(Path(nova.__file__).parent)
    said = cli("run", "--", sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r}); {ingest}")
    assert said.code == 0, said.err
    assert [report.count for report in IndexStore(store).inspect() if report.count] == [7, 7, 7]
    assert "the index files agree\nTo go back (3 files, " in said.err


def test_a_command_that_fails_is_rolled_back_and_its_code_is_ours(cli, store, before):
    said = cli("run", "--", "sh", "-c", f"{BREAK}; exit 7")
    assert said.code == 7
    assert said.err.startswith("sh ended with 7, so every file was put back to snapshot 2")
    assert nova.contents(store) == before


def test_a_command_that_swallows_its_errors_is_rolled_back_with_4(cli, store, before):
    said = cli("run", "--", "sh", "-c", BREAK)
    assert said.code == 4
    assert "  - damaged (metadata.json): " in said.err
    assert said.err.endswith("Hint: to see what was written: novabackup list --tag failed-ingest\n")
    assert nova.contents(store) == before


def test_streams_are_the_commands_own(store):
    command = ["sh", "-c", 'cat; echo "$1" >&2', "sh", "--json"]
    process = start("run", "--quiet", "--", *command, stdin=subprocess.PIPE)
    assert process.communicate("from outside", timeout=60) == ("from outside", "--json\n")
    assert process.returncode == 0


def test_programs_are_told_on_standard_error(store):
    process = start("run", "--json", "--tag", "nightly", "--", "sh", "-c", "echo mine; exit 3")
    out, err = process.communicate(timeout=60)
    assert out == "mine\n"
    said = json.loads(err)
    assert (said["command_exit"], said["rolled_back"], said["snapshot"]["tags"]) == (3, True, ["nightly"])
    assert process.returncode == 3


@pytest.mark.parametrize("what", [["run"], ["run", "sh", "-c", "true"], ["run", "--"]])
def test_a_command_stands_behind_two_dashes(cli, store, what):
    said = cli(*what)
    assert said.code == 2
    assert "Such as: novabackup run -- python ingest.py" in said.err


def test_a_command_that_is_not_there_costs_no_snapshot(cli, store, place):
    (place / "script").write_text("true")
    assert cli("run", "--", "not-a-command").code == 127
    assert cli("run", "--", "./script").code == 126
    assert not (place / "backups").exists()


def test_the_command_is_found_and_named_as_by_a_shell(store, capfd):
    process = start("run", "-q", "--", "sh", "-c", 'echo "$0 $PPID"; trap')
    out, _err = process.communicate(timeout=60)
    assert out == f"sh {process.pid}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_handed_on_and_rolled_back(store, place, before, number):
    """The command ends by itself, in its own way, and novabackup waits for that."""
    trap = f"trap 'echo tidied up > tidied; exit 9' {signal.Signals(number).name.removeprefix('SIG')}"
    process = start("run", "--", "sh", "-c", f"{trap}; {BREAK}; touch ready; while :; do sleep 0.01; done")
    wait_for(place / "ready")
    process.send_signal(number)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    assert (place / "tidied").exists()
    assert nova.contents(store) == before


def test_a_command_that_a_signal_ends_gives_the_code_that_shells_give(store, before):
    process = start("run", "--", "sh", "-c", f"{BREAK}; kill -USR1 $$")
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    assert nova.contents(store) == before


def test_a_guard_that_is_killed_takes_its_command_along_and_recover_puts_back(cli, store, place, before):
    process = start("run", "--", "sh", "-c", f"{BREAK}; touch ready; exec sleep 600")
    wait_for(place / "ready")
    process.kill()
    process.communicate(timeout=60)  # its streams end when the last process that has them does
    assert nova.contents(store) != before

    said = cli("snapshot")
    assert said.code == 5
    assert said.err.endswith("Hint: once the cause is removed: novabackup recover\n")
    planned = cli("recover", "--dry-run", "--json").json
    assert [(action["step"], action["path"]) for action in planned["actions"]] == [
        ("keep", "bm25_index.pkl"),
        ("keep", "faiss_index.bin"),
        ("write", "metadata.json"),
    ]
    assert nova.contents(store) != before
    done = cli("recover", "--json").json
    assert (done["interrupted"], done["actions"]) == ("block", planned["actions"])
    assert nova.contents(store) == before
    assert Repository(place / "backups")[done["kept"]].tags == ("failed-ingest",)
    assert cli("recover").out.endswith("nothing to recover from\n")


def test_ctrl_c_reaches_the_command_once(terminal, store, place, before):
    """It is typed for both, and novabackup must not hand it on a second time."""
    script = (
        "import signal, time, pathlib\n"
        "caught = []\n"
        "signal.signal(signal.SIGINT, lambda *_: caught.append(1))\n"
        "pathlib.Path('vector_db/metadata.json').write_text('[')\n"
        "print('ready', flush=True)\n"
        "while not caught: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"  # a second one would come within microseconds
        "print('caught', len(caught)); raise SystemExit(5)\n"
    )
    screen = terminal("run", "--", sys.executable, "-c", script)
    screen.child.expect("ready")
    screen.child.sendintr()
    screen.child.expect("caught 1")
    assert screen.end() == 5
    assert "ended with 5, so every file was put back to snapshot" in " ".join(screen.text.split())
    assert nova.contents(store) == before


def test_ctrl_c_ends_a_command_that_does_not_care(terminal, store, before):
    screen = terminal("run", "--", "sh", "-c", f"{BREAK}; echo ready; exec sleep 600")
    screen.child.expect("ready")
    screen.child.sendintr()
    assert screen.end() == 130
    assert nova.contents(store) == before
