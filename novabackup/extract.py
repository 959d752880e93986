"""Get files out of a novabackup repository without novabackup: one file, for Python 3.9 or newer.

    python extract.py                              list the snapshots
    python extract.py SNAPSHOT                     list its files, in lines that `b3sum --check` understands
    python extract.py SNAPSHOT FOLDER [FILE ...]   write its files, or only these, into a folder

SNAPSHOT is an id, the beginning of one, or "latest". The repository is the folder that this script is in, or the one
that is named by --repository; download it first if it is on a server.

It needs one of: the package zstandard, Python 3.14, or the program zstd. With the package blake3, too, every byte is
checked against its hash; without, it says so, and b3sum can check the files afterwards. Nothing that is there is
overwritten. Exit code: 0 all went well, 1 something is damaged or missing, 2 it cannot be done at all.

A copy of this script lies in every repository that is not encrypted. Whoever does not trust those who can write to
the repository should take it from the package novabackup instead: novabackup/extract.py.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LARGEST_TABLE = 64 << 20
LARGEST_FRAME = 16 << 20
WINDOW = 27
UNSAFE = re.compile(r"\0|\A/|(?:\A|/)\.{0,2}(?:/|\Z)")
NOT_UTF8 = re.compile("\0([89a-f][0-9a-f])")


class DamagedError(Exception):
    """Something in the repository is not what it was."""


def give_up(message: str) -> NoReturn:
    """End with exit code 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


# -- what this Python has --------------------------------------------------------------------------------------------


def find_hash() -> Callable[[bytes], str] | None:
    """Find BLAKE3."""
    try:
        blake3 = importlib.import_module("blake3").blake3
    except ImportError:
        return None
    return lambda data: str(blake3(data).hexdigest())


def find_unzip() -> Callable[[bytes, int], bytes]:
    """Find something that undoes zstandard: a function of compressed bytes and the size that must come out."""
    try:
        package: Any = importlib.import_module("zstandard")
    except ImportError:
        pass
    else:

        def by_package(data: bytes, size: int) -> bytes:
            if package.frame_content_size(data) != size:  # it takes memory for what the frame says
                raise DamagedError("a compressed frame is not of the expected size")
            unzip = package.ZstdDecompressor(max_window_size=1 << WINDOW)
            return bytes(unzip.decompress(data, max_output_size=size))

        return by_package
    try:
        library: Any = importlib.import_module("compression.zstd")
    except ImportError:
        pass
    else:

        def by_library(data: bytes, size: int) -> bytes:
            options = {library.DecompressionParameter.window_log_max: WINDOW}
            return bytes(library.ZstdDecompressor(options=options).decompress(data, size + 1))

        return by_library
    program = shutil.which("zstd")
    if not program:
        give_up("expected the package zstandard, Python 3.14, or the program zstd; found none. pip install zstandard")

    def by_program(data: bytes, size: int) -> bytes:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            command = [str(program), "-dcq", f"--memory={1 << WINDOW - 20}MB"]
            with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                found = child.stdout.read(size + 1)
                child.kill()
        return found

    return by_program


HASH = find_hash()


def check(data: bytes, expected: str, what: str) -> bytes:
    """Compare with a hash, where there is something that computes it."""
    if HASH is not None and HASH(data) != expected:
        raise DamagedError(f"{what} is damaged: it does not match its hash")
    return data


# -- packs -----------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A row of the table: compressed bytes that hold some chunks."""

    offset: int
    codec: int
    stored: int
    size: int
    first: int
    chunks: int
    stored_hash: str
    raw_hash: str


class Table(NamedTuple):
    """What is in a pack: frames, and for each chunk where it ends within its frame."""

    frames: list[Frame]
    ends: list[int]


class Packs:
    """The content of a repository."""

    def __init__(self, repository: Path) -> None:
        """Read nothing yet."""
        self._folder = repository / "packs"
        self._unzip = find_unzip()
        self.table = functools.lru_cache(64)(self._table)
        self.frame = functools.lru_cache(8)(self._frame)

    def _read(self, pack: str, start: int, length: int) -> bytes:
        if not re.fullmatch("[0-9a-f]{64}", pack):
            raise DamagedError(f"a pack cannot be named {pack!r}")
        try:
            with (self._folder / pack[:2] / pack).open("rb") as file:
                file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
                data = file.read(length)
        except OSError as error:
            raise DamagedError(f"pack {pack} cannot be read: {error}") from error
        if len(data) != length:
            raise DamagedError(f"pack {pack} was cut off")
        return data

    def _table(self, pack: str) -> Table:
        footer = self._read(pack, -32, 32)
        magic, version, codec, encryption, stored, size, rest = struct.unpack("<8sHBBII12s", footer)
        if magic == b"NOVATAIL" and encryption:
            give_up(f"pack {pack} is encrypted: this script cannot read it. Use novabackup itself")
        if (magic, version, rest) != (b"NOVATAIL", 1, bytes(12)) or max(stored, size) > LARGEST_TABLE:
            raise DamagedError(f"pack {pack} has a damaged end, or is of a newer format")
        data = check(self._read(pack, -32 - stored, stored) + footer, pack, f"the table of pack {pack}")
        table = self._unpack(codec, data[:stored], size)
        if len(table) < 24:
            raise DamagedError(f"the table of pack {pack} was cut off")
        frames, chunks = struct.unpack_from("<16xII", table)
        if len(table) != 24 + 80 * frames + 36 * chunks:
            raise DamagedError(f"the table of pack {pack} does not add up")
        sizes = [length for length, _hash in struct.iter_unpack("<I32s", table[24 + 80 * frames :])]
        found: list[Frame] = []
        ends: list[int] = []
        offset = 16
        for row in struct.iter_unpack("<IIII32s32s", table[24 : 24 + 80 * frames]):
            codec, stored, size, count, stored_hash, raw_hash = row
            here = sizes[len(ends) : len(ends) + count]
            if len(here) != count or sum(here) != size or max(stored, size) > LARGEST_FRAME:
                raise DamagedError(f"the table of pack {pack} does not add up")
            found.append(Frame(offset, codec, stored, size, len(ends), count, stored_hash.hex(), raw_hash.hex()))
            offset += stored
            end = 0
            for length in here:
                end += length
                ends.append(end)
        return Table(found, ends)

    def _frame(self, pack: str, frame: Frame) -> bytes:
        stored = check(self._read(pack, frame.offset, frame.stored), frame.stored_hash, f"a frame of pack {pack}")
        raw = self._unpack(frame.codec, stored, frame.size)
        return check(raw, frame.raw_hash, f"the content of a frame of pack {pack}")

    def _unpack(self, codec: int, stored: bytes, size: int) -> bytes:
        """Undo a codec."""
        try:
            if codec == 0:
                raw = stored
            elif codec == 1:
                raw = self._unzip(stored, size)
            elif codec == 2:
                raw = self._join(stored, size)
            else:
                give_up(f"codec {codec} is not known to this script: use a newer one")
        except DamagedError:
            raise
        except Exception as error:
            raise DamagedError(f"a frame cannot be decompressed: {error}") from error
        if len(raw) != size:
            raise DamagedError(f"a frame should hold {size} bytes, found {len(raw)}")
        return raw

    def _join(self, stored: bytes, size: int) -> bytes:
        """Put words together whose first bytes stand together, then their second bytes, and so on."""
        width, raw = stored[0], bytearray(size)
        words, at = size // width, 1 + 4 * width
        for plane, length in enumerate(struct.unpack_from(f"<{width}I", stored, 1)):
            piece = stored[at : at + length]
            raw[plane : words * width : width] = piece if length == words else self._unzip(piece, words)
            at += length
        raw[words * width :] = stored[at:]
        return bytes(raw)

    def chunks(self, packs: list[str], runs: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Read runs of chunks, in order."""
        for number, first, count in runs:
            pack = packs[number]
            table = self.table(pack)
            if first + count > len(table.ends) or count < 1:
                raise DamagedError(f"pack {pack} has too few chunks")
            for frame in table.frames:
                begin, end = max(first, frame.first), min(first + count, frame.first + frame.chunks)
                if begin < end:
                    start = table.ends[begin - 1] if begin > frame.first else 0
                    yield self.frame(pack, frame)[start : table.ends[end - 1]]


# -- snapshots -------------------------------------------------------------------------------------------------------


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """Read a line of JSON that carries its own hash."""
    try:
        line = path.read_bytes()
    except OSError as error:
        raise DamagedError(str(error)) from error
    head, digits = b'{"blake3":"', 64
    middle = f'","{kind}":'.encode()
    body = line[len(head) + digits + len(middle) : -2]
    if not line.startswith(head) or line[len(head) + digits :][: len(middle)] != middle or line[-2:] != b"}\n":
        raise DamagedError(f"{path} is damaged, encrypted, or of a newer format")
    record = json.loads(check(body, line[len(head) :][:digits].decode("ascii", "replace"), str(path)))
    if record["version"] != 1:
        give_up(f"{path} is of format {record['version']}: this script reads format 1. Use a newer one")
    return dict(record)


def refuse_what_cannot_be_read(repository: Path) -> None:
    """Look whether this is a repository, and not an encrypted one."""
    encrypted = bool(list(repository.glob("keys/*.json")))  # so they are known even when the config is lost
    try:
        encrypted |= bool(read_record(repository / "config.json", "config").get("encryption"))
    except (DamagedError, ValueError) as error:
        if not list(repository.glob("snapshots/*.json")):
            give_up(f"there is no novabackup repository in {repository}: {error}")
        print(f"{error}; going on without it", file=sys.stderr)
    if encrypted:
        give_up(f"{repository} is encrypted: this script cannot read it. Use novabackup itself")


def find_snapshot(repository: Path, name: str) -> Path:
    """Find a snapshot by the beginning of its id."""
    paths = sorted(repository.glob("snapshots/*.json"))
    if name == "latest":
        return paths[-1] if paths else give_up("there is no snapshot yet")
    found = [path for path in paths if path.stem.startswith(name) or path.stem.partition("-")[2].startswith(name)]
    if len(found) != 1:
        give_up(f"expected one snapshot that begins with {name!r}, found {len(found)}. Call this without arguments")
    return found[0]


def list_snapshots(repository: Path) -> int:
    """Print a line for each snapshot, oldest first."""
    exit_code = 0
    for path in sorted(repository.glob("snapshots/*.json")):
        try:
            record = read_record(path, "snapshot")
        except (DamagedError, ValueError) as error:
            print(f"{path.stem}  cannot be read: {error}")
            exit_code = 1
            continue
        size = sum(file["size"] for file in record["files"])
        words = (f"{len(record['files'])} files", f"{size} bytes", ",".join(record["tags"]), record["message"])
        print("  ".join((path.stem, record["store"], *filter(None, words))).encode("unicode_escape").decode())
    return exit_code


def name_of(text: str) -> str:
    """Turn text of a record into a name; bytes that are no UTF-8 are written as NUL and their hexadecimal digits."""
    return NOT_UTF8.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)


def shown(path: str) -> str:
    """Escape what could be hidden in a name."""
    return path if path.isprintable() else repr(path)[1:-1]


def line_of_b3sum(digits: str, path: str) -> bytes:
    """Give the line that b3sum prints for a file, and understands."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n")
    return b"%s%s  %s\n" % (b"\\" * (escaped != path), digits.encode(), os.fsencode(escaped))


def place(folder: Path, path: str) -> Path:
    """Say where something of a snapshot goes; never outside of the folder, and never through a link."""
    if UNSAFE.search(path):
        raise DamagedError(f"path {path!r} leaves its folder")
    to = folder / path
    for parent in to.parents:
        if parent == folder:
            break
        if parent.is_symlink():
            raise DamagedError(f"{str(parent)!r} is a link")
    return to


def write_file(packs: Packs, file: dict[str, Any], folder: Path) -> None:
    """Write one file of a snapshot; it is seen only once it is whole."""
    path = name_of(file["path"])
    to = place(folder, path)
    if to.exists() or to.is_symlink():
        raise DamagedError(f"{shown(str(to))} is there already: choose another folder")
    runs = file["runs"]
    if file["depth"]:  # these are a list of runs, since there are many
        runs = struct.iter_unpack("<III", b"".join(packs.chunks(file["packs"], runs)))
    to.parent.mkdir(parents=True, exist_ok=True)
    whole = importlib.import_module("blake3").blake3() if HASH else None
    size = 0
    handle, name = tempfile.mkstemp(dir=to.parent, prefix=".extract-")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as output:
            for block in packs.chunks(file["packs"], runs):
                output.write(block)
                size += len(block)
                if whole is not None:
                    whole.update(block)
        if size != file["size"] or (whole is not None and whole.hexdigest() != file["blake3"]):
            raise DamagedError(f"{shown(path)} is damaged: the whole is not what it was")
        attributes = file["attributes"]
        draft.chmod(attributes["mode"] & 0o777 if attributes else 0o644)
        if attributes:
            os.utime(draft, ns=(attributes["mtime_ns"], attributes["mtime_ns"]))
        draft.rename(to)
    finally:
        if draft.exists():
            draft.unlink()


def write_links_and_folders(record: dict[str, Any], folder: Path) -> int:
    """Write what is no file, once all files are there: links last, so that nothing is written through one."""
    exit_code = 0
    folders, links = record.get("folders", []), record.get("links", [])
    for item in (*folders, *links, *sorted(folders, key=lambda one: str(one["path"]), reverse=True)):
        try:
            to = place(folder, name_of(item["path"]))
            if "target" in item:
                to.parent.mkdir(parents=True, exist_ok=True)
                to.symlink_to(name_of(item["target"]))
            elif not to.is_dir():
                to.mkdir(parents=True)
            elif item["attributes"]:  # at the latest when it comes for the second time, and nothing in it will change
                to.chmod(item["attributes"]["mode"] & 0o777 | 0o700)
                os.utime(to, ns=(item["attributes"]["mtime_ns"], item["attributes"]["mtime_ns"]))
        except (DamagedError, OSError) as error:
            print(f"{item['path']!r} was not written: {error}", file=sys.stderr)
            exit_code = 1
    return exit_code


def extract(repository: Path, snapshot: Path, folder: Path, wanted: list[str]) -> int:
    """Write files of a snapshot; one that cannot be had does not cost the others."""
    record = read_record(snapshot, "snapshot")
    files = {name_of(file["path"]): file for file in record["files"]}
    for path in wanted:
        if path not in files:
            give_up(f"snapshot {snapshot.stem} has no file {path!r}; it has {', '.join(map(shown, files))}")
    packs = Packs(repository)
    exit_code = 0
    for path in wanted or files:
        try:
            write_file(packs, files[path], folder)
        except DamagedError as error:
            print(f"{path!r} was not written: {error}", file=sys.stderr)
            exit_code = 1
        else:
            print(f"{shown(path)}: {files[path]['size']} bytes, {'every one checked' if HASH else 'not checked'}")
    if not wanted:
        exit_code |= write_links_and_folders(record, folder)
    if not HASH:
        print(
            f"Nothing was compared with its hash, since the package blake3 is not installed. Install it, or:\n"
            f"  python {sys.argv[0]} --repository {repository} {snapshot.stem} | (cd {folder} && b3sum --check)",
            file=sys.stderr,
        )
    return exit_code


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("snapshot", nargs="?", metavar="SNAPSHOT")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    parser.add_argument("files", nargs="*", metavar="FILE")
    asked = parser.parse_args()
    refuse_what_cannot_be_read(asked.repository)
    if asked.snapshot is None:
        return list_snapshots(asked.repository)
    try:
        snapshot = find_snapshot(asked.repository, asked.snapshot)
        if asked.folder is None:
            for file in read_record(snapshot, "snapshot")["files"]:
                sys.stdout.buffer.write(line_of_b3sum(file["blake3"], name_of(file["path"])))
            return 0
        return extract(asked.repository, snapshot, asked.folder, asked.files)
    except (DamagedError, ValueError, LookupError, TypeError) as error:
        print(f"{asked.repository} cannot be read: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
