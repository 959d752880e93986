"""Export a snapshot as a plain archive with its checksum, as `tar` and `sha256sum` know them: `execute`."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from fsspec.callbacks import Callback

from novabackup.errors import ConfigurationError
from novabackup.format.records import FileEntry, FolderEntry, LinkEntry, Point, SnapshotRecord
from novabackup.objects.objects import Objects
from novabackup.objects.reader import blocks
from novabackup.operations.archives.gzip import gzipped
from novabackup.operations.archives.urls import folder_and_name
from novabackup.storage import Span, Storage, open_storage

_SUFFIXES = (".tar.gz", ".tgz")
_BLOCK = 512
_RECORD = 20 * _BLOCK
"""Archives are padded to a multiple of this, as tar does."""
_HEAD = 64 << 10


@attrs.frozen(kw_only=True)
class Exported:
    """An archive that was written.

    Attributes:
        url: Where it is. Its checksum is beside it, in a file with ``.sha256`` after the name.
        size: In bytes.
        sha256: Its checksum.
    """

    url: str
    size: int
    sha256: str


def execute(
    objects: Objects,
    point: Point,
    to: str | os.PathLike[str] | Storage,
    storage_options: Mapping[str, Any] | None,
    callback: Callback,
) -> Exported:
    """Write a snapshot as an archive to a folder or file. The same snapshot gives the same bytes.

    Raises:
        ConfigurationError: Another file has that name.
        IntegrityError: Content is damaged; nothing was written.
    """
    record = point.record
    date = f"{record.time:%Y%m%d_%H%M%S}"
    storage, key = _target(to, f"nova-backup-{date}.tar.gz", storage_options)
    head = tarfile.TarInfo.create_pax_global_header({"comment": _comment(point)})
    _refuse_to_replace(storage, key, head)
    callback.set_size(record.size)
    whole = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for block in gzipped(_tar(objects, record, date, head, callback)):
            whole.update(block)
            yield block

    written = storage.write(key, hashed())
    # The bare name, so that the two can be moved together: cd there, then sha256sum -c.
    storage.write(f"{key}.sha256", [f"{whole.hexdigest()}  {key}\n".encode()])
    return Exported(url=f"{storage.url}/{key}", size=written.size, sha256=whole.hexdigest())


def _target(
    to: str | os.PathLike[str] | Storage, usual: str, storage_options: Mapping[str, Any] | None
) -> tuple[Storage, str]:
    """Return where to write, and under which name."""
    if isinstance(to, Storage):
        return open_storage(to, storage_options), usual
    if not os.fspath(to).endswith(_SUFFIXES):
        return open_storage(to, storage_options), usual
    folder, name = folder_and_name(to)
    return open_storage(folder, storage_options), name


def _comment(point: Point) -> str:
    """Return what the archive is, for a header that every tar reads and none unpacks; git does the same."""
    return f"novabackup snapshot {point.id} of {point.record.time.isoformat()}"


def _refuse_to_replace(storage: Storage, key: str, head: bytes) -> None:
    """Refuse to replace anything but an archive of this snapshot: two of the same second have the same file name."""
    try:
        start = storage.read_part(key, 0, _HEAD).data
    except FileNotFoundError:
        return
    try:
        found = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, len(head))
    except zlib.error:
        found = b""
    if found != head:
        raise ConfigurationError(
            f"{storage.url}/{key}: expected no file, or an archive of this snapshot, found another file. Give the "
            "name of another file, one that ends with .tar.gz"
        )


def _tar(
    objects: Objects, record: SnapshotRecord, date: str, head: bytes, callback: Callback
) -> Iterator[bytes | memoryview]:
    """Write headers and contents."""
    size = len(head)
    yield head
    folders = {date}
    known = {f"{date}/{folder.path}": folder for folder in record.folders}
    yield (header := _header(date, record, None))
    size += len(header)
    for entry in sorted(record.items, key=lambda entry: entry.path):
        path = f"{date}/{entry.path}"
        for folder in _above(path):
            if folder not in folders:
                folders.add(folder)
                yield (header := _header(folder, record, known.get(folder)))
                size += len(header)
        if path in folders:
            continue
        yield (header := _header(path, record, entry))
        if not isinstance(entry, FileEntry):
            folders.add(path)
            size += len(header)
            continue
        for block in blocks(objects, entry):
            assert not isinstance(block, Span)  # there are none without a base to copy from
            yield block
            callback.relative_update(len(block))
        yield (rest := bytes(-entry.size % _BLOCK))
        size += len(header) + entry.size + len(rest)
    end = 2 * _BLOCK
    yield bytes(end + -(size + end) % _RECORD)


def _above(path: str) -> Iterator[str]:
    """Return the folders that a path is in, the topmost first."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _header(path: str, record: SnapshotRecord, entry: FileEntry | LinkEntry | FolderEntry | None) -> bytes:
    """Return the header of a file, a link or a folder; None for a folder that the snapshot does not describe."""
    info = tarfile.TarInfo(path)
    info.mtime = int(record.time.timestamp())
    if isinstance(entry, FileEntry):
        info.type, info.mode, info.size = tarfile.REGTYPE, 0o644, entry.size
    elif isinstance(entry, LinkEntry):
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, entry.target
    else:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    if entry is not None and entry.attributes is not None:
        info.mode = entry.attributes.mode
        info.uid, info.gid = entry.attributes.uid, entry.attributes.gid
        info.mtime = entry.attributes.mtime_ns // 10**9  # whole seconds, as GNU tar writes them, need no extension
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
