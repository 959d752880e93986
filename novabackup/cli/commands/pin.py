"""The commands pin and unpin."""

from __future__ import annotations

from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.output import Result


def pin(*snapshots: str, message: str = "", options: Options = BY_DEFAULT) -> Result:
    """Keep snapshots whatever a policy says, until unpin.

    Args:
        snapshots: Ids or the beginnings of ids; by default the latest. One that is pinned already gets the new message.
        message: Why, for people.
    """
    with options.open() as context:
        found = [context.snapshot(name) for name in snapshots or ("latest",)]
        for one in found:
            context.repository.pin(one, message)
        return Result(
            fields={"repository": context.repository.url, "pinned": [one.id for one in found], "message": message},
            done=[f"Snapshot {one.id} stays until it is unpinned" for one in found],
        )


def unpin(snapshot: str, /, *others: str, options: Options = BY_DEFAULT) -> Result:
    """Remove the pins of snapshots; the snapshots stay until they are forgotten.

    Args:
        snapshot: An id, or the beginning of one.
        others: More of them.
    """
    with options.open() as context:
        pinned = context.repository.pins()
        # The snapshot itself may be gone: its pin is still found by the whole id.
        found = [name if name in pinned else context.snapshot(name).id for name in (snapshot, *others)]
        for name in found:
            context.repository.unpin(name)
        return Result(
            fields={"repository": context.repository.url, "unpinned": found},
            done=[f"Snapshot {name} is no longer pinned" for name in found],
        )
