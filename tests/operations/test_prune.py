"""Prune deletes packs that no snapshot needs, in two steps, and never one that is needed."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from fsspec.callbacks import Callback

from novabackup import ConfigurationError, IntegrityError, Repository
from novabackup.objects.condemned import condemn
from novabackup.objects.objects import Objects
from novabackup.objects.records import Records
from novabackup.operations import backup
from novabackup.operations.backup import Request
from plain_store import folder as folder
from plain_store import store as store

NO_GRACE = timedelta(0)


def packs(repository: Repository) -> set[str]:
    return {path.name for path in (Path(repository.url) / "packs").rglob("*") if path.is_file()}


def age(repository: Repository, seconds: float) -> None:
    """Make all objects look older, as the storage tells."""
    for path in Path(repository.url).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds, time.time() - seconds))


@pytest.fixture
def orphaned(repository, store, folder):
    """A repository with one snapshot, and packs that no snapshot names any more."""
    first = repository.backup(store)
    (folder / "a.bin").write_bytes(os.urandom(200_000))
    (folder / "b.txt").write_text("new")
    repository.backup(store)
    repository.forget([first])
    return packs(repository) - set(repository._objects.records.read(repository["latest"].id).packs)


def test_what_no_snapshot_names_goes_with_the_second_prune(repository, orphaned):
    assert orphaned
    first = repository.prune(grace=NO_GRACE)
    assert (set(first.condemn), first.delete) == (orphaned, ())
    assert packs(repository) >= orphaned
    second = repository.prune(grace=NO_GRACE)
    assert set(second.delete) == orphaned
    assert second.size > 0
    assert not packs(repository) & orphaned
    assert not repository.prune(grace=NO_GRACE).delete
    assert not list((Path(repository.url) / "condemned").glob("*"))
    repository["latest"].verify()
    assert not repository.check(read_data_subset="100%")


def test_a_plan_deletes_nothing(repository, orphaned):
    repository.prune(grace=NO_GRACE)
    plan = repository.plan_prune(grace=NO_GRACE)
    assert set(plan.delete) == orphaned
    assert packs(repository) >= orphaned
    assert set(repository.prune(plan).delete) == orphaned


def test_nothing_young_is_condemned_and_nothing_condemned_lately_is_deleted(repository, orphaned):
    grace = timedelta(hours=1)
    assert repository.prune(grace=grace) == repository.plan_prune(grace=grace)
    assert not repository.plan_prune(grace=grace).condemn
    age(repository, 3700)
    assert set(repository.prune(grace=grace).condemn) == orphaned
    assert not repository.prune(grace=grace).delete
    age(repository, 3700)
    assert set(repository.prune(grace=grace).delete) == orphaned


def test_a_grace_period_that_proves_nothing_is_refused(repository, orphaned):
    with pytest.raises(ConfigurationError, match="grace period"):
        repository.prune(grace=timedelta(minutes=5))


def naming(record, packs):
    """Make a snapshot that needs these packs, too."""
    first, *others = record.files
    return attrs.evolve(record, files=(attrs.evolve(first, packs=(*first.packs, *packs)), *others), message="late")


def test_a_condemned_pack_that_a_snapshot_names_again_stays(repository, store, orphaned, folder):
    plan = repository.prune(grace=NO_GRACE)
    # A writer that had read the packs before they were condemned, and commits now.
    record = repository._objects.records.read(repository["latest"].id)
    name = repository._objects.records.save(naming(record, plan.condemn)).id
    assert not repository.prune(grace=NO_GRACE).delete
    assert packs(repository) >= orphaned
    assert name in repository


def test_a_snapshot_that_comes_between_plan_and_prune_keeps_its_packs(repository, orphaned):
    repository.prune(grace=NO_GRACE)
    plan = repository.plan_prune(grace=NO_GRACE)
    record = repository._objects.records.read(repository["latest"].id)
    repository._objects.records.save(naming(record, plan.delete))
    repository.prune(plan)
    assert packs(repository) >= orphaned


def test_a_writer_shares_nothing_with_condemned_packs(repository, store, folder):
    content = (folder / "a.bin").read_bytes()
    first = repository.backup(store)
    objects = Objects(repository._objects.storage)
    condemn(objects.access, repository._objects.records.read(first.id).packs)
    again = repository.backup(store)
    assert again.added > 300_000
    assert not set(repository._objects.records.read(first.id).packs) & set(
        repository._objects.records.read(again.id).packs
    )
    assert again.open("a.bin").read() == content


def test_a_writer_whose_packs_are_condemned_before_its_commit_starts_anew(repository, store, folder):
    first = repository.backup(store)
    old = repository._objects.records.read(first.id).packs
    (folder / "b.txt").write_text("new")
    doomed = []

    def condemn_and_tell(callback_value: object) -> None:
        if not doomed:
            doomed.extend(old)
            condemn(repository._objects.access, old)

    callback = Callback(hooks={"condemn": lambda size, value, **_: condemn_and_tell(value) if value else None})
    point = backup.execute(repository._objects, store, Request(), callback)
    assert doomed
    assert not set(point.record.packs) & set(old)
    repository[point.id].verify()


def test_nothing_is_pruned_while_a_snapshot_cannot_be_read(repository, orphaned):
    repository.prune(grace=NO_GRACE)
    (Path(repository.url) / "snapshots" / f"{repository['latest'].id}.json").write_text("garbage")
    before = packs(repository)
    with pytest.raises(IntegrityError, match="nothing is pruned"):
        Repository(repository.url).prune(grace=NO_GRACE)
    assert packs(repository) == before


def test_what_a_crashed_backup_left_is_collected(repository, store, folder, monkeypatch):
    class PowerCutError(BaseException):
        pass

    def cut(*_arguments: object) -> str:
        raise PowerCutError

    monkeypatch.setattr(Records, "save", cut)
    with pytest.raises(PowerCutError):
        repository.backup(store)
    monkeypatch.undo()
    assert packs(repository)
    assert len(repository) == 0
    repository.prune(grace=NO_GRACE)
    assert repository.prune(grace=NO_GRACE).delete
    assert not packs(repository)
    repository.backup(store).verify()


def test_what_a_killed_prune_left_of_its_clock_is_no_condemnation(repository, orphaned, caplog):
    (Path(repository.url) / "condemned").mkdir()
    (Path(repository.url) / "condemned" / f"clock-{'0' * 16}").touch()
    assert not repository.check()
    repository.prune(grace=NO_GRACE)
    assert set(repository.prune(grace=NO_GRACE).delete) == orphaned
    assert "is skipped" not in caplog.text
