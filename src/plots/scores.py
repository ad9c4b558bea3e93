"""Figures of training and evaluation; every plot_* function returns a matplotlib Figure and needs
no display.

They take plain arrays and dictionaries, so that they can be drawn from saved results without the
model. Sizes are those of a journal column or page, the type at least 7 pt, the colours Okabe and
Ito's for colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from src.plots.canvas import (
    BLACK,
    COLUMN_MM,
    GREY,
    LABEL_PT,
    LIGHT_GREY,
    ORANGE,
    PAGE_MM,
    PALETTE,
    TICK_PT,
    as_number,
    name_rows,
    new_figure,
    plain_text,
    style_axes,
    write_column,
)
from src.utils import Float64Array

# Classes ------------------------------------------------------------------------------------------


def plot_confusion_matrix(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: numbers of records, coloured by their share of the true class.

    Up to 10 classes show count and share, up to 20 the count, more the colour only. A class without
    a record is grey.

    Parameters
    ----------
    matrix
        Shape (n_classes, n_classes), counts; rows are the true classes.
    classes
        Their names.

    Raises
    ------
    ValueError
        If the shape does not fit the classes or a count is negative.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    n = len(classes)
    if n == 0 or counts.shape != (n, n):
        raise ValueError(
            f"the matrix has shape {counts.shape}: expected ({n}, {n}) for {n} classes, "
            "at least one"
        )
    if not (counts >= 0).all():
        raise ValueError(f"the matrix holds {counts.min():g}: expected counts of 0 or more")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    names = [plain_text(name, 22) for name in classes]
    figure, axes = _square_page(n, label_mm=1.4 * max(map(len, names)))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor(LIGHT_GREY)
    axes.set_yticks(range(n), names)
    turned: dict[str, Any] = (
        {"rotation": 90, "va": "center"} if n > 10 else {"rotation": 40, "va": "top"}
    )
    axes.set_xticks(range(n), names, ha="right", rotation_mode="anchor", **turned)
    axes.set(xlabel="Predicted class", ylabel="True class")
    if n <= 20:
        _write_cells(axes, counts, share, with_share=n <= 10)
    bar = figure.colorbar(
        image, ax=axes, format=PercentFormatter(1.0, decimals=0), shrink=0.8, aspect=25
    )
    bar.set_label("Share of the true class", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)
    return figure


def _square_page(n: int, label_mm: float) -> tuple[Figure, Axes]:
    """Return a page with room for n by n cells and their names."""
    cell = 12.0 if n <= 10 else 7.0 if n <= 20 else 4.5
    below = label_mm * (1.0 if n > 10 else 0.7)
    width, height = max(cell * n, 30.0) + label_mm + 32, max(cell * n, 30.0) + below + 14
    shrink = min(1.0, PAGE_MM / width)
    figure = new_figure(width * shrink, height * shrink, layout="compressed")
    axes = style_axes(figure.subplots())
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _write_cells(
    axes: Axes, counts: Float64Array, share: Float64Array, *, with_share: bool
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        part = share[row, column]
        text = f"{count:,.0f}" if with_share or count < 10_000 else f"{count / 1000:,.0f}k"
        if with_share and count:
            text += f"\n{part:.0%}" if part >= 0.005 else "\n<1%"
        color = "white" if part > 0.6 else BLACK
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=TICK_PT,
            color=color,
            linespacing=1.1,
        )


def plot_f1_scores(
    per_class: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw the F1 score of every class as a bar, best first, with the number of records that carry
    it.

    Parameters
    ----------
    per_class
        Class -> f1 (None where it is undefined) and support, as in
        ``compute_metrics(...)["per_class"]``.
    intervals
        Class -> (low, high) of a confidence interval, for all classes or some.

    Raises
    ------
    ValueError
        If there is no class.
    """
    if not per_class:
        raise ValueError("per_class has no class: give compute_metrics(predictions)['per_class']")
    scores = {name: as_number(row.get("f1")) for name, row in per_class.items()}
    names = sorted(scores, key=lambda name: math.inf if math.isnan(scores[name]) else -scores[name])
    figure = new_figure(COLUMN_MM, 16 + 3.6 * len(names))
    axes = style_axes(figure.subplots(), grid="x")
    axes.barh(range(len(names)), [scores[name] for name in names], color=PALETTE[5], height=0.7)
    for row, name in enumerate(names):
        if math.isnan(scores[name]):
            axes.text(
                0.01, row, "undefined", fontsize=TICK_PT, color=GREY, va="center", style="italic"
            )
        elif intervals is not None and name in intervals:
            axes.hlines(row, *intervals[name], colors=BLACK, linewidth=1.0)
    name_rows(axes, names, limit=30)
    axes.set(xlim=(0, 1), xlabel="F1 score")
    _mark_macro(axes, [score for score in scores.values() if not math.isnan(score)])
    supports = (per_class[name].get("support") for name in names)
    write_column(axes, "n", ["" if support is None else f"{support:,.0f}" for support in supports])
    return figure


def _mark_macro(axes: Axes, defined: Sequence[float]) -> None:
    if not defined:
        return
    macro = sum(defined) / len(defined)
    axes.axvline(macro, color=ORANGE, linewidth=1.2, linestyle="--", label="macro F1")
    style: dict[str, Any] = {"fontsize": TICK_PT, "color": ORANGE, "va": "bottom"}
    style["ha"] = (
        "right" if macro > 0.8 else "left" if macro < 0.2 else "center"
    )  # clear of the column of numbers
    axes.text(macro, 1.0, f"macro {macro:.3f}", transform=axes.get_xaxis_transform(), **style)
