"""Reads off a BM25 index what it takes to write it again, inside of a child process, as `_pickle_child` reads it."""

import hashlib
import json
import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Not imported: in the child there is no package that this file belongs to.
_PICKLES = runpy.run_path(str(Path(__file__).with_name("_pickle_child.py")))
_INERT, _FIELDS = _PICKLES["Inert"], _PICKLES["_fields"]

FEW = 64
"""Documents whose hash alone tells most wrong ways to cut texts into words."""


def look(arguments: dict[str, Any]) -> dict[str, object]:
    """Read the pickle on standard input.

    Args:
        arguments: As for `_pickle_child.look`.

    Returns:
        What that says, and the ``recipe``.
    """
    value, _classes, found = _PICKLES["read"](0, arguments["start"], arguments["size"], arguments["shape"])
    return {**found, "recipe": _recipe(value, found["count"] or 0)}


def _recipe(value: object, count: int) -> dict[str, object]:
    """Say what it takes to write an index again: its members in order, and hashes of those that come from texts."""
    fields, kind = _FIELDS(value)
    module = getattr(value, "module", "")
    if isinstance(value, _INERT) and kind != value.name and value.args:
        module = getattr(value.args[0], "module", "")
    return {
        "class": f"{module}.{kind}" if isinstance(value, _INERT) else "dict",
        "members": {name: _member(name, fields[name], count) for name in fields},
    }


def _member(name: str, value: object, count: int) -> list[object]:
    """Describe a member: its kind, and its value or a hash of it."""
    said: list[object] | None = ["none"] if value is None else _number(value)
    if said is None and name in _DESCRIBED:
        said = _DESCRIBED[name](value, count)
    return said or ["unknown", value.name if isinstance(value, _INERT) else type(value).__name__]


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
    if isinstance(value, _INERT):
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
    code = (
        value.args[0].args[0] if isinstance(value, _INERT) and value.name == "scalar" and len(value.args) == 2 else ""
    )
    return [code, repr(_PICKLES["_number"](value))] if code in ("f8", "f4") else None


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
    """Hash what JSON can say."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
