"""Pin snapshots, so that no policy forgets them; an operation on single small records."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from novabackup.errors import FormatError, IntegrityError, NotFoundError
from novabackup.format.layout import PIN_NAME, PINS, pin_key
from novabackup.format.records import Pin
from novabackup.objects.access import Access

_LOG = logging.getLogger("novabackup")


def pinned(access: Access) -> set[str]:
    """Return which snapshots have a pin: it counts if it exists, readable or not."""
    return {found[1] for key in access.storage.keys(PINS) if (found := PIN_NAME.fullmatch(key))}


def pin(access: Access, name: str, message: str) -> None:
    """Pin a snapshot; an existing pin is replaced."""
    access.write_record(pin_key(name), Pin(time=datetime.now(UTC), message=message))


def unpin(access: Access, name: str) -> None:
    """Remove the pin of a snapshot."""
    access.storage.delete(pin_key(name))


def read(access: Access, name: str) -> Pin | None:
    """Read a pin; return None if it is damaged.

    Raises:
        NotFoundError: There is none.
    """
    try:
        return access.read_record(pin_key(name), Pin)[0]
    except FileNotFoundError:
        raise NotFoundError(f"snapshot {name} in {access.url} is not pinned") from None
    except (IntegrityError, FormatError) as error:
        _LOG.warning("the pin holds, but its message is lost: %s", error)
        return None
