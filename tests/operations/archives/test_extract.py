"""The script in a repository gets everything out of it, with next to nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import _cffi_backend
import attrs
import blake3
import cryptography
import pytest
import zstandard

import nova
from novabackup import IndexStore, Repository, keys
from novabackup.components import Files
from novabackup.format import records as model
from novabackup.keys import KeyFile, Passphrase

PACKAGES = {
    "zstandard": [Path(zstandard.__file__).parent],
    "blake3": [Path(blake3.__file__).parent],
    "cryptography": [Path(cryptography.__file__).parent, Path(_cffi_backend.__file__)],
}
SECRET = "check the brake pads"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Give a function that makes a Python in which nothing but the packages named is installed."""

    def make(*packages: str) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        venv.create(folder, symlinks=True)
        (place,) = folder.glob("lib/python3*/site-packages")
        for name in packages:
            for path in PACKAGES[name]:
                (place / path.name).symlink_to(path)
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="module")
def with_zstandard(python) -> Path:
    return python("zstandard")


@pytest.fixture(scope="module")
def with_both(python) -> Path:
    return python("zstandard", "blake3")


@pytest.fixture(scope="module")
def with_all(python) -> Path:
    return python(*PACKAGES)


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


@pytest.fixture(scope="module")
def sealed(made, tmp_path_factory) -> Path:
    """The same snapshots in an encrypted repository, which a passphrase and a key file open."""
    folder = tmp_path_factory.mktemp("sealed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keys, "_N", 1 << 4)
        repository = Repository(folder / "repository", key=Passphrase(SECRET))
        made.copy(to=repository)
        repository.keys.add(KeyFile.generate(folder / "key"))
    return folder


@pytest.fixture
def encrypted(sealed, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(sealed / "repository", tmp_path / "encrypted")


def run(
    program: Path, *arguments: object, path: str = "", passphrase: str = "", typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the script, without a terminal."""
    environment = {"PATH": path, "LC_ALL": "C.UTF-8", "NOVABACKUP_PASSPHRASE": passphrase}
    done = subprocess.run(
        [program, "-I", *map(str, arguments)],
        input=typed,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env=environment,
        start_new_session=True,
    )
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


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
    assert "exists already" in again.stderr
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


def envelope(kind: str, body: object) -> bytes:
    data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return b'{"blake3":"%s","%s":%s}\n' % (blake3.blake3(data).hexdigest().encode(), kind.encode(), data)


def forge(repository: Path, change) -> None:
    """Change the newest record, with a hash that matches."""
    path = max(repository.glob("snapshots/*.json"))
    body = json.loads(path.read_bytes()[len('{"blake3":"","snapshot":') + 64 : -2])
    change(body)
    path.write_bytes(envelope("snapshot", body))


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


def test_an_encrypted_repository_is_read_with_its_passphrase(encrypted, made, with_all, tmp_path):
    listed = run(with_all, encrypted / "extract.py", passphrase=SECRET)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [point.id for point in made]
    for number, point in enumerate(made):
        done = run(with_all, encrypted / "extract.py", point.id, tmp_path / f"out-{number}", passphrase=SECRET)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("every one checked") == len(point.files)
        assert done.stderr == ""
        assert_same(tmp_path / f"out-{number}", point)


def test_the_passphrase_can_be_typed_or_be_a_key_file(encrypted, sealed, with_all):
    for arguments, typed in (([], SECRET + "\n"), (["--key-file", sealed / "key"], "")):
        done = run(with_all, encrypted / "extract.py", *arguments, typed=typed)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2


def test_an_encrypted_repository_can_be_read_without_blake3_and_says_that_this_is_less(
    encrypted, made, python, tmp_path
):
    bare = python("zstandard", "cryptography")
    done = run(bare, encrypted / "extract.py", "latest", tmp_path / "out", passphrase=SECRET)
    assert done.returncode == 0, done.stderr
    assert "package blake3 is not installed" in done.stderr
    assert_same(tmp_path / "out", made["latest"])


def test_what_is_needed_for_an_encrypted_repository_is_named(
    encrypted, repository_of_files, with_both, with_all, tmp_path
):
    script = encrypted / "extract.py"
    (tmp_path / "no-key").write_text("no key")
    for program, arguments, passphrase, expected in (
        (with_both, [], SECRET, "pip install cryptography"),
        (with_all, [], "", "expected a passphrase in NOVABACKUP_PASSPHRASE or from the keyboard, found none"),
        (with_all, [], "another", "this passphrase opens none of the 2 keys"),
        (with_all, ["--key-file", tmp_path / "no-key"], "", "is no key file"),
        (with_all, ["--key-file", tmp_path / "gone"], "", "cannot be read as a key file"),
        (with_all, ["--key-file", repository_of_files / "other-key"], "", "this file opens none of the 2 keys"),
        (with_all, ["--repository", repository_of_files / "plain", "--key-file", tmp_path], "", "is not encrypted"),
    ):
        done = run(program, script, *arguments, passphrase=passphrase)
        assert done.returncode == 2
        assert expected in done.stderr


@pytest.fixture
def repository_of_files(tmp_path) -> Path:
    """A plain repository, and a key file of none."""
    folder = tmp_path / "of files"
    (folder / "store").mkdir(parents=True)
    (folder / "store" / "a.txt").write_text("a")
    Repository(folder / "plain").backup(IndexStore(folder / "store", components=[Files("*.txt")]))
    KeyFile.generate(folder / "other-key")
    return folder


def test_an_encrypted_repository_without_a_key_that_a_person_has_says_so(repository_of_files, with_all):
    store = IndexStore(repository_of_files / "store", components=[Files("*.txt")])
    key = keys.ExternalKey(lambda data: data[::-1], lambda token: token[::-1])
    Repository(repository_of_files / "of a service", key=key).backup(store)
    done = run(with_all, repository_of_files / "of a service" / "extract.py", passphrase=SECRET)
    assert done.returncode == 2
    assert "expected keys of the kind passphrase, found external" in done.stderr


def test_keys_that_are_damaged_or_forged_lock_nobody_out(encrypted, with_all):
    (slot,) = (path for path in (encrypted / "keys").iterdir() if b'"passphrase"' in path.read_bytes())
    record = model.decode(slot.read_bytes(), model.KeySlot, "slot")
    forged = [attrs.evolve(record, n=1 << 40), attrs.evolve(record, p=1 << 30), attrs.evolve(record, data=b"")]
    texts = [*map(model.encode, forged), b"{}", slot.read_bytes()[:-9], envelope("key", {"version": 1})]
    texts.append(envelope("key", {"version": 1, "repository": record.repository, "kind": "passphrase"}))
    for number, text in enumerate(texts):
        (encrypted / "keys" / f"{number:016x}.json").write_bytes(text)
    done = run(with_all, encrypted / "extract.py", passphrase=SECRET)
    assert done.returncode == 0, done.stderr


def test_a_lost_config_of_an_encrypted_repository_costs_nothing(encrypted, with_all):
    (encrypted / "config.json").unlink()
    done = run(with_all, encrypted / "extract.py", passphrase=SECRET)
    assert done.returncode == 0
    assert "going on without it" in done.stderr


def test_what_was_altered_in_an_encrypted_repository_is_noticed(encrypted, repository, made, with_all, tmp_path):
    script = encrypted / "extract.py"
    first, second = sorted((encrypted / "snapshots").iterdir())
    contents = first.read_bytes(), second.read_bytes()
    for text, expected in (
        (contents[1], "it is not what was sealed for that place"),
        (contents[0].replace(b'"previous":""', b'"previous":"x"'), "does not match its hash"),
        ((repository / "snapshots" / first.name).read_bytes(), "of another kind"),
    ):
        first.write_bytes(text)
        listed = run(with_all, script, passphrase=SECRET)
        assert listed.returncode == 1
        assert f"{first.stem}  cannot be read: " in listed.stdout
        assert expected in listed.stdout
    first.write_bytes(contents[0])
    packs = sorted(encrypted.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    one, other = packs[0].read_bytes(), packs[-1].read_bytes()
    packs[0].write_bytes(other)
    packs[-1].write_bytes(one)
    done = run(with_all, script, "latest", tmp_path / "out", passphrase=SECRET)
    assert done.returncode == 1
    assert "does not match its hash" in done.stderr
    packs[0].write_bytes(one)
    packs[-1].write_bytes(other[: len(other) // 2] + bytes([other[len(other) // 2] ^ 1]) + other[len(other) // 2 + 1 :])
    done = run(with_all, script, "latest", tmp_path / "again", passphrase=SECRET)
    assert done.returncode == 1
    assert "'noise.bin' was not written: a frame of pack" in done.stderr
    packs[-1].write_bytes(max(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size).read_bytes())
    done = run(with_all, script, "latest", tmp_path / "third", passphrase=SECRET)
    assert done.returncode == 1
    assert f"pack {packs[-1].name} is not sealed as the repository is" in done.stderr


def test_an_encrypted_repository_can_be_exported_and_imported(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("secret")
    store = IndexStore(tmp_path / "store", components=[Files("*.txt")])
    repository = Repository(tmp_path / "sealed", key=Passphrase(SECRET))
    point = repository.backup(store)
    archive = point.export(tmp_path / "out")  # without a key, this is how others get it
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


@pytest.mark.parametrize("key", [None, Passphrase(SECRET)], ids=["plain", "encrypted"])
def test_check_knows_the_script_when_it_was_altered_or_lost(request, key):
    place = request.getfixturevalue("encrypted" if key else "repository")
    assert not Repository(place, key=key).check()
    script = place / "extract.py"
    script.write_bytes(script.read_bytes().replace(b"import os", b"import os, this", 1))
    (problem,) = Repository(place, key=key).check()
    assert (problem.code, problem.paths) == ("damaged", ("extract.py",))
    assert "do not run it" in problem.message
    script.unlink()
    (problem,) = Repository(place, key=key).check()
    assert (problem.code, problem.paths) == ("missing", ("extract.py",))


def test_it_runs_with_the_oldest_python_that_it_names(repository, made, tmp_path):
    old = shutil.which("python3.9")
    if old is None or subprocess.run([old, "-V"], capture_output=True, check=False).returncode:
        pytest.skip("needs python3.9")
    done = run(Path(old), repository / "extract.py", path=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert sys.version_info > (3, 9)
