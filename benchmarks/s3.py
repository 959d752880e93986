"""The tools that can keep their repository on S3, and a server that counts what they ask of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import s3fs
from peers import Measure, Novabackup, Restic

_KEY, _SECRET = "key", "secret"


class Server:
    """moto's S3 server in a process of its own on this host; it writes one line for each request."""

    def __init__(self, home: Path):
        home.mkdir(parents=True)
        self._log = home / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(f"no server at {self.url}: {self._log.read_text()}")

    @property
    def options(self) -> dict[str, Any]:
        """What s3fs needs to talk to it."""
        return {"key": _KEY, "secret": _SECRET, "endpoint_url": self.url}

    def requests(self) -> int:
        """Give how many requests it has answered."""
        return self._log.read_bytes().count(b" HTTP/1.1")  # a quote follows, or a change of colour

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
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()


class _OnS3:
    """A bucket in place of the folder of the repository, and the requests of each operation."""

    server: Server
    bucket = ""

    def stored(self) -> int:
        return self.server.stored(self.bucket)

    def new_bucket(self) -> None:
        if self.bucket:
            self.server.remove(self.bucket)
        self.bucket = self.server.bucket()

    def backup(self, label: str) -> Measure:
        return self._counted(super().backup, label)

    def restore(self, label: str, to: Path) -> Measure:
        return self._counted(super().restore, label, to)

    def verify(self) -> Measure:
        return self._counted(super().verify)

    def _counted(self, work: Any, *arguments: Any) -> Measure:
        before = self.server.requests()
        measure = work(*arguments)
        return replace(measure, requests=self.server.requests() - before)


class NovabackupS3(_OnS3, Novabackup):
    """novabackup in a running process, with its repository on S3."""

    def __init__(self, home: Path, warm_up: Path, server: Server):
        self.server = server
        super().__init__(home, warm_up)

    def reopen(self) -> None:
        self.new_bucket()
        url = f"s3://{self.bucket}/repository"
        self._ask(do="open", store=str(self.live), repository=url, options=self.server.options)


class ResticS3(_OnS3, Restic):
    """restic, with its repository on S3."""

    def __init__(self, home: Path, server: Server):
        self.server = server
        super().__init__(home)

    def environment(self) -> dict[str, str]:
        self.new_bucket()
        place = {"RESTIC_REPOSITORY": f"s3:{self.server.url}/{self.bucket}/repository"}
        return {**super().environment(), **place, "AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _SECRET}
