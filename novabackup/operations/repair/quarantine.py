"""Keeping damaged objects of a repository: what is replaced or no longer needed goes to a folder that nobody reads."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Iterator

from novabackup.objects.packs import ASIDE
from novabackup.storage import Storage
from novabackup.storage.raw import read_blocks

__all__ = ["is_damage", "keep", "move", "stored"]

_LOG = logging.getLogger("novabackup")


def is_damage(error: OSError) -> bool:
    """Tell a medium that has lost what was on it from a place that cannot be reached just now."""
    return error.errno == errno.EIO


def keep(storage: Storage, key: str) -> None:
    """Copy what is at a key aside, before something better is written there; if nothing is, do nothing."""
    try:
        storage.write(_free(storage, key), stored(storage, key))
    except FileNotFoundError:
        return
    except OSError as error:
        if not is_damage(error):
            raise
        move(storage, key)  # what cannot be read can still be moved


def move(storage: Storage, key: str) -> None:
    """Move what is at a key aside; if nothing is, do nothing."""
    if storage.exists(key):
        storage.move(key, _free(storage, key))


def stored(storage: Storage, key: str) -> Iterator[bytes]:
    """Read an object as it is stored, whatever its size.

    Raises:
        FileNotFoundError: There is none.
    """
    with storage.open(key) as reader:
        yield from read_blocks(reader)


def _free(storage: Storage, key: str) -> str:
    """Give a key for something damaged that nothing has yet."""
    for number in itertools.count(1):
        found = f"{ASIDE}/{key}" + (f".{number}" if number > 1 else "")
        if not storage.exists(found):
            break
    _LOG.warning("%s/%s is set aside as %s", storage.url, key, found)
    return found
