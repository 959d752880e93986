"""Several hosts ingest into one store on S3: they take turns, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from hosts import COMPONENTS

from novabackup import IndexStore, Repository

HOSTS, ROUNDS = 8, 25


def test_ingests_of_8_hosts_are_all_there_once(moto_place, tmp_path, request):
    url, options = moto_place
    store = IndexStore(f"{url}/vector_db", components=COMPONENTS, storage_options=options)
    store.storage.write("entries.jsonl", [b""])
    store.storage.write("ids.json", [b"[]"])
    place = {"url": store.url, "options": options, "folder": str(tmp_path), "hosts": HOSTS, "rounds": ROUNDS}
    done = subprocess.run(
        [sys.executable, request.config.rootpath / "tests" / "transaction" / "hosts.py"],
        input=json.dumps(place),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]

    wanted = {f"host-{number}-{at}" for number in range(HOSTS) for at in range(ROUNDS)}
    ids = json.loads(store.storage.read("ids.json"))
    assert len(ids) == len(wanted)
    assert set(ids) == wanted
    assert [json.loads(line)["id"] for line in store.storage.read("entries.jsonl").splitlines()] == ids
    assert not store.check()
    repository = Repository(f"{store.url}/backups", storage_options=options)
    # Each ingest was guarded by a snapshot of what all before it had written.
    assert sorted(point.files["ids.json"].report.count for point in repository) == list(range(len(wanted)))
