"""Write a BM25 index in the shape of another, from words; refuse what cannot be made from words alone."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from novabackup.components.pickles import Recipe
from novabackup.errors import ConfigurationError

_CLASSES: Mapping[str, tuple[str, ...]] = {
    "rank_bm25.BM25Okapi": ("k1", "b", "epsilon"),
    "rank_bm25.BM25L": ("k1", "b", "delta"),
    "rank_bm25.BM25Plus": ("k1", "b", "delta"),
}
"""Classes that can be written, and their arguments besides the words."""

PARAMETERS = ("k1", "b", "epsilon", "delta")
_KNOWN_NUMBERS = (*PARAMETERS, "avgdl", "corpus_size", "average_idf")
_NUMBERS: Mapping[str, Callable[[Any], object]] = {"int": int, "float": float, "f8": np.float64, "f4": np.float32}
AGAIN = "Ingest again, or restore all files from one snapshot"
"""What to do if an index cannot be rebuilt."""


def require_writable(recipe: Recipe, where: str) -> None:
    """Raise a `ConfigurationError` if an index cannot be made from texts alone; ``where`` names it in the message."""
    members = dict(recipe.members)
    kind = recipe.kind
    if "documents" in members:
        raise ConfigurationError(
            f"{where} holds its documents as objects of a class of its own, which only the program that wrote it can "
            f"make. {AGAIN}"
        )
    if kind == "dict" and members.get("index", [""])[0] == "index":
        kind = members["index"][1]["class"]
        members |= {f"index.{name}": member for name, member in members.pop("index")[1]["members"].items()}
    if kind not in ("dict", *_CLASSES):
        raise ConfigurationError(
            f"{where}: expected a dict or one of {', '.join(_CLASSES)}, found {kind}, which cannot be made here. "
            f"{AGAIN}"
        )
    strange = [
        name
        for name, member in members.items()
        if member[0] == "unknown" or (member[0] in _NUMBERS and name.rpartition(".")[2] not in _KNOWN_NUMBERS)
    ]
    if strange or not recipe.count:
        what = f"the members {', '.join(strange)}, which do not come from texts alone" if strange else "no documents"
        raise ConfigurationError(f"{where} has {what}: it cannot be made here. {AGAIN}")


def write(recipe: Recipe, words: list[list[str]]) -> bytes:
    """Return the pickle of an index, unsigned, from the words of each document."""
    try:
        if recipe.kind == "dict":
            made = {name: _member(name, member, words) for name, member in recipe.members.items()}
            value: object = _shared(recipe.members, made)
        else:
            value = _object(recipe.kind, recipe.members, words)
    except ZeroDivisionError:
        raise ConfigurationError("expected documents with words in them, found none") from None
    return pickle.dumps(value, recipe.protocol)


def _object(kind: str, members: Mapping[str, Any], words: list[list[str]]) -> Any:
    import rank_bm25  # noqa: PLC0415 - slow, and needed by nothing else

    parameters = {name: _number(members[name]) for name in _CLASSES[kind] if name in members}
    return getattr(rank_bm25, kind.rpartition(".")[2])(words, **parameters)


def _member(name: str, member: Sequence[Any], words: list[list[str]]) -> object:
    """Return one member of a dict."""
    kind = member[0]
    if kind in _NUMBERS:
        counted = {"avgdl": sum(map(len, words)) / len(words), "corpus_size": len(words)}
        return _number([kind, counted.get(name, member[1])])
    return _MAKERS[kind](member, words)


def _shared(members: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """Return a dict around an object that shares with the object what is the same in both."""
    index = members.get("index", [""])
    inner = index[1]["members"] if index[0] == "index" else {}
    return {
        # Interned, like names in a program: the pickle then has them once.
        sys.intern(name): getattr(made["index"], name) if name in inner and members[name] == inner[name] else value
        for name, value in made.items()
    }


def _postings(words: list[list[str]]) -> dict[str, dict[int, int]]:
    """Count each word by document."""
    postings: dict[str, dict[int, int]] = {}
    for number, document in enumerate(words):
        for word, times in Counter(document).items():
            postings.setdefault(word, {})[number] = times
    return postings


_MAKERS: Mapping[str, Callable[[Sequence[Any], list[list[str]]], object]] = {
    "none": lambda member, words: None,
    "lengths": lambda member, words: list(map(len, words)),
    "frequencies": lambda member, words: [dict(Counter(document)) for document in words],
    "weights": lambda member, words: _object("rank_bm25.BM25Okapi", {}, words).idf,
    "postings": lambda member, words: _postings(words),
    "index": lambda member, words: _object(member[1]["class"], member[1]["members"], words),
}


def _number(member: Sequence[Any]) -> object:
    return _NUMBERS[member[0]](member[1])
