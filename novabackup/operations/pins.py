"""Pins: snapshots that stay until they are unpinned."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from novabackup.errors import FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import PIN_NAME, PINS, pin_key
from novabackup.format.records import Pin
from novabackup.objects.objects import Objects

_LOG = logging.getLogger("novabackup")


def pinned(objects: Objects) -> set[str]:
    """Tell which snapshots have a pin: it counts by being there, readable or not."""
    return {found[1] for key in objects.storage.keys(PINS) if (found := PIN_NAME.fullmatch(key))}


def pin(objects: Objects, name: str, message: str) -> None:
    """Pin a snapshot; a pin that it has already is replaced."""
    objects.access.write_record(pin_key(name), Pin(time=datetime.now(UTC), message=message))


def unpin(objects: Objects, name: str) -> None:
    """Take the pin of a snapshot away."""
    objects.storage.delete(pin_key(name))


def read_pin(objects: Objects, name: str) -> Pin | None:
    """Read a pin.

    Returns:
        The pin; None if it is damaged.

    Raises:
        NotFoundError: There is none.
    """
    try:
        return objects.access.read_record(pin_key(name), Pin)[0]
    except FileNotFoundError:
        raise NotFoundError(f"snapshot {name} in {objects.url} is not pinned") from None
    except (IntegrityError, FormatError) as error:
        _LOG.warning("the pin holds, but what it says is lost: %s", error)
        return None
