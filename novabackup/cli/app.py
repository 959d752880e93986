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
        Entry("init", "Create the repository, and check whether the store exists.", "snapshot:init"),
        Entry("snapshot", "Take a snapshot of the store.", "snapshot:snapshot"),
        Entry("run", "Guard a command that writes to the store.", "run:run"),
    ),
    "Look": (
        Entry("list", "List the snapshots, oldest first; with --store, those of that store.", "list:list_"),
        Entry("show", "Show one snapshot: its files with their counts and dimensions, its problems.", "list:show"),
        Entry("diff", "Compare two snapshots, file by file.", "list:diff"),
        Entry("stats", "Show the size of the repository, and what sharing and compression save.", "list:stats"),
        Entry("metrics", "Print the metrics of the repository for Prometheus, or hand them over.", "metrics:metrics"),
        Entry("monitoring", "Print the alert rules for Prometheus or the dashboard for Grafana.", "metrics:monitoring"),
        Entry("report", "Report whether all is well and what has to be done; also as an HTML file.", "report:report"),
    ),
    "Check": (
        Entry("verify", "Check that snapshots can be restored.", "check:verify"),
        Entry("check", "Check that every snapshot in the repository is complete and can be read.", "check:check"),
        Entry("drill", "Restore an old snapshot to a temporary folder, check it, and delete it.", "drill:drill"),
        Entry("probe", "Check the live files and the service, as after a recovery.", "probe:probe"),
    ),
    "Bring back": (
        Entry("restore", "Restore a snapshot to the store, or to another folder.", "restore:restore"),
        Entry("recover", "Put back what an interrupted ingestion or restore left half-written.", "restore:recover"),
        Entry(
            "full-recovery",
            "Recover a whole installation on an empty or broken machine.",
            "full_recovery:full_recovery",
        ),
        Entry("repair", "Repair the repository, or with --bm25 the BM25 index of the store.", "repair:repair"),
    ),
    "Make room": (
        Entry("forget", "Forget snapshots by their ids, or those that a policy does not keep.", "forget:forget"),
        Entry("prune", "Free what no snapshot needs.", "forget:prune"),
        Entry("pin", "Keep snapshots whatever a policy says, until unpin.", "pin:pin"),
        Entry("unpin", "Remove the pins of snapshots; the snapshots stay until they are forgotten.", "pin:unpin"),
    ),
    "Elsewhere": (
        Entry("copy", "Copy snapshots to another repository.", "copy:copy"),
        Entry("mirror", "Update copies, each under its own retention.", "copy:mirror"),
        Entry("export", "Write a snapshot as a plain archive with a checksum for sha256sum.", "export:export"),
        Entry(
            "import",
            "Import archives, or copies that a script made.",
            commands=(
                Entry("archive", "Import a plain archive as a snapshot of the store.", "import_:import_archive"),
                Entry("pre-ingest", "Import copies that a script made before ingests.", "import_:import_pre_ingest"),
            ),
        ),
    ),
    "Keys": (
        Entry(
            "key",
            "Manage the keys that open the repository.",
            commands=(
                Entry("list", "List the keys that open the repository, without their secrets.", "key:list_"),
                Entry("add", "Add another key that opens the repository.", "key:add"),
                Entry("remove", "Remove a key; the last one cannot be removed.", "key:remove"),
                Entry("change", "Replace the key that the configuration names.", "key:change"),
                Entry("reencrypt", "Encrypt everything again with a new data key.", "key:reencrypt"),
            ),
        ),
    ),
    "Operate": (
        Entry(
            "schedule",
            "Run commands regularly.",
            commands=(
                Entry("show", "Show the jobs, when each was last done, and what starts them.", "schedule:show"),
                Entry("install", "Make systemd timers or cron start the jobs of [schedule].", "schedule:install"),
                Entry("remove", "Remove the schedule that install has written; backups stay.", "schedule:remove"),
                Entry("run", "Run the jobs that are due, as timers and cron do.", "schedule:run"),
            ),
        ),
    ),
    "Shell": (Entry("completion", "Print or install the completion script of a shell.", "completion:completion"),),
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
    """Return the application; commands among the words typed have their whole help, others only their summaries."""
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
                f"novabackup.cli.commands.{entry.where}",
                name=entry.name,
                help=None if entry.name in words else entry.summary,
                group=group,
                sort_key=number,
                help_epilogue="",
            )
