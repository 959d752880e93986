"""How content becomes packs: cutting into chunks, compressing frames, the pack format."""

from novabackup.packs.chunking import cut
from novabackup.packs.format import HEADER, Frame, Pack, PackBuilder, Table, open_frame, read_table

__all__ = ["HEADER", "Frame", "Pack", "PackBuilder", "Table", "cut", "open_frame", "read_table"]
