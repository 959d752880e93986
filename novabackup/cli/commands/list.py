"""The commands list, show, diff and stats, which only read."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.json_fields import file_fields, files_table, pin_fields, pinned, snapshot_fields, snapshots_table
from novabackup.cli.output import Result, counted, labelled, number, problem_lines, size, table
from novabackup.format.records import FileEntry


def list_(
    *,
    tag: tuple[str, ...] = (),
    last: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="N")] = None,
    options: Options = BY_DEFAULT,
) -> Result:
    """List the snapshots, oldest first; with --store, those of that store.

    Args:
        tag: Only those with this tag; may be repeated, then with all of them.
        last: Only the newest N.
    """
    with options.open() as context:
        repository = context.repository
        every = repository.snapshots()
        wanted = context.store.url if options.store else None
        found = [one for one in every if set(tag) <= set(one.tags) and wanted in (None, one.store)]
        found = found[-last:] if last else found
        pins = repository.pins()
        return Result(
            fields={
                "repository": repository.url,
                "snapshots": [{**snapshot_fields(one), "pin": pin_fields(pins, one.id)} for one in found],
            },
            shown=[snapshots_table(found, [one.id for one in every], pins)]
            if found
            else [f"No snapshots in {repository.url} {'match' if every else 'yet'}"],
        )


def show(snapshot: str = "latest", /, *, options: Options = BY_DEFAULT) -> Result:
    """Show one snapshot: its files with their counts and dimensions, its problems.

    Args:
        snapshot: An id, the beginning of one, or latest.
    """
    with options.open() as context:
        found = context.snapshot(snapshot)
        files = [found.files[path] for path in sorted(found.files)]
        pins = context.repository.pins()
        about = [
            ("Snapshot", found.id),
            ("Time", f"{found.time.astimezone():%Y-%m-%d %H:%M:%S} ({found.time:%H:%M:%S} UTC)"),
            ("Store", found.store),
            ("Repository", context.repository.url),
            ("Size", f"{size(found.size)}, of which {size(found.added)} were new"),
            ("Tags", ", ".join(found.tags)),
            ("Message", found.message),
            ("Pinned", pinned(pins, found.id)),
            ("Written with", ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))),
        ]
        return Result(
            fields={
                "repository": context.repository.url,
                "snapshot": {
                    **snapshot_fields(found),
                    "pin": pin_fields(pins, found.id),
                    "versions": dict(found.versions),
                    "files": [file_fields(entry) for entry in files],
                    "links": dict(found.links),
                    "folders": found.folders,
                    "skipped": found.skipped,
                },
            },
            shown=[
                *labelled(about),
                "",
                files_table(files),
                "",
                *(f"{path} -> {target}" for path, target in sorted(found.links.items())),
                *([count(len(found.folders), "folder")] if found.folders else []),
                *(["Left out:", *problem_lines(found.skipped)] if found.skipped else []),
                *(["Problems:", *problem_lines(found.problems)] if found.problems else ["No problems"]),
            ],
        )


def diff(before: str, after: str = "latest", /, *, options: Options = BY_DEFAULT) -> Result:
    """Compare two snapshots, file by file.

    Args:
        before: An id, the beginning of one, or latest.
        after: The same.
    """
    with options.open() as context:
        one, other = context.snapshot(before), context.snapshot(after)
        found = one.diff(other)
        paths = {word: getattr(found, word) for word in ("added", "removed", "changed", "unchanged")}
        rows = [
            (word, path, *_change(one.files.get(path), other.files.get(path))) for word in paths for path in paths[word]
        ]
        title = f"From {found.before} to {found.after}"
        return Result(
            fields={"before": found.before, "after": found.after, **{word: list(paths[word]) for word in paths}},
            shown=[
                table("!What", "File", ">Size", ">Count", rows=rows, title=title),
                *([] if found else ["No difference"]),
            ],
        )


def _change(before: FileEntry | None, after: FileEntry | None) -> tuple[str, str]:
    """Format the change of size and count; a single value if it did not change."""

    def arrow(old: str, new: str) -> str:
        return old if old == new else " -> ".join(filter(None, (old, new)))

    counts = [number(entry.report.count) if entry and entry.report else "" for entry in (before, after)]
    sizes = [size(entry.size) if entry else "" for entry in (before, after)]
    return arrow(*sizes), arrow(*counts)


def stats(*, options: Options = BY_DEFAULT) -> Result:
    """Show the size of the repository, and what sharing and compression save."""
    with options.open() as context:
        with context.progress("Counting", counted("packs")) as bar:
            found = context.repository.usage(callback=bar)
        orphaned = f"{size(found.orphaned)} in {count(found.orphaned_packs, 'pack')}; prune deletes them"
        lines = [
            ("Repository", context.repository.url),
            ("Snapshots", number(found.snapshots)),
            ("All their files", size(found.logical)),
            ("The same once", f"{size(found.content)} ({found.sharing:.1f} times smaller)"),
            ("Compressed", f"{size(found.stored)} ({found.compression:.1f} times smaller)"),
            ("Packs", number(found.packs)),
            ("Not needed", orphaned if found.orphaned_packs else "nothing"),
        ]
        return Result(
            fields={
                "repository": context.repository.url,
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
            shown=labelled(lines, width=17),
        )
