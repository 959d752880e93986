"""No file that could still be wanted is deleted: what is in the way is set aside or kept as a snapshot."""

from __future__ import annotations

import pytest

import nova
import trees
from novabackup import Repository, snapshot

PROVED_BY = (
    "tests/guard/test_block.py::test_what_a_failed_block_left_behind_is_kept_as_a_snapshot",
    "tests/transaction/test_kill.py::test_what_the_killed_ingest_left_is_kept",
    "tests/transaction/test_every_operation.py::test_what_cannot_be_kept_in_the_repository_is_set_aside",
    "tests/repository/test_repository.py::test_a_restore_goes_to_the_store_and_keeps_what_it_replaces",
    "tests/operations/test_prune.py::test_nothing_young_is_condemned_and_nothing_condemned_lately_is_deleted",
    "tests/operations/test_prune.py::test_nothing_is_pruned_while_a_snapshot_cannot_be_read",
    "tests/operations/test_forget.py::test_a_plan_that_has_aged_takes_no_last_healthy_snapshot",
)


def test_what_a_failed_block_wrote_is_kept_as_a_snapshot(store, folder):
    with pytest.raises(RuntimeError), snapshot(store):
        nova.ingest(folder, nova.texts(5, 20))
        written = nova.contents(folder)
        raise RuntimeError("stop")
    (kept,) = Repository(folder / "backups").snapshots(tags=["failed-ingest"])
    assert trees.held(kept) == written


def test_what_a_restore_replaces_is_kept_as_a_snapshot(repository, store, folder):
    first = repository.backup(store)
    nova.ingest(folder, nova.texts(5, 20))
    replaced = nova.contents(folder)
    first.restore()
    assert nova.contents(folder) == trees.held(first)
    assert replaced in [trees.held(snap) for snap in repository.snapshots()]
