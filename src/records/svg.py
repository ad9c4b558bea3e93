"""A recording on ECG paper as an SVG picture, for web pages: notebooks and the report.

It is plain text made without a drawing library, takes its colours from the page around it, and says
nothing of other files. `src.ecg_paper` draws the same for print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.leads import canonical_lead
from src.utils import Float32Array, Float64Array

SPEED_MM_PER_S, GAIN_MM_PER_MV = 25.0, 10.0
_UNITS_PER_MM = (
    20  # of the drawing; whole numbers make short paths, and 1/20 mm is less than a pixel
)
_BIN_MM = 0.2  # samples closer than this are drawn as their least and greatest
SHADE_S = 0.04
"""Length of a stretch that is shaded on its own: a small box of the paper."""
_SHADES = (0.15, 0.3, 0.5, 0.75)  # from where each step of darkness begins
_MIN_REACH, _MAX_REACH = 8.0, 30.0  # mm of a row above and below its baseline
_NAME_MM = 2.0  # of room for a name above the highest wave
_COLUMNS = 4


@dataclass(frozen=True)
class _Strip:
    """A stretch of one lead on the page: `row`, and from where to where in seconds."""

    lead: int
    row: int
    start_s: float
    stop_s: float


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
    """Return an ``<svg>`` of a recording: the twelve leads in three rows of four over lead II,
    others below each other.

    Large boxes are 0.2 s and 0.5 mV. Elements have the classes ``ecg``, ``ecg-minor``,
    ``ecg-major``, ``ecg-trace``, ``ecg-name``, ``ecg-for`` and ``ecg-against``, by which a style
    sheet may colour them; without one they have the colour of the text around.

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
        Shape (n_leads, n_stretches): how dark the paper is behind each stretch of `SHADE_S`, from
        -1 to 1.
    duration_s
        Seconds shown from the start.
    label
        What a screen reader says.

    Raises
    ------
    ValueError
        If the shapes disagree or there is no sample.
    """
    if signal.ndim != 2 or len(signal) != len(leads) or not signal.size:
        raise ValueError(
            f"signal has shape {signal.shape}: expected ({len(leads)}, n_samples), a row "
            "for each lead"
        )
    shown_s = min(duration_s, signal.shape[1] / fs)
    strips = _arrange(leads, shown_s)
    centred = _centre(signal[:, : math.ceil(shown_s * fs)], lead_present)
    traces = [_cut(centred[strip.lead], fs, strip) for strip in strips]
    baselines, above, below = _space_rows(strips, traces)
    width, height = _round_up(shown_s * SPEED_MM_PER_S), _round_up(baselines[-1] + below[-1] + 1)
    paths = "".join(
        _path(x, baselines[strip.row] - y) for strip, (x, y) in zip(strips, traces, strict=True)
    )
    names = "".join(
        _name(leads[strip.lead], strip, baselines[strip.row], *trace)
        for strip, trace in zip(strips, traces, strict=True)
    )
    ticks = "".join(_tick(strip, baselines[strip.row]) for strip in strips if strip.start_s)
    bands = [
        (baseline - up, baseline + down)
        for baseline, up, down in zip(baselines, above, below, strict=True)
    ]
    shading = "" if shade is None else _shade(strips, bands, shade)
    size = f'viewBox="0 0 {_units(width)} {_units(height)}"'
    return (
        f'<svg class="ecg" {size} style="width:100%;max-width:{width:g}mm" role="img" '
        f'aria-label="{html.escape(label)}">'
        f"{_grid(width, height, 1, 'minor', 0.12)}{_grid(width, height, 5, 'major', 0.3)}{shading}"
        f'<path class="ecg-trace" d="{paths}{ticks}" fill="none" stroke="currentColor" '
        'stroke-width="6" stroke-linejoin="round"/>'
        '<g class="ecg-name" fill="currentColor" font-size="64" '
        f'font-weight="600">{names}</g></svg>'
    )


def _arrange(leads: Sequence[str], shown_s: float) -> list[_Strip]:
    """Return the strips from the upper left on."""
    standard = [canonical_lead(name) for name in leads]
    if sorted(map(str, standard)) != sorted(STANDARD_LEADS):
        return [_Strip(lead, lead, 0.0, shown_s) for lead in range(len(leads))]
    part = shown_s / _COLUMNS
    places = {
        name: (number % 3, number // 3) for number, name in enumerate(STANDARD_LEADS)
    }  # row, column
    strips = [
        _Strip(standard.index(name), row, column * part, (column + 1) * part)
        for name, (row, column) in places.items()
    ]
    return [*strips, _Strip(standard.index("II"), 3, 0.0, shown_s)]


def _centre(
    signal: Float32Array, lead_present: Sequence[bool] | NDArray[np.bool_] | None
) -> Float64Array:
    """Return the leads in mm about their medians, NaN where there is no sample."""
    millimetres = np.asarray(signal, np.float64) * GAIN_MM_PER_MV
    there = np.isfinite(millimetres)
    if lead_present is not None:
        there &= np.asarray(lead_present, bool)[:, None]
    middle = [
        float(np.median(row[known])) if known.any() else 0.0
        for row, known in zip(millimetres, there, strict=True)
    ]
    return np.where(there, millimetres - np.array(middle)[:, None], np.nan)


def _cut(lead: Float64Array, fs: float, strip: _Strip) -> tuple[Float64Array, Float64Array]:
    """Return x and y of a strip in mm, with no more points than can be told apart."""
    start, stop = round(strip.start_s * fs), round(strip.stop_s * fs)
    y = lead[start:stop]
    x = np.arange(start, stop) / fs * SPEED_MM_PER_S
    step = math.floor(_BIN_MM / SPEED_MM_PER_S * fs)
    if step < 3 or len(y) < step:
        return x, y
    whole = len(y) // step * step
    blocks = y[:whole].reshape(-1, step)
    kept = np.sort(np.stack([blocks.argmin(axis=1), blocks.argmax(axis=1)], axis=1), axis=1)
    places = (kept + np.arange(0, whole, step)[:, None]).ravel()
    return x[places], y[places]


def _space_rows(
    strips: Sequence[_Strip], traces: Sequence[tuple[Float64Array, Float64Array]]
) -> tuple[list[float], list[float], list[float]]:
    """Return the baseline of each row in mm from the top, and how far its traces go above and below
    it.
    """
    n_rows = max(strip.row for strip in strips) + 1
    above, below = np.full(n_rows, _MIN_REACH), np.full(n_rows, _MIN_REACH / 2)
    for strip, (_, y) in zip(strips, traces, strict=True):
        known = y[np.isfinite(y)]
        above[strip.row] = max(above[strip.row], min(known.max(initial=0.0) + _NAME_MM, _MAX_REACH))
        below[strip.row] = max(below[strip.row], min(-known.min(initial=0.0), _MAX_REACH))
    steps = [above[0] + 2, *(below[:-1] + above[1:] + 1)]
    baselines = np.cumsum([_round_up(step) for step in steps])
    return baselines.tolist(), above.tolist(), below.tolist()


def _round_up(length: float) -> float:
    """Return the length in whole large boxes of 5 mm."""
    return math.ceil(round(length / 5, 6)) * 5.0


# Text ---------------------------------------------------------------------------------------------


def _units(length: float) -> int:
    return round(length * _UNITS_PER_MM)


def _path(x: Float64Array, y: Float64Array) -> str:
    """Return the path data of a line, in steps from point to point, lifted where a sample is
    missing.
    """
    known = np.isfinite(y)
    points = np.stack([x, np.where(known, y, 0.0)], axis=1) * _UNITS_PER_MM
    points = np.round(points).astype(int)
    edges = np.flatnonzero(np.diff(known.astype(int), prepend=0, append=0))
    parts = []
    for start, stop in edges.reshape(-1, 2).tolist():
        steps = np.diff(points[start:stop], axis=0).ravel()
        parts.append(
            "M{} {}".format(*points[start]) + ("l" + _join(steps.tolist()) if len(steps) else "h1")
        )
    return "".join(parts)


def _join(numbers: Sequence[int]) -> str:
    """Return numbers with a blank between them, where there is no minus sign."""
    return " ".join(map(str, numbers)).replace(" -", "-")


def _grid(width: float, height: float, step: int, name: str, opacity: float) -> str:
    across = "".join(f"M{_units(x)} 0V{_units(height)}" for x in range(0, round(width) + 1, step))
    down = "".join(f"M0 {_units(y)}H{_units(width)}" for y in range(0, round(height) + 1, step))
    return (
        f'<path class="ecg-{name}" d="{across}{down}" fill="none" stroke="currentColor" '
        f'stroke-opacity="{opacity}" stroke-width="2"/>'
    )


def _shade(
    strips: Sequence[_Strip], bands: Sequence[tuple[float, float]], shade: Float32Array
) -> str:
    """Return the boxes behind the traces, a path for each step of darkness, for and against."""
    paths: dict[tuple[str, float], list[str]] = {}
    for strip in strips:
        top, bottom = (_units(edge) for edge in bands[strip.row])
        first, last = round(strip.start_s / SHADE_S), round(strip.stop_s / SHADE_S)
        for place, value in enumerate(shade[strip.lead, first:last].tolist(), start=first):
            steps = [step for step in _SHADES if step <= abs(value)]
            if steps:
                key = "for" if value > 0 else "against", steps[-1]
                left = _units(place * SHADE_S * SPEED_MM_PER_S)
                paths.setdefault(key, []).append(
                    f"M{left} {top}h{_units(SHADE_S * SPEED_MM_PER_S)}V{bottom}H{left}z"
                )
    return "".join(
        f'<path class="ecg-{side}" d="{"".join(boxes)}" fill="currentColor" fill-opacity="{step}"/>'
        for (side, step), boxes in sorted(paths.items())
    )


def _name(lead: str, strip: _Strip, baseline: float, x: Float64Array, y: Float64Array) -> str:
    """Return a lead's name, above what is drawn below it."""
    left = strip.start_s * SPEED_MM_PER_S + 1
    below = y[(x < left + 2.5 * len(lead)) & np.isfinite(y)]
    up = min(max(float(below.max(initial=0.0)) + 1, 4.0), _MAX_REACH - 3)
    return f'<text x="{_units(left)}" y="{_units(baseline - up)}">{html.escape(lead)}</text>'


def _tick(strip: _Strip, baseline: float) -> str:
    """Return the two short lines between a lead and the one before it."""
    x = _units(strip.start_s * SPEED_MM_PER_S)
    return f"M{x} {_units(baseline - 4)}v{_units(2)}M{x} {_units(baseline + 2)}v{_units(2)}"
