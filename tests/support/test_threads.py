"""Work beside the caller's own: in order, bounded, and nothing is left running."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading

import pytest

from novabackup._support.threads import Buffers, Workers

ENDED = """
import sys, threading
from pathlib import Path
from novabackup import IndexStore, snapshot
from novabackup.components import Files

folder = Path(sys.argv[1])

def ingest():
    threading.main_thread().join()
    with snapshot(IndexStore(folder, components=[Files("*.bin")])):
        (folder / "a.bin").write_bytes(b"half")
        raise SystemExit

threading.Thread(target=ingest).start()
"""


def test_results_come_in_the_order_of_the_tasks_and_few_are_ahead():
    begun, asked = [], 0
    with Workers(3, 4) as workers:
        for number, result in enumerate(workers.each(lambda item: begun.append(item) or item * item, range(50))):
            assert result == number * number
            asked = number + 1
            assert len(begun) <= asked + 4
    assert sorted(begun) == list(range(50))


def test_one_thread_keeps_the_order():
    done = []
    with Workers(1, 2) as workers:
        for number in range(100):
            workers.hand_over(lambda number=number: done.append(number))
        workers.drain()
    assert done == list(range(100))


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_is_raised_where_the_result_is_asked_for(error):
    def fail():
        raise error

    with Workers(2, 2) as workers:
        with pytest.raises(type(error)):
            workers.submit(fail).result()
        workers.hand_over(fail)
        with pytest.raises(type(error)):
            workers.drain()
        with pytest.raises(type(error)):
            list(workers.each(lambda _item: fail(), [1]))


def test_nothing_is_left_running_and_what_has_not_begun_never_does():
    before, hold, done = threading.active_count(), threading.Event(), []
    with pytest.raises(KeyError), Workers(1, 9) as workers:
        workers.submit(hold.wait)
        futures = [workers.submit(lambda: done.append(1)) for _ in range(5)]
        threading.Timer(0.05, hold.set).start()
        raise KeyError
    assert threading.active_count() <= before + 1  # the timer may still be ending
    assert not done
    assert all(future.cancelled() for future in futures)


def test_without_threads_the_caller_does_the_work(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Workers(2, 2) as workers:
        assert list(workers.each(str, [1, 2, 3])) == ["1", "2", "3"]


def test_a_guard_rolls_back_although_the_main_thread_has_ended(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"whole" * 1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", ENDED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"whole" * 1_000_000


def test_buffers_go_round():
    buffers = Buffers(10)
    first = buffers.take()
    assert len(first) == 10
    buffers.give_back(first)
    assert buffers.take() is first
    buffers.give_back(bytearray(3))
    assert len(buffers.take()) == 10


def test_an_interrupt_while_a_thread_is_started_leaves_nothing_waiting_and_nothing_at_work(monkeypatch):
    start, begun, let_go = threading.Thread.start, threading.Event(), threading.Event()
    at_work, ended = [], []

    def interrupted(thread):
        start(thread)
        if thread.name == "novabackup":
            raise KeyboardInterrupt

    def slow(number):
        at_work.append(number)
        begun.set()
        assert let_go.wait(60)
        at_work.remove(number)

    def use():
        with pytest.raises(KeyboardInterrupt), Workers(3, 6) as workers:
            workers.submit(functools.partial(slow, 1))
            assert begun.wait(60)
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            threading.Timer(0.1, let_go.set).start()  # while the workers is being left, or before: both are fine
            workers.submit(functools.partial(slow, 2))
        assert at_work == []
        ended.append(True)

    user = threading.Thread(target=use, name="user", daemon=True)
    user.start()
    user.join(60)
    assert ended == [True]
