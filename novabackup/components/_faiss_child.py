"""Reads a FAISS index with faiss itself, inside of a child process that a hostile file may take down."""

import os
from typing import Any

import faiss as _faiss

faiss: Any = _faiss
_BUFFER = 1 << 20


class _Input:
    """Standard input for faiss, with a count of the bytes that faiss really took."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.taken = 0

    def __call__(self, length: int) -> bytes:
        data = os.read(self._descriptor, length)
        self.taken += len(data)
        return data


def look(arguments: dict[str, int]) -> dict[str, object]:
    """Read the index on standard input.

    Args:
        arguments: ``size`` of the file in bytes, ``binary`` for a binary index.

    Returns:
        ``count``, ``dimension`` and ``wrong``: texts that say what does not fit together.
    """
    return check(0, arguments["size"], binary=bool(arguments["binary"]))


def check(descriptor: int, size: int, *, binary: bool) -> dict[str, object]:
    """Read the index that a descriptor stands at the beginning of; raises what faiss raises."""
    # Read-only, so that lists kept in another file are not opened for writing; and without the tables that faiss only
    # needs for searching and that may take gigabytes.
    flags = faiss.IO_FLAG_READ_ONLY
    for name in ("IO_FLAG_SKIP_PRECOMPUTE_TABLE", "IO_FLAG_PQ_SKIP_SDC_TABLE"):
        flags |= getattr(faiss, name, 0)
    # Newer versions of faiss can refuse a vector that is larger than the file it is in.
    if hasattr(faiss, "set_deserialization_vector_byte_limit"):
        faiss.set_deserialization_vector_byte_limit(max(8 * size, _BUFFER))
    source = _Input(descriptor)
    reader = faiss.PyCallbackIOReader(source, _BUFFER)
    index = faiss.read_index_binary(reader, flags) if binary else faiss.read_index(reader, flags)
    wrong: list[str] = []
    if source.taken != size:
        wrong.append(
            f"expected an index of {size} bytes, found one that ends after {source.taken}: something follows it"
        )
    _compare(index, wrong)
    return {"count": index.ntotal, "dimension": index.d, "wrong": wrong}


def _compare(index: Any, wrong: list[str]) -> None:
    """Look for numbers of vectors that contradict each other, from the outermost wrapper inwards."""
    while index is not None:
        index = (
            faiss.downcast_IndexBinary(index) if isinstance(index, faiss.IndexBinary) else faiss.downcast_index(index)
        )
        name = type(index).__name__
        if hasattr(index, "id_map") and index.id_map.size() != index.ntotal:
            wrong.append(f"expected {index.ntotal} ids in {name}, found {index.id_map.size()}")
        lists = getattr(index, "invlists", None)
        # IndexIVFFlatDedup keeps equal vectors once in its lists.
        if isinstance(lists, faiss.InvertedLists) and name != "IndexIVFFlatDedup":
            total = lists.compute_ntotal()
            if total != index.ntotal:
                wrong.append(f"expected {index.ntotal} vectors in the lists of {name}, found {total}")
        # Codes without structure, as in flat, PQ and SQ indexes.
        codes = getattr(index, "codes", None)
        if codes is not None and type(index).__name__ in _PLAIN and codes.size() != index.ntotal * index.code_size:
            wrong.append(f"expected {index.ntotal * index.code_size} bytes of codes in {name}, found {codes.size()}")
        inner = next((getattr(index, name) for name in _INNER if getattr(index, name, None) is not None), None)
        if inner is not None and inner.ntotal != index.ntotal:
            wrong.append(f"expected {index.ntotal} vectors in what {name} wraps, found {inner.ntotal}")
        index = inner


_INNER = ("index", "base_index", "storage", "index_ivf")
_PLAIN = frozenset({"IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexPQ", "IndexScalarQuantizer", "IndexLSH"})
