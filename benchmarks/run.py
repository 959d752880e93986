"""Measure novabackup beside restic, borg, the usual shell script and plain copies; see README.md.

Usage: python benchmarks/run.py --work FOLDER [--only operations,growth,size,many,s3] [--out docs/benchmarks]

Each experiment replaces only its own part of OUT/results.json, so they can be run one by one.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import machine
import plots
import report
from peers import (
    HERE,
    Borg,
    Child,
    Copy,
    Measure,
    Novabackup,
    NovabackupFresh,
    NovabackupFreshGuard,
    NovabackupRestore,
    Peer,
    Reference,
    Restic,
    copy,
)

if TYPE_CHECKING:
    from s3 import OnS3

KINDS = ("Flat", "IVF1024,Flat", "IVF1024,PQ48", "HNSW16")
SIZES = "10000,30000,100000,300000,1000000,2000000"
EXPERIMENTS = ("operations", "growth", "size", "many", "s3")

_STORES = str(HERE / "stores.py")
_CHAIN = ("first", "ingest", "unchanged", "restore", "verify")
_GROW = 0.01
_TINY = 1000
_PAIRS = 20

Samples = dict[str, dict[str, list[Any]]]
"""Measures by operation and name of the peer."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store before and after an ingest."""

    before: Path
    after: Path

    @property
    def size(self) -> int:
        """Bytes of the store after the ingest."""
        return sum(path.stat().st_size for path in self.after.iterdir())


class Bench:
    """The folders of a run, its results, and what all experiments need."""

    def __init__(self, work: Path, out: Path):
        self.stores = work / "stores"
        self.scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=work))
        self._out = out
        self._file = out / "results.json"
        self._about = machine.describe(work)
        self._results = json.loads(self._file.read_text()) if self._file.exists() else {}

    def store(self, kind: str, vectors: int) -> Store:
        """Give a store; it is built if an earlier run has not left it behind."""
        folder = self.stores / f"{kind}-{vectors}"
        if not folder.exists():
            say(f"building a store: {kind}, {vectors:,} vectors")
            unfinished = self.scratch / "unfinished"
            arguments = ["--vectors", str(vectors), "--index", kind, "--grow", str(_GROW)]
            subprocess.run([sys.executable, _STORES, str(unfinished), *arguments], check=True)
            self.stores.mkdir(exist_ok=True)
            unfinished.rename(folder)
        return Store(before=folder / "before", after=folder / "after")

    def tiny(self) -> Path:
        """Give a store that is so small that only what each operation costs by itself is seen."""
        return self.store("Flat", _TINY).before

    def peer(self, kind: type[Peer]) -> Peer:
        """Make a peer, in a folder of its own."""
        home = self.scratch / kind.name
        return kind(home, self.tiny()) if issubclass(kind, Novabackup) else kind(home)

    def save(self, experiment: str, key: str, **found: Any) -> None:
        """Put a part into the results, and write everything that is made of them."""
        part = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "about": self._about, **found}
        self._results.setdefault(experiment, {})[key] = part
        self._out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._results, indent=1, default=asdict) + "\n"
        self._file.write_text(text)
        self._results = json.loads(text)
        report.write(self._results, self._out)
        plots.draw(self._results, self._out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Remove what was only needed while measuring."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


# -- operations --------------------------------------------------------------------------------------------------------


def operations(bench: Bench, kinds: Sequence[str], vectors: int, repeat: int) -> None:
    """Measure each operation with each tool, for each kind of index."""
    classes = (Novabackup, NovabackupFresh, Restic, Borg, Reference, Copy)
    for kind in kinds:
        store = bench.store(kind, vectors)
        samples: Samples = {}
        with ExitStack() as stack:
            peers = [stack.enter_context(bench.peer(each)) for each in classes]
            others = [stack.enter_context(bench.peer(each)) for each in (NovabackupRestore, NovabackupFreshGuard)]
            for number in range(repeat):
                say(f"operations: {kind}, {number + 1} of {repeat}")
                now = [peer for peer in peers if not (peer.once and number)]
                _measure_chain(now, store, number, samples)
                _measure_rollback([*now, *others], store, number, samples)
        bench.save("operations", kind, vectors=vectors, repeat=repeat, store_bytes=store.size, samples=samples)


def _in_turn(peers: Sequence[Peer], number: int) -> Iterator[Peer]:
    """Give the peers in an order that moves on by two with each repetition."""
    start = 2 * number % len(peers)
    return iter([*peers[start:], *peers[:start]])


def _measure_chain(peers: Sequence[Peer], store: Store, number: int, samples: Samples) -> None:
    """Measure what can be done one after the other with one repository; each operation with all tools in turn."""
    for peer in peers:
        peer.prepare(store.before)
    for operation in _CHAIN:
        for peer in _in_turn([peer for peer in peers if operation in peer.operations], number):
            _add(samples, operation, peer, _measure(peer, operation, store))
    _remove(peers)


def _measure_rollback(peers: Sequence[Peer], store: Store, number: int, samples: Samples) -> None:
    for peer in _in_turn(peers, number):
        peer.prepare(store.before)
        peer.backup("first")
        _add(samples, "rollback", peer, _measure(peer, "rollback", store))
        _remove([peer])


def _remove(peers: Sequence[Peer]) -> None:
    for peer in peers:
        shutil.rmtree(peer.home)


def _add(samples: Samples, operation: str, peer: Peer, measure: Measure) -> None:
    say(f"  {operation:10} {peer.name:32} {measure.wall:8.3f} s")
    _put(samples, operation, peer.name, measure)


def _put(samples: Samples, operation: str, name: str, measure: Measure) -> None:
    samples.setdefault(operation, {}).setdefault(name, []).append(measure)


def _measure(peer: Peer, operation: str, store: Store) -> Measure:
    """Do one operation, after everything older is on the disk, and see to it that it did what it should."""
    if operation == "ingest":
        copy(store.after, peer.live)
    stored = peer.stored()
    os.sync()
    measure = _do(peer, operation, store)
    if operation in ("restore", "verify"):
        return measure
    return replace(measure, stored=peer.stored(), added=peer.stored() - stored)


def _do(peer: Peer, operation: str, store: Store) -> Measure:
    match operation:
        case "first" | "ingest" | "unchanged":
            return peer.backup(operation)
        case "restore":
            elsewhere = peer.home / "elsewhere"
            measure = peer.restore("ingest", elsewhere)
            _compare(store.after, elsewhere / "live")
            shutil.rmtree(elsewhere)
            return measure
        case "rollback":
            measure = peer.roll_back("first", store.after)
            _compare(store.before, peer.live)
            return measure
        case _:
            return peer.verify()


def _compare(expected: Path, found: Path) -> None:
    filecmp.clear_cache()  # which goes by sizes and times
    names = [str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_file()]
    same, _different, _missing = filecmp.cmpfiles(expected, found, names, shallow=False)
    assert same == names, f"expected {names}, found right only {same}"


# -- s3 ----------------------------------------------------------------------------------------------------------------


def s3(bench: Bench, aws: Path, vectors: int, repeat: int, rate: str) -> None:
    """Measure the tools that can keep backups on S3, all with the same server, which counts what they ask of it."""
    # s3fs is imported only where it is needed.
    from s3 import AwsSync, NovabackupFreshS3, NovabackupS3, RcloneSync, ResticS3, versions  # noqa: PLC0415
    from s3_servers import best_server, line  # noqa: PLC0415

    tools = versions(aws)  # before anything takes time, since it fails if one of them is missing
    store = bench.store("Flat", vectors)
    samples: Samples = {}
    arguments = {NovabackupS3: [bench.tiny()], AwsSync: [aws]}
    with ExitStack() as stack:
        home = bench.scratch / f"s3-{rate or 'direct'}"
        server = stack.enter_context(best_server(home / "server"))
        say(f"s3: {server.name}, {rate or 'no network between'}")
        if rate:
            stack.enter_context(line(server, rate))
        peers = [
            stack.enter_context(kind(home / kind.name, server, *arguments.get(kind, [])))
            for kind in (NovabackupS3, NovabackupFreshS3, AwsSync, RcloneSync, ResticS3)
        ]
        sources = {kind: stack.enter_context(bench.peer(kind)) for kind in {peer.source for peer in peers}}
        for source in sources.values():
            source.prepare(store.before)
            source.backup("first")
            copy(store.after, source.live)
            source.backup("ingest")
        for number in range(repeat):
            say(f"s3: {number + 1} of {repeat}")
            _measure_chain(peers, store, number, samples)
            for peer in _in_turn(peers, number):
                _add(samples, "copy", peer, _measure_copy(peer, sources[peer.source]))
            found = {"server": server.name, "line": rate, "tools": tools, "samples": samples}
            key = f"Flat, {rate}" if rate else "Flat"
            bench.save("s3", key, vectors=vectors, repeat=number + 1, store_bytes=store.size, **found)
        _remove(list(sources.values()))


def _measure_copy(peer: OnS3, source: Peer) -> Measure:
    """Copy a local repository to S3, and see to it that all of it arrived."""
    peer.prepare_copy(source)
    before = peer.stored()
    os.sync()
    measure = peer.copy(source)
    measure = replace(measure, stored=peer.stored(), added=peer.stored() - before)
    elsewhere = peer.home / "elsewhere"
    peer.restore("ingest", elsewhere)
    _compare(peer.copied(source), elsewhere / "live")
    _remove([peer])
    return measure


# -- growth ------------------------------------------------------------------------------------------------------------


def growth(bench: Bench, vectors: int, steps: int) -> None:
    """Let a store grow by one part in a hundred again and again, and take a snapshot each time."""
    samples: dict[str, list[Measure]] = {}
    state = bench.scratch / "state"
    command = [sys.executable, _STORES, str(state), "--vectors", str(vectors), "--serve"]
    sizes = [vectors + step * int(vectors * _GROW) for step in range(steps + 1)]
    with ExitStack() as stack:
        series = stack.enter_context(Child(command))
        peers = [stack.enter_context(bench.peer(each)) for each in (Novabackup, Restic, Borg)]
        for step, size in enumerate(sizes):
            say(f"growth: ingest {step} of {steps}")
            series.ask(str(size))
            for peer in _in_turn(peers, step):
                if step == 0:
                    peer.prepare(state)
                samples.setdefault(peer.name, []).append(_grow(peer, state, f"step-{step}"))
    bench.save("growth", "Flat", vectors=vectors, sizes=sizes, samples=samples)


def _grow(peer: Peer, state: Path, label: str) -> Measure:
    copy(state, peer.live)
    stored = peer.stored()
    os.sync()
    measure = peer.backup(label)
    say(f"  {peer.name:32} {measure.wall:8.3f} s")
    return replace(measure, stored=peer.stored(), added=peer.stored() - stored)


# -- size --------------------------------------------------------------------------------------------------------------


def size(bench: Bench, sizes: Sequence[int], repeat: int) -> None:
    """Measure novabackup alone with stores of many sizes."""
    for vectors in sizes:
        kept = (bench.stores / f"Flat-{vectors}").exists()
        store = bench.store("Flat", vectors)
        samples: Samples = {}
        for kind, times in ((Novabackup, repeat), (NovabackupFresh, 1)):
            with bench.peer(kind) as peer:
                for number in range(times):
                    say(f"size: {vectors:,} vectors, {number + 1} of {times}")
                    _measure_chain([peer], store, number, samples)
        bench.save("size", str(vectors), vectors=vectors, repeat=repeat, store_bytes=store.size, samples=samples)
        if not kept:
            shutil.rmtree(store.before.parent)  # the largest take a lot of space


# -- many --------------------------------------------------------------------------------------------------------------


def many(bench: Bench, snapshots: int) -> None:
    """Compare a repository with very many snapshots with one that has a single one."""
    tiny = bench.tiny()
    samples: Samples = {}
    with Novabackup(bench.scratch / "full", tiny) as full, Novabackup(bench.scratch / "empty", tiny) as empty:
        full.prepare(tiny)
        for number in range(snapshots):
            if number % 500 == 0:
                say(f"many: {number} of {snapshots}")
            _change(full, number)
            full.backup("one of many")
        stored = full.stored()
        for number in range(_PAIRS):
            empty.prepare(tiny)
            empty.backup("the first")
            pair = (("full", full), ("empty", empty))
            for name, peer in pair if number % 2 else reversed(pair):
                _measure_many(name, peer, snapshots + number, samples)
        for name, peer in pair:
            _put(samples, "list, fresh process", name, NovabackupFresh(peer.home).list())
    bench.save("many", "Flat", snapshots=snapshots, repeat=_PAIRS, stored=stored, samples=samples)


def _change(peer: Peer, number: int) -> None:
    """Change the last entry of the metadata, so that there is something to store."""
    path = peer.live / "metadata.json"
    entries = json.loads(path.read_text())
    entries[-1]["text"] = f"changed for the time number {number}"
    path.write_text(json.dumps(entries, indent=1))


def _measure_many(name: str, peer: Novabackup, number: int, samples: Samples) -> None:
    _change(peer, number)
    os.sync()
    peer.reopen()
    _put(samples, "changed", name, peer.backup("changed"))
    _put(samples, "unchanged", name, peer.backup("unchanged"))
    peer.reopen()
    _put(samples, "list", name, peer.list())
    _put(samples, "list again", name, peer.list())


def main() -> None:
    chosen = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is tidied up
    chosen.work.mkdir(parents=True, exist_ok=True)
    with Bench(chosen.work.resolve(), chosen.out) as bench:
        if "operations" in chosen.only:
            operations(bench, chosen.index or KINDS, chosen.vectors, chosen.repeat)
        if "growth" in chosen.only:
            growth(bench, chosen.vectors, chosen.steps)
        if "size" in chosen.only:
            size(bench, chosen.sizes, chosen.repeat)
        if "many" in chosen.only:
            many(bench, chosen.snapshots)
        if "s3" in chosen.only:
            for rate in chosen.line or [""]:
                s3(bench, chosen.aws, chosen.vectors, chosen.repeat, rate)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is measured; on a disk")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks", help="where results go")
    parser.add_argument("--only", type=_experiments, default=EXPERIMENTS, help=f"by default {','.join(EXPERIMENTS)}")
    parser.add_argument("--vectors", type=int, default=200_000, help="of operations, growth and s3")
    parser.add_argument("--repeat", type=int, default=3, help="of operations, size and s3")
    parser.add_argument("--index", action="append", choices=KINDS, help="of operations; may be given several times")
    parser.add_argument("--steps", type=int, default=30, help="ingests of growth")
    parser.add_argument("--sizes", type=_numbers, default=_numbers(SIZES), help=f"numbers of vectors; {SIZES}")
    parser.add_argument("--snapshots", type=int, default=5000, help="of many")
    parser.add_argument("--aws", type=Path, default=shutil.which("aws"), help="of s3: the command aws; see README.md")
    parser.add_argument("--line", action="append", help="of s3: such as 1gbit, '' for none; needs root, and tc")
    chosen = parser.parse_args()
    if "s3" in chosen.only and not chosen.aws:
        parser.error("s3 needs the command aws, in an environment of its own: see README.md, and name it by --aws")
    return chosen


def _experiments(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted({*names} - {*EXPERIMENTS})
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(EXPERIMENTS)}, found {','.join(unknown)}")
    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
