"""Each disaster is played on an installation with a running service, and recovered from by commands.

The recovery time of each is shown at the end of a test run.
"""

from __future__ import annotations

import signal

import nova

BRAKES = nova.MANUALS[0]
OTHERS = "The brake pads of another car are never to be checked: how do they check? Brake pads, brake pads."


def test_a_corrupted_index(machine):
    good = machine.files()
    assert machine.type("novabackup", "snapshot").code == 0
    (machine.indexes / "faiss_index.bin").write_bytes(good["vector_db/faiss_index.bin"][1][:500])
    machine.restart()
    assert machine.health()["status"] == "unhealthy"
    assert machine.ask("How do I check brake pads?") == ""

    with machine.recovery(answers=BRAKES):
        looked = machine.type("novabackup", "probe", "--timeout", "1s")
        assert (looked.code, "damaged (faiss_index.bin)" in looked.out) == (1, True)
        restored = machine.type("novabackup", "restore", "latest", "--yes", "--json")
        assert restored.code == 0, restored.err

    written = [action["path"] for action in restored.json["actions"] if action["step"] == "write"]
    assert written == ["faiss_index.bin"], "nothing else was touched"
    assert machine.files() == good
    kept = machine.type("novabackup", "list", "--tag", "before-restore", "--json").json["snapshots"]
    assert [problem["code"] for problem in kept[0]["problems"]] == ["damaged"], "to find out what had happened"


def test_a_corrupted_bm25_index_is_written_anew_and_nothing_newer_is_lost(machine):
    assert machine.type("novabackup", "snapshot").code == 0
    assert machine.type("python", "ingest.py", "Grease the hinges.").code == 0  # by somebody who took no snapshot
    good = machine.files()
    (machine.indexes / "bm25_index.pkl").write_bytes(good["vector_db/bm25_index.pkl"][1][:500])
    machine.restart()
    assert machine.health()["status"] == "unhealthy"

    with machine.recovery(answers=BRAKES):
        mended = machine.type("novabackup", "repair", "--bm25", "--yes")
        assert mended.code == 0, mended.err
        machine.restart()

    assert machine.files() == good, "to the last byte"
    assert machine.ask("Grease the hinges.") == "Grease the hinges."


def test_the_server_is_lost(machine, bucket, new_machine):
    good = machine.files()
    mirrored = machine.installation("mirror", "s3")
    assert mirrored.code == 0, mirrored.err
    machine = new_machine()
    assert not machine.folder.exists()

    with machine.recovery(answers=BRAKES):
        s3 = ("--repository", "s3://bucket/nova-nic")
        assert "daily" in machine.installation("list", *s3).out
        recovered = machine.installation("full-recovery", *s3, "--yes", "--json")
        assert recovered.code == 0, recovered.err
        assert recovered.json["aside"] is None

    assert machine.files() == good
    assert good[".env"][0] & 0o777 == 0o600
    assert machine.installation("check", "--live", *s3).code == 0


def test_data_are_deleted_by_accident(machine):
    good = machine.files()
    (machine.folder / "data/manuals/brakes.txt").unlink()
    nova.build(machine.indexes, [text for text in nova.texts(16) if not text.startswith(BRAKES)])
    (machine.folder / "config/nova.toml").write_text("changed since, on purpose\n")
    machine.restart()
    assert machine.health()["status"] == "healthy", "nothing is corrupt"
    assert not machine.ask("How do I check brake pads?").startswith(BRAKES)

    with machine.recovery(answers=BRAKES):
        before = machine.installation("list", "--tag", "daily", "--json").json["snapshots"][-1]["id"]
        now = machine.installation("snapshot", "--tag", "deleted", "--json").json["snapshot"]["id"]
        difference = machine.installation("diff", before, now, "--json").json
        assert difference["removed"] == ["data/manuals/brakes.txt"]
        assert {f"vector_db/{name}" for name in nova.FILES} < {*difference["changed"]}
        paths = ("--path", "data/**", "--path", "vector_db/**")
        assert machine.installation("restore", before, *paths, "--yes").code == 0

    found = machine.files()
    assert {path for path in good if found.get(path) != good[path]} == {"config/nova.toml"}, "it stays as it was meant"


def test_a_bad_ingestion_is_undone_before_anyone_notices(machine):
    good = machine.files()
    with machine.recovery(answers=BRAKES):
        failed = machine.type("novabackup", "run", "--", "python", "ingest.py", "--broken", OTHERS)
        machine.restart()
    assert (failed.code, "every file was put back" in failed.err) == (4, True)
    assert machine.files() == good

    kept = machine.type("novabackup", "list", "--tag", "failed-ingest", "--json").json["snapshots"][0]["id"]
    looked = machine.root / "what it had written"
    assert machine.type("novabackup", "restore", kept, "--to", looked, "--yes").code == 0
    assert (looked / "metadata.json").read_text() == "["

    assert machine.type("novabackup", "run", "--", "python", "ingest.py", "Grease the hinges.").code == 0
    machine.restart()
    assert machine.ask("Grease the hinges.") == "Grease the hinges."


def test_a_bad_ingestion_is_undone_when_it_is_noticed(machine):
    good = machine.files()
    assert machine.type("novabackup", "run", "--", "python", "ingest.py", OTHERS).code == 0
    machine.restart()
    assert machine.health()["status"] == "healthy", "the indexes agree; it is what they say that is wrong"
    assert machine.ask("How do I check brake pads?") == OTHERS

    with machine.recovery(answers=BRAKES):
        before = machine.type("novabackup", "list", "--tag", "pre-ingest", "--json").json["snapshots"][-1]["id"]
        assert machine.type("novabackup", "restore", before, "--yes").code == 0

    assert machine.files() == good


def test_an_ingestion_that_was_killed_is_recovered_from(machine):
    good = machine.files()
    script = machine.root / "killed.py"
    script.write_text(
        "import os, pathlib\n"
        "pathlib.Path('vector_db/faiss_index.bin').write_bytes(b'half')\n"
        f"os.kill(os.getppid(), {signal.SIGKILL:d})\n"
        "while True:\n    pass\n"  # until it is killed, too
    )
    killed = machine.type("novabackup", "run", "--", "python", script)
    assert killed.code == -signal.SIGKILL
    machine.restart()
    assert machine.health()["status"] == "unhealthy"

    with machine.recovery(answers=BRAKES):
        assert machine.type("novabackup", "recover").code == 0
        machine.restart()

    assert machine.files() == good
