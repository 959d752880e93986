"""Recovers a whole installation, on an empty machine or in place of a broken one, in steps that can be resumed.

The finished steps are recorded in a file beside the folder of the installation. So a recovery that was interrupted, or
that failed at a step whose cause has been removed, resumes there when it is run again.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import grp
import json
import logging
import os
import pwd
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support import commands
from novabackup.errors import ConfigurationError, StoreBusyError
from novabackup.integrations._about import told, without_secrets
from novabackup.integrations.errors import RecoveryError
from novabackup.integrations.service import Service
from novabackup.repository.snapshot import Snapshot
from novabackup.storage import open_storage

__all__ = ["FullRecovery", "RecoveryPlan", "RecoveryReport", "RecoveryStep", "StepReport", "unfinished"]

_LOG = logging.getLogger("novabackup")

_REQUIREMENTS = "requirements.txt"
_ENVIRONMENT_SECONDS = 3600.0
_TIME = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_SPARE = 1.05
"""Free space required, as a multiple of the snapshot's size: folders and metadata of a file system take some."""


class RecoveryStep(enum.StrEnum):
    """The steps, in order."""

    VERIFY = "verify"
    """Every byte of the snapshot is read and checked, before anything is touched."""
    STOP = "stop"
    SET_ASIDE = "set aside"
    """An existing folder is renamed, never deleted."""
    RESTORE = "restore"
    OWNER = "owner"
    ENVIRONMENT = "environment"
    """The virtual environment is created again, since backups do not contain it."""
    START = "start"
    CHECK = "check"
    """The health of the service and its answers are checked."""


@attrs.frozen(kw_only=True)
class StepReport:
    """The state of one step.

    Attributes:
        step: The step.
        says: What it does.
        seconds: How long it took; None if it has not been done.
    """

    step: RecoveryStep
    says: str
    seconds: float | None = None


@attrs.frozen(kw_only=True)
class RecoveryPlan:
    """What a recovery would do.

    Attributes:
        snapshot: Id of the snapshot.
        to: Folder of the installation.
        steps: Each step; those with seconds were done by an earlier, interrupted run.
    """

    snapshot: str
    to: str
    steps: tuple[StepReport, ...]

    def __str__(self) -> str:
        return "\n".join(
            [f"recovery of {self.to} from snapshot {self.snapshot}", *_lines(self.steps, " [is done already]")]
        )


@attrs.frozen(kw_only=True)
class RecoveryReport:
    """What a recovery did.

    Attributes:
        snapshot: Id of the snapshot.
        taken: When the snapshot was taken: later changes are lost.
        to: Folder of the installation.
        aside: Where the former installation is now; empty if there was none.
        steps: Each step and how long it took, over all runs.
    """

    snapshot: str
    taken: datetime
    to: str
    aside: str
    steps: tuple[StepReport, ...]

    @property
    def seconds(self) -> float:
        """How long all steps took together."""
        return sum(step.seconds or 0.0 for step in self.steps)

    def __str__(self) -> str:
        before = f"the former installation is {self.aside}" if self.aside else "there was no installation before"
        return "\n".join(
            [
                f"{self.to} is recovered from snapshot {self.snapshot} of {self.taken:%Y-%m-%d %H:%M:%S} UTC",
                *_lines(self.steps, " [{:.1f} s]"),
                f"recovery time {self.seconds:.1f} s; {before}",
            ]
        )


def _lines(steps: Sequence[StepReport], done: str) -> list[str]:
    return [
        f"  {number}. {step.step:<11} {step.says}" + ("" if step.seconds is None else done.format(step.seconds))
        for number, step in enumerate(steps, 1)
    ]


@attrs.frozen(kw_only=True)
class _State:
    """The content of the file beside the installation."""

    snapshot: str
    aside: str = ""
    done: Mapping[str, float] = attrs.field(factory=dict)


class FullRecovery:
    """The recovery of one installation from one snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        to: str | os.PathLike[str],
        *,
        service: Service | None = None,
        owner: str = "",
        environment: Sequence[Sequence[str]] | None = None,
        probes: Sequence[Callable[[], object]] = (),
        callback: Callback = DEFAULT_CALLBACK,
    ) -> None:
        """Describe the recovery; nothing is touched yet.

        Args:
            snapshot: A snapshot of the whole installation.
            to: Folder of the installation on this host.
            service: Service to stop before and start after; by default none.
            owner: ``user`` or ``user:group`` that will own all files; by default the owners in the snapshot.
            environment: Commands, run in the folder, that create the virtual environment; by default ``.venv`` with
                the packages in ``requirements.txt``, if the snapshot has that file.
            probes: Called once the service runs, such as a `HealthCheck` and a `Query`.
            callback: Progress in bytes verified and written (an fsspec callback).
        """
        self._snapshot = snapshot
        self._to = Path(to).absolute()
        self._service = service
        self._owner = owner
        self._commands = [commands.arguments(command) for command in self._environment(environment)]
        self._probes = tuple(probes)
        self._callback = callback
        if self._to.parent == self._to:
            raise ConfigurationError(f"expected a folder for the installation, found {self._to}")

    def _environment(self, commands: Sequence[Sequence[str]] | None) -> Sequence[Sequence[str]]:
        if commands is not None:
            return commands
        if _REQUIREMENTS not in self._snapshot.files:
            return ()
        python = str(self._to / ".venv/bin/python")
        return (
            [sys.executable, "-m", "venv", "--clear", str(self._to / ".venv")],
            [python, "-m", "pip", "install", "--quiet", "--requirement", str(self._to / _REQUIREMENTS)],
        )

    # -- the plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> RecoveryPlan:
        """Plan the recovery; change nothing.

        Raises:
            ConfigurationError: Another recovery of this folder is unfinished, or the owner is not known on this host.
        """
        state = self._read()
        return RecoveryPlan(snapshot=self._snapshot.id, to=str(self._to), steps=self._steps(state))

    def _steps(self, state: _State) -> tuple[StepReport, ...]:
        return tuple(
            StepReport(step=step, says=self._says(step, state), seconds=state.done.get(step)) for step in RecoveryStep
        )

    def _says(self, step: RecoveryStep, state: _State) -> str:
        service = self._service.name if self._service else "no service was named"
        if state.aside:
            aside = f"{self._to} becomes {state.aside}"
        else:
            aside = f"{self._to} is renamed" if os.path.lexists(self._to) else "nothing is there"
        return {
            RecoveryStep.VERIFY: f"{len(self._snapshot.files)} files, {self._snapshot.size:,} bytes",
            RecoveryStep.STOP: service,
            RecoveryStep.SET_ASIDE: aside,
            RecoveryStep.RESTORE: f"to {self._to}",
            RecoveryStep.OWNER: _owner_says(self._owner),
            RecoveryStep.ENVIRONMENT: "; ".join(map(_shown, self._commands)) or f"there is no {_REQUIREMENTS}",
            RecoveryStep.START: service,
            RecoveryStep.CHECK: ", ".join(map(str, self._probes)) or "no probes were named",
        }[step]

    # -- the work ----------------------------------------------------------------------------------------------------

    def run(self, told_of: Callable[[StepReport], object] = lambda report: None) -> RecoveryReport:
        """Recover, or resume where an earlier run was interrupted.

        Args:
            told_of: Called with each step when it has been done.

        Returns:
            What was done.

        Raises:
            RecoveryError: A step failed; the message says which, and what to do. Running it again resumes there.
            ConfigurationError: Another recovery of this folder is unfinished, or the owner is not known on this host.
            StoreBusyError: Another process is recovering this folder now.
        """
        with _alone(self._to):
            return self._run(told_of)

    def _run(self, told_of: Callable[[StepReport], object]) -> RecoveryReport:
        state = self._read()
        for step in RecoveryStep:
            if step in state.done:
                continue
            says = self._says(step, state)
            start = time.monotonic()
            try:
                state = self._do(step, state)
            except Exception as error:
                raise RecoveryError(
                    f"{self._to}: the step {step.value!r} of the recovery from snapshot {self._snapshot.id} failed: "
                    f"{told(error)}\nRemove the cause, then run the recovery again: it goes on with this step"
                    + (f". The former installation is {state.aside}" if state.aside else "")
                ) from error
            seconds = time.monotonic() - start
            state = attrs.evolve(state, done={**state.done, step.value: seconds})
            self._write(state)
            _LOG.info("%s: %s, %s, %.1f s", self._to, step.value, says, seconds)
            told_of(StepReport(step=step, says=says, seconds=seconds))
        report = RecoveryReport(
            snapshot=self._snapshot.id,
            taken=self._snapshot.time,
            to=str(self._to),
            aside=state.aside,
            steps=self._steps(state),
        )
        open_storage(self._to.parent).delete(_note(self._to))
        return report

    def _do(self, step: RecoveryStep, state: _State) -> _State:
        if step is RecoveryStep.VERIFY:
            self._room()
            self._snapshot.verify(callback=self._callback)
        elif step is RecoveryStep.STOP and self._service:
            self._service.stop()
        elif step is RecoveryStep.SET_ASIDE:
            return self._set_aside(state)
        elif step is RecoveryStep.RESTORE:
            self._snapshot.restore(to=self._to, callback=self._callback)
        elif step is RecoveryStep.OWNER and self._owner and os.geteuid() == 0:
            _give(self._to, *_ids(self._owner))
        elif step is RecoveryStep.ENVIRONMENT:
            self._make_environment()
        elif step is RecoveryStep.START and self._service:
            self._service.start()
        elif step is RecoveryStep.CHECK:
            for probe in self._probes:
                probe()
        return state

    def _room(self) -> None:
        there = next(folder for folder in (self._to, *self._to.parents) if folder.is_dir())
        free, needed = shutil.disk_usage(there).free, int(self._snapshot.size * _SPARE)
        if free < needed:
            raise ConfigurationError(f"{there}: expected {needed} bytes of free space, found {free}. Make room")

    def _set_aside(self, state: _State) -> _State:
        if not state.aside:
            if not os.path.lexists(self._to):
                return state
            name = f"{self._to}.old.{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            if os.path.lexists(name):
                raise FileExistsError(f"{name} is there already: wait a second")
            state = attrs.evolve(state, aside=name)
            self._write(state)  # before it is renamed, so that a resumed run knows where it is
        if not os.path.lexists(state.aside):
            self._to.rename(state.aside)
        return state

    def _make_environment(self) -> None:
        for command in self._commands:
            outcome = commands.run(command, timeout=_ENVIRONMENT_SECONDS, folder=self._to)
            if not outcome.good:
                raise RecoveryError(f"{_shown(command)}: expected it to succeed, found {outcome}")

    # -- the note ----------------------------------------------------------------------------------------------------

    def _read(self) -> _State:
        if self._owner:
            _ids(self._owner)  # refused before anything is done
        state = _noted(self._to)
        if state is None:
            return _State(snapshot=self._snapshot.id)
        if state.snapshot != self._snapshot.id:
            raise ConfigurationError(
                f"{self._to.parent / _note(self._to)}: a recovery from snapshot {state.snapshot} was begun and is not "
                f"finished. Run that one to its end, or rename this file to start again from {self._snapshot.id}"
            )
        if RecoveryStep.RESTORE in state.done and not os.path.lexists(self._to):
            raise ConfigurationError(
                f"{self._to.parent / _note(self._to)} says that {self._to} is restored, and it is not there: that was "
                "another time. Rename this file to start again"
            )
        return state

    def _write(self, state: _State) -> None:
        data = json.dumps(attrs.asdict(state), indent=1).encode() + b"\n"
        open_storage(self._to.parent).write(_note(self._to), [data])


def unfinished(to: str | os.PathLike[str]) -> str:
    """Return the id of the snapshot of which a recovery is unfinished; empty if there is none.

    Args:
        to: The folder of the installation.

    Raises:
        ConfigurationError: The file beside the folder is not a record of a recovery.
    """
    state = _noted(Path(to).absolute())
    return state.snapshot if state else ""


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Exclude concurrent recoveries of the same folder; the lock ends with its process."""
    path = to.parent / f".{to.name}.recovery.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder has removed the file at the end, and a new one may be locked by now.
            free = os.path.samestat(os.fstat(descriptor), path.lstat())
        except (BlockingIOError, FileNotFoundError):
            free = False
        if not free:
            raise StoreBusyError(f"{path}: expected to recover {to} alone, found another recovery at work. Wait for it")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _note(to: Path) -> str:
    return f".{to.name}.recovery.json"


def _noted(to: Path) -> _State | None:
    try:
        data = open_storage(to.parent).read(_note(to))
    except FileNotFoundError:
        return None
    try:
        said = json.loads(data)
        aside = str(said["aside"])
        if aside and not (aside.startswith(f"{to}.old.") and _TIME.fullmatch(aside.removeprefix(f"{to}.old."))):
            raise ValueError(aside)  # a forged record must not choose where the folder is renamed to
        return _State(
            snapshot=str(said["snapshot"]),
            aside=aside,
            done={RecoveryStep(step).value: float(seconds) for step, seconds in said["done"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"{to.parent / _note(to)}: expected a record of a recovery, found something else. Check the folder, then "
            "rename this file"
        ) from error


def _shown(command: Sequence[str]) -> str:
    return without_secrets(" ".join(command))


def _owner_says(owner: str) -> str:
    if not owner:
        return "as the snapshot says"
    return owner if os.geteuid() == 0 else f"{owner}, which only root can set"


def _ids(owner: str) -> tuple[int, int]:
    """Find the ids of a user and a group; the group is by default the one of the user."""
    user, _, group = owner.partition(":")
    try:
        known = pwd.getpwnam(user)
        return known.pw_uid, grp.getgrnam(group).gr_gid if group else known.pw_gid
    except KeyError as error:
        raise ConfigurationError(
            f"expected an owner that is known on this host, such as nova:nova, found {owner!r}: {error.args[0]}. "
            "Create user and group first"
        ) from error


def _give(root: Path, uid: int, gid: int) -> None:
    """Set the owner of a folder and of everything below it; of links themselves, not of their targets."""
    # Bottom-up: the content of a folder is done before its new owner can put other files into it.
    for _folder, folders, files, descriptor in os.fwalk(root, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(root, uid, gid, follow_symlinks=False)
