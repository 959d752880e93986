"""What a storage says of the things in it without reading them."""

from __future__ import annotations

import attrs

from novabackup.model import Attributes

__all__ = ["Entry", "Folder", "Item", "Link", "Other"]


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
