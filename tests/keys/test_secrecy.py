"""Whoever has the storage and no key learns nothing of names, content and labels, and can change nothing unnoticed."""

from __future__ import annotations

import itertools
import json
import logging
import random
import shutil
import socket
from pathlib import Path

import attrs
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from telling import SECRET, TEXT

from novabackup import (
    ConfigurationError,
    DecryptionError,
    FormatError,
    IndexStore,
    IntegrityError,
    NovaBackupError,
    Repository,
    snapshot,
)
from novabackup.components import Files
from novabackup.format import records as model
from novabackup.format.layout import snapshot_key
from novabackup.format.sealing import padded
from novabackup.keys import Passphrase


def objects_of(repository: Repository) -> dict[str, Path]:
    root = Path(repository.url)
    return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}


def test_what_was_backed_up_comes_back(again, tmp_path):
    repository = again()
    assert [point.tags for point in repository] == [("tag-0",), ("tag-1",), ("tag-2",)]
    repository["latest"].verify()
    repository["latest"].restore(to=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "torques.txt").read_bytes() == TEXT
    assert not repository.check(read_data_subset="100%")
    assert len({pack for point in repository for pack in point.files["torques.txt"].packs}) == 1, "stored once"


def test_nothing_readable_is_in_the_storage(repository, store, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "host-of-the-workshop")
    repository.backup(store)
    assert repository._objects.records.read(repository["latest"].id).host == "host-of-the-workshop"
    for point in list(repository)[:1]:
        repository.forget([point.id])
    repository.pin("latest", "a telling reason")
    repository.prune()
    everything = b"".join(path.read_bytes() for path in objects_of(repository).values())
    for told in (
        b"torques",
        b"wheel nuts",
        b"telling",
        b"tag-1",
        store.url.encode(),
        b"host-of-the-workshop",
        SECRET.encode(),
    ):
        assert told not in everything


def test_the_same_content_has_other_hashes_in_each_repository(repository, store, tmp_path):
    """Whoever knows a file cannot look for the hash of it, or of a piece of it, nor find it in two repositories."""
    others = [Repository(tmp_path / "plain"), Repository(tmp_path / "other", key=Passphrase(SECRET))]
    for other in others:
        other.backup(store)
    hashes = [
        {
            bytes(row)
            for pack, _entry in found._objects.packs.entries()
            for row in found._objects.packs.table(pack).hashes
        }
        for found in (repository, *others)
    ]
    assert all(hashes)
    for one, another in itertools.combinations(hashes, 2):
        assert one.isdisjoint(another)
    everything = b"".join(path.read_bytes() for path in objects_of(repository).values())
    for digest in set.union(*hashes, {blake3(TEXT).digest()}):
        assert digest not in everything
        assert digest.hex().encode() not in everything


def test_without_the_key_nothing_can_be_had(repository, tmp_path):
    with pytest.raises(DecryptionError, match="is encrypted"):
        Repository(repository.url).snapshots()
    with pytest.raises(DecryptionError, match="opens none of its 1 keys"):
        Repository(repository.url, key=Passphrase("correct horse battery stapler")).snapshots()
    with pytest.raises(DecryptionError):
        Repository(repository.url).backup(IndexStore(tmp_path / "store", components=[Files("*.txt")]))


def test_the_secret_is_in_no_text(again, caplog):
    caplog.set_level(logging.DEBUG)
    repository = again()
    repository.check()
    with pytest.raises(DecryptionError) as caught:
        again("not " + SECRET).snapshots()
    shown = f"{repository!r} {Passphrase(SECRET)!r} {repository.keys!r} {caught.value} {caplog.text}"
    assert SECRET not in shown
    opened = repository._objects.access.opened
    assert opened.data_keys[0].hex() not in repr(opened)
    assert repr(opened.data_keys[0]) not in repr(opened)


def test_any_changed_byte_of_any_object_is_noticed(repository, again, tmp_path):
    """Every object, at places spread over all of it; nothing wrong ever comes out."""
    names = [point.id for point in repository]
    for name, path in objects_of(repository).items():
        if name == "README.txt":
            continue
        whole = path.read_bytes()
        places = {*range(0, len(whole), max(1, len(whole) // 23)), len(whole) - 1, len(whole) // 2}
        for place in places:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
            try:
                found = again()
                problems = found.check(read_data_subset="100%")
                assert problems, f"byte {place} of {name}"
                assert {point.id for point in found} <= set(names)
            except (DecryptionError, IntegrityError, FormatError, ConfigurationError):
                pass
        path.write_bytes(whole)
    assert not again().check(read_data_subset="100%")


def test_objects_that_change_places_are_noticed(repository, again):
    there = objects_of(repository)
    for folder in ("snapshots", "packs"):
        for one, other in itertools.combinations([path for name, path in there.items() if name.startswith(folder)], 2):
            contents = one.read_bytes(), other.read_bytes()
            one.write_bytes(contents[1])
            other.write_bytes(contents[0])
            assert len(again().check()) >= 2
            one.write_bytes(contents[0])
            other.write_bytes(contents[1])


def test_objects_that_are_renamed_or_duplicated_are_noticed(repository, again):
    url = Path(repository.url)
    names = [point.id for point in repository]
    before = objects_of(repository)
    renamed = f"{names[0][:-1]}{int(names[0][-1], 16) ^ 1:x}"
    record = url / "snapshots" / f"{names[0]}.json"
    for move in (Path.rename, shutil.copy):
        move(record, record.with_name(f"{renamed}.json"))
        found = again()
        assert {problem.paths for problem in found.check()} >= {(f"snapshots/{renamed}.json",)}
        assert renamed not in [point.id for point in found.snapshots()]
        with pytest.raises(IntegrityError, match="is not what was sealed for that place"):
            found[renamed]
        shutil.move(record.with_name(f"{renamed}.json"), record)
    pack = next(path for name, path in before.items() if name.startswith("packs"))
    copy = url / "packs" / "00" / f"00{pack.name[2:]}"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(pack, copy)
    (problem,) = again().check()
    assert problem.paths == (f"packs/00/{copy.name}",)
    copy.unlink()
    repository.pin(names[0])
    shutil.copy(url / "pins" / f"{names[0]}.json", url / "pins" / f"{names[1]}.json")
    (problem,) = again().check()
    assert problem.paths == (f"pins/{names[1]}.json",)


def test_a_frame_fits_in_no_other_place(repository):
    """Neither in its pack nor in another one, nor behind another table."""
    objects = repository._objects
    seal, other = objects.access.protection.new_pack(), objects.access.protection.new_pack()
    closed = bytes(seal.close(0, b"content"))
    assert seal.open(0, closed) == b"content"
    for opener, number, data in ((seal, 1, closed), (other, 0, closed), (seal, 0, closed[:-1]), (seal, 0, b"")):
        with pytest.raises(IntegrityError):
            opener.open(number, data)
    table = seal.close_table(b"table", b"footer")
    assert seal.open_table(table, b"footer") == b"table"
    for opener, footer in ((seal, b"other"), (other, b"footer")):
        with pytest.raises(IntegrityError):
            opener.open_table(table, footer)


@pytest.mark.parametrize(
    "changes",
    [
        *({"data": b""}, {"data": bytes(11)}, {"data": bytes(40)}, {"key": ""}, {"key": "0" * 16}),
        *({"key": "x" * 1_000_000}, {"previous": "y" * 1_000_000}, {"previous": "\0\n"}),
    ],
    ids=lambda changes: f"{next(iter(changes))}-{len(next(iter(changes.values())))}",
)
def test_a_forged_record_is_damage_and_no_long_message(repository, again, changes):
    for folder, name in (("snapshots", repository["latest"].id), ("forgotten", "20260101T000000Z-0123456789abcdef")):
        path = Path(repository.url, folder, f"{name}.json")
        path.parent.mkdir(exist_ok=True)
        genuine = model.decode(
            Path(repository.url, snapshot_key(repository["latest"].id)).read_bytes(), model.Sealed, ""
        )
        before = path.read_bytes() if path.exists() else b""
        path.write_bytes(model.encode(attrs.evolve(genuine, **changes)))
        (problem,) = again().check()
        assert (problem.code, problem.paths) == ("damaged", (f"{folder}/{name}.json",))
        assert len(problem.message) < 1000
        path.unlink()
        if before:
            path.write_bytes(before)


def test_an_object_that_is_too_large_to_be_true_is_not_read(repository, again):
    for key in ("snapshots/20260101T000000Z-0123456789abcdef0123.json", "keys/0123456789abcdef.json"):
        with (Path(repository.url) / key).open("wb") as file:
            file.truncate(1 << 40)
        (problem,) = again().check()
        assert problem.paths == (key,)
        assert "found 1099511627776" in problem.message
        (Path(repository.url) / key).unlink()


def test_a_snapshot_of_another_repository_with_the_same_passphrase_is_noticed(repository, again, store, tmp_path):
    other = Repository(tmp_path / "other", key=Passphrase(SECRET))
    other.backup(store)
    for name in ("snapshots", "packs"):
        shutil.copytree(tmp_path / "other" / name, Path(repository.url) / name, dirs_exist_ok=True)
    assert len(again().snapshots()) == 3
    assert any(problem.code == "damaged" for problem in again().check())


@pytest.mark.parametrize("which", [0, 1])
def test_a_snapshot_that_was_taken_away_is_missed(repository, again, which):
    name = repository.snapshots()[which].id
    (Path(repository.url) / "snapshots" / f"{name}.json").unlink()
    (problem,) = again().check()
    assert (problem.code, problem.paths) == ("missing", (f"snapshots/{name}.json",))


def test_what_somebody_else_put_there_is_not_remembered_instead(repository, again, store):
    snapshots = Path(repository.url) / "snapshots"
    last = repository["latest"].id
    forged = snapshots / "99990101T000000Z-0123456789abcdef0123.json"
    forged.write_bytes((snapshots / f"{last}.json").read_bytes())
    again().backup(store)
    forged.unlink()
    assert not again().check()
    (snapshots / f"{last}.json").unlink()
    assert [problem.paths for problem in again().check()] == [(f"snapshots/{last}.json",)]


def test_what_nobody_notices(repository, again, store, tmp_path):
    """Without a memory outside of the storage it cannot be; docs/encryption.md says so."""
    url = Path(repository.url)
    first, _second, newest = [point.id for point in repository]
    states = [shutil.copytree(url, tmp_path / "state-0")]

    def put_back(state: Path) -> None:
        shutil.rmtree(url)
        shutil.copytree(state, url)

    (url / "snapshots" / f"{newest}.json").unlink()
    assert not again().check(), "the newest one was taken away"
    put_back(states[0])
    again().pin(first)
    (url / "pins" / f"{first}.json").unlink()
    assert (not again().check(), again().pins()) == (True, {}), "a pin was taken away"
    again().forget([first])
    shutil.copy(states[0] / "snapshots" / f"{first}.json", url / "snapshots")
    assert again().snapshots()[0].id == first, "what was forgotten came back"
    assert not again().check(read_data_subset="100%")
    again().backup(store)
    put_back(states[0])
    assert (not again().check(read_data_subset="100%"), len(again())) == (True, 3), "all is as it was"
    other = Repository(tmp_path / "other", key=Passphrase(SECRET))
    other.backup(store)
    put_back(tmp_path / "other")
    assert (not again().check(), len(again())) == (True, 1), "it is another one that the same key opens"


def test_a_snapshot_that_was_forgotten_is_not_missed(repository, again, store):
    names = [point.id for point in repository]
    again().forget(names[1:2])
    assert not again().check()
    (Path(repository.url) / "snapshots" / f"{names[0]}.json").unlink()
    assert [problem.paths for problem in again().check()] == [(f"snapshots/{names[0]}.json",)], (
        "what the forgotten one had noted is not forgotten"
    )


def test_the_notes_of_forgotten_snapshots_do_not_pile_up(repository, again, store):
    for number in range(6):
        (Path(store.url) / "number.txt").write_text(f"again {number}")
        again().backup(store)
        again().forget([again().snapshots()[0].id])
    assert len(list((Path(repository.url) / "forgotten").iterdir())) == 6
    again().prune()
    assert len(list((Path(repository.url) / "forgotten").iterdir())) <= 1
    assert not again().check()
    missing = again().snapshots()[0].id
    (Path(repository.url) / "snapshots" / f"{missing}.json").unlink()
    assert [problem.paths for problem in again().check()] == [(f"snapshots/{missing}.json",)]


def test_a_repository_put_in_its_place_is_refused(repository, store, tmp_path):
    """Somebody who can write to the storage would like new backups in the clear."""
    shutil.rmtree(repository.url)
    Repository(tmp_path / "repository").backup(store)
    for use in (lambda found: found.backup(store), lambda found: found.snapshots()):
        with pytest.raises(ConfigurationError, match="is not encrypted, although a key was given"):
            use(Repository(tmp_path / "repository", key=Passphrase(SECRET)))


def test_a_config_that_denies_the_encryption_is_refused(repository, again, store):
    path = Path(repository.url) / "config.json"
    plain = Repository(Path(repository.url).parent / "plain")
    plain.backup(store)
    said = json.loads(path.read_bytes())["config"]
    from novabackup.format.records import Config, encode

    path.write_bytes(encode(Config(id=said["id"])))
    with pytest.raises(NovaBackupError, match="not encrypted"):
        again().backup(store)


def test_plain_objects_in_an_encrypted_repository_are_refused(repository, again, store):
    plain = Repository(Path(repository.url).parent / "plain")
    point = plain.backup(store)
    for name in ("snapshots", "packs"):
        shutil.copytree(Path(plain.url) / name, Path(repository.url) / name, dirs_exist_ok=True)
    assert point.id not in [found.id for found in again()]
    assert len([problem for problem in again().check() if problem.code == "damaged"]) == 2


def test_a_lost_config_is_written_anew(repository, again, store):
    before = (Path(repository.url) / "config.json").read_bytes()
    (Path(repository.url) / "config.json").unlink()
    assert len(again().snapshots()) == 3
    again().backup(store)
    assert (Path(repository.url) / "config.json").read_bytes() == before


def test_a_guard_rolls_back_from_an_encrypted_repository(store, again):
    with pytest.raises(ZeroDivisionError), snapshot(store, again()):
        (Path(store.url) / "torques.txt").write_bytes(b"garbage")
        raise ZeroDivisionError
    assert (Path(store.url) / "torques.txt").read_bytes() == TEXT


def test_sizes_tell_little(store, tmp_path):
    """Two contents that differ by a few bytes give packs and records of the same size."""
    sizes = set()
    for number, text in enumerate([b"x" * 9_001, b"x" * 9_777]):
        (Path(store.url) / "torques.txt").write_bytes(bytes(range(256)) * 400 + text)
        repository = Repository(tmp_path / f"repository-{number}", key=Passphrase(SECRET))
        repository.backup(store)
        sizes.add(tuple(path.stat().st_size for name, path in objects_of(repository).items() if "s/" in name))
    assert len(sizes) == 1


@given(st.integers(1, 1 << 40))
def test_padding_costs_little(size):
    assert size <= padded(size) <= size * 1.12 + 1
    assert padded(padded(size)) == padded(size)


def test_padding_of_usual_packs_costs_one_percent():
    sizes = range(8 << 20, 16 << 20, 4001)
    assert 1.005 < sum(map(padded, sizes)) / sum(sizes) < 1.012
    assert len(set(map(padded, sizes))) == 33


def test_content_that_is_there_already_lets_the_repository_grow_less(repository, again, store):
    """So whoever can have something ingested may find out whether it was there; docs/encryption.md says so."""
    grown = []
    for name, text in (("new.txt", random.Random(1).randbytes(500_000)), ("old.txt", None)):
        content = text or (Path(store.url) / "new.txt").read_bytes()
        (Path(store.url) / name).write_bytes(content)
        before = again().stored_bytes()
        again().backup(store)
        grown.append(again().stored_bytes() - before)
    assert grown[1] < grown[0] / 10
