"""What a component is: one kind of file that a store consists of, such as a FAISS index or a pickled BM25 index.

A store is a list of components. Each one names a file, or a pattern, and knows how to read it:

- `Component.inspect` reads as few bytes as the format allows and returns a `Report`: whether the file is damaged, how
  many entries it has, of which dimension and kind. This is all that a component has to implement.
- `Component.examine` reads the whole file with the library that will load it later, and returns further damage.
- `Component.probe` runs a few queries, so that a restored index can be compared with the one that was backed up.
- `Component.open` and `Component.beside` are for files that cannot be copied as they stand, such as databases in use.

Rules between files, such as equal counts, are no business of a component: they are in `novabackup.checks`.

To add a kind of file: subclass `OneFile` in a module named after the kind; or `Isolated`, if a hostile file could crash
its parser, run code or exhaust memory. The parser of an isolated file is a script ``_<kind>_child.py`` that defines
``look(arguments) -> dict`` and imports nothing of novabackup; ``_child.run`` runs it in a child process with limits,
set by ``_sandbox.py``. Files are not trusted, and neither is what a child returns. Importing a component must not
import the library that reads its files. Offer the new class in ``__init__.py``.
"""

from __future__ import annotations

import abc
import base64
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from novabackup._support.paths import is_pattern, unsafe
from novabackup.errors import ConfigurationError, printable
from novabackup.format.records import Probe, Problem, Report
from novabackup.storage.base import Entry, Reader, Storage

__all__ = ["Answers", "Component", "Isolated", "OneFile", "Questions", "check_path"]


def check_path(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    """Refuse a path that leaves its root; a validator for attrs."""
    reason = unsafe(value)
    if reason:
        raise ConfigurationError(f"component path {value!r} cannot be used: {reason}")


def _check_single(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    check_path(_instance, _field, value)
    if is_pattern(value):
        raise ConfigurationError(
            f"component path {value!r} is a pattern, but this component is one file: name it, or use Files"
        )


def _check_timeout(_instance: object, _field: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigurationError(f"timeout must be more than 0 seconds, not {value!r}")


@attrs.frozen(kw_only=True)
class Questions:
    """Queries to run on a file.

    Attributes:
        again: Recorded queries to repeat; if there are none, the component chooses its own.
        number: How many it chooses at most.
        nearest: Results to return for each.
        seconds: Time limit for all of them.
    """

    again: tuple[Probe, ...] = ()
    number: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    nearest: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    seconds: float = attrs.field(default=60.0, validator=attrs.validators.gt(0.0))

    def request(self, again: Sequence[object]) -> dict[str, object]:
        """Return them as arguments of a child process, with the recorded queries in a form that JSON can hold."""
        return {"ask": {"again": again, "number": self.number, "nearest": self.nearest}}


@attrs.frozen(kw_only=True)
class Answers:
    """Answers to the queries.

    Attributes:
        probes: The queries, in their order, with their answers; empty if none can be run on the file.
        classes: Names of the classes and functions that a pickle names.
        problems: Why the file could not be queried.
    """

    probes: tuple[Probe, ...] = ()
    classes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@attrs.frozen
class Component(abc.ABC):
    """One kind of file in a store: where the file is, and how to read it.

    Subclass it for a kind of file of your own: `inspect` is all that is needed.

    Attributes:
        path: The file, relative to the store.
        optional: The file is a companion: it is backed up if it exists, and its absence is no problem.
        together: The files only make sense together with those of the other components, so none of them may change
            while the others are read. Otherwise each is read on its own, while the rest may change.
        whole: Links and folders that the path selects belong to the store, too, and links are not followed.
    """

    together: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    _advice: ClassVar[str] = "Write it again, or restore it from a snapshot"

    path: str = attrs.field(validator=check_path)
    optional: bool = attrs.field(default=False, kw_only=True)

    @abc.abstractmethod
    def inspect(self, reader: Reader) -> Report:
        """Inspect the file cheaply: read as few bytes as the format allows.

        Args:
            reader: The file, opened.

        Returns:
            What was found. Damage is reported in ``problems``, never raised.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
            ConfigurationError: A package is missing that reads it, or no child process can be started.
        """

    def examine(self, reader: Reader, report: Report) -> tuple[Problem, ...]:
        """Read the whole file with the library that will load it later.

        Args:
            reader: The file, opened.
            report: The result of `inspect`.

        Returns:
            Damage that is not in ``report`` yet. The base class adds nothing to `inspect`.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
            ConfigurationError: A package is missing that reads it, or no child process can be started.
        """
        return ()

    @property
    def beside(self) -> tuple[str, ...]:
        """Files that a program keeps next to this one and that mean nothing without it.

        They are not backed up. A restore removes them, since they would change the content of the restored file.
        """
        return ()

    def open(self, storage: Storage, entry: Entry) -> Reader:
        """Open the file, to inspect it or to back it up.

        Args:
            storage: Where it is.
            entry: Its entry in the listing.

        Raises:
            FileNotFoundError: It is gone.
            OSError: It could not be read.
        """
        return storage.open(entry.key)

    def probe(self, reader: Reader, questions: Questions) -> Answers:
        """Run a few queries on the index in the file, as a search would.

        The file is trusted no more than by `examine`. Equal bytes give equal answers, up to rounding.

        Args:
            reader: The file, opened.
            questions: What to ask.

        Returns:
            The answers. The base class runs no queries.

        Raises:
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
            ConfigurationError: A package is missing that reads it, or no child process can be started.
        """
        return Answers()

    def absent(self) -> Report:
        """Report that the file does not exist."""
        return Report(component=type(self).__name__, path=self.path, exists=False)

    def _present(self, reader: Reader) -> Report:
        """Report that the file exists, and its size."""
        return Report(component=type(self).__name__, path=reader.entry.key, exists=True, size=reader.entry.size)

    def _damage(self, text: str) -> Problem:
        """Say what was expected and what was found, and add what to do."""
        return Problem(code="damaged", paths=(self.path,), message=printable(f"{text}. {self._advice}"))

    def _damaged(self, report: Report, text: str) -> Report:
        return attrs.evolve(report, problems=(*report.problems, self._damage(text)))


@attrs.frozen
class OneFile(Component):
    """A component that is one file, so that its path is no pattern."""

    path: str = attrs.field(validator=_check_single)


@attrs.frozen
class Isolated(OneFile):
    """A file that is parsed only in a child process with limits on its time and memory.

    Attributes:
        timeout: Seconds that this may take; by default a minimum, and more for large files.
    """

    _least_seconds: ClassVar[float] = 60.0
    _seconds_per_byte: ClassVar[float] = 1e-7

    timeout: float | None = attrs.field(default=None, validator=_check_timeout, kw_only=True)

    def _seconds(self, size: int) -> float:
        return self.timeout if self.timeout is not None else self._least_seconds + size * self._seconds_per_byte

    def _answers(self, said: Mapping[str, Any]) -> Answers:
        """Read the answers that a child process returned; they are trusted no more than the file."""
        try:
            return Answers(
                probes=tuple(
                    Probe(
                        path=self.path,
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
            text = f"expected answers, found something else: {type(error).__name__}: {error}"
            return Answers(problems=(self._damage(text),))
