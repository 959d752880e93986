"""When a snapshot is taken, its indexes are asked, and the answers are kept with it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import attrs
import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nova
from novabackup import ConfigurationError, IndexStore, Probing, Repository, layouts, snapshot
from novabackup.components import Faiss
from novabackup.components.base import Questions
from novabackup.format.records import Probe
from novabackup.storage import open_storage
from novabackup.store.questions import difference


def record(repository: Repository, name="latest"):
    return repository[name]._record


def asked(repository: Repository) -> dict[str, int]:
    paths = [probe.path for probe in record(repository).probes]
    return {path: paths.count(path) for path in paths}


def test_vectors_find_themselves_and_words_their_documents(store, repository):
    repository.backup(store)
    vectors = [probe for probe in record(repository).probes if probe.vector]
    words = [probe for probe in record(repository).probes if probe.words]
    assert [probe.ids[0] for probe in vectors] == [2, 6, 10]
    assert all(float(probe.scores[0]) < 1e-4 for probe in vectors)
    assert [probe.ids[0] for probe in words] == [2, 6, 10]
    assert all(len(probe.ids) <= 5 for probe in (*vectors, *words))
    assert record(repository).classes == {"bm25_index.pkl": ("rank_bm25.BM25Okapi",)}


def test_what_has_not_changed_is_not_asked_again(store, folder, repository, monkeypatch):
    repository.backup(store)
    before = record(repository)
    nova.write_metadata(folder, nova.texts(12))
    monkeypatch.setattr(Faiss, "probe", None)
    repository.backup(store)
    assert (record(repository).probes, record(repository).classes) == (before.probes, before.classes)


def test_the_snapshot_before_a_guarded_block_asks_nothing_that_is_not_known(store, folder, repository):
    with snapshot(store, repository):
        pass
    assert asked(repository) == {}
    repository.backup(store)
    with snapshot(store, repository):
        nova.write_faiss(folder, nova.texts(12))
    assert asked(repository) == {"faiss_index.bin": 3, "bm25_index.pkl": 3}


def test_an_owner_may_want_the_guard_to_ask(folder, repository):
    with snapshot(IndexStore(folder, probing=Probing(on=["guard"], number=1, nearest=2)), repository):
        pass
    assert asked(repository) == {"faiss_index.bin": 1, "bm25_index.pkl": 1}
    assert [len(probe.ids) for probe in record(repository).probes] == [2, 2]


@pytest.mark.parametrize("probing", [None, Probing(largest=10), Probing(seconds=1e-6)])
def test_a_file_is_not_asked_if_it_must_not_be_or_takes_too_long(folder, repository, probing):
    repository.backup(IndexStore(folder, probing=probing))
    assert (record(repository).probes, record(repository).classes) == ((), {})
    assert not repository["latest"].problems


def test_a_damaged_index_is_backed_up_all_the_same(store, folder, repository):
    (folder / "faiss_index.bin").write_bytes((folder / "faiss_index.bin").read_bytes()[:-8])
    (folder / "bm25_index.pkl").write_bytes(b"garbage")
    repository.backup(store)
    assert asked(repository) == {}


def test_other_layouts_are_asked_as_far_as_possible(tmp_path, repository):
    nova.write_faiss(tmp_path, nova.texts(5))
    vectors = tmp_path / "faiss_index.bin"
    for layout, name in [
        (layouts.NOVA_VEHICLE, "vehicle_index.faiss"),
        (layouts.NOVA_MULTI_DOMAIN, "faiss_index_multi_domain.bin"),
    ]:
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(vectors.read_bytes())
        (folder / "vehicle_docs.jsonl").write_text("1\n" * 5)
        (folder / "chunks_with_metadata.pkl").write_bytes(pickle.dumps([Path("x")] * 5))
        (folder / "domain_metadata.json").write_text('{"total_chunks": 5, "embedding_model": "all-MiniLM-L6-v2"}')
        repository.backup(IndexStore(folder, components=layout))
        assert asked(repository) == {name: 3}
        repository["latest"].verify("queries", folder=tmp_path)
    assert record(repository).classes == {"chunks_with_metadata.pkl": ("pathlib.PosixPath",)}
    assert record(repository).embedding_model == "all-MiniLM-L6-v2"


class TestQueriesOfTheUser:
    @staticmethod
    def search(place: str, text: str) -> list[tuple[str, float]]:
        entries = json.loads((Path(place) / "metadata.json").read_text())
        found = [(entry["id"], np.float32(entry["text"].count(text))) for entry in entries]
        return sorted(found, key=lambda pair: -pair[1])

    def test_their_answers_are_kept_and_taken_over(self, folder, repository):
        calls = []

        def ask(place, text):
            calls.append((place, text))
            return self.search(place, text)

        store = IndexStore(folder, probing=Probing(queries=["brake"], ask=ask, nearest=2))
        for _time in range(2):
            repository.backup(store)
            (probe,) = [probe for probe in record(repository).probes if probe.text]
            assert (probe.path, probe.text, probe.ids) == ("", "brake", ("chunk-0", "chunk-2"))
        assert calls == [(str(folder), "brake")]
        nova.ingest(folder, nova.texts(1))
        repository.backup(store)
        assert len(calls) == 2

    def test_a_search_that_fails_costs_no_backup(self, folder, repository, caplog):
        def ask(place, text):
            raise RuntimeError("no model")

        repository.backup(IndexStore(folder, probing=Probing(queries=["brake"], ask=ask)))
        assert "no model" in caplog.text

    @pytest.mark.parametrize(
        "wrong", [{"queries": ["a"]}, {"ask": search}, {"queries": "a", "ask": search}, {"on": ["x"]}]
    )
    def test_half_of_it_is_refused(self, wrong):
        with pytest.raises(ConfigurationError, match="found"):
            Probing(**wrong)


def test_the_program_says_what_made_the_vectors(folder, repository):
    (folder / "corpus_manifest.json").write_text('{"embedding_model": "one of the file"}')
    repository.backup(IndexStore(folder, embedding_model="one of the program"))
    assert record(repository).embedding_model == "one of the program"
    repository.backup(IndexStore(folder))
    assert record(repository).embedding_model == "one of the program"  # the same files
    (folder / "corpus_manifest.json").write_text('{"model_name": "another one"}')
    repository.backup(IndexStore(folder))
    assert record(repository).embedding_model == "another one"


@pytest.mark.parametrize("said", [b"[]", b"{", b'{"embedding_model": 3}', b'{"embedding_model": "a\\u0000"}', b"\xff"])
def test_odd_summaries_name_no_model(folder, repository, said):
    (folder / "corpus_manifest.json").write_bytes(said)
    repository.backup(IndexStore(folder))
    assert record(repository).embedding_model == ""


# One of each way in which faiss hands out vectors, or does not.
FLOAT = ["IDMap2,Flat", "IVF4,Flat", "PCA8,IVF4,PQ4x4", "HNSW8"]
BINARY = ["BFlat", "BIVF4"]


@pytest.mark.parametrize("kind", [*FLOAT, *BINARY])
def test_every_kind_of_index_answers_the_same_twice(tmp_path, kind):
    chance = np.random.default_rng(1)
    path = tmp_path / "a.faiss"
    if kind in BINARY:
        rows = chance.integers(0, 256, (300, 4), np.uint8)
        index = faiss.index_binary_factory(32, kind)
    else:
        rows = chance.normal(size=(300, 16)).astype(np.float32)
        index = faiss.index_factory(16, kind)
    index.train(rows)
    if kind.startswith("IDMap"):
        index.add_with_ids(rows, np.arange(300) - (1 << 62))
    else:
        index.add(rows)
    (faiss.write_index_binary if kind in BINARY else faiss.write_index)(index, str(path))
    component = Faiss("a.faiss")
    with open_storage(tmp_path).open("a.faiss") as reader:
        first = component.probe(reader, Questions())
        again = component.probe(reader, Questions(again=first.probes))
    assert first.problems == ()
    assert len(first.probes) == 3
    assert all(len(probe.ids) == 5 for probe in first.probes)
    assert again == first
    with open_storage(tmp_path).open("a.faiss") as reader:
        wrong = attrs.evolve(first.probes[0], vector=first.probes[0].vector + b"\0\0")
        assert component.probe(reader, Questions(again=(wrong,))).probes[0].ids == ()


@pytest.mark.parametrize(
    "wrong",
    [{}, {"ids": [1]}, {"ids": ["\ud800"]}, {"ids": [1 << 70]}, {"ids": [None]}, {"scores": ["nan"]}, {"vector": 3}],
)
def test_what_a_child_says_is_not_believed(wrong):
    said = {"ids": [7], "scores": ["1"], "vector": "AAA="}
    assert Faiss("a")._answers({"probes": [said]}).probes
    forged = {**said, "scores": ["1", "2"], **wrong} if wrong.keys() <= {"ids"} else {**said, **wrong}
    found = Faiss("a")._answers({"probes": [forged]})
    assert (found.probes, [problem.code for problem in found.problems]) == ((), ["damaged"])


def probe(*hits: tuple[object, float]) -> Probe:
    return Probe(
        path="a", words=("x",), ids=tuple(one for one, _ in hits), scores=tuple(str(score) for _, score in hits)
    )


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(0.1, 100)), max_size=6, unique_by=lambda hit: hit[0]), st.data()
)
def test_answers_that_differ_by_rounding_are_the_same(hits, data):
    hits.sort(key=lambda hit: -hit[1])
    rounded = [(one, score * (1 + data.draw(st.floats(-1e-6, 1e-6)))) for one, score in hits]
    rounded.sort(key=lambda hit: -hit[1])
    assert difference(probe(*hits), probe(*rounded)) == ""


@pytest.mark.parametrize(
    "now",
    [
        [],
        [(1, 9.0), (2, 5.0)],
        [(2, 9.0), (1, 5.0), (3, 5.0)],
        [(1, 9.0), (2, 5.0), (3, 4.9)],
        [(4, 9.0), (2, 5.0), (3, 5.0)],
    ],
)
def test_other_answers_are_told(now):
    assert "expected" in difference(probe((1, 9.0), (2, 5.0), (3, 5.0)), probe(*now))


@pytest.mark.parametrize("now", [[(1, 9.0), (3, 5.0), (2, 5.0)], [(1, 9.0), (2, 5.0), (4, 5.0)]])
def test_results_that_are_alike_may_stand_for_each_other(now):
    assert difference(probe((1, 9.0), (2, 5.0), (3, 5.0)), probe(*now)) == ""
