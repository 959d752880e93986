"""Runs alone, without the package: ties the life of a command to that of novabackup, then becomes the command.

A command that went on writing after its guard was killed would overwrite what `recover` puts back. Linux kills it with
the guard; processes that the command itself has started are beyond reach.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_EXECUTABLE = 126


def _become(guard: int, program: str, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guard:
            os._exit(_NOT_EXECUTABLE)  # it died before prctl
    # Python ignores these two, and the command would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(program, command)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        sys.stderr.write(f"Error: {program} cannot be executed: {error.strerror}\n")
        os._exit(_NOT_EXECUTABLE)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
