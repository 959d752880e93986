"""Codecs: what was compressed comes back, and no stored byte makes reading take more than it should."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import noise

from novabackup.errors import FormatError, IntegrityError
from novabackup.format.packs.codecs import Codec, Compressor, decompress

compress = Compressor().compress

WIDTHS = [1, 2, 3, 4, 8]


@given(content=st.binary(max_size=2000) | st.integers(0, 200_000).map(noise), width=st.sampled_from(WIDTHS))
def test_any_content_comes_back(content, width):
    codec, stored = compress(content, width)
    assert decompress(codec, stored, len(content)) == content
    assert len(stored) <= len(content)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_repeats_is_compressed_in_any_width(width):
    codec, stored = compress(b"replace the timing belt " * 20_000, width)
    assert codec != Codec.STORED
    assert len(stored) < 50_000


def test_floats_are_smaller_by_planes_than_by_zstandard():
    rows = np.random.default_rng(1).normal(size=(500, 384)).astype(np.float32)
    raw = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tobytes()
    codec, stored = compress(raw, 4)
    assert codec == Codec.PLANES
    assert len(stored) < 0.85 * len(raw) < len(compress(raw)[1])


def test_numbers_that_count_up_nearly_vanish():
    assert len(compress(np.arange(100_000, dtype="<i8").tobytes(), 8)[1]) < 5000


@pytest.mark.parametrize("width", WIDTHS)
def test_noise_is_stored_as_it_is(width):
    content = noise(300_000)
    assert compress(content, width) == (Codec.STORED, content)


def test_results_may_share_a_buffer_and_a_compressor_may_be_used_again():
    compressor, into = Compressor(), bytearray(200_000)
    for seed, width in enumerate([4, 1, 8, 4, 2]):
        content = np.random.default_rng(seed).normal(size=20_000).astype("<f4").tobytes()
        codec, stored = compressor.compress(content, width, into)
        assert decompress(codec, bytes(stored), len(content)) == content


def test_an_unknown_codec_is_told_from_damage():
    with pytest.raises(FormatError, match="upgrade"):
        decompress(77, b"", 0)


@given(stored=st.binary(max_size=200), size=st.integers(0, 2**40))
def test_forged_planes_are_refused_before_memory_is_taken(stored, size):
    try:
        raw = decompress(Codec.PLANES, stored, size)
    except IntegrityError:
        return
    assert len(raw) == size <= 200


def test_any_changed_byte_of_planes_is_refused_or_changes_no_length():
    content = np.arange(3000, dtype="<f4").tobytes() + b"abc"
    _, stored = compress(content, 4)
    for place in range(len(stored)):
        broken = bytearray(stored)
        broken[place] ^= 0x40
        try:
            assert len(decompress(Codec.PLANES, bytes(broken), len(content))) == len(content)
        except IntegrityError:
            continue


def test_a_plane_that_holds_another_number_of_bytes_is_refused():
    _, packed = compress(bytes(1000))
    forged = struct.pack("<B2I", 2, len(packed), 500) + packed + bytes(500)
    with pytest.raises(IntegrityError):
        decompress(Codec.PLANES, forged, 1000)
