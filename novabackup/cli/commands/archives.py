"""Commands that deal with plain archives and earlier copies: export, import archive, import pre-ingest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.exits import Exit
from novabackup.cli.json_fields import snapshot_fields
from novabackup.cli.output import Answer, Column, Table, count, local, problem_fields, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options
from novabackup.errors import NotFoundError
from novabackup.operations.archives.plan import ImportPlan
from novabackup.repository.snapshot import Snapshot

__all__ = ["export", "import_archive", "import_pre_ingest"]


def export(
    snapshot: str = "latest",
    /,
    *,
    to: Annotated[str, Parameter(metavar="FOLDER")],
    options: Options = BY_DEFAULT,
) -> Answer:
    """Write a snapshot as a plain archive, with its checksum beside it; sha256sum and tar understand the two.

    It is not encrypted, even if the repository is. Nothing that is there is replaced.

    Args:
        snapshot: An id, the beginning of one, or latest.
        to: A folder, or a file whose name ends with .tar.gz; a path or a URL.
    """
    with options.open() as work:
        found = work.snapshot(snapshot)
        with work.progress("Exporting") as bar:
            written = found.export(to, storage_options=work.options_for(to), callback=bar)
        return Answer(
            fields={"snapshot": found.id, "url": written.url, "size": written.size, "sha256": written.sha256},
            done=[f"{written.url}: {size(written.size)}, SHA-256 {written.sha256}"],
        )


def import_archive(
    archive: Annotated[str, Parameter(metavar="FILE")],
    /,
    *,
    tag: tuple[str, ...] = (),
    message: str = "",
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Take a plain archive in as a snapshot of the store, from the time that its name tells.

    The store itself is not touched. One that was taken in before is not taken in again.

    Args:
        archive: A .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst.
        tag: Label besides imported; may be repeated.
        message: Free text; by default the name of the archive.
        dry_run: Read it, say what would be taken in, and do nothing.
    """
    with options.open() as work:
        where = _local(archive)
        if dry_run:
            return _planned([work.repository.plan_import_archive(where, work.store)])
        with work.progress("Importing") as bar:
            taken = work.repository.import_archive(where, work.store, tags=tag, message=message, callback=bar)
        return _taken(work.repository.url, [taken])


def import_pre_ingest(
    folder: Annotated[str, Parameter(metavar="FOLDER")],
    /,
    *,
    tag: tuple[str, ...] = (),
    message: str = "",
    dry_run: bool = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Take in the copies that a script made before each ingest, such as faiss_index.bin.pre_ingest_20260125_143000.

    Each time in their names becomes a snapshot of the store. The files stay where they are; what was taken in before is
    not taken in again.

    Args:
        folder: Where they are.
        tag: Label besides pre-ingest and imported; may be repeated.
        message: Free text; by default the time in the names.
        dry_run: Say what would be taken in, and do nothing.
    """
    with options.open() as work:
        where = _local(folder)
        if "://" not in where and not Path(where).is_dir():
            raise NotFoundError(
                f"{where}: expected a folder with files such as faiss_index.bin.pre_ingest_20260125_143000, found no "
                "folder. Look at the path"
            )
        if dry_run:
            return _planned(work.repository.plan_import_pre_ingest(where, work.store))
        with work.progress("Importing") as bar:
            taken = work.repository.import_pre_ingest(where, work.store, tags=tag, message=message, callback=bar)
        return _taken(work.repository.url, list(taken))


def _local(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())


def _planned(plans: Sequence[ImportPlan]) -> Answer:
    fields = [
        {
            "source": plan.source,
            "time": plan.time,
            "store": plan.store,
            "files": [{"path": file.path, "size": file.size} for file in plan.files],
            "left_out": list(plan.left_out),
            "problems": [problem_fields(problem) for problem in plan.problems],
            "vouched": plan.vouched,
        }
        for plan in plans
    ]
    columns = [Column("Time", whole=True), Column("File"), Column("Size", right=True)]
    rows = [(local(plan.time), file.path, size(file.size)) for plan in plans for file in plan.files]
    problems = [problem for plan in plans for problem in plan.problems]
    lines: list[Table | str] = [f"{count(len(plans), 'snapshot')} would be taken in; nothing was done"]
    if problems:
        lines = ["This will be refused:", *problem_lines(problems)]
    left_out = [path for plan in plans for path in plan.left_out]
    lines += [Table(columns=columns, rows=rows)] if rows else ["No file of the store is there"]
    lines += [f"Left out: {', '.join(left_out)}"] if left_out else []
    return Answer(
        fields={"dry_run": True, "snapshots": fields}, shown=lines, exit=Exit.WRONG if problems or not rows else Exit.OK
    )


def _taken(repository: str, taken: Sequence[Snapshot]) -> Answer:
    unhealthy = [one for one in taken if one.problems]
    return Answer(
        fields={
            "dry_run": False,
            "repository": repository,
            "snapshots": [snapshot_fields(one) for one in taken],
        },
        shown=[line for one in unhealthy for line in (f"Problems in snapshot {one.id}:", *problem_lines(one.problems))],
        done=[_line(one) for one in taken] or ["There is nothing to take in"],
        exit=Exit.WRONG if unhealthy else Exit.OK,
    )


def _line(taken: Snapshot) -> str:
    return f"Snapshot {taken.id} of {local(taken.time)}: {count(len(taken.files), 'file')}, {size(taken.size)}"
