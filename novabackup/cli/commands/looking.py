"""Commands that look and change nothing: list, show, diff, stats."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from novabackup.cli.json_fields import file_fields, files_table, pin_fields, pinned, snapshot_fields, snapshots_table
from novabackup.cli.output import Answer, Column, Table, count, counted, number, problem_fields, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options
from novabackup.format.records import FileEntry
from novabackup.operations.usage import Usage

__all__ = ["diff", "list_", "show", "stats"]

Count = Annotated[int, Parameter(validator=Number(gte=1), metavar="N")]


def list_(*, tag: tuple[str, ...] = (), last: Count | None = None, options: Options = BY_DEFAULT) -> Answer:
    """List the snapshots, oldest first; with --store, those of that store.

    Args:
        tag: Only those with this tag; may be repeated, then with all of them.
        last: Only the newest so many.
    """
    with options.open() as work:
        repository = work.repository
        every = repository.snapshots()
        wanted = work.store.url if options.store else None
        found = [one for one in every if set(tag) <= set(one.tags) and wanted in (None, one.store)]
        found = found[-last:] if last else found
        pins = repository.pins()
        return Answer(
            fields={
                "repository": repository.url,
                "snapshots": [{**snapshot_fields(one), "pin": pin_fields(pins, one.id)} for one in found],
            },
            shown=[snapshots_table(found, [one.id for one in every], pins)]
            if found
            else [f"No snapshots in {repository.url}{' are like that' if every else ' yet'}"],
        )


def show(snapshot: str = "latest", /, *, options: Options = BY_DEFAULT) -> Answer:
    """Show one snapshot: what it is of, its files with their counts and dimensions, its problems.

    Args:
        snapshot: An id, the beginning of one, or latest.
    """
    with options.open() as work:
        found = work.snapshot(snapshot)
        files = [found.files[path] for path in sorted(found.files)]
        pins = work.repository.pins()
        about = [
            ("Snapshot", found.id),
            ("Time", f"{found.time.astimezone():%Y-%m-%d %H:%M:%S} ({found.time:%H:%M:%S} UTC)"),
            ("Store", found.store),
            ("Repository", work.repository.url),
            ("Size", f"{size(found.size)}, of which {size(found.added)} were new"),
            ("Tags", ", ".join(found.tags)),
            ("Message", found.message),
            ("Pinned", pinned(pins, found.id)),
            ("Written with", ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))),
        ]
        return Answer(
            fields={
                "repository": work.repository.url,
                "snapshot": {
                    **snapshot_fields(found),
                    "pin": pin_fields(pins, found.id),
                    "versions": dict(found.versions),
                    "files": [file_fields(entry) for entry in files],
                    "links": dict(found.links),
                    "folders": list(found.folders),
                    "skipped": [problem_fields(problem) for problem in found.skipped],
                },
            },
            shown=[
                *(f"{name + ':':<13} {value}" for name, value in about if value),
                "",
                files_table(files),
                "",
                *(f"{path} -> {target}" for path, target in sorted(found.links.items())),
                *([count(len(found.folders), "folder")] if found.folders else []),
                *(["Left out:", *problem_lines(found.skipped)] if found.skipped else []),
                *(["Problems:", *problem_lines(found.problems)] if found.problems else ["No problems"]),
            ],
        )


def diff(before: str, after: str = "latest", /, *, options: Options = BY_DEFAULT) -> Answer:
    """Compare two snapshots, file by file.

    Args:
        before: An id, the beginning of one, or latest.
        after: The same.
    """
    with options.open() as work:
        one, other = work.snapshot(before), work.snapshot(after)
        found = one.diff(other)
        words = ("added", "removed", "changed", "unchanged")
        rows = [
            (word, path, *_change(one.files.get(path), other.files.get(path)))
            for word in words
            for path in getattr(found, word)
        ]
        columns = [Column("What", whole=True), Column("File"), Column("Size", right=True), Column("Count", right=True)]
        return Answer(
            fields={
                "before": found.before,
                "after": found.after,
                **{word: list(getattr(found, word)) for word in words},
            },
            shown=[
                Table(columns=columns, rows=rows, title=f"From {found.before} to {found.after}"),
                *([] if found else ["No difference"]),
            ],
        )


def _change(before: FileEntry | None, after: FileEntry | None) -> tuple[str, str]:
    """Show how size and count changed; a single value where they did not."""

    def arrow(old: str, new: str) -> str:
        return old if old == new else " -> ".join(filter(None, (old, new)))

    counts = [number(entry.report.count) if entry and entry.report else "" for entry in (before, after)]
    sizes = [size(entry.size) if entry else "" for entry in (before, after)]
    return arrow(*sizes), arrow(*counts)


def stats(*, options: Options = BY_DEFAULT) -> Answer:
    """Tell what the repository holds, what it takes, and what sharing and compression save."""
    with options.open() as work:
        with work.progress("Counting", counted("packs")) as bar:
            found = work.repository.usage(callback=bar)
        lines = [
            ("Repository", work.repository.url),
            ("Snapshots", number(found.snapshots)),
            ("All their files", size(found.logical)),
            ("The same once", f"{size(found.content)} ({found.sharing:.1f} times smaller)"),
            ("Compressed", f"{size(found.stored)} ({found.compression:.1f} times smaller)"),
            ("Packs", number(found.packs)),
            ("Not needed", _orphaned(found)),
        ]
        return Answer(
            fields={
                "repository": work.repository.url,
                "snapshots": found.snapshots,
                "logical_bytes": found.logical,
                "content_bytes": found.content,
                "stored_bytes": found.stored,
                "sharing": round(found.sharing, 3),
                "compression": round(found.compression, 3),
                "packs": found.packs,
                "orphaned_packs": found.orphaned_packs,
                "orphaned_bytes": found.orphaned,
            },
            shown=[f"{name + ':':<17} {value}" for name, value in lines],
        )


def _orphaned(usage: Usage) -> str:
    packs = usage.orphaned_packs
    return f"{size(usage.orphaned)} in {count(packs, 'pack')}; prune deletes them" if packs else "nothing"
