"""Kills a process that ingests in a loop, at random moments, many times; run as a program of its own.

Usage: killer.py FOLDER ROUNDS SEED

Each round forks a child that ingests under a guard, over and over, and says so when a block has been left. The parent
kills it and lets another child recover, which may be killed too. Afterwards the store must be exactly one of the
states that an ingest begins or ends with, none that was committed may be lost, and every snapshot must verify. The
parent itself never calls faiss, so that forking it is safe.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nova
from novabackup import IndexStore, Repository, recover, snapshot

STATES = 40


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def finish(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def prepare(folder: Path, states: Path) -> None:
    for number in range(STATES):
        nova.build(states / str(number), nova.texts(number + 1))
    nova.build(folder, nova.texts(1))


def ingest_often(folder: Path, states: Path, report: int) -> None:
    store = IndexStore(folder)
    while True:
        number = len(json.loads((folder / "metadata.json").read_text())) % STATES
        try:
            with snapshot(store):
                for name in nova.FILES:
                    with (folder / name).open("wb") as file:
                        data = (states / str(number) / name).read_bytes()
                        file.write(data[:100])
                        file.flush()
                        file.write(data[100:])
                if number % 5 == 4:
                    raise InterruptedError
        except InterruptedError:
            with snapshot(store):
                for name in nova.FILES:
                    (folder / name).write_bytes((states / str(number) / name).read_bytes())
        os.write(report, bytes([number]))


def main() -> None:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    states = folder.parent / "states"
    chance = random.Random(seed)
    assert finish(child(lambda: prepare(folder, states))) == 0
    known = {number: nova.contents(states / str(number)) for number in range(STATES)}
    committed, killed_recoveries = 0, 0
    for _round in range(rounds):
        out, report = os.pipe()
        pid = child(lambda report=report: ingest_often(folder, states, report))
        os.close(report)
        time.sleep(chance.uniform(0, 0.4))
        os.kill(pid, signal.SIGKILL)
        assert finish(pid) == -signal.SIGKILL, "the child ended by itself"
        with os.fdopen(out, "rb") as said:
            committed = ([committed, *said.read()])[-1]
        if chance.random() < 0.5:
            pid = child(lambda: recover(IndexStore(folder)))
            time.sleep(chance.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            killed_recoveries += finish(pid) == -signal.SIGKILL
        recover(IndexStore(folder))
        now = nova.contents(folder)
        state = next((number for number, files in known.items() if files == now), None)
        assert state is not None, (
            f"the store is in no state that it ever was in: { {k: len(v) for k, v in now.items()} }"
        )
        assert state in (committed, (committed + 1) % STATES), f"expected state {committed} or the next, found {state}"
        committed = state
    repository = Repository(folder / "backups")
    for point in repository:
        point.verify()
    assert not repository.check(read_data_subset="100%")
    print(f"{rounds} kills, {killed_recoveries} of them followed by a killed recovery, {len(repository)} snapshots")


main()
