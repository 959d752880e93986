"""Exit codes: one for each thing that a script can do about an outcome."""

from __future__ import annotations

import enum

from novabackup import errors
from novabackup.integrations.errors import HookError, MetricsError, RecoveryError, ServiceError, UnhealthyError

__all__ = ["CannotStartError", "Exit", "besides", "exit_of", "hint_of"]


class Exit(enum.IntEnum):
    """What the exit codes mean; `run` also ends with those of the command that it guards."""

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
    """What stands around refused: the service, its health check or question, a hook, a step of a full recovery."""
    BUG = 70
    """A mistake in novabackup itself."""
    NOT_EXECUTABLE = 126
    """`run`: the command cannot be executed."""
    NOT_FOUND = 127
    """`run`: there is no such command."""
    INTERRUPTED = 130
    """Ctrl-C; 128 and the number of the signal for others."""


class CannotStartError(errors.ConfigurationError):
    """The command that was to be guarded cannot be started."""

    def __init__(self, message: str, exit_: Exit) -> None:
        """Keep the exit code, which shells have given such commands since long before us.

        Args:
            message: What was expected, found, where, and what to do.
            exit_: The code.
        """
        super().__init__(message)
        self.exit = exit_


_BY_ERROR: tuple[tuple[type[BaseException], Exit, str], ...] = (
    (errors.StoreBusyError, Exit.BUSY, "wait for the other writer to end: --timeout 10m"),
    (errors.ArchivedError, Exit.BUSY, ""),
    (errors.ChangedError, Exit.BUSY, "run it again when nothing else writes there"),
    (errors.CheckFailedError, Exit.ROLLED_BACK, "look at what was written: novabackup list --tag failed-ingest"),
    (errors.RollbackError, Exit.RECOVER, "when the cause is removed: novabackup recover"),
    (errors.IntegrityError, Exit.WRONG, ""),
    (RecoveryError, Exit.AROUND, ""),
    (HookError, Exit.AROUND, "nothing was done; when the hook is mended, run the command again"),
    (ServiceError, Exit.AROUND, ""),
    (UnhealthyError, Exit.AROUND, ""),
    (MetricsError, Exit.AROUND, ""),
    (
        errors.DecryptionError,
        Exit.USAGE,
        'what opens it is said in [repository]: key = { passphrase = { file = "…" } }',
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
    """Give the exit code for an error."""
    if isinstance(error, CannotStartError):
        return error.exit
    if isinstance(error, RecoveryError) and isinstance(error.__cause__, errors.NovaBackupError | OSError):
        return exit_of(error.__cause__)  # the step says where, the cause says what a script can do
    return next((code for kind, code, _hint in _BY_ERROR if isinstance(error, kind)), Exit.BUG)


def besides(error: BaseException) -> list[str]:
    """Say what else went wrong on the way out, such as a service that does not start again."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(_BESIDES)]


def hint_of(error: BaseException) -> str:
    """Say what to type next, where the message itself speaks to those who call the library."""
    # What a command knows better than the class of the error. What went wrong besides is no hint.
    notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith(_BESIDES)]
    return notes[-1] if notes else next((hint for kind, _code, hint in _BY_ERROR if isinstance(error, kind)), "")
