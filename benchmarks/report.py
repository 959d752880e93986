"""Make results.md out of results.json: what was measured, how often more the others take, which targets are met.

Usage: python benchmarks/report.py [docs/benchmarks]
"""

# ruff: noqa: RUF001 - multiplication signs and dashes are meant

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

NOVABACKUP = "novabackup"
FRESH = "novabackup, fresh process"
RESTIC, BORG = "restic", "borg"
AWS, RCLONE = "aws s3 sync", "rclone sync"
OTHERS = (RESTIC, BORG, "cp, tar, sha256sum", "cp, sync")
OPERATIONS = {
    "first": "First snapshot",
    "ingest": "Snapshot after +1 %",
    "unchanged": "Snapshot, unchanged",
    "rollback": "Rollback after +1 %",
    "restore": "Restore into an empty folder",
    "verify": "Verify all data",
}
ON_S3 = {
    **{key: title for key, title in OPERATIONS.items() if key != "rollback"},
    "copy": "Copy from the disk to S3",
}

NOTHING = "–"
_STORING = ("first", "ingest")
"""Operations whose bytes can be compared: a rollback of novabackup also keeps what it takes back, others do not."""
_MANY = {
    "changed": "Snapshot, one entry changed",
    "unchanged": "Snapshot, unchanged",
    "list": "List, with a new `Repository` object",
    "list again": "List again",
    "list, fresh process": "List, in a fresh process, once",
}
_STATED_FOR = 200_000
_STATED_SNAPSHOTS = 5000
_INGEST_LIMITS = {"Flat": 5e6, "IVF1024,Flat": 13e6, "IVF1024,PQ48": 6e6, "HNSW16": 21e6}
_LINEAR = ("first", "ingest", "restore", "verify")
_LINEAR_FROM, _LINEAR_TO = 100_000, 2_000_000
_MEMORY_OF = {
    ("rollback", NOVABACKUP): "novabackup guard, fresh process",
    NOVABACKUP: FRESH,
    "novabackup restore()": FRESH,
}
"""The process that did only what another, which has been running for a while, did."""


class Samples:
    """The samples of one table of measures, by operation and name."""

    def __init__(self, part: dict[str, Any]):
        self.vectors: int = part.get("vectors", 0)
        self._samples: dict[str, dict[str, list[dict[str, Any]]]] = part["samples"]

    def names(self, operation: str) -> list[str]:
        """Give who did an operation."""
        return list(self._samples.get(operation, {}))

    def all(self, operation: str, name: str, field: str) -> list[float]:
        """Give all samples of a number."""
        if field == "memory":
            name = _MEMORY_OF.get((operation, name)) or _MEMORY_OF.get(name, name)
        found = (sample[field] for sample in self._samples.get(operation, {}).get(name, []))
        return [value for value in found if value is not None]

    def median(self, operation: str, name: str, field: str = "wall") -> float | None:
        """Give the median; None if it was not measured."""
        found = self.all(operation, name, field)
        return statistics.median(found) if found else None

    def ratio(self, operation: str, name: str, field: str = "wall") -> float | None:
        """Give how many times as much as novabackup somebody takes."""
        return quotient(self.median(operation, name, field), self.median(operation, NOVABACKUP, field))


def quotient(above: float | None, below: float | None) -> float | None:
    """Divide; None if one of the two is not known."""
    return above / below if above is not None and below else None


# -- numbers as text ---------------------------------------------------------------------------------------------------


def seconds(value: float | None) -> str:
    """Show a duration."""
    if value is None:
        return NOTHING
    if value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def size(value: float | None) -> str:
    """Show a number of bytes; a megabyte is a million."""
    if value is None:
        return NOTHING
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:.2f} {name}"
    return f"{value / 1e3:.1f} kB" if value >= 1e3 else f"{value:.0f} B"


def count(value: float | None) -> str:
    """Show how many."""
    return NOTHING if value is None else f"{value:.0f}"


def times(value: float | None) -> str:
    """Show a factor."""
    if value is None:
        return NOTHING
    return f"{value:.2f}×" if value < 10 else f"{value:.0f}×"


def verdict(met: bool) -> str:
    """Say whether a target is met."""
    return "met" if met else "**not met**"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Lay out a Markdown table, whose first columns are words and the others numbers."""
    lines = [head, ["---"] * words + ["---:"] * (len(head) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


_NUMBERS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "CPU": ("cpu", seconds),
    "peak memory": ("memory", size),
    "stored in all": ("stored", size),
    "added": ("added", size),
}
_NUMBERS_ON_S3 = {
    **_NUMBERS,
    "requests": ("requests", count),
    "sent": ("sent", size),
    "received": ("received", size),
}

# -- targets -----------------------------------------------------------------------------------------------------------


def _faster(found: Samples, operation: str, peer: str, factor: float, *, counts: bool = True) -> str:
    value = found.ratio(operation, peer)
    if value is None or not counts:
        return times(value)
    return f"{times(value)}, {verdict(value >= factor)}"


def _smaller(found: Samples, operation: str, field: str) -> str:
    """Compare bytes with those of restic and of borg."""
    values = [found.ratio(operation, peer, field) for peer in (RESTIC, BORG)]
    if None in values:
        return NOTHING
    parts = [f"{1 / value:.2f} of {peer}'s" for peer, value in zip((RESTIC, BORG), values, strict=True)]
    return f"{', '.join(parts)}, {verdict(min(values) >= 1)}"


def _ingest_bytes(found: Samples, kind: str) -> str:
    added = found.median("ingest", NOVABACKUP, "added")
    if added is None or found.vectors != _STATED_FOR:
        return size(added)
    limit = _INGEST_LIMITS[kind]
    return f"{size(added)} of {limit / 1e6:.0f} MB, {verdict(added <= limit)}"


def _unchanged(found: Samples) -> str:
    value = found.median("unchanged", NOVABACKUP)
    return NOTHING if value is None else f"{seconds(value)}, {verdict(value < 0.01)}"


def _memory(found: Samples) -> str:
    """Name the operations that take more memory than restic, or the one that comes closest."""
    ratios = {operation: found.ratio(operation, RESTIC, "memory") for operation in OPERATIONS}
    known = {operation: value for operation, value in ratios.items() if value is not None}
    if not known:
        return NOTHING
    over = [operation for operation, value in known.items() if value < 1] or [min(known, key=known.__getitem__)]
    parts = [f"{OPERATIONS[operation].lower()}: {1 / known[operation]:.2f} of restic's" for operation in over]
    return f"{'; '.join(parts)}, {verdict(min(known.values()) >= 1)}"


_TARGETS: dict[str, Callable[[Samples, str], str]] = {
    "First snapshot at least 2× as fast as restic": lambda found, _: _faster(found, "first", RESTIC, 2),
    "First snapshot at least 1.3× as fast as borg": lambda found, _: _faster(found, "first", BORG, 1.3),
    "First snapshot stores at most what restic and borg store": lambda found, _: _smaller(found, "first", "stored"),
    "+1 %, Flat: at least 3× as fast as restic": lambda found, kind: _faster(
        found, "ingest", RESTIC, 3, counts=kind == "Flat"
    ),
    "+1 %, Flat: at least 3× as fast as borg": lambda found, kind: _faster(
        found, "ingest", BORG, 3, counts=kind == "Flat"
    ),
    "+1 % of 200,000 vectors adds no more than": _ingest_bytes,
    "+1 % adds at most what restic and borg add": lambda found, _: _smaller(found, "ingest", "added"),
    "Unchanged: less than 10 ms in a running process": lambda found, _: _unchanged(found),
    "Rollback at least 4× as fast as a restic restore": lambda found, _: _faster(found, "rollback", RESTIC, 4),
    "Full restore at least 2× as fast as restic": lambda found, _: _faster(found, "restore", RESTIC, 2),
    "Verify at least 2× as fast as restic": lambda found, _: _faster(found, "verify", RESTIC, 2),
    "Peak memory of each operation at most restic's": lambda found, _: _memory(found),
}


def _targets(results: dict[str, Any]) -> str:
    kinds = {kind: Samples(part) for kind, part in results.get("operations", {}).items()}
    text = "## Targets\n\nA cell without a verdict was measured under other conditions than the target speaks of.\n\n"
    if kinds:
        rows = [[title, *(cell(found, kind) for kind, found in kinds.items())] for title, cell in _TARGETS.items()]
        text += table(["target", *kinds], rows, words=1 + len(kinds)) + "\n"
    rows = [*_linear_targets(results.get("size", {})), *_many_targets(results.get("many", {}))]
    rows += _s3_targets(results.get("s3", {}))
    if rows:
        text += table(["target", "found"], rows, words=2) + "\n"
    return text


def _linear_targets(part: dict[str, Any]) -> Iterable[Sequence[str]]:
    """Compare the cost of a vector in each larger store with that in the smallest one that the target speaks of."""
    found = {samples.vectors: samples for samples in map(Samples, part.values()) if samples.vectors >= _LINEAR_FROM}
    if len(found) < 2:
        return
    small, *larger = sorted(found)
    complete = small == _LINEAR_FROM and larger[-1] >= _LINEAR_TO
    for operation in _LINEAR:
        costs = {vectors: quotient(found[vectors].median(operation, NOVABACKUP), vectors) for vectors in found}
        worst = max((quotient(costs[vectors], costs[small]) or 0, vectors) for vectors in larger)
        text = f"at most {times(worst[0])} the time for a vector ({worst[1]:,} vectors compared with {small:,})"
        ending = f", {verdict(worst[0] <= 1.1)}" if complete else ""
        yield f"{OPERATIONS[operation]}: linear within 10 % from 100,000 to 2,000,000 vectors", text + ending


def _many_targets(part: dict[str, Any]) -> Iterable[Sequence[str]]:
    for run in part.values():
        found, count = Samples(run), run["snapshots"]
        listed = found.median("list", "full") or 0
        yield "5,000 snapshots are listed within 1 s", f"{count:,} in {seconds(listed)}{_ending(count, listed <= 1)}"
        for operation in ("changed", "unchanged"):
            ratio = quotient(found.median(operation, "full"), found.median(operation, "empty")) or 0
            title = f"A snapshot, {operation}, beside 5,000 others is as fast as in an empty repository (within 10 %)"
            yield title, f"{times(ratio)} the time beside {count:,}{_ending(count, ratio <= 1.1)}"


def _s3_targets(part: dict[str, Any]) -> Iterable[Sequence[str]]:
    for run in part.values():
        found = Samples(run)
        counts = found.vectors >= _STATED_FOR
        ratios = {name: found.ratio("first", name) or 0 for name in (AWS, RCLONE, RESTIC)}
        fastest = min(ratios, key=ratios.__getitem__)
        ending = f", {verdict(ratios[fastest] >= 1)}" if counts else ""
        place = "S3" + _over(run)
        yield (
            f"{place}: first snapshot at least as fast as the fastest",
            f"{times(ratios[fastest])} ({fastest}){ending}",
        )
        yield f"{place}: +1 % at least 5× as fast as `aws s3 sync`", _faster(found, "ingest", AWS, 5, counts=counts)


def _over(run: dict[str, Any]) -> str:
    return f" over a line of {run['line'].replace('gbit', ' Gbit/s').replace('mbit', ' Mbit/s')}" if run["line"] else ""


def _ending(snapshots: int, met: bool) -> str:
    return f", {verdict(met)}" if snapshots >= _STATED_SNAPSHOTS else ""


# -- experiments -------------------------------------------------------------------------------------------------------


def _operations(part: dict[str, Any]) -> str:
    text = ""
    for kind, run in part.items():
        found = Samples(run)
        text += f"## Operations: {kind}, {run['vectors']:,} vectors\n\n"
        text += f"The store is {size(run['store_bytes'])} after the ingest. "
        text += f"Median (least to most) of {run['repeat']} runs.\n\n"
        text += f"![Time of each operation](operations-{kind.replace(',', '-')}.png)\n\n"
        text += "How many times what novabackup takes in a running process:\n\n" + _ratios(found) + "\n"
        text += "What was measured:\n\n" + _measured(found, OPERATIONS, _NUMBERS) + "\n"
    return text


def _ratios(found: Samples) -> str:
    rows = []
    for peer in OTHERS:
        for field, name in (("wall", "time"), ("cpu", "CPU"), ("memory", "memory"), ("added", "bytes added")):
            compared = _STORING if field == "added" else tuple(OPERATIONS)
            cells = [found.ratio(each, peer, field) if each in compared else None for each in OPERATIONS]
            if field == "added":  # what a rollback adds is what it keeps, which the others do not
                cells = [
                    cell if key in ("first", "ingest") else None for key, cell in zip(OPERATIONS, cells, strict=True)
                ]
            rows.append([f"{peer}: {name}", *map(times, cells)])
    return table(["", *OPERATIONS.values()], rows)


def _measured(
    found: Samples, operations: dict[str, str], numbers: dict[str, tuple[str, Callable[[float | None], str]]]
) -> str:
    rows = []
    for operation, title in operations.items():
        for name in found.names(operation):
            wall = found.all(operation, name, "wall")
            spread = f"{seconds(found.median(operation, name))} ({seconds(min(wall))} to {seconds(max(wall))})"
            cells = [show(found.median(operation, name, field)) for field, show in numbers.values()]
            rows.append([title, name, spread, *cells])
    return table(["operation", "tool", "time", *numbers], rows, words=2)


def _s3(part: dict[str, Any]) -> str:
    text = ""
    for kind, run in part.items():
        found = Samples(run)
        tools = ", ".join(f"{name} {version}" for name, version in run["tools"].items())
        text += f"## On S3: {kind.partition(',')[0]}, {run['vectors']:,} vectors{_over(run)}\n\n"
        text += f"The store is {size(run['store_bytes'])} after the ingest; it and the repository that is copied are "
        text += f"local, the backups in a bucket. Server: {run['server']}, on the same host, so it shares the "
        text += f"processors with the tools. {tools}. Median (least to most) of {run['repeat']} runs.\n\n"
        text += f"![Time of each operation on S3]({picture_on_s3(run)})\n\n"
        text += "How many times what novabackup takes in a running process:\n\n" + _ratios_on_s3(found) + "\n"
        text += "What was measured:\n\n" + _measured(found, ON_S3, _NUMBERS_ON_S3) + "\n"
    return text


def picture_on_s3(run: dict[str, Any]) -> str:
    """Name the file of the plot."""
    return f"s3-{run['line']}.png" if run["line"] else "s3.png"


def _ratios_on_s3(found: Samples) -> str:
    fields = {"wall": "time", "cpu": "CPU", "requests": "requests", "sent": "bytes sent", "received": "bytes received"}
    rows = [
        [f"{peer}: {title}", *(times(found.ratio(operation, peer, field)) for operation in ON_S3)]
        for peer in (FRESH, AWS, RCLONE, RESTIC)
        for field, title in fields.items()
    ]
    return table(["", *ON_S3.values()], rows)


def _growth(part: dict[str, Any]) -> str:
    text = ""
    for kind, run in part.items():
        names, last = list(run["samples"]), len(run["sizes"]) - 1
        text += f"## Growth: {last} ingests of 1 %, {kind}, from {run['vectors']:,} to {run['sizes'][-1]:,} vectors\n\n"
        text += "![Bytes stored and time of each ingest](growth.png)\n\n"
        rows = []
        for step in sorted({*range(0, last + 1, 5), 1, last}):
            measures = [run["samples"][name][step] for name in names]
            cells = [size(measure["stored"]) for measure in measures]
            rows.append([str(step), *cells, *(seconds(measure["wall"]) for measure in measures)])
        rows.append(["median ingest", *(_median_ingest(run, name, "added") for name in names)])
        rows[-1] += [_median_ingest(run, name, "wall") for name in names]
        head = ["ingest", *(f"{name}: stored in all" for name in names), *(f"{name}: time" for name in names)]
        text += table(head, rows) + "\nThe last line has the bytes that the median ingest added.\n\n"
    return text


def _median_ingest(run: dict[str, Any], name: str, field: str) -> str:
    value = statistics.median(measure[field] for measure in run["samples"][name][1:] or run["samples"][name])
    return seconds(value) if field == "wall" else size(value)


def _size(part: dict[str, Any]) -> str:
    if not part:
        return ""
    runs = sorted(part.values(), key=lambda run: run["vectors"])
    text = "## Cost against size: novabackup, Flat\n\n![Time and memory against the number of vectors](size.png)\n\n"
    rows = [
        [f"{run['vectors']:,}", size(run["store_bytes"]), *(_cost(run, operation) for operation in _LINEAR)]
        for run in runs
    ]
    text += table(["vectors", "store", *(f"{OPERATIONS[operation]}" for operation in _LINEAR)], rows)
    text += "\nTime, and time for each vector.\n\n"
    rows = [[f"{run['vectors']:,}", *(_peak(run, operation) for operation in _LINEAR)] for run in runs]
    text += table(["vectors", *(f"{OPERATIONS[operation]}" for operation in _LINEAR)], rows)
    return text + "\nPeak memory of a process that does just that, and memory for each vector.\n\n"


def _cost(run: dict[str, Any], operation: str) -> str:
    value = Samples(run).median(operation, NOVABACKUP)
    return NOTHING if value is None else f"{seconds(value)}, {value / run['vectors'] * 1e6:.2f} µs"


def _peak(run: dict[str, Any], operation: str) -> str:
    value = Samples(run).median(operation, NOVABACKUP, "memory")
    return NOTHING if value is None else f"{size(value)}, {value / run['vectors']:,.0f} B"


def _many(part: dict[str, Any]) -> str:
    text = ""
    for run in part.values():
        found = Samples(run)
        text += f"## Many snapshots: {run['snapshots']:,} of a store of 1,000 vectors\n\n"
        text += f"The repository holds {size(run['stored'])}. Median of {run['repeat']} runs, in turn.\n\n"
        rows = [[title, *_pair(found, operation)] for operation, title in _MANY.items()]
        text += table(["", "one snapshot", f"{run['snapshots']:,} snapshots", "factor"], rows) + "\n"
    return text


def _pair(found: Samples, operation: str) -> list[str]:
    empty, full = found.median(operation, "empty"), found.median(operation, "full")
    return [seconds(empty), seconds(full), times(quotient(full, empty))]


# -- the page ----------------------------------------------------------------------------------------------------------

_INTRODUCTION = """# Results

Made by [`benchmarks/run.py`](../../benchmarks/README.md), which says what each number means. All results are durable:
the time ends when the data is on the disk. Caches are warm. A megabyte is a million bytes.

- **novabackup**: in a running process, as the library is used; its memory is that of a fresh process.
- **restic**: repository format 2 with its default compression; it always encrypts, novabackup and borg here do not.
- **borg**: no encryption, its default compression (lz4).
- **cp, tar, sha256sum**: the usual shell script, a dated folder with sums and a `tar.gz` beside it.
- **cp, sync**: plain copies, the floor.
- **aws s3 sync**, **rclone sync**: files as they are in a bucket; each backup overwrites the one before it.
"""


def _where(results: dict[str, Any]) -> str:
    """Say what each part was measured on; parts that agree share a line."""
    groups: dict[str, list[str]] = {}
    for experiment, parts in results.items():
        for key, part in parts.items():
            about = "; ".join(f"{name}: {value}" for name, value in {"date": part["date"], **part["about"]}.items())
            groups.setdefault(about, []).append(f"{experiment} {key}")
    lines = []
    for about, names in groups.items():
        head = f"**Measured for {', '.join(names)}**" if len(groups) > 1 else "**Measured on**"
        lines.append(f"{head}\n\n" + "\n".join(f"- {item}" for item in about.split("; ")) + "\n")
    return "\n".join(lines)


def write(results: dict[str, Any], out: Path) -> None:
    """Write results.md."""
    parts = [
        _INTRODUCTION,
        _where(results),
        _targets(results),
        _operations(results.get("operations", {})),
        _growth(results.get("growth", {})),
        _size(results.get("size", {})),
        _many(results.get("many", {})),
        _s3(results.get("s3", {})),
    ]
    (out / "results.md").write_text("\n".join(part.strip("\n") + "\n" for part in parts if part))


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/benchmarks")
    write(json.loads((folder / "results.json").read_text()), folder)
