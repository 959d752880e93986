"""Whether somebody is at work in a store, or in a part of it that is a store of its own, or left it half-done."""

from __future__ import annotations

import time

from novabackup._support.paths import above, fixed_part
from novabackup.errors import ConfigurationError, RollbackError, StoreBusyError
from novabackup.store.store import IndexStore
from novabackup.transaction import journal
from novabackup.transaction.owner import Life

__all__ = ["refuse_if_busy_within", "refuse_if_interrupted"]


def refuse_if_interrupted(store: IndexStore, *, context: str, timeout: float | None) -> None:
    """Refuse to read a store in which an ingest or a restore is under way, or was interrupted.

    Raises:
        StoreBusyError: It is under way.
        RollbackError: It was interrupted.
    """
    began = time.monotonic()
    deadline = began + (timeout or 0.0)
    for folder in ("", *_folders(store)):
        while (state := _state_of(store, folder, context)) is not None:
            if state.phase == "backup" or state.life is Life.NESTED:
                break
            where = f"{store.url}/{folder}" if folder else store.url
            if state.life is Life.DEAD:
                raise RollbackError(
                    f"{where}: an interrupted {state.phase} left this store half-written, and a backup of it would "
                    "keep that. Call recover(store) first"
                )
            if time.monotonic() >= deadline:
                raise StoreBusyError(
                    f"{where} is being written to: {state.rival}. Take the backup when it has ended, or pass timeout="
                )
            time.sleep(journal.pause(time.monotonic() - began))


def refuse_if_busy_within(store: IndexStore, context: str) -> None:
    """Refuse to change a store while a part of it, which is a store of its own, is being changed or was left so."""
    for folder in _folders(store):
        state = _state_of(store, folder, context)
        if state is not None and state.life is not Life.DEAD:
            raise StoreBusyError(f"{store.url}/{folder} is being written to: {state.rival}. Go on when it has ended")
        if state is not None and state.phase != "backup":
            raise RollbackError(
                f"{store.url}/{folder}: an interrupted {state.phase} left this store half-written, and recovering it "
                f"later would undo what is done now. Call recover(IndexStore({store.url + '/' + folder!r})) first"
            )


def _folders(store: IndexStore) -> list[str]:
    """Give the folders in which other stores may lie that are parts of this one."""
    fixed = {fixed_part(path) for path in store.declared}
    return sorted({folder for path in fixed for folder in (path, *above(path))} - {""})


def _state_of(store: IndexStore, folder: str, context: str) -> journal.State | None:
    try:
        return journal.look(store.storage, context, folder)
    except ConfigurationError:
        if not folder:
            raise
        return None  # a link that leads out of the store, to what is no part of it
