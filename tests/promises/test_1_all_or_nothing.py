"""After a guarded block the store holds either everything that the block wrote, checked, or exactly what it held
before: every declared file, byte for byte, with its mode and time, and without the files that the block created.
"""

from __future__ import annotations

import pytest

import nova
from novabackup import snapshot
from portraits import portrait

PROVED_BY = (
    "tests/guard/test_block.py::test_whatever_the_block_raises_every_file_is_back_and_the_error_goes_on",
    "tests/guard/test_block.py::test_a_declared_file_that_the_block_created_is_gone_again_but_kept",
    "tests/guard/test_block.py::test_mode_and_time_of_a_file_come_back",
    "tests/guard/test_block.py::test_a_first_ingest_that_writes_only_some_files_is_rolled_back",
    "tests/guard/test_object_stores.py::test_an_ingest_that_fails_is_rolled_back",
    "tests/store/test_trees.py::test_a_block_that_fails_is_taken_back",
    "tests/transaction/test_every_operation.py::test_an_error_at_any_operation",
    "tests/transaction/test_chaos.py::test_500_ingests_on_a_way_that_goes_wrong_lose_nothing",
)


def test_a_block_that_ends_well_is_kept_whole(store, folder):
    with snapshot(store):
        nova.ingest(folder, nova.texts(5, 20))
        written = portrait(folder)
    assert portrait(folder) == written
    assert not store.check()


def test_a_block_that_fails_leaves_everything_as_it_was(store, folder):
    (folder / "metadata.json").chmod(0o640)
    before = portrait(folder)
    with pytest.raises(RuntimeError), snapshot(store):
        nova.ingest(folder, nova.texts(5, 20))
        (folder / "metadata.json").chmod(0o600)
        (folder / "bm25_index.pkl").unlink()
        raise RuntimeError("stop")
    assert portrait(folder) == before


def test_files_that_a_failed_first_ingest_created_are_gone(store, folder):
    for name in nova.FILES:
        (folder / name).unlink()
    with pytest.raises(RuntimeError), snapshot(store):
        nova.build(folder, nova.texts(5))
        raise RuntimeError("stop")
    assert not portrait(folder)
