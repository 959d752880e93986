"""Repositories that earlier versions wrote are read by every later one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from novabackup import IndexStore, Repository
from novabackup.components import Files
from novabackup.keys import Passphrase

HERE = Path(__file__).parent
GOLDEN = sorted(path.with_suffix("") for path in HERE.glob("format-*.json"))


def opened(golden: Path, url: Path | None = None) -> Repository:
    key = Passphrase("golden") if "encrypted" in golden.name else None
    return Repository(url or golden, key=key)


def expected(golden: Path) -> dict[str, dict[str, str]]:
    return json.loads(golden.with_suffix(".json").read_text())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_every_snapshot_is_read_exactly(golden, tmp_path):
    repository = opened(golden)
    assert [point.id for point in repository] == sorted(expected(golden))
    for point in repository:
        point.verify()
        assert point.tags == ("golden",)
        point.restore(to=tmp_path / point.id)
        found = {
            str(path.relative_to(tmp_path / point.id)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (tmp_path / point.id).rglob("*")
            if path.is_file() and ".novabackup" not in path.parts
        }
        assert found == expected(golden)[point.id]
    assert not repository.check(read_data_subset="100%")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_it_can_be_written_to(golden, tmp_path):
    repository = opened(golden, shutil.copytree(golden, tmp_path / "repository"))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "new.bin").write_bytes(b"new")
    repository.backup(IndexStore(tmp_path / "store", components=[Files("*.bin")]))
    assert len(repository) == len(expected(golden)) + 1
    assert not repository.check(read_data_subset="100%")


def test_there_is_a_golden_repository_of_the_present_format():
    assert [path.name for path in GOLDEN] == ["format-1", "format-1-encrypted"]
