"""Delete packs that no snapshot names, in two steps with a grace period between them: `plan` and `execute`.

The proof that no writer loses what it relies on, with ``G`` the grace period:

* A writer reads the list of condemned packs when it starts and shares none of them; it reads the list again right
  before its commit, and starts over if it names a condemned pack. Its commit follows within less than ``G``.
* A pack is deleted only by a prune that lists the snapshots when the condemnation is at least ``G`` old. If a writer
  names the pack, either it read the condemnation before its commit, and did not commit; or the condemnation came
  later, so the commit came less than ``G`` after it, and the listing shows the snapshot.
* Packs younger than ``G`` are not condemned: they may belong to a snapshot that is being taken.
* Pack ids hold a random salt, so a pack that is being deleted is never the one that a writer has just stored.

All ages are measured by the storage's own clock.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import attrs

from novabackup._support import html
from novabackup._support.tables import TableData, Tabular
from novabackup.errors import ConfigurationError, IntegrityError
from novabackup.format.layout import FORGOTTEN, pack_key
from novabackup.format.records import Forgotten, Problem
from novabackup.objects.condemned import condemn, condemned, storage_time
from novabackup.objects.objects import Objects
from novabackup.storage import Entry, Lock

_LOG = logging.getLogger("novabackup")

GRACE = timedelta(days=1)
SHORTEST_GRACE = timedelta(hours=1)
"""Well above the time between a writer's last check of the condemned packs and its commit."""

_MANY_NOTES = 2


@attrs.frozen(kw_only=True)
class PrunePlan(Tabular):
    """What `prune` would do.

    Attributes:
        condemn: Packs that no snapshot names; a prune after the grace period deletes them.
        delete: Packs that were condemned a grace period ago and that still no snapshot names.
        size: Bytes that deleting frees.
        clear: Keys of condemnations that are done.
        grace: The grace period in seconds.
        locked: Packs that cannot be deleted yet, since their bucket protects them; they stay condemned.
    """

    condemn: tuple[str, ...]
    delete: tuple[str, ...]
    size: int
    clear: tuple[str, ...]
    grace: float
    locked: tuple[Lock, ...] = ()

    def _table(self) -> TableData:
        rows = [("delete", pack) for pack in self.delete] + [("condemn", pack) for pack in self.condemn]
        rows += [(str(lock), lock.key.rpartition("/")[2]) for lock in self.locked]
        return f"Prune, freeing {html.size(self.size)}", ["what", "pack"], rows


def plan(objects: Objects, grace: timedelta) -> PrunePlan:
    """Find what to condemn and what to delete.

    Raises:
        IntegrityError: A snapshot cannot be read, so it is not known which packs it needs.
        ConfigurationError: The grace period is too short to be safe, and not zero.
    """
    if grace and grace < SHORTEST_GRACE:
        raise ConfigurationError(
            f"a grace period of {grace} is shorter than a backup may take to commit: expected {SHORTEST_GRACE} at "
            "least, or timedelta(0) if you are sure that nothing else writes to this repository"
        )
    now = storage_time(objects.access)

    def is_ripe(entry: Entry) -> bool:
        return now - entry.modified >= grace.total_seconds()

    doomed = list(condemned(objects.access))
    packs = dict(objects.packs.entries())
    named = _named(objects)  # last, so that it shows every commit that the condemnations do not
    ripe = {pack for entry, record in doomed if is_ripe(entry) for pack in record.packs}
    pending = {pack for entry, record in doomed if not is_ripe(entry) for pack in record.packs}
    wanted = packs.keys() & (ripe - pending) - named
    locked = {lock.key: lock for lock in objects.storage.locks(sorted(map(pack_key, wanted)))}
    kept = {pack for pack in wanted if pack_key(pack) in locked}
    delete = sorted(wanted - kept)
    unneeded = sorted(
        pack
        for pack, entry in packs.items()
        if pack not in named and pack not in pending and pack not in wanted and is_ripe(entry)
    )
    return PrunePlan(
        condemn=tuple(unneeded),
        delete=tuple(delete),
        size=sum(packs[pack].size for pack in delete),
        clear=tuple(entry.key for entry, record in doomed if is_ripe(entry) and kept.isdisjoint(record.packs)),
        grace=grace.total_seconds(),
        locked=tuple(locked[key] for key in sorted(locked)),
    )


def execute(objects: Objects, todo: PrunePlan) -> None:
    """Execute a plan; packs that a snapshot names by now stay."""
    named = _named(objects)
    for lock in todo.locked:
        _LOG.warning("%s/%s would be deleted but is %s: a later prune deletes it", objects.url, lock.key, lock)
    for pack in todo.delete:
        if pack in named:
            _LOG.info("pack %s is needed again and stays", pack)
        else:
            objects.packs.delete(pack)
    for key in todo.clear:
        objects.storage.delete(key)
    if unneeded := [pack for pack in todo.condemn if pack not in named]:
        condemn(objects.access, unneeded)
    _merge_forgotten(objects)
    objects.storage.sweep(max(todo.grace, 0.0))


def _merge_forgotten(objects: Objects) -> None:
    """Replace the records of what was forgotten by one with all that is still needed."""
    notes = list(objects.records.forgotten())
    if len(notes) < _MANY_NOTES:
        return
    forgotten = {name for _key, note in notes for name in note.snapshots}
    expected = {name for _key, note in notes for name in note.expected} - forgotten
    still_named = forgotten & objects.records.named_as_previous()
    merged = Forgotten(snapshots=tuple(sorted(still_named)), expected=tuple(sorted(expected)))
    if merged.snapshots or merged.expected:
        objects.access.write_dated(FORGOTTEN, merged)
    for key, _note in notes:
        objects.storage.delete(key)


def _named(objects: Objects) -> set[str]:
    named: set[str] = set()
    problems = []
    for name in objects.records.names():
        try:
            named.update(objects.records.read(name).packs)
        except LookupError:
            continue  # forgotten since it was listed
        except Exception as error:  # noqa: BLE001 - whatever it is, this snapshot's packs are not known
            problems.append(Problem(code="damaged", paths=(name,), message=str(error)))
    if problems:
        raise IntegrityError(
            f"{objects.url}: nothing is pruned while snapshots cannot be read, since it is not known which "
            "packs they need. Restore them from another copy, or forget them",
            problems,
        )
    return named
