"""Decides which snapshots a policy keeps.

Rules only ever keep: a snapshot that no rule keeps is forgotten. Snapshots are judged store by store, never by host.
Wrong clocks must not cost snapshots:

* Periods are counted, and ages measured, from the newest healthy snapshot, not from now.
* The time of a snapshot is not trusted if it is after the time of storing, or later than now. Such snapshots are judged
  among themselves, so they push nothing out; judging apart can only keep more (``docs/retention.md`` proves it).
* The last healthy snapshot is kept: the newest by its own time, and the newest by the storage's clock.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import attrs

from novabackup._support import text
from novabackup.retention.plan import ForgetPlan, State, Verdict
from novabackup.retention.policy import Policy, Reach, Rule

__all__ = ["SLACK", "Candidate", "apply", "still_forgotten"]

SLACK = timedelta(days=1)
"""How far two clocks may differ, including mixed-up time zones, before a time is not trusted."""

_REPLACED = Rule("within", Reach(7, "d"))
"""What is kept of replaced states if the policy has no rule for their tags."""

_OWN_TAGS = ("pre-ingest", "failed-ingest", "before-restore")
"""Tags that novabackup sets itself: a rule for one that no snapshot has yet is not a typing error."""

_PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda time: f"{time.isoformat(' ')[:13]}h",
    "daily": lambda time: time.isoformat()[:10],
    "weekly": lambda time: "{} week {:02}".format(*time.isocalendar()),
    "monthly": lambda time: time.isoformat()[:7],
    "yearly": lambda time: time.isoformat()[:4],
}
"""Name of the period that contains a time in UTC."""

_BEST_FIRST = (State.HEALTHY, State.UNHEALTHY, State.REPLACED)


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:  # forged: the last or first hours that a date can have, in another time zone
        return time.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Candidate:
    """A snapshot as a policy sees it.

    Attributes:
        id: Id of the snapshot.
        time: When it was taken, according to the snapshot.
        store: URL of its store.
        tags: Its tags.
        state: How useful it is.
        stored: When it was written, by the storage's own clock; None if the storage does not report it.
        pinned: Whether it is pinned.
    """

    id: str
    time: datetime = attrs.field(converter=_in_utc)
    store: str
    tags: tuple[str, ...] = ()
    state: State = State.HEALTHY
    stored: datetime | None = None
    pinned: bool = False


@attrs.frozen
class _Reasons:
    """Reasons for and against keeping a snapshot."""

    apart: list[str] = attrs.field(factory=list)
    """Why it is judged apart from others."""
    superseded: list[str] = attrs.field(factory=list)
    """Why some rules skip it."""
    kept: list[str] = attrs.field(factory=list)
    """What keeps it."""
    covered: list[str] = attrs.field(factory=list)
    """Periods for which a newer one is kept."""
    beyond: list[str] = attrs.field(factory=list)
    """Rules that do not reach back to it."""

    def deciding(self) -> tuple[str, ...]:
        """Return the reasons that decide."""
        if self.kept:
            return (*self.apart, *self.kept)
        against = [*self.superseded]
        if self.covered:
            against.append(f"a newer one is kept for {', '.join(self.covered)}")
        if self.beyond:
            against.append(f"too old for {', '.join(self.beyond)}")
        return (*self.apart, *(against or ["no rule is for it"]))


def apply(policy: Policy, candidates: Iterable[Candidate], *, now: datetime | None = None) -> ForgetPlan:
    """Decide which snapshots are kept.

    Args:
        policy: What to keep.
        candidates: All snapshots.
        now: The current time. Its only use is that later times of snapshots are not trusted, so a wrong clock can only
            keep more snapshots.

    Returns:
        The verdicts, with reasons.
    """
    snapshots = sorted(candidates, key=_by_time)
    said = {candidate.id: _Reasons() for candidate in snapshots}
    for candidate in snapshots:
        if candidate.pinned:
            said[candidate.id].kept.append("pinned")
        if candidate.state is State.DAMAGED:
            said[candidate.id].kept.append("damaged: repair it from a copy of the repository, or forget it by name")
    whole = [candidate for candidate in reversed(snapshots) if candidate.state is not State.DAMAGED]
    for of_store in _by_store(whole).values():
        believed = [candidate for candidate in of_store if _believed(candidate, now)]
        doubted = [candidate for candidate in of_store if not _believed(candidate, now)]
        for candidate in doubted:
            said[candidate.id].apart.append("its time is not believed, so it is judged apart")
        for members in (believed, doubted):
            if members:
                # The older of the two, so that judging apart makes no snapshot older.
                origin = min(_best(members)[0].time, _best(of_store)[0].time)
                _judge(policy, members, origin, said)
    return ForgetPlan(
        policy=str(policy),
        verdicts=tuple(_verdict(candidate, said[candidate.id]) for candidate in snapshots),
        warnings=tuple(_warnings(policy, snapshots, now)),
    )


def still_forgotten(names: Collection[str], candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Check again what a plan forgets before it is executed, since the repository may have changed.

    Args:
        names: Ids of the snapshots that the plan forgets.
        candidates: All snapshots that exist now.

    Returns:
        Those that may still be forgotten: they exist, are not pinned, and are not the last of the best state of a
        store.
    """
    there = sorted(candidates, key=_by_time)
    may_go = {c.id for c in there if not c.pinned and c.state is not State.DAMAGED}.intersection(names)
    for of_store in _by_store(there).values():
        best = _best(of_store)
        if best and may_go.issuperset(candidate.id for candidate in best):
            may_go.remove(best[-1].id)
    return tuple(name for name in names if name in may_go)


def _by_time(candidate: Candidate) -> tuple[datetime, str]:
    return candidate.time, candidate.id


def _by_store(candidates: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    stores: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        stores.setdefault(candidate.store, []).append(candidate)
    return stores


def _believed(candidate: Candidate, now: datetime | None) -> bool:
    return all(limit is None or candidate.time - limit <= SLACK for limit in (candidate.stored, now))


def _best(members: Sequence[Candidate]) -> list[Candidate]:
    """Return the snapshots of the best state that a store has."""
    for state in _BEST_FIRST:
        found = [candidate for candidate in members if candidate.state is state]
        if found:
            return found
    return []


def _judge(policy: Policy, newest_first: Sequence[Candidate], origin: datetime, said: dict[str, _Reasons]) -> None:
    """Judge undamaged snapshots of one store together; ages are measured from ``origin``."""
    _protect(newest_first, said)
    states = {state: [candidate for candidate in newest_first if candidate.state is state] for state in _BEST_FIRST}
    healthy, unhealthy, replaced = states.values()
    alone = [c for c in unhealthy if not healthy or _by_time(c) > _by_time(healthy[0])]
    for candidate in unhealthy[: len(alone)]:
        said[candidate.id].apart.append("unhealthy, but no healthy one is newer")
    for candidate in unhealthy[len(alone) :]:
        said[candidate.id].superseded.append("unhealthy, and a healthy one is newer")
    for rule in policy.rules:
        _follow(rule, healthy, origin, str(rule), said)
        _follow(rule, alone, origin, str(rule), said)
    for tag, rules in policy.tags:
        for line in states.values():
            tagged = [candidate for candidate in line if tag in candidate.tags]
            for rule in rules.rules:
                _follow(rule, tagged, origin, f"tag {tag} {rule.reach if rule.word == 'within' else rule}", said)
    ruled = {tag for tag, _rules in policy.tags}
    others = [candidate for candidate in replaced if ruled.isdisjoint(candidate.tags)]
    _follow(_REPLACED, others, origin, f"{_REPLACED.reach} for what was replaced", said)


def _protect(newest_first: Sequence[Candidate], said: dict[str, _Reasons]) -> None:
    """Keep what any policy must keep."""
    best = _best(newest_first)
    state = best[0].state
    last = "last healthy snapshot" if state is State.HEALTHY else f"none is healthy: last {state.value} snapshot"
    said[best[0].id].kept.append(f"{last} of the store")
    timed = [(candidate.stored, *_by_time(candidate)) for candidate in best if candidate.stored is not None]
    if timed and (stored_last := max(timed)[-1]) != best[0].id:
        said[stored_last].kept.append(f"{last} of the store by the storage's clock")
    if newest_first[0].state is not state:
        said[newest_first[0].id].kept.append("newest snapshot of the store")


def _follow(
    rule: Rule, newest_first: Sequence[Candidate], origin: datetime, name: str, said: dict[str, _Reasons]
) -> None:
    """Apply one rule to snapshots that are judged together."""
    taken: set[str] = set()
    period_of = _PERIODS.get(rule.word)
    for candidate in newest_first:
        period = period_of(candidate.time) if period_of else candidate.id
        if period in taken:
            said[candidate.id].covered.append(period)
        elif rule.reach.covers(len(taken), origin - candidate.time):
            taken.add(period)
            said[candidate.id].kept.append(f"{name}: {period}" if period_of else name)
        else:
            said[candidate.id].beyond.append(name)


def _verdict(candidate: Candidate, reasons: _Reasons) -> Verdict:
    return Verdict(
        id=candidate.id,
        time=candidate.time,
        store=candidate.store,
        tags=candidate.tags,
        state=candidate.state,
        kept=bool(reasons.kept),
        reasons=reasons.deciding(),
    )


def _warnings(policy: Policy, snapshots: Sequence[Candidate], now: datetime | None) -> Iterator[str]:
    known = {tag for candidate in snapshots for tag in candidate.tags}
    for tag, _rules in policy.tags:
        if tag not in known and tag not in _OWN_TAGS:
            close = difflib.get_close_matches(tag, [*sorted(known), *_OWN_TAGS], 1)
            hint = f"did you mean {close[0]!r}?" if close else "is it spelled right?"
            yield f"no snapshot has the tag {tag!r}, for which there is a rule: {hint}"
    doubted = [candidate.id for candidate in snapshots if not _believed(candidate, now)]
    if doubted:
        yield (
            f"a clock was wrong: {len(doubted)} of the snapshots are from after the time at which they were stored, or "
            f"from later than now: {text.first_of(doubted)}. They are judged apart and push out no others. Set the "
            "clock right, and forget by name those that you do not need"
        )
    for store, of_store in _by_store(snapshots).items():
        if all(candidate.state is not State.HEALTHY for candidate in of_store):
            yield f"{store} has no healthy snapshot, so the rules are for the others: run check() on the store"
