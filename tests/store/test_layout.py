"""A whole Nova folder is backed up and comes back, while its service writes to it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

import nova
from novabackup import (
    ConfigurationError,
    IndexStore,
    Repository,
    RollbackError,
    StoreBusyError,
    layouts,
    recover,
    snapshot,
)
from novabackup.components import Component, Sqlite
from portraits import NOT_UTF8, portrait


def database(path: Path, rows: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS queries (n INTEGER)")
        connection.executemany("INSERT INTO queries VALUES (?)", ((n,) for n in range(rows)))
        connection.commit()


def rows(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM queries").fetchone()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nova-nic"
    nova.build(folder / "vector_db", nova.texts(10))
    database(folder / "vector_db/analytics.db", 5)
    database(folder / "query_log.db", 7)
    (folder / ".env").write_text("PORT=5000\n")
    for path in ("config/nova.toml", "data/manuals/brakes.pdf", "cache/sessions/1.json", "logs/nova.log.1", "nova.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    for path in ("logs/nova.log", ".venv/lib/x.py", "data/__pycache__/x.pyc", "vector_db/backups/old", "cache/other"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("left out")
    (folder / "data" / NOT_UTF8).mkdir()
    (folder / "config/current").symlink_to("nova.toml")
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder, components=layouts.NOVA_INSTALLATION)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "backups")


KEPT = {
    ".env",
    "cache/sessions/1.json",
    "config/nova.toml",
    "data/manuals/brakes.pdf",
    "logs/nova.log.1",
    "query_log.db",
    "vector_db/analytics.db",
    *(f"vector_db/{name}" for name in nova.FILES),
}


def test_a_lost_installation_comes_back(folder, store, repo):
    point = repo.backup(store)
    assert set(point.files) == KEPT
    assert not point.problems
    assert not store.check()
    before = {path: seen for path, seen in portrait(folder).items() if path in {*KEPT, *point.folders, *point.links}}
    assert {"cache", "cache/sessions"} <= set(point.folders)
    shutil.rmtree(folder)
    Repository(repo.url)["latest"].restore()
    after = portrait(folder)
    for databases in ("query_log.db", "vector_db/analytics.db"):
        # Their content is a copy, which is the same to SQLite and differs in a counter.
        assert after.pop(databases)[:5] == before.pop(databases)[:5]
    assert after == before
    assert (rows(folder / "query_log.db"), rows(folder / "vector_db/analytics.db")) == (7, 5)


def test_a_program_that_has_only_the_repository_knows_the_components(folder, store, repo):
    repo.backup(IndexStore(folder, components=layouts.nova_installation(include=["docs"])))
    again = Repository(repo.url)["latest"]
    target = again._target(None)
    assert {type(component) for component in target.components} == {type(one) for one in layouts.NOVA_INSTALLATION}
    assert set(target.declared) == {*store.declared, "docs/**"}
    assert target.exclude == layouts.LEFT_OUT
    (folder / "query_log.db").unlink()
    (folder / "query_log.db-wal").write_bytes(b"of another database")
    (folder / "docs").mkdir()
    (folder / "docs/new").write_text("new")
    again.restore()
    assert rows(folder / "query_log.db") == 7
    assert not (folder / "docs").exists()


def test_the_parts_are_those_of_the_handbook():
    said = {part.name: (part.priority.value, part.frequency.value, part.before_ingest) for part in layouts.NOVA_PARTS}
    assert said == {
        "indexes": ("critical", "daily", True),
        "configuration": ("high", "on change", False),
        "query log": ("medium", "daily", False),
        "sessions": ("low", "optional", False),
        "documents": ("medium", "weekly", False),
        "logs": ("medium", "daily", False),
    }
    paths = [path for part in layouts.NOVA_PARTS for path in part.paths]
    assert len(set(paths)) == len(paths)
    assert {"vector_db/faiss_index.bin", ".env", "config/**", "cache/sessions/**", "data/**", "logs/**"} <= set(paths)


def test_parts_are_backed_up_at_times_of_their_own_and_share_what_is_the_same(folder, repo):
    weekly = IndexStore(folder, components=layouts.nova_installation(frequencies=["weekly"]))
    daily = IndexStore(folder, components=layouts.nova_installation(frequencies=["daily"]))
    assert set(repo.backup(weekly).files) == {"data/manuals/brakes.pdf"}
    assert set(repo.backup(daily).files) == {path for path in KEPT if path.startswith(("vector_db", "query", "logs"))}
    assert repo.backup(weekly).added == 0
    (folder / "config/nova.toml").write_text("changed")
    repo["latest"].restore()
    assert (folder / "config/nova.toml").read_text() == "changed"
    assert set(layouts.nova_installation(["indexes"])) == set(layouts.NOVA_PARTS[0].components)
    for wrong in ({"parts": ["index"]}, {"frequencies": ["hourly"]}, {"parts": ["logs"], "frequencies": ["weekly"]}):
        with pytest.raises(ConfigurationError):
            layouts.nova_installation(**wrong)


def test_a_backup_waits_for_an_ingest_into_a_part_of_it(folder, store, repo, tmp_path):
    part = IndexStore(folder / "vector_db")
    point = repo.backup(store)
    guard = snapshot(part, tmp_path / "other")
    with guard:
        with pytest.raises(StoreBusyError, match="vector_db"):
            point.restore()
        nova.ingest(folder / "vector_db", ["new"])
    journal = folder / "vector_db/.novabackup/journal.json"
    with snapshot(part, tmp_path / "other"):
        left = journal.read_bytes()
    dead = re.sub(rb'"pid":\d+,"started":\d+', b'"pid":0,"started":0', left)
    from blake3 import blake3  # a journal of a process that gave up, sealed anew

    body = dead[dead.index(b'"journal":') + len(b'"journal":') : -2]
    journal.write_bytes(b'{"blake3":"%s","journal":%s}\n' % (blake3(body).hexdigest().encode(), body))
    for use in (lambda: repo.backup(store), point.restore):
        with pytest.raises(RollbackError, match=r"vector_db.*recover"):
            use()
    assert recover(part, tmp_path / "other") is not None
    repo.backup(store)


def test_every_component_of_an_installation_may_be_missing_but_the_indexes(tmp_path, repo):
    nova.build(tmp_path / "nova-nic/vector_db", nova.texts(3))
    store = IndexStore(tmp_path / "nova-nic", components=layouts.NOVA_INSTALLATION)
    assert not store.check()
    (tmp_path / "nova-nic/vector_db/metadata.json").unlink()
    assert [problem.paths for problem in store.check()] == [("vector_db/metadata.json",)]


def test_databases_that_are_no_part_of_the_layout_are_named_as_such(folder, repo):
    database(folder / "config/rules.db", 3)
    components: list[Component] = [Sqlite("config/rules.db"), *layouts.nova_installation(["configuration"])]
    point = repo.backup(IndexStore(folder, components=components))
    assert point.files["config/rules.db"].report.component == "Sqlite"
