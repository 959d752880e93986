"""Whole folders come back in every detail: links as links, empty folders, bits, owners, times, odd names."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from nobody import as_nobody, let_pass
from novabackup import ConfigurationError, IndexStore, Repository, recover, snapshot
from novabackup.components import Files, Tree
from novabackup.storage import open_storage
from portraits import NOT_UTF8, furnish, portrait


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nova"
    folder.mkdir()
    furnish(folder)
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder, components=[Tree("config")])


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "backups")


def wreck(folder: Path) -> None:
    """Change a furnished folder in every way that a restore has to undo."""
    config = folder / "config"
    (config / "nova.toml").write_text("port = 1\n")
    (config / "tool").unlink()
    (config / "tool").mkdir()
    (config / "tool/inside").write_text("new")
    (config / "current").unlink()
    (config / "current").symlink_to("tool")
    (config / "folder").unlink()
    (config / "folder").mkdir()
    (config / "broken").unlink()
    (config / "broken").write_text("no link any more")
    (config / "empty/deep").rmdir()
    (config / "empty").rmdir()
    (config / "empty").symlink_to("/etc")
    (config / "tmp").rmdir()
    (config / "tmp").write_text("no folder any more")
    (config / "shared").chmod(0o700)
    (config / "new/deep").mkdir(parents=True)
    (config / "new/deep/file").write_text("new")
    (config / "new link").symlink_to("new")
    (config / NOT_UTF8 / f"{NOT_UTF8}.txt").unlink()
    os.utime(config, ns=(0, 0))


def test_everything_comes_back_elsewhere(folder, store, repo, tmp_path):
    point = repo.backup(store)
    point.verify()
    point.restore(to=tmp_path / "elsewhere")
    assert portrait(tmp_path / "elsewhere") == portrait(folder)
    assert point.links["config/passwd"] == "/etc/passwd"
    assert "config/empty/deep" in point.folders
    assert repo.backup(store).added == 0


def test_everything_comes_back_in_place(folder, store, repo):
    point = repo.backup(store)
    before = portrait(folder)
    wreck(folder)
    wrecked = portrait(folder)
    done = point.restore()
    assert portrait(folder) == before
    assert not (folder / ".novabackup/aside").exists()  # the repository holds it all
    assert set(done.paths("set aside", "link")) == {"config/new link"}
    assert set(done.paths("set aside", "folder")) == {"config/new", "config/new/deep"}
    (replaced,) = repo.snapshots(tags=["before-restore"])
    replaced.restore()
    assert portrait(folder) == wrecked


def test_a_block_that_fails_is_taken_back(folder, store, repo):
    before = portrait(folder)
    with pytest.raises(RuntimeError), snapshot(store, repo):
        wreck(folder)
        raise RuntimeError
    assert portrait(folder) == before
    assert recover(store, repo) is None


def test_a_restore_of_what_is_there_changes_nothing(store, repo):
    point = repo.backup(store)
    assert not point.plan_restore().changes
    assert set(point.plan_restore().paths("keep", "folder")) == set(point.folders)


def test_another_program_restores_it_from_the_record_alone(folder, store, repo):
    point = repo.backup(store)
    before = portrait(folder)
    (folder / "config/x.log").write_text("a log")
    wreck(folder)
    Repository(repo.url)[point.id].restore()
    after = portrait(folder)
    assert after.pop("config/x.log")[-1] == b"a log"
    del after["config"], before["config"]  # whose time the log has moved
    assert after == before


def test_what_is_left_out_is_neither_kept_nor_taken_away(folder, store, repo):
    for path in (".venv/lib/x.py", "a/__pycache__/x.pyc", "nova.log"):
        (folder / "config" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "config" / path).write_text("x")
    point = repo.backup(store)
    assert not [path for path in (*point.files, *point.folders) if "venv" in path or "cache" in path or "log" in path]
    before = portrait(folder)
    (folder / "config/nova.log").write_text("more")
    (folder / "config/later.log").write_text("new")
    (folder / "config/.venv/y").write_text("y")
    assert point.plan_restore().paths("set aside") == ()
    point.restore()
    after = portrait(folder)
    assert after["config/nova.log"][-1] == b"more"
    assert {"config/later.log", "config/.venv/y"} == after.keys() - before.keys()


def test_patterns_of_ones_own_say_what_belongs_to_a_store(folder, repo):
    store = IndexStore(folder, components=[Tree("config/*.t*"), Files("config/tool")], exclude=["**/tool", "**/t*"])
    point = repo.backup(store)
    assert set(point.files) == {"config/nova.toml", "config/tool"}
    assert point.folders == ()
    with pytest.raises(ConfigurationError, match="list of patterns"):
        IndexStore(folder, exclude="*.log")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        IndexStore(folder, exclude=["../*"])


def test_a_part_is_restored_with_the_folders_that_it_is_in(folder, store, repo, tmp_path):
    point = repo.backup(store)
    point.restore(to=tmp_path / "part", paths=["config/C:/*", "config/current"])
    found = portrait(tmp_path / "part")
    assert set(found) == {"config", "config/C:", "config/C:/C:.txt", "config/current"}
    assert found == {path: seen for path, seen in portrait(folder).items() if path in found}


def test_what_has_no_content_is_skipped_and_named(folder, store, repo, caplog):
    os.mkfifo(folder / "config/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "config/socket"))
        point = repo.backup(store)
    skipped = {problem.paths[0]: problem.message for problem in point.skipped}
    assert "a named pipe" in skipped["config/pipe"]
    assert "a socket" in skipped["config/socket"]
    assert "/etc/passwd is backed up" in skipped["config/passwd"]
    assert set(skipped) == {"config/pipe", "config/socket", "config/passwd", "config/up"}
    assert "config/pipe" in caplog.text
    assert not point.problems
    point.restore()
    assert (folder / "config/pipe").is_fifo()


def test_a_tree_that_is_a_link_is_kept_as_one(folder, store, repo, tmp_path):
    (folder / "config").rename(tmp_path / "outside")
    (folder / "config").symlink_to(tmp_path / "outside")
    point = repo.backup(store)
    assert point.links == {"config": str(tmp_path / "outside")}
    assert not point.files
    assert "outside of the store" in point.skipped[0].message


def test_a_link_that_a_declared_file_is_reached_through_is_followed(folder, repo, tmp_path):
    (folder / "data").mkdir()
    (folder / "data/index.bin").write_bytes(b"index")
    (folder / "now").symlink_to("data")
    store = IndexStore(folder, components=[Files("now/index.bin"), Tree("now"), Tree("data")])
    point = repo.backup(store)
    assert (set(point.files), dict(point.links)) == ({"now/index.bin", "data/index.bin"}, {})
    (folder / "data/index.bin").write_bytes(b"other")
    point.restore()
    assert (folder / "now").is_symlink()
    assert (folder / "now/index.bin").read_bytes() == b"index"


def test_nothing_is_ever_written_through_a_link(folder, store, repo, tmp_path):
    point = repo.backup(store)
    before = portrait(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("C:", " spaces "):
        (folder / "config" / name).rename(tmp_path / name)
        (folder / "config" / name).symlink_to(outside)
    (folder / "config/nova.toml").unlink()
    (folder / "config/nova.toml").symlink_to(outside / "new")
    point.restore()
    assert portrait(folder) == before
    assert list(outside.iterdir()) == []


def kept_there(url: str) -> list[str]:
    return [entry.key for entry in open_storage(url).entries() if not entry.key.startswith(".novabackup/")]


def test_object_stores_get_the_files_and_say_what_they_cannot_hold(folder, store, repo, caplog):
    point = repo.backup(store)
    to = f"memory://{uuid.uuid4().hex}"
    with pytest.raises(ConfigurationError, match=r"cannot hold .* names .*new\\nline"):
        point.restore(to=to)
    assert kept_there(to) == []
    plain = ["config/nova.toml", "config/current", "config/empty/**"]
    done = point.restore(to=to, paths=plain)
    assert kept_there(to) == ["config/nova.toml"]
    assert done.paths("leave out", "link") == ("config/current",)
    assert "are left out" in caplog.text


def test_a_file_that_goes_away_or_changes_while_others_are_read_costs_nothing(folder, repo, monkeypatch):
    (folder / "data").mkdir()
    for number in range(4):
        (folder / f"data/{number}").write_bytes(bytes([number]) * 1000 * (9 - number))
    opened = Tree.open

    def open_(self, storage, entry):
        if entry.key == "data/0":
            (folder / "data/3").unlink()
            (folder / "data/2").write_bytes(b"longer than it was" * 1000)
            (folder / "data/4").write_bytes(b"new")
        return opened(self, storage, entry)

    monkeypatch.setattr(Tree, "open", open_)
    point = repo.backup(IndexStore(folder, components=[Tree("data")]))
    assert set(point.files) == {"data/0", "data/1", "data/2"}
    assert point.open("data/2").read() == b"longer than it was" * 1000


def test_holes_stay_holes_and_take_no_space(folder, repo, tmp_path):
    with (folder / "config/sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(20_000_001)
        file.write(b"in the middle")
    with (folder / "config/dense").open("wb") as file:
        file.write(bytes(1 << 20) + b"end")
    store = IndexStore(folder, components=[Tree("config")])
    point = repo.backup(store)
    point.restore(to=tmp_path / "elsewhere")
    for name, most in (("sparse", 1 << 20), ("dense", 64 << 10)):
        restored = tmp_path / "elsewhere/config" / name
        assert restored.read_bytes() == (folder / "config" / name).read_bytes()
        assert restored.stat().st_blocks * 512 <= most
    with (folder / "config/sparse").open("r+b") as file:
        file.write(b"changed")
    point.restore()  # copies what has not changed from the file that is there
    assert (folder / "config/sparse").stat().st_blocks * 512 <= 1 << 20
    assert (folder / "config/sparse").read_bytes() == (tmp_path / "elsewhere/config/sparse").read_bytes()


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A folder that everybody may write to, in folders that everybody may pass."""
    let_pass(tmp_path)
    tmp_path.chmod(0o777)
    return tmp_path


def test_files_that_may_not_be_read_are_all_named(folder, reachable):
    (folder / "data").mkdir()
    for name in ("one", "three", "two"):
        (folder / "data" / name).write_text(name)
        (folder / "data" / name).chmod(0o644 if name == "three" else 0)
    store = IndexStore(folder, components=[Tree("data")])
    Repository(reachable / "first").backup(store)  # imports what a child without rights cannot

    def work() -> None:
        with pytest.raises(PermissionError, match=r"found 2 that cannot: data/one, data/two\. Run the backup as"):
            Repository(reachable / "second").backup(store)

    if os.geteuid() == 0:
        assert as_nobody(work) == 0
    else:
        work()


def test_folders_that_may_not_be_written_to_are_filled_and_closed_again(folder, reachable, repo):
    (folder / "closed").mkdir()
    (folder / "closed/file").write_text("x")
    (folder / "closed").chmod(0o555)
    folder.chmod(0o777)
    store = IndexStore(folder, components=[Tree("closed")])
    point = repo.backup(store)
    os.system(f"chmod -R a+rwX {reachable / 'backups'}")

    def work() -> None:
        to = reachable / "to"
        again = Repository(repo.url)[point.id]
        again.restore(to=to)
        assert (to / "closed").stat().st_mode & 0o777 == 0o555
        (to / "closed").chmod(0o700)
        (to / "closed/file").write_text("other")
        (to / "closed/new").mkdir()
        (to / "closed/new/file").write_text("new")
        (to / "closed/new").chmod(0o555)
        (to / "closed").chmod(0o555)
        again.restore(to=to)
        assert {path.name for path in (to / "closed").iterdir()} == {"file"}
        assert (to / "closed").stat().st_mode & 0o777 == 0o555

    assert as_nobody(work) == 0
