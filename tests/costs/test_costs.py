"""What a snapshot costs: bytes stored, bytes read, requests sent, memory taken. No clock is looked at."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from novabackup import IndexStore, Repository
from novabackup.components import Faiss, Files
from novabackup.storage import LocalStorage, open_storage
from novabackup.testing import FaultyStorage

DIMENSION = 64


def vectors(count: int, seed: int = 1) -> np.ndarray:
    """Give vectors of length one around some centres, as embeddings are."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(200, DIMENSION)) * 1.5
    rows = (centres[chance.integers(0, 200, count)] + chance.normal(size=(count, DIMENSION))).astype(np.float32)
    faiss.normalize_L2(rows)
    return rows


def stored(repository: Repository) -> int:
    return sum(path.stat().st_size for path in Path(repository.url).rglob("*") if path.is_file())


# What an ingest of 1 % into 40,000 vectors adds, in parts of the file: the true growth and what must change with it.
SHARES = {"Flat": 0.012, "IVF64,Flat": 0.03, "IVF64,PQ16x4": 0.14, "HNSW8": 0.11, "IVF64,SQfp16": 0.05}


@pytest.mark.parametrize("kind", SHARES)
def test_an_ingest_of_one_percent_adds_little_more_than_one_percent(kind, tmp_path):
    faiss.omp_set_num_threads(1)
    rows = vectors(40_400)
    index = faiss.index_factory(DIMENSION, kind)
    index.train(rows[:8000])
    path = tmp_path / "store" / "faiss_index.bin"
    path.parent.mkdir()
    index.add(rows[:40_000])
    faiss.write_index(index, str(path))
    store = IndexStore(path.parent, components=[Faiss("faiss_index.bin")])
    repository = Repository(tmp_path / "repository")
    repository.backup(store)
    before = stored(repository)
    assert before < 1.02 * path.stat().st_size
    index.add(rows[40_000:])
    faiss.write_index(index, str(path))
    point = repository.backup(store)
    assert stored(repository) - before < SHARES[kind] * path.stat().st_size
    assert point.added <= stored(repository) - before
    point.verify()


def test_floats_are_stored_smaller_than_they_are(tmp_path):
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(vectors(20_000))
    faiss.write_index(index, str(tmp_path / "faiss_index.bin"))
    repository = Repository(tmp_path / "repository")
    repository.backup(IndexStore(tmp_path, components=[Faiss("faiss_index.bin")]))
    assert stored(repository) < 0.86 * (tmp_path / "faiss_index.bin").stat().st_size


def test_of_an_unchanged_store_no_content_is_read_and_no_pack_written(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.bin").write_bytes(os.urandom(3 << 20))
    live, kept = (FaultyStorage(LocalStorage(tmp_path / name)) for name in ("store", "repository"))
    store, repository = IndexStore(live, components=[Files("*.bin")]), Repository(kept)
    repository.backup(store)
    live.log.clear()
    kept.log.clear()
    repository.backup(store)
    assert not [step for step in live.log if step.startswith(("open a", "read a", "file a"))]
    assert [step.split("/")[0] for step in kept.log if step.startswith(("add", "write"))] == ["add snapshots"]
    assert len(kept.log) < 12


def test_a_snapshot_of_a_store_that_grows_for_long_stays_small_and_in_few_packs(tmp_path):
    path = tmp_path / "store" / "log.bin"
    path.parent.mkdir()
    store = IndexStore(path.parent, components=[Files("log.bin")])
    repository = Repository(tmp_path / "repository")
    for number in range(80):
        with path.open("ab") as file:
            file.write(np.random.default_rng(number).bytes(20_000))
        point = repository.backup(store)
    assert len(point._record.packs) < 40
    assert stored(repository) < 6 * path.stat().st_size
    with point.open("log.bin") as file:
        assert file.read() == path.read_bytes()


def test_requests_to_a_server_are_few_and_told(moto_place, tmp_path, caplog):
    url, options = moto_place
    live = open_storage(f"{url}/store", options)
    content = np.random.default_rng(1).bytes(20 << 20)
    live.write("a.bin", [content])
    kept = open_storage(f"{url}/repository", options)
    store, repository = IndexStore(live, components=[Files("*.bin")]), Repository(kept)

    def requests(work) -> tuple[int, int]:
        before = live.requests, kept.requests
        work()
        return live.requests - before[0], kept.requests - before[1]

    reads, writes = requests(lambda: repository.backup(store))
    assert reads <= 12  # 3 blocks of 8 MiB; lists, and looks at what is there
    assert writes <= 20  # 2 packs, config, README, script, snapshot; lists, and looks at what is there
    with caplog.at_level(logging.INFO, "novabackup"):
        reads, writes = requests(lambda: repository.backup(store))
    assert reads <= 6
    assert writes <= 8
    told = re.search(r"(\d+) requests for the store, (\d+) for the repository", caplog.text)
    assert 0 < int(told[1]) <= reads
    assert 0 < int(told[2]) <= writes
    live.write("a.bin", [content + b"more"])
    reads, writes = requests(lambda: repository.backup(store))
    assert reads <= 16
    assert writes <= 14
    _reads, writes = requests(lambda: repository["latest"].restore(to=tmp_path / "out"))
    assert writes <= 20  # 20 MiB in requests of up to 8 MiB, 3 tables
    assert (tmp_path / "out" / "a.bin").read_bytes() == content + b"more"
    _reads, writes = requests(lambda: repository.check(read_data_subset="100%"))
    assert writes <= 24  # 20 MiB as above, 3 tables; a list of each kind of record


MEASURE = """
import json, resource, sys
from pathlib import Path
from novabackup import IndexStore, Repository
from novabackup.components import Files

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

folder = Path(sys.argv[1])
before = peak()
repository = Repository(folder / "repository")
point = repository.backup(IndexStore(folder / "store", components=[Files("*")]))
backed_up = peak()
point.verify()
point.restore(to=folder / "out")
print(json.dumps([backed_up - before, peak() - before]))
"""


def memory(folder: Path, size: int) -> list[int]:
    """Back a file of noise up and restore it in a process of its own; give what each took beyond the imports."""
    (folder / "store").mkdir(parents=True)
    chance = np.random.default_rng(1)
    with (folder / "store" / "large.bin").open("wb") as file:
        for _ in range(size >> 24):
            file.write(chance.bytes(1 << 24))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, check=True, timeout=600
    )
    return json.loads(done.stdout)


def test_memory_does_not_grow_with_the_file(tmp_path):
    small, large = memory(tmp_path / "small", 128 << 20), memory(tmp_path / "large", 768 << 20)
    assert max(large) < 160 << 20
    assert max(large) - max(small) < 48 << 20
