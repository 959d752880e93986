"""Whatever operation fails, and however: the store is as it was before the ingest or after it, snapshots are whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest

from novabackup import (
    DecryptionError,
    IndexStore,
    NotFoundError,
    NovaBackupError,
    Repository,
    RollbackError,
    StoreBusyError,
    keys,
    recover,
    snapshot,
)
from novabackup.components import Files, JsonLines
from novabackup.keys import Key, Passphrase
from novabackup.storage import Storage, open_storage
from novabackup.testing import Fault, FaultyStorage, Moment, Then, die, fail_with

BEFORE = {"entries.jsonl": b'{"text":"brake"}\n' * 9, "vectors.bin": bytes(range(256)) * 50}
AFTER = {"entries.jsonl": BEFORE["entries.jsonl"] * 2, "vectors.bin": BEFORE["vectors.bin"] * 2, "extra.txt": b"new"}
COMPONENTS = (JsonLines("entries.jsonl"), Files("vectors.bin"), Files("extra.txt", optional=True))


class IngestError(Exception):
    """What the ingest raises by itself."""


class Place:
    """Where a store and its repository are; made anew in each process that uses it, since clients outlive no fork."""

    def __init__(self, root: str, options: Mapping[str, object], key: Key | None = None) -> None:
        self.root = root
        self.options = options
        self.key = key
        self.store = open_storage(f"{root}/store", options)
        self.repository = open_storage(f"{root}/repository", options)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Bring the store to a state, without any help of novabackup."""
        for path in AFTER:
            if path in files:
                self.store.write(path, [files[path]])
            else:
                self.store.delete(path)

    def contents(self) -> dict[str, bytes]:
        return {path: self.store.read(path) for path in AFTER if self.store.exists(path)}

    def clear(self) -> None:
        """Begin anew, in the state before the ingest."""
        for storage in (self.store, self.repository):
            for entry in list(storage.entries()):
                storage.delete(entry.key)
        self.write(BEFORE)

    def strike(self, side: str, at: int, fault: Fault, moment: Moment, then: Then) -> tuple[Storage, Storage]:
        """Give both storages, one of them faulty."""
        if side == "store":
            return FaultyStorage(self.store, at, fault, moment, then), self.repository
        return self.store, FaultyStorage(self.repository, at, fault, moment, then)

    def open(self, repository: Storage) -> Repository:
        return Repository(repository, key=self.key)


@pytest.fixture
def local(tmp_path) -> Place:
    return Place(str(tmp_path), {})


@pytest.fixture
def sealed(tmp_path, monkeypatch) -> Place:
    monkeypatch.setattr(keys, "_N", 1 << 4)
    return Place(str(tmp_path), {}, Passphrase("check the brake pads"))


@pytest.fixture
def moto(moto_place) -> Place:
    return Place(*moto_place)


@pytest.fixture
def sftp(sftp_place) -> Place:
    return Place(*sftp_place)


def guarded_ingest(place: Place, store: Storage, repository: Storage, *, fails: bool) -> None:
    with snapshot(IndexStore(store, components=COMPONENTS), place.open(repository)):
        place.write(AFTER)
        if fails:
            raise IngestError


def recovers(place: Place, store: Storage, repository: Storage) -> None:
    recover(IndexStore(store, components=COMPONENTS), place.open(repository))


def check_place(place: Place, *, fails: bool, label: str) -> None:
    """The promise: one of the two states, nobody holds the store, every listed snapshot verifies."""
    recovers(place, place.store, place.repository)
    found = place.contents()
    assert found in ([BEFORE] if fails else [BEFORE, AFTER]), (
        f"{label}: { ({path: len(c) for path, c in found.items()}) }"
    )
    repository = place.open(place.repository)
    with contextlib.suppress(NotFoundError):
        for point in repository.snapshots():
            point.verify()
    assert recover(IndexStore(place.store, components=COMPONENTS)) is None, label
    with snapshot(IndexStore(place.store, components=COMPONENTS), repository):
        pass


def operations(place: Place, side: str, *, fails: bool) -> int:
    """Count the operations of a guarded ingest that nothing disturbs."""
    place.clear()
    storages = place.strike(side, 0, die, Moment.BEFORE, Then.WORKS)
    with contextlib.suppress(IngestError):
        guarded_ingest(place, *storages, fails=fails)
    (faulty,) = (storage for storage in storages if isinstance(storage, FaultyStorage))
    assert faulty.operations > 5
    return faulty.operations


IO_ERROR = OSError(errno.EIO, "input/output error")
FULL = OSError(errno.ENOSPC, "no space left on device")
FAULTS = {
    "one error": (IO_ERROR, Moment.BEFORE, Then.WORKS),
    "one lost answer": (IO_ERROR, Moment.AFTER, Then.WORKS),
    "disk full for good": (FULL, Moment.BEFORE, Then.BROKEN),
    "interrupt": (KeyboardInterrupt(), Moment.BEFORE, Then.WORKS),
}
SIDES = ("store", "repository")
ERRORS_ON_SFTP = {("store", "one lost answer", False), ("repository", "disk full for good", False)}
KILLS_ON_SFTP = {("store", Moment.BEFORE, True), ("repository", Moment.AFTER, False)}


PARTS = 4
"""On servers, the operations of a case are shared among so many tests, which can run side by side."""


def cases(side: str, how: tuple[object, ...], label: str, *, on_servers: bool, on_sftp: bool) -> Iterator[object]:
    """Yield a case for the local disk, and for the slower servers if it is one of those that are tried there."""
    yield pytest.param("local", side, *how, slice(0, None), id=f"local {label}")
    for part in range(PARTS):
        operations = slice(part, None, PARTS)
        if on_servers:
            yield pytest.param("moto", side, *how, operations, id=f"S3 {label}, {part + 1} of {PARTS}")
        if on_sftp:
            yield pytest.param("sftp", side, *how, operations, id=f"SFTP {label}, {part + 1} of {PARTS}")
    if on_servers and side == "repository":
        yield pytest.param("sealed", side, *how, slice(0, None), id=f"encrypted {label}")


def error_cases() -> Iterator[object]:
    """On a local disk everything; on the slower servers some kinds, with an ingest that fails or does not.

    A bucket is never full: what it looks like when writes are refused for good is tried where the repository is.
    """
    for side in SIDES:
        for number, name in enumerate(FAULTS):
            for fails in (False, True):
                label = f"{side}: {name}, ingest {'fails' * fails or 'ends'}"
                on_servers = name != "interrupt" and fails == (number != 1) and (side, number) != ("store", 2)
                on_sftp = (side, name, fails) in ERRORS_ON_SFTP
                yield from cases(side, (name, fails), label, on_servers=on_servers, on_sftp=on_sftp)


@pytest.mark.parametrize(("where", "side", "fault", "fails", "part"), list(error_cases()))
def test_an_error_at_any_operation(request, where, side, fault, fails, part):
    place = request.getfixturevalue(where)
    error, moment, then = FAULTS[fault]
    total = operations(place, side, fails=fails)
    for at in range(1, total + 1)[part]:
        place.clear()
        try:
            guarded_ingest(place, *place.strike(side, at, fail_with(error), moment, then), fails=fails)
        except (OSError, KeyboardInterrupt, IngestError, NovaBackupError):
            pass
        else:
            assert not fails
            assert place.contents() == AFTER, f"operation {at}: success was reported for something else"
        try:
            recovers(place, *place.strike(side, at * 5 % 17 + 1, fail_with(error), moment, Then.WORKS))
        except (OSError, KeyboardInterrupt, NovaBackupError) as caught:
            assert not isinstance(caught, StoreBusyError), f"operation {at}: nobody holds the store any more"
        check_place(place, fails=fails, label=f"operation {at} of {total}")


def killed_ingest(place: Place, side: str, at: int, moment: Moment, fails: bool) -> None:
    guarded_ingest(place, *place.strike(side, at, die, moment, Then.WORKS), fails=fails)


def killed_recovery(place: Place, side: str, at: int, moment: Moment) -> None:
    recovers(place, *place.strike(side, at, die, moment, Then.WORKS))


def killed_in_the_block(place: Place) -> None:
    with snapshot(IndexStore(place.store, components=COMPONENTS), place.open(place.repository)):
        place.write(AFTER)
        die()


def in_a_child(place: Place, work: Callable[..., None], *arguments: object) -> int:
    """Run something in a forked child, which has clients of its own; give how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(Place(place.root, place.options, place.key), *arguments)
            code = 0
        except (IngestError, NovaBackupError, OSError):
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_cases() -> Iterator[object]:
    for side in SIDES:
        for moment in Moment:
            for fails in (False, True):
                label = f"{side}: {moment.value}, ingest {'fails' * fails or 'ends'}"
                on_servers = fails == (moment is Moment.BEFORE)
                on_sftp = (side, moment, fails) in KILLS_ON_SFTP
                yield from cases(side, (moment, fails), label, on_servers=on_servers, on_sftp=on_sftp)


@pytest.mark.parametrize(("where", "side", "moment", "fails", "part"), list(kill_cases()))
def test_a_kill_at_any_operation(request, where, side, moment, fails, part):
    place = request.getfixturevalue(where)
    total = operations(place, side, fails=fails)
    killed = 0
    tried = range(1, total + 1)[part]
    for at in tried:
        place.clear()
        ended = in_a_child(place, killed_ingest, side, at, moment, fails)
        # There is no moment after an operation that fails by itself, as a look at a file that is not there does.
        assert ended == -signal.SIGKILL or moment is Moment.AFTER, f"operation {at} of {total} did not happen"
        killed += ended == -signal.SIGKILL
        if where != "moto" or at // PARTS % PARTS == 0:
            # The recovery is killed as well, at operations that differ from round to round, and then goes on.
            in_a_child(place, killed_recovery, side, at * 7 % 29 + 1, moment)
        check_place(place, fails=fails, label=f"operation {at} of {total}")
    assert killed > len(tried) // 2


@pytest.mark.parametrize(
    ("where", "side"), [("local", "store"), ("local", "repository"), ("moto", "store"), ("sealed", "repository")]
)
def test_a_kill_at_any_operation_of_a_recovery(request, where, side):
    place = request.getfixturevalue(where)
    # A server takes half a second for each; together with the kills of `test_a_kill_at_any_operation`, all are met.
    for at in itertools.count(1, 3 if where == "moto" else 1):
        place.clear()
        assert in_a_child(place, killed_in_the_block) == -signal.SIGKILL
        ended = in_a_child(place, killed_recovery, side, at, Moment.BEFORE)
        check_place(place, fails=True, label=f"operation {at} of a recovery")
        if ended == 0:
            break
    assert at > 5


def test_a_recovery_from_an_encrypted_repository_needs_its_key_and_says_so(sealed):
    sealed.clear()
    assert in_a_child(sealed, killed_in_the_block) == -signal.SIGKILL
    store = IndexStore(sealed.store, components=COMPONENTS)
    unlike = Repository(f"{sealed.root}/unlike", key=sealed.key)
    for without_key in (None, Repository(sealed.repository), unlike):
        with pytest.raises(RollbackError, match=r"recover\(store, Repository\(url, key=\.\.\.\)\)") as caught:
            recover(store, without_key)
        assert isinstance(caught.value.__cause__, DecryptionError)
        assert sealed.contents() == AFTER
    assert recover(store, sealed.open(sealed.repository)).phase == "block"
    assert sealed.contents() == BEFORE
    assert recover(store) is None


def test_what_cannot_be_kept_in_the_repository_is_set_aside(tmp_path):
    place = Place(str(tmp_path), {})
    place.clear()
    full = FullWhenTold(place.repository)
    store = IndexStore(place.store, components=COMPONENTS)
    with pytest.raises(IngestError), snapshot(store, Repository(full)):
        place.write(AFTER)
        full.is_full = True
        raise IngestError
    assert place.contents() == BEFORE
    aside = {
        path.name: path.read_bytes()
        for path in (tmp_path / "store" / ".novabackup" / "aside").rglob("*.*")
        if path.is_file()
    }
    assert aside == AFTER


class FullWhenTold(FaultyStorage):
    """A storage that can only be read from some moment on."""

    is_full = False

    def write(self, key, blocks, attributes=None):
        self.need_space(key)
        return super().write(key, blocks, attributes)

    def add(self, key, blocks):
        self.need_space(key)
        return super().add(key, blocks)

    def create(self, key, data):
        self.need_space(key)
        return super().create(key, data)

    def need_space(self, key):
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left on device", key)
