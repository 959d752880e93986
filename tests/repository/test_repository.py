"""Taking, finding, reading and restoring snapshots."""

from __future__ import annotations

import contextlib
import io
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.callbacks import Callback

import nova
import trees
from novabackup import (
    ChangedError,
    ConfigurationError,
    FormatError,
    IndexStore,
    NotFoundError,
    Repository,
    StoreBusyError,
    recover,
    snapshot,
)
from novabackup.components import Files
from novabackup.objects import packs as objects
from novabackup.storage import LocalStorage, Reader, open_storage
from novabackup.testing import FaultyStorage
from novabackup.transaction.journal import JOURNAL_KEY


def grown(folder: Path, size: int) -> int:
    """Bytes of all files below a folder that were added since it had ``size``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) - size


def test_a_repository_comes_into_being_with_its_first_backup(repository, store):
    for read in (repository.snapshots, lambda: repository["latest"], lambda: len(repository), repository.check):
        with pytest.raises(NotFoundError, match="there is no repository"):
            read()
    with pytest.raises(NotFoundError):
        "20260125" in repository  # noqa: B015
    assert not Path(repository.url).exists()
    point = repository.backup(store, tags=["daily"], message="manuals of May")
    assert len(repository) == 1
    assert (point.tags, point.message, point.store) == (("daily",), "manuals of May", store.url)
    assert (Path(repository.url) / "README.txt").read_text().startswith("This folder is a novabackup repository")


def test_snapshots_are_found_by_id_by_its_beginning_and_as_the_latest(repository, store, folder):
    first = repository.backup(store)
    (folder / "b.txt").write_text("new")
    second = repository.backup(store, tags="nightly")
    assert repository["latest"] == second
    assert repository[first.id] == first
    assert repository[first.id[:-1]] == first
    assert repository[first.id.partition("-")[2][:8]] == first
    assert [point.id for point in repository] == [first.id, second.id]
    assert [point.id for point in repository.snapshots(tags=["nightly"])] == [second.id]
    assert first.id in repository
    assert second in repository
    assert "19990101" not in repository


def test_an_unknown_id_and_an_ambiguous_beginning_say_what_there_is(repository, store):
    first = repository.backup(store)
    with pytest.raises(NotFoundError, match=first.id):
        repository["19990101"]
    repository.backup(store, message="another")
    with pytest.raises(NotFoundError, match="beginning of 2 snapshots"):
        repository["20"]


def test_restoring_elsewhere_gives_the_same_bytes_modes_and_times(repository, store, folder, tmp_path):
    os.utime(folder / "b.txt", ns=(10**18 + 1, 10**18 + 1))
    (folder / "b.txt").chmod(0o600)
    repository.backup(store).restore(to=tmp_path / "elsewhere")
    assert nova.contents(tmp_path / "elsewhere") == nova.contents(folder)
    status = (tmp_path / "elsewhere" / "b.txt").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18 + 1, 0o600)


def test_single_files_can_be_restored(repository, store, tmp_path):
    point = repository.backup(store)
    done = point.restore(to=tmp_path / "elsewhere", paths=["b.txt"])
    assert done.paths("write") == ("b.txt",)
    assert list(nova.contents(tmp_path / "elsewhere")) == ["b.txt"]
    with pytest.raises(NotFoundError, match=r"a\.bin, b\.txt, c\.txt"):
        point.restore(to=tmp_path / "elsewhere", paths=["x.txt"])
    with pytest.raises(ConfigurationError, match="list of paths"):
        point.restore(to=tmp_path / "elsewhere", paths="b.txt")


def test_a_restore_goes_to_the_store_and_keeps_what_it_replaces(repository, store, folder):
    before = nova.contents(folder)
    point = repository.backup(store)
    (folder / "a.bin").write_bytes(b"new")
    (folder / "b.txt").unlink()
    plan = point.plan_restore()
    assert plan.paths("write") == ("a.bin", "b.txt")
    assert plan.paths("keep") == ("c.txt",)
    assert (folder / "a.bin").read_bytes() == b"new"
    assert point.restore() == plan
    assert nova.contents(folder) == before
    (replaced,) = repository.snapshots(tags=["before-restore"])
    assert replaced.open("a.bin").read() == b"new"


def test_a_new_program_restores_to_the_store_that_the_snapshot_names(repository, store, folder):
    before = nova.contents(folder)
    repository.backup(store)
    (folder / "a.bin").unlink()
    Repository(repository.url)["latest"].restore()
    assert nova.contents(folder) == before


def test_files_can_be_read_without_restoring(repository, store, folder):
    point = repository.backup(store)
    content = (folder / "a.bin").read_bytes()
    with point.open("a.bin") as file:
        assert file.read() == content
        for place in (0, 1, 65_536, 299_999, 150_000):
            file.seek(place)
            assert file.read(1000) == content[place : place + 1000]
        file.seek(-10, io.SEEK_END)
        assert file.read() == content[-10:]
    assert point.open("c.txt").read() == b""
    with pytest.raises(NotFoundError, match=r"c\.txt"):
        point.open("x")


def test_two_snapshots_can_be_compared(repository, store, folder):
    before = repository.backup(store)
    (folder / "a.bin").unlink()
    (folder / "b.txt").write_text("new")
    after = repository.backup(store)
    found = before.diff(after)
    assert (found.removed, found.changed, found.unchanged, found.added) == (("a.bin",), ("b.txt",), ("c.txt",), ())
    assert found
    assert not before.diff(before)


class Reads(LocalStorage):
    """Notes which files are opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, key: str) -> Reader:
        if key != JOURNAL_KEY:
            self.opened.append(key)
        return super().open(key)


def test_an_unchanged_store_is_not_read_again_and_costs_one_small_object(repository, folder):
    storage = Reads(folder)
    store = IndexStore(storage, components=[Files("a.bin"), Files("b.txt"), Files("c.txt")])
    repository.backup(store)
    assert storage.opened == ["a.bin", "b.txt", "c.txt"]
    size = grown(Path(repository.url), 0)
    storage.opened.clear()
    again = repository.backup(store)
    assert storage.opened == []
    assert again.added == 0
    assert grown(Path(repository.url), size) < 3000
    again.verify()


def test_a_change_that_keeps_size_and_mtime_is_seen(repository, store, folder):
    path = folder / "b.txt"
    repository.backup(store)
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"brake", b"fake!"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert repository.backup(store).open("b.txt").read().startswith(b"check the fake! pads")


class Rendezvous(FaultyStorage):
    """A storage in which each read of a pack waits for another one for a moment."""

    def read_part(self, key, start, length):
        if key.startswith("packs/"):
            with contextlib.suppress(threading.BrokenBarrierError):
                self.meeting.wait(0.2)
        return super().read_part(key, start, length)


def test_threads_that_need_one_table_read_it_once(repository, store):
    pack = next(pack for entry in repository.backup(store).files.values() for pack in entry.packs)
    storage = Rendezvous(open_storage(repository.url))
    storage.meeting = threading.Barrier(2)
    objects = Repository(storage)._objects
    objects.access.require()
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(objects.packs.table, [pack, pack])
    assert one is other
    assert [line for line in storage.log if "packs/" in line] == [f"read part packs/{pack[:2]}/{pack}"]


def test_an_edit_is_stored_and_the_rest_is_shared(repository, store, folder):
    first = repository.backup(store)
    assert first.added > 300_000
    content = (folder / "a.bin").read_bytes()
    (folder / "a.bin").write_bytes(content[:150_000] + b"an insertion" + content[150_000:])
    second = repository.backup(store)
    assert 0 < second.added < 100_000
    assert second.open("a.bin").read() == (folder / "a.bin").read_bytes()
    first.verify()


def test_content_is_shared_with_a_state_before_the_last(repository, store, folder):
    content = (folder / "a.bin").read_bytes()
    repository.backup(store)
    (folder / "a.bin").write_bytes(random.Random(2).randbytes(200_000))
    repository.backup(store)
    (folder / "a.bin").write_bytes(content)
    assert repository.backup(store).added == 0


class Restless(LocalStorage):
    """Changes a file each time that it has been opened, as often as told."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.root = root
        self.times = times

    def open(self, key: str) -> Reader:
        reader = super().open(key)
        if key == "b.txt" and self.times:
            self.times -= 1
            with (self.root / key).open("a") as file:
                file.write("more\n")
        return reader


def test_a_file_that_changes_while_it_is_read_is_read_again(repository, folder):
    store = IndexStore(Restless(folder, times=2), components=[Files("b.txt")])
    assert repository.backup(store).open("b.txt").read() == (folder / "b.txt").read_bytes()


def test_a_file_that_goes_on_changing_is_an_error(repository, folder):
    store = IndexStore(Restless(folder, times=100), components=[Files("b.txt")])
    with pytest.raises(ChangedError, match="Stop what writes there"):
        repository.backup(store)
    assert len(repository) == 0


def test_a_file_that_vanishes_in_a_backup_is_not_half_of_a_snapshot(repository, folder):
    class Vanishing(LocalStorage):
        def open(self, key: str) -> Reader:
            if key == "b.txt":
                (folder / "a.bin").unlink(missing_ok=True)
            return super().open(key)

    store = IndexStore(Vanishing(folder), components=[Files("a.bin"), Files("b.txt")])
    assert set(repository.backup(store).files) == {"b.txt"}


def test_an_empty_store_can_be_backed_up(repository, tmp_path):
    point = repository.backup(IndexStore(tmp_path / "nothing", components=[Files("a", optional=True)]))
    assert (point.files, point.size) == ({}, 0)
    point.verify()
    point.restore(to=tmp_path / "elsewhere")


def test_progress_is_told(repository, store, tmp_path):
    for work in (
        lambda callback: repository.backup(store, callback=callback),
        lambda callback: repository["latest"].verify(callback=callback),
        lambda callback: repository["latest"].restore(to=tmp_path / "elsewhere", callback=callback),
        lambda callback: repository.check(callback=callback),
    ):
        callback = Callback()
        work(callback)
        assert callback.size == callback.value > 0


def test_other_files_in_the_default_folder_are_no_hindrance(folder, store):
    (folder / "backups").mkdir()
    (folder / "backups" / "a.bin.pre_ingest_20260125_143000").write_bytes(b"a copy from before")
    repository = Repository(folder / "backups")
    with pytest.raises(NotFoundError):
        repository.snapshots()
    assert repository.backup(store) in repository


def test_files_of_the_repository_in_a_store_are_not_index_files(folder):
    store = IndexStore(folder, components=[Files("**/*")])
    repository = Repository(folder / "backups")
    with pytest.raises(RuntimeError), snapshot(store, repository):
        (folder / "new.txt").write_text("new")
        raise RuntimeError
    assert set(nova.contents(folder)) == {"a.bin", "b.txt", "c.txt"}
    assert set(repository["latest"].files) >= {"a.bin", "b.txt", "c.txt"}
    assert not any(path.startswith("backups") for path in repository["latest"].files)


def test_a_folder_that_is_something_else_is_refused(tmp_path, store):
    restic = tmp_path / "restic"
    (restic / "data").mkdir(parents=True)
    (restic / "config").write_bytes(b"\x00\x01")
    with pytest.raises(FormatError, match="not a novabackup repository"):
        Repository(restic).backup(store)
    with pytest.raises(NotFoundError):
        Repository(restic).snapshots()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"debug": true}')
    for use in (lambda: Repository(other).backup(store), Repository(other).snapshots):
        with pytest.raises((FormatError, NotFoundError)):
            use()


def test_the_store_itself_cannot_be_the_repository(folder, store):
    with pytest.raises(ConfigurationError, match="the store itself"):
        Repository(folder).backup(store)
    with pytest.raises(ConfigurationError), snapshot(store, folder):
        pass
    assert recover(store) is None


def test_bad_arguments_are_refused_at_once(tmp_path, folder):
    with pytest.raises(ConfigurationError, match="declared twice"):
        IndexStore(folder, components=[Files("a"), Files("a")])
    with pytest.raises(ConfigurationError, match="at least one"):
        IndexStore(folder, components=[])
    with pytest.raises(ConfigurationError, match="belongs to novabackup"):
        IndexStore(folder, components=[Files(".novabackup/x")])
    with pytest.raises(ConfigurationError, match=r"'\.\.' part"):
        IndexStore(folder, components=[Files("../x")])
    with pytest.raises(ConfigurationError, match="gopher"):
        IndexStore("gopher://host/vector_db")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="expected a folder"):
        IndexStore(tmp_path / "file").inspect()


def test_a_snapshot_that_is_not_taken_yet_says_so(store):
    with pytest.raises(ConfigurationError, match="not been taken yet"):
        snapshot(store).restore()
    assert "not taken yet" in repr(snapshot(store))


def test_generators_cannot_be_decorated(store):
    with pytest.raises(ConfigurationError, match="generator"):

        @snapshot(store)
        def ingest():
            yield 1


def test_a_restore_of_a_store_that_is_being_written_to_is_refused(repository, store):
    point = repository.backup(store)
    with snapshot(store, repository), pytest.raises(StoreBusyError):
        point.restore()


def test_everything_shows_as_a_table_in_a_notebook(repository, store, folder):
    (folder / "b.txt").write_text("<script>")
    point = repository.backup(store, message="<b>bold</b>")
    for shown in (repository, repository.snapshots(), point, store.inspect(), store.check(), point.diff(point)):
        html = shown._repr_html_()
        assert html.count("<table>") == html.count("</table>") >= 1
        assert "<b>" not in html
        assert "<" not in repr(shown)
    assert point.id in repository._repr_html_()


def test_a_backup_of_a_store_that_has_lost_all_its_files_is_not_healthy(repository, tmp_path):
    nova.build(tmp_path / "nova", nova.texts(3))
    store = IndexStore(tmp_path / "nova")
    good = repository.backup(store)
    for path in good.files:
        (tmp_path / "nova" / path).unlink()
    for _time in range(6):
        emptied = repository.backup(store)
        assert [problem.code for problem in emptied.problems] == ["emptied"]
        assert set(emptied.problems[0].paths) == set(good.files)
    assert good.id not in repository.forget(repository.plan_forget("last 1"))
    nova.build(tmp_path / "nova", nova.texts(4))
    assert not repository.backup(store).problems


def test_tables_that_would_take_too_much_memory_are_read_again(repository, store, folder, monkeypatch):
    monkeypatch.setattr(objects, "MOST_TABLES", 1)
    noise = random.Random(3)
    contents = []
    for number in range(3):
        (folder / "a.bin").write_bytes(noise.randbytes(200_000))
        (folder / "b.txt").write_text(f"number {number}")
        repository.backup(store)
        contents.append({path.name: path.read_bytes() for path in folder.glob("*.*")})
    for point, content in zip(repository, contents, strict=True):
        assert trees.held(point) == content
        assert len(repository._objects.packs._tables._tables) == 1
    assert not repository.check(read_data_subset="100%")
