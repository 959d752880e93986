"""Each row of the document on procedures is tried out: its command is typed, its call is made, and both do the work.

Every row has a place of its own: a small Nova in ``/opt/nova-nic`` with both configuration files, one snapshot of it
and one of its indexes; where it is about copies, also a bucket, and a server that speaks SFTP.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import attrs
import console
import fenced
import pytest
from places import ROOT

import fake_nova
import nova
import servers
from novabackup import IndexStore, Repository, layouts, snapshot
from novabackup.integrations.prometheus import alert_rules
from novabackup.keys import Passphrase

DOCUMENT = ROOT / "docs" / "procedures.md"
PASSPHRASE = "check the brake pads every ten thousand kilometres"
SHARED = "Shared configuration"
WITH_COPIES = ("S3", "Another server", "From S3", "Server lost", "Retention")


@attrs.frozen
class Row:
    """One row of the table."""

    title: str
    section: str
    command: str
    call: str


def rows() -> list[Row]:
    found = re.findall(
        r"^\| \[([^\]]+)\]\(#([\w-]+)\)[^|]*\| `(novabackup[^|`]*)` \| `([^|`]*)` \|",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )
    return [Row(*cells) for cells in found]


def sections() -> dict[str, list[fenced.Block]]:
    """Give the blocks of each section of the document, by the title."""
    found: dict[str, list[fenced.Block]] = {}
    lines = DOCUMENT.read_text().splitlines()
    for block in fenced.blocks(DOCUMENT, "console", "python", "toml"):
        title = next(line for line in reversed(lines[: block.line]) if line.startswith("## "))
        found.setdefault(title.removeprefix("## "), []).append(block)
    return found


class Place:
    """A machine with a Nova, as the document sees it."""

    def __init__(self, root: Path, row: Row, places: dict[str, str]) -> None:
        self.root = root
        self.row = row
        self.places = places
        self.folder = root / "opt/nova-nic"
        self.indexes = self.folder / "vector_db"
        self.repository = Repository(root / "var/backups/nova-nic", key=Passphrase(PASSPHRASE))
        self.tried: list[str] = []
        self._blocks = sections()

    def type(self) -> str:
        """Type the commands of the section; give what they printed."""
        self.tried.append("type")
        session = console.Session(self.places)
        for block in self._of("console"):
            session.run(block)
        assert any(typed.startswith(self.row.command) for typed in session.typed), "the command of the table"
        return "\n".join(session.printed)

    def call(self) -> str:
        """Run the Python of the section; give what it printed."""
        self.tried.append("call")
        namespace: dict[str, object] = {"ingest": lambda text: nova.ingest(self.indexes, [text])}
        blocks = self._of("python")
        assert any(self.row.call.split(")")[0] in block.text for block in blocks), "the call of the table"
        shared = [block for block in self._blocks[SHARED] if block.language == "python"]
        return "".join(attrs.evolve(block, text=self.real(block.text)).run(namespace) for block in [*shared, *blocks])

    def write_files(self) -> None:
        for block in self._blocks[SHARED]:
            if block.marks[:1] == ("file",):
                path = Path(self.real(block.marks[1]))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.real(block.text))

    def real(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self.places)), lambda found: self.places[found[0]], text)

    def _of(self, language: str) -> list[fenced.Block]:
        found = [block for block in self._blocks[self.row.title] if block.language == language]
        assert found, f"{self.row.title} has no {language}"
        return found

    def tags(self) -> list[tuple[str, ...]]:
        return [point.tags for point in self.repository.snapshots()]

    def damage(self) -> None:
        (self.indexes / "faiss_index.bin").write_bytes(b"IxF2 cut off")

    def files(self) -> dict[str, bytes]:
        left_out = (".novabackup", ".venv", "logs", "backups", "archives", "__pycache__")
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix not in (".db", ".toml")]
        return {str(path): path.read_bytes() for path in found if not set(path.parts) & set(left_out)}


@pytest.fixture
def place(request, tmp_path, monkeypatch, passphrase) -> Iterator[Place]:
    """Set up a machine for the row that the test is named after."""
    (row,) = [row for row in rows() if named(row) == request.node.originalname]
    for name in [name for name in os.environ if name.startswith("NOVABACKUP_")] + ["XDG_CONFIG_HOME", "SSH_AUTH_SOCK"]:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "var/lib"))
    programs = f"{tmp_path}/programs:{Path(sys.executable).parent}"
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    port = servers.free_port()
    places = {
        "/opt/nova-nic": f"{tmp_path}/opt/nova-nic",
        "/var/backups": f"{tmp_path}/var/backups",
        "/var/lib": f"{tmp_path}/var/lib",
        "/etc/novabackup": f"{tmp_path}/etc/novabackup",
        "http://localhost:5000": f"http://127.0.0.1:{port}",
    }
    if row.title in WITH_COPIES:
        request.getfixturevalue("bucket")
        places["sftp://backup@vault"] = request.getfixturevalue("vault_server")
    made = Place(tmp_path, row, places)
    nova.install(made.folder, nova.texts(8))
    made.write_files()
    (tmp_path / "etc/novabackup.key").write_text(PASSPHRASE)
    (tmp_path / "etc/novabackup.key").chmod(0o600)
    for folder in ("node_exporter", "prometheus"):
        (tmp_path / "var/lib" / folder).mkdir(parents=True)
    monkeypatch.chdir(made.folder)
    whole = IndexStore(made.folder, components=layouts.nova_installation(include=["**"]))
    made.repository.backup(whole, tags=["daily"])
    made.repository.backup(IndexStore(made.indexes), tags=["hourly"])
    commands = fake_nova.commands(made.indexes, port, tmp_path / "nova.pid")
    fake_nova.systemctl(tmp_path / "programs", commands)
    (tmp_path / "programs/logger").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    (tmp_path / "programs/logger").chmod(0o755)
    yield made
    subprocess.run(commands["stop"], check=True)
    assert made.tried.count("type") == made.tried.count("call") == 1, "its commands and its call are to be tried"


@pytest.fixture
def vault_server(ssh_server, tmp_path) -> str:
    """Let the user's own keys and known hosts open a server; give the URL of it."""
    home = tmp_path / "home/.ssh"
    home.mkdir(mode=0o700)
    for name, there in (("client", "id_ed25519"), ("known_hosts", "known_hosts")):
        shutil.copy(ssh_server.folder / name, home / there)
    return f"sftp://{getpass.getuser()}@127.0.0.1:{ssh_server.port}{tmp_path}/vault"


def named(row: Row) -> str:
    return f"test_{row.section.replace('-', '_')}"


def health(place: Place) -> int:
    try:
        with urllib.request.urlopen(place.real("http://localhost:5000/health")) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def control(place: Place, verb: str) -> None:
    subprocess.run([place.root / "programs/systemctl", verb, "nova-nic"], check=True)


def test_every_row_has_a_test():
    assert {named(row) for row in rows()} == {
        name for name in globals() if name.startswith("test_") and not name.startswith("test_every_")
    }
    assert [row.title for row in rows()] == [title for title in sections() if title != SHARED]
    assert len(rows()) == DOCUMENT.read_text().count("\n| [")


def test_every_section_says_where_more_is():
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[2:]:
        assert re.search(r"\]\([\w./]+\.md", section), section.partition("\n")[0]


def test_components(place):
    assert place.type().count("has all its files") == 2
    assert "indexes critical daily vector_db/faiss_index.bin" in place.call()


def test_daily_backup(place):
    place.type()
    assert place.tags().count(("daily",)) == 3, "of a job, and of the command that it runs"
    before = place.repository["latest"]
    place.call()
    assert place.repository["latest"] != before
    point = place.repository.snapshots(tags=["daily"])[-1]
    assert {".env", "config/nova.toml", *(f"vector_db/{name}" for name in nova.FILES)} <= {*point.files}


def test_before_an_ingestion(place):
    place.type()
    place.call()
    assert place.tags().count(("pre-ingest",)) == 2
    text = (place.indexes / "metadata.json").read_text()
    assert "Grease the hinges." in text
    assert "washer fluid" in text
    assert not IndexStore(place.indexes).check()


def test_the_whole_system(place):
    place.type()
    place.call()
    for point in place.repository.snapshots(tags=["full"]):
        assert point.message == "before the move"
        assert {"app.py", ".env", "query_log.db", "data/manuals/brakes.txt"} <= {*point.files}
        assert not {"logs/nova.log", ".venv/pyvenv.cfg"} & {*point.files}
        assert point.added < 2000, "what is there already is not stored again"


def in_copy(place: Place, url: str) -> list[str]:
    return [point.id for point in Repository(place.real(url), key=Passphrase(PASSPHRASE))]


def test_s3(place):
    assert "2 snapshots copied" in place.type()
    place.repository.backup(IndexStore(place.indexes))
    place.call()
    assert place.repository["latest"].id in in_copy(place, "s3://bucket/nova-nic")


def test_another_server(place):
    assert "2 snapshots copied" in place.type()
    place.repository.backup(IndexStore(place.indexes))
    place.call()
    assert place.repository["latest"].id in in_copy(place, "sftp://backup@vault/srv/nova-nic")


def test_quick_recovery(place):
    good = place.files()
    control(place, "start")
    for again in (place.type, place.call):
        place.damage()
        again()
        assert place.files() == good


def lose_everything(place: Place) -> None:
    os.chdir(place.root)
    shutil.rmtree(place.folder)


def test_full_recovery(place):
    good = place.files()
    for again in (place.type, place.call):
        place.damage()
        printed = again()
        assert place.files() == good
        assert "recovery time" in printed.lower()
        assert health(place) == 200
        (aside,) = place.folder.parent.glob("nova-nic.old.*")
        shutil.rmtree(aside)


def only_in_s3(place: Place) -> None:
    place.repository.mirror(to=Repository("s3://bucket/nova-nic", key=Passphrase(PASSPHRASE)))
    shutil.rmtree(place.root / "var/backups")


def test_from_s3(place):
    good = place.files()
    only_in_s3(place)
    for again in (place.type, place.call):
        lose_everything(place)
        again()
        assert place.files() == good


def test_server_lost(place):
    good = place.files()
    only_in_s3(place)
    for again in (place.type, place.call):
        lose_everything(place)
        printed = again()
        assert place.files() == good
        assert "recovery time" in printed.lower()
        assert health(place) == 200


def test_after_a_backup(place):
    assert "no problems" in place.type()
    assert "3 files" in place.call()


def test_after_a_recovery(place):
    control(place, "start")
    assert "no problems" in place.type()
    assert health(place) == 200
    assert "brake" in place.call()


def test_corrupted_index(place):
    good = place.files()
    for again in (place.type, place.call):
        place.damage()
        control(place, "stop")
        control(place, "start")
        assert health(place) == 503
        again()
        assert place.files() == good
    assert health(place) == 200
    assert place.tags().count(("before-restore",)) == 2, "the corrupted files are kept"


def test_accidental_deletion(place):
    good = place.files()
    for again in (place.type, place.call):
        (place.folder / "data/manuals/brakes.txt").unlink()
        assert "data/manuals/brakes.txt" in again()
        assert place.files() == good


def test_bad_ingestion(place):
    good = place.files()
    assert "exit code 4" in place.type()
    assert place.files() == good
    with snapshot(IndexStore(place.indexes), place.repository):
        nova.ingest(place.indexes, ["The manual of another car."])
    place.call()
    assert place.files() == good


def test_retention(place):
    place.type()
    place.call()
    assert len(place.repository) == 2
    for url in ("s3://bucket/nova-nic", "sftp://backup@vault/srv/nova-nic", "s3://bucket/nova-nic-cold"):
        assert in_copy(place, url) == [point.id for point in place.repository], url


def test_metrics(place):
    written = place.root / "var/lib/node_exporter/nova.prom"
    for again in (place.type, place.call):
        again()
        assert "nova_backup_success" in written.read_text()
        written.unlink()


def test_alerts(place):
    written = place.root / "var/lib/prometheus/novabackup.yml"
    for again in (place.type, place.call):
        again()
        assert written.read_text() == alert_rules()
        written.unlink()


def test_monthly_drill(place):
    place.repository.backup(IndexStore(place.indexes))
    place.type()
    place.call()
    assert [drill.good for drill in place.repository.drills()] == [True, True]


def test_contacts(place):
    packs = place.root / "var/backups/nova-nic/packs"
    packs.rename(packs.with_name("moved"))
    packs.write_text("no folder")
    nova.ingest(place.indexes, ["what is new has nowhere to go"])
    assert "exit code 6" in place.type()
    with pytest.raises(OSError, match="packs"):
        place.call()
    told = (place.root / "told").read_text().splitlines()
    assert [line.rpartition(" ask ")[2] for line in told] == ["the on-call engineer"] * 2


def test_documentation(place):
    place.type()
    place.call()
    assert len([*(place.folder / "archives").iterdir()]) == 2, "the same archive, with its sum"
