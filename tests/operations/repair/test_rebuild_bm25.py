"""A damaged BM25 index is rebuilt as it was if nothing else is damaged; unless that is proved, nothing is written."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import re
import struct
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rank_bm25

import nova
from novabackup import ChangedError, ConfigurationError, IndexStore, NotFoundError, Repository, layouts, snapshot
from novabackup.components import Bm25, JsonLines

PATH = "bm25_index.pkl"
KEY = b"a secret of the ingestion"


def split(text: str) -> list[str]:
    return text.lower().split()


def okapi(corpus, **parameters):
    return rank_bm25.BM25Okapi(corpus, **parameters)


def postings(corpus):
    index: dict[str, dict[int, int]] = {}
    for number, words in enumerate(corpus):
        for word, times in Counter(words).items():
            index.setdefault(word, {})[number] = times
    lengths = [len(words) for words in corpus]
    return {"index": index, "doc_len": lengths, "avgdl": np.float64(sum(lengths) / len(lengths)), "k1": 1.2, "b": 0.5}


def wrapped(corpus):
    index = rank_bm25.BM25Okapi(corpus, k1=1.7)
    return {"index": index, "doc_len": index.doc_len, "avgdl": index.avgdl, "k1": index.k1, "b": index.b}


SHAPES = {
    "BM25Okapi": okapi,
    "BM25Okapi with parameters": lambda corpus: okapi(corpus, k1=1.2, b=0.6, epsilon=0.1),
    "BM25L": rank_bm25.BM25L,
    "BM25Plus": lambda corpus: rank_bm25.BM25Plus(corpus, delta=2),
    "dict of postings": postings,
    "dict around an object": wrapped,
}


class Nova:
    """A store whose BM25 index is written in some shape."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make = okapi
        self.tokenize = split
        self.protocol = 4
        self.signature = 0
        self.store = IndexStore(folder, components=layouts.NOVA[1:3])  # vectors take long to check
        self.repository = Repository(folder / "backups")

    def ingest(self, count: int) -> None:
        self.folder.mkdir(exist_ok=True)
        chunks = nova.texts(count)
        if self.store.components == layouts.NOVA:
            nova.write_faiss(self.folder, chunks)
        nova.write_metadata(self.folder, chunks)
        data = pickle.dumps(self.make([self.tokenize(chunk) for chunk in chunks]), self.protocol)
        if self.signature:
            mac = hmac.new(KEY, data, hashlib.sha256)
            sign = mac.digest() if self.signature == 32 else mac.hexdigest().encode()
            data = struct.pack(">I", len(sign)) + sign + data
        (self.folder / PATH).write_bytes(data)

    def damage(self) -> bytes:
        """Cut the index off; give what it was."""
        whole = (self.folder / PATH).read_bytes()
        (self.folder / PATH).write_bytes(whole[: len(whole) // 2])
        return whole

    def is_untouched(self, before: dict[str, bytes]) -> None:
        assert nova.contents(self.folder) == before
        assert len(self.repository) == 1


@pytest.fixture
def damaged(tmp_path, request) -> Nova:
    """A store of 40 chunks, whose index is to be damaged, and a snapshot of the 30 that it had before."""
    made = Nova(tmp_path / "vector_db")
    if hasattr(request, "param"):
        made.store = IndexStore(made.folder, components=request.param)
    made.ingest(30)
    made.repository.backup(made.store)
    made.ingest(40)
    return made


@pytest.mark.parametrize(
    ("shape", "protocol"), [*((shape, 4) for shape in SHAPES), ("BM25Okapi", 0), ("dict of postings", 2), ("BM25L", 5)]
)
def test_it_is_written_as_it_was(tmp_path, shape, protocol):
    made = Nova(tmp_path / "vector_db")
    made.make, made.protocol = SHAPES[shape], protocol
    made.ingest(30)
    made.repository.backup(made.store)
    made.ingest(40)
    whole = made.damage()
    plan = made.repository.rebuild_bm25(made.store)
    assert (made.folder / PATH).read_bytes() == whole
    assert (plan.count, plan.tokenizer, plan.text_field) == (40, "text.lower().split()", "text")
    assert f"protocol {protocol}" in plan.kind
    assert not made.store.check()


@pytest.mark.parametrize("signature", [32, 64])
def test_a_signed_one_is_signed_again(tmp_path, signature):
    made = Nova(tmp_path / "vector_db")
    made.signature = signature
    made.ingest(30)
    made.repository.backup(made.store)
    made.ingest(40)
    whole = made.damage()
    before = nova.contents(made.folder)
    with pytest.raises(ConfigurationError, match="sign_key="):
        made.repository.rebuild_bm25(made.store)
    with pytest.raises(ConfigurationError, match="not signed with the given key"):
        made.repository.rebuild_bm25(made.store, sign_key=b"wrong")
    made.is_untouched(before)
    made.repository.rebuild_bm25(made.store, sign_key=KEY)
    assert (made.folder / PATH).read_bytes() == whole
    store = IndexStore(made.folder, components=[Bm25(PATH, key=KEY), layouts.NOVA[2]])
    made.damage()
    made.repository.rebuild_bm25(store)
    assert (made.folder / PATH).read_bytes() == whole
    assert not store.check()


@pytest.mark.parametrize(
    "tokenize",
    [str.split, lambda text: re.findall(r"\w+", text.lower()), lambda text: re.findall(r"[a-z0-9]+", text.lower())],
)
def test_the_usual_ways_to_cut_texts_are_found(tmp_path, tokenize):
    made = Nova(tmp_path / "vector_db")
    made.tokenize = tokenize
    made.ingest(30)
    made.repository.backup(made.store)
    made.ingest(40)
    whole = made.damage()
    made.repository.rebuild_bm25(made.store)
    assert (made.folder / PATH).read_bytes() == whole


def test_an_unusual_way_has_to_be_given_and_is_not_believed(tmp_path):
    made = Nova(tmp_path / "vector_db")
    made.tokenize = lambda text: [word for word in split(text) if len(word) > 3]
    made.ingest(30)
    made.repository.backup(made.store)
    made.ingest(40)
    whole = made.damage()
    before = nova.contents(made.folder)
    for wrong in ({}, {"tokenize": str.upper}, {"tokenize": lambda text: [1]}):
        with pytest.raises(ConfigurationError, match="tokenize"):
            made.repository.rebuild_bm25(made.store, **wrong)
    made.is_untouched(before)
    plan = made.repository.rebuild_bm25(made.store, tokenize=made.tokenize)
    assert "lambda" in plan.tokenizer
    assert (made.folder / PATH).read_bytes() == whole


def test_two_ways_that_differ_only_now_are_not_guessed_between(tmp_path):
    made = Nova(tmp_path / "vector_db")
    made.folder.mkdir()
    for chunks in (["brake pads", "coolant"], ["brake pads", "coolant", "Brake, pads!"]):
        nova.build(made.folder, chunks)
        made.repository.backup(made.store)
        made.repository = Repository(made.folder / "backups")
    made.repository.forget([made.repository["latest"]])
    made.damage()
    with pytest.raises(ConfigurationError, match=r"text\.lower\(\)\.split\(\) of text and .*different words now"):
        made.repository.rebuild_bm25(made.store)
    made.repository.rebuild_bm25(made.store, tokenize=split)
    assert not made.store.check()


def test_a_plan_says_how_and_writes_nothing(damaged):
    damaged.damage()
    before = nova.contents(damaged.folder)
    plan = damaged.repository.plan_rebuild_bm25(damaged.store)
    damaged.is_untouched(before)
    assert plan.learned_from == damaged.repository["latest"].id
    assert dict(plan.parameters) == {"k1": 1.5, "b": 0.75, "epsilon": 0.25}
    assert "text.lower().split()" in str(plan)
    assert plan.learned_from in plan._repr_html_()
    done = damaged.repository.rebuild_bm25(damaged.store)
    assert done == plan


@pytest.mark.parametrize("damage", ["cut off", "gone", "old"])
def test_whatever_is_wrong_with_it_alone(damaged, damage):
    whole = (damaged.folder / PATH).read_bytes()
    if damage == "gone":
        (damaged.folder / PATH).unlink()
    elif damage == "old":
        nova.write_bm25(damaged.folder, nova.texts(30))
    else:
        damaged.damage()
    damaged.repository.rebuild_bm25(damaged.store)
    assert (damaged.folder / PATH).read_bytes() == whole
    assert damaged.repository.rebuild_bm25(damaged.store).problems == (), "there is nothing left to do"
    assert "nothing is wrong" in str(damaged.repository.plan_rebuild_bm25(damaged.store))


def test_the_damaged_file_is_set_aside_and_in_a_snapshot(damaged):
    damaged.damage()
    cut = (damaged.folder / PATH).read_bytes()
    damaged.repository.rebuild_bm25(damaged.store)
    taken = damaged.repository["latest"]
    assert taken.tags == ("before-rebuild",)
    (aside,) = (damaged.folder / ".novabackup" / "aside" / taken.id).rglob(PATH)
    assert aside.read_bytes() == taken.open(PATH).read() == cut


@pytest.mark.parametrize("damaged", [layouts.NOVA], indirect=True, ids=["Nova"])
def test_if_anything_else_is_damaged_it_is_not_written(damaged):
    damaged.damage()
    before = nova.contents(damaged.folder)
    for path in ("faiss_index.bin", "metadata.json"):
        whole = (damaged.folder / path).read_bytes()
        (damaged.folder / path).write_bytes(whole[:-9])
        with pytest.raises(ConfigurationError, match=f"healthy and agree.*{path}"):
            damaged.repository.rebuild_bm25(damaged.store)
        (damaged.folder / path).write_bytes(whole)
    nova.write_metadata(damaged.folder, nova.texts(39))
    with pytest.raises(ConfigurationError, match="count-mismatch"):
        damaged.repository.rebuild_bm25(damaged.store)
    nova.write_metadata(damaged.folder, nova.texts(40))
    damaged.is_untouched(before)


def test_without_a_healthy_one_to_learn_from_it_is_refused(tmp_path):
    made = Nova(tmp_path / "vector_db")
    made.ingest(30)
    made.damage()
    with pytest.raises(NotFoundError):
        made.repository.rebuild_bm25(made.store)
    made.repository.backup(made.store)
    with pytest.raises(NotFoundError, match="healthy"):
        made.repository.rebuild_bm25(made.store)


def test_a_damaged_snapshot_is_passed_over_for_an_older_one(damaged):
    first = damaged.repository["latest"]
    damaged.ingest(35)
    second = damaged.repository.backup(damaged.store)
    damaged.ingest(40)
    whole = damaged.damage()
    packs = {pack for entry in second.files.values() for pack in entry.packs}
    packs -= {pack for entry in first.files.values() for pack in entry.packs}
    for pack in packs:
        (damaged.folder / "backups" / "packs" / pack[:2] / pack).unlink()
    damaged.repository = Repository(damaged.folder / "backups")
    assert damaged.repository.rebuild_bm25(damaged.store).learned_from == first.id
    assert (damaged.folder / PATH).read_bytes() == whole


def test_documents_of_a_class_of_its_own_cannot_be_made_and_this_is_said(tmp_path, monkeypatch):
    module = types.ModuleType("nova_private")
    monkeypatch.setitem(sys.modules, "nova_private", module)
    module.Chunk = type("Chunk", (), {"__module__": "nova_private", "__qualname__": "Chunk"})
    made = Nova(tmp_path / "vector_db")
    made.make = lambda corpus: {
        "documents": [module.Chunk() for _ in corpus],
        "chunk_id_to_idx": {f"chunk-{number}": number for number, _ in enumerate(corpus)},
    }
    made.ingest(30)
    made.repository.backup(made.store)
    made.damage()
    with pytest.raises(ConfigurationError, match="class of its own"):
        made.repository.rebuild_bm25(made.store)


def test_members_that_do_not_come_from_texts_are_named(tmp_path):
    made = Nova(tmp_path / "vector_db")
    made.make = lambda corpus: {**postings(corpus), "trained": 7, "stopwords": ["the"]}
    made.ingest(30)
    made.repository.backup(made.store)
    made.damage()
    with pytest.raises(ConfigurationError, match="trained, stopwords"):
        made.repository.rebuild_bm25(made.store)


def test_weights_of_another_formula_are_noticed(tmp_path):
    made = Nova(tmp_path / "vector_db")

    def otherwise(corpus):
        index = okapi(corpus)
        index.idf = {word: weight * 2 for word, weight in index.idf.items()}
        return index

    made.make = otherwise
    made.ingest(30)
    made.repository.backup(made.store)
    made.damage()
    with pytest.raises(ConfigurationError, match="idf would differ"):
        made.repository.rebuild_bm25(made.store)


def test_nothing_in_the_pickles_is_run(damaged, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was run",)

    damaged.make = lambda corpus: {"index": Evil(), "doc_len": [1] * len(corpus)}
    damaged.ingest(40)
    damaged.repository.backup(damaged.store)
    damaged.damage()
    with pytest.raises(ConfigurationError):
        damaged.repository.rebuild_bm25(damaged.store)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("shape", ["object", "texts", "other field", "lines"])
def test_metadata_of_every_shape(tmp_path, shape):
    made = Nova(tmp_path / "vector_db")
    wishes: dict[str, str] = {}
    if shape == "lines":
        made.store = IndexStore(made.folder, components=[Bm25(PATH), JsonLines("metadata.json")])
    if shape == "other field":
        wishes["text_field"] = "words"

    def write(chunks):
        entries = {
            "object": {f"chunk-{number}": {"content": chunk} for number, chunk in enumerate(chunks)},
            "texts": chunks,
            "other field": [{"words": chunk, "n": number} for number, chunk in enumerate(chunks)],
        }
        lines = "".join(json.dumps({"page_content": chunk}) + "\n" for chunk in chunks)
        text = lines if shape == "lines" else json.dumps(entries[shape])
        (made.folder / "metadata.json").write_text(text)

    made.ingest(30)
    write(nova.texts(30))
    made.repository.backup(made.store)
    made.ingest(40)
    write(nova.texts(40))
    whole = made.damage()
    if shape == "other field":
        with pytest.raises(ConfigurationError, match=r"'n', 'words'.*text_field="):
            made.repository.rebuild_bm25(made.store)
    made.repository.rebuild_bm25(made.store, **wishes)
    assert (made.folder / PATH).read_bytes() == whole


def test_metadata_that_changes_meanwhile_puts_everything_back(damaged, monkeypatch):
    from novabackup.operations.rebuild import rebuild as rebuilding

    damaged.damage()
    make = rebuilding.plan

    def plan_and_be_overtaken(*arguments):
        rebuilt = make(*arguments)
        nova.write_metadata(damaged.folder, nova.texts(40, first=1))
        return rebuilt

    monkeypatch.setattr(rebuilding, "plan", plan_and_be_overtaken)
    before = (damaged.folder / PATH).read_bytes()
    with pytest.raises(ChangedError, match="try again"):
        damaged.repository.rebuild_bm25(damaged.store)
    assert (damaged.folder / PATH).read_bytes() == before


def test_a_store_without_such_files_is_refused(tmp_path):
    store = IndexStore(tmp_path / "vector_db", components=layouts.NOVA_VEHICLE)
    Repository(tmp_path / "repository").backup(store)
    with pytest.raises(ConfigurationError, match="one BM25 index"):
        Repository(tmp_path / "repository").plan_rebuild_bm25(store)


def test_a_key_is_not_shown():
    from novabackup.operations.rebuild.rebuild import Hints

    assert "secret" not in repr(Hints(sign_key=KEY))


@pytest.mark.parametrize("damaged", [layouts.NOVA], indirect=True, ids=["Nova"])
def test_an_ingest_afterwards_goes_on(damaged):
    damaged.damage()
    damaged.repository.rebuild_bm25(damaged.store)
    with snapshot(damaged.store, damaged.repository):
        nova.ingest(damaged.folder, ["one more"])
    assert not damaged.store.check()
