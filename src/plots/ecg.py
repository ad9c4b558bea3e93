"""A recording on standard ECG paper: 1 mm grid, true to scale on the page, a calibration pulse per
row.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from src.config import STANDARD_LEADS
from src.plots.canvas import (
    BLACK,
    GREY,
    LABEL_PT,
    PALETTE,
    TICK_PT,
    TITLE_PT,
    new_figure,
    plain_text,
)
from src.records.leads import canonical_lead
from src.utils import Float64Array

LAYOUTS = ("3x4", "6x2", "stack")
_GRIDS = {
    name: tuple(STANDARD_LEADS[row::n_rows] for row in range(n_rows))
    for name, n_rows in (("3x4", 3), ("6x2", 6))
}

# Everything below is in mm on the page
_PULSE_MV, _PULSE_S = 1.0, 0.2
_MARGIN = 5.0
_BOX = 5.0  # between major lines
_ROW_GAP = 2.0  # between the traces of two rows at their closest
_MIN_ROW = 15.0
_MAX_REACH = 80.0  # of a trace above or below its baseline, before it may run over other rows
_MAX_WIDTH = 2000.0
_LABEL_HEIGHT, _LABEL_LIFT, _CHARACTER = 3.0, 1.0, 2.2
_TEXT_LINE = 5.0
_SHADE_ROOM = 1.0  # above and below a trace

_MINOR, _MAJOR = "#f8d7d7", "#eba5a5"
_FOR, _AGAINST, _SHADE_OPACITY = PALETTE[1], PALETTE[0], 0.75


@dataclass(frozen=True)
class _Scale:
    """How time and voltage turn into mm."""

    fs: float
    speed: float
    gain: float
    calibration: float  # mm at the left of the grid that the pulse takes

    def x(self, sample: ArrayLike) -> Float64Array:
        """Return the distance from the left edge of the grid, in mm."""
        return self.calibration + np.asarray(sample, dtype=np.float64) / self.fs * self.speed


@dataclass(frozen=True)
class _Trace:
    """One lead over one stretch of time; `y` is in mm from its baseline, None where the lead is
    missing.
    """

    name: str
    lead: int  # row of the signal
    stretch: slice  # samples of it
    row: int
    columns: slice
    left: float
    right: float
    x: Float64Array
    y: Float64Array | None
    label_y: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far the trace and its name go above and below the baseline, in mm, both positive."""
        y = self.y if self.y is not None and np.isfinite(self.y).any() else np.zeros(1)
        return max(float(np.nanmax(y)), self.label_y + _LABEL_HEIGHT), max(
            -float(np.nanmin(y)), 0.0
        )


def plot_ecg(
    signal: ArrayLike,
    fs: float,
    leads: Sequence[str],
    *,
    title: str | None = None,
    layout: str = "3x4",
    speed_mm_per_s: float = 25.0,
    gain_mm_per_mv: float = 10.0,
    lead_present: Sequence[bool] | NDArray[np.bool_] | None = None,
    rhythm_lead: str | None = "II",
    duration_s: float = 10.0,
    shade: ArrayLike | None = None,
    note: str = "",
) -> Figure:
    """Draw a recording on ECG paper, to scale: on the page as saved, 1 mm of the grid is 1 mm.

    The axes of the figure are in mm. A lead is drawn about its median, since paper has no absolute
    zero. Traces are never clipped: rows make room for them, and a lead that strays more than 8 cm
    from its baseline runs over other rows and the margin, and is named below the grid.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV; NaN leaves a gap.
    fs
        Sampling rate in Hz.
    leads
        Names of the rows, in any common spelling.
    title
        Printed above the grid.
    layout
        ``3x4`` or ``6x2``, consecutive stretches of the twelve leads over a rhythm strip, or
        ``stack``, every lead in full. A recording without just the twelve standard leads is stacked
        whatever the layout.
    speed_mm_per_s, gain_mm_per_mv
        25 and 10 by custom (AHA/ACCF/HRS recommendations for the ECG, part I, 2007).
    lead_present
        Shape (n_leads,); a lead that is False, or without a single sample, is marked as missing.
    rhythm_lead
        The lead of the strip below a grid; None leaves the strip out.
    duration_s
        Seconds shown from the start; a shorter recording is shown whole.
    shade
        Shape as `signal`, -1 to 1: colours the paper behind each sample, orange above 0 and blue
        below.
    note
        Printed below the grid after speed, gain and rate.

    Raises
    ------
    ValueError
        If shapes disagree, a rate or scale is not positive, the layout or rhythm lead is unknown,
        or the page would be wider than 2 m.
    """
    samples = _check_signal(signal, fs, leads, lead_present)
    _check_page(layout, fs, speed_mm_per_s, gain_mm_per_mv, duration_s)
    page = _lay_out(
        samples, leads, layout, rhythm_lead, duration_s, _scale(fs, speed_mm_per_s, gain_mm_per_mv)
    )
    figure, axes = _new_page(
        page.width, page.height, title or "", "   ".join(filter(None, [page.footer, note]))
    )
    if shade is not None:
        _draw_shade(axes, page, _check_shade(shade, samples.shape))
    _fill_page(axes, page)
    return figure


def draw_ecg(
    axes: Axes,
    signal: ArrayLike,
    fs: float,
    leads: Sequence[str],
    *,
    lead_present: Sequence[bool] | NDArray[np.bool_] | None = None,
    duration_s: float = 10.0,
) -> tuple[float, float]:
    """Draw a recording on a panel of a larger page, at whatever size that has; the print below is
    left out.

    The axes are in mm of the paper that `plot_ecg` would draw, at 25 mm/s and 10 mm/mV, without a
    rhythm strip.

    Parameters
    ----------
    axes
        The panel.
    signal, fs, leads, lead_present, duration_s
        As for `plot_ecg`, with the same errors.

    Returns
    -------
    tuple of float
        Width and height of the paper in mm.
    """
    samples = _check_signal(signal, fs, leads, lead_present)
    page = _lay_out(samples, leads, "3x4", None, duration_s, _scale(fs, 25.0, 10.0))
    axes.set(xlim=(0, page.width), ylim=(0, page.height), aspect="equal", anchor="NW")
    axes.set_axis_off()
    _draw_grid(axes, page.width, page.height)
    _fill_page(axes, page, TICK_PT)
    return page.width, page.height


@dataclass(frozen=True)
class _Page:
    """What is drawn where, in mm from the lower left corner of the grid."""

    traces: list[_Trace]
    baselines: list[float]
    width: float
    height: float
    scale: _Scale
    footer: str


def _scale(fs: float, speed: float, gain: float) -> _Scale:
    return _Scale(fs, speed, gain, _whole_boxes(_PULSE_S * speed + _BOX))


def _lay_out(
    samples: Float64Array,
    leads: Sequence[str],
    layout: str,
    rhythm_lead: str | None,
    duration_s: float,
    scale: _Scale,
) -> _Page:
    n_shown = min(samples.shape[1], max(1, round(duration_s * scale.fs)))
    names, rows = _arrange(leads, layout, rhythm_lead)
    traces = _cut_traces(samples[:, :n_shown], names, rows, scale)
    baselines, height = _space_rows(traces, len(rows), scale.gain)
    width = max(_whole_boxes(float(scale.x(n_shown))), 80.0)  # room for the print below
    footer = [f"{scale.speed:g} mm/s", f"{scale.gain:g} mm/mV", f"{scale.fs:g} Hz"]
    if n_shown < samples.shape[1]:
        footer.append(f"first {n_shown / scale.fs:g} s of {samples.shape[1] / scale.fs:g} s")
    return _Page(
        traces, baselines, width, height, scale, "   ".join([*footer, *_stray_remark(traces)])
    )


# Checks -------------------------------------------------------------------------------------------


def _check_signal(
    signal: ArrayLike, fs: float, leads: Sequence[str], lead_present: Any
) -> Float64Array:
    """Return the samples in mV with NaN for every sample that is not there."""
    samples = np.array(signal, dtype=np.float64)
    if samples.ndim != 2 or samples.shape[0] != len(leads) or not samples.size:
        raise ValueError(
            f"signal has shape {samples.shape}: expected ({len(leads)}, n_samples), a row "
            "for each lead"
        )
    if not (math.isfinite(fs) and fs > 0):
        raise ValueError(f"fs is {fs}: expected a positive rate in Hz")
    samples[~np.isfinite(samples)] = np.nan
    if lead_present is not None:
        present = np.asarray(lead_present, dtype=bool)
        if present.shape != (len(leads),):
            raise ValueError(
                f"lead_present has shape {present.shape}: expected ({len(leads)},), a "
                "flag for each lead"
            )
        samples[~present] = np.nan
    return samples


def _check_shade(shade: ArrayLike, shape: tuple[int, ...]) -> Float64Array:
    weights = np.asarray(shade, dtype=np.float64)
    if weights.shape != shape:
        raise ValueError(f"shade has shape {weights.shape}: expected {shape}, as the signal")
    if not (np.abs(weights) <= 1).all():
        raise ValueError(
            "shade goes beyond -1 to 1 or is not a number: divide it by its largest absolute value"
        )
    return weights


def _check_page(layout: str, fs: float, speed: float, gain: float, duration_s: float) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}: choose one of {', '.join(LAYOUTS)}")
    for name, value in (
        ("speed_mm_per_s", speed),
        ("gain_mm_per_mv", gain),
        ("duration_s", duration_s),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: expected a positive number")
    if duration_s * speed > _MAX_WIDTH:
        raise ValueError(
            f"{duration_s:g} s at {speed:g} mm/s make a page of {duration_s * speed / 1000:g} m: "
            f"at most {_MAX_WIDTH / 1000:g} m are drawn; give a smaller duration_s, "
            "and the signal from where you want it"
        )


# Arranging ----------------------------------------------------------------------------------------


def _arrange(
    leads: Sequence[str], layout: str, rhythm_lead: str | None
) -> tuple[list[str], tuple[tuple[int, ...], ...]]:
    """Return the names to print and, for each row of the page, the rows of the signal from left to
    right.
    """
    standard = [canonical_lead(name) for name in leads]
    index = {name: row for row, name in enumerate(standard) if name is not None}
    if layout == "stack" or len(leads) != len(STANDARD_LEADS) or len(index) != len(STANDARD_LEADS):
        spelled = zip(standard, leads, strict=True)
        names = [
            short if short and short.upper() == name.upper() else name for short, name in spelled
        ]
        return names, tuple((row,) for row in range(len(leads)))
    rows = [tuple(index[name] for name in row) for row in _GRIDS[layout]]
    if rhythm_lead is not None:
        lead = canonical_lead(rhythm_lead)
        if lead is None:
            raise ValueError(
                f"rhythm_lead is {rhythm_lead!r}: choose one of "
                f"{', '.join(STANDARD_LEADS)}, or None"
            )
        rows.append((index[lead],))
    return [str(name) for name in standard], tuple(rows)


def _cut_traces(
    samples: Float64Array, names: Sequence[str], rows: tuple[tuple[int, ...], ...], scale: _Scale
) -> list[_Trace]:
    """Cut each lead to the stretch that its place on the page shows."""
    n_columns = len(rows[0])
    edges = np.linspace(0, samples.shape[1], n_columns + 1).round().astype(int)
    traces = []
    for row, members in enumerate(rows):
        for column, lead in enumerate(members):
            columns = (
                slice(column, column + 1) if len(members) == n_columns else slice(0, n_columns)
            )
            stretch = slice(edges[columns.start], edges[columns.stop])
            left, right = scale.x([stretch.start, stretch.stop]).tolist()
            x = scale.x(np.arange(stretch.start, stretch.stop))
            whole = samples[lead]
            y = (
                (whole[stretch] - np.nanmedian(whole)) * scale.gain
                if np.isfinite(whole).any()
                else None
            )
            label_y = (
                4.0 if y is None else _label_height(y[x < left + 2 + _CHARACTER * len(names[lead])])
            )
            traces.append(
                _Trace(names[lead], lead, stretch, row, columns, left, right, x, y, label_y)
            )
    return traces


def _label_height(below: Float64Array) -> float:
    """Return how far above the baseline a lead's name clears the samples below it, in mm."""
    highest = float(below[np.isfinite(below)].max(initial=3.0))
    return min(highest + _LABEL_LIFT, _MAX_REACH - _LABEL_HEIGHT)


def _space_rows(traces: Sequence[_Trace], n_rows: int, gain: float) -> tuple[list[float], float]:
    """Return each row's baseline and the height of the grid, in mm from its lower edge.

    Rows stand as close as their traces allow in every column, with baselines on major lines.
    """
    n_columns = max(trace.columns.stop for trace in traces)
    above, below = np.zeros((n_rows, n_columns)), np.zeros((n_rows, n_columns))
    for trace in traces:
        place = trace.row, trace.columns
        above[place], below[place] = (min(reach, _MAX_REACH) for reach in trace.reach)
    above[:, 0] = np.maximum(above[:, 0], _PULSE_MV * gain)
    steps = [float((below[row] + above[row + 1]).max()) for row in range(n_rows - 1)]
    depths = np.cumsum(
        [
            _whole_boxes(float(above[0].max()) + _ROW_GAP),
            *(_whole_boxes(max(step + _ROW_GAP, _MIN_ROW)) for step in steps),
            _whole_boxes(float(below[-1].max()) + _ROW_GAP),
        ]
    )
    height = float(depths[-1])
    return [height - float(depth) for depth in depths[:-1]], height


def _whole_boxes(length: float) -> float:
    return math.ceil(round(length / _BOX, 6)) * _BOX


def _stray_remark(traces: Sequence[_Trace]) -> list[str]:
    names = dict.fromkeys(trace.name for trace in traces if max(trace.reach) > _MAX_REACH)
    return [f"off scale: {', '.join(names)}"] if names else []


# Drawing ------------------------------------------------------------------------------------------


def _new_page(width: float, height: float, title: str, footer: str) -> tuple[Figure, Axes]:
    """Return a page whose axes are in mm, from the lower left corner of the grid, with grid and
    print.
    """
    above, below = (
        textwrap.wrap(plain_text(text, 500), int(width / _CHARACTER)) for text in (title, footer)
    )
    top, bottom = (_MARGIN + _TEXT_LINE * len(lines) for lines in (above, below))
    # 127 dpi show the grid evenly: 5 pixels per mm
    figure = new_figure(width + 2 * _MARGIN, height + top + bottom, dpi=127, layout=None)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-_MARGIN, width + _MARGIN), ylim=(-bottom, height + top))
    axes.set_axis_off()
    _draw_grid(axes, width, height)
    box = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 1.0,
    }  # legible below a trace that strays
    axes.text(0, height + 2, "\n".join(above), fontsize=TITLE_PT + 1, color=BLACK, va="bottom")
    axes.text(0, -2, "\n".join(below), fontsize=LABEL_PT, color=BLACK, va="top", bbox=box, zorder=5)
    return figure, axes


def _draw_grid(axes: Axes, width: float, height: float) -> None:
    for step, color, line_width, name in (
        (1.0, _MINOR, 0.4, "minor"),
        (_BOX, _MAJOR, 0.7, "major"),
    ):
        style: dict[str, Any] = {"colors": color, "linewidth": line_width, "zorder": 1}
        axes.vlines(np.arange(0, width + step / 2, step), 0, height, **style).set_gid(
            f"grid-{name}-x"
        )
        axes.hlines(np.arange(0, height + step / 2, step), 0, width, **style).set_gid(
            f"grid-{name}-y"
        )


def _fill_page(axes: Axes, page: _Page, name_pt: float = TITLE_PT) -> None:
    for trace in page.traces:
        _draw_trace(axes, trace, page.baselines[trace.row], name_pt)
    for baseline in page.baselines:
        _draw_pulse(axes, page.scale, baseline)


def _draw_shade(axes: Axes, page: _Page, weights: Float64Array) -> None:
    """Colour a band behind each trace, as high as the trace, the stronger the farther the weight is
    from 0.
    """
    for trace in page.traces:
        if trace.y is None:
            continue
        part = weights[trace.lead, trace.stretch]
        colors = np.where(part[:, None] > 0, to_rgb(_FOR), to_rgb(_AGAINST))
        band = np.concatenate([colors, _SHADE_OPACITY * np.abs(part[:, None])], axis=1)[
            None
        ]  # (1, n_samples, RGBA)
        baseline, y = page.baselines[trace.row], trace.y[np.isfinite(trace.y)]
        low, high = (
            baseline + y.min(initial=0.0) - _SHADE_ROOM,
            baseline + y.max(initial=0.0) + _SHADE_ROOM,
        )
        image = axes.imshow(
            band,
            extent=(trace.left, trace.right, low, high),
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
        image.set_gid(f"shade-{trace.name}")


def _draw_trace(axes: Axes, trace: _Trace, baseline: float, name_pt: float) -> None:
    name = plain_text(trace.name)
    axes.text(
        trace.left + 1.0,
        baseline + trace.label_y,
        name,
        fontsize=name_pt,
        weight="bold",
        color=BLACK,
    )
    if trace.columns.start > 0:  # where one lead ends and the next begins
        ends = np.array([[-4.0, -2.0], [2.0, 4.0]]) + baseline
        axes.vlines([trace.left] * 2, ends[:, 0], ends[:, 1], colors=BLACK, linewidth=0.8)
    if trace.y is None:
        style: dict[str, Any] = {"color": GREY, "ha": "center", "va": "center", "style": "italic"}
        axes.text((trace.left + trace.right) / 2, baseline, "missing", fontsize=TITLE_PT, **style)
    else:
        style = {
            "color": BLACK,
            "linewidth": 0.8,
            "solid_joinstyle": "round",
            "clip_on": False,
            "zorder": 3,
        }
        axes.plot(trace.x, baseline + trace.y, gid=f"trace-{trace.name}", **style)


def _draw_pulse(axes: Axes, scale: _Scale, baseline: float) -> None:
    """Draw 1 mV for 200 ms with a foot on either side, centred in the room before the traces."""
    width, foot = _PULSE_S * scale.speed, 1.5
    left = (scale.calibration - width) / 2
    x = np.array([left - foot, left, left, left + width, left + width, left + width + foot])
    y = baseline + np.array([0, 0, 1, 1, 0, 0]) * _PULSE_MV * scale.gain
    axes.plot(
        x, y, color=BLACK, linewidth=0.8, solid_joinstyle="miter", zorder=3, gid="calibration"
    )
