"""What is different between two snapshots."""

from __future__ import annotations

import attrs

from novabackup._support import html as _html
from novabackup.format.records import SnapshotRecord

__all__ = ["Diff", "compare"]


@attrs.frozen(kw_only=True)
class Diff:
    """What is different between two snapshots; paths in order.

    Attributes:
        before: Id of the one.
        after: Id of the other.
        added: Files that only the other has.
        removed: Files that only the one has.
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

    def _repr_html_(self) -> str:
        rows = [(word, path) for word in ("added", "removed", "changed", "unchanged") for path in getattr(self, word)]
        return _html.table(f"From {self.before} to {self.after}", ["what", "file"], rows)


def compare(one: tuple[str, SnapshotRecord], other: tuple[str, SnapshotRecord]) -> Diff:
    """Compare two snapshots, each given by its id and record, file by file and link by link."""
    before, after = _contents(one[1]), _contents(other[1])
    both = sorted(before.keys() & after.keys())
    return Diff(
        before=one[0],
        after=other[0],
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(path for path in both if before[path] != after[path]),
        unchanged=tuple(path for path in both if before[path] == after[path]),
    )


def _contents(record: SnapshotRecord) -> dict[str, str]:
    """Give something for each file and link that differs when its content does."""
    return {
        **{link.path: f"link to {link.target}" for link in record.links},
        **{entry.path: entry.blake3 for entry in record.files},
    }
