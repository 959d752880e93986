"""Checking a repository: that every object is what it was, and that snapshots have all that they name."""

from __future__ import annotations

import functools
import logging
import math
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from fsspec.callbacks import Callback

from novabackup.errors import ArchivedError, ConfigurationError, FormatError, IntegrityError, NotFoundError
from novabackup.lanes import Lane, cores
from novabackup.model import Condemned, Config, Problem, decode
from novabackup.objects import CONFIG_KEY, README_KEY, Objects, neighbours, pack_key, readme_intact, snapshot_key
from novabackup.storage import Entry
from novabackup.views import Problems

__all__ = ["check"]

_LOG = logging.getLogger("novabackup")

_PACKS_AHEAD = 4
_ARCHIVED = "archived"
"""Code of what could not be read since it would have to be thawed first: no damage, but no proof either."""


def check(objects: Objects, subset: str | None, callback: Callback) -> Problems:
    """Check a repository.

    Args:
        objects: The repository.
        subset: Which packs to read in whole: None for none, a percentage, or one part of several.
        callback: Told of the packs.

    Returns:
        What is wrong.
    """
    choose = _chooser(subset)
    objects.require()
    problems = [*_small_objects(objects)]
    packs = dict(objects.pack_entries())
    needed: dict[str, list[str]] = {}
    for name in objects.names():
        try:
            for pack in objects.record(name).packs:
                needed.setdefault(pack, []).append(name)
        except NotFoundError:
            continue
        except ArchivedError as error:
            problems.append(Problem(code=_ARCHIVED, paths=(snapshot_key(name),), message=str(error)))
        except (IntegrityError, FormatError) as error:
            problems.append(Problem(code="damaged", paths=(snapshot_key(name),), message=str(error.args[0])))
    for pack in sorted(needed.keys() - packs.keys()):
        problems.append(_problem("missing", objects, pack, needed, "the pack is gone"))
    chosen = choose(sorted(packs))
    callback.set_size(len(packs))
    with Lane(max(cores(), objects.storage.parallel), _PACKS_AHEAD) as lane:
        look = functools.partial(_look, objects, packs, chosen)
        archived = []
        for pack, code, message in lane.each(look, sorted(packs)):
            if code == _ARCHIVED and pack not in chosen:
                archived.append(pack)
            elif code:
                problems.append(_problem(code, objects, pack, needed, message))
            callback.relative_update(1)
    if archived:
        _LOG.warning("%d packs lie in an archive: they are there, and were not looked into", len(archived))
    return Problems(problems)


def _small_objects(objects: Objects) -> list[Problem]:
    problems = []
    for key, kind in [
        (CONFIG_KEY, Config),
        *((entry.key, Condemned) for entry in objects.condemned_entries()),
    ]:
        try:
            decode(objects.storage.read(key), kind, f"{objects.url}/{key}")
        except FileNotFoundError:
            problems.append(Problem(code="missing", paths=(key,), message="the next backup writes it anew"))
        except (IntegrityError, FormatError) as error:
            problems.append(Problem(code="damaged", paths=(key,), message=str(error.args[0])))
    try:
        if not readme_intact(objects.storage.read(README_KEY)):
            problems.append(Problem(code="damaged", paths=(README_KEY,), message="its text was altered"))
    except FileNotFoundError:
        problems.append(Problem(code="missing", paths=(README_KEY,), message="it explains the folder to people"))
    return problems


def _look(objects: Objects, packs: Mapping[str, Entry], chosen: Collection[str], pack: str) -> tuple[str, str, str]:
    """Check a pack; give the code of what is wrong, empty if nothing is, and the message."""
    try:
        _check_pack(objects, pack, packs[pack], whole=pack in chosen)
    except ArchivedError as error:
        return pack, _ARCHIVED, str(error)
    except (IntegrityError, FormatError, OSError) as error:
        return pack, "damaged", str(error)
    return pack, "", ""


def _check_pack(objects: Objects, pack: str, entry: Entry, *, whole: bool) -> None:
    table = objects.table(pack)
    if table.size != entry.size:
        raise IntegrityError(f"pack {pack}: expected {table.size} bytes, found {entry.size}")
    if whole:
        objects.check_header(pack)
        for group in neighbours(table.frames, objects.storage.block):
            objects.proved(pack, group)


def _problem(code: str, objects: Objects, pack: str, needed: dict[str, list[str]], message: str) -> Problem:
    names = needed.get(pack, [])
    who = f"needed by {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else "no snapshot needs it"
    return Problem(
        code=code,
        paths=(pack_key(pack),),
        message=f"{message}; {who}. Copy the pack from another copy of {objects.url}, or forget those snapshots",
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
