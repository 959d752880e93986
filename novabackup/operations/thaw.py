"""Request content that lies in an archive, and wait until it can be read: `plan` and `execute`."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection

import attrs
from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support import html
from novabackup._support.paths import matches
from novabackup._support.threads import Workers
from novabackup.errors import ArchivedError, ConfigurationError
from novabackup.format.layout import pack_key
from novabackup.format.records import Point
from novabackup.objects.objects import Objects
from novabackup.operations.restore.plan import require_paths
from novabackup.storage import Frozen

POLL = 60.0
"""Seconds between two checks of what is thawing."""


@attrs.frozen(kw_only=True)
class ThawPlan:
    """What `thaw` would request; true if any content cannot be read yet.

    Attributes:
        snapshot: Id of the snapshot.
        paths: Files and patterns that it is limited to; empty for all.
        frozen: Packs that have to be requested.
        thawing: Packs that have been requested and cannot be read yet.
        readable: Number of needed packs that can be read.
    """

    snapshot: str
    paths: tuple[str, ...]
    frozen: tuple[Frozen, ...]
    thawing: tuple[Frozen, ...]
    readable: int

    @property
    def size(self) -> int:
        """Bytes of the packs that have to be requested, which cost money."""
        return sum(pack.size for pack in self.frozen)

    def __bool__(self) -> bool:
        return bool(self.frozen or self.thawing)

    def __str__(self) -> str:
        where = ", ".join(sorted({pack.storage_class for pack in (*self.frozen, *self.thawing)}))
        return (
            f"packs to be thawed: {len(self.frozen)} ({html.size(self.size)}), thawing: {len(self.thawing)}"
            f"{f' ({where})' if where else ''}, readable: {self.readable}"
        )

    def _repr_html_(self) -> str:
        rows = [
            (word, pack.key, html.size(pack.size), pack.storage_class)
            for word, packs in (("frozen", self.frozen), ("thawing", self.thawing))
            for pack in packs
        ]
        return html.table(f"Thawing {self.snapshot}: {self}", ["state", "pack", "size", "storage class"], rows)


def plan(objects: Objects, point: Point, paths: Collection[str] = ()) -> ThawPlan:
    """Find which packs of a snapshot, or of some of its files, cannot be read yet.

    Raises:
        NotFoundError: A path is not in the snapshot.
    """
    require_paths(point.id, [entry.path for entry in point.record.files], paths)
    files = [entry for entry in point.record.files if not paths or any(matches(entry.path, path) for path in paths)]
    keys = sorted({pack_key(pack) for entry in files for pack in entry.packs})
    found = objects.storage.frozen(keys)
    return ThawPlan(
        snapshot=point.id,
        paths=tuple(paths),
        frozen=tuple(pack for pack in found if not pack.thawing),
        thawing=tuple(pack for pack in found if pack.thawing),
        readable=len(keys) - len(found),
    )


def require_readable(objects: Objects, point: Point, purpose: str, paths: Collection[str] | None = None) -> None:
    """Check that content of some files, by default all, can be read now; ``purpose`` says what needs it.

    Raises:
        ArchivedError: It has to be thawed first.
    """
    if paths is not None and not paths:
        return
    if todo := plan(objects, point, paths or ()):
        raise ArchivedError(
            f"{purpose}, but the content of snapshot {point.id} in {objects.url} cannot be read yet: {todo}. See "
            "its plan_thaw(), call its thaw(), and try again when that is done"
        )


def execute(
    objects: Objects,
    todo: ThawPlan,
    point: Point,
    *,
    days: int,
    tier: str,
    timeout: float | None,
    callback: Callback = DEFAULT_CALLBACK,
) -> None:
    """Request what is frozen, and wait for it.

    Args:
        objects: The repository.
        todo: What is frozen.
        point: The snapshot.
        days: How long it stays readable.
        tier: How fast it is retrieved.
        timeout: Seconds to wait until all can be read; None does not wait.
        callback: Progress in packs (an fsspec callback).

    Raises:
        ConfigurationError: The storage does not accept the request.
        ArchivedError: It cannot be read before the timeout.
    """
    if days < 1:
        raise ConfigurationError(f"expected a number of days from 1 on, found {days}")
    storage = objects.storage
    with Workers(storage.parallel, storage.parallel) as workers:
        for _requested in workers.each(functools.partial(storage.thaw, days=days, tier=tier), todo.frozen):
            pass
    if timeout is None:
        return
    deadline = time.monotonic() + timeout
    callback.set_size(len(todo.frozen) + len(todo.thawing) + todo.readable)
    while left := plan(objects, point, todo.paths):
        callback.absolute_update(left.readable)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise ArchivedError(
                f"snapshot {todo.snapshot} in {objects.url}: after {timeout:.0f} s {left}. Thawing continues: call "
                "thaw(timeout=…) again later, or see plan_thaw()"
            )
        time.sleep(min(POLL, remaining))
    callback.absolute_update(left.readable)
