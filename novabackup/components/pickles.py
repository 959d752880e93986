"""Pickled BM25 indexes and lists of chunks: counts their entries without importing any class that they name."""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from novabackup.components import _child
from novabackup.components._pickle_child import FEW, digests, hashed
from novabackup.components._pickle_prefix import corpus_size
from novabackup.components.base import Answers, Isolated, Questions
from novabackup.errors import ConfigurationError, IntegrityError, printable
from novabackup.format.records import Problem, Report
from novabackup.storage.base import Reader

__all__ = ["FEW", "Bm25", "PickledList", "Recipe", "digests", "hashed", "sign"]

_PREFIX = 4096
"""Bytes that `inspect` reads first; ``corpus_size`` stands within the first 300 of a pickled rank_bm25 object."""

_SIGNATURES = (32, 64)
"""Lengths of HMAC-SHA256: as bytes, and as hexadecimal digits."""

_MEMORY = 256 << 20
_MEMORY_FACTOR = 48
_BLOCK = 1 << 20
_UNREADABLE = "expected a pickle that can be read, found otherwise: "


@attrs.frozen
class _Start:
    """Where the pickle begins in a file.

    Attributes:
        offset: In bytes.
        protocol: Of the pickle.
        signature: The signature before the pickle, or None.
    """

    offset: int
    protocol: int
    signature: bytes | None

    def __str__(self) -> str:
        return f"pickle protocol {self.protocol}{', signed' if self.signature is not None else ''}"


@attrs.frozen
class _Pickle(Isolated):
    """Shared by both kinds of pickles.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        timeout: Seconds that reading may take; by default one minute and a second for each MB.
    """

    _seconds_per_byte: ClassVar[float] = 1e-6
    _shape: ClassVar[str] = "list"

    def inspect(self, reader: Reader) -> Report:
        """Count the entries in a child process, which reads the whole pickle but makes none of its objects.

        Reports a problem if the pickle is damaged, is something else, or takes more memory or time than it can need.
        """
        report, start = self._start(reader)
        return report if start is None else self._count(reader, report, start)

    def _start(self, reader: Reader) -> tuple[Report, _Start | None]:
        """Find the start of the pickle; if there is none, the report has a problem."""
        report, size = self._present(reader), reader.entry.size
        head = reader.read(0, min(_PREFIX, size))
        start = _find_pickle(head)
        if start is None:
            what = f"a file of {size} bytes that starts with {head[:8]!r}" if head else "an empty file"
            return self._damaged(report, f"expected a pickle, signed or not, found {what}"), None
        return attrs.evolve(report, written_with=str(start)), start

    def _count(self, reader: Reader, report: Report, start: _Start) -> Report:
        return self._read(reader, report, start, {})[0]

    def _read(
        self, reader: Reader, report: Report, start: _Start, more: Mapping[str, object]
    ) -> tuple[Report, Mapping[str, Any]]:
        """Let the child read the pickle; return the report with its findings, and its whole answer."""
        result = self._run(reader, start, more, self._seconds(reader.entry.size))
        if result.failure is not None:
            return self._damaged(report, f"{_UNREADABLE}{result.failure}"), {}
        kind, count = result.answer["kind"], result.answer["count"]
        report = self._counted(report, str(kind), count)
        for text in result.answer["wrong"]:
            report = self._damaged(report, str(text))
        return report, result.answer

    def probe(self, reader: Reader, questions: Questions) -> Answers:
        """List the classes that the pickle names, and search a BM25 index for words of its documents.

        No class that the pickle names is imported: a child process computes the scores from its numbers, as rank_bm25
        does. An index whose numbers are not known gives no answers.
        """
        report, start = self._start(reader)
        if start is None:
            return Answers(problems=report.problems)
        again = [list(probe.words) for probe in questions.again]
        result = self._run(reader, start, questions.request(again), questions.seconds)
        if result.failure is not None:
            return Answers(problems=(self._damage(f"{_UNREADABLE}{result.failure}"),))
        return self._answers(result.answer)

    def _run(self, reader: Reader, start: _Start, more: Mapping[str, object], seconds: float) -> _child.Result:
        size = reader.entry.size
        limits = _child.Limits(memory=_MEMORY + _MEMORY_FACTOR * size, seconds=seconds)
        arguments = {"size": size, "start": start.offset, "shape": self._shape, **more}
        return _child.run("_pickle_child.py", reader.file(), arguments, limits)

    def _counted(self, report: Report, kind: str, count: int | None) -> Report:
        """Add kind and count to the report; every entry takes a byte at least, so a larger number is false."""
        report = attrs.evolve(report, kind=printable(kind[:100]))
        assert report.size is not None
        if count is None or count <= report.size:
            return attrs.evolve(report, count=count)
        return self._damaged(
            report, f"expected at most {report.size} entries in as many bytes, found a larger number stated"
        )


@attrs.frozen
class PickledList(_Pickle):
    """A pickled list, or dict, with one entry for each vector; the classes of the entries are not imported.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        timeout: Seconds that reading may take; by default one minute and a second for each MB.
    """


@attrs.frozen(kw_only=True)
class Recipe:
    """All that is needed to write a BM25 index again. Two indexes with equal recipes give the same results.

    Attributes:
        protocol: Of the pickle.
        signature: Bytes of the signature before the pickle; 0 if there is none.
        count: Number of documents.
        kind: Full name of the class, or ``dict``.
        members: Members of the object or dict, in order: the type of each, then its value or hashes of it.
    """

    protocol: int
    signature: int
    count: int
    kind: str
    members: Mapping[str, Any]


def sign(data: bytes, key: bytes, length: int) -> bytes:
    """Put a signature before a pickle, as `Bm25` reads it.

    Args:
        data: The pickle.
        key: The HMAC key.
        length: Bytes of the signature: 32, or 64 for hexadecimal digits.
    """
    mac = hmac.new(key, data, "sha256")
    signature = mac.digest() if length == mac.digest_size else mac.hexdigest().encode()
    return struct.pack(">I", len(signature)) + signature + data


def _check_key(_instance: object, _field: attrs.Attribute[bytes | None], value: bytes | None) -> None:
    if value is not None and (not isinstance(value, bytes) or not value):
        raise ConfigurationError("key must be the bytes of the HMAC key, and not be empty")


@attrs.frozen
class Bm25(_Pickle):
    """A pickled BM25 index: a rank_bm25 object, a dict with ``index`` and ``doc_len``, or a dict with ``documents``.

    The pickle may be signed: 4 bytes big-endian length, HMAC-SHA256 of that length (32 bytes, or 64 hexadecimal
    digits), then the pickle.

    Attributes:
        path: The file.
        optional: Absence is no problem.
        timeout: Seconds that reading may take; by default one minute and a second for each MB.
        key: Verifies the signature in `examine`; then an unsigned file is damaged. Without it a signature is skipped.
    """

    _shape: ClassVar[str] = "bm25"

    key: bytes | None = attrs.field(default=None, repr=False, validator=_check_key, kw_only=True)

    def inspect(self, reader: Reader) -> Report:
        """Count the documents: from the first 4 KiB if they state the number, otherwise in a child process.

        A pickled rank_bm25 object has ``corpus_size`` among its first values. Then only the prefix and the last byte
        are read, which shows that most truncated files are; `examine` notices all.
        """
        report, start = self._start(reader)
        if start is None:
            return report
        size = reader.entry.size
        found = corpus_size(reader.read(0, min(_PREFIX, size))[start.offset :])
        if found is None:
            return self._count(reader, report, start)
        kind, count = found
        report = self._counted(report, kind, count)
        last = reader.read(size - 1, 1)
        if last != b".":
            return self._damaged(
                report, f"expected a pickle that ends with its end mark '.', found {last!r}: it was cut off"
            )
        return report

    def examine(self, reader: Reader, report: Report) -> tuple[Problem, ...]:
        """Read the whole pickle in a child process, compare its counts, and verify the signature if a key was given."""
        thorough, start = self._start(reader)
        if start is not None:
            if self.key is not None and not _genuine(reader, start, self.key):
                thorough = self._damaged(thorough, "expected a signature that the given key verifies, found none such")
            thorough = self._count(reader, thorough, start)
            if report.count is not None and thorough.count is not None and thorough.count != report.count:
                thorough = self._damaged(
                    thorough, f"expected {report.count} documents as its start says, found {thorough.count}"
                )
        return tuple(problem for problem in thorough.problems if problem not in report.problems)

    def recipe(self, reader: Reader) -> Recipe:
        """Read all that is needed to write the index again, without making any of its objects.

        Args:
            reader: The file, opened.

        Returns:
            The recipe.

        Raises:
            IntegrityError: The file is damaged.
            OSError: The file could not be read.
            ChangedError: It was changed meanwhile.
            ConfigurationError: No child process can be started.
        """
        report, start = self._start(reader)
        said: Mapping[str, Any] = {}
        if start is not None:
            report, said = self._read(reader, report, start, {"shape": "recipe"})
        if start is None or report.problems or report.count is None:
            raise IntegrityError(f"{self.path}: expected a BM25 index that can be read", report.problems)
        return Recipe(
            protocol=start.protocol,
            signature=len(start.signature or b""),
            count=report.count,
            kind=printable(said["recipe"]["class"]),
            members=said["recipe"]["members"],
        )

    def is_signed_with(self, reader: Reader, key: bytes) -> bool:
        """Return whether the index is signed with a key; False if it has no signature.

        Args:
            reader: The file, opened.
            key: The HMAC key.
        """
        _report, start = self._start(reader)
        return start is not None and _genuine(reader, start, key)


def _find_pickle(head: bytes) -> _Start | None:
    """Find the start of the pickle, after a signature or at once."""
    if len(head) >= 4:
        (length,) = struct.unpack_from(">I", head)
        if length in _SIGNATURES:
            protocol = _protocol(head[4 + length :])
            return None if protocol is None else _Start(4 + length, protocol, head[4 : 4 + length])
    protocol = _protocol(head)
    return None if protocol is None else _Start(0, protocol, None)


def _protocol(head: bytes) -> int | None:
    """Return the protocol of a pickle; None if the bytes cannot be the start of a list, a dict or an object."""
    if len(head) > 1 and head[0] == 0x80:
        return head[1] if 2 <= head[1] <= 5 else None
    # Protocols 0 and 1 have no mark of their own: MARK, EMPTY_LIST, EMPTY_DICT, GLOBAL. Only 1 has BINPUT.
    if head[:1] in (b"(", b"]", b"}", b"c"):
        return 0 if head[:1] in (b"(", b"c") and b"q\0" not in head[:256] else 1
    return None


def _genuine(reader: Reader, start: _Start, key: bytes) -> bool:
    """Return whether the signature before the pickle was made with the key."""
    if start.signature is None:
        return False
    mac = hmac.new(key, digestmod="sha256")
    for offset in range(start.offset, reader.entry.size, _BLOCK):
        mac.update(reader.read(offset, min(_BLOCK, reader.entry.size - offset)))
    found = start.signature
    if len(found) == 64:
        try:
            found = bytes.fromhex(found.decode("ascii"))
        except ValueError:
            return False
    return hmac.compare_digest(mac.digest(), found)
