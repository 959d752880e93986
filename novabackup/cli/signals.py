"""Handles signals during a block."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handling(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals, except those that are ignored, as nohup sets them; a child process inherits that."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, former in before.items():
            if former is not signal.SIG_IGN:
                signal.signal(number, handler)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
