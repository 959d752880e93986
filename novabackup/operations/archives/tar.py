"""Read untrusted archives: forward only, within bounds, and without writing anything.

`tarfile` parses the headers. It would read headers of any size into memory, take a damaged header for the end of the
archive, and follow links. So it gets a file that refuses large reads, its end is checked, and content is read without
it.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import BinaryIO, Protocol

import attrs
import zstandard

from novabackup.errors import ConfigurationError, IntegrityError
from novabackup.format.records import Attributes, Problem

_HEADERS = 64 << 10
"""No header of an honest archive is larger: names and times."""
_BLOCK = 1 << 20
_TAR_BLOCK = 512
_GRACE = 256 << 20
"""The ratio does not count below this: a small archive of zeros does no harm."""
_MEMORY = 128 << 20
"""Memory for decompressing; xz at its highest level needs 65 MiB."""
_BEFORE = 1 << 62
_IDS = 1 << 32

_KINDS: dict[bytes, str] = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@attrs.frozen(kw_only=True)
class Bounds:
    """What an archive may cost before it is refused.

    Attributes:
        size: Bytes of the whole archive, decompressed.
        members: How many files, folders and links it may have.
        ratio: Decompressed bytes per compressed byte; gzip reaches 1000 for zeros. The first 256 MiB do not count.
    """

    size: int = attrs.field(default=1 << 40, validator=attrs.validators.gt(0))
    members: int = attrs.field(default=200_000, validator=attrs.validators.gt(0))
    ratio: float = attrs.field(default=200, validator=attrs.validators.gt(0))


@attrs.frozen(kw_only=True)
class Member:
    """A member of an archive.

    Attributes:
        name: As it stands in the archive.
        kind: ``""`` for a regular file, ``"a folder"``, or what else it is.
        size: Bytes of its content.
        attributes: Permission bits, owner and time.
    """

    name: str
    kind: str
    size: int
    attributes: Attributes


class Tar:
    """One pass through an archive: iterate over the members, and read the content of the current one if needed."""

    def __init__(self, file: BinaryIO, where: str, bounds: Bounds) -> None:
        """Start at the beginning of an archive.

        Args:
            file: A real file; its first bytes tell the kind of compression.
            where: Its URL, for messages.
            bounds: What it may cost.
        """
        file.seek(0)
        self._where = where
        self._bounds = bounds
        self._stream = _Stream(file, where, bounds)
        self.comment = ""
        """The comment in the header of the archive; known after the first member."""

    def __iter__(self) -> Iterator[Member]:
        """Yield each member.

        Raises:
            IntegrityError: It is damaged, truncated, or no archive.
            ConfigurationError: It exceeds the bounds.
        """
        with self._understood():
            tar = tarfile.TarFile(fileobj=self._stream, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
            self.comment = tar.pax_headers.get("comment", "")
        for number in range(self._bounds.members + 1):
            with self._understood():
                info = tar.next()
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that it has seen
                if info is None:
                    self._stream.finish()
                    return
                if info.size < 0 or tar.offset < self._stream.tell():
                    raise tarfile.ReadError(f"member {info.name!r} has an impossible size")
            if number < self._bounds.members:
                yield Member(name=info.name, kind=_kind(info), size=info.size, attributes=_attributes(info))
        raise _beyond(self._where, f"at most {self._bounds.members} members", "members")

    def content(self, member: Member) -> Iterator[memoryview]:
        """Read the current member, a regular file, in blocks."""
        left = member.size
        while left:
            with self._understood():
                block = self._stream.take(left)
                if not block:
                    raise EOFError(f"member {member.name!r} ends {left} bytes too early")
            left -= len(block)
            yield block

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """Convert errors of the parsers."""
        try:
            yield
        except ConfigurationError:
            raise
        except OSError as error:
            # Decompressors raise errors without a number; those of the system have one.
            if error.errno is not None:
                raise
            raise self._damaged(error) from error
        except (
            tarfile.TarError,
            EOFError,
            zlib.error,
            lzma.LZMAError,
            zstandard.ZstdError,
            ValueError,
            LookupError,
            OverflowError,
            RecursionError,
        ) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> IntegrityError:
        reason = str(error) or type(error).__name__
        return IntegrityError(
            f"{self._where} cannot be read to its end. Nothing was imported. Get it again, or use another archive",
            [Problem(code="damaged", paths=(self._where,), message=f"expected a whole tar archive, found: {reason}")],
        )


def _kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "a folder"
    if info.issparse():
        return _KINDS[tarfile.GNUTYPE_SPARSE]
    return "" if info.isreg() else _KINDS.get(info.type, "something unknown")


def _attributes(info: tarfile.TarInfo) -> Attributes:
    """Return the attributes that are valid; an invalid one is no reason to lose a file."""
    try:
        mtime_ns = int(Decimal(info.pax_headers.get("mtime", str(info.mtime))) * 10**9)
    except (InvalidOperation, ValueError, OverflowError):
        mtime_ns = 0
    return Attributes(
        mode=info.mode & 0o7777,
        uid=info.uid if 0 <= info.uid < _IDS else 0,
        gid=info.gid if 0 <= info.gid < _IDS else 0,
        mtime_ns=mtime_ns if abs(mtime_ns) < _BEFORE else 0,
    )


class _Stream:
    """Decompressed bytes as a file that is read forward only: no more at once than a header needs, within bounds."""

    def __init__(self, file: BinaryIO, where: str, bounds: Bounds) -> None:
        self._file = file
        self._where = where
        self._bounds = bounds
        self._blocks = _decompressed(file)
        self._pending = memoryview(b"")
        self._position = 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        """Read a header, or a part of one."""
        if not 0 <= size <= _HEADERS:
            raise tarfile.ReadError(f"a header of {size} bytes")
        parts = []
        while size and (part := self.take(size)):
            parts.append(part)
            size -= len(part)
        self._last = b"".join(parts)
        return self._last

    def seek(self, position: int) -> None:
        """Skip bytes."""
        if position < self._position:
            raise tarfile.ReadError("a member that begins before the end of the one before it")
        while self._position < position:
            if not self.take(position - self._position):
                raise EOFError("it is truncated")

    def take(self, most: int) -> memoryview:
        """Read some bytes; none at the end."""
        while not self._pending and (block := next(self._blocks, None)) is not None:
            self._pending = memoryview(block)
        data = self._pending[:most]
        self._pending = self._pending[most:]
        self._position += len(data)
        if self._position > self._bounds.size:
            raise _beyond(self._where, f"at most {self._bounds.size} bytes when decompressed", "size")
        if self._position > _GRACE and self._position > self._bounds.ratio * self._file.tell():
            raise _beyond(self._where, f"that at most {self._bounds.ratio} bytes come out of each", "ratio")
        return data

    def finish(self) -> None:
        """Check that the archive ended where its end is marked, and read what follows: checksums are at the end."""
        if self._last != bytes(_TAR_BLOCK):
            raise EOFError("an end that is not marked as such: a damaged header, or it is truncated")
        while self.take(_BLOCK):
            pass


def _beyond(where: str, expected: str, bound: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where}: expected {expected}, found more. Nothing was imported. If you trust it, give "
        f"archives.Bounds({bound}=...)"
    )


def _decompressed(file: BinaryIO) -> Iterator[bytes]:
    start = file.read(_TAR_BLOCK)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return _blocks(gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return _blocks(bz2.BZ2File(file))
    if start.startswith(b"\xfd7zXZ\0"):
        return _unxz(file)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _blocks(zstandard.ZstdDecompressor(max_window_size=_MEMORY).stream_reader(file, read_across_frames=True))
    return _blocks(file)


def _blocks(file: _Readable) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _unxz(file: BinaryIO) -> Iterator[bytes]:
    """Do what `lzma.LZMAFile` does, with a bound on the memory that the file may ask for."""
    rest = file.read(_BLOCK)
    while rest:
        unzip = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)
        while not unzip.eof:
            if unzip.needs_input and not rest and not (rest := file.read(_BLOCK)):
                raise EOFError("compressed data that is truncated")
            yield unzip.decompress(rest, _BLOCK)
            rest = b""
        # Another stream may follow, after zeros.
        rest = unzip.unused_data.lstrip(b"\0") or file.read(_BLOCK).lstrip(b"\0")
