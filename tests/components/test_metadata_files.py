"""Metadata in JSON and JSON Lines: entries counted, anything that is cut off or no JSON noticed."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from looking import NotingReader, examine, inspect, only

from novabackup.components import Files, JsonLines, Metadata
from novabackup.errors import ConfigurationError

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


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../b", "a//b", "a\0b", "a\nb", "c:\\a"])
def test_a_path_that_could_leave_the_store_is_refused(path):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Files(path)
