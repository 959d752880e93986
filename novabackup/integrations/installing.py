"""Installs a schedule into systemd or cron: always as a plan first, and only our own files are touched."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from novabackup._support import commands
from novabackup.errors import ConfigurationError
from novabackup.format.records import Attributes
from novabackup.integrations.errors import ServiceError
from novabackup.integrations.schedule import Job
from novabackup.storage import open_storage

__all__ = [
    "CRON",
    "SYSTEMD",
    "TICK",
    "Crontab",
    "Installation",
    "Manager",
    "cron_table",
    "crontab",
    "systemd_of_user",
    "systemd_units",
]

TICK = 10
"""Minutes between two checks by cron for jobs that are due."""

_MARK = "# Written by novabackup schedule; changes are lost when it is installed again."
_OF = "# For "
_END = "# The end of what novabackup schedule has written"
_TIMEOUT = 30.0
_MODE = 0o644
"""Cron ignores a file that others than its owner can write, which some umasks would allow."""
_LONGEST_LINE = 1024
_PART = re.compile(
    rf"^{re.escape(_MARK)}\n(?P<of>{_OF}.*\n)?"
    rf"(?:(?:\*/\d+ \* \* \* \*|@reboot) .*schedule run.*\n)*(?:{re.escape(_END)}\n)?",  # no line that we did not write
    re.MULTILINE,
)


# -- texts ------------------------------------------------------------------------------------------------------------


def systemd_units(jobs: Iterable[Job], program: Sequence[str], *, name: str = "", of: str = "") -> dict[str, str]:
    """Write a timer and a service for each job.

    Args:
        jobs: The jobs.
        program: Command line that the name of a job is appended to, with absolute paths.
        name: Distinguishes these units from those of another configuration.
        of: The configuration that they belong to.

    Returns:
        Unit files: texts by file name.
    """
    units = {}
    head = _head(of)
    for job in jobs:
        unit = f"novabackup-{name}-{job.name}" if name else f"novabackup-{job.name}"
        command = " ".join(map(_systemd_quoted, (*program, job.name)))
        units[f"{unit}.service"] = (
            f"{head}[Unit]\nDescription=novabackup: {job.name}\nAfter=network-online.target\n"
            f"Wants=network-online.target\n\n[Service]\nType=oneshot\nExecStart={command}\nNice=10\n"
            "IOSchedulingClass=idle\n"
        )
        units[f"{unit}.timer"] = (
            f"{head}[Unit]\nDescription=novabackup: {job.name}, {job.when}\n\n[Timer]\n"
            f"OnCalendar={job.when.calendar}\nPersistent=true\nRandomizedDelaySec=60\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
    return units


def _head(of: str) -> str:
    if not of.isprintable():
        raise ConfigurationError(f"expected a printable path of the configuration, found {of!r}. Rename it")
    return f"{_MARK}\n{_OF}{of}\n" if of else f"{_MARK}\n"


def _systemd_quoted(word: str) -> str:
    # systemd.service(5): % and $ are special unless doubled.
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", word) or not word else escaped


def cron_table(program: Sequence[str], user: str, *, of: str = "") -> str:
    """Write a file for ``/etc/cron.d`` that runs the jobs that are due, every few minutes and after a boot.

    Args:
        program: Command line that runs all jobs that are due, with absolute paths.
        user: User that it runs as.
        of: The configuration that it belongs to.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", user):
        raise ConfigurationError(f"expected a user name of letters, digits, dots and dashes for cron, found {user!r}")
    return f"{_head(of)}SHELL=/bin/sh\n{_cron_lines(program, f'{user} ')}"


def _cron_lines(program: Sequence[str], user: str = "") -> str:
    line = shlex.join(program).replace("%", r"\%")  # crontab(5): a % is a newline
    if "\n" in line or len(line) > _LONGEST_LINE:
        raise ConfigurationError(
            f"expected one line of at most {_LONGEST_LINE} characters for cron, found {line!r}. Move the configuration "
            "to a shorter path"
        )
    return f"*/{TICK} * * * * {user}{line}\n@reboot {user}{line}\n"


# -- files -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Manager:
    """A service manager that starts jobs on a host, configured by files.

    Attributes:
        name: ``systemd`` or ``cron``.
        folder: Folder of its files.
        pattern: Glob pattern of our files.
        systemctl: The program that makes it reload its files; empty if it reloads by itself.
    """

    name: str
    folder: Path
    pattern: str
    systemctl: tuple[str, ...] = ()


SYSTEMD = Manager("systemd", Path("/etc/systemd/system"), "novabackup-*", ("systemctl",))
CRON = Manager("cron", Path("/etc/cron.d"), "novabackup*")


def systemd_of_user() -> Manager:
    """Return the systemd instance of the current user."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return Manager("systemd", settings / "systemd/user", "novabackup-*", ("systemctl", "--user"))


@attrs.frozen(kw_only=True)
class Installation:
    """What installing a schedule would write and remove.

    Attributes:
        manager: The service manager.
        write: Texts of files by their paths.
        remove: Files of an earlier schedule that are no longer needed.
        there: Existing files of this configuration.
        before: Commands to run first.
        after: Commands to run afterwards.
    """

    manager: Manager
    write: Mapping[Path, str]
    remove: tuple[Path, ...]
    there: tuple[Path, ...]
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]

    @classmethod
    def plan(cls, manager: Manager, files: Mapping[str, str], *, of: str = "") -> Installation:
        """Plan an installation after which exactly these files of this configuration exist.

        Args:
            manager: The service manager.
            files: Texts by file name; empty to remove the schedule.
            of: The configuration that they belong to.

        Raises:
            ConfigurationError: A file of that name exists that novabackup did not write, or not for this
                configuration.
        """
        write = {manager.folder / name: text for name, text in files.items()}
        there = []
        for path in sorted(manager.folder.glob(manager.pattern)):
            owner = _owner(path)
            if owner == of:
                there.append(path)
            elif path in write and owner is None:
                raise ConfigurationError(f"{path} is there and was not written by novabackup: rename it first")
            elif path in write:
                raise ConfigurationError(
                    f"{path} is there, and for another configuration, {owner or 'of an earlier version'}. Tell them "
                    'apart in one of them: [schedule] name = "…", or remove the other one: novabackup schedule remove'
                )
        remove = tuple(path for path in there if path not in write)
        timers = [path.name for path in write if path.suffix == ".timer"]
        old = [path.name for path in remove if path.suffix == ".timer"]
        call = manager.systemctl
        return cls(
            manager=manager,
            write=write,
            remove=remove,
            there=tuple(there),
            before=((*call, "disable", "--now", *old),) if old and call else (),
            after=(
                *(((*call, "daemon-reload"),) if call and (write or remove) else ()),
                *(((*call, "enable", "--now", *timers),) if timers and call else ()),
            ),
        )

    @property
    def where(self) -> str:
        """Where the schedule is installed, for messages."""
        return f"{self.manager.name}, by files in {self.manager.folder}"

    @property
    def installed(self) -> bool:
        """Whether any file of this configuration exists."""
        return bool(self.there)

    @property
    def current(self) -> bool:
        """Whether exactly the planned files exist."""
        return not self.remove and all(path in self.there and _text(path) == text for path, text in self.write.items())

    @property
    def texts(self) -> dict[str, str]:
        """What would be written, by path."""
        return {str(path): text for path, text in self.write.items()}

    def __str__(self) -> str:
        files = [*(f"write {path}" for path in self.write), *(f"remove {path}" for path in self.remove)]
        run = "run {}".format
        return "\n".join([*map(run, map(shlex.join, self.before)), *files, *map(run, map(shlex.join, self.after))])

    def execute(self) -> None:
        """Write and remove the files, and let the manager reload them.

        Raises:
            ServiceError: The manager refused; the files are written.
            OSError: A file cannot be written.
        """
        for command in self.before:
            _call(command)
        storage = open_storage(self.manager.folder)
        for path, text in self.write.items():
            attributes = Attributes(mode=_MODE, uid=os.geteuid(), gid=os.getegid(), mtime_ns=time.time_ns())
            storage.write(path.name, [text.encode()], attributes)
        for path in self.remove:
            storage.delete(path.name)
        for command in self.after:
            _call(command)


def _call(command: Sequence[str]) -> None:
    outcome = commands.run(command, timeout=_TIMEOUT)
    if not outcome.good:
        raise ServiceError(f"{shlex.join(command)}: expected it to succeed, found {outcome}. Run it by hand")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _owner(path: Path) -> str | None:
    """Return the configuration that a file belongs to; None if the file is not ours."""
    first, second, *_rest = [*_text(path).splitlines()[:2], "", ""]
    if first != _MARK:
        return None
    return second.removeprefix(_OF) if second.startswith(_OF) else ""


# -- the crontab of a user ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Crontab:
    """What installing a schedule would change in our part of the crontab of a user.

    Attributes:
        before: Its present text.
        after: Its text afterwards.
        part: Our part of it afterwards.
    """

    before: str
    after: str
    part: str

    @classmethod
    def plan(cls, before: str, program: Sequence[str], *, of: str = "") -> Crontab:
        """Plan the change.

        Args:
            before: The present text, as `crontab` reads it.
            program: Command line that runs all jobs that are due, with absolute paths; empty to remove the schedule.
            of: The configuration that it belongs to.
        """
        part = f"{_head(of)}{_cron_lines(program)}{_END}\n" if program else ""
        ours = f"{_OF}{of}\n" if of else None
        others = _PART.sub(lambda found: "" if found["of"] == ours else found[0], before)
        if part and others and not others.endswith("\n"):
            others += "\n"
        return cls(before=before, after=others + part, part=part)

    @property
    def where(self) -> str:
        """Where the schedule is installed, for messages."""
        return "cron, by the crontab of this user"

    @property
    def installed(self) -> bool:
        """Whether the present text has a part that is ours."""
        return self.before != self.after.removesuffix(self.part) if self.part else self.before != self.after

    @property
    def current(self) -> bool:
        """Whether there is nothing to change."""
        return self.before == self.after

    @property
    def texts(self) -> dict[str, str]:
        """What would be written, by name."""
        return {"crontab": self.part} if self.part else {}

    def __str__(self) -> str:
        if self.part:
            return "write a part of the crontab of this user"
        return "remove a part of the crontab of this user" if self.installed else ""

    def execute(self) -> None:
        """Replace the crontab.

        Raises:
            ServiceError: Cron refused; the crontab is unchanged.
        """
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(self.after)
            file.flush()
            _call(["crontab", file.name])


def crontab() -> str:
    """Read the crontab of the current user; empty if there is none, or no cron.

    Raises:
        ServiceError: It cannot be read.
    """
    if shutil.which("crontab") is None:
        return ""
    done = subprocess.run(
        ["crontab", "-l"],  # noqa: S607 - as it would be typed
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        timeout=_TIMEOUT,
        check=False,
    )
    if not done.returncode:
        return done.stdout.decode(errors="surrogateescape")
    if b"no crontab for" in done.stderr:
        return ""
    said = done.stderr.decode(errors="replace").strip()
    raise ServiceError(f"crontab -l: expected the crontab, found exit status {done.returncode}: {said}")
