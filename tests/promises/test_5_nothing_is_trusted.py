"""Nothing that is read from a store or a repository is executed or trusted: no pickle is loaded with its own classes,
no path leaves its root, no length is used before it is checked.
"""

from __future__ import annotations

import pytest

from novabackup import ConfigurationError
from novabackup.components import Metadata

PROVED_BY = (
    "tests/components/test_hostile_pickles.py::test_nothing_that_a_pickle_names_runs",
    "tests/components/test_hostile_pickles.py::test_no_module_that_a_pickle_names_is_imported",
    "tests/components/test_hostile_pickles.py::test_a_bomb_takes_no_more_memory_than_allowed",
    "tests/components/test_faiss_files.py::test_lengths_that_no_memory_can_hold_are_damage",
    "tests/format/test_records.py::test_a_path_that_could_leave_its_root_or_has_two_spellings_is_refused",
    "tests/format/test_records.py::test_a_well_sealed_record_with_values_that_cannot_be_is_refused",
    "tests/repository/test_damage.py::test_a_forged_list_of_runs_takes_no_memory",
    "tests/storage/test_local.py::test_links_that_lead_out_are_refused",
    "tests/store/test_trees.py::test_nothing_is_ever_written_through_a_link",
    "tests/operations/archives/test_hostile_archives.py::test_a_path_that_leaves_the_archive_is_refused",
)


def test_a_pickle_that_calls_a_program_is_read_without_running_it(store, folder, tmp_path):
    marker = tmp_path / "was run"
    (folder / "bm25_index.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    assert [path for problem in store.check() for path in problem.paths if path == "bm25_index.pkl"]
    assert not marker.exists()


@pytest.mark.parametrize("path", ["../metadata.json", "/etc/passwd", "a/../../b.json"])
def test_a_path_that_leaves_the_store_is_refused(path):
    with pytest.raises(ConfigurationError):
        Metadata(path)


def test_a_header_that_claims_a_huge_index_is_damage(store, folder):
    content = bytearray((folder / "faiss_index.bin").read_bytes())
    content[8:16] = (1 << 60).to_bytes(8, "little")  # the number of vectors
    (folder / "faiss_index.bin").write_bytes(content)
    assert any("faiss_index.bin" in problem.paths for problem in store.check())
