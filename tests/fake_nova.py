"""A small Nova that really runs: it loads a store when it starts, says whether it is well, and answers by BM25.

As the real one, it keeps what it loaded: files that change later are seen by the next start only. ::

    python tests/fake_nova.py start --store vector_db --port 5000 --pid-file nova.pid     (returns when it listens)
    python tests/fake_nova.py running --pid-file nova.pid                                 (status 0 if it runs)
    python tests/fake_nova.py stop --pid-file nova.pid                                    (returns when it has ended)

``GET /health`` says ``{"status": "healthy", "vectors": 20, "documents": 20, "entries": 20}``, or with HTTP 503
``{"status": "unhealthy", "reason": "…"}``; ``POST /api/ask`` with ``{"query": "…"}`` says
``{"answer": "…", "sources": ["chunk-3"]}``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE = 60.0


class Indexes:
    """What a Nova has in memory."""

    def __init__(self, folder: Path) -> None:
        self.counts: dict[str, int] = {}
        self.reason = ""
        try:
            self._load(folder)
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"

    def _load(self, folder: Path) -> None:
        import faiss

        index = faiss.read_index(str(folder / "faiss_index.bin"))
        with (folder / "bm25_index.pkl").open("rb") as file:
            self.bm25 = pickle.load(file)
        self.entries = json.loads((folder / "metadata.json").read_text())
        self.counts = {"vectors": index.ntotal, "documents": self.bm25.corpus_size, "entries": len(self.entries)}
        if len(set(self.counts.values())) != 1:
            self.reason = "the indexes do not agree"

    def health(self) -> tuple[int, dict[str, object]]:
        if self.reason:
            return 503, {"status": "unhealthy", "reason": self.reason, **self.counts}
        return 200, {"status": "healthy", **self.counts}

    def ask(self, query: str) -> tuple[int, dict[str, object]]:
        if self.reason:
            return 503, {"error": self.reason}
        for split in (str.split, lambda text: re.findall(r"[a-z0-9]+", text)):
            scores = self.bm25.get_scores(split(query.lower()))
            if len(scores) and scores.max() > 0:
                best = self.entries[int(scores.argmax())]
                return 200, {"answer": best["text"], "sources": [best["id"]]}
        return 200, {"answer": "", "sources": []}


class Handler(http.server.BaseHTTPRequestHandler):
    indexes: Indexes

    def do_GET(self) -> None:
        self._answer(*(self.indexes.health() if self.path == "/health" else (404, {"error": "no such page"})))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(
            *(self.indexes.ask(asked["query"]) if self.path == "/api/ask" else (404, {"error": "no such page"}))
        )

    def _answer(self, status: int, said: dict[str, object]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def serve(folder: Path, port: int) -> None:
    Handler.indexes = Indexes(folder)  # before it listens, as the real one
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def start(folder: Path, port: int, pid_file: Path) -> int:
    if running(pid_file):
        return 0
    command = [sys.executable, __file__, "serve", "--store", str(folder.resolve()), "--port", str(port)]
    with pid_file.with_suffix(".log").open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            pid_file.write_text(str(child.pid))
            return 0
        if child.poll() is not None:
            break
        time.sleep(0.02)
    print(f"nova ended with {child.poll()}: {pid_file.with_suffix('.log').read_text()}", file=sys.stderr)
    return 1


def running(pid_file: Path) -> bool:
    try:
        fields = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return False
    return fields[0] not in "ZX"  # one that has ended may wait to be seen by whoever is the parent now


def stop(pid_file: Path) -> int:
    deadline = time.monotonic() + _PATIENCE
    while running(pid_file):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.02)
    pid_file.unlink(missing_ok=True)
    return 0


def commands(folder: Path, port: int, pid_file: Path) -> dict[str, list[str]]:
    """Give the commands that start and stop it and tell whether it runs."""
    own = [sys.executable, __file__]
    pid = ["--pid-file", str(pid_file)]
    return {
        "start": [*own, "start", "--store", str(folder), "--port", str(port), *pid],
        "stop": [*own, "stop", *pid],
        "running": [*own, "running", *pid],
    }


def systemctl(folder: Path, commands: dict[str, list[str]]) -> None:
    """Write a program of that name which controls it, whatever unit it is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "systemctl"
    program.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "*_options, verb, unit = [word for word in sys.argv[1:] if not word.startswith('--')]\n"
        f"done = subprocess.run({commands!r}[verb.replace('show', 'running')])\n"
        "if verb == 'show':\n"
        "    print('LoadState=loaded', 'ActiveState=' + ('inactive' if done.returncode else 'active'), sep='\\n')\n"
        "else:\n"
        "    sys.exit(done.returncode)\n"
    )
    program.chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["start", "stop", "running", "serve"])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--pid-file", type=Path)
    asked = parser.parse_args()
    if asked.what == "serve":
        serve(asked.store, asked.port)
    if asked.what == "start":
        return start(asked.store, asked.port, asked.pid_file)
    if asked.what == "running":
        return 0 if running(asked.pid_file) else 1
    return stop(asked.pid_file)


if __name__ == "__main__":
    sys.exit(main())
