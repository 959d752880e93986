"""Bytes under keys on local file systems."""

from novabackup.storage.local.storage import LocalStorage

__all__ = ["LocalStorage"]
