"""The command repair: it shows what is damaged, what can be had from where and what is lost, and does it."""

from __future__ import annotations

import hmac

import pytest

import nova
from novabackup import Repository
from novabackup.cli.exits import Exit

COPIES = '\n[copies.offsite]\nurl = "copies/offsite"\n'
INDEX = "bm25_index.pkl"


@pytest.fixture
def damaged(store, place, cli):
    """A repository with one snapshot, whose pack is damaged, and a copy of it; the live files have gone on."""
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text() + COPIES)
    cli("snapshot")
    cli("mirror")
    nova.build(store, nova.texts(7))
    (pack,) = (path for path in (place / "backups/packs").rglob("*") if path.is_file())
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    return place / "backups"


def lost(said):
    return {(loss["key"], loss["path"]) for loss in said.json["lost"]}


class TestTheRepository:
    def test_a_dry_run_says_what_is_lost_and_which_copy_may_have_it(self, cli, damaged):
        before = nova.contents(damaged)
        said = cli("repair", "--dry-run", "--json")
        assert said.code == Exit.WRONG
        (point,) = Repository(damaged)
        assert lost(said) <= {(f"snapshots/{point.id}.json", path) for path in point.files}
        assert lost(said)
        shown = cli("repair", "--dry-run").out
        assert "Cannot be repaired:" in shown
        assert f"snapshot {point.id}" in shown
        assert "novabackup repair --from offsite" in shown
        assert nova.contents(damaged) == before

    def test_it_is_mended_from_a_copy_of_that_name_or_place(self, cli, damaged):
        said = cli("repair", "--from", "./copies/offsite", "--dry-run", "--json")
        assert (said.code, said.json["lost"]) == (Exit.OK, [])
        assert {action["step"] for action in said.json["actions"]} >= {"store anew", "set aside"}
        assert any("copies/offsite" in action["source"] for action in said.json["actions"])
        done = cli("repair", "--from", "offsite")
        assert done.code == Exit.OK
        assert "1 problem" in done.out
        assert "nothing lost" in done.out
        assert cli("check", "--read-data-subset", "100%").code == Exit.OK
        assert "nothing is damaged" in cli("repair").out

    def test_a_repair_that_could_not_save_everything_says_so_also_when_quiet(self, cli, damaged):
        said = cli("repair", "--quiet")
        assert said.code == Exit.WRONG
        assert "Cannot be repaired:" in said.out
        assert cli("check").code == Exit.WRONG

    def test_check_says_which_command_mends(self, cli, damaged):
        assert "novabackup repair --dry-run" in cli("check", "--read-data-subset", "100%").out

    def test_it_asks_on_a_terminal_and_a_no_changes_nothing(self, terminal, damaged):
        before = nova.contents(damaged)
        screen = terminal("repair", "--from", "offsite")
        screen.child.expect(r"Repair .*\? \[y/N\]")
        screen.child.sendline("n")
        assert screen.end() == Exit.INTERRUPTED
        assert "Nothing was done" in screen.text
        assert nova.contents(damaged) == before

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("--from", "nonesuch"), "has offsite"),
            (("--from", "./nonesuch"), "there is no repository"),
            (("--bm25", "--from", "offsite"), "found both"),
            (("--text-field", "text"), "add --bm25"),
            (("--bm25", "--sign-key-env", "NONESUCH"), "NONESUCH"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, cli, damaged, words, told):
        said = cli("repair", *words)
        assert said.code == Exit.USAGE
        assert told in said.err


class TestTheIndex:
    def test_it_is_written_anew_as_it_was(self, cli, store):
        cli("snapshot")
        whole = (store / INDEX).read_bytes()
        assert "nothing is wrong" in cli("repair", "--bm25").out
        (store / INDEX).write_bytes(whole[:200])
        plan = cli("repair", "--bm25", "--dry-run")
        assert plan.code == Exit.OK
        assert "text.lower().split()" in plan.out
        assert (store / INDEX).read_bytes() == whole[:200]
        done = cli("repair", "--bm25", "--json")
        assert done.code == Exit.OK
        assert (done.json["documents"], done.json["path"], done.json["dry_run"]) == (5, INDEX, False)
        assert (store / INDEX).read_bytes() == whole

    def test_a_signed_one_is_signed_with_the_key_of_the_environment(self, cli, store, monkeypatch):
        plain = (store / INDEX).read_bytes()
        signed = b"\0\0\0\x20" + hmac.digest(b"a secret", plain, "sha256") + plain
        (store / INDEX).write_bytes(signed)
        cli("snapshot")
        (store / INDEX).write_bytes(signed[:200])
        said = cli("repair", "--bm25")
        assert said.code == Exit.USAGE
        assert "signed" in said.err
        assert "Hint: what cannot be derived is passed with --text-field NAME and --sign-key-env NAME" in said.err
        monkeypatch.setenv("INDEX_KEY", "a secret")
        assert cli("repair", "--bm25", "--sign-key-env", "INDEX_KEY").code == Exit.OK
        assert (store / INDEX).read_bytes() == signed

    def test_where_it_cannot_be_done_nothing_is_written(self, cli, store):
        cli("snapshot")
        (store / INDEX).write_bytes(b"cut off")
        (store / "metadata.json").write_bytes(b"[")
        before = nova.contents(store)
        said = cli("repair", "--bm25")
        assert said.code == Exit.USAGE
        assert "metadata.json" in said.err
        assert nova.contents(store) == before
