"""The journal of a store: writer lock, crash marker and rollback pointer in one small file.

It is created exclusively, changed only by compare-and-swap, and given up by marking it as released: that one write is
the commit of a guarded block. Where the system has locks that die with their process, such a lock is held as well, and
the released journal is then removed.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import AbstractContextManager

import attrs

from novabackup._support.paths import RESERVED, above, fixed_part
from novabackup.errors import ChangedError, ConfigurationError, IntegrityError, RollbackError, StoreBusyError
from novabackup.format.records import Journal, Owner, decode, encode
from novabackup.storage import Reader, Storage
from novabackup.store.store import IndexStore
from novabackup.transaction.owner import Life, life, myself

_LOG = logging.getLogger("novabackup")

JOURNAL_KEY = f"{RESERVED}/journal.json"
LOCK_KEY = f"{RESERVED}/lock"

LEASE = 60.0
"""Seconds without a beat after which the owner on another host is taken for dead; it beats four times as often."""

_BEATS_PER_LEASE = 4
_LARGEST_JOURNAL = 1 << 20
POLL = 0.1
"""Seconds between two looks at a journal that somebody else holds, at first; who waits for long looks less often."""

_LONGEST_PAUSE = 1.0
_SHARE = 0.1
"""The part of the time waited so far that a pause takes, so that waiting takes at most so much longer than it must."""

_held_here: set[str] = set()
"""Tokens of the journals that this process holds, which nobody but the process itself can tell.

A forked child has a copy of it, but another process id."""


def read(storage: Storage, key: str = JOURNAL_KEY) -> tuple[Journal, str] | None:
    """Read the journal of a store.

    Args:
        storage: Where the store is.
        key: Where its journal is; another for a store that lies in a folder of this place.

    Returns:
        The journal and the identity of its object; None if there is none, or nobody holds it.

    Raises:
        IntegrityError: It is damaged.
        FormatError: A newer novabackup wrote it.
    """
    found = _read_any(storage, key)
    return None if found is None or found[0].phase == "released" else found


@attrs.frozen(kw_only=True)
class State:
    """What a bystander can tell of a journal.

    Attributes:
        phase: What is being done.
        life: Whether its owner is alive.
        rival: The owner, for people.
    """

    phase: str
    life: Life
    rival: str


def look(storage: Storage, context: str, folder: str = "") -> State | None:
    """Look at the journal of a store without contending for it; None if nobody holds it.

    Args:
        storage: Where the store is.
        context: Who asks, as `whereabouts` says.
        folder: Where in there, if the store is a folder of the place.
    """
    found = read(storage, f"{folder}/{JOURNAL_KEY}" if folder else JOURNAL_KEY)
    if found is None:
        return None
    owner = found[0].owner
    return State(
        phase=found[0].phase,
        life=life(owner, myself(context), held=_held_here, lock_is_mine=False),
        rival=_describe(owner),
    )


def _read_any(storage: Storage, key: str = JOURNAL_KEY) -> tuple[Journal, str] | None:
    try:
        with storage.open(key) as reader:
            identity, data = reader.entry.identity, _content(reader)
        if not identity:
            # Asked for before the content: if somebody replaces it in between, what was read is newer than the
            # identity, and a swap that relies on both is refused.
            identity = storage.entry(key).identity
            with storage.open(key) as reader:
                data = _content(reader)
    except FileNotFoundError:
        return None
    except ChangedError:
        return _read_any(storage, key)
    try:
        return decode(data, Journal, f"{storage.url}/{key}"), identity
    except IntegrityError as error:
        raise IntegrityError(
            f"{error.args[0]}. The journal says which snapshot the store must go back to: rename it, then look at the "
            "repository's snapshots and restore the one that was taken before the interrupted ingest",
            error.problems,
        ) from error


def _content(reader: Reader) -> bytes:
    return reader.read(0, min(reader.entry.size, _LARGEST_JOURNAL))


class Held:
    """A journal that this process holds.

    Attributes:
        inherited: The journal of a dead owner that was taken over; its work is to be finished first.
    """

    def __init__(
        self,
        storage: Storage,
        journal: Journal,
        identity: str,
        *,
        inherited: Journal | None,
        lock: AbstractContextManager[None] | None,
        swaps: bool,
        lease: float,
    ) -> None:
        """Take charge of a journal that has just been written."""
        self.inherited = inherited
        self._storage = storage
        self._journal = journal
        self._identity = identity
        self._lock = lock
        self._swaps = swaps
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._heart = threading.Thread(
            target=self._beat, args=(lease / _BEATS_PER_LEASE,), name="novabackup-journal", daemon=True
        )
        _held_here.add(journal.owner.token)
        self._heart.start()

    @property
    def journal(self) -> Journal:
        """What the journal says."""
        return self._journal

    def update(self, **changes: object) -> None:
        """Change what the journal says.

        Raises:
            StoreBusyError: Somebody took this process for dead and took the store over.
        """
        with self._mutex:
            self._put(attrs.evolve(self._journal, **changes))  # type: ignore[arg-type]

    def release(self) -> None:
        """Give the store up: what is in it now is what it holds.

        Raises:
            StoreBusyError: Somebody took this process for dead and took the store over.
        """
        with self._mutex:
            self._put(attrs.evolve(self._journal, phase="released"))
            self._stop.set()
        try:
            if self._lock is not None:
                self._storage.delete(JOURNAL_KEY)  # nobody else can act while the lock is held
        except OSError as error:
            _LOG.warning("the released journal of %s could not be removed: %s", self._storage.url, error)
        finally:
            self._let_go()

    def abandon(self) -> None:
        """Leave the journal as it is, for `recover` to go on, and stop holding it."""
        try:
            # Said in the journal too: a process that lives on must not be taken for one that is still at it.
            self.update(owner=attrs.evolve(self._journal.owner, pid=0, started=0, context=""))
        except Exception as error:  # noqa: BLE001 - the store is in trouble already; the journal is there
            _LOG.warning("the journal of %s could not be marked as abandoned: %s", self._storage.url, error)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._stop.set()
        _held_here.discard(self._journal.owner.token)
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None

    def _put(self, journal: Journal) -> None:
        data = encode(journal)
        for _try in range(2):
            try:
                if self._swaps:
                    entry = self._storage.swap(JOURNAL_KEY, data, self._identity)
                else:
                    entry = self._storage.write(JOURNAL_KEY, [data])
            except ChangedError:
                # Perhaps an earlier write of ours arrived although its answer did not.
                found = _read_any(self._storage)
                if found is None or found[0].owner.token != self._journal.owner.token:
                    raise StoreBusyError(
                        f"{self._storage.url}: another writer took this process for dead, since its journal did not "
                        f"change for a whole lease, and took the store over{_whom(found)}. What this process wrote "
                        "has been put back by that writer; run the ingest again"
                    ) from None
                self._identity = found[1]
                continue
            self._journal, self._identity = journal, entry.identity
            return
        raise ChangedError(f"{self._storage.url}/{JOURNAL_KEY} could not be written: it changes all the time")

    def _beat(self, pause: float) -> None:
        while not self._stop.wait(pause):
            try:
                with self._mutex:
                    if self._stop.is_set():
                        return
                    self._put(attrs.evolve(self._journal, beat=self._journal.beat + 1))
            except StoreBusyError:
                _LOG.error("the journal of %s was taken over by another writer", self._storage.url)
                return
            except Exception as error:  # noqa: BLE001 - the next beat may get through; the exit check decides
                _LOG.warning("the journal of %s could not be refreshed: %s", self._storage.url, error)


def _whom(found: tuple[Journal, str] | None) -> str:
    return f" ({_describe(found[0].owner)})" if found else ""


def _describe(owner: Owner) -> str:
    return f"process {owner.pid} on host {owner.host}"


class _Watch:
    """Watches a journal whose owner cannot be seen: it is dead when nothing changed for a whole lease."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: tuple[Journal, str] | None = None
        self._since = 0.0
        self._moves = False

    def verdict(self, found: tuple[Journal, str]) -> Life:
        if found != self._seen:
            self._moves = self._seen is not None
            self._seen, self._since = found, time.monotonic()
        if time.monotonic() - self._since >= self._lease:
            return Life.DEAD
        return Life.ALIVE if self._moves else Life.UNKNOWN


def acquire(
    storage: Storage,
    repository: str,
    *,
    context: str,
    timeout: float | None,
    single_writer: bool,
    lease: float = LEASE,
) -> Held:
    """Become the only writer of a store.

    Args:
        storage: Where the store is.
        repository: URL of the repository, without credentials.
        context: Who asks, as `whereabouts` says.
        timeout: Seconds to wait for a writer that is alive; None does not wait. Finding out whether a writer on another
            host is alive takes up to a lease in any case.
        single_writer: Nobody else writes to this store, as its user declared.
        lease: Seconds without a beat after which an owner that cannot be seen is taken for dead.

    Returns:
        The journal, in phase ``backup``, or in the phase in which a dead owner left it.

    Raises:
        StoreBusyError: Another writer is alive, or this very thread or task guards the store already.
        ConfigurationError: The storage cannot exclude other writers, and ``single_writer`` was not declared.
    """
    contender = _Contender(storage, repository, myself(context), single_writer=single_writer, lease=lease)
    began = time.monotonic()
    deadline = began + (timeout or 0.0)
    while True:
        held = contender.attempt()
        if held is not None:
            return held
        if contender.verdict is Life.NESTED:
            raise StoreBusyError(
                f"{storage.url} is guarded by this very thread or task already: a guard within a guard would roll back "
                "what the outer one must decide about. Use one guard around the whole ingest"
            )
        if contender.verdict is Life.ALIVE and time.monotonic() >= deadline:
            raise StoreBusyError(
                f"{storage.url} is being written to by another guard: {contender.rival}. Waited {timeout or 0:g} s. "
                "Let it end, or pass timeout= with the seconds to wait for it"
            )
        time.sleep(pause(time.monotonic() - began))


def pause(waited: float) -> float:
    """Give the seconds until the next look at a journal, after so many of waiting; at random, to part those who met."""
    return max(POLL, min(waited * _SHARE, _LONGEST_PAUSE)) * random.uniform(0.5, 1.0)  # noqa: S311


class _Contender:
    """One process that tries to become the writer of a store.

    Attributes:
        verdict: What the last attempt found out about the present owner.
        rival: The present owner, for people.
    """

    def __init__(self, storage: Storage, repository: str, me: Owner, *, single_writer: bool, lease: float) -> None:
        self.verdict = Life.UNKNOWN
        self.rival = "a process on this host"
        self._storage = storage
        self._me = me
        self._fresh = Journal(owner=me, repository=repository, phase="backup")
        self._single_writer = single_writer
        self._lease = lease
        self._watch = _Watch(lease)

    def attempt(self) -> Held | None:
        """Try once."""
        try:
            lock = self._storage.hold(LOCK_KEY)
        except BlockingIOError:
            self._judge(_read_any(self._storage), None)
            if self.verdict is not Life.NESTED:
                self.verdict = Life.ALIVE  # whoever holds that lock lives, whatever the journal says by now
            return None
        held = None
        try:
            held = self._attempt(lock)
            return held
        finally:
            if held is None and lock is not None:
                lock.__exit__(None, None, None)

    def _attempt(self, lock: AbstractContextManager[None] | None) -> Held | None:
        guarantees = self._storage.probe()
        if not self._single_writer and not (guarantees.exclusive_create and guarantees.compare_and_swap):
            raise ConfigurationError(
                f"{self._storage.url}: a guard needs a storage that can exclude other writers, and this one was "
                "seen to ignore conditional writes. If nobody else writes to this store, say so: "
                "IndexStore(..., single_writer=True)"
            )
        found = _read_any(self._storage)
        inherited = None
        if found is not None and found[0].phase != "released":
            self._judge(found, lock)
            if self.verdict is not Life.DEAD:
                return None
            inherited = found[0]
        journal = attrs.evolve(inherited, owner=self._me) if inherited else self._fresh
        self.verdict = Life.UNKNOWN
        try:
            if not guarantees.compare_and_swap:
                entry = self._storage.write(JOURNAL_KEY, [encode(journal)])
            elif found is None:
                entry = self._storage.create(JOURNAL_KEY, encode(journal))
            else:
                entry = self._storage.swap(JOURNAL_KEY, encode(journal), found[1])
        except (FileExistsError, ChangedError):
            return None  # somebody was faster; look again
        return Held(
            self._storage,
            journal,
            entry.identity,
            inherited=inherited,
            lock=lock,
            swaps=guarantees.compare_and_swap,
            lease=self._lease,
        )

    def _judge(self, found: tuple[Journal, str] | None, lock: AbstractContextManager[None] | None) -> None:
        if found is None:
            self.verdict = Life.UNKNOWN
            return
        owner = found[0].owner
        self.rival = f"{_describe(owner)}, phase {found[0].phase}"
        self.verdict = life(owner, self._me, held=_held_here, lock_is_mine=lock is not None)
        if self.verdict is Life.UNKNOWN:
            self.verdict = self._watch.verdict(found)


# -- other stores in this one ---------------------------------------------------------------------------------------


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
            time.sleep(pause(time.monotonic() - began))


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
    """Return the folders of this store that other stores may lie in."""
    fixed = {fixed_part(path) for path in store.declared}
    return sorted({folder for path in fixed for folder in (path, *above(path))} - {""})


def _state_of(store: IndexStore, folder: str, context: str) -> State | None:
    try:
        return look(store.storage, context, folder)
    except ConfigurationError:
        if not folder:
            raise
        return None  # a link that leads out of the store
