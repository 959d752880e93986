"""A drill restores an old snapshot elsewhere, tries it out, notes how it went, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
from fsspec.callbacks import Callback

import nova
from novabackup import (
    CheckFailedError,
    ConfigurationError,
    IndexStore,
    IntegrityError,
    NotFoundError,
    Probing,
    Repository,
    snapshot,
)
from novabackup.components import Faiss
from novabackup.components.base import Answers
from novabackup.format.records import Drill
from novabackup.integrations.metrics import measure
from novabackup.keys import KeyFile
from novabackup.objects.objects import Objects
from novabackup.operations import drill as drills
from novabackup.operations.drill import write_result
from novabackup.storage import open_storage


class Altered(Faiss):
    """Finds something else than when the snapshot was taken."""

    def probe(self, reader, questions):
        found = super().probe(reader, questions)
        if not questions.again:
            return found
        return Answers(probes=tuple(attrs.evolve(probe, ids=probe.ids[::-1]) for probe in found.probes))


@pytest.fixture
def old(store, folder, repository):
    """A snapshot that is not the newest."""
    old = repository.backup(store)
    nova.ingest(folder, nova.texts(4, 12))
    repository.backup(IndexStore(folder, probing=None))  # without queries
    return old


def codes(error) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_a_good_drill(old, repository, folder, room):
    before = nova.contents(folder)
    drill = repository.drill(rto=600, folder=room)
    assert drill.good
    assert (drill.snapshot, drill.store, drill.size, drill.queries) == (old.id, str(folder), old.size, 6)
    assert drill.milliseconds.keys() == {"restore", "open", "queries"}
    assert drill.rto_milliseconds == 600_000
    assert drill.recovery_milliseconds == sum(drill.milliseconds.values())
    assert (drill.notes, drill.problems, drill.status) == ((), (), None)
    assert drill.versions == old.versions
    assert f"drill of {old.id} passed" in str(drill)
    assert repository.drills() == (drill,)
    assert list(room.iterdir()) == []
    assert nova.contents(folder) == before
    assert not (folder / ".novabackup").exists()


class TestChoice:
    def test_each_old_healthy_snapshot_has_its_turn(self, old, store, folder, repository):
        middle = repository["latest"]
        nova.write_metadata(folder, nova.texts(2))
        repository.backup(store)
        with pytest.raises(KeyError), snapshot(store, repository):
            raise KeyError
        nova.build(folder, nova.texts(5))
        newest = repository.backup(store)
        plans = [repository.plan_drill(seed=seed) for seed in range(20)]
        assert {plan.snapshot for plan in plans} == {old.id, middle.id}
        assert all(set(plan.candidates) == {old.id, middle.id} for plan in plans)
        assert repository.plan_drill(seed=7) == plans[7]
        assert repository.plan_drill(seed=7).size == repository[plans[7].snapshot].size
        assert newest.id not in plans[0].candidates

    def test_the_newest_of_another_store_does_not_count(self, old, store, repository, tmp_path):
        nova.build(tmp_path / "other", nova.texts(3))
        other = repository.backup(IndexStore(tmp_path / "other"))
        assert repository.plan_drill().candidates == (old.id,)
        with pytest.raises(NotFoundError, match="found 1 others"):
            repository.plan_drill(store=tmp_path / "other")
        assert repository.plan_drill(store=store).snapshot == old.id
        assert repository.drill(other).snapshot == other.id  # a snapshot that is named is used

    def test_one_snapshot_is_not_enough(self, store, repository):
        with pytest.raises(NotFoundError, match="no repository"):
            repository.drill()
        repository.backup(store)
        with pytest.raises(NotFoundError, match="not the newest"):
            repository.drill()
        assert repository.drills() == ()


class TestFailures:
    def test_other_answers(self, folder, repository, room):
        store = IndexStore(folder, components=[Altered("faiss_index.bin")])
        point = repository.backup(store)
        with pytest.raises(CheckFailedError, match="the drill of snapshot") as caught:
            repository.drill(point, folder=room)
        assert codes(caught) == ["other-answers"] * 3
        assert "faiss_index.bin: a vector of 32 bytes: expected 2 with" in str(caught.value)
        (noted,) = repository.drills()
        assert noted.problems == caught.value.problems
        assert "FAILED" in str(noted)
        assert list(room.iterdir()) == []

    def test_too_slow(self, old, repository, room):
        ticks = iter([0.0, 4.0, 4.0, 6.0, 6.0, 7.5])
        with pytest.raises(CheckFailedError) as caught:
            drills.execute(
                Objects(open_storage(repository.url)),
                old.id,
                IndexStore(old.store),
                drills.Rules(rto=7, folder=room),
                lambda to: old.restore(to=to),
                timer=lambda: next(ticks),
            )
        assert codes(caught) == ["too-slow"]
        assert "expected a recovery within 7 s, found that it took 7.5 s (restore 4 s, open 2 s, queries 1.5 s)" in str(
            caught.value
        )

    def test_no_rto_is_as_slow_as_it_likes(self, old, room, repository):
        ticks = iter([0.0, 1e6, 1e6, 1e6, 1e6, 1e6])
        rules = drills.Rules(folder=room)
        store = IndexStore(old.store)
        drill = drills.execute(
            Objects(open_storage(repository.url)),
            old.id,
            store,
            rules,
            lambda to: old.restore(to=to),
            timer=lambda: next(ticks),
        )
        assert (drill.good, drill.rto_milliseconds, drill.recovery_milliseconds) == (True, None, 10**9)

    def test_damaged_content(self, old, repository, room, tmp_path):
        for pack in (tmp_path / "backups" / "packs").glob("*/*"):
            content = bytearray(pack.read_bytes())
            content[40] ^= 1
            pack.write_bytes(content)
        fresh = Repository(repository.url)
        with pytest.raises(IntegrityError) as caught:
            fresh.drill(folder=room)
        assert codes(caught)
        (noted,) = fresh.drills()
        assert noted.problems == caught.value.problems
        assert noted.queries == 0
        assert list(room.iterdir()) == []

    def test_a_full_disk(self, old, repository, room, monkeypatch):
        def full(*_arguments, **_named):
            raise OSError(28, "No space left on device", str(room))

        monkeypatch.setattr(type(old), "restore", full)
        with pytest.raises(CheckFailedError, match="No space left") as caught:
            repository.drill(folder=room)
        assert codes(caught) == ["not-restored"]

    def test_no_room(self, old, repository, room, monkeypatch):
        usage = shutil.disk_usage(room)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=1))
        with pytest.raises(OSError, match="expected room for"):
            repository.drill(folder=room)
        assert repository.drills() == ()  # nothing was learned about any snapshot

    def test_a_result_that_cannot_be_written_is_told_all_the_same(self, old, repository, monkeypatch, caplog):
        def refuse(*_arguments):
            raise PermissionError(13, "read-only")

        monkeypatch.setattr(drills, "write_result", refuse)
        assert repository.drill().good
        assert "could not be recorded" in caplog.text


class TestCommands:
    LOOK = "import os, pathlib; print(sorted(p.name for p in pathlib.Path().iterdir() if p.is_file()))"

    def test_it_runs_in_the_restored_store_and_knows_where_that_is(self, old, repository):
        told = "os.getcwd() == os.environ['NOVABACKUP_DRILL_FOLDER'], os.environ['NOVABACKUP_DRILL_SNAPSHOT']"
        script = f"{self.LOOK}; print({told})"
        drill = repository.drill(command=[sys.executable, "-c", script])
        assert drill.output == f"['bm25_index.pkl', 'faiss_index.bin', 'metadata.json']\nTrue {old.id}"
        assert (drill.status, drill.command[1:]) == (0, ("-c", script))
        assert "command" in drill.milliseconds

    def test_or_where_its_tests_are(self, old, repository, tmp_path):
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests" / "test_retrieval.py").write_text(
            "import json, os, pathlib\n"
            "def test_all_chunks_are_there():\n"
            "    folder = pathlib.Path(os.environ['NOVABACKUP_DRILL_FOLDER'])\n"
            "    assert len(json.loads((folder / 'metadata.json').read_text())) == 12\n"
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_retrieval.py"]
        assert "1 passed" in repository.drill(command=command, working_folder=tmp_path).output

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("print('no such chunk'); exit(3)", "found exit status 3; its last lines:\nno such chunk"),
            ("import os; os.kill(os.getpid(), 9)", "found killed by signal 9"),
            ("import time; time.sleep(600)", "found no end within 1 s, so it was killed"),
        ],
    )
    def test_one_that_fails(self, old, repository, room, script, said):
        with pytest.raises(CheckFailedError) as caught:
            repository.drill(command=[sys.executable, "-c", script], command_timeout=1, folder=room)
        assert codes(caught) == ["command-failed"]
        assert said in str(caught.value)
        assert repository.drills()[0].problems == caught.value.problems
        assert list(room.iterdir()) == []

    def test_one_that_does_not_exist(self, old, repository):
        with pytest.raises(CheckFailedError, match="could not be started"):
            repository.drill(command=["/no/such/program"])

    def test_a_line_for_a_shell_is_refused(self, old, repository):
        with pytest.raises(ConfigurationError, match="as a list"):
            repository.drill(command="pytest tests")


class TestCleaningUp:
    def test_ctrl_c_in_the_middle_of_the_restore(self, old, repository, room):
        class Interrupting(Callback):
            def relative_update(self, inc=1):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            repository.drill(folder=room, callback=Interrupting())
        assert list(room.iterdir()) == []
        assert repository.drills() == ()

    def test_ctrl_c_in_the_middle_of_the_command(self, old, repository, room, tmp_path):
        mark = tmp_path / "running"
        script = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(600)"
        process = self.drilling(repository, room, script)
        self.wait_for(mark)
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
        assert list(room.iterdir()) == []

    def test_what_a_killed_drill_left_is_removed_by_the_next(self, old, repository, room, tmp_path):
        mark = tmp_path / "running"
        script = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(20)"
        process = self.drilling(repository, room, script)
        self.wait_for(mark)
        (left,) = room.iterdir()
        assert repository.drill(folder=room).good
        assert list(room.iterdir()) == [left]  # its process is still alive
        process.kill()
        process.communicate(timeout=60)
        (left / "store").chmod(0o500)
        assert repository.drill(folder=room).good
        assert list(room.iterdir()) == []

    @staticmethod
    def drilling(repository, room, script) -> subprocess.Popen:
        text = (
            "import sys; from novabackup import Repository; "
            f"Repository({repository.url!r}).drill(folder={str(room)!r}, command=[sys.executable, '-c', {script!r}])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", text], stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": _ROOT}
        )

    @staticmethod
    def wait_for(mark: Path) -> None:
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


_ROOT = str(Path(__file__).parents[3])


class TestNotes:
    def test_a_note_is_sealed_in_an_encrypted_repository_and_survives_a_new_data_key(self, store, folder, tmp_path):
        key = KeyFile.generate(tmp_path / "key")
        repository = Repository(tmp_path / "secret", key=key)
        point = repository.backup(store)
        drill = repository.drill(point)
        (path,) = (tmp_path / "secret" / "drills").iterdir()
        assert str(folder).encode() not in path.read_bytes()
        repository.reencrypt()
        assert Repository(repository.url, key=key).drills() == (drill,)
        assert repository.check() == ()

    def test_a_damaged_note_is_named_and_passed_over(self, old, repository, tmp_path, caplog):
        repository.drill()
        (path,) = (tmp_path / "backups" / "drills").iterdir()
        path.write_bytes(path.read_bytes().replace(b"restore", b"restorx"))
        assert repository.drills() == ()
        assert "is skipped" in caplog.text
        (problem,) = repository.check()
        assert problem.paths == (f"drills/{path.name}",)

    def test_the_newest_hundred_are_kept(self, repository, tmp_path):
        objects = Objects(open_storage(repository.url))
        objects.access.ensure()
        names = [
            f"{datetime(2026, 1, 1) + timedelta(hours=n):%Y%m%dT%H%M%SZ}-{random.randbytes(8).hex()}"
            for n in range(105)
        ]
        for name in names:
            objects.access.write_record(f"drills/{name}.json", Drill(time=datetime.now(UTC), snapshot=name, store="/s"))
        write_result(objects.access, Drill(time=datetime.now(UTC), snapshot="last", store="/s"))
        assert [drill.snapshot for drill in repository.drills()] == [*names[6:], "last"]

    def test_neither_prune_nor_forget_nor_copies_care(self, old, repository, tmp_path):
        repository.drill()
        repository.copy(to=Repository(tmp_path / "copy"))
        repository.forget([old])
        repository.prune(grace=timedelta(0))
        assert len(repository.drills()) == 1
        assert Repository(tmp_path / "copy").drills() == ()

    def test_operators_hear_of_it(self, old, repository, folder):
        repository.drill(rto=600)
        with pytest.raises(CheckFailedError):
            repository.drill(command=["false"])
        found = {metric.name: metric.samples for metric in measure(repository)}
        (success,) = found["nova_backup_run_success"]
        assert (success.value, success.labels["kind"], success.labels["store"]) == (0, "drill", str(folder))
        good, bad = repository.drills()
        assert found["nova_backup_drill_recovery_seconds"][0].value == bad.recovery_milliseconds / 1000
        assert "nova_backup_drill_rto_seconds" not in found  # the last one was told none
        ended = good.time.timestamp() + sum(good.milliseconds.values()) / 1000
        assert found["nova_backup_run_timestamp"][0].value == pytest.approx(ended)


def test_a_search_of_the_users_own_is_asked_again(folder, repository, room):
    asked = []

    def ask(place, text):
        asked.append(place)
        return [(f"chunk-{len(list(Path(place).iterdir()))}", 1.0)] if len(asked) < 3 else [("another", 1.0)]

    store = IndexStore(folder, probing=Probing(queries=["brake pads?"], ask=ask, number=1))
    point = repository.backup(store)
    (folder / "extra").touch()
    with pytest.raises(CheckFailedError, match=r"'brake pads\?': expected chunk-3 with 1") as caught:
        for _time in range(2):
            assert repository.drill(point, store=store, folder=room).queries == 3
    assert codes(caught) == ["other-answers"]
    assert asked[0] == str(folder)
    assert all(Path(place).is_relative_to(room) for place in asked[1:])
    notes = Repository(repository.url).drill(point).notes
    assert "they need the function that ran them" in notes[0]


def test_drills_of_one_second_are_told_in_their_order(store, repository):
    point = repository.backup(store)
    begun = datetime.now(UTC)
    noted = [
        Drill(time=begun + timedelta(milliseconds=number), snapshot=point.id, store=store.url) for number in range(8)
    ]
    for drill in noted:
        write_result(repository._objects.access, drill)
    assert list(repository.drills()) == noted
