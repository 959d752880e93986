"""Keep damaged objects: what is replaced or no longer needed goes to a folder that nothing reads."""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Iterator

from novabackup.format.layout import DAMAGED
from novabackup.storage import Storage
from novabackup.storage.raw import read_blocks

_LOG = logging.getLogger("novabackup")


def is_damage(error: OSError) -> bool:
    """Return whether a medium has lost its content; otherwise the place cannot be reached now."""
    return error.errno == errno.EIO


def keep(storage: Storage, key: str) -> None:
    """Copy an object aside before it is replaced; do nothing if it does not exist."""
    try:
        storage.write(_free(storage, key), stored(storage, key))
    except FileNotFoundError:
        return
    except OSError as error:
        if not is_damage(error):
            raise
        move(storage, key)  # what cannot be read can still be moved


def move(storage: Storage, key: str) -> None:
    """Move an object aside; do nothing if it does not exist."""
    if storage.exists(key):
        storage.move(key, _free(storage, key))


def stored(storage: Storage, key: str) -> Iterator[bytes]:
    """Read an object as it is stored, whatever its size."""
    with storage.open(key) as reader:
        yield from read_blocks(reader)


def _free(storage: Storage, key: str) -> str:
    """Return an unused key to set an object aside."""
    for number in itertools.count(1):
        found = f"{DAMAGED}/{key}" + (f".{number}" if number > 1 else "")
        if not storage.exists(found):
            break
    _LOG.warning("%s/%s is set aside as %s", storage.url, key, found)
    return found
