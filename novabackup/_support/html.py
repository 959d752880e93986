"""HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Build an HTML table.

    Args:
        caption: Line above the table.
        columns: Names of the columns.
        rows: Cells of each row; None shows as a dash. Everything is escaped: names and messages are not trusted.
    """
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell(value))}</td>' for value in row) + "</tr>" for row in rows
    )
    empty = "" if body else f'<tr><td style="{_CELL}" colspan="{len(columns)}">none</td></tr>'
    return (
        f'<table><caption style="text-align:left;font-weight:bold">{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}{empty}</tbody></table>"
    )


def size(number: float | None) -> str:
    """Format a number of bytes for people, in powers of 1024."""
    if number is None:
        return "-"
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def cell(value: object) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
