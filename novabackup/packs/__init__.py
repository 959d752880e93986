"""How content becomes packs: cutting into chunks, compressing frames, the pack format."""

from novabackup.packs.builder import FRAME_SIZE, PackBuilder, SealedPack
from novabackup.packs.chunking import Chunker, Piece
from novabackup.packs.codecs import Compression, Compressor, word_width
from novabackup.packs.format import (
    HASH,
    HEADER,
    Frame,
    Hashes,
    Pack,
    SqueezedFrame,
    Table,
    open_frame,
    prove_frame,
    read_table,
    squeeze_frame,
    unsealed,
)
from novabackup.packs.known import NOWHERE, UNKNOWN, KnownChunks, Places, Runs, following, split
from novabackup.packs.regions import find_regions

__all__ = [
    "FRAME_SIZE",
    "HASH",
    "HEADER",
    "NOWHERE",
    "UNKNOWN",
    "Chunker",
    "Compression",
    "Compressor",
    "Frame",
    "Hashes",
    "KnownChunks",
    "Pack",
    "PackBuilder",
    "Piece",
    "Places",
    "Runs",
    "SealedPack",
    "SqueezedFrame",
    "Table",
    "find_regions",
    "following",
    "open_frame",
    "prove_frame",
    "read_table",
    "split",
    "squeeze_frame",
    "unsealed",
    "word_width",
]
