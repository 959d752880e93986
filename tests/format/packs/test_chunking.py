"""Cutting: chunks cover the content exactly, the same bytes are cut alike, and what was moved is found again."""

from __future__ import annotations

import functools
import itertools

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import chunks, noise, pieces

from novabackup.format.packs import Chunker, find_regions
from novabackup.format.packs.chunking import LARGEST_CHUNK
from novabackup.format.packs.regions import REGION

DIMENSION = 32
KINDS = ["Flat", "IVF16,Flat", "IVF16,PQ8x4", "IVF16,SQfp16", "HNSW8", "IDMap,Flat", "PQ8x4", "OPQ8,IVF16,PQ8x4"]


@functools.cache
def index(kind: str, count: int) -> bytes:
    """Give the file of an index of the first so many vectors."""
    rows = np.random.default_rng(1).normal(size=(20_200, DIMENSION)).astype(np.float32)
    made = faiss.index_factory(DIMENSION, kind)
    made.train(rows[:1000])
    if kind.startswith("IDMap"):
        made.add_with_ids(rows[:count], np.arange(count))
    else:
        made.add(rows[:count])
    return faiss.serialize_index(made).tobytes()


def split(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(content)) for place in places} | {0, len(content)})
    return [content[start:end] for start, end in itertools.pairwise(ends)]


@given(
    content=st.integers(0, 400_000).map(noise) | st.binary(max_size=3000),
    places=st.lists(st.integers(0, 400_000), max_size=6),
)
def test_chunks_are_the_content_and_do_not_depend_on_how_it_was_read(content, places):
    found = chunks(pieces(content, split(content, places)))
    assert b"".join(found) == content
    assert all(0 < len(chunk) <= LARGEST_CHUNK for chunk in found)
    assert found == chunks(pieces(content))


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_cut_alike_however_it_was_read(kind):
    content = index(kind, 6000)
    whole = chunks(pieces(content))
    assert b"".join(whole) == content
    for size in (997, 10_000, 1 << 16):
        assert chunks(pieces(content, split(content, list(range(size, len(content), size))))) == whole


_region = st.tuples(st.integers(0, 3000), st.integers(1, 60_000), st.integers(1, 5000), st.booleans())


@settings(max_examples=60)
@given(
    layout=st.lists(_region, max_size=5),
    behind=st.integers(0, 3000),
    places=st.lists(st.integers(0, 400_000), max_size=6),
    aim=st.sampled_from([64, 1024, 4096, 32 << 10]),
    filling=st.sampled_from([noise, bytes]),
)
def test_any_layout_is_covered_exactly(layout, behind, places, aim, filling):
    rows, at = [], 0
    for gap, length, record, fixed in layout:
        rows.append((at + gap, at + gap + length, record, 1 + 3 * fixed, fixed, aim))
        at += gap + length
    content = filling(at + behind)
    whole = Chunker(len(content), np.array(rows, REGION))
    blocks = Chunker(len(content), np.array(rows, REGION))
    found = chunks(whole.feed(content))
    assert b"".join(found) == content
    assert found == [chunk for block in split(content, places) for chunk in chunks(blocks.feed(block))]
    ends = set(itertools.accumulate(map(len, found)))
    assert all(start in ends or start == 0 for start, *_ in rows)
    assert all(end in ends for _, end, *_ in rows)


def test_cuts_lie_between_records():
    rows = [(10, 10 + 70 * 3000, 70, 1, False, 1024)]
    content = noise(10 + 70 * 3000 + 5)
    ends = list(
        itertools.accumulate(
            len(chunk) for chunk in chunks(Chunker(len(content), np.array(rows, REGION)).feed(content))
        )
    )
    inside = [end for end in ends if 10 <= end <= 10 + 70 * 3000]
    assert all((end - 10) % 70 == 0 for end in inside)
    assert 0.5 < 70 * 3000 / len(inside) / 1024 < 2


def test_an_insertion_changes_only_the_chunks_around_it():
    before = noise(1_000_000)
    after = before[:300_000] + b"something new" + before[300_000:]
    old = set(chunks(pieces(before)))
    new = [chunk for chunk in chunks(pieces(after)) if chunk not in old]
    assert sum(map(len, new)) < 3 * LARGEST_CHUNK


def new_bytes(before: bytes, after: bytes) -> int:
    old = set(chunks(pieces(before)))
    return sum(len(chunk) for chunk in set(chunks(pieces(after))) - old)


@pytest.mark.parametrize(
    ("kind", "share"), [("Flat", 0.1), ("IVF16,Flat", 0.15), ("IVF16,PQ8x4", 0.2), ("IDMap,Flat", 0.1)]
)
def test_an_index_that_grew_by_one_percent_shares_most_with_what_it_was(kind, share):
    # These indexes are small, so that the last chunk of each list weighs more than in real ones.
    before, after = index(kind, 20_000), index(kind, 20_200)
    assert new_bytes(before, after) < share * len(after)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(skips=st.lists(st.tuples(st.integers(0, 90_000), st.integers(1, 50_000)), max_size=4))
def test_parts_that_are_known_can_be_passed_over_anywhere(kind, skips):
    content = memoryview(index(kind, 2000))
    layout = find_regions(len(content), lambda start, length: bytes(content[start : start + length]))
    chunker, at, found = Chunker(len(content), layout), 0, b""
    for length, skip in [*skips, (len(content), 0)]:
        skipped = max(0, min(skip, len(content) - at - length))
        found += b"".join(chunks(chunker.feed(content[at : at + length])))
        found += b"".join(chunks(chunker.skip(skipped))) + content[at + length : at + length + skipped]
        at = min(at + length + skipped, len(content))
    assert found == content


def test_after_a_part_that_was_passed_over_cuts_lie_between_records_again():
    rows = [(0, 70 * 3000, 70, 1, False, 1024)]
    content = noise(70 * 3000)
    chunker = Chunker(len(content), np.array(rows, REGION))
    assert chunks(chunker.skip(10_001)) == []
    found = chunks(chunker.feed(content[10_001:]))
    ends = list(itertools.accumulate(map(len, found), initial=10_001))[1:]
    assert all(end % 70 == 0 for end in ends)


def test_vectors_are_found_again_when_others_were_removed():
    rows = np.random.default_rng(1).normal(size=(20_000, DIMENSION)).astype(np.float32)
    made = faiss.IndexFlatL2(DIMENSION)
    made.add(rows)
    before = faiss.serialize_index(made).tobytes()
    made.remove_ids(np.array([7, 11_000]))
    assert new_bytes(before, faiss.serialize_index(made).tobytes()) < 0.2 * len(before)
