"""A type checker sees the public API as it is meant, and importing it stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import novabackup

HERE = Path(__file__).parent


def test_mypy_sees_the_public_api_as_it_is_meant(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--python-version", "3.11"),
            *("--config-file", HERE.parents[1] / "pyproject.toml", "--cache-dir", tmp_path, HERE / "public_api.py"),
        ],
        cwd=HERE.parents[1],
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in 1 source file" in done.stdout


def test_types_are_shipped():
    assert (files("novabackup") / "py.typed").is_file()


def test_everything_public_is_there():
    for name in novabackup.__all__:
        assert getattr(novabackup, name) is not None
        assert name in dir(novabackup)
    with pytest.raises(AttributeError, match="no attribute 'restoer'"):
        _ = novabackup.restoer


def test_every_name_is_imported_from_where_a_type_checker_looks_for_it():
    tree = ast.parse(Path(novabackup.__file__).read_text())
    seen = {
        name.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert seen == novabackup._HOMES


def test_importing_the_package_imports_nothing_but_itself():
    code = (
        "import sys, novabackup; print(*sorted(name for name in sys.modules if name.startswith('novabackup.')))\n"
        "print(*sorted({'numpy', 'fsspec', 'attrs', 'msgspec', 'zstandard', 'asyncio', 'ssl'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=120, check=True)
    assert done.stdout.split() == []


def test_importing_imports_neither_faiss_nor_s3fs_nor_rank_bm25():
    code = (
        "import sys, novabackup, novabackup.components, novabackup.layouts\n"
        "store = novabackup.IndexStore('vector_db'); novabackup.Repository('vector_db/backups')\n"
        "heavy = {'faiss', 's3fs', 'rank_bm25', 'boto3', 'aiobotocore', 'hypothesis', 'pytest'}\n"
        "print(*sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=120, check=True)
    assert done.stdout.strip() == ""
    assert done.stderr == ""
