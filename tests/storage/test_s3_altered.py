"""Bytes that are altered on the way to an S3 server or back: noticed, and sent again."""

from __future__ import annotations

import logging
import os

import pytest

from novabackup import IndexStore, Repository
from novabackup.components import Files
from novabackup.errors import ChangedError
from novabackup.storage import open_storage
from novabackup.storage.s3 import bucket as _s3_bucket
from novabackup.storage.s3 import client as _s3_client
from novabackup.storage.s3 import sums as _s3_sums
from novabackup.storage.s3 import writes as _s3_writes
from proxy import Fault, Proxy, in_turn

HERE, THERE, LOST = Fault.ALTERED_ANSWER, Fault.ALTERED_REQUEST, Fault.LOST
SMALL, LARGE = os.urandom(1000), os.urandom(9 << 20)


@pytest.fixture
def proxy(moto_endpoint, monkeypatch):
    monkeypatch.setattr(_s3_client, "_pause", lambda attempt: 0.0)
    with Proxy(moto_endpoint) as proxy:
        proxy.compares = False
        yield proxy


@pytest.fixture
def clean(moto_place):
    """The place, by a way that is as it should be."""
    return open_storage(*moto_place)


@pytest.fixture
def storage(moto_place, proxy):
    url, options = moto_place
    return open_storage(url, {**options, "endpoint_url": proxy.url})


def test_what_is_read_whole_is_read_again(storage, clean, proxy):
    clean.write("one", [SMALL])
    for read in (storage.read, lambda key: storage.open(key).read(0, 1000), lambda key: storage.open(key).read(7, 9)):
        with proxy.planned(in_turn("GET", HERE, HERE)):
            assert read("one") in (SMALL, SMALL[7:16])
    assert proxy.happened[HERE] == 6


def test_a_way_that_alters_everything_is_given_up(storage, clean, proxy):
    clean.write("one", [SMALL])
    with proxy.planned(in_turn("GET", *[HERE] * 20)), pytest.raises(ConnectionError, match=r"the server has.*one"):
        storage.read("one")
    with proxy.planned(in_turn("PUT", None, *[THERE] * 20)):
        storage.write("two", [SMALL])  # shows that this server's ETags are sums
        with pytest.raises(OSError, match=r"4 times in a row.*https.*one"):
            storage.write("one", [SMALL])


@pytest.mark.parametrize("faults", [[THERE], [THERE, THERE], [THERE, LOST], [LOST, THERE], [THERE, LOST, THERE]])
def test_what_is_written_is_written_again(storage, clean, proxy, faults):
    storage.probe()
    before = clean.write("swapped", [b"before"])
    for key, write in {
        "written": lambda key: storage.write(key, [SMALL]),
        "created": lambda key: storage.create(key, SMALL),
        "swapped": lambda key: storage.swap(key, SMALL, before.identity),
    }.items():
        with proxy.planned(in_turn("PUT", *faults)):
            written = write(key)
        assert clean.read(key) == SMALL
        assert clean.entry(key).identity == written.identity


def test_a_server_that_compares_refuses_and_gets_it_again(storage, clean, proxy):
    proxy.compares = True
    with proxy.planned(in_turn("PUT", THERE, THERE)):
        storage.create("one", SMALL)
    assert clean.read("one") == SMALL


def test_each_part_of_a_large_object_is_compared(storage, clean, proxy, monkeypatch):
    monkeypatch.setattr(_s3_writes, "PART", 5 << 20)
    with proxy.planned(in_turn("PUT", THERE, LOST, THERE)):
        written = storage.write("large", [LARGE])
    assert clean.entry("large").identity == written.identity
    with clean.open("large") as reader:
        assert reader.read(0, len(LARGE)) == LARGE


@pytest.fixture(params=["one request", "two parts"])
def large(request, clean, monkeypatch):
    """A large object in the store: its ETag is its MD5 sum, or the sum of the sums of its parts."""
    if request.param == "two parts":
        monkeypatch.setattr(_s3_writes, "PART", 5 << 20)
    return clean.write("large", [LARGE])


def test_a_large_object_that_is_read_in_pieces_is_compared_as_a_whole(storage, proxy, large):
    def pieces():
        with storage.open("large") as reader:
            return b"".join(reader.read(start, 1 << 20) for start in range(0, len(LARGE), 1 << 20))

    for number in (1, 5, 9):
        with (
            proxy.planned(in_turn("GET", *[None] * number, HERE)),
            pytest.raises(ChangedError, match="altered on the way"),
        ):
            pieces()
    assert pieces() == LARGE
    with proxy.planned(in_turn("GET", None, None, HERE)), storage.open("large") as reader:
        assert reader.file().read() == LARGE


def test_a_backup_does_not_keep_what_was_altered_on_the_way(storage, proxy, large, tmp_path):
    repository = Repository(tmp_path / "repository")
    with proxy.planned(in_turn("GET", None, None, HERE)):
        point = repository.backup(IndexStore(storage, components=[Files("large")]))
    assert proxy.happened[HERE] == 1
    with point.open("large") as file:
        assert file.read() == LARGE


def test_a_damaged_range_of_a_pack_is_read_again(storage, clean, proxy, tmp_path):
    (tmp_path / "large").write_bytes(LARGE)
    Repository(clean).backup(IndexStore(tmp_path, components=[Files("large")]))
    point = Repository(storage)["latest"]
    with proxy.planned(in_turn("GET", HERE, HERE, None, HERE)):
        point.restore(to=tmp_path / "out")
    assert (tmp_path / "out" / "large").read_bytes() == LARGE


def test_etags_that_are_no_sums_are_no_alarm(clean, storage, proxy, monkeypatch, caplog):
    """Some servers name versions by numbers that look like MD5 sums."""
    for module in (_s3_sums, _s3_bucket):
        monkeypatch.setattr(module, "sum_in", lambda answer: answer["ETag"].strip('"')[::-1], raising=False)
    caplog.set_level(logging.WARNING, "novabackup")
    clean.write("one", [SMALL])
    assert "taken for names" in caplog.text
    assert storage.read("one") == SMALL
    assert "taken for mere names" in caplog.text
    caplog.clear()
    requests = storage.requests
    assert storage.read("one") == SMALL
    assert storage.create("two", SMALL)
    assert storage.requests == requests + 3  # one to read, two to look and to create
    assert not caplog.records


def test_objects_whose_etags_cannot_be_sums_are_not_compared():
    etag = {"ETag": f'"{"0" * 32}"'}
    assert _s3_sums.sum_in(etag) == "0" * 32
    assert _s3_sums.sum_in({**etag, "ServerSideEncryption": "AES256"}) == "0" * 32
    for other in (
        {**etag, "ServerSideEncryption": "aws:kms"},
        {**etag, "ServerSideEncryption": "aws:kms:dsse"},
        {**etag, "SSECustomerAlgorithm": "AES256"},
        {"ETag": f'W/"{"0" * 32}"'},
        {"ETag": '"0815"'},
        {},
    ):
        assert _s3_sums.sum_in(other) == ""
