"""Hostile archives: no path leaves the folder, nothing grows without bound, nothing is imported partially."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import textwrap
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import tars
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novabackup import ChangedError, ConfigurationError, IndexStore, IntegrityError, NotFoundError, Repository
from novabackup.components import Files
from novabackup.operations.archives import Archive, Bounds
from novabackup.operations.archives import import_ as importing
from novabackup.operations.archives.tar import Tar


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def refused(plain, repository, tmp_path, monkeypatch):
    """Give a function that makes an archive and sees it refused; it gives the codes of the problems."""
    (tmp_path / "unpacking").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "unpacking"))

    def refuse(*members, mode: str = "w:gz", **options) -> list[str]:
        archive = tars.write(tmp_path / "bad.tar.gz", tars.file("docs/honest.txt"), *members, mode=mode, **options)
        before = everything(tmp_path)
        codes = [problem.code for problem in repository.plan_import_archive(archive, plain).problems]
        with pytest.raises(IntegrityError, match="Nothing was imported"):
            repository.import_archive(archive, plain)
        assert everything(tmp_path) == before
        return codes

    return refuse


@pytest.mark.parametrize(
    "name", ["../away.txt", "/etc/away.txt", "docs/../../away.txt", "a/..", "//away", "./../docs/away.txt"]
)
def test_a_path_that_leaves_the_archive_is_refused(name, refused):
    assert refused(tars.file(name)) == ["unsafe-path"]


def test_a_folder_that_leaves_the_archive_is_refused_too(refused):
    assert refused(tars.file("../docs", b"", type=tarfile.DIRTYPE)) == ["unsafe-path"]


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
    ],
)
def test_what_is_no_file_cannot_stand_for_one(kind, named, refused, repository, plain, tmp_path):
    assert refused(tars.link("a.bin", "docs/honest.txt", kind)) == ["no-file"]
    (problem,) = repository.plan_import_archive(tmp_path / "bad.tar.gz", plain).problems
    assert named in problem.message


def test_a_file_with_holes_is_refused_and_says_how_to_go_on(plain, repository, tmp_path):
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["tar", "--sparse", "-cf", tmp_path / "s.tar", "-C", tmp_path, "a.bin"], check=True)
    with pytest.raises(IntegrityError, match=r"unpack it with tar"):
        repository.import_archive(tmp_path / "s.tar", plain)


def test_a_link_is_never_made_so_nothing_is_written_through_it(plain, repository, tmp_path):
    (tmp_path / "outside").mkdir()
    archive = tars.write(
        tmp_path / "link-20260101.tar.gz",
        tars.link("20260101", str(tmp_path / "outside")),
        tars.link("other", "/etc/passwd"),
        tars.file("20260101/a.bin", b"inside"),
    )
    point = repository.import_archive(archive, plain)
    assert point.open("a.bin").read() == b"inside"
    assert not everything(tmp_path / "outside")


def test_a_link_among_declared_files_is_refused(refused):
    assert refused(tars.link("docs/sub", "/etc"), tars.file("docs/sub/through.txt")) == ["no-file"]


def test_a_name_that_comes_twice_is_refused_where_it_matters(refused, plain, repository, tmp_path):
    assert refused(tars.file("a.bin", b"one"), tars.file("./a.bin", b"two")) == ["twice"]
    assert refused(tars.file("a.bin", b"one"), tars.link("a.bin", "/etc/passwd")) == ["no-file"]
    archive = tars.write(
        tmp_path / "elsewhere-20260101.tar", tars.file("a.bin"), tars.file("x"), tars.file("x"), mode="w"
    )
    assert list(repository.import_archive(archive, plain).files) == ["a.bin"]


def test_odd_names_that_a_file_may_have_are_taken_in(plain, repository, tmp_path):
    names = ["docs/new\nline", "docs/back\\slash", "docs/\x1b[31m"]
    archive = tars.write(tmp_path / "odd-20260101.tar.gz", *map(tars.file, names))
    assert sorted(repository.import_archive(archive, plain).files) == sorted(names)


@pytest.mark.parametrize("name", ["docs/\udcff.txt"])
def test_a_name_that_no_store_can_have_is_refused_where_it_is_declared(name, refused):
    options = {"errors": "surrogateescape", "encoding": "utf-8", "format": tarfile.GNU_FORMAT}
    assert refused(tars.file(name), **options) == ["unsafe-path"]


def test_a_name_that_no_store_can_have_is_left_out_elsewhere(plain, repository, tmp_path):
    options = {"errors": "surrogateescape", "encoding": "utf-8", "format": tarfile.GNU_FORMAT}
    members = [tars.file("a.bin"), tars.file("\udcff.txt"), tars.file("x\ny")]
    archive = tars.write(tmp_path / "odd-20260101.tar.gz", *members, **options)
    plan = repository.plan_import_archive(archive, plain)
    assert [file.path for file in plan.files] == ["a.bin"]
    assert len(plan.left_out) == 2
    assert plan._repr_html_()
    assert list(repository.import_archive(archive, plain).files) == ["a.bin"]


def test_the_folder_of_novabackup_itself_is_never_taken_in(repository, tmp_path):
    store = IndexStore(tmp_path / "store", components=[Files("**")])
    archive = tars.write(tmp_path / "x.tar", tars.file("a"), tars.file(".novabackup/journal.json"), mode="w")
    assert list(repository.import_archive(archive, store).files) == ["a"]


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_too_many_members_are_given_up(plain, repository, tmp_path):
    header = tars.file("x", b"")[0].tobuf()
    archive = tmp_path / "many.tar.gz"
    archive.write_bytes(gzip.compress(header * 20_000, 1) * 50)
    with pytest.raises(ConfigurationError, match=r"at most 5000 members.*Bounds\(members=...\)"):
        repository.import_archive(Archive(archive, bounds=Bounds(members=5000)), plain)
    assert Bounds().members < 1_000_000


def test_more_bytes_than_allowed_are_given_up(plain, repository, tmp_path):
    archive = tars.write(tmp_path / "big.tar.gz", tars.file("a.bin", bytes(3 << 20)))
    with pytest.raises(ConfigurationError, match=r"Bounds\(size=...\)"):
        repository.import_archive(Archive(archive, bounds=Bounds(size=2 << 20)), plain)
    assert repository.import_archive(Archive(archive, bounds=Bounds(size=4 << 20)), plain).size == 3 << 20


BOMBS = {
    "gz": lambda zeros: gzip.compress(zeros, 9),
    "xz": lambda zeros: lzma.compress(zeros, preset=1),
    "zst": lambda zeros: zstandard.compress(zeros, 1),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_given_up_after_a_few_megabytes(kind, plain, repository, tmp_path, monkeypatch):
    monkeypatch.setattr("novabackup.operations.archives.tar._GRACE", 4 << 20)
    part = BOMBS[kind](bytes(8 << 20))  # parts that follow each other are one stream
    info = tarfile.TarInfo("a.bin")
    info.size = 1 << 34
    head = BOMBS[kind](info.tobuf())
    archive = tmp_path / f"bomb.tar.{kind}"
    archive.write_bytes(head + part * 64)
    with pytest.raises(ConfigurationError, match=r"Bounds\(ratio=...\)"):
        repository.import_archive(archive, plain)


def test_a_small_archive_of_zeros_is_no_bomb(plain, repository, tmp_path):
    archive = tars.write(tmp_path / "zeros-20260101.tar.gz", tars.file("a.bin", bytes(20 << 20)))
    assert repository.import_archive(archive, plain).size == 20 << 20


def test_no_header_however_large_takes_memory(tmp_path):
    """In a child with little memory: names and extensions of 4 GiB, and xz that wants 1 GiB."""
    headers = {
        "name": tars.file("././@LongLink", b"", type=tarfile.GNUTYPE_LONGNAME)[0],
        "extensions": tars.file("pax", b"", type=tarfile.XHDTYPE)[0],
        "global": tars.file("pax", b"", type=tarfile.XGLTYPE)[0],
    }
    for name, info in headers.items():
        info.size = 4 << 30
        head = info.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / f"{name}.tar.gz").write_bytes(gzip.compress(head) + gzip.compress(bytes(32 << 20)) * 128)
    squeezer = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])
    small = bytearray(squeezer.compress(bytes(10240)) + squeezer.flush())
    assert small[12 + 4] == 0  # the size of the dictionary, in the header of the block
    small[12 + 4] = 36  # 1 GiB
    small[12 + 8 : 12 + 12] = zlib.crc32(small[12 : 12 + 8]).to_bytes(4, "little")
    (tmp_path / "dictionary.tar.xz").write_bytes(small)
    code = """
        import resource, sys
        from novabackup import IndexStore, IntegrityError, Repository
        store, repository = IndexStore(sys.argv[1] + "/store"), Repository(sys.argv[1] + "/repository")
        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), -1))
        for name in sys.argv[3:]:
            try:
                repository.plan_import_archive(name, store)
            except IntegrityError as error:
                print(error.problems[0].message)
    """
    archives = sorted(tmp_path.glob("*.tar.*"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path, str(1 << 30), *archives],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.partition("found: ")[2] for line in done.stdout.splitlines()] == [
        "Memory usage limit exceeded",
        *["a header of 4294967296 bytes"] * 3,
    ]


# -- damage ----------------------------------------------------------------------------------------------------------


def test_an_archive_cut_off_anywhere_is_damaged(plain, repository, tmp_path):
    whole = tars.write(tmp_path / "w", tars.file("a.bin", b"x" * 700), tars.file("docs/b"), mode="w").read_bytes()
    end = whole.rstrip(b"\0")
    archive = tmp_path / "cut.tar"
    for keep in (0, 100, 512, 1000, 1536, 2048, len(end) - 1):
        archive.write_bytes(whole[:keep])
        with pytest.raises(IntegrityError, match="cannot be read to its end"):
            repository.plan_import_archive(archive, plain)


def test_a_damaged_header_is_not_taken_for_the_end(plain, repository, tmp_path):
    whole = tars.write(tmp_path / "w", tars.file("a.bin", b"x" * 512), tars.file("docs/b"), mode="w").read_bytes()
    archive = tmp_path / "header.tar"
    archive.write_bytes(whole[:1024] + b"\xff" + whole[1025:])
    with tarfile.open(archive) as trusting:
        assert trusting.getnames() == ["a.bin"]  # which is why tarfile is not trusted
    with pytest.raises(IntegrityError, match="cannot be read to its end"):
        repository.import_archive(archive, plain)


def test_a_gzip_checksum_at_the_very_end_counts(plain, repository, tmp_path):
    archive = tars.write(tmp_path / "x.tar.gz", tars.file("a.bin"))
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1
    archive.write_bytes(content)
    with pytest.raises(IntegrityError, match="CRC"):
        repository.import_archive(archive, plain)
    assert not Path(repository.url).exists()


def test_what_is_no_archive_at_all_is_named(plain, repository, tmp_path):
    for content in (b"", b"hello", os.urandom(5000), b"\x1f\x8b", gzip.compress(b""), b"\0" * 300):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(IntegrityError, match="expected a whole tar archive"):
            repository.plan_import_archive(tmp_path / "x.tar", plain)
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(NotFoundError, match="found nothing"):
        repository.import_archive(tmp_path / "empty.tar", plain)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_an_error_or_change_nothing_that_is_checked(data, tmp_path_factory):
    """Whatever is done to an archive, reading it ends, and with one of our errors if with any."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in (tars.file("ä" * 80), tars.file("docs/" + "n" * 120, b"y" * 600, uid=1 << 40)):
            tar.addfile(info, io.BytesIO(content))
    raw = bytearray(stream.getvalue()[: 512 * 12])
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), min_size=1, max_size=6)
    ):
        raw[position] = value
    if data.draw(st.booleans()):  # with checksums that match, so that it is about what the headers say
        for start in range(0, len(raw) - 511, 512):
            block = raw[start : start + 512]
            block[148:156] = b" " * 8
            if block[257:262] == b"ustar":
                raw[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    path = tmp_path_factory.mktemp("changed") / "x.tar"
    path.write_bytes(raw)
    with path.open("rb") as file:
        tar = Tar(file, "x.tar", Bounds(size=1 << 20))
        try:
            for member in tar:
                assert sum(map(len, tar.content(member))) == member.size or member.kind
        except (IntegrityError, ConfigurationError):
            pass


def test_an_archive_that_changes_meanwhile_is_not_taken_in(plain, repository, tmp_path, monkeypatch):
    archive = tars.write(tmp_path / "x.tar.gz", tars.file("a.bin", b"first"))
    planned = importing._plan

    def plan_then_change(*arguments):
        plan = planned(*arguments)
        tars.write(archive, tars.file("a.bin", b"other"), tars.file("docs/b"))
        return plan

    monkeypatch.setattr(importing, "_plan", plan_then_change)
    with pytest.raises((ChangedError, IntegrityError)):
        repository.import_archive(archive, plain)
    assert not Path(repository.url).exists()


def test_where_there_is_no_room_to_unpack_nothing_is_begun(plain, repository, tmp_path, monkeypatch):
    archive = tars.write(tmp_path / "x.tar.gz", tars.file("a.bin", b"x" * 1000))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=999))
    with pytest.raises(OSError, match="expected room for 1000 bytes"):
        repository.import_archive(archive, plain)
    assert not Path(repository.url).exists()


def test_a_damaged_snapshot_does_not_stand_in_for_an_archive(plain, repository, tmp_path):
    archive = tars.write(tmp_path / "nova-20260125_143000.tar.gz", tars.file("a.bin"))
    point = repository.import_archive(archive, plain)
    path = Path(repository.url) / "snapshots" / f"{point.id}.json"
    path.write_bytes(path.read_bytes()[:-9])
    again = Repository(repository.url).import_archive(archive, plain)
    assert again.files["a.bin"].blake3 == point.files["a.bin"].blake3
