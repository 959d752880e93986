"""The tools that can keep their backups on S3: each has a bucket in place of the folder of its repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from peers import SYNC, Measure, Novabackup, NovabackupFresh, Peer, Restic, run
from s3_servers import KEY, SECRET, Server

RCLONE = Path(sys.executable).with_name("rclone")

_STORING = ("first", "ingest", "unchanged", "restore")


class OnS3(Peer):
    """A bucket for each repository, and what the server was asked by each operation."""

    source: ClassVar[type[Peer]] = Novabackup
    """Who has the local repository that `copy` sends."""

    def __init__(self, home: Path, server: Server, *more: Any):
        self.server = server
        self.bucket = ""
        super().__init__(home, *more)

    def new_bucket(self) -> None:
        """Begin with an empty bucket."""
        if self.bucket:
            self.server.remove(self.bucket)
        self.bucket = self.server.bucket()

    def stored(self) -> int:
        return self.server.stored(self.bucket)

    def backup(self, label: str) -> Measure:
        return self._counted(super().backup, label)

    def restore(self, label: str, to: Path) -> Measure:
        return self._counted(super().restore, label, to)

    def verify(self) -> Measure:
        return self._counted(super().verify)

    def copy(self, source: Peer) -> Measure:
        return self._counted(super().copy, source)

    def copied(self, source: Peer) -> Path:
        """Give the folder that `restore` must give back after a copy."""
        return source.live

    def _counted(self, work: Callable[..., Measure], *arguments: Any) -> Measure:
        before = self.server.traffic()
        measure = work(*arguments)
        added = self.server.traffic().since(before)
        return replace(measure, requests=added.requests, sent=added.sent, received=added.received)


class NovabackupS3(OnS3, Novabackup):
    """novabackup in a running process, with its repository on S3."""

    def reopen(self) -> None:
        self.new_bucket()
        super().reopen()

    def opening(self) -> dict[str, Any]:
        place = {"repository": f"s3://{self.bucket}/repository", "options": self.server.options}
        return super().opening() | place


class NovabackupFreshS3(OnS3, NovabackupFresh):
    """novabackup in a fresh process for each operation, with its repository on S3."""

    def prepare(self, store: Path) -> None:
        super().prepare(store)
        self.new_bucket()

    def opening(self) -> dict[str, Any]:
        place = {"repository": f"s3://{self.bucket}/repository", "options": self.server.options}
        return super().opening() | place


class ResticS3(OnS3, Restic):
    """restic, with its repository on S3."""

    source = Restic

    def environment(self) -> dict[str, str]:
        self.new_bucket()
        place = {"RESTIC_REPOSITORY": f"s3:{self.server.url}/{self.bucket}/repository"}
        return {**super().environment(), **place, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


class _Files(Peer):
    """A tool that makes a folder of the bucket equal to a local one, and the other way round."""

    operations = _STORING
    bucket: str

    def backup(self, label: str) -> Measure:
        """Send what is new or changed to the same place as before: nothing else costs it less."""
        return self._sync(str(self.live), self.place())

    def restore(self, label: str, to: Path) -> Measure:
        (to / "live").mkdir(parents=True)
        return self._sync(self.place(), str(to / "live"), SYNC)

    def copy(self, source: Peer) -> Measure:
        return self._sync(str(source.repository), self.place())

    def place(self) -> str:
        """Name the folder of the bucket as the tool does."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Give the command, which is followed by the two folders."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Give what tells it where the server is."""
        raise NotImplementedError

    def _sync(self, source: str, target: str, *more: Sequence[str]) -> Measure:
        return run([(*self.command(), source, target), *more], self.home, self.environment())[0]


class _FilesOnS3(OnS3, _Files):
    def prepare(self, store: Path) -> None:
        super().prepare(store)
        self.new_bucket()

    def copied(self, source: Peer) -> Path:
        return source.repository


class AwsSync(_FilesOnS3):
    """The usual command of AWS."""

    name = "aws s3 sync"

    def __init__(self, home: Path, server: Server, aws: Path):
        super().__init__(home, server)
        self._aws = aws

    def place(self) -> str:
        return f"s3://{self.bucket}/folder"

    def command(self) -> Sequence[str]:
        return (str(self._aws), "s3", "sync", "--only-show-errors")

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


class RcloneSync(_FilesOnS3):
    """rclone."""

    name = "rclone sync"

    def place(self) -> str:
        return f"bench:{self.bucket}/folder"

    def command(self) -> Sequence[str]:
        return (str(RCLONE), "sync")

    def environment(self) -> dict[str, str]:
        remote = {
            "TYPE": "s3",
            "PROVIDER": self.server.kind,
            "ENDPOINT": self.server.url,
            "ACCESS_KEY_ID": KEY,
            "SECRET_ACCESS_KEY": SECRET,
        }
        settings = {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in remote.items()}
        return {**os.environ, "RCLONE_CONFIG": os.devnull, **settings}


def versions(aws: Path) -> dict[str, str]:
    """Give the versions of the tools that are only measured here."""
    found = {}
    for name, command in {AwsSync.name: (aws, "--version"), RcloneSync.name: (RCLONE, "version")}.items():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name] = re.findall(r"\d+\.[\d.]*\d", said)[0]
    return found
