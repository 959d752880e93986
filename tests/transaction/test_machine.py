"""Whatever is done to a store and its repository, in whatever order, both hold what a plain dictionary says."""

from __future__ import annotations

import random
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import nova
import trees
from novabackup import CheckFailedError, IndexStore, IntegrityError, NotFoundError, Repository, recover, snapshot
from novabackup.components import Files, JsonLines

PATHS = ("entries.jsonl", "vectors.bin", "notes/extra.txt")

contents = st.fixed_dictionaries(
    {},
    optional={
        "entries.jsonl": st.integers(0, 30).map(lambda count: b'{"text":"brake"}\n' * count),
        "vectors.bin": st.tuples(st.integers(0, 150_000), st.integers(0, 3)).map(
            lambda drawn: random.Random(drawn[1]).randbytes(drawn[0])
        ),
        "notes/extra.txt": st.binary(max_size=50),
    },
)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Bring the declared files to this state, in place, as an ingestion would."""
    for path in PATHS:
        if path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(files[path])
        else:
            (folder / path).unlink(missing_ok=True)


class Machine(RuleBasedStateMachine):
    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "store"
        components = [
            JsonLines(PATHS[0], optional=True),
            Files(PATHS[1], optional=True),
            Files(PATHS[2], optional=True),
        ]
        self.store = IndexStore(self.folder, components=components)
        self.repository = Repository(self.root / "repository")
        self.live: dict[str, bytes] = {}
        self.kept: dict[str, dict[str, bytes]] = {}
        self.by_itself: set[str] = set()
        self.crashed = False

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def known(self) -> None:
        """Learn which snapshots a guard took, and forgot, by itself."""
        for point in self.repository:
            if point.id not in self.kept:
                self.by_itself.add(point.id)
                self.kept[point.id] = trees.held(point)
        for gone in self.by_itself - {point.id for point in self.repository}:
            self.kept.pop(gone, None)
        failed = self.repository.snapshots(tags=["failed-ingest"])
        assert len(failed) <= 3

    @precondition(lambda self: not self.crashed)
    @rule(files=contents)
    def ingest(self, files):
        with snapshot(self.store, self.repository) as before:
            write(self.folder, files)
        self.kept[before.id], self.live = self.live, files

    @precondition(lambda self: not self.crashed)
    @rule(files=contents)
    def ingest_fails(self, files):
        with pytest.raises(ZeroDivisionError), snapshot(self.store, self.repository) as before:
            write(self.folder, files)
            raise ZeroDivisionError
        self.kept[before.id] = self.live
        self.known()

    @precondition(lambda self: not self.crashed)
    @rule()
    def ingest_breaks_a_file(self):
        with pytest.raises(CheckFailedError), snapshot(self.store, self.repository) as before:
            write(self.folder, {**self.live, "entries.jsonl": b'{"text": "bra'})
        self.kept[before.id] = self.live
        self.known()

    @precondition(lambda self: not self.crashed)
    @rule(files=contents)
    def crash(self, files):
        guard = snapshot(self.store, self.repository)
        self.kept[guard.__enter__().id] = self.live
        write(self.folder, files)
        held, _ = guard._guard._sessions.pop()._entered
        held._let_go()  # as the kernel does when the process dies
        self.crashed = True

    @rule()
    def recovers(self):
        done = recover(self.store)
        assert (done is not None) == self.crashed
        if self.crashed:
            self.crashed = False
            self.known()

    @precondition(lambda self: not self.crashed)
    @rule(target=snapshots)
    def backup(self):
        point = self.repository.backup(self.store)
        self.kept[point.id] = self.live
        return point.id

    @precondition(lambda self: not self.crashed)
    @rule(name=snapshots)
    def restore(self, name):
        self.repository[name].restore(to=self.store)
        self.live = self.kept[name]
        self.known()

    @precondition(lambda self: self.kept and not self.crashed)
    @rule(name=consumes(snapshots))
    def forget(self, name):
        self.repository.forget([name])
        del self.kept[name]

    @precondition(lambda self: self.kept)
    @rule()
    def prune(self):
        self.repository.prune(grace=timedelta(0))

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 2**32), place=st.integers(0, 2**32), bit=st.integers(0, 7))
    def damage(self, which, place, bit):
        objects = sorted(path for path in (self.root / "repository").rglob("*") if path.is_file())
        path = objects[which % len(objects)]
        content = path.read_bytes()
        broken = bytearray(content)
        broken[place % len(broken)] ^= 1 << bit
        path.write_bytes(broken)
        fresh = Repository(self.root / "repository")
        try:
            assert fresh.check(read_data_subset="100%")
            for name, files in self.kept.items():
                for file, expected in files.items():
                    try:
                        assert fresh[name].open(file).read() == expected
                    except IntegrityError:
                        continue
        finally:
            path.write_bytes(content)

    @invariant()
    def the_store_is_as_it_should_be(self):
        if not self.crashed:
            found = nova.contents(self.folder) if self.folder.exists() else {}
            assert found == self.live

    @invariant()
    def every_snapshot_is_as_it_should_be(self):
        fresh = Repository(self.root / "repository")
        try:
            points = list(fresh)
        except NotFoundError:
            points = []
        assert {point.id for point in points} == self.kept.keys()
        for point in points:
            point.verify()
            assert trees.held(point) == self.kept[point.id]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
