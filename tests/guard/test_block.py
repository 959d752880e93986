"""A guarded block either keeps all that it wrote, checked, or leaves the store as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import nova
import trees
from novabackup import CheckFailedError, IndexStore, Repository, Snapshot, StoreBusyError, recover, snapshot
from novabackup.components import Files


def journal(folder: Path) -> Path:
    return folder / ".novabackup" / "journal.json"


def test_a_good_ingest_stays(store, folder):
    with snapshot(store) as before:
        assert isinstance(before, Snapshot)
        nova.ingest(folder, nova.texts(5, 20))
    assert [report.count for report in store.inspect() if report.count] == [25, 25, 25]
    assert not store.check()
    assert not journal(folder).exists()
    assert len(Repository(folder / "backups")) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_the_block_raises_every_file_is_back_and_the_error_goes_on(store, folder, error):
    before = nova.contents(folder)
    with pytest.raises(error), snapshot(store):
        nova.ingest(folder, nova.texts(5, 20))
        raise error("stop")
    assert nova.contents(folder) == before
    assert not journal(folder).exists()


def truncate_faiss(folder: Path) -> None:
    os.truncate(folder / "faiss_index.bin", 100)


def empty_metadata(folder: Path) -> None:
    (folder / "metadata.json").write_bytes(b"")


def remove_bm25(folder: Path) -> None:
    (folder / "bm25_index.pkl").unlink()


def garble_bm25(folder: Path) -> None:
    (folder / "bm25_index.pkl").write_bytes(b"not a pickle at all")


def fewer_vectors(folder: Path) -> None:
    nova.write_faiss(folder, nova.texts(19))


def fewer_documents(folder: Path) -> None:
    nova.write_bm25(folder, nova.texts(19))


def folder_instead_of_file(folder: Path) -> None:
    (folder / "metadata.json").unlink()
    (folder / "metadata.json").mkdir()


def link_out_of_the_store(folder: Path) -> None:
    (folder.parent / "elsewhere.json").write_text("[]")
    (folder / "metadata.json").unlink()
    (folder / "metadata.json").symlink_to(folder.parent / "elsewhere.json")


def remove_all(folder: Path) -> None:
    for path in nova.contents(folder):
        (folder / path).unlink()


BREAKAGES = [
    (truncate_faiss, "faiss_index.bin"),
    (empty_metadata, "metadata.json"),
    (remove_bm25, "bm25_index.pkl"),
    (garble_bm25, "bm25_index.pkl"),
    (fewer_vectors, "faiss_index.bin"),
    (fewer_documents, "bm25_index.pkl"),
    (folder_instead_of_file, "metadata.json"),
    (link_out_of_the_store, "metadata.json"),
    (remove_all, "metadata.json"),
]


@pytest.mark.parametrize(("breakage", "path"), BREAKAGES, ids=[breakage.__name__ for breakage, _path in BREAKAGES])
def test_a_block_that_ends_well_with_broken_files_is_rolled_back(store, folder, breakage, path):
    before = nova.contents(folder)
    with pytest.raises(CheckFailedError) as caught, snapshot(store):
        breakage(folder)
    assert any(path in problem.paths for problem in caught.value.problems)
    assert path in str(caught.value)
    assert nova.contents(folder) == before
    assert not journal(folder).exists()


def test_what_a_failed_block_left_behind_is_kept_as_a_snapshot(store, folder):
    with pytest.raises(RuntimeError), snapshot(store):
        nova.ingest(folder, nova.texts(5, 20))
        left_behind = nova.contents(folder)
        raise RuntimeError
    (failed,) = Repository(folder / "backups").snapshots(tags=["failed-ingest"])
    assert trees.held(failed) == left_behind


def test_only_the_newest_failed_ingests_are_kept(store, folder):
    for number in range(5):
        with pytest.raises(RuntimeError), snapshot(store):
            nova.ingest(folder, nova.texts(1, number))
            raise RuntimeError
    assert len(Repository(folder / "backups").snapshots(tags="failed-ingest")) == 3


def test_a_declared_file_that_the_block_created_is_gone_again_but_kept(store, folder):
    with pytest.raises(RuntimeError), snapshot(store):
        (folder / "corpus_manifest.json").write_text("{}")
        raise RuntimeError
    assert not (folder / "corpus_manifest.json").exists()
    (kept,) = Repository(folder / "backups").snapshots(tags=["failed-ingest"])
    assert kept.open("corpus_manifest.json").read() == b"{}"


def test_files_that_are_not_declared_are_left_alone(store, folder):
    with pytest.raises(RuntimeError), snapshot(store):
        (folder / "query.log").write_text("how do I check brake pads?")
        raise RuntimeError
    assert (folder / "query.log").exists()


def test_mode_and_time_of_a_file_come_back(store, folder):
    path = folder / "metadata.json"
    path.chmod(0o640)
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    with pytest.raises(RuntimeError), snapshot(store):
        path.write_text("[]")
        path.chmod(0o600)
        raise RuntimeError
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789


@pytest.mark.parametrize("there", [True, False], ids=["empty folder", "no folder"])
def test_a_first_ingest_can_fail_and_then_succeed(tmp_path, there):
    folder = tmp_path / "vector_db"
    if there:
        folder.mkdir()
    store = IndexStore(folder)
    with pytest.raises(RuntimeError), snapshot(store):
        nova.build(folder, nova.texts(3))
        raise RuntimeError
    assert nova.contents(folder) == {}
    with snapshot(store):
        nova.build(folder, nova.texts(3))
    assert not store.check()


def test_a_first_ingest_that_writes_only_some_files_is_rolled_back(tmp_path):
    folder = tmp_path / "vector_db"
    with pytest.raises(CheckFailedError), snapshot(IndexStore(folder)):
        folder.mkdir(exist_ok=True)
        nova.write_faiss(folder, nova.texts(3))
    assert nova.contents(folder) == {}


def test_a_problem_that_was_there_before_does_not_fail_the_block(store, folder):
    nova.write_metadata(folder, nova.texts(18))
    assert [problem.code for problem in store.check()] == ["count-mismatch"]
    with snapshot(store):
        nova.write_bm25(folder, nova.texts(20))
    assert store.check()


def test_a_guard_within_a_guard_is_refused_at_once_and_the_outer_one_rolls_back(store, folder):
    before = nova.contents(folder)
    with pytest.raises(StoreBusyError, match="this very thread"), snapshot(store):
        nova.ingest(folder, nova.texts(1, 20))
        with snapshot(store, timeout=60):
            pass
    assert nova.contents(folder) == before


def test_a_plain_backup_is_possible_within_ones_own_block(store, folder):
    repository = Repository(folder / "backups")
    with snapshot(store, repository):
        nova.ingest(folder, nova.texts(1, 20))
        middle = repository.backup(store, tags=["middle"])
    assert middle in repository


def test_a_snapshot_that_is_there_guards_too(store, folder):
    repository = Repository(folder / "backups")
    before = nova.contents(folder)
    point = repository.backup(store)
    nova.ingest(folder, nova.texts(5, 20))
    with pytest.raises(RuntimeError), repository[point.id]:
        nova.ingest(folder, nova.texts(5, 25))
        raise RuntimeError
    assert nova.contents(folder) == before


def test_a_snapshot_that_is_there_guards_with_the_right_layout_in_a_new_program(store, folder):
    point = Repository(folder / "backups").backup(store)
    before = nova.contents(folder)
    with pytest.raises(CheckFailedError), Repository(folder / "backups")[point.id]:
        fewer_vectors(folder)
    assert nova.contents(folder) == before


def test_a_decorated_function_is_guarded_at_each_call(store, folder):
    @snapshot(store)
    def add(count: int) -> str:
        nova.ingest(folder, nova.texts(count, 20))
        if count > 2:
            raise ValueError(count)
        return "done"

    assert add(1) == "done"
    between = nova.contents(folder)
    with pytest.raises(ValueError, match="3"):
        add(3)
    assert nova.contents(folder) == between
    assert len(Repository(folder / "backups").snapshots(tags=["pre-ingest"])) == 2


def test_other_components_and_checks_can_be_given(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    store = IndexStore(folder, components=[Files("*.txt")], checks=[])
    with pytest.raises(RuntimeError), snapshot(store, tmp_path / "backups"):
        (folder / "a.txt").unlink()
        (folder / "b.txt").write_text("b")
        raise RuntimeError
    assert nova.contents(folder) == {"a.txt": b"a"}


def test_recover_has_nothing_to_do_on_a_store_in_order(store):
    assert recover(store) is None
    with snapshot(store):
        pass
    assert recover(store) is None


def test_a_forked_child_that_leaves_the_block_does_not_end_it(store, folder):
    with snapshot(store) as guard:
        nova.ingest(folder, nova.texts(1, 20))
        written = nova.contents(folder)
        child = os.fork()
        if child == 0:
            guard.__exit__(SystemExit, SystemExit(3), None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(journal(folder).read_text())["journal"]["phase"] == "block"
        assert nova.contents(folder) == written
    assert nova.contents(folder) == written
