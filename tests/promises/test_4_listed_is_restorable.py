"""A snapshot that is listed can be restored. Every byte that leaves a repository has been checked against its hash. A
damaged object costs at most the files that need it and is named; the rest stays readable.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import nova
from novabackup import IntegrityError, Repository

PROVED_BY = (
    "tests/repository/test_damage.py::test_flipping_any_byte_of_any_object_is_noticed_and_costs_only_what_needs_it",
    "tests/repository/test_damage.py::test_objects_that_are_gone_or_replaced_are_noticed",
    "tests/repository/test_damage.py::test_one_damaged_snapshot_does_not_hide_the_others",
    "tests/repository/test_damage.py::test_undamaged_files_of_a_damaged_snapshot_can_be_had",
    "tests/transaction/test_chaos.py::test_a_wrong_byte_in_any_object_on_its_way_is_noticed",
    "tests/operations/test_prune.py::test_a_snapshot_that_comes_between_plan_and_prune_keeps_its_packs",
    "tests/golden/test_golden.py::test_every_snapshot_is_read_exactly",
)


def test_every_listed_snapshot_restores_what_the_store_held(repository, store, folder, tmp_path):
    held = {}
    for number in range(3):
        nova.ingest(folder, nova.texts(2, 20 + 2 * number))
        held[repository.backup(store).id] = nova.contents(folder)
    assert {snap.id for snap in repository.snapshots()} == set(held)
    for snap in repository.snapshots():
        snap.restore(to=tmp_path / snap.id)
        assert nova.contents(tmp_path / snap.id) == held[snap.id]


def test_a_damaged_pack_is_named_and_costs_only_the_snapshots_that_need_it(repository, store, folder, tmp_path):
    first, good = repository.backup(store), nova.contents(folder)
    old = set(Path(repository.url, "packs").rglob("*"))
    nova.ingest(folder, nova.texts(2, 20))
    second = repository.backup(store)
    for pack in [path for path in set(Path(repository.url, "packs").rglob("*")) - old if path.is_file()]:
        pack.write_bytes(bytes(byte ^ 1 for byte in pack.read_bytes()))
    damaged = Repository(repository.url)
    assert any("packs/" in path for problem in damaged.check(read_data_subset="100%") for path in problem.paths)
    with pytest.raises(IntegrityError):
        damaged[second.id].restore(to=tmp_path / "second")
    damaged[first.id].restore(to=tmp_path / "first")
    assert nova.contents(tmp_path / "first") == good
