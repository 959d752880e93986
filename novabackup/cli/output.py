"""The only module that prints: for people on a terminal or in a pipe, and for programs."""

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
from typing import TextIO

import attrs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from novabackup._support import html
from novabackup.cli.exits import Exit, besides, exit_of, hint_of
from novabackup.errors import Problem, printable

_LEAD = re.compile(r" *- | +|[A-Z][A-Za-z ]*: +")
"""What precedes the text of a line: the dash of a list, the name of a value."""

_NARROW_TEXT = 12
_GAP = 2


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        right: Aligned right, as numbers are.
        whole: Never cut or folded, so that it can be copied.
    """

    name: str
    right: bool = False
    whole: bool = False


@attrs.frozen(kw_only=True)
class Table:
    """Rows for people.

    Attributes:
        columns: Columns whose cells are all empty are left out.
        rows: The cells.
        title: A line above.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @property
    def widths(self) -> list[int]:
        """The width at which each column holds its cells without folding."""
        return [max(map(len, cells)) for cells in zip([c.name for c in self.columns], *self.rows, strict=True)]

    @property
    def narrowest(self) -> int:
        """The width of the table when its texts are folded as far as possible."""
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


def table(*headings: str, rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """Return a table by its headings: ``>`` before one sets `Column.right`, ``!`` sets `Column.whole`."""
    columns = [Column(name.lstrip(">!"), right=name[:1] == ">", whole=name[:1] == "!") for name in headings]
    return Table(columns=columns, rows=rows, title=title)


@attrs.frozen(kw_only=True)
class Result:
    """The result of a command.

    Attributes:
        fields: For programs: one JSON document; problems and times in it are turned into JSON.
        shown: For people: what they asked to see, tables and lines.
        done: For people: what was done, in lines that ``--quiet`` leaves out.
        exit: The exit code.
        aside: Print everything to standard error, since standard output belongs to another program.
    """

    fields: Mapping[str, object]
    shown: Sequence[Table | str] = ()
    done: Sequence[Table | str] = ()
    exit: int = Exit.OK
    aside: bool = False

    @classmethod
    def refused(cls, fields: Mapping[str, object]) -> Result:
        """Return the result of a command that the user did not confirm."""
        return cls(fields=fields, shown=["Nothing was done"], exit=Exit.INTERRUPTED)

    @classmethod
    def of_plan(cls, fields: Mapping[str, object], lines: Sequence[Table | str], *, dry_run: bool) -> Result:
        """Return what a dry run has planned, or what was done."""
        fields = {"dry_run": dry_run, **fields}
        return cls(fields=fields, shown=lines) if dry_run else cls(fields=fields, done=lines)


class Terminal:
    """Standard output and standard error, and what may be written there."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # no failure on a terminal without UTF-8
        self._out = _Console(highlight=False, markup=False, emoji=False)
        self.err = _Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def shows_progress(self) -> bool:
        """Whether standard error is a terminal on which progress is wanted."""
        return self.err.is_terminal and not self.err.is_dumb_terminal and not (self._as_json or self._quiet)

    @property
    def can_ask(self) -> bool:
        """Whether there is a terminal on which a question can be answered."""
        return sys.stdin is not None and sys.stdin.isatty() and self.err.is_terminal and not self._as_json

    # -- results -----------------------------------------------------------------------------------------------------

    def result(self, result: Result) -> None:
        """Print the result of a command."""
        if self._as_json:
            self._document(result.fields, sys.stderr if result.aside else sys.stdout)
            return
        console = self.err if result.aside else self._out
        for part in (*result.shown, *(() if self._quiet else result.done)):
            self._show(console, part)

    def agrees(self, question: str, parts: Sequence[Table | str], *, yes: bool) -> bool:
        """Show the parts and ask on a terminal, unless ``--yes`` was given; no answer means no."""
        if yes or not self.can_ask:
            return True
        for part in parts:
            self._show(self.err, part)
        self.err.print(Text(f"{printable(question)} [y/N] "), end="", soft_wrap=True)
        try:
            return input().strip().lower() in ("y", "yes")
        except EOFError:
            return False

    # -- errors and progress -----------------------------------------------------------------------------------------

    def error(self, error: BaseException, *, message: str = "", hint: str = "", debug: bool = False) -> None:
        """Print an error with its problems and a hint; by default the message and hint are its own."""
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
                "problems": list(problems),
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
        """Print a warning."""
        if self._as_json:
            sys.stderr.write(json.dumps({"warning": message}) + "\n")
        else:
            self._line("Warning: ", "yellow", message)

    def step(self, line: str) -> None:
        """Print that a step of something long is done."""
        if not (self._as_json or self._quiet):
            self._print(self.err, Text(printable(line)))

    def waiting(self, label: str) -> AbstractContextManager[object]:
        """Show a spinner on a terminal, for a step without measurable progress."""
        return self.err.status(Text(label)) if self.shows_progress else nullcontext()

    @contextmanager
    def log_shown(self) -> Iterator[None]:
        """Show warnings of the library."""
        handler = _Warnings(self)
        logger = logging.getLogger("novabackup")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    # -- layout ------------------------------------------------------------------------------------------------------

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
        """Print text; on a terminal, lines that are too long are continued below the start of their text."""
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
    """A console that leaves it to `main` how to end when the reader of a pipe is gone."""

    def on_broken_pipe(self) -> None:
        """Raise the error."""
        raise BrokenPipeError


class _Warnings(logging.Handler):
    """Shows warnings of the library on a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line, unless the result or the error of the command says the same."""
        if not getattr(record, "told", False):
            self._terminal.warning(record.getMessage())


def _message(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else text
    return text or type(error).__name__


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
    """Lay out a table without lines and colours and without folding, for pipes and files."""
    rows = [[column.name for column in table.columns], *([printable(cell) for cell in row] for row in table.rows)]
    for row in rows:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, table.widths, table.columns, strict=True)
        )
        yield "  ".join(cells).rstrip()


# -- values ------------------------------------------------------------------------------------------------------------


def local(time: datetime) -> str:
    """Format a time in the local time zone; to the minute, so that tables fit into 80 columns."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def counted(what: str) -> Callable[[float], str]:
    """Return what formats numbers of things in a bar."""
    return lambda amount: f"{amount:.0f} {what}"


def number(value: int | None) -> str:
    """Format a number that may not be known."""
    return "" if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """Format a number of bytes that may not be known, in powers of 1024."""
    return "" if value is None else html.size(value)


def labelled(values: Sequence[tuple[str, str]], width: int = 13) -> list[str]:
    """Format named values one per line, without those that are empty."""
    return [f"{name + ':':<{width}} {value}" for name, value in values if value]


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Format problems one per line."""
    return [f"  - {problem}" for problem in problems]


def _written(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Problem):
        return {"code": value.code, "paths": value.paths, "message": value.message}
    raise TypeError(f"{type(value).__name__} has no form in JSON")
