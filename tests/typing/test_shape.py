"""Each module of novabackup says in one sentence what it is for, and is short enough to read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import novabackup

PACKAGE = Path(novabackup.__file__).parent
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
ALONE = {"extract.py", "components/_pickle_child.py"}
"""Files that run without the rest of the package and so cannot be divided."""


@pytest.mark.parametrize("name", MODULES)
def test_the_first_line_of_a_module_is_one_sentence(name):
    docstring = ast.get_docstring(ast.parse((PACKAGE / name).read_text()))
    assert docstring, "there is no docstring"
    first, *rest = docstring.splitlines()
    assert first.endswith(".")
    assert ". " not in first, "put the second sentence below, after an empty line"
    assert not rest or not rest[0]


def test_files_are_short():
    lengths = {name: len((PACKAGE / name).read_text().splitlines()) for name in MODULES}
    assert {name for name, length in lengths.items() if length >= 500} <= ALONE
    assert set(MODULES) >= ALONE
