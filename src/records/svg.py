"""A recording on ECG paper as an SVG picture, for web pages: notebooks and the report.

The picture is plain text, made without a drawing library. It takes its colours from the page around
it and refers to no other file. `src.plots.ecg` draws the same for print.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.records.paper import (
    BOX_MM,
    GAIN_MM_PER_MV,
    SEPARATOR_MM,
    SPEED_MM_PER_S,
    Strip,
    arrange_strips,
    centre_leads,
    check_signal_shape,
    name_height,
    whole_boxes,
)
from src.utils import Float32Array, Float64Array, html_text

# Whole numbers make short paths, and 1/20 mm is less than a pixel
_UNITS_PER_MM = 20
# Samples closer than this are drawn as their lowest and highest
_BIN_MM = 0.2
SHADE_S = 0.04
"""Length in seconds of a stretch that is shaded on its own: a small box of the paper."""
_SHADE_LEVELS = (0.15, 0.3, 0.5, 0.75)  # least weight of each level of darkness

# Room of a row above and below its baseline, in mm
_MIN_REACH, _MAX_REACH = 8.0, 30.0
_NAME_ROOM_MM = 2.0  # above the highest wave
_CHARACTER_MM = 2.5


@dataclass(frozen=True)
class _Trace:
    """One lead over one stretch of time; `y` is in mm above the baseline, NaN where missing."""

    strip: Strip
    start_s: float
    stop_s: float
    x: Float64Array
    y: Float64Array


def draw_ecg_svg(
    signal: Float32Array,
    fs: float,
    leads: Sequence[str],
    *,
    lead_present: Sequence[bool] | NDArray[np.bool_] | None = None,
    shade: Float32Array | None = None,
    duration_s: float = 10.0,
    label: str = "ECG",
) -> str:
    """Return a recording as an ``<svg>`` element.

    The twelve leads stand in three rows of four over a strip of lead II. Other leads stand below
    each other. Large boxes are 0.2 s and 0.5 mV. A style sheet can colour the elements by their
    classes ``ecg``, ``ecg-minor``, ``ecg-major``, ``ecg-trace``, ``ecg-name``, ``ecg-for`` and
    ``ecg-against``. Without one they have the colour of the text around.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV; NaN leaves a gap. A lead is drawn about its median.
    fs
        Sampling rate in Hz.
    leads
        Names of the rows.
    lead_present
        Shape (n_leads,); leads that are False are left empty.
    shade
        Shape (n_leads, n_stretches), -1 to 1: colours the paper behind each stretch of `SHADE_S`,
        the darker the farther from 0.
    duration_s
        Seconds shown from the start.
    label
        Text for screen readers.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no sample.
    """
    check_signal_shape(signal, leads)
    shown_s = min(duration_s, signal.shape[1] / fs)
    centred = centre_leads(signal[:, : math.ceil(shown_s * fs)], lead_present) * GAIN_MM_PER_MV
    traces = [
        _cut_trace(centred, fs, strip, start_s, stop_s)
        for strip, start_s, stop_s in _time_strips(leads, shown_s)
    ]
    baselines, above, below = _space_rows(traces)
    width = whole_boxes(shown_s * SPEED_MM_PER_S)
    height = whole_boxes(baselines[-1] + below[-1] + 1)

    paths, separators, names = [], [], []
    for trace in traces:
        baseline = baselines[trace.strip.row]
        paths.append(_path(trace.x, baseline - trace.y))
        names.append(_name(leads[trace.strip.lead], trace, baseline))
        if trace.start_s:
            separators.append(_separator(trace, baseline))
    shading = ""
    if shade is not None:
        tops = [baseline - up for baseline, up in zip(baselines, above, strict=True)]
        bottoms = [baseline + down for baseline, down in zip(baselines, below, strict=True)]
        shading = _shading(traces, tops, bottoms, shade)
    return (
        f'<svg class="ecg" viewBox="0 0 {_units(width)} {_units(height)}" '
        f'style="width:100%;max-width:{width:g}mm" role="img" aria-label="{html_text(label)}">'
        f"{_grid(width, height, 1, 'minor', 0.12)}"
        f"{_grid(width, height, round(BOX_MM), 'major', 0.3)}{shading}"
        f'<path class="ecg-trace" d="{"".join(paths)}{"".join(separators)}" fill="none" '
        'stroke="currentColor" stroke-width="6" stroke-linejoin="round"/>'
        '<g class="ecg-name" fill="currentColor" font-size="64" '
        f'font-weight="600">{"".join(names)}</g></svg>'
    )


# Arranging ----------------------------------------------------------------------------------------


def _time_strips(leads: Sequence[str], shown_s: float) -> list[tuple[Strip, float, float]]:
    """Return the strips with their start and end in seconds, column by column."""
    strips = arrange_strips(leads)
    column_s = shown_s / max(strip.stop_column for strip in strips)
    # The leads in their standard order, and the rhythm strip last
    strips.sort(key=lambda it: (it.stop_column - it.first_column, it.first_column, it.row))
    return [
        (strip, strip.first_column * column_s, strip.stop_column * column_s) for strip in strips
    ]


def _cut_trace(
    centred: Float64Array, fs: float, strip: Strip, start_s: float, stop_s: float
) -> _Trace:
    """Return the trace of a strip, with no more points than can be told apart."""
    start, stop = round(start_s * fs), round(stop_s * fs)
    y = centred[strip.lead, start:stop]
    x = np.arange(start, stop) / fs * SPEED_MM_PER_S
    bin_size = math.floor(_BIN_MM / SPEED_MM_PER_S * fs)
    if bin_size >= 3 and len(y) >= bin_size:
        # Keep the lowest and the highest sample of each bin, in their order
        n_binned = len(y) // bin_size * bin_size
        bins = y[:n_binned].reshape(-1, bin_size)  # (n_bins, bin_size)
        extremes = np.sort(np.stack([bins.argmin(axis=1), bins.argmax(axis=1)], axis=1), axis=1)
        places = (extremes + np.arange(0, n_binned, bin_size)[:, None]).ravel()
        x, y = x[places], y[places]
    return _Trace(strip, start_s, stop_s, x, y)


def _space_rows(traces: Sequence[_Trace]) -> tuple[list[float], list[float], list[float]]:
    """Return each row's baseline in mm from the top, and its room above and below it."""
    n_rows = max(trace.strip.row for trace in traces) + 1
    above, below = np.full(n_rows, _MIN_REACH), np.full(n_rows, _MIN_REACH / 2)
    for trace in traces:
        row = trace.strip.row
        y = trace.y[np.isfinite(trace.y)]
        above[row] = max(above[row], min(y.max(initial=0.0) + _NAME_ROOM_MM, _MAX_REACH))
        below[row] = max(below[row], min(-y.min(initial=0.0), _MAX_REACH))
    steps = [above[0] + 2, *(below[:-1] + above[1:] + 1)]
    baselines = np.cumsum([whole_boxes(step) for step in steps])
    return baselines.tolist(), above.tolist(), below.tolist()


# Text ---------------------------------------------------------------------------------------------


def _units(length: float) -> int:
    return round(length * _UNITS_PER_MM)


def _path(x: Float64Array, y: Float64Array) -> str:
    """Return the path data of a line in relative steps; the pen is lifted at missing samples."""
    known = np.isfinite(y)
    points = np.stack([x, np.where(known, y, 0.0)], axis=1) * _UNITS_PER_MM  # (n_points, 2)
    points = np.round(points).astype(int)
    edges = np.flatnonzero(np.diff(known.astype(int), prepend=0, append=0))
    parts = []
    for start, stop in edges.reshape(-1, 2).tolist():
        left, top = points[start]
        steps = np.diff(points[start:stop], axis=0).ravel()
        # A single sample becomes a dash of one unit
        line = "l" + _join(steps.tolist()) if len(steps) else "h1"
        parts.append(f"M{left} {top}{line}")
    return "".join(parts)


def _join(numbers: Sequence[int]) -> str:
    """Return numbers separated by blanks, which a minus sign replaces."""
    return " ".join(map(str, numbers)).replace(" -", "-")


def _grid(width: float, height: float, step: int, name: str, opacity: float) -> str:
    across = "".join(f"M{_units(x)} 0V{_units(height)}" for x in range(0, round(width) + 1, step))
    down = "".join(f"M0 {_units(y)}H{_units(width)}" for y in range(0, round(height) + 1, step))
    return (
        f'<path class="ecg-{name}" d="{across}{down}" fill="none" stroke="currentColor" '
        f'stroke-opacity="{opacity}" stroke-width="2"/>'
    )


def _shading(
    traces: Sequence[_Trace], tops: Sequence[float], bottoms: Sequence[float], shade: Float32Array
) -> str:
    """Return the boxes behind the traces: a path for each side and level of darkness."""
    box_width = _units(SHADE_S * SPEED_MM_PER_S)
    boxes_of: dict[tuple[str, float], list[str]] = {}
    for trace in traces:
        top, bottom = _units(tops[trace.strip.row]), _units(bottoms[trace.strip.row])
        first, last = round(trace.start_s / SHADE_S), round(trace.stop_s / SHADE_S)
        weights = shade[trace.strip.lead, first:last].tolist()
        for stretch, weight in enumerate(weights, start=first):
            levels = [level for level in _SHADE_LEVELS if level <= abs(weight)]
            if not levels:
                continue
            side = "for" if weight > 0 else "against"
            left = _units(stretch * SHADE_S * SPEED_MM_PER_S)
            box = f"M{left} {top}h{box_width}V{bottom}H{left}z"
            boxes_of.setdefault((side, levels[-1]), []).append(box)
    return "".join(
        f'<path class="ecg-{side}" d="{"".join(boxes)}" fill="currentColor" '
        f'fill-opacity="{level}"/>'
        for (side, level), boxes in sorted(boxes_of.items())
    )


def _name(lead: str, trace: _Trace, baseline: float) -> str:
    """Return a lead's name, above the part of the trace that it stands over."""
    left = trace.start_s * SPEED_MM_PER_S + 1
    below_name = trace.y[trace.x < left + _CHARACTER_MM * len(lead)]
    y = baseline - name_height(below_name, _MAX_REACH)
    return f'<text x="{_units(left)}" y="{_units(y)}">{html_text(lead)}</text>'


def _separator(trace: _Trace, baseline: float) -> str:
    """Return the two short lines between a lead and the one before it."""
    x = _units(trace.start_s * SPEED_MM_PER_S)
    inner, outer = SEPARATOR_MM
    length = _units(outer - inner)
    return f"M{x} {_units(baseline - outer)}v{length}M{x} {_units(baseline + inner)}v{length}"
