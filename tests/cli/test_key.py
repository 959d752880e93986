"""What the commands for keys do; passphrases come from files, the environment, or somebody who types."""

from __future__ import annotations

import pytest

from novabackup import Repository
from novabackup.keys import KeyFile


@pytest.fixture
def encrypted(store, place):
    """A repository with one snapshot, which a key file opens."""
    KeyFile.generate(place / "key")
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text() + 'key = { keyfile = "key" }\n')
    return Repository(place / "backups", key=KeyFile(place / "key"))


def test_keys_are_added_listed_and_removed(cli, encrypted, place):
    cli("init")
    added = cli("key", "add", "--new-keyfile", "other", "--label", "of the office", "--json").json["id"]
    assert (place / "other").stat().st_mode & 0o777 == 0o600
    assert len(Repository(place / "backups", key=KeyFile(place / "other")).keys) == 2
    listed = cli("key", "list", "--json").json["keys"]
    assert {key["id"]: (key["label"], key["current"]) for key in listed}[added] == ("of the office", False)
    assert "of the office" in cli("key", "list").out
    assert cli("key", "remove", added).out == f"Key {added} no longer opens the repository\n"
    last = cli("key", "list", "--json").json["keys"][0]["id"]
    said = cli("key", "remove", last)
    assert said.code == 2
    assert "is the last key" in said.err


def test_the_key_of_the_configuration_is_changed(cli, encrypted, place):
    cli("snapshot")
    KeyFile.generate(place / "new")
    assert cli("key", "change", "--new-keyfile", "new").code == 0
    assert cli("list").code == 2
    assert len(Repository(place / "backups", key=KeyFile(place / "new"))) == 1


def test_everything_is_encrypted_anew(cli, encrypted, place):
    cli("snapshot")
    cli("key", "add", "--new-keyfile", "other", "--label", "of the office")
    answer = cli("key", "reencrypt", "--json")
    assert answer.json["gone"] == ["of the office"]
    assert cli("verify").code == 0
    assert [key["current"] for key in cli("key", "list", "--json").json["keys"]] == [True]


def test_nobody_is_asked_where_nobody_is(cli, encrypted):
    cli("init")
    said = cli("key", "add")
    assert said.code == 2
    assert "found no terminal to ask for it. Pass where it is: --new-passphrase-env" in said.err
    assert cli("key", "add", "--new-keyfile", "a", "--new-passphrase-env", "B").code == 2


def test_passphrases_come_from_the_environment_or_a_file(cli, encrypted, place, monkeypatch):
    cli("init")
    monkeypatch.setenv("NEW", "correct horse")
    (place / "phrase").write_text("battery staple\n")
    (place / "phrase").chmod(0o600)
    for option in (("--new-passphrase-env", "NEW"), ("--new-passphrase-file", "phrase")):
        said = cli("key", "add", *option)
        assert said.code == 0
        assert "horse" not in said.out + said.err
        assert "staple" not in said.out + said.err
    assert len(encrypted.keys) == 3


def test_a_passphrase_is_typed_twice_on_a_terminal(terminal, cli, encrypted):
    cli("init")
    screen = terminal("key", "add")
    for typed in ("correct horse", "correct house"):
        screen.child.expect("New passphrase: |The same again: ")
        screen.child.sendline(typed)
    assert screen.end() == 2
    assert "found two that differ" in screen.text
    assert "correct" not in screen.text
    assert len(encrypted.keys) == 1


def test_a_repository_that_is_not_encrypted_has_no_keys(cli, store):
    cli("init")
    said = cli("key", "list")
    assert said.code == 2
    assert "is not encrypted, so it has no keys" in said.err
