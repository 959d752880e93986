"""Runs external commands: without a shell, with a deadline, and without waiting for daemons that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import attrs

from novabackup.errors import ConfigurationError

__all__ = ["Outcome", "arguments", "run"]

_TAIL = 4096
_LINES = 10


@attrs.frozen(kw_only=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Exit status; negative for a signal; None if it could not be started or did not end in time.
        end: The same in words.
        output: The last lines of standard output and standard error.
    """

    status: int | None
    end: str
    output: str = ""

    @property
    def good(self) -> bool:
        """Whether it ended with status 0."""
        return self.status == 0

    def __str__(self) -> str:
        return f"{self.end}; its last lines:\n{self.output}" if self.output else self.end


def arguments(value: Sequence[str]) -> tuple[str, ...]:
    """Check that a command is a list of a program and its arguments, since no shell splits a line.

    Raises:
        ConfigurationError: It is no such list.
    """
    if isinstance(value, str) or not value or not all(isinstance(part, str) and part for part in value[:1]):
        raise ConfigurationError(
            "expected a command as a list such as ['systemctl', 'stop', 'nova-nic'], found "
            f"{'nothing' if not value else type(value).__name__}. No shell is used: for one, write ['sh', '-c', '…']"
        )
    if not all(isinstance(part, str) for part in value):
        raise ConfigurationError(f"{value[0]}: expected arguments that are all text. Write them as str")
    return tuple(value)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Run a command until it ends, in its own session, so that Ctrl-C at the terminal reaches only the caller.

    Args:
        command: Program and arguments.
        timeout: Seconds after which it and its children are killed.
        environment: Its whole environment; by default that of this process.
        folder: Its working directory; by default that of this process.

    Returns:
        How it ended; failures are returned, not raised.
    """
    # A file and not a pipe: a daemon that the command starts would keep a pipe open, so its end would never come.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - what the user configured, without a shell
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(status=None, end=f"it could not be started: {error.strerror or error}")
        try:
            status: int | None = process.wait(timeout)
            end = f"exit status {status}" if process.returncode >= 0 else f"killed by signal {-process.returncode}"
        except subprocess.TimeoutExpired:
            _kill(process)
            status, end = None, f"no end within {timeout:g} s, so it was killed"
        except BaseException:
            _kill(process)
            raise
        return Outcome(status=status, end=end, output=_last_lines(output.fileno()))


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_lines(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode(errors="replace")
    return "\n".join(text.strip().splitlines()[-_LINES:])
