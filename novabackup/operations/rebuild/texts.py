"""The texts in the metadata of a store, and the common tokenizers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from novabackup.components import Component, JsonLines, Metadata
from novabackup.errors import ConfigurationError, IntegrityError

TEXT_FIELDS = ("text", "content", "page_content", "chunk", "body")
"""Members of an entry that commonly hold its text."""

Tokenize = Callable[[str], Sequence[str]]
"""Splits a text into words."""


def _pattern(pattern: str, prepare: Callable[[str], str]) -> Tokenize:
    find = re.compile(pattern).findall
    return lambda text: find(prepare(text))


def _without(pattern: str) -> Tokenize:
    away = re.compile(pattern)
    return lambda text: away.sub("", text.lower()).split()


TOKENIZERS: Mapping[str, Tokenize] = {
    "text.lower().split()": lambda text: text.lower().split(),
    "text.split()": str.split,
    'text.split(" ")': lambda text: text.split(" "),
    'text.lower().split(" ")': lambda text: text.lower().split(" "),
    r're.findall(r"\w+", text.lower())': _pattern(r"\w+", str.lower),
    r're.findall(r"\w+", text)': _pattern(r"\w+", str),
    're.findall(r"[a-z0-9]+", text.lower())': _pattern(r"[a-z0-9]+", str.lower),
    're.findall(r"[a-zA-Z0-9]+", text)': _pattern(r"[a-zA-Z0-9]+", str),
    're.findall(r"[a-z]+", text.lower())': _pattern(r"[a-z]+", str.lower),
    r're.findall(r"\b\w\w+\b", text.lower())': _pattern(r"\b\w\w+\b", str.lower),
    r're.sub(r"[^\w\s]", "", text.lower()).split()': _without(r"[^\w\s]"),
    r're.sub(r"[^a-z0-9\s]", "", text.lower()).split()': _without(r"[^a-z0-9\s]"),
}
"""Tokenizers that are tried, by the Python code that does the same."""


def entries(component: Component, data: bytes) -> list[Any]:
    """Parse the entries of a metadata file."""
    try:
        text = data.decode("utf-8-sig")
        if isinstance(component, JsonLines):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{component.path}: expected JSON, found an error: {error}") from None
    if isinstance(component, Metadata) and component.count_key is not None and isinstance(found, dict):
        found = found.get(component.count_key)
    if isinstance(found, dict):
        return list(found.values())
    if isinstance(found, list):
        return found
    raise ConfigurationError(f"{component.path}: expected a list or an object with the entries, found none")


def fields(found: Sequence[Any], wanted: str | None) -> list[str]:
    """Return the members that hold a text in every entry; an empty name means that the entries are texts themselves."""
    if wanted is None and all(isinstance(entry, str) for entry in found):
        return [""]
    names = TEXT_FIELDS if wanted is None else (wanted,)
    usable = [
        name for name in names if all(isinstance(entry, dict) and isinstance(entry.get(name), str) for entry in found)
    ]
    if usable:
        return usable
    members = sorted({name for entry in found[:100] if isinstance(entry, dict) for name in entry})
    raise ConfigurationError(
        f"expected a text in each of {len(found)} entries as {' or '.join(map(repr, names))}, found the members "
        f"{', '.join(map(repr, members[:20])) or 'none'}. Name the right one: text_field="
    )


def texts(found: Sequence[Any], field: str) -> list[str]:
    """Return the texts of entries, from a member that `fields` returned."""
    return [entry[field] if field else entry for entry in found]
