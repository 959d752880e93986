"""Restoring over a file that is there: what has not changed is copied from it, and only the rest is fetched."""

from __future__ import annotations

import errno
import os
import random

import pytest

import nova
from novabackup import IndexStore, IntegrityError, Repository, RollbackError, recover
from novabackup.components import Files
from novabackup.storage import LocalStorage
from novabackup.storage.local.posix import LocalSource
from novabackup.testing import FaultyStorage

SIZE = 24 << 20


@pytest.fixture
def kept(tmp_path):
    """The storage of the repository, which counts what is read."""
    return FaultyStorage(LocalStorage(tmp_path / "repository"))


@pytest.fixture
def grown(folder, kept):
    """A store that grew since its first snapshot, which is given back with what it held then."""
    folder_of_its_own = folder.parent / "grown"
    folder_of_its_own.mkdir()
    path = folder_of_its_own / "large.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    store = IndexStore(folder_of_its_own, components=[Files("large.bin")])
    point = Repository(kept).backup(store)
    before = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(2 << 20)
        file.write(b"changed in the middle")
        file.seek(0, os.SEEK_END)
        file.write(random.Random(2).randbytes(300_000))
    return store, point, path, before


def reads(storage: FaultyStorage) -> int:
    return sum(step.startswith("read part packs/") for step in storage.log)


def test_only_what_changed_is_fetched(grown, kept):
    _store, point, path, before = grown
    kept.log.clear()
    point.restore()
    assert path.read_bytes() == before
    assert reads(kept) < 6  # the tables of two packs, and the frames around what had changed
    kept.log.clear()
    point.restore(to=path.parent.parent / "elsewhere")
    assert reads(kept) > 10
    assert (path.parent.parent / "elsewhere" / "large.bin").read_bytes() == before


def refusing(*_arguments, **_named):
    raise OSError(errno.EXDEV, "not on this file system")


def copying_little(source, target, count, offset_src):
    return os.write(target, os.pread(source, min(count, 1000), offset_src))


@pytest.mark.parametrize("copy", [refusing, copying_little])
def test_a_kernel_that_copies_little_or_nothing_costs_only_time(grown, monkeypatch, copy):
    _store, point, path, before = grown
    monkeypatch.setattr(os, "copy_file_range", copy)
    point.restore()
    assert path.read_bytes() == before


def test_bytes_that_are_not_what_they_were_are_noticed_before_anybody_sees_them(grown, monkeypatch):
    _store, point, path, _before = grown
    after = path.read_bytes()
    read = LocalSource.read

    def wrong(self, start, length):
        data = bytearray(read(self, start, length))
        data[0] ^= 1
        return bytes(data)

    monkeypatch.setattr(LocalSource, "read", wrong)
    with pytest.raises(IntegrityError, match=r"large\.bin"):
        point.restore()
    monkeypatch.undo()
    assert path.read_bytes() == after


def test_a_file_that_somebody_changes_while_it_is_copied_is_not_trusted(grown, monkeypatch):
    store, point, path, before = grown
    confirm = LocalSource.confirm

    def changing(self):
        path.write_bytes(b"somebody else")
        confirm(self)

    monkeypatch.setattr(LocalSource, "confirm", changing)
    with pytest.raises(RollbackError, match="another process changed it"):
        point.restore()
    monkeypatch.undo()
    assert path.read_bytes() == b"somebody else"
    assert recover(store, Repository(point._origin.objects.storage)) is not None
    assert path.read_bytes() == before


def test_an_interrupt_ends_a_restore_of_several_files_at_once(tmp_path, monkeypatch):
    nova.build(tmp_path / "store", nova.texts(20))
    for name in ("large-1.bin", "large-2.bin"):
        (tmp_path / "store" / name).write_bytes(random.Random(3).randbytes(SIZE))
    store = IndexStore(tmp_path / "store", components=[Files("*.bin"), Files("*.json")])
    storage = FaultyStorage(LocalStorage(tmp_path / "repository"))
    point = Repository(storage).backup(store)
    before = nova.contents(tmp_path / "store")
    for name in ("large-1.bin", "large-2.bin", "metadata.json"):
        (tmp_path / "store" / name).unlink()

    def interrupt():
        raise KeyboardInterrupt

    at = 8
    broken = FaultyStorage(LocalStorage(tmp_path / "repository"), at, interrupt)
    with pytest.raises((KeyboardInterrupt, RollbackError)):
        Repository(broken)[point.id].restore(to=store)
    assert recover(store, Repository(storage)) is not None
    assert nova.contents(tmp_path / "store") == before
