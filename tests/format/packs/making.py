"""Content, and the way into packs and back, for the tests of this folder."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np
from blake3 import blake3

from novabackup.format.packs import (
    FRAME_SIZE,
    HASH,
    Chunker,
    Compressor,
    Pack,
    PackBuilder,
    Piece,
    find_regions,
    read_table,
    squeeze_frame,
)
from novabackup.format.packs.format import open_frame, prove_frame, unsealed
from novabackup.format.sealing import PLAIN, Protection


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def pieces(content: bytes, blocks: Iterable[bytes] | None = None) -> list[Piece]:
    """Cut content, as it is recognised."""
    layout = find_regions(len(content), lambda start, length: content[start : start + length])
    chunker = Chunker(len(content), layout)
    return [piece for block in blocks or [content] for piece in chunker.feed(block)]


def chunks(found: Iterable[Piece]) -> list[bytes]:
    return [bytes(part) for piece in found for part in parts(piece)]


def parts(piece: Piece) -> list[memoryview]:
    starts = [0, *piece.ends.tolist()]
    return [piece.data[start:end] for start, end in itertools.pairwise(starts)]


def hashes(piece: Piece) -> np.ndarray:
    digests = b"".join(blake3(part).digest() for part in parts(piece))
    return np.frombuffer(digests, np.uint8).reshape(-1, HASH)


def builder(protection: Protection = PLAIN) -> PackBuilder:
    """Give a builder that compresses at once."""

    def squeeze(seal, number, raw, length, width):
        done = Future()
        view = memoryview(raw)[:length]
        done.set_result(squeeze_frame(Compressor(), seal, number, view, width, bytearray(length)))
        return done

    return PackBuilder(protection.new_pack(), lambda: bytearray(FRAME_SIZE), squeeze)


def pack(content: bytes, protection: Protection = PLAIN) -> Pack:
    made = builder(protection)
    for piece in pieces(content):
        made.add(piece, hashes(piece))
    return made.seal().pack()


def table_of(pack_id: str, data: bytes, protection: Protection = PLAIN):
    return read_table(pack_id, protection, lambda length: (data[max(0, len(data) - length) :], len(data)))


def unpack(pack_id: str, data: bytes, protection: Protection = PLAIN) -> list[bytes]:
    """Give the chunks of a pack, in their order there."""
    table = table_of(pack_id, data, protection)
    found = []
    for frame in filter(None, (*table.frames, table.padding)):
        packed = unsealed(pack_id, table.seal, frame, data[frame.offset : frame.offset + frame.stored])
        raw = open_frame(pack_id, frame, packed)
        prove_frame(pack_id, table.seal, frame, raw)
        ends = np.cumsum(table.sizes[frame.first : frame.first + frame.chunks]).tolist()
        found += [bytes(raw[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return found
