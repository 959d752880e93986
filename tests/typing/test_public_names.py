"""Every public name can be imported, and the table of its module in docs/api.md has it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import novabackup
from novabackup import integrations

ROOT = Path(__file__).parents[2]
MODULES = [
    *(f"novabackup.{name}" for name in ("errors", "keys", "components", "checks", "layouts", "archives", "retention")),
    "novabackup.testing",
    *(
        f"novabackup.integrations.{found.name}"
        for found in pkgutil.iter_modules(integrations.__path__)
        if not found.name.startswith("_")
    ),
]


def tables() -> dict[str, list[str]]:
    """Return the names in docs/api.md, by module."""
    _, *sections = re.split(r"^## `([\w.]+)`$", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE)
    return {
        module: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
        for module, text in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.mark.parametrize("name", ["novabackup", *MODULES])
def test_public_names_can_be_imported(name):
    module = importlib.import_module(name)
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), public


@pytest.mark.parametrize("name", MODULES)
def test_the_table_of_a_module_has_each_name_once(name):
    assert sorted(tables()[name]) == sorted(importlib.import_module(name).__all__)


def test_no_other_module_has_a_table():
    assert list(tables()) == ["novabackup", *MODULES]


def test_errors_stand_in_their_own_table_and_not_again_in_the_first():
    found = tables()
    assert sorted([*found["novabackup"], *found["novabackup.errors"]]) == sorted(novabackup.__all__)
    assert set(found["novabackup.errors"]) <= set(novabackup.__all__)


def test_documents_use_every_name_of_the_package():
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))])
    assert [name for name in novabackup.__all__ if not re.search(rf"\b{name}\b", text)] == []
