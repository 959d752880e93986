"""Draws the growth of a store as SVG: no scripts, no links, and colours from the style of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from novabackup._support import html
from novabackup.errors import printable
from novabackup.integrations.report.evidence import Point

_WIDTH, _LEFT, _RIGHT = 720, 84, 16
_PANEL, _HEAD, _FOOT, _GAP = 96, 22, 22, 14
_TICKS = 6
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_STEPS = tuple(
    unit * many
    for unit, several in ((_MINUTE, (1, 5, 15, 30)), (_HOUR, (1, 3, 6, 12)), (_DAY, (1, 2, 7, 14, 28, 91, 182, 364)))
    for many in several
)
"""Possible intervals between ticks of the time axis, in seconds."""

_Panel = tuple[str, Callable[[Point], int | None], Callable[[int], str], str]


def _number(value: int) -> str:
    return f"{value:,}"


_PANELS: tuple[_Panel, ...] = (
    ("Vectors", lambda point: point.vectors, _number, "line"),
    ("Size of the files", lambda point: point.size, html.size, "line"),
    ("New bytes in the repository", lambda point: point.added, html.size, "bars"),
)


def plot(points: Sequence[Point]) -> str:
    """Draw vectors, bytes and new bytes over time of snapshots of one store, oldest first, as an SVG element.

    Snapshots with problems are crosses. The page styles the classes; each mark has a title that browsers show.
    """
    panels = [panel for panel in _PANELS if any(panel[1](point) is not None for point in points)]
    if not points or not panels:
        return ""
    height = len(panels) * (_PANEL + _HEAD + _GAP) + _FOOT
    scale = _Times([point.time for point in points])
    parts: list[str] = []
    for number, panel in enumerate(panels):
        parts += _panel(panel, points, scale, number * (_PANEL + _HEAD + _GAP))
    bottom = height - _FOOT - _GAP + 14
    parts += [
        f'<text class="tick" x="{x:.1f}" y="{bottom}" text-anchor="middle">{text}</text>' for x, text in scale.ticks
    ]
    about = f"{len(points)} snapshots from {points[0].time:%Y-%m-%d} to {points[-1].time:%Y-%m-%d}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Growth over time: {about}">'
        + "".join(parts)
        + "</svg>"
    )


class _Times:
    """The time axis."""

    def __init__(self, times: Sequence[datetime]) -> None:
        first, last = min(times), max(times)
        short = last - first < timedelta(minutes=1)
        self._first = first - timedelta(hours=1) if short else first
        self._length = 2 * _HOUR if short else (last - first).total_seconds()

    def x(self, time: datetime) -> float:
        share = (time - self._first).total_seconds() / self._length
        return _LEFT + 10 + share * (_WIDTH - _LEFT - _RIGHT - 20)

    @property
    def ticks(self) -> Iterator[tuple[float, str]]:
        """Ticks of the axis: position and label."""
        step = next((step for step in _STEPS if self._length / step <= _TICKS), _STEPS[-1])
        step *= max(1, math.ceil(self._length / step / _TICKS))
        form = "%Y-%m-%d" if step >= _DAY else "%m-%d %H:%M"
        begin = math.ceil(self._first.timestamp() / step) * step
        for second in range(begin, int(self._first.timestamp() + self._length) + 1, step):
            time = datetime.fromtimestamp(second, UTC)
            yield self.x(time), f"{time:{form}}"


def _panel(panel: _Panel, points: Sequence[Point], scale: _Times, top: int) -> Iterator[str]:
    name, value_of, shown, kind = panel
    values = [(point, value) for point in points if (value := value_of(point)) is not None]
    most = _nice(max(value for _point, value in values), binary=shown is html.size)
    base = top + _HEAD + _PANEL

    def y(value: int) -> float:
        return base - value / most * _PANEL

    yield f'<text class="name" x="{_LEFT}" y="{top + 12}">{escape(name)}</text>'
    for part in (0, most // 2, most):
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(part):.1f}" y2="{y(part):.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y(part) + 4:.1f}" text-anchor="end">{escape(shown(part))}</text>'
    if kind == "line":
        line = " ".join(f"{scale.x(point.time):.1f},{y(value):.1f}" for point, value in values)
        yield f'<polyline class="line" points="{line}"/>'
    for point, value in values:
        title = escape(printable(f"{point.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC: {shown(value)}"))
        yield _mark(kind, scale.x(point.time), y(value), base, title, good=not point.problems)


def _mark(kind: str, x: float, y: float, base: int, title: str, *, good: bool) -> str:
    inside = f"<title>{title}</title>"
    if kind == "bars":
        height = max(base - y, 1.0)
        return (
            f'<rect class="bar" x="{x - 2:.1f}" y="{base - height:.1f}" width="4" height="{height:.1f}">{inside}</rect>'
        )
    if good:
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5">{inside}</circle>'
    cross = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
    return f'<path class="cross" d="{cross}">{inside}</path>'


def _nice(most: int, *, binary: bool) -> int:
    """Round up to a readable number: a digit times a power of ten, or of 1024 for bytes."""
    most = max(most, 2)
    unit = 1024 ** int(math.log(most, 1024)) if binary else 1
    amount = most / unit
    power = 10 ** int(math.log10(amount))
    return int(next(many * power * unit for many in (1, 2, 3, 4, 5, 6, 8, 10) if many * power >= amount))
