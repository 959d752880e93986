"""The tools that are compared: one small class for each, all with the same methods.

A peer has a folder of its own with the live store in it (``live``) and the place where its backups go (``repository``).
What it does is measured by the method that does it; what has to be made ready first is not.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
OPERATIONS = ("first", "ingest", "unchanged", "restore", "verify", "rollback")

_WORKER = [sys.executable, str(HERE / "worker.py")]
SYNC = ("sync", "-f", ".")
"""Added to what leaves its files in the page cache, so that all results are as durable as each other."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What an operation cost.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of computing, in the process, its threads and its children.
        memory: Largest resident set of one of its processes, in bytes; None if it was not the only work of its process.
        stored: Bytes in the repository afterwards.
        added: Bytes that the repository grew by.
        requests: Requests to S3; None for local folders.
        sent: Bytes of content sent to S3; None if they were not counted.
        received: Bytes of content received from S3.
    """

    wall: float
    cpu: float
    memory: int | None = None
    stored: int | None = None
    added: int | None = None
    requests: int | None = None
    sent: int | None = None
    received: int | None = None


class CommandError(Exception):
    """A command that was to be measured failed."""


def copy(source: Path, target: Path) -> None:
    """Copy the files of a store in place, as an ingestion writes them: the old files are overwritten, not replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)


def folder_size(folder: Path) -> int:
    """Give the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Child:
    """A process that answers each line with a line, and does not outlive this one."""

    def __init__(self, command: Sequence[str]):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise CommandError(f"{shlex.join(self._process.args)} ended while it was asked {line}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        kill(self._process)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def run(commands: Sequence[Sequence[str]], folder: Path, env: Mapping[str, str] = os.environ) -> tuple[Measure, str]:
    """Run commands one after the other and measure them together.

    Returns:
        What they cost, and what the last of them said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = [_run(command, folder, env) for command in commands]
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measure(wall=wall, cpu=cpu, memory=max(memory for memory, _said in done)), done[-1][1]


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run one command; give its peak memory in bytes and what it said.

    The size that Linux keeps for a process begins with that of the process that started it, so the one in between is
    tiny: /usr/bin/time.
    """
    with subprocess.Popen(
        ["/usr/bin/time", "--quiet", "--format=%M", *command],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complaints = process.communicate()
        except BaseException:
            kill(process)
            raise
    if process.returncode:
        raise CommandError(f"{shlex.join(command)} ended with {process.returncode}: {complaints}")
    return int(complaints.split()[-1]) * 1024, said


class Peer:
    """A tool; its methods are called in the order in which they stand here."""

    name = ""
    operations: tuple[str, ...] = OPERATIONS
    once = False
    """Whether it is so slow that it is measured in the first repetition only."""

    def __init__(self, home: Path):
        self.home = home
        self.live = home / "live"
        self.repository = home / "repository"

    def prepare(self, store: Path) -> None:
        """Make a fresh live store and an empty repository."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        copy(store, self.live)

    def backup(self, label: str) -> Measure:
        """Back the live store up."""
        raise NotImplementedError

    def restore(self, label: str, to: Path) -> Measure:
        """Restore the backup with this label to the folder ``live`` in ``to``, over what may be there."""
        raise NotImplementedError

    def verify(self) -> Measure:
        """Read and check everything that is stored."""
        raise NotImplementedError

    def roll_back(self, label: str, grown: Path) -> Measure:
        """Let the live store become ``grown``; then measure how it goes back to the backup with this label."""
        copy(grown, self.live)
        os.sync()
        return self.restore(label, self.home)

    def prepare_copy(self, source: Peer) -> None:
        """Make an empty repository for a copy of another peer's."""
        self.prepare(source.live)

    def copy(self, source: Peer) -> Measure:
        """Copy all of another peer's repository."""
        raise NotImplementedError

    def stored(self) -> int:
        """Give the bytes in the repository."""
        return folder_size(self.repository)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """End what is running, and remove all files."""
        shutil.rmtree(self.home, ignore_errors=True)


class Novabackup(Peer):
    """novabackup in a process that has been running for a while, as the library is used.

    Its peak memory is that of a fresh process, which does only that operation.
    """

    name = "novabackup"

    def __init__(self, home: Path, warm_up: Path):
        """Start the process and let it do everything once with a tiny store."""
        super().__init__(home)
        self._child = Child(_WORKER)
        self.prepare(warm_up)
        self.backup("warm")
        self.roll_back("warm", warm_up)
        self.restore("warm", home / "elsewhere")
        self.verify()

    def prepare(self, store: Path) -> None:
        super().prepare(store)
        self.reopen()

    def reopen(self) -> None:
        """Begin with a repository object that has seen nothing yet."""
        self._ask(**self.opening())

    def opening(self) -> dict[str, Any]:
        """Give the request that opens the repository."""
        return {"do": "open", "store": str(self.live), "repository": str(self.repository)}

    def backup(self, label: str) -> Measure:
        return self._measure(do="backup", label=label)

    def restore(self, label: str, to: Path) -> Measure:
        return self._measure(do="restore", label=label, to=None if to == self.home else str(to / "live"))

    def verify(self) -> Measure:
        return self._measure(do="verify")

    def roll_back(self, label: str, grown: Path) -> Measure:
        """Raise in a guarded block; its end is measured, which keeps what the block wrote and puts everything back."""
        return self._measure(do="guard", grown=str(grown))

    def copy(self, source: Peer) -> Measure:
        return self._measure(do="copy", source=str(source.repository))

    def list(self) -> Measure:
        """List all snapshots."""
        return self._measure(do="list")

    def __exit__(self, *error: object) -> None:
        self._child.__exit__(*error)
        super().__exit__(*error)

    def _measure(self, **request: Any) -> Measure:
        answer = self._ask(**request)
        return Measure(wall=answer["wall"], cpu=answer["cpu"])

    def _ask(self, **request: Any) -> dict[str, float]:
        return json.loads(self._child.ask(json.dumps(request)))


class NovabackupRestore(Novabackup):
    """novabackup in a running process, going back by a plain ``snap.restore()`` instead of a guard."""

    name = "novabackup restore()"
    operations = ("rollback",)

    def roll_back(self, label: str, grown: Path) -> Measure:
        return Peer.roll_back(self, label, grown)


class NovabackupFresh(Peer):
    """novabackup in a fresh process for each operation; Python, numpy and so on are imported anew each time."""

    name = "novabackup, fresh process"

    def backup(self, label: str) -> Measure:
        return self._measure(do="backup", label=label)[0]

    def restore(self, label: str, to: Path) -> Measure:
        return self._measure(do="restore", label=label, to=None if to == self.home else str(to / "live"))[0]

    def verify(self) -> Measure:
        return self._measure(do="verify")[0]

    def list(self) -> Measure:
        """List all snapshots."""
        return self._measure(do="list")[0]

    def copy(self, source: Peer) -> Measure:
        return self._measure(do="copy", source=str(source.repository))[0]

    def opening(self) -> dict[str, Any]:
        """Give the request that opens the repository."""
        return {"do": "open", "store": str(self.live), "repository": str(self.repository)}

    def _measure(self, **request: Any) -> tuple[Measure, dict[str, float]]:
        cost, said = run([[*_WORKER, json.dumps([self.opening(), request])]], self.home)
        return cost, json.loads(said)


class NovabackupFreshGuard(NovabackupFresh):
    """A fresh process that enters a guard, fails in it, and goes back: for the memory that this takes."""

    name = "novabackup guard, fresh process"
    operations = ("rollback",)

    def roll_back(self, label: str, grown: Path) -> Measure:
        cost, inside = self._measure(do="guard", grown=str(grown))
        return replace(cost, wall=inside["wall"], cpu=inside["cpu"])


class Restic(Peer):
    """restic, with a repository of format 2, which compresses. It cannot do without encryption."""

    name = "restic"

    def prepare(self, store: Path) -> None:
        self._prepare_all_but_repository(store)
        self._restic("init", "--repository-version", "2")

    def prepare_copy(self, source: Peer) -> None:
        self._prepare_all_but_repository(source.live)
        self._env |= {
            "RESTIC_FROM_REPOSITORY": str(source.repository),
            "RESTIC_FROM_PASSWORD_COMMAND": "echo benchmark",
        }
        self._restic("init", "--repository-version", "2", "--copy-chunker-params")

    def _prepare_all_but_repository(self, store: Path) -> None:
        super().prepare(store)
        (self.home / "tmp").mkdir()
        self._env = self.environment()

    def environment(self) -> dict[str, str]:
        """Give what tells restic where everything is."""
        return {
            **os.environ,
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self.home / "cache"),
            "TMPDIR": str(self.home / "tmp"),
        }

    def backup(self, label: str) -> Measure:
        return self._restic("backup", "--tag", label, "live")

    def restore(self, label: str, to: Path) -> Measure:
        restore = ("restic", "--quiet", "restore", "latest", "--tag", label, "--target", str(to))
        return run([restore, SYNC], self.home, self._env)[0]

    def verify(self) -> Measure:
        return self._restic("check", "--read-data")

    def copy(self, source: Peer) -> Measure:
        return self._restic("copy")

    def _restic(self, *arguments: str) -> Measure:
        return run([("restic", "--quiet", *arguments)], self.home, self._env)[0]


class Borg(Peer):
    """borg, without encryption, with its default compression (lz4)."""

    name = "borg"

    def prepare(self, store: Path) -> None:
        super().prepare(store)
        temporary = self.home / "tmp"
        temporary.mkdir()
        self._env = {
            **os.environ,
            "BORG_REPO": str(self.repository),
            "BORG_BASE_DIR": str(self.home / "borg"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "TMPDIR": str(temporary),
        }
        self._borg("init", "--encryption", "none")

    def backup(self, label: str) -> Measure:
        return self._borg("create", f"::{label}", "live")

    def restore(self, label: str, to: Path) -> Measure:
        to.mkdir(exist_ok=True)
        return run([("borg", "extract", f"::{label}"), SYNC], to, self._env)[0]

    def verify(self) -> Measure:
        return self._borg("check", "--verify-data")

    def _borg(self, *arguments: str) -> Measure:
        return run([("borg", *arguments)], self.home, self._env)[0]


class Reference(Peer):
    """The usual shell script: a dated folder with copies and their sums, and an archive of it."""

    name = "cp, tar, sha256sum"
    once = True

    def prepare(self, store: Path) -> None:
        super().prepare(store)
        self.repository.mkdir()
        self._files = sorted(path.name for path in store.iterdir())

    def backup(self, label: str) -> Measure:
        to = self.repository / label
        commands = [
            ("mkdir", str(to)),
            ("cp", *(f"live/{name}" for name in self._files), str(to)),
            ("tar", "-C", str(to), "-czf", f"{to}.tar.gz", *self._files),
            ("sh", "-c", f"cd {shlex.quote(str(to))} && sha256sum {shlex.join(self._files)} > SHA256SUMS"),
            SYNC,
        ]
        return run(commands, self.home)[0]

    def restore(self, label: str, to: Path) -> Measure:
        live = str(to / "live")
        archive = str(self.repository / f"{label}.tar.gz")
        return run([("mkdir", "-p", live), ("tar", "-C", live, "-xzf", archive), SYNC], self.home)[0]

    def verify(self) -> Measure:
        commands: list[Sequence[str]] = []
        for folder in sorted(path for path in self.repository.iterdir() if path.is_dir()):
            commands.append(("sh", "-c", f"cd {shlex.quote(str(folder))} && sha256sum --quiet -c SHA256SUMS"))
            commands.append(("tar", "-tzf", f"{folder}.tar.gz"))
        return run(commands, self.home)[0]


class Copy(Peer):
    """Plain copies that reach the disk: what nothing that copies can beat."""

    name = "cp, sync"
    operations = tuple(operation for operation in OPERATIONS if operation != "verify")

    def prepare(self, store: Path) -> None:
        super().prepare(store)
        self.repository.mkdir()

    def backup(self, label: str) -> Measure:
        return run([("cp", "-r", "live", str(self.repository / label)), SYNC], self.home)[0]

    def restore(self, label: str, to: Path) -> Measure:
        live = str(to / "live")
        commands = [("mkdir", "-p", live), ("cp", "-r", f"{self.repository / label}/.", live), SYNC]
        return run(commands, self.home)[0]
