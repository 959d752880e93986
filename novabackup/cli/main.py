"""Runs one command line: errors, signals and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cyclopts import CycloptsError

from novabackup.cli.app import app
from novabackup.cli.exits import Exit, exit_of
from novabackup.cli.output import Result, Terminal
from novabackup.cli.signals import handling
from novabackup.errors import ConfigurationError

_BROKEN_PIPE = 128 + signal.SIGPIPE
_END = "--"


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the name of the program; return the exit code."""
    ours = arguments[: arguments.index(_END)] if _END in arguments else arguments
    terminal = Terminal(as_json="--json" in ours, quiet=False)
    debug = "--debug" in ours
    try:
        with handling((signal.SIGTERM, signal.SIGHUP), _end):
            result = _call(ours, arguments)
    except CycloptsError as error:
        chain = " ".join(error.command_chain or ())
        usage = ConfigurationError(str(error).rstrip())
        terminal.error(usage, hint=f"novabackup {chain} --help".replace("  ", " "))
        return Exit.USAGE
    except _SignalledError as error:
        terminal.error(error, message=f"ended by {signal.Signals(error.number).name}", debug=debug)
        return 128 + error.number
    except KeyboardInterrupt as error:
        terminal.error(error, message="interrupted", debug=debug)
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - any error is reported
        code = exit_of(error)
        if code is Exit.BUG:
            terminal.error(
                error,
                message=f"a bug in novabackup: {type(error).__name__}: {error}",
                hint="run it again with --debug, and report what it prints" if not debug else "report what is above",
                debug=debug,
            )
        else:
            terminal.error(error, debug=debug)
        return code
    return _print(result, Terminal(as_json="--json" in ours, quiet="--quiet" in ours or "-q" in ours))


def _call(ours: Sequence[str], arguments: Sequence[str]) -> Result | None:
    if ours[:1] == ["run"] and _END not in arguments and not {"--help", "-h"} & set(ours):
        raise ConfigurationError("expected -- and a command, found none. Such as: novabackup run -- python ingest.py")
    result = app(ours)(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    return result if isinstance(result, Result) else None  # help and version have been printed


def _print(result: Result | None, terminal: Terminal) -> int:
    try:
        if sys.stdout is None:  # closed with `>&-`
            raise OSError(errno.EBADF, "it is closed")
        if result is not None:
            terminal.result(result)
        sys.stdout.flush()
    except OSError as error:
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        if isinstance(error, BrokenPipeError):  # the reader has seen enough, as `head` has
            return _BROKEN_PIPE
        message = f"the command has done its work, but standard output cannot be written: {error.strerror or error}"
        terminal.error(error, message=message)
        return Exit.STORAGE
    return result.exit if result is not None else Exit.OK


class _SignalledError(BaseException):
    """A signal to end: everything is put in order on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, _frame: FrameType | None) -> None:
    """Raise an error that rolls back the work in progress, where the signal would end the process at once."""
    raise _SignalledError(number)
