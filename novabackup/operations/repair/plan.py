"""What a repair of a repository would do, or has done, as data."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from novabackup._support import html
from novabackup._support.text import aligned, count
from novabackup.errors import printable
from novabackup.format.records import Problem


class Remedy(enum.StrEnum):
    """What is done with one object, or with one file of a snapshot."""

    WRITE = "write anew"
    """Its content is known from elsewhere."""
    COPY = "copy back"
    """Another repository has it."""
    STORE = "store anew"
    """The content of a file is collected, and stored in new packs where necessary."""
    SET_ASIDE = "set aside"
    """It is damaged and nothing needs it any more: it is kept below ``damaged/``."""


@attrs.frozen(kw_only=True)
class Repair:
    """One step of a repair.

    Attributes:
        step: What is done.
        key: The object of the repository.
        path: The file in the snapshot that the object is; empty for the whole object.
        source: Where the content comes from, as text; a URL if it is another place.
    """

    step: Remedy
    key: str
    path: str = ""
    source: str = ""


@attrs.frozen(kw_only=True)
class Loss:
    """What cannot be recovered.

    Attributes:
        key: The object of the repository.
        path: The file in the snapshot that the object is; empty for the whole object.
        message: Why, and what can be done.
    """

    key: str
    path: str = ""
    message: str


@attrs.frozen(kw_only=True)
class RepairPlan:
    """What `repair` would do, or has done.

    Attributes:
        repository: URL of the repository.
        problems: What is wrong.
        actions: What is done about it, in this order.
        lost: What cannot be recovered.
    """

    repository: str
    problems: tuple[Problem, ...]
    actions: tuple[Repair, ...]
    lost: tuple[Loss, ...]

    @property
    def summary(self) -> str:
        """How much is repaired and lost, in one line."""
        files = sum(bool(loss.path) for loss in self.lost)
        counted = [(files, "file"), (len(self.lost) - files, "object")]
        lost = " and ".join(count(number, word) for number, word in counted if number) or "nothing"
        return f"{count(len(self.problems), 'problem')}, {count(len(self.actions), 'step')}; {lost} lost"

    def __str__(self) -> str:
        lines = [printable(self.repository), *aligned(map(_cells, self.actions))]
        if self.lost:
            lines += ["", "cannot be recovered:", *aligned((*_what(loss), loss.message) for loss in self.lost)]
        return "\n".join([*lines, "", self.summary])

    def _repr_html_(self) -> str:
        columns = ["what", "object", "file", "from or why"]
        rows = [*map(_cells, self.actions), *(("lost", *_what(loss), loss.message) for loss in self.lost)]
        return html.table(f"Repair of {self.repository}: {self.summary}", columns, rows)


def _cells(repair: Repair) -> tuple[str, ...]:
    return (repair.step.value, *_what(repair), f"from {repair.source}" if repair.source else "-")


def _what(item: Repair | Loss) -> tuple[str, str]:
    return item.key, item.path or "-"


@attrs.frozen(kw_only=True)
class Task:
    """What carries one step out; ``repair`` is None for a step that is not part of the plan."""

    repair: Repair | None
    do: Callable[[], object]
