"""Questions that are put to indexes when a snapshot is taken: how many, at what price, when answers are alike."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Literal

import attrs

from novabackup.components.base import Questions
from novabackup.errors import ConfigurationError
from novabackup.format.records import Probe

__all__ = ["Ask", "Occasion", "Probing", "difference", "shown"]

Ask = Callable[[str, str], Iterable[tuple[int | str, float]]]
"""A search of the user's own, through the real embedding model: gets the path or URL of a store, and a question; gives
ids with scores, the best first."""

Occasion = Literal["backup", "guard"]

_RELATIVE = 1e-4
"""Versions of faiss, and processors, add numbers up in different orders."""
_CANCELLED = 1e-6
"""Of the squared length of a vector: what is left of a distance of nothing."""


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    texts = () if isinstance(value, str) else tuple(value)
    if (isinstance(value, str) and value) or not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(f"expected queries as a list of texts, found {value!r}")
    return texts


@attrs.frozen(kw_only=True)
class Probing:
    """What a store's indexes are asked when a snapshot of it is taken.

    A file that has not changed since an earlier snapshot is not asked again: its answers are taken over.

    Attributes:
        number: How many questions are put to each index.
        nearest: How many results are kept of each.
        seconds: How long one file may take; one that takes longer is not asked, and the snapshot is taken all the same.
        largest: Bytes of the largest file that is asked, since it is read once more for that: a large index takes
            seconds, which is more than the backup of what has changed in it.
        on: When: ``backup`` (plain backups) or ``guard`` (the snapshot before a guarded block, which waits for it).
        queries: Questions that `ask` is asked, such as those that users put.
        ask: The user's own search.
    """

    number: int = attrs.field(
        default=3, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(20))
    )
    nearest: int = attrs.field(
        default=5, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.le(100))
    )
    seconds: float = attrs.field(default=20.0, validator=attrs.validators.gt(0.0))
    largest: int = attrs.field(default=16 << 20, validator=attrs.validators.ge(0))
    on: tuple[Occasion, ...] = attrs.field(default=("backup",), converter=tuple)
    queries: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ask: Ask | None = None

    def __attrs_post_init__(self) -> None:
        if bool(self.queries) != (self.ask is not None):
            raise ConfigurationError(
                "expected queries together with ask=, the function that they are put to, found "
                f"{'only ask=' if self.ask else 'only queries'}. Pass both, or neither"
            )
        if not set(self.on) <= {"backup", "guard"}:
            raise ConfigurationError(f"on= is a list of 'backup' and 'guard', found {self.on!r}")

    @property
    def questions(self) -> Questions:
        """What each file is asked."""
        return Questions(number=self.number, nearest=self.nearest, seconds=self.seconds)


def shown(probe: Probe) -> str:
    """Show a question to people."""
    if probe.vector:
        return f"{probe.path}: a vector of {len(probe.vector)} bytes"
    return f"{probe.path}: {' '.join(probe.words)}" if probe.words else repr(probe.text)


def difference(before: Probe, now: Probe) -> str:
    """Compare two answers to the same question.

    Scores may differ by a ten-thousandth of the largest. Results whose scores are that close may come in any order, and
    at the end of an index's list one may stand for another; a search of the user's own must find the same.

    Returns:
        What is different, for people; empty if nothing is.
    """
    if len(before.ids) != len(now.ids):
        return f"expected {len(before.ids)} results, found {len(now.ids)}"
    scores, found = [float(score) for score in before.scores], [float(score) for score in now.scores]
    close = _RELATIVE * max((abs(score) for score in scores), default=0.0) + _CANCELLED * _squared_length(before.vector)
    then, today = dict(zip(before.ids, scores, strict=True)), dict(zip(now.ids, found, strict=True))
    for place, (one, other) in enumerate(zip(scores, found, strict=True)):
        if abs(one - other) > close:
            return (
                f"expected {before.ids[place]} with {one:g} in place {place + 1}, found {now.ids[place]} with {other:g}"
            )
    for name, score in then.items():
        if name in today and abs(score - today[name]) > close:
            return f"expected {name} with {score:g}, found it with {today[name]:g}"
        if name not in today and (before.text or abs(score - scores[-1]) > 2 * close):
            return f"expected {name} with {score:g} among the results, found {list(now.ids)}"
    return ""


def _squared_length(vector: bytes) -> float:
    if len(vector) % 2:
        return 0.0
    values = struct.unpack(f"<{len(vector) // 2}e", vector)
    length = sum(value * value for value in values)
    return length if length < float("inf") else 0.0
