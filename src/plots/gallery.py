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
    wrap_text,
)
from src.plots.ecg import draw_ecg

# In mm
_MARGIN, _GAP = 4.0, 4.0
_TITLE_LINE, _NOTE_LINE = 4.2, 3.8
_BELOW_HEADING = 1.0
_SCALE_MM = 40.0  # the remark on the scale, beside the first title


@dataclass(frozen=True, eq=False)
class GalleryRecord:
    """A recording with its heading.

    Attributes
    ----------
    title
        The heading in black; each of its lines takes two lines at most.
    note
        Below it, in grey.
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
    """Draw recordings below each other, all with large boxes of 0.2 s and 0.5 mV of one size.

    The longest is a page wide, but no paper is larger than in the world: 5 mm a box.

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
    headings = [_wrap_heading(record) for record in records]
    figure = new_figure(PAGE_MM, 100, layout=None)
    panels = [figure.add_axes((0, 0, 1, 1), label=str(number)) for number in range(len(records))]
    papers = np.array(
        [
            draw_ecg(
                axes,
                record.signal,
                record.fs,
                record.leads,
                lead_present=record.lead_present,
                duration_s=duration_s,
            )
            for axes, record in zip(panels, records, strict=True)
        ]
    )
    papers *= min(1.0, (PAGE_MM - 2 * _MARGIN) / papers[:, 0].max())

    # The height of the page follows from papers and headings, which then get their places on it
    total = _MARGIN + papers[:, 1].sum() + sum(_GAP + heading.height for heading in headings)
    figure.set_size_inches(PAGE_MM / MM_PER_INCH, total / MM_PER_INCH)
    top = total - _MARGIN
    for axes, heading, (width, height) in zip(panels, headings, papers, strict=True):
        _write_heading(figure, heading, top / total, total)
        bottom = top - heading.height - height
        axes.set_position((_MARGIN / PAGE_MM, bottom / total, width / PAGE_MM, height / total))
        top = bottom - _GAP
    style: Style = {"fontsize": TICK_PT, "color": GREY, "ha": "right", "va": "top"}
    figure.text(1 - _MARGIN / PAGE_MM, 1 - _MARGIN / total, "a large box: 0.2 s, 0.5 mV", **style)
    return figure


@dataclass(frozen=True)
class _Heading:
    """The lines above a recording."""

    title: list[str]
    note: list[str]

    @property
    def height(self) -> float:
        """In mm."""
        return len(self.title) * _TITLE_LINE + len(self.note) * _NOTE_LINE + _BELOW_HEADING


def _wrap_heading(record: GalleryRecord) -> _Heading:
    """Break title and note into lines: names of records and several classes take more than one."""
    width = PAGE_MM - 2 * _MARGIN
    title = []
    for line in record.title.split("\n"):
        # Two lines each, so that a long list of true classes does not push the predicted ones out
        title += wrap_text(line, width - _SCALE_MM, TITLE_PT, bold=True, max_lines=2)
    return _Heading(title, wrap_text(record.note, width, LABEL_PT))


def _write_heading(figure: Figure, heading: _Heading, top: float, page_mm: float) -> None:
    """Write title and note; `top` is a share of the page, `page_mm` its height."""
    left = _MARGIN / PAGE_MM
    style: Style = {"va": "top", "linespacing": 1.2}
    figure.text(left, top, "\n".join(heading.title), fontsize=TITLE_PT, weight="bold", **style)
    note_top = top - len(heading.title) * _TITLE_LINE / page_mm
    figure.text(left, note_top, "\n".join(heading.note), fontsize=LABEL_PT, color=GREY, **style)
