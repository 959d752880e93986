"""Which commands there are, and in which module each is; none is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import PackageNotFoundError, version

import attrs
from cyclopts import App, Group, Parameter

__all__ = ["ENTRIES", "Entry", "app"]

_EXIT_CODES = (
    "Exit codes: 0 all is well; 1 something is wrong with the files or the backup; 2 wrong usage or configuration; "
    "3 another writer is at work; 4 rolled back, as the files did not agree; 5 run novabackup recover; 6 the disk, the "
    "network or a server refused; 7 a hook, the service or its health check failed; 130 interrupted. run also ends "
    "with the code of the command that it guards."
)


@attrs.frozen
class Entry:
    """A command.

    Attributes:
        name: What is typed.
        summary: The first line of its help; the same as in its docstring, which is not there yet when all are listed.
        where: Module and function; empty for a word that several commands share.
        commands: Those that share it.
    """

    name: str
    summary: str
    where: str = ""
    commands: tuple[Entry, ...] = ()


ENTRIES = {
    "Take": (
        Entry("init", "Create the repository, and look whether the store is there.", "commands.taking:init"),
        Entry("snapshot", "Take a snapshot of the store.", "commands.taking:snapshot"),
        Entry("run", "Guard a command that writes to the store.", "commands.guarding:run"),
    ),
    "Look": (
        Entry(
            "list",
            "List the snapshots, oldest first; with --store, those of that store.",
            "commands.looking:list_",
        ),
        Entry(
            "show",
            "Show one snapshot: what it is of, its files with their counts and dimensions, its problems.",
            "commands.looking:show",
        ),
        Entry("diff", "Compare two snapshots, file by file.", "commands.looking:diff"),
        Entry(
            "stats",
            "Tell what the repository holds, what it takes, and what sharing and compression save.",
            "commands.looking:stats",
        ),
        Entry(
            "metrics",
            "Measure the repository for Prometheus: print the metrics, or hand them over.",
            "commands.measuring:metrics",
        ),
        Entry(
            "monitoring",
            "Print the alert rules for Prometheus, or the dashboard for Grafana.",
            "commands.monitoring:monitoring",
        ),
        Entry(
            "report",
            "Report whether all is well, for somebody who must decide what to do; as an HTML file, too.",
            "commands.reporting:report",
        ),
    ),
    "Check": (
        Entry(
            "verify",
            "Make sure that snapshots can be restored: by default, read every byte and check it against its hashes.",
            "commands.checking:verify",
        ),
        Entry(
            "check",
            "Check that every snapshot in the repository can be read and has all that it needs.",
            "commands.checking:check",
        ),
        Entry(
            "drill",
            "Restore an old snapshot to a folder for temporary files, open it, ask it again what it was asked, and "
            "delete it.",
            "commands.drilling:drill",
        ),
        Entry(
            "probe",
            "Look whether all works, as after a recovery: the live files, the service, its health, and its answer.",
            "commands.probing:probe",
        ),
    ),
    "Bring back": (
        Entry("restore", "Bring the store, or another folder, to a snapshot.", "commands.restoring:restore"),
        Entry(
            "recover",
            "Put back what an ingestion or a restore that died left half-written; do nothing if there is nothing to "
            "do.",
            "commands.restoring:recover",
        ),
        Entry(
            "full-recovery",
            "Bring a whole installation back, onto an empty machine or in place of a broken one, which is set aside.",
            "commands.recovering:full_recovery",
        ),
        Entry(
            "repair",
            "Mend the repository from copies and live files; with --bm25, write the BM25 index of the store anew.",
            "commands.mending:repair",
        ),
    ),
    "Make room": (
        Entry(
            "forget",
            "Forget snapshots: those that are named, or those that a policy does not keep.",
            "commands.forgetting:forget",
        ),
        Entry(
            "prune",
            "Free what no snapshot needs, in two steps: condemned now, deleted by a prune a grace period later.",
            "commands.forgetting:prune",
        ),
        Entry("pin", "Let snapshots stay, whatever a policy says, until unpin.", "commands.pinning:pin"),
        Entry(
            "unpin",
            "Take the pins of snapshots away; the snapshots stay until they are forgotten.",
            "commands.pinning:unpin",
        ),
    ),
    "Elsewhere": (
        Entry(
            "copy",
            "Copy snapshots to another repository; only what is not there yet is sent.",
            "commands.copying:copy",
        ),
        Entry(
            "mirror",
            "Keep copies in step, each under its own retention: copy what it keeps there, and forget there what it "
            "does not.",
            "commands.copying:mirror",
        ),
        Entry(
            "export",
            "Write a snapshot as a plain archive, with its checksum beside it; sha256sum and tar understand the two.",
            "commands.archives:export",
        ),
        Entry(
            "import",
            "Take in archives, or copies that a script made.",
            commands=(
                Entry(
                    "archive",
                    "Take a plain archive in as a snapshot of the store, from the time that its name tells.",
                    "commands.archives:import_archive",
                ),
                Entry(
                    "pre-ingest",
                    "Take in the copies that a script made before each ingest, such as "
                    "faiss_index.bin.pre_ingest_20260125_143000.",
                    "commands.archives:import_pre_ingest",
                ),
            ),
        ),
    ),
    "Keys": (
        Entry(
            "key",
            "Manage the keys that open the repository.",
            commands=(
                Entry("list", "List the keys that open the repository; none of them is shown.", "commands.keys:list_"),
                Entry("add", "Let another key open the repository, too.", "commands.keys:add"),
                Entry("remove", "Take a key away; the last one stays.", "commands.keys:remove"),
                Entry(
                    "change",
                    "Replace the key that the configuration names; nothing else is rewritten.",
                    "commands.keys:change",
                ),
                Entry(
                    "reencrypt",
                    "Encrypt everything anew with a new data key, for when a key may have become known.",
                    "commands.keys:reencrypt",
                ),
            ),
        ),
    ),
    "Operate": (
        Entry(
            "schedule",
            "Do things again and again.",
            commands=(
                Entry(
                    "show",
                    "Show what is done when, by which command, how it went last, and who starts it.",
                    "scheduling:show",
                ),
                Entry(
                    "install",
                    "Let systemd timers or cron start what [schedule] in the configuration says.",
                    "scheduling:install",
                ),
                Entry("remove", "Take away what install has written; what was backed up stays.", "scheduling:remove"),
                Entry(
                    "run",
                    "Do what is due, one job after the other; this is what timers and cron start.",
                    "scheduling:run",
                ),
            ),
        ),
    ),
    "Shell": (
        Entry(
            "completion",
            "Print the script with which a shell completes commands and options, or install it.",
            "shell:completion",
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
    """Show a default as it would be typed; none for what is nothing."""
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value)) if value else None


def app(words: Container[str] = ()) -> App:
    """Put all commands together.

    Args:
        words: What was typed. Commands among it are shown with the whole of their help, others with their summaries.
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
