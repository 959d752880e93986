"""Import the copies that a script made before each ingestion: `plan` and `execute`."""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

import attrs
from fsspec.callbacks import Callback

from novabackup.format.records import Point
from novabackup.objects.objects import Objects
from novabackup.operations.archives import staging
from novabackup.operations.archives.plan import ImportPlan, Intake, is_plausible, named_time, place
from novabackup.operations.archives.staging import IMPORTED_TAG, Contents
from novabackup.operations.backup import Request
from novabackup.storage import Storage, open_storage
from novabackup.storage.raw import read_blocks
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")

PRE_INGEST_TAG = "pre-ingest"
_COPY = re.compile(r"([^/]+)\.pre_ingest_(\d{8}_\d{6})")


@attrs.frozen
class PreIngest:
    """A folder with files such as ``faiss_index.bin.pre_ingest_20260125_143000``. Usually a path or URL is enough.

    Attributes:
        url: The folder, at a path or any URL.
        tz: Time zone of the names; by default that of this host.
        storage_options: Keyword arguments for the fsspec file system; never written anywhere.
    """

    url: str | os.PathLike[str]
    tz: tzinfo | None = attrs.field(default=None, kw_only=True)
    storage_options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, repr=False)


def plan(folder: PreIngest, store: IndexStore) -> tuple[ImportPlan, ...]:
    """Plan the snapshots that an import of the copies in a folder would make, oldest first; change nothing."""
    storage = open_storage(folder.url, folder.storage_options)
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for key in storage.keys():  # noqa: SIM118 - no mapping
        found = _COPY.fullmatch(key)
        if found:
            groups[found[2]][found[1]] = key
    plans = []
    for stamp, copies in groups.items():
        named = named_time(stamp, folder.tz)
        if named is None or not is_plausible(named[0]):
            names = ", ".join(copies.values())
            _LOG.warning("%s: %s is skipped, since %s is no time in the past", storage.url, names, stamp)
        elif placed := place(copies, "", store.declared):
            plans.append(
                ImportPlan(
                    source=storage.url,
                    store=store.url,
                    time=named[0],
                    files=tuple(
                        Intake(path=path, source=copies[name], size=storage.entry(copies[name]).size)
                        for path, name in sorted(placed.items())
                    ),
                    left_out=tuple(sorted(copies[name] for name in copies.keys() - set(placed.values()))),
                )
            )
    return tuple(sorted(plans, key=lambda plan: plan.time))


def execute(
    objects: Objects, folder: PreIngest, store: IndexStore, request: Request, callback: Callback
) -> list[Point]:
    """Import copies, each time as a snapshot. A file that was not copied is one of its problems.

    Returns:
        Ids and records of the snapshots, oldest first, including those that were imported before.
    """
    storage = open_storage(folder.url, folder.storage_options)
    taken = []
    for todo in plan(folder, store):
        stamp = todo.files[0].source.partition(".pre_ingest_")[2]
        wanted = staging.labelled(request, (PRE_INGEST_TAG, IMPORTED_TAG), stamp)
        taken.append(staging.back_up(objects, todo, store, _contents(storage, todo), wanted, callback))
    return taken


def _contents(storage: Storage, todo: ImportPlan) -> Contents:
    for file in todo.files:
        with storage.open(file.source) as reader:
            yield file, reader.entry.attributes, read_blocks(reader)
            reader.confirm()
