"""What each command does and answers, to people and to programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

import nova
from novabackup import IndexStore, Repository
from novabackup.keys import KeyFile
from novabackup.storage.local.storage import LocalStorage

ID = r"\d{8}T\d{6}Z-[0-9a-f]{20}"


@pytest.fixture
def repository(place) -> Repository:
    return Repository(place / "backups")


def damage_a_pack(place):
    pack = max((place / "backups/packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 1
    pack.write_bytes(data)


class TestInit:
    def test_it_creates_the_repository_and_says_what_the_store_lacks(self, cli, store, place):
        (store / "metadata.json").unlink()
        said = cli("init", "--json")
        assert said.json["missing"] == ["metadata.json"]
        assert (place / "backups/config.json").is_file()
        assert said.json["repository"] == str(place / "backups")
        assert cli("init", "--json").json == said.json
        assert f"Store {store} has no metadata.json yet" in cli("init").out

    def test_it_refuses_a_folder_of_something_else(self, cli, store, place):
        (place / "backups/data").mkdir(parents=True)
        (place / "backups/data/x").write_text("restic's")
        said = cli("init")
        assert said.code == 2
        assert said.err.startswith(f"Error: {place}/backups is not a novabackup repository")


@pytest.mark.parametrize("stdout", ["/dev/full", "&-"])
@pytest.mark.parametrize("form", ["", "--json"])
def test_an_output_that_cannot_be_written_is_no_traceback(cli, store, place, stdout, form):
    cli("init")
    typed = f"{sys.executable} -m novabackup list {form} >{stdout}"
    done = subprocess.run(["bash", "-c", typed], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "standard output cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


class TestSnapshot:
    def test_it_takes_one_and_says_what_it_cost(self, cli, store, repository):
        said = cli("snapshot", "--tag", "daily", "--tag", "weekly", "--message", "of today")
        assert re.fullmatch(rf"Snapshot {ID} of {store}: 3 files, [\d.]+ KiB, [\d.]+ KiB new\n", said.out)
        assert said.err == ""
        assert (repository["latest"].tags, repository["latest"].message) == (("daily", "weekly"), "of today")

    def test_nothing_is_not_backed_up_for_a_store(self, cli, store, place):
        said = cli("snapshot", "--store", "vectordb")
        assert said.code == 2
        assert "expected faiss_index.bin, bm25_index.pkl, metadata.json, found no file of the store" in said.err
        assert not (place / "vectordb").exists()
        assert not (place / "backups").exists()

    def test_a_store_that_lost_all_its_files_is_backed_up_as_what_it_is(self, cli, store):
        cli("snapshot")
        for name in nova.FILES:
            (store / name).unlink()
        assert cli("snapshot").code == 1

    def test_quiet_says_nothing_when_all_is_well(self, cli, store):
        assert cli("snapshot", "--quiet") == cli("snapshot", "-q")
        assert cli("snapshot", "--quiet").out == ""

    def test_an_unhealthy_store_is_kept_and_told_of(self, cli, store, repository):
        nova.write_metadata(store, nova.texts(3))
        said = cli("snapshot", "-q")
        assert said.code == 1
        assert said.out.startswith(f"Problems in {store}:\n  - count-mismatch (")
        answer = cli("snapshot", "--json")
        assert answer.code == 1
        assert answer.json["snapshot"]["healthy"] is False
        assert [problem["code"] for problem in answer.json["snapshot"]["problems"]] == ["count-mismatch"]
        assert len(repository) == 2

    def test_without_a_configuration_options_are_enough(self, cli, place):
        nova.build(place / "db", nova.texts(2))
        assert cli("snapshot", "--store", "db").code == 0
        assert len(Repository(place / "db/backups")) == 1
        assert cli("snapshot", "--store", "db", "-r", "elsewhere").code == 0
        assert len(Repository(place / "elsewhere")) == 1

    def test_the_environment_can_name_both(self, cli, place, monkeypatch):
        nova.build(place / "db", nova.texts(2))
        monkeypatch.setenv("NOVABACKUP_STORE", "db")
        monkeypatch.setenv("NOVABACKUP_REPOSITORY", "elsewhere")
        assert cli("snapshot").code == 0
        assert len(Repository(place / "elsewhere")) == 1

    def test_options_go_only_to_the_kind_of_place_that_they_are_for(self, cli, store, monkeypatch):
        (store.parent / "novabackup.toml").write_text(
            '[store]\nurl = "s3://bucket/vector_db"\n[store.options]\nsecret = { env = "NOT_SET" }\n'
            '[repository]\nurl = "s3://bucket/backups"\n[repository.options]\nsecret = { env = "NOT_SET" }\n'
        )
        assert cli("snapshot", "--store", "vector_db", "-r", "elsewhere").code == 0
        said = cli("snapshot", "--store", "vector_db")
        assert said.code == 2
        assert "expected a secret from the environment variable NOT_SET, found none: it is not set" in said.err

    def test_components_of_the_configuration_are_what_is_kept(self, cli, store, repository):
        (store.parent / "novabackup.toml").write_text(
            '[store]\nurl = "vector_db"\ncomponents = [{ kind = "metadata", path = "metadata.json" }]\n'
            '[repository]\nurl = "backups"\n'
        )
        assert cli("snapshot").code == 0
        assert list(repository["latest"].files) == ["metadata.json"]

    def test_nothing_that_names_a_store_is_an_error_that_says_how(self, cli, place):
        said = cli("snapshot", "--repository", "backups")
        assert said.code == 2
        assert said.err == (
            "Error: expected a store, found none: --store was not given, and there is no novabackup.toml here or "
            'above. Pass it, or write into novabackup.toml: store.url = "vector_db"\n'
        )


class TestLooking:
    def test_list_shows_ids_that_can_be_copied(self, cli, store, repository):
        cli("snapshot", "--tag", "daily")
        nova.write_metadata(store, nova.texts(3))
        cli("snapshot")
        title, heading, first, second = cli("list").out.splitlines()
        assert title == f"Snapshots of {store}"
        assert heading.split() == ["ID", "Time", "Size", "New", "Files", "Tags", "Health"]
        assert first.endswith("daily  healthy")
        assert second.endswith("count-mismatch")
        for line, snapshot in zip((first, second), repository, strict=True):
            short, day, hour, *_rest = line.split()
            assert repository[short] == snapshot
            local = datetime.fromisoformat(f"{day} {hour}").astimezone(UTC)
            assert local == snapshot.time.replace(second=0, microsecond=0)

    def test_list_chooses_by_tag_store_and_number(self, cli, store, place, repository):
        nova.build(place / "other", nova.texts(2))
        for number in range(3):
            cli("snapshot", "--tag", "daily", "--tag", str(number))
        cli("snapshot", "--store", "other", "--tag", "daily")
        every = [snapshot.id for snapshot in repository]

        def listed(*options):
            return [snapshot["id"] for snapshot in cli("list", "--json", *options).json["snapshots"]]

        assert listed() == every
        assert listed("--tag", "daily", "--tag", "1") == [every[1]]
        assert listed("--last", "2") == every[2:]
        assert listed("--store", "other") == [every[3]]
        assert f"{place}/other" in cli("list").out
        assert cli("list", "--tag", "nonesuch").out == f"No snapshots in {place}/backups match\n"

    def test_list_has_the_documented_fields(self, cli, store):
        cli("snapshot")
        (fields,) = cli("list", "--json").json["snapshots"]
        assert list(fields) == [
            *("id", "time", "store", "tags", "message", "files", "size", "added", "healthy", "problems", "pin")
        ]
        assert datetime.fromisoformat(fields["time"]).tzinfo == UTC

    def test_show_tells_counts_dimension_and_kind(self, cli, store, repository):
        cli("snapshot", "--tag", "daily", "--message", "of today")
        said = cli("show").out
        assert f"Snapshot:     {repository['latest'].id}\n" in said
        assert "Tags:         daily\nMessage:      of today\n" in said
        (line,) = [line for line in said.splitlines() if line.startswith("faiss_index.bin")]
        assert line.split()[3:6] == ["5", "16", "IndexFlatL2"]
        assert said.endswith("No problems\n")
        files = {file["path"]: file for file in cli("show", "latest", "--json").json["snapshot"]["files"]}
        assert (files["faiss_index.bin"]["count"], files["faiss_index.bin"]["dimension"]) == (5, 16)
        assert files["metadata.json"]["kind"] == "list"

    def test_diff_tells_what_changed_and_how_much(self, cli, store):
        cli("snapshot")
        nova.ingest(store, nova.texts(2, first=5))
        (store / "corpus_manifest.json").write_text("{}")
        cli("snapshot")
        first, second = (snapshot["id"] for snapshot in cli("list", "--json").json["snapshots"])
        said = cli("diff", first)
        assert re.search(r"^added +corpus_manifest.json +2 B$", said.out, re.MULTILINE)
        assert re.search(r"^changed +metadata.json .* 5 -> 7$", said.out, re.MULTILINE)
        assert cli("diff", first, second, "--json").json["changed"] == sorted(nova.FILES)
        assert cli("diff", second, second).out.endswith("No difference\n")

    def test_stats_tell_what_sharing_saves(self, cli, store, place, repository):
        for _ in range(3):
            cli("snapshot")
        found = cli("stats", "--json").json
        stored = sum(path.stat().st_size for path in (place / "backups/packs").rglob("*") if path.is_file())
        assert found["snapshots"] == 3
        assert found["logical_bytes"] == 3 * repository["latest"].size
        assert found["sharing"] == pytest.approx(3, abs=0.01)
        assert found["stored_bytes"] + found["orphaned_bytes"] == stored
        assert (found["orphaned_packs"], found["packs"]) == (0, 1)
        assert "3.0 times smaller" in cli("stats").out

    def test_the_latest_is_not_what_a_failed_block_left(self, cli, store, repository):
        cli("run", "--", "sh", "-c", "rm vector_db/metadata.json; exit 3")
        assert [snapshot.tags for snapshot in repository] == [("pre-ingest",), ("failed-ingest",)]
        assert cli("show", "--json").json["snapshot"]["tags"] == ["pre-ingest"]

    def test_latest_is_of_the_store_that_is_named(self, cli, store, place):
        nova.build(place / "other", nova.texts(2))
        cli("snapshot")
        cli("snapshot", "--store", "other")
        assert cli("show", "--json").json["snapshot"]["store"] == str(store)
        assert cli("show", "--store", "other", "--json").json["snapshot"]["store"] == str(place / "other")
        said = cli("show", "--store", "third")
        assert said.code == 2
        assert f"has no snapshot of {place}/third" in said.err
        assert f"It has some of {place}/other, {store}: name one with --store" in said.err


class TestPins:
    def test_lists_show_which_snapshots_are_pinned_and_why(self, cli, store, place):
        cli("snapshot", "--tag", "first")
        cli("snapshot")
        cli("snapshot")
        first, second, _third = Repository(place / "backups")
        assert "Pinned" not in cli("list").out
        cli("pin", first.id, "--message", "before the move")
        cli("pin", second.id)
        rows = cli("list").out.splitlines()[2:]
        assert [bool(re.search(r"before the move +healthy$", row)) for row in rows] == [True, False, False]
        assert [bool(re.search(r"yes +healthy$", row)) for row in rows] == [False, True, False]
        pins = [one["pin"] for one in cli("list", "--json").json["snapshots"]]
        assert [pin and pin["message"] for pin in pins] == ["before the move", "", None]
        assert pins[0]["time"].endswith("Z")
        assert "Pinned:       before the move\n" in cli("show", first.id).out
        assert cli("show", first.id, "--json").json["snapshot"]["pin"] == pins[0]
        assert cli("show", "--json").json["snapshot"]["pin"] is None

    def test_a_damaged_pin_counts_all_the_same(self, cli, store, place):
        cli("snapshot")
        cli("pin", "--message", "before the move")
        (pin,) = (place / "backups/pins").iterdir()
        pin.write_bytes(b"garbage")
        assert re.search(r"yes +healthy$", cli("list").out.rstrip())
        assert cli("list", "--json").json["snapshots"][0]["pin"] == {"time": None, "message": None}


class TestChecking:
    def test_a_healthy_repository(self, cli, store):
        cli("snapshot")
        assert cli("check", "--read-data-subset", "100%", "--live").code == 0
        assert re.fullmatch(rf"Snapshot {ID}: all [\d.]+ KiB in 3 files are right\n", cli("verify").out)

    def test_damage_is_found_named_and_ends_with_1(self, cli, store, place):
        cli("snapshot")
        damage_a_pack(place)
        said = cli("check", "--read-data-subset", "100%")
        assert said.code == 1
        assert said.out.startswith(f"Problems in {place}/backups:\n  - damaged (packs/")
        said = cli("verify", "--json")
        assert said.code == 1
        (snapshot,) = said.json["snapshots"]
        assert {problem["code"] for problem in snapshot["problems"]} == {"damaged"}

    def test_it_is_said_how_thoroughly_and_what_could_not_be_tried(self, cli, store):
        cli("snapshot")
        for level, told in [
            ("structure", "all of its content is there"),
            ("queries", "the indexes answer as they did"),
        ]:
            assert told in cli("verify", "--level", level).out
            said = cli("verify", "--level", level, "--json").json
            assert (said["level"], said["snapshots"][0]["notes"]) == (level, [])
        nova.write_metadata(store, nova.texts(3))
        cli("snapshot")
        (notes,) = [found["notes"] for found in cli("verify", "--level", "queries", "--json").json["snapshots"]]
        assert notes
        assert f"Note: {notes[0]}" in cli("verify", "--level", "queries").out

    def test_live_files_are_checked_if_asked_for(self, cli, store):
        cli("snapshot")
        (store / "metadata.json").write_text("[")
        assert cli("check").code == 0
        said = cli("check", "--live", "--json")
        assert said.code == 1
        assert said.json["problems"] == []
        assert [problem["paths"] for problem in said.json["store_problems"]] == [["metadata.json"]]

    @pytest.mark.parametrize("noticed", [False, True])
    def test_live_files_must_not_all_be_gone(self, cli, store, noticed):
        cli("snapshot")
        for path in nova.contents(store):
            (store / path).unlink()
        if noticed:
            assert cli("snapshot").code == 1
        said = cli("check", "--live", "--json")
        assert said.code == 1
        assert [problem["code"] for problem in said.json["store_problems"]] == ["emptied"]


class TestRestore:
    def test_a_store_goes_back(self, cli, store, repository):
        before = nova.contents(store)
        cli("snapshot")
        nova.ingest(store, nova.texts(2, first=5))
        said = cli("restore", "latest")
        assert re.search(r"is at snapshot .*: 3 files written \([\d.]+ KiB\), 0 right already\n$", said.out)
        assert nova.contents(store) == before
        assert repository.snapshots()[-1].tags == ("before-restore",)

    def test_a_dry_run_says_the_same_and_does_nothing(self, cli, store):
        cli("snapshot")
        nova.write_metadata(store, nova.texts(3))
        (store / "corpus_manifest.json").write_text("{}")
        before = nova.contents(store)
        said = cli("restore", "latest", "--dry-run", "-q")
        assert re.search(r"^set aside +corpus_manifest.json +is kept as a snapshot$", said.out, re.MULTILINE)
        planned = cli("restore", "latest", "--dry-run", "--json").json
        assert nova.contents(store) == before
        done = cli("restore", "latest", "--json").json
        assert planned.pop("dry_run") is True
        assert done.pop("dry_run") is False
        assert planned == done

    def test_elsewhere_and_only_some_files(self, cli, store, place):
        cli("snapshot")
        assert cli("restore", "latest", "--to", "out", "--path", "*.json").code == 0
        assert nova.contents(place / "out") == {"metadata.json": (store / "metadata.json").read_bytes()}

    def test_a_point_in_time(self, cli, store, place, repository):
        cli("snapshot")
        first = nova.contents(store)
        between = datetime.now(UTC)
        while datetime.now(UTC) == between:
            pass
        nova.ingest(store, nova.texts(2, first=5))
        cli("snapshot")
        assert cli("restore", "--at", between.isoformat()).code == 0
        assert nova.contents(store) == first

    def test_times_without_an_offset_are_local(self, cli, store, repository, monkeypatch):
        cli("snapshot")
        taken = repository["latest"].time
        for zone in ("UTC", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()  # the fixture sets it back
            said = cli("restore", "--dry-run", "--json", "--at", f"{taken.astimezone():%Y-%m-%d %H:%M:%S.%f}")
            assert said.json["snapshot"] == repository["latest"].id

    def test_one_that_is_told_to_end_is_finished_by_recover(self, cli, store, monkeypatch):
        before = nova.contents(store)
        cli("snapshot")
        nova.ingest(store, nova.texts(2, first=5))
        write = LocalStorage.write

        def interrupted(storage, key, *arguments):
            if key == "metadata.json":
                os.kill(os.getpid(), signal.SIGTERM)
            return write(storage, key, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "write", interrupted)
            said = cli("restore", "latest")
        assert said.code == 5
        assert said.err.endswith("Hint: once the cause is removed: novabackup recover\n")
        assert cli("recover", "--json").json["interrupted"] == "restore"
        assert nova.contents(store) == before

    def test_too_early_a_time_says_what_there_is(self, cli, store, repository):
        cli("snapshot")
        said = cli("restore", "--at", "2001-01-01")
        assert said.code == 2
        assert "has no snapshot of 2001-01-01 00:00:00" in said.err
        assert "the oldest is of" in said.err
        assert cli("restore", "--at", "yesterday").code == 2

    def test_the_time_that_a_table_shows_finds_what_it_shows(self, cli, store):
        for _ in range(2):
            taken = cli("snapshot", "--json").json["snapshot"]["id"]
        shown = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", cli("list").out)[-1]
        assert cli("restore", "--at", shown, "--dry-run", "--json").json["snapshot"] == taken

    @pytest.mark.parametrize("arguments", [(), ("latest", "--at", "2026-01-01")])
    def test_what_to_restore_must_be_said_once(self, cli, store, arguments):
        said = cli("restore", *arguments)
        assert said.code == 2
        assert "expected either a snapshot or --at" in said.err


class TestForgetAndPrune:
    def test_a_policy_of_the_configuration_gives_reasons(self, cli, store, repository):
        with (store.parent / "novabackup.toml").open("a") as file:
            file.write('[retention]\nlast = 1\ntags = { keep = "forever" }\n')
        for tags in (["--tag", "keep"], [], []):
            cli("snapshot", *tags)
        planned = cli("forget", "--dry-run", "--json").json
        assert [verdict["keep"] for verdict in planned["verdicts"]] == [True, False, True]
        assert all(verdict["reasons"] for verdict in planned["verdicts"])
        assert planned["policy"] == "last 1, tag keep forever"
        assert len(repository) == 3
        said = cli("forget")
        assert re.search(r"^[0-9a-f]{8}  \S+ \S+  keep    .*tag keep", said.out, re.MULTILINE)
        assert said.out.endswith("1 of 3 snapshots forgotten under last 1, tag keep forever\n")
        assert planned["forgotten"] not in [[snapshot.id for snapshot in repository]]
        assert len(repository) == 2

    def test_options_replace_the_configuration(self, cli, store, repository):
        for _ in range(3):
            cli("snapshot")
        assert len(cli("forget", "--policy", "last 2", "--json").json["forgotten"]) == 1
        assert len(repository) == 2

    def test_single_snapshots_are_forgotten_by_name(self, cli, store, repository):
        cli("snapshot")
        cli("snapshot")
        first, second = repository
        assert cli("forget", first.id[17:25], "--json").json["forgotten"] == [first.id]
        assert list(repository) == [second]

    def test_nothing_is_forgotten_without_a_policy(self, cli, store, repository):
        cli("snapshot")
        said = cli("forget")
        assert said.code == 2
        assert "so nothing was forgotten" in said.err
        assert cli("forget", "latest", "--policy", "last 1").code == 2
        assert len(repository) == 1

    def test_prune_condemns_and_then_deletes(self, cli, store, repository):
        cli("snapshot")
        nova.build(store, nova.texts(4, first=5))
        cli("snapshot")
        assert cli("forget", "--policy", "last 1", "--prune", "--json").json["prune"]["condemned"] == []
        assert len(cli("prune", "--grace", "0", "--dry-run", "--json").json["condemned"]) == 1
        assert len(cli("prune", "--grace", "0", "--json").json["condemned"]) == 1
        assert re.fullmatch(r"1 pack deleted, [\d.]+ \w+ freed; 0 packs condemned\n", cli("prune", "--grace", "0").out)
        assert cli("check", "--read-data-subset", "100%").code == 0

    def test_too_short_a_grace_period_is_refused(self, cli, store):
        cli("snapshot")
        said = cli("prune", "--grace", "5m")
        assert said.code == 2
        assert "shorter than a backup may take" in said.err


class TestEncryption:
    def test_a_passphrase_is_fetched_from_where_the_configuration_says(self, cli, store, place, monkeypatch):
        with (place / "novabackup.toml").open("a") as file:
            file.write('key = { passphrase = { env = "NOVA_PASSPHRASE" } }\n')
        assert cli("snapshot").code == 2  # and nothing is written in plain for want of a key
        assert not (place / "backups").exists()
        monkeypatch.setenv("NOVA_PASSPHRASE", "correct horse")
        assert cli("snapshot").code == 0
        assert cli("verify").code == 0
        monkeypatch.setenv("NOVA_PASSPHRASE", "battery staple")
        said = cli("list")
        assert said.code == 2
        assert "battery" not in said.err

    def test_a_key_file(self, cli, store, place):
        KeyFile.generate(place / "key")
        with (place / "novabackup.toml").open("a") as file:
            file.write('key = { keyfile = "key" }\n')
        assert cli("snapshot").code == 0
        (place / "novabackup.toml").write_text('[store]\nurl = "vector_db"\n[repository]\nurl = "backups"\n')
        assert cli("list").code == 2


class TestRecover:
    def test_there_is_nothing_to_do(self, cli, store):
        assert cli("recover").out == f"{store}: nothing to recover from\n"
        assert cli("recover", "--json").json["interrupted"] is None

    def test_a_writer_that_is_alive_is_left_alone(self, cli, store, place):
        from novabackup import snapshot

        with snapshot(IndexStore(store), place / "backups"):
            for arguments in (["recover", "--dry-run"], ["snapshot"]):
                said = cli(*arguments)
                assert said.code == (3 if "recover" in arguments else 0), said.err


class TestErrors:
    def test_programs_get_them_as_json(self, cli, store):
        said = cli("show", "nonesuch", "--json")
        assert (said.code, said.out) == (2, "")
        assert list(said.error) == ["kind", "message", "problems", "hint", "exit"]
        assert (said.error["kind"], said.error["exit"]) == ("NotFoundError", 2)

    def test_wrong_usage_names_what_was_meant(self, cli, store):
        said = cli("list", "--tga", "x")
        assert said.code == 2
        assert said.err == "Error: Unknown option: --tga. Did you mean --tag?\nHint: novabackup list --help\n"
        assert cli("lsit", "--json").error["hint"] == "novabackup --help"

    def test_a_mistake_in_the_configuration_is_shown_with_its_line(self, cli, place):
        (place / "novabackup.toml").write_text("[store]\nurl = 3\n")
        said = cli("list")
        assert said.code == 2
        assert said.err == f"Error: {place}/novabackup.toml:2: store.url: expected a text, found 3\n"

    def test_the_disk_refuses(self, cli, store, place):
        said = cli("snapshot", "--repository", "/proc/backups")
        assert said.code == 6
        assert said.err.startswith("Error: /proc/backups")

    def test_tracebacks_are_for_those_who_ask(self, cli, store):
        assert "Traceback" not in cli("show", "nonesuch").err
        assert "Traceback" in cli("show", "nonesuch", "--debug").err

    def test_a_bug_is_called_one(self, cli, store, monkeypatch):
        monkeypatch.setattr(Repository, "snapshots", lambda *arguments, **named: 1 / 0)
        said = cli("list")
        assert said.code == 70
        assert said.err.startswith("Error: a bug in novabackup: ZeroDivisionError: division by zero\nHint: ")

    def test_nothing_that_is_read_can_steer_the_terminal(self, cli, store):
        cli("snapshot", "--tag", "\x1b[2Jgone", "--message", "\x1b]0;title\x07")
        for command in ("list", "show"):
            assert "\x1b" not in cli(command).out
            assert r"\x1b[2Jgone" in cli(command).out
        (fields,) = cli("list", "--json").json["snapshots"]
        assert fields["tags"] == ["\x1b[2Jgone"]
        assert json.dumps(fields).isascii()
        for options in ([], ["--debug"]):
            said = cli("list", "--repository", "a\x1b[2Jb", *options).err
            assert r"a\x1b[2Jb" in said
            assert "\x1b" not in said

    def test_no_secret_is_shown(self, cli, store, monkeypatch):
        monkeypatch.setenv("NOVA_SECRET", "correct horse")
        (store.parent / "novabackup.toml").write_text(
            '[store]\nurl = "vector_db"\n[repository]\nurl = "memory://backups"\n'
            '[repository.options]\nsecret = { env = "NOVA_SECRET" }\nnonsense = true\n'
        )
        for options in ([], ["--json"], ["--debug"]):
            said = cli("snapshot", *options)
            assert "correct horse" not in said.out + said.err
