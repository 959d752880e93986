"""Commands that let snapshots stay whatever a policy says: pin, unpin."""

from __future__ import annotations

from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options

__all__ = ["pin", "unpin"]


def pin(*snapshots: str, message: str = "", options: Options = BY_DEFAULT) -> Answer:
    """Let snapshots stay, whatever a policy says, until unpin.

    Args:
        snapshots: Ids or the beginnings of ids; by default the latest. Whichever is pinned already gets the new
            message.
        message: Why, for people.
    """
    with options.open() as work:
        found = [work.snapshot(name) for name in snapshots or ("latest",)]
        for one in found:
            work.repository.pin(one, message)
        return Answer(
            fields={"repository": work.repository.url, "pinned": [one.id for one in found], "message": message},
            done=[f"Snapshot {one.id} stays until it is unpinned" for one in found],
        )


def unpin(snapshot: str, /, *others: str, options: Options = BY_DEFAULT) -> Answer:
    """Take the pins of snapshots away; the snapshots stay until they are forgotten.

    Args:
        snapshot: An id, or the beginning of one.
        others: More of them.
    """
    with options.open() as work:
        pinned = work.repository.pins()
        # The snapshot itself may be gone: its pin is found by its whole id all the same.
        found = [name if name in pinned else work.snapshot(name).id for name in (snapshot, *others)]
        for name in found:
            work.repository.unpin(name)
        return Answer(
            fields={"repository": work.repository.url, "unpinned": found},
            done=[f"Snapshot {name} is not pinned any more" for name in found],
        )
