"""Values that show themselves as a table: in terminals and logs, and in notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from novabackup._support import html
from novabackup._support.text import aligned
from novabackup.errors import printable

TableData = tuple[str, Sequence[str], Iterable[Sequence[object]]]
"""Caption, names of the columns, and rows."""


class Tabular:
    """Base of plans and results that people read as a table."""

    __slots__ = ()

    def _table(self) -> TableData:
        raise NotImplementedError

    def __str__(self) -> str:
        caption, columns, rows = self._table()
        cells = [[html.cell(value) for value in row] for row in rows]
        return "\n".join([printable(caption), *(aligned([columns, *cells]) if cells else ["  none"])])

    def _repr_html_(self) -> str:
        return html.table(*self._table())
