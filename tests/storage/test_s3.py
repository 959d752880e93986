"""What only S3 has: conditions, lost answers, uploads in parts, credentials, buckets that are not there."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import threading

import aiohttp
import botocore.exceptions
import pytest
import s3fs

from novabackup.errors import ChangedError, ConfigurationError
from novabackup.storage import Guarantees, open_storage
from novabackup.storage import generic as objects_module
from novabackup.storage.s3 import client as client_module
from novabackup.storage.s3 import storage as s3_module
from novabackup.storage.s3 import writes as writes_module


@pytest.fixture
def storage(moto_place):
    return open_storage(*moto_place)


@pytest.fixture
def answers_lost(monkeypatch):
    """Send each write twice, as a client does that lost the answer to the first."""
    call = s3fs.S3FileSystem._call_s3

    async def twice(self, method, *arguments, **named):
        if method in ("put_object", "complete_multipart_upload"):
            await call(self, method, *arguments, **named)
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", twice)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(objects_module, "SPOOLED", 1000)
    monkeypatch.setattr(writes_module, "PART", 5 << 20)


def uploads(storage):
    return storage._client.fs.call_s3("list_multipart_uploads", Bucket=storage._bucket.name).get("Uploads", [])


def test_ones_own_work_is_recognised_when_the_answer_was_lost(storage, answers_lost):
    first = storage.create("journal", b"first")
    second = storage.swap("journal", b"second", first.identity)
    assert storage.entry("journal").identity == second.identity
    assert storage.add("pack", [b"content"]).identity == storage.entry("pack").identity
    for data in (b"other", b"second"):  # equal bytes of another call are another's work
        with pytest.raises(FileExistsError, match="journal"):
            storage.create("journal", data)
    with pytest.raises(ChangedError):
        storage.swap("journal", b"third", first.identity)


def test_large_objects_go_up_in_parts(storage, small_parts, answers_lost):
    content = os.urandom(12 << 20)
    written = storage.write("large", (content[start : start + 777_777] for start in range(0, len(content), 777_777)))
    assert "-3-" in written.identity
    assert written.identity == storage.entry("large").identity
    with storage.open("large") as reader:
        assert reader.read(0, len(content)) == content
    assert storage.add("added", [content]).size == len(content)
    with pytest.raises(FileExistsError, match="added"):
        storage.add("added", [b"other"])
    storage.move("large", "moved")  # which changes the ETag
    assert storage.read("moved") == content
    assert not storage.exists("large")
    assert uploads(storage) == []


def test_a_pack_is_sent_without_being_copied_again(small_parts):
    whole = next(writes_module.parts_of((b"con", memoryview(b"tent"))))
    assert whole == b"content"
    body = writes_module._Body(whole)
    assert (body.getbuffer().obj, body.read()) == (whole, whole)
    assert body.getbuffer().obj is whole


@pytest.mark.parametrize("size", [(5 << 20) - 1, 5 << 20, (5 << 20) + 1])
def test_content_in_pieces_goes_into_the_same_parts_however_it_comes(small_parts, size):
    pieces = [os.urandom(size // 2), memoryview(os.urandom(size - size // 2))]
    at_once = list(writes_module.parts_of(tuple(pieces)))
    assert at_once == list(writes_module.parts_of(iter(pieces)))
    assert b"".join(at_once) == b"".join(pieces)
    assert max(map(len, at_once)) <= 5 << 20


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="needs Linux")
def test_what_a_server_says_is_acknowledged_at_once():
    """Otherwise servers that send head and body one after the other take 40 ms for each small answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = socket.getaddrinfo(*server.getsockname(), type=socket.SOCK_STREAM)[0]
        with client_module._prompt_socket(address) as client:
            client.connect(address[-1])
            with server.accept()[0] as served:
                for _ in range(3):
                    client.send(b"question")
                    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
                    served.sendall(served.recv(8))
                    assert client.recv(8) == b"question"


def test_the_connections_are_of_that_kind(storage):
    storage.write("one", [b"content"])
    assert storage._client.fs.s3.meta.config.connector_args["socket_factory"] is client_module._prompt_socket


def test_a_failing_upload_is_aborted(storage, small_parts, monkeypatch):
    call = s3fs.S3FileSystem._call_s3

    async def failing(self, method, *arguments, **named):
        if named.get("PartNumber") == 2:
            raise PermissionError("denied")
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", failing)
    with pytest.raises(PermissionError, match="s3://"):
        storage.write("large", [bytes(6 << 20)])
    assert uploads(storage) == []
    assert not storage.exists("large")


def test_only_old_uploads_below_the_prefix_are_swept(storage, monkeypatch):
    for key in ("some/prefix/a", "some/prefix/b", "elsewhere"):
        storage._client.fs.call_s3("create_multipart_upload", Bucket=storage._bucket.name, Key=key)
    # This server says of each upload that it began in 2010.
    monkeypatch.setattr(s3_module, "_UPLOAD_GRACE", 1e10)
    assert storage.sweep(0.0) == 0
    monkeypatch.undo()
    assert storage.sweep(1e10) == 0
    assert storage.sweep(0.0, ["a"]) == 1
    assert storage.sweep(0.0) == 1
    assert [upload["Key"] for upload in uploads(storage)] == ["elsewhere"]


def test_reading_goes_on_after_a_broken_connection(storage, monkeypatch):
    storage.write("one", [b"content"])
    call, broken = s3fs.S3FileSystem._call_s3, []

    class Line:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_error):
            pass

        async def read(self, length):
            broken.append(length)
            raise aiohttp.ClientPayloadError("the line went dead")

    async def breaking(self, method, *arguments, **named):
        answer = await call(self, method, *arguments, **named)
        return {**answer, "Body": Line()} if len(broken) < 2 and method == "get_object" else answer

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", breaking)
    monkeypatch.setattr(client_module, "_pause", lambda attempt: 0.0)
    with storage.open("one") as reader:
        assert reader.read(0, 7) == b"content"
    assert len(broken) == 2
    broken.clear()
    monkeypatch.setattr(storage._client, "_attempts", 2)
    with pytest.raises(ConnectionError, match=r"gave up after 2 attempts.*one"):
        storage.open("one")


def test_a_server_that_refuses_every_comparison_still_swaps(storage, monkeypatch):
    call = s3fs.S3FileSystem._call_s3

    async def refusing(self, method, *arguments, **named):
        if method == "put_object" and "IfMatch" in named:
            named["IfMatch"] = '"never"'
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refusing)
    first = storage.create("one", b"first")
    storage.swap("one", b"second", first.identity)
    assert storage.read("one") == b"second"
    assert storage.probe() == Guarantees(exclusive_create=True, compare_and_swap=False)
    with pytest.raises(ChangedError):
        storage.swap("one", b"third", first.identity)


def test_a_server_that_knows_no_conditions_still_works(storage, monkeypatch):
    call = s3fs.S3FileSystem._call_s3

    async def unknown(self, method, *arguments, **named):
        if method == "put_object" and named.keys() & {"IfMatch", "IfNoneMatch"}:
            answer = {"ResponseMetadata": {"HTTPStatusCode": 501}, "Error": {"Code": "NotImplemented"}}
            raise OSError(errno.ENOSYS, "no such thing") from botocore.exceptions.ClientError(answer, "PutObject")
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", unknown)
    first = storage.create("one", b"first")
    assert storage.swap("one", b"second", first.identity).size == 6
    with pytest.raises(FileExistsError):
        storage.create("one", b"third")
    assert storage.read("one") == b"second"
    before = storage.requests
    storage.add("two", [b"second"])
    assert storage.requests == before + 1
    assert storage.probe() == Guarantees(exclusive_create=False, compare_and_swap=False)


def test_requests_that_meet_are_sent_again(storage, monkeypatch):
    call, met = s3fs.S3FileSystem._call_s3, []

    async def meeting(self, method, *arguments, **named):
        if method == "put_object" and len(met) < 2:
            met.append(named)
            answer = {"ResponseMetadata": {"HTTPStatusCode": 409}, "Error": {"Code": "ConditionalRequestConflict"}}
            raise OSError(errno.EIO, "conflict") from botocore.exceptions.ClientError(answer, "PutObject")
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", meeting)
    storage.create("one", b"first")
    assert storage.read("one") == b"first"
    assert len(met) == 2


def test_a_dead_server_is_an_error_of_the_system(clean_aws):
    options = {
        "key": "k",
        "secret": "s",
        "endpoint_url": "http://127.0.0.1:9",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(ConnectionError, match="s3://bucket/x/key"):
        open_storage("s3://bucket/x", options).read("key")


def test_missing_buckets_are_named_and_not_made(moto_place):
    storage = open_storage("s3://no-such-bucket/x", moto_place[1])
    for call in (
        lambda: storage.write("a", [b"a"]),
        lambda: storage.create("a", b"a"),
        lambda: list(storage.entries()),
        storage.probe,
    ):
        with pytest.raises(FileNotFoundError, match=r"there is no such bucket.*no-such-bucket"):
            call()
    assert not storage.exists("a")


def test_credentials_are_asked_for_and_never_shown(moto_endpoint, clean_aws, rclone_place):
    with pytest.raises(ConfigurationError, match=r"AWS_\* environment variables"):
        open_storage("s3://bucket", {"endpoint_url": moto_endpoint}).read("a")
    url, options = rclone_place
    storage = open_storage(url, {**options, "secret": "mistyped-secret"})
    with pytest.raises(PermissionError, match=url) as caught:
        storage.write("a", [b"a"])
    assert "mistyped" not in f"{caught.value!r} {storage!r} {storage.url}"


def test_a_bucket_can_be_the_root(moto_place):
    url, options = moto_place
    storage = open_storage(url.removesuffix("/some/prefix"), options)
    storage.write("some/prefix/a", [b"a"])
    assert open_storage(url + "/", options).read("a") == b"a"
    assert [entry.key for entry in storage.entries()] == ["some/prefix/a"]


def test_long_lists_come_page_by_page(storage, monkeypatch):
    call, pages = s3fs.S3FileSystem._call_s3, []

    async def short(self, method, *arguments, **named):
        if method == "list_objects_v2":
            named["MaxKeys"] = 2
            pages.append(named)
        return await call(self, method, *arguments, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", short)
    for number in range(5):
        storage.write(f"key {number}", [b"x"])
    assert [entry.key for entry in storage.entries()] == [f"key {number}" for number in range(5)]
    assert len(pages) == 3


def test_an_interrupt_leaves_no_request_running(storage):
    cancelled = threading.Event()

    async def work(_):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        storage._client.run(work)
    assert cancelled.is_set()


def test_it_works_within_a_running_loop_and_in_threads(storage):
    async def main():
        storage.write("one", [b"1"])
        return await asyncio.to_thread(storage.read, "one")

    assert asyncio.run(main()) == b"1"


def test_it_works_in_a_forked_child(moto_place):
    url, options = moto_place
    script = f"""if True:
        import os, sys
        from novabackup.storage import Guarantees, open_storage
        storage = open_storage({url!r}, {options!r})
        storage.write("parent", [b"1"])
        child = os.fork()
        if child == 0:
            storage.write("child", [storage.read("parent")])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert storage.read("child") == b"1"
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
