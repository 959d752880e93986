"""Several keys open one repository; each can be added, changed and removed without rewriting data."""

from __future__ import annotations

import secrets
import shutil
import stat
import sys
from pathlib import Path

import attrs
import pytest
from telling import SECRET, TEXT

from novabackup import ConfigurationError, DecryptionError, NotFoundError, Repository, keys
from novabackup.format.records import decode, encode
from novabackup.format.sealing import aead
from novabackup.keys import ExternalKey, KeyFile, Passphrase, unwrap, wrap
from novabackup.objects import slots


class Service:
    """A key service that knows what it has encrypted."""

    def __init__(self):
        self.known = {}

    def encrypt(self, data):
        token = secrets.token_bytes(48)
        self.known[token] = data
        return token

    def decrypt(self, token):
        return self.known[token]


@pytest.fixture
def every_kind(tmp_path):
    service = Service()
    return {
        "passphrase": Passphrase("another one"),
        "file": KeyFile.generate(tmp_path / "key"),
        "external": ExternalKey(service.encrypt, service.decrypt),
    }


@pytest.mark.parametrize("kind", ["passphrase", "file", "external"])
def test_a_key_that_was_added_opens_the_repository_too(repository, again, every_kind, kind):
    before = {path: path.stat().st_mtime_ns for path in Path(repository.url).rglob("*") if path.is_file()}
    name = repository.keys.add(every_kind[kind], "alice")
    assert [(key.id, key.kind, key.label) for key in again().keys if not key.current] == [(name, kind, "alice")]
    for opened in (Repository(repository.url, key=every_kind[kind]), again()):
        assert opened["latest"].open("torques.txt").read() == TEXT
    now = {path: path.stat().st_mtime_ns for path in Path(repository.url).rglob("*") if path.is_file()}
    assert before.items() <= now.items(), "no other object was written"


@pytest.mark.parametrize("kind", ["passphrase", "file", "external"])
def test_a_repository_can_be_created_with_any_kind_of_key(tmp_path, store, every_kind, kind):
    Repository(tmp_path / "another", key=every_kind[kind]).backup(store)
    opened = Repository(tmp_path / "another", key=every_kind[kind])
    assert opened["latest"].open("torques.txt").read() == TEXT
    assert [key.kind for key in opened.keys] == [kind]


def test_a_passphrase_can_be_changed(repository, again):
    data = {path: path.read_bytes() for path in Path(repository.url, "packs").rglob("*") if path.is_file()}
    changed = again()
    changed.keys.change(Passphrase("a new one"))
    assert len(changed.snapshots()) == 3, "goes on with the new one"
    with pytest.raises(DecryptionError):
        again().snapshots()
    assert again("a new one")["latest"].open("torques.txt").read() == TEXT
    assert {path: path.read_bytes() for path in data} == data


def test_a_key_that_was_removed_opens_nothing_and_the_last_one_stays(repository, again):
    (first,) = (key.id for key in repository.keys)
    repository.keys.add(Passphrase("second"))
    repository.keys.remove(first)
    with pytest.raises(DecryptionError):
        again().snapshots()
    with pytest.raises(ConfigurationError, match="the last key"):
        again("second").keys.remove(next(iter(again("second").keys)).id)
    with pytest.raises(NotFoundError, match="has no key 'nobody'"):
        again("second").keys.remove("nobody")


def test_a_repository_without_encryption_has_no_keys(tmp_path, store):
    plain = Repository(tmp_path / "plain")
    plain.backup(store)
    with pytest.raises(ConfigurationError, match="is not encrypted, so it has no keys"):
        plain.keys.add(Passphrase("late"))


def test_a_slot_belongs_to_its_repository(tmp_path):
    slot = wrap(Passphrase(SECRET), [bytes(32)], "here", "")
    assert unwrap(Passphrase(SECRET), slot) == (bytes(32),)
    assert decode(encode(slot), keys.KeySlot, "somewhere") == slot
    for forged in (
        attrs.evolve(slot, repository="elsewhere"),
        attrs.evolve(slot, n=slot.n * 2),
        attrs.evolve(slot, salt=bytes(32)),
        attrs.evolve(slot, data=slot.data[:-1]),
        attrs.evolve(slot, data=b""),
    ):
        assert unwrap(Passphrase(SECRET), forged) is None


ABSURD = [
    *({"n": 1 << 30}, {"r": 1 << 30}, {"p": 1 << 30}, {"n": 1 << 20, "p": 5}, {"n": 1 << 40, "r": 1 << 40}),
    *({"n": 3}, {"n": 0}, {"n": 1}, {"n": -2}, {"r": 0}, {"r": -1}, {"p": 0}, {"p": -1}),
]


def test_a_slot_with_costs_that_do_not_go_together_locks_nobody_out():
    slot = wrap(Passphrase(SECRET), [bytes(32)], "here", "")
    assert unwrap(Passphrase(SECRET), attrs.evolve(slot, n=1 << 17, r=1)) is None


@pytest.mark.parametrize("costs", ABSURD, ids=str)
def test_a_slot_that_asks_for_absurd_costs_takes_neither_memory_nor_time(monkeypatch, costs):
    slot = wrap(Passphrase(SECRET), [bytes(32)], "here", "")
    asked = []
    monkeypatch.setattr(aead, "stretch", lambda *given: asked.append(given) or bytes(32))
    assert unwrap(Passphrase(SECRET), attrs.evolve(slot, **costs)) is None
    assert not asked
    assert unwrap(Passphrase(SECRET), attrs.evolve(slot, n=1 << 20, p=4)) is None
    assert len(asked) == 1, "32 times the usual cost is not absurd"


def test_a_damaged_slot_does_not_lock_others_out(repository, again):
    repository.keys.add(Passphrase("second"))
    ids = {key.current: key.id for key in repository.keys}
    path = Path(repository.url, "keys", f"{ids[True]}.json")
    path.write_bytes(path.read_bytes()[:-9])
    assert len(again("second").snapshots()) == 3
    assert [problem.paths for problem in again("second").check()] == [(f"keys/{ids[True]}.json",)]


def test_a_slot_of_another_repository_is_no_key(repository, again, store, tmp_path):
    other = Repository(tmp_path / "other", key=Passphrase(SECRET))
    other.backup(store)
    for slot in (tmp_path / "other" / "keys").iterdir():
        shutil.copy(slot, Path(repository.url, "keys", "0" * 16 + ".json"))
    (mine,) = again().keys
    assert mine.current
    with pytest.raises(ConfigurationError, match="the last key"):
        again().keys.remove(mine.id)
    Path(repository.url, "config.json").unlink()
    again().backup(store)
    assert len(again()) == 4, "the config that is written anew is of the repository that the key belongs to"


def test_more_slots_than_there_can_be_are_not_all_tried(repository, again, monkeypatch):
    (slot,) = Path(repository.url, "keys").iterdir()
    for number in range(150):
        shutil.copy(slot, slot.with_name(f"{number:016x}.json"))
    tried = []
    monkeypatch.setattr(slots, "unwrap", lambda key, slot: tried.append(slot))
    with pytest.raises(DecryptionError, match="opens none of its 100 keys"):
        again().snapshots()
    assert len(tried) == 100


def test_a_config_that_was_lost_after_a_copy_is_written_anew_as_it_was(repository, store, tmp_path):
    target = Repository(tmp_path / "target", key=Passphrase("another"))
    repository.copy(to=target)
    config = tmp_path / "target" / "config.json"
    before = config.read_bytes()
    config.unlink()
    Repository(tmp_path / "target", key=Passphrase("another")).backup(store)
    assert config.read_bytes() == before


def test_of_several_key_services_each_is_asked_for_its_own(repository, store, tmp_path):
    one, other = Service(), Service()
    url = tmp_path / "of services"
    keys_ = [ExternalKey(service.encrypt, service.decrypt) for service in (one, other)]
    Repository(url, key=keys_[0]).backup(store)
    Repository(url, key=keys_[0]).keys.add(keys_[1])
    for key in keys_:
        assert len(Repository(url, key=key)) == 1
    with pytest.raises(DecryptionError, match="could not decrypt the token"):
        Repository(url, key=ExternalKey(Service().encrypt, Service().decrypt)).snapshots()


def test_a_key_that_was_removed_meanwhile_is_of_no_use_to_a_program_that_goes_on(repository, again, store):
    repository.keys.add(Passphrase("second"))
    going_on = again("second")
    assert len(going_on.snapshots()) == 3
    repository.keys.remove(next(key.id for key in repository.keys if not key.current))
    with pytest.raises(DecryptionError):
        going_on.backup(store)
    with pytest.raises(DecryptionError):
        going_on.keys.add(Passphrase("third"))


def test_passphrases_come_from_where_they_are_kept(monkeypatch, tmp_path, repository):
    monkeypatch.setenv("MY_PASSPHRASE", SECRET)
    (tmp_path / "passphrase").write_text(SECRET + "\n")
    (tmp_path / "passphrase").chmod(0o600)
    program = [sys.executable, "-c", f"print({SECRET!r})"]
    for key in (
        Passphrase.from_env("MY_PASSPHRASE"),
        Passphrase.from_file(tmp_path / "passphrase"),
        Passphrase.from_command(program),
    ):
        assert len(Repository(repository.url, key=key)) == 3


def test_the_same_passphrase_typed_on_another_keyboard_is_the_same(tmp_path, store):
    Repository(tmp_path / "another", key=Passphrase("Ölstand")).backup(store)
    assert len(Repository(tmp_path / "another", key=Passphrase("O\u0308lstand"))) == 1


def test_what_cannot_be_a_key_is_refused_without_showing_it(tmp_path, monkeypatch):
    monkeypatch.delenv("NOVABACKUP_PASSPHRASE", raising=False)
    (tmp_path / "odd").write_text("hush hush\n")
    (tmp_path / "odd").chmod(0o600)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "empty").chmod(0o600)
    for make in (
        lambda: Passphrase(""),
        lambda: Passphrase("hush \udcff hush"),
        Passphrase.from_env,
        lambda: Passphrase.from_file(tmp_path / "empty"),
        lambda: Passphrase.from_command([sys.executable, "-c", "print('hush hush'); raise SystemExit(1)"]),
        lambda: Passphrase.from_command(["/no/such/program"]),
        lambda: KeyFile(tmp_path / "odd"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert "hush" not in str(caught.value)
        assert not isinstance(caught.value.__context__, UnicodeError) or caught.value.__suppress_context__


def test_a_key_file_is_for_its_owner_and_is_never_overwritten(tmp_path, caplog):
    KeyFile.generate(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        KeyFile.generate(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    KeyFile(tmp_path / "key")
    assert "chmod 600" in caplog.text


def test_a_key_service_that_fails_is_told_from_a_wrong_key(repository, every_kind):
    repository.keys.add(every_kind["external"], "kms")

    def broken(token):
        raise RuntimeError("internal details")

    with pytest.raises(DecryptionError, match="could not decrypt the token of the slot 'kms': RuntimeError"):
        Repository(repository.url, key=ExternalKey(bytes, broken)).snapshots()
    with pytest.raises(ConfigurationError, match="do not hide"):
        repository.keys.add(ExternalKey(bytes, bytes))


def test_what_a_failing_service_says_is_not_repeated(repository):
    def fail(data):
        raise OSError(f"could not encrypt {data.hex()}")

    before = len(repository.keys)
    with pytest.raises(ConfigurationError, match=r"could not encrypt a new key: OSError\. Nothing was written$"):
        repository.keys.add(ExternalKey(fail, fail), "kms")
    assert len(repository.keys) == before
