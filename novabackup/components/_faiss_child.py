"""Reads a FAISS index with faiss itself, in a child process that a hostile file may crash."""

import base64
import hashlib
import os
from typing import Any

import faiss as _faiss
import numpy as np

faiss: Any = _faiss
_BUFFER = 1 << 20


class _Input:
    """Standard input for faiss, with a count of the bytes that faiss read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.taken = 0

    def __call__(self, length: int) -> bytes:
        data = os.read(self._descriptor, length)
        self.taken += len(data)
        return data


def look(arguments: dict[str, Any]) -> dict[str, object]:
    """Read the index on standard input, and run queries on it if there are any.

    Args:
        arguments: ``size`` of the file in bytes, ``binary`` for a binary index; optionally ``ask`` with ``again``
            (vectors in base64), the ``number`` of vectors to choose if there are none, and the number of ``nearest``.

    Returns:
        ``count``, ``dimension`` and ``wrong``: texts that describe contradictions; ``probes``: queries with answers.
    """
    index, found = read(0, arguments["size"], binary=bool(arguments["binary"]))
    if "ask" in arguments:
        found["probes"] = ask(index, binary=bool(arguments["binary"]), **arguments["ask"])
    return found


def read(descriptor: int, size: int, *, binary: bool) -> tuple[Any, dict[str, object]]:
    """Read and check an index; return it and what was found. Raises what faiss raises."""
    # Read-only, so that lists in another file are not opened for writing; and without the tables that faiss needs only
    # for searching and that may take gigabytes.
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
    return index, {"count": index.ntotal, "dimension": index.d, "wrong": wrong}


def _compare(index: Any, wrong: list[str]) -> None:
    """Find numbers of vectors that contradict each other, from the outermost wrapper inwards."""
    while index is not None:
        index = _downcast(index)
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


# -- queries ----------------------------------------------------------------------------------------------------------

_MOST_DIMENSIONS = 4096
"""Of an index that is queried; text embeddings have fewer, and more would make the record too large."""
_LARGEST_HALF = 65504.0


def ask(index: Any, *, binary: bool, again: list[str], number: int, nearest: int) -> list[dict[str, object]]:
    """Search for vectors; return each query with its answer."""
    if not 0 < index.d <= _MOST_DIMENSIONS or not index.ntotal:
        return []
    index = _downcast(index)
    questions = [base64.b64decode(vector) for vector in again]
    kind, width = (np.dtype(np.uint8), index.d // 8) if binary else (np.dtype("<f2"), index.d)
    questions = questions or _own(index, kind, width, min(number, index.ntotal))
    # A vector of another length is a query for another index, and gets no answer.
    fitting = [vector for vector in questions if len(vector) == width * kind.itemsize]
    answers: dict[bytes, tuple[list[int], list[str]]] = {}
    if fitting:
        rows = np.frombuffer(b"".join(fitting), kind).reshape(-1, width)
        distances, ids = index.search(rows if binary else rows.astype(np.float32), min(nearest, index.ntotal))
        for vector, scores, found in zip(fitting, distances.tolist(), ids.tolist(), strict=True):
            good = [(one, score) for one, score in zip(found, scores, strict=True) if one != -1 and np.isfinite(score)]
            answers[vector] = [one for one, _score in good], [f"{score:.9g}" for _one, score in good]
    return [
        {"vector": base64.b64encode(vector).decode(), "ids": found, "scores": scores}
        for vector in questions
        for found, scores in [answers.get(vector, ([], []))]
    ]


def _own(index: Any, kind: "np.dtype[Any]", width: int, number: int) -> list[bytes]:
    """Choose vectors evenly over the index, rounded; made-up ones if it cannot reconstruct its vectors."""
    chosen = []
    for part in range(number):
        vector = _stored(index, part, number)
        if vector is None:
            noise = hashlib.shake_128(b"%d" % part).digest(width * 2)
            vector = np.frombuffer(noise, np.uint8)[:width] if kind == np.uint8 else _noise(noise)
        if kind != np.uint8:
            vector = np.clip(np.nan_to_num(vector), -_LARGEST_HALF, _LARGEST_HALF)
        chosen.append(vector.astype(kind).tobytes())
    return list(dict.fromkeys(chosen))


def _noise(digest: bytes) -> Any:
    return np.frombuffer(digest, "<u2").astype(np.float32) / 32768 - 1


def _stored(index: Any, part: int, parts: int) -> Any:
    """Reconstruct one vector of an index; None if that is not possible."""
    try:
        while hasattr(index, "id_map"):
            index = _downcast(index.index)
        if not hasattr(index, "invlists"):
            return index.reconstruct(index.ntotal * (2 * part + 1) // (2 * parts))
        # By its position, since by its id that would need a map of all ids.
        first = index.nlist * (2 * part + 1) // (2 * parts)
        for list_number in (*range(first, index.nlist), *range(first)):
            if index.invlists.list_size(list_number):
                binary = isinstance(index, faiss.IndexBinary)
                vector = np.empty(index.d // 8, np.uint8) if binary else np.empty(index.d, np.float32)
                index.reconstruct_from_offset(list_number, 0, faiss.swig_ptr(vector))
                return vector
    except (RuntimeError, NotImplementedError, TypeError):
        pass
    return None


def _downcast(index: Any) -> Any:
    return faiss.downcast_IndexBinary(index) if isinstance(index, faiss.IndexBinary) else faiss.downcast_index(index)
