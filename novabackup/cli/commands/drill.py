"""The command drill."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.context import BY_DEFAULT, Options, Span
from novabackup.cli.exits import Exit
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, local, problem_lines, size, table
from novabackup.errors import CheckFailedError, ConfigurationError, IntegrityError
from novabackup.format.findings import Drill


def drill(
    snapshot: str | None = None,
    /,
    *,
    rto: Span | None = None,
    command: Annotated[str, Parameter(metavar="COMMAND")] = "",
    list_: Annotated[bool, Parameter(name="--list")] = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Restore an old snapshot to a temporary folder, check it, and delete it.

    It is opened, and its recorded queries are run again. The result is recorded in the repository. Ends with 1 if the
    drill failed.

    Args:
        snapshot: An id, or the beginning of one; by default a healthy one is chosen at random.
        rto: How long all of it may take, such as 5m (recovery time objective).
        command: Program and arguments that check the restored store, such as "pytest tests/retrieval"; no shell runs
            them. The folder is in NOVABACKUP_DRILL_FOLDER.
        list_: Show the results of the last drills, and do nothing.
    """
    with options.open() as context:
        repository = context.repository
        if list_:
            return _listed(repository.url, repository.drills())
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigurationError(f"--command: expected a program and its arguments, found {error}") from None
        found = context.snapshot(snapshot) if snapshot else None
        store = context.store_at(found.store) if found else context.known_store
        try:
            with lifecycle(context, "drill", store), context.progress("Restoring for the drill") as bar:
                done = repository.drill(found, store=store, command=words, rto=rto, callback=bar)
        except (CheckFailedError, IntegrityError) as error:
            return Result(
                fields={"repository": repository.url, "problems": error.problems},
                shown=[str(error.args[0]), *problem_lines(error.problems)],
                exit=Exit.WRONG,
            )
        return Result(
            fields={"repository": repository.url, "drill": _fields(done), "problems": []},
            done=[
                f"Snapshot {done.snapshot}: {size(done.size)} restored, opened and found right in {_took(done)}",
                *(f"Note: {note}" for note in done.notes),
            ],
        )


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
        "command": drill.command,
        "status": drill.status,
        "notes": drill.notes,
        "problems": drill.problems,
    }


def _listed(repository: str, drills: Sequence[Drill]) -> Result:
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
    return Result(
        fields={"repository": repository, "drills": [_fields(one) for one in drills]},
        shown=[
            table("!Time", "!Snapshot", ">Size", ">Took", "Result", rows=rows)
            if rows
            else f"No drills in {repository} yet",
            *(["The last one failed:", *problem_lines(last)] if last else []),
        ],
        exit=Exit.WRONG if last else Exit.OK,
    )
