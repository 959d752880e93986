"""Forgetting by a policy and by name: what is pinned stays, and nothing that a store still needs goes."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from novabackup import ConfigurationError, IndexStore, NotFoundError, Policy, Problem, Repository, retention, snapshot
from novabackup.retention import State
from plain_store import folder as folder
from plain_store import store as store

NOW = datetime.now(UTC) - timedelta(minutes=1)
ILL = (Problem(code="damaged", paths=("b.txt",), message="expected more"),)


@pytest.fixture
def add(repository, store):
    """Give a function that adds a snapshot of a number of hours ago; gives its id."""
    template = repository._objects.records.read(repository.backup(store, tags=["template"]).id)
    repository.forget(repository["latest"])

    def add(hours: float, **changes: object) -> str:
        record = attrs.evolve(template, time=NOW - timedelta(hours=hours), **{"tags": (), **changes})
        return repository._objects.records.save(record).id

    return add


def everything(repository: Repository) -> set[str]:
    return {snap.id for snap in repository.snapshots()}


def test_forget_does_what_the_plan_says(repository, add):
    old, middle, new = add(48), add(24), add(0)
    plan = repository.plan_forget("last 2")
    assert everything(repository) == {old, middle, new}
    assert plan.forgotten == (old,)
    assert repository.forget(plan) == (old,)
    assert everything(repository) == {middle, new}
    assert repository.forget(plan) == ()
    assert not repository.check()


def test_policies_come_in_every_form_and_there_is_a_default(repository, add):
    for hours in range(40 * 24, 0, -24):
        add(hours)
    assert repository.plan_forget() == repository.plan_forget(retention.DEFAULT)
    assert repository.plan_forget({"daily": 30}) == repository.plan_forget("daily 30")
    assert len(repository.plan_forget(Policy(daily=30)).kept) == 30


def test_nothing_is_planned_where_there_is_no_repository(tmp_path):
    with pytest.raises(NotFoundError):
        Repository(tmp_path / "nothing").plan_forget()
    with pytest.raises(NotFoundError):
        Repository(tmp_path / "nothing").forget([])


def test_what_guards_and_restores_replaced_counts_as_no_backup(repository, add):
    good, failed, ill, replaced = (
        add(4),
        add(3, tags=("failed-ingest",)),
        add(2, problems=ILL),
        add(1, tags=("before-restore",)),
    )
    plan = repository.plan_forget("last 1, tag failed-ingest last 1")
    assert {verdict.id: verdict.state for verdict in plan.verdicts} == {
        good: State.HEALTHY,
        failed: State.REPLACED,
        ill: State.UNHEALTHY,
        replaced: State.REPLACED,
    }
    assert plan.forgotten == ()


def test_a_snapshot_whose_packs_are_gone_is_not_the_last_healthy_one(repository, store, folder, add):
    add(1)
    (folder / "a.bin").write_bytes(os.urandom(100_000))
    broken = repository.backup(store)
    shared = set(repository._objects.records.read(broken.id).packs)
    for snap in repository.snapshots():
        if snap.id != broken.id:
            shared -= set(repository._objects.records.read(snap.id).packs)
    assert shared
    for pack in shared:
        next((Path(repository.url) / "packs").rglob(pack)).unlink()
    plan = repository.plan_forget("last 1")
    assert plan.forgotten == ()
    assert [verdict.state for verdict in plan.verdicts] == [State.HEALTHY, State.DAMAGED]


def test_a_snapshot_that_cannot_be_read_stays_and_is_warned_of(repository, add):
    old, new = add(24), add(0)
    (Path(repository.url) / "snapshots" / f"{old}.json").write_text("garbage")
    again = Repository(repository.url)
    plan = again.plan_forget("last 1")
    assert plan.kept == (new,)
    assert old in plan.warnings[-1]
    assert again.forget(plan) == ()
    assert len(again) == 2


def test_a_storage_knows_whose_clock_was_ahead(repository, add):
    genuine, ahead = add(24), add(-24 * 365)
    plan = repository.plan_forget("last 1")
    assert plan.forgotten == ()
    assert ahead in plan.warnings[0]
    assert genuine in plan.kept


def test_a_plan_that_has_aged_takes_no_last_healthy_snapshot(repository, add, caplog):
    older, old, new = add(48), add(24), add(0)
    plan = repository.plan_forget("last 1")
    repository.forget([new])
    with caplog.at_level(logging.WARNING, "novabackup"):
        assert repository.forget(plan) == (older,)
    assert everything(repository) == {old}
    assert f"snapshot {old} stays" in caplog.text


class TestPins:
    """A pin holds against every policy."""

    def test_a_pinned_snapshot_stays(self, repository, add):
        old, middle, new = add(48), add(24), add(0)
        repository.pin(old[:20], "as delivered")
        assert repository[old].pinned
        assert not repository[new].pinned
        plan = repository.plan_forget("last 1")
        assert plan.forgotten == (middle,)
        assert plan.verdicts[0].reasons == ("pinned",)
        repository.forget(plan)
        repository.unpin(repository[old])
        assert not repository[old].pinned
        assert repository.forget(repository.plan_forget("last 1")) == (old,)

    def test_pins_are_listed_with_time_and_message(self, repository, add):
        old, new = add(24), add(0)
        repository.pin(repository[new])
        repository.pin(old, "first")
        repository.pin(old, "as delivered")
        assert [*repository.pins()] == [old, new]
        pin = repository.pins()[old]
        assert pin
        assert pin.message == "as delivered"
        assert abs(datetime.now(UTC) - pin.time) < timedelta(hours=1)

    def test_a_pinned_snapshot_is_not_forgotten_by_name(self, repository, add):
        old, new = add(24), add(0)
        repository.pin(new, "as delivered")
        with pytest.raises(ConfigurationError, match=f"{new} is pinned since .*: as delivered.*unpin"):
            repository.forget([old, new])
        assert everything(repository) == {old, new}
        repository.unpin(new)
        assert repository.forget([old, new]) == (old, new)  # by name even the last one may go

    def test_a_damaged_pin_holds_and_is_named_by_check(self, repository, add):
        old, new = add(24), add(0)
        repository.pin(old)
        (Path(repository.url) / "pins" / f"{old}.json").write_text("garbage")
        assert repository.pins() == {old: None}
        assert repository.plan_forget("last 1").forgotten == ()
        with pytest.raises(ConfigurationError, match="is pinned"):
            repository.forget(old)
        assert [(problem.code, problem.paths) for problem in repository.check()] == [("damaged", (f"pins/{old}.json",))]
        repository.unpin(old)
        assert not repository.check()
        assert new in repository

    def test_a_pin_that_lost_its_snapshot_is_named_by_check_and_can_be_taken_away(self, repository, add):
        old, _new = add(24), add(0)
        repository.pin(old)
        (Path(repository.url) / "snapshots" / f"{old}.json").unlink()
        assert [(problem.code, problem.paths) for problem in repository.check()] == [
            ("missing", (f"snapshots/{old}.json",))
        ]
        repository.unpin(old)
        assert not repository.check()

    def test_only_what_is_there_is_pinned_and_only_what_is_pinned_unpinned(self, repository, add):
        add(0)
        with pytest.raises(NotFoundError):
            repository.pin("20010101")
        with pytest.raises(NotFoundError):
            repository.unpin("20010101")
        with pytest.raises(NotFoundError, match="not pinned"):
            repository.unpin("latest")

    def test_a_snapshot_that_is_pinned_after_the_plan_was_made_stays(self, repository, add):
        old, middle, _new = add(48), add(24), add(0)
        plan = repository.plan_forget("last 1")
        repository.pin(middle)
        assert repository.forget(plan) == (old,)

    def test_pruning_leaves_pins_and_their_content(self, repository, store, folder, add):
        repository.pin(add(24))
        (folder / "a.bin").write_bytes(os.urandom(100_000))
        repository.backup(store)
        for _step in range(2):
            repository.prune(grace=timedelta(0))
        assert len(repository.pins()) == 1
        assert not repository.check(read_data_subset="100%")

    def test_what_a_failed_block_left_stays_when_it_is_pinned(self, repository, store, folder):
        def fail(number: int) -> None:
            with pytest.raises(RuntimeError), snapshot(store, repository):
                (folder / "b.txt").write_text(f"attempt {number}")
                raise RuntimeError

        fail(0)
        (first,) = repository.snapshots(tags=["failed-ingest"])
        repository.pin(first, "to look into")
        for number in range(1, 6):
            fail(number)
        failed = repository.snapshots(tags=["failed-ingest"])
        assert len(failed) == 4
        assert failed[0] == first


def test_a_repository_in_memory_forgets_too(store):
    repository = Repository("memory://forget")
    for number in range(3):
        repository.backup(store, message=str(number))
    repository.pin(repository.snapshots()[0])
    plan = repository.plan_forget("last 1")
    assert len(plan.forgotten) == 1
    assert not plan.warnings
    assert repository.forget(plan) == plan.forgotten


def test_stores_are_told_apart_by_their_place(repository, store, tmp_path, add):
    here = add(24)
    there = repository.backup(IndexStore(tmp_path / "other", components=store.components)).id
    new = add(0)
    assert set(repository.plan_forget("last 1").kept) == {there, new}
    assert here in repository
