"""What S3 says of an object that cannot be read or deleted for now: archive classes and Object Lock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from novabackup.storage.base import Frozen, Lock
from novabackup.storage.s3.bucket import date_of
from novabackup.storage.s3.client import ARCHIVES

MAY_BE_FROZEN = ARCHIVES | {"INTELLIGENT_TIERING"}
"""Storage classes, as lists name them, of which each object has to be looked at."""


def frozen_state(key: str, answer: Mapping[str, Any]) -> Frozen | None:
    """Read off the answer to a look at an object that it cannot be read; None if it can."""
    archive = answer.get("ArchiveStatus") or answer.get("StorageClass", "")
    restore = answer.get("Restore", "")
    if 'ongoing-request="false"' in restore or not (archive in ARCHIVES or answer.get("ArchiveStatus")):
        return None
    return Frozen(
        key=key,
        size=answer["ContentLength"],
        storage_class=archive,
        thawing='ongoing-request="true"' in restore,
    )


def thaw_request(frozen: Frozen, days: int, tier: str) -> dict[str, Any]:
    """Say how to ask for an object to become readable."""
    request: dict[str, Any] = {"GlacierJobParameters": {"Tier": tier}}
    # What intelligent tiering has put away comes back for good.
    return {"Days": days, **request} if frozen.storage_class in ARCHIVES else request


def lock_state(key: str, answer: Mapping[str, Any]) -> Lock | None:
    """Read off the answer to a look at an object that it may not be deleted; None if it may."""
    if answer.get("ObjectLockLegalHoldStatus") == "ON":
        return Lock(key=key, until=None)
    until: datetime | None = answer.get("ObjectLockRetainUntilDate")
    if until is None or until.timestamp() <= date_of(answer):
        return None
    return Lock(key=key, until=until.astimezone(UTC))


def retained_until(rule: Mapping[str, Any], now: float) -> datetime:
    """Say until when an object is locked that is written now.

    Args:
        rule: The default retention of the bucket, in days or in years.
        now: In seconds since the epoch.
    """
    days = (rule.get("Days") or 0) + 365 * (rule.get("Years") or 0)
    return datetime.fromtimestamp(now, UTC) + timedelta(days=days)
