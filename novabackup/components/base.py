"""What every component has in common, so that a store can treat an index, a pickle and a text file alike."""

from __future__ import annotations

import abc
import base64
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from novabackup._support.paths import is_pattern, unsafe
from novabackup.errors import ConfigurationError, printable
from novabackup.format.records import Probe, Problem, Report
from novabackup.storage.base import Entry, Reader, Storage

__all__ = [
    "DAMAGED",
    "Answers",
    "Component",
    "Questions",
    "answers",
    "check_path",
    "check_single",
    "check_timeout",
    "damage",
    "printable",
]

DAMAGED = "damaged"
"""Code of the problems that a look at one file alone brings to light."""


def check_path(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    """Refuse a path that leaves its root; a validator for attrs.

    Raises:
        ConfigurationError: The path does.
    """
    reason = unsafe(value)
    if reason:
        raise ConfigurationError(f"component path {value!r} cannot be used: {reason}")


def check_single(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    """Refuse a path that leaves its root, and a pattern where one file is meant; a validator for attrs.

    Raises:
        ConfigurationError: The path is such.
    """
    check_path(_instance, _field, value)
    if is_pattern(value):
        raise ConfigurationError(
            f"component path {value!r} is a pattern, but this component is one file: name it, or use Files"
        )


def check_timeout(_instance: object, _field: attrs.Attribute[float | None], value: float | None) -> None:
    """Refuse a time limit that can never be met; a validator for attrs.

    Raises:
        ConfigurationError: It is not above 0.
    """
    if value is not None and not value > 0:
        raise ConfigurationError(f"timeout must be more than 0 seconds, not {value!r}")


def damage(path: str, message: str) -> Problem:
    """Make the problem that says that one file is not as it should be.

    Args:
        path: The file, relative to the store.
        message: What was expected, what was found, and what to do.
    """
    return Problem(code=DAMAGED, paths=(path,), message=printable(message))


@attrs.frozen(kw_only=True)
class Questions:
    """What is to be asked of a file.

    Attributes:
        again: These, in the form in which they were asked before; otherwise the component chooses.
        number: How many it chooses at most.
        nearest: How many results it gives to each.
        seconds: How long all of it may take.
    """

    again: tuple[Probe, ...] = ()
    number: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    nearest: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    seconds: float = attrs.field(default=60.0, validator=attrs.validators.gt(0.0))


@attrs.frozen(kw_only=True)
class Answers:
    """What a file answered.

    Attributes:
        probes: The questions, in their order, with the answers; empty if the file answers none.
        classes: Names of the classes and functions that it asks for, if it is a pickle.
        problems: Why it could not be asked.
    """

    probes: tuple[Probe, ...] = ()
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def answers(path: str, said: Mapping[str, Any]) -> Answers:
    """Take what a child process said that a file answered; it is believed no more than the file.

    Args:
        path: The file, relative to the store.
        said: ``probes`` and, for a pickle, ``classes``.
    """
    try:
        return Answers(
            probes=tuple(
                Probe(
                    path=path,
                    vector=base64.b64decode(probe.get("vector", "")),
                    words=tuple(probe.get("words", ())),
                    ids=tuple(probe["ids"]),
                    scores=tuple(probe["scores"]),
                )
                for probe in said["probes"]
            ),
            classes=tuple(printable(str(name)) for name in said.get("classes", ())),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"expected answers, found something else: {type(error).__name__}: {error}. Build it anew"
        return Answers(problems=(damage(path, message),))


@attrs.frozen
class Component(abc.ABC):
    """One kind of file in a store: it knows where the file is and how to look into it.

    Subclass it for a kind of file of one's own: `inspect` is all that is needed.

    Attributes:
        path: The file, relative to the store.
        optional: The file is a companion: it is backed up where it is there, and its absence is no problem.
        together: Its files only make sense together with those of the others, so none of them may change while the
            others are read. Otherwise each is read on its own, while the rest goes on changing.
        whole: The links and folders that the path selects belong to the store as well, and links are not followed.
    """

    together: ClassVar[bool] = True
    whole: ClassVar[bool] = False

    path: str = attrs.field(validator=check_path)
    optional: bool = attrs.field(default=False, kw_only=True)

    @abc.abstractmethod
    def inspect(self, reader: Reader) -> Report:
        """Take a cheap look: as few bytes as the format allows.

        Args:
            reader: The file, opened.

        Returns:
            What was seen. Damage is told by its ``problems``, never raised.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
        """

    def examine(self, reader: Reader, report: Report) -> tuple[Problem, ...]:
        """Take a thorough look: read the whole file with what will read it later.

        Args:
            reader: The file, opened.
            report: What `inspect` said of it.

        Returns:
            Damage that ``report`` does not tell of already. The base class knows of no better look than the cheap one.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
        """
        return ()

    @property
    def beside(self) -> tuple[str, ...]:
        """Files that a program writes for this one and that are nothing without it.

        They are not kept; whoever restores the file takes them away, since they would change what it says.
        """
        return ()

    def open(self, storage: Storage, entry: Entry) -> Reader:
        """Open the file, for a look or for a snapshot.

        Args:
            storage: Where it is.
            entry: What was listed.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It could not be read.
        """
        return storage.open(entry.key)

    def probe(self, reader: Reader, questions: Questions) -> Answers:
        """Put a few questions to the index in the file, as a search would.

        The file is not trusted more than by `examine`. Equal bytes give equal answers, up to rounding.

        Args:
            reader: The file, opened.
            questions: What to ask.

        Returns:
            The answers. The base class knows no questions.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
            ConfigurationError: A package that this takes is missing.
        """
        return Answers()

    def absent(self) -> Report:
        """Report that there is no such file."""
        return Report(component=type(self).__name__, path=self.path, exists=False)
