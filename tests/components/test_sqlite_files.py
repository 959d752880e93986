"""SQLite databases are copied while they are written to: every copy is one state between two transactions."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from novabackup import ConfigurationError, IndexStore, Repository
from novabackup.components import Sqlite
from novabackup.storage import open_storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nova").mkdir()
    return tmp_path / "nova"


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "backups")


def store(folder: Path, **options: object) -> IndexStore:
    return IndexStore(folder, components=[Sqlite("log.db", **options)])


def create(path: Path, mode: str = "delete", rows: int = 100) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA user_version=7")
        database.execute("CREATE TABLE queries (n INTEGER, text TEXT)")
        database.executemany("INSERT INTO queries VALUES (?, ?)", ((n, "brake" * 50) for n in range(rows)))
        database.commit()


def numbers(path: Path) -> list[int]:
    """Open a database as its service would; give what is in it, after a thorough check."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in database.execute("SELECT n FROM queries ORDER BY rowid")]


def restored(point, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    point.restore(to=folder)
    return folder / "log.db"


class Service:
    """Commits two rows at a time, as fast as it can, until it is told to stop."""

    def __init__(self, path: Path) -> None:
        self.committed = 0
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as database:
            while not self._stop.is_set():
                for number in (self.committed, self.committed + 1):
                    database.execute("INSERT INTO queries VALUES (?, ?)", (number, "brake pads" * 20))
                database.commit()
                self.committed += 2


@pytest.mark.parametrize(("mode", "times"), [("wal", 5), ("delete", 2), ("persist", 1)])
def test_a_database_is_copied_while_a_service_commits_all_the_time(folder, repo, tmp_path, mode, times):
    create(folder / "log.db", mode, rows=0)
    with Service(folder / "log.db") as service:
        while not service.committed:
            pass
        for _ in range(times):
            before = service.committed
            point = repo.backup(store(folder))
            after = service.committed + 2
            assert not point.problems
            found = numbers(restored(point, tmp_path / "elsewhere"))
            assert found == list(range(len(found)))
            assert len(found) % 2 == 0
            assert before <= len(found) <= after
    assert len(numbers(folder / "log.db")) == service.committed
    assert not list(Path(folder).glob("*.novabackup*"))


def test_what_only_the_log_holds_is_kept_and_nothing_is_left_in_the_store(folder, repo, tmp_path):
    create(folder / "log.db", "wal")
    seen = sorted(os.listdir(folder))
    assert len(numbers(restored(repo.backup(store(folder)), tmp_path / "elsewhere"))) == 100
    assert sorted(os.listdir(folder)) == seen == ["log.db"]
    with contextlib.closing(sqlite3.connect(folder / "log.db")) as database:
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("INSERT INTO queries VALUES (100, 'only in the log')")
        database.commit()
        point = repo.backup(store(folder))
        assert set(point.files) == {"log.db"}
        assert numbers(restored(point, tmp_path / "elsewhere")) == list(range(101))


def test_a_restore_sets_the_old_log_aside(folder, repo):
    create(folder / "log.db", "wal")
    point = repo.backup(store(folder))
    database = sqlite3.connect(folder / "log.db")
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("DELETE FROM queries")
    database.commit()
    # A service that was killed: its log stays.
    shutil.copytree(folder, folder.parent / "killed")
    database.close()
    shutil.rmtree(folder)
    (folder.parent / "killed").rename(folder)
    assert (folder / "log.db-wal").stat().st_size
    point.restore(store(folder))
    assert numbers(folder / "log.db") == list(range(100))
    (replaced,) = repo.snapshots(tags=["before-restore"])
    assert numbers(restored(replaced, folder.parent / "elsewhere")) == []


def test_what_a_dead_writer_left_is_rolled_back_in_the_copy_only(folder, repo, tmp_path):
    create(folder / "log.db", rows=2000)
    writer = """
        import os, signal, sqlite3, sys
        database = sqlite3.connect(sys.argv[1])
        database.execute("PRAGMA cache_size=1")
        database.execute("UPDATE queries SET n = -1, text = text || text")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    dead = subprocess.run([sys.executable, "-c", textwrap.dedent(writer), folder / "log.db"], check=False)
    assert dead.returncode == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before["log.db-journal"]
    point = repo.backup(store(folder))
    assert numbers(restored(point, tmp_path / "elsewhere")) == list(range(2000))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_database_that_stays_locked_is_an_error_that_says_so(folder, repo):
    create(folder / "log.db")
    with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match=r"locked .* after 0.3 s"):
            repo.backup(store(folder, timeout=0.3))
        (problem,) = store(folder, timeout=0.3).check()
        assert problem.code == "unreadable"
    assert not store(folder, timeout=30).check()


def test_the_locks_of_the_program_that_takes_the_backup_are_not_lost(folder, repo):
    create(folder / "log.db")
    with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        repo.backup(store(folder))
        assert not store(folder).check()
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run([sys.executable, "-c", code, folder / "log.db"], capture_output=True, check=False)
        assert b"locked" in other.stderr


def test_the_report_says_what_the_header_says(folder, repo):
    create(folder / "log.db")
    report = store(folder).inspect()["log.db"]
    assert report.kind.startswith("SQLite, ")
    assert report.kind.endswith("pages of 4096 bytes, user_version 7")
    assert report.written_with == f"SQLite {sqlite3.sqlite_version}"
    assert report.count is None
    (folder / "log.db").write_bytes(b"")
    assert store(folder).inspect()["log.db"].kind == "SQLite, empty"
    assert repo.backup(store(folder)).files["log.db"].size == 0


def damaged() -> Iterator[object]:
    yield pytest.param(lambda data: b"garbage" * 100, "file is not a database", id="garbage")
    yield pytest.param(lambda data: data[:60], "", id="cut in the header")
    yield pytest.param(lambda data: data[:16] + b"\0\3" + data[18:], "", id="page size")
    yield pytest.param(lambda data: data[:4096] + b"\xff" * 4096 + data[8192:], "", id="page")
    yield pytest.param(lambda data: data[: len(data) // 2 - 100], "", id="cut")
    yield pytest.param(lambda data: data[:100] + b"\x05" * 3000 + data[3100:], "", id="schema")


@pytest.mark.parametrize(("damage", "message"), list(damaged()))
def test_damage_is_told_and_kept_as_it_is(folder, repo, damage, message):
    create(folder / "log.db", rows=300)
    (folder / "log.db").write_bytes(damage((folder / "log.db").read_bytes()))
    point = repo.backup(store(folder))
    assert {problem.code for problem in point.problems} == {"damaged"}
    assert message in str(point.problems)
    assert {problem.code for problem in store(folder).check()} == {"damaged"}
    assert point.files["log.db"].size


def test_databases_that_need_extensions_are_no_damage(folder):
    with contextlib.closing(sqlite3.connect(folder / "log.db")) as database:
        database.create_function("own", 1, lambda value: 1, deterministic=True)
        database.create_collation("own", lambda one, other: 0)
        database.execute("CREATE TABLE queries (n INTEGER CHECK (own(n)), text TEXT COLLATE own UNIQUE)")
        database.execute("INSERT INTO queries VALUES (1, 'x')")
        database.commit()
    assert not store(folder).check()


def test_a_database_elsewhere_is_read_as_it_stands(folder, repo):
    create(folder / "log.db")
    place = open_storage(f"memory://{uuid.uuid4().hex}")
    place.write("log.db", [(folder / "log.db").read_bytes()])
    there = IndexStore(place, components=[Sqlite("log.db")])
    assert not there.check()
    point = repo.backup(there)
    assert point.open("log.db").read() == (folder / "log.db").read_bytes()
    place.write("log.db-wal", [b"what waits"])
    (problem,) = repo.backup(there).problems
    assert (problem.code, problem.paths) == ("unfinished", ("log.db", "log.db-wal"))
    data = (folder / "log.db").read_bytes()
    place.write("log.db", [data[:4096] + b"\xff" * 4096 + data[8192:]])
    place.delete("log.db-wal")
    assert [problem.code for problem in there.check()] == ["damaged"]


def test_unchanged_databases_cost_nothing(folder, repo):
    create(folder / "log.db", rows=5000)
    assert repo.backup(store(folder)).added
    assert repo.backup(store(folder)).added == 0


def test_a_pattern_is_refused():
    with pytest.raises(ConfigurationError, match="pattern"):
        Sqlite("*.db")
