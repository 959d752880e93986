"""The command run."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from novabackup._support.text import count
from novabackup.cli.child import program_of, run_to_end
from novabackup.cli.context import BY_DEFAULT, Options, Span
from novabackup.cli.json_fields import snapshot_fields
from novabackup.cli.lifecycle import lifecycle
from novabackup.cli.output import Result, size
from novabackup.errors import ConfigurationError
from novabackup.guard import snapshot


class _FailedError(Exception):
    """The guarded command failed."""


def run(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    tag: tuple[str, ...] = ("pre-ingest",),
    message: str = "",
    timeout: Span | None = None,
    options: Options = BY_DEFAULT,
) -> Result:
    """Guard a command that writes to the store.

    Such as: novabackup run -- python ingest.py data/. A snapshot is taken first. If the command fails, or if the index
    files do not agree afterwards, every file is put back as it was. Ends with the exit code of the command if that
    failed, and with 4 if the files did not agree. Standard input and output are the command's own; messages of
    novabackup go to standard error.

    Args:
        command: The command and its arguments, after --.
        tag: Label of the snapshot; may be repeated.
        message: Free text for the snapshot.
        timeout: How long to wait for another writer, such as 5m.
    """
    if not command:
        raise ConfigurationError("expected a command after --, found none. Such as: novabackup run -- python ingest.py")
    program = program_of(command)
    code = 0
    with (
        options.open() as context,
        lifecycle(context, "run", context.store) as execution,
        context.progress("Snapshot") as bar,
    ):
        guard = snapshot(
            context.store,
            context.repository,
            tags=tag,
            message=message,
            timeout=context.timeout(timeout),
            callback=bar,
        )
        try:
            with guard:
                execution.snapshot = guard
                bar.rest("Putting back")
                code = run_to_end(program, command)
                if code:
                    raise _FailedError(f"{command[0]} ended with {code}")
        except _FailedError as error:
            execution.failure = error
            lines = [
                f"{command[0]} ended with {code}, so every file was put back to snapshot {guard.id}",
                "What it had written is kept: novabackup list --tag failed-ingest",
            ]
        else:
            lines = [
                f"{command[0]} ended well, and the index files agree",
                f"To go back ({count(len(guard.files), 'file')}, {size(guard.size)}): novabackup restore {guard.id}",
            ]
        execution.done = lines[0]
        return Result(
            fields={
                "repository": context.repository.url,
                "snapshot": snapshot_fields(guard),
                "command": command,
                "command_exit": code,
                "rolled_back": bool(code),
            },
            shown=lines if code else (),
            done=() if code else lines,
            exit=code,
            aside=True,
        )
