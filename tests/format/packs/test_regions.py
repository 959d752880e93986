"""Records of FAISS files: found where faiss itself says that they are, and nowhere in files that lie."""

from __future__ import annotations

import functools
import itertools
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novabackup.components._faiss_fourcc import KINDS
from novabackup.format.packs.regions import _INDEXES, REGION, find_regions

DIMENSION = 16
WIDE = 160
"""A dimension of which vectors of floats are long codes."""
TRAINED = 1000
"""Vectors that are trained with: of four hundred, faiss crashes for RQ2x4_Ncqint8."""
COUNT = 400
FEW = 30
MORE = 150
FIRST_ID = 5000

MOST_READS = 96
WINDOW = 4096
LARGEST_TABLE = 16 << 20
"""Sizes of a million sparse lists, each with its number."""

ARRAY = 32 << 10
LINKS = 4 << 10


def scalar(kind: int) -> Callable[[], faiss.Index]:
    return lambda: faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(DIMENSION), DIMENSION, 8, kind)


def own_quantizer(factory: str) -> faiss.Index:
    inner = faiss.index_factory(8, factory)
    return faiss.IndexIVFIndependentQuantizer(faiss.IndexFlatL2(DIMENSION), inner, faiss.PCAMatrix(DIMENSION, 8))


def mapped_directly(kind: int) -> faiss.Index:
    index = faiss.index_factory(DIMENSION, "IVF8,Flat")
    index.set_direct_map_type(kind)
    return index


def without_lists() -> faiss.Index:
    index = faiss.index_factory(DIMENSION, "IVF8,Flat")
    index.train(vectors(TRAINED))
    index.replace_invlists(None, False)
    return index


FACTORIES = [
    "Flat",
    "IDMap,Flat",
    "IDMap2,Flat",
    "IDMap,IVF8,Flat",
    "IDMap2,HNSW8,Flat",
    "SQ8",
    "SQ4",
    "SQ6",
    "SQfp16",
    "SQbf16",
    "PQ4x4np",
    "PQ4x4fs",
    "IVF8,Flat",
    "IVF200,Flat",
    "IVF200,SQ8",
    "IVF8,FlatDedup",
    "IVF8,SQ8",
    "IVF8,SQfp16",
    "IVF8,SQbf16",
    "IVF8,PQ4x4np",
    "IVF8,PQ4x4fs",
    "IVF8,RQ2x4",
    "IVF8,LSQ2x4",
    "IVF8,RaBitQ",
    "IVF8,RaBitQ4",
    "IVF8,ITQ8,SH2",
    "IVF8_HNSW4,Flat",
    "IVF8,PQ4x4fs,RFlat",
    "IMI2x2,Flat",
    "Residual2x2,PQ4x4",
    "HNSW8,Flat",
    "HNSW4,SQ8",
    "HNSW4,SQfp16",
    "HNSW4,PQ4x4np",
    "PCA8,Flat",
    "PCAW8,IVF8,Flat",
    "PCAR8,HNSW4,Flat",
    "OPQ2,IVF8,PQ4x4np",
    "RR,Flat",
    "HR,Flat",
    "Pad24,Flat",
    "L2norm,Flat",
    "ITQ8,LSH",
    "LSHrt",
    "LSH",
    "IVF8,SQ8,RFlat",
    "PQ4x4np,RFlat",
    "Flat,Refine(SQ8)",
    "RQ2x4",
    "RQ2x4_Nqint8",
    "RQ2x4_Ncqint8",
    "RQ2x4_Nrq2x4",
    "LSQ2x4",
    "LSQ2x4_Nlsq2x4",
    "RaBitQ",
    "RaBitQ4",
]
BINARY_FACTORIES = ["BFlat", "BIVF8", "BIVF200", "BIVF8_HNSW4", "BHNSW8"]

BUILT: dict[str, Callable[[], faiss.Index]] = {
    **{name: functools.partial(faiss.index_factory, DIMENSION, name) for name in FACTORIES},
    "inner product": lambda: faiss.IndexFlatIP(DIMENSION),
    "metric with an argument": lambda: faiss.index_factory(DIMENSION, "HNSW4,Flat", faiss.METRIC_Lp),
    "long vectors": lambda: faiss.index_factory(WIDE, "IVF8,Flat"),
    "codes of no bits": scalar(faiss.ScalarQuantizer.QT_0bit),
    "codes of whole bytes": scalar(faiss.ScalarQuantizer.QT_8bit_direct),
    "map in an array": lambda: mapped_directly(faiss.DirectMap.Array),
    "IVF without lists": without_lists,
    "IVFPQR": lambda: faiss.IndexIVFPQR(faiss.IndexFlatL2(DIMENSION), DIMENSION, 8, 4, 4, 4, 4),
    "own quantizer of Flat": lambda: own_quantizer("IVF8,Flat"),
    "own quantizer of PQ": lambda: own_quantizer("IVF8,PQ4x4np"),
    "centred": lambda: faiss.IndexPreTransform(faiss.CenteringTransform(DIMENSION), faiss.IndexFlatL2(DIMENSION)),
    "HNSW2Level": lambda: faiss.index_factory(DIMENSION, "HNSW4,2+PQ2"),
    "HNSW of anything": lambda: faiss.IndexHNSW(faiss.IndexFlatL2(DIMENSION), 8),
    "HNSWCagra": lambda: faiss.IndexHNSWCagra(DIMENSION, 8),
    "NNDescent": lambda: faiss.IndexNNDescentFlat(DIMENSION, 8),
    **{name: functools.partial(faiss.index_binary_factory, DIMENSION * 8, name) for name in BINARY_FACTORIES},
    "binary HNSWCagra": lambda: faiss.IndexBinaryHNSWCagra(DIMENSION * 8, 8),
    "binary IDMap": lambda: faiss.IndexBinaryIDMap(faiss.IndexBinaryFlat(DIMENSION * 8)),
    "binary IDMap2": lambda: faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(DIMENSION * 8)),
    "binary from floats": lambda: faiss.IndexBinaryFromFloat(faiss.IndexFlatL2(DIMENSION * 8)),
}
GROWING = [kind for kind in BUILT if kind not in ("NNDescent", "IVF without lists")]
"""Those that vectors can be added to more than once."""
UNKNOWN = ["NSG8,Flat", "FlatL2Panorama2", "RQ2x4fs_Nrq2x4", "PRQ2x1x4"]


def vectors(count: int, dimension: int = DIMENSION, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def is_binary(index) -> bool:
    return isinstance(index, faiss.IndexBinary)


def vectors_for(index, count: int, seed: int = 1) -> np.ndarray:
    if is_binary(index):
        return np.random.default_rng(seed).integers(0, 256, size=(count, index.d // 8), dtype=np.uint8)
    return vectors(count, index.d, seed)


def add(index, count: int, seed: int = 1) -> None:
    new = vectors_for(index, count, seed)
    if "IDMap" in type(index).__name__:
        index.add_with_ids(new, np.arange(count) + FIRST_ID + index.ntotal)
    else:
        index.add(new)


def serialised(index) -> bytes:
    return (faiss.serialize_index_binary if is_binary(index) else faiss.serialize_index)(index).tobytes()


@functools.cache
def built(kind: str):
    """Make an index that nobody may change."""
    faiss.omp_set_num_threads(1)
    index = BUILT[kind]()
    if isinstance(index, faiss.IndexPreTransform) and "OPQ" in kind:
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 1
    index.train(vectors_for(index, TRAINED))
    if kind != "IVF without lists":
        # Few vectors leave most of two hundred lists empty, so only those that are not are written.
        add(index, FEW if "IVF200" in kind else COUNT)
    return index


@functools.cache
def file_of(kind: str) -> bytes:
    return serialised(built(kind))


def read_again(kind: str):
    """Give an index to change, as an ingestion does: from its file."""
    data = np.frombuffer(file_of(kind), np.uint8)
    return (faiss.deserialize_index_binary if is_binary(built(kind)) else faiss.deserialize_index)(data)


# -- what faiss says is in an index


class Records(NamedTuple):
    """An array of an index, and how its region ought to be described."""

    data: bytes
    record: int
    width: int
    fixed: bool = False
    aim: int = ARRAY


def array(vector, record: int = 4, width: int = 4, fixed: bool = False, aim: int = ARRAY) -> Iterator[Records]:
    data = faiss.vector_to_array(vector).tobytes()
    if data:
        yield Records(data, record, width, fixed, aim)


def records(index) -> Iterator[Records]:
    """Give all arrays that an index holds in memory, in the order of its file."""
    index = (faiss.downcast_IndexBinary if is_binary(index) else faiss.downcast_index)(index)
    name = type(index).__name__
    if name in ("IndexFlat", "IndexFlatL2", "IndexFlatIP"):
        yield from array(index.codes, 4 * index.d)
    elif name == "IndexBinaryFlat":
        yield from array(index.xb, index.code_size, 1)
    elif name == "IndexBinaryFromFloat":
        yield from records(index.index)
    elif "IDMap" in name:
        yield from records(index.index)
        yield from array(index.id_map, 8, 8)
    elif name == "IndexPreTransform":
        for number in range(index.chain.size()):
            yield from transform(index.chain.at(number))
        yield from records(index.index)
    elif isinstance(index, faiss.IndexRefine):
        yield from records(index.base_index)
        yield from records(index.refine_index)
    elif name == "IndexLSH":
        yield from transform(index.rrot)
        yield from array(index.codes, index.code_size, 1)
    elif name == "IndexScalarQuantizer":
        yield from array(index.codes, index.code_size, width_of(index.sq))
    elif name == "IndexPQ":
        yield from centroids(index.pq)
        yield from array(index.codes, index.code_size, 1)
    elif name == "IndexPQFastScan":
        yield from centroids(index.pq)
        yield from array(index.codes, 32 * index.M2 // 2, 1)
    elif name == "MultiIndexQuantizer":
        yield from centroids(index.pq)
    elif name == "Index2Layer":
        yield from records(index.q1.quantizer)
        yield from centroids(index.pq)
        yield from array(index.codes, index.code_size, 1)
    elif name in ("IndexResidualQuantizer", "IndexLocalSearchQuantizer"):
        yield from codebooks(index.lsq if "Local" in name else index.rq)
        yield from array(index.codes, index.code_size, 1)
    elif name == "ResidualCoarseQuantizer":
        yield from codebooks(index.rq)
    elif name == "IndexRaBitQ":
        yield from array(index.codes, index.code_size, 1)
    elif "HNSW" in name:
        yield from graph(index.hnsw)
        yield from records(index.storage)
    elif name == "IndexNNDescentFlat":
        yield from array(index.nndescent.final_graph, 4 * index.nndescent.K, 4, fixed=True, aim=LINKS)
        yield from records(index.storage)
    elif name == "IndexIVFIndependentQuantizer":
        yield from records(index.quantizer)
        yield from transform(index.vt)
        yield from records(index.index_ivf)
    else:
        yield from inverted_file(index)


def inverted_file(index) -> Iterator[Records]:
    name = type(index).__name__
    yield from records(index.quantizer)
    yield from array(index.direct_map.array, 8, 8)
    width = 4 if "Flat" in name and not is_binary(index) else 1
    if "PQ" in name:
        yield from centroids(index.pq)
    elif name == "IndexIVFScalarQuantizer":
        width = width_of(index.sq)
    elif name in ("IndexIVFResidualQuantizer", "IndexIVFLocalSearchQuantizer"):
        yield from codebooks(index.lsq if "Local" in name else index.rq)
    elif name == "IndexIVFSpectralHash":
        yield from transform(index.vt)
    else:
        assert name in ("IndexIVFFlat", "IndexIVFFlatDedup", "IndexIVFRaBitQ", "IndexBinaryIVF")
    if index.invlists is not None:
        yield from inverted_lists(faiss.downcast_InvertedLists(index.invlists), width)
    if name == "IndexIVFPQR":
        yield from centroids(index.refine_pq)
        yield from array(index.refine_codes, index.refine_pq.code_size, 1)


def inverted_lists(lists, width: int) -> Iterator[Records]:
    blocks = isinstance(lists, faiss.BlockInvertedLists)
    for number in range(lists.nlist):
        count = lists.list_size(number)
        if not count:
            continue
        ids = Records(faiss.rev_swig_ptr(lists.get_ids(number), count).tobytes(), 8, 8, aim=1 << 10)
        record = lists.block_size if blocks else lists.code_size
        size = record * (-(-count // lists.n_per_block) if blocks else count)
        aim = 4 << 10 if record >= 512 else 1 << 10
        codes = Records(faiss.rev_swig_ptr(lists.get_codes(number), size).tobytes(), record, width, aim=aim)
        if not size:
            yield ids
        else:
            yield from (ids, codes) if blocks else (codes, ids)


def graph(hnsw) -> Iterator[Records]:
    yield from array(hnsw.levels, 4, 4, fixed=True)
    yield from array(hnsw.offsets, 8, 8)
    yield from array(hnsw.neighbors, 4 * hnsw.nb_neighbors(0), 4, fixed=True, aim=LINKS)


def width_of(quantizer) -> int:
    return 2 if quantizer.qtype in (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16) else 1


def centroids(quantizer) -> Iterator[Records]:
    yield from array(quantizer.centroids, 4 * quantizer.dsub)


def codebooks(quantizer) -> Iterator[Records]:
    yield from array(quantizer.codebooks, 4 * quantizer.d)
    search = quantizer.search_type
    tables = (faiss.AdditiveQuantizer.ST_norm_lsq2x4, faiss.AdditiveQuantizer.ST_norm_rq2x4)
    if search in (faiss.AdditiveQuantizer.ST_norm_cqint8, faiss.AdditiveQuantizer.ST_norm_cqint4, *tables):
        yield from array(quantizer.qnorm.codes)
    if search in tables:
        yield from array(quantizer.norm_tabs)


def transform(step) -> Iterator[Records]:
    step = faiss.downcast_VectorTransform(step)
    if isinstance(step, faiss.ITQTransform):
        yield from array(step.mean)
        yield from transform(step.itq)
        yield from transform(step.pca_then_itq)
    elif isinstance(step, faiss.RemapDimensionsTransform):
        yield from array(step.map)
    elif isinstance(step, faiss.CenteringTransform):
        yield from array(step.mean)
    elif isinstance(step, faiss.LinearTransform):
        if isinstance(step, faiss.PCAMatrix):
            yield from array(step.mean)
            yield from array(step.eigenvalues)
            yield from array(step.PCAMat)
        yield from array(step.A)
        yield from array(step.b)


# -- what is found


class Found(NamedTuple):
    regions: np.ndarray
    reads: list[int]


def look(size: int, read: Callable[[int, int], bytes]) -> Found:
    """Find regions, and hold the finder to all that it promises of any file."""
    reads: list[int] = []

    def noting(start: int, length: int) -> bytes:
        assert 0 <= start < start + length <= size, "asked for bytes outside the file"
        reads.append(length)
        return read(start, length)

    regions = find_regions(size, noting)
    assert len(reads) <= MOST_READS
    assert sum(length for length in reads if length > WINDOW) <= min(size, LARGEST_TABLE)
    assert regions.dtype == REGION
    start, end, record = (regions[name] for name in ("start", "end", "record"))
    assert np.all(start < end)
    assert np.all(record > 0)
    assert np.all(end[:-1] <= start[1:])
    assert len(regions) == 0 or (start[0] > 0 and end[-1] <= size)
    assert np.all((end - start)[~regions["fixed"]] % record[~regions["fixed"]] == 0)
    assert np.all((end - start) % regions["width"] == 0)
    assert np.all(record % regions["width"] == 0)
    assert np.all(np.isin(regions["aim"], [1 << 10, 4 << 10, 32 << 10]))
    return Found(regions, reads)


def regions_of(data: bytes) -> np.ndarray:
    return look(len(data), lambda start, length: data[start : start + length]).regions


def described(data: bytes, regions: np.ndarray) -> list[Records]:
    return [
        Records(data[start:end], record, width, fixed, aim)
        for start, end, record, width, fixed, aim in regions.tolist()
    ]


@functools.cache
def places_of_numbers(kind: str) -> list[int]:
    """Give the offsets of all bytes that say how the file goes on: those in no region."""
    data = file_of(kind)
    inside = np.zeros(len(data), bool)
    for start, end in regions_of(data)[["start", "end"]].tolist():
        inside[start:end] = True
    return np.flatnonzero(~inside).tolist()


@pytest.mark.parametrize("kind", BUILT)
def test_every_array_of_an_index_is_a_region_of_its_own_record(kind):
    data = file_of(kind)
    assert described(data, regions_of(data)) == list(records(built(kind)))


@pytest.mark.parametrize("kind", GROWING)
def test_an_index_that_has_grown_is_recognised_again(kind):
    index = read_again(kind)
    add(index, MORE, seed=2)
    data = serialised(index)
    assert len(data) > len(file_of(kind))
    assert described(data, regions_of(data)) == list(records(index))


@pytest.mark.parametrize("kind", BUILT)
def test_nearly_all_bytes_lie_in_regions_that_few_reads_find(kind):
    data = file_of(kind)
    found = look(len(data), lambda start, length: data[start : start + length])
    covered = int(np.sum(found.regions["end"] - found.regions["start"]))
    # The sizes of lists and what quantizers learned weigh something where there are few vectors.
    assert len(data) - covered < max(0.02 * len(data), 2200)
    assert covered > len(data) / 2 or kind == "IVF without lists"
    assert len(found.reads) <= 8


def test_no_kind_is_recognised_that_was_not_compared_with_faiss():
    files = [file_of(kind) for kind in BUILT]
    assert [code for code in _INDEXES if not any(code.encode() in data for data in files)] == []


def test_vectors_ids_and_links_are_where_they_were_put():
    data = file_of("IDMap2,HNSW8,Flat")
    by_place = described(data, regions_of(data))
    levels, offsets, links, flat, ids = (np.frombuffer(each.data, f"<i{each.width}") for each in by_place)
    assert flat.view("<f4").reshape(-1, DIMENSION).tolist() == vectors(COUNT).tolist()
    assert ids.tolist() == list(range(FIRST_ID, FIRST_ID + COUNT))
    # Nodes on one level have sixteen links, and each link more than one level up has eight more.
    assert np.diff(offsets).tolist() == [8 + 8 * level for level in levels.tolist()]
    assert len(links) == offsets[-1]
    assert links.min() == -1
    assert links.max() == COUNT - 1


def test_a_sparse_file_is_one_where_lists_are_written_with_their_numbers():
    assert b"sprs" in file_of("IVF200,Flat")
    assert b"sprs" not in file_of("IVF8,Flat")
    assert b"full" in file_of("IVF8,Flat")


def test_long_codes_are_cut_more_coarsely_than_their_ids():
    regions = regions_of(file_of("long vectors"))
    lists = regions[regions["aim"] < ARRAY]
    assert set(lists[["record", "aim"]].tolist()) == {(4 * WIDE, 4 << 10), (8, 1 << 10)}


def test_the_hash_table_of_ids_is_a_region_of_pairs():
    index = mapped_directly(faiss.DirectMap.Hashtable)
    index.train(vectors(TRAINED))
    # Without ids, faiss 1.15 keeps the wrong ones there.
    index.add_with_ids(vectors(COUNT), np.arange(COUNT))
    data = serialised(index)
    table, *others = [each for each in described(data, regions_of(data)) if each.record == 16]
    assert (others, table.width, table.aim) == ([], 8, ARRAY)
    pairs = np.frombuffer(table.data, "<i8").reshape(-1, 2)
    assert sorted(pairs[:, 0].tolist()) == list(range(COUNT))
    for number, place in pairs.tolist():
        assert faiss.rev_swig_ptr(index.invlists.get_ids(place >> 32), COUNT)[place & 0xFFFFFFFF] == number


def test_the_table_of_equal_vectors_is_a_region_of_pairs():
    index = read_again("IVF8,FlatDedup")
    index.add(vectors(FEW))
    data = serialised(index)
    table, *others = [each for each in described(data, regions_of(data)) if each.record == 16]
    assert (others, table.width) == ([], 8)
    pairs = np.frombuffer(table.data, "<i8").reshape(-1, 2)
    assert sorted(pairs.tolist()) == [[number, COUNT + number] for number in range(FEW)]


def test_a_graph_without_its_vectors_is_recognised(tmp_path):
    path = tmp_path / "graph.bin"
    index = built("HNSW8,Flat")
    faiss.write_index(index, str(path), faiss.IO_FLAG_SKIP_STORAGE)
    data = path.read_bytes()
    assert data.endswith(b"null")
    assert described(data, regions_of(data)) == list(graph(index.hnsw))


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF8,Flat", "IVF8,PQ4x4fs", "HNSW8,Flat", "IDMap,Flat", "BIVF8", "BHNSW8"]
)
def test_an_index_without_vectors_has_no_regions_of_any(factory):
    make = faiss.index_binary_factory if factory.startswith("B") else faiss.index_factory
    data = serialised(make(DIMENSION, factory))
    # Only the first offset of a graph, and centroids that were not trained yet.
    assert sum(end - start for start, end in regions_of(data)[["start", "end"]].tolist()) in (0, 8, 4 * 16 * DIMENSION)


@pytest.mark.parametrize("factory", UNKNOWN)
def test_other_kinds_are_left_to_the_generic_cutter(factory):
    index = faiss.index_factory(DIMENSION, factory)
    index.train(vectors(TRAINED))
    index.add(vectors(COUNT))
    assert len(regions_of(serialised(index))) == 0


def test_lists_in_another_file_are_not_recognised(tmp_path):
    index = read_again("IVF8,Flat")
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(tmp_path / "lists"))
    lists.merge_from_1(index.invlists)
    index.replace_invlists(lists, False)
    assert len(regions_of(serialised(index))) == 0


def test_lists_whose_sizes_would_take_too_many_reads_are_not_recognised():
    # Lists of blocks have their sizes between them, so each takes a read of its own.
    index = faiss.index_factory(DIMENSION, "IVF128,PQ4x4fs")
    index.train(vectors(TRAINED))
    few = serialised(index)
    assert len(regions_of(few)) > 0
    index.add(vectors(60_000))
    assert len(regions_of(serialised(index))) == 0


# -- what is no index, or none any more


def test_an_empty_file_is_not_read():
    assert look(0, lambda start, length: pytest.fail("read")).reads == []


@given(data=st.binary(min_size=1, max_size=64), size=st.integers(64, 1 << 50))
@settings(deadline=None, max_examples=50)
def test_any_other_file_is_left_after_one_small_read(data, size):
    data = b"\0" + data
    found = look(size, lambda start, length: data.ljust(length, b"\1"))
    assert len(found.regions) == 0
    assert found.reads == [min(WINDOW, size)]


@pytest.mark.parametrize("kind", ["Flat", "IVF8,Flat", "IDMap2,HNSW8,Flat", "IVF8,PQ4x4fs,RFlat", "BIVF8"])
def test_a_file_that_changed_while_it_was_read_is_not_recognised(kind):
    data = file_of(kind)
    for end in (0, 1, 40):
        found = look(len(data), lambda start, length: data[start : min(start + length, end)])
        assert len(found.regions) == 0


@given(kind=st.sampled_from(list(BUILT)), part=st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=200)
def test_a_file_that_was_cut_off_is_not_recognised(kind, part):
    data = file_of(kind)
    assert len(regions_of(data[: int(part * len(data))])) == 0


@given(kind=st.sampled_from(list(BUILT)), added=st.binary(min_size=1, max_size=100))
@settings(deadline=None, max_examples=50)
def test_a_file_that_something_was_added_to_is_not_recognised(kind, added):
    assert len(regions_of(file_of(kind) + added)) == 0


@given(kind=st.sampled_from(list(BUILT)), choose=st.randoms(use_true_random=False), count=st.integers(1, 8))
@settings(deadline=None, max_examples=300)
def test_headers_with_changed_bytes_keep_every_promise(kind, choose, count):
    data = bytearray(file_of(kind))
    for _ in range(count):
        data[choose.choice(places_of_numbers(kind))] = choose.randrange(256)
    regions_of(bytes(data))


HUGE = [2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1]


@given(kind=st.sampled_from(list(BUILT)), choose=st.randoms(use_true_random=False), huge=st.sampled_from(HUGE))
@settings(deadline=None, max_examples=300)
def test_huge_numbers_in_headers_keep_every_promise(kind, choose, huge):
    data = bytearray(file_of(kind))
    place = choose.choice(places_of_numbers(kind)[4:])
    data[place : place + 8] = struct.pack("<Q", huge)
    regions_of(bytes(data[: len(file_of(kind))]))


@given(
    kind=st.sampled_from(list(BUILT)),
    choose=st.randoms(use_true_random=False),
    huge=st.sampled_from(HUGE) | st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=100)
def test_huge_numbers_that_would_fit_keep_every_promise(kind, choose, huge):
    # Nearly all of a file of a terabyte is zeros, as in a sparse file.
    data = bytearray(file_of(kind))
    place = choose.choice(places_of_numbers(kind)[4:])
    data[place : place + 8] = struct.pack("<Q", huge)
    look(1 << 40, lambda start, length: bytes(data[start : start + length]).ljust(length, b"\0"))


@pytest.mark.parametrize(
    "kind",
    [
        "LSH",
        "IVF without vectors",
        "IVF200,Flat",
        "IVF8,PQ4x4fs",
        "HNSW8,Flat",
        "PCA8,Flat",
        "RQ2x4_Nrq2x4",
        "NNDescent",
    ],
)
def test_every_number_of_a_header_can_be_any_other(kind):
    whole = serialised(faiss.index_factory(DIMENSION, "IVF8,Flat")) if "without" in kind else file_of(kind)
    places = range(4, len(whole) - 8) if "without" in kind else places_of_numbers(kind)[4:300]
    for place, number in itertools.product(
        places, [struct.pack("<i", -16), *(struct.pack("<Q", n) for n in (0, 1 << 30, 2**64 - 1))]
    ):
        data = whole[:place] + number + whole[place + len(number) :]
        regions_of(data[: len(whole)])
        look(1 << 40, lambda start, length: data[start : start + length].ljust(length, b"\0"))


@given(magic=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32), size=st.integers(0, 6000), small=st.booleans())
@settings(deadline=None, max_examples=300)
def test_noise_behind_a_valid_code_keeps_every_promise(magic, seed, size, small):
    noise = random.Random(seed)
    # Small numbers lead further than noise does.
    rest = bytes(noise.choice((0, 0, 0, 0, 0, 0, 1, 2)) for _ in range(size)) if small else noise.randbytes(size)
    regions_of(magic + rest)


def test_nested_indexes_end_somewhere():
    head = struct.pack("<iqqq?i", DIMENSION, 0, 0, 0, True, 1)
    assert len(regions_of((b"IxRF" + head) * 10_000)) == 0
    assert len(regions_of(b"IxMp" + head + b"null" + bytes(8))) == 0
    assert len(regions_of(b"IxPT" + head + struct.pack("<i", 1) + (b"Viqt" + bytes(9)) * 10_000)) == 0


def lists_of_sizes(counts: np.ndarray, code_size: int) -> bytes:
    head = struct.pack("<iqqq?i", 4, 0, 0, 0, True, 1)
    quantizer = b"IxF2" + head + bytes(8)
    lists = b"ilar" + struct.pack("<QQ", len(counts), code_size) + b"full" + struct.pack("<Q", len(counts))
    return b"IwFl" + head + bytes(16) + quantizer + bytes(9) + lists + counts.astype("<u8").tobytes()


def test_a_million_lists_take_two_reads_and_little_memory():
    data = lists_of_sizes(np.ones(1 << 20), 16)
    size = len(data) + (16 + 8 << 20)
    found = look(size, lambda start, length: data[start : start + length])
    assert len(found.regions) == 2 << 20
    assert len(found.reads) == 2
    assert found.regions["end"][-1] == size
    tracemalloc.start()
    try:
        find_regions(size, lambda start, length: data[start : start + length])
        assert tracemalloc.get_traced_memory()[1] < 5 * found.regions.nbytes // 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "counts", [[2**64 - 1, 2], [2**63, 2**63, 1], [2**61 + 1], [2**62] * 4 + [1], [2**60] * 16 + [1]]
)
def test_sizes_of_lists_whose_sum_overflows_are_not_believed(counts):
    data = lists_of_sizes(np.array(counts, np.uint64), 16)
    # What wraps around leaves one vector of 16 bytes and its id.
    assert sum(counts) * 24 % 2**64 == 24
    for size in (len(data) + 24, 1 << 62):
        assert len(look(size, lambda start, length: data[start : start + length].ljust(length, b"\0")).regions) == 0


def test_codes_of_no_whole_words_are_not_recognised():
    data = bytearray(file_of("SQfp16"))
    place = 37 + 12 + 8
    assert struct.unpack_from("<Q", data, place) == (2 * DIMENSION,)
    data[place : place + 8] = struct.pack("<Q", 25)
    assert COUNT * 2 * DIMENSION % 25 == 0
    assert len(regions_of(bytes(data))) == 0
    for code_size, count in ((16, 1), (15, 0)):
        data = lists_of_sizes(np.ones(1), code_size) + bytes(code_size + 8)
        assert len(regions_of(bytes(data))) == 2 * count


def test_numbers_of_lists_that_do_not_rise_are_not_believed():
    data = file_of("IVF200,Flat")
    numbers = data.index(b"sprs") + 12
    first, second = struct.unpack_from("<QxxxxxxxxQ", data, numbers)
    for place, number in ((numbers, second), (numbers + 16, first), (numbers, 2**64 - 1), (numbers + 16, 200)):
        assert len(regions_of(data[:place] + struct.pack("<Q", number) + data[place + 8 :])) == 0


def test_lists_written_in_no_known_way_are_not_recognised():
    for known in (b"full", b"ilar"):
        data = file_of("IVF8,Flat")
        assert data.count(known) == 1
        assert len(regions_of(data.replace(known, b"what"))) == 0


def test_more_lists_than_any_index_has_are_not_read():
    head = lists_of_sizes(np.zeros(0), 16)[:-24]
    for count in (2**21, 2**31, 2**36):
        data = head[:-4] + struct.pack("<QQ", count, 16) + b"full" + struct.pack("<Q", count)
        found = look(1 << 40, lambda start, length: data[start : start + length].ljust(length, b"\0"))
        assert len(found.regions) == 0
        assert found.reads == [WINDOW]
