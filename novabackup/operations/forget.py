"""Apply a retention policy to the snapshots of a repository, and check again before they are forgotten."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

import attrs

from novabackup import retention
from novabackup._support.text import first_of
from novabackup.errors import ConfigurationError
from novabackup.format.layout import SNAPSHOT_NAME, SNAPSHOTS, snapshot_key
from novabackup.format.records import SIDE_TAGS, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.operations import pins
from novabackup.retention import Candidate, ForgetPlan, Policy, State
from novabackup.storage import Lock, Storage

_LOG = logging.getLogger("novabackup")

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""A storage that gives a later time gives none."""


def plan(objects: Objects, policy: Policy) -> ForgetPlan:
    """Plan which snapshots a policy keeps; those that cannot be read stay, with a warning."""
    known = candidates(objects)
    made = retention.apply(policy, known, now=datetime.now(UTC))
    unread = sorted({*objects.records.names()}.difference(candidate.id for candidate in known))
    if not unread:
        return made
    warning = f"{len(unread)} cannot be read and stay: {first_of(unread)}. check() says why"
    return attrs.evolve(made, warnings=(*made.warnings, warning))


def execute(objects: Objects, what: ForgetPlan | Iterable[str]) -> tuple[str, ...]:
    """Forget snapshots that are named, or those of a plan that may still be forgotten; return their ids.

    Raises:
        ConfigurationError: A snapshot that is named is pinned; then none is forgotten.
        PermissionError: A snapshot that is named may not be deleted yet; then none is forgotten.
    """
    names = _still_forgotten(objects, what) if isinstance(what, ForgetPlan) else _forgettable(objects, what)
    objects.records.forget(names)
    return names


def candidates(objects: Objects) -> list[Candidate]:
    """Describe all snapshots that can be read."""
    points = list(objects.records.newest_first())
    stored, pinned = _stored(objects.storage), pins.pinned(objects.access)
    there = objects.packs.present({pack for point in points for pack in point.record.packs})
    return [
        Candidate(
            id=point.id,
            time=point.record.time,
            store=point.record.store,
            tags=point.record.tags,
            state=_state(point.record) if there.issuperset(point.record.packs) else State.DAMAGED,
            stored=stored.get(point.id),
            pinned=point.id in pinned,
        )
        for point in points
    ]


def locked(storage: Storage, names: Iterable[str]) -> dict[str, Lock]:
    """Return which snapshots may not be deleted yet, since their bucket protects them."""
    keys = {snapshot_key(name): name for name in names}
    return {keys[lock.key]: lock for lock in storage.locks(keys)}


def _stored(storage: Storage) -> dict[str, datetime]:
    """Return when each snapshot was written, by the storage's own clock, where the storage says so."""
    return {
        found[1]: datetime.fromtimestamp(entry.modified, UTC)
        for entry in storage.entries(SNAPSHOTS)
        if 0 < entry.modified < _END_OF_TIME and (found := SNAPSHOT_NAME.fullmatch(entry.key))
    }


def _state(record: SnapshotRecord) -> State:
    if not SIDE_TAGS.isdisjoint(record.tags):
        return State.REPLACED
    return State.UNHEALTHY if record.problems else State.HEALTHY


def _still_forgotten(objects: Objects, aged: ForgetPlan) -> tuple[str, ...]:
    """Return what a plan forgets and may still be forgotten; log a warning for what has to stay by now."""
    present = candidates(objects)
    names = retention.still_forgotten(aged.forgotten, present)
    there = {candidate.id for candidate in present}
    for name in there.intersection(aged.forgotten).difference(names):
        _LOG.warning("snapshot %s stays: it is pinned, damaged or the last of its store by now", name)
    protected = locked(objects.storage, names)
    for name, lock in protected.items():
        _LOG.warning("snapshot %s stays: it is %s. A later plan will include it", name, lock)
    return tuple(name for name in names if name not in protected)


def _forgettable(objects: Objects, named: Iterable[str]) -> tuple[str, ...]:
    """Return ids without duplicates; refuse those that are pinned or may not be deleted yet."""
    names = tuple(dict.fromkeys(named))
    for name in sorted(pins.pinned(objects.access).intersection(names)):
        pin = pins.read(objects.access, name)
        since = f" since {pin.time:%Y-%m-%d %H:%M} UTC{f': {pin.message}' if pin.message else ''}" if pin else ""
        raise ConfigurationError(f"snapshot {name} is pinned{since}. To forget it, call unpin({name!r}) first")
    if protected := locked(objects.storage, names):
        which = "; ".join(f"{name} is {lock}" for name, lock in protected.items())
        raise PermissionError(errno.EACCES, f"may not be forgotten yet: {which}. Wait until then", objects.url)
    return names
