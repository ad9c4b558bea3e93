"""The training history as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from src.plots.canvas import (
    BLACK,
    BLUE,
    COLUMN_MM,
    GREY,
    ORANGE,
    PALETTE,
    TICK_PT,
    Style,
    as_number,
    new_figure,
    style_axes,
)
from src.utils import Float64Array

Epoch = Mapping[str, object]
"""Values of one epoch by name; None where a value is undefined."""

# Key of the history -> label and colour
_LOSSES = {"train_loss": ("training", BLUE), "val_loss": ("validation", ORANGE)}
_SCORES = {"val_f1_macro": ("macro F1", PALETTE[2]), "val_auroc_macro": ("macro AUROC", PALETTE[4])}
_RATE = {"lr": ("learning rate", GREY)}

# Label of a panel, its series and its relative height
_PANELS = (
    ("Loss", _LOSSES, 3.0),
    ("Validation score", _SCORES, 3.0),
    ("Learning rate", _RATE, 1.3),
)

# By which the best epoch is found, and whether more (1) or less (-1) is better
_CRITERIA = {"val_auroc_macro": 1, "val_f1_macro": 1, "val_loss": -1, "train_loss": -1}


def plot_training_history(history: Sequence[Epoch], best_epoch: int | None = None) -> Figure:
    """Draw losses, validation scores and learning rate by epoch.

    Parameters
    ----------
    history
        One mapping per epoch: epoch, train_loss, val_loss, val_f1_macro, val_auroc_macro, lr. A
        value that is missing or None leaves a gap; a panel without a value is left out.
    best_epoch
        The epoch to mark. By default that of the highest macro AUROC, else macro F1, else of the
        lowest loss.

    Raises
    ------
    ValueError
        If there is no epoch.
    """
    if not history:
        raise ValueError("history has no epoch: train for one epoch at least")
    # Runs without a validation split have losses and a learning rate only
    panels = [
        panel for panel in _PANELS if panel[0] == "Loss" or _has_values(history, list(panel[1]))
    ]
    heights = [height for _, _, height in panels]
    figure = new_figure(COLUMN_MM, 14 + 15 * sum(heights))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    best = _best_epoch(history) if best_epoch is None else best_epoch
    for axes, (label, series, _) in zip(grid, panels, strict=True):
        style_axes(axes, grid="y")
        _draw_series(axes, history, series)
        axes.set_ylabel(label)
        if best is not None:
            axes.axvline(best, color=BLACK, linewidth=0.8, linestyle=":", zorder=1)

    epochs = _epochs(history)
    first, last = int(epochs.min()), int(epochs.max())
    margin = max(0.5, 0.02 * (last - first))
    grid[-1].set_xlim(first - margin, last + margin)
    if best is not None:
        _name_best(grid[0], best, "right" if best > (first + last) / 2 else "left")
    figure.align_ylabels()
    grid[-1].set_xlabel("Epoch")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _column(history: Sequence[Epoch], key: str) -> Float64Array:
    """Return one value per epoch, NaN where there is none."""
    return np.array([as_number(row.get(key)) for row in history])


def _has_values(history: Sequence[Epoch], keys: Sequence[str]) -> bool:
    return any(bool(np.isfinite(_column(history, key)).any()) for key in keys)


def _epochs(history: Sequence[Epoch]) -> NDArray[np.int64]:
    return np.array(
        [row.get("epoch", number) for number, row in enumerate(history, 1)], dtype=np.int64
    )


def _best_epoch(history: Sequence[Epoch]) -> int | None:
    for key, sign in _CRITERIA.items():
        values = sign * _column(history, key)
        if np.isfinite(values).any():
            return int(_epochs(history)[int(np.nanargmax(values))])
    return None


def _draw_series(
    axes: Axes, history: Sequence[Epoch], series: Mapping[str, tuple[str, str]]
) -> None:
    epochs = _epochs(history)
    # Markers would run into each other in a long history
    style: Style = {"markersize": 2.5, "linewidth": 1.2}
    style["marker"] = "o" if len(history) <= 30 else ""
    for key, (label, color) in series.items():
        values = _column(history, key)
        if np.isfinite(values).any():
            axes.plot(epochs, values, color=color, label=label, **style)
    if len(series) > 1:
        axes.legend(fontsize=TICK_PT, frameon=False)


def _name_best(axes: Axes, best: int, alignment: str) -> None:
    """Name the best epoch above a panel."""
    style: Style = {"textcoords": "offset points", "va": "bottom", "fontsize": TICK_PT}
    place = axes.get_xaxis_transform()
    axes.annotate(f"best: epoch {best}", (best, 1), (0, 2), xycoords=place, ha=alignment, **style)
