"""A temporary folder for a trial restore: checks for enough space, and is always removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from novabackup._support.html import size as readable

__all__ = ["scratch"]

_LOG = logging.getLogger("novabackup")

_PREFIX = "novabackup-trial-"
_LOCK = "lock"
_SPARE = 16 << 20
"""Bytes in addition to the files: folders, the journal, output of the user's command."""


@contextlib.contextmanager
def scratch(parent: str | os.PathLike[str] | None, size: int) -> Iterator[Path]:
    """Create a folder that is removed at the end; remove those that killed processes left in the same place.

    Args:
        parent: Where to create it; by default the system's folder for temporary files.
        size: Bytes that will be written there.

    Yields:
        A path in it that does not exist yet.

    Raises:
        OSError: There is not enough space (``ENOSPC``), or the folder cannot be written to.
    """
    folder = Path(parent if parent is not None else tempfile.gettempdir())
    _sweep(folder)
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise OSError(
            errno.ENOSPC,
            f"expected room for {readable(size + _SPARE)} to restore to, found {readable(free)}. Free some, or "
            "name another folder with folder=",
            str(folder),
        )
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as made, (Path(made) / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(made) / "store"


def _sweep(parent: Path) -> None:
    """Remove folders of dead processes: a running process holds the lock in its own."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(folder.lstat().st_mode):
                continue
            with (folder / _LOCK).open("r+") as lock:  # one without a lock is just being created
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _LOG.warning("%s was left by a process that was killed: removing it", folder)
                for inner, _folders, _files in os.walk(folder):
                    Path(inner).chmod(0o700)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
