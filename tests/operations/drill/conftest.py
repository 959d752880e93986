"""A store, where its snapshots are, and where drills restore them to."""

from __future__ import annotations

from pathlib import Path

import pytest

import nova
from novabackup import Repository


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "vector_db"
    nova.build(folder, nova.texts(12))
    return folder


@pytest.fixture
def repository(tmp_path) -> Repository:
    return Repository(tmp_path / "backups")


@pytest.fixture
def room(tmp_path) -> Path:
    """Where snapshots are restored to on trial."""
    room = tmp_path / "room"
    room.mkdir()
    return room
