"""Progress bars, which load rich.progress only when one is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import Callback

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task


class Unseen(Callback):  # type: ignore[misc]
    """A callback that shows nothing."""

    def rest(self, label: str = "") -> None:
        """Show nothing until there is new progress, under a new label if there is one."""


class Bar(Unseen):
    """A callback that draws a bar while there is progress."""

    def __init__(self, console: Console, label: str, show: Callable[[float], str]) -> None:
        super().__init__()
        self._console = console
        self._label = label
        self._show = show
        self._progress: Progress | None = None
        self._task: Any = None

    def rest(self, label: str = "") -> None:
        """Take the bar away; it is drawn again when there is new progress."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._label = label or self._label

    def set_size(self, size: int) -> None:
        """Start at 0 of this size."""
        self.value, self.size = 0, size
        self.rest()
        self._progress = _progress(self._console, self._show)
        self._task = self._progress.add_task(self._label, total=size)
        self._progress.start()

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        """Draw the present state."""
        if self._progress is not None:
            self._progress.update(self._task, completed=self.value, total=self.size)


def _progress(console: Console, show: Callable[[float], str]) -> Progress:
    """Return a bar with amount, rate and time left; `rich.progress` is loaded only now, since it takes its time."""
    from rich import progress as bars  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Column(bars.ProgressColumn):
        def __init__(self, text: Callable[[Task], str]) -> None:
            self._text = text
            super().__init__()

        def render(self, task: Task) -> Text:
            return Text(self._text(task), no_wrap=True)

    class TimeLeft(bars.TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return super().render(task).append(" left")

    def rate(task: Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{show(speed)}/s" if speed else ""

    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TaskProgressColumn(),
        Column(lambda task: f"{show(task.completed)} of {show(task.total or 0)}"),
        Column(rate),
        TimeLeft(compact=True),
        console=console,
        transient=True,
        expand=True,
    )


@contextmanager
def progress(console: Console, label: str, show: Callable[[float], str]) -> Iterator[Bar]:
    """Yield a callback that draws a bar for one long call; ``show`` formats its amounts."""
    bar = Bar(console, label, show)
    try:
        yield bar
    finally:
        bar.rest()
