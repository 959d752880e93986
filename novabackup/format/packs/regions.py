"""Finding the records of a FAISS file from its headers alone, so that content can be cut where vectors begin.

An inverted file moves all of its lists when one of them grows, and a generic chunker finds little of them again. But
the file says where its lists, codes, links and ids are. The readers here follow the fields that ``faiss.write_index``
of faiss 1.15 writes (``faiss/impl/index_write.cpp``), skip over the content, and trust nothing: every size has to lie
within the file, and all of them together have to end exactly where the file ends. Otherwise nothing is recognised,
which costs space and never correctness.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

__all__ = ["REGION", "Layout", "find_regions"]

REGION: Final = np.dtype(
    [("start", "<i8"), ("end", "<i8"), ("record", "<i8"), ("width", "u1"), ("fixed", "?"), ("aim", "<i8")], align=True
)
"""Records of one size, one after the other.

- ``start``, ``end``: where the first record begins and the last one ends. Between them are whole records, but for the
  links of an HNSW graph, where a node on several levels has more of them.
- ``record``: bytes of a record.
- ``width``: bytes of the words in a record, which compress better when sorted into planes; 1 if nothing is known.
- ``fixed``: whether records stay where they are while their content changes, as the links of a graph do. Then the place
  of a record is what to cut by, not its bytes.
- ``aim``: bytes of an average chunk: many where content grows at its end only, few where it grows at many places, since
  each of these costs a chunk.
"""

Layout = np.ndarray[tuple[int], np.dtype[Any]]
"""Rows of type `REGION`: an index may have a million lists, too many for objects."""

_WINDOW = 4 << 10
_DEEPEST = 8
_MOST_LISTS = 1 << 20
"""Lists of the largest index that is recognised: FAISS advises so many for a thousand million vectors."""
_MOST_READS = 96
"""On an object store every read is a request. A file that needs more than this is not worth the wait."""
_LARGEST_RECORD = 4 << 20
_MOST_LEVELS = 64

_ARRAY_AIM = 32 << 10
_LONG_CODES_AIM = 4 << 10
_LISTS_AIM = 1 << 10
_LINKS_AIM = 4 << 10

_FLOAT = 4
_INT = 4
_ID = 8
_SIZE = 8
_HALF_FLOATS = frozenset({4, 7})
"""Types of scalar quantizers that keep numbers of two bytes: fp16, bf16."""
_WITH_NORMS = frozenset({6, 7, 8, 9})
_WITH_TABLES = frozenset({8, 9})
"""Search types of additive quantizers that store norms, and those that store tables of norms as well."""


class _UnknownError(Exception):
    """The bytes are not those of a file that is recognised here."""


def find_regions(size: int, read: Callable[[int, int], bytes]) -> Layout:
    """Find the records of a FAISS file.

    Args:
        size: Bytes of the whole file.
        read: Reads ``(start, length)``; called at most 96 times, for 4 KiB each or for the sizes of inverted lists, and
            never for bytes behind the end. A file that does not begin like an index is read once.

    Returns:
        The regions in order, not overlapping, of type `REGION`; empty if the file is not recognised.
    """
    reader = _Reader(size, read)
    try:
        reader.index(0)
        reader.expect(reader.at == size)
    except _UnknownError:
        return np.empty(0, REGION)
    return np.concatenate([np.empty(0, REGION), *reader.parts])


class _Reader:
    """Walks through a file field by field, noting the regions that it skips."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.at = 0
        self.parts: list[Layout] = []
        self._size = size
        self._read = read
        self._reads = 0
        self._window = b""
        self._window_at = 0
        self._lists = 0

    @staticmethod
    def expect(condition: bool) -> None:
        if not condition:
            raise _UnknownError

    # -- fields

    def take(self, count: int) -> bytes:
        """Read the next bytes; at most what the file still holds is ever asked for."""
        self.expect(0 <= count <= self._size - self.at)
        begin = self.at - self._window_at
        if begin + count > len(self._window):
            self._reads += 1
            self.expect(self._reads <= _MOST_READS)
            self._window = self._read(self.at, min(max(count, _WINDOW), self._size - self.at))
            self._window_at, begin = self.at, 0
            self.expect(len(self._window) >= count)
        self.at += count
        return self._window[begin : begin + count]

    def fields(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def number(self, layout: str) -> int:
        return int(self.fields(layout)[0])

    def code(self) -> str:
        return self.take(4).decode("latin-1")

    def skip(self, count: int) -> None:
        self.expect(0 <= count <= self._size - self.at)
        self.at += count

    def vector(self, item: int, record: int = 0, width: int = 1, fixed: bool = False, aim: int = _ARRAY_AIM) -> None:
        """Skip a vector with its count in front; note it if it has records."""
        count = self.number("Q") * item
        start = self.at
        self.skip(count)
        self.expect(0 <= record <= _LARGEST_RECORD and record % width == 0)
        if count and record:
            self.expect(fixed or count % record == 0)
            self.parts.append(np.array([(start, self.at, record, width, fixed, aim)], REGION))

    # -- indexes

    def index(self, depth: int) -> str:
        """Skip an index with all that is nested in it.

        Returns:
            Its four-character code.
        """
        self.expect(depth < _DEEPEST)
        code = self.code()
        if code == "null":
            # In place of vectors that were left out (IO_FLAG_SKIP_STORAGE).
            return code
        skip = _INDEXES.get(code)
        if skip is None:
            raise _UnknownError
        if code.startswith("IB"):
            size = self.fields("iiq?i")[1]
        else:
            size, *_, metric = self.fields("iqqq?i")
            if metric > 1:
                # Only metrics other than the two usual ones have an argument.
                self.skip(4)
        skip(self, code, size, depth + 1)
        return code

    def flat(self, _code: str, dimension: int, _depth: int) -> None:
        self.vector(4, _FLOAT * dimension, _FLOAT)

    def lsh(self, _code: str, _dimension: int, depth: int) -> None:
        self.fields("i??")
        self.vector(_FLOAT)
        code_size = self.number("i")
        self.transform(depth)
        self.vector(1, code_size)

    def pq(self, _code: str, _dimension: int, _depth: int) -> None:
        self.vector(1, self.product_quantizer())
        self.fields("i?i")

    def sq(self, _code: str, _dimension: int, _depth: int) -> None:
        code_size, width = self.scalar_quantizer()
        self.vector(1, code_size, width)

    def two_layers(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.fields("QB")
        self.product_quantizer()
        self.vector(1, self.fields("QQQ")[2])

    def additive(self, code: str, _dimension: int, _depth: int) -> None:
        self.additive_quantizer(local_search=code == "IxLS")
        self.vector(1, self.number("Q"))

    def pq_fast_scan(self, _code: str, _dimension: int, _depth: int) -> None:
        self.product_quantizer()
        _implementation, block, _qbs, _total, parts = self.fields("iiiQQ")
        # Codes are interleaved in blocks of so many vectors, four bits each, so a block is the record.
        self.vector(1, block * parts // 2)

    def rabitq(self, code: str, _dimension: int, _depth: int) -> None:
        code_size = self.fields("QQi" if code == "Ixrq" else "QQiQ")[1]
        self.vector(1, code_size)
        self.vector(_FLOAT)
        self.skip(1)

    def multi_quantizer(self, _code: str, _dimension: int, _depth: int) -> None:
        self.product_quantizer()

    def from_float(self, _code: str, _code_size: int, depth: int) -> None:
        self.index(depth)

    def binary_flat(self, _code: str, code_size: int, _depth: int) -> None:
        self.vector(1, code_size)

    def pre_transform(self, _code: str, _dimension: int, depth: int) -> None:
        for _ in range(self.number("i")):
            self.transform(depth)
        self.index(depth)

    def refine(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.index(depth)
        self.skip(4)

    def id_map(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.vector(_ID, _ID, _ID)

    def hnsw(self, code: str, _dimension: int, depth: int) -> None:
        if code in ("IHc2", "IBHc"):
            self.fields("??ii" if code == "IHc2" else "??i")
        self.graph()
        self.index(depth)

    def nn_descent(self, _code: str, _dimension: int, depth: int) -> None:
        neighbours = self.fields("iiiiiiiii?")[2]
        self.vector(_INT, _INT * neighbours, _INT, fixed=True, aim=_LINKS_AIM)
        self.index(depth)

    # -- inverted files

    def ivf(self, code: str, _dimension: int, depth: int) -> None:
        self.fields("QQ")
        self.index(depth)
        self.direct_map()
        width = _FLOAT if code in ("IwFl", "IwFd") else 1
        if code == "IwFd":
            self.vector(_ID, 2 * _ID, _ID)
        elif code in ("IwPQ", "IwQR"):
            self.fields("?Q")
            self.product_quantizer()
        elif code == "IwSq":
            width = self.scalar_quantizer()[1]
            self.fields("Q?")
        elif code in ("IwRQ", "IwLS"):
            self.skip(8)
            self.additive_quantizer(local_search=code == "IwLS")
            self.fields("?i")
        elif code == "IwSh":
            self.transform(depth)
            self.fields("ifi")
            self.vector(_FLOAT)
        elif code == "IwPf":
            self.fields("?QiQiQ")
            self.product_quantizer()
        elif code in ("Iwrq", "Iwrr"):
            self.fields("QQiQ?B" if code == "Iwrq" else "QQiQQ?B")
        self.inverted_lists(width)
        if code == "IwQR":
            self.vector(1, self.product_quantizer())
            self.skip(4)

    def ivf_with_own_quantizer(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        if self.number("?"):
            self.transform(depth)
        if self.index(depth) in ("IwPQ", "IwQR"):
            self.skip(4)

    def direct_map(self) -> None:
        hashtable = self.number("B") == 2
        self.vector(_ID, _ID, _ID)
        if hashtable:
            self.vector(2 * _ID, 2 * _ID, _ID)

    def inverted_lists(self, width: int) -> None:
        """Skip the lists of an inverted file, whose codes consist of words so wide."""
        code = self.code()
        if code == "il00":
            return
        count, code_size = self.fields("QQ")
        self._lists += count
        self.expect(self._lists <= _MOST_LISTS)
        if code == "ilar":
            self.array_lists(count, code_size, width)
        elif code == "ilbl":
            # Blocks of interleaved codes. The size of a code is -1 there.
            block = self.fields("QQ")[1]
            for _ in range(count):
                self.vector(_ID, _ID, _ID, aim=_LISTS_AIM)
                self.vector(1, block, aim=_codes_aim(block))
        else:
            raise _UnknownError

    def array_lists(self, lists: int, code_size: int, width: int) -> None:
        kind = self.code()
        self.expect(kind in ("full", "sprs") and code_size <= _LARGEST_RECORD and code_size % width == 0)
        numbers = self.number("Q")
        self.expect(numbers == lists if kind == "full" else numbers <= 2 * lists and numbers % 2 == 0)
        counts = np.frombuffer(self.take(_SIZE * numbers), "<u8")
        if kind == "sprs":
            places, counts = counts[0::2], counts[1::2]
            self.expect(bool(np.all(places[1:] > places[:-1])) and bool(np.all(places < lists)))
        counts = counts[counts > 0]
        # Floating point sums do not wrap around. They are rounded, so the exact sum is compared below.
        most = (self._size - self.at) // (code_size + _ID)
        self.expect(float(np.sum(counts, dtype=np.float64)) <= 2.0 * most)
        sizes = counts.astype(np.int64)
        ends = self.at + np.cumsum(sizes * (code_size + _ID))
        self.skip(int(ends[-1]) - self.at if len(ends) else 0)
        part = np.zeros(2 * len(sizes), REGION)
        codes, ids = part[0::2], part[1::2]
        ids["end"] = ends
        codes["end"] = ids["start"] = ends - sizes * _ID
        codes["start"] = codes["end"] - sizes * code_size
        codes["record"], ids["record"] = code_size, _ID
        codes["width"], ids["width"] = width, _ID
        codes["aim"], ids["aim"] = _codes_aim(code_size), _LISTS_AIM
        # QT_0bit leaves no codes, only ids.
        self.parts.append(part if code_size else ids)

    # -- parts of indexes

    def graph(self) -> None:
        """Skip the links of an HNSW graph."""
        self.vector(8)
        slots = self.number("Q")
        self.expect(slots <= _MOST_LEVELS)
        per_level = struct.unpack(f"<{slots}i", self.take(_INT * slots))
        # Levels are small numbers that repeat, so their bytes say nothing about places. They are only appended to.
        self.vector(_INT, _INT, _INT, fixed=True)
        self.vector(_ID, _ID, _ID)
        # The links of a node on its lowest level. Those of the few nodes that are on more levels follow their first
        # ones, so later nodes begin between two multiples; but they begin there again when the index has grown.
        links = per_level[1] if slots > 1 else 0
        self.vector(_INT, _INT * links, _INT, fixed=True, aim=_LINKS_AIM)
        self.fields("iiiii")

    def product_quantizer(self) -> int:
        """Skip a product quantizer.

        Returns:
            Bytes of a code.
        """
        dimension, parts, bits = self.fields("QQQ")
        self.expect(0 < parts <= dimension <= _LARGEST_RECORD and 0 < bits <= 32)
        self.vector(_FLOAT, _FLOAT * (dimension // parts), _FLOAT)
        return int(parts * bits + 7) // 8

    def scalar_quantizer(self) -> tuple[int, int]:
        """Skip a scalar quantizer.

        Returns:
            Bytes of a code, and bytes of its words.
        """
        kind, *_, code_size = self.fields("iifQQ")
        self.vector(_FLOAT)
        return code_size, 2 if kind in _HALF_FLOATS else 1

    def additive_quantizer(self, local_search: bool) -> None:
        dimension, _parts = self.fields("QQ")
        self.vector(_SIZE)
        self.skip(1)
        self.vector(_FLOAT, _FLOAT * dimension, _FLOAT)
        search = self.fields("iff")[0]
        if search in _WITH_NORMS:
            self.vector(4, _FLOAT, _FLOAT)
        if search in _WITH_TABLES:
            self.vector(_FLOAT, _FLOAT, _FLOAT)
        self.fields("QQQQQffQiQ?" if local_search else "ii")

    def transform(self, depth: int) -> None:
        """Skip a transformation of vectors."""
        self.expect(depth < _DEEPEST)
        code = self.code()
        if code == "Viqt":
            self.floats()
            self.skip(1)
            self.transform(depth + 1)
            self.transform(depth + 1)
        elif code in ("rrot", "LTra", "Pcam", "Viqm"):
            if code == "Pcam":
                self.fields("ff?i")
                for _ in range(3):
                    self.floats()
            elif code == "Viqm":
                self.fields("ii")
            self.skip(1)
            self.floats()
            self.floats()
        elif code in ("RmDT", "VCnt"):
            self.floats()
        elif code in ("VNrm", "HRot"):
            self.skip(4)
        else:
            raise _UnknownError
        self.fields("ii?")

    def floats(self) -> None:
        """Skip the numbers of a transformation: a matrix, a mean."""
        self.vector(_FLOAT, _FLOAT, _FLOAT)


def _codes_aim(code_size: int) -> int:
    return _LONG_CODES_AIM if code_size >= 512 else _LISTS_AIM


_INDEXES: Mapping[str, Callable[[_Reader, str, int, int], None]] = MappingProxyType(
    {
        **dict.fromkeys(("IxFI", "IxF2", "IxFl"), _Reader.flat),
        **dict.fromkeys(("IxRq", "IxLS"), _Reader.additive),
        **dict.fromkeys(("Ixrq", "Ixrr"), _Reader.rabitq),
        **dict.fromkeys(("IxMp", "IxM2", "IBMp", "IBM2"), _Reader.id_map),
        **dict.fromkeys(("IHNf", "IHNp", "IHNs", "IHN2", "IHc2", "IH00", "IBHf", "IBHc"), _Reader.hnsw),
        **dict.fromkeys(("IwFl", "IwFd", "IwPQ", "IwQR", "IwSq", "IwRQ", "IwLS"), _Reader.ivf),
        **dict.fromkeys(("IwSh", "IwPf", "Iwrq", "Iwrr", "IBwF"), _Reader.ivf),
        "IxHe": _Reader.lsh,
        "IxPq": _Reader.pq,
        "IxSQ": _Reader.sq,
        "Ix2L": _Reader.two_layers,
        "IPfs": _Reader.pq_fast_scan,
        "Imiq": _Reader.multi_quantizer,
        "IxPT": _Reader.pre_transform,
        "IxRF": _Reader.refine,
        "INNf": _Reader.nn_descent,
        "IwIQ": _Reader.ivf_with_own_quantizer,
        "IBxF": _Reader.binary_flat,
        "IBFf": _Reader.from_float,
    }
)
