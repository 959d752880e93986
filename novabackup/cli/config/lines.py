"""Finds the line of each setting in a TOML file, which `tomllib` does not report."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

import attrs

Path = tuple[str | int, ...]
"""Keys, and positions in arrays, from the top of the document down to a setting."""

_DEEPEST = 64
"""Deeper settings have no line of their own: a document of tables in tables would cost the square of its depth."""

_STRING = r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
_PART = rf"(?:{_STRING}|[A-Za-z0-9_-]+)"
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_TOKEN = re.compile(
    rf"""
    (?P<skip>  [ \t\r]+ | \#[^\n]* )
  | (?P<long>  \"\"\"(?:\\.|[^\\])*?\"{{3,5}} | '''.*?'{{3,5}} )
  | (?P<key>   {_KEY} (?=[ \t]*=) )
  | (?P<text>  {_STRING} | [^\s\[\]{{}},=\#"']+ )
  | (?P<mark>  [\[\]{{}},=\n] )
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADER = re.compile(rf"[ \t]*(?P<array>\[)?\[[ \t]*(?P<key>{_KEY})[ \t]*\]")


def lines_of(text: str) -> dict[Path, int]:
    """Return the line of each table and key, counted from one, of a document that `tomllib` has accepted."""
    return _Scan(text).run()


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of a setting, or of the table that it is part of if it has none of its own."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


@attrs.define
class _Inside:
    """A table or an array that has been opened and not closed.

    Attributes:
        path: Where it is.
        position: For an array, the position of the element that is being read; None for an inline table.
        key: For an inline table, the key whose value is being read.
    """

    path: Path
    position: int | None = None
    key: Path = ()

    @property
    def here(self) -> Path:
        """The path of the value that is being read."""
        return (*self.path, *(self.key if self.position is None else (self.position,)))


class _Scan:
    """One walk over a document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._table: Path = ()
        self._open: list[_Inside] = []

    def run(self) -> dict[Path, int]:
        at, line, fresh = 0, 1, True
        while at < len(self._text):
            header = _HEADER.match(self._text, at) if fresh and not self._open else None
            if header:
                self._begin_table(header, line)
                at, fresh = header.end(), False
                continue
            token = _TOKEN.match(self._text, at)
            if token is None:
                break  # not TOML: tomllib has reported it
            if token["key"]:
                self._begin_value(_parts(token["key"]), line, top=fresh and not self._open)
            elif token["mark"]:
                self._mark(token["mark"], line)
            elif self._open and not token["skip"]:
                self._note(self._open[-1].here, line)
            fresh = token["mark"] == "\n" or (fresh and bool(token["skip"]))
            line += token[0].count("\n")
            at = token.end()
        return self._lines

    def _begin_table(self, header: re.Match[str], line: int) -> None:
        path: Path = ()
        for part in _parts(header["key"]):
            path = (*path, part)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        if header["array"]:
            path = path[:-1] if isinstance(path[-1], int) else path
            self._counts[path] = self._counts.get(path, 0) + 1
            self._lines.setdefault(path, line)
            path = (*path, self._counts[path] - 1)
        self._table = path
        self._note(path, line)

    def _begin_value(self, key: Path, line: int, *, top: bool) -> None:
        if top:
            self._open.append(_Inside(path=self._table, key=key))  # closed by the end of the line
        elif self._open:
            self._open[-1].key = key
        self._note(self._open[-1].here, line)

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, min(len(path), _DEEPEST) + 1):
            self._lines.setdefault(path[:length], line)

    def _mark(self, mark: str, line: int) -> None:
        if mark == "\n":
            if len(self._open) == 1:
                self._open.pop()
        elif not self._open:
            return
        elif mark in "[{":
            here = self._open[-1].here
            self._note(here, line)
            self._open.append(_Inside(path=here, position=0 if mark == "[" else None))
        elif mark in "]}":
            if len(self._open) > 1:
                self._open.pop()
        elif mark == "," and self._open[-1].position is not None:
            self._open[-1].position += 1


def _parts(key: str) -> Path:
    """Split a dotted key, whose parts may be quoted: with the parser that knows how."""
    return tuple(_descend(tomllib.loads(f"{key} = 0")))


def _descend(tree: object) -> Iterator[str]:
    while isinstance(tree, dict):
        (key, tree), *_none = tree.items()
        yield key
