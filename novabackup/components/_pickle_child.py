"""Reads a pickle without anything that it names, inside of a child process that a hostile file may take down.

Every class and function that the pickle asks for is an inert stand-in, which takes whatever it is called with and
does nothing. So nothing is imported and nothing runs; what is left is memory and time, which the parent limits.
"""

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

_BUFFER = 1 << 20
FEW = 64
"""Documents whose hash alone tells most wrong ways to cut texts into words."""


class Inert:
    """Stands in for every class and function that a pickle names, and for all that they would have made."""

    module = ""
    name = ""
    args: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]
    length: int

    def __new__(cls, *args: object, **_named: object) -> "Inert":
        """Take any arguments, as classes, functions and NEWOBJ do."""
        self = object.__new__(cls)
        self.args = args
        self.state = None
        self.items = {}
        self.length = 0
        return self

    def __init__(self, *args: object, **named: object) -> None:
        """Ignore what `__new__` kept."""

    def __call__(self, *_args: object, **_named: object) -> "Inert":
        """Be called, for a result of a call that is called again."""
        return Inert()

    def __setstate__(self, state: object) -> None:
        """Keep the state as it is; as attributes it could change what this object does."""
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Take an entry, for subclasses of dict."""
        self.items[key] = value

    def append(self, _value: object) -> None:
        """Count an element, for subclasses of list."""
        self.length += 1

    add = append

    def extend(self, values: list[object]) -> None:
        """Count elements."""
        self.length += len(values)


class _Unpickler(pickle.Unpickler):
    """Finds nothing but stand-ins."""

    def __init__(self, file: BinaryIO) -> None:
        # latin1 takes any bytes, for the strings of Python 2.
        super().__init__(file, fix_imports=False, encoding="latin1", buffers=None)
        self._classes: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> type:
        """Give a stand-in, the same for the same name."""
        key = (str(module), str(name))
        if key not in self._classes:
            self._classes[key] = type("Inert", (Inert,), {"module": key[0], "name": key[1]})
        return self._classes[key]

    def persistent_load(self, _identity: object) -> object:
        """Refuse a reference to something outside of the file."""
        raise pickle.UnpicklingError("it refers to something outside of the file (a persistent id)")


def look(arguments: dict[str, Any]) -> dict[str, object]:
    """Count what is in the pickle on standard input.

    Args:
        arguments: ``size`` of the file and ``start`` of the pickle in it, in bytes; ``shape``: ``bm25``, ``list``, or
            ``recipe`` for all that it takes to write a BM25 index like this one again.

    Returns:
        ``kind``, ``count`` (None where there is none to be found) and ``wrong``: texts that say what does not fit. And
        ``recipe``, where one is asked for.
    """
    return check(0, arguments["start"], arguments["size"], arguments["shape"])


def check(descriptor: int, start: int, size: int, shape: str) -> dict[str, object]:
    """Count what is in the pickle that begins at an offset of a file; raises what unpickling raises."""
    os.lseek(descriptor, start, os.SEEK_SET)
    file = os.fdopen(os.dup(descriptor), "rb", buffering=_BUFFER)
    value = _Unpickler(file).load()
    wrong: list[str] = []
    end = file.tell()
    if end != size:
        wrong.append(
            f"expected a pickle of {size - start} bytes, found one that ends after {end - start}: more follows it"
        )
    kind, count = (_list if shape == "list" else _bm25)(value, wrong)
    found: dict[str, object] = {"kind": kind, "count": count, "wrong": wrong}
    return {**found, "recipe": _recipe(value, count or 0)} if shape == "recipe" else found


def _bm25(value: object, wrong: list[str]) -> tuple[str, int | None]:
    """Tell the three shapes of a BM25 index apart and count its documents."""
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
    """Give the attributes of an object, or the entries of a dict, that have plain names; and what it is."""
    if isinstance(value, dict):
        return {key: entry for key, entry in value.items() if type(key) is str}, "dict"
    if not isinstance(value, Inert):
        return {}, type(value).__name__
    kind = value.name
    if kind in ("_reconstructor", "__newobj__", "__newobj_ex__") and value.args:
        # Protocols 0 and 1 make objects through a function of copyreg, whose first argument is the class.
        kind = getattr(value.args[0], "name", kind)
    fields: dict[str, Any] = {}
    # With __slots__, the state is a pair of dicts.
    for part in value.state if type(value.state) is tuple else (value.state, value.items):
        if type(part) is dict:
            fields.update((key, entry) for key, entry in part.items() if type(key) is str)
    return fields, kind if type(kind) is str else "object"


def _length(value: object) -> int | None:
    """Length of a list, a dict, or of what stands in for an array, a deque, an ordered dict; None for others."""
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
    """Length of a numpy array, told by its shape."""
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
    """Value of an int, or of a stand-in for a numpy integer; None for others."""
    if isinstance(value, int):
        return value
    code, data = _scalar(value)
    return int.from_bytes(data, "little", signed=code[0] == "i") if code[:1] in ("i", "u") else None


def _scalar(value: object) -> tuple[str, bytes]:
    """Take a stand-in for a number of numpy apart, into its type and little-endian bytes; empty for others."""
    if not isinstance(value, Inert) or value.name != "scalar" or len(value.args) != 2:
        return "", b""
    dtype, data = value.args
    code = dtype.args[0] if isinstance(dtype, Inert) and dtype.args else None
    if isinstance(data, Inert) and data.name == "encode" and data.args and type(data.args[0]) is str:
        # Protocols without bytes write them as text.
        try:
            data = data.args[0].encode("latin1")
        except UnicodeEncodeError:
            return "", b""
    return (code, data) if type(code) is str and type(data) is bytes else ("", b"")


# -- recipes ---------------------------------------------------------------------------------------------------------


def _recipe(value: object, count: int) -> dict[str, object]:
    """Say what it takes to write an index again: its members in order, and hashes of those that come from texts."""
    fields, kind = _fields(value)
    module = getattr(value, "module", "")
    if isinstance(value, Inert) and kind != value.name and value.args:
        module = getattr(value.args[0], "module", "")
    return {
        "class": f"{module}.{kind}" if isinstance(value, Inert) else "dict",
        "members": {name: _member(name, fields[name], count) for name in fields},
    }


def _member(name: str, value: object, count: int) -> list[object]:
    """Describe a member: its kind, and its value or a hash of it."""
    said: list[object] | None = ["none"] if value is None else _number(value)
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
        weights = [(word, _number(value[word])) for word in sorted(value)]
        return ["weights", hashed(weights)] if all(weight for _word, weight in weights) else None
    return None


def _index(value: object, count: int) -> list[object] | None:
    if isinstance(value, Inert):
        return ["index", _recipe(value, count)]
    documents = _documents(value, count) if type(value) is dict else None
    return None if documents is None else ["postings", *digests(documents)]


_DESCRIBED = {"doc_len": _lengths, "doc_freqs": _frequencies, "idf": _weights, "index": _index}


def _documents(index: dict[Any, Any], count: int) -> list[dict[str, int]] | None:
    """Turn postings, from words to documents to numbers, into the words of each document."""
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


def _number(value: object) -> list[object] | None:
    """Describe a number of Python, or the stand-in for one of numpy."""
    if type(value) in (int, float):
        return [type(value).__name__, repr(value)]
    code, data = _scalar(value)
    if (code, len(data)) in (("f8", 8), ("f4", 4)):
        return [code, repr(struct.unpack("<d" if code == "f8" else "<f", data)[0])]
    return None


def digests(documents: Iterable[Mapping[str, int]]) -> tuple[str, str]:
    """Hash how often each word is in each document: of the first documents, and of all."""
    whole = hashlib.sha256()
    head = whole.hexdigest()
    for number, words in enumerate(documents, start=1):
        whole.update(json.dumps(sorted(words.items())).encode() + b"\n")
        if number <= FEW:
            head = whole.hexdigest()
    return head, whole.hexdigest()


def hashed(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
