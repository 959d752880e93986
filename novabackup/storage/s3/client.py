"""The way to an S3 server: sessions of s3fs, and requests that are tried again while that can help."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from time import monotonic, sleep
from typing import Any

import s3fs

from novabackup.errors import ConfigurationError
from novabackup.storage.s3.errors import explained, passes, wanted_pause

_CONFIG: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
    # All that is read is checked against hashes of our own. Servers exist that answer a range with the checksum of the
    # whole object, and others that do not know the checksums that newer clients send.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_SIGNATURES = {"payload_signing_enabled": False}
"""All content goes with its MD5 sum, which is signed; to sign a second sum of it would cost as much as sending it."""
_ONCE = {"total_max_attempts": 1, "mode": "standard"}
"""botocore and s3fs both try again by themselves, one within the other; here is one loop that knows when to give up."""

MOST_ATTEMPTS = 8
GIVE_UP_AFTER = 60.0
"""Seconds after which no new attempt is begun; the second one always is."""
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 10.0

_ABOUT_OBJECTS = frozenset(
    {
        "ACL",
        "BucketKeyEnabled",
        "CacheControl",
        "ChecksumAlgorithm",
        "ContentType",
        "ExpectedBucketOwner",
        "GrantFullControl",
        "GrantRead",
        "GrantReadACP",
        "GrantWriteACP",
        "Metadata",
        "RequestPayer",
        "SSECustomerAlgorithm",
        "SSECustomerKey",
        "SSEKMSEncryptionContext",
        "SSEKMSKeyId",
        "ServerSideEncryption",
        "StorageClass",
        "Tagging",
    }
)
"""What ``s3_additional_kwargs`` may have: how objects are kept. Which objects and which bytes, is said by us alone."""

ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes whose objects cannot be read before they have been thawed."""


class S3Client:
    """Sends requests, one by one, with the options that s3fs was given; several threads may do so at once.

    Attributes:
        url: Where the storage is, for messages.
        extra: Parameters of each object: encryption, access, metadata.
        requests: How many have been sent, repeated ones among them.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """Check the options; nothing is sent yet.

        Args:
            url: Where the storage is, for messages.
            options: What ``s3fs.S3FileSystem`` takes.

        Raises:
            ConfigurationError: An option is unknown or cannot be.
        """
        _check(url, options)
        config = {**_CONFIG, **(options.get("config_kwargs") or {})}
        self._attempts = _attempts(config.get("retries"))
        config["retries"] = _ONCE
        config["s3"] = {**_SIGNATURES, **(config.get("s3") or {})}
        if "http_session_cls" not in config:  # another one than that of aiohttp makes sockets of its own
            config["connector_args"] = {"socket_factory": _prompt_socket, **(config.get("connector_args") or {})}
        ours = {"use_listings_cache": False, "skip_instance_cache": True, "asynchronous": False}
        self._options = {**options, "config_kwargs": config, **ours}
        self.url = url
        self.extra: Mapping[str, Any] = options.get("s3_additional_kwargs") or {}
        self._made: tuple[int, s3fs.S3FileSystem] | None = None
        self._counting = threading.Lock()
        self.requests = 0

    def call(self, url: str, method: str, **request: Any) -> Mapping[str, Any]:
        """Send one request.

        Args:
            url: Of the object, for messages.
            method: As the client of botocore names it.
            request: Its arguments; those of ``s3_additional_kwargs`` that it knows are added.

        Raises:
            RefusedError: The server answered 409, 412, 416 or 501.
        """
        answer: Mapping[str, Any] = self.persist(url, lambda fs: fs._call_s3(method, **request))
        return answer

    def persist(self, url: str, work: Callable[[s3fs.S3FileSystem], Coroutine[Any, Any, Any]]) -> Any:
        """Do work of one request, and do it again while what goes wrong may pass by itself.

        Args:
            url: Of the object, for messages.
            work: May be done several times.

        Raises:
            ConfigurationError: There are no usable credentials, or the request cannot be made.
            OSError: The server refuses, or went on failing.
        """
        began = monotonic()
        for attempt in itertools.count(1):
            try:
                return self.run(work)
            except Exception as error:  # noqa: BLE001 - raised again, explained
                passed = monotonic() - began
                again, tried = passes(error), ""
                pause = max(_pause(attempt), wanted_pause(error))
                if again and attempt < self._attempts and (attempt == 1 or passed + pause < GIVE_UP_AFTER):
                    sleep(min(pause, GIVE_UP_AFTER))
                    continue
                if again:
                    tried = f" (gave up after {attempt} attempts in {passed:.0f} s)"
                meant = explained(error, url, self.url, tried)
                raise meant from (error if meant is not error else error.__cause__)
        raise AssertionError("unreachable")

    @property
    def fs(self) -> s3fs.S3FileSystem:
        """The file system; a new one in a forked child, since connections cannot be shared."""
        if self._made is None or self._made[0] != os.getpid():
            try:
                fs = s3fs.S3FileSystem(**self._options)
            except (TypeError, KeyError, ValueError) as error:
                raise ConfigurationError(f"{self.url}: storage_options cannot be used: {error}") from error
            fs.retries = 1
            self._made = os.getpid(), fs
        return self._made[1]

    def run(self, work: Callable[[s3fs.S3FileSystem], Coroutine[Any, Any, Any]]) -> Any:
        """Wait for work on the event loop of s3fs; a caller that is interrupted while waiting leaves nothing running.

        s3fs itself would let a request go on after Ctrl-C, and it would take effect some time later.
        """
        with self._counting:
            self.requests += 1
        fs = self.fs
        if asyncio._get_running_loop() is fs.loop:
            raise ConfigurationError(f"{self.url}: used from within the event loop of fsspec. Use a thread of your own")
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


class _PromptSocket(socket.socket):
    """A connection on which what arrives is acknowledged at once.

    Some servers send an answer's head and its body one after the other, and the body only when the head has been
    acknowledged. A system in no hurry to do so makes each small answer take 40 ms.
    """

    def send(self, data: Any, flags: int = 0) -> int:
        sent = super().send(data, flags)
        # Here, since the system goes back to its usual way whenever something is sent.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return sent


def _prompt_socket(address: Any) -> socket.socket:
    """Make a socket for an address that was looked up."""
    family, kind, protocol, *_rest = address
    return (_PromptSocket if hasattr(socket, "TCP_QUICKACK") else socket.socket)(family, kind, protocol)


def _check(url: str, options: Mapping[str, Any]) -> None:
    """Refuse options that s3fs would not take, or only find out about at the first request."""
    known = {"profile", "skip_instance_cache", "use_listings_cache", "listings_expiry_time", "max_paths"}
    known.update(inspect.signature(s3fs.S3FileSystem.__init__).parameters)
    unknown = sorted(options.keys() - (known - {"self", "kwargs"}))
    extra = options.get("s3_additional_kwargs") or {}
    if misplaced := [name for name in unknown if name in _ABOUT_OBJECTS]:
        raise ConfigurationError(
            f"{url}: {', '.join(misplaced)} in storage_options would have no effect. Write "
            f"storage_options={{'s3_additional_kwargs': {{{misplaced[0]!r}: …}}}}"
        )
    if unknown:
        raise ConfigurationError(
            f"{url}: expected storage_options that s3fs knows, found {', '.join(unknown)}. Leave them out or mend them"
        )
    if strange := sorted(extra.keys() - _ABOUT_OBJECTS):
        raise ConfigurationError(
            f"{url}: s3_additional_kwargs may have {', '.join(sorted(_ABOUT_OBJECTS))}; found {', '.join(strange)}"
        )
    if extra.get("StorageClass") in ARCHIVES:
        raise ConfigurationError(
            f"{url}: with StorageClass {extra['StorageClass']!r} in s3_additional_kwargs nothing could be read back at "
            f"once, not even a list of snapshots. Write Repository(…, storage_class={extra['StorageClass']!r}), which "
            "is for the content alone"
        )


def _attempts(retries: Mapping[str, Any] | None) -> int:
    """Read how many attempts the caller wants, as botocore counts them."""
    if retries and "total_max_attempts" in retries:
        return int(retries["total_max_attempts"])
    return int(retries["max_attempts"]) + 1 if retries and "max_attempts" in retries else MOST_ATTEMPTS


def _pause(attempt: int) -> float:
    """Return the seconds to wait after an attempt; spread at random, so that those who met do not meet again."""
    longest = min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
    return longest * (0.5 + secrets.randbelow(500) / 1000)
