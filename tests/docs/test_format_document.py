"""docs/format.md says of the bytes on disk what they are; nothing of novabackup is used to read them here."""

from __future__ import annotations

import json
import os
import re
import struct
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from blake3 import blake3
from places import ROOT

from novabackup import IndexStore, Repository, snapshot
from novabackup.components import Tree
from novabackup.format import records as model

LATER = {"trees", "excluded", "links", "folders", "skipped", "probes", "classes", "embedding_model"}
TEXT = (ROOT / "docs/format.md").read_text()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def members(text: str) -> list[str]:
    """Give the names in the first column of the tables of a text, in order."""
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"\w+", cell)]


def fields(*records: type) -> list[str]:
    return [field.name for record in records for field in attrs.fields(record)]


@pytest.mark.parametrize(
    ("title", "records"),
    [
        ("config.json", [model.Config]),
        ("Snapshots", [model.SnapshotRecord, model.FileEntry, model.Probe]),
        ("Condemned packs", [model.Condemned]),
        ("Pins", [model.Pin]),
        ("Drills", [model.Drill]),
    ],
)
def test_every_member_of_a_record_is_described(title, records):
    assert sorted(members(section(title))) == sorted(fields(*records))


def test_every_member_of_the_journal_is_described():
    described = sorted(set(members(section("The journal"))) - {"block", "rollback", "backup", "restore", "released"})
    assert described == sorted({*fields(model.Journal, model.Owner)})
    phases = attrs.fields(model.Journal).phase.validator.options
    assert set(re.findall(r"^\| `(\w+)` \| (?:untouched|anything|partly|whole)", TEXT, re.MULTILINE)) == set(phases)


def test_reports_problems_and_attributes_are_described():
    for record in (model.Report, model.Problem, model.Attributes, model.LinkEntry, model.FolderEntry):
        for name in fields(record):
            assert f"`{name}`" in section("Snapshots"), name


@pytest.fixture
def repository(beside_a_store, manuals) -> Path:
    store = IndexStore(beside_a_store)
    repo = Repository(beside_a_store / "backups")
    message = 'Öl & Fett "°C" \\ \t\u2028\x1f\x7f \U0001f527'
    first = repo.backup(store, tags=["daily"], message=message)
    (beside_a_store / "metadata.json").unlink()  # built anew, so that nothing of the first snapshot is needed any more
    manuals.ingest(beside_a_store, "wheels")
    with snapshot(store, repo):
        manuals.ingest(beside_a_store, "cooling")
    repo.forget([first])
    repo.prune(grace=timedelta(0))
    last = repo.backup(store, message=message)
    repo.pin(last, message)
    repo.drill(last)
    return beside_a_store / "backups"


def open_envelope(path: Path, kind: str) -> dict:
    found = re.fullmatch(rb'\{"blake3":"([0-9a-f]{64})","%s":(.*)\}\n' % kind.encode(), path.read_bytes(), re.DOTALL)
    assert found
    assert blake3(found[2]).hexdigest() == found[1].decode()
    body = json.loads(found[2])
    assert json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == found[2]
    assert body["version"] == 1
    return body


def test_the_folder_holds_what_is_listed_and_nothing_else(repository):
    forms = {
        "config.json": r"config\.json",
        "README.txt": r"README\.txt",
        "extract.py": r"extract\.py",
        "packs/<xx>/<id>": r"packs/([0-9a-f]{2})/\1[0-9a-f]{62}",
        "snapshots/<id>.json": r"snapshots/\d{8}T\d{6}Z-[0-9a-f]{20}\.json",
        "pins/<id>.json": r"pins/\d{8}T\d{6}Z-[0-9a-f]{20}\.json",
        "drills/<time>-<16 hexadecimal digits>.json": r"drills/\d{8}T\d{6}Z-[0-9a-f]{16}\.json",
        "condemned/<time>-<16 hexadecimal digits>.json": r"condemned/\d{8}T\d{6}Z-[0-9a-f]{16}\.json",
    }
    for shown in forms:
        assert f"| `{shown}` |" in section("The folder")
    keys = [str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()]
    for form in forms.values():
        assert any(re.fullmatch(form, key) for key in keys), form
    for key in keys:
        assert any(re.fullmatch(form, key) for form in forms.values()), key


def test_every_record_is_an_envelope_around_a_canonical_body(repository):
    assert open_envelope(repository / "config.json", "config").keys() == set(fields(model.Config))
    for path in repository.glob("condemned/*.json"):
        assert open_envelope(path, "condemned")["packs"]
    for path in repository.glob("pins/*.json"):
        assert open_envelope(path, "pin").keys() == set(fields(model.Pin))
    for path in repository.glob("drills/*.json"):
        assert open_envelope(path, "drill").keys() == set(fields(model.Drill))
    for path in repository.glob("snapshots/*.json"):
        body = open_envelope(path, "snapshot")
        assert body.keys() | LATER == set(fields(model.SnapshotRecord))
        assert all(body[member] for member in LATER & body.keys())
    assert any("probes" in open_envelope(path, "snapshot") for path in repository.glob("snapshots/*.json"))


def test_names_are_written_as_described(repository, beside_a_store):
    (beside_a_store / os.fsdecode(b"a\xff")).write_bytes(b"x")
    (beside_a_store / "empty").mkdir()
    (beside_a_store / "link").symlink_to(os.fsdecode(b"a\xff"))
    point = Repository(repository).backup(
        IndexStore(beside_a_store, components=[Tree("a*"), Tree("empty"), Tree("link")])
    )
    body = open_envelope(repository / "snapshots" / f"{point.id}.json", "snapshot")
    assert [file["path"] for file in body["files"]] == ["a\0ff"]
    assert [(link["path"], link["target"]) for link in body["links"]] == [("link", "a\0ff")]
    assert [folder["path"] for folder in body["folders"]] == ["empty"]
    assert body.keys() >= {"trees", "excluded", "links", "folders"}


def test_the_id_of_a_snapshot_is_made_as_described(repository):
    paths = list(repository.glob("snapshots/*.json"))
    assert len(paths) == 2
    for path in paths:
        body = open_envelope(path, "snapshot")
        found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{6}))?Z", body["time"])
        *moment, micro = found.groups()
        for file in body["files"]:
            del file["packs"], file["runs"], file["depth"]
        del body["added"]
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digits = f"{int(micro or 0):05x}{blake3(canonical).hexdigest()[:15]}"
        assert path.stem == f"{''.join(moment[:3])}T{''.join(moment[3:])}Z-{digits}"


@pytest.mark.parametrize(("name", "comment"), [("README.txt", b""), ("extract.py", b"# ")])
def test_the_hash_in_the_texts_for_people_covers_them(repository, name, comment):
    seal = b"\n" + comment + b"blake3 of the text above: "
    text, _, line = (repository / name).read_bytes().rpartition(seal)
    assert line == blake3(text).hexdigest().encode() + b"\n"


def test_header_and_footer_of_packs_are_where_they_are_said_to_be(repository):
    for path in repository.glob("packs/*/*"):
        pack = path.read_bytes()
        assert pack[:16] == b"NOVAPACK\x01\x00" + bytes(6)
        magic, version, codec, encryption, stored, _raw, rest = struct.unpack("<8sHBBII12s", pack[-32:])
        assert (magic, version, encryption, rest) == (b"NOVATAIL", 1, 0, bytes(12))
        assert codec in (0, 1)
        assert blake3(pack[-32 - stored :]).hexdigest() == path.name
