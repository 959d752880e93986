"""Holding back so that no more than so many bytes a second go through, on the average."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """A limit that several threads share."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Begin now.

        Args:
            rate: Bytes per second.
            clock: Tells seconds.
            sleep: Waits for so many seconds.
        """
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._mutex = threading.Lock()

    def __call__(self, size: int) -> None:
        """Wait until so many bytes may go.

        What came before them has gone by then; nothing is saved up while nobody sends.
        """
        with self._mutex:
            now = self._clock()
            begin = max(self._free, now)
            self._free = begin + size / self._rate
        if begin > now:
            self._sleep(begin - now)
