"""A damaged repository is repaired from every kind of source; what is lost is named, and nothing is deleted."""

from __future__ import annotations

import errno
import random
import shutil
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from blake3 import blake3
from damaging import DAMAGES, Case, flip, flip_table, grow, objects, opened

import nova
import trees
from novabackup import IndexStore, IntegrityError, NotFoundError, Repository
from novabackup.components import Bm25, Faiss, Tree
from novabackup.errors import ArchivedError
from novabackup.keys import Passphrase
from novabackup.objects import packer
from novabackup.objects.condemned import condemned
from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Moment, Then, fail_with

HELPERS = {
    "made byte by byte": lambda case: case.byte_copy(),
    "not encrypted": lambda case: case.copied(None),
    "with other keys": lambda case: case.copied("another"),
}


@pytest.fixture(params=HELPERS)
def copied(request, case) -> Repository:
    return HELPERS[request.param](case)


def check_nothing_is_deleted(case: Case, before: dict[str, bytes]) -> None:
    after = trees.files(case.url)
    kept = set(after.values())
    for key, content in before.items():
        assert after.get(key) == content or content in kept, f"{key} is nowhere any more"


def test_packs_that_are_damaged_in_any_way_are_mended(case, copied):
    whole = trees.files(case.url)
    packs = [str(path.relative_to(case.url)) for path in objects(case.url, "packs")]
    for number, damage in enumerate(DAMAGES.values()):
        trees.put_back(case.url, whole)
        for key in (packs[number % len(packs)], packs[-1 - number % 2]):
            if (case.url / key).exists() and (case.url / key).read_bytes() == whole[key]:
                damage(case.url / key)
        damaged = trees.files(case.url)
        done = case.open().repair(from_=copied)
        assert done.actions
        assert not done.lost
        case.is_whole()
        check_nothing_is_deleted(case, damaged)
        assert not case.open().repair(from_=copied).actions, "there is nothing left to do"


def test_a_repository_without_any_pack_is_mended(case, copied):
    shutil.rmtree(case.url / "packs")
    assert not case.open().repair(from_=[copied]).lost
    case.is_whole()


def test_a_repository_in_order_is_left_alone(case, copied):
    before = trees.files(case.url)
    plan = case.open().repair(from_=copied)
    assert (plan.problems, plan.actions, plan.lost) == ((), (), ())
    assert trees.files(case.url) == before


def test_a_plan_writes_nothing_and_says_what_will_be_done(case, copied):
    for path in objects(case.url, "packs")[::2]:
        flip(path, 2000)
    objects(case.url, "snapshots")[0].write_bytes(b"garbage")
    (case.url / "README.txt").unlink()
    before = trees.files(case.url), trees.files(Path(copied.url))
    plan = case.open().plan_repair(from_=copied)
    assert (trees.files(case.url), trees.files(Path(copied.url))) == before
    done = case.open().repair(plan, from_=copied)
    assert (done.actions, done.lost) == (plan.actions, ())
    assert "copy back" in str(plan)
    assert "nothing lost" in plan.summary
    case.is_whole()
    again = trees.files(case.url)
    assert case.open().repair(plan, from_=copied).actions == (), "a plan that is carried out has no effect any more"
    assert trees.files(case.url) == again


def test_only_what_check_found_is_read_if_that_is_given(case):
    copied = case.byte_copy()
    damaged = objects(case.url, "packs")[0]
    flip(damaged, 2000)
    found = case.open().check(read_data_subset="100%")
    flip(objects(case.url, "packs")[1], 2000)
    done = case.open().repair(case.open().plan_repair(problems=found, from_=copied), from_=copied)
    assert done.problems == found
    assert len(case.open().check(read_data_subset="100%")) == 1


# -- without a copy --------------------------------------------------------------------------------------------------


def test_what_cannot_be_had_back_is_named_exactly(case):
    whole = trees.files(case.url)
    chance = random.Random(4)
    copy = case.copied("another")
    for _round in range(8):
        trees.put_back(case.url, whole)
        candidates = objects(case.url, "packs") + objects(case.url, "snapshots")
        for path in chance.sample(candidates, chance.randrange(1, 4)):
            damage = chance.choice([name for name in DAMAGES if name != "gone" or path.parent.name != "snapshots"])
            DAMAGES[damage](path)
        damaged = trees.files(case.url)
        help_ = {"store": case.store} if chance.random() < 0.3 else {}
        done = case.open().repair(**help_)
        check_nothing_is_deleted(case, damaged)
        check_losses(case, {(loss.key, loss.path) for loss in done.lost})
        again = case.open().plan_repair(**help_)
        assert again.actions == ()
        assert {attrs.evolve(loss, message="") for loss in again.lost} == {
            attrs.evolve(loss, message="") for loss in done.lost
        }
        assert not case.open().repair(from_=copy).lost, "help that comes later helps as well"
        case.is_whole()


def check_losses(case: Case, lost: set[tuple[str, str]]) -> None:
    repository = case.open()
    there = {point.id: point for point in repository}
    named = " ".join(str(problem) for problem in repository.check(read_data_subset="100%"))
    for name, files in case.before.items():
        key = f"snapshots/{name}.json"
        if (key, "") in lost:
            assert name not in there
            assert key in named
            continue
        for path, content in files.items():
            if (key, path) in lost:
                with pytest.raises(IntegrityError):
                    there[name].open(path).read()
                assert name in named
            else:
                assert there[name].open(path).read() == content
        if not any(where == key for where, _path in lost):
            assert name not in named
    assert bool(named) == bool(lost)


def test_what_is_left_of_a_damaged_pack_is_used(case):
    latest = case.open()["latest"]
    (path,) = (path for path in objects(case.url, "packs") if path.name == latest.files["same.bin"].packs[0])
    flip(path, 1000)
    done = case.open().repair()
    assert {loss.path for loss in done.lost} < {"noise.bin", "same.bin", "text.txt", "vectors.npy"}
    assert all("bytes in pack" in loss.message for loss in done.lost)
    assert any(action.source == "what is left here" for action in done.actions)
    assert not path.exists()


def test_content_is_had_from_the_live_files(case):
    for path in objects(case.url, "packs"):
        path.unlink()
    done = case.open().repair(store=case.store)
    name = list(case.before)[-1]
    repository = case.open()
    assert {path: repository[name].open(path).read() for path in case.before[name]} == case.before[name]
    repository[name].verify()
    assert {loss.key for loss in done.lost} == {f"snapshots/{other}.json" for other in list(case.before)[:-1]}
    assert all(repository[other].open("same.bin").read() for other in case.before), "this file never changed"


def test_a_later_backup_stores_lost_content_anew_and_mends_older_snapshots(case):
    for path in objects(case.url, "packs"):
        flip_table(path)
    assert case.open().repair().lost
    case.open().backup(case.store).verify()
    case.before = dict(list(case.before.items())[:2])
    for name in case.before:
        case.before[name] = {path: case.before[name][path] for path in ("same.bin", "empty")}
    done = case.open().repair()
    assert any(action.source == "another snapshot here" for action in done.actions)
    for name, files in case.before.items():
        for path, content in files.items():
            assert case.open()[name].open(path).read() == content


def test_a_backup_after_a_repair_does_not_rely_on_what_is_damaged(case):
    case.open().backup(case.store)  # so that its files are known as they are now
    for path in objects(case.url, "packs"):
        flip(path, 1000)
    case.open().repair()
    case.open().backup(case.store).verify()


def test_a_backup_that_runs_beside_a_repair_is_told_not_to_rely_on_damaged_packs(case):
    damaged = objects(case.url, "packs")[0]
    flip(damaged, 1000)
    case.open().repair()
    doomed = {pack for _entry, record in condemned(case.open()._objects.access) for pack in record.packs}
    assert doomed == {damaged.name}


def test_another_repository_of_the_same_store_helps_chunk_by_chunk(plain):
    case = plain
    other = Repository(case.root / "other")
    other.backup(case.store)
    assert not {point.id for point in other} & case.before.keys()
    first = next(iter(case.before))
    packs = case.open()[first].files["text.txt"].packs
    for path in objects(case.url, "packs"):
        if path.name in packs:
            flip(path, 1000)
    done = case.open().repair(from_=other)
    assert {action.source for action in done.actions if action.path} >= {f"{other.url} and what is left here"}
    check_losses(case, {(loss.key, loss.path) for loss in done.lost})
    assert not [loss for loss in done.lost if loss.path == "text.txt"], "a text that only grew is all in the last one"


def test_damage_in_the_other_repository_as_well_is_told_and_not_spread(case):
    copy = case.byte_copy()
    key = objects(case.url, "packs")[0].relative_to(case.url)
    for url in (case.url, Path(copy.url)):
        flip(url / key, 1000)
    done = case.open().repair(from_=copy)
    check_losses(case, {(loss.key, loss.path) for loss in done.lost})
    assert done.lost


def test_two_copies_that_are_damaged_differently_help_together(case):
    copies = case.byte_copy(), case.copied("another")
    for path in objects(case.url, "packs"):
        flip(path, 1000)
    for number, copy in enumerate(copies):
        for path in objects(Path(copy.url), "packs")[number::2]:
            flip_table(path)
    done = case.open().repair(from_=copies)
    check_losses(case, {(loss.key, loss.path) for loss in done.lost})
    assert {action.source for action in done.actions} >= {copies[0].url}


def test_lists_of_runs_that_are_damaged_are_mended(case, copied, monkeypatch):
    monkeypatch.setattr(packer, "MOST_RUNS", 1)
    grow(Path(case.store.url), 3)
    point = case.open().backup(case.store)
    assert any(entry.depth for entry in point.files.values())
    case.before = trees.snapshots(case.open())
    case.open().copy(to=copied)
    for path in objects(case.url, "packs")[1::2]:
        flip(path, 1000)
    assert not case.open().repair(from_=copied).lost
    case.is_whole()


# -- snapshots -------------------------------------------------------------------------------------------------------


def test_damaged_snapshots_come_back_from_a_copy(case, copied):
    for path in objects(case.url, "snapshots")[:2]:
        path.write_bytes(b"garbage")
    damaged = trees.files(case.url)
    size = sum(len(content) for key, content in damaged.items() if key.startswith("packs/"))
    done = case.open().repair(from_=copied)
    assert [action.source for action in done.actions] == [copied.url] * 2
    case.is_whole()
    check_nothing_is_deleted(case, damaged)
    assert "damaged/snapshots" in " ".join(trees.files(case.url))
    if case.secret is None and copied._objects.access.encrypted is False:
        assert sum(path.stat().st_size for path in objects(case.url, "packs")) == size, "content that is here is shared"


def test_snapshots_that_somebody_took_away_come_back_from_a_copy(case, copied):
    middle = list(case.before)[1]
    case.open().pin(middle, "keep it")
    (case.url / "snapshots" / f"{middle}.json").unlink()
    assert [loss.key for loss in case.open().plan_repair().lost] == [f"snapshots/{middle}.json"]
    assert not case.open().repair(from_=copied).lost
    case.is_whole()


def test_a_snapshot_that_was_forgotten_stays_forgotten(case, copied):
    middle = list(case.before)[1]
    case.open().forget([middle])
    flip(objects(case.url, "packs")[0], 1000)
    assert not case.open().repair(from_=copied).lost
    del case.before[middle]
    case.is_whole()


def test_what_a_newer_version_wrote_is_left_alone(plain):
    case = plain
    path = objects(case.url, "snapshots")[0]
    body = b'{"version":2}'
    path.write_bytes(b'{"blake3":"%s","snapshot":%s}\n' % (blake3(body).hexdigest().encode(), body))
    before = trees.files(case.url)
    done = case.open().repair(from_=case.byte_copy())
    assert done.actions == ()
    assert "upgrade" in done.lost[0].message
    assert trees.files(case.url) == before


# -- small objects ---------------------------------------------------------------------------------------------------


def test_small_objects_are_mended(case, copied):
    config = (case.url / "config.json").read_bytes()
    for damage in ("garbage", None):
        case.open().pin("latest", "as delivered")
        for key in ("config.json", "README.txt", "extract.py", str(objects(case.url, "pins")[0].relative_to(case.url))):
            if damage is None:
                (case.url / key).unlink()
            else:
                (case.url / key).write_text(damage)
        (case.url / "condemned").mkdir(exist_ok=True)
        (case.url / "condemned" / f"20260101T000000Z-{'0' * 16}.json").write_text("garbage")
        damaged = trees.files(case.url)
        done = case.open().repair(from_=copied)
        assert not done.lost
        assert (case.url / "config.json").read_bytes() == config
        assert damage is None or "lost" in case.open().pins()[list(case.before)[-1]].message
        case.is_whole()
        check_nothing_is_deleted(case, damaged)


def test_texts_for_people_that_are_far_too_long_are_mended(plain):
    for name in ("README.txt", "extract.py"):
        with (plain.url / name).open("r+b") as file:
            file.truncate(65 << 20)
    assert {path for problem in plain.open().check() for path in problem.paths} == {"README.txt", "extract.py"}
    assert not plain.open().repair().lost
    plain.is_whole()


def test_a_damaged_pin_gets_its_message_back(case):
    case.open().pin("latest", "as delivered")
    copy = case.byte_copy()
    objects(case.url, "pins")[0].write_text("garbage")
    case.open().repair(from_=copy)
    assert case.open().pins() == copy.pins()


def test_a_damaged_result_of_a_drill_comes_from_a_copy_or_is_set_aside(case):
    case.open().drill(store=case.store)
    copy = case.byte_copy()
    (result,) = objects(case.url, "drills")
    result.write_text("garbage")
    assert not case.open().repair(from_=copy).lost
    assert case.open().drills() == copy.drills()
    result.write_text("garbage")
    (loss,) = case.open().repair().lost
    assert "result of a drill" in loss.message
    assert case.open().drills() == ()
    case.is_whole()


def test_keys_and_notes_come_back_from_a_copy_made_byte_by_byte(sealed):
    case = sealed
    case.open().keys.add(Passphrase("two"), "other")
    gone = next(iter(case.before))
    case.open().forget([gone])
    del case.before[gone]
    copy = case.byte_copy()
    whole = trees.files(case.url)
    current = next(key.id for key in case.open().keys if key.current)
    for helps in (True, False):
        trees.put_back(case.url, whole)
        for path in [*objects(case.url, "keys"), *objects(case.url, "forgotten")]:
            if path.stem != current:
                path.write_text("garbage")
        done = case.open().repair(from_=copy if helps else ())
        assert [loss.key.partition("/")[0] for loss in done.lost] == (
            [] if helps else ["forgotten", "keys", "snapshots"]
        )
        if helps:
            case.is_whole()
            assert opened(case.url, "two").snapshots()
        assert "garbage" in {
            content.decode() for key, content in trees.files(case.url).items() if key.startswith("damaged/")
        }


# -- when something is in the way ------------------------------------------------------------------------------------


def test_an_interrupted_repair_is_finished_by_the_next(plain):
    case = plain
    copy = case.copied("another")
    packs = objects(case.url, "packs")
    flip(packs[0], 1000)
    packs[1].unlink()
    flip_table(packs[2])
    objects(case.url, "snapshots")[0].write_bytes(b"garbage")
    (case.url / "config.json").write_bytes(b"garbage")
    damaged = trees.files(case.url)
    plan = case.open().plan_repair(from_=copy)
    counting = FaultyStorage(open_storage(case.url))
    Repository(counting).repair(plan, from_=copy)
    case.is_whole()
    operations = counting.operations
    struck: list[str] = []

    def fault() -> None:
        struck.append("gone")
        raise OSError(errno.EPIPE, "gone")

    def is_interrupted(storage: FaultyStorage) -> bool:
        try:
            Repository(storage).repair(plan, from_=copy)
        except OSError as error:
            return error.errno == errno.EPIPE
        return False

    interruptions = 0
    for at in range(1, operations + 1, max(1, operations // 15)):
        for then in (Then.WORKS, Then.BROKEN):
            trees.put_back(case.url, damaged)
            moment = Moment.AFTER if at % 2 else Moment.BEFORE
            struck.clear()
            storage = FaultyStorage(open_storage(case.url), at, fault, moment, then)
            # An operation that finds nothing has no moment after it; which one that is, threads decide.
            assert is_interrupted(storage) == bool(struck)
            interruptions += len(struck) > 0
            check_nothing_is_deleted(case, damaged)
            assert not case.open().repair(from_=copy).lost
            case.is_whole()
            check_nothing_is_deleted(case, damaged)
    assert interruptions > 20


def test_a_copy_that_cannot_be_reached_is_no_reason_to_give_anything_up(case):
    copy = case.byte_copy()
    flip(objects(case.url, "packs")[0], 1000)
    before = trees.files(case.url)
    plan = case.open().plan_repair(from_=copy)
    storage = FaultyStorage(open_storage(copy.url), 4, fail_with(OSError(errno.EPIPE, "gone")), then=Then.BROKEN)
    with pytest.raises(OSError, match="gone"):
        case.open().repair(plan, from_=opened(storage, case.secret))
    assert trees.files(case.url) == before
    with pytest.raises(NotFoundError):
        case.open().repair(from_=Repository(case.root / "nobody"))


class Worn(FaultyStorage):
    """A medium that cannot read some objects any more."""

    worn: frozenset[str] = frozenset()
    error: type[Exception] | OSError = OSError(errno.EIO, "medium error")

    def read_part(self, key, start, length):
        if key in self.worn:
            raise self.error
        return super().read_part(key, start, length)


def test_a_medium_that_cannot_be_read_is_damage(case):
    copy = case.copied("another")
    storage = Worn(open_storage(case.url))
    pack = objects(case.url, "packs")[0]
    storage.worn = frozenset({str(pack.relative_to(case.url))})
    done = opened(storage, case.secret).repair(from_=copy)
    assert not done.lost
    case.is_whole()
    assert not pack.exists()


def test_what_lies_in_an_archive_is_neither_damaged_nor_set_aside(case):
    copy = case.byte_copy()
    storage = Worn(open_storage(case.url))
    packs = [str(path.relative_to(case.url)) for path in objects(case.url, "packs")]
    storage.worn, storage.error = frozenset(packs[1:2]), ArchivedError("thaw it")
    flip(case.url / packs[0], 1000)
    done = opened(storage, case.secret).repair(from_=copy)
    assert [(action.step, action.key) for action in done.actions] == [("copy back", packs[0])]
    case.is_whole()


def test_what_is_shown_is_plain(case):
    flip(objects(case.url, "packs")[0], 1000)
    plan = case.open().plan_repair()
    assert attrs.evolve(plan, repository="\x1b[2J")._repr_html_().startswith("<table>")
    assert "\x1b" not in str(attrs.evolve(plan, repository="\x1b[2J"))
    assert "<td" in plan._repr_html_()


def test_prune_leaves_alone_what_was_set_aside(case):
    copy = case.copied("another")
    flip(objects(case.url, "packs")[0], 1000)
    case.open().repair(from_=copy)
    aside = {key: content for key, content in trees.files(case.url).items() if key.startswith("damaged/")}
    assert aside
    for _time in range(2):
        case.open().prune(grace=timedelta(0))
    assert aside.items() <= trees.files(case.url).items()
    case.is_whole()


# -- what a snapshot says besides its files ----------------------------------------------------------------------------


@pytest.fixture
def installation(tmp_path) -> Repository:
    """A snapshot of a folder with indexes that were asked, links and empty folders; and a copy of its repository."""
    folder = tmp_path / "nova"
    nova.build(folder / "vector_db", nova.texts(8))
    (folder / "logs/empty").mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / "config/indexes").symlink_to("../vector_db")
    index = "vector_db/faiss_index.bin"
    store = IndexStore(
        folder, components=[Faiss(index), Bm25("vector_db/bm25_index.pkl"), Tree("logs"), Tree("config")]
    )
    repository = Repository(tmp_path / "repository")
    repository.backup(store, tags=["monthly"], message="before the move")
    repository.copy(to=Repository(tmp_path / "copy", key=Passphrase("another")))
    return repository


@pytest.mark.parametrize("damaged", ["packs", "snapshots"])
def test_links_folders_and_recorded_questions_of_a_snapshot_stay_as_they_were(installation, damaged, tmp_path):
    before = installation["latest"]._record
    assert before.links
    assert before.folders
    assert before.probes
    for path in objects(tmp_path / "repository", damaged):
        flip(path, 2000)
    again = Repository(tmp_path / "repository")
    done = again.repair(from_=Repository(tmp_path / "copy", key=Passphrase("another")))
    assert done.actions
    assert not done.lost
    (point,) = Repository(tmp_path / "repository")
    for name in attrs.fields_dict(type(before)):
        if name not in ("files", "added"):  # how much a snapshot added is said of the repository that it comes from
            assert getattr(point._record, name) == getattr(before, name), name
    moved = [attrs.evolve(entry, packs=(), runs=()) for entry in point._record.files]
    assert moved == [attrs.evolve(entry, packs=(), runs=()) for entry in before.files]
    restored = point.restore(tmp_path / "restored")
    assert restored.paths("write", "link") == ("config/indexes",)
    assert (tmp_path / "restored/config/indexes").readlink() == Path("../vector_db")
    assert (tmp_path / "restored/logs/empty").is_dir()
    assert point.verify("queries").queries == len(before.probes)
