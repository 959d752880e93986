"""Work beside the caller's own: a few threads, a bounded number of tasks under way, results in the order of the tasks.

Reading, hashing and compressing let go of the interpreter while they work, so threads use all cores. How much may be
under way at once bounds the memory, whatever the size of a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Buffers", "Workers", "cores", "uninterrupted"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def cores() -> int:
    """Tell how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Buffers:
    """Buffers of one size that are used over and over: fresh memory costs a page fault for each 4 KiB.

    Attributes:
        size: Bytes of each.
    """

    def __init__(self, size: int) -> None:
        """Have none yet.

        Args:
            size: Bytes of each.
        """
        self.size = size
        self._spare: queue.SimpleQueue[bytearray] = queue.SimpleQueue()

    def take(self) -> bytearray:
        """Give a buffer with anything in it."""
        with contextlib.suppress(queue.Empty):
            return self._spare.get_nowait()
        return bytearray(self.size)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer back that nobody looks at any more."""
        if len(buffer) == self.size:
            self._spare.put(buffer)


class Workers:
    """Threads for one kind of task; a context manager that leaves nothing running.

    Not `ThreadPoolExecutor`: that one refuses all work as soon as the main thread has ended, and a guard in another
    thread must be able to roll back even then. Where no thread can be had, tasks run in the caller's.
    """

    def __init__(self, threads: int, ahead: int) -> None:
        """Start no thread before there is a task.

        Args:
            threads: How many tasks run at once; with one, they run in the order in which they came.
            ahead: How many may be under way or finished and not yet asked for.
        """
        self._most = threads
        self._ahead = ahead
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._waiting: deque[Future[object]] = deque()
        self._unfinished: set[Future[Any]] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It is the tasks that are waited for: an interrupt may have come while a thread was being started, and then
        # nobody knows whether there is such a thread.
        wait([future for future in tuple(self._unfinished) if not future.cancel()])
        self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Start a task whose result somebody will ask for."""
        future: Future[_Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=_work, args=(self._tasks,), name="novabackup", daemon=True)
            with contextlib.suppress(RuntimeError):  # there can be no more of them
                thread.start()
                self._threads.append(thread)
        if self._threads:
            self._tasks.put((future, task))
        else:
            _do(future, task)
        return future

    def hand_over(self, task: Callable[[], object]) -> None:
        """Start a task that only has to be done; waits while too many are under way.

        Raises:
            BaseException: Whatever one of the earlier tasks raised.
        """
        while len(self._waiting) >= self._ahead:
            self._waiting.popleft().result()
        self._waiting.append(self.submit(task))

    def drain(self) -> None:
        """Wait for all that was handed over.

        Raises:
            BaseException: Whatever one of the tasks raised.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Call a function for each item, some of them at once.

        Yields:
            The results in the order of the items.

        Raises:
            BaseException: Whatever a call raised, in its turn.
        """
        under_way: deque[Future[_Result]] = deque()
        try:
            for item in items:
                if len(under_way) >= self._ahead:
                    yield under_way.popleft().result()
                under_way.append(self.submit(functools.partial(function, item)))
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _work(tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while task := tasks.get():
        _do(*task)
        del task  # what it held is not kept until the next one comes
    tasks.put(None)  # for the other threads, however many there are


def _do(future: Future[Any], task: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(task())
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
            future.set_exception(error)


async def uninterrupted(work: Callable[[], None]) -> None:
    """Run blocking work in a thread; a cancellation waits for it to end, since half of it must not go on unseen."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - raised below, by the task itself
            break
    task.result()
    if cancelled is not None:
        raise cancelled
