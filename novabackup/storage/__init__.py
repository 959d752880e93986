"""Bytes under keys, atomically and durably; one module per kind of backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from novabackup.errors import ConfigurationError
from novabackup.storage.base import Entry, Guarantees, Reader, Storage
from novabackup.storage.local import LocalStorage

__all__ = ["Entry", "Guarantees", "Reader", "Storage", "open_storage"]


def open_storage(url: str | os.PathLike[str] | Storage, storage_options: Mapping[str, Any] | None = None) -> Storage:
    """Open a storage; see below."""
    if isinstance(url, Storage):
        return url
    url = os.fspath(url)
    if "://" in url and not url.startswith("file://"):
        raise ConfigurationError("not yet")
    return LocalStorage(url.removeprefix("file://"))
