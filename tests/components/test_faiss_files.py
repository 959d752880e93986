"""FAISS indexes of every type: numbers from the first bytes, and damage noticed by faiss itself."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import faiss
import numpy as np
import pytest
from looking import PACKAGE, NotingReader, examine, inspect, only

from novabackup.components import Faiss
from novabackup.components._faiss_fourcc import KINDS
from novabackup.errors import ConfigurationError

DIMENSION = 8
BITS = 64
COUNT = 40
MANY = 600
"""Vectors of an NSG index, whose graph cannot be built over few."""

FLOAT = {
    "Flat": "IndexFlatL2",
    "IVF2,Flat": "IndexIVFFlat",
    "IVF2,FlatDedup": "IndexIVFFlatDedup",
    "IVF2,PQ2x4": "IndexIVFPQ",
    "IVF2,PQ2x4fs": "IndexIVFPQFastScan",
    "IVF2,SQ8": "IndexIVFScalarQuantizer",
    "IVF2,RQ2x2": "IndexIVFResidualQuantizer",
    "IVF2_HNSW4,Flat": "IndexIVFFlat",
    "IVF2,RaBitQ": "IndexIVFRaBitQ",
    "IVF2,ITQ4,SH2": "IndexIVFSpectralHash",
    "IMI2x1,Flat": "IndexIVFFlat",
    "PQ2x4": "IndexPQ",
    "PQ4x4fs": "IndexPQFastScan",
    "SQ8": "IndexScalarQuantizer",
    "SQ4": "IndexScalarQuantizer",
    "SQfp16": "IndexScalarQuantizer",
    "HNSW4,Flat": "IndexHNSWFlat",
    "HNSW4,SQ8": "IndexHNSWSQ",
    "HNSW4,PQ2x4": "IndexHNSWPQ",
    "NSG4,Flat": "IndexNSGFlat",
    "IDMap,Flat": "IndexIDMap",
    "IDMap2,Flat": "IndexIDMap2",
    "IDMap,IVF2,Flat": "IndexIDMap",
    "PCA4,Flat": "IndexPreTransform",
    "OPQ2,PQ2x4": "IndexPreTransform",
    "RR,Flat": "IndexPreTransform",
    "L2norm,Flat": "IndexPreTransform",
    "ITQ4,LSH": "IndexPreTransform",
    "IVF2,Flat,RFlat": "IndexRefine",
    "PQ2x4,RFlat": "IndexRefine",
    "IVF2,PQ2x4,RFlat": "IndexRefine",
    "LSH": "IndexLSH",
    "RQ2x2": "IndexResidualQuantizer",
    "LSQ2x2": "IndexLocalSearchQuantizer",
    "PRQ2x1x2": "IndexProductResidualQuantizer",
    "RQ2x4fs_Nrq2x4": "IndexResidualQuantizerFastScan",
    "RaBitQ": "IndexRaBitQ",
    "FlatL2Panorama2": "IndexFlatL2Panorama",
}
BINARY = {
    "BFlat": "IndexBinaryFlat",
    "BIVF2": "IndexBinaryIVF",
    "BHNSW4": "IndexBinaryHNSW",
    "BHash4": "IndexBinaryHash",
    "BHash2x2": "IndexBinaryMultiHash",
    "IDMap,BFlat": "IndexBinaryIDMap",
    "IDMap2,BFlat": "IndexBinaryIDMap2",
}
ALL = [*FLOAT, *BINARY]
COMPONENT = Faiss("index.bin")


def count_of(factory: str) -> int:
    return MANY if factory.startswith("NSG") else COUNT


def serialised(factory: str) -> bytes:
    count = count_of(factory)
    random = np.random.default_rng(1)
    if factory in BINARY:
        index = faiss.index_binary_factory(BITS, factory)
        vectors = random.integers(0, 256, size=(MANY, BITS // 8), dtype=np.uint8)
    else:
        index = faiss.index_factory(DIMENSION, factory)
        vectors = random.normal(size=(MANY, DIMENSION)).astype(np.float32)
    index.train(vectors)
    vectors = vectors[:count]
    if factory.startswith("IDMap"):
        index.add_with_ids(vectors, np.arange(count) + 1000)
    else:
        index.add(vectors)
    write = faiss.serialize_index_binary if factory in BINARY else faiss.serialize_index
    return write(index).tobytes()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    faiss.omp_set_num_threads(1)
    return {factory: serialised(factory) for factory in ALL}


def file_of(files: dict[str, bytes], factory: str) -> bytes:
    return files[factory]


@pytest.mark.parametrize("factory", ALL)
def test_count_and_dimension_come_from_one_read_of_at_most_64_bytes(factory, files):
    data = file_of(files, factory)
    with NotingReader(data, COMPONENT.path) as reader:
        report = COMPONENT.inspect(reader)
    assert (report.count, report.problems) == (count_of(factory), ())
    assert report.dimension == (BITS if factory in BINARY else DIMENSION)
    assert report.kind == {**FLOAT, **BINARY}[factory]
    assert report.size == len(data)
    assert reader.given == 0
    assert [start for start, _ in reader.ranges] == [0]
    assert sum(length for _, length in reader.ranges) <= 64


@pytest.mark.parametrize("factory", ["IDMap2,Flat", "IVF2,PQ2x4", "HNSW4,Flat", "NSG4,Flat", "BHash2x2", "IDMap,BFlat"])
def test_a_whole_index_passes_the_thorough_look(factory, files):
    assert examine(COMPONENT, file_of(files, factory))[1] == ()


EVERY_BYTE = """
import json, os, runpy, sys, tempfile
sys.path[:0] = json.loads(sys.argv[1])
read = runpy.run_path(sys.argv[2])["read"]
bad = []
with tempfile.TemporaryFile(buffering=0) as file:
    def verdict(data, binary):
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), data, 0)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        try:
            return read(file.fileno(), len(data), binary=binary)[-1]["wrong"]
        except Exception as error:
            return [repr(error)]
    for name, binary, text in json.load(sys.stdin):
        data = bytes.fromhex(text)
        if verdict(data, binary):
            bad.append([name, "whole", verdict(data, binary)])
        # Every byte of a small file; of a large one every few, and every one near both ends.
        step = 1 + len(data) // 3_000
        ends = {*range(4, len(data), step), *range(4, min(300, len(data))), *range(max(4, len(data) - 300), len(data))}
        bad += [[name, "cut", end] for end in sorted(ends) if not verdict(data[:end], binary)]
        bad += [[name, "longer", extra] for extra in (1, 8, 5000) if not verdict(data + bytes(extra), binary)]
json.dump(bad, sys.stdout)
"""


def test_a_cut_at_any_byte_and_anything_added_are_noticed_for_every_type(files):
    wanted = [[name, name in BINARY, data.hex()] for name, data in files.items()]
    done = subprocess.run(
        [sys.executable, "-c", EVERY_BYTE, json.dumps(sys.path), str(PACKAGE / "_faiss_child.py")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("factory", ["Flat", "IVF2,PQ2x4", "HNSW4,Flat", "BIVF2"])
@pytest.mark.parametrize("part", [0, 3, 4, 12, 40, 0.5, -1])
def test_a_file_that_was_cut_off_is_damaged(factory, part, files):
    data = file_of(files, factory)
    end = int(len(data) * part) if isinstance(part, float) else part % len(data) if part else 0
    _report, problems = examine(COMPONENT, data[:end])
    assert only(problems).paths == ("index.bin",)


def test_a_flat_index_of_the_wrong_size_is_noticed_without_faiss(files):
    report = inspect(COMPONENT, files["Flat"][:-4])
    assert (report.count, report.dimension) == (COUNT, DIMENSION)
    size = len(files["Flat"])
    assert f"expected {size} bytes" in only(report.problems).message
    assert f"found {size - 4} bytes: it was cut off" in only(report.problems).message
    assert "something was added" in only(inspect(COMPONENT, files["BFlat"] + b"\0").problems).message


def test_a_metric_with_an_argument_makes_the_header_longer():
    index = faiss.IndexFlat(DIMENSION, faiss.METRIC_Lp)
    index.metric_arg = 3
    index.add(np.zeros((5, DIMENSION), dtype=np.float32))
    report, problems = examine(COMPONENT, faiss.serialize_index(index).tobytes())
    assert (report.count, report.kind, problems) == (5, "IndexFlat", ())


def test_an_empty_index_counts_nothing_and_is_healthy():
    report, problems = examine(COMPONENT, faiss.serialize_index(faiss.IndexFlatIP(3)).tobytes())
    assert (report.count, report.dimension, report.kind, problems) == (0, 3, "IndexFlatIP", ())


def test_equal_vectors_kept_once_are_no_damage():
    index = faiss.index_factory(DIMENSION, "IVF1,FlatDedup")
    vectors = np.ones((50, DIMENSION), dtype=np.float32)
    index.train(vectors)
    index.add(vectors)
    report, problems = examine(COMPONENT, faiss.serialize_index(index).tobytes())
    assert (report.count, problems) == (50, ())


def test_lists_that_are_kept_in_another_file_are_opened_read_only(tmp_path):
    index = faiss.index_factory(DIMENSION, "IVF2,Flat")
    vectors = np.random.default_rng(1).normal(size=(MANY, DIMENSION)).astype(np.float32)
    index.train(vectors)
    lists = faiss.OnDiskInvertedLists(2, DIMENSION * 4, str(tmp_path / "lists.bin"))
    index.replace_invlists(lists)
    index.add(vectors)
    data = faiss.serialize_index(index).tobytes()
    (tmp_path / "lists.bin").chmod(0o400)
    before = (tmp_path / "lists.bin").stat()
    report, problems = examine(COMPONENT, data)
    assert (report.count, problems) == (MANY, ())
    after = (tmp_path / "lists.bin").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    (tmp_path / "lists.bin").unlink()
    assert "lists.bin" in only(examine(COMPONENT, data)[1]).message


def test_ids_that_are_fewer_than_the_vectors_are_damage(files):
    data = files["IDMap,Flat"]
    ids = COUNT * 8
    short = data[: -ids - 8] + struct.pack("<q", COUNT - 1) + data[-ids:-8]
    assert only(examine(COMPONENT, short)[1]).message


def test_a_wrapper_that_states_another_count_than_its_content_is_damage(files):
    data = files["IDMap2,Flat"]
    assert struct.unpack_from("<q", data, 8) == (COUNT,)
    report, problems = examine(COMPONENT, data[:8] + struct.pack("<q", COUNT + 1) + data[16:])
    assert report.count == COUNT + 1
    assert problems
    assert all(problem.code == "damaged" for problem in problems)


def test_lists_that_hold_fewer_vectors_than_the_header_says_are_damage(files):
    data = files["IVF2,Flat"]
    report, problems = examine(COMPONENT, data[:8] + struct.pack("<q", COUNT + 7) + data[16:])
    assert report.count == COUNT + 7
    assert f"expected {COUNT + 7} vectors in the lists of IndexIVFFlat, found {COUNT}" in only(problems).message


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"IxF", b"PK\x03\x04" + bytes(80), b"null", b"[{}]"])
def test_what_is_no_index_is_damaged_and_counts_nothing(content):
    report = inspect(COMPONENT, content)
    assert report.count is None
    assert only(report.problems)
    assert examine(COMPONENT, content)[1] == report.problems


@pytest.mark.parametrize(("dimension", "count"), [(-1, 5), (1 << 30, 5), (8, -1), (8, 1 << 62)])
def test_numbers_that_cannot_be_are_damage(dimension, count):
    header = b"IwFl" + struct.pack("<iqqqBi", dimension, count, 1 << 20, 1 << 20, 1, 1)
    assert only(examine(COMPONENT, header + bytes(200))[1])


def test_lengths_that_no_memory_can_hold_are_damage(files):
    data = files["IVF2,PQ2x4"]
    at = data.index(b"ilar") + 4
    assert only(examine(COMPONENT, data[:at] + struct.pack("<q", 1 << 50) + data[at + 8 :])[1])


def test_a_time_limit_that_runs_out_is_a_finding(files):
    _report, problems = examine(Faiss("index.bin", timeout=1e-9), files["HNSW4,Flat"])
    assert "took longer than 1e-09 seconds" in only(problems).message


@pytest.mark.parametrize("path", ["", "/index.bin", "../index.bin", "*.bin"])
def test_a_path_that_is_no_single_file_below_the_store_is_refused(path):
    with pytest.raises(ConfigurationError):
        Faiss(path)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_limit_that_cannot_be_met_is_refused(timeout):
    with pytest.raises(ConfigurationError, match="timeout"):
        Faiss("index.bin", timeout=timeout)


def test_every_code_has_four_letters_and_a_class():
    assert len(KINDS) > 80
    assert all(len(code) == 4 for code in KINDS)
