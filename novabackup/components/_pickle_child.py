"""Reads a pickle without anything that it names, inside of a child process that a hostile file may take down.

Every class and function that the pickle asks for is an inert stand-in, which takes whatever it is called with and
does nothing. So nothing is imported and nothing runs; what is left is memory and time, which the parent limits.
"""

import os
import pickle
from typing import Any, BinaryIO

_BUFFER = 1 << 20


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
        arguments: ``size`` of the file and ``start`` of the pickle in it, in bytes; ``shape``: ``bm25`` or ``list``.

    Returns:
        ``kind``, ``count`` (None where there is none to be found) and ``wrong``: texts that say what does not fit.
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
    kind, count = {"bm25": _bm25, "list": _list}[shape](value, wrong)
    return {"kind": kind, "count": count, "wrong": wrong}


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
    """Value of an int, or of a stand-in for a numpy integer: (dtype, little-endian bytes); None for others."""
    if isinstance(value, int):
        return value
    if isinstance(value, Inert) and value.name == "scalar" and len(value.args) == 2:
        dtype, data = value.args
        code = dtype.args[0] if isinstance(dtype, Inert) and dtype.args else None
        if type(data) is bytes and type(code) is str and code[:1] in ("i", "u"):
            return int.from_bytes(data, "little", signed=code[0] == "i")
    return None
