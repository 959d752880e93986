"""The contract of a storage as a suite of tests; `novabackup.testing` exports it.

Nothing here imports pytest: `StorageContract` is a plain class whose methods pytest can collect.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import attrs

from novabackup.errors import ChangedError, ConfigurationError, IntegrityError
from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Folder, Link, Span, Storage

__all__ = ["LOCAL_KEYS", "ODD_KEYS", "UNSAFE_KEYS", "StorageContract"]

ODD_KEYS = (
    " leading and trailing /  ",
    "#fragment?query=1&a=b",
    "%41%2Fpercent",
    "+plus+",
    ".hidden/.novabackup/x",
    "?versionId=1",
    "[ab]*?{c}/x",
    "deep/" * 20 + "leaf",
    "quote'\"<tag>`$(x)`",
    "ümläut/日本語/🙂",
    "~home",
    "…/-dash",
)
"""Keys that every storage must accept unchanged."""

UNSAFE_KEYS = ("/a", "../a", "a/../b", "a/./b", "a//b", "a/", "a\0b", ".", "..", "\ud800", "\udcc3\udca4")
"""Keys that every storage must refuse."""

LOCAL_KEYS = ("a\\b", "a\nb", "a\tb \x1b[1m", "c:/x", "\udcff/\udc80")
"""File names that a storage either accepts unchanged or refuses."""


class StorageContract:
    """The suite of tests that every storage must pass.

    Inherit from it in a class that pytest collects, and provide two fixtures: ``storage``, empty, and ``other``, a
    second, independent storage object for the same URL, as another process would have.
    """

    def test_missing_objects(self, storage: Storage) -> None:
        """A missing object is reported by its URL; deleting it is no error."""
        for call in (storage.entry, storage.open, storage.read):
            with _raises(FileNotFoundError) as caught:
                call("folder/missing")
            assert "folder/missing" in str(caught[0])
        assert not storage.exists("folder/missing")
        assert list(storage.entries("folder")) == []
        storage.delete("folder/missing")
        with _raises(FileNotFoundError):
            storage.move("folder/missing", "folder/there")

    def test_write_and_read(self, storage: Storage, other: Storage) -> None:
        """A written object can be read by every process, whole and by ranges."""
        written = storage.write("folder/object", [b"first, ", b"", b"second"])
        found = other.entry("folder/object")
        assert (written.key, written.size, written.identity) == (found.key, found.size, found.identity)
        assert found.size == 13
        assert list(other.entries()) == [found]
        with other.open("folder/object") as reader:
            assert reader.entry.size == 13
            assert reader.read(0, 13) == b"first, second"
            assert (reader.read(7, 6), reader.read(0, 5), reader.read(13, 0)) == (b"second", b"first", b"")
            reader.confirm()
        assert storage.read("folder/object") == b"first, second"
        replaced = storage.write("folder/object", [b"other content"])
        assert other.read("folder/object") == b"other content"
        assert replaced.identity != written.identity
        assert other.entry("folder/object").identity == replaced.identity

    def test_empty_objects(self, storage: Storage) -> None:
        """Empty content is content."""
        for key, entry in (("a", storage.write("a", [])), ("b", storage.create("b", b""))):
            assert entry.size == 0
            with storage.open(key) as reader:
                assert reader.read(0, 0) == b""
                assert reader.file().read() == b""
                reader.confirm()

    def test_large_objects(self, storage: Storage, other: Storage) -> None:
        """Content of several MiB is read back, by ranges and as a file that a child process can read."""
        blocks = [bytes([number]) * 1_000_003 for number in range(9)]
        content = b"".join(blocks)
        assert storage.write("large", iter(blocks)).size == len(content)
        with other.open("large") as reader:
            assert reader.read(0, len(content)) == content
            assert reader.read(999_999, 2_000_010) == content[999_999:3_000_009]
            file = reader.file()
            assert os.pread(file.fileno(), 10, len(content) - 10) == content[-10:]
            assert file.read() == content
            assert reader.read(0, 1) == b"\0"
            reader.confirm()
            reader.close()
            reader.close()
            assert file.closed

    def test_writes_are_atomic(self, storage: Storage, other: Storage) -> None:
        """If the content ends with an error, nothing is changed."""

        def broken() -> Iterator[bytes]:
            yield b"new" * 1000
            raise KeyError("no more")

        storage.write("old", [b"old"])
        before = other.entry("old")
        for key in ("old", "new"):
            with _raises(KeyError):
                storage.write(key, broken())
        assert other.entry("old") == before
        assert [entry.key for entry in other.entries()] == ["old"]
        assert storage.sweep(0.0) == 0
        assert other.read("old") == b"old"

    def test_adding(self, storage: Storage, other: Storage) -> None:
        """An added object exists; a storage that reports an existing object has not replaced it."""
        blocks = [bytes([number]) * 100_003 for number in range(9)]
        assert storage.add("folder/one", iter(blocks)).size == 900_027
        assert other.read("folder/one") == b"".join(blocks)
        try:
            other.add("folder/one", [b"other"])
        except FileExistsError:
            assert storage.read("folder/one") == b"".join(blocks)
        else:
            assert storage.read("folder/one") == b"other"

    def test_what_is_just_there(self, storage: Storage) -> None:
        """An object written without options can be read and deleted at once; and keys may be missing."""
        storage.write("one", [b"content"])
        for keys in ([], ["one"], ["one", "missing"], ["one", *(f"missing/{number}" for number in range(9))]):
            assert storage.frozen(keys) == []
            assert storage.locks(keys) == []
            storage.protect(keys)
        storage.delete("one")

    def test_exclusive_create(self, storage: Storage, other: Storage) -> None:
        """The second creation of an object is refused, and changes nothing."""
        first = storage.create("folder/one", b"first")
        for again in (storage, other):
            with _raises(FileExistsError):
                again.create("folder/one", b"other")
        assert storage.entry("folder/one").identity == first.identity
        assert other.read("folder/one") == b"first"
        other.delete("folder/one")
        storage.create("folder/one", b"again")
        assert other.read("folder/one") == b"again"

    def test_swap(self, storage: Storage, other: Storage) -> None:
        """Only the version that was named is replaced."""
        first = storage.create("one", b"first")
        second = other.swap("one", b"other", first.identity)
        assert second.identity != first.identity
        for identity in (first.identity, "", "nonsense"):
            with _raises(ChangedError):
                storage.swap("one", b"third", identity)
        assert storage.read("one") == b"other"
        assert storage.swap("one", b"third", second.identity).size == 5
        assert other.read("one") == b"third"
        storage.delete("one")
        with _raises(ChangedError):
            other.swap("one", b"fourth", second.identity)
        assert not storage.exists("one")

    def test_races(self, storage: Storage, other: Storage) -> None:
        """A storage that guarantees it has one winner of a race; `probe` is repeatable and leaves nothing behind."""
        able = storage.probe()
        assert storage.probe() == able == other.probe()
        assert list(storage.entries()) == []
        base = storage.create("swapped", b"base").identity

        def creates(number: int) -> bool:
            with contextlib.suppress(FileExistsError):
                (storage, other)[number % 2].create("created", b"%d" % number)
                return True
            return False

        def swaps(number: int) -> bool:
            with contextlib.suppress(ChangedError):
                (storage, other)[number % 2].swap("swapped", b"%d" % number, base)
                return True
            return False

        with ThreadPoolExecutor(4) as threads:
            created, swapped = list(threads.map(creates, range(4))), list(threads.map(swaps, range(4)))
        # A storage without the guarantee has at least one winner, and the content is the work of one of them.
        assert sum(created) == 1 if able.exclusive_create else sum(created) >= 1
        assert sum(swapped) == 1 if able.compare_and_swap else sum(swapped) >= 1
        assert created[int(storage.read("created"))]
        assert swapped[int(storage.read("swapped"))]

    def test_listing(self, storage: Storage, other: Storage) -> None:
        """Lists are current, sorted by key, and of one folder only."""
        keys = ["a-b", "a.txt", "a/b", "a/b-c/d", "a/b.c", "aa/b", "b", "é", "日"]
        for key in reversed(keys):
            storage.write(key, [key.encode()])
        assert [entry.key for entry in other.entries()] == keys
        assert [entry.key for entry in other.entries("a")] == ["a/b", "a/b-c/d", "a/b.c"]
        assert [entry.key for entry in other.entries("a/b-c")] == ["a/b-c/d"]
        assert list(other.entries("b")) == []
        assert all(entry == other.entry(entry.key) for entry in other.entries())
        storage.delete("a/b")
        storage.write("a/z", [b"new"])
        assert [entry.key for entry in other.entries("a")] == ["a/b-c/d", "a/b.c", "a/z"]

    def test_odd_keys(self, storage: Storage, other: Storage) -> None:
        """Keys are literal: nothing in them is a pattern, an escape or a command."""
        for key in ODD_KEYS:
            storage.write(key, [key.encode()])
        assert [entry.key for entry in other.entries()] == sorted(ODD_KEYS)
        for key in ODD_KEYS:
            assert other.read(key) == key.encode()
        storage.write("a", [b"stays"])
        storage.delete("[ab]*?{c}/x")
        storage.move("#fragment?query=1&a=b", "#moved?&+ %20")
        assert storage.read("a") == b"stays"
        assert other.read("#moved?&+ %20") == b"#fragment?query=1&a=b"
        storage.sync(ODD_KEYS)

    def test_unsafe_keys(self, storage: Storage) -> None:
        """Every operation refuses keys that could lead out of the root."""
        storage.write("safe", [b"safe"])
        calls: list[Callable[[str], object]] = [
            storage.entry,
            storage.open,
            storage.read,
            storage.exists,
            storage.delete,
            storage.hold,
            lambda key: storage.write(key, [b"x"]),
            lambda key: storage.create(key, b"x"),
            lambda key: storage.swap(key, b"x", "x"),
            lambda key: storage.move(key, "safe"),
            lambda key: storage.move("safe", key),
            lambda key: storage.sync([key]),
            lambda key: storage.sweep(0.0, [key]),
            lambda key: list(storage.entries(key)) if key else storage.entry(key),
        ]
        for key in ("", *UNSAFE_KEYS, *filter(storage.refuses, LOCAL_KEYS)):
            assert storage.refuses(key)
            for call in calls:
                with _raises(ConfigurationError):
                    call(key)
        assert [entry.key for entry in storage.entries()] == ["safe"]

    def test_names_of_files(self, storage: Storage, other: Storage) -> None:
        """Any valid file name is refused, or accepted unchanged."""
        taken = [key for key in (*LOCAL_KEYS, *ODD_KEYS) if not storage.refuses(key)]
        assert set(taken) >= set(ODD_KEYS)
        for key in taken:
            storage.write(key, [repr(key).encode()])
        assert {entry.key for entry in other.entries()} == {item.key for item in _files(other)} == set(taken)
        for key in taken:
            assert other.read(key) == repr(key).encode()
            storage.delete(key)

    def test_links_and_folders(self, storage: Storage, other: Storage) -> None:
        """A storage with links and folders lists, creates and removes them as such; any other refuses them."""
        storage.write("folder/file", [b"content"])
        assert storage.look("folder/file") == storage.entry("folder/file")
        assert storage.look("missing") is None
        assert storage.remove("missing")
        assert not storage.remove("folder/file")
        assert list(storage.walk("missing", lambda key: True)) == []
        if not {Link, Folder} <= storage.kinds:
            with _raises(ConfigurationError):
                storage.make_link("link", "folder")
            with _raises(ConfigurationError):
                storage.make_folder("empty")
            assert list(storage.walk("", lambda key: True)) == list(storage.entries())
            return
        wanted = Attributes(mode=0o750, uid=os.getuid(), gid=os.getgid(), mtime_ns=1_600_000_000_123_456_789)
        storage.make_folder("empty/deep", wanted)
        storage.make_link("folder/link", "../../outside", wanted)
        storage.make_link("folder/link", "../empty", wanted)
        folder, link = other.look("empty/deep"), other.look("folder/link")
        assert isinstance(folder, Folder)
        assert folder.attributes == wanted
        assert isinstance(link, Link)
        assert (link.target, link.attributes.mtime_ns) == ("../empty", wanted.mtime_ns)
        keys = [item.key for item in other.walk("", lambda key: True)]
        assert keys == ["empty", "empty/deep", "folder", "folder/file", "folder/link"]
        assert [item.key for item in other.walk("", lambda key: key != "empty")] == [keys[0], *keys[2:]]
        assert [item.key for item in other.walk("folder", lambda key: True)] == keys[3:]
        with _raises(OSError):
            storage.make_link("folder/file", "x")
        with _raises(OSError):
            storage.make_folder("folder/link")
        storage.sync(["folder/link", "empty/deep"])
        assert not storage.remove("folder")
        assert storage.remove("empty/deep")
        assert storage.remove("folder/link")
        assert [item.key for item in other.walk("", lambda key: True)] == ["empty", "folder", "folder/file"]
        for key in UNSAFE_KEYS:
            with _raises(ConfigurationError):
                storage.look(key)
            with _raises(ConfigurationError):
                storage.make_folder(key)
            with _raises(ConfigurationError):
                storage.make_link(key, "x")
            with _raises(ConfigurationError):
                storage.remove(key)

    def test_pinned_reading(self, storage: Storage, other: Storage) -> None:
        """A reader never mixes versions: it goes on with the one that it opened, or says that it cannot."""
        changes: list[Callable[[], object]] = [
            lambda: other.write("one", [b"B" * 1000]),
            lambda: other.write("one", [b"short"]),
            lambda: other.delete("one"),
        ]
        for change in changes:
            storage.write("one", [b"A" * 1000])
            with storage.open("one") as reader:
                assert reader.read(0, 10) == b"A" * 10
                change()
                with contextlib.suppress(ChangedError):
                    assert reader.read(500, 500) == b"A" * 500
                with _raises(ChangedError):
                    reader.confirm()

    def test_parts(self, storage: Storage, other: Storage) -> None:
        """Any range can be read of what never changes, from both ends, and less is given where there is less."""
        content = os.urandom(200_000)
        storage.write("small", [b"content"])
        storage.write("large", [content])
        for key, whole in (("small", b"content"), ("large", content)):
            size = len(whole)
            for start, length in ((0, 3), (0, size), (2, 4), (size - 1, 1), (0, size + 9), (3, size), (size, 1)):
                part = other.read_part(key, start, length)
                assert (part.data, part.size) == (whole[start : start + length], size)
            for back in (1, 3, size, size + 9, 70_000):
                part = other.read_part(key, -back, back)
                assert (part.data, part.size) == (whole[-min(back, size) :], size)
        with _raises(FileNotFoundError):
            storage.read_part("missing", 0, 1)

    def test_blocks_into_buffers(self, storage: Storage) -> None:
        """What is read into a buffer is what is read."""
        content = os.urandom(150_000)
        storage.write("one", [content])
        with storage.open("one") as reader:
            buffer = bytearray(100_000)
            for start, length in ((0, 100_000), (50_000, 100_000), (7, 11)):
                reader.readinto(start, memoryview(buffer)[:length])
                assert buffer[:length] == content[start : start + length]

    def test_keys_and_presence(self, storage: Storage, other: Storage) -> None:
        """Keys are listed as entries are, and what is there is told from what is not."""
        names = [f"folder/{number}" for number in range(9)]
        for name in (*names, "folder/below/a", "other/b"):
            storage.write(name, [b"content"])
        assert list(other.keys("folder")) == [entry.key for entry in other.entries("folder")]
        assert list(other.keys("other")) == ["other/b"]
        assert list(other.keys("missing")) == []
        assert other.present([*names, "folder/missing", "missing/x"]) == set(names)
        assert other.present(["other/b", "other/c"]) == {"other/b"}
        assert other.present([]) == set()

    def test_sources(self, storage: Storage) -> None:
        """Where a storage copies by itself, it copies right; and never another version than the one that is meant."""
        content = os.urandom(300_000)
        before = storage.write("one", [content])
        assert storage.source("missing", before.identity) is None
        assert storage.source("one", "another") is None
        source = storage.source("one", storage.entry("one").identity)
        if source is None:
            return
        with source:
            assert source.read(5, 10) == content[5:15]
            blocks: list[Block] = [
                b"head",
                Span(source, 100_000, 200_000),
                b"",
                Span(source, 0, 100_000),
                memoryview(b"tail"),
            ]
            storage.write("two", blocks)
            assert storage.read("two") == b"head" + content[100_000:] + content[:100_000] + b"tail"
            storage.write("one", [Span(source, 0, 299_999)])
            assert storage.read("one") == content[:299_999]

    def test_move(self, storage: Storage, other: Storage) -> None:
        """An object gets another key, and replaces an existing object."""
        storage.write("from/a", [b"moved"])
        storage.write("to/b", [b"replaced"])
        storage.move("from/a", "to/b")
        storage.move("to/b", "new/folder/c")
        assert [entry.key for entry in other.entries()] == ["new/folder/c"]
        assert other.read("new/folder/c") == b"moved"
        storage.move("new/folder/c", "new/folder/c")
        assert other.read("new/folder/c") == b"moved"

    def test_sync_and_sweep(self, storage: Storage, other: Storage) -> None:
        """Neither changes existing objects, and missing keys are no error."""
        storage.sync(["missing/key"])
        assert storage.sweep(0.0) == 0
        storage.write("folder/a", [b"a"])
        storage.delete("folder/b")
        storage.sync(["folder/a", "folder/b", "missing/key", "folder/a/below"])
        storage.sync([])
        assert storage.sweep(0.0) == storage.sweep(0.0, ["folder/a", "missing/key"]) == storage.sweep(3600.0) == 0
        assert [entry.key for entry in other.entries()] == ["folder/a"]

    def test_read_has_a_limit(self, storage: Storage) -> None:
        """`read` refuses an object above the limit for records, since a forged one may be huge."""
        storage.write("record", [b"eleven byte"])
        with patch("novabackup.storage.base.SMALL_OBJECT", 10), _raises(IntegrityError):
            storage.read("record")
        with patch("novabackup.storage.base.SMALL_OBJECT", 11):
            assert storage.read("record") == b"eleven byte"

    def test_attributes(self, storage: Storage, other: Storage) -> None:
        """Permission bits and time are set if the storage has them; the time at least to whole seconds."""
        wanted = Attributes(mode=0o640, uid=os.getuid(), gid=os.getgid(), mtime_ns=1_600_000_000_123_456_789)
        storage.write("file", [b"content"], wanted)
        in_seconds = attrs.evolve(wanted, mtime_ns=1_600_000_000_000_000_000)
        assert other.entry("file").attributes in (None, wanted, in_seconds)

    def test_hold(self, storage: Storage, other: Storage) -> None:
        """A lock, if the storage has any, excludes all others until it is released."""
        lock = storage.hold("folder/lock")
        if lock is None:
            return
        with lock:
            for anybody in (storage, other):
                with _raises(BlockingIOError):
                    anybody.hold("folder/lock")
        again = other.hold("folder/lock")
        assert again is not None
        with again, _raises(BlockingIOError):
            storage.hold("folder/lock")


def _files(storage: Storage) -> Iterator[Entry]:
    return (item for item in storage.walk("", lambda key: True) if isinstance(item, Entry))


@contextlib.contextmanager
def _raises(kind: type[BaseException]) -> Iterator[list[BaseException]]:
    """Expect an exception; what was caught is in the list afterwards."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    else:
        raise AssertionError(f"expected {kind.__name__}, found that nothing was raised")
