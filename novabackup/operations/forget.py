"""What a policy is told of the snapshots of a repository, and what is made sure of before they are forgotten."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

import attrs

from novabackup import retention
from novabackup._support import text as _text
from novabackup.errors import ConfigurationError
from novabackup.format.records import SIDE_TAGS, SnapshotRecord
from novabackup.objects.packs import Objects
from novabackup.retention import Candidate, ForgetPlan, Policy, State

__all__ = ["candidates", "forgettable", "plan", "still_forgotten"]

_LOG = logging.getLogger("novabackup")


def plan(objects: Objects, policy: Policy) -> ForgetPlan:
    """Say which snapshots a policy would keep; those that cannot be read stay, and a warning says so."""
    there = candidates(objects)
    made = retention.apply(policy, there, now=datetime.now(UTC))
    unread = sorted({*objects.names()}.difference(candidate.id for candidate in there))
    if not unread:
        return made
    warning = f"{len(unread)} cannot be read and stay: {_text.first_of(unread)}"
    return attrs.evolve(made, warnings=(*made.warnings, f"{warning}. check() says more"))


def candidates(objects: Objects) -> list[Candidate]:
    """Describe all snapshots that can be read."""
    records = dict(objects.named_records())
    stored, pinned = objects.stored(), objects.pinned()
    there = objects.present({pack for record in records.values() for pack in record.packs})
    return [
        Candidate(
            id=name,
            time=record.time,
            store=record.store,
            tags=record.tags,
            state=_state(record) if there.issuperset(record.packs) else State.DAMAGED,
            stored=stored.get(name),
            pinned=name in pinned,
        )
        for name, record in records.items()
    ]


def _state(record: SnapshotRecord) -> State:
    if not SIDE_TAGS.isdisjoint(record.tags):
        return State.REPLACED
    return State.UNHEALTHY if record.problems else State.HEALTHY


def still_forgotten(objects: Objects, aged: ForgetPlan) -> tuple[str, ...]:
    """Look again at what a plan forgets; what has become worth keeping since stays, with a warning."""
    present = candidates(objects)
    names = retention.still_forgotten(aged.forgotten, present)
    there = {candidate.id for candidate in present}
    for name in there.intersection(aged.forgotten).difference(names):
        _LOG.warning("snapshot %s stays: it was pinned, damaged or the last of its store when it was to go", name)
    locked = objects.locked(names)
    for name, lock in locked.items():
        _LOG.warning("snapshot %s stays: it is %s. A later plan has it again", name, lock)
    return tuple(name for name in names if name not in locked)


def forgettable(objects: Objects, named: Iterable[str]) -> tuple[str, ...]:
    """Give names back, each once.

    Raises:
        ConfigurationError: One of them is pinned.
        PermissionError: One of them may not be deleted yet.
    """
    names = tuple(dict.fromkeys(named))
    for name in sorted(objects.pinned().intersection(names)):
        pin = objects.read_pin(name)
        since = f" since {pin.time:%Y-%m-%d %H:%M} UTC{f': {pin.message}' if pin.message else ''}" if pin else ""
        raise ConfigurationError(f"snapshot {name} is pinned{since}. To forget it, call unpin({name!r}) first")
    if locked := objects.locked(names):
        said = "; ".join(f"{name} is {lock}" for name, lock in locked.items())
        raise PermissionError(errno.EACCES, f"may not be forgotten yet: {said}. Wait until then", objects.url)
    return names
