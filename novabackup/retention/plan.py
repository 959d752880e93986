"""What `forget` would do, as data that people can read."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import attrs

from novabackup._support import html as _html
from novabackup._support import text as _text
from novabackup.errors import printable

__all__ = ["ForgetPlan", "State", "Verdict"]

_COLUMNS = ("what", "time (UTC)", "snapshot", "store", "state", "tags", "why")


class State(Enum):
    """What a snapshot is worth as something to go back to; the best first."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """The checks found problems when it was taken."""
    REPLACED = "replaced"
    """What a rollback or a restore replaced: nobody wanted the store to be like this."""
    DAMAGED = "damaged"
    """The repository does not have all that it names."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What becomes of one snapshot.

    Attributes:
        id: Which one.
        time: When it says that it was taken.
        store: URL of its store.
        tags: Its labels.
        state: What it is worth.
        kept: Whether it stays.
        reasons: Each rule that keeps it; of one that goes, why each rule does not.
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
        warnings: What looks like a mistake, or like a clock that lies.
    """

    policy: str
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """Ids of the snapshots that stay, oldest first."""
        return tuple(verdict.id for verdict in self.verdicts if verdict.kept)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Ids of the snapshots that go, oldest first."""
        return tuple(verdict.id for verdict in self.verdicts if not verdict.kept)

    @property
    def summary(self) -> str:
        """One line that says how many stay and go."""
        return f"{len(self.kept)} kept, {len(self.forgotten)} to be forgotten under {self.policy}"

    def __str__(self) -> str:
        stores = dict.fromkeys(verdict.store for verdict in self.verdicts)
        lines = []
        for store in stores:
            rows = [_cells(verdict) for verdict in self.verdicts if verdict.store == store]
            columns = [*_COLUMNS[:3], *_COLUMNS[4:]]
            lines += [printable(store), *_text.aligned([columns, *([*row[:3], *row[4:]] for row in rows)]), ""]
        lines += [f"warning: {printable(warning)}" for warning in self.warnings]
        return "\n".join([*lines, printable(self.summary)])

    def _repr_html_(self) -> str:
        caption = "; ".join([self.summary, *(f"warning: {warning}" for warning in self.warnings)])
        return _html.table(caption, _COLUMNS, map(_cells, self.verdicts))


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
