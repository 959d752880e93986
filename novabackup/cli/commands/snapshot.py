"""The commands init and snapshot."""

from __future__ import annotations

from contextlib import suppress

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Context, Options, Span
from novabackup.cli.exits import Exit
from novabackup.cli.json_fields import snapshot_fields
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, problem_lines, size
from novabackup.errors import CheckFailedError, NotFoundError


def init(*, options: Options = BY_DEFAULT) -> Result:
    """Create the repository, and check whether the store exists.

    The first snapshot also creates the repository. One that exists stays as it is.
    """
    with options.open() as context:
        repository, store = context.repository, context.known_store
        identity = repository.create()
        missing = [report.path for report in store.inspect() if not report.exists] if store else []
        done = [f"Repository {repository.url} is ready; its id is {identity}"]
        if store and missing:
            done.append(f"Store {store.url} has no {', '.join(missing)} yet")
        elif store:
            done.append(f"Store {store.url} has all its files. Next: novabackup snapshot")
        fields = {"repository": repository.url, "id": identity, "store": store and store.url, "missing": missing}
        return Result(fields=fields, done=done)


def snapshot(
    *, tag: tuple[str, ...] = (), message: str = "", timeout: Span | None = None, options: Options = BY_DEFAULT
) -> Result:
    """Take a snapshot of the store.

    Ends with 1 if the index files do not agree or are damaged: the snapshot is kept all the same, and says so. Ends
    with 2 if there is no file at all and never was one, as when the path is mistyped.

    Args:
        tag: Label, for people and for forget; may be repeated.
        message: Free text.
        timeout: How long to wait for another writer, such as 5m.
    """
    with options.open() as context:
        with lifecycle(context, "snapshot", context.store) as execution:
            _refuse_nothing(context)
            with context.progress("Snapshot") as bar:
                taken = context.repository.backup(
                    context.store, tags=tag, message=message, timeout=context.timeout(timeout), callback=bar
                )
            execution.snapshot, execution.done = taken, f"snapshot {taken.id} was taken"
            problems = taken.problems
            if problems:
                execution.complaint = CheckFailedError(f"snapshot {taken.id} has problems", problems)
        amount = f"{count(len(taken.files), 'file')}, {size(taken.size)}"
        return Result(
            fields={"repository": context.repository.url, "snapshot": snapshot_fields(taken)},
            shown=[f"Problems in {taken.store}:", *problem_lines(problems)] if problems else [],
            done=[f"Snapshot {taken.id} of {taken.store}: {amount}, {size(taken.added)} new"],
            exit=Exit.WRONG if problems else Exit.OK,
        )


def _refuse_nothing(context: Context) -> None:
    """Refuse to take an empty snapshot as the first one; that all files were lost later is worth a snapshot."""
    store = context.store
    needed = [component.path for component in store.components if not component.optional]
    found = store.contents()
    if not needed or found.files or found.links or found.folders:
        return
    with suppress(NotFoundError):
        if context.repository.snapshots(store=store):
            return
    raise NotFoundError(
        f"{store.url}: expected {', '.join(needed)}, found no file of the store. Check the path, which is that of "
        "--store or of store.url. To guard the first ingestion: novabackup run"
    )
