"""What is exported, `tar` and `sha256sum` understand without anything else."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import nova
from novabackup import ConfigurationError, IndexStore, IntegrityError, Repository, archives
from novabackup.components import Files
from novabackup.format import records as model
from novabackup.operations.archives import export as exporting
from novabackup.storage import LocalStorage


def run(*command: object, cwd: Path) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, text=True, capture_output=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_tar_and_sha256sum_are_all_that_one_needs(folder, store, repository, tmp_path):
    (folder / "metadata.json").chmod(0o640)
    os.utime(folder / "metadata.json", (1_700_000_000, 1_700_000_000.25))
    point = repository.backup(store)
    done = point.export(tmp_path / "out")
    date = f"{point.time:%Y%m%d_%H%M%S}"
    assert done.url == str(tmp_path / "out" / f"nova-backup-{date}.tar.gz")
    assert sorted(os.listdir(tmp_path / "out")) == [f"nova-backup-{date}.tar.gz", f"nova-backup-{date}.tar.gz.sha256"]
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert run("sha256sum", "-c", *moved.glob("*.sha256"), cwd=moved) == f"nova-backup-{date}.tar.gz: OK\n"
    run("tar", "-xzf", *moved.glob("*.tar.gz"), cwd=moved)
    assert nova.contents(moved / date) == nova.contents(folder)
    status = (moved / date / "metadata.json").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o640, 1_700_000_000)
    assert (moved / date).stat().st_mtime == int(point.time.timestamp())
    listing = run("tar", "-tzf", *moved.glob("*.tar.gz"), cwd=moved).splitlines()
    assert listing == [f"{date}/", *(f"{date}/{path}" for path in sorted(nova.FILES))]
    archive = next(moved.glob("*.tar.gz"))
    assert done.size == archive.stat().st_size
    assert archive.stat().st_size < 1.05 * len(gzip.compress(gzip.decompress(archive.read_bytes()), 1))


def test_the_same_snapshot_gives_the_same_bytes_and_may_be_written_again(store, repository, tmp_path):
    point = repository.backup(store)
    first = point.export(tmp_path / "one")
    again = Repository(repository.url)[point.id].export(tmp_path / "two" / "renamed.tar.gz")
    assert (first.size, first.sha256) == (again.size, again.sha256)
    assert point.export(tmp_path / "one") == first
    assert Path(f"{again.url}.sha256").read_text() == f"{again.sha256}  renamed.tar.gz\n"


def test_what_is_there_under_the_name_is_not_replaced(folder, store, repository, tmp_path):
    first = repository.backup(store)
    target = tmp_path / "latest.tar.gz"
    first.export(target)
    before = target.read_bytes()
    nova.ingest(folder, nova.texts(1, 50))
    with pytest.raises(ConfigurationError, match="expected no file, or an archive of this snapshot"):
        repository.backup(store).export(target)
    assert target.read_bytes() == before
    target.write_bytes(b"something else")
    with pytest.raises(ConfigurationError, match="found another file"):
        first.export(target)
    assert target.read_bytes() == b"something else"


@pytest.mark.parametrize("to", ["memory://exports", "memory://exports/named.tar.gz"])
def test_an_archive_can_be_written_to_any_url(store, repository, to):
    import fsspec

    done = repository.backup(store).export(to)
    assert done.url.startswith("memory://exports/")
    content = fsspec.filesystem("memory").cat_file(done.url)
    assert len(content) == done.size
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert len(tar.getnames()) == 4
    fsspec.filesystem("memory").rm("/exports", recursive=True)


def test_damaged_content_leaves_no_archive_at_all(store, repository, tmp_path):
    point = repository.backup(store)
    for pack in Path(repository.url).glob("packs/*/*"):
        content = bytearray(pack.read_bytes())
        content[100] ^= 1
        pack.write_bytes(content)
    with pytest.raises(IntegrityError):
        Repository(repository.url)[point.id].export(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_names_and_folders_of_any_kind_come_out_as_they_are(repository, tmp_path):
    names = ["docs/ä ß 漢.txt", "docs/" + "long" * 60 + ".txt", "docs/deep/" + "x" * 120 + "/y.txt", "docs/-rf", "e"]
    for name in names:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3 if name != "e" else b"")
    point = repository.backup(IndexStore(tmp_path / "store", components=[Files("docs/**"), Files("e")]))
    point.export(tmp_path / "out.tar.gz")
    run("tar", "-xzf", tmp_path / "out.tar.gz", cwd=tmp_path)
    assert nova.contents(tmp_path / f"{point.time:%Y%m%d_%H%M%S}") == nova.contents(tmp_path / "store")


def test_a_file_of_more_than_8_gib_has_a_header_that_says_so():
    entry = model.FileEntry(path="big.bin", size=9 << 30, blake3="0" * 64, packs=(), runs=())
    record = model.SnapshotRecord(
        repository="", time=datetime(2026, 1, 25, tzinfo=UTC), store="/s", declared=("big.bin",), files=(entry,)
    )
    header = exporting._header("20260125_000000/big.bin", record, entry)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(10240)), mode="r|") as tar:
        assert tar.next().size == 9 << 30


def test_blocks_that_are_compressed_apart_are_one_gzip_file(repository, tmp_path):
    (tmp_path / "store").mkdir()
    floats = np.random.default_rng(1).normal(size=700_000).astype(np.float32).tobytes()
    text = b"".join(b"%d check the brake pads\n" % number for number in range(60_000))
    (tmp_path / "store" / "a.bin").write_bytes(floats + text + bytes(3 << 20))
    point = repository.backup(IndexStore(tmp_path / "store", components=[Files("a.bin")]))
    done = point.export(tmp_path)
    run("gzip", "-t", done.url, cwd=tmp_path)
    run("tar", "-xzf", done.url, cwd=tmp_path)
    assert (tmp_path / f"{point.time:%Y%m%d_%H%M%S}" / "a.bin").read_bytes() == floats + text + bytes(3 << 20)
    assert done.size < 0.94 * len(floats) + 0.25 * len(text)


def test_a_storage_is_a_place_too_and_its_options_are_refused(store, repository, tmp_path):
    point = repository.backup(store)
    done = point.export(LocalStorage(tmp_path / "out"))
    assert isinstance(done, archives.Exported)
    assert Path(done.url).exists()
    with pytest.raises(ConfigurationError, match="storage_options"):
        point.export(tmp_path / "out", storage_options={"key": "x"})
