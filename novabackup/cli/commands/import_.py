"""The commands import archive and import pre-ingest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.exits import Exit
from novabackup.cli.json_fields import snapshot_fields
from novabackup.cli.output import Result, Table, local, problem_lines, size, table
from novabackup.errors import NotFoundError
from novabackup.operations.archives.plan import ImportPlan
from novabackup.repository.snapshot import Snapshot


def import_archive(
    archive: Annotated[str, Parameter(metavar="FILE")],
    /,
    *,
    tag: tuple[str, ...] = (),
    message: str = "",
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Import a plain archive as a snapshot of the store.

    Its time is the one in the name of the archive. The store itself is not touched. An archive that was imported before
    is not imported again.

    Args:
        archive: A .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst.
        tag: Label besides imported; may be repeated.
        message: Free text; by default the name of the archive.
        dry_run: Read it, show what would be imported, and do nothing.
    """
    with options.open() as context:
        repository, where = context.repository, _absolute(archive)
        if dry_run:
            return _planned([repository.plan_import_archive(where, context.store)])
        with context.progress("Importing") as bar:
            taken = repository.import_archive(where, context.store, tags=tag, message=message, callback=bar)
        return _imported(repository.url, [taken])


def import_pre_ingest(
    folder: Annotated[str, Parameter(metavar="FOLDER")],
    /,
    *,
    tag: tuple[str, ...] = (),
    message: str = "",
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Import copies that a script made before ingests.

    Such as faiss_index.bin.pre_ingest_20260125_143000. Each time in their names becomes a snapshot of the store. The
    files stay where they are; what was imported before is not imported again.

    Args:
        folder: Where they are.
        tag: Label besides pre-ingest and imported; may be repeated.
        message: Free text; by default the time in the names.
        dry_run: Show what would be imported, and do nothing.
    """
    with options.open() as context:
        repository, where = context.repository, _absolute(folder)
        if "://" not in where and not Path(where).is_dir():
            raise NotFoundError(
                f"{where}: expected a folder with files such as faiss_index.bin.pre_ingest_20260125_143000, found no "
                "folder. Check the path"
            )
        if dry_run:
            return _planned(repository.plan_import_pre_ingest(where, context.store))
        with context.progress("Importing") as bar:
            taken = repository.import_pre_ingest(where, context.store, tags=tag, message=message, callback=bar)
        return _imported(repository.url, taken)


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())


def _planned(plans: Sequence[ImportPlan]) -> Result:
    fields = [
        {
            "source": plan.source,
            "time": plan.time,
            "store": plan.store,
            "files": [{"path": file.path, "size": file.size} for file in plan.files],
            "left_out": plan.left_out,
            "problems": plan.problems,
            "vouched": plan.vouched,
        }
        for plan in plans
    ]
    rows = [(local(plan.time), file.path, size(file.size)) for plan in plans for file in plan.files]
    problems = [problem for plan in plans for problem in plan.problems]
    lines: list[Table | str] = [f"{count(len(plans), 'snapshot')} would be imported; nothing was done"]
    if problems:
        lines = ["This will be refused:", *problem_lines(problems)]
    left_out = [path for plan in plans for path in plan.left_out]
    lines += [table("!Time", "File", ">Size", rows=rows)] if rows else ["It has no file of the store"]
    lines += [f"Left out: {', '.join(left_out)}"] if left_out else []
    return Result(
        fields={"dry_run": True, "snapshots": fields}, shown=lines, exit=Exit.WRONG if problems or not rows else Exit.OK
    )


def _imported(repository: str, taken: Sequence[Snapshot]) -> Result:
    unhealthy = [one for one in taken if one.problems]
    return Result(
        fields={"dry_run": False, "repository": repository, "snapshots": [snapshot_fields(one) for one in taken]},
        shown=[line for one in unhealthy for line in (f"Problems in snapshot {one.id}:", *problem_lines(one.problems))],
        done=[
            f"Snapshot {one.id} of {local(one.time)}: {count(len(one.files), 'file')}, {size(one.size)}"
            for one in taken
        ]
        or ["There is nothing to import"],
        exit=Exit.WRONG if unhealthy else Exit.OK,
    )
