"""A store of real index files, for every test of the guard."""

from __future__ import annotations

from pathlib import Path

import pytest

import nova
from novabackup import IndexStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vector_db"
    nova.build(folder, nova.texts(20))
    return folder


@pytest.fixture
def store(folder: Path) -> IndexStore:
    return IndexStore(folder)
