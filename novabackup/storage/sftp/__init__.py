"""Bytes under keys on SFTP servers."""

from novabackup.storage.sftp.storage import SftpStorage

__all__ = ["SftpStorage"]
