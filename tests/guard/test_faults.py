"""Whatever operation fails, and however: the store is as it was before the ingest or after it, and snapshots are whole."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from novabackup import IndexStore, NotFoundError, NovaBackupError, Repository, StoreBusyError, recover, snapshot
from novabackup.components import Files, JsonLines
from novabackup.storage import Storage, open_storage
from novabackup.testing import Fault, FaultyStorage, Moment, Then, die, fail_with

BEFORE = {"entries.jsonl": b'{"text":"brake"}\n' * 9, "vectors.bin": bytes(range(256)) * 50}
AFTER = {"entries.jsonl": BEFORE["entries.jsonl"] * 2, "vectors.bin": BEFORE["vectors.bin"] * 2, "extra.txt": b"new"}
COMPONENTS = (JsonLines("entries.jsonl"), Files("vectors.bin"), Files("extra.txt", optional=True))


class IngestError(Exception):
    """What the ingest raises by itself."""


@attrs.frozen
class Place:
    """Where a store and its repository are."""

    store: str
    repository: str
    options: dict[str, object]

    def open(self, url: str) -> Storage:
        return open_storage(url, self.options)

    def write(self, files: dict[str, bytes]) -> None:
        """Bring the store to a state, without any help of novabackup."""
        storage = self.open(self.store)
        for path in AFTER:
            if path in files:
                storage.write(path, [files[path]])
            else:
                storage.delete(path)

    def contents(self) -> dict[str, bytes]:
        storage = self.open(self.store)
        return {path: storage.read(path) for path in AFTER if storage.exists(path)}


@pytest.fixture(params=["local", "moto"])
def places(request, tmp_path) -> Callable[[], Place]:
    """Gives a new place, with the state before the ingest, at each call."""
    numbers = itertools.count()
    if request.param == "local":
        root, options = str(tmp_path), {}
    else:
        root, options = request.getfixturevalue("moto_place")

    def make() -> Place:
        number = next(numbers)
        place = Place(f"{root}/{number}/store", f"{root}/{number}/repository", options)
        place.write(BEFORE)
        return place

    return make


def guarded_ingest(place: Place, store: Storage, repository: Storage, *, fails: bool) -> None:
    with snapshot(IndexStore(store, components=COMPONENTS), Repository(repository)):
        place.write(AFTER)
        if fails:
            raise IngestError


def recovers(store: Storage, repository: Storage) -> None:
    recover(IndexStore(store, components=COMPONENTS), Repository(repository))


def check_place(place: Place, *, fails: bool, label: str) -> None:
    """The promise: one of the two states, nobody holds the store, every listed snapshot verifies."""
    recovers(place.open(place.store), place.open(place.repository))
    found = place.contents()
    assert found in ([BEFORE] if fails else [BEFORE, AFTER]), f"{label}: {({path: len(c) for path, c in found.items()})}"
    repository = Repository(place.open(place.repository))
    try:
        points = repository.snapshots()
    except NotFoundError:
        points = ()
    for point in points:
        point.verify()
    with snapshot(IndexStore(place.open(place.store), components=COMPONENTS), repository):
        place.write(AFTER)
    assert place.contents() == AFTER


def strike(place: Place, side: str, at: int, fault: Fault, moment: Moment, then: Then) -> tuple[Storage, Storage]:
    """Open both storages, one of them faulty."""
    opened = {"store": place.open(place.store), "repository": place.open(place.repository)}
    opened[side] = FaultyStorage(opened[side], at, fault, moment, then)
    return opened["store"], opened["repository"]


def operations(make: Callable[[], Place], side: str, work: Callable[[Place, Storage, Storage], None]) -> int:
    """Count the operations of work that nothing disturbs."""
    place = make()
    storages = strike(place, side, 0, die, Moment.BEFORE, Then.WORKS)
    try:
        work(place, *storages)
    except IngestError:
        pass
    return storages[0 if side == "store" else 1].operations  # type: ignore[attr-defined]


ERRORS = [
    pytest.param(OSError(errno.EIO, "input/output error"), Moment.BEFORE, Then.WORKS, id="one error"),
    pytest.param(OSError(errno.EIO, "the answer was lost"), Moment.AFTER, Then.WORKS, id="one lost answer"),
    pytest.param(OSError(errno.ENOSPC, "no space left on device"), Moment.BEFORE, Then.BROKEN, id="disk full for good"),
    pytest.param(KeyboardInterrupt(), Moment.BEFORE, Then.WORKS, id="interrupt"),
]


@pytest.mark.parametrize("side", ["store", "repository"])
@pytest.mark.parametrize("fails", [False, True], ids=["good ingest", "failing ingest"])
@pytest.mark.parametrize(("error", "moment", "then"), ERRORS)
def test_an_error_at_any_operation(places, side, fails, error, moment, then):
    def work(place: Place, store: Storage, repository: Storage) -> None:
        guarded_ingest(place, store, repository, fails=fails)

    total = operations(places, side, work)
    assert total > 5
    for at in range(1, total + 1):
        place = places()
        try:
            work(place, *strike(place, side, at, fail_with(error), moment, then))
        except (OSError, KeyboardInterrupt, IngestError, NovaBackupError):
            pass
        else:
            assert not fails
            assert place.contents() == AFTER, f"operation {at}: success was reported for something else"
        again = strike(place, side, at * 5 % 17 + 1, fail_with(error), moment, Then.WORKS)
        try:
            recovers(*again)
        except (OSError, KeyboardInterrupt, NovaBackupError) as caught:
            assert not isinstance(caught, StoreBusyError), f"operation {at}: nobody holds the store any more"
        check_place(place, fails=fails, label=f"operation {at} of {total}")


def in_a_child(work: Callable[[], None]) -> int:
    """Run something in a forked child; give how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except (IngestError, NovaBackupError, OSError):
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("side", ["store", "repository"])
@pytest.mark.parametrize("fails", [False, True], ids=["good ingest", "failing ingest"])
@pytest.mark.parametrize("moment", list(Moment), ids=["before", "after"])
def test_a_kill_at_any_operation(places, side, fails, moment):
    def work(place: Place, store: Storage, repository: Storage) -> None:
        guarded_ingest(place, store, repository, fails=fails)

    total = operations(places, side, work)
    killed = 0
    for at in range(1, total + 1):
        place = places()
        ended = in_a_child(lambda: work(place, *strike(place, side, at, die, moment, Then.WORKS)))
        # There is no moment after an operation that fails by itself, as a look at a file that is not there does.
        assert ended == -signal.SIGKILL or moment is Moment.AFTER, f"operation {at} of {total} did not happen"
        killed += ended == -signal.SIGKILL
        # The recovery is killed as well, at operations that differ from round to round, and then goes on.
        in_a_child(lambda: recovers(*strike(place, side, at * 7 % 29 + 1, die, moment, Then.WORKS)))
        check_place(place, fails=fails, label=f"operation {at} of {total}")
    assert killed > total // 2


@pytest.mark.parametrize("side", ["store", "repository"])
def test_a_kill_at_any_operation_of_a_recovery(places, side):
    for at in range(1, 200):
        place = places()
        storages = strike(place, "store", 0, die, Moment.BEFORE, Then.WORKS)

        def killed_in_the_block(place: Place = place, storages: tuple[Storage, Storage] = storages) -> None:
            with snapshot(IndexStore(storages[0], components=COMPONENTS), Repository(storages[1])):
                place.write(AFTER)
                die()

        assert in_a_child(killed_in_the_block) == -signal.SIGKILL
        ended = in_a_child(lambda: recovers(*strike(place, side, at, die, Moment.BEFORE, Then.WORKS)))
        check_place(place, fails=True, label=f"operation {at} of a recovery")
        if ended == 0:
            assert at > 5
            return
    pytest.fail("the recovery never ended")


def test_what_cannot_be_kept_in_the_repository_is_set_aside(tmp_path):
    place = Place(str(tmp_path / "store"), str(tmp_path / "repository"), {})
    place.write(BEFORE)
    full = FullWhenTold(open_storage(place.repository))
    with pytest.raises(IngestError), snapshot(IndexStore(place.store, components=COMPONENTS), Repository(full)):
        place.write(AFTER)
        full.is_full = True
        raise IngestError
    assert place.contents() == BEFORE
    aside = {path.name: path.read_bytes() for path in Path(place.store, ".novabackup", "aside").rglob("*.*") if path.is_file()}
    assert aside == AFTER


class FullWhenTold(FaultyStorage):
    """A storage that can only be read from some moment on."""

    is_full = False

    def write(self, key, blocks, attributes=None):
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device", key)
        return super().write(key, blocks, attributes)
