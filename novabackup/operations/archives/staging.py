"""Unpack what is imported into a temporary folder, and back that up as a snapshot of the past."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing

import attrs
from blake3 import blake3
from fsspec.callbacks import Callback

from novabackup.errors import FormatError, IntegrityError, NotFoundError
from novabackup.format.records import Attributes, Point
from novabackup.objects.objects import Objects
from novabackup.operations import backup
from novabackup.operations.archives.plan import ImportPlan, Intake
from novabackup.operations.backup import Past, Request
from novabackup.storage import open_storage
from novabackup.store.store import IndexStore

_LOG = logging.getLogger("novabackup")

IMPORTED_TAG = "imported"

_Block = bytes | memoryview
Contents = Generator[tuple[Intake, Attributes | None, Iterator[_Block]], None, None]
"""Files with their content, which has to be read before the next file is asked for."""


def labelled(request: Request, tags: tuple[str, ...], source: str) -> Request:
    """Add the tags of an import to what the caller wants, and a message if there is none."""
    message = request.message or f"imported from {source}"
    return attrs.evolve(request, tags=tuple(dict.fromkeys((*tags, *request.tags))), message=message)


def back_up(
    objects: Objects, plan: ImportPlan, store: IndexStore, contents: Contents, request: Request, callback: Callback
) -> Point:
    """Unpack the files of a plan and take a snapshot of them; return the existing one if they were imported before."""
    with tempfile.TemporaryDirectory(prefix="novabackup-") as folder:
        free = shutil.disk_usage(folder).free
        if plan.size > free:
            expected = f"expected room for {plan.size} bytes to unpack {plan.source}, found {free}"
            raise OSError(errno.ENOSPC, f"{expected}. Set TMPDIR to another disk", folder)
        stage = open_storage(folder)
        unpacked: dict[str, tuple[int, str]] = {}
        attributes: dict[str, Attributes] = {}
        with closing(contents):
            for file, own, content in contents:
                whole = blake3()
                size = stage.write(file.path, _hashed(content, whole)).size
                unpacked[file.path] = size, whole.hexdigest()
                if own is not None:
                    attributes[file.path] = own
        if unpacked.keys() != {file.path for file in plan.files}:
            raise IntegrityError(f"{plan.source} held other files when it was read for the second time. Try again")
        known = _known(objects, plan, unpacked)
        if known is not None:
            _LOG.info("%s was imported before, as snapshot %s", plan.source, known.id)
            return known
        staged = IndexStore(stage, components=store.components, checks=store.checks, exclude=store.exclude)
        past = Past(time=plan.time, store=store.url, attributes=attributes)
        return backup.execute(objects, staged, attrs.evolve(request, past=past), callback)


def _hashed(content: Iterator[_Block], whole: blake3) -> Iterator[_Block]:
    for block in content:
        whole.update(block)
        yield block


def _known(objects: Objects, plan: ImportPlan, unpacked: Mapping[str, tuple[int, str]]) -> Point | None:
    """Find the snapshot of the same time, store and content."""
    start = f"{plan.time:%Y%m%dT%H%M%SZ}-{plan.time.microsecond:05x}"
    for name in objects.records.names():
        if name.startswith(start):
            try:
                point = objects.records.point(name)
            except (IntegrityError, FormatError, NotFoundError):
                continue  # damaged or forgotten, so it does not stand in for this one
            same = {entry.path: (entry.size, entry.blake3) for entry in point.record.files} == unpacked
            if same and point.record.store == plan.store:
                return point
    return None
