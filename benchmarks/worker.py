"""novabackup in a process of its own, which is told by lines of JSON what to do and answers with what that cost.

Usage: python benchmarks/worker.py [REQUESTS]

With REQUESTS, a JSON list, it does just these, answers the last of them and ends: a fresh process. Without, it does one
request after the other, as standard input brings them: the process of a service that has been running for a while.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import sys
import time
from collections.abc import Callable
from os import sync
from pathlib import Path
from typing import Any

from novabackup import IndexStore, Repository, Snapshot, snapshot


class IngestionError(Exception):
    """What the body of the guarded block raises."""


class Meter:
    """Wall-clock time and CPU time, from now on."""

    def __init__(self):
        self._cpu = _cpu()
        self._wall = time.perf_counter()

    def read(self) -> dict[str, float]:
        wall = time.perf_counter() - self._wall
        return {"wall": wall, "cpu": _cpu() - self._cpu}


def _cpu() -> float:
    """Give the seconds that this process, its threads and the children that have ended computed."""
    spent = 0.0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(whose)
        spent += usage.ru_utime + usage.ru_stime
    return spent


class Library:
    """The operations; the first request of all is `open`."""

    def open(self, store: str, repository: str, options: dict[str, Any] | None = None) -> dict[str, float]:
        self._live = Path(store)
        self._store = IndexStore(store)
        self._repository = Repository(repository, storage_options=options)
        self._taken: dict[str, Snapshot] = {}
        return {}

    def backup(self, label: str) -> dict[str, float]:
        meter = Meter()
        self._taken[label] = self._repository.backup(self._store, tags=[label])
        return meter.read()

    def restore(self, label: str, to: str | None = None) -> dict[str, float]:
        meter = Meter()
        self._find(label).restore(to=to)
        return meter.read()

    def verify(self) -> dict[str, float]:
        meter = Meter()
        problems = self._repository.check(read_data_subset="100%")
        cost = meter.read()
        assert not problems, problems
        return cost

    def list(self) -> dict[str, float]:
        meter = Meter()
        found = self._repository.snapshots()
        return {**meter.read(), "count": len(found)}

    def copy(self, source: str) -> dict[str, float]:
        """Copy all snapshots of another repository into this one."""
        origin = Repository(source)
        meter = Meter()
        origin.copy(to=self._repository)
        return meter.read()

    def guard(self, grown: str) -> dict[str, float]:
        """Fail in a guarded block that had copied the files of a grown store in place; only its end is measured."""
        try:
            with snapshot(self._store, self._repository):
                for path in Path(grown).iterdir():
                    shutil.copyfile(path, self._live / path.name)
                sync()
                meter = Meter()
                raise IngestionError
        except IngestionError:
            return meter.read()

    def _find(self, label: str) -> Snapshot:
        """Find a snapshot that this process took, or else, as a fresh process has to, by its tag."""
        return self._taken.get(label) or self._repository.snapshots(tags=[label])[-1]


def _answer(library: Library, request: dict[str, Any]) -> dict[str, float]:
    work: Callable[..., dict[str, float]] = getattr(library, request.pop("do"))
    return work(**request)


def main() -> None:
    logging.getLogger("novabackup").addHandler(logging.NullHandler())  # each rollback is a warning
    library = Library()
    if len(sys.argv) > 1:
        answers = [_answer(library, request) for request in json.loads(sys.argv[1])]
        print(json.dumps(answers[-1]))
        return
    for line in sys.stdin:
        print(json.dumps(_answer(library, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
