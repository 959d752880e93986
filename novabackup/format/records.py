"""The records that are written to disk, and the only code that turns them into bytes and back.

Every record is a frozen attrs class. They are written as JSON inside of an envelope that carries the BLAKE3 hash of
the very bytes that follow, so that a change of any single byte is noticed before a field is believed::

    {"blake3":"<64 hexadecimal digits>","<kind>":{…}}

``docs/format.md`` describes each field.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import attrs
import msgspec
from blake3 import blake3

from novabackup._support.paths import RESERVED, above
from novabackup.errors import FormatError, IntegrityError
from novabackup.format.entries import (
    FAILED_TAG,
    HASH_DIGITS,
    REPLACED_TAG,
    SIDE_TAGS,
    Attributes,
    FileEntry,
    FolderEntry,
    LinkEntry,
    Problem,
    Report,
    Run,
    hex_hashes,
    moment,
    natural,
    safe_path,
)
from novabackup.format.findings import FORMAT_VERSION, Drill, Probe
from novabackup.format.names import NUL, escape, unescape, with_texts

__all__ = [
    "FAILED_TAG",
    "FORMAT_VERSION",
    "REPLACED_TAG",
    "SIDE_TAGS",
    "Attributes",
    "Condemned",
    "Config",
    "Drill",
    "FileEntry",
    "FolderEntry",
    "Forgotten",
    "Journal",
    "KeySlot",
    "LinkEntry",
    "Owner",
    "Pin",
    "Point",
    "Probe",
    "Problem",
    "Record",
    "Report",
    "Run",
    "Sealed",
    "SnapshotRecord",
    "decode",
    "encode",
    "identify",
    "snapshot_id",
]

ENCRYPTION = "aes-256-gcm"
"""What a `Config` says of an encrypted repository."""

_Record = TypeVar("_Record")


@attrs.frozen(kw_only=True)
class SnapshotRecord:
    """What a snapshot object says: the state of a store at one time.

    Attributes:
        version: Format version.
        repository: Id of the repository that it was first written to.
        time: When it was taken, in UTC, by the clock of the host that took it.
        store: URL of the store, without credentials.
        declared: Paths and patterns of the components; a declared file that is not in ``files`` was not there.
        files: The files.
        tags: Labels for people and policies.
        message: Free text.
        host: Name of the host.
        writer: Program and version that wrote the snapshot.
        versions: Installed versions of the packages that write such files.
        problems: What the checks found at that time; empty for a healthy store.
        added: Bytes of new objects that were written for it.
        trees: Which of ``declared`` stand for links and folders, too, and not only for files.
        excluded: Patterns of what is no part of the store, whatever pattern selects it.
        links: The symbolic links of the trees.
        folders: The folders of the trees.
        skipped: What is in the trees and not in the snapshot: sockets, and what links that lead out of the store lead
            to.
        probes: Questions that were put to the indexes, and their answers; empty where none were put.
        classes: Names of the classes and functions that each pickle asks for, by path, as far as they are known.
        embedding_model: What made the vectors; empty if nobody said.
    """

    version: int = FORMAT_VERSION
    repository: str
    time: datetime = attrs.field(validator=moment)
    store: str
    declared: tuple[str, ...] = attrs.field(validator=attrs.validators.deep_iterable(safe_path))
    files: tuple[FileEntry, ...]
    tags: tuple[str, ...] = ()
    message: str = ""
    host: str = ""
    writer: str = ""
    versions: dict[str, str] = attrs.field(factory=dict)
    problems: tuple[Problem, ...] = ()
    added: int = attrs.field(default=0, validator=natural)
    trees: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    links: tuple[LinkEntry, ...] = ()
    folders: tuple[FolderEntry, ...] = ()
    skipped: tuple[Problem, ...] = ()
    probes: tuple[Probe, ...] = ()
    classes: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    embedding_model: str = ""

    def __attrs_post_init__(self) -> None:
        if not set(self.trees) <= set(self.declared):
            raise ValueError("a tree is not declared")
        paths = [entry.path for entry in self.items]
        if len(set(paths)) != len(paths):
            raise ValueError("two files have the same path")
        if any(path.startswith(RESERVED) and path.partition("/")[0] == RESERVED for path in paths):
            raise ValueError(f"a file is in {RESERVED}, where only journals are")
        if self.links:
            # Otherwise whoever forged the record could write through a link that the restore itself made.
            links = {entry.path for entry in self.links}
            if any(folder in links for path in paths for folder in above(path)):
                raise ValueError("a file is in a folder that is a link")

    @property
    def items(self) -> tuple[FileEntry | LinkEntry | FolderEntry, ...]:
        """The files, the links and the folders."""
        return (*self.files, *self.links, *self.folders)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def packs(self) -> tuple[str, ...]:
        """Ids of all packs that the files need, each once."""
        return tuple(dict.fromkeys(pack for entry in self.files for pack in entry.packs))


@attrs.frozen
class Point:
    """A snapshot: its id, and its record.

    Attributes:
        id: The id, which names its object.
        record: What the object says.
    """

    id: str
    record: SnapshotRecord


@attrs.frozen(kw_only=True)
class Config:
    """What a repository's ``config.json`` says.

    Attributes:
        version: Format version.
        id: Random identity of the repository, 32 hexadecimal digits.
        encryption: How packs and records are encrypted: empty if they are not, or `ENCRYPTION`.
    """

    version: int = FORMAT_VERSION
    id: str
    encryption: str = ""


@attrs.frozen(kw_only=True)
class Condemned:
    """Packs that no snapshot named when ``prune`` looked; those that none names a grace period later go.

    Attributes:
        packs: Ids of the packs.
    """

    version: int = FORMAT_VERSION
    packs: tuple[str, ...] = attrs.field(validator=hex_hashes)


@attrs.frozen(kw_only=True)
class Sealed:
    """Another record, encrypted.

    Attributes:
        key: Id of the data key.
        previous: For a snapshot: one that was there when it was written, so that its absence is noticed.
        data: Nonce, encrypted content and tag.
    """

    version: int = FORMAT_VERSION
    key: str
    previous: str = ""
    data: bytes


@attrs.frozen(kw_only=True)
class Forgotten:
    """Snapshots of an encrypted repository that were forgotten on purpose, and not taken away by somebody else.

    Attributes:
        snapshots: Their ids.
        expected: Snapshots that they had noted as being there.
    """

    version: int = FORMAT_VERSION
    snapshots: tuple[str, ...]
    expected: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class KeySlot:
    """The data keys of a repository, wrapped by one key that a person or program has.

    Attributes:
        repository: Id of the repository.
        kind: What kind of key it is: ``passphrase``, ``file`` or ``external``.
        label: Whose it is, for people.
        time: When it was added.
        salt: Random.
        n: Cost of scrypt in time and memory; 0 where there is no passphrase.
        r: Size of its blocks.
        p: How often it is done.
        token: What an external service made of the wrapping key; empty otherwise.
        data: Nonce, wrapped data keys (32 bytes each, the newest first) and tag.
    """

    version: int = FORMAT_VERSION
    repository: str
    kind: str
    label: str = ""
    time: datetime = attrs.field(validator=moment)
    salt: bytes
    n: int = 0
    r: int = 0
    p: int = 0
    token: bytes = b""
    data: bytes


@attrs.frozen(kw_only=True)
class Pin:
    """That a snapshot stays, whatever a policy says, until somebody takes the pin away.

    Attributes:
        version: Format version.
        time: When it was set, in UTC, by the clock of the host that set it.
        message: Why.
    """

    version: int = FORMAT_VERSION
    time: datetime = attrs.field(validator=moment)
    message: str = ""


@attrs.frozen(kw_only=True)
class Owner:
    """Who holds a journal, told so that its death can be known and not guessed.

    Attributes:
        token: Random; one for each acquisition.
        host: Host name; a host that was booted again is known by it.
        boot: Id of the running kernel; empty where the system has none.
        namespace: Process namespace, since process ids mean nothing outside of it.
        pid: Process id.
        started: Start time of the process in the unit of the system's clock ticks since boot.
        context: Thread and task, to tell a nested guard from another writer.
    """

    token: str
    host: str
    boot: str
    namespace: str
    pid: int
    started: int
    context: str = ""


@attrs.frozen(kw_only=True)
class Journal:
    """The one small file that stands in a store while somebody may be changing it.

    Attributes:
        version: Format version.
        owner: Who wrote it.
        repository: URL of the repository, without credentials.
        phase: ``backup`` (nothing has been touched yet), ``block`` (the block runs), ``rollback`` (files are being put
            back), ``restore`` (a restore is under way) or ``released`` (nobody holds it).
        snapshot: Id of the snapshot to go back to, or to go to; empty while there is none.
        paths: Files that a restore was limited to; empty for all.
        kept: Id of the snapshot that holds what the files were before they are put back; empty if there is none.
        beat: Counts up while the owner lives.
    """

    version: int = FORMAT_VERSION
    owner: Owner
    repository: str
    phase: str = attrs.field(validator=attrs.validators.in_(("backup", "block", "rollback", "restore", "released")))
    snapshot: str = ""
    paths: tuple[str, ...] = ()
    kept: str = ""
    beat: int = 0


Record = Config | SnapshotRecord | Condemned | Drill | Forgotten | KeySlot | Pin | Sealed | Journal
"""Everything that is written."""

_KINDS: dict[type, str] = {
    Config: "config",
    SnapshotRecord: "snapshot",
    Condemned: "condemned",
    Drill: "drill",
    Forgotten: "forgotten",
    KeySlot: "key",
    Sealed: "sealed",
    Pin: "pin",
    Journal: "journal",
}


class _Versioned(msgspec.Struct, gc=False):
    """Any record, to look at its version before the rest is believed."""

    version: msgspec.Raw = msgspec.Raw(b"0")


_VERSION = msgspec.json.Decoder(_Versioned)


_YOUNGER = frozenset({"trees", "excluded", "links", "folders", "skipped", "probes", "classes", "embedding_model"})
"""Members that earlier versions did not know. They are left out where they say nothing, so that a snapshot has the same
bytes and the same id whichever version writes it."""


def encode(record: Record) -> bytes:
    """Turn a record into the bytes that are stored."""
    said = {field.name: getattr(record, field.name) for field in attrs.fields(type(record))}
    said = {name: value for name, value in said.items() if value or name not in _YOUNGER}
    try:
        body = msgspec.json.encode(said, order="deterministic")
    except UnicodeEncodeError:
        body = b""
    if not body or NUL in body:
        body = msgspec.json.encode(with_texts(msgspec.to_builtins(said), escape), order="deterministic")
    return b'{"blake3":"%s","%s":%s}\n' % (blake3(body).hexdigest().encode(), _KINDS[type(record)].encode(), body)


def decode(data: bytes, kind: type[_Record], where: str) -> _Record:
    """Turn stored bytes into a record, believing nothing.

    Args:
        data: All bytes of the object.
        kind: The record class that is expected.
        where: URL or key of the object, for messages.

    Returns:
        The record.

    Raises:
        IntegrityError: The bytes are not those that were written.
        FormatError: They are, but of a newer format version or with values that cannot be.
    """
    name = _KINDS[kind]
    middle = f'","{name}":'.encode()
    head = len(b'{"blake3":"') + HASH_DIGITS
    body = _body(data, name)
    if (
        not data.startswith(b'{"blake3":"')
        or data[head : head + len(middle)] != middle
        or data[-2:] != b"}\n"
        or blake3(body).hexdigest().encode() != data[head - HASH_DIGITS : head]
    ):
        raise IntegrityError(
            f"{where} is damaged: expected a novabackup {name} record that matches its own BLAKE3 hash, found "
            f"{len(data)} bytes that do not. Restore this object from another copy of it",
            [Problem(code="damaged", paths=(where,), message=f"the {name} record does not match its hash")],
        )
    try:
        version = bytes(_VERSION.decode(body).version)
        if version != str(FORMAT_VERSION).encode():
            raise FormatError(
                f"{where}: expected format version {FORMAT_VERSION}, found {version[:20]!r}. "
                "It was written by a newer novabackup: upgrade this one"
            )
        if NUL in body:
            return msgspec.convert(with_texts(msgspec.json.decode(body), unescape), kind)
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FormatError(f"{where}: the {name} record has a value that cannot be: {error}") from error


def snapshot_id(record: SnapshotRecord) -> str:
    """Name a snapshot: its time, and a hash of what it says apart from where the content is kept.

    Names sort by time: the digits behind the dash begin with the microsecond. The same snapshot has the same id in
    every repository that it is copied to.
    """
    return identify(encode(record))


def identify(data: bytes) -> str:
    """Name the snapshot that stored bytes hold, as `snapshot_id` does.

    It works on the bytes and not on the record, so that members which a later version adds do not change the names of
    the snapshots that have none of them.
    """
    said = msgspec.json.decode(_body(data, "snapshot"))
    for entry in said["files"]:
        for member in ("runs", "packs", "depth"):
            del entry[member]
    del said["added"]
    content = msgspec.json.encode(said, order="deterministic")
    time = datetime.fromisoformat(said["time"])
    return f"{time:%Y%m%dT%H%M%SZ}-{time.microsecond:05x}{blake3(content).hexdigest()[:15]}"


def _body(data: bytes, name: str) -> bytes:
    return data[len(b'{"blake3":"') + HASH_DIGITS + len(f'","{name}":') : -2]
