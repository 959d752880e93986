"""A folder with a small Nova and a configuration, and ways to type commands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pexpect
import pyte
import pytest

import fake_nova
import nova
import servers
from novabackup.cli.main import run
from said import Said

ROOT = Path(__file__).parents[2]
CONFIGURATION = '[store]\nurl = "vector_db"\n\n[repository]\nurl = "backups"\n'


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """Stand in an empty folder, as a user without any settings."""
    for name in ("NOVABACKUP_CONFIG", "NOVABACKUP_STORE", "NOVABACKUP_REPOSITORY", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(folder)
    yield folder
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def store(place) -> Path:
    """A healthy store and a configuration that names it."""
    nova.build(place / "vector_db", nova.texts(5))
    (place / "novabackup.toml").write_text(CONFIGURATION)
    return place / "vector_db"


@pytest.fixture
def cli(capsys):
    """Type a command; it runs in this process."""

    def type_(*arguments: object) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Said(int(code), *capsys.readouterr())

    return type_


class Screen:
    """A terminal with a program in it."""

    def __init__(self, arguments, columns, **environment):
        self._screen = pyte.HistoryScreen(columns, 60, history=1000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.child = pexpect.spawn(
            "env",  # a shell has what it starts in the background ignore what is typed, and tests can be started so
            ["--default-signal=INT,QUIT,HUP", sys.executable, "-m", "novabackup", *map(str, arguments)],
            dimensions=(60, columns),
            env={**os.environ, "TERM": "xterm-256color", **environment},
            timeout=60,
        )
        self.child.logfile_read = self

    def write(self, data):
        self.raw += data
        self._stream.feed(data)

    def flush(self):
        pass

    def end(self) -> int:
        """Wait for the end; give the exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus

    @property
    def text(self) -> str:
        """What can be seen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()


@pytest.fixture
def terminal():
    """Start a command in a terminal."""
    screens = []

    def start(*arguments: object, columns: int = 80, **environment: str) -> Screen:
        screens.append(Screen(arguments, columns, **environment))
        return screens[-1]

    yield start
    for screen in screens:
        screen.child.close(force=True)


@attrs.frozen
class LiveNova:
    """A Nova that serves the store.

    Attributes:
        folder: Of the installation.
        configuration: What a configuration says of it, in TOML.
        running: Tells whether it runs.
    """

    folder: Path
    configuration: str
    running: Callable[[], bool]


@pytest.fixture
def live(place) -> Iterator[LiveNova]:
    """Install a Nova, start it, and write a configuration that knows how to stop it and what to ask it."""
    folder = place / "nova-nic"
    nova.build(folder / "vector_db", nova.texts(10))
    (folder / "config").mkdir()
    (folder / "config/nova.toml").write_text("port = 5000\n")
    port = servers.free_port()
    pid = place / "nova.pid"
    commands = fake_nova.commands(folder / "vector_db", port, pid)
    said = {name: json.dumps(words) for name, words in commands.items()}
    configuration = (
        '[store]\nurl = "nova-nic"\nlayout = "nova-installation"\n\n[repository]\nurl = "backups"\n\n'
        f"[service]\nname = 'nova'\nstop = {said['stop']}\nstart = {said['start']}\nrunning = {said['running']}\n"
        f'\n[health]\nurl = "http://127.0.0.1:{port}/health"\n'
        f'\n[query]\nurl = "http://127.0.0.1:{port}/api/ask"\nquestion = "How do I check brake pads?"\n'
        'expect = "brake"\n'
    )
    (place / "novabackup.toml").write_text(configuration)
    subprocess.run(commands["start"], check=True)
    yield LiveNova(folder, configuration, running=lambda: fake_nova.running(pid))
    subprocess.run(commands["stop"], check=True)
