"""What a repair of a repository would do, as data that people can read."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from novabackup._support import html as _html
from novabackup._support import text as _text
from novabackup.errors import printable
from novabackup.format.records import Problem

__all__ = ["Loss", "Remedy", "Repair", "RepairPlan", "Task"]


class Remedy(enum.StrEnum):
    """What a repair does with one object, or with one file of a snapshot."""

    WRITE = "write anew"
    """What it said is known from elsewhere."""
    COPY = "copy back"
    """Another repository has it."""
    STORE = "store anew"
    """The content of a file is brought together again, in new packs where need be."""
    SET_ASIDE = "set aside"
    """It is damaged and nothing needs it any more: it is kept below ``damaged/``."""


@attrs.frozen(kw_only=True)
class Repair:
    """One step of a repair.

    Attributes:
        step: What is done.
        key: With which object of the repository.
        path: With which file of the snapshot that the object is; empty for the whole.
        source: Where what is needed comes from, for people; a URL, if it is another place.
    """

    step: Remedy
    key: str
    path: str = ""
    source: str = ""


@attrs.frozen(kw_only=True)
class Loss:
    """What cannot be had back.

    Attributes:
        key: The object of the repository.
        path: The file of the snapshot that the object is; empty for the whole.
        message: Why, and what can be done.
    """

    key: str
    path: str = ""
    message: str


@attrs.frozen(kw_only=True)
class RepairPlan:
    """What `repair` would do, or has done. As text it is a table, in notebooks another.

    Attributes:
        repository: URL of the repository.
        problems: What was found to be wrong.
        actions: What is done about it, in this order.
        lost: What cannot be had back.
    """

    repository: str
    problems: tuple[Problem, ...]
    actions: tuple[Repair, ...]
    lost: tuple[Loss, ...]

    @property
    def summary(self) -> str:
        """One line that says how much is mended and lost."""
        files = sum(bool(loss.path) for loss in self.lost)
        counted = [(files, "file"), (len(self.lost) - files, "object")]
        lost = " and ".join(_text.count(number, word) for number, word in counted if number) or "nothing"
        return f"{_text.count(len(self.problems), 'problem')}, {_text.count(len(self.actions), 'step')}; {lost} lost"

    def __str__(self) -> str:
        lines = [printable(self.repository), *_text.aligned(map(_cells, self.actions))]
        if self.lost:
            lines += ["", "cannot be had back:", *_text.aligned((*_what(loss), loss.message) for loss in self.lost)]
        return "\n".join([*lines, "", self.summary])

    def _repr_html_(self) -> str:
        columns = ["what", "object", "file", "from or why"]
        rows = [*map(_cells, self.actions), *(("lost", *_what(loss), loss.message) for loss in self.lost)]
        return _html.table(f"Repair of {self.repository}: {self.summary}", columns, rows)


def _cells(action: Repair) -> tuple[str, ...]:
    return (action.step.value, *_what(action), f"from {action.source}" if action.source else "-")


def _what(item: Repair | Loss) -> tuple[str, str]:
    return item.key, item.path or "-"


@attrs.frozen(kw_only=True)
class Task:
    """One step, and what carries it out; some need not be told to anybody."""

    action: Repair | None
    do: Callable[[], object]
