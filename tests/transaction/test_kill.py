"""A process that is killed at any moment costs nothing: the store is put back by whoever comes next."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

import nova
import trees
from novabackup import IndexStore, Repository, recover, snapshot


@pytest.fixture
def killed(folder):
    """A store whose ingest was killed; gives what it held before."""
    before = nova.contents(folder)
    nova.ingest_and_die(folder)
    assert nova.contents(folder) != before
    return before


def test_recover_puts_back_what_a_killed_ingest_left(folder, killed):
    done = recover(IndexStore(folder))
    assert nova.contents(folder) == killed
    assert done.phase == "block"
    assert set(done.plan.paths("write")) == set(nova.FILES)
    assert recover(IndexStore(folder)) is None


def test_the_next_guard_puts_it_back_first(folder, killed):
    with snapshot(IndexStore(folder)) as point:
        assert nova.contents(folder) == killed
        nova.ingest(folder, nova.texts(1, 20))
    assert trees.held(point) == killed


def test_what_the_killed_ingest_left_is_kept(folder, killed):
    left = nova.contents(folder)
    done = recover(IndexStore(folder))
    kept = Repository(folder / "backups")[done.kept]
    assert trees.held(kept) == left


def test_nothing_is_printed(folder):
    code = """
        import pathlib, sys
        import nova
        from novabackup import IndexStore, Repository, snapshot
        folder = pathlib.Path(sys.argv[1])
        try:
            with snapshot(IndexStore(folder)):
                nova.ingest(folder, ["new"])
                raise RuntimeError
        except RuntimeError:
            Repository(folder / "backups").check()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), folder],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_200_kills_at_random_moments_lose_nothing(tmp_path, request):
    tests = request.config.rootpath / "tests"
    done = subprocess.run(
        [sys.executable, tests / "transaction" / "killer.py", tmp_path / "vector_db", "200", "1"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "200 kills" in done.stdout
