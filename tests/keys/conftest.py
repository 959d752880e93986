"""An encrypted repository with two snapshots, and cheap passphrases."""

from __future__ import annotations

import pytest
from telling import SECRET, TEXT

from novabackup import IndexStore, Repository, keys
from novabackup.components import Files
from novabackup.keys import Passphrase


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Scrypt that does not take a third of a second."""
    monkeypatch.setattr(keys, "_N", 1 << 4)


@pytest.fixture
def store(tmp_path) -> IndexStore:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "torques.txt").write_bytes(TEXT)
    return IndexStore(folder, components=[Files("*.txt")])


@pytest.fixture
def repository(tmp_path, store) -> Repository:
    made = Repository(tmp_path / "repository", key=Passphrase(SECRET))
    for number in range(3):
        (tmp_path / "store" / "number.txt").write_text(str(number))
        made.backup(store, tags=[f"tag-{number}"], message="a telling message")
    return made


@pytest.fixture
def again(tmp_path, repository):
    """Open the repository as another program would."""

    def open_(secret: str = SECRET) -> Repository:
        return Repository(tmp_path / "repository", key=Passphrase(secret))

    return open_
