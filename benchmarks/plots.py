"""Draw the results: bars for each operation, growth over many ingests, cost against size.

Usage: python benchmarks/plots.py [docs/benchmarks]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from report import AWS, FRESH, NOVABACKUP, ON_S3, OPERATIONS, RCLONE, Samples, picture_on_s3, seconds

mpl.use("Agg")
plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
)

_SCRIPT = "cp, tar, sha256sum"
_COLOURS = {
    NOVABACKUP: "#1f5fa8",
    "novabackup restore()": "#5b93cf",
    FRESH: "#a9c8e8",
    "restic": "#e07b39",
    "borg": "#3f9b6c",
    _SCRIPT: "#8a8a8a",
    "cp, sync": "#c4c4c4",
    AWS: "#c9a227",
    RCLONE: "#8e5ea2",
}
_SIZE_OPERATIONS = ("first", "ingest", "unchanged", "restore", "verify")
_LINE_COLOURS = ("#1f5fa8", "#e07b39", "#8a8a8a", "#3f9b6c", "#8e5ea2")
_MARKERS = "osv^D"


def draw(results: dict[str, Any], out: Path) -> None:
    """Draw everything that there are results of."""
    for kind, run in results.get("operations", {}).items():
        _operations(kind, run, out)
    if results.get("operations"):
        _bytes(results["operations"], out)
    for kind, run in results.get("growth", {}).items():
        _growth(kind, run, out)
    if results.get("size"):
        _size(results["size"], out)
    for run in results.get("s3", {}).values():
        _s3(run, out)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


# -- operations --------------------------------------------------------------------------------------------------------


def _operations(kind: str, run: dict[str, Any], out: Path) -> None:
    name = f"operations-{kind.replace(',', '-')}.png"
    _save(_all_bars(run, OPERATIONS, f"{kind}, {run['vectors']:,} vectors"), out / name)


def _s3(run: dict[str, Any], out: Path) -> None:
    line = f", over a line of {run['line']}" if run["line"] else ""
    title = f"Backups on S3{line}, {run['vectors']:,} vectors"
    _save(_all_bars(run, ON_S3, title), out / picture_on_s3(run))


def _all_bars(run: dict[str, Any], operations: dict[str, str], title: str) -> Figure:
    figure, grid = plt.subplots(2, 3, figsize=(12, 6))
    found = Samples(run)
    for axes, (operation, name) in zip(grid.flat, operations.items(), strict=True):
        _bars(axes, found, operation)
        axes.set_title(name)
    figure.suptitle(f"{title}: time of each operation, in seconds (median, least and most of {run['repeat']})")
    return figure


def _bars(axes: Axes, found: Samples, operation: str) -> None:
    """Draw a bar for each tool, with its least and its most; the bar of the shell script may leave the picture."""
    names = [name for name in _COLOURS if found.all(operation, name, "wall")]
    most = {name: max(found.all(operation, name, "wall")) for name in names}
    limit = 1.3 * min(max(most.values()), 2 * max(value for name, value in most.items() if name != _SCRIPT))
    for row, name in enumerate(names):
        median = found.median(operation, name) or 0.0
        axes.barh(row, min(median, limit), color=_COLOURS[name], height=0.7)
        if most[name] > limit:
            axes.text(0.97 * limit, row, f"{seconds(median)} →", ha="right", va="center", color="white")
            continue
        axes.plot([min(found.all(operation, name, "wall")), most[name]], [row, row], color="#333333", linewidth=1)
        axes.text(most[name] + 0.015 * limit, row, seconds(median), va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, limit)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _bytes(part: dict[str, Any], out: Path) -> None:
    """Draw what an ingest of one part in a hundred adds, for each kind of index."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    tools = (NOVABACKUP, "restic", "borg")
    for place, name in enumerate(tools):
        for column, run in enumerate(part.values()):
            added = (Samples(run).median("ingest", name, "added") or 0) / 1e6
            x = column + (place - 1) * 0.27
            axes.bar(x, added, 0.25, color=_COLOURS[name], label=name if column == 0 else None)
            axes.text(x, added, f"{added:.1f}", ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-0.6, len(part) - 0.4)
    axes.set_xticks(range(len(part)), [f"{kind}\n{run['vectors']:,} vectors" for kind, run in part.items()])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("megabytes added")
    axes.set_title("Added to the repository by an ingest of 1 %, all files")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, out / "bytes.png")


# -- growth ------------------------------------------------------------------------------------------------------------


def _growth(kind: str, run: dict[str, Any], out: Path) -> None:
    figure, (stored, wall) = plt.subplots(1, 2, figsize=(11, 3.8))
    for name, measures in run["samples"].items():
        steps = range(len(measures))
        stored.plot(steps, [measure["stored"] / 1e6 for measure in measures], color=_COLOURS[name], label=name)
        wall.plot(steps[1:], [measure["wall"] for measure in measures[1:]], color=_COLOURS[name])
    stored.set_title("Stored in all, in megabytes")
    wall.set_title("Time of the snapshot after each ingest, in seconds")
    for axes in (stored, wall):
        axes.set_xlabel("ingests of 1 %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
    figure.suptitle(f"{kind}, growing from {run['vectors']:,} to {run['sizes'][-1]:,} vectors")
    figure.legend(*stored.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, out / "growth.png")


# -- size --------------------------------------------------------------------------------------------------------------


def _size(part: dict[str, Any], out: Path) -> None:
    figure, (wall, memory) = plt.subplots(1, 2, figsize=(11, 4.6))
    runs = sorted(map(Samples, part.values()), key=lambda samples: samples.vectors)
    for operation, colour, marker in zip(_SIZE_OPERATIONS, _LINE_COLOURS, _MARKERS, strict=True):
        for axes, field, unit in ((wall, "wall", 1), (memory, "memory", 1e6)):
            points = [(run.vectors, run.median(operation, NOVABACKUP, field)) for run in runs]
            known = [(vectors, value / unit) for vectors, value in points if value is not None]
            axes.plot(*zip(*known, strict=True), color=colour, marker=marker, markersize=4, label=OPERATIONS[operation])
    _slope_one(wall, runs)
    wall.set_title("Time, in seconds")
    memory.set_title("Peak memory of the process, in megabytes")
    for axes in (wall, memory):
        axes.set_xscale("log")
        axes.set_xlabel("vectors")
        axes.set_xticks([run.vectors for run in runs], [_short(run.vectors) for run in runs])
        axes.xaxis.set_minor_locator(NullLocator())
    wall.set_yscale("log")
    wall.yaxis.set_major_locator(LogLocator(10))
    wall.yaxis.set_minor_formatter(NullFormatter())
    wall.yaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    memory.set_ylim(bottom=0)
    figure.suptitle("novabackup: cost against size, Flat")
    figure.legend(*wall.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    _save(figure, out / "size.png")


def _short(vectors: int) -> str:
    return f"{vectors / 1e6:g}M" if vectors >= 1e6 else f"{vectors / 1e3:g}k"


def _slope_one(axes: Axes, runs: list[Samples]) -> None:
    """Draw what costs exactly twice as much for twice the size, through the largest first snapshot."""
    last = runs[-1]
    for_each = (last.median("first", NOVABACKUP) or 0) / last.vectors
    sizes = [runs[0].vectors, last.vectors]
    costs = [vectors * for_each for vectors in sizes]
    axes.plot(sizes, costs, color="#333333", linestyle="--", linewidth=1, label="slope one", zorder=1)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/benchmarks")
    draw(json.loads((folder / "results.json").read_text()), folder)
