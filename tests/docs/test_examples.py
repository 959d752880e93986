"""Every example runs as a user runs it, and shows what it promises to show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import EXAMPLES, environment

from novabackup import Repository

SCRIPTS = {
    "guard_an_ingest": [
        "The ingestion failed: the embedding service does not answer",
        "Every file is as it was: True",
        "The ingestion ended well, but count-mismatch",
        "This one stays: {'faiss_index.bin': 19, 'bm25_index.pkl': 19, 'metadata.json': 19}",
        "It can still be taken back: Snapshot('2",
    ],
    "guard_async": ["cooling: 10 chunks", "wheels was cancelled: 10 chunks, as before"],
    "decorate": ["cooling: 10 chunks", "engine: 15 chunks", "no such manual: 15 chunks, as before", "3 snapshots"],
    "backup": ["bytes in 3 files; the repository grew by", "nothing has changed; the repository grew by 0"],
    "list_and_find": [
        "{10} entries  daily, weekly  with the engine manual",
        "weekly and latest are the same: True",
        "found by the beginning of its id: True",
        "2 snapshots; False",
        "has no snapshot '20010101'",
    ],
    "restore": [
        "count-mismatch",
        "set aside  corpus_manifest.json",
        "write  faiss_index.bin",
        "keep  metadata.json",
        "Healthy: True - as before: True",
        "What was there is not lost: 2",
        "The same elsewhere: True",
    ],
    "restore_one_file": [
        "Written: bm25_index.pkl - as before: True",
        "In the other folder: metadata.json\n",
        "Read in place: Check the brake pads",
    ],
    "verify_and_check": [
        "Every byte of the snapshot is right.",
        "Problems of the repository: 0",
        "check: damaged (packs/",
        "does not match its hash",
        "verify: faiss_index.bin",
    ],
    "drill": [
        "structure: 3 files are right, 0 queries repeated",
        "hashes: 3 files",
        "open: 3 files",
        "queries: 3 files are right, 6 queries repeated",
        "Will it load here? nothing is known",
        "Restored, and not the newest: True",
        "Within the RTO: True",
        "Own test: 10 chunks are there",
        "Failed: command-failed",
        "Noted in the repository: [True, False]",
    ],
    "diff": [
        "added:     corpus_manifest.json",
        "changed:   bm25_index.pkl faiss_index.bin metadata.json",
        "5 -> 10 entries",
        "no difference to itself: True",
    ],
    "recover": [
        "Nothing to do yet: None",
        "The child died of signal 9 - as before: False",
        "RollbackError: no backup of half an ingestion",
        "interrupted in phase block; brought to snapshot 2",
        "As before: True - nothing left to do: None",
    ],
    "forget_and_prune": [
        "  why\n",
        "  keep    2",
        "pinned",
        "  forget  2",
        "a newer one is kept for 2",
        "last healthy snapshot of the store; last 2; daily 30: 2",
        "3 kept, 2 to be forgotten under last 2, daily 30,",
        "Forgotten: 2 - left: 3",
        "UTC: as delivered. To forget it, call unpin('2",
        "Condemned: 2 packs; deleted: 0",
        "Condemned: 0 packs; deleted: 2 packs",
        "Problems afterwards: 0",
    ],
    "repair": [
        "Damaged: config.json, packs/",
        "Lost without help: ",
        "write anew  config.json",
        "store anew  snapshots/",
        "set aside   packs/",
        "nothing lost",
        "Problems afterwards: 0",
        "Kept to be looked at: packs snapshots",
        "parameters    k1=1.5, b=0.75, epsilon=0.25",
        'words         re.findall(r"\\w+", text.lower())',
        "As before: True - problems: 0",
    ],
    "inspect_store": [
        "14 entries, dimension 64, IndexFlatIP",
        "14 entries, dimension None, BM25Okapi, pickle protocol 4",
        "Problems: 0",
        "Problem: count-mismatch",
    ],
    "own_component_and_check": [
        "2 groups - problems: 0",
        "lonely-word (synonyms.txt): line 2 has a single word",
        "too-small (metadata.json): expected 10 chunks, found 4",
        "Back: 2 groups - problems: 0",
    ],
    "export_and_import": [
        ".tar.gz: OK",
        "The same files: True",
        "Would take in: bm25_index.pkl faiss_index.bin metadata.json - checksum was right: True",
        "('imported', 'daily') imported from nova-backup-20260125_143000.tar.gz",
        "Again it is the same snapshot: True",
        "2026-01-24 08:00:00+00:00 ('pre-ingest', 'imported') metadata.json",
        "Not copied at that time: ",
    ],
    "read_without_novabackup": [
        "3 files",
        "before the fire",
        "faiss_index.bin: ",
        "every one checked",
        "The same files: True",
    ],
    "whole_installation": [
        "8 files, 1 link, 7 folders",
        "problems: 0",
        "left out: True",
        "refused: True",
        "restored 8 files, 1 link",
        "the link: production.toml - the empty folder: True",
        "database: ok, nothing missing: True",
        "indexes healthy: True",
        "weekly: data/brakes.txt",
    ],
    "encrypt": [
        "Readable for others: []",
        "Refused: the repository is encrypted. Pass a key that opens it",
        "Refused: the repository: expected a key that opens it, but this passphrase opens none of its 1 keys",
        "Restored with the key file: True",
        "Packs that were rewritten: 0",
        "Keys to be added again: ('in the safe',)",
        "Problems: 0 - keys: ['passphrase']",
    ],
    "copy_and_mirror": [
        "To copy: 4, there already: 0",
        "The same snapshots: True",
        "bytes of files became",
        "Next time: 1 copied",
        "A mirror would copy 0 and forget 3",
        "Left there: ['with everything', 'one more']",
        "Forgotten here: 0 forgotten there",
        "Everything came back: True",
        "Problems: 0",
    ],
    "progress": ["Restored 14275 bytes"],
}
"""What each script must print, in this order."""

HELPERS = {"manuals", "demo", "s3", "sftp"}


def run(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=tmp_path,
        env={**environment(), "TMPDIR": str(tmp_path)},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )


def assert_in_order(text: str, expected: list[str]) -> None:
    at = 0
    for piece in expected:
        found = text.find(piece, at)
        assert found >= 0, f"{piece!r} is not in what follows position {at} of\n{text}"
        at = found + len(piece)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_shows_what_it_should(name, tmp_path):
    done = run(tmp_path, EXAMPLES / f"{name}.py")
    assert done.returncode == 0, done.stderr
    assert_in_order(done.stdout, SCRIPTS[name])
    assert "Traceback" not in done.stderr
    if name == "progress":
        for bar in ("snapshot", "backup", "verify", "restore"):
            assert f"{bar}: 100%" in done.stderr


def test_no_example_is_forgotten():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys() | HELPERS


def test_the_s3_example(bucket, tmp_path):
    done = run(tmp_path, EXAMPLES / "s3.py", "s3://bucket/nova", bucket)
    assert done.returncode == 0, done.stderr
    counts = "{'faiss_index.bin': 15, 'bm25_index.pkl': 15, 'metadata.json': 15}"
    assert_in_order(
        done.stdout,
        [
            "Backup of the local store: ('nightly',) 3 files",
            "Every byte on S3 is right.",
            f"On S3: {counts}",
            f"the upload failed; back on S3: {counts}",
        ],
    )


def test_the_sftp_example(ssh_server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    for name, to in {"client": "id_ed25519", "client.pub": "id_ed25519.pub", "known_hosts": "known_hosts"}.items():
        shutil.copy(ssh_server.folder / name, tmp_path / ".ssh" / to)
    done = run(tmp_path, EXAMPLES / "sftp.py", ssh_server.url(f"{tmp_path}/nova"))
    assert done.returncode == 0, done.stderr
    counts = "{'faiss_index.bin': 15, 'bm25_index.pkl': 15, 'metadata.json': 15}"
    assert_in_order(
        done.stdout,
        [
            "Backup of the local store: ('nightly',) 3 files",
            "Every byte on the server is right.",
            f"On the server: {counts}",
            f"the upload failed; back on the server: {counts}",
            "Refused: expected a server whose key is in /dev/null, found one that is unknown there",
        ],
    )


def test_the_demonstration_breaks_in_four_ways_and_comes_back(tmp_path):
    done = run(tmp_path, EXAMPLES / "demo.py", tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert_in_order(
        done.stdout,
        [
            "electrics: 15 chunks, checked",
            "1. Broken by an exception",
            "ConnectionError: the embedding service does not answer",
            "The store came back, byte for byte.",
            "2. Broken by an error that the ingestion swallows",
            "CheckFailedError: count-mismatch",
            "The store came back, byte for byte.",
            "3. Broken by a FAISS file that was cut off",
            "CheckFailedError: damaged in faiss_index.bin",
            "The store came back, byte for byte.",
            "4. Broken by kill -9",
            "The process died of SIGKILL",
            "interrupted in phase 'block'",
            "The store came back, byte for byte.",
            "wheels: 19 chunks, checked",
            "Every byte of every snapshot was read and is right.",
        ],
    )
    assert len(re.findall(r" same$", done.stdout, re.MULTILINE)) == 12
    assert "DIFFERENT" not in done.stdout
    assert [snap.message for snap in Repository(tmp_path / "demo" / "backups") if snap.message.startswith("demo")] == [
        "demo 1",
        "demo 2",
        "demo 3",
        "demo 4",
    ]
    again = run(tmp_path, EXAMPLES / "demo.py", tmp_path / "demo")
    assert again.returncode == 0, again.stderr
