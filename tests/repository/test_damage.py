"""Damage to a repository is always noticed, is named, and costs only the files that need the damaged object."""

from __future__ import annotations

import random
from pathlib import Path

import attrs
import pytest
from blake3 import blake3

import nova
from novabackup import FormatError, IntegrityError, NotFoundError, Repository
from novabackup.objects import packs as objects_module
from novabackup.objects.reader import blocks


@pytest.fixture
def backed_up(repository, store, folder):
    """Two snapshots that share content; gives what the store held at each."""
    states = {}
    for change in (b"", b"an insertion"):
        content = (folder / "a.bin").read_bytes()
        (folder / "a.bin").write_bytes(content[:100_000] + change + content[100_000:])
        states[repository.backup(store).id] = nova.contents(folder)
    repository.forget([])
    return states


def objects(repository: Repository) -> list[Path]:
    return sorted(path for path in Path(repository.url).rglob("*") if path.is_file())


def test_a_repository_in_order_has_no_problems(repository, backed_up):
    assert not repository.check()
    assert not repository.check(read_data_subset="100%")
    for point in repository:
        point.verify()


def test_flipping_any_byte_of_any_object_is_noticed_and_costs_only_what_needs_it(repository, backed_up):
    chance = random.Random(5)
    for path in objects(repository):
        content = path.read_bytes()
        places = {
            0,
            1,
            len(content) // 2,
            len(content) - 1,
            len(content) - 20,
            *chance.choices(range(len(content)), k=25),
        }
        for place in sorted(place for place in places if 0 <= place < len(content)):
            broken = bytearray(content)
            broken[place] ^= 1 << chance.randrange(8)
            path.write_bytes(broken)
            check_that_it_is_noticed(Repository(repository.url), path, backed_up)
        path.write_bytes(content)
    assert not Repository(repository.url).check(read_data_subset="100%")


def check_that_it_is_noticed(repository: Repository, path: Path, states: dict[str, dict[str, bytes]]) -> None:
    key = str(path.relative_to(repository.url))
    problems = repository.check(read_data_subset="100%")
    assert any(key in problem.paths for problem in problems), f"{key} was altered and nobody noticed"
    listed = repository.snapshots()
    if not key.startswith("snapshots/"):
        assert len(listed) == len(states)
    for point in listed:
        whole = 0
        for name, content in states[point.id].items():
            try:
                assert point.open(name).read() == content
                whole += 1
            except IntegrityError as error:
                assert key.startswith("packs/")
                assert name in str(error)
        if whole == len(states[point.id]):
            point.verify()
        else:
            with pytest.raises(IntegrityError):
                point.verify()
    if key.startswith("packs/"):
        assert all(point.open("c.txt").read() == b"" for point in listed)


@pytest.mark.parametrize("damage", ["gone", "empty", "short", "long", "garbage"])
def test_objects_that_are_gone_or_replaced_are_noticed(repository, backed_up, damage):
    for path in objects(repository):
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(
                {"empty": b"", "short": content[:-7], "long": content + b"x", "garbage": b"\0" * 99}[damage]
            )
        again = Repository(repository.url)
        if damage == "gone" and path.parent.name == "snapshots":
            assert len(again) == len(backed_up) - 1
        else:
            assert again.check(read_data_subset="100%"), f"{path} is {damage} and nobody noticed"
        path.write_bytes(content)


def test_one_damaged_snapshot_does_not_hide_the_others(repository, backed_up, caplog):
    first, second = backed_up
    (Path(repository.url) / "snapshots" / f"{first}.json").write_text("garbage")
    again = Repository(repository.url)
    assert [point.id for point in again.snapshots()] == [second]
    assert first in caplog.text
    assert again["latest"].id == second
    with pytest.raises(IntegrityError):
        again[first]


def test_a_snapshot_under_the_name_of_another_is_noticed(repository, backed_up):
    first, second = (Path(repository.url) / "snapshots" / f"{name}.json" for name in backed_up)
    first.write_bytes(second.read_bytes())
    with pytest.raises(IntegrityError, match="renamed or replaced"):
        Repository(repository.url)[first.stem]


def test_a_restore_of_a_damaged_snapshot_leaves_the_store_as_it_was(repository, store, folder, backed_up):
    before = nova.contents(folder)
    pack = max((Path(repository.url) / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[1000] ^= 1
    pack.write_bytes(content)
    first = next(iter(backed_up))
    with pytest.raises(IntegrityError, match=r"a\.bin"):
        Repository(repository.url)[first].restore()
    assert nova.contents(folder) == before


def test_undamaged_files_of_a_damaged_snapshot_can_be_had(repository, backed_up, tmp_path):
    pack = max((Path(repository.url) / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[1000] ^= 1
    pack.write_bytes(content)
    first, states = next(iter(backed_up.items()))
    point = Repository(repository.url)[first]
    with pytest.raises(IntegrityError):
        point.restore(to=tmp_path / "all")
    assert (tmp_path / "all" / "c.txt").read_bytes() == states["c.txt"]
    assert not (tmp_path / "all" / "a.bin").exists()
    point.restore(to=tmp_path / "one", paths=["c.txt"])


def test_a_lost_config_costs_nothing_and_comes_back(repository, store, backed_up):
    config = Path(repository.url) / "config.json"
    said = config.read_bytes()
    config.unlink()
    again = Repository(repository.url)
    assert len(again.snapshots()) == 2
    again.backup(store)
    assert config.read_bytes() == said


def test_a_damaged_config_is_readable_and_says_what_to_do_before_writing(repository, store, backed_up):
    config = Path(repository.url) / "config.json"
    config.write_text("garbage")
    again = Repository(repository.url)
    assert len(again.snapshots()) == 2
    with pytest.raises(IntegrityError, match="rename it"):
        again.backup(store)


def test_a_repository_of_a_newer_format_is_refused(repository, store, backed_up):

    body = b'{"encryption":"","id":"x","version":2}'
    (Path(repository.url) / "config.json").write_bytes(
        b'{"blake3":"%s","config":%s}\n' % (blake3(body).hexdigest().encode(), body)
    )
    for use in (lambda r: r.snapshots(), lambda r: r.backup(store)):
        with pytest.raises(FormatError, match="upgrade"):
            use(Repository(repository.url))


def test_content_of_a_damaged_pack_is_stored_anew_when_its_table_is_gone(repository, store, folder, backed_up):
    for pack in (Path(repository.url) / "packs").rglob("*"):
        if pack.is_file():
            pack.unlink()
    again = Repository(repository.url)
    fresh = again.backup(store)
    fresh.verify()
    with pytest.raises(NotFoundError):
        again["19990101"]


def test_a_forged_list_of_runs_takes_no_memory(repository, store, monkeypatch):
    entry = repository.backup(store).files["a.bin"]
    monkeypatch.setattr(objects_module, "LARGEST_LIST", 1 << 20)
    forged = attrs.evolve(entry, runs=entry.runs * 100, depth=1)
    with pytest.raises(IntegrityError, match="list of runs"):
        repository._objects.packs.runs(forged)
    with pytest.raises(IntegrityError, match="names what cannot be"):
        repository._objects.packs.runs(attrs.evolve(entry, depth=1))


def test_runs_that_are_not_the_size_of_the_file_are_refused_before_anything_is_read(repository, store):
    entry = repository.backup(store).files["a.bin"]
    forged = attrs.evolve(entry, runs=entry.runs * 1000)
    with pytest.raises(IntegrityError) as caught:
        next(blocks(repository._objects, forged))
    assert "found runs of 300000000" in str(caught.value)
