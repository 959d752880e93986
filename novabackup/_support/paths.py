"""Checks of relative paths that must not leave their root, and patterns that select paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

RESERVED = ".novabackup"
"""The folder in a store that belongs to novabackup: journal, lock, files set aside."""

_WILDCARDS = frozenset("*?[")
_UNDECODED = re.compile(r"[\ud800-\udfff]")
_SUSPECT = re.compile(rf"\0|{_UNDECODED.pattern}|\A/|(?:\A|/)\.{{0,2}}(?:/|\Z)")
"""Matches every unsafe path in a single search: the snapshots of a repository hold tens of thousands of paths."""
_UNPORTABLE = re.compile(rf"[\x00-\x1f\\]|{_UNDECODED.pattern}|\A.:")


def unsafe(path: str) -> str | None:
    """Return why a relative path could lead out of its root, or be a second spelling of another; None if it is safe.

    Bytes of a name that are not UTF-8 are represented as Python does (``surrogateescape``). Everything else that a
    POSIX file system accepts is safe: line feeds, backslashes, spaces.

    Args:
        path: A path in POSIX form, from a user or a record.
    """
    if not _SUSPECT.search(path):
        return None
    if not path:
        return "it is empty"
    if "\0" in path:
        return "it holds a NUL character"
    if path.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "it has an empty, '.' or '..' part"
    try:
        # Bytes that are UTF-8 after all would be a second spelling of the same name.
        plain = path.encode(errors="surrogateescape").decode(errors="surrogateescape") == path
    except UnicodeEncodeError:
        plain = False
    return None if plain else "it is not valid Unicode"


def unportable(path: str) -> str | None:
    """Return why a relative path is unsafe or not valid everywhere (object stores, other systems); None if it is."""
    reason = unsafe(path)
    if reason or not _UNPORTABLE.search(path):
        return reason
    if _UNDECODED.search(path):
        return "it is not valid Unicode"
    if len(path) > 1 and path[1] == ":":
        return "it begins with a drive letter"
    return "it holds a control character or a backslash"


def is_pattern(path: str) -> bool:
    """Return whether a declared path is a pattern such as ``docs/*.txt``."""
    return not _WILDCARDS.isdisjoint(path)


def fixed_part(pattern: str) -> str:
    """Return the deepest folder that contains everything a pattern can select; empty for the root."""
    fixed: list[str] = []
    for part in pattern.split("/")[:-1]:
        if is_pattern(part):
            break
        fixed.append(part)
    return "/".join(fixed)


def matches(path: str, pattern: str) -> bool:
    """Return whether a pattern selects a path, part by part; ``**`` stands for any number of parts.

    A pattern without wildcards selects just itself.
    """
    return path == pattern or _match(path.split("/"), pattern.split("/"))


def covered(path: str, patterns: Iterable[str]) -> bool:
    """Return whether one of the patterns selects a path, or a folder above it."""
    patterns = tuple(patterns)
    return bool(patterns) and any(matches(one, pattern) for one in (path, *above(path)) for pattern in patterns)


def above(path: str) -> Iterator[str]:
    """Yield the folders above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _match(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])
