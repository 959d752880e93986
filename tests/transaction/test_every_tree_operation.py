"""Whatever operation fails, and however: links, folders and files are as they were before the block."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from novabackup import IndexStore, NovaBackupError, Repository, recover, snapshot
from novabackup.components import Tree
from novabackup.storage import Storage, open_storage
from novabackup.testing import FaultyStorage, Moment, Then, die, fail_with
from portraits import portrait


class IngestError(Exception):
    """What the block raises by itself."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with a file, a link and an empty folder; and a copy of it beside."""
    folder = tmp_path / "store"
    (folder / "tree/empty").mkdir(parents=True)
    (folder / "tree/file").write_bytes(b"content" * 100)
    (folder / "tree/link").symlink_to("file")
    (folder / "tree/empty").chmod(0o1750)
    for number, path in enumerate(("tree/empty", "tree/file", "tree/link", "tree")):
        os.utime(folder / path, ns=(0, 1_500_000_000_000_000_001 + number), follow_symlinks=False)
    shutil.copytree(folder, tmp_path / "fresh", symlinks=True)
    os.utime(tmp_path / "fresh/tree/link", ns=(0, 1_500_000_000_000_000_003), follow_symlinks=False)
    return folder


def clear(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.rmtree(folder.parent / "repository", ignore_errors=True)
    shutil.copytree(folder.parent / "fresh", folder, symlinks=True)


def block(folder: Path, storage: Storage) -> None:
    """Change the kind of everything, in a block that fails."""
    with (
        contextlib.suppress(IngestError),
        snapshot(IndexStore(storage, components=[Tree("tree")]), Repository(folder.parent / "repository")),
    ):
        (folder / "tree/empty").rmdir()
        (folder / "tree/empty").write_text("a file")
        (folder / "tree/link").unlink()
        (folder / "tree/link").mkdir()
        (folder / "tree/link/inside").write_text("new")
        (folder / "tree/file").unlink()
        (folder / "tree/file").symlink_to("/etc")
        (folder / "tree/other").symlink_to("file")
        raise IngestError


def finish(folder: Path, storage: Storage | None = None) -> None:
    recover(IndexStore(storage or folder, components=[Tree("tree")]), Repository(folder.parent / "repository"))


def check(folder: Path, label: str) -> None:
    finish(folder)
    assert portrait(folder) == portrait(folder.parent / "fresh"), label
    assert recover(IndexStore(folder, components=[Tree("tree")])) is None, label


def in_a_child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except NovaBackupError:
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("first", "moment", "then"), [(1, Moment.BEFORE, Then.WORKS), (2, Moment.AFTER, Then.BROKEN)])
def test_an_error_at_any_operation(folder, first, moment, then):
    error = OSError(errno.EIO, "input/output error")
    for at in itertools.count(first, 3):
        clear(folder)
        faulty = FaultyStorage(open_storage(folder), at, fail_with(error), moment, then)
        with contextlib.suppress(OSError, NovaBackupError):
            block(folder, faulty)
        check(folder, f"operation {at}: {faulty.log[at - 1 : at]}")
        if faulty.operations < at:
            break
    assert at > 30


@pytest.mark.parametrize(("moment", "step"), [(Moment.BEFORE, 2), (Moment.AFTER, 4)])
def test_a_kill_at_any_operation(folder, moment, step):
    killed = 0
    for at in itertools.count(1, step):
        clear(folder)
        ended = in_a_child(lambda at=at: block(folder, FaultyStorage(open_storage(folder), at, die, moment)))
        killed += ended == -signal.SIGKILL
        if at % 8 == 1:
            # The recovery is killed as well, at operations that differ from round to round, and then goes on.
            recovery = FaultyStorage(open_storage(folder), at * 7 % 29 + 1, die, moment)
            in_a_child(lambda recovery=recovery: finish(folder, recovery))
        check(folder, f"operation {at}")
        if ended == 0 and at > 45:
            break
    assert killed > 40 // step
