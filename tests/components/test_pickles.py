"""BM25 pickles and pickled lists of every shape: counted without a class that they name."""

from __future__ import annotations

import collections
import hashlib
import hmac
import io
import json
import pickle
import pickletools
import subprocess
import sys
import types

import numpy as np
import pytest
import rank_bm25
from looking import PACKAGE, NotingReader, examine, inspect, only

from novabackup.components import Bm25, PickledList
from novabackup.errors import ConfigurationError

CORPUS = [f"check part {number} of the manual".split() for number in range(30)]
COMPONENT = Bm25("bm25_index.pkl")
KEY = b"a secret of the installation"
PROTOCOLS = range(6)


def unknown_class(name: str) -> type:
    """Make a class of a module that nobody else can import."""
    module = types.ModuleType("nova_private")
    made = type(name, (), {"__module__": "nova_private", "__qualname__": name})
    setattr(module, name, made)
    sys.modules["nova_private"] = module
    return made


@pytest.fixture
def private_chunk():
    yield unknown_class("Chunk")
    del sys.modules["nova_private"]


def signed(data: bytes, *, text: bool = False, key: bytes = KEY) -> bytes:
    mac = hmac.new(key, data, hashlib.sha256)
    signature = mac.hexdigest().encode() if text else mac.digest()
    return len(signature).to_bytes(4, "big") + signature + data


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", [rank_bm25.BM25Okapi, rank_bm25.BM25L, rank_bm25.BM25Plus])
def test_documents_of_a_rank_bm25_object_are_counted(kind, protocol):
    report, problems = examine(COMPONENT, pickle.dumps(kind(CORPUS), protocol))
    assert (report.count, report.kind, problems) == (30, kind.__name__, ())
    assert report.dimension is None
    assert report.written_with == f"pickle protocol {protocol}"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_rank_bm25_object_is_counted_from_its_start_and_its_last_byte(protocol):
    data = pickle.dumps(rank_bm25.BM25Okapi(CORPUS * 100), protocol)
    with NotingReader(data, COMPONENT.path) as reader:
        assert COMPONENT.inspect(reader).count == 3000
    assert reader.given == 0
    assert all(length <= 4096 for _, length in reader.ranges)
    assert sum(length for _, length in reader.ranges) < 10_000 < len(data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("doc_len", [[4] * 30, np.full(30, 4), np.full(30, 4.0), collections.deque([4] * 30)])
def test_documents_of_a_dict_are_counted_by_doc_len(doc_len, protocol):
    index = {"index": {"brake": {0: 1}}, "doc_len": doc_len, "avgdl": np.float64(4.0), "k1": 1.5, "b": 0.75}
    report, problems = examine(COMPONENT, pickle.dumps(index, protocol))
    assert (report.count, report.kind, problems) == (30, "dict with index, doc_len", ())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_documents_of_unknown_classes_are_counted(protocol, private_chunk):
    documents = [private_chunk() for _ in range(30)]
    for number, document in enumerate(documents):
        document.text = f"part {number}"
    index = {"documents": documents, "chunk_id_to_idx": {f"chunk-{number}": number for number in range(30)}}
    data = pickle.dumps(index, protocol)
    del sys.modules["nova_private"]
    report, problems = examine(COMPONENT, data)
    sys.modules["nova_private"] = types.ModuleType("nova_private")
    assert (report.count, report.kind, problems) == (30, "dict with documents, chunk_id_to_idx", ())


@pytest.mark.parametrize("make", [collections.OrderedDict, lambda entries: collections.defaultdict(int, entries)])
def test_subclasses_of_dict_count_like_dicts(make):
    index = make({"documents": collections.UserList([1, 2]).data, "chunk_id_to_idx": make({"a": 0, "b": 1})})
    report, problems = examine(COMPONENT, pickle.dumps(index))
    assert (report.count, problems) == (2, ())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_corpus_size_that_is_a_numpy_integer_is_read(protocol):
    index = rank_bm25.BM25Okapi(CORPUS)
    index.corpus_size = np.int64(30)
    report, problems = examine(COMPONENT, pickle.dumps(index, protocol))
    assert (report.count, problems) == (30, ())


@pytest.mark.parametrize("field", ["doc_len", "doc_freqs"])
def test_a_rank_bm25_object_that_contradicts_itself_is_damaged(field):
    index = rank_bm25.BM25Okapi(CORPUS)
    getattr(index, field).pop()
    report, problems = examine(COMPONENT, pickle.dumps(index))
    assert report.count == 30
    assert f"expected 30 in {field} as corpus_size says, found 29" in only(problems).message


def test_a_start_that_does_not_tell_the_truth_is_found_out_by_the_thorough_look():
    # The same attribute twice: the prefix shows the first value, what is loaded has the last.
    index = rank_bm25.BM25Okapi(CORPUS)
    data = pickle.dumps(index, 2)
    at = data.rindex(b"u")
    forged = data[:at] + b"X\x0b\0\0\0corpus_sizeK\x1fX\x07\0\0\0doc_len](KKe" + data[at:]
    forged = forged.replace(b"](KKe", b"](" + b"K\x01" * 31 + b"e").replace(b"doc_freqs", b"doc_freqz")
    assert inspect(COMPONENT, forged).count == 30
    problems = examine(COMPONENT, forged)[1]
    assert "expected 30 documents as its start says, found 31" in only(problems).message


def test_missing_entries_in_the_lookup_table_are_damage():
    index = {"documents": [1, 2, 3], "chunk_id_to_idx": {"a": 0, "b": 1}}
    report = inspect(COMPONENT, pickle.dumps(index))
    assert report.count == 3
    assert "expected 3 in chunk_id_to_idx as documents says, found 2" in only(report.problems).message


@pytest.mark.parametrize("index", [[], {}, {"documents": []}, 7, rank_bm25, "text", {"index": 1, "doc_len": 2}])
def test_a_pickle_of_something_else_is_damaged(index):
    data = pickle.dumps(index) if index is not rank_bm25 else b"\x80\x04crank_bm25\nBM25Okapi\n."
    report = inspect(COMPONENT, data)
    assert report.count is None
    assert only(report.problems)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("index", [rank_bm25.BM25Okapi(CORPUS), {"index": {}, "doc_len": [1] * 30}])
def test_a_signature_is_skipped_and_named(index, text):
    report, problems = examine(COMPONENT, signed(pickle.dumps(index, 4), text=text))
    assert (report.count, problems) == (30, ())
    assert report.written_with == "pickle protocol 4, signed"


@pytest.mark.parametrize("text", [False, True])
def test_a_key_verifies_the_signature(text):
    data = signed(pickle.dumps(rank_bm25.BM25Okapi(CORPUS)), text=text)
    assert examine(Bm25("bm25_index.pkl", key=KEY), data)[1] == ()
    wrong = examine(Bm25("bm25_index.pkl", key=b"another"), data)[1]
    assert "signature" in only(wrong).message
    flipped = bytearray(data)
    flipped[data.index(b"manual") + 2] ^= 1
    assert "signature" in only(examine(Bm25("bm25_index.pkl", key=KEY), bytes(flipped))[1]).message


def test_with_a_key_an_unsigned_file_is_damaged():
    data = pickle.dumps(rank_bm25.BM25Okapi(CORPUS))
    assert "signature" in only(examine(Bm25("bm25_index.pkl", key=KEY), data)[1]).message


def test_the_key_is_shown_nowhere():
    assert "secret" not in repr(Bm25("bm25_index.pkl", key=KEY))


@pytest.mark.parametrize("key", [b"", "text"])
def test_a_key_that_can_be_none_is_refused(key):
    with pytest.raises(ConfigurationError, match="key"):
        Bm25("bm25_index.pkl", key=key)


CHECK = """
import json, os, runpy, sys, tempfile
read = runpy.run_path(sys.argv[1])["read"]
quiet = []
with tempfile.TemporaryFile(buffering=0) as file:
    for name, text in json.load(sys.stdin):
        data = bytes.fromhex(text)
        for end in range(len(data)):
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), data[:end], 0)
            try:
                if not read(file.fileno(), 0, end, "bm25")[-1]["wrong"]:
                    quiet.append([name, end])
            except Exception:
                pass
json.dump(quiet, sys.stdout)
"""


def test_a_cut_at_any_byte_is_noticed_in_every_protocol():
    index = rank_bm25.BM25Okapi(CORPUS[:6])
    wanted = [[protocol, pickle.dumps(index, protocol).hex()] for protocol in PROTOCOLS]
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(PACKAGE / "_pickle_child.py")],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("end", [0, 1, 3, 30, -1])
def test_a_pickle_that_was_cut_off_is_damaged(protocol, end):
    data = pickle.dumps(rank_bm25.BM25Okapi(CORPUS), protocol)
    problems = examine(COMPONENT, data[: end % len(data)])[1]
    assert problems
    assert {problem.code for problem in problems} == {"damaged"}


def test_the_cheap_look_notices_a_missing_end():
    data = pickle.dumps(rank_bm25.BM25Okapi(CORPUS))
    assert "cut off" in only(inspect(COMPONENT, data[:-1]).problems).message


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("extra", [b"\0", b".", b"x" * 100_000])
def test_bytes_behind_the_end_are_damage(protocol, extra):
    data = pickle.dumps([1, 2, 3], protocol)
    report = inspect(PickledList("chunks.pkl"), data + extra)
    assert f"ends after {len(data)}" in only(report.problems).message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickled_list_or_dict_is_counted(protocol, private_chunk):
    chunks = PickledList("chunks_with_metadata.pkl")
    for value in ([private_chunk() for _ in range(12)], {number: private_chunk() for number in range(12)}):
        report, problems = examine(chunks, pickle.dumps(value, protocol))
        assert (report.count, report.kind, problems) == (12, type(value).__name__, ())


def test_a_long_list_is_counted_across_frames():
    data = pickle.dumps([{"text": f"part {number}", "page": number} for number in range(50_000)])
    assert sum(opcode.name == "FRAME" for opcode, _, _ in pickletools.genops(io.BytesIO(data))) > 3
    assert inspect(PickledList("chunks.pkl"), data).count == 50_000


def test_an_object_is_no_list():
    report = inspect(PickledList("chunks.pkl"), pickle.dumps(rank_bm25.BM25Okapi(CORPUS)))
    assert "expected a pickled list or dict, found BM25Okapi" in only(report.problems).message


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"{}", b"\x80", b"\x80\x09.", b"\0\0\0\x20" + bytes(40)])
def test_what_is_no_pickle_is_damaged(content):
    report = inspect(COMPONENT, content)
    assert report.count is None
    assert "expected a pickle" in only(report.problems).message
    assert examine(COMPONENT, content)[1] == report.problems
