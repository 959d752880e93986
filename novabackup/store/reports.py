"""Reports and problems of a store, and snapshots, as tables in notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from novabackup._support.html import size, table
from novabackup.format.records import Point, Problem, Report

__all__ = ["Problems", "Reports", "snapshot_html", "snapshots_html"]


class Reports(tuple[Report, ...]):
    """Reports of the components of a store, in the order in which they are declared."""

    __slots__ = ()

    def __getitem__(self, key: object) -> Report:  # type: ignore[override]
        """Return a report by its position or by the path of its file."""
        if isinstance(key, str):
            for report in self:
                if report.path == key:
                    return report
            raise KeyError(key)
        return tuple.__getitem__(self, key)  # type: ignore[no-any-return,call-overload]

    def _repr_html_(self) -> str:
        return table(
            "Index files",
            ["file", "exists", "size", "count", "dimension", "kind", "written with", "problems"],
            (
                (
                    report.path,
                    report.exists,
                    size(report.size),
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
    """Problems of a store; empty, and so false, if it is healthy."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return table(
            "Problems", ["problem", "files", "what to know"], ((p.code, ", ".join(p.paths), p.message) for p in self)
        )


_COLUMNS = ("id", "time", "store", "size", "added", "tags", "message", "problems")


def snapshots_html(points: Iterable[Point]) -> str:
    """Return snapshots as a table."""
    return table("Snapshots", _COLUMNS, map(_row, points))


def snapshot_html(point: Point) -> str:
    """Return one snapshot and its files as tables."""
    rows = []
    for entry in point.record.files:
        report = entry.report
        seen = (report.count, report.dimension, report.kind) if report else (None, None, None)
        rows.append((entry.path, size(entry.size), *seen, entry.blake3[:16]))
    about = table(f"Snapshot {point.id}", _COLUMNS[1:], [_row(point)[1:]])
    return about + table("Files", ["file", "size", "count", "dimension", "kind", "BLAKE3"], rows)


def _row(point: Point) -> tuple[object, ...]:
    record = point.record
    return (
        point.id,
        f"{record.time:%Y-%m-%d %H:%M:%S} UTC",
        record.store,
        size(record.size),
        size(record.added),
        ", ".join(record.tags),
        record.message,
        "; ".join(map(str, record.problems)) or "none",
    )
