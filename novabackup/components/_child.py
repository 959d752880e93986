"""Runs a parser of untrusted files in a child process with limits, so that a file can crash only that process."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import attrs

from novabackup.errors import ConfigurationError

__all__ = ["Limits", "Result", "run"]

_HERE = Path(__file__).parent
_CAPTURE = 64 << 10
"""Bytes kept of each output of the child; answers are much shorter, and a hostile child cannot fill the memory."""


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of a child.

    Attributes:
        memory: Address space in bytes.
        seconds: Wall-clock time after which it is killed; its CPU time is limited to the same.
        written: Size in bytes of a file that it writes; by default it cannot write any.
    """

    memory: int
    seconds: float
    written: int = 0


@attrs.frozen(kw_only=True)
class Result:
    """How a child ended.

    Attributes:
        answer: What the script returned; empty if it failed.
        failure: Why there is no answer, for people; None if there is one.
        peak: Peak resident memory in bytes. Linux includes that of the parent at the time of the fork, so this is an
            upper bound.
    """

    answer: Mapping[str, Any]
    failure: str | None
    peak: int


def run(script: str, file: IO[bytes], arguments: Mapping[str, Any], limits: Limits) -> Result:
    """Run a script of this package on a file, in a child process.

    The child gets the file as its standard input and nothing else: a minimal environment, its own session, no core
    dump, no way to write files unless the limits allow it.

    Args:
        script: File name of a script in this package that defines ``look(arguments) -> dict``.
        file: Becomes the standard input of the child.
        arguments: Arguments of ``look``; must be serialisable as JSON.
        limits: Limits of the child.

    Raises:
        ConfigurationError: No child can be started here, or a package that it needs is missing.
        OSError: No process could be started.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        # A frozen program is its own sys.executable: starting that would start the program a second time.
        raise ConfigurationError(
            f"expected sys.executable to name a Python interpreter, found {sys.executable!r}: an embedding program has "
            "to set it, since untrusted files are read in a process of their own"
        )
    request = {
        "script": str(_HERE / script),
        "path": [entry for entry in sys.path if os.path.isabs(entry)],  # noqa: PTH117 - sys.path holds strings
        "arguments": dict(arguments),
        "memory": limits.memory,
        "cpu": int(limits.seconds) + 2,
        "written": limits.written,
    }
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-I", "-S", str(_HERE / "_sandbox.py"), json.dumps(request)],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + limits.seconds
    ended: tuple[int, int] | None = None
    output = errors = b""
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = _collect(process.stdout, process.stderr, deadline)
        ended = _wait(process, deadline)
    finally:
        # Also if the parent is interrupted: no child outlives the call.
        status, peak = ended or _kill(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    if ended is None:
        return Result(answer={}, failure=f"reading it took longer than {limits.seconds:g} seconds", peak=peak)
    return _interpret(status, output, errors, peak)


def _collect(stdout: IO[bytes], stderr: IO[bytes], deadline: float) -> tuple[bytes, bytes]:
    """Read both outputs until both are closed or the deadline has passed."""
    kept = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe in kept:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                block = os.read(key.fd, _CAPTURE)
                if not block:
                    selector.unregister(key.fd)
                # Excess output is still read, or the child would block for ever.
                kept[key.fd] += block[: _CAPTURE - len(kept[key.fd])]
    return bytes(kept[stdout.fileno()]), bytes(kept[stderr.fileno()])


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, int] | None:
    """Wait for a child that has closed its outputs, which need not mean that it ends; None after the deadline."""
    pause = 0.0005
    while time.monotonic() < deadline:
        ended = _reap(process, os.WNOHANG)
        if ended is not None:
            return ended
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return None


def _kill(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Kill a child and all processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return _reap(process, 0) or (0, 0)


def _reap(process: subprocess.Popen[bytes], options: int) -> tuple[int, int] | None:
    """Return exit status (negative: signal) and peak memory in bytes of a child; None while it is running."""
    try:
        pid, status, usage = os.wait4(process.pid, options)
    except ChildProcessError:
        # The embedding program ignores SIGCHLD or reaps all children itself: the status is lost, the answer is not.
        process.returncode = 0
        return 0, 0
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _interpret(status: int, output: bytes, errors: bytes, peak: int) -> Result:
    """Turn exit status and outputs into an answer, or a reason for people."""
    if status == -signal.SIGXCPU:
        return Result(answer={}, failure="reading it took more processor time than allowed", peak=peak)
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        return Result(answer={}, failure=f"the process that read it crashed ({name})", peak=peak)
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    if status or not isinstance(answer, dict):
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:500]
        what = f"the process that read it ended with status {status} and no answer"
        return Result(answer={}, failure=f"{what}: {last}" if last else what, peak=peak)
    if "unavailable" in answer:
        raise ConfigurationError(f"a package that reading the index takes is missing: {answer['unavailable']}")
    return Result(answer=answer, failure=answer.get("error"), peak=peak)
