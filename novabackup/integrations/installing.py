"""How systemd and cron are told of a schedule: everything is a plan first, and only what is ours is touched."""

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
"""Minutes between two looks of cron at what is due."""

_MARK = "# Written by novabackup schedule; changes are lost when it is installed again."
_OF = "# For "
_END = "# The end of what novabackup schedule has written"
_TIMEOUT = 30.0
_MODE = 0o644
"""Cron obeys no file that others than its owner can write, as some umasks would have it."""
_LONGEST_LINE = 1024
_PART = re.compile(
    rf"^{re.escape(_MARK)}\n(?P<of>{_OF}.*\n)?"
    rf"(?:(?:\*/\d+ \* \* \* \*|@reboot) .*schedule run.*\n)*(?:{re.escape(_END)}\n)?",  # no line of anybody else
    re.MULTILINE,
)


# -- what they are told ------------------------------------------------------------------------------------------------


def systemd_units(jobs: Iterable[Job], program: Sequence[str], *, name: str = "", of: str = "") -> dict[str, str]:
    """Write a timer and a service for each job.

    Args:
        jobs: The jobs.
        program: What runs a job whose name follows, with absolute paths.
        name: Parts these units from those of another configuration.
        of: The configuration that they are for.

    Returns:
        Texts of unit files by their names.
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
        raise ConfigurationError(f"expected a path of a configuration that can be printed, found {of!r}. Rename it")
    return f"{_MARK}\n{_OF}{of}\n" if of else f"{_MARK}\n"


def _systemd_quoted(word: str) -> str:
    # systemd.service(5): % and $ stand for something unless doubled.
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", word) or not word else escaped


def cron_table(program: Sequence[str], user: str, *, of: str = "") -> str:
    """Write a file for ``/etc/cron.d``: every few minutes, and after a boot, all that is due is done.

    Args:
        program: What does all that is due, with absolute paths.
        user: As whom.
        of: The configuration that it is for.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", user):
        raise ConfigurationError(f"expected a user that cron can be told, found {user!r}")
    return f"{_head(of)}SHELL=/bin/sh\n{_cron_lines(program, f'{user} ')}"


def _cron_lines(program: Sequence[str], user: str = "") -> str:
    line = shlex.join(program).replace("%", r"\%")  # crontab(5): a % is a new line
    if "\n" in line or len(line) > _LONGEST_LINE:
        raise ConfigurationError(f"cron cannot be told {line!r}. Move the configuration to a shorter path")
    return f"*/{TICK} * * * * {user}{line}\n@reboot {user}{line}\n"


# -- files -------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Manager:
    """Who starts jobs on a host, by files that it reads.

    Attributes:
        name: ``systemd`` or ``cron``.
        folder: Where its files are.
        pattern: What ours are called.
        systemctl: The program that makes it read its files anew; nothing for one that looks by itself.
    """

    name: str
    folder: Path
    pattern: str
    systemctl: tuple[str, ...] = ()


SYSTEMD = Manager("systemd", Path("/etc/systemd/system"), "novabackup-*", ("systemctl",))
CRON = Manager("cron", Path("/etc/cron.d"), "novabackup*")


def systemd_of_user() -> Manager:
    """Give the systemd of the user that this process runs as."""
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return Manager("systemd", settings / "systemd/user", "novabackup-*", ("systemctl", "--user"))


@attrs.frozen(kw_only=True)
class Installation:
    """What installing a schedule would write and remove.

    Attributes:
        manager: Who is told.
        write: Texts of files by their paths.
        remove: Files of an earlier schedule that are not needed any more.
        there: Files that are there already.
        before: What is run first.
        after: What is run afterwards.
    """

    manager: Manager
    write: Mapping[Path, str]
    remove: tuple[Path, ...]
    there: tuple[Path, ...]
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]

    @classmethod
    def plan(cls, manager: Manager, files: Mapping[str, str], *, of: str = "") -> Installation:
        """Find out what to do so that these files, and no others of this configuration, are there.

        Args:
            manager: Who is told.
            files: Texts by names; nothing for taking the schedule away.
            of: The configuration that they are for.

        Raises:
            ConfigurationError: A file of that name is there which novabackup did not write, or not for this
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
        """Name what is told, for people."""
        return f"{self.manager.name}, by files in {self.manager.folder}"

    @property
    def installed(self) -> bool:
        """Tell whether any of it is there."""
        return bool(self.there)

    @property
    def current(self) -> bool:
        """Tell whether all of it is there, and nothing else."""
        return not self.remove and all(path in self.there and _text(path) == text for path, text in self.write.items())

    @property
    def texts(self) -> dict[str, str]:
        """What would be written, by where."""
        return {str(path): text for path, text in self.write.items()}

    def __str__(self) -> str:
        files = [*(f"write {path}" for path in self.write), *(f"remove {path}" for path in self.remove)]
        run = "run {}".format
        return "\n".join([*map(run, map(shlex.join, self.before)), *files, *map(run, map(shlex.join, self.after))])

    def execute(self) -> None:
        """Write and remove the files, and let the manager read them.

        Raises:
            ServiceError: The manager refuses; the files are there.
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
    """Tell for which configuration a file was written; None if it is none of ours."""
    first, second, *_rest = [*_text(path).splitlines()[:2], "", ""]
    if first != _MARK:
        return None
    return second.removeprefix(_OF) if second.startswith(_OF) else ""


# -- the crontab of a user ---------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Crontab:
    """What installing a schedule would change in the crontab of a user, of which a part is ours.

    Attributes:
        before: What it says now.
        after: What it would say.
        part: The part that is ours then.
    """

    before: str
    after: str
    part: str

    @classmethod
    def plan(cls, before: str, program: Sequence[str], *, of: str = "") -> Crontab:
        """Find out what to change.

        Args:
            before: What the crontab says now, as `crontab` reads it.
            program: What does all that is due, with absolute paths; nothing for taking the schedule away.
            of: The configuration that it is for.
        """
        part = f"{_head(of)}{_cron_lines(program)}{_END}\n" if program else ""
        ours = f"{_OF}{of}\n" if of else None
        others = _PART.sub(lambda found: "" if found["of"] == ours else found[0], before)
        if part and others and not others.endswith("\n"):
            others += "\n"
        return cls(before=before, after=others + part, part=part)

    @property
    def where(self) -> str:
        """Name what is told, for people."""
        return "cron, by the crontab of this user"

    @property
    def installed(self) -> bool:
        """Tell whether a part of it is ours."""
        return self.before != self.after.removesuffix(self.part) if self.part else self.before != self.after

    @property
    def current(self) -> bool:
        """Tell whether it says already what it would say."""
        return self.before == self.after

    @property
    def texts(self) -> dict[str, str]:
        """What would be written, by where."""
        return {"crontab": self.part} if self.part else {}

    def __str__(self) -> str:
        if self.part:
            return "write a part of the crontab of this user"
        return "remove a part of the crontab of this user" if self.installed else ""

    def execute(self) -> None:
        """Hand it to cron.

        Raises:
            ServiceError: Cron refuses; the crontab is as it was.
        """
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(self.after)
            file.flush()
            _call(["crontab", file.name])


def crontab() -> str:
    """Read the crontab of this user; nothing where there is none, or no cron.

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
