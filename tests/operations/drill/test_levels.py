"""A snapshot is verified as thoroughly as one likes, and each level finds what those before it cannot."""

from __future__ import annotations

import shutil

import attrs
import faiss
import numpy as np
import pytest

import nova
from novabackup import CheckFailedError, ConfigurationError, IndexStore, IntegrityError, Level, Repository
from novabackup.components import Faiss, Files, Metadata
from novabackup.components.base import Answers
from novabackup.operations import verify as trial
from novabackup.store.questions import repeat

LEVELS = tuple(Level)


class Patched(Faiss):
    """Answers otherwise than when the snapshot was taken."""

    def probe(self, reader, questions):
        found = super().probe(reader, questions)
        if not questions.again:
            return found
        return Answers(probes=tuple(attrs.evolve(probe, ids=probe.ids[::-1]) for probe in found.probes))


class Unopenable(Metadata):
    def examine(self, reader, report):
        raise ConfigurationError("the package for it is missing")


@pytest.fixture
def snap(store, repository):
    return repository.backup(store)


def without_what_was_read(repository: Repository) -> Repository:
    return Repository(repository.url)


@pytest.mark.parametrize("level", LEVELS)
def test_a_good_snapshot_passes_each(snap, room, level):
    done = snap.verify(level, folder=room)
    assert (done.snapshot, done.level, done.files, done.size) == (snap.id, level, 3, snap.size)
    assert done.queries == (6 if level == "queries" else 0)
    assert [report.count for report in done.reports] == ([12] * 3 if level in ("open", "queries") else [])
    assert done.notes == ()
    assert str(done).startswith(f"{snap.id}: 3 files, ")
    assert list(room.iterdir()) == []


def test_a_level_that_is_none_is_refused(snap):
    with pytest.raises(ConfigurationError, match="structure, hashes, open, queries"):
        snap.verify("thorough")


def packs(tmp_path):
    return sorted((tmp_path / "backups" / "packs").glob("*/*"))


@pytest.mark.parametrize("level", LEVELS)
def test_a_lost_pack_is_found_by_each(snap, repository, room, tmp_path, level):
    packs(tmp_path)[0].unlink()
    with pytest.raises(IntegrityError) as caught:
        without_what_was_read(repository)["latest"].verify(level, folder=room)
    assert caught.value.problems
    assert list(room.iterdir()) == []


def test_a_changed_byte_is_found_from_hashes_on(snap, repository, room, tmp_path):
    content = bytearray(packs(tmp_path)[0].read_bytes())
    content[40] ^= 1
    packs(tmp_path)[0].write_bytes(content)
    found = without_what_was_read(repository)["latest"]
    found.verify("structure")
    for level in LEVELS[1:]:
        with pytest.raises(IntegrityError):
            found.verify(level, folder=room)


def test_what_does_not_open_is_found_from_open_on(folder, repository, room):
    components = [Files("faiss_index.bin"), Unopenable("metadata.json")]
    snap = repository.backup(IndexStore(folder, components=components))
    snap.verify()
    for level in LEVELS[2:]:
        with pytest.raises(CheckFailedError, match="the package for it is missing"):
            snap.verify(level, folder=room)


def test_other_answers_are_found_by_queries(folder, repository, room):
    snap = repository.backup(IndexStore(folder, components=[Patched("faiss_index.bin")]))
    snap.verify("open", folder=room)
    with pytest.raises(CheckFailedError, match="did not pass the level queries") as caught:
        snap.verify("queries", folder=room)
    assert [problem.code for problem in caught.value.problems] == ["other-answers"] * 3


def test_what_was_wrong_when_it_was_taken_is_no_news(store, folder, repository, room):
    nova.write_metadata(folder, nova.texts(3))
    snap = repository.backup(store)
    done = snap.verify("queries", folder=room)
    assert done.notes == ("count-mismatch was already found when the snapshot was taken",)


def test_what_was_not_asked_is_told(folder, repository, room):
    snap = repository.backup(IndexStore(folder, probing=None))
    assert snap.verify("queries", folder=room).notes == ("no queries were recorded with this snapshot",)


def test_a_store_whose_components_nobody_knows_is_restored_and_told_of(folder, repository, room):
    repository.backup(IndexStore(folder, components=[Faiss("faiss_index.bin")]))
    done = without_what_was_read(repository)["latest"].verify("queries", folder=room)
    assert done.queries == 0
    assert "Files runs no queries" in done.notes[0]


def test_a_file_that_takes_the_reader_down_is_a_finding(store, folder, repository, room, monkeypatch):
    """Whatever a hostile file does, it does to a child process."""
    snap = repository.backup(store)
    real = trial.repeat

    def with_hostile_files(restored, probes):
        header = (folder / "faiss_index.bin").read_bytes()[:41]
        restored.storage.write("faiss_index.bin", [header[:37] + (1 << 60).to_bytes(8, "little")])
        restored.storage.write("bm25_index.pkl", [b"\x80\x04cos\nsystem\n(S'false'\ntR."])
        return real(restored, probes)

    monkeypatch.setattr(trial, "repeat", with_hostile_files)
    with pytest.raises(CheckFailedError) as caught:
        snap.verify("queries", folder=room)
    assert {(problem.code, problem.paths) for problem in caught.value.problems} == {
        ("damaged", ("faiss_index.bin",)),
        ("other-answers", ("bm25_index.pkl",)),
    }


def test_there_must_be_room(snap, room, monkeypatch):
    usage = shutil.disk_usage(room)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=1 << 20))
    with pytest.raises(OSError, match="expected room for") as caught:
        snap.verify("open", folder=room)
    assert caught.value.filename == str(room)
    assert list(room.iterdir()) == []


def test_an_index_of_another_kind_with_the_same_vectors_passes(snap, folder, room):
    """Recorded queries can be run on any index, such as one that was rebuilt."""
    index = faiss.index_factory(nova.DIMENSION, "IDMap2,Flat")
    index.add_with_ids(nova.embed(nova.texts(12)), np.arange(12))
    faiss.write_index(index, str(folder / "faiss_index.bin"))
    repeated = repeat(IndexStore(folder), snap._record.probes)
    assert (repeated.number, repeated.problems) == (6, ())
