"""The script in a repository gets everything out of it, with next to nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import blake3
import pytest
import zstandard

import nova
from novabackup import IndexStore, Repository, extract, model
from novabackup.components import Files
from novabackup.keys import Passphrase

PACKAGES = {"zstandard": zstandard, "blake3": blake3}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give a function that makes a Python in which nothing but the packages named is installed."""

    def make(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        venv.create(folder, symlinks=True)
        (place,) = folder.glob("lib/python3*/site-packages")
        for name in packages:
            (place / name).symlink_to(Path(PACKAGES[name].__file__).parent)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="module")
def with_zstandard(python) -> Path:
    return python("zstandard")


@pytest.fixture(scope="module")
def with_both(python) -> Path:
    return python("zstandard", "blake3")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Repository:
    """Two snapshots with every codec, more than one pack, a list of runs, an empty file and folders."""
    folder = tmp_path_factory.mktemp("store")
    nova.build(folder, nova.texts(1200))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "docs").mkdir()
    (folder / "docs" / "ä b.txt").write_text("check the brake pads\n" * 100)
    (folder / "docs" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "docs" / "run.sh").chmod(0o750)
    noise = blake3.blake3(b"noise").digest(length=14 << 20)
    (folder / "noise.bin").write_bytes(noise)
    store = IndexStore(folder, components=[Files("*"), Files("docs/*")])
    repository = Repository(tmp_path_factory.mktemp("kept") / "repository")
    repository.backup(store, tags=["first"])
    parts = [noise[start : start + 40_000] + bytes([start % 251]) * 5 for start in range(0, len(noise), 40_000)]
    (folder / "noise.bin").write_bytes(b"".join(parts))
    nova.ingest(folder, nova.texts(30, 1200))
    repository.backup(store, message="zwölf")
    files = repository["latest"].files.values()
    assert max(entry.depth for entry in files) == 1
    assert len({pack for entry in files for pack in entry.packs}) > 1
    return repository


@pytest.fixture
def repository(made, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(made.url, tmp_path / "repository")


def run(program: Path, *arguments: object, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "LC_ALL": "C.UTF-8"}
    command = [program, "-I", *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True, timeout=120, check=False, env=environment)


def assert_same(folder: Path, point) -> None:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert found.keys() == point.files.keys()
    for name, path in found.items():
        entry = point.files[name]
        assert blake3.blake3(path.read_bytes()).hexdigest() == entry.blake3, name
        assert path.stat().st_mode & 0o777 == entry.attributes.mode
        assert path.stat().st_mtime_ns == entry.attributes.mtime_ns


def test_it_lists_what_is_there(repository, made, with_zstandard):
    done = run(with_zstandard, repository / "extract.py")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(made.snapshots()[0].id)
    assert "first" in first
    assert "7 files" in second


def test_every_file_of_every_snapshot_comes_out_with_zstandard_alone(repository, made, with_zstandard, tmp_path):
    for number, point in enumerate(made):
        done = run(with_zstandard, repository / "extract.py", point.id, tmp_path / f"out-{number}")
        assert done.returncode == 0, done.stderr
        assert "not checked" in done.stdout
        assert "package blake3 is not installed" in done.stderr
        assert_same(tmp_path / f"out-{number}", point)


def test_with_blake3_every_byte_is_checked(repository, made, with_both, tmp_path):
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("every one checked") == 7
    assert done.stderr == ""
    assert_same(tmp_path / "out", made["latest"])


def test_the_program_zstd_is_enough(repository, made, python, tmp_path):
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("needs zstd")
    bare = python()
    without = run(bare, repository / "extract.py", "latest", tmp_path / "out")
    assert without.returncode == 2
    assert "pip install zstandard" in without.stderr
    done = run(bare, repository / "extract.py", "latest", tmp_path / "out", path=str(Path(program).parent))
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", made["latest"])


def test_single_files_can_be_named_and_nothing_is_overwritten(repository, made, with_both, tmp_path):
    script = [repository / "extract.py", made["latest"].id[-12:], tmp_path / "out"]
    assert run(with_both, repository / "extract.py", "latest", tmp_path / "out", "no.txt").returncode == 2
    done = run(with_both, *script[:1], "latest", tmp_path / "out", "docs/run.sh")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["run.sh"]
    (tmp_path / "out" / "docs" / "run.sh").write_text("mine")
    again = run(with_both, *script[:1], "latest", tmp_path / "out", "docs/run.sh", "metadata.json")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (tmp_path / "out" / "docs" / "run.sh").read_text() == "mine"
    assert (tmp_path / "out" / "metadata.json").exists()


def test_the_list_of_files_is_what_b3sum_checks(repository, made, with_zstandard):
    done = run(with_zstandard, repository / "extract.py", "latest")
    assert dict(reversed(line.split("  ", 1)) for line in done.stdout.splitlines()) == {
        path: entry.blake3 for path, entry in made["latest"].files.items()
    }


def test_damage_is_noticed_and_costs_only_the_files_that_need_it(repository, made, with_both, tmp_path):
    packs = sorted(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(packs[-1].read_bytes())
    content[len(content) // 2] ^= 1
    packs[-1].write_bytes(content)
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "out")
    assert done.returncode == 1
    assert "'noise.bin' was not written: a frame of pack" in done.stderr
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {
        Path(path).name for path in made["latest"].files if path != "noise.bin"
    }


def test_a_pack_that_is_gone_or_cut_off_is_named(repository, with_zstandard, tmp_path):
    packs = sorted(repository.glob("packs/*/*"))
    packs[0].unlink()
    packs[1].write_bytes(packs[1].read_bytes()[:100])
    done = run(with_zstandard, repository / "extract.py", "latest", tmp_path / "out")
    assert done.returncode == 1
    assert packs[0].name in done.stderr or packs[1].name in done.stderr


def forge(repository: Path, change) -> None:
    """Change the newest record, with a hash that matches."""
    path = max(repository.glob("snapshots/*.json"))
    body = json.loads(path.read_bytes()[len('{"blake3":"","snapshot":') + 64 : -2])
    change(body)
    data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(b'{"blake3":"%s","snapshot":%s}\n' % (blake3.blake3(data).hexdigest().encode(), data))


@pytest.mark.parametrize("path", ["../away.txt", "/tmp/away.txt", "docs/../../away.txt"])
def test_a_forged_path_does_not_leave_the_folder(repository, with_both, tmp_path, path):
    forge(repository, lambda body: body["files"][0].update(path=path))
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "out" / "deep", path)
    assert done.returncode == 1
    assert "leaves its folder" in done.stderr
    assert not list(tmp_path.rglob("away.txt"))
    assert not Path("/tmp/away.txt").exists()


def test_a_forged_record_is_an_error_and_no_stack_trace(repository, with_both, tmp_path):
    forge(repository, lambda body: body["files"][0].update(packs=["../../etc/passwd"], runs=[[0, 0, 1]]))
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "out")
    assert done.returncode == 1
    assert "a pack cannot be named" in done.stderr
    forge(repository, lambda body: body.update(files=[{}]))
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "other")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_an_encrypted_repository_is_named_as_such(repository, with_both, tmp_path):
    (repository / "config.json").write_bytes(model.encode(model.Config(id="0" * 32, encryption="something")))
    done = run(with_both, repository / "extract.py", "latest", tmp_path / "out")
    assert done.returncode == 2
    assert "is encrypted" in done.stderr
    (repository / "config.json").unlink()
    (repository / "keys").mkdir()
    (repository / "keys" / "0123456789abcdef.json").write_text("{}")
    done = run(with_both, repository / "extract.py")
    assert done.returncode == 2
    assert "is encrypted" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_repository_with_a_key_has_no_script_that_could_not_help(with_both, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("secret")
    store = IndexStore(tmp_path / "store", components=[Files("*.txt")])
    repository = Repository(tmp_path / "sealed", key=Passphrase("check the brake pads"))
    point = repository.backup(store)
    assert not (tmp_path / "sealed" / "extract.py").exists()
    assert not repository.check()
    done = run(with_both, extract.__file__, "--repository", tmp_path / "sealed")
    assert done.returncode == 2
    assert "is encrypted" in done.stderr
    archive = point.export(tmp_path / "out")  # this is how others get it
    assert repository.import_archive(archive.url, store) == point


def test_a_lost_config_costs_nothing(repository, with_both):
    (repository / "config.json").unlink()
    done = run(with_both, repository / "extract.py")
    assert done.returncode == 0
    assert "going on without it" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_folder_without_a_repository_is_no_repository(with_both, repository, tmp_path):
    done = run(with_both, repository / "extract.py", "--repository", tmp_path / "nothing")
    assert done.returncode == 2
    assert "there is no novabackup repository" in done.stderr


def test_check_knows_the_script_when_it_was_altered_or_lost(repository):
    assert not Repository(repository).check()
    script = repository / "extract.py"
    script.write_bytes(script.read_bytes().replace(b"import os", b"import os, this", 1))
    (problem,) = Repository(repository).check()
    assert (problem.code, problem.paths) == ("damaged", ("extract.py",))
    assert "do not run it" in problem.message
    script.unlink()
    (problem,) = Repository(repository).check()
    assert (problem.code, problem.paths) == ("missing", ("extract.py",))


def test_it_runs_with_the_oldest_python_that_it_names(repository, made, tmp_path):
    old = shutil.which("python3.9")
    if old is None or subprocess.run([old, "-V"], capture_output=True, check=False).returncode:
        pytest.skip("needs python3.9")
    done = run(Path(old), repository / "extract.py", path=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert sys.version_info > (3, 9)
