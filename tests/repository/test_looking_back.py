"""A repository tells what a store held at a time, and what all of it takes."""

from __future__ import annotations

import errno
import re
from datetime import UTC, datetime, timedelta

import pytest

import nova
from novabackup import (
    ConfigurationError,
    IndexStore,
    IntegrityError,
    NotFoundError,
    Repository,
    RollbackError,
    StoreBusyError,
    plan_recover,
    recover,
    snapshot,
)
from novabackup.storage.local.storage import LocalStorage


@pytest.fixture
def folder(tmp_path):
    nova.build(tmp_path / "vector_db", nova.texts(4))
    return tmp_path / "vector_db"


@pytest.fixture
def repo(tmp_path):
    return Repository(tmp_path / "repository")


def fail(folder, repo):
    with pytest.raises(RuntimeError), snapshot(IndexStore(folder), repo):
        (folder / "metadata.json").unlink()
        raise RuntimeError


class TestAtATime:
    def test_the_newest_snapshot_that_is_not_younger_is_found(self, folder, repo):
        first, second = repo.backup(IndexStore(folder)), repo.backup(IndexStore(folder))
        assert repo.at(first.time) == first
        assert repo.at(second.time - timedelta(microseconds=1)) == first
        assert repo.at(datetime.now(UTC)) == second

    def test_what_a_failed_block_left_was_never_what_the_store_held(self, folder, repo):
        fail(folder, repo)
        assert repo.snapshots()[-1].tags == ("failed-ingest",)
        assert repo.at(datetime.now(UTC)).tags == repo["latest"].tags == ("pre-ingest",)

    def test_restoring_the_latest_twice_is_the_same_as_once(self, folder, repo):
        before = nova.contents(folder)
        meant = repo.backup(IndexStore(folder))
        nova.ingest(folder, nova.texts(1, first=4))
        for _ in range(2):
            repo["latest"].restore()
            assert nova.contents(folder) == before
            assert repo.snapshots()[-1].tags == ("before-restore",)
            assert repo["latest"] == repo.at(datetime.now(UTC)) == meant

    def test_nothing_that_old_says_what_there_is(self, folder, repo):
        first = repo.backup(IndexStore(folder))
        there = re.escape(f"the oldest is of {first.time:%Y-%m-%d %H:%M:%S}+00:00")
        with pytest.raises(NotFoundError, match=there):
            repo.at(first.time - timedelta(seconds=1))

    def test_several_stores_must_be_told_apart(self, folder, repo, tmp_path):
        nova.build(tmp_path / "other", nova.texts(2))
        first, second = repo.backup(IndexStore(folder)), repo.backup(IndexStore(tmp_path / "other"))
        with pytest.raises(ConfigurationError, match="snapshots of 2 stores"):
            repo.at(datetime.now(UTC))
        assert repo.at(datetime.now(UTC), store=folder) == first
        assert repo.at(datetime.now(UTC), store=IndexStore(tmp_path / "other")) == second

    def test_a_time_without_a_zone_is_no_moment(self, repo):
        with pytest.raises(ConfigurationError, match="no time zone"):
            repo.at(datetime(2026, 1, 25, 14, 30))


class TestUsage:
    def test_what_is_the_same_counts_once(self, folder, repo, tmp_path):
        one = repo.backup(IndexStore(folder))
        for _ in range(4):
            repo.backup(IndexStore(folder))
        used = repo.usage()
        files = [path for path in (tmp_path / "repository/packs").rglob("*") if path.is_file()]
        assert (used.snapshots, used.packs, used.stored) == (5, 1, files[0].stat().st_size)
        assert (used.logical, used.content) == (5 * one.size, one.size)
        assert used.sharing == pytest.approx(5)
        assert used.compression > 1
        assert "stored, compressed" in used._repr_html_()

    def test_what_nobody_needs_is_told_apart(self, folder, repo):
        first = repo.backup(IndexStore(folder))
        for name in nova.FILES:
            (folder / name).unlink()
        (folder / "corpus_manifest.json").write_text("{}")
        repo.backup(IndexStore(folder))
        size = repo.usage().stored
        repo.forget([first])
        used = repo.usage()
        assert (used.packs, used.orphaned_packs) == (1, 1)
        assert used.stored + used.orphaned == size

    def test_a_missing_pack_cannot_be_counted(self, folder, repo, tmp_path):
        repo.backup(IndexStore(folder))
        (pack,) = [path for path in (tmp_path / "repository/packs").rglob("*") if path.is_file()]
        pack.unlink()
        with pytest.raises(IntegrityError, match="found 1 missing"):
            repo.usage()


class TestCreate:
    def test_an_empty_repository_is_there_and_stays_the_same(self, repo, folder):
        identity = repo.create()
        assert repo.snapshots() == ()
        assert repo.create() == identity
        assert repo.usage().sharing == 1.0
        repo.backup(IndexStore(folder))
        assert repo.create() == identity


class TestPlanRecover:
    def test_a_writer_that_is_alive_is_left_alone(self, folder, repo):
        assert plan_recover(IndexStore(folder), repo) is None
        with snapshot(IndexStore(folder), repo), pytest.raises(StoreBusyError, match="is being written to"):
            plan_recover(IndexStore(folder), repo)

    def test_it_says_what_recover_does_and_does_nothing(self, folder, repo, monkeypatch):
        before = nova.contents(folder)

        def full(*_arguments: object, **_named: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

        with pytest.raises(RollbackError), monkeypatch.context() as patched, snapshot(IndexStore(folder), repo):
            nova.write_metadata(folder, nova.texts(1))
            patched.setattr(LocalStorage, "write", full)
            raise RuntimeError
        broken = nova.contents(folder)
        planned = plan_recover(IndexStore(folder), repo)
        assert nova.contents(folder) == broken != before
        assert planned.plan == recover(IndexStore(folder), repo).plan
        assert nova.contents(folder) == before
