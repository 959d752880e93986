"""What is different between two snapshots."""

from __future__ import annotations

import attrs

from novabackup import _html

__all__ = ["Diff"]


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
