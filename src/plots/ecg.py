"""A recording on standard ECG paper, for print: 1 mm grid, to scale, a calibration pulse per row.

`src.records.svg` draws the same for web pages.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from src.plots.canvas import (
    BLACK,
    GREY,
    LABEL_PT,
    PALETTE,
    TICK_PT,
    TITLE_PT,
    Style,
    new_figure,
    plain_text,
    text_mm,
)
from src.plots.ecg_layout import (
    CHARACTER_MM,
    PULSE_MV,
    PULSE_S,
    PageLayout,
    Scale,
    Trace,
    lay_out_page,
)
from src.records.paper import (
    BOX_MM,
    GAIN_MM_PER_MV,
    LAYOUTS,
    SEPARATOR_MM,
    SPEED_MM_PER_S,
    check_signal_shape,
)
from src.utils import Float64Array, printable

# In mm on the page
_MARGIN = 5.0
_MAX_WIDTH = 2000.0
_TEXT_LINE = 5.0
_SHADE_ROOM = 1.0  # above and below a trace
_KEY_MM, _KEY_HEIGHT_MM = 24.0, 2.4  # scale of the shade
_PULSE_FOOT = 1.5  # of the baseline on either side of a calibration pulse

# 127 dpi show the grid evenly: 5 pixels per mm
_DPI = 127

_MINOR, _MAJOR = "#f8d7d7", "#eba5a5"
_FOR, _AGAINST, _SHADE_OPACITY = PALETTE[1], PALETTE[0], 0.75
_KEY_STEPS = 50  # from no colour to full colour


def plot_ecg(
    signal: ArrayLike,
    fs: float,
    leads: Sequence[str],
    *,
    title: str | None = None,
    layout: str = "3x4",
    speed_mm_per_s: float = SPEED_MM_PER_S,
    gain_mm_per_mv: float = GAIN_MM_PER_MV,
    lead_present: Sequence[bool] | NDArray[np.bool_] | None = None,
    rhythm_lead: str | None = "II",
    duration_s: float = 10.0,
    shade: ArrayLike | None = None,
    shade_class: str = "",
    note: str = "",
) -> Figure:
    """Draw a recording on ECG paper, to scale: on the page as saved, 1 mm of the grid is 1 mm.

    The axes of the figure are in mm. A lead is drawn about its median, since paper has no absolute
    zero. Traces are never clipped: rows make room for them. A lead that strays more than 8 cm from
    its baseline runs over other rows and the margin, and is named below the grid.

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
        ``stack``, every lead in full. A recording of other leads than the twelve standard leads is
        stacked whatever the layout.
    speed_mm_per_s, gain_mm_per_mv
        25 and 10 by custom (AHA/ACCF/HRS recommendations for the ECG, part I, 2007).
    lead_present
        Shape (n_leads,); a lead that is False, or has no sample, is marked as missing.
    rhythm_lead
        The lead of the strip below a grid; None leaves the strip out.
    duration_s
        Seconds shown from the start; a shorter recording is shown whole.
    shade
        Shape as `signal`, -1 to 1: colours the paper behind each sample, orange above 0 and blue
        below. A colour key below the grid says so.
    shade_class
        The class that the shade speaks for or against, named in the key.
    note
        Printed below the grid after speed, gain and rate.

    Raises
    ------
    ValueError
        If shapes disagree, a rate or scale is not positive, the layout or rhythm lead is unknown,
        or the page would be wider than 2 m.
    """
    samples = _check_signal(signal, fs, leads, lead_present)
    _check_page(layout, speed_mm_per_s, gain_mm_per_mv, duration_s)
    page = lay_out_page(
        samples,
        leads,
        Scale(fs, speed_mm_per_s, gain_mm_per_mv),
        layout=layout,
        rhythm_lead=rhythm_lead,
        duration_s=duration_s,
        lead_present=lead_present,
    )
    footer = f"{page.footer}   {note}" if note else page.footer
    is_shaded = shade is not None
    figure, axes = _new_page(page.width, page.height, title or "", footer, with_key=is_shaded)
    if shade is not None:
        _draw_shade(axes, page, _check_shade(shade, samples.shape))
        _draw_shade_key(axes, shade_class)
    _draw_traces(axes, page)
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
    """Draw a recording on a panel of a larger page, scaled to the panel, without print below.

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
    page = lay_out_page(
        samples,
        leads,
        Scale(fs, SPEED_MM_PER_S, GAIN_MM_PER_MV),
        layout="3x4",
        rhythm_lead=None,
        duration_s=duration_s,
        lead_present=lead_present,
    )
    axes.set(xlim=(0, page.width), ylim=(0, page.height), aspect="equal", anchor="NW")
    axes.set_axis_off()
    _draw_grid(axes, page.width, page.height)
    _draw_traces(axes, page, TICK_PT)
    return page.width, page.height


# Checks -------------------------------------------------------------------------------------------


def _check_signal(
    signal: ArrayLike,
    fs: float,
    leads: Sequence[str],
    lead_present: Sequence[bool] | NDArray[np.bool_] | None,
) -> Float64Array:
    """Return the signal as an array in mV, once shapes and rate are right."""
    samples = np.asarray(signal, dtype=np.float64)
    check_signal_shape(samples, leads)
    if not (math.isfinite(fs) and fs > 0):
        raise ValueError(f"fs is {fs}: expected a positive rate in Hz")
    if lead_present is not None and np.shape(lead_present) != (len(leads),):
        raise ValueError(
            f"lead_present has shape {np.shape(lead_present)}: expected ({len(leads)},), "
            "a flag for each lead"
        )
    return samples


def _check_shade(shade: ArrayLike, shape: tuple[int, ...]) -> Float64Array:
    weights = np.asarray(shade, dtype=np.float64)
    if weights.shape != shape:
        raise ValueError(f"shade has shape {weights.shape}: expected {shape}, as the signal")
    if not (np.abs(weights) <= 1).all():
        raise ValueError(
            "shade holds NaN or values outside -1 to 1: divide it by its largest absolute value"
        )
    return weights


def _check_page(layout: str, speed: float, gain: float, duration_s: float) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}: choose one of {', '.join(LAYOUTS)}")
    numbers = {"speed_mm_per_s": speed, "gain_mm_per_mv": gain, "duration_s": duration_s}
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: expected a positive number")
    if duration_s * speed > _MAX_WIDTH:
        raise ValueError(
            f"{duration_s:g} s at {speed:g} mm/s make a page of {duration_s * speed / 1000:g} m, "
            f"wider than the maximum of {_MAX_WIDTH / 1000:g} m: give a smaller duration_s, "
            "and cut the signal to where it should start"
        )


# Drawing ------------------------------------------------------------------------------------------


def _new_page(
    width: float, height: float, title: str, footer: str, *, with_key: bool
) -> tuple[Figure, Axes]:
    """Return a page with grid and print; its axes are in mm from the lower left of the grid.

    With a colour key, a line for it is left empty above the other print below the grid.
    """
    characters = int(width / CHARACTER_MM)
    title_lines = textwrap.wrap(plain_text(" ".join(title.split()), 500), characters)
    footer_lines = textwrap.wrap(plain_text(footer, 500), characters)
    top = _MARGIN + _TEXT_LINE * len(title_lines)
    key_mm = _TEXT_LINE if with_key else 0.0
    bottom = _MARGIN + _TEXT_LINE * len(footer_lines) + key_mm
    figure = new_figure(width + 2 * _MARGIN, height + top + bottom, dpi=_DPI, layout=None)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-_MARGIN, width + _MARGIN), ylim=(-bottom, height + top))
    axes.set_axis_off()
    _draw_grid(axes, width, height)
    axes.text(
        0, height + 2, "\n".join(title_lines), fontsize=TITLE_PT + 1, color=BLACK, va="bottom"
    )
    # Legible below a trace that strays
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    style: Style = {"fontsize": LABEL_PT, "color": BLACK, "va": "top", "zorder": 5}
    axes.text(0, -2 - key_mm, "\n".join(footer_lines), bbox=box, **style)
    return figure, axes


def _draw_grid(axes: Axes, width: float, height: float) -> None:
    grids = (("minor", 1.0, _MINOR, 0.4), ("major", BOX_MM, _MAJOR, 0.7))
    for name, step, color, line_width in grids:
        style: Style = {"colors": color, "linewidth": line_width, "zorder": 1}
        vertical = axes.vlines(np.arange(0, width + step / 2, step), 0, height, **style)
        vertical.set_gid(f"grid-{name}-x")
        horizontal = axes.hlines(np.arange(0, height + step / 2, step), 0, width, **style)
        horizontal.set_gid(f"grid-{name}-y")


def _draw_traces(axes: Axes, page: PageLayout, name_pt: float = TITLE_PT) -> None:
    for trace in page.traces:
        _draw_trace(axes, trace, page.baselines[trace.strip.row], name_pt)
    for baseline in page.baselines:
        _draw_pulse(axes, page.scale, baseline)


def _draw_shade(axes: Axes, page: PageLayout, weights: Float64Array) -> None:
    """Colour a band behind each trace, the stronger the farther the weight is from 0."""
    for trace in page.traces:
        if trace.y is None:
            continue
        # The weight sets the opacity, so that the grid stays visible where the map is weak
        part = weights[trace.strip.lead, trace.samples, None]  # (n_samples, 1)
        colors = np.where(part > 0, to_rgb(_FOR), to_rgb(_AGAINST))  # (n_samples, RGB)
        band = np.concatenate([colors, _SHADE_OPACITY * np.abs(part)], axis=1)
        baseline, y = page.baselines[trace.strip.row], trace.y[np.isfinite(trace.y)]
        low = baseline + y.min(initial=0.0) - _SHADE_ROOM
        high = baseline + y.max(initial=0.0) + _SHADE_ROOM
        # Not smoothed: a border between two samples must stay where it is
        image = axes.imshow(
            band[None],  # (1, n_samples, RGBA)
            extent=(trace.left, trace.right, low, high),
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
        image.set_gid(f"shade-{printable(trace.name)}")


def _draw_shade_key(axes: Axes, class_name: str) -> None:
    """Draw the scale of the shade, from against to for, and name its class beside it."""
    weights = np.linspace(-1, 1, 2 * _KEY_STEPS + 1)
    colors = np.where(weights[:, None] > 0, to_rgb(_FOR), to_rgb(_AGAINST))  # (n_steps, RGB)
    band = np.concatenate([colors, _SHADE_OPACITY * np.abs(weights)[:, None]], axis=1)
    style: Style = {"fontsize": LABEL_PT, "color": BLACK, "va": "top", "zorder": 5}
    axes.text(0, -2, "against", **style)
    left = text_mm("against", LABEL_PT) + 1.5
    right = left + _KEY_MM
    middle = -2 - _KEY_HEIGHT_MM / 2 - 0.4
    extent = (left, right, middle - _KEY_HEIGHT_MM / 2, middle + _KEY_HEIGHT_MM / 2)
    image = axes.imshow(band[None], extent=extent, aspect="auto", zorder=2)
    image.set_gid("shade-key")
    axes.text(right + 1.5, -2, f"for {plain_text(class_name or 'the class')}", **style)


def _draw_trace(axes: Axes, trace: Trace, baseline: float, name_pt: float) -> None:
    name_style: Style = {"fontsize": name_pt, "weight": "bold", "color": BLACK}
    axes.text(trace.left + 1.0, baseline + trace.name_y, plain_text(trace.name), **name_style)
    if trace.strip.first_column > 0:
        _draw_separator(axes, trace.left, baseline)
    if trace.y is None:
        style: Style = {"color": GREY, "ha": "center", "va": "center", "style": "italic"}
        axes.text((trace.left + trace.right) / 2, baseline, "missing", fontsize=TITLE_PT, **style)
        return
    line_style: Style = {"color": BLACK, "linewidth": 0.8, "solid_joinstyle": "round"}
    line_style |= {"clip_on": False, "zorder": 3, "gid": f"trace-{printable(trace.name)}"}
    axes.plot(trace.x, baseline + trace.y, **line_style)


def _draw_separator(axes: Axes, x: float, baseline: float) -> None:
    """Draw the two short lines between a lead and the one before it."""
    inner, outer = SEPARATOR_MM
    ends = np.array([[-outer, -inner], [inner, outer]]) + baseline
    axes.vlines([x] * 2, ends[:, 0], ends[:, 1], colors=BLACK, linewidth=0.8)


def _draw_pulse(axes: Axes, scale: Scale, baseline: float) -> None:
    """Draw 1 mV for 200 ms with a foot on either side, centred in the room before the traces."""
    width = PULSE_S * scale.speed
    left = (scale.calibration_mm - width) / 2
    right = left + width
    x = np.array([left - _PULSE_FOOT, left, left, right, right, right + _PULSE_FOOT])
    y = baseline + np.array([0, 0, 1, 1, 0, 0]) * PULSE_MV * scale.gain
    style: Style = {"color": BLACK, "linewidth": 0.8, "solid_joinstyle": "miter"}
    axes.plot(x, y, zorder=3, gid="calibration", **style)
