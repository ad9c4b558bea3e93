"""The reliability diagram: how well predicted probabilities agree with observed frequencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from src.learning.calibration import Reliability
from src.plots.canvas import (
    BLACK,
    COLUMN_MM,
    GREY,
    PALETTE,
    TICK_PT,
    Style,
    new_figure,
    plain_text,
    style_axes,
)
from src.plots.curves import annotated_scores, check_scores

_MIN_PREDICTIONS = 10  # in a bin of a single class


def plot_reliability_diagram(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str], *, n_bins: int = 10
) -> Figure:
    """Draw observed frequency against predicted probability, above the distribution of the scores.

    All pairs of record and class are pooled in bins of equal width; bars are Wilson's 95 % interval
    (1927). ECE is the expected calibration error of the pool (Naeini et al., 2015). Up to 6 classes
    are drawn one by one as well, where a bin holds 10 predictions or more.

    Parameters
    ----------
    y_true, y_score, classes
        As for `plot_roc_curves`, the scores being probabilities.
    n_bins
        Number of bins from 0 to 1.

    Raises
    ------
    ValueError
        If the shapes disagree, an outcome is not 0, 1 or NaN, a score is no probability or there is
        no bin.
    """
    truth, scores = check_scores(y_true, y_score, classes)
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}: expected 1 or more")
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(
            f"y_score runs from {scores.min():g} to {scores.max():g}: expected "
            "probabilities from 0 to 1"
        )
    n_named = len(classes) if 1 < len(classes) <= len(PALETTE) else 0
    figure = new_figure(COLUMN_MM, 116 + 3.7 * n_named)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    style_axes(top, grid="both").plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    lines: list[Line2D] = []
    if n_named:
        of_classes = annotated_scores(truth, scores, classes)
        for color, (name, outcome, score) in zip(PALETTE, of_classes, strict=False):
            bins = Reliability.of(outcome, score, n_bins)
            lines += _draw_class(top, bins, color, plain_text(name))
    known = np.isfinite(truth)
    pool = Reliability.of(truth[known], scores[known], n_bins)
    lines += _draw_pool(top, pool)
    title = "no outcome"
    if pool.counts.any():
        title = f"ECE {pool.error:.3f}; vertical lines: 95 % interval (Wilson)"
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed frequency")
    # Below the panels, where no curve runs and names are whole. Without handles, matplotlib leaves
    # out names that begin with an underscore
    style: Style = {"fontsize": TICK_PT, "title_fontsize": TICK_PT, "frameon": False}
    style |= {"alignment": "left", "loc": "outside lower center", "title": title}
    figure.legend(handles=lines, **style)
    _draw_counts(bottom, pool)
    figure.align_ylabels()
    return figure


def _draw_class(axes: Axes, bins: Reliability, color: str, label: str) -> list[Line2D]:
    # The frequency of a few predictions jumps, which reads as poor calibration
    shown = bins.counts >= _MIN_PREDICTIONS
    x, y = bins.predicted[shown], bins.observed[shown]
    return axes.plot(x, y, "o-", color=color, lw=0.9, ms=0.0, label=label)


def _draw_pool(axes: Axes, bins: Reliability) -> list[Line2D]:
    shown = bins.counts >= 1
    x, y = bins.predicted[shown], bins.observed[shown]
    lines = axes.plot(x, y, "o-", color=BLACK, lw=1.6, ms=3.5, label="all classes")
    low, high = bins.interval()
    axes.vlines(x, low[shown], high[shown], colors=BLACK, linewidth=0.9)
    return lines


def _draw_counts(axes: Axes, bins: Reliability) -> None:
    """Draw the number of predictions in each bin, on a logarithmic axis."""
    style_axes(axes, grid="y")
    axes.set(xlabel="Predicted probability", ylabel="Predictions", yscale="log")
    edges = np.linspace(0, 1, len(bins.counts) + 1)
    axes.stairs(bins.counts, edges, baseline=0.5, fill=True, color=PALETTE[5])
    # From half a prediction on: a bin of one still has a height on a logarithmic axis
    axes.set_ylim(0.5, max(2 * bins.counts.max(), 10))
