"""Check a repository: that every object is intact, and that snapshots have all packs that they name: `execute`."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from fsspec.callbacks import Callback

from novabackup._support.text import first_of
from novabackup._support.threads import Workers, cores
from novabackup.errors import ArchivedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import (
    CONDEMNED,
    CONFIG_KEY,
    EXTRACT_KEY,
    FORGOTTEN,
    KEYS,
    README_KEY,
    pack_key,
    pin_key,
    snapshot_key,
)
from novabackup.format.readme import readme_intact, script_intact
from novabackup.format.records import Condemned, Drill, Forgotten, Pin, Problem
from novabackup.objects.objects import Objects
from novabackup.objects.packs import neighbours
from novabackup.objects.slots import read_config, read_slot
from novabackup.operations import pins
from novabackup.operations.drill import drill_keys
from novabackup.storage import Entry
from novabackup.store.reports import Problems

_LOG = logging.getLogger("novabackup")

_PACKS_AHEAD = 4
_ARCHIVED = "archived"
"""Code of what could not be read before it is thawed: neither damaged nor verified."""


def execute(objects: Objects, subset: str | None, callback: Callback) -> Problems:
    """Check a repository, with progress in packs.

    ``subset`` says which packs to read completely: None for none, a percentage, or one part of several.
    """
    choose = _chooser(subset)
    objects.access.require()
    problems = [*small_objects(objects)]
    packs = dict(objects.packs.entries())
    needed: dict[str, list[str]] = {}
    names = objects.records.names()
    problems += _dangling_pins(objects, names)
    for name in names:
        try:
            for pack in objects.records.read(name).packs:
                needed.setdefault(pack, []).append(name)
        except NotFoundError:
            continue
        except ArchivedError as error:
            problems.append(Problem(code=_ARCHIVED, paths=(snapshot_key(name),), message=str(error)))
        except (IntegrityError, FormatError) as error:
            problems.append(Problem(code="damaged", paths=(snapshot_key(name),), message=str(error.args[0])))
    problems += _taken_away(objects)
    for pack in sorted(needed.keys() - packs.keys()):
        problems.append(_problem("missing", objects, pack, needed, "the pack is missing"))
    chosen = choose(sorted(packs))
    callback.set_size(len(packs))
    with Workers(max(cores(), objects.storage.parallel), _PACKS_AHEAD) as workers:
        inspect = functools.partial(_inspect, objects, packs, chosen)
        archived = []
        for pack, code, message in workers.each(inspect, sorted(packs)):
            if code == _ARCHIVED and pack not in chosen:
                archived.append(pack)
            elif code:
                problems.append(_problem(code, objects, pack, needed, message))
            callback.relative_update(1)
    if archived:
        _LOG.warning("%d packs lie in an archive: they exist, and were not read", len(archived))
    return Problems(problems)


def small_objects(objects: Objects) -> list[Problem]:
    """Check everything but packs and snapshots."""
    problems = []
    reads: list[tuple[str, Callable[[], object]]] = [
        (CONFIG_KEY, lambda: read_config(objects.storage)),
        *(
            (key, functools.partial(objects.access.read_record, key, Condemned))
            for key in objects.access.record_keys(CONDEMNED)
        ),
        *(
            (key, functools.partial(objects.access.read_record, key, Forgotten))
            for key in objects.storage.keys(FORGOTTEN)
        ),
        *((key, functools.partial(read_slot, objects.storage, key)) for key in objects.storage.keys(KEYS)),
        *((key, functools.partial(objects.access.read_record, key, Drill)) for key in drill_keys(objects.access)),
        *(
            (key, functools.partial(objects.access.read_record, key, Pin))
            for key in map(pin_key, sorted(pins.pinned(objects.access)))
        ),
    ]
    for key, read in reads:
        try:
            read()
        except FileNotFoundError:
            if key == CONFIG_KEY:  # any other has been deleted since it was listed
                problems.append(Problem(code="missing", paths=(key,), message="the next backup writes it again"))
        except (IntegrityError, FormatError) as error:
            problems.append(Problem(code="damaged", paths=(key,), message=str(error.args[0])))
    try:
        if not readme_intact(_text(objects, README_KEY)):
            problems.append(Problem(code="damaged", paths=(README_KEY,), message="its text was altered"))
    except FileNotFoundError:
        problems.append(Problem(code="missing", paths=(README_KEY,), message="it explains the folder to people"))
    return [*problems, *_script(objects)]


def _text(objects: Objects, key: str) -> bytes:
    """Read a text for people; empty if it is too long to be one."""
    try:
        return objects.storage.read(key)
    except IntegrityError:
        return b""


def _script(objects: Objects) -> Iterator[Problem]:
    """Check the script for people; repositories of older versions have none."""
    try:
        if not script_intact(_text(objects, EXTRACT_KEY)):
            message = "its text was altered: do not run it, and take the one from the package novabackup"
            yield Problem(code="damaged", paths=(EXTRACT_KEY,), message=message)
    except FileNotFoundError:
        if objects.storage.exists(README_KEY) and EXTRACT_KEY.encode() in _text(objects, README_KEY):
            message = "it extracts the data without novabackup. The package novabackup has another copy"
            yield Problem(code="missing", paths=(EXTRACT_KEY,), message=message)


def _taken_away(objects: Objects) -> list[Problem]:
    """Find snapshots that other records name and nobody has forgotten; only encrypted repositories record them."""
    notes = [note for _key, note in objects.records.forgotten()]
    names = set(objects.records.names())
    expected = {name for note in notes for name in note.expected}
    for name in names:
        with contextlib.suppress(NotFoundError, ArchivedError, IntegrityError, FormatError):  # named elsewhere
            expected.add(objects.records.previous(name))
    gone = expected - names - {name for note in notes for name in note.snapshots} - {""}
    message = (
        "it existed and was never forgotten: someone with access to the storage removed it. Copy it from another copy "
        "of the repository"
    )
    return [Problem(code="missing", paths=(snapshot_key(name),), message=message) for name in sorted(gone)]


def _dangling_pins(objects: Objects, names: Collection[str]) -> list[Problem]:
    message = "this snapshot is pinned, but it is missing. Copy it from another copy of the repository, or unpin it"
    return [
        Problem(code="missing", paths=(snapshot_key(name),), message=message)
        for name in sorted(pins.pinned(objects.access).difference(names))
    ]


def _inspect(objects: Objects, packs: Mapping[str, Entry], chosen: Collection[str], pack: str) -> tuple[str, str, str]:
    """Check a pack; return its id, a code if something is wrong, and the message."""
    try:
        check_pack(objects, pack, packs[pack], whole=pack in chosen)
    except ArchivedError as error:
        return pack, _ARCHIVED, str(error)
    except (IntegrityError, FormatError, OSError) as error:
        return pack, "damaged", str(error)
    return pack, "", ""


def check_pack(objects: Objects, pack: str, entry: Entry, *, whole: bool) -> None:
    """Check one pack: its table, or every byte; raise an `IntegrityError`, or an `ArchivedError` if it is frozen."""
    table = objects.packs.table(pack)
    if table.size != entry.size:
        raise IntegrityError(f"pack {pack}: expected {table.size} bytes, found {entry.size}")
    if whole:
        objects.packs.check_header(pack)
        for group in neighbours(table.frames, objects.storage.block):
            objects.packs.proved(pack, group)
        if table.padding is not None:
            objects.packs.proved(pack, [table.padding])


def _problem(code: str, objects: Objects, pack: str, needed: dict[str, list[str]], message: str) -> Problem:
    names = needed.get(pack, [])
    users = f"needed by {first_of(names)}" if names else "no snapshot needs it"
    return Problem(
        code=code,
        paths=(pack_key(pack),),
        message=f"{message}; {users}. Copy the pack from another copy of {objects.url}, or forget those snapshots",
    )


def _chooser(subset: str | None) -> Callable[[Sequence[str]], set[str]]:
    if subset is None:
        return lambda packs: set()
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)%", subset)
    if percent and 0 < float(percent[1]) <= 100:
        share = float(percent[1]) / 100
        return lambda packs: set(random.sample(packs, math.ceil(len(packs) * share)))
    part = re.fullmatch(r"(\d+)/(\d+)", subset)
    if part and 1 <= int(part[1]) <= int(part[2]):
        number, parts = int(part[1]), int(part[2])
        # By the pack's own id, so that a pack stays in its part however many others come and go.
        return lambda packs: {pack for pack in packs if int(pack[:8], 16) % parts == number - 1}
    raise ConfigurationError(f"read_data_subset is '10%' or '1/7' (one part of seven); found {subset!r}")
