"""Rules over reports: what agrees passes, what does not is named with its numbers."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from novabackup import checks, layouts
from novabackup.components import Bm25, Faiss, Files, JsonLines, Metadata, PickledList
from novabackup.format.records import Problem, Report

PATHS = ("faiss_index.bin", "bm25_index.pkl", "metadata.json")


def report(path, count=None, *, exists=True, dimension=None, problems=()) -> Report:
    return Report(component="X", path=path, exists=exists, count=count, dimension=dimension, problems=problems)


def store(vectors=5, documents=5, entries=5) -> list[Report]:
    return [report(PATHS[0], vectors, dimension=16), report(PATHS[1], documents), report(PATHS[2], entries)]


REPORTS = st.lists(
    st.builds(
        report,
        st.integers(0, 30).map("file{}".format),
        st.none() | st.integers(0, 3),
        exists=st.booleans(),
        dimension=st.none() | st.integers(1, 2),
    ),
    unique_by=lambda one: one.path,
)
PROBLEMS = st.lists(
    st.builds(
        Problem, code=st.sampled_from("ab"), paths=st.sampled_from([(), ("x",), ("y",)]), message=st.sampled_from("12")
    )
)


def test_a_store_that_agrees_has_no_problem():
    assert checks.run(checks.DEFAULT, [*store(), report("notes.txt")]) == ()


def test_counts_that_differ_are_named_with_their_files():
    (problem,) = checks.run(checks.DEFAULT, store(vectors=7))
    assert problem.code == "count-mismatch"
    assert problem.paths == PATHS
    assert "found faiss_index.bin 7, bm25_index.pkl 5, metadata.json 5. " in problem.message
    assert "restore" in problem.message


def test_files_without_a_count_are_not_compared():
    assert checks.counts_agree([report("a", 3), report("b"), report("c", 3)]) == ()
    assert checks.counts_agree([]) == ()


def test_a_count_of_none_at_all_differs_from_zero_entries():
    assert checks.counts_agree([report("a", 0), report("b", 0)]) == ()
    assert [problem.code for problem in checks.counts_agree([report("a", 0), report("b", 1)])] == ["count-mismatch"]


def test_dimensions_that_differ_are_named():
    (problem,) = checks.dimensions_agree([report("a", dimension=384), report("b", dimension=768), report("c")])
    assert (problem.code, problem.paths) == ("dimension-mismatch", ("a", "b"))
    assert "a 384, b 768" in problem.message


def test_damage_is_handed_on():
    damage = Problem(code="damaged", paths=("a",), message="expected more, found less")
    assert checks.run(checks.DEFAULT, [report("a", problems=(damage,)), report("b")]) == (damage,)


def test_a_missing_file_beside_others_is_a_problem():
    reports = [report("a", 1), report("b", exists=False), report("c", 1)]
    (problem,) = checks.run(checks.DEFAULT, reports)
    assert (problem.code, problem.paths) == ("missing", ("b",))
    assert "beside a, c" in problem.message


def test_a_store_before_its_first_ingest_has_no_problem():
    assert checks.run(checks.DEFAULT, [report(path, exists=False) for path in PATHS]) == ()
    assert checks.run(checks.DEFAULT, []) == ()


def test_a_store_that_has_lost_all_of_its_files_has_a_problem():
    gone = [report(path, exists=False) for path in PATHS]
    (problem,) = checks.emptied(gone, PATHS)
    assert (problem.code, problem.paths) == ("emptied", tuple(sorted(PATHS)))
    assert checks.emptied([*gone[1:], report(PATHS[0])], PATHS) == ()
    assert checks.emptied(gone, ()) == ()
    assert checks.emptied([], PATHS) == (), "no file is required"
    assert checks.last_known((), (problem,)) == sorted(PATHS), "it stays a problem in the snapshots that follow"
    assert checks.last_known(PATHS, ()) == PATHS


@pytest.mark.parametrize(("vectors", "documents", "fine"), [(5, 5, True), (9, 5, True), (4, 5, False), (0, 0, True)])
def test_an_append_only_index_may_have_more_vectors_but_not_fewer(vectors, documents, fine):
    problems = checks.vectors_cover_entries(store(vectors, documents, documents))
    assert [problem.code for problem in problems] == ([] if fine else ["count-mismatch"])


def test_without_vectors_or_entries_there_is_nothing_to_cover():
    assert checks.vectors_cover_entries([report("a", 5, dimension=3)]) == ()
    assert checks.vectors_cover_entries([report("a", 5), report("b", 9)]) == ()


@given(REPORTS)
def test_counts_agree_is_stricter_than_covering(reports):
    if not checks.counts_agree(reports):
        assert checks.vectors_cover_entries(reports) == ()


@given(REPORTS, st.randoms())
def test_the_order_of_the_reports_does_not_change_the_verdict(reports, random):
    shuffled = random.sample(reports, len(reports))
    codes = [sorted(problem.code for problem in checks.run(checks.DEFAULT, order)) for order in (reports, shuffled)]
    assert codes[0] == codes[1]


@given(REPORTS)
def test_a_problem_is_named_once(reports):
    found = checks.run([*checks.DEFAULT, *checks.DEFAULT], reports)
    assert len(set(found)) == len(found)
    assert found == checks.run(checks.DEFAULT, reports)


@given(PROBLEMS, PROBLEMS)
def test_new_problems_are_those_whose_code_and_files_were_not_there(before, after):
    new = checks.new_problems(before, after)
    old = {(problem.code, problem.paths) for problem in before}
    assert list(new) == [problem for problem in after if (problem.code, problem.paths) not in old]
    assert checks.new_problems(after, after) == ()
    assert checks.new_problems((), after) == tuple(after)


def test_another_wording_makes_no_problem_new():
    before = [Problem(code="count-mismatch", paths=("a", "b"), message="1 and 2")]
    after = [Problem(code="count-mismatch", paths=("a", "b"), message="3 and 4")]
    assert checks.new_problems(before, after) == ()


def test_a_rule_is_a_function():
    def no_vectors(reports):
        return [Problem(code="empty", paths=(one.path,)) for one in reports if one.count == 0]

    assert [problem.code for problem in checks.run([no_vectors], store(0, 0, 0))] == ["empty"] * 3


def test_the_layouts_are_those_of_nova():
    assert [(type(one), one.path) for one in layouts.NOVA if not one.optional] == [
        (Faiss, "faiss_index.bin"),
        (Bm25, "bm25_index.pkl"),
        (Metadata, "metadata.json"),
    ]
    assert [(type(one), one.path) for one in layouts.NOVA if one.optional] == [
        (Files, "corpus_manifest.json"),
        (Files, "domain_metadata.json"),
        (Files, "bm25_corpus_hash.txt"),
    ]
    assert (Faiss("vehicle_index.faiss"), JsonLines("vehicle_docs.jsonl")) == layouts.NOVA_VEHICLE
    assert (
        Faiss("faiss_index_multi_domain.bin"),
        PickledList("chunks_with_metadata.pkl"),
        Metadata("domain_metadata.json", count_key="total_chunks"),
    ) == layouts.NOVA_MULTI_DOMAIN
