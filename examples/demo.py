"""What `make demo` runs: build a store of real indexes, break its ingestion in four ways, watch it come back."""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import manuals

from novabackup import CheckFailedError, IndexStore, Repository, recover, snapshot

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-store").resolve()
FOLDER = ROOT / "vector_db"
STORE = IndexStore(FOLDER)
BACKUPS = Repository(ROOT / "backups")

State = dict[str, tuple[str, str]]


def state() -> State:
    """Give hash and number of entries of each index file, as they are just now."""
    hashes = manuals.hashes(FOLDER)
    reports = {report.path: report for report in STORE.inspect()}
    return {
        name: (hashes.get(name, "-"), "damaged" if reports[name].problems else str(reports[name].count))
        for name in manuals.FILES
    }


def show(before: State, broken: State, after: State) -> None:
    """Print the three states beside each other."""
    print(f"\n    {'':<16} {'before':<20} {'broken':<22} afterwards")
    for name in manuals.FILES:
        cells = [f"{digits} {count}" for digits, count in (before[name], broken[name], after[name])]
        same = "same" if before[name] == after[name] else "DIFFERENT"
        print(f"    {name:<16} {cells[0]:<20} {cells[1]:<22} {cells[2]}  {same}")
    if before != after or STORE.check():
        sys.exit("\nThe store did not come back.")
    print("\n    The store came back, byte for byte.\n")


def exception() -> State:
    """Fail in the middle."""
    broken = {}
    try:
        with snapshot(STORE, BACKUPS, message="demo 1"):
            manuals.write_faiss(FOLDER, manuals.read_chunks(*manuals.NAMES))
            broken = state()
            raise ConnectionError("the embedding service does not answer")
    except ConnectionError as error:
        print(f"    ConnectionError: {error}")
    return broken


def swallowed() -> State:
    """Catch an error that should have been raised."""
    broken = {}
    try:
        with snapshot(STORE, BACKUPS, message="demo 2"):
            try:
                manuals.write_faiss(FOLDER, manuals.read_chunks("wheels", "cooling"))
                manuals.write_metadata(FOLDER, manuals.read_chunks("wheels", "no such manual"))
            except FileNotFoundError:
                print("    The ingestion caught its own error and went on as if nothing had happened.")
            broken = state()
    except CheckFailedError as error:
        for problem in error.problems:
            print(f"    CheckFailedError: {problem.code} in {', '.join(problem.paths)}")
    return broken


def truncated() -> State:
    """Leave a file that was cut off, as a full disk does."""
    broken = {}
    try:
        with snapshot(STORE, BACKUPS, message="demo 3"):
            manuals.ingest(FOLDER, "cooling")
            os.truncate(FOLDER / "faiss_index.bin", 1000)
            broken = state()
    except CheckFailedError as error:
        for problem in error.problems:
            print(f"    CheckFailedError: {problem.code} in {', '.join(problem.paths)}")
    return broken


def killed() -> State:
    """Kill the whole process, and recover from another one."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        with snapshot(STORE, BACKUPS, message="demo 4"):
            manuals.write_bm25(FOLDER, manuals.read_chunks("wheels"))
            (FOLDER / "metadata.json").write_text('[{"id": "wheels-0", "te')
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(f"    The process died of {signal.Signals(os.WTERMSIG(status)).name}. Another one calls recover(store):")
    broken = state()
    done = recover(STORE)
    print(f"    interrupted in phase {done.phase!r}, brought to {done.snapshot}" if done else "    nothing to do")
    return broken


def main() -> None:
    """Run the demonstration."""
    # The library says each rollback in its log as well; here that would be said twice.
    logging.getLogger("novabackup").setLevel(logging.ERROR)
    shutil.rmtree(ROOT, ignore_errors=True)
    print(f"A store of real indexes (FAISS, BM25, JSON) in {FOLDER}\n")

    print("An ingestion that works")
    for names in (("brakes", "engine"), ("electrics",)):
        with snapshot(STORE, BACKUPS, message=" and ".join(names)):
            count = manuals.ingest(FOLDER, *names)
        print(f"    {' and '.join(names)}: {count} chunks, checked")
    print()

    ways: list[tuple[str, Callable[[], State]]] = [
        ("Broken by an exception half-way", exception),
        ("Broken by an error that the ingestion swallows, so that the files disagree", swallowed),
        ("Broken by a FAISS file that was cut off", truncated),
        ("Broken by kill -9", killed),
    ]
    for number, (title, way) in enumerate(ways, 1):
        print(f"{number}. {title}")
        before = state()
        broken = way()
        show(before, broken, state())

    print("And an ingestion that works again")
    with snapshot(STORE, BACKUPS, message="wheels"):
        count = manuals.ingest(FOLDER, "wheels")
    print(f"    wheels: {count} chunks, checked\n")

    print(f"Snapshots in {BACKUPS.url}")
    for snap in BACKUPS.snapshots():
        print(f"    {snap.id}  {snap.size:>6} bytes  +{snap.added:<6} {', '.join(snap.tags):<14} {snap.message}")
    for snap in BACKUPS.snapshots():
        snap.verify()
    print("\nEvery byte of every snapshot was read and is right." if not BACKUPS.check() else "\nPROBLEMS")
    print(f"\nLook around: {ROOT}")


if __name__ == "__main__":
    main()
