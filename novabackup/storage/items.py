"""What a storage says of the things in it without reading them."""

from __future__ import annotations

from datetime import datetime

import attrs

from novabackup.format.records import Attributes


@attrs.frozen(kw_only=True)
class Entry:
    """What a storage says of an object without reading it.

    Attributes:
        key: Relative path in POSIX form.
        size: In bytes.
        identity: Differs whenever the content may differ; empty when the storage cannot vouch for it just now.
        modified: Time of the last change in seconds since the epoch, by the storage's own clock.
        attributes: Permission bits, owner and time, where the storage has such.
    """

    key: str
    size: int
    identity: str
    modified: float
    attributes: Attributes | None = None


@attrs.frozen(kw_only=True)
class Link:
    """A symbolic link.

    Attributes:
        key: Relative path in POSIX form.
        target: What it says, whether or not there is such a thing.
        attributes: Owner and time.
    """

    key: str
    target: str
    attributes: Attributes


@attrs.frozen(kw_only=True)
class Folder:
    """A folder, empty or not.

    Attributes:
        key: Relative path in POSIX form.
        attributes: Permission bits, owner and time.
    """

    key: str
    attributes: Attributes


@attrs.frozen(kw_only=True)
class Other:
    """What has no content that could be kept: a socket, a named pipe, a device.

    Attributes:
        key: Relative path in POSIX form.
        kind: What it is, for people.
    """

    key: str
    kind: str


Item = Entry | Link | Folder | Other
"""Anything that can stand under a key."""


@attrs.frozen(kw_only=True)
class Frozen:
    """An object in an archive, which cannot be read before it has been thawed.

    Attributes:
        key: Its key.
        size: In bytes.
        storage_class: The archive, as the storage names it.
        thawing: Whether that has been asked for already.
    """

    key: str
    size: int
    storage_class: str
    thawing: bool


@attrs.frozen(kw_only=True)
class Lock:
    """What keeps an object from being deleted.

    Attributes:
        key: Key of the object.
        until: When it ends; None if it ends only when it is removed.
    """

    key: str
    until: datetime | None

    def __str__(self) -> str:
        return f"locked until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "locked by a legal hold"
