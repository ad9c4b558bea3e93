"""The F1 score of each class as bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.plots.canvas import (
    BLACK,
    GREY,
    ORANGE,
    PALETTE,
    TICK_PT,
    Style,
    as_number,
    name_rows,
    new_figure,
    rows_page_mm,
    style_axes,
    write_column,
)


def plot_f1_scores(
    per_class: Mapping[str, Mapping[str, object]],
    intervals: Mapping[str, tuple[float, float]] | None = None,
    *,
    level: float = 0.95,
) -> Figure:
    """Draw the F1 score of every class as a bar, best first, with its number of records.

    Parameters
    ----------
    per_class
        Class -> f1 (None where it is undefined) and support, as in
        ``compute_metrics(...)["per_class"]``.
    intervals
        Class -> (low, high) of a confidence interval, for all classes or some.
    level
        Confidence level of the intervals, named on the axis.

    Raises
    ------
    ValueError
        If there is no class.
    """
    if not per_class:
        raise ValueError("per_class has no class: give compute_metrics(predictions)['per_class']")
    # Undefined is not 0: such a class had no record, and stays out of the mean
    scores = {name: as_number(row.get("f1")) for name, row in per_class.items()}
    # Undefined scores come last
    names = sorted(scores, key=lambda name: math.inf if math.isnan(scores[name]) else -scores[name])
    figure = new_figure(rows_page_mm(names), 16 + 3.6 * len(names))
    axes = style_axes(figure.subplots(), grid="x")
    axes.barh(range(len(names)), [scores[name] for name in names], color=PALETTE[5], height=0.7)
    undefined: Style = {"fontsize": TICK_PT, "color": GREY, "style": "italic"}
    for row, name in enumerate(names):
        if math.isnan(scores[name]):
            axes.text(0.01, row, "undefined", va="center", **undefined)
        elif intervals is not None and name in intervals:
            axes.hlines(row, *intervals[name], colors=BLACK, linewidth=1.0)
    name_rows(axes, names)
    label = "F1 score"
    if intervals:
        label += f" (lines: {level * 100:g} % interval)"
    axes.set(xlim=(0, 1), xlabel=label)
    _mark_macro(axes, [score for score in scores.values() if not math.isnan(score)])
    supports = (per_class[name].get("support") for name in names)
    write_column(axes, "n", ["" if support is None else f"{support:,.0f}" for support in supports])
    return figure


def _mark_macro(axes: Axes, scores: Sequence[float]) -> None:
    """Draw a line at the mean of the defined scores."""
    if not scores:
        return
    macro = sum(scores) / len(scores)
    axes.axvline(macro, color=ORANGE, linewidth=1.2, linestyle="--", label="macro F1")
    # Clear of the names and of the column of numbers
    alignment = "center"
    if macro > 0.8:
        alignment = "right"
    elif macro < 0.2:
        alignment = "left"
    style: Style = {"fontsize": TICK_PT, "color": ORANGE, "va": "bottom"}
    place = axes.get_xaxis_transform()
    axes.text(macro, 1.0, f"macro {macro:.3f}", ha=alignment, transform=place, **style)
