"""A small Nova in a folder of the name that archives have, and a store of any files."""

from __future__ import annotations

from pathlib import Path

import pytest

import nova
from novabackup import IndexStore
from novabackup.components import Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "nova-nic" / "vector_db"
    nova.build(folder, nova.texts(12))
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> IndexStore:
    """A store of any files, so that archives can be made of any."""
    return IndexStore(tmp_path / "plain", components=[Files("a.bin", optional=True), Files("docs/**", optional=True)])
