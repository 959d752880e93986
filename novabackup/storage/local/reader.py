"""One version of a local file, open for reading: every change of it is noticed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from novabackup.errors import ChangedError
from novabackup.storage.base import Entry, Reader
from novabackup.storage.local.posix import READ, identity_of, pread


class LocalReader(Reader):
    """An open file whose number, size and times are those that it was opened with."""

    def __init__(self, descriptor: int, path: Path, url: str, status: os.stat_result, entry: Entry) -> None:
        """Take charge of a descriptor.

        Args:
            descriptor: Of the open file.
            path: Where it is.
            url: The same, for messages.
            status: What the kernel said of it before anything was read.
            entry: The same, for everybody.
        """
        self.entry = entry
        self._descriptor = descriptor
        self._path = path
        self._url = url
        self._identity = identity_of(status)
        self._files: list[BinaryIO] = []

    def read(self, start: int, length: int) -> bytes:
        """Read a range."""
        if start < 0 or length < 0 or start + length > self.entry.size:
            raise ValueError(f"{self._url}: bytes {start} to {start + length} of {self.entry.size} were asked for")
        return pread(self._descriptor, start, length, self._url)

    def readinto(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer."""
        done = os.preadv(self._descriptor, [buffer], start)
        if done < len(buffer):
            buffer[done:] = self.read(start + done, len(buffer) - done)

    def confirm(self) -> None:
        """Compare number, size and times of the open file, and of what is at its path now."""
        try:
            found = {identity_of(os.fstat(self._descriptor)), identity_of(os.lstat(self._path))}
        except (FileNotFoundError, NotADirectoryError):
            found = {"nothing"}
        if found != {self._identity}:
            raise ChangedError(
                f"{self._url}: expected the version {self._identity!r} that was opened, found "
                f"{', '.join(sorted(found - {self._identity}))!r}. Another process changed it while it was read"
            )

    def file(self) -> BinaryIO:
        """Return the content as a file of its own offset."""
        try:
            descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a system without /proc
            descriptor = os.open(self._path, READ)
        file = os.fdopen(descriptor, "rb")
        self._files.append(file)
        if not os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor)):
            raise ChangedError(f"{self._url}: another process replaced it while it was read")
        return file

    def close(self) -> None:
        """Close the file and those that `file` gave."""
        for file in self._files:
            file.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
