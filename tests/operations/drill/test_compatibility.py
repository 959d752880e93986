"""Will it load here? Told from what a snapshot says and what is installed, without opening anything."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

import nova
from novabackup import IndexStore
from novabackup.format.records import FileEntry, Report, SnapshotRecord
from novabackup.operations.compatibility import Installed, Severity, compare, here

VERSIONS = {"faiss-cpu": "1.9.0", "numpy": "2.1.0", "rank-bm25": "0.2.2", "python": "3.12.1"}
MODULES = {"faiss", "numpy", "rank_bm25", "pathlib"}


def entry(component: str, path: str, **said: object) -> FileEntry:
    report = Report(component=component, path=path, exists=True, **said)
    return FileEntry(path=path, size=1, blake3="a" * 64, packs=(), runs=(), report=report)


def record(**changes: object) -> SnapshotRecord:
    files = (
        entry("Faiss", "faiss_index.bin", dimension=384),
        entry("Bm25", "bm25_index.pkl", written_with="pickle protocol 4, signed"),
    )
    said = {
        "versions": VERSIONS,
        "classes": {"bm25_index.pkl": ("rank_bm25.BM25Okapi",)},
        "embedding_model": "all-MiniLM-L6-v2",
    }
    time = datetime(2026, 1, 25, tzinfo=UTC)
    return SnapshotRecord(repository="r", time=time, store="/s", declared=(), files=files, **{**said, **changes})


def installed(modules=MODULES, protocol=5, **versions: str) -> Installed:
    known = {**VERSIONS, **{name.replace("_", "-"): version for name, version in versions.items()}}
    return Installed(versions={n: v for n, v in known.items() if v}, protocol=protocol, has=modules.__contains__)


def said(record_: SnapshotRecord, installed_: Installed, *more: object) -> list[tuple[str, str]]:
    return [(str(concern.severity), concern.code) for concern in compare(record_, installed_, *more)]


def test_what_is_as_it_was_raises_no_concern():
    found = compare(record(), installed())
    assert found == ()
    assert found.loads
    assert "nothing is known" in str(found)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (installed(faiss_cpu="2.0.0"), ("warning", "faiss-version")),
        (installed(faiss_cpu="1.8.0"), ("warning", "faiss-version")),
        (installed(faiss_cpu="1.10.0"), ("note", "faiss-version")),
        (installed(MODULES - {"faiss"}, faiss_cpu=""), ("error", "missing-module")),
        (installed(MODULES - {"rank_bm25"}, rank_bm25=""), ("error", "missing-module")),
        (installed(rank_bm25="0.3"), ("note", "rank-bm25-version")),
        (installed(python="3.11.9"), ("note", "python-version")),
        (installed(protocol=3), ("error", "pickle-protocol")),
    ],
)
def test_what_is_different_here(what, expected):
    assert said(record(), what) == [expected]


@pytest.mark.parametrize(
    ("names", "versions", "expected"),
    [
        (("numpy._core.multiarray._reconstruct",), "1.26.4", [("error", "numpy-version")]),
        (("numpy._core.multiarray._reconstruct",), "2.3", []),
        (("numpy.core.multiarray._reconstruct",), "1.26.4", []),
        (("nova.chunks.Chunk", "pathlib.Path"), "2.1", [("error", "missing-module")]),
        (("__main__.Chunk",), "2.1", [("warning", "class-of-a-script")]),
        (("os.system\n; rm", "../x.y"), "2.1", [("error", "missing-module")] * 2),
    ],
)
def test_what_pickles_ask_for(names, versions, expected):
    assert said(record(classes={"a.pkl": names}), installed(numpy=versions)) == expected


def test_what_is_there_now_is_compared():
    live = [Report(component="Faiss", path="faiss_index.bin", exists=True, dimension=768)]
    assert said(record(), installed(), live) == [("warning", "dimension")]
    assert said(record(), installed(), [], "all-mpnet-base-v2") == [("warning", "embedding-model")]
    assert said(record(embedding_model=""), installed(), [], "all-mpnet-base-v2") == []


def test_the_worst_comes_first():
    found = compare(record(), installed(MODULES - {"rank_bm25"}, python="3.11", faiss_cpu="2.0"))
    assert [concern.severity for concern in found] == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
    assert not found.loads
    assert str(found).startswith("error: missing-module (bm25_index.pkl): the pickle needs the module rank_bm25")
    assert "rank_bm25.BM25Okapi" in found._repr_html_()


def test_looking_for_a_module_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert here().has("hostile")
    assert not here().has("hostile.part")
    assert not here().has("nowhere_at_all")


def test_old_snapshots_say_little_and_raise_no_concern():
    assert said(record(versions={}, classes={}, embedding_model=""), installed()) == []


def test_a_restore_warns_and_goes_on(store, folder, repository, caplog, tmp_path):
    snap = repository.backup(IndexStore(folder, embedding_model="all-MiniLM-L6-v2"))
    assert not snap.compatibility()
    assert snap.plan_restore().warnings == ()
    target = IndexStore(tmp_path / "elsewhere", embedding_model="all-mpnet-base-v2")
    (warning,) = snap.plan_restore(target).warnings
    assert warning.startswith("warning: embedding-model (faiss_index.bin): the vectors were made by all-MiniLM-L6-v2")
    snap.restore(target)
    assert warning in caplog.text
    assert nova.contents(tmp_path / "elsewhere") == nova.contents(folder)
