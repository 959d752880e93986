"""Requests about the objects of one bucket, and what the answers say of them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import s3fs

from novabackup.storage.base import Entry
from novabackup.storage.s3.client import S3Client
from novabackup.storage.s3.sums import Sums


class Bucket:
    """The part of a bucket below a prefix.

    Attributes:
        client: Sends the requests.
        name: Of the bucket.
        root: The prefix, without a slash at its end; may be empty.
        sums: Compare what arrives with what was sent.
    """

    def __init__(self, client: S3Client, rest: str) -> None:
        """Name the place.

        Args:
            client: Sends the requests.
            rest: What comes behind ``s3://``.
        """
        self.client = client
        self.name, self.root, _ = client.fs.split_path(rest)
        self.sums = Sums()

    def key(self, key: str) -> str:
        """Return the name that an object has in the bucket."""
        return f"{self.root}/{key}" if self.root else key

    def call(self, key: str, method: str, **request: Any) -> Mapping[str, Any]:
        """Send one request.

        Args:
            key: The object, for messages.
            method: As the client of botocore names it.
            request: Its arguments, without the bucket.
        """
        return self.client.call(self._url(key), method, Bucket=self.name, **request)

    def send(self, key: str, method: str, body: Callable[[], Any], **request: Any) -> Mapping[str, Any]:
        """Send one request that has content.

        Args:
            key: The object, for messages.
            method: As the client of botocore names it.
            body: Gives the content, once for each attempt.
            request: Other arguments, without the bucket.
        """
        answer: Mapping[str, Any] = self.client.persist(
            self._url(key), lambda fs: fs._call_s3(method, Bucket=self.name, Body=body(), **request)
        )
        return answer

    def pages(
        self, method: str, markers: tuple[str, ...], following: tuple[str, ...], **request: Any
    ) -> Iterator[Mapping[str, Any]]:
        """Ask for all pages of a list."""
        while True:
            page = self.call("", method, **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request.update(
                {name: page[field] for name, field in zip(markers, following, strict=True) if page.get(field)}
            )

    def listed(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """List objects: the key of each, and what the list says of it.

        Args:
            folder: What their keys begin with.
        """
        root = len(self.key(""))
        for page in self.pages(
            "list_objects_v2", ("ContinuationToken",), ("NextContinuationToken",), Prefix=self.key(folder)
        ):
            for item in page.get("Contents", ()):
                if not item["Key"].endswith("/"):  # what consoles put there to show a folder
                    yield item["Key"][root:], item

    def head(self, key: str, **request: Any) -> Mapping[str, Any]:
        """Ask for all that is known of an object, or of a part of it, without reading it."""
        return self.call(key, "head_object", Key=self.key(key), **request)

    def get(self, key: str, most: int, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
        """Read an object or a range of it, never more than was asked for.

        When the connection breaks it is asked for again, and so it is when a whole object is not what the server says.
        """

        async def get(fs: s3fs.S3FileSystem) -> tuple[Mapping[str, Any], bytes]:
            answer = await fs._call_s3("get_object", Bucket=self.name, Key=self.key(key), **request)
            taken = bytearray()
            async with answer["Body"] as body:
                while len(taken) <= most and (block := await body.read(most + 1 - len(taken))):
                    taken += block
            data = bytes(taken)
            if len(data) < min(most, answer["ContentLength"]):
                raise ConnectionError(errno.ECONNRESET, f"expected {answer['ContentLength']} bytes, found {len(data)}")
            if len(data) == size_in(answer) and not self.sums.whole(self._url(key), answer, data):
                raise ConnectionError(errno.EIO, "expected the bytes that the server has, found others")
            return answer, data

        found: tuple[Mapping[str, Any], bytes] = self.client.persist(self._url(key), get)
        return found

    def _url(self, key: str) -> str:
        return f"{self.client.url}/{key}"


def described(key: str, size: int, answer: Mapping[str, Any], modified: float) -> Entry:
    """Describe an object.

    Args:
        key: Which one.
        size: In bytes.
        answer: What the server said of it.
        modified: In seconds since the epoch.
    """
    # The same object has its ETag with and without quotes, and its time in whole seconds or finer, depending on
    # server and request. A weak ETag stands for more than one version.
    etag = (answer.get("ETag") or "W/").strip('"')
    identity = "" if etag.startswith("W/") else f"{etag}-{size}"
    return Entry(key=key, size=size, identity=identity, modified=float(int(modified)))


def size_in(answer: Mapping[str, Any]) -> int:
    """Find the size of a whole object in the answer to a request for a part of it."""
    size = answer.get("ContentRange", "").rpartition("/")[2]
    return int(size) if size.isdecimal() else int(answer["ContentLength"])


def etag_of(identity: str) -> str:
    """Return the ETag, as requests name it, of the version with this identity."""
    return f'"{identity.rpartition("-")[0]}"'


def date_of(answer: Mapping[str, Any]) -> float:
    """Read the server's clock off its answer, in seconds since the epoch."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
