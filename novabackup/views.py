"""Sequences of records that show as tables in notebooks and as plain tuples elsewhere."""

from __future__ import annotations

from novabackup import _html
from novabackup.model import Problem, Report

__all__ = ["Problems", "Reports"]


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
