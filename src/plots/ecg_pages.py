"""Several recordings on one page, each on ECG paper under its own heading: the mistakes of a model,
say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from src.plots.canvas import (
    GREY,
    LABEL_PT,
    MM_PER_INCH,
    PAGE_MM,
    TICK_PT,
    TITLE_PT,
    new_figure,
    plain_text,
)
from src.plots.ecg import draw_ecg, plot_ecg
from src.utils import Float64Array

_MARGIN, _HEADING, _GAP = 4.0, 9.0, 4.0  # mm
_TITLE_LENGTH = 68  # characters that fit beside the words on the scale

_FULL_COLOUR_SHARE = 0.995  # of the samples; a few spikes would leave the rest pale


@dataclass(frozen=True, eq=False)
class GalleryRecord:
    """A recording with its heading: `signal` (n_leads, n_samples) in mV, `fs` in Hz, `title` in
    black, `note` in grey.
    """

    title: str
    note: str
    signal: ArrayLike
    fs: float
    leads: Sequence[str]
    lead_present: Sequence[bool] | NDArray[np.bool_] | None = None


def plot_gallery(records: Sequence[GalleryRecord], *, duration_s: float = 10.0) -> Figure:
    """Draw recordings below each other, a page wide, all with large boxes of 0.2 s and 0.5 mV.

    Parameters
    ----------
    records
        At least one.
    duration_s
        Seconds shown of each, from its start.

    Raises
    ------
    ValueError
        If there is no record, or one cannot be drawn; see `src.ecg_paper.plot_ecg`.
    """
    if not records:
        raise ValueError("there is no record to draw: give at least one")
    figure = new_figure(PAGE_MM, 100, layout=None)
    panels = [figure.add_axes((0, 0, 1, 1), label=str(number)) for number in range(len(records))]
    width, heights = PAGE_MM - 2 * _MARGIN, []
    for axes, record in zip(panels, records, strict=True):
        paper = draw_ecg(
            axes,
            record.signal,
            record.fs,
            record.leads,
            lead_present=record.lead_present,
            duration_s=duration_s,
        )
        heights.append(width * paper[1] / paper[0])
    total = _MARGIN + sum(heights) + len(records) * (_HEADING + _GAP)
    figure.set_size_inches(PAGE_MM / MM_PER_INCH, total / MM_PER_INCH)
    top = total - _MARGIN
    for axes, record, height in zip(panels, records, heights, strict=True):
        _write_heading(figure, record, top / total, total)
        bottom = top - _HEADING - height
        axes.set_position((_MARGIN / PAGE_MM, bottom / total, width / PAGE_MM, height / total))
        top = bottom - _GAP
    scale: dict[str, Any] = {"fontsize": TICK_PT, "color": GREY, "ha": "right", "va": "top"}
    figure.text(1 - _MARGIN / PAGE_MM, 1 - _MARGIN / total, "a large box: 0.2 s, 0.5 mV", **scale)
    return figure


def _write_heading(figure: Figure, record: GalleryRecord, top: float, total: float) -> None:
    left, line = _MARGIN / PAGE_MM, 4.2 / total
    figure.text(
        left,
        top,
        plain_text(record.title, _TITLE_LENGTH),
        fontsize=TITLE_PT,
        weight="bold",
        va="top",
    )
    figure.text(
        left, top - line, plain_text(record.note, 130), fontsize=LABEL_PT, color=GREY, va="top"
    )


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


def _smooth(weights: Float64Array, width: int) -> Float64Array:
    """Return the moving average over `width` samples of each row, over fewer at the ends."""
    kernel = np.ones(width)
    counts = np.convolve(np.ones(weights.shape[1]), kernel, mode="full")
    sums = np.stack([np.convolve(row, kernel, mode="full") for row in weights])
    start = (width - 1) // 2
    stretch = slice(start, start + weights.shape[1])
    smooth: Float64Array = sums[:, stretch] / counts[stretch]
    return smooth
