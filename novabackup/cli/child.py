"""A command that somebody else wrote, run to its end: streams untouched, signals handed on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from novabackup.cli.exits import CannotStartError, Exit

__all__ = ["program_of", "run_to_end"]

_BETWEEN = str(Path(__file__).with_name("_child.py"))
_FROM_KEYBOARD = frozenset({signal.SIGINT, signal.SIGQUIT})
_HANDED_ON = (*_FROM_KEYBOARD, signal.SIGTERM, signal.SIGHUP)


def program_of(command: Sequence[str]) -> str:
    """Find the program that a command names, as a shell does.

    Returns:
        Its path.

    Raises:
        CannotStartError: There is none, or it cannot be executed.
    """
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
    """Run a command and wait for it, however often it is interrupted: it is told, and ends by itself.

    Args:
        program: Its path.
        command: Its name and arguments.

    Returns:
        Its exit code; 128 and the number of the signal that ended it.
    """
    with _signals() as (caught, tell):
        arguments = [sys.executable, "-I", "-S", _BETWEEN, str(os.getpid()), program, *command]
        child = subprocess.Popen(arguments)  # noqa: S603 - whatever the user asks for
        for number in caught:
            child.send_signal(number)
        tell.append(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _signals() -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """Hand signals on to children.

    Yields:
        The signals that came before there was a child to tell, and a list for the child.
    """
    caught: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        # The terminal sends what is typed to every process of the group, so the command has got it already.
        if number in _FROM_KEYBOARD and _in_foreground():
            return
        caught.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.getsignal(number) for number in _HANDED_ON}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as nohup asks for; the command is to ignore it, too
                signal.signal(number, hand_on)
        yield caught, children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Tell whether this process gets what is typed on a terminal."""
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
