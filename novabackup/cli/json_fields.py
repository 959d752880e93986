"""What snapshots, files and plans look like: fields for programs, whose names stay, and rows for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from novabackup.cli.output import Column, Table, local, number, problem_fields, size
from novabackup.format.records import FileEntry, Pin, Report
from novabackup.operations.restore.plan import Kind, RestorePlan, Step
from novabackup.repository.snapshot import Snapshot

__all__ = [
    "file_fields",
    "files_table",
    "pin_fields",
    "pinned",
    "plan_fields",
    "plan_table",
    "short_ids",
    "snapshot_fields",
    "snapshots_table",
]

_SHORTEST = 8
_TIME_DIGITS = len("20260125T143000Z-")


def short_ids(names: Sequence[str]) -> dict[str, str]:
    """Shorten ids for a screen to digits that are still found, and that name one snapshot only.

    The first digits of an id are its time, which stands in the table anyhow; so the ones behind it are taken.
    """
    tails = [name[_TIME_DIGITS:] for name in names]
    longest = max(map(len, tails), default=_SHORTEST)
    length = next((n for n in range(_SHORTEST, longest) if len({tail[:n] for tail in tails}) == len(tails)), longest)
    return {name: tail[:length] for name, tail in zip(names, tails, strict=True)}


def snapshot_fields(snapshot: Snapshot) -> dict[str, object]:
    """Say a snapshot to programs, without its files."""
    return {
        "id": snapshot.id,
        "time": snapshot.time,
        "store": snapshot.store,
        "tags": list(snapshot.tags),
        "message": snapshot.message,
        "files": len(snapshot.files),
        "size": snapshot.size,
        "added": snapshot.added,
        "healthy": not snapshot.problems,
        "problems": [problem_fields(problem) for problem in snapshot.problems],
    }


Pins = Mapping[str, Pin | None]
"""Pins by the ids of their snapshots; None for one that is damaged, and that counts all the same."""


def pin_fields(pins: Pins, name: str) -> dict[str, object] | None:
    """Say to programs how a snapshot is pinned; None if it is not."""
    if name not in pins:
        return None
    pin = pins[name]
    return {"time": pin and pin.time, "message": pin and pin.message}


def pinned(pins: Pins, name: str) -> str:
    """Say to people why a snapshot is pinned; nothing if it is not."""
    pin = pins.get(name)
    return (pin.message if pin else "") or ("yes" if name in pins else "")


def snapshots_table(snapshots: Sequence[Snapshot], names: Sequence[str], pins: Pins) -> Table:
    """Show snapshots to people.

    Args:
        snapshots: Those that are shown.
        names: Ids of all that are there, among which a short id must be the only one.
        pins: Which of them are pinned.
    """
    short = short_ids(names)
    several = len({snapshot.store for snapshot in snapshots}) > 1
    columns = [
        Column("ID", whole=True),
        Column("Time", whole=True),
        Column("Store"),
        Column("Size", right=True),
        Column("New", right=True),
        Column("Files", right=True),
        Column("Tags"),
        Column("Pinned"),
        Column("Health"),
    ]
    rows = [
        (
            short[snapshot.id],
            local(snapshot.time),
            snapshot.store if several else "",
            size(snapshot.size),
            size(snapshot.added),
            number(len(snapshot.files)),
            ", ".join(snapshot.tags),
            pinned(pins, snapshot.id),
            _health(snapshot),
        )
        for snapshot in snapshots
    ]
    title = f"Snapshots of {snapshots[0].store}" if snapshots and not several else ""
    return Table(columns=columns, rows=rows, title=title)


def _health(snapshot: Snapshot) -> str:
    codes = dict.fromkeys(problem.code for problem in snapshot.problems)
    return ", ".join(codes) or "healthy"


def _seen(report: Report | None) -> tuple[int | None, int | None, str | None]:
    return (report.count, report.dimension, report.kind) if report else (None, None, None)


def file_fields(entry: FileEntry) -> dict[str, object]:
    """Say a file of a snapshot to programs."""
    count, dimension, kind = _seen(entry.report)
    return {
        "path": entry.path,
        "size": entry.size,
        "count": count,
        "dimension": dimension,
        "kind": kind,
        "blake3": entry.blake3,
    }


def files_table(entries: Iterable[FileEntry]) -> Table:
    """Show the files of a snapshot to people."""
    rows = []
    for entry in entries:
        count, dimension, kind = _seen(entry.report)
        rows.append((entry.path, size(entry.size), number(count), number(dimension), kind or "", entry.blake3[:16]))
    return Table(
        columns=[
            Column("File"),
            Column("Size", right=True),
            Column("Count", right=True),
            Column("Dimension", right=True),
            Column("Kind"),
            Column("BLAKE3", whole=True),
        ],
        rows=rows,
    )


def plan_fields(plan: RestorePlan) -> dict[str, object]:
    """Say a restore to programs."""
    return {
        "snapshot": plan.snapshot,
        "store": plan.store,
        "actions": [
            {
                "step": str(action.step),
                "path": action.path,
                "kind": str(action.kind),
                "size": action.size,
                "replaces": action.replaces,
            }
            for action in plan.actions
        ],
    }


def plan_table(plan: RestorePlan) -> Table:
    """Show a restore to people."""
    return Table(
        columns=[Column("Step", whole=True), Column("File"), Column("Size", right=True), Column("What is there now")],
        rows=[
            (
                str(action.step),
                action.path if action.kind is Kind.FILE else f"{action.path} ({action.kind})",
                size(action.size) if action.step is Step.WRITE and action.kind is Kind.FILE else "",
                {Step.KEEP: "the same"}.get(action.step, "is kept as a snapshot" if action.replaces else "nothing"),
            )
            for action in plan.actions
        ],
    )
