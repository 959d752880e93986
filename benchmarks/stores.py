"""Deterministic stores of any size and index type, whose grown version really is the smaller one plus an ingest.

Usage: python benchmarks/stores.py FOLDER [--vectors 200000] [--index Flat] [--grow 0.01]

Writes FOLDER/before and FOLDER/after: the same store, before and after an ingest of the last documents.
"""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path

import faiss
import numpy as np
from rank_bm25 import BM25Okapi

DIMENSION = 384
_BLOCK = 1000
_WORDS = 40
_VOCABULARY = 30_000
_TRAINING = 40_000


def _vocabulary() -> np.ndarray:
    """Make words of syllables, the common ones short."""
    chance = np.random.default_rng(1)
    syllables = np.array([a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "ar", "en", "is")])
    lengths = 1 + (np.arange(_VOCABULARY) > 100).astype(int) + chance.integers(0, 3, _VOCABULARY)
    return np.array(["".join(chance.choice(syllables, length)) for length in lengths])


def documents(count: int) -> list[list[str]]:
    """Give the first so many documents as lists of words; the words follow Zipf's law."""
    words = _vocabulary()
    weights = 1 / np.arange(1, _VOCABULARY + 1)
    weights /= weights.sum()
    found: list[list[str]] = []
    for block in range(0, count, _BLOCK):
        picks = np.random.default_rng([2, block]).choice(_VOCABULARY, (_BLOCK, _WORDS), p=weights)
        found.extend(words[picks].tolist())
    return found[:count]


def vectors(count: int) -> np.ndarray:
    """Give the first so many vectors, of length one and gathered around a thousand centres as embeddings are."""
    centres = np.random.default_rng(3).normal(size=(1000, DIMENSION)).astype(np.float32)
    rows = []
    for block in range(0, count, _BLOCK):
        chance = np.random.default_rng([4, block])
        rows.append(centres[chance.integers(0, 1000, _BLOCK)] + chance.normal(size=(_BLOCK, DIMENSION)) * 0.8)
    found = np.concatenate(rows)[:count].astype(np.float32)
    faiss.normalize_L2(found)
    return found


def build(folder: Path, count: int, grow: float, kind: str) -> None:
    """Write the store before and after an ingest of ``grow`` times its size."""
    faiss.omp_set_num_threads(2)
    total = count + int(count * grow)
    rows, texts = vectors(total), documents(total)
    index = faiss.index_factory(DIMENSION, kind)
    if not index.is_trained:
        index.train(rows[:_TRAINING])
    done = 0
    for name, size in (("before", count), ("after", total)):
        to = folder / name
        to.mkdir(parents=True, exist_ok=True)
        index.add(rows[done:size])
        done = size
        faiss.write_index(index, str(to / "faiss_index.bin"))
        with (to / "bm25_index.pkl").open("wb") as file:
            pickle.dump(BM25Okapi(texts[:size]), file)
        entries = [
            {
                "id": f"chunk-{number:07d}",
                "source": f"data/manuals/manual-{number // 200:04d}.pdf",
                "page": number % 200,
                "domain": "vehicle",
                "text": " ".join(text) + " " + " ".join(reversed(text)),
            }
            for number, text in enumerate(texts[:size])
        ]
        (to / "metadata.json").write_text(json.dumps(entries, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--index", default="Flat")
    parser.add_argument("--grow", type=float, default=0.01)
    chosen = parser.parse_args()
    build(chosen.folder, chosen.vectors, chosen.grow, chosen.index)
