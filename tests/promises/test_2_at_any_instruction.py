"""That holds for an exception, Ctrl-C, `kill -9`, a full disk and a power cut, at any instruction. Recovery itself can
be killed and started again.
"""

from __future__ import annotations

import errno

import pytest

import nova
from novabackup import recover, snapshot

PROVED_BY = (
    "tests/transaction/test_every_operation.py::test_an_error_at_any_operation",
    "tests/transaction/test_every_operation.py::test_a_kill_at_any_operation",
    "tests/transaction/test_every_operation.py::test_a_kill_at_any_operation_of_a_recovery",
    "tests/transaction/test_every_tree_operation.py::test_a_kill_at_any_operation",
    "tests/transaction/test_kill.py::test_200_kills_at_random_moments_lose_nothing",
    "tests/storage/test_local.py::test_a_full_disk_changes_nothing_and_names_the_file",
    "tests/storage/test_local.py::test_folders_and_files_are_flushed_before_a_write_returns",
    "tests/guard/test_places.py::test_a_rollback_that_cannot_finish_leaves_the_journal_for_recover",
)


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")], ids=repr
)
def test_an_error_in_the_block_is_rolled_back(store, folder, error):
    before = nova.contents(folder)
    with pytest.raises(type(error)), snapshot(store):
        nova.write_faiss(folder, nova.texts(3))
        raise error
    assert nova.contents(folder) == before


def test_a_killed_ingest_is_rolled_back_by_recover_which_can_run_again(store, folder):
    before = nova.contents(folder)
    nova.ingest_and_die(folder)
    assert nova.contents(folder) != before
    assert recover(store) is not None
    assert nova.contents(folder) == before
    assert recover(store) is None
