"""The shell scripts that novabackup replaces: what they wrote can be imported, and they can read what it exports."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

import nova
from novabackup import IndexStore, Repository
from novabackup.archives import PreIngest

SCRIPTS = Path(__file__).parent / "scripts"
"""As they stand in Nova's manual; only the folders are others here, and no service is stopped."""


@pytest.fixture
def script(tmp_path, folder):
    """Give a function that runs one of the scripts."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sudo").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bin" / "sudo").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TZ": "Asia/Kolkata"}

    def run(name: str, *arguments: object, cwd: Path = folder.parent) -> str:
        text = (SCRIPTS / name).read_text()
        moved = text.replace("/var/backups", str(tmp_path / "var")).replace("/opt/nova-nic", str(folder.parent))
        assert moved != text or name in ("pre_ingest_backup.sh", "verify_backup.sh")
        command = ["bash", "-c", moved, name, *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env=environment, text=True, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def in_kolkata(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def assert_taken_in(point, folder: Path, elsewhere: Path, began: datetime) -> None:
    assert began.replace(microsecond=0) <= point.time <= datetime.now(UTC)
    assert point.problems == ()
    point.restore(to=elsewhere)
    assert nova.contents(elsewhere) == {name: (folder / name).read_bytes() for name in nova.FILES}


def test_the_archive_of_the_daily_script(script, folder, store, repository, tmp_path, in_kolkata):
    (folder.parent / ".env").write_text("PORT=5000\n")
    (folder.parent / "config").mkdir()
    (folder.parent / "config" / "app.yaml").write_text("port: 5000\n")
    began = datetime.now(UTC)
    script("nova-backup")
    (archive,) = (tmp_path / "var" / "nova-nic").glob("*.tar.gz")
    plan = repository.plan_import_archive(archive, store)
    assert plan.vouched
    assert [name.partition("/")[2] for name in plan.left_out] == [".env", "config/app.yaml"]
    assert_taken_in(repository.import_archive(archive, store), folder, tmp_path / "there", began)


def test_the_archive_of_the_full_script(script, folder, store, repository, tmp_path, in_kolkata):
    began = datetime.now(UTC)
    nova.build(folder, nova.texts(12))
    script("full_backup.sh")
    (archive,) = (tmp_path / "var" / "nova-nic-full").glob("*.tar.gz")
    plan = repository.plan_import_archive(archive, store)
    assert (plan.root, plan.vouched) == ("nova-nic/vector_db/", True)
    # Its name tells just the day, so the newest file tells the time.
    assert_taken_in(repository.import_archive(archive, store), folder, tmp_path / "there", began)


def test_the_copies_of_the_script_before_an_ingestion(script, folder, store, repository, tmp_path, in_kolkata):
    began = datetime.now(UTC)
    script("pre_ingest_backup.sh")
    (point,) = repository.import_pre_ingest(folder / "backups", store)
    assert_taken_in(point, folder, tmp_path / "there", began)
    (plan,) = repository.plan_import_pre_ingest(PreIngest(folder / "backups", tz=UTC), store)
    assert round((plan.time - point.time).total_seconds()) == 19_800


def test_what_is_exported_passes_the_verification_of_the_manual(script, folder, tmp_path):
    point = Repository(tmp_path / "repository").backup(IndexStore(folder))
    done = point.export(tmp_path / "var")
    said = script("verify_backup.sh", Path(done.url).name, cwd=tmp_path / "var")
    for line in ("✓ Checksum valid", "✓ Archive valid", "/faiss_index.bin", "✓ Backup verification passed"):
        assert line in said
