"""A map of what an answer rests on, drawn behind the recording on ECG paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from src.ecg_paper import plot_ecg

_FULL_COLOUR_SHARE = 0.995  # of the samples; a few spikes would leave the rest pale


def plot_saliency(
    signal: ArrayLike,
    values: ArrayLike,
    fs: float,
    leads: Sequence[str],
    *,
    title: str | None = None,
    note: str = "",
    layout: str = "stack",
    smooth_s: float = 0.04,
    duration_s: float = 10.0,
) -> Figure:
    """Draw a recording with the paper coloured where a map is strong: orange for the class, blue
    against it.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV; NaN leaves a gap.
    values
        The map, of the same shape; its unit does not matter.
    fs, leads, title, note, layout, duration_s
        As for `src.ecg_paper.plot_ecg`.
    smooth_s
        Length in seconds of the moving average that the map is drawn with; 0 draws it as it is.

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
    smooth = _smooth(weights, max(1, round(smooth_s * fs)))
    drawn = smooth[np.isfinite(np.asarray(signal, dtype=np.float64))]
    full = float(np.quantile(np.abs(drawn), _FULL_COLOUR_SHARE)) if drawn.size else 0.0
    shade = np.clip(smooth / full, -1, 1) if full else np.zeros_like(smooth)
    return plot_ecg(
        signal, fs, leads, title=title, layout=layout, duration_s=duration_s, shade=shade, note=note
    )


def _smooth(weights: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the moving average over `width` samples of each row, over fewer at the ends."""
    kernel = np.ones(width)
    counts = np.convolve(np.ones(weights.shape[1]), kernel, mode="full")
    sums = np.stack([np.convolve(row, kernel, mode="full") for row in weights])
    start = (width - 1) // 2
    stretch = slice(start, start + weights.shape[1])
    smooth: NDArray[np.float64] = sums[:, stretch] / counts[stretch]
    return smooth
