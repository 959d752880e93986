"""Writing to S3: by one request or in parts, each marked so that a write whose answer got lost is recognised."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import itertools
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from novabackup._support.threads import Workers
from novabackup.storage.base import Block, Entry, Span
from novabackup.storage.s3.bucket import Bucket, date_of, described
from novabackup.storage.s3.errors import RefusedError
from novabackup.storage.s3.sums import md5

PART = 16 << 20
USUAL_PARTS = (PART, 8 << 20)
"""What is written here has parts of that size, and so has what boto3 and the AWS CLI write by default."""
_PARTS_OF_A_SIZE = 1_000
"""Parts double after so many: 10,000, the most that a server takes, are 16 TB then, more than an object can be."""
_ATTEMPTS = 6
_MOST_ALTERED = 4
"""Times that the server may have got something else before that is given up."""
_TOKEN = "novabackup-write"  # noqa: S105 - a name for the random token by which a write is recognised


class _Body(io.BytesIO):
    """Content to send; asking for its buffer to learn the size makes no copy."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data

    def getbuffer(self) -> memoryview:
        return memoryview(self._data)


class Writer:
    """Writes objects of one bucket.

    When an answer gets lost, the request is sent again and refused because of its own success. So each write carries a
    random token, which shows who wrote the object.
    """

    def __init__(self, bucket: Bucket, parallel: int, storage_class: str = "") -> None:
        """Write to a bucket.

        Args:
            bucket: Where.
            parallel: How many parts are sent at once.
            storage_class: Of what is written; empty for what the bucket does by default.
        """
        self._bucket = bucket
        self._parallel = parallel
        self._class = {"StorageClass": storage_class} if storage_class else {}
        self._conditions = True

    def put(self, key: str, data: bytes, condition: Mapping[str, str], *, fallback: bool = True) -> Entry:
        """Write an object by one request.

        Raises:
            RefusedError: The condition does not hold, or the server knows no conditions and ``fallback`` is false.
        """
        token, digest, altered = secrets.token_hex(16), md5(data), 0
        if fallback and not self._conditions:
            condition = {}
        for attempt in itertools.count():
            try:
                answer = self._bucket.send(
                    key,
                    "put_object",
                    lambda: _Body(data),
                    Key=self._bucket.key(key),
                    **self._sealed(digest),
                    **self._marked(token),
                    **condition,
                )
            except RefusedError as error:
                if error.status == 409 and attempt < _ATTEMPTS - 1:  # another such request is under way
                    _pause(attempt)
                    continue
                if error.status == 501 and fallback and condition:
                    condition = {}
                    self._conditions = False  # so that nothing large is sent twice again
                    continue
                if not (answer := self._mine(key, token)):
                    raise
            if not answer.get("ETag"):
                answer = self._bucket.head(key)
            if self._arrived(key, digest, answer, altered):
                return _entry(key, len(data), answer)
            altered += 1
            if condition:  # the existing object is this call's own
                condition = {"IfMatch": answer["ETag"]}
        raise AssertionError("unreachable")

    def upload(self, key: str, parts: Iterable[bytes], condition: Mapping[str, str]) -> Entry:
        """Write a large object in parts, several at once, which become visible together.

        Raises:
            RefusedError: The condition does not hold.
        """
        token, bucket = secrets.token_hex(16), self._bucket
        name = bucket.key(key)
        upload = bucket.call(key, "create_multipart_upload", Key=name, **self._marked(token))["UploadId"]

        def send(numbered: tuple[int, bytes]) -> tuple[dict[str, Any], int]:
            number, body = numbered
            digest, request = md5(body), {"Key": name, "UploadId": upload, "PartNumber": number}
            for altered in itertools.count():
                answer = bucket.send(key, "upload_part", lambda: _Body(body), **request, **self._sealed(digest))
                if self._arrived(key, digest, answer, altered):
                    break
            sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
            return {"PartNumber": number, "ETag": answer["ETag"], **sums}, len(body)

        def complete(condition: Mapping[str, str]) -> Mapping[str, Any]:
            return bucket.call(
                key, "complete_multipart_upload", Key=name, UploadId=upload, MultipartUpload=done, **condition
            )

        try:
            with Workers(self._parallel, self._parallel) as workers:
                sent = list(workers.each(send, enumerate(parts, 1)))
            done = {"Parts": [part for part, _size in sent]}
            try:
                try:
                    answer = complete(condition)
                except RefusedError as error:
                    if error.status != 501 or not condition:
                        raise
                    answer = complete({})
            except (FileNotFoundError, RefusedError):
                # The answer to the first attempt got lost, and the second one found no upload, or its own work.
                if not (answer := self._mine(key, token)):
                    raise
            else:
                # Some servers say nothing of what has come into being, or something else than later on.
                answer = self._mine(key, token) or answer
            return _entry(key, sum(size for _part, size in sent), answer)
        except BaseException:
            with contextlib.suppress(Exception):
                bucket.call(key, "abort_multipart_upload", Key=name, UploadId=upload)
            raise

    def _marked(self, token: str) -> dict[str, Any]:
        return {"Metadata": {**self._bucket.client.extra.get("Metadata", {}), _TOKEN: token}, **self._class}

    def _sealed(self, digest: Any) -> dict[str, str]:
        """Return what the server compares with what arrives; a bucket with Object Lock takes nothing without."""
        if "ChecksumAlgorithm" in self._bucket.client.extra:
            return {}  # botocore does it
        return {"ContentMD5": base64.b64encode(digest.digest()).decode()}

    def _arrived(self, key: str, digest: Any, answer: Mapping[str, Any], altered: int) -> bool:
        """Return whether the server has what was sent; some servers do not compare by themselves."""
        sums, url = self._bucket.sums, f"{self._bucket.client.url}/{key}"
        if sums.sent(url, digest.hexdigest(), answer):
            return True
        if altered + 1 < _MOST_ALTERED:
            return False
        if sums.give_up(url):
            return True
        raise OSError(
            errno.EIO,
            f"expected that the server gets the bytes that are sent, found others there {_MOST_ALTERED} times in a "
            "row: something on the way alters them. Use https, or another way",
            url,
        )

    def _mine(self, key: str, token: str) -> Mapping[str, Any]:
        """Return the server's answer for the existing object if the write with this token made it."""
        try:
            answer = self._bucket.head(key)
        except FileNotFoundError:
            return {}
        return answer if answer.get("Metadata", {}).get(_TOKEN) == token else {}


def _entry(key: str, size: int, answer: Mapping[str, Any]) -> Entry:
    """Describe what was written, by the answer to the write or to a look at it."""
    modified = answer["LastModified"].timestamp() if "LastModified" in answer else date_of(answer)
    return described(key, size, answer, modified)


def parts_of(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Collect content into parts, which grow, since a server takes only so many of them."""
    if isinstance(blocks, tuple):
        pieces = [block for block in blocks if not isinstance(block, Span)]
        if len(pieces) == len(blocks) and sum(map(len, pieces)) < PART:
            yield b"".join(pieces)  # a pack, which stays as it is meanwhile
            return
    waiting = bytearray()
    number = 0
    for block in blocks:
        waiting += block.source.read(block.start, block.length) if isinstance(block, Span) else block
        while len(waiting) >= (size := PART << number // _PARTS_OF_A_SIZE):
            yield bytes(waiting[:size])
            del waiting[:size]
            number += 1
    if waiting:
        yield bytes(waiting)


def _pause(attempt: int) -> None:
    # Spread at random, so that writers who met once do not meet again.
    time.sleep(0.05 * 2**attempt * (1 + secrets.randbelow(1000) / 1000))
