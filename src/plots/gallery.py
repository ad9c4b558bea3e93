"""Several recordings on one page, each on ECG paper under its own heading, such as mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    Style,
    new_figure,
    plain_text,
)
from src.plots.ecg import draw_ecg

# In mm
_MARGIN, _HEADING, _GAP = 4.0, 9.0, 4.0
_HEADING_LINE = 4.2

_MAX_TITLE = 68  # characters that fit beside the remark on the scale
_MAX_NOTE = 130


@dataclass(frozen=True, eq=False)
class GalleryRecord:
    """A recording with its heading.

    Attributes
    ----------
    title
        First line of the heading, in black.
    note
        Second line, in grey.
    signal
        Shape (n_leads, n_samples), in mV.
    fs
        Sampling rate in Hz.
    leads
        Names of the rows.
    lead_present
        Shape (n_leads,); a lead that is False is marked as missing.
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
        If there is no record, or one cannot be drawn; see `src.plots.ecg.plot_ecg`.
    """
    if not records:
        raise ValueError("there is no record to draw: give at least one")
    figure = new_figure(PAGE_MM, 100, layout=None)
    panels = [figure.add_axes((0, 0, 1, 1), label=str(number)) for number in range(len(records))]
    width = PAGE_MM - 2 * _MARGIN
    heights = []
    for axes, record in zip(panels, records, strict=True):
        paper_width, paper_height = draw_ecg(
            axes,
            record.signal,
            record.fs,
            record.leads,
            lead_present=record.lead_present,
            duration_s=duration_s,
        )
        heights.append(width * paper_height / paper_width)

    # The height of the page follows from the papers, which then get their places on it
    total = _MARGIN + sum(heights) + len(records) * (_HEADING + _GAP)
    figure.set_size_inches(PAGE_MM / MM_PER_INCH, total / MM_PER_INCH)
    top = total - _MARGIN
    for axes, record, height in zip(panels, records, heights, strict=True):
        _write_heading(figure, record, top / total, total)
        bottom = top - _HEADING - height
        axes.set_position((_MARGIN / PAGE_MM, bottom / total, width / PAGE_MM, height / total))
        top = bottom - _GAP
    style: Style = {"fontsize": TICK_PT, "color": GREY, "ha": "right", "va": "top"}
    figure.text(1 - _MARGIN / PAGE_MM, 1 - _MARGIN / total, "a large box: 0.2 s, 0.5 mV", **style)
    return figure


def _write_heading(figure: Figure, record: GalleryRecord, top: float, page_mm: float) -> None:
    """Write title and note; `top` is a share of the page, `page_mm` its height."""
    left = _MARGIN / PAGE_MM
    title, note = plain_text(record.title, _MAX_TITLE), plain_text(record.note, _MAX_NOTE)
    figure.text(left, top, title, fontsize=TITLE_PT, weight="bold", va="top")
    line = _HEADING_LINE / page_mm
    figure.text(left, top - line, note, fontsize=LABEL_PT, color=GREY, va="top")
