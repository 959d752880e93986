"""The list of commands with the module of each; a module is imported only when its command is run."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import PackageNotFoundError, version

import attrs
from cyclopts import App, Group, Parameter

_EXIT_CODES = (
    "Exit codes: 0 success; 1 something is wrong with the files or the backup; 2 wrong usage or configuration; 3 "
    "another writer is working; 4 rolled back, since the files did not agree; 5 run novabackup recover; 6 the disk, "
    "the network or a server refused; 7 a hook, the service or its health check failed; 130 interrupted. run also ends "
    "with the code of the command that it guards."
)


@attrs.frozen
class Entry:
    """A command.

    Attributes:
        name: Its name on the command line.
        summary: The first line of its help; the same as in its docstring, which is not loaded for the list of commands.
        where: Module and function; empty for a group.
        commands: The commands of a group.
    """

    name: str
    summary: str
    where: str = ""
    commands: tuple[Entry, ...] = ()


ENTRIES = {
    "Take": (
        Entry("init", "Create the repository, and check whether the store exists.", "commands.snapshot:init"),
        Entry("snapshot", "Take a snapshot of the store.", "commands.snapshot:snapshot"),
        Entry("run", "Guard a command that writes to the store.", "commands.run:run"),
    ),
    "Look": (
        Entry("list", "List the snapshots, oldest first; with --store, those of that store.", "commands.list:list_"),
        Entry(
            "show",
            "Show one snapshot: its store, its files with their counts and dimensions, its problems.",
            "commands.list:show",
        ),
        Entry("diff", "Compare two snapshots, file by file.", "commands.list:diff"),
        Entry(
            "stats", "Show the size of the repository, and what sharing and compression save.", "commands.list:stats"
        ),
        Entry(
            "metrics",
            "Measure the repository for Prometheus: print the metrics, or hand them over.",
            "commands.metrics:metrics",
        ),
        Entry(
            "monitoring",
            "Print the alert rules for Prometheus, or the dashboard for Grafana.",
            "commands.metrics:monitoring",
        ),
        Entry(
            "report",
            "Report whether all is well and what has to be done; also as an HTML file.",
            "commands.report:report",
        ),
    ),
    "Check": (
        Entry(
            "verify",
            "Check that snapshots can be restored: by default, read every byte and check it against its hashes.",
            "commands.check:verify",
        ),
        Entry(
            "check",
            "Check that every snapshot in the repository can be read and has all that it needs.",
            "commands.check:check",
        ),
        Entry(
            "drill",
            "Restore an old snapshot to a temporary folder, open it, run its recorded queries again, and delete it.",
            "commands.drill:drill",
        ),
        Entry(
            "probe",
            "Check that everything works, as after a recovery: the live files, the service, its health, and its "
            "answer.",
            "commands.probe:probe",
        ),
    ),
    "Bring back": (
        Entry("restore", "Restore a snapshot to the store, or to another folder.", "commands.restore:restore"),
        Entry(
            "recover",
            "Put back what an interrupted ingestion or restore left half-written; do nothing if nothing was "
            "interrupted.",
            "commands.restore:recover",
        ),
        Entry(
            "full-recovery",
            "Recover a whole installation, on an empty machine or in place of a broken one, which is set aside.",
            "commands.full_recovery:full_recovery",
        ),
        Entry(
            "repair",
            "Repair the repository from copies and live files; with --bm25, rebuild the BM25 index of the store.",
            "commands.repair:repair",
        ),
    ),
    "Make room": (
        Entry(
            "forget",
            "Forget snapshots: those that are named, or those that a policy does not keep.",
            "commands.forget:forget",
        ),
        Entry(
            "prune",
            "Free what no snapshot needs, in two steps: condemned now, deleted by a prune a grace period later.",
            "commands.forget:prune",
        ),
        Entry("pin", "Keep snapshots whatever a policy says, until unpin.", "commands.pin:pin"),
        Entry(
            "unpin", "Remove the pins of snapshots; the snapshots stay until they are forgotten.", "commands.pin:unpin"
        ),
    ),
    "Elsewhere": (
        Entry(
            "copy",
            "Copy snapshots to another repository; only what it does not have yet is sent.",
            "commands.copy:copy",
        ),
        Entry(
            "mirror",
            "Update copies, each under its own retention: copy what it keeps, and forget in the copy what it does not.",
            "commands.copy:mirror",
        ),
        Entry(
            "export",
            "Write a snapshot as a plain archive with a checksum beside it; sha256sum and tar can read the two.",
            "commands.export:export",
        ),
        Entry(
            "import",
            "Import archives, or copies that a script made.",
            commands=(
                Entry(
                    "archive",
                    "Import a plain archive as a snapshot of the store, from the time in its name.",
                    "commands.import_:import_archive",
                ),
                Entry(
                    "pre-ingest",
                    "Import the copies that a script made before each ingest, such as "
                    "faiss_index.bin.pre_ingest_20260125_143000.",
                    "commands.import_:import_pre_ingest",
                ),
            ),
        ),
    ),
    "Keys": (
        Entry(
            "key",
            "Manage the keys that open the repository.",
            commands=(
                Entry("list", "List the keys that open the repository, without their secrets.", "commands.key:list_"),
                Entry("add", "Add another key that opens the repository.", "commands.key:add"),
                Entry("remove", "Remove a key; the last one cannot be removed.", "commands.key:remove"),
                Entry(
                    "change",
                    "Replace the key that the configuration names; nothing else is rewritten.",
                    "commands.key:change",
                ),
                Entry(
                    "reencrypt",
                    "Encrypt everything again with a new data key, in case a key has become known.",
                    "commands.key:reencrypt",
                ),
            ),
        ),
    ),
    "Operate": (
        Entry(
            "schedule",
            "Run commands regularly.",
            commands=(
                Entry(
                    "show",
                    "Show the jobs, their times and commands, when each was last done, and what starts them.",
                    "commands.schedule:show",
                ),
                Entry(
                    "install",
                    "Make systemd timers or cron start the jobs of [schedule] in the configuration.",
                    "commands.schedule:install",
                ),
                Entry(
                    "remove", "Remove the schedule that install has written; backups stay.", "commands.schedule:remove"
                ),
                Entry(
                    "run",
                    "Run the jobs that are due, one after the other; timers and cron start this.",
                    "commands.schedule:run",
                ),
            ),
        ),
    ),
    "Shell": (
        Entry(
            "completion",
            "Print the script with which a shell completes commands and options, or install it.",
            "commands.completion:completion",
        ),
    ),
}
"""All commands, by the headings of the help."""


def _version() -> str:
    try:
        return version("novabackup")
    except PackageNotFoundError:
        return "unknown"


def _default(value: object) -> str | None:
    """Return a default as it would be typed; None for an empty one."""
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) if value else None


def app(words: Container[str] = ()) -> App:
    """Return the application with all commands.

    Args:
        words: The command line. Commands in it have their whole help, others only their summaries.
    """
    every = App(
        name="novabackup",
        help="Snapshot, check, roll back and back up search indexes.",
        help_epilogue=_EXIT_CODES,
        help_format="markdown",
        version=_version,
        suppress_keyboard_interrupt=False,
        group_commands=Group("Help", sort_key=len(ENTRIES) + 1),
        default_parameter=Parameter(negative=(), show_default=_default),
    )
    for place, (heading, entries) in enumerate(ENTRIES.items(), 1):
        _add(every, entries, Group(heading, sort_key=place), words)
    return every


def _add(above: App, entries: tuple[Entry, ...], group: Group | None, words: Container[str]) -> None:
    for number, entry in enumerate(entries):
        if entry.commands:
            several = App(name=entry.name, help=entry.summary, help_epilogue="", group=group, sort_key=number)
            _add(several, entry.commands, None, words)
            above.command(several)
        else:
            above.command(
                f"novabackup.cli.{entry.where}",
                name=entry.name,
                help=None if entry.name in words else entry.summary,
                group=group,
                sort_key=number,
                help_epilogue="",
            )
