"""Which snapshots a policy keeps, and why; nothing here does any I/O.

The policy is borg's table of (name, period): for each period the newest healthy snapshot of each of the last so many
periods is kept. Snapshots are counted in the order of their own times, never compared with this host's clock, so that
a clock that jumps or lies empties nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

import attrs

from novabackup import _html
from novabackup.errors import ConfigurationError

__all__ = ["Candidate", "ForgetPlan", "Policy", "Verdict", "apply"]

_PERIODS = (("hourly", "%Y-%m-%d %H"), ("daily", "%Y-%m-%d"), ("weekly", "%G week %V"), ("monthly", "%Y-%m"))


def _not_negative(_instance: object, field: attrs.Attribute[int], value: int) -> None:
    if not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{field.name} is how many snapshots to keep: expected 0 or more, found {value!r}")


@attrs.frozen(kw_only=True)
class Policy:
    """How many snapshots to keep of each store.

    Attributes:
        last: The newest so many.
        hourly: The newest of each of the last so many hours that have one.
        daily: Likewise for days.
        weekly: Likewise for weeks (ISO 8601, beginning on Monday).
        monthly: Likewise for months.
        tags: Every snapshot with one of these tags.
    """

    last: int = attrs.field(default=0, validator=_not_negative)
    hourly: int = attrs.field(default=0, validator=_not_negative)
    daily: int = attrs.field(default=0, validator=_not_negative)
    weekly: int = attrs.field(default=0, validator=_not_negative)
    monthly: int = attrs.field(default=0, validator=_not_negative)
    tags: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Candidate:
    """What a policy needs to know of a snapshot."""

    id: str
    time: datetime
    store: str
    tags: tuple[str, ...]
    healthy: bool


@attrs.frozen(kw_only=True)
class Verdict:
    """What becomes of one snapshot.

    Attributes:
        id: Which one.
        reasons: Why it is kept; empty for one that is forgotten.
    """

    id: str
    reasons: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


@attrs.frozen(kw_only=True)
class ForgetPlan:
    """What `forget` would do.

    Attributes:
        verdicts: One for each snapshot, oldest first.
    """

    verdicts: tuple[Verdict, ...]

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Ids of the snapshots that go."""
        return tuple(verdict.id for verdict in self.verdicts if not verdict.kept)

    def _repr_html_(self) -> str:
        rows = ((v.id, "keep" if v.kept else "forget", ", ".join(v.reasons)) for v in self.verdicts)
        return _html.table("Forget", ["snapshot", "what", "why"], rows)


def apply(policy: Policy, candidates: Iterable[Candidate]) -> ForgetPlan:
    """Decide which snapshots stay.

    Snapshots are grouped by store, never by host. Unhealthy ones never count towards a period, so they push out no
    healthy one; the last healthy snapshot of a store always stays.

    Args:
        policy: What to keep.
        candidates: All snapshots.

    Returns:
        The verdicts, with reasons.
    """
    snapshots = sorted(candidates, key=lambda candidate: (candidate.time, candidate.id))
    reasons: dict[str, list[str]] = {candidate.id: [] for candidate in snapshots}
    for store in {candidate.store for candidate in snapshots}:
        _judge(policy, [candidate for candidate in reversed(snapshots) if candidate.store == store], reasons)
    return ForgetPlan(
        verdicts=tuple(Verdict(id=candidate.id, reasons=tuple(reasons[candidate.id])) for candidate in snapshots)
    )


def _judge(policy: Policy, newest_first: Collection[Candidate], reasons: dict[str, list[str]]) -> None:
    healthy = [candidate for candidate in newest_first if candidate.healthy]
    if healthy:
        reasons[healthy[0].id].append("last healthy snapshot of the store")
    for candidate in healthy[: policy.last]:
        reasons[candidate.id].append("last")
    for name, pattern in _PERIODS:
        seen: set[str] = set()
        for candidate in healthy:
            period = candidate.time.strftime(pattern)
            if period not in seen and len(seen) < getattr(policy, name):
                seen.add(period)
                reasons[candidate.id].append(f"{name} {period}")
    for candidate in newest_first:
        reasons[candidate.id].extend(f"tag {tag}" for tag in candidate.tags if tag in policy.tags)
