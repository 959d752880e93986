"""Scores are computed from the numbers in a pickle, without its classes, and are those that its own program gives."""

from __future__ import annotations

import math
import pickle
import tempfile

import numpy as np
import pytest
import rank_bm25
from hypothesis import given, settings
from hypothesis import strategies as st

from novabackup.components import _pickle_child

KINDS = [rank_bm25.BM25Okapi, rank_bm25.BM25L, rank_bm25.BM25Plus]
WORDS = ["brake", "oil", "belt", "lamp", "Öl"]
CORPUS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), min_size=1, max_size=12)


def ask(index: object, again=(), number=3, nearest=100, protocol=4) -> list[dict]:
    """Pickle an index, read it without its classes, and ask it."""
    with tempfile.TemporaryFile() as file:
        pickle.dump(index, file, protocol)
        file.flush()
        value, _classes, _found = _pickle_child.read(file.fileno(), 0, file.tell(), "bm25")
    return _pickle_child.ask(value, again=list(again), number=number, nearest=nearest)


def answers(probe: dict) -> dict[object, float]:
    return dict(zip(probe["ids"], map(float, probe["scores"]), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(CORPUS, st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=4))
def test_scores_are_those_of_rank_bm25(kind, corpus, words):
    index = kind(corpus)
    (probe,) = ask(index, [words])
    expected = {place: score for place, score in enumerate(index.get_scores(words)) if score}
    found = answers(probe)
    assert found.keys() == expected.keys()
    assert [found[one] for one in expected] == pytest.approx(list(expected.values()), rel=1e-8)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("numbers", [list, np.array, lambda values: np.array(values, "f4")])
def test_an_inverted_index_gives_the_scores_of_okapi(numbers, protocol):
    corpus = [["oil", "lamp"], ["oil", "oil", "belt"], ["brake"]]
    index = {
        "index": {"oil": {0: 1, 1: 2}, "lamp": {0: 1}, "belt": [(1, 1)], "brake": [(np.int64(2), np.int64(1))]},
        "doc_len": numbers([len(document) for document in corpus]),
        "avgdl": np.float64(2.0),
        "k1": 1.5,
        "b": 0.75,
    }
    (probe, brake) = ask(index, [["oil", "lamp"], ["brake"]], protocol=protocol)

    def share(often: int, length: int) -> float:
        return often * 2.5 / (often + 1.5 * (0.25 + 0.75 * length / 2))

    oil, lamp = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)
    assert answers(probe) == pytest.approx({0: oil * share(1, 2) + lamp * share(1, 2), 1: oil * share(2, 3)})
    assert brake["ids"] == [2]


def test_the_index_inside_of_an_object_of_ones_own_is_found():
    inner = rank_bm25.BM25Okapi([["oil"], ["lamp"], ["belt"]])
    outer = {"documents": ["a", "b", "c"], "chunk_id_to_idx": {"a": 0, "b": 1, "c": 2}, "bm25": inner}
    assert ask(outer, [["lamp"]])[0]["ids"] == [1]


@settings(max_examples=40)
@given(CORPUS)
def test_words_are_chosen_from_the_documents_and_always_the_same(corpus):
    probes = ask(rank_bm25.BM25Okapi(corpus))
    assert probes == ask(rank_bm25.BM25Okapi(corpus))
    assert 1 <= len(probes) <= 3
    for probe in probes:
        assert any(set(probe["words"]) <= set(document) for document in corpus)


@pytest.mark.parametrize(
    "index",
    [
        {"documents": [1], "chunk_id_to_idx": {"a": 0}},
        {"doc_freqs": [{"a": 1}], "idf": {"a": 1.0}, "doc_len": [1, 2], "avgdl": 1, "k1": 1, "b": 1},
        {"doc_freqs": [{"a": 1}], "idf": {"a": 1.0}, "doc_len": ["x"], "avgdl": 1, "k1": 1, "b": 1},
        {"doc_freqs": [], "idf": {}, "doc_len": [], "avgdl": 1, "k1": 1, "b": 1},
        {"index": {}, "doc_len": [1], "avgdl": 1, "k1": 1, "b": 1},
        {"index": {"a": {0: 1}}, "doc_len": [1], "avgdl": 0, "k1": 1, "b": 1},
        [],
        None,
    ],
)
def test_what_has_no_scores_is_asked_nothing(index):
    assert ask(index) == []
    assert ask(index, [["a"]]) == [{"words": ["a"], "ids": [], "scores": []}]


@pytest.mark.parametrize(
    "postings", [{0: "x"}, {"a\nb": 1}, {None: 1}, {1 << 70: 1}, [1, 2], {5: 1}, {-1: 1}, "text", {0: float("nan")}]
)
def test_odd_postings_give_no_results(postings):
    index = {"index": {"a": postings}, "doc_len": [1, 1], "avgdl": 1, "k1": 1, "b": 1}
    assert ask(index, [["a"]])[0]["ids"] == []


def test_words_that_no_record_can_hold_are_not_chosen():
    odd = ["\udcff", "a\0b", "x" * 101, "a\nb"]
    assert ask(rank_bm25.BM25Okapi([odd, odd])) == []
