"""The way to the S3 server goes wrong, in every way and all the time: nothing is lost, and wrong bytes are noticed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from novabackup import CheckFailedError, IndexStore, NovaBackupError, Repository, recover, snapshot
from novabackup.components import JsonLines, Metadata
from novabackup.storage import open_storage
from novabackup.storage.s3 import client as _s3_client
from proxy import Fault, Plan, Proxy, Request, at_random

COMPONENTS = (JsonLines("entries.jsonl"), Metadata("ids.json"))
FAULTS = (OSError, NovaBackupError)
"""What an ingest may raise because of what happens on the way."""


class IngestError(Exception):
    """What an ingest raises by itself."""


@attrs.frozen
class Client:
    """A store and its repository, as one process sees them."""

    url: str
    options: dict[str, object]
    store: IndexStore
    repository: Repository

    @classmethod
    def at(cls, url: str, options: dict[str, object], *, single_writer: bool) -> Client:
        shared = {"storage_options": options, "single_writer": single_writer}
        store = IndexStore(f"{url}/vector_db", components=COMPONENTS, **shared)
        return cls(url, options, store, Repository(f"{url}/repository", storage_options=options))

    def ids(self) -> list[int]:
        """Read the store, and make sure that both files say the same."""
        ids = json.loads(self.store.storage.read("ids.json"))
        assert [json.loads(line)["id"] for line in self.store.storage.read("entries.jsonl").splitlines()] == ids
        return ids

    def ingest(self, number: int, *, fails: bool = False, forgets: bool = False) -> None:
        """Add one record under a guard; read what is there and write more, as anybody would."""
        with snapshot(self.store, self.repository):
            entries = self.store.storage.read("entries.jsonl")
            ids = json.loads(self.store.storage.read("ids.json"))
            self.store.storage.write("entries.jsonl", [entries + json.dumps({"id": number}).encode() + b"\n"])
            if fails:
                raise IngestError
            if not forgets:
                self.store.storage.write("ids.json", [json.dumps([*ids, number]).encode()])


@pytest.fixture
def server(request) -> str:
    """Name of the server; a test that cares chooses another."""
    return getattr(request, "param", "moto")


@pytest.fixture
def clean(request, server) -> Client:
    """A client whose way to the server is as it should be."""
    client = Client.at(*request.getfixturevalue(f"{server}_place"), single_writer=server != "moto")
    client.store.storage.write("entries.jsonl", [b""])
    client.store.storage.write("ids.json", [b"[]"])
    return client


@pytest.fixture
def proxy(clean, monkeypatch) -> Iterator[Proxy]:
    monkeypatch.setattr(_s3_client, "_pause", lambda attempt: 0.0)
    with Proxy(clean.options["endpoint_url"]) as proxy:
        yield proxy


def through(proxy: Proxy, clean: Client) -> Client:
    """Give a client at the same place whose way leads through the proxy."""
    config = {**clean.options["config_kwargs"], "retries": {"max_attempts": 2}}
    options = {**clean.options, "endpoint_url": proxy.url, "config_kwargs": config}
    return Client.at(clean.url, options, single_writer=clean.store.single_writer)


def with_outages(plan: Plan, seed: int, every: int, length: int) -> Plan:
    """Let nothing through for a while, every now and then."""
    chance, left = random.Random(seed), 0

    def outage(request: Request) -> Fault | None:
        nonlocal left
        left = length if not left and chance.random() < 1 / every else max(0, left - 1)
        return chance.choice((Fault.ERROR, Fault.RESET)) if left else plan(request)

    return outage


def digest(ids: list[int]) -> bytes:
    return hashlib.sha256(json.dumps(ids).encode()).digest()


def number_of_good_snapshots(clean: Client, folder: Path, ever: set[bytes]) -> int:
    """Fetch the repository by the clean way, and make sure that snapshots hold what the store held at some time.

    What they hold was read on the way that goes wrong.
    """
    storage = open_storage(f"{clean.url}/repository", clean.options)
    for key in [found.key for found in storage.entries()]:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(storage.read(key))
    repository = Repository(folder)
    for point in repository:
        point.verify()
        with point.open("ids.json") as file:
            assert digest(json.loads(file.read())) in ever
    assert not repository.check(read_data_subset="100%")
    return len(repository)


RATES = {
    Fault.ERROR: 0.006,
    Fault.SLOW_DOWN: 0.006,
    Fault.RESET: 0.006,
    Fault.LOST: 0.01,
    Fault.SLOW: 0.01,
    Fault.CUT: 0.01,
    Fault.ALTERED_ANSWER: 0.02,
    Fault.ALTERED_REQUEST: 0.04,
}
SHARES = [("moto", 80, 1), ("rclone", 210, 2), ("rclone", 210, 3), ("radosgw", 30, 4)]


@pytest.mark.parametrize(("server", "ingests", "seed"), SHARES, indirect=["server"])
def test_500_ingests_on_a_way_that_goes_wrong_lose_nothing(clean, proxy, ingests, seed, tmp_path):
    chance = random.Random(seed)
    proxy.plan = with_outages(at_random(seed, RATES), seed, every=400, length=12)
    client = through(proxy, clean)
    ledger: list[int] = []
    ever = {digest([])}
    raised = 0
    for number in range(ingests):
        ever.add(digest([*ledger, number]))  # for a while, or for good
        wish = chance.choice(("good", "good", "good", "fails", "forgets"))
        try:
            client.ingest(number, fails=wish == "fails", forgets=wish == "forgets")
        except (*FAULTS, IngestError):
            raised += 1
            for _try in range(50):
                with contextlib.suppress(*FAULTS):
                    recover(client.store, client.repository)
                    break
            else:
                pytest.fail("cannot be recovered")
            now = clean.ids()
            # An error may come from the last answer only: then the ingest is there, all of it.
            assert now == ledger or (wish == "good" and now == [*ledger, number])
            ledger = now
        else:
            assert wish == "good"
            ledger.append(number)
            assert clean.ids() == ledger
    assert len(ledger) > ingests // 3
    assert raised > ingests // 4
    assert set(proxy.happened) == set(Fault) or ingests < 50  # too few requests for the rarest
    assert number_of_good_snapshots(clean, tmp_path, ever) >= len(ledger)
    assert recover(clean.store) is None
    clean.ingest(ingests)
    assert clean.ids() == [*ledger, ingests]


def altering(number: int, requests: list[Request]) -> Plan:
    """Alter one byte of one object on its way, in the request of this number among all about objects; note them all."""

    def plan(request: Request) -> Fault | None:
        if not request.is_object or request.method not in ("GET", "PUT"):
            return None
        requests.append(request)
        if len(requests) != number:
            return None
        return Fault.ALTERED_ANSWER if request.method == "GET" else Fault.ALTERED_REQUEST

    return plan


@pytest.mark.parametrize("wish", ["good", "forgets"])
def test_a_wrong_byte_in_any_object_on_its_way_is_noticed(clean, proxy, wish, caplog, tmp_path):
    proxy.compares = False  # so that nobody but novabackup can notice
    client = through(proxy, clean)
    ledger: list[int] = []
    caplog.set_level(logging.INFO, "novabackup")
    for number in itertools.count(1):
        requests: list[Request] = []
        caplog.clear()
        error = None
        altered = sum(proxy.happened.values())
        with proxy.planned(altering(number, requests)):
            try:
                client.ingest(number, fails=wish == "fails", forgets=wish == "forgets")
                ledger.append(number)
            except (*FAULTS, IngestError) as caught:
                error = caught
                recover(client.store, client.repository)
        assert clean.ids() == ledger
        if len(requests) < number:
            break
        altered = sum(proxy.happened.values()) - altered
        noticed = "again" in caplog.text or not isinstance(error, CheckFailedError | IngestError | None)
        assert noticed or not altered, f"request {number}: {requests[number - 1]}"
    assert number > 10
    assert len(ledger) == (number if wish == "good" else 0)
    ever = {digest(ledger[:end]) for end in range(len(ledger) + 1)}
    assert number_of_good_snapshots(clean, tmp_path, ever) > 0
