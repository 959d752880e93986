"""Of processes that race for one object, exactly one wins."""

from __future__ import annotations

import pytest
import racing

from novabackup.storage import open_storage


@pytest.fixture(params=["local", "moto", "sftp"])
def place(request, tmp_path):
    if request.param == "local":
        return str(tmp_path), None, 25
    return *request.getfixturevalue(f"{request.param}_place"), 6


def test_one_process_creates(place):
    url, options, rounds = place
    winners = racing.race(url, options, rounds, swap=False)
    assert [len(turn) for turn in winners] == [1] * rounds
    storage = open_storage(url, options)
    assert [storage.read(f"created/{number}") for number in range(rounds)] == [turn[0] for turn in winners]
    assert storage.sweep(0.0) == 0


def test_one_process_swaps(place):
    url, options, rounds = place
    winners = racing.race(url, options, rounds, swap=True)
    assert [len(turn) for turn in winners] == [1] * rounds
    storage = open_storage(url, options)
    assert storage.read("swapped") == winners[-1][0]
    assert [entry.key for entry in storage.entries()] == ["swapped"]
