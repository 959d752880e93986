"""Each promise of the README has one file here, and each file names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILES = sorted(Path(__file__).parent.glob("test_[0-9]*.py"))


def promises() -> list[str]:
    section = README.partition("\n## Promises\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\d+\. (.*(?:\n   .*)*)", section, re.MULTILINE)
    return [" ".join(promise.split()) for promise in listed]


def functions(path: Path) -> set[str]:
    found = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def proofs(path: Path) -> list[str]:
    """Return the entries of PROVED_BY, without importing the file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROVED_BY":
            return list(ast.literal_eval(node.value))
    return []


def test_each_promise_has_one_file_that_quotes_it():
    quoted = [" ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split()) for path in FILES]
    assert quoted == promises()
    assert [path.name.split("_")[1] for path in FILES] == [str(number + 1) for number in range(len(quoted))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_named_test_is_there(path):
    named = proofs(path)
    assert named
    assert len(set(named)) == len(named)
    for name in named:
        file, _, function = name.partition("::")
        assert function.startswith("test_"), name
        assert function in functions(ROOT / file), name
    assert any(name.startswith("test_") for name in functions(path)), "a promise has a short test of its own, too"


def test_the_readme_links_here():
    assert "](tests/promises/)" in README
