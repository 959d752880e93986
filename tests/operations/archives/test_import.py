"""Existing archives become snapshots of their own time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import tars
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nova
from novabackup import ConfigurationError, IndexStore, IntegrityError, NotFoundError, Repository
from novabackup.components import Faiss, Files
from novabackup.operations.archives import Archive, PreIngest
from novabackup.operations.archives import plan as planning

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def daily(folder, tmp_path) -> Path:
    """An archive as the reference's daily script makes it, of a store that has grown since."""
    dated = tmp_path / "work" / "20260125_143000"
    nova.build(dated, nova.texts(7))
    (dated / ".env").write_text("SECRET=1\n")
    (dated / "config").mkdir()
    (dated / "config" / "app.yaml").write_text("port: 5000\n")
    archive = tmp_path / "var" / "nova-backup-20260125_143000.tar.gz"
    archive.parent.mkdir()
    subprocess.run(["tar", "-czf", archive, "-C", dated.parent, dated.name], check=True)
    tars.vouch(archive)
    return archive


def test_an_archive_becomes_a_snapshot_of_its_own_time(daily, folder, store, repository, tmp_path):
    before = nova.contents(folder)
    live = repository.backup(store)
    point = repository.import_archive(Archive(daily, tz=BERLIN), store, tags=["old"])
    assert point.time == datetime(2026, 1, 25, 13, 30, tzinfo=UTC)
    assert (point.store, point.tags) == (store.url, ("imported", "old"))
    assert point.message == "imported from nova-backup-20260125_143000.tar.gz"
    assert point.problems == ()
    assert {entry.report.count for entry in point.files.values()} == {7}
    assert sorted(point.files) == sorted(nova.FILES)
    assert repository["latest"] == live
    assert not repository.check(read_data_subset="100%")
    point.restore(to=tmp_path / "there")
    assert nova.contents(tmp_path / "there") == {
        name: content
        for name, content in nova.contents(tmp_path / "work" / "20260125_143000").items()
        if name in nova.FILES
    }
    assert nova.contents(folder) == before
    point.restore()
    assert nova.contents(folder) == nova.contents(tmp_path / "there")


def test_the_plan_says_what_will_be_and_does_nothing(daily, store, repository):
    plan = repository.plan_import_archive(Archive(daily, tz=UTC), store)
    assert plan.root == "20260125_143000/"
    assert [file.path for file in plan.files] == sorted(nova.FILES)
    assert plan.left_out == ("20260125_143000/.env", "20260125_143000/config/app.yaml")
    assert plan.vouched
    assert plan.time == datetime(2026, 1, 25, 14, 30, tzinfo=UTC)
    assert plan.problems == ()
    assert "leave out" in plan._repr_html_()
    assert not Path(repository.url).exists()


def test_the_same_archive_is_taken_in_once(daily, store, repository):
    first = repository.import_archive(daily, store)
    packs = list(Path(repository.url).glob("packs/*/*"))
    assert repository.import_archive(daily, store) == first
    assert Repository(repository.url).import_archive(str(daily), IndexStore(store.url)) == first
    assert len(repository) == 1
    assert list(Path(repository.url).glob("packs/*/*")) == packs


def test_without_a_zone_names_tell_the_time_of_this_host(daily, store, repository, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        plan = repository.plan_import_archive(daily, store)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert plan.time == datetime(2026, 1, 25, 9, 0, tzinfo=UTC)


def test_an_installation_finds_the_files_that_the_script_copied_out_of_their_folder(daily, tmp_path, repository):
    components = [
        Faiss("vector_db/faiss_index.bin"),
        Files("vector_db/metadata.json"),
        Files(".env"),
        Files("config/**"),
    ]
    installation = IndexStore(tmp_path / "nova-nic", components=components)
    point = repository.import_archive(daily, installation)
    assert sorted(point.files) == [".env", "config/app.yaml", "vector_db/faiss_index.bin", "vector_db/metadata.json"]
    assert point.problems == ()


def test_a_full_archive_holds_the_store_somewhere_inside(folder, store, repository, tmp_path):
    (folder / "backups").mkdir()
    (folder / "backups" / "metadata.json").write_text("not this one")
    (folder.parent / ".venv").mkdir()
    (folder.parent / ".venv" / "python").symlink_to("/usr/bin/python3")
    archive = tmp_path / "nova-full-20260125.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path, "nova-nic"], check=True)
    plan = repository.plan_import_archive(Archive(archive, tz=UTC), store)
    assert plan.root == "nova-nic/vector_db/"
    assert plan.time == datetime(2026, 1, 25, tzinfo=UTC)
    assert "nova-nic/.venv/python" in plan.left_out
    point = repository.import_archive(Archive(archive, root="nova-nic/vector_db", time=plan.time), store)
    assert {path: entry.size for path, entry in point.files.items()} == {
        path: (folder / path).stat().st_size for path in nova.FILES
    }


def test_a_repository_within_the_store_is_not_taken_in(folder, tmp_path):
    store = IndexStore(folder, components=[Files("**")])
    repository = Repository(folder / "backups")
    repository.backup(store)
    archive = tmp_path / "nova.tar"
    subprocess.run(["tar", "-cf", archive, "-C", folder.parent, "vector_db"], check=True)
    assert sorted(repository.import_archive(archive, store).files) == sorted(nova.FILES)


COMPRESSED = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lambda data: lzma.compress(data[:3000]) + bytes(4) + lzma.compress(data[3000:]),
    "tar.zst": lambda data: zstandard.compress(data[:3000]) + zstandard.compress(data[3000:]),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_every_usual_compression_is_understood_and_a_cut_is_noticed(kind, plain, repository, tmp_path):
    whole = tars.write(tmp_path / "raw", tars.file("./a.bin", bytes(range(256)) * 40), mode="w").read_bytes()
    data = COMPRESSED[kind](whole)
    archive = tmp_path / f"old-20260101.{kind}"
    archive.write_bytes(data)
    point = repository.import_archive(archive, plain)
    assert point.open("a.bin").read() == bytes(range(256)) * 40
    for keep in (len(data) // 2, 700 if kind == "tar" else 30):
        archive.write_bytes(data[:keep])
        with pytest.raises(IntegrityError, match="cannot be read to its end"):
            repository.plan_import_archive(archive, plain)


def test_an_archive_at_a_url_with_a_sum_beside_it(plain, repository, tmp_path):
    import fsspec

    path = tars.write(tmp_path / "nova-backup-20260125_143000.tar.gz", tars.file("20260125_143000/a.bin"))
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/old/" + path.name, path.read_bytes())
    fs.pipe_file("/old/" + path.name + ".sha256", tars.vouch(path).read_bytes())
    assert repository.plan_import_archive(f"memory://old/{path.name}", plain).vouched
    assert list(repository.import_archive(f"memory://old/{path.name}", plain).files) == ["a.bin"]
    fs.rm("/old", recursive=True)


def test_an_archive_goes_to_a_bucket_and_comes_from_there(store, repository, moto_place):
    url, options = moto_place
    point = repository.backup(store)
    done = point.export(f"{url}/nova.tar.gz", storage_options=options)
    archive = Archive(done.url, storage_options=options)
    assert "secret" not in repr(archive).lower()
    assert repository.plan_import_archive(archive, store).vouched
    assert repository.import_archive(archive, store) == point


def test_a_link_to_the_latest_archive_is_followed(daily, store, repository, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "latest.tar.gz").symlink_to(daily)
    plan = repository.plan_import_archive(Archive(tmp_path / "elsewhere" / "latest.tar.gz", tz=UTC), store)
    assert (plan.time.hour, plan.vouched) == (14, True)


def test_a_sum_that_does_not_match_takes_nothing_in(daily, store, repository):
    content = bytearray(daily.read_bytes())
    content[200] ^= 1
    daily.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"does not match its \.sha256"):
        repository.import_archive(daily, store)
    daily.with_name(daily.name + ".sha256").write_text("nonsense\n")
    with pytest.raises(IntegrityError, match="expected a line of sha256sum"):
        repository.import_archive(daily, store)
    assert not Path(repository.url).exists()


def test_an_incomplete_archive_is_taken_in_with_its_problems(store, repository, tmp_path, daily):
    subprocess.run(["tar", "-xzf", daily, "-C", tmp_path], check=True)
    (tmp_path / "20260125_143000" / "bm25_index.pkl").unlink()
    archive = tmp_path / "partial-20260126.tar"
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "20260125_143000"], check=True)
    point = repository.import_archive(archive, store)
    assert [problem.code for problem in point.problems] == ["missing"]


def test_an_archive_of_something_else_is_refused(store, repository, tmp_path):
    archive = tars.write(tmp_path / "holidays.tar.gz", tars.file("photos/sea.jpg"))
    with pytest.raises(NotFoundError, match=r"expected faiss_index.bin.*found photos/sea.jpg"):
        repository.import_archive(archive, store)
    with pytest.raises(FileNotFoundError):
        repository.import_archive(tmp_path / "no.tar.gz", store)


# -- from when it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mtime", "expected"),
    [
        ("nova-backup-20260125_143000.tar.gz", 5e8, datetime(2026, 1, 25, 14, 30, tzinfo=UTC)),
        ("nova-full-20260125.tar.gz", 5e8, datetime(2026, 1, 25, tzinfo=UTC)),
        ("nova-full-20260125.tar.gz", 1_769_330_000, datetime(2026, 1, 25, 8, 33, 20, tzinfo=UTC)),
        ("2026-01-25.tar.gz", 1_769_330_000, datetime(2026, 1, 25, 8, 33, 20, tzinfo=UTC)),
        ("nova-20261399_999999.tar.gz", 1_769_330_000, datetime(2026, 1, 25, 8, 33, 20, tzinfo=UTC)),
        ("nova.tar.gz", 0, datetime(2025, 6, 1, tzinfo=UTC)),
    ],
)
def test_the_time_comes_from_the_name_or_the_newest_file(name, mtime, expected, plain, repository, tmp_path):
    archive = tars.write(tmp_path / name, tars.file("a.bin", mtime=mtime), tars.file("docs/b", mtime=mtime - 1))
    os.utime(archive, (expected.timestamp(),) * 2)
    assert repository.plan_import_archive(Archive(archive, tz=UTC), plain).time == expected


def test_a_time_that_cannot_be_is_refused_unless_another_is_given(plain, repository, tmp_path):
    ahead = datetime.now(UTC) + timedelta(days=400)
    archive = tars.write(tmp_path / f"nova-{ahead:%Y%m%d_%H%M%S}.tar.gz", tars.file("a.bin"))
    with pytest.raises(ConfigurationError, match=r"expected a time between 1970 and now.*time="):
        repository.import_archive(archive, plain)
    told = datetime(2020, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert repository.import_archive(Archive(archive, time=told), plain).time == told
    with pytest.raises(ConfigurationError, match="with a time zone"):
        Archive(archive, time=datetime(2020, 5, 1))
    strange = tars.write(tmp_path / "strange.tar.gz", tars.file("a.bin", mtime=-(10**9)), format=tarfile.GNU_FORMAT)
    with pytest.raises(ConfigurationError, match="between 1970"):
        repository.import_archive(strange, plain)


@pytest.mark.parametrize("said", ["9999-99-99T00:00:00+00:00", "yesterday"])
def test_a_comment_that_is_no_time_is_none(said, plain, repository, tmp_path):
    head = {"comment": f"novabackup snapshot x of {said}"}
    path = tmp_path / "nova-20260125_143000.tar.gz"
    archive = tars.write(path, tars.file("a.bin"), format=tarfile.PAX_FORMAT, pax_headers=head)
    assert repository.plan_import_archive(Archive(archive, tz=UTC), plain).time.hour == 14


@pytest.mark.parametrize("stamp", ["nan", "inf", "1e400", "many"])
def test_a_time_of_a_file_that_is_none_costs_only_the_time(stamp, plain, repository, tmp_path):
    archive = tars.write(
        tmp_path / "nova-20260125.tar.gz",
        tars.file("a.bin", pax_headers={"mtime": stamp, "uid": "9" * 30}),
        format=tarfile.PAX_FORMAT,
    )
    point = repository.import_archive(archive, plain)
    assert point.files["a.bin"].attributes.mtime_ns == 0


# -- there and back --------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=("C",), exclude_characters="/\\"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
SETS_OF_FILES = st.dictionaries(NAMES, st.binary(max_size=3000), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=SETS_OF_FILES, modes=st.lists(st.integers(0o400, 0o777), min_size=8, max_size=8))
def test_what_is_exported_and_imported_is_the_same(files, modes, tmp_path_factory):
    place = tmp_path_factory.mktemp("there-and-back")
    (place / "store" / "docs").mkdir(parents=True)
    for (name, content), mode in zip(files.items(), modes, strict=False):
        (place / "store" / "docs" / name).write_bytes(content)
        (place / "store" / "docs" / name).chmod(mode)
    store = IndexStore(place / "store", components=[Files("docs/*"), Files("other.txt", optional=True)])
    point = Repository(place / "one").backup(store)
    archive = point.export(place / "out").url
    there = Repository(place / "two").import_archive(archive, store)
    assert there.time == point.time
    assert {path: (e.blake3, e.size, e.attributes.mode) for path, e in there.files.items()} == {
        path: (e.blake3, e.size, e.attributes.mode) for path, e in point.files.items()
    }
    assert [entry.attributes.mtime_ns // 10**9 for entry in there.files.values()] == [
        entry.attributes.mtime_ns // 10**9 for entry in point.files.values()
    ]
    # In its own repository it is there already.
    assert Repository(place / "one").import_archive(archive, store) == point


@given(
    top=st.sampled_from(["", "20260125/", "nova-nic/", "a/b/c/"]),
    noise=st.lists(st.sampled_from(["x.txt", "old/metadata.json", "config/app.yaml", "metadata.json.bak"]), max_size=4),
)
def test_the_root_is_found_whatever_is_around_it(top, noise):
    declared = ["vector_db/faiss_index.bin", "vector_db/metadata.json", ".env", "docs/*.txt"]
    own = ["vector_db/faiss_index.bin", "vector_db/metadata.json", "docs/a.txt"]
    names = dict.fromkeys([top + name for name in own] + [top + name for name in noise])
    root = planning.choose_root(names, declared)
    assert root == top
    assert planning.place(names, root, declared).keys() == set(own)


# -- copies from before an ingestion ---------------------------------------------------------------------------------


@pytest.fixture
def copies(folder) -> Path:
    """What pre_ingest_backup.sh leaves: one whole set, one without metadata, and other things beside them."""
    kept = folder / "backups"
    kept.mkdir()
    for stamp, count, names in (
        ("20260125_143000", 5, nova.FILES),
        ("20260124_080000", 4, nova.FILES[:2]),
        ("99999999_999999", 4, nova.FILES[:1]),
        ("29990101_000000", 4, nova.FILES[:1]),
    ):
        nova.build(folder.parent / stamp, nova.texts(count))
        for name in names:
            (folder.parent / stamp / name).rename(kept / f"{name}.pre_ingest_{stamp}")
    (kept / "notes.txt.pre_ingest_20260125_143000").write_text("mine")
    (kept / "readme.txt").write_text("mine")
    return kept


def test_each_time_of_copies_becomes_a_snapshot(copies, folder, store, repository):
    before = sorted(os.listdir(copies))
    points = repository.import_pre_ingest(PreIngest(copies, tz=BERLIN), store)
    assert [point.time for point in points] == [
        datetime(2026, 1, 24, 7, tzinfo=UTC),
        datetime(2026, 1, 25, 13, 30, tzinfo=UTC),
    ]
    assert [point.tags for point in points] == [("pre-ingest", "imported")] * 2
    assert [[problem.code for problem in point.problems] for point in points] == [["missing"], []]
    assert points[1].message == "imported from 20260125_143000"
    assert {entry.report.count for entry in points[1].files.values()} == {5}
    assert sorted(os.listdir(copies)) == before
    assert repository.import_pre_ingest(PreIngest(copies, tz=BERLIN), store) == points
    assert len(repository) == 2
    points[1].restore()
    assert {report.count for report in store.inspect() if report.exists} == {5}


def test_copies_may_lie_in_the_folder_of_the_repository_itself(copies, store):
    repository = Repository(copies)
    repository.backup(store)
    plans = repository.plan_import_pre_ingest(copies, store)
    assert [len(plan.files) for plan in plans] == [2, 3]
    assert plans[1].left_out == ("notes.txt.pre_ingest_20260125_143000",)
    assert len(repository.import_pre_ingest(str(copies), store)) == 2
    assert len(repository) == 3
    assert not repository.check(read_data_subset="100%")


def test_many_old_states_share_what_they_have_in_common(folder, store, repository, tmp_path):
    """Each is compared with those near in time, and not with the newest ones, which may have nothing in common."""
    noise = os.urandom(600_000)
    for day in range(8):
        repository.backup(IndexStore(folder))
        (folder / "corpus_manifest.json").write_text(f'{{"day": {day}}}')
    added = []
    for day in range(1, 5):
        archive = tars.write(
            tmp_path / f"nova-202501{day:02}.tar", tars.file("corpus_manifest.json", noise + bytes([day])), mode="w"
        )
        added.append(repository.import_archive(archive, store).added)
    assert added[0] > 600_000
    assert max(added[1:]) < 200_000


def test_a_plan_of_nothing_is_empty(store, repository, tmp_path):
    assert repository.plan_import_pre_ingest(tmp_path / "nothing", store) == ()
    assert repository.import_pre_ingest(tmp_path / "nothing", store) == ()


def test_reading_an_archive_twice_gives_the_same_members(daily, store):
    from novabackup.operations.archives.tar import Bounds, Tar

    with daily.open("rb") as file:
        tar = Tar(file, "x", Bounds())
        first = [(member.name, b"".join(tar.content(member)) if not member.kind else b"") for member in tar]
        second = [member.name for member in Tar(file, "x", Bounds())]
    assert [name for name, _content in first] == second
    with tarfile.open(fileobj=io.BytesIO(daily.read_bytes())) as honest:
        assert [info.name for info in honest] == second
