"""The commands verify and check, which look for damage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.exits import Exit
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, counted, problem_lines, size
from novabackup.errors import CheckFailedError, IntegrityError, Problem

_REPAIR = "To see what can be repaired, and from where: novabackup repair --dry-run"
_VERIFIED = {
    "structure": "all of its content is there ({})",
    "hashes": "all {} are right",
    "open": "all {} are right, and the index files were opened",
    "queries": "all {} are right, and the indexes answer as they did",
}


def verify(
    *snapshots: str, level: Literal["structure", "hashes", "open", "queries"] = "hashes", options: Options = BY_DEFAULT
) -> Result:
    """Check that snapshots can be restored.

    By default, every byte is read and checked against its hash.

    Args:
        snapshots: Ids or the beginnings of ids; by default the latest.
        level: How thoroughly: structure (all content exists), hashes (every byte), open (restored to a temporary folder
            and opened), queries (the queries recorded with the snapshot are run again).
    """
    with options.open() as context:
        fields, shown, done = [], [], []
        for found in [context.snapshot(name) for name in snapshots or ("latest",)]:
            problems: tuple[Problem, ...] = ()
            notes: tuple[str, ...] = ()
            store = context.store_at(found.store)
            with lifecycle(context, "verify", store) as execution, context.progress("Verifying") as bar:
                execution.snapshot = found
                try:
                    notes = found.verify(level, callback=bar).notes
                except (IntegrityError, CheckFailedError) as error:
                    execution.failure, problems = error, error.problems
            fields.append({"id": found.id, "size": found.size, "problems": problems, "notes": notes})
            if problems:
                shown += [f"Snapshot {found.id} is damaged:", *problem_lines(problems)]
            else:
                amount = f"{size(found.size)} in {count(len(found.files), 'file')}"
                done.append(f"Snapshot {found.id}: {_VERIFIED[level].format(amount)}")
            done += [f"Note: {note}" for note in notes]
        return Result(
            fields={"repository": context.repository.url, "level": level, "snapshots": fields},
            shown=shown,
            done=done,
            exit=Exit.WRONG if shown else Exit.OK,
        )


def check(*, read_data_subset: str | None = None, live: bool = False, options: Options = BY_DEFAULT) -> Result:
    """Check that every snapshot in the repository is complete and can be read.

    Args:
        read_data_subset: Also read packs and check every byte: 100% for all, 10% for a random tenth, 2/7 for the second
            of seven parts.
        live: Also open the live files of the store, and compare their contents.
    """
    with options.open() as context:
        repository = context.repository
        with lifecycle(context, "check") as execution, context.progress("Checking", counted("packs")) as bar:
            problems = repository.check(read_data_subset=read_data_subset, callback=bar)
            if problems:
                execution.failure = IntegrityError(f"problems in {repository.url}", problems)
        many = len(repository)
        done = [] if problems else [f"Repository {repository.url}: no problems; {count(many, 'snapshot')}"]
        shown = [f"Problems in {repository.url}:", *problem_lines(problems), _REPAIR] if problems else []
        fields: dict[str, object] = {"repository": repository.url, "problems": problems}
        found: Sequence[Problem] = ()
        if live:
            with context.progress("Checking", counted("files")) as bar:
                found = context.live_problems(bar)
            shown += [f"Problems in {context.store.url}:", *problem_lines(found)] if found else []
            done += [] if found else [f"Store {context.store.url}: no problems"]
            fields |= {"store": context.store.url, "store_problems": found}
        return Result(fields=fields, shown=shown, done=done, exit=Exit.WRONG if problems or found else Exit.OK)
