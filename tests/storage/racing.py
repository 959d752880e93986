"""Processes that race each other on one storage."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from novabackup.errors import ChangedError
from novabackup.storage import open_storage

RACERS = 8


shared = {}
"""What each of the processes was given at its start."""


def _start(barrier):
    shared["barrier"] = barrier


def _race(task):
    url, options, number, rounds, base = task
    storage = open_storage(url, options)
    won = []
    for turn in range(rounds):
        shared["barrier"].wait(120)
        mine = b"%d of racer %d" % (turn, number)
        try:
            if base is None:
                storage.create(f"created/{turn}", mine)
            else:
                # Everybody names the version that all of them saw; the winner's is the next one to be seen.
                base = storage.entry("swapped").identity
                shared["barrier"].wait(120)
                storage.swap("swapped", mine, base)
        except (FileExistsError, ChangedError):
            won.append(None)
        else:
            won.append(mine)
    return won


def race(url, options, rounds, *, swap):
    """Let processes race for one key in each round, and give the winners of each round."""
    base = open_storage(url, options).create("swapped", b"base").identity if swap else None
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(RACERS)
    with ProcessPoolExecutor(RACERS, context, _start, (barrier,)) as pool:
        results = list(pool.map(_race, [(url, options, number, rounds, base) for number in range(RACERS)]))
    return [[mine for mine in turn if mine is not None] for turn in zip(*results, strict=True)]
