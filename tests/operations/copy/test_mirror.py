"""A mirror holds what its own policy keeps of both repositories, and never less because of what happens here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from novabackup import IndexStore, IntegrityError, Policy, Repository
from novabackup.components import Files
from novabackup.format.records import SnapshotRecord

NOW = datetime(2026, 1, 25, 14, 30, tzinfo=UTC)


@pytest.fixture
def source(tmp_path) -> Repository:
    return Repository(tmp_path / "source")


@pytest.fixture
def target(tmp_path) -> Repository:
    return Repository(tmp_path / "target")


@pytest.fixture
def take(tmp_path, source):
    """Take a snapshot so many days ago."""
    (tmp_path / "store").mkdir()
    store = IndexStore(tmp_path / "store", components=[Files("*")])

    def taken(days: float, **changes: object) -> str:
        (tmp_path / "store" / "a").write_text(f"{days} {changes}")
        point = source.backup(store)
        record: SnapshotRecord = source._objects.records.read(point.id)
        source.forget([point.id])
        return source._objects.records.save(attrs.evolve(record, time=NOW - timedelta(days=days), **changes)).id

    return taken


def names(repository: Repository) -> list[str]:
    return [point.id for point in repository]


def test_a_mirror_holds_what_its_policy_keeps(source, target, take):
    earlier = [take(days) for days in (2.1, 1.1)]
    kept = [take(days) for days in (3, 2, 1)]
    plan = source.plan_mirror(to=target, policy="daily 3")
    assert sorted(plan.copy.copy) == sorted(kept)
    assert not Path(target.url).exists()
    assert source.mirror(to=target, policy="daily 3").copy == plan.copy
    assert names(target) == sorted(kept)
    assert names(source) == sorted(kept + earlier)
    for point in target:
        point.verify()


def test_a_mirror_that_is_in_step_is_left_alone(source, target, take):
    for days in (2, 1):
        take(days)
    source.mirror(to=target, policy="daily 3")
    again = source.mirror(to=target, policy="daily 3")
    assert (again.copy.copy, again.forget.forgotten) == ((), ())


def test_what_its_policy_no_longer_keeps_goes_there_and_stays_here(source, target, take):
    old = take(3)
    source.mirror(to=target, policy="last 1")
    new = take(1)
    plan = source.mirror(to=target, policy="last 1")
    assert plan.forget.forgotten == (old,)
    assert names(target) == [new]
    assert names(source) == [old, new]


def test_what_is_gone_here_stays_there(source, target, take):
    kept = [take(days) for days in (3, 2, 1)]
    source.mirror(to=target, policy=Policy(daily=30))
    source.forget(kept[:2])
    source.mirror(to=target, policy=Policy(daily=30))
    assert names(target) == kept


def test_nothing_is_forgotten_there_if_anything_could_not_be_copied(source, target, take):
    old = take(2)
    source.mirror(to=target, policy="last 1")
    new = take(1)
    for pack in set(source[new].files["a"].packs) - set(source[old].files["a"].packs):
        path = Path(source.url, "packs", pack[:2], pack)
        path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    with pytest.raises(IntegrityError, match="could not be copied"):
        source.mirror(to=target, policy="last 1")
    assert names(target) == [old]


def test_pins_count_where_they_are(source, target, take):
    pinned, stays = take(5), take(4)
    source.mirror(to=target, policy="last 2")
    source.pin(pinned)
    target.pin(stays)
    source.forget([stays])
    new = take(1)
    target.forget([pinned])
    source.mirror(to=target, policy="last 1")
    assert names(target) == [pinned, stays, new]
    assert list(target.pins()) == [stays]


def test_a_damaged_snapshot_is_not_copied_and_stands_in_nobodys_way(source, target, take):
    good, bad = take(2), take(1)
    for pack in set(source[bad].files["a"].packs) - set(source[good].files["a"].packs):
        Path(source.url, "packs", pack[:2], pack).unlink()
    source.mirror(to=target, policy="last 1")
    assert names(target) == [good]


def test_local_remote_and_cold_repositories_as_in_the_procedures(source, target, take, tmp_path):
    """Local: hours and days; remote: days and weeks; cold: months."""
    for days in range(0, 120, 3):
        take(days)
    cold = Repository(tmp_path / "cold")
    source.mirror(to=target, policy="remote")
    target.mirror(to=cold, policy="cold")
    assert len(names(cold)) < len(names(target)) < len(names(source))
    assert len({name[:6] for name in names(cold)}) == 5, "one of each month"
    source.forget(source.plan_forget("local"))
    assert source["latest"].id in names(target)
