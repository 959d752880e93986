"""A folder for a restore on trial: room for it is checked first, and it goes away whatever happens."""

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

from novabackup._support import html as _html

__all__ = ["scratch"]

_LOG = logging.getLogger("novabackup")

_PREFIX = "novabackup-trial-"
_LOCK = "lock"
_SPARE = 16 << 20
"""Bytes beside those of the files: folders, the journal, what a command of the user's may write."""


@contextlib.contextmanager
def scratch(parent: str | os.PathLike[str] | None, size: int) -> Iterator[Path]:
    """Make a folder that is removed at the end, and remove those that killed processes left beside it.

    Args:
        parent: In which folder; by default the system's for temporary files.
        size: Bytes that will go there.

    Yields:
        Its path; nothing is there yet.

    Raises:
        OSError: There is not enough room (``ENOSPC``), or the folder cannot be written to.
    """
    folder = Path(parent if parent is not None else tempfile.gettempdir())
    _sweep(folder)
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE:
        raise OSError(
            errno.ENOSPC,
            f"expected room for {_html.size(size + _SPARE)} to restore to, found {_html.size(free)}. Free some, or "
            "name another folder with folder=",
            str(folder),
        )
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as made, (Path(made) / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(made) / "store"


def _sweep(parent: Path) -> None:
    """Remove folders whose process is dead: a living one holds the lock in its own."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if folder.lstat().st_uid != os.geteuid() or not stat.S_ISDIR(folder.lstat().st_mode):
                continue
            with (folder / _LOCK).open("r+") as lock:  # one without a lock is being made just now
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _LOG.warning("%s was left by a process that was killed: it is removed", folder)
                for inner, _folders, _files in os.walk(folder):
                    Path(inner).chmod(0o700)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
