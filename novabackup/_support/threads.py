"""A thread pool with a bounded number of pending tasks and ordered results.

Reading, hashing and compressing release the GIL, so threads use all cores. The bound on pending tasks bounds the
memory, whatever the size of a file.
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
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Buffers:
    """A pool of buffers of one size: fresh memory costs a page fault for each 4 KiB.

    Attributes:
        size: Bytes of each.
    """

    def __init__(self, size: int) -> None:
        """Create an empty pool of buffers of ``size`` bytes."""
        self.size = size
        self._spare: queue.SimpleQueue[bytearray] = queue.SimpleQueue()

    def take(self) -> bytearray:
        """Return a buffer; its content is undefined."""
        with contextlib.suppress(queue.Empty):
            return self._spare.get_nowait()
        return bytearray(self.size)

    def give_back(self, buffer: bytearray) -> None:
        """Return a buffer to the pool that is no longer used."""
        if len(buffer) == self.size:
            self._spare.put(buffer)


class Workers:
    """A pool of threads; a context manager that leaves no thread running.

    Not `ThreadPoolExecutor`: it refuses all tasks as soon as the main thread has ended, and a guard in another thread
    must be able to roll back even then. If no thread can be started, tasks run in the calling thread.
    """

    def __init__(self, threads: int, ahead: int) -> None:
        """Create a pool; its threads start with the first tasks.

        Args:
            threads: How many tasks run at once; with one thread, they run in order.
            ahead: How many tasks may be pending, or finished with results that nobody has fetched.
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
        # Wait for tasks, not threads: after an interrupt while a thread was being started, it is unknown whether the
        # thread exists.
        wait([future for future in tuple(self._unfinished) if not future.cancel()])
        self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Start a task whose result the caller fetches."""
        future: Future[_Result] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=_work, args=(self._tasks,), name="novabackup", daemon=True)
            with contextlib.suppress(RuntimeError):  # the system allows no more
                thread.start()
                self._threads.append(thread)
        if self._threads:
            self._tasks.put((future, task))
        else:
            _do(future, task)
        return future

    def hand_over(self, task: Callable[[], object]) -> None:
        """Start a task without a result; block while too many are pending.

        Raises:
            BaseException: An earlier task raised it.
        """
        while len(self._waiting) >= self._ahead:
            self._waiting.popleft().result()
        self._waiting.append(self.submit(task))

    def drain(self) -> None:
        """Wait for all tasks that were handed over.

        Raises:
            BaseException: A task raised it.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def each(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Call a function for each item, several at a time.

        Yields:
            The results in the order of the items.

        Raises:
            BaseException: A call raised it; in the order of the items.
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
        del task  # release what it references before waiting for the next one
    tasks.put(None)  # for the other threads, however many there are


def _do(future: Future[Any], task: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(task())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is fetched
            future.set_exception(error)


async def uninterrupted(work: Callable[[], _Result]) -> _Result:
    """Run blocking work in a thread; a cancellation waits for its end, so that it does not go on in the background."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - raised below, by the task itself
            break
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result
