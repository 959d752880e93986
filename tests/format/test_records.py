"""Records come back as they were written, and nothing else is believed."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import attrs
import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from novabackup._support.paths import covered, matches, unportable, unsafe
from novabackup.errors import FormatError, IntegrityError
from novabackup.format.records import (
    Config,
    Drill,
    FileEntry,
    LinkEntry,
    SnapshotRecord,
    decode,
    encode,
    identify,
    snapshot_id,
)
from novabackup.layouts import LEFT_OUT

ENTRY = FileEntry(path="metadata.json", size=3, blake3="a" * 64, packs=("b" * 64,), runs=((0, 0, 1),))
RECORD = SnapshotRecord(
    repository="r",
    time=datetime(2026, 1, 25, 14, 30, tzinfo=UTC),
    store="/srv/vector_db",
    declared=("metadata.json",),
    files=(ENTRY,),
)


def seal(body: bytes, kind: str = "snapshot") -> bytes:
    """Forge an envelope that is right."""
    return b'{"blake3":"%s","%s":%s}\n' % (blake3(body).hexdigest().encode(), kind.encode(), body)


def forged(**changes: object) -> bytes:
    body = msgspec.json.decode(msgspec.json.encode(RECORD))
    return seal(msgspec.json.encode({**body, **changes}))


def file(**changes: object) -> dict[str, object]:
    return {"path": "a", "size": 0, "blake3": "a" * 64, "packs": ["b" * 64], "runs": [[0, 0, 1]], **changes}


def test_a_record_comes_back():
    assert decode(encode(RECORD), SnapshotRecord, "here") == RECORD


def test_the_id_tells_the_time_and_does_not_depend_on_where_the_content_is():
    assert snapshot_id(RECORD).startswith("20260125T143000Z-")
    elsewhere = attrs.evolve(ENTRY, packs=("c" * 64,), runs=((0, 5, 2),), depth=1)
    moved = attrs.evolve(RECORD, files=(elsewhere,), added=7)
    assert snapshot_id(moved) == snapshot_id(RECORD)
    assert snapshot_id(attrs.evolve(RECORD, message="x")) != snapshot_id(RECORD)


def test_any_changed_byte_of_a_record_is_noticed():
    data = encode(RECORD)
    for place in range(len(data)):
        for change in (0x01, 0x20, 0x80):
            broken = bytearray(data)
            broken[place] ^= change
            with pytest.raises((IntegrityError, FormatError)):
                decode(bytes(broken), SnapshotRecord, "here")


@given(st.integers(0, 600))
def test_a_record_that_was_cut_short_is_noticed(length):
    data = encode(RECORD)
    if length < len(data):
        with pytest.raises(IntegrityError):
            decode(data[:length], SnapshotRecord, "here")


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b".", b"..") and not {0, 47} & {*name})


@given(NAMES, NAMES, st.text(max_size=20) | st.sampled_from(["\0", "\x0000", "\x0080", "\0\x00ff"]))
def test_any_name_that_a_file_can_have_comes_back(name, target, message):
    path = f"a/{os.fsdecode(name)}"
    assert unsafe(path) is None
    link = LinkEntry(path=f"b/{os.fsdecode(name)}", target=os.fsdecode(target))
    record = attrs.evolve(RECORD, files=(attrs.evolve(ENTRY, path=path),), links=(link,), message=message)
    data = encode(record)
    data.decode()
    assert decode(data, SnapshotRecord, "here") == record
    assert identify(data) == snapshot_id(record)


def test_a_record_without_links_and_folders_has_the_bytes_that_it_always_had():
    body = encode(RECORD)
    for member in (b"trees", b"excluded", b"links", b"folders", b"skipped"):
        assert member not in body


@given(st.binary(max_size=200))
def test_garbage_is_not_a_record(garbage):
    with pytest.raises(IntegrityError):
        decode(garbage, SnapshotRecord, "here")


@pytest.mark.parametrize(
    "path",
    ["../etc/passwd", "/etc/passwd", "a/../../b", "", "a//b", "a/./b", "a\0b", "..", "a\0c3\0a4"],
)
def test_a_path_that_could_leave_its_root_or_has_two_spellings_is_refused(path):
    with pytest.raises(FormatError, match="cannot be used"):
        decode(forged(files=[file(path=path)]), SnapshotRecord, "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1"},
        {"time": "2026-01-25T14:30:00"},
        {"time": 0},
        {"files": [file(packs=["../../x"])]},
        {"files": [file(packs=[])]},
        {"files": [file(size=-1)]},
        {"files": [file(blake3="x" * 64)]},
        {"files": [file(runs=[[0, 0, 0]])]},
        {"files": [file(runs=[[0, -1, 1]])]},
        {"files": [file(runs=[[1, 0, 1]])]},
        {"files": [file(depth=2)]},
        {"files": [file(), file()]},
        {"files": [file(path=".novabackup/journal.json")]},
        {"links": [{"path": "../x", "target": "y"}]},
        {"links": [{"path": "x", "target": ""}]},
        {"links": [{"path": "x", "target": "a\0b"}]},
        {"links": [{"path": "x", "target": "/etc"}], "files": [file(path="x/passwd")]},
        {"links": [{"path": "x", "target": "/etc"}], "folders": [{"path": "x/a/b"}]},
        {"links": [{"path": "a", "target": "b"}], "files": [file()]},
        {"folders": [{"path": "/x"}]},
        {"folders": [{"path": ".novabackup"}]},
        {"folders": [{"path": "x", "attributes": {"mode": 4096, "uid": 0, "gid": 0, "mtime_ns": 0}}]},
        *(
            {"files": [file(attributes={"mode": 0, "uid": 0, "gid": 0, "mtime_ns": 0} | one)]}
            for one in ({"uid": 1 << 32}, {"gid": 1 << 32}, {"mtime_ns": 1 << 80})
        ),
        *(
            {"files": [file(report={"component": "Faiss", "path": "a", "exists": True, name: 1 << 63})]}
            for name in ("size", "count", "dimension")
        ),
        {"files": [file(size=1 << 63)]},
        {"added": 1 << 63},
        {"time": "9999-12-31T23:59:59Z"},
        {"time": "0001-01-01T00:00:00Z"},
        {"trees": ["**"]},
        {"declared": ["../x"]},
        {"tags": "one"},
        {"files": None},
    ],
)
def test_a_well_sealed_record_with_values_that_cannot_be_is_refused(changes):
    with pytest.raises(FormatError):
        decode(forged(**changes), SnapshotRecord, "here")


@pytest.mark.parametrize(
    "changes", [{"milliseconds": {"open": 10**18}}, {"rto_milliseconds": 10**18}, {"rto_milliseconds": -1}]
)
def test_nor_does_a_drill_take_longer_than_anybody_waits(changes):
    good = Drill(time=RECORD.time, snapshot="s", store="x", milliseconds={"open": 5}, rto_milliseconds=7)
    assert decode(encode(good), Drill, "here") == good
    body = msgspec.json.decode(msgspec.json.encode(good))
    with pytest.raises(FormatError):
        decode(seal(msgspec.json.encode(body | changes), "drill"), Drill, "here")


def test_a_well_sealed_record_with_good_values_is_believed():
    record = decode(forged(files=[file(), file(path="b")]), SnapshotRecord, "here")
    assert record.packs == ("b" * 64,)


def test_a_deeply_nested_record_is_refused():
    with pytest.raises((FormatError, IntegrityError)):
        decode(seal(b"[" * 100_000 + b"]" * 100_000), SnapshotRecord, "here")


def test_a_newer_format_says_so():
    with pytest.raises(FormatError, match="upgrade"):
        decode(forged(version=2), SnapshotRecord, "here")


def test_one_kind_of_record_is_not_taken_for_another():
    with pytest.raises(IntegrityError):
        decode(encode(Config(id="x")), SnapshotRecord, "here")


@pytest.mark.parametrize(
    ("path", "pattern", "selected"),
    [
        ("a.txt", "a.txt", True),
        ("a.txt", "*.txt", True),
        ("b/a.txt", "*.txt", False),
        ("b/a.txt", "*/*.txt", True),
        ("b/c/a.txt", "**/*.txt", True),
        ("a.txt", "**/*.txt", True),
        ("b/c", "b/**", True),
        ("a[1].txt", "a[1].txt", True),
        ("A.txt", "a.txt", False),
    ],
)
def test_patterns_select_part_by_part(path, pattern, selected):
    assert matches(path, pattern) is selected


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "C:/x", "a\x1b[1m", "\udcff"])
def test_names_that_only_some_places_can_hold_are_told_apart(name):
    assert unsafe(name) is None
    assert unportable(name)
    assert unportable(f"../{name}") == unsafe(f"../{name}")


@pytest.mark.parametrize(
    ("path", "is_covered"),
    [
        ("a/.venv", True),
        ("a/.venv/lib/x.py", True),
        (".venv", True),
        ("a/x.log", True),
        ("a/venv", False),
        ("log", False),
    ],
)
def test_what_is_left_out_is_left_out_with_all_below(path, is_covered):
    assert covered(path, LEFT_OUT) is is_covered
