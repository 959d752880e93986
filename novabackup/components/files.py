"""Files that are only kept, for whatever belongs to the indexes without a count of its own."""

from __future__ import annotations

import attrs

from novabackup.components.base import Component
from novabackup.model import Report
from novabackup.storage.base import Reader

__all__ = ["Files"]


@attrs.frozen
class Files(Component):
    """One file or, with a pattern such as ``docs/*.txt``, many; nothing is expected of what is in them.

    Attributes:
        path: A path, or a pattern; ``**`` stands for any number of folders.
        optional: Absence is no problem.
    """

    def inspect(self, reader: Reader) -> Report:
        """Report the size; nothing is read."""
        return Report(component=type(self).__name__, path=reader.entry.key, exists=True, size=reader.entry.size)
