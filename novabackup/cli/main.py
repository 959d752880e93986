"""The command line as a whole: its commands, what ends it early, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import FrameType

from cyclopts import App, CycloptsError, Group, Parameter

from novabackup.cli.commands import keys
from novabackup.cli.commands.archives import export, import_archive, import_pre_ingest
from novabackup.cli.commands.checking import check, verify
from novabackup.cli.commands.copying import copy, mirror
from novabackup.cli.commands.drilling import drill
from novabackup.cli.commands.forgetting import forget, prune
from novabackup.cli.commands.guarding import run as guard
from novabackup.cli.commands.looking import diff, list_, show, stats
from novabackup.cli.commands.measuring import metrics
from novabackup.cli.commands.monitoring import monitoring
from novabackup.cli.commands.pinning import pin, unpin
from novabackup.cli.commands.probing import probe
from novabackup.cli.commands.recovering import full_recovery
from novabackup.cli.commands.restoring import recover, restore
from novabackup.cli.commands.shell import completion_of
from novabackup.cli.commands.taking import init, snapshot
from novabackup.cli.exits import Exit, exit_of
from novabackup.cli.output import Answer, Terminal
from novabackup.errors import ConfigurationError

__all__ = ["app", "run"]

_BROKEN_PIPE = 128 + signal.SIGPIPE
_END = "--"

_EXIT_CODES = (
    "Exit codes: 0 all is well; 1 something is wrong with the files or the backup; 2 wrong usage or configuration; "
    "3 another writer is at work; 4 rolled back, as the files did not agree; 5 run novabackup recover; 6 the disk, the "
    "network or a server refused; 7 a hook, the service or its health check failed; 130 interrupted. run also ends "
    "with the code of the command that it guards."
)


def _version() -> str:
    try:
        return version("novabackup")
    except PackageNotFoundError:
        return "unknown"


def _default(value: object) -> str | None:
    """Show a default as it would be typed; none for what is nothing."""
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) if value else None


def app() -> App:
    """Put all commands together."""
    every = App(
        name="novabackup",
        help="Snapshot, check, roll back and back up search indexes.",
        help_epilogue=_EXIT_CODES,
        help_format="markdown",
        version=_version,
        suppress_keyboard_interrupt=False,
        group_commands=Group("Help", sort_key=10),
        default_parameter=Parameter(negative=(), show_default=_default),
    )
    elsewhere = Group("Elsewhere", sort_key=6)
    groups: dict[Group, list[Callable[..., Answer]]] = {
        Group("Take", sort_key=1): [init, snapshot, guard],
        Group("Look", sort_key=2): [list_, show, diff, stats, metrics, monitoring],
        Group("Check", sort_key=3): [verify, check, drill, probe],
        Group("Bring back", sort_key=4): [restore, recover, full_recovery],
        Group("Make room", sort_key=5): [forget, prune, pin, unpin],
        elsewhere: [copy, mirror, export],
        Group("Shell", sort_key=9): [completion_of(every)],
    }
    for group, commands in groups.items():
        for number, command in enumerate(commands):
            every.command(command, group=group, sort_key=number, help_epilogue="")
    imports = {"archive": import_archive, "pre-ingest": import_pre_ingest}
    every.command(_several("import", "Take in archives, or copies that a script made.", imports, elsewhere))
    of_keys = {name.strip("_"): getattr(keys, name) for name in keys.__all__}
    every.command(_several("key", "Manage the keys that open the repository.", of_keys, Group("Keys", sort_key=7)))
    return every


def _several(name: str, text: str, commands: Mapping[str, Callable[..., Answer]], group: Group) -> App:
    """Put commands together under one word."""
    several = App(name=name, help=text, help_epilogue="", group=group)
    for word, command in commands.items():
        several.command(command, name=word)
    return several


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: What was typed behind the name of the program.

    Returns:
        The exit code.
    """
    ours = arguments[: arguments.index(_END)] if _END in arguments else arguments
    terminal = Terminal(as_json="--json" in ours, quiet=False)
    debug = "--debug" in ours
    try:
        with _ended_by_signals():
            answer = _call(ours, arguments)
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
    except Exception as error:  # noqa: BLE001 - whatever it is, somebody is to be told
        code = exit_of(error)
        if code is Exit.BUG:
            terminal.error(
                error,
                message=f"a mistake in novabackup: {type(error).__name__}: {error}",
                hint="run it again with --debug, and report what it prints" if not debug else "report what is above",
                debug=debug,
            )
        else:
            terminal.error(error, debug=debug)
        return code
    return _print(answer, Terminal(as_json="--json" in ours, quiet="--quiet" in ours or "-q" in ours))


def _call(ours: Sequence[str], arguments: Sequence[str]) -> Answer | None:
    if ours[:1] == ["run"] and _END not in arguments and not {"--help", "-h"} & set(ours):
        raise ConfigurationError("expected -- and a command, found none. Such as: novabackup run -- python ingest.py")
    answer = app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    return answer if isinstance(answer, Answer) else None  # help and version have been printed


def _print(answer: Answer | None, terminal: Terminal) -> int:
    try:
        if answer is not None:
            terminal.answer(answer)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be said at exit, either
        return _BROKEN_PIPE
    return answer.exit if answer is not None else Exit.OK


class _SignalledError(BaseException):
    """Somebody asked this process to end: everything is put in order on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn signals that would end the process on the spot into an error that rolls back what is under way."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise _SignalledError(number)

    asked = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in asked}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
