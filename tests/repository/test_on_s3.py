"""What only repositories on S3 have: storage classes, archives that have to be thawed, objects that are locked."""

from __future__ import annotations

import json
import os
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
import s3fs
from fsspec.callbacks import Callback

from novabackup import ArchivedError, ConfigurationError, NotFoundError, Policy, Repository, snapshot
from novabackup.keys import KeyFile
from novabackup.operations import thaw
from novabackup.storage import open_storage

NO_GRACE = timedelta(0)


class Server:
    """The server behind a repository, to look at what is there and to change it."""

    def __init__(self, url, options):
        self.bucket, _, self.prefix = url.removeprefix("s3://").partition("/")
        self.fs = s3fs.S3FileSystem(**options, skip_instance_cache=True, use_listings_cache=False)

    def call(self, method, **request):
        return self.fs.call_s3(method, Bucket=self.bucket, **request)

    def heads(self, folder=""):
        """What the server says of each object, by its key."""
        found = self.call("list_objects_v2", Prefix=f"{self.prefix}/{folder}").get("Contents", ())
        return {
            item["Key"].removeprefix(f"{self.prefix}/"): self.call("head_object", Key=item["Key"]) for item in found
        }

    def archive(self, storage_class="GLACIER"):
        """Do to all packs what a lifecycle rule does."""
        for key in self.heads("packs"):
            name = f"{self.prefix}/{key}"
            source = {"Bucket": self.bucket, "Key": name}
            self.call("copy_object", Key=name, CopySource=source, StorageClass=storage_class)


@pytest.fixture
def server(moto_place):
    return Server(*moto_place)


@pytest.fixture
def place(moto_place):
    url, options = moto_place
    return {"url": url, "storage_options": options}


@pytest.fixture
def thawing(moto_endpoint):
    """Say how the server thaws."""

    def post(path, **content):
        data = json.dumps({"model_name": "s3::keyrestore", **content}).encode()
        url = f"{moto_endpoint}/moto-api/state-manager/{path}"
        urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})).close()

    yield lambda progression, **how: post("set-transition", transition={"progression": progression, **how})
    post("unset-transition")


# -- storage classes -------------------------------------------------------------------------------------------------


def test_content_goes_into_the_storage_class_and_records_do_not(place, server, store):
    repository = Repository(**place, storage_class="STANDARD_IA")
    repository.backup(store)
    classes = {key.partition("/")[0]: set() for key in server.heads()}
    for key, head in server.heads().items():
        classes[key.partition("/")[0]].add(head.get("StorageClass", "STANDARD"))
    assert classes.pop("packs") == {"STANDARD_IA"}
    assert classes.keys() == {"config.json", "README.txt", "extract.py", "snapshots"}
    assert all(found == {"STANDARD"} for found in classes.values())
    Repository(**place)["latest"].verify()


def test_a_place_without_storage_classes_refuses_them(tmp_path):
    for url in (tmp_path, "memory://somewhere"):
        with pytest.raises(ConfigurationError, match=r"expected a place that has storage classes.*'STANDARD_IA'"):
            Repository(url, storage_class="STANDARD_IA")


def test_a_storage_class_that_the_server_does_not_have_is_said(place, store):
    with pytest.raises(ConfigurationError, match="such as STANDARD_IA, found 'rather cheap'"):
        Repository(**place, storage_class="rather cheap")
    with pytest.raises(OSError, match=r"no such storage class \(InvalidStorageClass"):
        Repository(**place, storage_class="CHEAP").backup(store)


# -- archives --------------------------------------------------------------------------------------------------------


def test_a_restore_out_of_an_archive_says_what_to_thaw_before_it_touches_anything(place, server, store, folder):
    repository = Repository(**place)
    taken = repository.backup(store)
    (folder / "b.txt").write_text("changed")
    server.archive()
    with pytest.raises(ArchivedError, match=r"to be thawed: 1 \(\d+.* KiB\), thawing: 0 \(GLACIER\).*its thaw\(\)"):
        taken.restore()
    with pytest.raises(ArchivedError, match="to be thawed: 1"):
        taken.verify()
    with pytest.raises(ArchivedError, match=r"packs/.*: it lies in GLACIER"):
        taken.open("b.txt").read()
    assert (folder / "b.txt").read_text() == "changed"
    assert [path.name for path in folder.iterdir() if path.suffix] == ["a.bin", "b.txt", "c.txt"]
    assert len(repository) == 1
    store.check()  # nothing is left to be recovered


def test_a_snapshot_is_thawed_and_restored(place, server, store, folder, thawing, monkeypatch):
    repository = Repository(**place)
    taken = repository.backup(store)
    (folder / "a.bin").write_bytes(os.urandom(200_000))
    later = repository.backup(store)
    server.archive("DEEP_ARCHIVE")
    plan = later.plan_thaw()
    assert len(plan.frozen) == 2
    assert plan.size == sum(head["ContentLength"] for head in server.heads("packs").values())
    assert "packs to be thawed: 2" in plan._repr_html_()
    assert len(later.plan_thaw(["b.txt"]).frozen) == 1
    assert not later.plan_thaw(["c.txt"])
    with pytest.raises(NotFoundError, match=r"no file 'd.txt'; it has a.bin"):
        later.plan_thaw(["d.txt"])

    thawing("manual", times=1)  # a look lets it begin, the next one lets it be done
    assert taken.thaw(["b.txt"], days=2, tier="Bulk").size
    again = later.plan_thaw()
    assert (len(again.frozen), len(again.thawing)) == (1, 1)
    assert later.thaw(["a.bin"]).frozen == again.frozen
    assert later.plan_thaw(["a.bin"]).thawing
    thawing("manual", times=1000)
    with pytest.raises(ArchivedError, match=r"after 0 s packs to be thawed: 0 .*thawing: 2 .*readable: 0"):
        later.thaw(timeout=0)
    monkeypatch.setattr(thaw, "POLL", 0.0)
    told = []

    def done(size, value, **_named):
        told.append((size, value))
        thawing("immediate")

    assert later.thaw(timeout=60, callback=Callback(hooks={"done": done})).thawing
    assert told[0] == (2, 0)
    assert told[-1] == (2, 2)
    assert not later.plan_thaw()
    with pytest.raises(ConfigurationError, match="days from 1 on"):
        later.thaw(days=0)
    (folder / "b.txt").unlink()
    later.restore()
    later.verify()


def test_a_backup_beside_an_archive_shares_files_but_reads_nothing(place, server, store, folder):
    repository = Repository(**place, storage_class="GLACIER")
    taken = repository.backup(store)
    assert repository.backup(store).added == 0
    with (folder / "b.txt").open("a") as file:
        file.write("more\n")
    again = repository.backup(store)
    assert 0 < again.added < taken.added  # a.bin is shared, b.txt is stored again completely
    assert len(again.plan_thaw().frozen) == 2


def test_a_block_is_not_guarded_by_what_cannot_be_read_back_at_once(place, server, store, folder):
    with (
        pytest.raises(ConfigurationError, match="a block must be able to go back at once"),
        snapshot(store, Repository(**place, storage_class="DEEP_ARCHIVE")),
    ):
        raise AssertionError("the block must not run")
    assert not server.heads("packs")
    old = Repository(**place, storage_class="DEEP_ARCHIVE").backup(store)
    with pytest.raises(ArchivedError, match="a block must be able to go back at once"), old:
        raise AssertionError("the block must not run")

    def ingest():
        with snapshot(store, Repository(**place)) as before:
            assert not before.plan_thaw()  # content in the archive was stored again
            (folder / "a.bin").write_bytes(b"half")
            raise KeyError("no more")

    content = (folder / "a.bin").read_bytes()
    with pytest.raises(KeyError):
        ingest()
    assert (folder / "a.bin").read_bytes() == content


def test_a_check_says_what_it_could_not_read_if_it_was_to(place, server, store, caplog):
    repository = Repository(**place)
    repository.backup(store)
    server.archive()
    assert not Repository(**place).check()
    assert "1 packs lie in an archive" in caplog.text
    (problem,) = Repository(**place).check(read_data_subset="100%")
    assert problem.code == "archived"


# -- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked_place(moto_place):
    """A place in a bucket that locks new objects for ten days."""
    _url, options = moto_place
    server = Server(f"s3://locked-{os.urandom(6).hex()}/some/prefix", options)
    server.call("create_bucket", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 10}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    server.call("put_object_lock_configuration", ObjectLockConfiguration=configuration)
    return server, {"url": f"s3://{server.bucket}/some/prefix", "storage_options": options}


def unlock(server, keys):
    """Let the time of locks be over."""
    past = datetime.now(UTC) - timedelta(days=1)
    for key in keys:
        retention = {"Mode": "GOVERNANCE", "RetainUntilDate": past}
        server.call("put_object_retention", Key=f"{server.prefix}/{key}", Retention=retention)


def test_locked_snapshots_are_not_forgotten(locked_place, store, folder, caplog):
    server, place = locked_place
    repository = Repository(**place)
    first = repository.backup(store)
    (folder / "b.txt").write_text("new")
    second = repository.backup(store)
    with pytest.raises(PermissionError, match=rf"may not be forgotten yet: {first.id} is locked until 20\d\d-"):
        repository.forget([first])
    assert repository.forget(repository.plan_forget(Policy(last=1))) == ()
    assert f"snapshot {first.id} stays: it is locked until" in caplog.text
    assert len(repository) == 2
    unlock(server, [f"snapshots/{first.id}.json"])
    assert repository.forget(repository.plan_forget(Policy(last=1))) == (first.id,)
    assert [snap.id for snap in repository] == [second.id]


def test_prune_says_what_it_may_not_delete_yet_and_goes_on(locked_place, store, folder, caplog):
    server, place = locked_place
    repository = Repository(**place)
    for number in range(2):
        (folder / "a.bin").write_bytes(os.urandom(200_000 + number))
        repository.backup(store)
    (folder / "a.bin").write_bytes(os.urandom(1000))
    (folder / "b.txt").unlink()
    last = repository.backup(store)
    old = [snap for snap in repository if snap != last]
    unlock(server, [f"snapshots/{snap.id}.json" for snap in old])
    repository.forget(old)
    condemned = repository.prune(grace=NO_GRACE).condemn
    assert len(condemned) == 2
    free, stuck = (f"packs/{pack[:2]}/{pack}" for pack in condemned)
    unlock(server, [free])
    for _again in range(2):
        plan = repository.prune(grace=NO_GRACE)
        assert [lock.key for lock in plan.locked] == [stuck]
        assert plan.locked[0].until > datetime.now(UTC) + timedelta(days=9)
        assert "locked until" in plan._repr_html_()
        assert not plan.condemn  # it stays condemned
    assert f"{stuck} would be deleted but is locked until" in caplog.text
    assert stuck in server.heads("packs")
    assert free not in server.heads("packs")
    unlock(server, [stuck])
    assert repository.prune(grace=NO_GRACE).delete == (stuck.rpartition("/")[2],)
    assert not repository.prune(grace=NO_GRACE).locked
    assert {key.rpartition("/")[2] for key in server.heads("packs")} == set(last._record.packs)
    last.verify()


def test_a_legal_hold_keeps_a_pack_until_it_is_lifted(locked_place, store):
    server, place = locked_place
    repository = Repository(**place)
    first = repository.backup(store)
    (pack,) = server.heads("packs")
    unlock(server, [pack, f"snapshots/{first.id}.json"])
    repository.forget([first])
    repository.prune(grace=NO_GRACE)
    server.call("put_object_legal_hold", Key=f"{server.prefix}/{pack}", LegalHold={"Status": "ON"})
    assert [str(lock) for lock in repository.prune(grace=NO_GRACE).locked] == ["locked by a legal hold"]


def test_all_that_a_new_snapshot_needs_is_locked_anew(locked_place, store, folder, tmp_path):
    server, place = locked_place
    key = KeyFile.generate(tmp_path / "key")
    Repository(**place, key=key).backup(store)
    (old,) = server.heads("packs")
    (slot,) = server.heads("keys")
    unlock(server, [old, slot])
    (folder / "b.txt").write_text("new")
    taken = Repository(**place, key=key).backup(store)
    assert old.rpartition("/")[2] in taken._record.packs
    heads = server.heads()
    needed = [heads[f"snapshots/{taken.id}.json"], heads[old], heads[slot]]
    assert all(head["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=9) for head in needed)


# -- options ---------------------------------------------------------------------------------------------------------


def test_encryption_access_and_tags_reach_what_is_written(moto_place, server, store, folder):
    url, options = moto_place
    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "our-key", "ACL": "bucket-owner-full-control"}
    extra |= {"Tagging": "team=rag", "Metadata": {"owner": "nova"}}
    repository = Repository(url, storage_options={**options, "s3_additional_kwargs": extra})
    repository.backup(store).verify()
    for key, head in server.heads().items():
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "our-key")
        assert head["Metadata"]["owner"] == "nova"
        tags = server.call("get_object_tagging", Key=f"{server.prefix}/{key}")["TagSet"]
        assert tags == [{"Key": "team", "Value": "rag"}]


def test_a_key_of_ones_own_is_sent_with_every_request(moto_place, monkeypatch):
    url, options = moto_place
    secret = os.urandom(32)
    extra = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": secret}
    from novabackup.storage.s3 import writes as _s3_writes

    monkeypatch.setattr(_s3_writes, "PART", 5 << 20)
    storage = open_storage(url, {**options, "s3_additional_kwargs": extra})
    asked = {}

    def note(params, model, **_named):
        asked.setdefault(model.name, set()).update(name for name in params["headers"] if "customer" in name.lower())

    session = storage._client.fs
    session.connect()
    session.s3.meta.events.register("before-call.s3", note)
    storage.write("large", [bytes(6 << 20)])
    storage.write("small", [b"content"])
    storage.move("small", "moved")
    assert storage.read("moved") == b"content"
    target = {f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-MD5")}
    source = {f"x-amz-copy-source-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-MD5")}
    for name in ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject"):
        assert asked[name] == target, name
    assert asked["HeadObject"] == target
    assert asked["CopyObject"] == target | source
    assert asked["DeleteObject"] == set()


REFUSED = [
    ({"acess_key": "x"}, r"options that s3fs knows, found acess_key"),
    ({"ServerSideEncryption": "AES256"}, r"no effect. Write storage_options=\{'s3_additional_kwargs'"),
    ({"s3_additional_kwargs": {"ServerSideEncription": "AES256"}}, r"may have ACL, .*; found ServerSideEncription"),
    ({"s3_additional_kwargs": {"Key": "x"}}, r"found Key$"),
    ({"s3_additional_kwargs": {"StorageClass": "GLACIER"}}, r"storage_class='GLACIER'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_that_would_do_nothing_or_harm_are_refused_at_once(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Repository("s3://bucket/x", storage_options=options)


def test_checksums_of_ones_choice_are_sent_and_named_at_the_end(moto_place, monkeypatch):
    url, options = moto_place
    from novabackup.storage.s3 import writes as _s3_writes

    monkeypatch.setattr(_s3_writes, "PART", 5 << 20)
    storage = open_storage(url, {**options, "s3_additional_kwargs": {"ChecksumAlgorithm": "SHA256"}})
    content = os.urandom(6 << 20)
    storage.write("large", [content])
    storage.write("small", [b"content"])
    assert storage.read("large") == content
    assert storage.read("small") == b"content"
