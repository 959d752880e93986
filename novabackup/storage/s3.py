"""Objects in S3 and in servers that speak like it: conditional writes, reads pinned to one version, through s3fs.

Requests go out one by one as s3fs would send them, with its sessions, options and retries, but not by its file calls:
those read large objects in parallel pieces that may belong to two versions, take names for patterns, cache listings and
publish half a file when its writer fails.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import s3fs

from novabackup._paths import unportable
from novabackup.errors import ConfigurationError
from novabackup.lanes import Lane
from novabackup.model import Attributes
from novabackup.storage._s3_client import RefusedError, S3Client
from novabackup.storage.base import Block, Entry, Guarantees, Part, Reader, Span
from novabackup.storage.objects import KeyedStorage, ObjectReader

__all__ = ["S3Storage"]

_PART = 16 << 20
_PARTS_OF_A_SIZE = 1_000
"""Parts double after so many: 10,000, the most that a server takes, are 16 TB then, more than an object can be."""
_MAX_COPY = 5 << 30
"""The largest object that one request can copy."""
_BLOCK = 8 << 20
_ATTEMPTS = 6
_FEW = 4
"""Objects up to which asking for each is better than a list of a folder that may hold many."""
_UPLOAD_GRACE = 86_400.0
"""Seconds that an unfinished upload is left alone at least: it cannot be told whether its writer still lives."""
_TOKEN = "novabackup-write"  # noqa: S105 - a name for the random token by which a write is recognised


class S3Storage(KeyedStorage):
    """Objects below a prefix of a bucket.

    The identity of an object is its ETag and its size: a hash of the content, or at least a name of the version. So an
    object that is replaced by the very same bytes may keep its identity; what `swap` has to tell apart must hold
    something that is never the same.
    """

    block = 8 << 20
    parallel = 4

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """Name the place; nothing is sent yet.

        Args:
            url: ``s3://bucket/prefix``.
            storage_options: Options of ``s3fs.S3FileSystem``, such as ``key``, ``secret``, ``endpoint_url``, ``anon``,
                ``profile``.

        Raises:
            ConfigurationError: The URL or an option cannot be.
        """
        rest = url.partition("://")[2].strip("/")
        if re.match("[^/]*[:@]", rest) and not rest.startswith("arn:"):
            # Not shown: this is what a key and a secret look like.
            raise ConfigurationError(
                "s3://…: expected the name of a bucket, found a ':' or '@' in it. Credentials do not belong into URLs: "
                "pass them as storage_options={'key': …, 'secret': …}, or leave them to the environment"
            )
        if re.search(r"[?#]", rest):
            raise ConfigurationError(
                f"s3://{re.split('[?#]', rest)[0]}: expected s3://bucket/prefix, found a '?' or '#' after it. "
                "Presigned and versioned URLs cannot be used"
            )
        super().__init__(f"s3://{rest}")
        self._client = S3Client(self.url, storage_options or {})
        self._bucket, self._root, _ = self._client.fs.split_path(rest)
        reason = unportable(self._root) if self._root else None
        if reason or not self._bucket:
            raise ConfigurationError(f"{self.url}: expected s3://bucket/prefix, but {reason or 'there is no bucket'}")

    @property
    def requests(self) -> int:
        """How many requests have been sent so far."""
        return self._client.requests

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys."""
        folder = self._key(f"{self.checked(prefix)}/") if prefix else self._key("")
        found = [
            self._entry(item["Key"][len(self._key("")) :], item["Size"], item, item["LastModified"].timestamp())
            for page in self._pages(
                "list_objects_v2", ("ContinuationToken",), ("NextContinuationToken",), Prefix=folder
            )
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")  # what consoles put there to show a folder
        ]
        # Not every server lists in order.
        return iter(sorted(found, key=lambda entry: entry.key))

    def entry(self, key: str) -> Entry:
        """Describe one object without reading it."""
        return self._head(key)[0]

    def open(self, key: str) -> Reader:
        """Open one version of an object."""
        return _S3Reader(self, self.entry(key))

    def fetch(self, entry: Entry, start: int, length: int) -> bytes:
        """Read a range of the very version named.

        Raises:
            ChangedError: It is another version by now, or gone.
        """
        etag = _etag(entry.identity)
        wanted = {"Range": f"bytes={start}-{start + length - 1}", "IfMatch": etag}
        try:
            answer, data = self._got(entry.key, length, wanted)
            found = f'"{answer.get("ETag", "").strip(chr(34))}"'
        except FileNotFoundError:
            found = "nothing"
        except RefusedError as error:
            found = f"another (HTTP {error.status})"
        if found != etag:
            raise self._changed(entry.key, entry.identity, found)
        if len(data) != length:
            raise ConnectionError(
                errno.ECONNRESET, f"expected {length} bytes at {start}, found {len(data)}", self.locate(entry.key)
            )
        return data

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes, by one request."""
        self.checked(key)
        if not length:
            return Part(b"", self.entry(key).size)
        try:
            span = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"
            answer, data = self._got(key, length, {"Range": span})
        except RefusedError as error:
            if error.status != 416:
                raise
            size = self.entry(key).size
            if start >= 0 or not size:
                return Part(b"", size)  # there is nothing in that range
            # Some servers refuse to give all that there is when asked for more from the end on.
            return self.read_part(key, max(0, size + start), length)
        if "ContentRange" not in answer and answer["ContentLength"] > len(data):
            raise OSError(errno.ENOTSUP, "expected a part of it, found that the server sends all", self.locate(key))
        size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
        return Part(data[:length], size)

    def present(self, keys: Collection[str]) -> set[str]:
        """Tell which of these objects are there: one by one if they are few, else by a list of their folder."""
        if len(keys) <= _FEW:
            return super().present(keys)
        folder = os.path.commonpath([key.rpartition("/")[0] for key in keys])
        return set(keys) & set(self.keys(folder))

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by one request, or in parts that become visible together at the end.

        Attributes are not kept.
        """
        self.checked(key)
        parts = _parts(blocks)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            return self._put(key, first, {})
        return self._upload(key, itertools.chain((first, second), parts))

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, by one conditional request."""
        # Looked at first for the sake of servers that take no notice of conditions.
        if not self.exists(key):
            with contextlib.suppress(RefusedError):
                return self._put(key, data, {"IfNoneMatch": "*"})
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.locate(key))

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named, by one conditional request."""
        found = "nothing"
        with contextlib.suppress(FileNotFoundError):
            # Looked at first for the sake of servers that take no notice of conditions.
            found = self.entry(key).identity
            if identity and found == identity:
                with contextlib.suppress(RefusedError):
                    return self._put(key, data, {"IfMatch": _etag(identity)})
                found = self.entry(key).identity
                # Some servers refuse this condition even where it holds: `probe` says so of them.
                if found == identity and not self.probe().compare_and_swap:
                    return self._put(key, data, {})
        raise self._changed(key, identity, found)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._call(key, "delete_object", Key=self._key(self.checked(key)))

    def move(self, key: str, to: str) -> None:
        """Copy an object, make sure of the copy, and remove the original."""
        self.checked(to)
        source = self.entry(key)
        if key == to:
            return
        try:
            if source.size > _MAX_COPY:
                raise RefusedError(errno.EFBIG, "too large for one request", self.locate(key))
            self._call(
                key,
                "copy_object",
                Key=self._key(to),
                CopySource={"Bucket": self._bucket, "Key": self._key(key)},
                CopySourceIfMatch=_etag(source.identity),
            )
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            # Some servers cannot copy what is large, some not at all: through here it always goes.
            with self.open(key) as reader:
                self.write(to, _blocks(reader))
        if self.entry(to).identity != source.identity:
            # Encryption and multipart uploads change the ETag of the same bytes, so the bytes have to tell.
            with self.open(key) as original, self.open(to) as copy:
                if original.entry.size != copy.entry.size or any(
                    mine != theirs for mine, theirs in zip(_blocks(original), _blocks(copy), strict=True)
                ):
                    raise OSError(errno.EIO, "expected a copy of the same bytes, found others", self.locate(to))
        if self.entry(key) != source:
            raise self._changed(key, source.identity, "another")
        self.delete(key)

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Abort unfinished uploads that are at least a day old."""
        wanted = None if keys is None else {self._key(self.checked(key)) for key in keys}
        removed = 0
        try:
            pages = list(
                self._pages(
                    "list_multipart_uploads",
                    ("KeyMarker", "UploadIdMarker"),
                    ("NextKeyMarker", "NextUploadIdMarker"),
                    Prefix=self._key(""),
                )
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOSYS, errno.EPERM):
                return 0  # nothing there, or a server that has no such list
            raise
        for page in pages:
            before = _date(page) - max(older_than, _UPLOAD_GRACE)
            for upload in page.get("Uploads", ()):
                name = upload["Key"]
                if upload["Initiated"].timestamp() > before or (wanted is not None and name not in wanted):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self._call("", "abort_multipart_upload", Key=name, UploadId=upload["UploadId"])
                    removed += 1
        return removed

    def _try(self, key: str) -> Guarantees:
        first = self._put(key, b"first", {})
        exclusive = self._refuses(key, {"IfNoneMatch": "*"}) and self.entry(key).identity == first.identity
        second = self._put(key, b"second", {})
        swaps = self._refuses(key, {"IfMatch": _etag(first.identity)}) and self.entry(key).identity == second.identity
        # A server that refuses every such request cannot compare either.
        swaps = swaps and not self._refuses(key, {"IfMatch": _etag(second.identity)})
        return Guarantees(exclusive_create=exclusive, compare_and_swap=swaps)

    def _refuses(self, key: str, condition: Mapping[str, str]) -> bool:
        try:
            self._put(key, secrets.token_bytes(8), condition, fallback=False)
        except RefusedError as error:
            return error.status == 412
        return False

    def _put(self, key: str, data: bytes, condition: Mapping[str, str], *, fallback: bool = True) -> Entry:
        """Write an object by one request.

        When an answer gets lost, the request is sent again and refused because of its own success. So each write
        carries a random token, which shows whose work is there.

        Raises:
            RefusedError: The condition does not hold, or the server knows no conditions and ``fallback`` is false.
        """
        token = secrets.token_hex(16)
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._call(
                    key, "put_object", Key=self._key(key), Body=data, Metadata=self._marked(token), **condition
                )
            except RefusedError as error:
                if error.status == 409 and attempt < _ATTEMPTS - 1:  # another such request is under way
                    _pause(attempt)
                    continue
                if error.status == 501 and fallback:
                    condition = {}
                    continue
                if mine := self._mine(key, token):
                    return mine
                raise
            if not answer.get("ETag"):
                return self.entry(key)
            return self._entry(key, len(data), answer, _date(answer))
        raise AssertionError("unreachable")

    def _upload(self, key: str, parts: Iterable[bytes]) -> Entry:
        """Write a large object in parts, several at once, which become visible together."""
        token = secrets.token_hex(16)
        name = self._key(key)
        upload = self._call(key, "create_multipart_upload", Key=name, Metadata=self._marked(token))["UploadId"]

        def send(numbered: tuple[int, bytes]) -> tuple[dict[str, Any], int]:
            number, body = numbered
            answer = self._call(key, "upload_part", Key=name, UploadId=upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": answer["ETag"]}, len(body)

        try:
            with Lane(self.parallel, self.parallel) as lane:
                sent = list(lane.each(send, enumerate(parts, 1)))
            done = {"Parts": [part for part, _size in sent]}
            try:
                answer = self._call(key, "complete_multipart_upload", Key=name, UploadId=upload, MultipartUpload=done)
            except FileNotFoundError:
                # The answer to the first attempt got lost, and the second one found no upload.
                if mine := self._mine(key, token):
                    return mine
                raise
            return self._entry(key, sum(size for _part, size in sent), answer, _date(answer))
        except BaseException:
            with contextlib.suppress(Exception):
                self._call(key, "abort_multipart_upload", Key=name, UploadId=upload)
            raise

    def _marked(self, token: str) -> dict[str, str]:
        return {**self._client.metadata, _TOKEN: token}

    def _mine(self, key: str, token: str) -> Entry | None:
        """Give the object that is there if the write with this token made it."""
        try:
            entry, answer = self._head(key)
        except FileNotFoundError:
            return None
        return entry if answer.get("Metadata", {}).get(_TOKEN) == token else None

    def _head(self, key: str) -> tuple[Entry, Mapping[str, Any]]:
        answer = self._call(key, "head_object", Key=self._key(self.checked(key)))
        return self._entry(key, answer["ContentLength"], answer, answer["LastModified"].timestamp()), answer

    def _entry(self, key: str, size: int, answer: Mapping[str, Any], modified: float) -> Entry:
        # The same object has its ETag with and without quotes, and its time in whole seconds or finer, depending on
        # server and request. A weak ETag stands for more than one version.
        etag = (answer.get("ETag") or "W/").strip('"')
        identity = "" if etag.startswith("W/") else f"{etag}-{size}"
        return Entry(key=key, size=size, identity=identity, modified=float(int(modified)))

    def _key(self, key: str) -> str:
        return f"{self._root}/{key}" if self._root else key

    def _pages(
        self, method: str, markers: tuple[str, ...], following: tuple[str, ...], **request: Any
    ) -> Iterator[Mapping[str, Any]]:
        """Ask for all pages of a list."""
        while True:
            page = self._call("", method, **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request.update(
                {name: page[field] for name, field in zip(markers, following, strict=True) if page.get(field)}
            )

    def _call(self, key: str, method: str, **request: Any) -> Mapping[str, Any]:
        return self._client.call(self.locate(key), method, Bucket=self._bucket, **request)

    def _got(self, key: str, most: int, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
        """Read an object or a range of it; when the connection breaks, ask again."""
        for attempt in range(_ATTEMPTS):
            try:
                with self._client.translated(self.locate(key)):
                    found: tuple[Mapping[str, Any], bytes] = self._client.run(
                        lambda fs: self._get(fs, key, most, request)
                    )
                    return found
            except (ConnectionError, TimeoutError):
                if attempt == _ATTEMPTS - 1:
                    raise
                _pause(attempt)
        raise AssertionError("unreachable")

    async def _get(
        self, fs: s3fs.S3FileSystem, key: str, most: int, request: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], bytes]:
        """Read once, never more than was asked for."""
        answer = await fs._call_s3("get_object", Bucket=self._bucket, Key=self._key(key), **request)
        data = bytearray()
        async with answer["Body"] as body:
            while len(data) <= most and (block := await body.read(most + 1 - len(data))):
                data += block
        if len(data) < min(most, answer["ContentLength"]):
            raise ConnectionError(errno.ECONNRESET, f"expected {answer['ContentLength']} bytes, found {len(data)}")
        return answer, bytes(data)


class _S3Reader(ObjectReader):
    """A reader whose every request names the version that it is for."""

    def _fetch(self, start: int, length: int) -> bytes:
        return self._storage.fetch(self.entry, start, length)


def _blocks(reader: Reader) -> Iterator[bytes]:
    for start in range(0, reader.entry.size, _BLOCK):
        yield reader.read(start, min(_BLOCK, reader.entry.size - start))


def _parts(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Collect content into parts, which grow, since a server takes only so many of them."""
    waiting = bytearray()
    number = 0
    for block in blocks:
        waiting += block.source.read(block.start, block.length) if isinstance(block, Span) else block
        while len(waiting) >= (size := _PART << number // _PARTS_OF_A_SIZE):
            yield bytes(waiting[:size])
            del waiting[:size]
            number += 1
    if waiting:
        yield bytes(waiting)


def _etag(identity: str) -> str:
    return f'"{identity.rpartition("-")[0]}"'


def _date(answer: Mapping[str, Any]) -> float:
    """Read the server's clock off its answer."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _pause(attempt: int) -> None:
    # Spread at random, so that writers who met once do not meet again.
    time.sleep(0.05 * 2**attempt * (1 + secrets.randbelow(1000) / 1000))
