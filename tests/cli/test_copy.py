"""What copy and mirror do, and what they find in the configuration."""

from __future__ import annotations

import pytest

import nova
from novabackup import Repository
from novabackup.keys import KeyFile

COPIES = '\n[copies.offsite]\nurl = "offsite"\nretention = "last 1"\nlimit = "500MB"\n\n[copies.usb]\nurl = "usb"\n'


@pytest.fixture
def copies(store, place):
    """A configuration with two copies."""
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text() + COPIES)
    return store


def test_copy_sends_what_is_not_there_yet_after_a_dry_run_that_sends_nothing(cli, copies, place):
    first, second = (cli("snapshot", "--json").json["snapshot"]["id"] for _number in range(2))
    planned = cli("copy", first, "--to", "offsite", "--dry-run", "--json").json
    assert (planned["dry_run"], planned["copied"], planned["to"]) == (True, [first], str(place / "offsite"))
    assert not (place / "offsite").exists()
    assert cli("copy", first, "--to", "offsite").out.startswith("1 snapshot copied to ")
    done = cli("copy", "--to", "offsite", "--limit", "50MB", "--json").json
    assert (done["copied"], done["there"]) == ([second], [first])
    Repository(place / "offsite")[second].verify()
    assert cli("copy", "--to", "./elsewhere", "-q").out == ""
    assert len(Repository(place / "elsewhere")) == 2


def test_a_word_that_names_no_copy_is_no_folder(cli, copies, place):
    cli("snapshot")
    said = cli("copy", "--to", "ofsite")
    assert said.code == 2
    assert "has offsite, usb. Write [copies.ofsite] there; a folder of that name is ./ofsite" in said.err
    assert not (place / "ofsite").exists()
    assert cli("mirror", "usb", "ofsite").code == 2
    assert not (place / "usb").exists()


def test_what_is_encrypted_stays_so_where_nothing_else_is_said(cli, copies, place):
    KeyFile.generate(place / "key")
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text().replace(COPIES, 'key = { keyfile = "key" }\n' + COPIES))
    cli("snapshot")
    for to in ("./elsewhere", "usb"):
        assert cli("copy", "--to", to).code == 0
        assert len(Repository(place / to, key=KeyFile(place / "key")).keys) == 1


def test_mirror_keeps_each_copy_under_its_own_retention(cli, copies, place):
    names = []
    for texts in (3, 4):
        nova.build(copies, nova.texts(texts))
        names.append(cli("snapshot", "--json").json["snapshot"]["id"])
        answer = cli("mirror", "--json").json
    offsite, usb = answer["copies"]
    assert (offsite["name"], offsite["copied"], offsite["forgotten"]) == ("offsite", [names[1]], [names[0]])
    assert (usb["copied"], usb["policy"]) == ([names[1]], "daily 30, weekly 12")
    assert [one.id for one in Repository(place / "offsite")] == [names[1]]
    assert "0 snapshots forgotten there under" in cli("mirror", "usb", "--prune").out
    assert "0 snapshots would be copied" in cli("mirror", "usb", "--dry-run", "-q").out


def test_mirror_without_copies_says_what_to_write(cli, store):
    cli("snapshot")
    said = cli("mirror")
    assert said.code == 2
    assert "[copies.offsite]" in said.err


def test_a_limit_is_refused_with_the_line_that_it_stands_in(cli, copies, place):
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text().replace("500MB", "fast"))
    said = cli("mirror")
    assert said.code == 2
    assert ':10: copies.offsite.limit: expected bytes a second, such as "500kB" or "5MB", found "fast"' in said.err
    assert cli("copy", "--to", "usb", "--limit", "0").code == 2
