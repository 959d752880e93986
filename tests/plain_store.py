"""A store of plain files, for tests about the repository alone."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from novabackup import IndexStore
from novabackup.components import Files

FILES = ("a.bin", "b.txt", "c.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "a.bin").write_bytes(random.Random(1).randbytes(300_000))
    (folder / "b.txt").write_text("check the brake pads\n" * 500)
    (folder / "c.txt").write_bytes(b"")
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder, components=[Files(path, optional=True) for path in FILES])
