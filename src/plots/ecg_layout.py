"""The layout of an ECG page: where each trace, baseline and edge lies, in mm.

The origin is the lower left corner of the grid. `src.plots.ecg` draws the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.records.leads import canonical_lead
from src.records.paper import (
    BOX_MM,
    NAME_HEIGHT_MM,
    Strip,
    arrange_strips,
    centre_leads,
    name_height,
    standard_lead_rows,
    whole_boxes,
)
from src.utils import Float64Array

PULSE_MV, PULSE_S = 1.0, 0.2
"""Height and width of the calibration pulse."""
CHARACTER_MM = 2.2
"""Width of a character of a lead's name, on average."""

_ROW_GAP = 2.0  # between the traces of two rows at their closest
_MIN_ROW = 15.0
# Of a trace above or below its baseline, before it may run over other rows
_MAX_REACH = 80.0
_MIN_WIDTH = 80.0  # room for the print below the grid
_EMPTY_NAME_HEIGHT = 4.0


@dataclass(frozen=True)
class Scale:
    """Conversion of samples and mV to mm.

    Attributes
    ----------
    fs
        Sampling rate in Hz.
    speed
        In mm/s.
    gain
        In mm/mV.
    """

    fs: float
    speed: float
    gain: float

    @property
    def calibration_mm(self) -> float:
        """Width of the room for the calibration pulse, at the left of the grid."""
        return whole_boxes(PULSE_S * self.speed + BOX_MM)

    def x(self, sample: ArrayLike) -> Float64Array:
        """Return the distance of samples from the left edge of the grid, in mm."""
        return self.calibration_mm + np.asarray(sample, dtype=np.float64) / self.fs * self.speed


@dataclass(frozen=True)
class Trace:
    """One lead over one stretch of time.

    Attributes
    ----------
    name
        Of the lead, as printed.
    strip
        Row of the signal and place on the page.
    samples
        The stretch of the signal.
    left, right
        Edges in mm.
    x
        Shape (n_samples,), in mm.
    y
        Shape (n_samples,), in mm from the baseline; None where the lead is missing.
    name_y
        Height of the name above the baseline, in mm.
    """

    name: str
    strip: Strip
    samples: slice
    left: float
    right: float
    x: Float64Array
    y: Float64Array | None
    name_y: float

    @property
    def reach(self) -> tuple[float, float]:
        """How far trace and name go above and below the baseline, in mm, both positive."""
        highest = lowest = 0.0
        if self.y is not None and np.isfinite(self.y).any():
            highest, lowest = float(np.nanmax(self.y)), float(np.nanmin(self.y))
        return max(highest, self.name_y + NAME_HEIGHT_MM), max(-lowest, 0.0)


@dataclass(frozen=True)
class PageLayout:
    """Traces, baselines from the top row on, size of the grid, and the print below it."""

    traces: list[Trace]
    baselines: list[float]
    width: float
    height: float
    scale: Scale
    footer: str


def lay_out_page(
    signal: Float64Array,
    leads: Sequence[str],
    scale: Scale,
    *,
    layout: str,
    rhythm_lead: str | None,
    duration_s: float,
    lead_present: Sequence[bool] | NDArray[np.bool_] | None,
) -> PageLayout:
    """Return where everything on an ECG page lies.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV, NaN where a sample is missing.
    leads
        Names of the rows.
    scale
        Conversion to mm.
    layout, rhythm_lead, duration_s, lead_present
        As for `src.plots.ecg.plot_ecg`.

    Raises
    ------
    ValueError
        If the rhythm lead is unknown.
    """
    n_samples = signal.shape[1]
    n_shown = min(n_samples, max(1, round(duration_s * scale.fs)))
    strips = arrange_strips(leads, layout, rhythm_lead)
    centred = centre_leads(signal[:, :n_shown], lead_present)
    traces = _cut_traces(centred, _printed_names(leads, strips), strips, scale)
    baselines, height = _space_rows(traces, scale.gain)
    width = max(whole_boxes(float(scale.x(n_shown))), _MIN_WIDTH)

    footer = [f"{scale.speed:g} mm/s", f"{scale.gain:g} mm/mV", f"{scale.fs:g} Hz"]
    if n_shown < n_samples:
        footer.append(f"first {n_shown / scale.fs:g} s of {n_samples / scale.fs:g} s")
    off_scale = dict.fromkeys(trace.name for trace in traces if max(trace.reach) > _MAX_REACH)
    if off_scale:
        footer.append(f"off scale: {', '.join(off_scale)}")
    return PageLayout(traces, baselines, width, height, scale, "   ".join(footer))


def _printed_names(leads: Sequence[str], strips: Sequence[Strip]) -> list[str]:
    """Return standard names in a grid, and in a stack those of the source but for their case."""
    if max(strip.stop_column for strip in strips) > 1:
        return list(standard_lead_rows(leads))
    names = []
    for name in leads:
        standard = canonical_lead(name)
        is_same = standard is not None and standard.upper() == name.upper()
        names.append(standard if standard is not None and is_same else name)
    return names


def _cut_traces(
    centred: Float64Array, names: Sequence[str], strips: Sequence[Strip], scale: Scale
) -> list[Trace]:
    """Cut each lead to the stretch that its strip shows."""
    n_columns = max(strip.stop_column for strip in strips)
    # Columns show consecutive stretches of time, as paper does, not the same one
    edges = np.linspace(0, centred.shape[1], n_columns + 1).round().astype(int)
    traces = []
    for strip in strips:
        name = names[strip.lead]
        samples = slice(edges[strip.first_column], edges[strip.stop_column])
        left, right = scale.x([samples.start, samples.stop]).tolist()
        x = scale.x(np.arange(samples.start, samples.stop))
        if np.isfinite(centred[strip.lead]).any():
            y = centred[strip.lead, samples] * scale.gain
            name_y = name_height(y[x < left + 2 + CHARACTER_MM * len(name)], _MAX_REACH)
        else:
            y, name_y = None, _EMPTY_NAME_HEIGHT
        traces.append(Trace(name, strip, samples, left, right, x, y, name_y))
    return traces


def _space_rows(traces: Sequence[Trace], gain: float) -> tuple[list[float], float]:
    """Return each row's baseline and the height of the grid, in mm from its lower edge.

    Rows stand as close as their traces allow in every column, with baselines on major lines.
    """
    n_rows = max(trace.strip.row for trace in traces) + 1
    n_columns = max(trace.strip.stop_column for trace in traces)
    above, below = np.zeros((n_rows, n_columns)), np.zeros((n_rows, n_columns))
    for trace in traces:
        strip = trace.strip
        place = strip.row, slice(strip.first_column, strip.stop_column)
        up, down = trace.reach
        # A trace beyond the limit runs over other rows; room for a spike would dwarf the rest
        above[place], below[place] = min(up, _MAX_REACH), min(down, _MAX_REACH)
    # The calibration pulse stands before the first column
    above[:, 0] = np.maximum(above[:, 0], PULSE_MV * gain)

    steps = [whole_boxes(float(above[0].max()) + _ROW_GAP)]
    for row in range(1, n_rows):
        closest = float((below[row - 1] + above[row]).max())
        steps.append(whole_boxes(max(closest + _ROW_GAP, _MIN_ROW)))
    steps.append(whole_boxes(float(below[-1].max()) + _ROW_GAP))
    depths = np.cumsum(steps)
    height = float(depths[-1])
    return [height - float(depth) for depth in depths[:-1]], height
