"""Copies an SQLite database that other processes may be writing to, and checks the copy; runs only in a child process.

There are two reasons for the child process. A hostile file can crash SQLite. And SQLite's locks are lost when a process
closes *any* descriptor of the file: a copy taken within the program that uses the database would drop that program's
locks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from typing import Any
from urllib.parse import quote

_TICK_NS = 20_000_000
"""Longer than the resolution of file times."""
_PAUSE = 0.05
_BUSY_WAIT = 0.2
_BESIDE = ("", "-wal", "-journal")
_MOST_FINDINGS = 5
_FOREIGN = ("no such function", "no such collation", "no such module")
"""Errors of SQLite for databases that need extensions: these are missing here, which is no damage."""


def look(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy the database ``source`` to ``copy``, unless there is a copy already, and check it.

    Args:
        arguments: ``source`` (a path, or None), ``copy`` (a path), ``seconds`` to wait for locks.

    Returns:
        ``wrong``: what is wrong with the copy. Instead: ``busy`` if the database stays locked; ``damaged`` if it could
        not be copied, since it is no database.
    """
    source, copy = arguments["source"], arguments["copy"]
    try:
        if source is not None:
            _copy(source, copy, time.monotonic() + arguments["seconds"])
    except TimeoutError as error:
        return {"busy": str(error)}
    except sqlite3.DatabaseError as error:
        if not _name_of(error).startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise
        return {"damaged": str(error)}
    return {"wrong": _check(copy)}


def _copy(source: str, copy: str, deadline: float) -> None:
    while _is_closed(source):
        # Opening it would leave files beside it, and no process is using it.
        if _copy_still(source, copy):
            return
        _wait(deadline)
    try:
        with contextlib.closing(sqlite3.connect(_uri(source, "mode=ro"), uri=True, timeout=_BUSY_WAIT)) as live:
            _back_up(live, copy, deadline)
    except sqlite3.OperationalError as error:
        if not _name_of(error).startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        # A writer died in the middle; only writing can recover its files, so that is done on a copy.
        while not _copy_still(source, f"{copy}.left"):
            _wait(deadline)
        with contextlib.closing(sqlite3.connect(f"{copy}.left")) as left:
            _back_up(left, copy, deadline)


def _is_closed(source: str) -> bool:
    """Return whether a database in WAL mode is not open in any process, or has no content."""
    with open(source, "rb") as file:  # noqa: PTH123 - starts quickly
        head = file.read(20)
    return not head or (head[18:20] == b"\2\2" and not any(os.path.exists(source + end) for end in _BESIDE[1:]))  # noqa: PTH110


def _back_up(live: sqlite3.Connection, copy: str, deadline: float) -> None:
    def check_time(status: int, _left: int, _total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"it is locked (status {status})")

    with contextlib.closing(sqlite3.connect(copy)) as target:
        # Only a copy: if anything goes wrong it is discarded.
        target.execute("PRAGMA journal_mode=OFF")
        target.execute("PRAGMA synchronous=OFF")
        # All pages in one step, so that the copy is one state and no writer can make the backup start over.
        live.backup(target, pages=-1, progress=check_time, sleep=_PAUSE)


def _copy_still(source: str, copy: str) -> bool:
    """Copy a database and the files beside it; return whether they stayed unchanged meanwhile."""
    before = [_state(source + end) for end in _BESIDE]
    if before[0] is None:
        raise FileNotFoundError(source)
    for end in _BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.remove(copy + end)  # noqa: PTH107
        if not end or os.path.exists(source + end):  # noqa: PTH110
            try:
                shutil.copyfile(source + end, copy + end)
            except FileNotFoundError:
                return False
    return before == [_state(source + end) for end in _BESIDE]


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("it changes all the time")
    time.sleep(_PAUSE)


def _name_of(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))


def _state(path: str) -> tuple[int, ...] | None:
    """Return a state that differs after each change of a file; wait until the next change would get a new time."""
    while True:
        try:
            status = os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        if not 0 <= time.time_ns() - status.st_ctime_ns < _TICK_NS:
            return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        time.sleep(_TICK_NS / 1e9)


def _check(copy: str) -> list[str]:
    """Let SQLite check all pages, without running any code in them."""
    try:
        with contextlib.closing(sqlite3.connect(_uri(copy, "mode=ro&immutable=1"), uri=True)) as database:
            for pragma in ("trusted_schema=OFF", "ignore_check_constraints=ON", "cell_size_check=ON"):
                database.execute(f"PRAGMA {pragma}")
            found = [str(row[0]) for row in database.execute(f"PRAGMA quick_check({_MOST_FINDINGS})")]
    except sqlite3.DatabaseError as error:
        return [] if str(error).startswith(_FOREIGN) else [str(error)]
    return [] if found == ["ok"] else found


def _uri(path: str, options: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{options}"
