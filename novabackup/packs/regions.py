"""Finding the records of a FAISS file from its headers alone, so that content can be cut where vectors begin.

An inverted file moves all of its lists when one of them grows, and a generic chunker finds little of them again. But
the file says where its lists, codes, links and ids are. The readers here follow the fields that ``faiss.write_index``
writes, skip over the content, and believe nothing: every size has to lie within the file, and all of them together have
to end exactly where the file ends. Otherwise nothing is recognised, which costs space and never correctness.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import attrs
import numpy as np

__all__ = ["REGION_ROW", "Region", "find_layout", "find_regions"]

Layout = np.ndarray[tuple[int], np.dtype[Any]]

REGION_ROW: Final = np.dtype(
    [("start", "<i8"), ("end", "<i8"), ("record", "<i8"), ("floats", "?"), ("fixed", "?")], align=True
)
_WINDOW = 4 << 10
_DEEPEST = 8
_MOST_LISTS = 1 << 20
"""Lists of the largest index that is recognised: FAISS advises so many for a thousand million vectors."""
_MOST_READS = 96
"""On an object store every read is a request. A file that needs more than this is not worth the wait."""
_LARGEST_RECORD = 4 << 20
_MOST_LEVELS = 64
_ID = 8
_LEVELS_RECORD = 64
_METRIC_WITH_ARGUMENT = 2


@attrs.frozen
class Region:
    """Records of one size, one after the other.

    Attributes:
        start: Where the first record begins in the file.
        end: Where the last one ends.
        record: Bytes of a record.
        floats: Whether the records are words of four bytes (floats, links between nodes), whose bytes compress better
            when they are sorted into planes.
        fixed: Whether records stay where they are while their content changes, as the links of a graph do. Then the
            place of a record is what to cut by, not its bytes.
    """

    start: int
    end: int
    record: int
    floats: bool
    fixed: bool = False


class _UnknownError(Exception):
    """The bytes are not those of a file that is recognised here."""


def find_regions(size: int, read: Callable[[int, int], bytes]) -> tuple[Region, ...]:
    """Find the records of a FAISS file.

    Args:
        size: Bytes of the whole file.
        read: Reads ``(start, length)``; called a few times, for a few kilobytes and the sizes of inverted lists.

    Returns:
        The regions in order, not overlapping; empty if the file is not recognised.
    """
    return tuple(Region(*row) for row in find_layout(size, read).tolist())


def find_layout(size: int, read: Callable[[int, int], bytes]) -> Layout:
    """Find the same regions as `find_regions`, as rows of an array: an index may have a million lists.

    Args:
        size: Bytes of the whole file.
        read: Reads ``(start, length)``.

    Returns:
        The regions; type ``REGION_ROW``.
    """
    reader = _Reader(size, read)
    try:
        reader.index(0)
        reader.expect(reader.at == size)
    except _UnknownError:
        return np.empty(0, REGION_ROW)
    return reader.layout()


class _Reader:
    """Walks through a file field by field, noting the regions that it skips."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.at = 0
        self._size = size
        self._read = read
        self._reads = 0
        self._window = b""
        self._window_at = 0
        self._parts: list[Layout] = []
        self._lists = 0

    def layout(self) -> Layout:
        return np.concatenate([*self._parts, np.empty(0, REGION_ROW)])

    @staticmethod
    def expect(condition: bool) -> None:
        if not condition:
            raise _UnknownError

    # -- fields

    def take(self, count: int) -> bytes:
        """Read the next bytes; at most what the file still holds is ever asked for."""
        self.expect(0 <= count <= self._size - self.at)
        begin = self.at - self._window_at
        if begin < 0 or begin + count > len(self._window):
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

    def content(self, count: int, record: int, floats: bool = False, fixed: bool = False) -> None:
        """Skip so many bytes of records and note them."""
        self.expect(0 <= record <= _LARGEST_RECORD)
        start = self.at
        self.skip(count)
        if count and record:
            self._parts.append(np.array([(start, self.at, record, floats, fixed)], REGION_ROW))

    def vector(self, item: int, record: int = 0, floats: bool = False, fixed: bool = False) -> None:
        """Skip a vector with its count in front; note it if it has records."""
        self.content(self.number("Q") * item, record, floats, fixed)

    # -- indexes

    def index(self, depth: int) -> tuple[str, int]:
        """Skip an index with all that is nested in it.

        Returns:
            Its four-character code, and its dimension (0 where it has none).
        """
        self.expect(depth < _DEEPEST)
        code = self.code()
        if code == "null":
            self.expect(depth > 0)
            return code, 0
        skip = _INDEXES.get(code)
        if skip is None:
            raise _UnknownError
        if code.startswith("IB"):
            dimension, code_size = self.fields("iiq?i")[:2]
            self.expect(dimension >= 0 and code_size >= 0)
            skip(self, code, code_size, depth + 1)
        else:
            dimension, _total, _, _, _trained, metric = self.fields("iqqq?i")
            if metric >= _METRIC_WITH_ARGUMENT:
                self.skip(4)
            self.expect(dimension >= 0)
            skip(self, code, dimension, depth + 1)
        return code, dimension

    def flat(self, _code: str, dimension: int, _depth: int) -> None:
        self.vector(4, 4 * dimension, floats=True)

    def lsh(self, _code: str, _dimension: int, depth: int) -> None:
        self.fields("i??")
        self.vector(4)
        code_size = self.number("i")
        self.transform(depth)
        self.vector(1, code_size)

    def pq(self, _code: str, _dimension: int, _depth: int) -> None:
        self.vector(1, self.product_quantizer())
        self.fields("i?i")

    def sq(self, _code: str, _dimension: int, _depth: int) -> None:
        self.vector(1, self.scalar_quantizer())

    def two_layers(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.fields("QB")
        self.product_quantizer()
        code_size = self.fields("QQQ")[2]
        self.vector(1, code_size)

    def additive(self, code: str, _dimension: int, _depth: int) -> None:
        self.additive_quantizer(local_search=code == "IxLS")
        code_size = self.number("Q")
        self.vector(1, code_size)

    def pq_fast_scan(self, _code: str, _dimension: int, _depth: int) -> None:
        self.product_quantizer()
        _implementation, block, _qbs, _total, m2 = self.fields("iiiQQ")
        # Codes are interleaved in blocks of so many vectors, four bits each, so a block is the record.
        self.vector(1, block * m2 // 2)

    def rabitq(self, code: str, _dimension: int, _depth: int) -> None:
        code_size = self.fields("QQi" if code == "Ixrq" else "QQiQ")[1]
        self.vector(1, code_size)
        self.vector(4)
        self.fields("B")

    def multi_quantizer(self, _code: str, _dimension: int, _depth: int) -> None:
        self.product_quantizer()

    def row_scaled(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)

    def pre_transform(self, _code: str, _dimension: int, depth: int) -> None:
        count = self.number("i")
        self.expect(0 <= count <= _DEEPEST)
        for _ in range(count):
            self.transform(depth)
        self.index(depth)

    def refine(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.index(depth)
        self.skip(4)

    def id_map(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        self.vector(_ID, _ID)

    def hnsw(self, code: str, _dimension: int, depth: int) -> None:
        if code == "IHc2":
            self.fields("??ii")
        elif code in {"IHNc", "IBHc"}:
            self.fields("??i")
        elif code == "IHfP":
            self.skip(8)
            self.vector(4, 4, floats=True)
        self.graph()
        self.index(depth)

    def nn_descent(self, _code: str, _dimension: int, depth: int) -> None:
        k = self.fields("iiiiiiiii?")[2]
        self.expect(k >= 0)
        self.vector(4, 4 * k, floats=True, fixed=True)
        self.index(depth)

    def binary_flat(self, _code: str, code_size: int, _depth: int) -> None:
        self.vector(1, code_size)

    # -- inverted files

    def ivf(self, code: str, dimension: int, depth: int) -> None:
        self.fields("QQ")
        self.index(depth)
        self.direct_map()
        flat = 0
        if code == "IwFl":
            flat = 4 * dimension
        elif code == "IwFd":
            flat = 4 * dimension
            self.vector(_ID, 2 * _ID)
        elif code in ("IwPQ", "IwQR"):
            self.fields("?Q")
            self.product_quantizer()
        elif code in ("IwSQ", "IwSq"):
            self.scalar_quantizer()
            self.fields("Q" if code == "IwSQ" else "Q?")
        elif code in ("IwRQ", "IwLS"):
            self.skip(8)
            self.additive_quantizer(local_search=code == "IwLS")
            self.fields("?i")
        elif code == "IwSh":
            self.transform(depth)
            self.fields("ifi")
            self.vector(4)
        elif code == "IwPf":
            self.fields("?QiQiQ")
            self.product_quantizer()
        elif code == "Iwrq":
            self.fields("QQiQ?B")
        elif code == "Iwrr":
            self.fields("QQiQQ?B")
        self.inverted_lists(flat)
        if code == "IwQR":
            self.vector(1, self.product_quantizer())
            self.skip(4)

    def ivf_with_own_quantizer(self, _code: str, _dimension: int, depth: int) -> None:
        self.index(depth)
        if self.number("?"):
            self.transform(depth)
        code, _ = self.index(depth)
        if code in ("IwPQ", "IwQR"):
            self.skip(4)

    def direct_map(self) -> None:
        kind = self.number("B")
        self.vector(_ID, _ID)
        if kind == _HASHTABLE:
            self.vector(2 * _ID, 2 * _ID)

    def inverted_lists(self, flat: int) -> None:
        """Skip the lists of an inverted file; ``flat`` is the bytes of a vector if codes are vectors."""
        code = self.code()
        if code == "il00":
            return
        count, code_size = self.fields("QQ")
        self.expect(count <= _MOST_LISTS and 0 < code_size <= _LARGEST_RECORD)
        floats = code_size == flat
        if code == "ilar":
            self.array_lists(count, code_size, floats)
        elif code == "ilbl":
            block = self.fields("QQ")[1]
            for _ in range(count):
                self.vector(_ID, _ID)
                self.vector(1, block)
        else:
            raise _UnknownError

    def array_lists(self, lists: int, code_size: int, floats: bool) -> None:
        sparse = self.code()
        self.expect(sparse in ("full", "sprs"))
        numbers = self.number("Q")
        if sparse == "sprs":
            self.expect(numbers <= 2 * lists and numbers % 2 == 0)
            pairs = np.frombuffer(self.take(8 * numbers), "<u8").reshape(-1, 2)
            self.expect(bool(np.all(pairs[1:, 0] > pairs[:-1, 0])) and bool(np.all(pairs[:, 0] < lists)))
            counts = pairs[:, 1]
        else:
            self.expect(numbers == lists)
            counts = np.frombuffer(self.take(8 * numbers), "<u8")
        counts = counts[counts > 0]
        # One list at a time first: then no sum of them can overflow before it is compared.
        most = (self._size - self.at) // (code_size + _ID)
        self.expect(bool(np.all(counts <= most)) and float(np.sum(counts, dtype=np.float64)) <= 2.0 * most)
        sizes = counts.astype(np.int64)
        ends = self.at + np.cumsum(sizes * (code_size + _ID))
        part = np.empty(2 * len(sizes), REGION_ROW)
        codes, ids = part[0::2], part[1::2]
        ids["end"] = ends
        codes["end"] = ids["start"] = ends - sizes * _ID
        codes["start"] = codes["end"] - sizes * code_size
        codes["record"], ids["record"] = code_size, _ID
        codes["floats"], ids["floats"] = floats, False
        part["fixed"] = False
        self.skip(int(ends[-1]) - self.at if len(ends) else 0)
        self._parts.append(part)
        self._lists += len(sizes)
        self.expect(self._lists <= _MOST_LISTS)

    def binary_ivf(self, _code: str, _code_size: int, depth: int) -> None:
        self.fields("QQ")
        self.index(depth)
        self.direct_map()
        self.inverted_lists(0)

    # -- parts of indexes

    def graph(self) -> None:
        """Skip the links of an HNSW graph."""
        self.vector(8)
        slots = self.number("Q")
        self.expect(slots <= _MOST_LEVELS)
        per_level = struct.unpack(f"<{slots}i", self.take(4 * slots))
        # Levels are small numbers that repeat, so their bytes say nothing about places. They are only appended to.
        self.vector(4, _LEVELS_RECORD, fixed=True)
        self.vector(_ID, _ID)
        # The links of a node on its lowest level. Those of the few nodes that are on more levels follow their first
        # ones, so later nodes begin between two multiples; but they begin there again when the index has grown.
        links = per_level[1] if slots > 1 else 0
        self.vector(4, 4 * links, floats=True, fixed=True)
        self.fields("iiiii")

    def product_quantizer(self) -> int:
        """Skip a product quantizer.

        Returns:
            Bytes of a code.
        """
        dimension, parts, bits = self.fields("QQQ")
        self.expect(0 < parts <= dimension <= _LARGEST_RECORD and 0 < bits <= 32)
        self.vector(4, 4 * (dimension // parts), floats=True)
        return int(parts * bits + 7) // 8

    def scalar_quantizer(self) -> int:
        code_size = self.fields("iifQQ")[4]
        self.vector(4)
        return int(code_size)

    def additive_quantizer(self, local_search: bool) -> None:
        dimension = self.number("Q")
        self.skip(8)
        self.vector(8)
        self.skip(1)
        self.expect(dimension <= _LARGEST_RECORD)
        self.vector(4, 4 * dimension, floats=True)
        search = self.fields("iff")[0]
        if search in _WITH_NORMS:
            self.vector(4, 4, floats=True)
        if search in _WITH_TABLES:
            self.vector(4, 4, floats=True)
        self.fields("QQQQQffQiQ?" if local_search else "ii")

    def transform(self, depth: int) -> None:
        """Skip a transformation of vectors."""
        self.expect(depth < _DEEPEST)
        code = self.code()
        if code == "Viqt":
            self.vector(4)
            self.skip(1)
            self.transform(depth + 1)
            self.transform(depth + 1)
        elif code in _LINEAR:
            if code == "Pcam":
                self.fields("ff?i")
            elif code == "PcAm":
                self.fields("f?i")
            elif code == "Viqm":
                self.fields("ii")
            if code in ("Pcam", "PcAm"):
                for _ in range(3):
                    self.vector(4, 4, floats=True)
            self.skip(1)
            self.vector(4, 4, floats=True)
            self.vector(4, 4, floats=True)
        elif code in ("RmDT", "VCnt"):
            self.vector(4, 4, floats=True)
        elif code in ("VNrm", "HRot"):
            self.skip(4)
        else:
            raise _UnknownError
        self.fields("ii?")


# Search types of additive quantizers that store norms, and those that store tables of norms as well.
_WITH_NORMS = frozenset({6, 7, 8, 9})
_WITH_TABLES = frozenset({8, 9})
_LINEAR = frozenset({"rrot", "LTra", "Pcam", "PcAm", "Viqm"})
_HASHTABLE = 2

_INDEXES: Mapping[str, Callable[[_Reader, str, int, int], None]] = MappingProxyType(
    {
        **dict.fromkeys(("IxFI", "IxF2", "IxFl"), _Reader.flat),
        **dict.fromkeys(("IxPq", "IxPo"), _Reader.pq),
        **dict.fromkeys(("IxRq", "IxLS"), _Reader.additive),
        **dict.fromkeys(("Ixrq", "Ixrr"), _Reader.rabitq),
        **dict.fromkeys(("IxMp", "IxM2", "IBMp", "IBM2"), _Reader.id_map),
        **dict.fromkeys(("IHNf", "IHNp", "IHNs", "IHN2", "IHNc", "IHc2", "IHfP", "IH00"), _Reader.hnsw),
        **dict.fromkeys(("IBHf", "IBHc"), _Reader.hnsw),
        **dict.fromkeys(("IwFl", "IwFd", "IwPQ", "IwQR", "IwSQ", "IwSq", "IwRQ", "IwLS"), _Reader.ivf),
        **dict.fromkeys(("IwSh", "IwPf", "Iwrq", "Iwrr"), _Reader.ivf),
        **dict.fromkeys(("IRMf", "IRMh", "IBFf"), _Reader.row_scaled),
        "IxHe": _Reader.lsh,
        "IxSQ": _Reader.sq,
        "Ix2L": _Reader.two_layers,
        "IPfs": _Reader.pq_fast_scan,
        "Imiq": _Reader.multi_quantizer,
        "IxPT": _Reader.pre_transform,
        "IxRF": _Reader.refine,
        "INNf": _Reader.nn_descent,
        "IwIQ": _Reader.ivf_with_own_quantizer,
        "IBxF": _Reader.binary_flat,
        "IBwF": _Reader.binary_ivf,
    }
)
