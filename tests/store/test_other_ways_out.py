"""Links, folders and odd names come out of a repository by its own script, and as a plain archive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from novabackup import IndexStore, Repository
from novabackup.components import Tree
from portraits import furnish, portrait


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nova").mkdir()
    furnish(tmp_path / "nova")
    return tmp_path / "nova"


@pytest.fixture
def repo(folder, tmp_path) -> Repository:
    repository = Repository(tmp_path / "backups")
    repository.backup(IndexStore(folder, components=[Tree("config")]))
    return repository


def seen(folder: Path) -> dict[str, tuple[object, ...]]:
    """What both ways keep: kinds, content, and the times of files and folders in seconds."""
    return {
        path: (kind, content, 0 if os.path.islink(folder / path) else time // 10**9)
        for path, (kind, _mode, _uid, _gid, time, content) in portrait(folder).items()
    }


def test_by_the_script_in_the_repository(folder, repo, tmp_path):
    script = [sys.executable, Path(repo.url) / "extract.py", "latest"]
    done = subprocess.run([*script, tmp_path / "out"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert seen(tmp_path / "out") == seen(folder)
    assert b"\x1b" not in done.stdout
    again = subprocess.run([*script, tmp_path / "out"], capture_output=True, check=False)
    assert again.returncode == 1
    listed = subprocess.run(script, capture_output=True, check=True).stdout
    assert b"  config/caf\xe9 \xff/caf\xe9 \xff.txt\n" in listed
    assert b"  config/new\\nline/new\\nline.txt\n" in listed


def test_by_a_plain_archive(folder, repo, tmp_path):
    archive = repo["latest"].export(tmp_path / "all.tar.gz")
    (tmp_path / "out").mkdir()
    # As GNU tar unpacks it for root: owners and bits come back as well.
    subprocess.run(["tar", "-xpzf", archive.url, "-C", tmp_path / "out", "--strip-components=1"], check=True)
    assert seen(tmp_path / "out") == seen(folder)
    bits = {path: mode for path, (_kind, mode, *_rest) in portrait(tmp_path / "out").items()}
    assert bits == {path: mode for path, (_kind, mode, *_rest) in portrait(folder).items()}
