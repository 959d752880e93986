"""Compare two snapshots: `compare`."""

from __future__ import annotations

import attrs

from novabackup._support.tables import TableData, Tabular
from novabackup.format.records import Point, SnapshotRecord


@attrs.frozen(kw_only=True)
class Diff(Tabular):
    """The difference between two snapshots; paths are sorted.

    Attributes:
        before: Id of the first.
        after: Id of the second.
        added: Files that only the second has.
        removed: Files that only the first has.
        changed: Files whose content differs.
        unchanged: Files with the same content.
    """

    before: str
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def _table(self) -> TableData:
        rows = [(word, path) for word in ("added", "removed", "changed", "unchanged") for path in getattr(self, word)]
        return f"From {self.before} to {self.after}", ["what", "file"], rows


def compare(one: Point, other: Point) -> Diff:
    """Compare two snapshots, file by file and link by link."""
    before, after = _contents(one.record), _contents(other.record)
    both = sorted(before.keys() & after.keys())
    return Diff(
        before=one.id,
        after=other.id,
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(path for path in both if before[path] != after[path]),
        unchanged=tuple(path for path in both if before[path] == after[path]),
    )


def _contents(record: SnapshotRecord) -> dict[str, str]:
    """Map paths of files and links to a text that differs when the content does."""
    return {
        **{link.path: f"link to {link.target}" for link in record.links},
        **{entry.path: entry.blake3 for entry in record.files},
    }
