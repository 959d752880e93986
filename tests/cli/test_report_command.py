"""The command report: a sentence for people, a file that opens anywhere, fields for programs."""

from __future__ import annotations

import nova
from novabackup.cli.exits import Exit


def test_all_is_well_or_what_to_do_is_said_and_written(cli, store, place):
    cli("snapshot", "--tag", "daily")
    nova.ingest(store, nova.texts(2, 5))
    cli("snapshot")
    cli("drill", "--rto", "5m")
    said = cli("report", "--output", "report.html")
    assert said.code == Exit.OK
    sentence, where = said.out.splitlines()
    assert sentence.startswith("Healthy: All is well: the newest healthy snapshot was taken ")
    assert where == "The report is in report.html"
    assert "✓ Healthy" in (place / "report.html").read_text()
    (store / "bm25_index.pkl").write_bytes(b"cut off")
    said = cli("report", "--output", "report.html", "--quiet")
    assert said.code == Exit.WRONG
    assert said.out.startswith("Act now: ")
    assert "novabackup repair --bm25" in (place / "report.html").read_text()


def test_programs_get_the_same(cli, store, place):
    cli("snapshot")
    cli("pin", "--message", "before the move")
    found = cli("report", "--json", "--policy", "daily 3", "--runs", place / "runs").json
    assert (found["state"], found["policy"], found["report"]) == ("soon", "daily 3", None)
    assert [one["advice"] for one in found["findings"]] == ["Run novabackup drill latest.", "Run novabackup verify."]
    (point,) = found["points"]
    assert (point["vectors"], point["pin"], point["kept"]) == (5, "before the move", True)
    assert point["time"].endswith("Z")
    assert found["healthy"] == point["id"]


def test_the_last_verification_is_known_where_runs_are_remembered(cli, store, place):
    configuration = place / "novabackup.toml"
    configuration.write_text(configuration.read_text() + "\n[metrics]\n")
    cli("snapshot")
    assert "No verification is known" in cli("report").out
    cli("verify")
    found = cli("report", "--json").json
    assert (found["remembers"], found["verified"]["kind"], found["verified"]["error"]) == (True, "verify", "")
    assert "No verification" not in found["summary"]


def test_where_there_is_no_repository_the_report_says_so(cli, store, place):
    said = cli("report", "-o", "report.html")
    assert said.code == Exit.WRONG
    assert "there is no repository" in said.out
    assert "there is no repository" in (place / "report.html").read_text()


def test_it_takes_the_place_of_no_index(cli, store):
    before = nova.contents(store)
    for place in ("vector_db/faiss_index.bin", "vector_db", "."):
        said = cli("report", "--output", place)
        assert said.code == Exit.USAGE
        assert "ends with .html" in said.err
    assert nova.contents(store) == before


def test_how_old_a_backup_may_be_can_be_said(cli, store):
    cli("snapshot")
    assert cli("report").code == Exit.OK
    said = cli("report", "--max-age", "0")
    assert said.code == Exit.WRONG
    assert "should not be older" in said.out
