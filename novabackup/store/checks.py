"""Rules over what the components of a store reported: from reports to problems, without reading anything.

A check gets a report for every file that is there, and for every required file that is not. It is a plain function,
so a rule of one's own is a function too.
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
"""A rule: gets the reports of all components of one store, gives what is wrong."""

EMPTIED = "emptied"
_AGAIN = "Ingest again, or restore the files together from one snapshot"


def nothing_damaged(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Hand on the damage that components saw in their own files.

    Args:
        reports: Of the components of one store.

    Returns:
        The problems of all reports, as they are.
    """
    return tuple(problem for report in reports for problem in report.problems)


def all_present(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Find required files that are missing beside others that are there.

    A store without any file is no problem: a first ingestion starts from it.

    Args:
        reports: Of the components of one store.

    Returns:
        A problem ``missing`` for each such file.
    """
    there = [report.path for report in reports if report.exists]
    if not there:
        return ()
    beside = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
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
    """Compare the numbers of vectors, documents and entries, which have to be the same.

    Args:
        reports: Of the components of one store.

    Returns:
        One problem ``count-mismatch`` that names every file with its count, or nothing.
    """
    counted = [(report.path, report.count) for report in reports if report.count is not None]
    return _agree("count-mismatch", "the same number of entries in every file", counted)


def dimensions_agree(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Compare the dimensions of the vectors, where more than one file has vectors.

    Args:
        reports: Of the components of one store.

    Returns:
        One problem ``dimension-mismatch`` that names every file with its dimension, or nothing.
    """
    measured = [(report.path, report.dimension) for report in reports if report.dimension is not None]
    return _agree("dimension-mismatch", "vectors of the same dimension in every file", measured)


def vectors_cover_entries(reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Make sure that there are at least as many vectors as documents and entries: the rule for append-only indexes.

    Such an index keeps the vectors of deleted documents, so it may have more vectors than entries, never fewer. To
    be used in place of `counts_agree`.

    Args:
        reports: Of the components of one store; those with a dimension are the ones with vectors.

    Returns:
        One problem ``count-mismatch`` that names every file with its count, or nothing.
    """
    counted = [report for report in reports if report.count is not None]
    vectors = [report.count for report in counted if report.dimension is not None and report.count is not None]
    others = [report.count for report in counted if report.dimension is None and report.count is not None]
    if not vectors or not others or min(vectors) >= max(others):
        return ()
    expected = "at least as many vectors as entries"
    return (_mismatch("count-mismatch", expected, [(report.path, report.count) for report in counted]),)


DEFAULT: tuple[Check, ...] = (nothing_damaged, all_present, counts_agree, dimensions_agree)
"""What a store is held to unless told otherwise."""


def run(checks: Iterable[Check], reports: Sequence[Report]) -> tuple[Problem, ...]:
    """Apply rules to reports.

    Args:
        checks: The rules.
        reports: Of the components of one store.

    Returns:
        What they found, in their order, each problem once.
    """
    return tuple(dict.fromkeys(problem for check in checks for problem in check(reports)))


def emptied(reports: Sequence[Report], before: Collection[str]) -> tuple[Problem, ...]:
    """Find a store that has lost all of its files, which `all_present` takes for one that has none yet.

    Args:
        reports: Of the components of one store. Where there are none, no file is required.
        before: Paths of the files that it had when it was last looked at.

    Returns:
        One problem ``emptied``, or none.
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
    """Name the files that a store had when it last had any.

    Args:
        files: Paths of those in its newest snapshot.
        problems: What was wrong then; if they were gone already, this says which.
    """
    return [path for problem in problems if problem.code == EMPTIED for path in problem.paths] or files


def new_problems(before: Iterable[Problem], after: Iterable[Problem]) -> tuple[Problem, ...]:
    """Leave out what was wrong already: a problem is old if one with the same code and paths was there before.

    The wording does not count, since it holds numbers that a healthy ingestion changes too.

    Args:
        before: Problems of the store before the change.
        after: Problems afterwards.

    Returns:
        Those of ``after`` that are new, in their order.
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
