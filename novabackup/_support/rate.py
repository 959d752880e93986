"""Limits the average rate of a transfer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """A limit in bytes per second that several threads share."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Start with nothing sent.

        Args:
            rate: Bytes per second.
            clock: Returns seconds.
            sleep: Waits for a number of seconds.
        """
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._mutex = threading.Lock()

    def __call__(self, size: int) -> None:
        """Wait until this many bytes may be sent; idle time is not saved up for a burst."""
        with self._mutex:
            now = self._clock()
            begin = max(self._free, now)
            self._free = begin + size / self._rate
        if begin > now:
            self._sleep(begin - now)
