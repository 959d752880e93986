"""Plain-text lists and tables for terminals, logs and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from novabackup.errors import printable


def count(many: int, what: str) -> str:
    """Format a count with its noun: 1 file, 2 files."""
    return f"{many:,} {what}" if many == 1 else f"{many:,} {what}s"


def first_of(names: Sequence[str]) -> str:
    """List the first five names; an ellipsis says that there are more."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align cells in columns; cells are not trusted."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    ]
