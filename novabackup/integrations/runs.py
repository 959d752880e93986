"""Records the outcome of work: a failed attempt leaves no snapshot, but operators have to know about it.

A log is a folder with two small JSON files for each kind of work on each store: the last run, and the last good one. It
is for monitoring only; no backup or restore depends on it. Each has its own file, so concurrent writers need no
coordination.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

import attrs
import msgspec
from blake3 import blake3

from novabackup.storage import Storage, open_storage

__all__ = ["Kind", "Run", "RunLog"]

_LOG = logging.getLogger("novabackup")

Kind = Literal["backup", "ingest", "restore", "verify", "check", "drill", "copy", "forget", "prune"]
"""The kinds of work."""

_KEY = re.compile(r"[a-z]+-[0-9a-f]{16}-(last|good)\.json")
_MOST = 64 << 10


def _has_zone(_instance: object, _field: object, value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, found {value}")


@attrs.frozen(kw_only=True)
class Run:
    """One piece of work that has ended.

    Attributes:
        kind: Kind of work.
        store: URL of the store, without credentials; empty for work on a repository as a whole.
        repository: URL of the repository, without credentials.
        ended: When it ended.
        duration: How long it took, in seconds.
        error: Why it failed, without secrets; empty if it succeeded.
        snapshot: Id of the snapshot that it took, restored or verified; empty if there is none.
    """

    kind: Kind = attrs.field(validator=attrs.validators.in_(get_args(Kind)))
    store: str = ""
    repository: str
    ended: datetime = attrs.field(validator=_has_zone)
    duration: float = attrs.field(validator=attrs.validators.ge(0.0))
    error: str = ""
    snapshot: str = ""

    @property
    def good(self) -> bool:
        """Whether it succeeded."""
        return not self.error


class RunLog:
    """The last run, and the last good one, of each kind of work on each store and repository."""

    def __init__(
        self, place: str | os.PathLike[str] | Storage, *, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Open the log; its folder is created by the first record.

        Args:
            place: A folder on this host, such as ``/var/lib/novabackup``, any fsspec URL, or a storage. It should not
                be where the repository is, since that may be what fails.
            storage_options: Keyword arguments for the fsspec file system.

        Raises:
            ConfigurationError: The URL cannot be used.
        """
        self._storage = open_storage(place, storage_options)

    def record(self, run: Run) -> None:
        """Record a run durably."""
        data = msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n"
        name = blake3("\0".join((run.store, run.repository)).encode()).hexdigest()[:16]
        if run.good:
            self._storage.write(f"{run.kind}-{name}-good.json", [data])
        self._storage.write(f"{run.kind}-{name}-last.json", [data])

    def runs(self) -> tuple[Run, ...]:
        """Return all recorded runs; a file that cannot be read is skipped with a warning."""
        found = []
        for key in filter(_KEY.fullmatch, list(self._storage.keys())):
            try:
                part = self._storage.read_part(key, 0, _MOST)
                found.append(msgspec.json.decode(part.data, type=Run))
            except FileNotFoundError:
                continue
            except (OSError, msgspec.MsgspecError, RecursionError) as error:
                _LOG.warning("%s/%s is skipped: %s", self._storage.url, key, error)
        return tuple(found)

    def __str__(self) -> str:
        return self._storage.url

    def __repr__(self) -> str:
        return f"RunLog({self._storage.url!r})"
