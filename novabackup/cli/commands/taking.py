"""Commands that take snapshots: init, snapshot."""

from __future__ import annotations

from contextlib import suppress

from novabackup.cli.around import around
from novabackup.cli.exits import Exit
from novabackup.cli.json_fields import snapshot_fields
from novabackup.cli.output import Answer, count, problem_lines, size
from novabackup.cli.work import BY_DEFAULT, Options, Span, Work
from novabackup.errors import CheckFailedError, NotFoundError

__all__ = ["init", "snapshot"]


def init(*, options: Options = BY_DEFAULT) -> Answer:
    """Create the repository, and look whether the store is there.

    A repository also comes into being with its first snapshot. One that is there already stays as it is.
    """
    with options.open() as work:
        repository = work.repository
        identity = repository.create()
        reports = work.known_store.inspect() if work.known_store else ()
        missing = [report.path for report in reports if not report.exists]
        fields = {
            "repository": repository.url,
            "id": identity,
            "store": work.known_store and work.known_store.url,
            "missing": missing,
        }
        done = [f"Repository {repository.url} is ready; its id is {identity}"]
        if work.known_store and missing:
            done.append(f"Store {work.known_store.url} has no {', '.join(missing)} yet")
        elif work.known_store:
            done.append(f"Store {work.known_store.url} has all its files. Next: novabackup snapshot")
        return Answer(fields=fields, done=done)


def snapshot(
    *, tag: tuple[str, ...] = (), message: str = "", timeout: Span | None = None, options: Options = BY_DEFAULT
) -> Answer:
    """Take a snapshot of the store.

    Ends with 1 if the index files do not agree or are damaged: the snapshot is kept all the same, and says so. Ends
    with 2 if there is no file at all and never was one, as where the path is mistyped.

    Args:
        tag: Label, for people and for forget; may be repeated.
        message: Free text.
        timeout: How long to wait for another writer, such as 5m.
    """
    with options.open() as work:
        with around(work, "snapshot", work.store) as seen:
            _refuse_nothing(work)
            with work.progress("Snapshot") as bar:
                taken = work.repository.backup(
                    work.store, tags=tag, message=message, timeout=work.timeout(timeout), callback=bar
                )
            seen.snapshot, seen.done, problems = taken, f"snapshot {taken.id} was taken", taken.problems
            if problems:
                seen.complaint = CheckFailedError(f"snapshot {taken.id} has problems", problems)
        amount = f"{count(len(taken.files), 'file')}, {size(taken.size)}"
        return Answer(
            fields={"repository": work.repository.url, "snapshot": snapshot_fields(taken)},
            shown=[f"Problems in {taken.store}:", *problem_lines(problems)] if problems else [],
            done=[f"Snapshot {taken.id} of {taken.store}: {amount}, {size(taken.added)} new"],
            exit=Exit.WRONG if problems else Exit.OK,
        )


def _refuse_nothing(work: Work) -> None:
    """Take no snapshot of nothing for a backup; that all files were lost is another matter, which a snapshot tells."""
    store = work.store
    needed = [component.path for component in store.components if not component.optional]
    found = store.contents()
    if not needed or found.files or found.links or found.folders:
        return
    with suppress(NotFoundError):
        if work.repository.snapshots(store=store):
            return
    raise NotFoundError(
        f"{store.url}: expected {', '.join(needed)}, found no file of the store. Look at the path, which is that of "
        "--store or of store.url. The first ingestion is guarded by novabackup run"
    )
