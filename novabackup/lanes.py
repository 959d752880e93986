"""Work beside the caller's own: a few threads, a bounded number of tasks under way, results in the order of the tasks.

Reading, hashing and compressing let go of the interpreter while they work, so threads use all cores. How much may be
under way at once bounds the memory, whatever the size of a file.
"""

from __future__ import annotations

import contextlib
import os
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

__all__ = ["Buffers", "Lane", "cores"]

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


class Lane:
    """Threads for one kind of task; a context manager that leaves nothing running."""

    def __init__(self, threads: int, ahead: int) -> None:
        """Start no thread before there is a task.

        Args:
            threads: How many tasks run at once; with one, they run in the order in which they came.
            ahead: How many may be under way or finished and not yet asked for.
        """
        self._pool = ThreadPoolExecutor(threads, "novabackup")
        self._ahead = ahead
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, task: Callable[[], _Result]) -> Future[_Result]:
        """Start a task whose result somebody will ask for."""
        return self._pool.submit(task)

    def hand_over(self, task: Callable[[], object]) -> None:
        """Start a task that only has to be done; waits while too many are under way.

        Raises:
            BaseException: Whatever one of the earlier tasks raised.
        """
        while len(self._waiting) >= self._ahead:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(task))

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
                under_way.append(self._pool.submit(function, item))
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
