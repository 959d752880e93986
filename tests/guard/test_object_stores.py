"""The main job where files are objects: in memory, on S3, and on a server that takes no notice of conditions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import nova
from novabackup import CheckFailedError, ConfigurationError, IndexStore, NotFoundError, Repository, recover, snapshot
from novabackup.storage import Storage


class Ingestion:
    """Ingests into an object store as Nova would: builds the files in a folder, then uploads each."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage = storage
        self.folder = folder

    def build(self, count: int, *, leave_out: str = "") -> None:
        nova.build(self.folder, nova.texts(count))
        for name in nova.FILES:
            if name != leave_out:
                self.storage.write(name, [(self.folder / name).read_bytes()])

    def contents(self) -> dict[str, bytes]:
        return {name: self.storage.read(name) for name in nova.FILES if self.storage.exists(name)}


@pytest.fixture(params=["memory", "moto", "sftp"])
def store(request) -> IndexStore:
    if request.param == "memory":
        return IndexStore(f"memory://{request.node.name}/vector_db")
    url, options = request.getfixturevalue(f"{request.param}_place")
    return IndexStore(f"{url}/vector_db", storage_options=options)


@pytest.fixture
def ingestion(store, tmp_path) -> Ingestion:
    made = Ingestion(store.storage, tmp_path / "work")
    made.build(20)
    return made


def test_a_good_ingest_stays(store, ingestion):
    with snapshot(store) as before:
        ingestion.build(25)
    assert [report.count for report in store.inspect()] == [25, 25, 25]
    assert not store.check()
    assert before.files["metadata.json"].report.count == 20
    assert recover(store) is None


def test_an_ingest_that_fails_is_rolled_back(store, ingestion):
    before = ingestion.contents()
    with pytest.raises(ZeroDivisionError), snapshot(store):
        ingestion.build(25)
        store.storage.delete("bm25_index.pkl")
        raise ZeroDivisionError
    assert ingestion.contents() == before


def test_an_ingest_that_forgets_a_file_is_rolled_back(store, ingestion):
    before = ingestion.contents()
    with pytest.raises(CheckFailedError, match=r"bm25_index\.pkl"), snapshot(store):
        ingestion.build(25, leave_out="bm25_index.pkl")
    assert ingestion.contents() == before


def test_a_second_guard_can_follow_and_the_repository_is_beside_the_store(store, ingestion):
    for count in (21, 22):
        with snapshot(store):
            ingestion.build(count)
    repository = Repository(f"{store.url}/backups", storage_options=store.storage_options)
    assert [point.files["metadata.json"].report.count for point in repository] == [20, 21]
    assert not repository.check(read_data_subset="100%")
    repository.snapshots()[0].restore(to=store)
    assert store.inspect()["metadata.json"].count == 20


def test_a_store_on_s3_can_be_kept_on_a_local_disk_and_restored_there(store, ingestion, tmp_path):
    with snapshot(store, tmp_path / "repository"):
        ingestion.build(25)
    Repository(tmp_path / "repository")["latest"].restore(to=tmp_path / "elsewhere")
    assert IndexStore(tmp_path / "elsewhere").inspect()["faiss_index.bin"].count == 20


def refused(url: str, options: dict[str, object], tmp_path: Path) -> tuple[IndexStore, Ingestion]:
    """Ingest where a guard cannot exclude other writers, and says so."""
    store = IndexStore(f"{url}/vector_db", storage_options=options)
    ingestion = Ingestion(store.storage, tmp_path / "work")
    ingestion.build(20)
    with pytest.raises(ConfigurationError, match="single_writer=True"), snapshot(store):
        raise AssertionError("the block ran")
    return store, ingestion


def test_a_server_that_takes_no_notice_of_conditions_is_found_out(rclone_place, tmp_path):
    url, options = rclone_place
    store, ingestion = refused(url, options, tmp_path)
    before = ingestion.contents()

    repository = Repository(f"{url}/backups", storage_options=options)
    with pytest.raises(NotFoundError):
        repository.snapshots()
    repository.backup(store).verify()
    assert len(repository) == 1

    alone = IndexStore(f"{url}/vector_db", storage_options=options, single_writer=True)
    with pytest.raises(CheckFailedError), snapshot(alone, repository):
        ingestion.build(25, leave_out="metadata.json")
    assert ingestion.contents() == before
    with snapshot(alone, repository):
        ingestion.build(25)
    assert not alone.check()


def test_a_server_that_cannot_compare_serves_a_single_writer(radosgw_place, tmp_path):
    url, options = radosgw_place
    _store, ingestion = refused(url, options, tmp_path)
    before = ingestion.contents()

    alone = IndexStore(f"{url}/vector_db", storage_options=options, single_writer=True)
    with pytest.raises(CheckFailedError), snapshot(alone):
        ingestion.build(25, leave_out="metadata.json")
    assert ingestion.contents() == before
    with snapshot(alone):
        ingestion.build(25)
    assert not alone.check()

    repository = Repository(f"{url}/vector_db/backups", storage_options=options)
    assert [point.files["faiss_index.bin"].report.count for point in repository] == [20, 25, 20]
    assert not repository.check(read_data_subset="100%")
    repository.snapshots()[0].restore(to=tmp_path / "elsewhere")
    assert nova.contents(tmp_path / "elsewhere") == before
    repository.forget(repository.snapshots()[:2])
    for _step in ("condemned", "deleted"):
        repository.prune(grace=timedelta())
    assert not repository.check(read_data_subset="100%")
    assert len(repository) == 1


def test_credentials_are_in_no_record_and_in_no_text(moto_place, tmp_path):
    url, options = moto_place
    secret = {**options, "key": "AKIAVERYSECRET", "secret": "hush-hush-hush"}
    store = IndexStore(f"{url}/vector_db", storage_options=secret)
    Ingestion(store.storage, tmp_path / "work").build(3)
    repository = Repository(tmp_path / "repository")
    with snapshot(store, repository):
        pass
    written = b"".join(path.read_bytes() for path in (tmp_path / "repository").rglob("*") if path.is_file())
    written += store.storage.read(".novabackup/journal.json")
    shown = f"{store!r} {repository!r} {repository['latest']!r} {store.storage!r}".encode()
    for text in (b"AKIAVERYSECRET", b"hush-hush-hush"):
        assert text not in written + shown
