"""Which URL opens which storage, and what is said of those that open none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from novabackup.errors import ConfigurationError
from novabackup.storage import LocalStorage, open_storage, protocol_of
from novabackup.storage.generic import MemoryStorage, ObjectStorage


def test_paths_and_file_urls_are_local(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (tmp_path / "x", str(tmp_path / "x"), f"file://{tmp_path}/x", "~/x", f"{tmp_path}//x/"):
        storage = open_storage(url)
        assert isinstance(storage, LocalStorage)
        assert storage.url == str(tmp_path / "x")
        assert open_storage(storage) is storage
    assert list(tmp_path.iterdir()) == []


def test_memory_is_one_place():
    storage = open_storage("memory://test-open/x")
    assert isinstance(storage, MemoryStorage)
    assert storage.url == "memory://test-open/x"
    storage.write("a", [b"a"])
    assert open_storage("memory://test-open").read("x/a") == b"a"
    storage.delete("a")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nope://x", r"'nope' is unknown. Known are: .*memory.*s3"),
        ("sftp://user:hush@host/x", "Passwords do not belong"),
        ("ssh://user:hu@hush@host/x", "Passwords do not belong"),
        ("sftp:///x", "no host"),
        ("sftp://host:port/x", "no host"),
        ("sftp://host/x?token=hush", r"'\?' or '#'"),
        ("sftp://host/a/../b", "part"),
        ("gs://bucket/x", "Please install gcsfs"),
        ("simplecache::s3://bucket/x", "expected a path or a URL"),
        ("s3://bucket::file:///x", "chained"),
        ("s3://", "no bucket"),
        ("s3://key:hush@bucket/x", "Credentials do not belong"),
        ("s3://key:hu/hush@bucket/x", "Credentials do not belong"),
        ("s3://bucket/x?X-Amz-Signature=hush", "Presigned"),
        ("s3://bucket/../x", "part"),
        ("", "expected a path or a URL"),
        ("://hush", "expected a path or a URL"),
        ("file://", "expected a path"),
    ],
)
def test_urls_that_cannot_be(url, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        open_storage(url)
    assert "://hush" in url or "hush" not in str(caught.value)


def test_options_that_cannot_be(tmp_path):
    for url in (str(tmp_path), f"file://{tmp_path}", open_storage(tmp_path)):
        with pytest.raises(ConfigurationError, match="secret") as caught:
            open_storage(url, {"secret": "hush"})
        assert "hush" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="storage_options"):
        open_storage("s3://bucket", {"key": "a", "username": "b"})


def test_secrets_are_left_out_of_the_url():
    storage = open_storage("http://user:hush@127.0.0.1:9/x?token=hush#hush")
    assert storage.url == "http://127.0.0.1:9/x"
    assert "hush" not in repr(storage)


def test_cloud_packages_are_imported_only_when_needed():
    script = "import sys, novabackup.storage, novabackup.testing; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"s3fs", "botocore", "aiobotocore", "aiohttp", "asyncssh", "gcsfs", "pytest"} & set(modules)


def test_any_file_system_will_do(tmp_path):
    import fsspec

    storage = ObjectStorage(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path), "any://place")
    storage.write("a/b", [b"1", b"2"])
    assert [entry.key for entry in storage.entries()] == ["a/b"]
    assert (storage.entry("a/b").size, storage.entry("a/b").identity) == (2, "")
    assert storage.read("a/b") == b"12"
    assert not storage.probe().compare_and_swap
    storage.move("a/b", "c")
    storage.delete("c")
    with pytest.raises(FileNotFoundError, match="any://place/c"):
        storage.entry("c")


@pytest.mark.parametrize(
    ("url", "kind"),
    [("vector_db", "file"), ("FILE:///srv", "file"), ("S3://b/x", "s3"), ("s3a://b", "s3"), ("ssh://h/x", "sftp")],
)
def test_the_kind_of_a_backend_is_judged_as_it_is_opened(url, kind):
    assert protocol_of(url) == kind
