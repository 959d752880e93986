"""Commands that look for damage: verify, check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from novabackup.cli.around import around
from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer, count, counted, problem_fields, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options
from novabackup.errors import CheckFailedError, IntegrityError
from novabackup.format.records import Problem
from novabackup.repository.snapshot import Snapshot

__all__ = ["check", "verify"]

_MENDED = "What can be had back, and from where: novabackup repair --dry-run"


def verify(
    *snapshots: str, level: Literal["structure", "hashes", "open", "queries"] = "hashes", options: Options = BY_DEFAULT
) -> Answer:
    """Make sure that snapshots can be restored: by default, read every byte and check it against its hashes.

    Args:
        snapshots: Ids or the beginnings of ids; by default the latest.
        level: How thoroughly: structure (all is there), hashes (every byte), open (restored to a folder for temporary
            files and opened), queries (asked again what it was asked when it was taken).
    """
    with options.open() as work:
        verified = []
        for found in [work.snapshot(name) for name in snapshots or ("latest",)]:
            problems: tuple[Problem, ...] = ()
            notes: tuple[str, ...] = ()
            with around(work, "verify", work.store_at(found.store)) as seen, work.progress("Verifying") as bar:
                seen.snapshot = found
                try:
                    notes = found.verify(level, callback=bar).notes
                except (IntegrityError, CheckFailedError) as error:
                    seen.failure, problems = error, error.problems
            verified.append((found, problems, notes))
        damaged = [(found, problems) for found, problems, _notes in verified if problems]
        return Answer(
            fields={
                "repository": work.repository.url,
                "level": level,
                "snapshots": [
                    {
                        "id": found.id,
                        "size": found.size,
                        "problems": [problem_fields(problem) for problem in problems],
                        "notes": list(notes),
                    }
                    for found, problems, notes in verified
                ],
            },
            shown=[
                line
                for found, problems in damaged
                for line in (f"Snapshot {found.id} is damaged:", *problem_lines(problems))
            ],
            done=[
                line
                for found, problems, notes in verified
                for line in (*([] if problems else [_right(found, level)]), *(f"Note: {note}" for note in notes))
            ],
            exit=Exit.WRONG if damaged else Exit.OK,
        )


def _right(found: Snapshot, level: str) -> str:
    amount, files = size(found.size), count(len(found.files), "file")
    said = {
        "structure": f"all of its content is there ({amount} in {files})",
        "hashes": f"all {amount} in {files} are right",
        "open": f"all {amount} in {files} are right, and the index files were opened",
        "queries": f"all {amount} in {files} are right, and the indexes answer as they did",
    }
    return f"Snapshot {found.id}: {said[level]}"


def check(*, read_data_subset: str | None = None, live: bool = False, options: Options = BY_DEFAULT) -> Answer:
    """Check that every snapshot in the repository can be read and has all that it needs.

    Args:
        read_data_subset: Also read packs and check every byte: 100% for all, 10% for a random tenth, 2/7 for the second
            of seven parts.
        live: Also open the live files of the store, and compare what is in them.
    """
    with options.open() as work:
        with (
            around(work, "check") as seen,
            work.progress("Checking", counted("packs")) as bar,
        ):
            problems = work.repository.check(read_data_subset=read_data_subset, callback=bar)
            if problems:
                seen.failure = IntegrityError(f"problems in {work.repository.url}", problems)
        many = len(work.repository)
        done = [] if problems else [f"Repository {work.repository.url}: no problems; {count(many, 'snapshot')}"]
        shown = [f"Problems in {work.repository.url}:", *problem_lines(problems), _MENDED] if problems else []
        fields: dict[str, object] = {
            "repository": work.repository.url,
            "problems": [problem_fields(problem) for problem in problems],
        }
        found: Sequence[Problem] = ()
        if live:
            with work.progress("Looking", counted("files")) as bar:
                found = work.live_problems(bar)
            shown += [f"Problems in {work.store.url}:", *problem_lines(found)] if found else []
            done += [] if found else [f"Store {work.store.url}: no problems"]
            fields |= {"store": work.store.url, "store_problems": [problem_fields(problem) for problem in found]}
        return Answer(fields=fields, shown=shown, done=done, exit=Exit.WRONG if problems or found else Exit.OK)
