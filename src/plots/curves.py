"""ROC and precision-recall curves of a classifier's scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from src.plots.canvas import (
    BLACK,
    COLUMN_MM,
    GREY,
    NAME_LIMIT,
    PALETTE,
    TICK_PT,
    Style,
    longest_mm,
    name_some,
    new_figure,
    plain_text,
    style_axes,
    wrap_text,
)
from src.utils import Float64Array, printable

_NAMED_CURVES = 2 * len(PALETTE)  # solid, then dashed
_PALE = "#b0b0b0"
_LINE_MM = 3.7  # of a legend
_HANDLE_MM = 12.0  # line of a legend with the gaps around it
_LEGEND_MARGIN_MM = 8.0
_CELLS = 2000
"""Cells along an axis; points within one cell look the same."""


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
        Names. A class with only positives or only negatives has no curve and is named below.

    Raises
    ------
    ValueError
        If the shapes disagree, an outcome is not 0, 1 or NaN, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    def trace(outcome: Float64Array, score: Float64Array) -> tuple[Float64Array, Float64Array]:
        false_positive_rate, sensitivity, _ = roc_curve(outcome, score)
        return false_positive_rate, sensitivity

    curves, undefined = _class_curves(y_true, y_score, classes, trace, roc_auc_score)
    macro = "thick: mean, macro AUROC" if len(curves) > 1 else "AUROC"
    figure, axes = _curve_page(curves, undefined, macro)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    if len(curves) > 1:
        grid = np.linspace(0, 1, 501)
        mean = np.mean([np.interp(grid, curve.x, curve.y) for curve in curves], axis=0)
        # Every curve rises from the origin
        grid, mean = np.append(0, grid), np.append(0, mean)
        axes.plot(grid, mean, color=BLACK, linewidth=1.8, gid="macro")
    axes.set_xlabel("1 \N{MINUS SIGN} specificity (false positive rate)")
    axes.set_ylabel("Sensitivity (true positive rate)")
    return figure


def plot_precision_recall_curves(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str]
) -> Figure:
    """Draw the precision-recall curve of every class, with its average precision.

    The curves are steps, as in the definition of average precision, without interpolation (Davis
    and Goadrich, 2006).

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


# Computing ----------------------------------------------------------------------------------------


def check_scores(
    y_true: ArrayLike, y_score: ArrayLike, classes: Sequence[str]
) -> tuple[Float64Array, Float64Array]:
    """Return outcomes and scores as arrays (n_records, n_classes), or raise ValueError."""
    truth, scores = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    n_classes = len(classes)
    has_shape = truth.ndim == 2 and truth.shape == scores.shape
    if not has_shape or truth.shape[1] != n_classes or not n_classes:
        raise ValueError(
            f"y_true has shape {truth.shape} and y_score {scores.shape}: "
            f"expected both (n_records, {n_classes}), a column for each class"
        )
    if not np.isfinite(scores).all():
        raise ValueError("y_score holds NaN or infinity: expected finite scores")
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise ValueError(
            "y_true holds other values than 0, 1 and NaN: give a column of outcomes for each class"
        )
    return truth, scores


def annotated_scores(
    truth: Float64Array, scores: Float64Array, classes: Sequence[str]
) -> list[tuple[str, Float64Array, Float64Array]]:
    """Return name, outcomes and scores of each class over the records annotated for it."""
    # Each class has its own records: a source that did not look for a class says nothing of it
    known = np.isfinite(truth)
    return [(name, truth[known[:, i], i], scores[known[:, i], i]) for i, name in enumerate(classes)]


def _class_curves(
    y_true: ArrayLike,
    y_score: ArrayLike,
    classes: Sequence[str],
    trace: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]],
    compute_area: Callable[[Float64Array, Float64Array], float],
) -> tuple[list[_Curve], list[str]]:
    """Return the curve of each class, and the names of classes with a single outcome."""
    truth, scores = check_scores(y_true, y_score, classes)
    curves, undefined = [], []
    for name, outcome, score in annotated_scores(truth, scores, classes):
        if np.unique(outcome).size < 2:
            undefined.append(name)
            continue
        x, y = _drop_hidden(*trace(outcome, score))
        area = float(compute_area(outcome, score))
        curves.append(_Curve(name, x, y, area, n_positive=int(outcome.sum())))
    return curves, undefined


def _drop_hidden(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Drop points that look the same as the one before: they make vector files of large sets huge.

    The last point stays.
    """
    cells = np.round(np.stack([x, y]) * _CELLS)
    keep = np.append(True, (np.diff(cells) != 0).any(axis=0))
    keep[-1] = True
    return x[keep], y[keep]


# Drawing ------------------------------------------------------------------------------------------


def _curve_page(
    curves: Sequence[_Curve], undefined: Sequence[str], macro: str, drawstyle: str = "default"
) -> tuple[Figure, Axes]:
    """Draw the class curves on a square panel, named below it with their areas."""
    by_support = sorted(curves, key=lambda curve: -curve.n_positive)
    named, others = by_support[:_NAMED_CURVES], by_support[_NAMED_CURVES:]
    labels = [f"{plain_text(curve.name, NAME_LIMIT)}  {curve.area:.3f}" for curve in named]
    # Two columns only where both fit: matplotlib cuts a legend that is wider than the page
    n_columns = 2 if 2 * (longest_mm(labels) + _HANDLE_MM) <= COLUMN_MM else 1
    title = _legend_title(curves, len(others), undefined, macro)
    n_lines = math.ceil(len(named) / n_columns) + len(title)
    figure = new_figure(COLUMN_MM, 91 + _LINE_MM * n_lines)
    axes = style_axes(figure.subplots(), grid="both")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    # Grey ones first, so that they lie below those that are named
    for curve in others:
        style: Style = {"color": _PALE, "linewidth": 0.6, "gid": f"curve-{printable(curve.name)}"}
        axes.plot(curve.x, curve.y, drawstyle=drawstyle, **style)
    lines = []
    for number, (curve, label) in enumerate(zip(named, labels, strict=True)):
        style = {"linewidth": 1.2, "drawstyle": drawstyle, "gid": f"curve-{printable(curve.name)}"}
        style["color"] = PALETTE[number % len(PALETTE)]
        style["linestyle"] = "-" if number < len(PALETTE) else "--"
        lines += axes.plot(curve.x, curve.y, label=label, **style)
    legend: Style = {"ncols": n_columns, "alignment": "left", "frameon": False}
    legend |= {"fontsize": TICK_PT, "title_fontsize": TICK_PT, "title": "\n".join(title)}
    figure.legend(handles=lines, loc="outside lower center", **legend)
    return figure, axes


def _legend_title(
    curves: Sequence[_Curve], n_others: int, undefined: Sequence[str], macro: str
) -> list[str]:
    """Return the lines above the names, none wider than the page."""
    lines = ["no curve"]
    if curves:
        noun = "class" if len(curves) == 1 else "classes"
        mean = np.mean([curve.area for curve in curves])
        lines = [f"{macro} {mean:.3f} ({len(curves)} {noun})"]
    if n_others:
        lines.append(
            f"grey: the {n_others} rarer classes; named: the {_NAMED_CURVES} most frequent"
        )
    if undefined:
        lines.append(f"positives or negatives only: {name_some(undefined)}")
    room = COLUMN_MM - _LEGEND_MARGIN_MM
    return [part for line in lines for part in wrap_text(line, room, TICK_PT)]
