"""Progress bars: the library's callbacks shown with rate and time left, for somebody who watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from novabackup.cli.output import Terminal, size
from novabackup.cli.unseen import Unseen

__all__ = ["progress"]


class _Bar(Unseen):
    """A callback that draws a bar while there is something to tell of."""

    def __init__(self, console: Console, label: str, show: Callable[[float], str]) -> None:
        """Draw nothing yet.

        Args:
            console: Where.
            label: What is being done.
            show: Turns an amount into text.
        """
        super().__init__()
        self._console = console
        self._label = label
        self._columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            _Amount(show),
            _Rate(show),
            _Left(compact=True),
        )
        self._progress: Progress | None = None
        self._task: Any = None

    def rest(self, label: str = "") -> None:
        """Take the bar away; it is drawn again when there is something to tell of."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._label = label or self._label

    def set_size(self, size: int) -> None:
        """Begin at nothing of so much."""
        self.value, self.size = 0, size
        self.rest()
        self._progress = Progress(*self._columns, console=self._console, transient=True, expand=True)
        self._task = self._progress.add_task(self._label, total=size)
        self._progress.start()

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Draw what is known now."""
        if self._progress is not None:
            self._progress.update(self._task, completed=self.value, total=self.size)


class _Column(ProgressColumn):
    """A column that shows amounts in its own unit."""

    def __init__(self, show: Callable[[float], str]) -> None:
        self._show = show
        super().__init__()


class _Amount(_Column):
    def render(self, task: Task) -> Text:
        """Show how much is done."""
        return Text(f"{self._show(task.completed)} of {self._show(task.total or 0)}", no_wrap=True)


class _Rate(_Column):
    def render(self, task: Task) -> Text:
        """Show how fast it goes."""
        speed = task.finished_speed or task.speed
        return Text(f"{self._show(speed)}/s" if speed else "", no_wrap=True)


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        """Show how long it will take."""
        return super().render(task).append(" left")


@contextmanager
def progress(terminal: Terminal, label: str, show: Callable[[float], str] = size) -> Iterator[Unseen]:
    """Give a callback for one long call.

    Args:
        terminal: Where somebody watches.
        label: What is being done.
        show: Turns an amount into text; by default it is bytes.

    Yields:
        A bar, which is there as long as there is something to tell of.
    """
    bar = _Bar(terminal.err, label, show)
    try:
        yield bar
    finally:
        bar.rest()
