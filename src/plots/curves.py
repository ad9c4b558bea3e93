"""Figures of a classifier's scores: ROC, precision-recall and reliability. `src.plots` offers them
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    new_figure,
    plain_text,
    style_axes,
)
from src.utils import Float64Array

_NAMED_CURVES = 2 * len(PALETTE)  # solid, then dashed
_PALE = "#b0b0b0"
_MIN_PREDICTIONS = 10


@dataclass(frozen=True, eq=False)
class _Curve:
    """The curve of one class with the area below it."""

    name: str
    x: Float64Array
    y: Float64Array
    area: float
    n_positive: int


def plot_roc_curves(y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str]) -> Figure:
    """Draw the ROC curve of every class and their mean, with the areas below them.

    The mean is over sensitivities at equal false positive rates, so that its area is the macro
    AUROC. Beyond 12 classes the 12 most frequent are named and the others grey.

    Parameters
    ----------
    y_true
        Shape (n_records, n_classes): 1 present, 0 absent, NaN not annotated and left out.
    y_score
        Shape (n_records, n_classes), higher where the class is more likely.
    classes
        Names. One with only positives or only negatives has no curve and is named below.

    Raises
    ------
    ValueError
        If the shapes disagree, an outcome is not 0, 1 or NaN, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    curves, undefined = _class_curves(
        y_true,
        y_score,
        classes,
        lambda outcome, score: roc_curve(outcome, score)[:2],
        roc_auc_score,
    )
    figure, axes = _curve_page(
        curves, undefined, "thick: mean, macro AUROC" if len(curves) > 1 else "AUROC"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    if len(curves) > 1:
        grid = np.linspace(0, 1, 501)
        mean = np.mean([np.interp(grid, curve.x, curve.y) for curve in curves], axis=0)
        grid, mean = np.append(0, grid), np.append(0, mean)  # every curve rises from the origin
        axes.plot(grid, mean, color=BLACK, linewidth=1.8, gid="macro")
    axes.set(
        xlabel="1 \N{MINUS SIGN} specificity (false positive rate)",
        ylabel="Sensitivity (true positive rate)",
    )
    return figure


def plot_precision_recall_curves(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str]
) -> Figure:
    """Draw the precision-recall curve of every class, with its average precision.

    Steps as in the definition of average precision, without interpolation (Davis and Goadrich,
    2006).

    Parameters
    ----------
    y_true, y_score, classes
        As for `plot_roc_curves`.

    Raises
    ------
    ValueError
        If the shapes disagree, an outcome is not 0, 1 or NaN, or a score is not finite.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    def trace(outcome: Float64Array, score: Float64Array) -> tuple[Float64Array, Float64Array]:
        precision, recall, _ = precision_recall_curve(outcome, score, drop_intermediate=True)
        return recall, precision

    curves, undefined = _class_curves(y_true, y_score, classes, trace, average_precision_score)
    figure, axes = _curve_page(curves, undefined, "macro average precision", drawstyle="steps-post")
    axes.set(xlabel="Recall (sensitivity)", ylabel="Precision (positive predictive value)")
    return figure


def _class_curves(
    y_true: ArrayLike,
    y_score: ArrayLike,
    classes: Sequence[str],
    trace: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]],
    compute_area: Callable[[Float64Array, Float64Array], float],
) -> tuple[list[_Curve], list[str]]:
    """Return the curve of each class, and the names of those with only positives or only
    negatives.
    """
    curves, undefined = [], []
    for name, outcome, score in _outcomes(*_check_scores(y_true, y_score, classes), classes):
        if np.unique(outcome).size < 2:
            undefined.append(name)
        else:
            curves.append(
                _Curve(
                    name,
                    *_visible(*trace(outcome, score)),
                    float(compute_area(outcome, score)),
                    int(outcome.sum()),
                )
            )
    return curves, undefined


def _check_scores(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str]
) -> tuple[Float64Array, Float64Array]:
    truth, scores = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    if (
        truth.ndim != 2
        or truth.shape != scores.shape
        or truth.shape[1] != len(classes)
        or not len(classes)
    ):
        raise ValueError(
            f"y_true has shape {truth.shape} and y_score {scores.shape}: "
            f"expected both (n_records, {len(classes)}), a column for each class"
        )
    if not np.isfinite(scores).all():
        raise ValueError("y_score holds NaN or infinity: expected finite scores")
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise ValueError(
            "y_true holds other values than 0, 1 and NaN: give a column of outcomes for each class"
        )
    return truth, scores


def _outcomes(
    truth: Float64Array, scores: Float64Array, classes: Sequence[str]
) -> list[tuple[str, Float64Array, Float64Array]]:
    """Return name, outcomes and scores of each class over the records annotated for it."""
    known = np.isfinite(truth)
    return [(name, truth[known[:, i], i], scores[known[:, i], i]) for i, name in enumerate(classes)]


def _visible(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Drop points that no eye can tell from the one before, which make vector files of large sets
    huge.
    """
    cells = np.round(np.stack([x, y]) * 2000)
    keep = np.append(True, (np.diff(cells) != 0).any(axis=0))
    keep[-1] = True
    return x[keep], y[keep]


def _curve_page(
    curves: Sequence[_Curve], undefined: Sequence[str], macro: str, drawstyle: str = "default"
) -> tuple[Figure, Axes]:
    """Draw the class curves on a square panel, named below it with their areas."""
    by_support = sorted(curves, key=lambda curve: -curve.n_positive)
    named, others = by_support[:_NAMED_CURVES], by_support[_NAMED_CURVES:]
    figure = new_figure(
        COLUMN_MM, 91 + 3.7 * (math.ceil(len(named) / 2) + bool(undefined) + bool(others))
    )
    axes = style_axes(figure.subplots(), grid="both")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    for curve in others:
        axes.plot(
            curve.x,
            curve.y,
            color=_PALE,
            linewidth=0.6,
            drawstyle=drawstyle,
            gid=f"curve-{curve.name}",
        )
    lines = []
    for number, curve in enumerate(named):
        style: dict[str, Any] = {
            "linewidth": 1.2,
            "drawstyle": drawstyle,
            "gid": f"curve-{curve.name}",
        }
        style["color"] = PALETTE[number % len(PALETTE)]
        style["linestyle"] = "-" if number < len(PALETTE) else "--"
        lines += axes.plot(
            curve.x, curve.y, label=f"{plain_text(curve.name, 20)}  {curve.area:.3f}", **style
        )
    title = _areas_title(curves, len(others), undefined, macro)
    style = {
        "ncols": 2,
        "alignment": "left",
        "fontsize": TICK_PT,
        "title_fontsize": TICK_PT,
        "frameon": False,
    }
    figure.legend(handles=lines, loc="outside lower center", title=title, **style)
    return figure, axes


def _areas_title(
    curves: Sequence[_Curve], n_others: int, undefined: Sequence[str], macro: str
) -> str:
    lines = ["no curve"]
    if curves:
        noun = "class" if len(curves) == 1 else "classes"
        lines = [f"{macro} {np.mean([curve.area for curve in curves]):.3f} ({len(curves)} {noun})"]
    if n_others:
        lines.append(
            f"grey: the {n_others} rarer classes; named: the {_NAMED_CURVES} most frequent"
        )
    if undefined:
        lines.append(plain_text(f"positives or negatives only: {', '.join(undefined)}", 60))
    return "\n".join(lines)


def plot_reliability_diagram(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str], *, n_bins: int = 10
) -> Figure:
    """Draw how often a class is there against how probable the model said it is, over the spread of
    the scores.

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
    truth, scores = _check_scores(y_true, y_score, classes)
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}: expected 1 or more")
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError(
            f"y_score runs from {scores.min():g} to {scores.max():g}: expected "
            "probabilities from 0 to 1"
        )
    known = np.isfinite(truth)
    figure = new_figure(COLUMN_MM, 112)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    style_axes(top, grid="both").plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    lines: list[Line2D] = []
    if 1 < len(classes) <= len(PALETTE):
        for color, (name, outcome, score) in zip(
            PALETTE, _outcomes(truth, scores, classes), strict=False
        ):
            lines += _draw_reliability(
                top, Reliability.of(outcome, score, n_bins), color, plain_text(name, 20)
            )
    pool = Reliability.of(truth[known], scores[known], n_bins)
    lines += _draw_reliability(top, pool, BLACK, "all classes", intervals=True)
    title = f"ECE {pool.error:.3f}" if pool.counts.any() else "no outcome"
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed frequency")
    top.legend(
        handles=lines,  # else names that begin with an underscore are left out
        fontsize=TICK_PT,
        frameon=False,
        loc="upper left",
        title=title,
        title_fontsize=TICK_PT,
    )
    style_axes(bottom, grid="y").set(
        xlabel="Predicted probability", ylabel="Predictions", yscale="log"
    )
    bottom.stairs(
        pool.counts, np.linspace(0, 1, n_bins + 1), baseline=0.5, fill=True, color=PALETTE[5]
    )
    bottom.set_ylim(0.5, max(2 * pool.counts.max(), 10))
    figure.align_ylabels()
    return figure


def _draw_reliability(
    axes: Axes, bins: Reliability, color: str, label: str, *, intervals: bool = False
) -> list[Line2D]:
    there = bins.counts >= (1 if intervals else _MIN_PREDICTIONS)
    width, size = (1.6, 3.5) if intervals else (0.9, 0.0)
    lines = axes.plot(
        bins.predicted[there],
        bins.observed[there],
        "o-",
        color=color,
        lw=width,
        ms=size,
        label=label,
    )
    if intervals:
        low, high = bins.interval()
        axes.vlines(bins.predicted[there], low[there], high[there], colors=color, linewidth=0.9)
    return lines
