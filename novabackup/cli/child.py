"""Runs a user's command to its end: streams untouched, signals passed on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from novabackup.cli.exits import CannotStartError, Exit
from novabackup.cli.signals import handling

_CHILD = str(Path(__file__).with_name("_child.py"))
_FROM_KEYBOARD = frozenset({signal.SIGINT, signal.SIGQUIT})
_PASSED_ON = (*_FROM_KEYBOARD, signal.SIGTERM, signal.SIGHUP)


def program_of(command: Sequence[str]) -> str:
    """Return the path of the program that a command names, found as a shell does."""
    found = shutil.which(command[0])
    if found is None:
        there = os.path.sep in command[0] and Path(command[0]).exists()
        raise CannotStartError(
            f"{command[0]}: expected a command, found {'a file that cannot be executed' if there else 'none'}; "
            "nothing was done",
            Exit.NOT_EXECUTABLE if there else Exit.NOT_FOUND,
        )
    return found


def run_to_end(program: str, command: Sequence[str]) -> int:
    """Run a command to its end, however often this process is interrupted: signals are passed on to it.

    Returns its exit code; 128 and the number of the signal that ended it.
    """
    before: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # The terminal sends a typed signal to every process of the group: the command has it already.
        if number in _FROM_KEYBOARD and _in_foreground():
            return
        before.append(number)
        for child in children:
            child.send_signal(number)

    with handling(_PASSED_ON, pass_on):
        arguments = [sys.executable, "-I", "-S", _CHILD, str(os.getpid()), program, *command]
        child = subprocess.Popen(arguments)  # noqa: S603 - the user's own command
        for number in before:  # they came before there was a child
            child.send_signal(number)
        children.append(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


def _in_foreground() -> bool:
    """Return whether this process gets the signals typed on a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
