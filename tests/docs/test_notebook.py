"""The notebook runs from top to bottom, and what it shows are tables."""

from __future__ import annotations

import asyncio

import nbformat
import pytest
from nbclient import NotebookClient
from places import EXAMPLES

NOTEBOOK = EXAMPLES / "inspect_backups.ipynb"


@pytest.fixture
def executed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}})
    with asyncio.Runner() as runner:
        runner.run(client.async_execute())
    return notebook


def shown(notebook, source: str) -> str:
    """Give the HTML below the cell that ends with this line; the last one if there are several."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.endswith(source)]
    return "".join(output.data["text/html"] for output in cells[-1].outputs if output.output_type == "execute_result")


def test_every_object_shows_as_a_table(executed):
    assert executed.cells[1].outputs[-1].text == "interrupted, and put back\n"
    repository = shown(executed, "repo")
    assert repository.count("<tr>") == 5  # head, and four snapshots
    for text in ("before cooling", "with cooling", "before wheels", "failed-ingest", "pre-ingest", "vector_db/backups"):
        assert text in repository
    assert shown(executed, 'repo.snapshots(tags=["daily"])').count("<tr>") == 2
    daily = shown(executed, "\ndaily")
    for text in ("faiss_index.bin", "bm25_index.pkl", "metadata.json", "IndexFlatIP", "BM25Okapi", ">15<", "BLAKE3"):
        assert text in daily
    assert shown(executed, "daily.diff(failed)").count(">changed<") == 3
    store = shown(executed, "store.inspect()")
    assert store.count(">15<") == 3
    assert "written with" in store
    plan = shown(executed, "daily.plan_restore()")
    assert plan.count(">write<") == 3  # the rollback made new files, so their identity is not that of the snapshot
    for source in ("daily.restore()\nstore.check()", 'repo.check(read_data_subset="100%")'):
        assert "none" in shown(executed, source)
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            if output.output_type == "execute_result":
                assert "<table>" in output.data["text/html"]
                assert "<table>" not in output.data["text/plain"]


def test_problems_show_as_a_table(executed):
    (cell,) = [cell for cell in executed.cells if cell.source.startswith("manuals.write_metadata")]
    (output,) = [output for output in cell.outputs if output.output_type == "execute_result"]
    assert "count-mismatch" in output.data["text/html"]
    assert output.data["text/html"].count("<tr>") == 2


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
