"""Cutting and packing: content comes back exactly, sharing survives edits, and no forged byte is believed."""

from __future__ import annotations

import itertools
import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from novabackup.errors import FormatError, IntegrityError
from novabackup.packs import PackBuilder, cut, open_frame, read_table
from novabackup.packs.chunking import LARGEST_CHUNK
from novabackup.packs.format import FRAME_SIZE


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def pack(content: bytes):
    builder = PackBuilder()
    for chunk in cut([content]):
        builder.add(chunk, blake3(chunk).digest())
    return builder.finish()


def unpack(pack_id: str, data: bytes) -> bytes:
    table = read_table(pack_id, len(data), lambda start, length: data[start : start + length])
    pieces = [
        bytes(piece)
        for frame in table.frames
        for piece in open_frame(pack_id, table, frame, data[frame.offset : frame.offset + frame.stored])
    ]
    return b"".join(pieces)


@given(
    content=st.integers(0, 400_000).map(noise) | st.binary(max_size=3000),
    places=st.lists(st.integers(0, 400_000), max_size=6),
)
def test_chunks_are_the_content_and_do_not_depend_on_how_it_was_read(content, places):
    ends = sorted({min(place, len(content)) for place in places} | {0, len(content)})
    blocks = [content[start:end] for start, end in itertools.pairwise(ends)]
    chunks = [bytes(chunk) for chunk in cut(blocks)]
    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= LARGEST_CHUNK for chunk in chunks)
    assert chunks == [bytes(chunk) for chunk in cut([content])]


def test_an_insertion_changes_only_the_chunks_around_it():
    before = noise(1_000_000)
    after = before[:300_000] + b"something new" + before[300_000:]
    old = {bytes(chunk) for chunk in cut([before])}
    new = [chunk for chunk in map(bytes, cut([after])) if chunk not in old]
    assert sum(map(len, new)) < 3 * LARGEST_CHUNK


@given(st.binary(max_size=5000) | st.integers(0, 3 * FRAME_SIZE).map(noise))
def test_a_pack_gives_back_what_was_put_in(content):
    made = pack(content)
    data = b"".join(made.blocks)
    assert len(data) == made.size
    assert unpack(made.id, data) == content


def test_text_is_compressed_and_noise_is_stored_as_it_is():
    assert pack(b"check the brake pads " * 50_000).size < 20_000
    assert pack(noise(500_000)).size < 502_500


def test_two_packs_of_the_same_content_have_different_names():
    assert pack(b"the same").id != pack(b"the same").id


def test_any_changed_byte_of_a_pack_is_noticed():
    content = b"tighten the wheel nuts crosswise " * 40 + noise(3000)
    made = pack(content)
    data = b"".join(made.blocks)
    for place in range(16, len(data)):  # the header is checked by the repository, which knows the file
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises((IntegrityError, FormatError)):
            unpack(made.id, bytes(broken))


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100])
def test_a_pack_that_was_cut_short_is_noticed(length):
    made = pack(noise(10_000))
    data = b"".join(made.blocks)[:length]
    with pytest.raises(IntegrityError):
        unpack(made.id, data)


@given(st.binary(max_size=400))
def test_garbage_is_never_taken_for_a_table(garbage):
    with pytest.raises((IntegrityError, FormatError)):
        read_table("0" * 64, len(garbage), lambda start, length: garbage[start : start + length])


@given(raw=st.binary(max_size=300), codec=st.integers(0, 3), size=st.integers(0, 2**32 - 1), version=st.integers(0, 2))
def test_a_forged_table_with_the_right_hash_takes_no_memory_and_is_refused(raw, codec, size, version):
    tail = raw + b"NOVATAIL" + version.to_bytes(2, "little") + bytes([codec, 0])
    tail += len(raw).to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(12)
    with pytest.raises((IntegrityError, FormatError)):
        read_table(blake3(tail).hexdigest(), len(tail), lambda start, length: tail[start : start + length])
