"""S3 servers on this host that count what is asked of them: Ceph's gateway where it is installed, else moto."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import s3fs
from peers import HERE

KEY, SECRET = "key", "secret"

_PATIENCE = 60.0
"""Seconds in which a server has to answer, and its log to tell of a request."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a server was asked so far.

    Attributes:
        requests: How many requests it answered.
        sent: Bytes of content that clients sent; None if the server does not tell.
        received: Bytes of content that clients received.
    """

    requests: int
    sent: int | None = None
    received: int | None = None

    def since(self, before: Traffic) -> Traffic:
        """Give what was added to an earlier count."""
        return Traffic(
            requests=self.requests - before.requests,
            sent=None if self.sent is None else self.sent - (before.sent or 0),
            received=None if self.received is None else self.received - (before.received or 0),
        )


class Server:
    """An S3 server in processes of its own; what it writes goes to a log in its folder."""

    name = ""
    kind = "Other"
    """What rclone calls it."""

    def __init__(self, home: Path):
        """Start it, and wait until it answers."""
        home.mkdir(parents=True)
        self._home = home
        self._log = home / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("wb") as log:
            # Ends too when this process is killed.
            command = ["setpriv", "--pdeathsig", "TERM", *self._command(port)]
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **self._environment()}, start_new_session=True
            )
        try:
            _wait(lambda: self._answers(port), f"no server at {self.url}, see {self._log}")
        except BaseException:
            self.__exit__()
            raise

    def _command(self, port: int) -> Sequence[str]:
        """Give the command that runs the server in the foreground."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        """Give the environment variables that it needs."""
        return {}

    def _answers(self, port: int) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with {self._process.returncode}: {self._log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def options(self) -> dict[str, Any]:
        """What s3fs needs to talk to it."""
        return {"key": KEY, "secret": SECRET, "endpoint_url": self.url}

    def traffic(self) -> Traffic:
        """Give what it was asked so far."""
        raise NotImplementedError

    def bucket(self) -> str:
        """Make a new bucket."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self._files().call_s3("create_bucket", Bucket=name)
        return name

    def stored(self, bucket: str) -> int:
        """Give the bytes of all objects in a bucket."""
        return sum(info["size"] for info in self._files().find(bucket, detail=True).values())

    def remove(self, bucket: str) -> None:
        """Remove a bucket with all that is in it."""
        self._files().rm(bucket, recursive=True)

    def _files(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(**self.options, skip_instance_cache=True, use_listings_cache=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


class Moto(Server):
    """moto's server, which is written in Python and often slower than its clients."""

    name = "moto's server"

    def _command(self, port: int) -> Sequence[str]:
        return [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]

    def traffic(self) -> Traffic:
        """Count the lines of its log, which say nothing of bytes."""
        return Traffic(requests=self._log.read_bytes().count(b" HTTP/1.1"))  # a quote follows, or a change of colour


class Ceph(Server):
    """A whole Ceph with one radosgw, which keeps everything in memory and writes JSON about each request."""

    name = "Ceph's radosgw, its only OSD in memory"
    kind = "Ceph"

    _PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "setpriv")
    _MEMORY = 32 << 30  # what it may keep, not what it takes

    def __init__(self, home: Path):
        self._requests = home / "requests.log"
        self._read = 0
        self._counted = Traffic(requests=0, sent=0, received=0)
        super().__init__(home)
        self._marks = self.bucket()

    @classmethod
    def is_installed(cls) -> bool:
        """Tell whether all of its programs are there."""
        return all(map(shutil.which, cls._PROGRAMS))

    def _command(self, port: int) -> Sequence[str]:
        script = HERE.parent / "tests" / "radosgw.py"
        return [sys.executable, str(script), str(port), KEY, SECRET, str(self._home / "ceph")]

    def _environment(self) -> dict[str, str]:
        options = {
            "memstore-device-bytes": self._MEMORY,
            "rgw-enable-ops-log": "true",
            "rgw-ops-log-rados": "false",
            "rgw-ops-log-file-path": self._requests,
        }
        return {"CEPH_ARGS": " ".join(f"--{name}={value}" for name, value in options.items())}

    def traffic(self) -> Traffic:
        """Count what its log has by now, which is written a moment after each answer, in their order."""
        mark = uuid.uuid4().hex
        self._files().call_s3("list_objects_v2", Bucket=self._marks, Prefix=mark)
        _wait(lambda: mark.encode() in self._unread(), f"{self._requests} does not tell of a request")
        new = self._unread()
        self._read += len(new)
        mine = [entry for entry in _entries(new.decode()) if entry["bucket"] != self._marks]
        before = self._counted
        self._counted = Traffic(
            requests=before.requests + len(mine),
            sent=(before.sent or 0) + sum(entry["bytes_received"] for entry in mine),
            received=(before.received or 0) + sum(entry["bytes_sent"] for entry in mine),
        )
        return self._counted

    def _unread(self) -> bytes:
        """Give what has not been counted yet, as far as it is complete."""
        if not self._requests.exists():
            return b""
        with self._requests.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        return text[: text.rfind(b"\n") + 1]

    def remove(self, bucket: str) -> None:
        """Remove a bucket, and let go of its memory, which the server would do some hours later."""
        super().remove(bucket)
        command = ["radosgw-admin", "--conf", str(self._home / "ceph" / "ceph.conf"), "gc", "process", "--include-all"]
        subprocess.run(command, check=True, capture_output=True)


def _entries(text: str) -> Iterator[dict[str, Any]]:
    """Take JSON apart that has a line break only after what was written at once."""
    decoder = json.JSONDecoder()
    start = 0
    while start < len(text):
        entry, start = decoder.raw_decode(text, start)
        yield entry
        start += text[start : start + 1] == "\n"


@contextmanager
def line(server: Server, rate: str) -> Iterator[None]:
    """Let what goes to a server and comes from it pass no faster than a network would let it; needs root.

    Args:
        server: On this host.
        rate: As tc writes it, such as ``1gbit``; all other traffic of the host with itself stays as it is.
    """
    port = server.url.rpartition(":")[2]

    def tc(words: str) -> None:
        subprocess.run(["tc", *words.split()], check=True, capture_output=True)

    tc("qdisc add dev lo root handle 1: htb default 1 r2q 10000")
    try:
        tc("class add dev lo parent 1: classid 1:1 htb rate 100gbit burst 10mb cburst 10mb")
        for number, direction in ((10, "dport"), (11, "sport")):
            tc(f"class add dev lo parent 1: classid 1:{number} htb rate {rate} burst 128k cburst 128k")
            wanted = f"match ip {direction} {port} 0xffff flowid 1:{number}"
            tc(f"filter add dev lo parent 1: protocol ip u32 {wanted}")
        yield
    finally:
        tc("qdisc del dev lo root")


def best_server(home: Path) -> Server:
    """Start the server that is least likely to be slower than its clients."""
    return (Ceph if Ceph.is_installed() else Moto)(home)


def _wait(ready: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(complaint)
        time.sleep(0.02)
