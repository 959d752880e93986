"""Files and folders that are backed up without being parsed."""

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
    """One file, or many with a pattern such as ``docs/*.txt``; their content is not checked.

    Attributes:
        path: A path, or a pattern; ``**`` stands for any number of folders.
        optional: Absence is no problem.
    """

    def inspect(self, reader: Reader) -> Report:
        """Report the size; nothing is read."""
        return self._present(reader)


def _all_below(path: str) -> str:
    return path if is_pattern(path) else f"{path}/**"


@attrs.frozen
class Tree(Files):
    """Everything that a pattern such as ``config/**`` selects: files, symbolic links as links, and folders.

    Each file is read on its own: the others may change meanwhile, as those of a running service do.

    Attributes:
        path: A folder, which stands for everything below it, or a pattern; ``**`` stands for any number of folders.
        optional: Absence is no problem, since few installations have every folder.
    """

    together: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    path: str = attrs.field(converter=_all_below, validator=check_path)
    optional: bool = attrs.field(default=True, kw_only=True)
