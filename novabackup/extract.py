"""Get files out of a novabackup repository without novabackup: this one file, for Python 3.9 or newer.

    python extract.py                              list the snapshots
    python extract.py SNAPSHOT                     list its files, in lines that `b3sum --check` understands
    python extract.py SNAPSHOT FOLDER [FILE ...]   write its files, or only these, into a folder

SNAPSHOT is an id, the beginning of one, or "latest". The repository is the folder that this script is in, or the one
that is named by --repository; download it first if it is on a server.

It needs one of: the package zstandard, Python 3.14, or the program zstd. With the package blake3, too, every byte is
checked against its hash; without, it says so, and b3sum can check the files afterwards. Nothing that is there is
overwritten. Exit code: 0 all went well, 1 something is damaged or missing, 2 it cannot be done at all.

An encrypted repository needs the package cryptography, and a key: the file that is named by --key-file, or the
passphrase in NOVABACKUP_PASSPHRASE, which is asked for if that is not set.

Every repository contains a copy of this script. Anyone who can write there can alter it, and you enter your passphrase
into it: unless you trust all of them, use the one in the package novabackup instead, novabackup/extract.py.
"""

from __future__ import annotations

import argparse
import base64
import functools
import getpass
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LARGEST_TABLE = 64 << 20
LARGEST_FRAME = 16 << 20
LARGEST_RECORD = 64 << 20
MOST_SLOTS = 100
MOST_MEMORY = 1 << 30
MOST_WORK = 4 << 30
WINDOW = 27
UNSAFE = re.compile(r"\0|\A/|(?:\A|/)\.{0,2}(?:/|\Z)")
NOT_UTF8 = re.compile("\0([89a-f][0-9a-f])")
TABLE = (1 << 96) - 1
PASSPHRASE = "NOVABACKUP_PASSPHRASE"  # noqa: S105 - where it is, not what it is


class DamagedError(Exception):
    """Something in the repository is not what it was."""


def give_up(message: str) -> NoReturn:
    """End with exit code 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


# -- what this Python has --------------------------------------------------------------------------------------------


def find_hash() -> Callable[[bytes, bytes | None], str] | None:
    """Find BLAKE3, with or without a key."""
    try:
        blake3 = importlib.import_module("blake3").blake3
    except ImportError:
        return None
    return lambda data, key: str(blake3(data, key=key).hexdigest())


@functools.lru_cache(1)
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


def check(data: bytes, expected: str, what: str, key: bytes | None = None) -> bytes:
    """Compare with a hash, where there is something that computes it."""
    if HASH is not None and HASH(data, key) != expected:
        raise DamagedError(f"{what} is damaged: it does not match its hash")
    return data


class Ciphers:
    """What the package cryptography has."""

    def __init__(self) -> None:
        """Find it."""
        place = "cryptography.hazmat.primitives."
        try:
            self._aes: Any = importlib.import_module(place + "ciphers.aead").AESGCM
            self._hkdf: Any = importlib.import_module(place + "kdf.hkdf").HKDF
            self._scrypt: Any = importlib.import_module(place + "kdf.scrypt").Scrypt
            self._sha256: Any = importlib.import_module(place + "hashes").SHA256
            self._wrong: Any = importlib.import_module("cryptography.exceptions").InvalidTag
        except ImportError:
            give_up(
                "the repository is encrypted: expected the package cryptography, found none. pip install cryptography"
            )

    def derive(self, secret: bytes, info: str, salt: bytes | None = None, length: int = 32) -> bytes:
        """Derive a key from another one."""
        hkdf = self._hkdf(algorithm=self._sha256(), length=length, salt=salt, info=info.encode())
        return bytes(hkdf.derive(secret))

    def stretch(self, passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
        """Derive a key from a passphrase, at no more cost than can be meant."""
        if n < 2 or n & (n - 1) or min(r, p) < 1 or 128 * n * r > MOST_MEMORY or 128 * n * r * p > MOST_WORK:
            raise DamagedError(f"costs of {n}, {r} and {p} cannot be")
        return bytes(self._scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase))

    def decrypt(self, key: bytes, nonce: bytes, data: bytes, context: bytes) -> bytes:
        """Decrypt what was encrypted with that key, nonce and context, and nothing else."""
        try:
            return bytes(self._aes(key).decrypt(nonce, data, context))
        except (self._wrong, ValueError):
            raise DamagedError("it is not what was sealed for that place") from None


# -- records ---------------------------------------------------------------------------------------------------------


def parse_record(line: bytes, kind: str, where: str) -> dict[str, Any]:
    """Take apart a line of JSON that carries its own hash."""
    head, digits = b'{"blake3":"', 64
    middle = f'","{kind}":'.encode()
    body = line[len(head) + digits + len(middle) : -2]
    if not line.startswith(head) or line[len(head) + digits :][: len(middle)] != middle or line[-2:] != b"}\n":
        raise DamagedError(f"{where} is damaged, of another kind, or of a newer format")
    record = json.loads(check(body, line[len(head) :][:digits].decode("ascii", "replace"), where))
    if record["version"] != 1:
        give_up(f"{where} is of format {record['version']}: this script reads format 1. Use a newer one")
    return dict(record)


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """Read a record that is not sealed."""
    try:
        with path.open("rb") as file:
            line = file.read(LARGEST_RECORD + 1)
    except OSError as error:
        raise DamagedError(str(error)) from error
    if len(line) > LARGEST_RECORD:
        raise DamagedError(f"{path} is too large for a record")
    return parse_record(line, kind, str(path))


def read_snapshot(path: Path, keys: Keys | None) -> dict[str, Any]:
    """Read what a snapshot says."""
    return parse_record(keys.unseal(path), "snapshot", str(path)) if keys else read_record(path, "snapshot")


def unzipped_size(data: bytes) -> int:
    """Return what the header of a zstandard frame says that comes out (RFC 8878, 3.1.1.1)."""
    flags = data[4]
    single = flags >> 5 & 1
    start = 6 - single + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(data[start : start + length], "little") + (256 if length == 2 else 0)
    if not length or size > LARGEST_RECORD:
        raise DamagedError(f"a record of {size} bytes cannot be")
    return size


# -- keys ------------------------------------------------------------------------------------------------------------


class Seal(NamedTuple):
    """What opens one pack; without ciphers, nothing is sealed."""

    ciphers: Ciphers | None = None
    key: bytes = b""
    hash_key: bytes | None = None

    def open(self, number: int, data: bytes, context: bytes = b"") -> bytes:
        """Open what was sealed under a number."""
        return self.ciphers.decrypt(self.key, number.to_bytes(12, "little"), data, context) if self.ciphers else data


class Keys:
    """The data keys of an encrypted repository."""

    def __init__(self, ciphers: Ciphers, joined: bytes) -> None:
        """Take data keys that stand one after the other."""
        keys = [joined[start : start + 32] for start in range(0, len(joined), 32)]
        self._ciphers = ciphers
        self._keys = {ciphers.derive(key, "novabackup key id", length=8): key for key in keys}

    def unseal(self, path: Path) -> bytes:
        """Read a record that is sealed; return its bytes."""
        sealed = read_record(path, "sealed")
        data = base64.b64decode(sealed["data"])
        place = f"{path.parent.name}/{path.name}\n{sealed['previous']}".encode()
        key = self._ciphers.derive(self._key(bytes.fromhex(sealed["key"])), "novabackup records")
        try:
            content = self._ciphers.decrypt(key, data[:12], data[12:], place)
        except DamagedError as error:
            raise DamagedError(f"{path}: {error}") from None
        packed = content[4 : 4 + int.from_bytes(content[:4], "little")]
        return find_unzip()(packed, unzipped_size(packed))

    def pack(self, mark: bytes, salt: bytes) -> Seal:
        """Return what opens a pack."""
        derive = functools.partial(self._ciphers.derive, self._key(mark[:8]))
        return Seal(self._ciphers, derive("novabackup pack", salt), derive("novabackup chunk ids"))

    def _key(self, name: bytes) -> bytes:
        if name not in self._keys:
            raise DamagedError(f"it is sealed with the data key {name.hex()}, which your key does not give")
        return self._keys[name]


def open_keys(repository: Path, name: str, key_file: Path | None) -> Keys:
    """Open an encrypted repository.

    Args:
        repository: Where it is.
        name: Its id; empty if that is lost.
        key_file: What to open it with; by default a passphrase.
    """
    ciphers = Ciphers()
    slots: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(repository.glob("keys/*.json"))[:MOST_SLOTS]:
        try:
            slot = read_record(path, "key")
            if name in ("", slot["repository"]):
                slots.append((str(slot["kind"]), slot))
        except (DamagedError, ValueError, LookupError) as error:
            print(f"{path}: {error}; going on without it", file=sys.stderr)
    kind = "file" if key_file else "passphrase"
    kinds = ", ".join(sorted({kind for kind, _slot in slots})) or "none"
    if all(found != kind for found, _slot in slots):
        give_up(
            f"{repository}: expected keys of the kind {kind}, found {kinds}. A key file is named by --key-file; a key "
            "that a service keeps works with novabackup itself only"
        )
    secret = read_key_file(key_file) if key_file else ask_passphrase()
    for found, slot in slots:
        if found != kind:
            continue
        try:
            costs = (slot["n"], slot["r"], slot["p"])
            salt, data = base64.b64decode(slot["salt"]), base64.b64decode(slot["data"])
            if kind == "file":
                wrapping = ciphers.derive(secret, "novabackup key file", salt)
            else:
                wrapping = ciphers.stretch(secret, salt, *costs)
            context = "novabackup key\n{}\n{}\n{} {} {}".format(slot["repository"], kind, *costs)
            return Keys(ciphers, ciphers.decrypt(wrapping, data[:12], data[12:], context.encode()))
        except (DamagedError, ValueError, LookupError, TypeError):
            continue  # that of another process, or damaged
    give_up(f"this {kind} opens none of the {len(slots)} keys of {repository}")


def read_key_file(path: Path) -> bytes:
    """Read a key file."""
    try:
        digits = path.read_text().partition("\n")[0].strip()
    except (OSError, ValueError) as error:
        give_up(f"{path} cannot be read as a key file: {type(error).__name__}")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        give_up(f"{path} is no key file: expected 64 hexadecimal digits in its first line")
    return bytes.fromhex(digits)


def ask_passphrase() -> bytes:
    """Take the passphrase from the environment, or ask for it."""
    try:
        text = os.environ.get(PASSPHRASE) or getpass.getpass("Passphrase: ")
        return unicodedata.normalize("NFKC", text).encode()
    except (EOFError, KeyboardInterrupt, UnicodeError):
        give_up(f"expected a passphrase in {PASSPHRASE} or from the keyboard, found none")


# -- packs -----------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """A row of the table: compressed bytes that hold some chunks."""

    number: int
    offset: int
    codec: int
    stored: int
    size: int
    first: int
    chunks: int
    stored_hash: str
    raw_hash: str


class Table(NamedTuple):
    """What is in a pack: frames, and for each chunk where it ends within its frame; and what opens it."""

    frames: list[Frame]
    ends: list[int]
    seal: Seal


class Packs:
    """The content of a repository."""

    def __init__(self, repository: Path, keys: Keys | None) -> None:
        """Read nothing yet."""
        self._folder = repository / "packs"
        self._keys = keys
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
        magic, version, codec, encryption, stored, size, mark = struct.unpack("<8sHBBII12s", footer)
        if (magic, version) != (b"NOVATAIL", 1) or max(stored, size) > LARGEST_TABLE:
            raise DamagedError(f"pack {pack} has a damaged end, or is of a newer format")
        if encryption != int(self._keys is not None) or any(mark[8:] if self._keys else mark):
            raise DamagedError(f"pack {pack} is not sealed as the repository is: someone else put it there")
        data = check(self._read(pack, -32 - stored, stored) + footer, pack, f"the table of pack {pack}")[:stored]
        seal = Seal()
        if self._keys:
            seal = self._keys.pack(mark, data[:32])
            data = seal.open(TABLE, data[32:], footer)
        table = self._unpack(codec, data, size)
        if len(table) < 24:
            raise DamagedError(f"the table of pack {pack} was cut off")
        frames, chunks = struct.unpack_from("<16xII", table)
        if len(table) != 24 + 80 * frames + 36 * chunks:
            raise DamagedError(f"the table of pack {pack} does not add up")
        sizes = [length for length, _hash in struct.iter_unpack("<I32s", table[24 + 80 * frames :])]
        found: list[Frame] = []
        ends: list[int] = []
        offset = 16
        if self._keys:
            frames -= 1  # the last one is padding
        for number, row in enumerate(struct.iter_unpack("<IIII32s32s", table[24 : 24 + 80 * frames])):
            codec, stored, size, count, stored_hash, raw_hash = row
            here = sizes[len(ends) : len(ends) + count]
            if len(here) != count or sum(here) != size or max(stored, size) > LARGEST_FRAME:
                raise DamagedError(f"the table of pack {pack} does not add up")
            place = (number, offset, codec, stored, size, len(ends), count)
            found.append(Frame(*place, stored_hash.hex(), raw_hash.hex()))
            offset += stored
            end = 0
            for length in here:
                end += length
                ends.append(end)
        return Table(found, ends, seal)

    def _frame(self, pack: str, frame: Frame) -> bytes:
        stored = check(self._read(pack, frame.offset, frame.stored), frame.stored_hash, f"a frame of pack {pack}")
        seal = self.table(pack).seal
        raw = self._unpack(frame.codec, seal.open(frame.number, stored), frame.size)
        return check(raw, frame.raw_hash, f"the content of a frame of pack {pack}", seal.hash_key)

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


def open_repository(repository: Path, key_file: Path | None) -> Keys | None:
    """Look whether this is a repository; open it if it is encrypted."""
    encrypted = bool(list(repository.glob("keys/*.json")))  # so they are known even when the config is lost
    config = {}
    try:
        config = read_record(repository / "config.json", "config")
    except (DamagedError, ValueError) as error:
        if not list(repository.glob("snapshots/*.json")):
            give_up(f"there is no novabackup repository in {repository}: {error}")
        print(f"{error}; going on without it", file=sys.stderr)
    if config.get("encryption") not in (None, "", "aes-256-gcm"):
        give_up(f"{repository} is encrypted by something newer: use a newer script, or novabackup itself")
    if encrypted or config.get("encryption"):
        return open_keys(repository, config.get("id", ""), key_file)
    if key_file:
        give_up(f"{repository} is not encrypted, although a key was given. Someone may have put another one there")
    return None


def find_snapshot(repository: Path, name: str) -> Path:
    """Find a snapshot by the beginning of its id."""
    paths = sorted(repository.glob("snapshots/*.json"))
    if name == "latest":
        return paths[-1] if paths else give_up("there is no snapshot yet")
    found = [path for path in paths if path.stem.startswith(name) or path.stem.partition("-")[2].startswith(name)]
    if len(found) != 1:
        give_up(f"expected one snapshot that begins with {name!r}, found {len(found)}. Call this without arguments")
    return found[0]


def list_snapshots(repository: Path, keys: Keys | None) -> int:
    """Print a line for each snapshot, oldest first."""
    exit_code = 0
    for path in sorted(repository.glob("snapshots/*.json")):
        try:
            record = read_snapshot(path, keys)
            size = sum(file["size"] for file in record["files"])
            words = (f"{len(record['files'])} files", f"{size} bytes", ",".join(record["tags"]), record["message"])
            line = "  ".join((path.stem, record["store"], *filter(None, words)))
        except (DamagedError, ValueError, LookupError, TypeError) as error:
            line, exit_code = f"{path.stem}  cannot be read: {error}", 1
        print(line.encode("unicode_escape").decode())
    return exit_code


def name_of(text: str) -> str:
    """Turn text of a record into a name; bytes that are no UTF-8 are written as NUL and their hexadecimal digits."""
    return NOT_UTF8.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)


def shown(path: str) -> str:
    """Escape what could be hidden in a name."""
    return path if path.isprintable() else repr(path)[1:-1]


def line_of_b3sum(digits: str, path: str) -> bytes:
    """Return the line that b3sum prints for a file, and understands."""
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
        raise DamagedError(f"{shown(str(to))} exists already: choose another folder")
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


def extract(repository: Path, keys: Keys | None, snapshot: Path, folder: Path, wanted: list[str]) -> int:
    """Write files of a snapshot; one that cannot be had does not cost the others."""
    record = read_snapshot(snapshot, keys)
    files = {name_of(file["path"]): file for file in record["files"]}
    for path in wanted:
        if path not in files:
            give_up(f"snapshot {snapshot.stem} has no file {path!r}; it has {', '.join(map(shown, files))}")
    packs = Packs(repository, keys)
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
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("snapshot", nargs="?", metavar="SNAPSHOT")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    parser.add_argument("files", nargs="*", metavar="FILE")
    asked = parser.parse_args()
    try:
        keys = open_repository(asked.repository, asked.key_file)
        if asked.snapshot is None:
            return list_snapshots(asked.repository, keys)
        snapshot = find_snapshot(asked.repository, asked.snapshot)
        if asked.folder is None:
            for file in read_snapshot(snapshot, keys)["files"]:
                sys.stdout.buffer.write(line_of_b3sum(file["blake3"], name_of(file["path"])))
            return 0
        return extract(asked.repository, keys, snapshot, asked.folder, asked.files)
    except (DamagedError, ValueError, LookupError, TypeError) as error:
        print(f"{asked.repository} cannot be read: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
