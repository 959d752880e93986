"""Snapshots, files and plans as JSON fields, whose names do not change, and as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from novabackup.cli.output import Table, local, number, size, table
from novabackup.format.records import FileEntry, Pin, Report
from novabackup.operations.restore.plan import Kind, RestorePlan, Step
from novabackup.repository.snapshot import Snapshot

_SNAPSHOT_COLUMNS = ("!ID", "!Time", "Store", ">Size", ">New", ">Files", "Tags", "Pinned", "Health")
_SHORTEST = 8
_TIME_DIGITS = len("20260125T143000Z-")


def short_ids(names: Sequence[str]) -> dict[str, str]:
    """Shorten ids for tables to digits that are still found, and that name one snapshot only.

    The first digits of an id are its time, which has a column of its own; so the ones after it are shown.
    """
    tails = [name[_TIME_DIGITS:] for name in names]
    longest = max(map(len, tails), default=_SHORTEST)
    length = next((n for n in range(_SHORTEST, longest) if len({tail[:n] for tail in tails}) == len(tails)), longest)
    return {name: tail[:length] for name, tail in zip(names, tails, strict=True)}


def snapshot_fields(snapshot: Snapshot) -> dict[str, object]:
    """Return the fields of a snapshot, without its files."""
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
        "problems": snapshot.problems,
    }


Pins = Mapping[str, Pin | None]
"""Pins by the ids of their snapshots; None for a pin that is damaged, which still counts."""


def pin_fields(pins: Pins, name: str) -> dict[str, object] | None:
    """Return the fields of a snapshot's pin; None if it is not pinned."""
    if name not in pins:
        return None
    pin = pins[name]
    return {"time": pin and pin.time, "message": pin and pin.message}


def pinned(pins: Pins, name: str) -> str:
    """Return why a snapshot is pinned, for people; empty if it is not."""
    pin = pins.get(name)
    return (pin.message if pin else "") or ("yes" if name in pins else "")


def snapshots_table(snapshots: Sequence[Snapshot], names: Sequence[str], pins: Pins) -> Table:
    """Return a table of snapshots; ``names`` are the ids among which a short id must be unique."""
    short = short_ids(names)
    several = len({snapshot.store for snapshot in snapshots}) > 1
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
            ", ".join(dict.fromkeys(problem.code for problem in snapshot.problems)) or "healthy",
        )
        for snapshot in snapshots
    ]
    title = f"Snapshots of {snapshots[0].store}" if snapshots and not several else ""
    return table(*_SNAPSHOT_COLUMNS, rows=rows, title=title)


def _seen(report: Report | None) -> tuple[int | None, int | None, str | None]:
    return (report.count, report.dimension, report.kind) if report else (None, None, None)


def file_fields(entry: FileEntry) -> dict[str, object]:
    """Return the fields of a file in a snapshot."""
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
    """Return a table of the files in a snapshot."""
    rows = []
    for entry in entries:
        count, dimension, kind = _seen(entry.report)
        rows.append((entry.path, size(entry.size), number(count), number(dimension), kind or "", entry.blake3[:16]))
    return table("File", ">Size", ">Count", ">Dimension", "Kind", "!BLAKE3", rows=rows)


def plan_fields(plan: RestorePlan) -> dict[str, object]:
    """Return the fields of the plan of a restore."""
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
    """Return a table of the plan of a restore."""
    return table(
        "!Step",
        "File",
        ">Size",
        "What is there now",
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
