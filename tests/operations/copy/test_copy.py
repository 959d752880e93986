"""Snapshots copied to another repository are the same there, whatever keys it has, and only what is missing is sent."""

from __future__ import annotations

import errno
import itertools
import random
import shutil
from datetime import timedelta
from pathlib import Path

import faiss
import numpy as np
import pytest
from fsspec.callbacks import Callback

import trees
from novabackup import (
    ArchivedError,
    ChangedError,
    ConfigurationError,
    IndexStore,
    IntegrityError,
    NotFoundError,
    Repository,
    keys,
)
from novabackup._support.rate import RateLimit
from novabackup.components import Files
from novabackup.keys import Passphrase
from novabackup.objects import packer
from novabackup.objects import packs as objects
from novabackup.operations import copy as copying
from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Moment, Then, fail_with

PLAIN, SEALED, OTHERWISE = None, "one", "another"


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(keys, "_N", 1 << 4)


def repository(url: object, secret: str | None) -> Repository:
    return Repository(url, key=Passphrase(secret) if secret else None)


@pytest.fixture
def store(tmp_path) -> IndexStore:
    (tmp_path / "store").mkdir()
    return IndexStore(tmp_path / "store", components=[Files("*")])


def grow(store: IndexStore, number: int) -> None:
    """Let a store grow as an ingest does: vectors at the end, in lists, and texts."""
    folder = Path(store.url)
    vectors = np.random.default_rng(1).normal(size=(800 * (number + 1), 32)).astype(np.float32)
    flat = faiss.IndexFlatL2(32)
    flat.add(vectors)
    faiss.write_index(flat, str(folder / "flat.bin"))
    inverted = faiss.index_factory(32, "IVF300,Flat")
    inverted.train(vectors[:800])
    inverted.add(vectors)
    faiss.write_index(inverted, str(folder / "inverted.bin"))
    (folder / "noise.bin").write_bytes(random.Random(2).randbytes(300_000))
    (folder / "text.txt").write_text("".join(f"Section {line}\n" for line in range(1_000 * (number + 1))))
    (folder / "empty").write_bytes(b"")


@pytest.fixture(params=itertools.product([PLAIN, SEALED], [PLAIN, SEALED, OTHERWISE]), ids=str)
def both(request, tmp_path, store) -> tuple[Repository, Repository]:
    source = repository(tmp_path / "source", request.param[0])
    for number in range(3):
        grow(store, number)
        source.backup(store, tags=[f"tag-{number}"], message=f"number {number}")
    return source, repository(tmp_path / "target", request.param[1])


def names(found: Repository) -> list[str]:
    return [point.id for point in found]


def stored(found: Repository) -> int:
    return sum(path.stat().st_size for path in Path(found.url, "packs").rglob("*") if path.is_file())


def test_a_copy_is_the_same_snapshot(both):
    source, target = both
    done = source.copy(to=target)
    assert trees.snapshots(target) == trees.snapshots(source)
    for mine, other in zip(source, target, strict=True):
        assert (mine.id, mine.time, mine.tags, mine.message) == (other.id, other.time, other.tags, other.message)
    assert done.copy == tuple(point.id for point in source)
    assert not target.check(read_data_subset="100%")
    assert stored(target) < 1.3 * stored(source), "content is shared in the copy as it was in the original"


def test_what_is_there_is_not_sent_again(both):
    source, target = both
    names = [point.id for point in source]
    source.copy([names[0]], to=target)
    before = stored(target)
    assert source.copy([names[0]], to=target).there == (names[0],)
    assert stored(target) == before
    source.copy(to=target)
    growth = stored(target) - before
    assert growth < 1.3 * (stored(source) - before) + 100_000
    assert trees.snapshots(target) == trees.snapshots(source)


def test_what_went_before_is_not_read_again(both, store):
    """Also where hashes cannot be compared, since the keys are not the same."""
    source, target = both
    source.copy(to=target)
    grow(store, 3)
    source.backup(store)
    for found in (source, target):  # as another program would see them
        found._objects.packs._tables.clear()
        found._objects.records._records.clear()
    read = []
    plan = source.plan_copy(to=target)
    copying.execute(source._objects, plan, target._objects, copying.Paces(reading=read.append), Callback())
    new = source["latest"].files
    assert 0 < sum(read) < 0.6 * sum(entry.size for entry in new.values())
    assert trees.snapshots(target) == trees.snapshots(source)
    assert not target.check(read_data_subset="100%")


def test_a_plan_does_nothing(both):
    source, target = both
    plan = source.plan_copy(to=target)
    assert plan.copy == tuple(point.id for point in source)
    assert not Path(target.url).exists()
    source.copy(plan, to=target)
    assert trees.snapshots(target) == trees.snapshots(source)
    with pytest.raises(NotFoundError):
        source.plan_copy(["nobody"], to=target)


def test_a_copy_can_be_backed_up_to_and_copied_back(both, store, tmp_path):
    source, target = both
    source.copy(to=target)
    before = stored(target)
    target.backup(store)
    assert stored(target) == before, "a backup shares everything with what was copied"
    back = Repository(tmp_path / "back")
    target.copy(to=back)
    assert trees.snapshots(back) == trees.snapshots(target)


def test_two_repositories_of_one_store_share_what_both_have(tmp_path, store):
    one, other = Repository(tmp_path / "one"), Repository(tmp_path / "other")
    grow(store, 0)
    for each in (one, other):
        each.backup(store)
    before = stored(other)
    grow(store, 1)
    one.backup(store)
    one.copy(to=other)
    assert stored(other) - before < stored(one) / 2
    assert len(other) == 3


@pytest.mark.parametrize("secret", [PLAIN, SEALED])
def test_an_interrupted_copy_goes_on_where_it_was(tmp_path, store, monkeypatch, secret):
    from novabackup.format.packs import builder

    monkeypatch.setattr(builder, "PACK_SIZE", 100_000)
    source = Repository(tmp_path / "source")
    grow(store, 0)
    source.backup(store)
    grow(store, 1)
    source.backup(store)
    whole = FaultyStorage(open_storage(tmp_path / "whole"))
    source.copy(to=repository(whole, secret))
    writes = sum(line.startswith("write packs/") for line in whole.log)
    sent = 0
    url = tmp_path / "target"
    faults = 0
    while True:
        fault = fail_with(OSError(errno.EPIPE, "gone"))
        log = len(whole.log) // 5 + 7 * faults
        storage = FaultyStorage(open_storage(url), log, fault, Moment.BEFORE, Then.BROKEN)
        try:
            source.copy(to=repository(storage, secret))
            ended = True
        except OSError:
            ended = False
            faults += 1
        sent += sum(line.startswith("write packs/") for line in storage.log)
        found = repository(url, secret)
        if list((url / "snapshots").glob("*")):
            for point in found:
                point.verify()
        if ended:
            break
    assert faults >= 2
    assert sent <= writes + 4 * faults, "packs that had arrived were used"
    assert trees.snapshots(repository(url, secret)) == trees.snapshots(source)


def test_damage_in_the_source_is_never_copied(tmp_path, store):
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    grow(store, 0)
    good = source.backup(store)
    (Path(store.url) / "noise.bin").write_bytes(random.Random(3).randbytes(300_000))
    source.backup(store)
    packs = set(source["latest"].files["noise.bin"].packs) - set(good.files["noise.bin"].packs)
    (pack,) = (path for path in Path(source.url, "packs").rglob("*") if path.name in packs)
    whole = bytearray(pack.read_bytes())
    whole[5000] ^= 1
    pack.write_bytes(whole)
    with pytest.raises(IntegrityError, match="does not match its hash"):
        source.copy(to=target)
    assert [point.id for point in target] == [good.id]
    target[good.id].verify()


def test_damage_in_the_source_costs_only_the_snapshots_that_need_it(tmp_path, store):
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    taken = []
    for number in range(4):
        (Path(store.url) / "noise.bin").write_bytes(random.Random(number).randbytes(300_000))
        taken.append(source.backup(store))
    (pack,) = taken[1].files["noise.bin"].packs
    (tmp_path / "source" / "packs" / pack[:2] / pack).unlink()
    (tmp_path / "source" / "snapshots" / f"{taken[2].id}.json").write_text("{}")
    source = Repository(tmp_path / "source")
    callback = Callback()
    with pytest.raises(IntegrityError, match=r"2 of 4 snapshots of .* could not be copied") as caught:
        source.copy(to=target, callback=callback)
    assert {problem.paths for problem in caught.value.problems} == {
        (f"snapshots/{point.id}.json",) for point in taken[1:3]
    }
    assert names(target) == [taken[0].id, taken[3].id]
    assert not target.check(read_data_subset="100%")
    assert callback.value == callback.size
    plan = source.plan_copy(to=target)
    assert (plan.copy, plan.damaged, len(plan.there)) == ((taken[1].id,), (taken[2].id,), 2)


def test_a_damaged_repository_is_mended_from_a_copy(tmp_path, store):
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    grow(store, 0)
    source.backup(store)
    source.copy(to=target)
    pack = max(Path(source.url, "packs").rglob("*"), key=lambda path: path.stat().st_size)
    whole = bytearray(pack.read_bytes())
    whole[5000] ^= 1
    pack.write_bytes(whole)
    assert source.check(read_data_subset="100%")
    source.forget([source["latest"]])
    source.prune(grace=timedelta(0))
    target.copy(to=source)
    source["latest"].verify()
    source.prune(grace=timedelta(0))
    assert not source.check(read_data_subset="100%")


def test_packs_that_are_condemned_during_a_copy_are_not_relied_on(tmp_path, store, monkeypatch):
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    grow(store, 0)
    point = source.backup(store)
    source.copy(to=target)
    loose = {pack for entry in target[point.id].files.values() for pack in entry.packs}
    target.forget([point.id])
    objects = target._objects
    protect = objects.packs.protect

    def condemn_first(packs):
        if loose.issubset(packs):
            target.prune(grace=timedelta(0))
        protect(packs)

    monkeypatch.setattr(objects.packs, "protect", condemn_first)
    callback = Callback()
    source.copy(to=target, callback=callback)
    target.prune(grace=timedelta(0))
    assert loose.isdisjoint(path.name for path in Path(target.url, "packs").rglob("*"))
    assert not target.check(read_data_subset="100%")
    assert trees.snapshots(target) == trees.snapshots(source)
    assert callback.value == callback.size == point.size


@pytest.mark.parametrize("secret", [PLAIN, SEALED])
def test_frames_stay_as_they_are_between_repositories_of_one_key(tmp_path, store, secret, monkeypatch):
    source = repository(tmp_path / "source", secret)
    for number in range(2):
        grow(store, number)
        source.backup(store)
    # Of the same key, if there is one.
    shutil.copytree(tmp_path / "source", tmp_path / "target", ignore=shutil.ignore_patterns("packs", "snapshots"))
    target = repository(tmp_path / "target", secret)

    def opened(*_arguments):
        raise AssertionError("a frame was taken apart")

    with monkeypatch.context() as patched:
        patched.setattr(objects, "opened_frame", opened)
        source.copy(to=target)
    assert trees.snapshots(target) == trees.snapshots(source)
    assert not target.check(read_data_subset="100%")
    packs = [
        {path.name for path in Path(place.url, "packs").rglob("*") if path.is_file()} for place in (source, target)
    ]
    assert packs[0].isdisjoint(packs[1]), "one that is condemned there must not be taken for one that has just come"


def test_hashes_that_lie_are_not_handed_on(tmp_path, monkeypatch):
    """Or the next backup into the target would take other content for its own."""
    store = IndexStore(tmp_path / "store", components=[Files("f")])
    (tmp_path / "store").mkdir()
    contents_of = [random.Random(seed).randbytes(200_000) for seed in range(2)]
    digests, told = packer.Packer._digests, []

    def noted(self, piece):
        for digest in digests(self, piece):
            told.append(digest)
            yield digest

    def lying(self, piece):
        return (told.pop(0) if told else digest for digest in digests(self, piece))

    for number, spoken in ((1, noted), (0, lying)):
        (tmp_path / "store/f").write_bytes(contents_of[number])
        with monkeypatch.context() as patched:
            patched.setattr(packer.Packer, "_digests", spoken)
            source = Repository(tmp_path / f"source-{number}")
            source.backup(store)
    target = Repository(tmp_path / "target")
    source.copy(to=target)
    (tmp_path / "store/f").write_bytes(contents_of[1])
    target.backup(store)
    assert not target.check(read_data_subset="100%")
    found = [point.open("f").read() for point in target.snapshots()]
    assert found == contents_of


def test_a_frame_of_which_a_part_is_there_is_taken_apart(tmp_path, store):
    """Two backups that knew nothing of each other hold some chunks twice; a copy of both holds them once."""
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    grow(store, 0)
    source.backup(store)
    other = Repository(tmp_path / "other")
    grow(store, 1)
    other.backup(store)
    for place in (source, other):
        place.copy(to=target)
    assert trees.snapshots(target) == trees.snapshots(source) | trees.snapshots(other)
    assert stored(target) < 0.8 * (stored(source) + stored(other))


def test_a_copy_can_be_compressed_otherwise(tmp_path, store):
    source = Repository(tmp_path / "source")
    code = b"".join(path.read_bytes() for path in sorted(Path(keys.__file__).parent.glob("*.py")))
    (Path(store.url) / "code.txt").write_bytes(code)
    source.backup(store)
    small = Repository(tmp_path / "small", compression="small")
    source.copy(to=small)
    assert stored(small) < 0.93 * stored(source)
    assert trees.snapshots(Repository(tmp_path / "small")) == trees.snapshots(source)
    with pytest.raises(ConfigurationError, match="compression is 'fast' or 'small', found 'tiny'"):
        Repository(tmp_path / "tiny", compression="tiny")


def test_a_copy_into_itself_does_nothing(both):
    source, _target = both
    before = stored(source)
    assert source.copy(to=source).copy == ()
    assert stored(source) == before


def test_progress_is_told_in_bytes_of_files(both):
    source, target = both
    callback = Callback()
    source.copy(to=target, callback=callback)
    assert callback.value == callback.size == sum(point.size for point in source)


def test_no_more_goes_through_than_the_limit(tmp_path, store):
    clock, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        clock[0] += seconds

    pace = RateLimit(1000, lambda: clock[0], sleep)
    for size in (500, 1500, 1000):
        pace(size)
    assert slept == [0.5, 1.5], "each waits until what came before has gone"
    clock[0] += 100
    pace(10)
    pace(10)
    assert slept[2:] == pytest.approx([0.01]), "nothing was saved up"
    grow(store, 0)
    source, target = Repository(tmp_path / "source"), Repository(tmp_path / "target")
    source.backup(store)
    for nothing in (0, -1, float("nan")):
        with pytest.raises(ConfigurationError, match="more than 0 bytes a second"):
            source.copy(to=target, limit=nothing)
    source.copy(to=target, limit=1e9)
    assert trees.snapshots(target) == trees.snapshots(source)


def test_a_copy_that_stood_still_before_its_commit_does_not_commit(both, monkeypatch):
    source, target = both
    monkeypatch.setattr(packer, "COMMIT_WITHIN", -1.0)
    with pytest.raises(ChangedError):
        source.copy(to=target)
    assert len(target.snapshots()) == 0
    monkeypatch.undo()
    monkeypatch.setattr(keys, "_N", 1 << 4)
    source.copy(to=target)
    assert trees.snapshots(target) == trees.snapshots(source)


class Elsewhere(FaultyStorage):
    """A place that others can read, or that has some objects in an archive."""

    def __init__(self, url, frozen=()):
        super().__init__(open_storage(url))
        self.cold = frozenset(frozen)

    def local_path(self, key):
        return None

    def read_part(self, key, start, length):
        if key in self.cold:
            raise ArchivedError(f"{key} lies in an archive")
        return super().read_part(key, start, length)


@pytest.fixture
def two(tmp_path, store) -> tuple[Repository, set[str]]:
    """A repository with two snapshots, of which the first alone has what is in some packs; gives these."""
    folder = Path(store.url)
    source = Repository(tmp_path / "source")
    (folder / "noise.bin").write_bytes(random.Random(3).randbytes(300_000))
    first = source.backup(store)
    (folder / "noise.bin").write_bytes(random.Random(4).randbytes(300_000))
    second = source.backup(store)
    return source, {pack for entry in first.files.values() for pack in entry.packs} - {
        pack for entry in second.files.values() for pack in entry.packs
    }


def test_what_lies_in_an_archive_keeps_nothing_else_from_being_copied(tmp_path, two):
    source, cold = two
    target = Repository(tmp_path / "target")
    names = [point.id for point in source]
    frozen = Repository(Elsewhere(source.url, [f"packs/{pack[:2]}/{pack}" for pack in cold]))
    with pytest.raises(ArchivedError, match=f"1 of 2 snapshots .* Thaw .*{names[0]}"):
        frozen.copy(to=target)
    assert [point.id for point in target] == names[1:]
    target[names[1]].verify()


def test_damage_keeps_nothing_else_from_being_copied_to_where_others_can_read(tmp_path, two):
    source, bad = two
    names = [point.id for point in source]
    for pack in bad:
        path = Path(source.url, "packs", pack[:2], pack)
        path.write_bytes(path.read_bytes()[:-1])
    target = Repository(Elsewhere(tmp_path / "target"))
    with pytest.raises(IntegrityError, match="1 of 2 snapshots"):
        Repository(source.url).copy(to=target)
    assert [point.id for point in target] == names[1:]
