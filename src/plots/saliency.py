"""A saliency map on ECG paper: the paper is coloured where the map is strong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from src.plots.ecg import plot_ecg
from src.utils import Float64Array

# Quantile of the absolute values that gets full colour; a few spikes would leave the rest pale
_FULL_COLOUR = 0.995


def plot_saliency(
    signal: ArrayLike,
    values: ArrayLike,
    fs: float,
    leads: Sequence[str],
    *,
    class_name: str = "",
    title: str | None = None,
    note: str = "",
    layout: str = "stack",
    smooth_s: float = 0.04,
    duration_s: float = 10.0,
) -> Figure:
    """Draw a recording on paper coloured by a map: orange for the class, blue against it.

    A colour key below the grid names the class.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV; NaN leaves a gap.
    values
        The map, of the same shape; its unit does not matter.
    class_name
        The class that the map explains.
    fs, leads, title, note, layout, duration_s
        As for `src.plots.ecg.plot_ecg`.
    smooth_s
        Length in seconds of the moving average that smooths the map; 0 leaves it as it is.

    Raises
    ------
    ValueError
        If the shapes differ, the map holds values that are not finite, or the recording cannot be
        drawn.
    """
    weights = np.asarray(values, dtype=np.float64)
    if weights.shape != np.shape(signal):
        raise ValueError(
            f"the map has shape {weights.shape}, the signal {np.shape(signal)}: expected the same"
        )
    if not np.isfinite(weights).all():
        raise ValueError(
            "the map holds values that are not finite: expected a number for each sample"
        )
    smooth = _moving_average(weights, max(1, round(smooth_s * fs)))
    # The scale is that of samples that exist: padding has weights, but nothing to colour
    shown = np.abs(smooth[np.isfinite(np.asarray(signal, dtype=np.float64))])
    full = float(np.quantile(shown, _FULL_COLOUR)) if shown.size else 0.0
    shade = np.clip(smooth / full, -1, 1) if full else np.zeros_like(smooth)
    return plot_ecg(
        signal,
        fs,
        leads,
        title=title,
        layout=layout,
        duration_s=duration_s,
        shade=shade,
        shade_class=class_name,
        note=note,
    )


def _moving_average(weights: Float64Array, width: int) -> Float64Array:
    """Return the mean over `width` samples of each row, over fewer at the ends."""
    kernel = np.ones(width)
    n_samples = weights.shape[1]
    # Divided by the samples under the window, so that the ends do not fade
    counts = np.convolve(np.ones(n_samples), kernel, mode="full")
    sums = np.stack([np.convolve(row, kernel, mode="full") for row in weights])
    start = (width - 1) // 2
    centre = slice(start, start + n_samples)
    means: Float64Array = sums[:, centre] / counts[centre]
    return means
