"""Readers need no lock. Nothing has to be unlocked by hand after a crash."""

from __future__ import annotations

import nova
from novabackup import IndexStore, Repository, snapshot

PROVED_BY = (
    "tests/transaction/test_kill.py::test_the_next_guard_puts_it_back_first",
    "tests/transaction/test_writers.py::test_a_silent_owner_on_another_host_is_taken_over_after_a_lease",
    "tests/transaction/test_writers.py::test_an_owner_before_a_reboot_of_this_host_is_dead",
    "tests/storage/test_local.py::test_a_lock_ends_with_its_owner_even_if_a_child_lives_on",
    "tests/operations/test_prune.py::test_what_a_crashed_backup_left_is_collected",
    "tests/operations/test_prune.py::test_a_snapshot_that_comes_between_plan_and_prune_keeps_its_packs",
)


def test_store_and_repository_can_be_read_within_anothers_block(store, folder, tmp_path):
    before = nova.contents(folder)
    with snapshot(store):
        assert not IndexStore(folder).check()
        Repository(folder / "backups")["latest"].restore(to=tmp_path / "elsewhere")
        assert not Repository(folder / "backups").check(read_data_subset="100%")
    assert nova.contents(tmp_path / "elsewhere") == before


def test_after_a_crash_the_next_guard_starts_at_once(store, folder):
    nova.ingest_and_die(folder)
    with snapshot(store, timeout=0):
        nova.ingest(folder, nova.texts(5, 20))
    assert not store.check()
