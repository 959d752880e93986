"""What is only kept: files that belong to the indexes without a count of their own, and whole folders."""

from __future__ import annotations

from typing import ClassVar

import attrs

from novabackup._support.paths import is_pattern
from novabackup.components.base import Component, check_path
from novabackup.format.records import Report
from novabackup.storage.base import Reader

__all__ = ["Files", "Tree"]


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


def _all_below(path: str) -> str:
    return path if is_pattern(path) else f"{path}/**"


@attrs.frozen
class Tree(Files):
    """All that a pattern such as ``config/**`` selects: files, symbolic links as links, and folders, also empty ones.

    Each file is read on its own: the others may change meanwhile, as those of a running service do.

    Attributes:
        path: A folder, which means all that is in it, or a pattern; ``**`` stands for any number of folders.
        optional: Absence is no problem, as in most installations something is missing.
    """

    together: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    path: str = attrs.field(converter=_all_below, validator=check_path)
    optional: bool = attrs.field(default=True, kw_only=True)
