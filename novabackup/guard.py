"""The two functions that ingestion code calls: guard a block, and recover from one that was killed."""

from __future__ import annotations

import os
from collections.abc import Iterable

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from novabackup._support.arguments import expect
from novabackup.operations.backup import request
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot
from novabackup.storage import Storage, protocol_of
from novabackup.store.store import IndexStore
from novabackup.transaction import session
from novabackup.transaction.session import Call, Recovery

__all__ = ["plan_recover", "recover", "snapshot"]

_DEFAULT_FOLDER = "backups"


def snapshot(
    store: IndexStore,
    repository: Repository | str | os.PathLike[str] | Storage | None = None,
    *,
    tags: Iterable[str] = ("pre-ingest",),
    message: str = "",
    timeout: float | None = None,
    callback: Callback = DEFAULT_CALLBACK,
) -> Snapshot:
    """Guard a block of ingestion code.

    A snapshot of the store is taken when the block is entered. If the block raises, or if it ends and the index files
    have a problem that they did not have before, every declared file is put back. If the process dies in the block,
    the next ``snapshot(store)`` or ``recover(store)`` does so.

    Works as ``with``, as ``async with``, and as a decorator of functions and coroutine functions, which takes a
    snapshot for each call.

    Args:
        store: What the block writes to.
        repository: Where the snapshot is kept: a repository, path or URL; by default ``backups`` in the store. A URL of
            the same kind as the store's is opened with the store's ``storage_options``.
        tags: Labels of the snapshot.
        message: Free text.
        timeout: Seconds to wait for another writer; None does not wait.
        callback: Told of the bytes of the snapshot.

    Returns:
        The snapshot, which is taken when the block is entered.

    Raises:
        StoreBusyError: On entering: another guard is at work in the store.
        ConfigurationError: On entering: the storage cannot exclude other writers.
        CheckFailedError: On leaving: the index files do not agree; everything is back as it was.
        RollbackError: On leaving: the store could not be put back; ``recover(store)`` goes on.
    """
    return _repository(store, repository).guard(
        store, request(tags, message, store.probing_on("guard")), timeout=timeout, callback=callback
    )


def recover(
    store: IndexStore,
    repository: Repository | str | os.PathLike[str] | Storage | None = None,
    *,
    timeout: float | None = None,
    callback: Callback = DEFAULT_CALLBACK,
) -> Recovery | None:
    """Finish what a writer that died left behind in a store.

    Args:
        store: Where it was at work.
        repository: The repository, if it needs other ``storage_options`` than the store; by default the one that the
            journal names.
        timeout: Seconds to wait for a writer that is alive.
        callback: Told of the bytes written.

    Returns:
        What was done; None when there was nothing to do.

    Raises:
        StoreBusyError: The writer is alive.
        RollbackError: The store could not be put back; the message says what to do first.
    """
    known = _repository(store, repository)
    return session.recover(store, known.opener(), Call(timeout=timeout, callback=callback))


def plan_recover(
    store: IndexStore, repository: Repository | str | os.PathLike[str] | Storage | None = None
) -> Recovery | None:
    """Say what `recover` would do, and do nothing.

    Args:
        store: Where a writer was at work.
        repository: As for `recover`.

    Returns:
        What would be done; None when there is nothing to do.

    Raises:
        StoreBusyError: The writer is alive.
    """
    known = _repository(store, repository)
    return session.plan_recover(store, known.opener())


def _repository(store: IndexStore, repository: Repository | str | os.PathLike[str] | Storage | None) -> Repository:
    expect(store, IndexStore, 'IndexStore("vector_db")')
    if isinstance(repository, Repository):
        return repository
    if repository is None:
        repository = f"{store.url.rstrip('/')}/{_DEFAULT_FOLDER}"
    # Credentials are handed on only within one kind of backend, never to another.
    shared = isinstance(repository, str) and protocol_of(repository) == protocol_of(store.url)
    return Repository(repository, storage_options=store.storage_options if shared else None)
