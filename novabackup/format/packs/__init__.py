"""How content becomes packs: cutting into chunks, compressing frames, the pack format."""

from novabackup.format.packs.builder import FRAME_SIZE, PackBuilder, SealedPack
from novabackup.format.packs.chunking import Chunker, Piece
from novabackup.format.packs.codecs import Codec, Compression, Compressor
from novabackup.format.packs.format import (
    HASH,
    HEADER,
    Frame,
    Hashes,
    Pack,
    Sizes,
    SqueezedFrame,
    Table,
    open_frame,
    opened_frame,
    prove_frame,
    read_table,
    squeeze_frame,
    unsealed,
)
from novabackup.format.packs.regions import find_regions

__all__ = [
    "FRAME_SIZE",
    "HASH",
    "HEADER",
    "Chunker",
    "Codec",
    "Compression",
    "Compressor",
    "Frame",
    "Hashes",
    "Pack",
    "PackBuilder",
    "Piece",
    "SealedPack",
    "Sizes",
    "SqueezedFrame",
    "Table",
    "find_regions",
    "open_frame",
    "opened_frame",
    "prove_frame",
    "read_table",
    "squeeze_frame",
    "unsealed",
]
