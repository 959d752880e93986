"""Bytes under keys, atomically and durably; one module per kind of backend, chosen by the URL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novabackup.errors import ConfigurationError
from novabackup.storage.base import (
    Block,
    Entry,
    Folder,
    Frozen,
    Guarantees,
    Item,
    Link,
    Lock,
    Other,
    Part,
    Proof,
    Reader,
    Source,
    Span,
    Storage,
)
from novabackup.storage.local.storage import LocalStorage

__all__ = [
    "Block",
    "Entry",
    "Folder",
    "Frozen",
    "Guarantees",
    "Item",
    "Link",
    "Lock",
    "Other",
    "Part",
    "Proof",
    "Reader",
    "Source",
    "Span",
    "Storage",
    "open_storage",
    "protocol_of",
]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_ALIASES = {"local": "file", "s3a": "s3", "ssh": "sftp"}
_MISTAKEN = re.compile(
    r"(?:s3a?|sftp|ssh|memory|file|local|gs|gcs|https?|rest|rclone):|[^/:@]+@[^/:@]+:", re.IGNORECASE
)
"""How rsync, scp and restic name what is elsewhere, or a slash too few: no folder of that name is meant."""
_SECRETS = re.compile(r"(?<=://)[^/@]*@|[?#].*", re.DOTALL)


def open_storage(url: str | os.PathLike[str] | Storage, storage_options: Mapping[str, Any] | None = None) -> Storage:
    """Open the storage that a URL names; nothing is read or written yet.

    Args:
        url: A local path or ``file://``, ``s3://bucket/prefix``, ``sftp://user@host/path``, ``memory://``, or the URL
            of any other fsspec file system. A storage is given back as it is.
        storage_options: Options of the fsspec file system, credentials among them; those of asyncssh for ``sftp://``.

    Returns:
        The storage. Its ``url`` holds no credentials.

    Raises:
        ConfigurationError: The URL is malformed, its protocol unknown or its driver not installed, or an option cannot
            be used.
    """
    if isinstance(url, Storage):
        _no_options(url.url, storage_options)
        return url
    if not isinstance(url, str):
        _no_options(str(url), storage_options)
        return LocalStorage(url)
    match = _URL.fullmatch(url)
    if not match:
        if not url or "://" in url or "\0" in url:
            raise ConfigurationError(f"expected a path or a URL such as s3://bucket/prefix, found {_public(url)!r}")
        if mistaken := _MISTAKEN.match(url):
            raise ConfigurationError(
                f"expected a URL such as s3://bucket/prefix or sftp://user@host/path, found a text that begins with "
                f"{mistaken[0]!r} and has no '://'. A folder of that name is ./{mistaken[0]}…"
            )
        _no_options(url, storage_options)
        return LocalStorage(Path(url).expanduser())
    protocol, path = match[1].lower(), match[2]
    if "::" in url:
        raise ConfigurationError(
            f"{_public(url)}: chained file systems cannot be used, as they write neither atomically nor exclusively. "
            "Name the last one alone"
        )
    if protocol in ("file", "local"):
        _no_options(url, storage_options)
        if not path:
            raise ConfigurationError(f"{url}: expected a path after it, found nothing")
        return LocalStorage(path)
    return _remote(url, protocol, storage_options)


def protocol_of(url: str) -> str:
    """Return the kind of backend that a URL names, such as ``s3``; ``file`` for a path. Aliases count as one kind."""
    match = _URL.fullmatch(url)
    name = match[1].lower() if match else "file"
    return _ALIASES.get(name, name)


def _remote(url: str, protocol: str, storage_options: Mapping[str, Any] | None) -> Storage:
    """Open what is on servers; imported here, as the packages for them take a while and few processes need them."""
    if protocol in ("sftp", "ssh"):
        try:
            from novabackup.storage.sftp.storage import SftpStorage  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                f"{_public(url)}: {error}. Install it with: pip install 'novabackup[sftp]'"
            ) from error
        return SftpStorage(url, storage_options)
    if protocol in ("s3", "s3a"):
        try:
            from novabackup.storage.s3.storage import S3Storage  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(f"{_public(url)}: {error}. Install the package s3fs") from error
        return S3Storage(url, storage_options)
    return _generic(url, protocol, dict(storage_options or {}))


def _generic(url: str, protocol: str, options: dict[str, Any]) -> Storage:
    """Open any other file system that fsspec knows."""
    from fsspec import available_protocols, get_filesystem_class  # noqa: PLC0415

    from novabackup.storage.generic import MemoryStorage, ObjectStorage  # noqa: PLC0415

    if protocol not in available_protocols():
        known = ", ".join(sorted(available_protocols()))
        raise ConfigurationError(f"{_public(url)}: the protocol {protocol!r} is unknown. Known are: {known}")
    try:
        kind = get_filesystem_class(protocol)
        arguments = {**kind._get_kwargs_from_urls(url), **options}
        fs = kind(**{**arguments, "use_listings_cache": False, "skip_instance_cache": True})
        root = kind._strip_protocol(url)
    except ImportError as error:
        raise ConfigurationError(f"{_public(url)}: the driver for {protocol}:// is missing: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        # Not chained: what was passed, secrets included, can be part of such errors.
        raise ConfigurationError(
            f"{_public(url)}: the file system for {protocol}:// does not take this URL with these storage_options "
            f"({', '.join(sorted(options)) or 'none'}): {type(error).__name__}"
        ) from None
    return (MemoryStorage if protocol == "memory" else ObjectStorage)(fs, root, _public(url))


def _public(url: str) -> str:
    """Leave out what may be secret: name and password, query and fragment."""
    return _SECRETS.sub("", url)


def _no_options(where: str, options: Mapping[str, Any] | None) -> None:
    if options:
        raise ConfigurationError(
            f"{_public(where)}: expected no storage_options, found {', '.join(sorted(options))}. Leave them out here"
        )
