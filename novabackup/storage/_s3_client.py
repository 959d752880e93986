"""The way to an S3 server: sessions of s3fs, requests that an interrupt ends, errors that say where and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import s3fs

from novabackup.errors import ConfigurationError
from novabackup.storage.objects import naming

_CONFIG: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"max_attempts": 5, "mode": "standard"},
    "max_pool_connections": 32,
    # All that is read is checked against hashes of our own. Servers exist that answer a range with the checksum of the
    # whole object, and others that do not know the checksums that newer clients send.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_BROKEN = (
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
)
_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.TokenRetrievalError,
)


class RefusedError(OSError):
    """An answer of the server that somebody here knows what to do about."""

    status = 0


class S3Client:
    """Sends requests, one by one, with the options that s3fs was given; several threads may do so at once.

    Attributes:
        requests: How many have been sent; one that the client repeats by itself counts once.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """Keep the options; nothing is sent yet.

        Args:
            url: Where the storage is, for messages.
            options: What ``s3fs.S3FileSystem`` takes.
        """
        config = {**_CONFIG, **options.get("config_kwargs", {})}
        ours = {"use_listings_cache": False, "skip_instance_cache": True, "asynchronous": False}
        self._options = {**options, "config_kwargs": config, **ours}
        self._url = url
        self._made: tuple[int, s3fs.S3FileSystem] | None = None
        self._counting = threading.Lock()
        self.requests = 0

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the caller wants to be noted with each object."""
        found: Mapping[str, str] = self._options.get("s3_additional_kwargs", {}).get("Metadata", {})
        return found

    def call(self, url: str, method: str, **request: Any) -> Mapping[str, Any]:
        """Send one request.

        Args:
            url: Of the object, for messages.
            method: As the client of botocore names it.
            request: Its arguments.

        Raises:
            RefusedError: The server answered 409, 412, 416 or 501.
        """
        with self.translated(url):
            answer: Mapping[str, Any] = self.run(lambda fs: fs._call_s3(method, **request))
            return answer

    @property
    def fs(self) -> s3fs.S3FileSystem:
        """The file system; a new one in a forked child, since connections cannot be shared."""
        if self._made is None or self._made[0] != os.getpid():
            try:
                self._made = os.getpid(), s3fs.S3FileSystem(**self._options)
            except (TypeError, KeyError, ValueError) as error:
                raise ConfigurationError(f"{self._url}: storage_options cannot be used: {error}") from error
        return self._made[1]

    def run(self, work: Callable[[s3fs.S3FileSystem], Coroutine[Any, Any, Any]]) -> Any:
        """Wait for work on the event loop of s3fs; whoever is interrupted while waiting leaves nothing running.

        s3fs itself would let a request go on after Ctrl-C, and it would take effect some time later.
        """
        with self._counting:
            self.requests += 1
        fs = self.fs
        if asyncio._get_running_loop() is fs.loop:
            raise ConfigurationError(
                f"{self._url}: used from within the event loop of fsspec. Use a thread of your own"
            )
        tasks: list[asyncio.Task[Any] | None] = []
        interrupted, ended = threading.Event(), threading.Event()

        async def tracked() -> Any:
            tasks.append(asyncio.current_task())
            try:
                return None if interrupted.is_set() else await work(fs)
            finally:
                ended.set()

        try:
            return asyncio.run_coroutine_threadsafe(tracked(), fs.loop).result()
        except BaseException:
            interrupted.set()  # before a look at the task: work that has not begun yet never will
            if tasks and tasks[0] and not ended.is_set():
                fs.loop.call_soon_threadsafe(tasks[0].cancel)
                ended.wait(_CONFIG["connect_timeout"])
            raise

    @contextlib.contextmanager
    def translated(self, url: str) -> Iterator[None]:
        """Turn what can go wrong on the way into errors that say where and what to do."""
        try:
            with naming(url):
                yield
        except _CREDENTIALS as error:
            raise ConfigurationError(
                f"{self._url}: found no usable credentials ({error}). Looked in storage_options (key, secret, token, "
                "profile), the AWS_* environment variables, the files in ~/.aws and the metadata of container and "
                "instance. Pass storage_options={'key': …, 'secret': …}, or {'anon': True} for what is public"
            ) from error
        except (botocore.exceptions.ConnectTimeoutError, botocore.exceptions.ReadTimeoutError) as error:
            raise TimeoutError(errno.ETIMEDOUT, str(error), url) from error
        except _BROKEN as error:
            if isinstance(error, OSError) and error.filename:
                raise
            raise ConnectionError(errno.ECONNABORTED, str(error) or type(error).__name__, url) from error
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{self._url}: the request cannot be made: {error}") from error
        except OSError as error:
            raise self._explained(error, url) from error.__cause__

    def _explained(self, error: OSError, url: str) -> OSError:
        """Say what the server's answer means, by its status and not by what s3fs made of it."""
        cause = error.__cause__.__cause__ if error.__cause__ else None
        response: Mapping[str, Any] = getattr(cause, "response", None) or {}
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code, text = response.get("Error", {}).get("Code", ""), error.strerror or str(error)
        if code == "NoSuchBucket":
            return FileNotFoundError(errno.ENOENT, "there is no such bucket. Create it, or mend the URL", url)
        if status == 404:
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
        if status in (401, 403):
            return PermissionError(errno.EACCES, f"the server refuses: {code} {text}", url)
        if status in (409, 412, 416, 501):
            refused = RefusedError(errno.ENOSYS if status == 501 else error.errno, f"{code} {text}", url)
            refused.status = status
            return refused
        return error
