"""Tables for terminals and logs: plain data in, aligned text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from novabackup._paths import printable


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Put the cells of each row under those of the row before; nothing in them is trusted."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    ]
