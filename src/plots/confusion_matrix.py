"""The confusion matrix as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from src.plots.canvas import (
    BLACK,
    LABEL_PT,
    LIGHT_GREY,
    NAME_LIMIT,
    PAGE_MM,
    TICK_PT,
    Style,
    longest_mm,
    new_figure,
    plain_text,
    style_axes,
)
from src.utils import Float64Array

_FEW, _SEVERAL = 10, 20
"""Most classes whose cells show count and share, and most whose cells show the count."""
_BESIDE_MM = 32.0  # the scale, the label of the axis and the gaps
_MIN_CELL_MM = 3.0


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
    # NaN leaves the row of an absent class to the grey of the panel; 0 would look like all wrong
    share = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    names = [plain_text(name, NAME_LIMIT) for name in classes]
    figure, axes = _square_page(n, label_mm=longest_mm(names))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor(LIGHT_GREY)
    axes.set_yticks(range(n), names)
    turned: Style = {"rotation": 40, "va": "top"}
    if n > _FEW:
        turned = {"rotation": 90, "va": "center"}
    axes.set_xticks(range(n), names, ha="right", rotation_mode="anchor", **turned)
    axes.set(xlabel="Predicted class", ylabel="True class")
    if n <= _SEVERAL:
        _write_cells(axes, counts, share, with_share=n <= _FEW)
    percent = PercentFormatter(1.0, decimals=0)
    bar = figure.colorbar(image, ax=axes, format=percent, shrink=0.8, aspect=25)
    bar.set_label("Share of the true class", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)
    return figure


def _square_page(n: int, label_mm: float) -> tuple[Figure, Axes]:
    """Return a page with room for n by n cells and their names."""
    if n <= _FEW:
        cell_mm, below = 12.0, label_mm * 0.7
    else:
        cell_mm, below = 7.0 if n <= _SEVERAL else 4.5, label_mm
    # Cells shrink to fit a journal's page, but not below the height of the names beside them: a
    # matrix of 71 classes is wider than the page instead
    fitting_mm = (PAGE_MM - label_mm - _BESIDE_MM) / n
    cell_mm = min(cell_mm, max(fitting_mm, _MIN_CELL_MM))
    side = max(cell_mm * n, 30.0)
    width, height = side + label_mm + _BESIDE_MM, side + below + 14
    figure = new_figure(width, height, layout="compressed")
    axes = style_axes(figure.subplots())
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _write_cells(
    axes: Axes, counts: Float64Array, share: Float64Array, *, with_share: bool
) -> None:
    """Write count and share into each cell, legible on its colour."""
    style: Style = {"ha": "center", "va": "center", "fontsize": TICK_PT}
    for (row, column), count in np.ndenumerate(counts):
        part = share[row, column]
        text = f"{count:,.0f}"
        if not with_share and count >= 10_000:
            text = f"{count / 1000:,.0f}k"
        # A zero needs no share, and most cells are zeros
        if with_share and count:
            text += f"\n{part:.0%}" if part >= 0.005 else "\n<1%"
        color = "white" if part > 0.6 else BLACK
        axes.text(column, row, text, color=color, linespacing=1.1, **style)
