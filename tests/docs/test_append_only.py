"""The policies in the document on append-only use do what it says: backups work, deleting does not."""

from __future__ import annotations

import json
import os
import re
import urllib.request

import botocore.session
import pytest
import s3fs
from places import ROOT

import servers
from novabackup import IndexStore, Repository, snapshot
from novabackup.components import Files

DOCUMENT = ROOT / "docs" / "append-only.md"
ADDED_AT_ONCE = {"PutObject", "CompleteMultipartUpload"}


def policy(name):
    text = re.search(
        rf"<!-- test: policy {name} -->\n```json\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    return json.loads(text[1])


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """Options of a user who has the writer's policy, on a server that asks for it."""
    with servers.moto(tmp_path_factory.mktemp("moto")) as endpoint:
        root = {"aws_access_key_id": "root", "aws_secret_access_key": "root", "region_name": "us-east-1"}
        session = botocore.session.get_session()
        session.create_client("s3", endpoint_url=endpoint, **root).create_bucket(Bucket="bucket")
        iam = session.create_client("iam", endpoint_url=endpoint, **root)
        iam.create_user(UserName="writer")
        iam.put_user_policy(UserName="writer", PolicyName="append", PolicyDocument=json.dumps(policy("writer")))
        key = iam.create_access_key(UserName="writer")["AccessKey"]
        ask = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(ask).close()  # from here on, everybody needs a permission
        yield {**servers.options(endpoint), "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "a.bin").write_bytes(os.urandom(300_000))
    (folder / "b.txt").write_text("check the brake pads\n" * 50)
    return folder


@pytest.fixture
def store(folder):
    return IndexStore(folder, components=[Files("a.bin"), Files("b.txt")])


@pytest.fixture
def repository(writer, clean_aws, request):
    return Repository(f"s3://bucket/backups/{request.node.name}", storage_options=writer)


def test_a_writer_backs_up_checks_and_restores(repository, store, folder, tmp_path):
    repository.backup(store).verify()
    (folder / "b.txt").write_text("new")
    repository.backup(store)
    assert not repository.check(read_data_subset="100%")
    assert len(repository) == 2
    repository["latest"].restore(to=tmp_path / "restored")
    assert (tmp_path / "restored" / "b.txt").read_text() == "new"


def test_a_writer_deletes_nothing_and_goes_on_working(repository, store, writer):
    taken = repository.backup(store)
    for delete in (lambda: repository.forget([taken]), repository.prune):
        with pytest.raises(PermissionError, match=r"the server refuses; this needs s3:DeleteObject"):
            delete()
    with pytest.raises(PermissionError):
        key = f"{repository.url.removeprefix('s3://bucket/')}/config.json"
        s3fs.S3FileSystem(**writer, skip_instance_cache=True).call_s3("delete_object", Bucket="bucket", Key=key)
    repository.backup(store).verify()
    assert not repository.check()
    assert len(repository) == 2


def test_a_writer_guards_blocks(repository, store, folder):
    content = (folder / "a.bin").read_bytes()
    for number in range(5):
        with pytest.raises(ZeroDivisionError), snapshot(store, repository):
            (folder / "a.bin").write_bytes(b"half %d" % number)
            raise ZeroDivisionError
    assert (folder / "a.bin").read_bytes() == content
    assert len(repository.snapshots(tags=["failed-ingest"])) == 5  # more than are kept otherwise


def test_all_that_a_backup_writes_has_the_condition_that_the_bucket_insists_on(moto_place, store, folder, monkeypatch):
    (statement,) = policy("bucket")["Statement"]
    assert (statement["Effect"], statement["Condition"]["Null"]) == ("Deny", {"s3:if-none-match": "true"})
    from novabackup.storage.s3 import writes as _s3_writes

    monkeypatch.setattr(_s3_writes, "PART", 5 << 20)
    url, options = moto_place
    repository = Repository(url, storage_options=options)
    fs = repository._objects.storage._client.fs
    fs.connect()
    asked = []
    fs.s3.meta.events.register(
        "before-call.s3", lambda params, model, **_: asked.append((model.name, params["headers"]))
    )
    for size in (300_000, 6 << 20):
        (folder / "a.bin").write_bytes(os.urandom(size))
        repository.backup(store)
    added = [(name, headers.get("If-None-Match")) for name, headers in asked if name in ADDED_AT_ONCE]
    assert {name for name, _condition in added} == ADDED_AT_ONCE
    assert {condition for _name, condition in added} == {"*"}
    assert not [name for name, _headers in asked if "Delete" in name or "Abort" in name or "Copy" in name]
