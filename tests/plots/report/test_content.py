"""Cells and tables of the report: texts, sorting and empty columns."""

from __future__ import annotations

from src.plots.report.content import (
    Cell,
    Table,
    drop_empty_columns,
    join_counts,
    number,
    score,
    share,
)


def test_cells_say_what_they_are_sorted_by() -> None:
    assert number(None) == number(float("nan")) == Cell("–")
    assert score(0.5, [0.25, 0.75]) == Cell("0.500", 0.5, "0.250–0.750", 0.5)
    assert [share(part, 2000).text for part in (0, 1, 2, 2000)] == [
        "0.0%",
        "<0.1%",
        "0.1%",
        "100.0%",
    ]
    assert share(0, 0) == Cell("–")
    assert join_counts({"a": 1, "b": 3, "c": 2}, limit=2).text == "b (3), c (2) and 1 more"


def test_a_dense_table_has_no_empty_column() -> None:
    table = drop_empty_columns(
        Table("t", ("a", "b"), [[number(1.0), Cell("–")], [Cell("–"), Cell("–")]])
    )
    assert table.columns == ["a"] and table.numeric == [True] and len(table.rows) == 2
