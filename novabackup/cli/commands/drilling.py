"""The command that restores a snapshot on trial: drill."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.around import around
from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer, Column, Table, local, problem_fields, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options, Span
from novabackup.errors import CheckFailedError, ConfigurationError, IntegrityError
from novabackup.format.findings import Drill

__all__ = ["drill"]


def drill(
    snapshot: str | None = None,
    /,
    *,
    rto: Span | None = None,
    command: Annotated[str, Parameter(metavar="COMMAND")] = "",
    list_: Annotated[bool, Parameter(name="--list")] = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Restore an old snapshot to a folder for temporary files, open it, ask it again what it was asked, and delete it.

    How it went is noted in the repository. Ends with 1 if it failed.

    Args:
        snapshot: An id, or the beginning of one; by default a healthy one is chosen by chance.
        rto: How long that may take together, such as 5m (recovery time objective).
        command: Program and arguments that look at the restored store, such as "pytest tests/retrieval"; no shell reads
            them. It finds the folder in NOVABACKUP_DRILL_FOLDER.
        list_: Tell how the last drills went, and do nothing.
    """
    with options.open() as work:
        if list_:
            return _listed(work.repository.url, work.repository.drills())
        words = _words(command)
        found = work.snapshot(snapshot) if snapshot else None
        kind = work.store_at(found.store) if found else work.known_store
        try:
            with around(work, "drill", kind), work.progress("Restoring on trial") as bar:
                done = work.repository.drill(found, store=kind, command=words, rto=rto, callback=bar)
        except (CheckFailedError, IntegrityError) as error:
            return Answer(
                fields={"repository": work.repository.url, "problems": [problem_fields(one) for one in error.problems]},
                shown=[str(error.args[0]), *problem_lines(error.problems)],
                exit=Exit.WRONG,
            )
        return Answer(
            fields={"repository": work.repository.url, "drill": _fields(done), "problems": []},
            done=[
                f"Snapshot {done.snapshot}: {size(done.size)} restored, opened and found right in {_took(done)}",
                *(f"Note: {note}" for note in done.notes),
            ],
        )


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"--command: expected a program and its arguments, found {error}") from None


def _took(drill: Drill) -> str:
    return f"{drill.recovery_milliseconds / 1000:.1f} s"


def _fields(drill: Drill) -> dict[str, object]:
    return {
        "snapshot": drill.snapshot,
        "store": drill.store,
        "time": drill.time,
        "host": drill.host,
        "size": drill.size,
        "milliseconds": dict(drill.milliseconds),
        "rto_milliseconds": drill.rto_milliseconds,
        "queries": drill.queries,
        "command": list(drill.command),
        "status": drill.status,
        "notes": list(drill.notes),
        "problems": [problem_fields(problem) for problem in drill.problems],
    }


def _listed(repository: str, drills: Sequence[Drill]) -> Answer:
    columns = [
        Column("Time", whole=True),
        Column("Snapshot", whole=True),
        Column("Size", right=True),
        Column("Took", right=True),
        Column("Result"),
    ]
    rows = [
        (
            local(one.time),
            one.snapshot,
            size(one.size),
            _took(one),
            ", ".join(dict.fromkeys(problem.code for problem in one.problems)) or "passed",
        )
        for one in drills
    ]
    last = drills[-1].problems if drills else ()
    return Answer(
        fields={"repository": repository, "drills": [_fields(one) for one in drills]},
        shown=[
            Table(columns=columns, rows=rows) if rows else f"No drills in {repository} yet",
            *(["The last one failed:", *problem_lines(last)] if last else []),
        ],
        exit=Exit.WRONG if last else Exit.OK,
    )
