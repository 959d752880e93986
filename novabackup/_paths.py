"""Relative paths that cannot leave their root, and the patterns that select them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

RESERVED = ".novabackup"
"""The folder in a store that belongs to novabackup: journal, lock, files set aside."""

_WILDCARDS = frozenset("*?[")
_CONTROL = re.compile(r"[\x00-\x1f\\]")
_SUSPECT = re.compile(rf"{_CONTROL.pattern}|\A[/]|\A.:|(?:\A|/)\.{{0,2}}(?:/|\Z)")
"""Finds something in every unsafe path by one search: the snapshots of a repository hold tens of thousands of paths."""


def unsafe(path: str) -> str | None:
    """Say why a relative path could name something outside of its root.

    Args:
        path: A path in POSIX form, as it comes from a user or from a record.

    Returns:
        The reason, or None for a path that is safe to use below a root.
    """
    if not _SUSPECT.search(path):
        return None
    if not path:
        return "it is empty"
    if _CONTROL.search(path):
        return "it holds a control character or a backslash"
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "it has an empty, '.' or '..' part"
    return None


def is_pattern(path: str) -> bool:
    """Tell whether a declared path is a pattern such as ``docs/*.txt``."""
    return not _WILDCARDS.isdisjoint(path)


def matches(path: str, pattern: str) -> bool:
    """Tell whether a path is selected by a pattern, part by part; ``**`` stands for any number of parts.

    A pattern without wildcards selects just itself.
    """
    return path == pattern or _match(path.split("/"), pattern.split("/"))


def _match(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])
