"""Bytes under keys in S3 buckets."""

from novabackup.storage.s3.storage import S3Storage

__all__ = ["S3Storage"]
