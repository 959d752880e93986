"""Who this process is, and whether another one is still alive: known, not guessed."""

from __future__ import annotations

import asyncio
import enum
import os
import secrets
import socket
import threading
from collections.abc import Collection
from pathlib import Path

from novabackup.format.records import Owner

__all__ = ["Life", "life", "myself", "whereabouts"]

_PROC = Path("/proc")
_START_TIME_FIELD = 19
"""Field 22 of ``/proc/<pid>/stat`` (proc(5)), counted after the process name in brackets, which may hold spaces."""


class Life(enum.Enum):
    """What is known of an owner."""

    ALIVE = "alive"
    NESTED = "nested"
    """It is this very thread or task."""
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It is on another host, or in a container that cannot be seen into: only its journal can tell."""


def whereabouts() -> str:
    """Name the thread, and the task if there is one, that calls."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return f"{threading.get_ident()}-{id(task) if task else 0}"


def myself(context: str) -> Owner:
    """Describe this process as the owner of a journal.

    Args:
        context: What `whereabouts` said where the guard was asked for.
    """
    pid = os.getpid()
    return Owner(
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot=_read(_PROC / "sys/kernel/random/boot_id"),
        namespace=_namespace(),
        pid=pid,
        started=_started(pid),
        context=context,
    )


def life(owner: Owner, me: Owner, *, held: Collection[str], lock_is_mine: bool) -> Life:
    """Tell what is known of the owner of a journal.

    Args:
        owner: Who wrote the journal; process 0 for one that has given up.
        me: This process.
        held: Tokens of the journals that this process holds.
        lock_is_mine: The lock that the system takes away from the dead is held by the caller; false where a storage has
            no such lock.
    """
    if owner.pid == 0:
        return Life.DEAD
    same_boot = bool(owner.boot) and owner.boot == me.boot
    if lock_is_mine:
        # Every writer on this host holds that lock while it lives.
        return Life.DEAD if same_boot or owner.host == me.host else Life.UNKNOWN
    if not same_boot or owner.namespace != me.namespace:
        return Life.UNKNOWN
    if (owner.pid, owner.started) == (me.pid, me.started):
        if owner.token not in held:
            return Life.DEAD
        return Life.NESTED if owner.context == me.context else Life.ALIVE
    return Life.ALIVE if _started(owner.pid) == owner.started else Life.DEAD


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Give the start time of a process in clock ticks since boot; -1 if there is none such."""
    fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    if len(fields) <= _START_TIME_FIELD or fields[0] in "ZX":  # a zombie has died, though nobody has noticed yet
        return -1
    return int(fields[_START_TIME_FIELD])
