"""Rules between the files of a store: functions from the reports of its components to problems; they read no file.

A check gets one report for each file that exists, and one for each required file that does not. Users write rules of
their own as functions of the same type.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from novabackup.format.records import Problem, Report

__all__ = [
    "DEFAULT",
    "Check",
    "all_present",
    "counts_agree",
    "dimensions_agree",
    "emptied",
    "last_known",
    "new_problems",
    "nothing_damaged",
    "run",
    "vectors_cover_entries",
]

Check = Callable[[Sequence[Report]], Iterable[Problem]]
"""A rule: takes the reports of all components of one store, returns the problems that it finds."""

EMPTIED = "emptied"
_AGAIN = "Ingest again, or restore the files together from one snapshot"


def nothing_damaged(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Return the damage that components found in their own files."""
    return tuple(problem for report in reports for problem in report.problems)


def all_present(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Return a problem ``missing`` for each required file that does not exist while others do.

    A store without any file is no problem: a first ingestion starts from it.
    """
    found = [report.path for report in reports if report.exists]
    if not found:
        return ()
    beside = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return tuple(
        Problem(
            code="missing",
            paths=(report.path,),
            message=f"expected this file beside {beside}, found none. {_AGAIN}",
        )
        for report in reports
        if not report.exists
    )


def counts_agree(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Require equal numbers of vectors, documents and entries.

    Otherwise returns one problem ``count-mismatch`` that names every file with its count.
    """
    counted = [(report.path, report.count) for report in reports if report.count is not None]
    return _agree("count-mismatch", "the same number of entries in every file", counted)


def dimensions_agree(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Require vectors of equal dimension, if more than one file has vectors.

    Otherwise returns one problem ``dimension-mismatch`` that names every file with its dimension.
    """
    measured = [(report.path, report.dimension) for report in reports if report.dimension is not None]
    return _agree("dimension-mismatch", "vectors of the same dimension in every file", measured)


def vectors_cover_entries(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Require at least as many vectors as documents and entries: the rule for append-only indexes.

    Such an index keeps the vectors of deleted documents, so it may have more vectors than entries, never fewer. Use it
    in place of `counts_agree`. Files whose report has a dimension are those with vectors.

    Otherwise returns one problem ``count-mismatch`` that names every file with its count.
    """
    counted = [report for report in reports if report.count is not None]
    vectors = [report.count for report in counted if report.dimension is not None and report.count is not None]
    others = [report.count for report in counted if report.dimension is None and report.count is not None]
    if not vectors or not others or min(vectors) >= max(others):
        return ()
    expected = "at least as many vectors as entries"
    return (_mismatch("count-mismatch", expected, [(report.path, report.count) for report in counted]),)


DEFAULT: tuple[Check, ...] = (nothing_damaged, all_present, counts_agree, dimensions_agree)
"""The checks of a store by default."""


def run(checks: Iterable[Check], reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Apply checks to the reports of one store; return their problems in order, each once."""
    return tuple(dict.fromkeys(problem for check in checks for problem in check(reports)))


def emptied(reports: Sequence[Report], before: Collection[str]) -> tuple[Problem, ...]:
    """Return a problem ``emptied`` if a store has lost all of its files.

    `all_present` cannot notice that: it takes the store for one before its first ingestion.

    Args:
        reports: Reports of the components. If there are none, no file is required.
        before: Paths of the files that the store had before.
    """
    if not before or not reports or any(report.exists for report in reports):
        return ()
    return (
        Problem(
            code=EMPTIED,
            paths=tuple(sorted(before)),
            message=f"expected the {len(before)} files that were there before, found none of them. Restore them from a "
            "snapshot, or ingest again",
        ),
    )


def last_known(files: Collection[str], problems: Iterable[Problem]) -> Collection[str]:
    """Return the files that a store had when it last had any.

    Args:
        files: Paths of the files in its newest snapshot.
        problems: Problems recorded in that snapshot; if all files were gone already, they name them.
    """
    return [path for problem in problems if problem.code == EMPTIED for path in problem.paths] or files


def new_problems(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems that a change caused: those of which none with the same code and paths existed before.

    The wording does not count, since it contains numbers that a healthy ingestion changes, too.

    Args:
        before: Problems of the store before the change.
        after: Problems afterwards.
    """
    known = {(problem.code, problem.paths) for problem in before}
    return tuple(problem for problem in after if (problem.code, problem.paths) not in known)


def _agree(code: str, expected: str, numbers: Sequence[tuple[str, int]]) -> tuple[Problem, ...]:
    if len({number for _, number in numbers}) <= 1:
        return ()
    return (_mismatch(code, expected, numbers),)


def _mismatch(code: str, expected: str, numbers: Sequence[tuple[str, int | None]]) -> Problem:
    found = ", ".join(f"{path} {number}" for path, number in numbers)
    paths = tuple(path for path, _ in numbers)
    return Problem(code=code, paths=paths, message=f"expected {expected}, found {found}. {_AGAIN}")
