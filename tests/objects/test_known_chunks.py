"""Known chunks: a dict of hashes, in arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from novabackup.objects.known_chunks import UNKNOWN, KnownChunks


def rows(numbers) -> np.ndarray:
    """Make hashes that collide in their first bytes as often as an attacker could wish."""
    found = np.zeros((len(numbers), 32), np.uint8)
    for row, number in zip(found, numbers, strict=True):
        row[0], row[8:16] = number % 7, list(number.to_bytes(8, "little"))
    return found


@given(st.lists(st.lists(st.integers(0, 400), max_size=200), max_size=8))
def test_it_knows_what_a_dict_knows(batches):
    known, expected = KnownChunks(), {}
    for batch in batches:
        places = np.arange(len(batch)) + 1000 * len(expected)
        known.add_new(rows(batch), places)
        for number, place in zip(batch, places.tolist(), strict=True):
            expected.setdefault(number, place)
        asked = list(range(450))
        assert known.find(rows(asked)).tolist() == [expected.get(number, UNKNOWN) for number in asked]
    assert len(known) == len(expected)


def test_it_grows_to_millions():
    known = KnownChunks()
    chance = np.random.default_rng(1)
    total = 300_000
    hashes = chance.integers(0, 256, (total, 32), np.uint8)
    for start in range(0, total, 10_000):
        known.add(hashes[start : start + 10_000], np.arange(start, start + 10_000))
    assert (known.find(hashes) == np.arange(total)).all()
    assert (known.find(chance.integers(0, 256, (1000, 32), np.uint8)) == UNKNOWN).all()
