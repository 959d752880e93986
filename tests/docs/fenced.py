"""Runs the Python in a Markdown file: its blocks share one namespace, and what they show must be what comes out."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<before>[^>]*?) -->\n)?```(?P<language>[\w-]*)\n(?P<text>.*?)^```\n"
    r"(?:\n<!-- test: then (?P<then>[^>]*?) -->\n)?",
    re.MULTILINE | re.DOTALL,
)


@attrs.frozen
class Block:
    """One fenced block."""

    path: Path
    line: int
    language: str
    text: str
    marks: tuple[str, ...]
    then: str

    @property
    def interactive(self) -> bool:
        return self.text.startswith(">>>")

    def run(self, namespace: dict[str, object]) -> str:
        """Run the block; give what it printed."""
        if self.interactive:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            test = doctest.DocTestParser().get_doctest(
                self.text, namespace, f"{self.path.name}:{self.line}", str(self.path), self.line
            )
            assert test.examples
            report = io.StringIO()
            runner = doctest.DocTestRunner(optionflags=flags)
            runner.run(test, out=report.write, clear_globs=False)
            namespace.update(test.globs)
            assert runner.failures == 0, report.getvalue()
            return ""
        code = "\n" * self.line + self.text + self.then
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(self.path), "exec"), namespace)
        return printed.getvalue()


def blocks(path: Path, *languages: str) -> Iterator[Block]:
    """Give the fenced blocks of a file in these languages."""
    text = path.read_text()
    for found in _BLOCK.finditer(text):
        if found["language"] in languages:
            yield Block(
                path=path,
                line=text[: found.start("text")].count("\n"),
                language=found["language"],
                text=found["text"],
                marks=tuple((found["before"] or "").split()),
                then=found["then"] or "",
            )
