"""Metadata in JSON and JSON Lines: entries counted, anything that is cut off or no JSON noticed."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from looking import NotingReader, examine, inspect, only

from novabackup.components import Files, JsonLines, Metadata, _json_count, _json_cuts
from novabackup.errors import ConfigurationError
from novabackup.storage import LocalStorage

COMPONENT = Metadata("metadata.json")
STATED = Metadata("domain_metadata.json", count_key="total_chunks")
LINES = JsonLines("docs.jsonl")
BOM = b"\xef\xbb\xbf"

LIST = json.dumps([{"id": "a", "text": 'brake "pads" ü', "page": 1.5}, {"id": "b", "tags": [[], {}]}, None]).encode()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON), st.sampled_from([None, 1, "\t"]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_what_json_dump_writes_is_counted(value, indent, ascii_only):
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    report = inspect(COMPONENT, data)
    assert (report.count, report.kind, report.problems) == (len(value), type(value).__name__, ())


@pytest.mark.parametrize("text", ["[NaN, Infinity, -Infinity]", '["\\ud800", 2, "\\uDFFF"]', '[{"a": NaN}, 1e999, 3]'])
def test_what_only_python_calls_json_is_counted(text):
    report = inspect(COMPONENT, text.encode())
    assert (report.count, report.problems) == (3, ())
    assert inspect(LINES, (text + "\n").encode()).count == 1


@pytest.mark.parametrize("before", [b"", BOM, b"\n" * 5000, b" \r\n\t"])
@pytest.mark.parametrize("after", [b"", b"\n", b" " * 5000])
def test_white_space_and_a_byte_order_mark_do_not_matter(before, after):
    assert inspect(COMPONENT, before + LIST + after).count == 3
    assert inspect(COMPONENT, before + b'{"a": 1, "b": 2}' + after).count == 2


@pytest.mark.parametrize("content", [LIST, b'{"a": {"b": [1, 2]}, "c": "\xc3\xbc"}', b'[{"a": NaN}, "\\ud800"]'])
def test_a_cut_at_any_byte_is_noticed(content):
    for end in range(len(content)):
        report = inspect(COMPONENT, content[:end])
        assert report.count is None
        assert only(report.problems)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"not json",
        b'"text"',
        b"17",
        b"null",
        LIST + b"x",
        LIST + LIST,
        LIST + b"\0",
        b"[1, 2,]",
        b"[01]",
        b"{1: 2}",
        b"{'a': 1}",
        b"[nan]",
        b"[NaNa]",
        b"[NaN",
        b'["\xff"]',
        b'["\xed\xa0\x80"]',
        '["a"]'.encode("utf-16"),
        b'["a\nb"]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"NaN" + b"}" * 100_000,
    ],
)
def test_what_is_no_json_list_or_object_is_damaged(content):
    report, problems = examine(COMPONENT, content)
    assert report.count is None
    assert only(problems).paths == ("metadata.json",)


def test_the_same_key_twice_is_one_entry_as_for_python():
    text = b'{"a": 1, "b": 2, "a": 3}'
    assert inspect(COMPONENT, text).count == len(json.loads(text)) == 2


@pytest.mark.parametrize(
    ("value", "count"), [(12, 12), (0, 0), ([1, 2, 3], 3), ({"a": 1, "b": 2}, 2), ([], 0), (2**63 - 1, 2**63 - 1)]
)
@pytest.mark.parametrize("extra", [None, float("nan")])
def test_an_object_can_state_its_count(value, count, extra):
    data = json.dumps({"domains": {"a": 1}, "other": extra, "total_chunks": value}).encode()
    report = inspect(STATED, data)
    assert (report.count, report.kind, report.problems) == (count, "dict", ())


@pytest.mark.parametrize("value", [-1, 1.0, "12", None, True, 2**63, 10**30])
@pytest.mark.parametrize("extra", [None, float("nan")])
def test_a_stated_count_that_is_none_is_damaged(value, extra):
    report = inspect(STATED, json.dumps({"total_chunks": value, "other": extra}).encode())
    assert report.count is None
    assert "total_chunks" in only(report.problems).message


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"total": 3}', b"[NaN]", b'{"total": NaN}'])
def test_a_count_that_is_not_stated_is_damaged(content):
    assert "total_chunks" in only(inspect(STATED, content).problems).message


# Texts full of what could be taken for the end of an entry.
NASTY = st.text(st.sampled_from('",\\[]{}:\n aü漢😀N')) | st.sampled_from(
    ['"},{"', "NaN", '\\",', "],[", "\ud800", "n"]
)
ENTRY = st.fixed_dictionaries({"id": st.integers(0, 3), "text": NASTY, "tags": st.lists(NASTY, max_size=2)})
NESTED = st.recursive(
    st.none() | st.integers() | st.floats() | NASTY,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NASTY, inner, max_size=5),
)
TOPS = (
    st.lists(ENTRY, max_size=12)
    | st.dictionaries(NASTY, ENTRY, max_size=12)
    | st.dictionaries(st.just("n") | NASTY, st.lists(ENTRY) | st.dictionaries(NASTY, ENTRY) | NESTED, max_size=4)
    | st.lists(NESTED)
)
STYLES = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 0, 1, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":"), (" , ", " : "), (",\r\n", ":")]),
    }
)


@st.composite
def files(draw):
    """What json.dump wrote, and perhaps somebody cut off or changed."""
    text = json.dumps(draw(TOPS), **draw(STYLES)).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.sampled_from([at, at + 1, at + 5, len(text)]))
        put = draw(
            st.sampled_from([b"", b",", b"[", b"]", b"{", b"}", b'"', b"\\", b"\0", b"\xff", b",1", b'"n":[3],'])
        )
        text = text[:at] + put + text[end:]
    return text


@contextlib.contextmanager
def windows(first, largest, read):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json_count, "_FIRST_WINDOW", first)
        patch.setattr(_json_count, "_WINDOW", largest)
        patch.setattr(_json_count, "_READ", read)
        yield


def what_python_says(data, key=None):
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if key is not None:
        stated = value.get(key) if isinstance(value, dict) else None
        good = isinstance(stated, int) and not isinstance(stated, bool) and 0 <= stated < 2**63
        count = len(stated) if isinstance(stated, (list, dict)) else stated if good else None
    else:
        count = len(value) if isinstance(value, (list, dict)) else None
    return None if count is None else (type(value).__name__, count)


def what_is_seen(data, key=None):
    report = inspect(Metadata("metadata.json", count_key=key), data)
    if report.count is None:
        only(report.problems)
        return None
    assert report.problems == ()
    return report.kind, report.count


SIZES = st.sampled_from([1, 2, 3, 7, 20, 50, 200])


@given(files(), st.sampled_from([None, "n"]), SIZES, SIZES, SIZES)
@settings(deadline=None, max_examples=300)
def test_windows_of_any_size_say_what_python_says(data, key, first, largest, read):
    with windows(first, largest, read):
        assert what_is_seen(data, key) == what_python_says(data, key)


@pytest.mark.parametrize("key", [None, "n"])
@pytest.mark.parametrize(
    "value",
    [
        [{"id": 1, "text": '"},{', "tags": [["a,"], {}]}, {"id": 2, "text": "ü]"}, {"id": 3, "text": "\\"}, []],
        {"n": [{"a": [1, 2]}, {"a": [3]}, "x", {}], "m": {"n": [1]}},
        {"m": {"n": 5}, "n": {"a": [1, [2, [3, {"b": 4}]]], "c": {}, "d": float("nan")}},
    ],
)
@pytest.mark.parametrize("read", [1, 8, 1000])
def test_a_cut_at_any_byte_is_noticed_in_windows(value, key, read):
    data = json.dumps(value, ensure_ascii=False).encode()
    for end in range(len(data)):
        with windows(4, 32, read):
            assert what_is_seen(data[:end], key) is None
    with windows(4, 32, read):
        assert what_is_seen(data, key) == what_python_says(data, key)


@pytest.mark.parametrize("first", [1, 5, 40])
def test_what_a_later_window_has_under_the_same_key_counts(first):
    data = b'{"n": [1, 2, {"n": 9}], "a": {"x": [3, 4, 5]}, "n": [[1, 2], {"b": 3}, 4, [[]]], "a": [0, 0, 0, 0]}'
    with windows(first, 40, 10):
        assert what_is_seen(data) == ("dict", 2)
        assert what_is_seen(data, "n") == ("dict", 4)
        assert what_is_seen(data, "a") == ("dict", 4)
        assert what_is_seen(data[:-1] + b', "n": {"k": [1, 2], "l": 1, "k": [2, 3]}, "z": [1, 2, 3]}', "n") == (
            "dict",
            2,
        )
        assert what_is_seen(data[:-1] + b', "n": "text", "z": [1, 2, 3]}', "n") is None


@pytest.mark.parametrize("wrong", [b"x", b",", b'{"a": 01}', b'{"a" 1}', b'{"b": "\t"}', b"[1}"])
@pytest.mark.parametrize("python_only", [b"", b'{"a": NaN}, '])
def test_where_it_is_no_json_is_told(wrong, python_only):
    before = b"[" + python_only + b'{"a": "\xc3\xbc"}, ' * 40_000
    message = only(inspect(COMPONENT, before + wrong + b', {"a": 1}' * 40_000 + b"]").problems).message
    at = int(message.partition("(byte ")[2].partition(")")[0])
    assert len(before) - 2 <= at <= len(before) + len(wrong)


@pytest.mark.parametrize("rest", [b"", b" " * 100_000, b" " * 100_000 + b"]", b",1]", b"\0"])
def test_only_white_space_may_follow(rest):
    data = b'[{"a": 1}, {"b": 2}]' + rest
    with windows(10, 20, 1000):
        assert what_is_seen(data) == what_python_says(data)


@pytest.mark.parametrize("first", [4, 10, 20])
@pytest.mark.parametrize("largest", [20, 50, 120])
def test_entries_that_begin_and_end_in_one_window_are_told_apart(first, largest):
    value = {"a": list(range(99)), "n": list(range(77)), "b": list(range(88)), "c": list(range(10))}
    with windows(first, largest, 1000):
        assert what_is_seen(json.dumps(value).encode(), "n") == ("dict", 77)


def test_a_text_is_cut_where_most_is_gained():
    nested = b'{"a": 1}, {"b": ' + b"[1," * 300
    first, second = _json_cuts.find(nested + b'"' + b"x" * 9000, b"[").places
    assert (first.at, first.deep) == (8, b"")
    assert (second.at, second.deep) == (len(nested) - 1, b"{" + b"[" * 300)
    (only_one,) = _json_cuts.find(b"[1, 2, 3, [4, 5", b"[").places
    assert (only_one.at, only_one.deep) == (8, b"[")


def entries(size):
    text = '"}, {' + "x" * 1000
    return [{"id": f"chunk-{number:07}", "text": text, "page": number} for number in range(size // 1040)]


@pytest.mark.parametrize(
    ("shape", "key", "indent"),
    [
        (list, None, 1),
        (list, None, None),
        (lambda found: {entry["id"]: entry for entry in found}, None, None),
        (lambda found: {"model": "m", "chunks": found, "total": len(found)}, "total", 2),
        (lambda found: {"model": "m", "chunks": {entry["id"]: entry for entry in found}}, "chunks", None),
        (lambda found: [[found, 1], {"again": found[:10]}], None, None),
    ],
)
def test_memory_does_not_grow_with_the_file(tmp_path, shape, key, indent):
    found = entries(64 << 20)
    value = shape(found)
    (tmp_path / "metadata.json").write_text(json.dumps(value, indent=indent))
    with LocalStorage(tmp_path).open("metadata.json") as reader:
        assert reader.entry.size > 64 << 20
        tracemalloc.start()
        try:
            report = Metadata("metadata.json", count_key=key).inspect(reader)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert report.count == (len(value) if key is None else len(found))
    assert peak < 12 << 20


class CountingDecoder:
    def __init__(self, decoder, lengths):
        self._decoder = decoder
        self._lengths = lengths

    def decode(self, text):
        self._lengths.append(len(text))
        return self._decoder.decode(text)


def filled(begin, middle, end):
    return begin + middle * ((2 << 20) // len(middle)) + end


@pytest.mark.parametrize(
    "data",
    [
        filled(b'["', b"},{,", b'"]'),
        filled(b'["', b'\\",\\\\', b'"]'),
        filled(b"[", b'{"a": "}, {\\"a\\": 1"}, {"a": [1, {"a": 1}, {"a": 2}]}, ', b"1]"),
        filled(b"[", b"[1," * 300 + b"1" + b"]" * 300 + b",", b"1]"),
        filled(b"[", b"[1," * 300 + b'"' + b"x," * 150_000 + b'"' + b"]" * 300 + b",", b"1]"),
        filled(b"[1," * 300, b"1,", b"1" + b"]" * 300),
        filled(b'{"a":' * 300, b'{"a":1},"a":', b"1" + b"}" * 300),
        filled(b"", b"[", b""),
        filled(b"", b"[1,", b""),
        filled(b"", b'{"a":', b""),
        filled(b'[{"a":"', b"x,", b""),
        filled(b'[{"a":1},{"b', b"\0", b""),
        filled(b"[1", b" ", b"]"),
        filled(b"[1.", b"1", b"]"),
        filled(b"[", b'{"a":NaN,"b":[[],[],{}]},', b"1]"),
    ],
)
def test_whatever_a_file_holds_the_work_is_linear(monkeypatch, data):
    lengths = []
    for decoders in (_json_count._OBJECTS, _json_count._VALUES):
        for kind, decoder in list(decoders.items()):
            monkeypatch.setitem(decoders, kind, CountingDecoder(decoder, lengths))
    find = _json_cuts.find
    monkeypatch.setattr(_json_cuts, "find", lambda window, open_: lengths.append(len(window)) or find(window, open_))
    report = inspect(COMPONENT, data)
    expected = None if report.count is None else (report.kind, report.count)
    assert expected == what_python_says(data)
    assert sum(lengths) < 8 * len(data)


def test_zeros_that_a_power_cut_left_are_not_read_to_the_end():
    data = b'[{"a": 1}, {"b": "' + b"\0" * (32 << 20)
    with NotingReader(data, COMPONENT.path) as reader:
        assert "(byte 18)" in only(COMPONENT.inspect(reader).problems).message
    assert sum(length for _, length in reader.ranges) < 16 << 20


def test_lines_are_counted_and_blank_ones_are_not():
    data = b'{"a": 1}\n\n[1, 2]\r\n   \n"last"'
    assert inspect(LINES, data).count == 3
    assert inspect(LINES, BOM + data + b"\n").count == 3
    assert inspect(LINES, b"").count == 0


@given(st.lists(JSON, max_size=20))
@settings(deadline=None)
def test_lines_that_json_dumps_writes_are_counted(values):
    report = inspect(LINES, "".join(json.dumps(value) + "\n" for value in values).encode())
    assert (report.count, report.problems, report.kind) == (len(values), (), "JSON Lines")


def test_a_cut_in_the_last_line_is_noticed_at_every_byte_that_leaves_a_part():
    first, last = b'{"a": 1}\n', b'{"b": [1, "x"]}'
    for end in range(1, len(last)):
        report = inspect(LINES, first + last[:end])
        assert report.count is None
        assert "line 2 (the last line, without an end: the file was probably cut off)" in only(report.problems).message


@pytest.mark.parametrize("line", [b"{", b"x", b'"\xff"', b"[" * 100_000, b"1 2", b"[NaN", b"\0", b"\x0c"])
def test_a_line_that_is_no_json_is_named(line):
    report = inspect(LINES, b"1\n\n2\n" + line + b"\n3\n")
    assert report.count is None
    assert "in line 4, found" in only(report.problems).message


def test_lines_are_read_in_pieces():
    data = (json.dumps({"text": "x" * 1000}) + "\n").encode() * 5000
    with NotingReader(data, LINES.path) as reader:
        assert LINES.inspect(reader).count == 5000
    assert max(length for _, length in reader.ranges) <= 1 << 20
    assert reader.given == 0


def test_plain_files_are_told_by_their_own_path_and_not_read():
    files = Files("docs/*.txt", optional=True)
    with NotingReader(b"anything", "docs/a.txt") as reader:
        report = files.inspect(reader)
        assert files.examine(reader, report) == ()
    assert (report.path, report.size, report.count, report.problems) == ("docs/a.txt", 8, None, ())
    assert reader.ranges == []


@pytest.mark.parametrize("kind", [Metadata, JsonLines])
def test_metadata_is_one_file(kind):
    with pytest.raises(ConfigurationError, match="pattern"):
        kind("*.json")


@pytest.mark.parametrize("component", [COMPONENT, LINES, Files("a.txt")])
def test_a_file_that_is_not_there_can_be_reported(component):
    report = component.absent()
    assert (report.component, report.path, report.exists) == (type(component).__name__, component.path, False)


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "a\0b"])
def test_a_path_that_could_leave_the_store_is_refused(path):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Files(path)
