"""A Nova that serves the store, and other programs and servers around it."""

from __future__ import annotations

import http.server
import stat
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

import fake_nova
import servers


@attrs.frozen
class RunningNova:
    commands: dict[str, list[str]]
    url: str


@pytest.fixture
def running_nova(folder, tmp_path):
    """A Nova that serves the store; give its commands and its URL."""
    port = servers.free_port()
    commands = fake_nova.commands(folder, port, tmp_path / "nova.pid")
    subprocess.run(commands["start"], check=True)
    yield RunningNova(commands, f"http://127.0.0.1:{port}")
    subprocess.run(commands["stop"], check=True)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write programs in Python into a folder that comes first on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    def write(name: str, text: str) -> Path:
        path = programs / name
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys\nfrom pathlib import Path\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


@pytest.fixture
def answering():
    """Start servers that answer each request by a function of the handler; give their URLs."""
    started = []

    def start(answer) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            do_POST = do_PUT = do_GET

            def log_message(self, *_arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()
