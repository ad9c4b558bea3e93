"""A recording in time: a band of probabilities per class, and the ECG of some windows."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import ArrayLike, NDArray

from src.plots.canvas import (
    BLACK,
    BLUE,
    GREY,
    LABEL_PT,
    LIGHT_GREY,
    MM_PER_INCH,
    PAGE_MM,
    TICK_PT,
    TITLE_PT,
    Style,
    longest_mm,
    name_rows,
    new_figure,
    plain_text,
    style_axes,
    wrap_text,
)
from src.plots.ecg import draw_ecg
from src.utils import Float64Array

# In mm on the page
_MARGIN = 4.0
_RIGHT = 9.0  # half of the last number of the time axis
_TITLE_LINE, _LABEL_LINE = 4.2, 4.0
_ROW, _FEW_ROWS = 3.6, 6.0  # height of a band where there are many, and where there are few
_AXIS = 9.0  # numbers and label of the time axis
_KEY = 5.0
_GAP = 3.0
_LETTERS, _LETTER_STEP = 3.8, 2.6  # the line of letters, and the least distance between two

_MOST_ROWS = 24
_MOST_STRIPS = 4
# A band is drawn in so many columns; shorter windows share one.
_MOST_COLUMNS = 1500
_MOST_TICKS = 9
# Of the height of a row: the bar of predicted windows below the shade of the probability
_BAR_TOP, _ROW_EDGE = 0.22, 0.42

_SHADES = LinearSegmentedColormap.from_list("probability", ["#ffffff", BLUE])

_TICK_STEPS_S = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400),
    *(21600, 43200, 86400, 172800, 604800),
)

Labels = Sequence[Sequence[str]]
"""The classes of each window."""


@dataclass(frozen=True, eq=False)
class TimelineStrip:
    """The ECG of a window, drawn below the bands.

    Attributes
    ----------
    title
        Said above it, after its letter and time.
    start_s
        Start of the window, which is marked above the bands.
    signal
        Shape (n_leads, n_samples), in mV.
    fs
        Sampling rate in Hz.
    leads
        Names of the rows.
    """

    title: str
    start_s: float
    signal: ArrayLike
    fs: float
    leads: Sequence[str]


class _Bands(NamedTuple):
    """What the panel of predictions shows, in the order of time.

    Attributes
    ----------
    classes
        Names of the rows.
    starts, ends
        Of each window in seconds, shape (n_windows,).
    scores
        Shape (n_windows, n_rows), NaN without a prediction.
    predicted
        Shape (n_windows, n_rows).
    """

    classes: list[str]
    starts: Float64Array
    ends: Float64Array
    scores: Float64Array
    predicted: NDArray[np.bool_]


def plot_timeline(
    start_s: ArrayLike,
    end_s: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
    *,
    predicted: Labels = (),
    true: Labels = (),
    strips: Sequence[TimelineStrip] = (),
    title: str = "",
) -> Figure:
    """Draw the probabilities of windows over time, a band per class.

    The blue of a band is the probability, the black bar below it marks the windows in which the
    class is predicted. Grey is a time without a prediction. Windows narrower than a column of the
    figure share it: the blue is their mean, the bar stands if one of them is predicted. Of many
    classes, those that are predicted most are drawn.

    Parameters
    ----------
    start_s, end_s
        Of each window in seconds, in the order of time, shape (n_windows,).
    scores
        Probabilities, shape (n_windows, n_classes); NaN for windows without a prediction.
    classes
        Names, in the order of the columns.
    predicted
        The predicted classes of each window; none draws no bars.
    true
        The true classes of each window, drawn above the predictions.
    strips
        ECGs of some windows; the first four are drawn, in the order of time.
    title
        Printed above.

    Raises
    ------
    ValueError
        If there is no window, or shapes disagree.
    """
    bands = _choose_bands(start_s, end_s, scores, classes, predicted)
    truth = _choose_truth(bands, true, classes)
    n_left_out = len(classes) - len(bands.classes)
    return _Page(bands, truth, strips[:_MOST_STRIPS], title, n_left_out).draw()


def format_time(seconds: float) -> str:
    """Return a time as ``h:mm:ss``, ``m:ss`` below an hour, with a fraction where it has one."""
    whole = math.floor(seconds + 1e-6)
    rest = f"{seconds - whole:.1f}"[1:] if seconds - whole > 0.05 else ""
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}{rest}" if hours else f"{m}:{s:02d}{rest}"


# What is shown ------------------------------------------------------------------------------------


def _choose_bands(
    start_s: ArrayLike,
    end_s: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
    predicted: Labels,
) -> _Bands:
    """Return the windows with the classes that get a row."""
    starts, ends = np.asarray(start_s, np.float64), np.asarray(end_s, np.float64)
    values = np.asarray(scores, np.float64)
    shape = (len(starts), len(classes))
    if not len(starts) or values.shape != shape or ends.shape != starts.shape:
        raise ValueError(
            f"start_s has shape {starts.shape}, end_s {ends.shape} and scores {values.shape}: "
            f"expected one or more windows and a column for each of {len(classes)} classes"
        )
    _check_windows(predicted, "predicted", len(starts))
    marks = _to_marks(predicted, classes, len(starts)) & np.isfinite(values)
    # Many classes: first those of the longest time, then those of the highest probability
    highest = np.nan_to_num(values).max(axis=0)
    order = sorted(range(len(classes)), key=lambda i: (-int(marks[:, i].sum()), -highest[i]))
    rows = sorted(order[:_MOST_ROWS])
    names = [classes[row] for row in rows]
    return _Bands(names, starts, ends, values[:, rows], marks[:, rows])


def _choose_truth(bands: _Bands, true: Labels, classes: Sequence[str]) -> _Bands | None:
    """Return the bands of the true classes, those of the predictions first; None without any."""
    if not true:
        return None
    n_windows = len(bands.starts)
    _check_windows(true, "true", n_windows)
    counts = Counter(label for labels in true for label in labels)
    # The order of the predictions, so that rows compare
    names = [name for name in (*classes, *sorted(counts)) if counts[name]]
    names = list(dict.fromkeys(names))[:_MOST_ROWS]
    nothing = np.full((n_windows, len(names)), np.nan)
    return _Bands(names, bands.starts, bands.ends, nothing, _to_marks(true, names, n_windows))


def _check_windows(labels: Labels, name: str, n_windows: int) -> None:
    if labels and len(labels) != n_windows:
        raise ValueError(f"{name} has {len(labels)} rows: expected one for each of {n_windows}")


def _to_marks(labels: Labels, classes: Sequence[str], n_windows: int) -> NDArray[np.bool_]:
    """Return which classes each window has, shape (n_windows, n_classes)."""
    marks = np.zeros((n_windows, len(classes)), bool)
    columns = {name: column for column, name in enumerate(classes)}
    for row, names in enumerate(labels):
        for name in names:
            if name in columns:
                marks[row, columns[name]] = True
    return marks


# The page -----------------------------------------------------------------------------------------


class _Page:
    """A page with a title, the true classes, the predictions and the strips, from the top."""

    def __init__(
        self,
        bands: _Bands,
        truth: _Bands | None,
        strips: Sequence[TimelineStrip],
        title: str,
        n_left_out: int,
    ) -> None:
        self.bands = bands
        self.truth = truth
        self.strips = sorted(strips, key=lambda strip: strip.start_s)
        self.n_left_out = n_left_out
        self.title = wrap_text(title, PAGE_MM - 2 * _MARGIN, TITLE_PT, bold=True, max_lines=2)
        self.first_s, self.last_s = float(bands.starts[0]), float(bands.ends.max())
        names = [*bands.classes, *(truth.classes if truth else ())]
        self.left = _MARGIN + longest_mm(plain_text(name) for name in names) + 2.5

    def draw(self) -> Figure:
        """Return the figure."""
        self.figure = new_figure(PAGE_MM, 100, layout=None)
        papers = [self._draw_paper(strip) for strip in self.strips]
        heights = [self._title_mm(), *self._truth_mm(), self._bands_mm()]
        heights += [_LABEL_LINE + height + _GAP for _, height in papers]
        total = sum(heights) + 2 * _MARGIN
        self.figure.set_size_inches(PAGE_MM / MM_PER_INCH, total / MM_PER_INCH)
        self.total = self.top = total
        self.top -= _MARGIN
        self._write_title()
        if self.truth is not None:
            self._draw_truth(self.truth)
        self._draw_bands()
        for strip, letter, (axes, height) in zip(
            self.strips, string.ascii_lowercase, papers, strict=False
        ):
            self._place_strip(strip, letter, axes, height)
        return self.figure

    # Heights --------------------------------------------------------------------------------------

    def _title_mm(self) -> float:
        return len(self.title) * _TITLE_LINE + (1.0 if self.title else 0.0)

    def _rows_mm(self, bands: _Bands) -> float:
        n_rows = len(bands.classes)
        return n_rows * (_FEW_ROWS if n_rows <= 6 else _ROW)

    def _truth_mm(self) -> list[float]:
        if self.truth is None:
            return []
        return [_LABEL_LINE + self._rows_mm(self.truth) + _GAP]

    def _bands_mm(self) -> float:
        letters = _LETTERS if self.strips else 0.0
        return _LABEL_LINE + letters + self._rows_mm(self.bands) + _AXIS + _KEY + _GAP

    # Parts ----------------------------------------------------------------------------------------

    def _write_title(self) -> None:
        style: Style = {"fontsize": TITLE_PT, "weight": "bold", "va": "top", "linespacing": 1.2}
        place = _MARGIN / PAGE_MM, self.top / self.total
        self.figure.text(*place, "\n".join(self.title), **style)
        self.top -= self._title_mm()

    def _add_panel(self, bands: _Bands, heading: str, letters: float = 0.0) -> Axes:
        """Add a panel with a row per class below a heading, at the top of what is left."""
        self._write(_MARGIN, self.top, heading)
        height = self._rows_mm(bands)
        bottom = self.top - _LABEL_LINE - letters - height
        width = PAGE_MM - self.left - _RIGHT
        box = (self.left / PAGE_MM, bottom / self.total, width / PAGE_MM, height / self.total)
        axes = self.figure.add_axes(box, label=heading)
        style_axes(axes)
        name_rows(axes, bands.classes)
        axes.set_xlim(self.first_s, self.last_s)
        for row in range(1, len(bands.classes)):
            axes.axhline(row - 0.5, color=LIGHT_GREY, linewidth=0.4, zorder=1)
        self.top = bottom
        return axes

    def _draw_truth(self, truth: _Bands) -> None:
        axes = self._add_panel(truth, "Labels")
        # A window without a label has none of the classes.
        _draw_gaps(axes, truth, np.ones(len(truth.starts), bool))
        _draw_bars(axes, truth, -_ROW_EDGE + 0.1, _ROW_EDGE - 0.1)
        _set_time_axis(axes, with_numbers=False)
        self.top -= _GAP

    def _draw_bands(self) -> None:
        bands = self.bands
        heading = "Probability of each class; black bar: predicted"
        if not bands.predicted.any():
            heading = "Probability of each class"
        axes = self._add_panel(bands, heading, _LETTERS if self.strips else 0.0)
        _draw_gaps(axes, bands, np.asarray(np.isfinite(bands.scores).all(axis=1)))
        _draw_shade(axes, bands)
        _draw_bars(axes, bands, _BAR_TOP, _ROW_EDGE)
        _set_time_axis(axes, with_numbers=True)
        self._mark_strips(axes)
        self.top -= _AXIS
        self._draw_key()
        self.top -= _KEY + _GAP

    def _mark_strips(self, axes: Axes) -> None:
        """Write the letter of each strip above its window; letters that would meet move right."""
        width = PAGE_MM - self.left - _RIGHT
        style: Style = {"fontsize": LABEL_PT, "ha": "center", "va": "bottom", "weight": "bold"}
        last_mm = -_LETTER_STEP
        for letter, strip in zip(string.ascii_lowercase, self.strips, strict=False):
            share = (strip.start_s - self.first_s) / (self.last_s - self.first_s)
            last_mm = max(min(max(share, 0.0), 1.0) * width, last_mm + _LETTER_STEP)
            axes.text(last_mm / width, 1.0, letter, transform=axes.transAxes, **style)

    def _draw_key(self) -> None:
        """Draw the scale of the shade, and what grey means."""
        width, height = 24.0, 2.4
        left, bottom = self.left + 3, self.top - height - 0.6
        box = (left / PAGE_MM, bottom / self.total, width / PAGE_MM, height / self.total)
        axes = self.figure.add_axes(box, label="key")
        axes.imshow(np.linspace(0, 1, 64)[None], cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
        axes.set_axis_off()
        self._write(self.left, self.top, "0", TICK_PT)
        self._write(left + width + 2, self.top, "1", TICK_PT)
        remarks = ["grey: no prediction"]
        if self.n_left_out:
            remarks.append(f"{self.n_left_out} classes of lower probability are not drawn")
        self._write(left + width + 8, self.top, "; ".join(remarks), TICK_PT)

    def _draw_paper(self, strip: TimelineStrip) -> tuple[Axes, float]:
        """Draw the ECG of a window on a panel, and return it with its height in mm."""
        axes = self.figure.add_axes((0, 0, 1, 1), label=f"strip {strip.start_s}")
        signal = np.asarray(strip.signal)
        row = list(strip.leads).index("II") if "II" in strip.leads else 0
        paper_width, paper_height = draw_ecg(
            axes, signal[row : row + 1], strip.fs, [strip.leads[row]]
        )
        # A short window is not drawn larger than on paper.
        scale = min(1.0, (PAGE_MM - 2 * _MARGIN) / paper_width)
        return axes, scale * paper_height

    def _place_strip(self, strip: TimelineStrip, letter: str, axes: Axes, height: float) -> None:
        text = f"{letter}   {format_time(strip.start_s)}   {strip.title}"
        self._write(_MARGIN, self.top, text, LABEL_PT)
        bottom = self.top - _LABEL_LINE - height
        width = PAGE_MM - 2 * _MARGIN
        axes.set_position(
            (_MARGIN / PAGE_MM, bottom / self.total, width / PAGE_MM, height / self.total)
        )
        self.top = bottom - _GAP

    def _write(self, left: float, top: float, text: str, size_pt: float = LABEL_PT) -> None:
        """Write a line; `left` and `top` are in mm from the lower left corner of the page."""
        style: Style = {"fontsize": size_pt, "va": "top", "color": BLACK}
        self.figure.text(left / PAGE_MM, top / self.total, plain_text(text, 150), **style)


# Bands --------------------------------------------------------------------------------------------


def _draw_gaps(axes: Axes, bands: _Bands, is_known: NDArray[np.bool_]) -> None:
    """Make the panel grey, and white again where windows have a prediction."""
    axes.set_facecolor(LIGHT_GREY)
    spans = _join_spans(bands.starts, bands.ends, is_known)
    axes.broken_barh(spans, (-0.5, len(bands.classes)), facecolor="white", linewidth=0, zorder=0)


def _draw_shade(axes: Axes, bands: _Bands) -> None:
    """Draw the probabilities as blue, in columns of equal width."""
    columns = _to_columns(bands)  # (n_columns, n_rows)
    first, last = float(bands.starts[0]), float(bands.ends.max())
    for row in range(columns.shape[1]):
        axes.imshow(
            np.ma.masked_invalid(columns[None, :, row]),
            cmap=_SHADES,
            vmin=0,
            vmax=1,
            extent=(first, last, row + _BAR_TOP, row - _ROW_EDGE),
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
    axes.set_ylim(len(bands.classes) - 0.5, -0.5)
    axes.set_xlim(first, last)


def _to_columns(bands: _Bands) -> Float64Array:
    """Return the mean probabilities over columns of time, NaN where nothing is predicted."""
    first, last = float(bands.starts[0]), float(bands.ends.max())
    shortest = float(np.min(bands.ends - bands.starts))
    n_columns = int(min(_MOST_COLUMNS, max(1, 8 * (last - first) / shortest)))
    edges = np.linspace(first, last, n_columns + 1)
    has_scores = np.asarray(np.isfinite(bands.scores).all(axis=1))
    sums = np.zeros((n_columns, bands.scores.shape[1]))
    counts = np.zeros(n_columns)
    lows = np.searchsorted(edges, bands.starts + 1e-9, "right") - 1
    highs = np.searchsorted(edges, bands.ends - 1e-9, "left")
    for window in np.flatnonzero(has_scores):
        columns = slice(lows[window], highs[window])
        sums[columns] += bands.scores[window]
        counts[columns] += 1
    with np.errstate(invalid="ignore"):
        means: Float64Array = sums / counts[:, None]
    return means


def _draw_bars(axes: Axes, bands: _Bands, top: float, bottom: float) -> None:
    """Draw a bar over the windows of each class; a single one of a long day stays visible."""
    least = (bands.ends.max() - bands.starts[0]) / _MOST_COLUMNS
    for row in range(len(bands.classes)):
        spans = _join_spans(bands.starts, bands.ends, bands.predicted[:, row])
        wide = [(start, max(length, least)) for start, length in spans]
        place = (row + top, bottom - top)
        axes.broken_barh(wide, place, facecolor=BLACK, linewidth=0, zorder=3)


def _join_spans(
    starts: Float64Array, ends: Float64Array, chosen: NDArray[np.bool_]
) -> list[tuple[float, float]]:
    """Return start and length of the spans that the chosen windows cover."""
    spans: list[tuple[float, float]] = []
    for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True):
        if spans and start <= spans[-1][0] + spans[-1][1] + 1e-6:
            spans[-1] = (spans[-1][0], max(end, spans[-1][0] + spans[-1][1]) - spans[-1][0])
        else:
            spans.append((start, end - start))
    return spans


def _set_time_axis(axes: Axes, *, with_numbers: bool) -> None:
    first, last = axes.get_xlim()
    step = next((s for s in _TICK_STEPS_S if (last - first) / s <= _MOST_TICKS), _TICK_STEPS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    if not with_numbers:
        axes.tick_params(axis="x", labelbottom=False)
        return
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_time(value)))
    label = "Time (hours:minutes:seconds)" if last >= 3600 else "Time (minutes:seconds)"
    axes.set_xlabel(label, fontsize=LABEL_PT, color=GREY, labelpad=1.5)
