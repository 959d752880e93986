"""Objects in S3 and in servers that speak like it: conditional writes, reads pinned to one version, through s3fs.

Requests go out one by one as s3fs would send them, with its sessions, options and retries, but not by its file calls:
those read large objects in parallel pieces that may belong to two versions, take names for patterns, cache listings and
publish half a file when its writer fails.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from novabackup._support.paths import unportable
from novabackup._support.threads import Workers
from novabackup.errors import ArchivedError, ConfigurationError
from novabackup.format.records import Attributes
from novabackup.storage.base import Block, Entry, Frozen, Guarantees, Lock, Part, Proof, Reader
from novabackup.storage.generic import KeyedStorage, ObjectReader
from novabackup.storage.s3.bucket import Bucket, date_of, described, etag_of, size_in
from novabackup.storage.s3.client import ARCHIVES, S3Client
from novabackup.storage.s3.errors import RefusedError
from novabackup.storage.s3.states import MAY_BE_FROZEN, frozen_state, lock_state, retained_until, thaw_request
from novabackup.storage.s3.sums import SumProof, sum_in
from novabackup.storage.s3.writes import USUAL_PARTS, Writer, parts_of

_LOG = logging.getLogger("novabackup")

_T = TypeVar("_T")

_MAX_COPY = 5 << 30
"""The largest object that one request can copy."""
_BLOCK = 8 << 20
_HEAD = 512 << 10
"""Bytes that are read with opening: on the way to a server they take no longer than a question."""
_FEW = 4
"""Objects up to which asking for each is better than a list of a folder that may hold many."""
_UPLOAD_GRACE = 86_400.0
"""Seconds that an unfinished upload is left alone at least: it is unknown whether its writer is still alive."""
_CLASS = re.compile(r"[A-Z0-9_-]{1,64}", re.IGNORECASE)


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
        self._bucket = Bucket(self._client, rest)
        reason = unportable(self._bucket.root) if self._bucket.root else None
        if reason or not self._bucket.name:
            raise ConfigurationError(f"{self.url}: expected s3://bucket/prefix, but {reason or 'there is no bucket'}")
        self._writer = Writer(self._bucket, self.parallel)

    @property
    def requests(self) -> int:
        """How many requests have been sent so far."""
        return self._client.requests

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """List objects below a folder, freshly, in the order of their keys."""
        folder = f"{self.checked(prefix)}/" if prefix else ""
        found = [
            described(key, item["Size"], item, item["LastModified"].timestamp())
            for key, item in self._bucket.listed(folder)
        ]
        # Not every server lists in order.
        return iter(sorted(found, key=lambda entry: entry.key))

    def entry(self, key: str) -> Entry:
        """Describe one object without reading it."""
        answer = self._bucket.head(self.checked(key))
        return described(key, answer["ContentLength"], answer, answer["LastModified"].timestamp())

    def open(self, key: str) -> Reader:
        """Open one version of an object, and read where it begins: small ones come in whole, by one request."""
        self.checked(key)
        try:
            answer, head = self._bucket.get(key, _HEAD, {"Range": f"bytes=0-{_HEAD - 1}"})
        except RefusedError as error:
            if error.status != 416:
                raise
            return _S3Reader(self, self.entry(key), b"", "")  # there is nothing in it
        entry = described(key, size_in(answer), answer, answer["LastModified"].timestamp())
        return _S3Reader(self, entry, head[:_HEAD], sum_in(answer))

    def fetch(self, entry: Entry, start: int, length: int) -> bytes:
        """Read a range of the very version named.

        Raises:
            ChangedError: It is another version by now, or gone.
        """
        etag = etag_of(entry.identity)
        wanted = {"Range": f"bytes={start}-{start + length - 1}", "IfMatch": etag}
        try:
            answer, data = self._bucket.get(entry.key, length, wanted)
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

    def proof(self, entry: Entry, expected: str) -> Proof:
        """Return the proof for the content of a version; ``expected`` is the server's sum, empty if it has none."""
        if not expected or self._bucket.sums.useless:
            return Proof()
        parts, length = int(expected.partition("-")[2] or 0), 0
        if parts:
            # Only where all parts but the last one are of one size is it known where they end.
            length = next((size for size in self._part_sizes(entry.key) if -(-entry.size // size) == parts), 0)
            if not length:
                return Proof()
        return SumProof(self._bucket.sums, f"{self.locate(entry.key)} {expected}", expected, length)

    def _part_sizes(self, key: str) -> tuple[int, ...]:
        """Return the size of the first part of an object, or, where the server does not tell, sizes that are likely."""
        try:
            answer = self._bucket.head(key, PartNumber=1)
        except (FileNotFoundError, RefusedError):
            return ()
        return (max(1, answer["ContentLength"]),) if answer.get("PartsCount") else USUAL_PARTS

    def read_part(self, key: str, start: int, length: int) -> Part:
        """Read a range of an object that never changes, by one request."""
        self.checked(key)
        if not length:
            return Part(b"", self.entry(key).size)
        try:
            span = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"
            answer, data = self._bucket.get(key, length, {"Range": span})
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
        return Part(data[:length], size_in(answer))

    def present(self, keys: Collection[str]) -> set[str]:
        """Return which of these objects exist: one by one if they are few, else by a list of their folder."""
        if len(keys) <= _FEW:
            return super().present(keys)
        return set(keys) & {key for key, _item in self._bucket.listed(_folder(keys))}

    def write(self, key: str, blocks: Iterable[Block], attributes: Attributes | None = None) -> Entry:
        """Create or replace an object by one request, or in parts that become visible together at the end.

        Attributes are not kept.
        """
        return self._send(key, blocks, {})

    def add(self, key: str, blocks: Iterable[Block]) -> Entry:
        """Write an object that will never change; an existing one is not replaced, if the server can tell."""
        try:
            return self._send(key, blocks, {"IfNoneMatch": "*"})
        except RefusedError as error:
            if error.status != 412:
                raise
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.locate(key))

    def _send(self, key: str, blocks: Iterable[Block], condition: Mapping[str, str]) -> Entry:
        self.checked(key)
        parts = parts_of(blocks)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            return self._writer.put(key, first, condition)
        return self._writer.upload(key, itertools.chain((first, second), parts), condition)

    def create(self, key: str, data: bytes) -> Entry:
        """Create an object that must not be there yet, by one conditional request."""
        # Looked at first for the sake of servers that take no notice of conditions.
        if (self._guarantees and self._guarantees.exclusive_create) or not self.exists(key):
            with contextlib.suppress(RefusedError):
                return self._writer.put(key, data, {"IfNoneMatch": "*"})
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.locate(key))

    def swap(self, key: str, data: bytes, identity: str) -> Entry:
        """Replace an object only if it is still the version named, by one conditional request."""
        self.checked(key)
        found = "nothing"
        with contextlib.suppress(FileNotFoundError):
            # Looked at first for the sake of servers that take no notice of conditions.
            compares = self._guarantees is not None and self._guarantees.compare_and_swap
            found = identity if compares else self.entry(key).identity
            if identity and found == identity:
                with contextlib.suppress(RefusedError):
                    return self._writer.put(key, data, {"IfMatch": etag_of(identity)})
                found = self.entry(key).identity
                # Some servers refuse this condition even where it holds: `probe` says so of them.
                if found == identity and not self.probe().compare_and_swap:
                    return self._writer.put(key, data, {})
        raise self._changed(key, identity, found)

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._bucket.call(key, "delete_object", Key=self._bucket.key(self.checked(key)))

    def move(self, key: str, to: str) -> None:
        """Copy an object, make sure of the copy, and remove the original."""
        self.checked(to)
        source = self.entry(key)
        if key == to:
            return
        try:
            if source.size > _MAX_COPY:
                raise RefusedError(errno.EFBIG, "too large for one request", self.locate(key))
            self._bucket.call(
                key,
                "copy_object",
                Key=self._bucket.key(to),
                CopySource={"Bucket": self._bucket.name, "Key": self._bucket.key(key)},
                CopySourceIfMatch=etag_of(source.identity),
                **{f"CopySource{name}": value for name, value in self._client.extra.items() if name.startswith("SSEC")},
            )
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            # Some servers cannot copy what is large, some not at all: through here it always goes.
            with self.open(key) as reader:
                self.write(to, _blocks(reader))
        if self.entry(to).identity != source.identity:
            # Encryption and multipart uploads change the ETag of the same bytes, so the bytes have to tell.
            with self.open(key) as original, self.open(to) as moved:
                if original.entry.size != moved.entry.size or any(
                    mine != theirs for mine, theirs in zip(_blocks(original), _blocks(moved), strict=True)
                ):
                    raise OSError(errno.EIO, "expected a copy of the same bytes, found others", self.locate(to))
        if self.entry(key) != source:
            raise self._changed(key, source.identity, "another")
        self.delete(key)

    def sweep(self, older_than: float, keys: Iterable[str] | None = None) -> int:
        """Abort unfinished uploads that are at least a day old."""
        wanted = None if keys is None else {self._bucket.key(self.checked(key)) for key in keys}
        removed = 0
        try:
            pages = list(
                self._bucket.pages(
                    "list_multipart_uploads",
                    ("KeyMarker", "UploadIdMarker"),
                    ("NextKeyMarker", "NextUploadIdMarker"),
                    Prefix=self._bucket.key(""),
                )
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOSYS, errno.EPERM):
                return 0  # nothing there, or a server that has no such list
            raise
        for page in pages:
            before = date_of(page) - max(older_than, _UPLOAD_GRACE)
            for upload in page.get("Uploads", ()):
                name = upload["Key"]
                if upload["Initiated"].timestamp() > before or (wanted is not None and name not in wanted):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self._bucket.call("", "abort_multipart_upload", Key=name, UploadId=upload["UploadId"])
                    removed += 1
        return removed

    def classed(self, storage_class: str) -> S3Storage:
        """Return a storage for the same place that writes into a storage class."""
        if not _CLASS.fullmatch(storage_class):
            raise ConfigurationError(
                f"{self.url}: expected a storage class such as STANDARD_IA, found {storage_class!r}"
            )
        classed = copy.copy(self)
        classed._writer = Writer(self._bucket, self.parallel, storage_class)
        classed.reads_back = storage_class not in ARCHIVES
        return classed

    def frozen(self, keys: Collection[str]) -> list[Frozen]:
        """Return which of these objects cannot be read before they have been thawed."""
        suspects: Collection[str] = keys
        if len(keys) > _FEW:
            wanted = set(keys)
            suspects = [
                key
                for key, item in self._bucket.listed(_folder(keys))
                if key in wanted and item.get("StorageClass") in MAY_BE_FROZEN
            ]
        return self._seen(frozen_state, suspects)

    def thaw(self, frozen: Frozen, days: int, tier: str) -> None:
        """Ask for an object to become readable."""
        try:
            self._bucket.call(
                frozen.key,
                "restore_object",
                Key=self._bucket.key(self.checked(frozen.key)),
                RestoreRequest=thaw_request(frozen, days, tier),
            )
        except ArchivedError:
            pass  # so says S3 of what is readable by now
        except RefusedError as error:
            if error.status != 409:  # another process has asked already
                raise

    def locks(self, keys: Collection[str]) -> list[Lock]:
        """Return which of these objects may not be deleted yet."""
        return self._seen(lock_state, keys) if keys and self._lock_configuration().get("ObjectLockEnabled") else []

    def protect(self, keys: Iterable[str]) -> None:
        """Lock objects for as long as new ones are, where new ones are locked by themselves."""
        configuration = self._lock_configuration()
        rule = configuration.get("Rule", {}).get("DefaultRetention")
        if not rule:
            return
        until = retained_until(rule, configuration["Now"])

        def lock(key: str) -> None:
            retention = {"Mode": rule["Mode"], "RetainUntilDate": until}
            try:
                self._bucket.call(key, "put_object_retention", Key=self._bucket.key(key), Retention=retention)
            except FileNotFoundError:
                return  # a caller that relies on it finds out
            except PermissionError as error:
                # A longer lock cannot be made shorter, and need not be.
                if not any(found.until is None or found.until >= until for found in self._seen(lock_state, [key])):
                    _LOG.warning("older content cannot be locked for as long as new content is: %s", error)

        with Workers(self.parallel, self.parallel) as workers:
            for _locked in workers.each(lock, keys):
                pass

    def _lock_configuration(self) -> Mapping[str, Any]:
        """Ask whether objects of the bucket can be locked, and for how long new ones are; empty if they cannot."""
        try:
            answer = self._bucket.call("", "get_object_lock_configuration")
        except PermissionError as error:
            _LOG.info("it cannot be seen whether objects can be locked, so each is looked at: %s", error)
            return {"ObjectLockEnabled": "Unknown"}
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOSYS, errno.EINVAL):
                return {}  # no such configuration, or a server without this feature
            raise
        # Some servers answer whatever they are asked, with nothing in it.
        return {**(answer.get("ObjectLockConfiguration") or {}), "Now": date_of(answer)}

    def _seen(self, state: Callable[[str, Mapping[str, Any]], _T | None], keys: Collection[str]) -> list[_T]:
        """Query objects, several at once; return what can be said of some of them."""

        def look(key: str) -> _T | None:
            try:
                return state(key, self._bucket.head(self.checked(key)))
            except FileNotFoundError:
                return None

        with Workers(self.parallel, self.parallel) as workers:
            return [found for found in workers.each(look, keys) if found is not None]

    def _try(self, key: str) -> Guarantees:
        first = self._writer.put(key, b"first", {})
        exclusive = self._refuses(key, {"IfNoneMatch": "*"}) and self.entry(key).identity == first.identity
        second = self._writer.put(key, b"second", {})
        swaps = self._refuses(key, {"IfMatch": etag_of(first.identity)}) and self.entry(key).identity == second.identity
        # A server that refuses every such request cannot compare either.
        swaps = swaps and not self._refuses(key, {"IfMatch": etag_of(second.identity)})
        return Guarantees(exclusive_create=exclusive, compare_and_swap=swaps)

    def _refuses(self, key: str, condition: Mapping[str, str]) -> bool:
        try:
            self._writer.put(key, secrets.token_bytes(8), condition, fallback=False)
        except RefusedError as error:
            return error.status == 412
        return False


class _S3Reader(ObjectReader):
    """A reader whose every request names the version that it is for."""

    def __init__(self, storage: S3Storage, entry: Entry, head: bytes, expected: str) -> None:
        super().__init__(storage, entry)
        self._place = storage
        self._head = head
        self._expected = expected
        self._at = 0
        self._proof: Proof | None = None

    def read(self, start: int, length: int) -> bytes:
        """Read a range; whoever reads all from the beginning to the end has it compared with the server's sum."""
        data = super().read(start, length)
        if start == 0:
            self._at, self._proof = 0, None
        if start == self._at and len(self._head) < self.entry.size:
            self._at += len(data)
            self._follow(start, data)
        return data

    def readinto(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer; several threads may do so in any order, so it is for them to use `proof`."""
        buffer[:] = super().read(start, len(buffer))

    def proof(self) -> Proof:
        """Return what the whole content can be compared with; what is small was compared when it came."""
        if len(self._head) == self.entry.size:
            return Proof()
        return self._place.proof(self.entry, self._expected)

    def close(self) -> None:
        """Let go of what was read."""
        super().close()
        self._head = b""

    def _follow(self, start: int, data: bytes) -> None:
        if self._proof is None:
            if self._at <= len(self._head):
                return  # perhaps no more than this is wanted
            self._proof = self.proof()
            self._proof.update(self._head[:start])
        self._proof.update(data)
        if self._at == self.entry.size:
            self._proof.confirm()

    def _fetch(self, start: int, length: int) -> bytes:
        if start + length <= len(self._head):
            return self._head[start : start + length]
        data = self._storage.fetch(self.entry, start, length)
        if length == self.entry.size:
            self._head = data  # small enough to keep for later reads
        return data


def _blocks(reader: Reader) -> Iterator[bytes]:
    for start in range(0, reader.entry.size, _BLOCK):
        yield reader.read(start, min(_BLOCK, reader.entry.size - start))


def _folder(keys: Collection[str]) -> str:
    """Return the longest folder that all these objects lie in, as a beginning of their keys."""
    folder = os.path.commonpath([key.rpartition("/")[0] for key in keys])
    return f"{folder}/" if folder else ""
