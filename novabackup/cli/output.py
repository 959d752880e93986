"""The only place that prints: for people on a terminal, for people in a pipe, and for programs."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import attrs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from novabackup._support import html as _html
from novabackup._support.text import count
from novabackup.cli.exits import Exit, besides, exit_of, hint_of
from novabackup.errors import printable

if TYPE_CHECKING:
    from novabackup.format.records import Problem

__all__ = [
    "Answer",
    "Column",
    "Table",
    "Terminal",
    "count",
    "counted",
    "local",
    "number",
    "problem_fields",
    "problem_lines",
    "size",
]

_LEAD = re.compile(r" *- | +|[A-Z][A-Za-z ]*: +")
"""What stands before the text of a line: the dash of a list, the name of a value."""

_NARROW_TEXT = 12
_GAP = 2


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        right: Numbers stand to the right.
        whole: Never cut or folded, so that it can be copied.
    """

    name: str
    right: bool = False
    whole: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """Rows for people.

    Attributes:
        columns: What stands in each column; those in which no row has anything are left out.
        rows: The cells.
        title: A line above.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @property
    def widths(self) -> list[int]:
        """How wide each column would have to be to hold the whole of its cells."""
        return [max(map(len, cells)) for cells in zip([c.name for c in self.columns], *self.rows, strict=True)]

    @property
    def narrowest(self) -> int:
        """How narrow the table can be made by folding its texts."""
        widths = zip(self.widths, self.columns, strict=True)
        least = [width if column.whole or column.right else min(width, _NARROW_TEXT) for width, column in widths]
        return sum(least) + _GAP * (len(least) - 1)

    @property
    def used(self) -> Table:
        """The same without its empty columns."""
        if not self.rows:
            return self
        kept = [number for number in range(len(self.columns)) if any(row[number] for row in self.rows)]
        return attrs.evolve(
            self,
            columns=[self.columns[number] for number in kept],
            rows=[[row[number] for number in kept] for row in self.rows],
        )


@attrs.frozen(kw_only=True)
class Answer:
    """What a command has to say.

    Attributes:
        fields: For programs: one JSON document.
        shown: For people: what they asked to see, tables and lines.
        done: For people: what was done, in lines that ``--quiet`` leaves out.
        exit: The exit code.
        aside: Everything goes to standard error, since standard output belongs to somebody else.
    """

    fields: Mapping[str, object]
    shown: Sequence[Table | str] = ()
    done: Sequence[Table | str] = ()
    exit: int = Exit.OK
    aside: bool = False

    @classmethod
    def refused(cls, fields: Mapping[str, object]) -> Answer:
        """Say that somebody who was asked did not want it."""
        return cls(fields=fields, shown=["Nothing was done"], exit=Exit.INTERRUPTED)

    @classmethod
    def of_plan(cls, fields: Mapping[str, object], lines: Sequence[Table | str], *, dry_run: bool) -> Answer:
        """Say what would be done, which a dry run was asked for, or what was done."""
        said = {"dry_run": dry_run, **fields}
        return cls(fields=said, shown=lines) if dry_run else cls(fields=said, done=lines)


class Terminal:
    """Standard output and standard error, and what may be written there."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        """Write nothing yet.

        Args:
            as_json: Programs read it.
            quiet: Nothing but what was asked for, and what is wrong.
        """
        self._as_json = as_json
        self._quiet = quiet
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to fail
        self._out = _Console(highlight=False, markup=False, emoji=False)
        self.err = _Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches."""
        return self.err.is_terminal and not self.err.is_dumb_terminal and not (self._as_json or self._quiet)

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer."""
        return sys.stdin is not None and sys.stdin.isatty() and self.err.is_terminal and not self._as_json

    # -- what a command says -----------------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Print what a command says."""
        if self._as_json:
            self._document(answer.fields, sys.stderr if answer.aside else sys.stdout)
            return
        console = self.err if answer.aside else self._out
        for part in (*answer.shown, *(() if self._quiet else answer.done)):
            self._show(console, part)

    def agrees(self, question: str, parts: Sequence[Table | str], *, yes: bool) -> bool:
        """Tell whether to go on: ask whoever is there to answer, unless that was said before; no answer is a no.

        Args:
            question: What is asked.
            parts: What is shown before.
            yes: It was said on the command line.
        """
        if yes or not self.can_ask:
            return True
        for part in parts:
            self._show(self.err, part)
        self.err.print(Text(f"{printable(question)} [y/N] "), end="", soft_wrap=True)
        try:
            return input().strip().lower() in ("y", "yes")
        except EOFError:
            return False

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def error(self, error: BaseException, *, message: str = "", hint: str = "", debug: bool = False) -> None:
        """Print an error: what it is, each problem, what to do.

        Args:
            error: What was raised.
            message: What it says; by default its own text.
            hint: What to do; by default what its class says.
            debug: Print where it came from, too.
        """
        problems: Sequence[Problem] = getattr(error, "problems", ())
        message = message or (str(error.args[0]) if problems else _message(error))
        message = "\n".join([message, *besides(error)])
        hint = hint or hint_of(error)
        if debug:
            lines = "".join(traceback.format_exception(error)).splitlines()
            sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
        if self._as_json:
            fields = {
                "kind": type(error).__name__,
                "message": message,
                "problems": [problem_fields(problem) for problem in problems],
                "hint": hint,
                "exit": int(exit_of(error)),
            }
            self._document({"error": fields}, sys.stderr)
            return
        self._line("Error: ", "bold red", message)
        for line in problem_lines(problems):
            self._show(self.err, line)
        if hint:
            self._line("Hint: ", "bold", hint)

    def warning(self, message: str) -> None:
        """Print something that should be known, and that stops nothing."""
        if self._as_json:
            sys.stderr.write(json.dumps({"warning": message}) + "\n")
        else:
            self._line("Warning: ", "yellow", message)

    def step(self, line: str) -> None:
        """Tell of a step of something long that is done, to whoever watches or keeps what is printed."""
        if not (self._as_json or self._quiet):
            self._print(self.err, Text(printable(line)))

    def waiting(self, label: str) -> AbstractContextManager[object]:
        """Show that something takes its time, of which nothing else can be told, to somebody who watches."""
        return self.err.status(Text(label)) if self.shows_progress else nullcontext()

    @contextmanager
    def log_shown(self) -> Iterator[None]:
        """Show what the library warns of."""
        handler = _Warnings(self)
        logger = logging.getLogger("novabackup")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    # -- how ---------------------------------------------------------------------------------------------------------

    def _line(self, start: str, style: str, message: str) -> None:
        lines = [printable(line) for line in message.splitlines()] or [""]
        self._print(self.err, Text.assemble((start, style), "\n".join(lines)))

    def _show(self, console: Console, part: Table | str) -> None:
        if isinstance(part, str):
            self._print(console, Text(printable(part)))
            return
        table = part.used
        if table.title:
            self._print(console, Text(printable(table.title)))
        if console.is_terminal and table.narrowest <= console.width:
            console.print(_rich(table))
        else:
            for line in _plain(table):
                console.print(Text(line), soft_wrap=True)

    @staticmethod
    def _print(console: Console, text: Text) -> None:
        """Print text; on a terminal, lines that are too long go on below where their text began."""
        lead = _LEAD.match(text.plain)
        hang = lead.end() if lead else 0
        if not console.is_terminal:
            console.print(text, soft_wrap=True)
            return
        if not 0 < hang < console.width // 2:
            console.print(text, overflow="fold")
            return
        for number, line in enumerate(text[hang:].wrap(console, console.width - hang, overflow="fold")):
            console.print(text[:hang] if number == 0 else Text(" " * hang), line, sep="", soft_wrap=True)

    @staticmethod
    def _document(fields: Mapping[str, object], stream: TextIO) -> None:
        # ASCII, so that no terminal, locale or file name can break it.
        stream.write(json.dumps(fields, indent=2, default=_written) + "\n")


class _Console(Console):
    """A console that leaves it to the program how to end when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Hand the error on."""
        raise BrokenPipeError


class _Warnings(logging.Handler):
    """Hands what the library warns of to a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line, unless the answer or the error of the command says the same."""
        if not getattr(record, "told", False):
            self._terminal.warning(record.getMessage())


def _message(error: BaseException) -> str:
    said = str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else said
    return said or type(error).__name__


def _rich(table: Table) -> RichTable:
    rich = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, width in zip(table.columns, table.widths, strict=True):
        rich.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=column.whole or column.right,
            min_width=width if column.whole or column.right else min(width, _NARROW_TEXT),
            overflow="fold",
        )
    for row in table.rows:
        rich.add_row(*(Text(printable(cell)) for cell in row))
    return rich


def _plain(table: Table) -> Iterator[str]:
    """Lay a table out without lines and colours, as wide as it needs to be, for pipes and files."""
    rows = [[column.name for column in table.columns], *([printable(cell) for cell in row] for row in table.rows)]
    for row in rows:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, table.widths, table.columns, strict=True)
        )
        yield "  ".join(cells).rstrip()


# -- values ------------------------------------------------------------------------------------------------------------


def local(time: datetime) -> str:
    """Show a moment in the time zone of whoever reads; to the minute, so that tables fit into 80 columns."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def counted(what: str) -> Callable[[float], str]:
    """Show amounts that count things, in a bar."""
    return lambda amount: f"{amount:.0f} {what}"


def number(value: int | None) -> str:
    """Show a number that may not be known."""
    return "" if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Show a number of bytes that may not be known, in powers of 1024."""
    return "" if value is None else _html.size(value)


def problem_fields(problem: Problem) -> dict[str, object]:
    """Say a problem to programs."""
    return {"code": problem.code, "paths": list(problem.paths), "message": problem.message}


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Say problems to people, one each."""
    return [f"  - {problem}" for problem in problems]


def _written(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} has no form in JSON")
