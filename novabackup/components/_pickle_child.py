"""Reads a pickle without importing anything that it names, in a child process that a hostile file may crash.

Every class and function that the pickle names is replaced by an inert stand-in, which accepts any arguments and does
nothing. So nothing is imported and nothing runs; what remains is memory and time, which the parent limits.
"""

import hashlib
import heapq
import json
import math
import os
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

_BUFFER = 1 << 20
_MOST_NAMES = 100
_LONGEST_NAME = 200
FEW = 64
"""Documents whose hash is enough to detect most wrong tokenizers."""


class Inert:
    """Replaces every class and function that a pickle names, and every object that they would create."""

    module = ""
    name = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]
    length: int

    def __new__(cls, *args: object, **_named: object) -> "Inert":
        """Accept any arguments, as classes, functions and NEWOBJ do."""
        self = object.__new__(cls)
        self.args = args
        self.state = None
        self.items = {}
        self.length = 0
        return self

    def __init__(self, *args: object, **named: object) -> None:
        """Ignore the arguments, which `__new__` keeps."""

    def __call__(self, *_args: object, **_named: object) -> "Inert":
        """Accept a call of the result of a call."""
        return Inert()

    def __setstate__(self, state: object) -> None:
        """Keep the state as it is; as attributes it could change the behaviour of this object."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Keep an entry, for subclasses of dict."""
        self.items[key] = value

    def append(self, _value: object) -> None:
        """Count an element, for subclasses of list."""
        self.length += 1

    add = append

    def extend(self, values: list[object]) -> None:
        """Count elements."""
        self.length += len(values)


class _Unpickler(pickle.Unpickler):
    """Finds only stand-ins."""

    def __init__(self, file: BinaryIO) -> None:
        # latin1 decodes any bytes, for the strings of Python 2.
        super().__init__(file, fix_imports=False, encoding="latin1", buffers=None)
        self._classes: dict[tuple[str, str], type] = {}

    def asked_for(self) -> list[str]:
        """Return the names of the classes and functions that the pickle names, sorted."""
        return [f"{module}.{name}"[:_LONGEST_NAME] for module, name in sorted(self._classes)[:_MOST_NAMES]]

    def find_class(self, module: str, name: str) -> type:
        """Return a stand-in, the same for the same name."""
        key = (str(module), str(name))
        if key not in self._classes:
            self._classes[key] = type("Inert", (Inert,), {"module": key[0], "name": key[1]})
        return self._classes[key]

    def persistent_load(self, _identity: object) -> object:
        """Refuse a reference to an object outside of the file."""
        raise pickle.UnpicklingError("it refers to something outside of the file (a persistent id)")


def look(arguments: dict[str, Any]) -> dict[str, object]:
    """Count what is in the pickle on standard input.

    Args:
        arguments: ``size`` of the file and ``start`` of the pickle in it, in bytes; ``shape``: ``bm25``, ``list``, or
            ``recipe`` for all that is needed to write the BM25 index again; optionally ``ask`` with ``again`` (lists
            of words), the ``number`` of lists to choose if there are none, and how many ``nearest`` documents to find.

    Returns:
        ``kind``, ``count`` (None if there is none) and ``wrong``: texts that describe contradictions. With ``ask``,
        also ``classes`` that the pickle names, and ``probes``: queries with answers. With the shape ``recipe``, also
        ``recipe``.
    """
    value, classes, found = read(0, arguments["start"], arguments["size"], arguments["shape"])
    if "ask" in arguments:
        found["classes"] = classes
        found["probes"] = ask(value, **arguments["ask"]) if arguments["shape"] == "bm25" else []
    return found


def read(descriptor: int, start: int, size: int, shape: str) -> tuple[object, list[str], dict[str, object]]:
    """Read a pickle; return the value, the names in it and what was found. Raises what unpickling raises."""
    os.lseek(descriptor, start, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb", buffering=_BUFFER) as file:
        unpickler = _Unpickler(file)
        value = unpickler.load()
        end = file.tell()
    wrong: list[str] = []
    if end != size:
        wrong.append(
            f"expected a pickle of {size - start} bytes, found one that ends after {end - start}: more follows it"
        )
    kind, count = (_list if shape == "list" else _bm25)(value, wrong)
    found: dict[str, object] = {"kind": kind, "count": count, "wrong": wrong}
    if shape == "recipe":
        found["recipe"] = _recipe(value, count or 0)
    return value, unpickler.asked_for(), found


def _bm25(value: object, wrong: list[str]) -> tuple[str, int | None]:
    """Recognise one of the three shapes of a BM25 index and count its documents."""
    fields, kind = _fields(value)
    if "corpus_size" in fields and "doc_len" in fields:
        count = _integer(fields["corpus_size"])
        if count is None or count < 0:
            wrong.append("expected corpus_size to be a number of documents, found something else")
            return kind, None
        _same(fields, ("doc_len", "doc_freqs"), "corpus_size", count, wrong)
        return kind, count
    if "index" in fields and "doc_len" in fields:
        count = _length(fields["doc_len"])
        if count is None:
            wrong.append("expected doc_len to be a list, found something without a length")
        return "dict with index, doc_len", count
    if "documents" in fields and "chunk_id_to_idx" in fields:
        count = _length(fields["documents"])
        if count is None:
            wrong.append("expected documents to be a list, found something without a length")
        else:
            _same(fields, ("chunk_id_to_idx",), "documents", count, wrong)
        return "dict with documents, chunk_id_to_idx", count
    wrong.append(
        "expected a BM25 index (corpus_size and doc_len, or index and doc_len, or documents and chunk_id_to_idx), "
        f"found {kind} with none of these"
    )
    return kind, None


def _list(value: object, wrong: list[str]) -> tuple[str, int | None]:
    """Count a list or a dict."""
    kind = value.name if isinstance(value, Inert) else type(value).__name__
    count = _length(value)
    if count is None:
        wrong.append(f"expected a pickled list or dict, found {kind}")
    return kind, count


def _same(fields: dict[str, Any], names: tuple[str, ...], reference: str, count: int, wrong: list[str]) -> None:
    for name in names:
        if name in fields:
            length = _length(fields[name])
            if length != count:
                wrong.append(f"expected {count} in {name} as {reference} says, found {length}")


def _fields(value: object) -> tuple[dict[str, Any], str]:
    """Return the attributes of an object, or the entries of a dict, that have plain names; and its type."""
    if isinstance(value, dict):
        return {key: entry for key, entry in value.items() if type(key) is str}, "dict"
    if not isinstance(value, Inert):
        return {}, type(value).__name__
    kind = value.name
    if kind in ("_reconstructor", "__newobj__", "__newobj_ex__") and value.args:
        # Protocols 0 and 1 create objects by a function of copyreg, whose first argument is the class.
        kind = getattr(value.args[0], "name", kind)
    fields: dict[str, Any] = {}
    # With __slots__, the state is a pair of dicts.
    for part in value.state if type(value.state) is tuple else (value.state, value.items):
        if type(part) is dict:
            fields.update((key, entry) for key, entry in part.items() if type(key) is str)
    return fields, kind if type(kind) is str else "object"


def _length(value: object) -> int | None:
    """Return the length of a list or dict, or of a stand-in for an array, deque or ordered dict; None for others."""
    if isinstance(value, (list, dict, tuple, set, frozenset)):
        return len(value)
    if not isinstance(value, Inert):
        return None
    if value.name in ("_frombuffer", "_reconstruct"):
        return _array_length(value)
    if value.length or value.items:
        return value.length + len(value.items)
    for part in value.args:
        if isinstance(part, (list, dict, tuple, set, frozenset)):
            return len(part)
    return 0 if value.module == "collections" else None


def _array_length(value: Inert) -> int | None:
    """Return the length of a stand-in for a numpy array, from its shape."""
    if value.name == "_frombuffer":
        # Protocol 5: called with (bytes, dtype, shape, order).
        return _first(value.args[2]) if len(value.args) > 2 else None
    # Before: the state is (version, shape, dtype, fortran order, content).
    return _first(value.state[1]) if isinstance(value.state, tuple) and len(value.state) > 1 else None


def _first(shape: object) -> int | None:
    if isinstance(shape, tuple) and shape and isinstance(shape[0], int) and shape[0] >= 0:
        return shape[0]
    return None


def _integer(value: object) -> int | None:
    """Return the value of an int, or of a stand-in for a numpy integer; None for others."""
    if isinstance(value, int):
        return value
    code, data = _scalar(value)
    return int.from_bytes(data, "little", signed=code[0] == "i") if code[:1] in ("i", "u") else None


def _scalar(value: object) -> tuple[str, bytes | bytearray]:
    """Return type and little-endian bytes of a stand-in for a numpy number; empty for others."""
    if not isinstance(value, Inert) or value.name != "scalar" or len(value.args) != 2:
        return "", b""
    dtype, data = value.args[0], _bytes(value.args[1])
    code = dtype.args[0] if isinstance(dtype, Inert) and dtype.args else None
    return (code, data) if type(code) is str and data is not None else ("", b"")


# -- queries ----------------------------------------------------------------------------------------------------------

_Scores = Callable[[list[str]], Iterator[tuple[object, float]]]
"""Yields documents with their scores for a list of words."""


class _Index:
    """A BM25 index whose scores can be computed.

    Attributes:
        scores: Computes them.
        choose: Returns words of its documents, given a part and the number of parts.
    """

    def __init__(self, scores: _Scores, choose: Callable[[int, int], list[str]]) -> None:
        self.scores = scores
        self.choose = choose


def ask(value: object, *, again: list[list[str]], number: int, nearest: int) -> list[dict[str, object]]:
    """Score documents for lists of words; return each list with the best documents."""
    index = _index(value)
    if index is None:
        return [{"words": words, "ids": [], "scores": []} for words in again]
    chosen = again or [words for words in (index.choose(part, number) for part in range(number)) if words]
    probes: list[dict[str, object]] = []
    for words in chosen:
        if not again and any(probe["words"] == words for probe in probes):
            continue
        found = [(score, one) for one, score in index.scores(words) if score and math.isfinite(score)]
        best = heapq.nlargest(nearest, enumerate(found), key=lambda ranked: (ranked[1][0], -ranked[0]))
        ids = [one for _place, (_score, one) in best]
        probes.append({"words": words, "ids": ids, "scores": [f"{score:.9g}" for _place, (score, _one) in best]})
    return probes


def _index(value: object) -> _Index | None:
    """Find the index in the unpickled value: the value itself, or one of its attributes or entries."""
    fields, kind = _fields(value)
    inner = [_fields(part) for part in fields.values() if isinstance(part, (dict, Inert))]
    for candidate, name in [(fields, kind), *inner]:
        found = _frequencies_by_document(candidate, name) or _documents_by_word(candidate)
        if found is not None:
            return found
    return None


def _frequencies_by_document(fields: dict[str, Any], kind: str) -> _Index | None:
    """Read the shape of rank_bm25: for each document the frequency of each word."""
    documents, idf, lengths = fields.get("doc_freqs"), fields.get("idf"), _numbers(fields.get("doc_len"))
    average, k1, b, delta = (_number(fields.get(name)) for name in ("avgdl", "k1", "b", "delta"))
    if type(documents) is not list or type(idf) is not dict or lengths is None or len(lengths) != len(documents):
        return None
    if not average or k1 is None or b is None or not documents:
        return None
    norms = [1 - b + b * length / average for length in lengths]
    share = _okapi if delta is None else _bm25l if kind == "BM25L" else _plus

    def scores(words: list[str]) -> Iterator[tuple[object, float]]:
        totals = [0.0] * len(documents)
        for word in words:
            weight = _number(idf.get(word)) or 0.0
            for place, document in enumerate(documents):
                often = (_number(document.get(word)) if type(document) is dict else None) or 0.0
                totals[place] += weight * share(often, norms[place], k1, delta or 0.0)
        return iter(enumerate(totals))

    def choose(part: int, parts: int) -> list[str]:
        document = documents[len(documents) * (2 * part + 1) // (2 * parts)]
        words = filter(_plain, document) if type(document) is dict else ()
        known = sorted(words, key=lambda word: (_number(idf.get(word)) or 0.0, word))
        return list(dict.fromkeys(known[place] for place in (-1, len(known) // 2, len(known) // 4))) if known else []

    return _Index(scores, choose)


def _okapi(often: float, norm: float, k1: float, _delta: float) -> float:
    """Return the score of one word in a document, without its weight, as ``get_scores`` of BM25Okapi computes it."""
    return often * (k1 + 1) / (often + k1 * norm)


def _bm25l(often: float, norm: float, k1: float, delta: float) -> float:
    return often * (k1 + 1) * (often / norm + delta) / (k1 + often / norm + delta)


def _plus(often: float, norm: float, k1: float, delta: float) -> float:
    return delta + often * (k1 + 1) / (k1 * norm + often)


def _documents_by_word(fields: dict[str, Any]) -> _Index | None:
    """Read the shape of an inverted index: for each word its frequency in each document."""
    index, idf = fields.get("index"), fields.get("idf")
    average, k1, b = (_number(fields.get(name)) for name in ("avgdl", "k1", "b"))
    lengths: Any = fields.get("doc_len") if type(fields.get("doc_len")) is dict else _numbers(fields.get("doc_len"))
    if type(index) is not dict or not index or not lengths or not average or k1 is None or b is None:
        return None

    def scores(words: list[str]) -> Iterator[tuple[object, float]]:
        totals: dict[int | str, float] = {}
        for word in words:
            postings = list(_postings(index.get(word)))
            # The weight that most implementations use if the index holds none.
            count = len(postings)
            weight = _number(idf.get(word)) if type(idf) is dict else None
            if weight is None:
                weight = math.log(1 + (len(lengths) - count + 0.5) / (count + 0.5)) if count <= len(lengths) else 0.0
            for one, often in postings:
                length = _number(lengths.get(one)) if type(lengths) is dict else _at(lengths, one)
                if length is not None:
                    norm = 1 - b + b * length / average
                    totals[one] = totals.get(one, 0.0) + weight * often * (k1 + 1) / (often + k1 * norm)
        return iter(totals.items())

    def choose(part: int, parts: int) -> list[str]:
        first = len(index) * (2 * part + 1) // (2 * parts)
        return [word for place, word in enumerate(index) if first <= place < first + 2 and _plain(word)]

    return _Index(scores, choose)


def _postings(value: object) -> Iterator[tuple[int | str, float]]:
    """Yield the documents of a word from a dict from document to frequency, or a list of such pairs."""
    pairs = value.items() if type(value) is dict else value if type(value) is list else ()
    for pair in pairs:
        if isinstance(pair, (tuple, list)) and len(pair) == 2:
            one = pair[0] if _plain(pair[0]) else _integer(pair[0])
            often = _number(pair[1])
            if one is not None and -(1 << 63) <= (0 if isinstance(one, str) else one) < 1 << 63 and often:
                yield one, often


def _at(numbers: list[float], place: object) -> float | None:
    return numbers[place] if isinstance(place, int) and 0 <= place < len(numbers) else None


def _bytes(value: object) -> bytes | bytearray | None:
    """Return bytes as they are, or as protocols 0 to 2 write them: encoded text."""
    if isinstance(value, Inert) and (value.module, value.name) == ("_codecs", "encode") and len(value.args) == 2:
        text = value.args[0]
        return text.encode("latin1", "replace") if type(text) is str else None
    return value if isinstance(value, (bytes, bytearray)) else None


def _plain(word: object) -> bool:
    """Return whether a word can be recorded."""
    return type(word) is str and 0 < len(word) <= 100 and word.isprintable()


def _number(value: object) -> float | None:
    """Return the value of a number, or of a stand-in for a numpy scalar; None for others."""
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, Inert) and value.name == "scalar" and len(value.args) == 2:
        found = _unpacked(value.args[0], value.args[1], 1)
        return found[0] if found else None
    return None


def _numbers(value: object) -> list[float] | None:
    """Return the values of a list of numbers, or of a stand-in for a one-dimensional numpy array; None for others."""
    if isinstance(value, (list, tuple)):
        found = [_number(one) for one in value]
        return [one for one in found if one is not None] if None not in found else None
    length = _array_length(value) if isinstance(value, Inert) else None
    if length is None or not isinstance(value, Inert):
        return None
    if value.name == "_frombuffer":
        return _unpacked(value.args[1], value.args[0], length)
    state = value.state
    return _unpacked(state[2], state[4], length) if isinstance(state, tuple) and len(state) == 5 else None


def _unpacked(dtype: object, data: object, count: int) -> list[float] | None:
    code = dtype.args[0] if isinstance(dtype, Inert) and dtype.args else None
    letter = _LETTERS.get(code) if type(code) is str else None
    content = _bytes(data)
    if letter is None or content is None or not isinstance(dtype, Inert):
        return None
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    form = f"{order if order in ('<', '>') else '<'}{count}{letter}"
    return [float(one) for one in struct.unpack(form, content)] if struct.calcsize(form) == len(content) else None


_LETTERS = {
    "f8": "d",
    "f4": "f",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
}


# -- recipes ---------------------------------------------------------------------------------------------------------


def _recipe(value: object, count: int) -> dict[str, object]:
    """Describe how to write an index again: its members in order, and hashes of those that are computed from texts."""
    fields, kind = _fields(value)
    module = getattr(value, "module", "")
    if isinstance(value, Inert) and kind != value.name and value.args:
        module = getattr(value.args[0], "module", "")
    return {
        "class": f"{module}.{kind}" if isinstance(value, Inert) else "dict",
        "members": {name: _member(name, fields[name], count) for name in fields},
    }


def _member(name: str, value: object, count: int) -> list[object]:
    """Describe a member: its type, and its value or a hash of it."""
    said: list[object] | None = ["none"] if value is None else _stated_number(value)
    if said is None and name in _DESCRIBED:
        said = _DESCRIBED[name](value, count)
    return said or ["unknown", value.name if isinstance(value, Inert) else type(value).__name__]


def _lengths(value: object, _count: int) -> list[object] | None:
    if type(value) is list and all(type(length) is int for length in value):
        return ["lengths", hashed(value)]
    return None


def _frequencies(value: object, _count: int) -> list[object] | None:
    if type(value) is list and all(map(_is_counts, value)):
        return ["frequencies", *digests(value)]
    return None


def _weights(value: object, _count: int) -> list[object] | None:
    if type(value) is dict and all(type(word) is str for word in value):
        weights = [(word, _stated_number(value[word])) for word in sorted(value)]
        return ["weights", hashed(weights)] if all(weight for _word, weight in weights) else None
    return None


def _stated_index(value: object, count: int) -> list[object] | None:
    if isinstance(value, Inert):
        return ["index", _recipe(value, count)]
    documents = _documents(value, count) if type(value) is dict else None
    return None if documents is None else ["postings", *digests(documents)]


_DESCRIBED = {"doc_len": _lengths, "doc_freqs": _frequencies, "idf": _weights, "index": _stated_index}


def _documents(index: dict[Any, Any], count: int) -> list[dict[str, int]] | None:
    """Turn postings (from words to documents to frequencies) into the words of each document."""
    documents: list[dict[str, int]] = [{} for _ in range(count)]
    for word, postings in index.items():
        if type(word) is not str or type(postings) is not dict:
            return None
        for document, times in postings.items():
            if type(document) is not int or not 0 <= document < count or type(times) is not int:
                return None
            documents[document][word] = times
    return documents


def _is_counts(value: object) -> bool:
    return type(value) is dict and all(type(word) is str and type(times) is int for word, times in value.items())


def _stated_number(value: object) -> list[object] | None:
    """Describe a Python number, or the stand-in for a numpy number."""
    if type(value) in (int, float):
        return [type(value).__name__, repr(value)]
    code, data = _scalar(value)
    if (code, len(data)) in (("f8", 8), ("f4", 4)):
        return [code, repr(struct.unpack("<d" if code == "f8" else "<f", data)[0])]
    return None


def digests(documents: Iterable[Mapping[str, int]]) -> tuple[str, str]:
    """Hash the word frequencies of the first documents, and of all."""
    whole = hashlib.sha256()
    head = whole.hexdigest()
    for number, words in enumerate(documents, start=1):
        whole.update(json.dumps(sorted(words.items())).encode() + b"\n")
        if number <= FEW:
            head = whole.hexdigest()
    return head, whole.hexdigest()


def hashed(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
