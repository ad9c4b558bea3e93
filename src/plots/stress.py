"""The AUROC of a network under each disturbance as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from src.plots.canvas import (
    BLUE,
    GREY,
    LIGHT_GREY,
    PAGE_MM,
    as_number,
    name_rows,
    new_figure,
    rows_page_mm,
    style_axes,
    write_column,
)


def plot_stress(rows: Sequence[Mapping[str, object]]) -> Figure:
    """Draw the macro AUROC under each disturbance as a point, and a line from that without.

    Parameters
    ----------
    rows
        As in ``stress_<split>.json``: ``kind``, ``strength``, ``auroc_macro`` and ``n_unfit``; the
        first is without disturbance.

    Raises
    ------
    ValueError
        If there is no row.
    """
    if not rows:
        raise ValueError("rows is empty: expected those of stress_<split>.json")
    names = [f"{row['kind']} {row['strength']}".strip() for row in rows]
    scores = [as_number(row["auroc_macro"]) for row in rows]
    width_mm = min(rows_page_mm(names) + 30, PAGE_MM)
    figure = new_figure(width_mm, 16 + 3.6 * len(names))
    axes = style_axes(figure.subplots(), grid="x")
    axes.axvline(scores[0], color=GREY, linewidth=0.8, linestyle="--")
    for position, score in enumerate(scores):
        axes.plot([scores[0], score], [position, position], color=BLUE, linewidth=1.2)
    axes.scatter(scores, range(len(scores)), color=BLUE, s=12, zorder=3)
    for position in range(1, len(rows)):
        if rows[position]["kind"] != rows[position - 1]["kind"]:
            axes.axhline(position - 0.5, color=LIGHT_GREY, linewidth=0.6)
    name_rows(axes, names)
    axes.set(xlabel="macro AUROC (dashed line: undisturbed)")
    write_column(axes, "unfit", [f"{row['n_unfit']:,}" for row in rows])
    return figure
