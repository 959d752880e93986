"""Writing to S3: by one request or in parts, each marked so that a write whose answer got lost is recognised."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from novabackup.lanes import Lane
from novabackup.storage._s3_bucket import Bucket, date_of, described
from novabackup.storage._s3_errors import RefusedError
from novabackup.storage.base import Block, Entry, Span

PART = 16 << 20
_PARTS_OF_A_SIZE = 1_000
"""Parts double after so many: 10,000, the most that a server takes, are 16 TB then, more than an object can be."""
_ATTEMPTS = 6
_TOKEN = "novabackup-write"  # noqa: S105 - a name for the random token by which a write is recognised


class Writer:
    """Writes objects of one bucket.

    When an answer gets lost, the request is sent again and refused because of its own success. So each write carries a
    random token, which shows whose work is there.
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
        token = secrets.token_hex(16)
        if fallback and not self._conditions:
            condition = {}
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._bucket.call(
                    key,
                    "put_object",
                    Key=self._bucket.key(key),
                    Body=data,
                    **self._sealed(data),
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
                if mine := self._mine(key, token):
                    return mine
                raise
            if not answer.get("ETag"):
                return _entry(key, self._bucket.head(key))
            return described(key, len(data), answer, date_of(answer))
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
            answer = bucket.call(
                key, "upload_part", Key=name, UploadId=upload, PartNumber=number, Body=body, **self._sealed(body)
            )
            sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
            return {"PartNumber": number, "ETag": answer["ETag"], **sums}, len(body)

        def complete(condition: Mapping[str, str]) -> Mapping[str, Any]:
            return bucket.call(
                key, "complete_multipart_upload", Key=name, UploadId=upload, MultipartUpload=done, **condition
            )

        try:
            with Lane(self._parallel, self._parallel) as lane:
                sent = list(lane.each(send, enumerate(parts, 1)))
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
                if mine := self._mine(key, token):
                    return mine
                raise
            return described(key, sum(size for _part, size in sent), answer, date_of(answer))
        except BaseException:
            with contextlib.suppress(Exception):
                bucket.call(key, "abort_multipart_upload", Key=name, UploadId=upload)
            raise

    def _marked(self, token: str) -> dict[str, Any]:
        return {"Metadata": {**self._bucket.client.extra.get("Metadata", {}), _TOKEN: token}, **self._class}

    def _sealed(self, data: bytes) -> dict[str, str]:
        """Give what the server compares with what arrives; a bucket with Object Lock takes nothing without."""
        if "ChecksumAlgorithm" in self._bucket.client.extra:
            return {}  # botocore does it
        return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}

    def _mine(self, key: str, token: str) -> Entry | None:
        """Give the object that is there if the write with this token made it."""
        try:
            answer = self._bucket.head(key)
        except FileNotFoundError:
            return None
        return _entry(key, answer) if answer.get("Metadata", {}).get(_TOKEN) == token else None


def _entry(key: str, answer: Mapping[str, Any]) -> Entry:
    return described(key, answer["ContentLength"], answer, answer["LastModified"].timestamp())


def parts_of(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Collect content into parts, which grow, since a server takes only so many of them."""
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
