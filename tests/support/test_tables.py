"""Values that show themselves as a table, as text and as HTML; nothing in them is trusted."""

import attrs

from novabackup._support.tables import TableData, Tabular


@attrs.frozen
class Plan(Tabular):
    rows: list[tuple[object, ...]]

    def _table(self) -> TableData:
        return "Plan <1>\x1b", ["what", "file", "size"], self.rows


def test_text_is_aligned_and_has_the_names_of_the_columns():
    assert str(Plan([("delete", "a\x1b[31m", 1234), ("keep", None, True)])).splitlines() == [
        "Plan <1>\\x1b",
        "  what    file       size",
        "  delete  a\\x1b[31m  1,234",
        "  keep    -          yes",
    ]


def test_html_is_escaped():
    html = Plan([("<b>", 1, 2)])._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_an_empty_table_says_so():
    assert str(Plan([])).endswith("\n  none")
    assert "none" in Plan([])._repr_html_()
