"""FAISS indexes: the header is read here, all the rest by faiss in a child process."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import ClassVar

import attrs

from novabackup.components import _child
from novabackup.components._faiss_fourcc import BINARY, KINDS
from novabackup.components.base import Answers, Isolated, Questions
from novabackup.format.records import Problem, Report
from novabackup.storage.base import Reader

__all__ = ["Faiss"]

_HEAD = 64
"""Bytes that `Faiss.inspect` reads; the longest header in use takes 45."""

_MAX_DIMENSION = 1 << 20
"""faiss itself reads no float index of more dimensions."""

_FLAT = frozenset({b"IxFI", b"IxF2", b"IxFl"})
_MEMORY = 768 << 20
_MEMORY_FACTOR = 4
_UNREADABLE = "expected an index that faiss reads, found otherwise: "


@attrs.frozen
class Faiss(Isolated):
    """A FAISS index, float or binary, of any type.

    A file begins with a four-character type code. Behind it, a float index has its dimension (int32 at byte 4) and the
    number of vectors (int64 at byte 8), a binary one its dimension in bits, the code size (both int32) and the number
    of vectors (int64 at byte 12), all little-endian; wrappers repeat the numbers of what they wrap. Source:
    ``write_index_header`` and ``write_index_binary_header`` in ``faiss/impl/index_write.cpp`` of faiss 1.15.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        timeout: Seconds that faiss may take to read it; by default two minutes and a second for each 10 MB.
    """

    _advice: ClassVar[str] = "Build the index again, or restore it from a snapshot"
    _least_seconds: ClassVar[float] = 120.0

    def inspect(self, reader: Reader) -> Report:
        """Read the first 64 bytes, which hold the type, the dimension and the number of vectors.

        A file that was truncated behind its header is noticed only where the size follows from the header (flat
        indexes); `examine` notices all.
        """
        report = self._present(reader)
        size = reader.entry.size
        head = reader.read(0, min(_HEAD, size))
        code = head[:4]
        if code not in KINDS:
            found = f"{code!r}" if code.strip(b"\0") else f"a file of {size} bytes that starts with {code!r}"
            return self._damaged(report, f"expected a FAISS index, found {found}, which is no type of index known")
        report = attrs.evolve(report, kind=KINDS[code])
        numbers = _numbers(code, head)
        if numbers is None:
            return self._damaged(report, f"expected the header of an {KINDS[code]}, found only {size} bytes")
        dimension, count = numbers
        if not 0 <= dimension <= _MAX_DIMENSION or count < 0:
            return self._damaged(
                report, f"expected a plausible header, found dimension {dimension} and {count} vectors in it"
            )
        report = attrs.evolve(report, dimension=dimension, count=count)
        expected = _exact_size(code, head, dimension, count)
        if expected is not None and expected != size:
            return self._damaged(
                report,
                f"expected {expected} bytes for {count} vectors of dimension {dimension}, found {size} bytes: "
                f"{'it was cut off' if size < expected else 'something was added to it'}",
            )
        return report

    def examine(self, reader: Reader, report: Report) -> tuple[Problem, ...]:
        """Let faiss read the whole file, in a child process with limits.

        Notices a file that was cut off at any byte, bytes behind the index, numbers that contradict each other, and a
        file that makes faiss fail, crash, or run out of time or memory. Changed vectors it cannot notice: any number
        is a valid vector.
        """
        if report.problems:
            return ()  # a damaged header needs no faiss to prove it
        result = self._run(reader, {}, self._seconds(reader.entry.size))
        if result.failure is not None:
            return (self._damage(f"{_UNREADABLE}{result.failure}"),)
        found = [str(text) for text in result.answer["wrong"]]
        for name, stated in (("count", report.count), ("dimension", report.dimension)):
            if stated is not None and result.answer[name] != stated:
                found.append(f"expected {name} {stated} as in the header, found {result.answer[name]}")
        return tuple(map(self._damage, found))

    def probe(self, reader: Reader, questions: Questions) -> Answers:
        """Search for vectors that the index itself holds, rounded to half precision, in a child process with limits.

        If an index cannot reconstruct its vectors, made-up ones are searched for. Returns the vectors with the ids and
        distances of their nearest neighbours; nothing for an empty index, or one of more than 4,096 dimensions.
        """
        again = [base64.b64encode(probe.vector).decode() for probe in questions.again]
        result = self._run(reader, questions.request(again), questions.seconds)
        if result.failure is not None:
            return Answers(problems=(self._damage(f"{_UNREADABLE}{result.failure}"),))
        return self._answers(result.answer)

    def _run(self, reader: Reader, more: Mapping[str, object], seconds: float) -> _child.Result:
        size = reader.entry.size
        limits = _child.Limits(memory=_MEMORY + _MEMORY_FACTOR * size, seconds=seconds)
        binary = reader.read(0, min(4, size)) in BINARY
        return _child.run("_faiss_child.py", reader.file(), {"size": size, "binary": binary, **more}, limits)


def _numbers(code: bytes, head: bytes) -> tuple[int, int] | None:
    """Read dimension and number of vectors; None if the file ends before them."""
    try:
        if code in BINARY:
            dimension, _, count = struct.unpack_from("<iiq", head, 4)
        elif code in (b"IxFP", b"IxFp"):
            # IndexFlatPanorama: d, number of levels, batch size, ntotal; no common header.
            dimension, _, _, count = struct.unpack_from("<iqqq", head, 4)
        elif code == b"IxLa":
            # IndexLattice: d, nsq, scale_nbit, r2 stand before the common header.
            dimension, count = struct.unpack_from("<iq", head, 20)
        else:
            dimension, count = struct.unpack_from("<iq", head, 4)
    except struct.error:
        return None
    return dimension, count


def _exact_size(code: bytes, head: bytes, dimension: int, count: int) -> int | None:
    """Return the size that follows from the header of a flat index; None for other types.

    Float: code 4, d 4, ntotal 8, two unused 8, is_trained 1, metric 4, for metrics above 1 their argument 4, length of
    the vector of codes 8, then the codes. Binary: code 4, d 4, code size 4, ntotal 8, is_trained 1, metric 4, length 8.
    """
    if code in _FLAT and len(head) >= 37:
        metric: int = struct.unpack_from("<i", head, 33)[0]
        return 45 + (4 if metric > 1 else 0) + count * dimension * 4
    if code == b"IBxF" and len(head) >= 33:
        code_size: int = struct.unpack_from("<i", head, 8)[0]
        return 33 + count * code_size
    return None
