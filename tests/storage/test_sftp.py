"""What only SFTP has: host keys, logins, connections that break, links, versions that are hard to tell apart."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import asyncssh
import pytest

from novabackup.errors import ChangedError, ConfigurationError, IntegrityError
from novabackup.storage import Guarantees, open_storage
from novabackup.storage.sftp import swap as swap_module
from novabackup.storage.sftp import versions as versions_module
from novabackup.storage.sftp.connection import Connection, LostError

LARGE = os.urandom(300_000)


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "sftp").mkdir()
    return tmp_path / "sftp"


@pytest.fixture
def storage(root, sftp_place):
    return open_storage(*sftp_place)


@pytest.fixture
def other(root, sftp_place):
    return open_storage(*sftp_place)


def of_writers(root):
    """Name what writers left behind."""
    return sorted(path.name for path in root.rglob(".novabackup-*"))


# -- who is at the other end -------------------------------------------------------------------------------------------


def test_an_unknown_or_changed_host_key_is_refused(ssh_server, sftp_place, tmp_path):
    url, options = sftp_place
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    for text in ("", f"[127.0.0.1]:{ssh_server.port} {other}"):
        (tmp_path / "known").write_text(text)
        storage = open_storage(url, {**options, "known_hosts": str(tmp_path / "known")})
        with pytest.raises(ConfigurationError, match=f"ssh-keyscan -p {ssh_server.port} 127.0.0.1") as caught:
            storage.read("a")
        assert str(tmp_path / "known") in str(caught.value)


def test_the_known_hosts_of_the_user_are_the_default(sftp_place, monkeypatch, tmp_path):
    url, options = sftp_place
    rest = {name: value for name, value in options.items() if name != "known_hosts"}
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"~/\.ssh/known_hosts"):
        open_storage(url, rest).exists("a")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(Path(options["known_hosts"]).read_text())
    assert not open_storage(url, rest).exists("a")


def test_nothing_turns_the_check_of_the_host_key_off(sftp_place, tmp_path):
    url, options = sftp_place
    with pytest.raises(ConfigurationError, match="always verified"):
        open_storage(url, {**options, "known_hosts": None})
    with pytest.raises(ConfigurationError, match="client_factory, options"):
        open_storage(url, {**options, "options": object(), "client_factory": object()})
    (tmp_path / "config").write_text("Host *\n  UserKnownHostsFile none\n")
    rest = {name: value for name, value in options.items() if name != "known_hosts"}
    with pytest.raises(ConfigurationError, match="UserKnownHostsFile none"):
        open_storage(url, {**rest, "config": [str(tmp_path / "config")]}).exists("a")
    with pytest.raises(ConfigurationError, match="no-such-file"):
        open_storage(url, {**options, "known_hosts": "/no-such-file"}).exists("a")


def test_logins_that_fail_say_why_and_hold_no_secret(sftp_place, tmp_path, caplog):
    url, options = sftp_place
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    stranger.write_private_key(tmp_path / "stranger")
    stranger.write_private_key(tmp_path / "locked", format_name="pkcs8-pem", passphrase="hush-hush")
    cases = [
        ({"client_keys": [str(tmp_path / "stranger")]}, PermissionError, "accepts none of the credentials"),
        ({"client_keys": [], "password": "hush-hush"}, PermissionError, "accepts none of the credentials"),
        ({"client_keys": [str(tmp_path / "locked")], "passphrase": "hush"}, ConfigurationError, "passphrase"),
        ({"client_keys": [str(tmp_path / "locked")]}, ConfigurationError, "passphrase"),
        ({"client_keys": [str(tmp_path / "missing")]}, ConfigurationError, "missing"),
        ({"encryption_algs": ["hush"]}, ConfigurationError, "cannot be used"),
    ]
    with caplog.at_level(logging.DEBUG):
        for more, kind, message in cases:
            storage = open_storage(url, {**options, **more})
            with pytest.raises(kind, match=message) as caught:
                storage.read("a")
            text = f"{caught.value!s} {caught.value!r} {storage!r} {storage.url}"
            assert "127.0.0.1" in text
            assert "hush" not in text
    assert "hush" not in caplog.text


def test_user_and_port_can_be_told_in_the_url_or_in_options(ssh_server, sftp_place):
    url, options = sftp_place
    user, _, rest = url.removeprefix("sftp://").partition("@")
    host, _, path = rest.partition(":")
    port, _, path = path.partition("/")
    storage = open_storage(f"ssh://{host}//{path}/", {**options, "username": user, "port": int(port)})
    assert storage.url == f"sftp://{host}/{path}"
    storage.write("a", [b"a"])
    assert open_storage(url, options).read("a") == b"a"
    for name, value in (("port", 22), ("username", "somebody")):
        with pytest.raises(ConfigurationError, match=f"expected one {name}"):
            open_storage(url, {**options, name: value})


def test_a_path_below_the_home_of_the_user(ssh_server):
    storage = open_storage(ssh_server.url("/~/"), ssh_server.options)
    assert storage.url.endswith("/~")
    missing = open_storage(f"{storage.url}/no-such-folder-at-all", ssh_server.options)
    assert list(missing.entries()) == []
    assert missing.sweep(0.0) == 0


def test_servers_that_are_not_there(tmp_path, ssh_server):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        dead = f"sftp://127.0.0.1:{port}/x"
        with pytest.raises(ConnectionError, match=dead):
            open_storage(dead, ssh_server.options).read("key")
        silent.listen()
        with pytest.raises(TimeoutError, match=dead):
            open_storage(dead, {**ssh_server.options, "login_timeout": 0.2}).read("key")
    with pytest.raises(OSError, match="cannot be resolved"):
        open_storage("sftp://no-such-host.invalid/x", ssh_server.options).read("key")


def test_without_asyncssh_it_says_what_to_install():
    script = """if True:
        import sys
        sys.modules["asyncssh"] = None
        from novabackup import ConfigurationError
        from novabackup.storage import open_storage
        try:
            open_storage("sftp://user@host/x")
        except ConfigurationError as error:
            assert "pip install 'novabackup[sftp]'" in str(error), error
            sys.exit(7)
    """
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 7


# -- connections that break --------------------------------------------------------------------------------------------


def test_work_goes_on_over_a_new_connection(storage, ssh_server):
    storage.write("large", [LARGE])
    before = storage.create("small", b"first")

    def blocks():
        yield LARGE
        assert ssh_server.break_connections()
        yield LARGE

    with storage.open("large") as reader:
        assert reader.read(0, 1000) == LARGE[:1000]
        for work, expected in (
            (lambda: storage.read("small"), b"first"),
            (lambda: reader.read(100_000, 200_000), LARGE[100_000:]),
            (reader.confirm, None),
            (lambda: list(storage.keys()), ["large", "small"]),
            (lambda: storage.swap("small", b"second", before.identity).size, 6),
            (lambda: storage.create("new", b"new").size, 3),
            (lambda: storage.write("twice", blocks()).size, 600_000),
            (lambda: storage.read_part("twice", -300_000, 300_000).data, LARGE),
        ):
            assert ssh_server.break_connections()
            assert work() == expected
        storage.write("large", [LARGE[::-1]])
        ssh_server.break_connections()
        with pytest.raises(ChangedError, match="large"):
            reader.read(0, 1)


def test_what_a_server_lost_when_it_went_down_is_not_published(storage, root, ssh_server):
    def blocks():
        for _ in range(8):  # so many that the first have been answered
            yield LARGE * 10
        ssh_server.break_connections()
        (draft,) = root.glob(".novabackup-*.tmp")
        with draft.open("r+b") as file:
            file.write(bytes(1000))  # as file systems leave it that know the size and not the content

    storage.write("large", [b"before"])
    with pytest.raises(IntegrityError, match="lost some of them"):
        storage.write("large", blocks())
    assert storage.read("large") == b"before"
    assert of_writers(root) == []


@pytest.fixture
def lose(monkeypatch):
    """Lose the answer to the next request of a kind, as a connection does that breaks just then."""

    def losing(method):
        done = getattr(Connection, method)
        lost = []

        async def once(self, *arguments):
            found = await done(self, *arguments)
            if not lost:
                lost.append(arguments)
                self.drop()
                raise LostError(errno.ECONNRESET, "the line went dead")
            return found

        monkeypatch.setattr(Connection, method, once)
        return lost

    return losing


def test_ones_own_work_is_recognised_when_the_answer_was_lost(storage, other, root, lose):
    lost = [lose("link")]
    first = storage.create("one", b"first")
    assert other.entry("one").identity == first.identity
    for data in (b"other", b"first"):  # equal bytes of another call are another's work
        with pytest.raises(FileExistsError, match="one"):
            storage.create("one", data)
    lost.append(lose("link"))
    second = storage.swap("one", b"second", first.identity)
    lost.append(lose("replace"))
    third = other.swap("one", b"third", second.identity)
    with pytest.raises(ChangedError):
        storage.swap("one", b"fourth", second.identity)
    lost.append(lose("replace"))
    storage.write("one", [b"fifth"])
    assert third.identity != other.entry("one").identity
    lost.append(lose("replace"))
    storage.move("one", "two")
    lost.append(lose("remove"))
    storage.delete("two")
    lost.append(lose("make_folder"))
    storage.write("deep/er", [b"x"])
    assert [entry.key for entry in other.entries()] == ["deep/er"]
    assert all(lost)
    assert not [name for name in of_writers(root) if name.endswith((".tmp", ".swap"))]


def test_an_interrupt_leaves_nothing_running(storage):
    ended = threading.Event()

    async def work(_connection):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        storage._client.run(work)
    assert ended.is_set()
    storage.write("a", [b"a"])


def test_an_interrupt_while_writing_leaves_nothing_behind(storage, root):
    def blocks():
        yield LARGE * 20
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.write("a", blocks())
    assert of_writers(root) == []
    assert not storage.exists("a")


def test_it_works_within_a_running_loop_and_in_threads(storage):
    async def main():
        storage.write("one", [b"1"])
        return await asyncio.gather(*(asyncio.to_thread(storage.read, "one") for _ in range(8)))

    assert asyncio.run(main()) == [b"1"] * 8


def test_it_works_in_a_forked_child_and_ends_with_its_process(sftp_place):
    url, options = sftp_place
    script = f"""if True:
        import os, sys
        from novabackup.format.records import Attributes
        from novabackup.storage import open_storage
        storage = open_storage({url!r}, {options!r})
        long_ago = Attributes(mode=0o600, uid=os.getuid(), gid=os.getgid(), mtime_ns=10**18)
        storage.write("parent", [os.urandom(300_000)], long_ago)
        with storage.open("parent") as reader:
            child = os.fork()
            if child == 0:
                storage.write("child", [reader.read(0, 9)])
                sys.exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert reader.read(5, 10) == storage.read_part("parent", 5, 10).data
        assert storage.read("child") == storage.read_part("parent", 0, 9).data
        del storage, reader
        import gc, threading
        for thread in threading.enumerate()[1:]:
            gc.collect()
            thread.join(20)
        assert threading.active_count() == 1
        open_storage({url!r}, {options!r}).exists("left")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=False, timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- what cannot be had from every server ------------------------------------------------------------------------------


def test_a_server_without_hard_links_excludes_nobody_and_says_so(storage, other, monkeypatch):
    async def unknown(self, *_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(Connection, "link", unknown)
    assert storage.probe() == Guarantees(exclusive_create=False, compare_and_swap=False)
    storage.create("one", b"first")
    with pytest.raises(FileExistsError):
        other.create("one", b"second")
    assert [(entry.key, other.read(entry.key)) for entry in other.entries()] == [("one", b"first")]


def test_a_server_that_cannot_rename_over_a_file_is_not_written_to_in_pieces(storage, monkeypatch):
    async def unknown(self, *_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(Connection, "replace", unknown)
    assert storage.probe() == Guarantees(exclusive_create=True, compare_and_swap=False)
    storage.write("one", [b"first"])
    with pytest.raises(OSError, match=r"posix-rename.*one"):
        storage.write("one", [b"second"])
    assert storage.read("one") == b"first"


# -- swaps -------------------------------------------------------------------------------------------------------------


def die_at(number, before):
    """Let this process die at a request, before it is sent or after it was answered."""
    ask, asked = Connection.ask, []

    async def counting(self, path, request, *arguments, **named):
        asked.append(path)
        if len(asked) == number and before:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await ask(self, path, request, *arguments, **named)
        finally:
            if len(asked) >= number:
                os.kill(os.getpid(), signal.SIGKILL)

    Connection.ask = counting


def in_a_child(place, number, work):
    """Let a child die at a request; tell whether it came to it."""
    child = os.fork()
    if child == 0:
        try:
            die_at(number, number % 2)
            work(open_storage(*place))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("way", ["swap", "create", "write"])
def test_a_writer_that_dies_at_any_request_leaves_all_or_nothing(storage, root, sftp_place, way):
    (root / "one").write_bytes(b"old")

    def work(mine):
        if way == "swap":
            mine.swap("one", b"new", mine.entry("one").identity)
        elif way == "create":
            mine.create("two", b"new")
        else:
            mine.write("one", [b"new"])

    number = 1
    while in_a_child(sftp_place, number, work):
        if way == "create":
            assert not storage.exists("two") or storage.read("two") == b"new"
            storage.delete("two")
        else:
            assert storage.read("one") in (b"old", b"new")
            for attempt in (1, 2):
                try:
                    # The first attempt may find that the dead one had decided, and carries that out.
                    storage.swap("one", b"old", storage.entry("one").identity)
                    break
                except ChangedError:
                    assert attempt == 1
                    assert way == "swap"
                    assert storage.read("one") == b"new"
        assert storage.read("one") == b"old"
        assert list(storage.keys()) == ["one"]
        number += 1
    assert number > 10


def test_what_a_dead_writer_decided_is_carried_out_by_the_next(storage, other, root, monkeypatch):
    base = storage.create("one", b"base")

    async def dies(*_):
        raise OSError(errno.EIO, "dead")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="dead"):
        patched.setattr(swap_module.Successions, "_succeed", dies)
        storage.swap("one", b"decided", base.identity)
    assert other.read("one") == b"base"
    with pytest.raises(ChangedError):
        other.swap("one", b"too late", base.identity)
    assert other.read("one") == b"decided"
    other.swap("one", b"next", other.entry("one").identity)
    with pytest.raises(ChangedError):  # who looked long ago is refused
        storage.swap("one", b"too late", base.identity)
    assert other.read("one") == b"next"
    assert not [name for name in of_writers(root) if name.endswith((".tmp", ".swap"))]


def test_a_decision_that_was_taken_back_is_passed_over(storage, other, root, monkeypatch):
    base = storage.create("one", b"base")

    async def disturbed(self, link, succession, token, draft):
        assert await succession.claim(link, token, draft)
        raise OSError(errno.EIO, "disturbed")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disturbed"):
        patched.setattr(swap_module.Successions, "_decide", disturbed)
        storage.swap("one", b"decided", base.identity)
    assert other.swap("one", b"next", base.identity).size == 4
    with pytest.raises(ChangedError):
        storage.swap("one", b"too late", base.identity)
    # The same bytes within the same second, once more and once more.
    for _ in range(3):
        storage.write("one", [b"same"])
        other.swap("one", b"same", storage.entry("one").identity)
    assert not [name for name in of_writers(root) if name.endswith((".tmp", ".swap"))]


def test_who_stood_still_for_long_looks_once_more(storage, other, root, monkeypatch):
    base = storage.create("one", b"base")
    claim = swap_module._Succession.claim

    async def stands_still(self, *arguments):
        def meanwhile():
            other.swap("one", b"meanwhile", base.identity)
            for path in root.glob("*.lock"):
                path.unlink()

        monkeypatch.setattr(swap_module._Succession, "claim", claim)
        await asyncio.to_thread(meanwhile)
        monkeypatch.setattr(swap_module._Succession, "is_stale", True)
        return await claim(self, *arguments)

    for path in root.glob(".novabackup-*"):
        path.unlink()
    monkeypatch.setattr(swap_module._Succession, "claim", stands_still)
    with pytest.raises(ChangedError):
        storage.swap("one", b"too late", base.identity)
    assert other.read("one") == b"meanwhile"
    assert of_writers(root) == []


def test_what_swaps_leave_behind_is_tidied_away(storage, other, root, monkeypatch):
    entry = storage.create("one", b"0")
    for number in range(1, 4):
        entry = storage.swap("one", b"%d" % number, entry.identity)
    assert len(of_writers(root)) == 3
    assert other.sweep(0.0) == 0
    long_ago = root.stat().st_mtime - 10_000
    for name in of_writers(root):
        os.utime(root / name, (long_ago, long_ago))
    entry = other.swap("one", b"4", entry.identity)  # the first of a storage looks at what others left
    assert len(of_writers(root)) == 1
    monkeypatch.setattr(swap_module, "GRACE", -1.0)
    other.swap("one", b"5", entry.identity)
    assert len(of_writers(root)) == 0
    for suffix in ("tmp", "swap", "lock"):
        (root / f".novabackup-0123456789abcdef.{suffix}").write_bytes(b"x")
    assert other.sweep(3600.0) == 0
    assert other.sweep(0.0, ["one"]) == 3
    assert of_writers(root) == []


def test_swaps_are_for_what_can_be_told_apart(storage):
    entry = storage.create("one", b"base")
    with pytest.raises(ConfigurationError, match="65536"):
        storage.swap("one", bytes(65_537), entry.identity)


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_large_file_that_changes_at_once_is_another_version(storage, root):
    (root / "large").write_bytes(LARGE)
    with storage.open("large") as reader:  # waits until the next change must show
        assert reader.entry.identity == storage.entry("large").identity != ""
        (root / "large").write_bytes(LARGE[::-1])
        with pytest.raises(ChangedError):
            reader.confirm()
    assert storage.entry("large").identity != reader.entry.identity


def test_a_large_file_is_not_vouched_for_where_the_clock_cannot_be_seen(storage, root, monkeypatch):
    (root / "large").write_bytes(LARGE)
    (root / "small").write_bytes(b"small")
    os.utime(root / "large", (4e9, 4e9))
    with storage.open("large") as reader:
        assert reader.entry.identity == ""
        assert reader.read(0, 10) == LARGE[:10]
        reader.confirm()

    async def nothing(*_):
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(versions_module, "place", nothing)
    os.utime(root / "large", (1e9, 1e9))
    fresh = open_storage(storage.url, storage._client._options)
    with fresh.open("large") as reader, fresh.open("small") as small:
        assert reader.entry.identity == ""
        assert small.entry.identity == fresh.entry("small").identity != ""


def test_small_files_are_told_apart_by_their_content(storage, root):
    (root / "small").write_bytes(b"AAAA")
    os.utime(root / "small", (1e9, 1e9))
    with storage.open("small") as reader:
        (root / "small").write_bytes(b"BBBB")
        os.utime(root / "small", (1e9, 1e9))
        assert reader.read(0, 4) == b"AAAA"
        with pytest.raises(ChangedError):
            reader.confirm()


# -- names and links ---------------------------------------------------------------------------------------------------


def test_links_are_followed_inside_of_the_root_and_never_out_of_it(storage, root, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (root / "inside").mkdir()
    (root / "inside" / "file").write_bytes(b"file")
    for name, target in {"in": "inside", "file": "inside/file", "new": "inside/new", "loop": "loop"}.items():
        (root / name).symlink_to(target)
    assert storage.read("in/file") == storage.read("file") == b"file"
    storage.write("file", [b"changed"])
    storage.write("new", [b"made"])
    storage.write("in/deep/er", [b"x"])
    assert (root / "inside" / "file").read_bytes() == b"changed"
    assert (root / "inside" / "new").read_bytes() == b"made"
    assert (root / "file").is_symlink()
    assert (root / "new").is_symlink()
    assert [entry.key for entry in storage.entries("in")] == ["in/deep/er", "in/file", "in/new"]

    (root / "out").symlink_to(tmp_path / "outside")
    (root / "stolen").symlink_to(tmp_path / "outside" / "secret")
    (root / "planted").symlink_to(tmp_path / "outside" / "not-there-yet")
    for key in ("out/secret", "stolen", "planted", "out/new", "out/deep/er"):
        for call in (
            storage.entry,
            storage.open,
            storage.read,
            storage.exists,
            storage.delete,
            lambda key: storage.write(key, [b"x"]),
            lambda key: storage.create(key, b"x"),
            lambda key: storage.move("inside/file", key),
            lambda key: storage.sync([key]),
        ):
            with pytest.raises(ConfigurationError, match="symbolic link leads to"):
                call(key)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        list(storage.entries())
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["secret"]
    storage.move("stolen", "aside/stolen")  # the link itself is moved out of the way
    assert (root / "aside" / "stolen").is_symlink()


def test_what_is_no_file_is_not_opened(storage, root):
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    (root / "loop").symlink_to("loop")
    for key, kind in (("pipe", "a named pipe"), ("folder", "a folder"), ("loop", "in a circle")):
        for call in (storage.entry, storage.open, storage.read, lambda key: storage.write(key, [b"x"])):
            with pytest.raises(ConfigurationError, match=kind):
                call(key)
    assert list(storage.entries()) == []
    storage.move("folder", "aside/folder")
    assert (root / "aside" / "folder").is_dir()


def test_names_that_are_no_text_and_names_of_writers(storage, root):
    (root / "a").write_bytes(b"a")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).write_bytes(b"x")
    assert [entry.size for entry in storage.entries()] == [1, 1]
    ours = ".novabackup-0123456789abcdef.tmp"
    (root / ours).write_bytes(b"x")
    assert [name for name in storage.keys("") if name.isascii()] == ["a"]
    with pytest.raises(ConfigurationError, match="for temporary files"):
        storage.read(ours)


def test_permissions_stay_and_secrets_are_never_readable(storage, root):
    (root / "a").write_bytes(b"a")
    (root / "a").chmod(0o640)
    storage.write("a", [b"b"])
    assert (root / "a").stat().st_mode & 0o7777 == 0o640
    seen = []

    def blocks():
        yield LARGE * 10
        seen.extend(path.stat().st_mode & 0o077 for path in root.glob(".novabackup-*.tmp"))

    storage.write("a", blocks())
    assert seen == [0]
