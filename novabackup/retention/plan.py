"""The plan of `forget`, as data that prints as a table."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import attrs

from novabackup._support import html, text
from novabackup.errors import printable

__all__ = ["ForgetPlan", "State", "Verdict"]

_COLUMNS = ("what", "time (UTC)", "snapshot", "store", "state", "tags", "why")


class State(Enum):
    """How useful a snapshot is to restore; the best first."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """The checks found problems when it was taken."""
    REPLACED = "replaced"
    """What a rollback or a restore replaced: not a wanted state of the store."""
    DAMAGED = "damaged"
    """Some of its content is missing from the repository."""


@attrs.frozen(kw_only=True)
class Verdict:
    """The decision on one snapshot.

    Attributes:
        id: Id of the snapshot.
        time: When it was taken, according to the snapshot.
        store: URL of its store.
        tags: Its tags.
        state: How useful it is.
        kept: Whether it is kept.
        reasons: Each rule that keeps it; for a forgotten one, why each rule does not.
    """

    id: str
    time: datetime
    store: str
    tags: tuple[str, ...]
    state: State
    kept: bool
    reasons: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ForgetPlan:
    """What `forget` would do. As text it is a table for each store, in notebooks one table.

    Attributes:
        policy: The policy as text.
        verdicts: One for each snapshot, oldest first.
        warnings: What looks like a mistake, or like a wrong clock.
    """

    policy: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """Ids of the kept snapshots, oldest first."""
        return tuple(verdict.id for verdict in self.verdicts if verdict.kept)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Ids of the forgotten snapshots, oldest first."""
        return tuple(verdict.id for verdict in self.verdicts if not verdict.kept)

    @property
    def summary(self) -> str:
        """One line with the numbers of kept and forgotten snapshots."""
        return f"{len(self.kept)} kept, {len(self.forgotten)} to be forgotten under {self.policy}"

    def __str__(self) -> str:
        stores = dict.fromkeys(verdict.store for verdict in self.verdicts)
        lines = []
        for store in stores:
            rows = [_cells(verdict) for verdict in self.verdicts if verdict.store == store]
            columns = [*_COLUMNS[:3], *_COLUMNS[4:]]
            lines += [printable(store), *text.aligned([columns, *([*row[:3], *row[4:]] for row in rows)]), ""]
        lines += [f"warning: {printable(warning)}" for warning in self.warnings]
        return "\n".join([*lines, printable(self.summary)])

    def _repr_html_(self) -> str:
        caption = "; ".join([self.summary, *(f"warning: {warning}" for warning in self.warnings)])
        return html.table(caption, _COLUMNS, map(_cells, self.verdicts))


def _cells(verdict: Verdict) -> tuple[str, ...]:
    return (
        "keep" if verdict.kept else "forget",
        f"{verdict.time:%Y-%m-%d %H:%M:%S}",
        verdict.id,
        verdict.store,
        verdict.state.value,
        ", ".join(verdict.tags) or "-",
        "; ".join(verdict.reasons),
    )
