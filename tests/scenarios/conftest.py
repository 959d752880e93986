"""A machine with a small Nova that runs, which is operated as people do it: by commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fake_nova
import nova
import servers
from novabackup.keys import KeyFile
from said import Said

ROOT = Path(__file__).parents[2]
SERVICE = """
[service]
unit = "nova-nic"

[health]
url = "{url}/health"

[query]
url = "{url}/api/ask"
question = "How do I check brake pads?"
expect = "brake pads"
"""
INDEXES = """
[store]
url = "vector_db"

[repository]
url = "{root}/var/backups/nova-nic"
key = {{ keyfile = "{root}/etc/novabackup.key" }}
"""
INSTALLATION = """
[store]
url = "{root}/opt/nova-nic"
layout = "nova-installation"
include = ["**"]

[repository]
url = "{root}/var/backups/nova-nic"
key = {{ keyfile = "{root}/etc/novabackup.key" }}

[copies.s3]
url = "s3://bucket/nova-nic"
"""


class Machine:
    """A machine that Nova is installed on, with its service, and with somebody who types commands there."""

    def __init__(self, root: Path, port: int, record: Callable[[str, object], None]) -> None:
        self.root = root
        self.folder = root / "opt/nova-nic"
        self.indexes = self.folder / "vector_db"
        self._url = f"http://127.0.0.1:{port}"
        self._record = record
        self.services = fake_nova.commands(self.indexes, port, root.parent / "nova.pid")

    def set_up(self, key: bytes) -> None:
        """Put there what a machine gets before anything is restored: control of services, configuration, key."""
        fake_nova.systemctl(self.root / "bin", self.services)
        for folder in ("etc", "opt"):
            (self.root / folder).mkdir(exist_ok=True)
        (self.root / "etc/novabackup.toml").write_text(self.configuration(INSTALLATION))
        keyfile = self.root / "etc/novabackup.key"
        keyfile.write_bytes(key)
        keyfile.chmod(0o600)

    def configuration(self, text: str) -> str:
        """Put in where things are on this machine."""
        return (text + SERVICE).format(root=self.root, url=self._url)

    def type(self, *command: object, folder: Path | None = None) -> Said:
        """Type a command; ``novabackup`` is that of this source tree."""
        words = [str(word) for word in command]
        if words[0] == "novabackup":
            words[:1] = [sys.executable, "-m", "novabackup"]
        done = subprocess.run(
            words,
            cwd=folder or self.folder,
            env={
                **os.environ,
                "PATH": f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "HOME": str(self.root),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def installation(self, *words: object) -> Said:
        """Type a command that is about the whole installation, wherever the one who types it stands."""
        return self.type("novabackup", *words, "--config", self.root / "etc/novabackup.toml", folder=self.root)

    def restart(self) -> None:
        for verb in ("stop", "start"):
            assert self.type("systemctl", verb, "nova-nic", folder=self.root).code == 0

    def health(self) -> dict:
        return self._answer(f"{self._url}/health")

    def ask(self, question: str) -> str:
        asked = {"data": json.dumps({"query": question}).encode(), "headers": {"Content-Type": "application/json"}}
        return self._answer(urllib.request.Request(f"{self._url}/api/ask", **asked)).get("answer", "")

    def _answer(self, request: str | urllib.request.Request) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    @contextlib.contextmanager
    def recovery(self, *, answers: str) -> Iterator[None]:
        """Time a recovery, from its first command until the service is well and gives an answer that begins so."""
        start = time.monotonic()
        yield
        assert self.health()["status"] == "healthy"
        assert self.ask("How do I check brake pads?").startswith(answers)
        self._record("recovery time", f"{time.monotonic() - start:.1f} s")

    def files(self) -> dict[str, tuple[int, bytes | list[str]]]:
        """Read all files that a backup has, with their permissions; of databases, what is in them."""
        left_out = {".novabackup", ".venv", "nova.log"}
        found = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and not set(path.parts) & left_out]
        return {str(path.relative_to(self.folder)): (path.stat().st_mode, content(path)) for path in found}


def content(path: Path) -> bytes | list[str]:
    if path.suffix != ".db":
        return path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [*database.iterdump()]


@pytest.fixture
def machine(tmp_path, record_property) -> Iterator[Machine]:
    """Install and start a Nova, and take a snapshot of all of it."""
    root = tmp_path / "machine"
    root.mkdir()
    machine = Machine(root, servers.free_port(), record_property)
    KeyFile.generate(tmp_path / "safe")  # where the machine does not burn
    machine.set_up((tmp_path / "safe").read_bytes())
    nova.install(machine.folder, nova.texts(16))
    (machine.folder / "novabackup.toml").write_text(machine.configuration(INDEXES))
    said = machine.installation("snapshot", "--tag", "daily")
    assert said.code == 0, said.err
    machine.restart()
    assert machine.ask("How do I check brake pads?")
    yield machine
    subprocess.run(machine.services["stop"], check=True)


@pytest.fixture
def new_machine(machine, tmp_path) -> Callable[[], Machine]:
    """Give a function that loses the machine, and sets up a new one in its place with nothing on it."""

    def lose() -> Machine:
        subprocess.run(machine.services["stop"], check=True)
        shutil.rmtree(machine.root)
        machine.root.mkdir()
        machine.set_up((tmp_path / "safe").read_bytes())
        return machine

    return lose
