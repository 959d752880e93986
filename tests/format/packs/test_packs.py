"""Packing: content comes back exactly, and no forged byte is believed."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from making import builder, chunks, hashes, noise, pack, pieces, table_of, unpack

from novabackup.errors import FormatError, IntegrityError
from novabackup.format.packs import FRAME_SIZE, Piece
from novabackup.format.sealing import PLAIN
from novabackup.format.sealing.aead import DataKey, Sealing

SEALING = Sealing([DataKey(bytes(range(32)))])
PROTECTIONS = pytest.mark.parametrize("protection", [PLAIN, SEALING], ids=["plain", "sealed"])


@PROTECTIONS
@given(content=st.binary(max_size=5000) | st.integers(0, 3 * FRAME_SIZE).map(noise))
def test_a_pack_gives_back_what_was_put_in(protection, content):
    if not content:
        return
    made = pack(content, protection)
    data = b"".join(made.blocks)
    assert len(data) == made.size
    assert b"".join(unpack(made.id, data, protection)) == content


@given(st.lists(st.tuples(st.sampled_from([1, 4, 8]), st.integers(1, 400_000)), min_size=1, max_size=12))
def test_chunks_of_different_kinds_are_found_under_their_numbers(kinds):
    made, expected = builder(), []
    for seed, (width, size) in enumerate(kinds):
        ends = np.unique(np.append(np.arange(8000, size, 8000), size))
        piece = Piece(memoryview(noise(size, seed)), ends, width)
        assert made.add(piece, hashes(piece)) == len(expected)
        expected += chunks([piece])
    sealed = made.seal()
    done = sealed.pack()
    there = unpack(done.id, b"".join(done.blocks))
    assert [there[number] for number in sealed.numbers] == expected


def test_a_chunk_larger_than_a_frame_has_one_of_its_own():
    made = builder()
    for size in (1000, 3 * FRAME_SIZE, 1000):
        piece = Piece(memoryview(noise(size)), np.array([size]), 1)
        made.add(piece, hashes(piece))
    done = made.seal().pack()
    assert [frame.size for frame in table_of(done.id, b"".join(done.blocks)).frames] == [1000, 3 * FRAME_SIZE, 1000]


def test_text_is_compressed_and_noise_is_stored_as_it_is():
    assert pack(b"check the brake pads " * 50_000).size < 20_000
    assert pack(noise(500_000)).size < 504_500


def test_two_packs_of_the_same_content_have_different_names():
    assert pack(b"the same").id != pack(b"the same").id


@PROTECTIONS
def test_any_changed_byte_of_a_pack_is_noticed(protection):
    content = b"tighten the wheel nuts crosswise " * 40 + noise(3000)
    made = pack(content, protection)
    data = b"".join(made.blocks)
    for place in range(16, len(data)):  # the header is checked by the repository, which knows the file
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises((IntegrityError, FormatError)):
            unpack(made.id, bytes(broken), protection)


def test_a_sealed_pack_opens_with_its_own_key_only():
    made = pack(noise(10_000), SEALING)
    for other in (Sealing([DataKey(bytes(32))]), PLAIN):
        with pytest.raises(IntegrityError):
            unpack(made.id, b"".join(made.blocks), other)
    plain = pack(noise(10_000))
    with pytest.raises(IntegrityError, match="expected one that is encrypted"):
        unpack(plain.id, b"".join(plain.blocks), SEALING)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100])
def test_a_pack_that_was_cut_short_is_noticed(length):
    made = pack(noise(10_000))
    data = b"".join(made.blocks)[:length]
    with pytest.raises(IntegrityError):
        unpack(made.id, data)


@given(st.binary(max_size=400))
def test_garbage_is_never_taken_for_a_table(garbage):
    with pytest.raises((IntegrityError, FormatError)):
        table_of("0" * 64, garbage)


@given(raw=st.binary(max_size=300), codec=st.integers(0, 4), size=st.integers(0, 2**32 - 1), version=st.integers(0, 2))
def test_a_forged_table_with_the_right_hash_takes_no_memory_and_is_refused(raw, codec, size, version):
    tail = raw + b"NOVATAIL" + version.to_bytes(2, "little") + bytes([codec, 0])
    tail += len(raw).to_bytes(4, "little") + size.to_bytes(4, "little") + bytes(12)
    with pytest.raises((IntegrityError, FormatError)):
        table_of(blake3(tail).hexdigest(), tail)


def test_a_table_larger_than_the_first_look_is_read_in_whole():
    content = noise(6 << 20)
    made = builder()
    for piece in pieces(content):
        made.add(piece, hashes(piece))
    piece = Piece(memoryview(noise(100_000, 1)), np.arange(20, 100_001, 20), 1)
    made.add(piece, hashes(piece))
    done = made.seal().pack()
    assert len(table_of(done.id, b"".join(done.blocks))) > 5000
