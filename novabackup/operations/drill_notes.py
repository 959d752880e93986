"""Results of drills that a repository keeps."""

from __future__ import annotations

import logging

from novabackup.format.layout import DRILL_NAME, DRILLS, dated_key
from novabackup.format.records import Drill
from novabackup.objects.objects import Objects

_LOG = logging.getLogger("novabackup")

_DRILLS_KEPT = 100


def keys(objects: Objects) -> list[str]:
    """List the results of drills that are there, oldest first, readable or not."""
    return sorted(filter(DRILL_NAME.fullmatch, objects.storage.keys(DRILLS)))


def read(objects: Objects) -> list[Drill]:
    """Read how drills went, oldest first; results that cannot be read are passed over with a warning."""
    found = (drill for _key, drill in objects.access.readable_records(keys(objects), Drill))
    return sorted(found, key=lambda drill: drill.time)  # keys tell seconds, in which several may fit


def add(objects: Objects, record: Drill) -> str:
    """Note how a drill went; give the key of the note. The oldest of many notes go."""
    key = dated_key(DRILLS)
    objects.access.write_record(key, record)
    for old in keys(objects)[:-_DRILLS_KEPT]:
        try:
            objects.storage.delete(old)
        except PermissionError as error:
            _LOG.info("%s stays: %s", old, error)
    return key
