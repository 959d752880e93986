"""Deterministic stores of any size and index type, whose grown version really is the smaller one plus an ingest.

Usage: python benchmarks/stores.py FOLDER [--vectors 200000] [--index Flat] [--grow 0.01]

Writes FOLDER/before and FOLDER/after: the same store, before and after an ingest of the last documents.

With --serve it writes one state after the other into FOLDER itself: each line of standard input is a number of vectors,
not smaller than the one before, and is answered by the same number once that state has been written.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from rank_bm25 import BM25Okapi

DIMENSION = 384
FILES = ("faiss_index.bin", "bm25_index.pkl", "metadata.json")

_BLOCK = 1000
_WORDS = 40
_VOCABULARY = 30_000
_TRAINING = 40_000
_ADD_AT_ONCE = 100_000
_CENTRES = 1000


def _vocabulary() -> np.ndarray:
    """Make words of syllables, the common ones short."""
    chance = np.random.default_rng(1)
    syllables = np.array([a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "ar", "en", "is")])
    lengths = 1 + (np.arange(_VOCABULARY) > 100).astype(int) + chance.integers(0, 3, _VOCABULARY)
    return np.array(["".join(chance.choice(syllables, length)) for length in lengths])


def documents(count: int) -> Iterator[list[str]]:
    """Give the first so many documents as lists of words, one by one; the words follow Zipf's law."""
    words = _vocabulary()
    weights = 1 / np.arange(1, _VOCABULARY + 1)
    weights /= weights.sum()
    for block in range(0, count, _BLOCK):
        picks = np.random.default_rng([2, block]).choice(_VOCABULARY, (_BLOCK, _WORDS), p=weights)
        yield from words[picks[: count - block]].tolist()


def vectors(start: int, stop: int) -> np.ndarray:
    """Give some of the vectors, of length one and gathered around a thousand centres as embeddings are."""
    centres = np.random.default_rng(3).normal(size=(_CENTRES, DIMENSION)).astype(np.float32)
    found = np.empty((stop - start, DIMENSION), np.float32)
    for block in range(start - start % _BLOCK, stop, _BLOCK):
        chance = np.random.default_rng([4, block])
        rows = centres[chance.integers(0, _CENTRES, _BLOCK)] + chance.normal(size=(_BLOCK, DIMENSION)) * 0.8
        first, last = max(start, block), min(stop, block + _BLOCK)
        found[first - start : last - start] = rows[first - block : last - block]
    faiss.normalize_L2(found)
    return found


def make_index(kind: str, count: int) -> faiss.Index:
    """Give an empty index, trained on the first vectors of a store of this size."""
    # With several threads, which neighbours HNSW links depends on who comes first.
    faiss.omp_set_num_threads(1 if "HNSW" in kind else 2)
    index = faiss.index_factory(DIMENSION, kind)
    if not index.is_trained:
        index.train(vectors(0, min(_TRAINING, count)))
    return index


def write_index(folder: Path, index: faiss.Index, count: int) -> None:
    """Grow the index to so many vectors and write it."""
    while index.ntotal < count:
        index.add(vectors(index.ntotal, min(index.ntotal + _ADD_AT_ONCE, count)))
    faiss.write_index(index, str(folder / "faiss_index.bin"))


def write_texts(folder: Path, count: int) -> None:
    """Write the BM25 index and the metadata of the first so many documents."""
    with (folder / "bm25_index.pkl").open("wb") as file:
        pickle.dump(BM25Okapi(documents(count)), file)
    with (folder / "metadata.json").open("w") as file:
        for number, text in enumerate(documents(count)):
            entry = json.dumps(_entry(number, text), indent=1).replace("\n", "\n ")
            file.write(f"{',' if number else '['}\n {entry}")
        file.write("\n]")


def _entry(number: int, text: list[str]) -> dict[str, str | int]:
    return {
        "id": f"chunk-{number:07d}",
        "source": f"data/manuals/manual-{number // 200:04d}.pdf",
        "page": number % 200,
        "domain": "vehicle",
        "text": " ".join(text) + " " + " ".join(reversed(text)),
    }


def build(folder: Path, count: int, grow: float, kind: str) -> None:
    """Write the store before and after an ingest of ``grow`` times its size."""
    states = {folder / "before": count, folder / "after": count + int(count * grow)}
    index = make_index(kind, count)
    for to, size in states.items():
        to.mkdir(parents=True, exist_ok=True)
        write_index(to, index, size)
    del index  # it and the BM25 index of millions of documents would not fit into memory together
    for to, size in states.items():
        write_texts(to, size)


def serve(folder: Path, count: int, kind: str) -> None:
    """Write one state after the other, as standard input asks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    index = make_index(kind, count)
    for line in sys.stdin:
        write_index(folder, index, int(line))
        write_texts(folder, int(line))
        print(int(line), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--index", default="Flat")
    parser.add_argument("--grow", type=float, default=0.01)
    parser.add_argument("--serve", action="store_true", help="write the states that standard input asks for")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.folder, chosen.vectors, chosen.index)
    else:
        build(chosen.folder, chosen.vectors, chosen.grow, chosen.index)
