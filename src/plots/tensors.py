"""What the network sees: the tensor of a recording, and records of a batch by their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from src.plots.canvas import (
    BLUE,
    GREY,
    LABEL_PT,
    NAME_LIMIT,
    PAGE_MM,
    TICK_PT,
    Style,
    new_figure,
    plain_text,
    style_axes,
)
from src.utils import Float64Array

# Distance between the baselines of two leads, in standard deviations
_ROW_SD = 8.0
_ROW_MM = 6.5
# Room for a beat of any lead: what exceeds it runs into the neighbouring row
_PANEL_SD = 6.0
_PANEL_MM = 12.0


def plot_tensor(
    signal: ArrayLike, leads: Sequence[str], *, title: str = "", n_valid: int | None = None
) -> Figure:
    """Draw a tensor: a row for each lead in standard deviations, over the number of the sample.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), z-scored per lead.
    leads
        Names of the rows.
    title
        Printed above; below it stand type and shape.
    n_valid
        Samples before the padding, which is drawn in grey; by default all.

    Raises
    ------
    ValueError
        If the signal is empty or has another number of rows than there are names.
    """
    samples = np.asarray(signal)
    if samples.ndim != 2 or len(samples) != len(leads) or not samples.size:
        raise ValueError(
            f"the tensor has shape {samples.shape}: expected ({len(leads)}, n_samples) for the "
            f"leads {', '.join(leads)}"
        )
    n_samples = samples.shape[1]
    n_valid = n_samples if n_valid is None else n_valid
    figure = new_figure(PAGE_MM, 22 + _ROW_MM * len(leads))
    shape = " x ".join(map(str, samples.shape))
    heading = f"{title}\n" if title else ""
    axes = style_axes(figure.subplots(), title=f"{heading}tensor: {samples.dtype}, {shape}")
    for row, values in enumerate(samples):
        baseline = -row * _ROW_SD
        axes.axhline(baseline, color=GREY, linewidth=0.3, zorder=1)
        axes.plot(np.arange(n_valid), values[:n_valid] + baseline, color=BLUE, linewidth=0.6)
    if n_valid < n_samples:
        axes.axvspan(n_valid, n_samples, color=GREY, alpha=0.15, linewidth=0)
        _write_inside(axes, (n_valid + n_samples) / 2, "padding")
    axes.set_yticks([-row * _ROW_SD for row in range(len(leads))], list(map(plain_text, leads)))
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, n_samples), ylim=(-(len(leads) - 0.4) * _ROW_SD, 0.9 * _ROW_SD))
    axes.set_xlabel(f"sample; from lead to lead {_ROW_SD:g} standard deviations")
    return figure


def _write_inside(axes: Axes, x: float, text: str) -> None:
    style: Style = {"ha": "center", "va": "top", "fontsize": TICK_PT, "color": GREY}
    axes.text(x, 0.8 * _ROW_SD, text, **style)


def plot_batch(
    signals: Sequence[Sequence[ArrayLike]],
    classes: Sequence[str],
    fs: float,
    *,
    lead: str = "II",
    duration_s: float = 3.0,
) -> Figure:
    """Draw records by class: a row for each class, a panel for each of its records.

    Parameters
    ----------
    signals
        The records of each class; each is one lead, shape (n_samples,), in standard deviations.
    classes
        Names of the rows.
    fs
        Sampling rate in Hz.
    lead
        Name of the lead, printed below.
    duration_s
        Seconds shown from the start.

    Raises
    ------
    ValueError
        If there is no class with a record, or the numbers of rows and names differ.
    """
    n_columns = max(map(len, signals), default=0)
    if not n_columns or len(signals) != len(classes):
        raise ValueError(
            f"{len(signals)} rows of records for {len(classes)} classes: expected one for each "
            "class, and a record in one of them"
        )
    figure = new_figure(PAGE_MM, 10 + _PANEL_MM * len(classes))
    grid = figure.subplots(len(classes), n_columns, sharex=True, sharey=True, squeeze=False)
    n_shown = max(1, round(duration_s * fs))
    for row, (name, records) in enumerate(zip(classes, signals, strict=True)):
        for column, axes in enumerate(grid[row]):
            values = np.asarray(records[column]) if column < len(records) else np.empty(0)
            _draw_beats(axes, np.asarray(values[:n_shown], np.float64), fs)
        style: Style = {"rotation": 0, "ha": "right", "va": "center", "fontsize": LABEL_PT}
        grid[row, 0].set_ylabel(plain_text(name, NAME_LIMIT), **style)
    grid[0, 0].set(xlim=(0, duration_s), ylim=(-_PANEL_SD, _PANEL_SD))
    figure.supxlabel(
        f"lead {plain_text(lead)}, the first {duration_s:g} s, in standard deviations",
        fontsize=LABEL_PT,
    )
    return figure


def _draw_beats(axes: Axes, values: Float64Array, fs: float) -> None:
    """Draw one lead of a record into its panel, without axes."""
    style_axes(axes)
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[])
    axes.axhline(0, color=GREY, linewidth=0.3, zorder=1)
    axes.plot(np.arange(len(values)) / fs, values, color=BLUE, linewidth=0.7)
