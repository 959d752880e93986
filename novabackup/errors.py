"""The exception tree: one class for each thing that a caller can do about a failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

__all__ = [
    "ArchivedError",
    "ChangedError",
    "CheckFailedError",
    "ConfigurationError",
    "DecryptionError",
    "FormatError",
    "IntegrityError",
    "NotFoundError",
    "NovaBackupError",
    "RollbackError",
    "StoreBusyError",
]


def printable(text: str) -> str:
    """Escape what could be hidden in a name: control characters, and half characters that no text can hold."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once: an instance that is raised again can make its causes a ring."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes:
        code: A stable name for programs: ``missing``, ``damaged``, ``count-mismatch`` …
        paths: The files concerned, relative to the store or the repository.
        message: What was expected, what was found, and what can be done, for people.
    """

    code: str
    paths: tuple[str, ...] = ()
    message: str = ""

    def __str__(self) -> str:
        where = f" ({printable(', '.join(self.paths))})" if self.paths else ""
        return f"{self.code}{where}: {self.message}"


class NovaBackupError(Exception):
    """Base of every error that novabackup raises itself."""


class ConfigurationError(NovaBackupError, ValueError):
    """What was asked for cannot be: fix the call, the URL or the list of components."""


class NotFoundError(NovaBackupError, LookupError):
    """There is no such repository, snapshot or file: look at the name again."""


class StoreBusyError(NovaBackupError):
    """Another writer guards the store: wait for it, or pass ``timeout=``."""


class ChangedError(NovaBackupError):
    """Another process changed a file or object during the operation: stop the other writer, then try again."""


class _ProblemsError(NovaBackupError):
    """An error that carries what was found."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        """Keep the problems beside the message.

        Args:
            message: What was expected, found, where, and what to do.
            problems: Each single finding.
        """
        super().__init__(message)
        self.problems: tuple[Problem, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n  - ".join([str(self.args[0]), *(str(problem) for problem in self.problems)])

    def __reduce__(self) -> tuple[type[_ProblemsError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.args[0], self.problems)


class CheckFailedError(_ProblemsError):
    """The indexes do not agree: after a block, which has been rolled back already, or in a trial. Read ``problems``."""


class RollbackError(NovaBackupError):
    """The store could not be put back; its journal is still there. Remove the cause, then call ``recover(store)``."""


class IntegrityError(_ProblemsError):
    """Stored bytes are not what they were: restore from another copy of the repository. Read ``problems``."""


class FormatError(NovaBackupError):
    """This is not a repository, or one of a newer format version: look at the URL, or upgrade novabackup."""


class ArchivedError(NovaBackupError):
    """Content lies in an archive and cannot be read yet: ``thaw`` the snapshot, and try again when that is done."""


class DecryptionError(NovaBackupError):
    """The data cannot be decrypted with the key given."""
