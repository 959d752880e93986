"""The data key is replaced: old keys are worth nothing, and nothing is lost whenever it is interrupted."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from telling import SECRET, TEXT

import trees
from novabackup import ConfigurationError, DecryptionError, IntegrityError, Repository
from novabackup.keys import Passphrase
from novabackup.operations import reencrypt as reencryption
from novabackup.storage import open_storage
from novabackup.testing import FaultyStorage, Moment, Then, fail_with


def test_everything_is_sealed_with_a_new_key_and_other_keys_are_out(repository, again, store):
    before = trees.snapshots(repository)
    packs = {path.name for path in Path(repository.url, "packs").rglob("*") if path.is_file()}
    old = repository._objects.access.opened.data_keys
    repository.keys.add(Passphrase("somebody who left"), "bob")
    again().forget([again().snapshots()[0].id])
    assert again().reencrypt() == ("bob",)
    with pytest.raises(DecryptionError):
        again("somebody who left").snapshots()
    opened = again()
    assert trees.snapshots(opened) == dict(list(before.items())[1:])
    assert set(opened._objects.access.opened.data_keys).isdisjoint(old)
    assert not opened.check(read_data_subset="100%")
    assert packs.isdisjoint(path.name for path in Path(repository.url, "packs").rglob("*") if path.is_file())
    assert opened.backup(store).verify().files == 2


def test_content_is_still_shared_between_snapshots(repository, again):
    repository.reencrypt()
    assert len({point.files["torques.txt"].packs for point in again()}) == 1


def test_whenever_it_is_interrupted_nothing_is_lost_and_it_goes_on(tmp_path, store):
    def fresh(name: str) -> Path:
        made = Repository(tmp_path / name, key=Passphrase(SECRET))
        for number in range(2):
            (Path(store.url) / "number.txt").write_text(str(number))
            made.backup(store)
        return tmp_path / name

    counting = FaultyStorage(open_storage(fresh("count")))
    Repository(counting, key=Passphrase(SECRET)).reencrypt()
    assert counting.operations > 20
    for at in range(1, counting.operations + 1):
        url = fresh(f"at-{at}")
        before = trees.snapshots(Repository(url, key=Passphrase(SECRET)))
        fault = fail_with(OSError(errno.EIO, "input/output error"))
        broken = FaultyStorage(open_storage(url), at, fault, list(Moment)[at % 2], Then.BROKEN)
        with pytest.raises(OSError, match="input/output error"):
            Repository(broken, key=Passphrase(SECRET)).reencrypt()
        found = Repository(url, key=Passphrase(SECRET))
        assert trees.snapshots(found) == before, f"operation {at}"
        Repository(url, key=Passphrase(SECRET)).reencrypt()
        found = Repository(url, key=Passphrase(SECRET))
        assert trees.snapshots(found) == before
        assert len(found._objects.access.opened.data_keys) == 1
        assert not found.check(read_data_subset="100%")


def test_what_cannot_be_read_is_not_locked_away(repository, again):
    name = repository.snapshots()[1].id
    path = Path(repository.url, "snapshots", f"{name}.json")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(IntegrityError):
        again().reencrypt()
    path.write_bytes(whole)
    assert len(trees.snapshots(again())) == 3


def test_whoever_cannot_read_all_does_not_begin(repository, again, store, monkeypatch):
    """Otherwise two people who had both begun could each write what the other cannot read."""
    bob = Path(repository.url, "keys", f"{repository.keys.add(Passphrase('bob'), 'bob')}.json")

    def interrupt(*_given):
        raise InterruptedError

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(reencryption, "_is_old", interrupt)
        again().reencrypt()
    before = bob.read_bytes()
    with pytest.raises(IntegrityError, match="expected something sealed with one of the data keys"):
        again("bob").reencrypt()
    assert bob.read_bytes() == before
    again("bob").backup(store)
    assert again().reencrypt() == ("bob",)
    assert len(trees.snapshots(again())) == 4


def test_a_program_that_goes_on_meanwhile_seals_with_the_new_key(repository, again, store):
    """Nothing could read what it would seal with the old one."""
    going_on = again()
    before = trees.held(going_on["latest"])
    repository.reencrypt()
    assert {path: bytes(going_on["latest"].open(path).read()) for path in going_on["latest"].files} == before
    point = going_on.backup(store)
    going_on.keys.add(Passphrase("second"))
    for secret in (SECRET, "second"):
        again(secret)[point.id].verify()
        assert not again(secret).check(read_data_subset="100%")


def test_a_slot_that_somebody_kept_opens_nothing_once_the_key_is_changed_afterwards(repository, again, store):
    (slot,) = Path(repository.url, "keys").iterdir()
    kept = slot.read_bytes()
    going_on = again()
    going_on.reencrypt()
    going_on.keys.change(Passphrase("a new one"))
    slot.write_bytes(kept)
    again("a new one").backup(store).verify()
    for there in Path(repository.url, "keys").iterdir():
        there.write_bytes(kept)
    with pytest.raises(DecryptionError):
        again("a new one").backup(store)


def test_a_repository_without_encryption_has_no_data_key(tmp_path, store):
    plain = Repository(tmp_path / "plain")
    plain.backup(store)
    with pytest.raises(ConfigurationError, match="not encrypted"):
        plain.reencrypt()
    assert TEXT in b"".join(plain["latest"].open("torques.txt"))
