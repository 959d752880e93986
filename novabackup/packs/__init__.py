"""How content becomes packs: cutting into chunks, compressing frames, the pack format."""

from novabackup.packs.builder import FRAME_SIZE, PackBuilder, SealedPack
from novabackup.packs.chunking import Chunker, Piece
from novabackup.packs.codecs import Codec, Compression, Compressor
from novabackup.packs.format import (
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
from novabackup.packs.known import NOWHERE, UNKNOWN, KnownChunks, Places, Runs, following, split
from novabackup.packs.regions import find_regions

__all__ = [
    "FRAME_SIZE",
    "HASH",
    "HEADER",
    "NOWHERE",
    "UNKNOWN",
    "Chunker",
    "Codec",
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
    "Sizes",
    "SqueezedFrame",
    "Table",
    "find_regions",
    "following",
    "open_frame",
    "opened_frame",
    "prove_frame",
    "read_table",
    "split",
    "squeeze_frame",
    "unsealed",
]
