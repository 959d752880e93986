"""What callers mix up is named where they passed it."""

from __future__ import annotations

from pathlib import Path

import pytest

import nova
import novabackup
from novabackup import ConfigurationError, IndexStore, Repository, plan_recover, recover, snapshot


@pytest.fixture
def store(tmp_path) -> IndexStore:
    nova.build(tmp_path / "vector_db", nova.texts(3))
    return IndexStore(tmp_path / "vector_db")


@pytest.fixture
def repo(tmp_path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.mark.parametrize("call", [snapshot, recover, plan_recover])
def test_a_path_is_no_store(store, call):
    with pytest.raises(ConfigurationError, match="expected an IndexStore, found a str"):
        call(store.url)


def test_a_path_is_no_store_for_a_backup_either(store, repo):
    with pytest.raises(ConfigurationError, match="expected an IndexStore, found a str: write IndexStore"):
        repo.backup(store.url)


@pytest.mark.parametrize("name", ["plan_copy", "copy", "plan_mirror", "mirror"])
def test_a_path_is_no_repository(store, repo, tmp_path, name):
    repo.backup(store)
    with pytest.raises(ConfigurationError, match="expected a Repository, found a str"):
        getattr(repo, name)(to=str(tmp_path / "copy"))


@pytest.mark.parametrize("name", ["plan_mirror", "mirror"])
def test_a_repository_is_no_mirror_of_itself(store, repo, name):
    for _ in range(3):
        repo.backup(store)
    with pytest.raises(ConfigurationError, match="expected another repository"):
        getattr(repo, name)(to=Repository(repo.url))
    assert len(repo) == 3


def test_a_text_is_no_key_and_is_not_shown(tmp_path):
    with pytest.raises(ConfigurationError, match="expected a Key, found a str") as caught:
        Repository(tmp_path / "repository", key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_the_name_of_a_layout_is_no_layout(tmp_path):
    with pytest.raises(ConfigurationError, match="expected a Component, found a str"):
        IndexStore(tmp_path, components="nova")


@pytest.mark.parametrize("url", ["s3:/bucket/x", "s3:bucket", "sftp:user@host:/x", "backup@vault:nova", "SFTP:/x"])
def test_what_looks_like_another_host_is_no_local_folder(url):
    with pytest.raises(ConfigurationError, match="expected a URL such as s3://bucket/prefix"):
        Repository(url)


@pytest.mark.parametrize("url", ["a:b", "./s3:/bucket", "/srv/user@host:x", "user@host"])
def test_odd_names_of_folders_are_paths(url):
    assert Repository(url).url == str(Path(url).absolute())


def test_paths_may_be_path_objects(store, repo, tmp_path):
    repo.backup(store).restore(to=tmp_path / "elsewhere", paths=[Path("metadata.json")])
    assert [path.name for path in (tmp_path / "elsewhere").glob("*.*") if path.is_file()] == ["metadata.json"]


def test_completing_a_name_offers_what_is_public():
    offered = [name for name in dir(novabackup) if not name.startswith("__")]
    assert offered == sorted(novabackup.__all__)
