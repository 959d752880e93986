"""How records show as tables in notebooks; and sequences of them that are plain tuples elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from novabackup._support import html as _html
from novabackup.format.records import Problem, Report, SnapshotRecord

__all__ = ["Problems", "Reports", "snapshot_html", "snapshots_html"]


class Reports(tuple[Report, ...]):
    """What the components of a store reported, in the order in which they are declared."""

    __slots__ = ()

    def __getitem__(self, key: object) -> Report:  # type: ignore[override]
        """Find a report by its position or by the path of its file."""
        if isinstance(key, str):
            for report in self:
                if report.path == key:
                    return report
            raise KeyError(key)
        return tuple.__getitem__(self, key)  # type: ignore[no-any-return,call-overload]

    def _repr_html_(self) -> str:
        return _html.table(
            "Index files",
            ["file", "exists", "size", "count", "dimension", "kind", "written with", "problems"],
            (
                (
                    report.path,
                    report.exists,
                    _html.size(report.size),
                    report.count,
                    report.dimension,
                    report.kind,
                    report.written_with,
                    "; ".join(problem.message for problem in report.problems) or "none",
                )
                for report in self
            ),
        )


class Problems(tuple[Problem, ...]):
    """What is wrong; empty, and so false, when all is well."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return _html.table(
            "Problems", ["problem", "files", "what to know"], ((p.code, ", ".join(p.paths), p.message) for p in self)
        )


_COLUMNS = ("id", "time", "store", "size", "added", "tags", "message", "problems")


def snapshots_html(snapshots: Iterable[tuple[str, SnapshotRecord]]) -> str:
    """Show snapshots, each given with its id, as a table."""
    return _html.table("Snapshots", _COLUMNS, (_row(name, record) for name, record in snapshots))


def snapshot_html(name: str, record: SnapshotRecord) -> str:
    """Show one snapshot and its files as tables."""
    rows = []
    for entry in record.files:
        report = entry.report
        seen = (report.count, report.dimension, report.kind) if report else (None, None, None)
        rows.append((entry.path, _html.size(entry.size), *seen, entry.blake3[:16]))
    about = _html.table(f"Snapshot {name}", _COLUMNS[1:], [_row(name, record)[1:]])
    return about + _html.table("Files", ["file", "size", "count", "dimension", "kind", "BLAKE3"], rows)


def _row(name: str, record: SnapshotRecord) -> tuple[object, ...]:
    return (
        name,
        f"{record.time:%Y-%m-%d %H:%M:%S} UTC",
        record.store,
        _html.size(record.size),
        _html.size(record.added),
        ", ".join(record.tags),
        record.message,
        "; ".join(map(str, record.problems)) or "none",
    )
