"""The storage that fails on purpose fails where it is told to, and nowhere else."""

from __future__ import annotations

import errno
import os

import pytest

from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Moment, Then, die, fail_with

FULL = OSError(errno.ENOSPC, "no space left")


@pytest.fixture
def inner(tmp_path):
    return open_storage(tmp_path)


def work(storage):
    storage.write("a", [b"1", b"2"])
    with storage.open("a") as reader:
        reader.read(0, 1)
        reader.confirm()
        reader.file()
    storage.move("a", "b")
    storage.delete("b")


STEPS = ["write a", "block a", "block a", "open a", "read a", "confirm a", "file a", "move a b", "delete b"]


def test_every_operation_counts(inner):
    storage = FaultyStorage(inner)
    work(storage)
    assert storage.log == STEPS
    assert storage.operations == len(STEPS)


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("at", range(1, len(STEPS) + 1))
def test_each_can_fail(inner, at, moment):
    storage = FaultyStorage(inner, at, fail_with(FULL), moment)
    with pytest.raises(OSError, match="no space left"):
        work(storage)
    # The answer to a write is lost after its blocks were taken.
    assert storage.log == STEPS[: 3 if (at, moment) == (1, Moment.AFTER) else at]
    done = at if moment is Moment.AFTER else at - 1
    # A write is done when its blocks are, unless one of those failed.
    assert inner.exists("a") == ((done >= 3 and at != 3 and done < 8) or (at == 1 and moment is Moment.AFTER))
    assert inner.exists("b") == (done == 8)
    work(storage)


def test_a_broken_disk_stays_broken(inner):
    storage = FaultyStorage(inner, 4, fail_with(FULL), then=Then.BROKEN)
    with pytest.raises(OSError, match="no space left"):
        work(storage)
    with pytest.raises(OSError, match="no space left"):
        storage.exists("a")
    assert inner.read("a") == b"12"


def test_a_lock_whose_answer_is_lost_is_not_held(inner):
    with pytest.raises(OSError, match="no space left"):
        FaultyStorage(inner, 1, fail_with(FULL), Moment.AFTER).hold("lock")
    with inner.hold("lock"):
        pass


def test_a_killed_process_leaves_the_old_content(inner, tmp_path):
    inner.write("a", [b"old"])
    child = os.fork()
    if child == 0:
        work(FaultyStorage(inner, 3, die))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert inner.read("a") == b"old"
    assert [entry.key for entry in inner.entries()] == ["a"]
    assert inner.sweep(0.0) == 1
    assert os.listdir(tmp_path) == ["a"]
