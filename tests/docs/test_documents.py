"""What the documents show is what happens, and what they link to is there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import console
import fenced
import pytest
from places import ROOT

from novabackup import IndexStore, Repository, errors
from novabackup.cli.app import ENTRIES
from novabackup.cli.config import file as config
from novabackup.cli.config import sections, values
from novabackup.cli.exits import Exit
from novabackup.cli.main import app

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = ROOT / "README.md"
GUIDE = ROOT / "docs/guide.md"
INDEX = ROOT / "docs/README.md"
TOLD_APART = [ROOT / "docs/procedures.md"]
"""Documents each section of which has a place of its own: test_procedures.py runs all that is in them."""


def machine(folder: Path) -> dict[str, Path]:
    """Say where the folders of documents are here."""
    places = {there: folder / there[1:] for there in ("/opt/nova-nic", "/mnt/backups")}
    return {**places, console.SHOWN_FOLDER: folder}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_first_example_works_as_printed_when_pasted_into_a_session(beside_a_store, manuals):
    first = next(fenced.blocks(README, "python"))
    before = manuals.hashes(beside_a_store)
    session = subprocess.run(
        [sys.executable, "-q", "-i"], input=first.text + "\n", text=True, capture_output=True, timeout=120, check=False
    )
    assert session.stdout.splitlines()[-1] == "healthy", session.stderr
    assert "every file was put back to snapshot" in session.stdout
    assert "damaged (metadata.json): expected JSON, found an empty file" in session.stdout
    assert "Error" not in session.stderr
    assert manuals.hashes(beside_a_store) == before
    tags = [snap.tags for snap in Repository("vector_db/backups").snapshots()]
    assert tags == [("pre-ingest",), ("failed-ingest",)]


@pytest.fixture
def library(beside_a_store, manuals, tmp_path, request):
    """Run the Python of a document that shows the library with an ``ingest()`` of the reader's own."""

    def ingest() -> None:
        for write in (manuals.write_faiss, manuals.write_bm25, manuals.write_metadata):
            write(beside_a_store, manuals.read_chunks("brakes", "engine"))

    def run(path: Path) -> list[str]:
        namespace: dict[str, object] = {"ingest": ingest, "asyncio": asyncio}
        printed = []
        for block in fenced.blocks(path, "python"):
            if "s3" in block.marks:
                request.getfixturevalue("bucket")
            moved = block.text.replace("/mnt/backups", str(tmp_path / "mnt")).replace("/tmp/elsewhere", "elsewhere")
            printed.append(attrs.evolve(block, text=moved).run(namespace))
        assert not IndexStore("vector_db").check()
        return printed

    return run


def test_the_readme_does_what_it_shows(library):
    assert library(README)[0].endswith("\nhealthy\n")
    assert not IndexStore("elsewhere").check()


def test_the_guide_does_what_it_shows(library):
    library(GUIDE)
    assert [path.name for path in Path("elsewhere").iterdir() if path.is_file()] == ["metadata.json"]
    assert len(Repository("vector_db/backups").snapshots(tags=["nightly"])) == 1
    options = {"client_kwargs": {"region_name": "eu-central-1"}}
    assert [snap.tags for snap in Repository("s3://bucket/backups", storage_options=options)] == [("nightly",)]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path not in (README, GUIDE, *TOLD_APART)], ids=relative)
def test_other_documents_do_what_they_show(path, beside_a_store, request):
    namespace: dict[str, object] = {}
    moved: dict[str, str] = {}
    for block in fenced.blocks(path, "python"):
        for mark in block.marks:  # a fixture that says where things of the document are here
            moved |= request.getfixturevalue(mark)
        text = block.text
        for shown, real in moved.items():
            text = text.replace(shown, real)
        attrs.evolve(block, text=text).run(namespace)


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path not in TOLD_APART], ids=relative)
def test_commands_in_documents_print_what_is_shown(path, request):
    found = list(fenced.blocks(path, "console", "toml"))
    session = console.Session(machine(request.getfixturevalue("beside_an_ingest"))) if found else None
    for block in found:
        if block.marks[:1] == ("file",):
            Path(block.marks[1]).write_text(session.real(block.text))
        elif block.marks[:1] == ("by",):  # another test types such commands, since they need places of their own
            there = (ROOT / block.marks[1]).read_text()
            programs = re.findall(r"^\$ (?:python3 )?(\S+)", block.text, re.MULTILINE)
            assert all(program in there for program in programs if program not in ("cd", "ls")), block.marks[1]
        elif block.language == "console":
            session.run(block)
    typed = [command for command in (session.typed if session else []) if command.startswith("novabackup ")]
    shown = re.findall(r"^ *\$ (novabackup .*)", path.read_text(), re.MULTILINE)
    assert shown == typed, "a command stands outside of the blocks that are run"


def test_every_configuration_in_the_documents_can_be_read(tmp_path):
    for path in DOCUMENTS:
        for block in fenced.blocks(path, "toml"):
            (tmp_path / "novabackup.toml").write_text(block.text)
            if "broken.toml" not in block.marks:
                assert config.load(tmp_path / "novabackup.toml") != sections.Config()


def test_every_command_is_in_its_document_with_its_exit_codes_and_settings():
    text = (ROOT / "docs/cli.md").read_text()
    commands = {name for name in app() if not name.startswith("-")}
    assert {name for name in commands if f"$ novabackup {name}" not in text} == set()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == sorted({*Exit})
    assert {name for name in values.LAYOUTS if f"`{name}`" not in text} == set()
    for name in sections.Config.__struct_fields__:
        assert re.search(rf"^\| `{name}\.", text, re.MULTILINE), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        file, _, heading = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), target
        assert not heading or heading in headings(there), target


def headings(path: Path) -> set[str]:
    """Give the names by which sections of a file are linked to."""
    found = re.findall(r"^#+ +(.*)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_every_error_is_in_the_table_of_errors():
    listed = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    assert listed == set(errors.__all__) - {"NovaBackupError"}


def test_every_design_note_is_numbered_once():
    names = sorted(path.name for path in (ROOT / "docs/design").glob("*.md"))
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]


def test_commands_stand_nowhere_but_where_they_are_run():
    for path in DOCUMENTS:
        for block in fenced.blocks(path, "sh", "bash", "shell", "text", ""):
            lines = [line for line in block.text.splitlines() if line.strip()]
            if block.language == "text":
                assert not [line for line in lines if line.lstrip().startswith("$ ")], f"{relative(path)}:{block.line}"
            elif "benchmarks" not in path.parts:  # those take hours
                assert all(re.match(r"make |\.ci/run", line) for line in lines), f"{relative(path)}:{block.line}"


def test_every_command_in_running_text_is_one():
    known = {entry.name for entries in ENTRIES.values() for entry in entries}
    for path in (README, *ROOT.glob("docs/*.md")):
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        said = set(re.findall(r"`novabackup ([a-z-]+)[^`]*`", text))
        if path.name == "format.md":  # contexts of keys begin with the same word
            said = set()
        assert said <= known | {"backup"}, path  # a span is called so


def test_every_extra_in_the_documents_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in DOCUMENTS:
        assert set(re.findall(r"novabackup\[([a-z-]+)\]", path.read_text())) <= {*extras}, path


def test_every_dependency_has_its_reason():
    text = (ROOT / "docs/design/0006-dependencies.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for name in (re.match(r"[\w-]+", one)[0] for one in needed):
        assert re.search(rf"^\| (\S+, )?{name}[ ,]", text, re.MULTILINE), name


def test_every_page_is_in_the_index_which_the_readme_links_to():
    linked = re.findall(r"\]\(([\w/.-]+\.md)", INDEX.read_text())
    assert {path.name for path in ROOT.glob("docs/*.md")} - {INDEX.name} == {name for name in linked if "/" not in name}
    assert "(docs/README.md)" in README.read_text()


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 250


def test_every_make_target_in_the_documents_is_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        for target in re.findall(r"`make (\w+)|^make (\w+)", path.read_text(), re.MULTILINE):
            assert "".join(target) in targets, path
