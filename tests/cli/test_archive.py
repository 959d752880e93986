"""What export and import do."""

from __future__ import annotations

import shutil
import subprocess

from novabackup import Repository


def test_an_archive_that_was_written_is_taken_in_again(cli, store, place):
    cli("snapshot")
    written = cli("export", "--to", "archives", "--json").json
    done = subprocess.run(["sha256sum", "-c", f"{written['url']}.sha256"], cwd=place / "archives", check=False)
    assert done.returncode == 0
    other = ("-r", "other")
    planned = cli("import", "archive", written["url"], "--dry-run", "--json", *other).json
    assert (planned["dry_run"], len(planned["snapshots"][0]["files"])) == (True, 3)
    assert not (place / "other").exists()
    assert (
        "1 snapshot would be imported; nothing was done"
        in cli("import", "archive", written["url"], "--dry-run", *other).out
    )
    assert cli("import", "archive", written["url"], "--tag", "old", *other).code == 0
    assert [set(one.tags) for one in Repository(place / "other")] == [{"imported", "old"}]


def test_an_archive_of_something_else_is_refused(cli, store, place):
    (place / "notes").write_text("of something else")
    subprocess.run(["tar", "-czf", "notes.tar.gz", "notes"], cwd=place, check=True)
    said = cli("import", "archive", "notes.tar.gz", "--dry-run")
    assert said.code == 1
    assert "It has no file of the store" in said.out
    assert cli("import", "archive", "notes.tar.gz").code == 2


def test_copies_of_a_script_become_snapshots(cli, store, place):
    for name in ("faiss_index.bin", "bm25_index.pkl", "metadata.json"):
        shutil.copy(store / name, store / f"{name}.pre_ingest_20260125_143000")
    planned = cli("import", "pre-ingest", "vector_db", "--dry-run")
    assert planned.out.startswith("1 snapshot would be imported; nothing was done\n")
    assert "2026-01-25 14:30" in planned.out
    taken = cli("import", "pre-ingest", "vector_db", "--json").json["snapshots"]
    assert [set(one["tags"]) for one in taken] == [{"pre-ingest", "imported"}]
    assert taken[0]["time"] == "2026-01-25T13:30:00Z"
    cli("import", "pre-ingest", "vector_db")
    assert len(Repository(place / "backups")) == 1


def test_a_folder_that_is_not_there_is_not_one_without_copies(cli, store):
    said = cli("import", "pre-ingest", "vectordb")
    assert said.code == 2
    assert "expected a folder with files such as" in said.err
