"""Exit codes, one for each reaction that a script can have, and hints for people."""

from __future__ import annotations

import enum

from novabackup import errors
from novabackup.integrations.errors import HookError, MetricsError, RecoveryError, ServiceError, UnhealthyError


class Exit(enum.IntEnum):
    """The exit codes; `run` also ends with those of the command that it guards."""

    OK = 0
    """All is well."""
    WRONG = 1
    """Something is wrong with the store, the snapshot or the repository: damage, missing files, counts that differ."""
    USAGE = 2
    """The command line, the configuration or a name is wrong; nothing was done."""
    BUSY = 3
    """Another writer is at work in the store, or changed a file meanwhile, or content lies in an archive: try again
    later."""
    ROLLED_BACK = 4
    """The guarded command ended well, but the index files do not agree: they have been put back."""
    RECOVER = 5
    """The store could not be put back, or is half-written: remove the cause, then run `novabackup recover`."""
    STORAGE = 6
    """The disk, the network or the server refused: no space, no rights, no answer."""
    AROUND = 7
    """Something around the command failed: the service, its health check or question, a hook, a recovery step."""
    BUG = 70
    """A bug in novabackup."""
    NOT_EXECUTABLE = 126
    """`run`: the command cannot be executed."""
    NOT_FOUND = 127
    """`run`: there is no such command."""
    INTERRUPTED = 130
    """Ctrl-C; 128 and the number of the signal for others."""


class CannotStartError(errors.ConfigurationError):
    """The command that was to be guarded cannot be started."""

    def __init__(self, message: str, exit_: Exit) -> None:
        super().__init__(message)
        self.exit = exit_


_BY_ERROR: tuple[tuple[type[BaseException], Exit, str], ...] = (
    (errors.StoreBusyError, Exit.BUSY, "wait for the other writer to end: --timeout 10m"),
    (errors.ArchivedError, Exit.BUSY, ""),
    (errors.ChangedError, Exit.BUSY, "run it again when nothing else writes there"),
    (errors.CheckFailedError, Exit.ROLLED_BACK, "to see what was written: novabackup list --tag failed-ingest"),
    (errors.RollbackError, Exit.RECOVER, "once the cause is removed: novabackup recover"),
    (errors.IntegrityError, Exit.WRONG, ""),
    (RecoveryError, Exit.AROUND, ""),
    (HookError, Exit.AROUND, "nothing was done; once the hook is fixed, run the command again"),
    (ServiceError, Exit.AROUND, ""),
    (UnhealthyError, Exit.AROUND, ""),
    (MetricsError, Exit.AROUND, ""),
    (
        errors.DecryptionError,
        Exit.USAGE,
        'what opens it is set in [repository]: key = { passphrase = { file = "…" } }',
    ),
    (errors.FormatError, Exit.USAGE, ""),
    (errors.NotFoundError, Exit.USAGE, ""),
    (errors.ConfigurationError, Exit.USAGE, ""),
    (errors.NovaBackupError, Exit.WRONG, ""),
    (OSError, Exit.STORAGE, ""),
    (KeyboardInterrupt, Exit.INTERRUPTED, ""),
)

_BESIDES = "Besides, "


def exit_of(error: BaseException) -> Exit:
    """Return the exit code for an error."""
    if isinstance(error, CannotStartError):
        return error.exit
    for found in errors.causes(error):
        if not (isinstance(found, RecoveryError) and isinstance(found.__cause__, errors.NovaBackupError | OSError)):
            break  # the cause of a failed step decides what a script can do
    return next((code for kind, code, _hint in _BY_ERROR if isinstance(found, kind)), Exit.BUG)


def besides(error: BaseException) -> list[str]:
    """Return what else went wrong while the command ended, such as a service that does not start again."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(_BESIDES)]


def hint_of(error: BaseException) -> str:
    """Return what to type next; the message itself is for callers of the library."""
    # The note of a command goes before the hint of the class; what else went wrong is not a hint.
    notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith(_BESIDES)]
    return notes[-1] if notes else next((hint for kind, _code, hint in _BY_ERROR if isinstance(error, kind)), "")
