"""Runs the terminal sessions in a Markdown file: what they type is typed, and what they show must be what comes out.

What differs from run to run may differ: ids, times, sizes, hashes, and where the scratch folder is. An id or a time
that is shown stands for the real one from then on, so that a later command can name it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fenced import Block

from novabackup.cli.main import run

SHOWN_FOLDER = "/srv/nova"
"""How documents call the folder in which their commands are typed."""

SHOWN_HOME = "/home/nova"

_MASKS = (
    (r"\d{8}T\d{6}Z-[0-9a-f]{20}", r"\d{8}T\d{6}Z-[0-9a-f]{20}"),
    (r"\d{8}T\d{6}Z", r"\d{8}T\d{6}Z"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", r"\d{4}-\d\d-\d\dT[\d:.]+Z"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?", r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?"),
    (r"\d\d:\d\d:\d\d", r"\d\d:\d\d:\d\d"),
    (r"\d{4}-\d\d-\d\d \d\dh\b", r"\d{4}-\d\d-\d\d \d\dh"),
    (r"\b\d{4}-\d\d-\d\d\b", r"\d{4}-\d\d-\d\d"),
    (r"\b\d{4} week \d\d\b", r"\d{4} week \d\d"),
    (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{16}\b", r"[0-9a-f]+"),
    (r"\b[0-9a-f]{8}\b", r"[0-9a-f]{8,20}"),
    (r"\b[\d.]+ (?:B|KiB|MiB)(?![\w])", r"[\d.]+ (?:B|KiB|MiB)"),
    (r"\b[\d.]+ times", r"[\d.]+ times"),
    (r"\b\d+\.\d s\b", r"\d+\.\d s"),
    (r"(?<=size\": )\d+|(?<=added\": )\d+|(?<=_bytes\": )\d+", r"\d+"),
    (r"\b\w[\w-]* \d+(?:\.\d+)+(?=,|$)", r"[\w-]+ [\d.]+"),
    (r" +", r" +"),
    (r"…", r".*"),
)
_MASKED = re.compile("|".join(f"({shown})" for shown, _real in _MASKS))
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{20}|\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b")


class Session:
    """One terminal session, from the first block of a document to its last."""

    def __init__(self, places: Mapping[str, str | Path]) -> None:
        """Begin, in the working folder.

        Args:
            places: Folders and URLs by what the document calls them. Of real ones, none is in one that comes before it.
        """
        self._places = {SHOWN_HOME: os.environ["HOME"], **{shown: str(real) for shown, real in places.items()}}
        self._ids: dict[str, str] = {}
        self._times: dict[str, str] = {}
        self.typed: list[str] = []
        self.printed: list[str] = []

    def run(self, block: Block) -> None:
        """Type what a block types, and compare what it shows."""
        for number, command, shown in _commands(block):
            where = f"{block.path.name}:{number}: $ {command}"
            self.typed.append(command)
            printed = self._type(self.real(command))
            for there, real in self._places.items():
                printed = printed.replace(real, there)
            self.printed.append(printed)
            self._compare(shown, printed.splitlines(), where)

    def real(self, text: str) -> str:
        """Put real places and ids in for those that the document shows."""
        named = "|".join(re.escape(shown) for shown in self._places)
        text = re.sub(named, lambda found: self._places[found[0]], text)
        text = _TIME.sub(lambda found: self._times.get(found[0], found[0]), text)
        return _ID.sub(lambda found: self._ids.get(found[0], found[0]), text)

    def _type(self, command: str) -> str:
        words = shlex.split(command, comments=True)
        if words[0] == "novabackup" and words[1] != "run" and not set(words) & {"|", ";", "&&", ">"}:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                run(words[1:])
            return printed.getvalue()
        # A function, so that nothing has to be installed.
        function = f'novabackup() {{ {shlex.quote(sys.executable)} -m novabackup "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", f"{function}{command}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout

    def _compare(self, shown: list[str], printed: list[str], where: str) -> None:
        if shown == ["…"]:
            return
        at = 0
        for number, line in enumerate(shown):
            rest = "\n".join(printed)
            assert at < len(printed), f"{where}: nothing is printed for {line!r} any more; all of it:\n{rest}"
            if line == "…":
                following = shown[number + 1] if number + 1 < len(shown) else None
                while at < len(printed) and (following is None or not _pattern(following).fullmatch(printed[at])):
                    at += 1
                continue
            assert _pattern(line).fullmatch(printed[at]), f"{where}: expected {line!r}, found {printed[at]!r}"
            for old, new in zip(_ID.findall(line), _ID.findall(printed[at]), strict=False):
                known = self._ids.setdefault(old, new)
                assert known == new, f"{where}: {old} stood for {known}, not for {new}"
            self._times.update(zip(_TIME.findall(line), _TIME.findall(printed[at]), strict=False))  # the newest counts
            at += 1
        assert at == len(printed), f"{where}: this is printed, too:\n" + "\n".join(printed[at:])


def _commands(block: Block) -> Iterator[tuple[int, str, list[str]]]:
    """Give each command of a block with the number of its line and what is shown below it."""
    number, command, shown = 0, "", []
    for offset, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            if command:
                yield number, command, shown
            number, command, shown = offset, line[2:], []
        else:
            shown.append(line.rstrip())
    if command:
        yield number, command, shown


def _pattern(line: str) -> re.Pattern[str]:
    """Turn a line that is shown into a pattern for what may be printed instead."""
    pattern, at = "", 0
    for found in _MASKED.finditer(line):
        pattern += re.escape(line[at : found.start()]) + _MASKS[(found.lastindex or 1) - 1][1]
        at = found.end()
    return re.compile(pattern + re.escape(line[at:]) + " *")
