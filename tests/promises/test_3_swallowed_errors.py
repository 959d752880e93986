"""Ingestion that swallows its own errors is caught, too: on a clean exit the indexes are opened and compared."""

from __future__ import annotations

import pytest

import nova
from novabackup import CheckFailedError, snapshot

PROVED_BY = (
    "tests/guard/test_block.py::test_a_block_that_ends_well_with_broken_files_is_rolled_back",
    "tests/guard/test_object_stores.py::test_an_ingest_that_forgets_a_file_is_rolled_back",
    "tests/store/test_checks.py::test_counts_that_differ_are_named_with_their_files",
    "tests/store/test_checks.py::test_dimensions_that_differ_are_named",
    "tests/components/test_faiss_files.py::test_a_cut_at_any_byte_and_anything_added_are_noticed_for_every_type",
    "tests/components/test_pickles.py::test_a_cut_at_any_byte_is_noticed_in_every_protocol",
)


def cut_off(folder):
    (folder / "metadata.json").write_text("[")


def forget_the_metadata(folder):
    nova.write_faiss(folder, nova.texts(21))
    nova.write_bm25(folder, nova.texts(21))


@pytest.mark.parametrize("ingest", [cut_off, forget_the_metadata])
def test_a_clean_exit_with_files_that_disagree_is_rolled_back(store, folder, ingest):
    before = nova.contents(folder)
    with pytest.raises(CheckFailedError) as caught, snapshot(store):
        ingest(folder)
    assert "metadata.json" in str(caught.value)
    assert nova.contents(folder) == before
