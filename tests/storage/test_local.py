"""What only local files have: links, pipes, permissions, times, locks, and what a killed writer leaves behind."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from novabackup.errors import ChangedError, ConfigurationError
from novabackup.format.records import Attributes
from novabackup.storage import open_storage
from novabackup.storage.local import posix as _posix

TEMPORARY = ".novabackup-0123456789abcdef.tmp"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def storage(root):
    root.mkdir()
    return open_storage(root)


def calls(storage, key):
    return [
        lambda: storage.entry(key),
        lambda: storage.open(key),
        lambda: storage.read(key),
        lambda: storage.write(key, [b"x"]),
        lambda: storage.swap(key, b"x", "x"),
        lambda: storage.delete(key),
        lambda: storage.hold(key),
    ]


def test_the_root_may_be_a_link_but_no_file(tmp_path, storage, root):
    (tmp_path / "link").symlink_to(root)
    through = open_storage(tmp_path / "link")
    through.write("a", [b"a"])
    assert through.url == storage.url == str(root)
    assert storage.read("a") == b"a"
    with pytest.raises(ConfigurationError, match="expected a folder"):
        open_storage(root / "a")


def test_what_is_no_regular_file_is_refused_at_once(storage, root):
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    for key, kind in (("pipe", "a named pipe"), ("folder", "a folder")):
        for call in calls(storage, key):
            with pytest.raises(ConfigurationError, match=kind):
                call()
        with pytest.raises(FileExistsError):
            storage.create(key, b"x")
    assert list(storage.entries()) == []
    assert sorted(os.listdir(root)) == ["folder", "pipe"]


def test_links_that_lead_out_are_refused(storage, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to("../outside/file")
    (root / "hop").symlink_to("file")
    (root / "new").symlink_to(outside / "new")
    for key in ("folder/file", "file", "hop", "new"):
        for call in (*calls(storage, key), lambda key=key: storage.create(key, b"x")):
            with pytest.raises(ConfigurationError, match=r"the link .* leads to"):
                call()
    for prefix in ("", "folder"):
        with pytest.raises(ConfigurationError, match=r"the link .* leads to"):
            list(storage.entries(prefix))
    assert (outside / "file").read_bytes() == b"precious"
    assert os.listdir(outside) == ["file"]


def test_links_that_stay_inside_are_followed_and_kept(storage, root):
    storage.write("real/file", [b"old"])
    (root / "link").symlink_to("real/file")
    (root / "linked").symlink_to("real")
    (root / "real/up").symlink_to("..")
    (root / "real/self").symlink_to("self")
    (root / "dangling").symlink_to("real/later")
    storage.write("link", [b"new"])
    storage.write("linked/file2", [b"2"])
    assert (root / "link").is_symlink()
    assert (root / "real/file").read_bytes() == b"new"
    assert storage.read("link") == b"new"
    assert [entry.key for entry in storage.entries()] == [
        "link", "linked/file", "linked/file2", "real/file", "real/file2",
    ]  # fmt: skip
    assert not storage.exists("dangling")
    storage.create("dangling", b"later")
    assert (root / "real/later").read_bytes() == b"later"
    assert (root / "dangling").is_symlink()
    with pytest.raises(ConfigurationError, match="in a circle"):
        storage.write("real/self", [b"x"])


def test_temporary_files_are_nobodys_objects(storage, root):
    (root / "folder").mkdir()
    for path in (root / TEMPORARY, root / "folder" / TEMPORARY):
        path.write_bytes(b"half")
    (root / ".novabackup-notes.tmp").write_bytes(b"a user's own")
    assert [entry.key for entry in storage.entries()] == [".novabackup-notes.tmp"]
    for key in (TEMPORARY, f"folder/{TEMPORARY}"):
        with pytest.raises(ConfigurationError, match="temporary"):
            storage.write(key, [b"x"])
    assert storage.sweep(3600.0) == 0
    os.utime(root / "folder" / TEMPORARY, (1e9, 1e9))
    os.utime(root / ".novabackup-notes.tmp", (1e9, 1e9))
    assert storage.sweep(3600.0, ["other"]) == 0
    assert storage.sweep(3600.0) == 1
    assert storage.sweep(0.0, ["any"]) == 1
    assert sorted(os.listdir(root)) == [".novabackup-notes.tmp", "folder"]


def test_every_change_in_place_is_noticed(storage, root):
    path = root / "file"
    for number in range(60):
        path.write_bytes(b"%04d" % number)
        with storage.open("file") as reader:
            assert reader.read(0, 4) == b"%04d" % number
            with path.open("r+b") as file:
                file.write(b"%04d" % (number + 5000))
            assert storage.entry("file").identity != reader.entry.identity
            with pytest.raises(ChangedError):
                reader.confirm()


def test_writes_through_a_memory_map_are_noticed_or_not_vouched_for(storage, root):
    path = root / "file"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as view:
        view[0] = 1  # from now on the page can be written to without the kernel's notice
        with storage.open("file") as reader:
            assert reader.read(0, 1) == b"\1"
            view[0] = 2
            if reader.entry.identity:
                assert storage.entry("file").identity != reader.entry.identity
                with pytest.raises(ChangedError):
                    reader.confirm()


@pytest.mark.parametrize(
    ("ctime", "now", "trusted"),
    [
        (10_000_000_000, 11_000_000_000, False),  # whole seconds, and of just now
        (10_000_000_000, 13_000_000_000, True),
        (10_123_000_000, 10_500_000_000, False),  # whole milliseconds
        (10_123_456_789, 10_500_000_000, True),
        (10_123_456_789, 10_100_000_000, False),  # of the future
        (10_123_456_789, 10_123_456_999, False),  # always of just now: somebody keeps writing
    ],
)
def test_times_are_believed_only_when_they_can_be(monkeypatch, ctime, now, trusted):
    naps = []
    status = SimpleNamespace(st_ctime_ns=ctime, st_dev=0)
    monkeypatch.setattr(_posix, "os", SimpleNamespace(fstat=lambda _: status, major=os.major, minor=os.minor))
    monkeypatch.setattr(_posix, "time", SimpleNamespace(time_ns=lambda: now, sleep=naps.append))
    assert _posix.settle(0)[1] is trusted
    assert sum(naps) < 0.2


def test_a_file_that_shrinks_is_noticed(storage, root):
    storage.write("file", [bytes(100)])
    with storage.open("file") as reader:
        os.truncate(root / "file", 50)
        with pytest.raises(ChangedError, match="truncated it"):
            reader.read(0, 100)


def test_attributes_are_set_or_kept(storage, root):
    wanted = Attributes(mode=0o4751, uid=os.getuid(), gid=os.getgid(), mtime_ns=1_500_000_000_987_654_321)
    assert storage.write("file", [b"a"], wanted).attributes == wanted
    kept = storage.write("file", [b"b"])
    assert kept.attributes.mode == 0o4751
    assert kept.attributes.mtime_ns != wanted.mtime_ns
    assert storage.swap("file", b"c", kept.identity).attributes.mode == 0o4751


def test_an_owner_that_cannot_be_had_gets_no_rights_lent(storage, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, "only root may give files away")

    monkeypatch.setattr(os, "fchown", refused)
    stranger = Attributes(mode=0o6755, uid=12345, gid=12345, mtime_ns=0)
    assert storage.write("file", [b"a"], stranger).attributes.mode == 0o755


def test_new_files_obey_the_umask_and_drafts_of_others_are_private(storage, root):
    old = os.umask(0o027)
    try:
        assert storage.write("file", [b"a"]).attributes.mode == 0o640
        assert storage.create("created", b"a").attributes.mode == 0o640
    finally:
        os.umask(old)

    def watched():
        (draft,) = [path for path in root.iterdir() if path.name.startswith(".novabackup-")]
        modes.append(draft.stat().st_mode & 0o777)
        yield b"secret"

    modes = []
    storage.write("file", watched())
    storage.write("other", watched(), Attributes(mode=0o600, uid=os.getuid(), gid=os.getgid(), mtime_ns=0))
    assert modes == [0o600, 0o600]


def test_a_full_disk_changes_nothing_and_names_the_file(storage, root, monkeypatch):
    storage.write("file", [b"old"])

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "write", full)
    for call in (lambda: storage.write("file", [b"new"]), lambda: storage.create("other", b"new")):
        with pytest.raises(OSError, match=str(root)) as caught:
            call()
        assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert os.listdir(root) == ["file"]
    assert storage.read("file") == b"old"


def test_create_without_hard_links(storage, root, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    assert storage.create("file", b"one").identity == storage.entry("file").identity
    with pytest.raises(FileExistsError):
        storage.create("file", b"two")
    assert storage.read("file") == b"one"
    assert os.listdir(root) == ["file"]


def test_folders_and_files_are_flushed_before_a_write_returns(storage, root, monkeypatch):
    flushed = []
    fsync = os.fsync

    def watched(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    storage.write("a/b/c", [b"x"])
    assert [Path(path).name[:12] for path in flushed] == ["root", "a", ".novabackup-", "b"]
    flushed.clear()
    storage.sync(["a/b/c", "gone/d"])
    assert flushed == [str(root / "a/b/c"), str(root / "a/b"), str(root / "a"), str(root)]
    flushed.clear()
    storage.delete("a/b/c")
    storage.delete("gone/d")
    assert flushed == [str(root / "a/b"), str(root)]


def test_a_child_process_reads_the_file(storage):
    storage.write("file", [b"content"])
    with storage.open("file") as reader, reader.file() as file:
        reader.read(3, 2)
        read = subprocess.run(["cat"], stdin=file, capture_output=True, check=True)
        assert read.stdout == b"content"
        assert not os.get_inheritable(file.fileno())


def test_a_lock_ends_with_its_owner_even_if_a_child_lives_on(storage, root):
    script = """
        import os, sys, time
        from novabackup.storage import open_storage
        lock = open_storage(sys.argv[1]).hold("lock")
        child = os.fork()
        if child == 0:
            with lock:  # leaving it in the child does not release the parent's
                pass
        os.write(1, b"%d\\n" % child)  # in one piece, as both write
        time.sleep(600)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with owner.stdout as output:
            lines = [output.readline().strip(), output.readline().strip()]
        child = max(map(int, lines))
        with pytest.raises(BlockingIOError, match="lock"):
            storage.hold("lock")
        owner.kill()
        owner.wait()
        os.kill(child, 0)
        with storage.hold("lock"):
            assert (root / "lock").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)
        owner.wait()


def test_a_lock_that_is_let_go_of_is_free(storage):
    assert storage.hold("lock") is not None  # dropped at once
    with storage.hold("lock"):
        pass
    assert (storage.entry("lock").size, storage.read("lock")) == (0, b"")


def test_a_place_that_refuses_folders_is_an_error_of_the_system():
    with pytest.raises(FileNotFoundError, match="/proc/nova"):
        open_storage("/proc/nova").write("folder/key", [b"data"])
