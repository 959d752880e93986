"""What a snapshot says of single things: a file, a link, a folder, what was found out about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from novabackup._support.paths import unsafe
from novabackup.errors import Problem

__all__ = [
    "FAILED_TAG",
    "REPLACED_TAG",
    "SIDE_TAGS",
    "Attributes",
    "FileEntry",
    "FolderEntry",
    "LinkEntry",
    "Problem",
    "Report",
    "Run",
]

Run = tuple[int, int, int]
"""Consecutive chunks of a file: number of the pack in ``FileEntry.packs``, first chunk in it, count of chunks."""

FAILED_TAG = "failed-ingest"
"""Tag of the snapshots of what a failed block left behind."""

REPLACED_TAG = "before-restore"
"""Tag of the snapshots of what a restore replaced."""

SIDE_TAGS = frozenset({FAILED_TAG, REPLACED_TAG})
"""Tags of snapshots of what a rollback or restore replaced: not what the store was meant to hold."""

HASH_DIGITS = 64
_HASH = re.compile(f"[0-9a-f]{{{HASH_DIGITS}}}")


def safe_path(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    reason = unsafe(value)
    if reason:
        raise ValueError(f"path {value!r} cannot be used: {reason}")


def _hex_hash(_instance: object, field: attrs.Attribute[Any], value: str) -> None:
    if not _HASH.fullmatch(value):
        raise ValueError(f"{field.name} is not 64 hexadecimal digits: {value!r}")


def hex_hashes(instance: object, field: attrs.Attribute[Any], values: Sequence[str]) -> None:
    if not all(map(_HASH.fullmatch, values)):  # all at once, since a snapshot may name thousands
        for value in values:
            _hex_hash(instance, field, value)


_LARGEST = (1 << 63) - 1
"""JSON numbers are unbounded; code that shows, adds or divides them relies on a bound."""

natural = attrs.validators.and_(attrs.validators.ge(0), attrs.validators.le(_LARGEST))
_LATEST = 1 << 80
"""Nanoseconds since 1970: file systems go beyond the year 2262, which 64 bits do not."""
_signed = attrs.validators.and_(attrs.validators.ge(-_LARGEST), attrs.validators.le(_LARGEST))
limited = attrs.validators.optional(_signed)


def moment(_instance: object, field: attrs.Attribute[Any], value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"{field.name} {value} has no time zone")
    if not datetime.min.year < value.year < datetime.max.year:
        raise ValueError(f"{field.name} {value} is none that every time zone has")


@attrs.frozen(kw_only=True)
class Report:
    """What a component found when it looked at one file.

    Attributes:
        component: Name of the component's class, such as ``Faiss``.
        path: The file, relative to the store.
        exists: False when there is no such file; all else is then None.
        size: Size in bytes.
        count: Number of vectors, documents or entries; None where the file has no such number.
        dimension: Dimension of the vectors (bits for binary indexes); None where the file has none.
        kind: What the file is, such as ``IndexIVFPQ`` or ``BM25Okapi``.
        written_with: What can be read off the file of the program that wrote it, such as ``pickle protocol 4``.
        problems: Damage that was seen.
    """

    component: str
    path: str = attrs.field(validator=safe_path)
    exists: bool
    size: int | None = attrs.field(default=None, validator=limited)
    count: int | None = attrs.field(default=None, validator=limited)
    dimension: int | None = attrs.field(default=None, validator=limited)
    kind: str | None = None
    written_with: str | None = None
    problems: tuple[Problem, ...] = ()


@attrs.frozen(kw_only=True)
class Attributes:
    """What belongs to a file beside its bytes: permission bits, owner, time of the last change in nanoseconds."""

    mode: int = attrs.field(validator=attrs.validators.in_(range(0o10000)))
    uid: int = attrs.field(validator=attrs.validators.in_(range(1 << 32)))
    gid: int = attrs.field(validator=attrs.validators.in_(range(1 << 32)))
    mtime_ns: int = attrs.field(validator=attrs.validators.in_(range(-_LATEST, _LATEST)))


@attrs.frozen(kw_only=True)
class FileEntry:
    """One file of a snapshot.

    Attributes:
        path: Relative to the store.
        size: In bytes.
        blake3: Hash of the whole content, as ``b3sum`` prints it.
        packs: Ids of the packs that hold the content; runs count in this list.
        runs: Where the content is, in order.
        depth: 0 if the runs hold the content; 1 if there are so many that they are content themselves, and ``runs``
            holds their list.
        attributes: None for files that come from an object store.
        identity: How the storage identified this version; empty if it could not.
        report: What the component reported about it.
    """

    path: str = attrs.field(validator=safe_path)
    size: int = attrs.field(validator=natural)
    blake3: str = attrs.field(validator=_hex_hash)
    packs: tuple[str, ...] = attrs.field(validator=hex_hashes)
    runs: tuple[Run, ...]
    depth: int = attrs.field(default=0, validator=attrs.validators.in_((0, 1)))
    attributes: Attributes | None = None
    identity: str = ""
    report: Report | None = None

    def __attrs_post_init__(self) -> None:
        for pack, first, count in self.runs:
            if not 0 <= pack < len(self.packs) or first < 0 or count < 1:
                raise ValueError(f"{self.path}: run {(pack, first, count)} cannot be")


def _link_target(_instance: object, _field: attrs.Attribute[str], value: str) -> None:
    if not value or "\0" in value:
        raise ValueError(f"{value!r} is nothing that a link can lead to")


@attrs.frozen(kw_only=True)
class LinkEntry:
    """One symbolic link of a snapshot.

    Attributes:
        path: Relative to the store.
        target: What it says; any text, which is never followed.
        attributes: Owner and times; links have no permission bits of their own.
    """

    path: str = attrs.field(validator=safe_path)
    target: str = attrs.field(validator=_link_target)
    attributes: Attributes | None = None


@attrs.frozen(kw_only=True)
class FolderEntry:
    """One folder of a snapshot, empty or not.

    Attributes:
        path: Relative to the store.
        attributes: Permission bits, owner and times.
    """

    path: str = attrs.field(validator=safe_path)
    attributes: Attributes | None = None
