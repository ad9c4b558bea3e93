"""Geometry of standard ECG paper, shared by the drawings for print and for web pages.

`src.records.svg` draws for web pages, `src.plots.ecg` for print. Lengths are in mm on the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.config import STANDARD_LEADS
from src.records.leads import canonical_lead
from src.utils import Float64Array

# The customary scale: AHA/ACCF/HRS recommendations for the ECG, part I, 2007
SPEED_MM_PER_S = 25.0
GAIN_MM_PER_MV = 10.0
BOX_MM = 5.0
"""Distance between the major lines of the grid."""

NAME_HEIGHT_MM = 3.0
SEPARATOR_MM = (2.0, 4.0)
"""Two short lines separate a lead from the one before it: from 2 to 4 mm above and below."""

_NAME_LIFT_MM = 1.0
_MIN_NAME_MM = 3.0  # a name never stands closer to the baseline, but for the lift

_N_ROWS = {"3x4": 3, "6x2": 6}
LAYOUTS = (*_N_ROWS, "stack")


@dataclass(frozen=True)
class Strip:
    """A lead's place on the page.

    Attributes
    ----------
    lead
        Row of the signal.
    row
        Row of the page, from the top.
    first_column, stop_column
        The columns that the strip takes, the last one excluded.
    """

    lead: int
    row: int
    first_column: int
    stop_column: int


def arrange_strips(
    leads: Sequence[str], layout: str = "3x4", rhythm_lead: str | None = "II"
) -> list[Strip]:
    """Return the strips of a page, row by row from the left.

    The grids hold consecutive stretches of the twelve leads, in columns, over a rhythm strip of the
    whole width. Other sets of leads are stacked, whatever the layout.

    Parameters
    ----------
    leads
        Names of the rows of the signal, in any common spelling.
    layout
        One of `LAYOUTS`.
    rhythm_lead
        Lead of the strip below a grid; None leaves the strip out.

    Raises
    ------
    ValueError
        If the rhythm lead is none of the twelve.
    """
    index = standard_lead_rows(leads)
    if layout == "stack" or len(leads) != len(STANDARD_LEADS) or len(index) != len(STANDARD_LEADS):
        return [Strip(row, row, 0, 1) for row in range(len(leads))]

    n_rows = _N_ROWS[layout]
    n_columns = len(STANDARD_LEADS) // n_rows
    strips = []
    for row in range(n_rows):
        for column, name in enumerate(STANDARD_LEADS[row::n_rows]):
            strips.append(Strip(index[name], row, column, column + 1))
    if rhythm_lead is not None:
        rhythm_name = canonical_lead(rhythm_lead)
        if rhythm_name is None:
            raise ValueError(
                f"rhythm_lead is {rhythm_lead!r}: choose one of "
                f"{', '.join(STANDARD_LEADS)}, or None"
            )
        strips.append(Strip(index[rhythm_name], n_rows, 0, n_columns))
    return strips


def standard_lead_rows(leads: Sequence[str]) -> dict[str, int]:
    """Return standard lead name -> row of the signal, for the leads among the twelve."""
    standard = [canonical_lead(name) for name in leads]
    return {name: row for row, name in enumerate(standard) if name is not None}


def check_signal_shape(signal: NDArray[np.floating], leads: Sequence[str]) -> None:
    """Raise ValueError unless a signal has a row for each lead and a sample."""
    if signal.ndim != 2 or len(signal) != len(leads) or not signal.size:
        raise ValueError(
            f"signal has shape {signal.shape}: expected ({len(leads)}, n_samples), "
            "a row for each lead"
        )


def centre_leads(
    signal: ArrayLike, lead_present: Sequence[bool] | NDArray[np.bool_] | None = None
) -> Float64Array:
    """Return each lead about its median, since paper has no absolute zero.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), in mV.
    lead_present
        Shape (n_leads,); leads that are False count as missing.

    Returns
    -------
    ndarray
        Shape (n_leads, n_samples), in mV, NaN where a sample is missing or not finite.
    """
    millivolts = np.asarray(signal, dtype=np.float64)
    is_known = np.isfinite(millivolts)
    if lead_present is not None:
        is_known &= np.asarray(lead_present, dtype=bool)[:, None]
    medians = np.zeros(len(millivolts))
    for row, known in enumerate(is_known):
        if known.any():
            medians[row] = np.median(millivolts[row, known])
    return np.where(is_known, millivolts - medians[:, None], np.nan)


def name_height(samples_mm: Float64Array, max_reach_mm: float) -> float:
    """Return the height above the baseline at which a lead's name clears the samples below it.

    Parameters
    ----------
    samples_mm
        Samples below the name, in mm from the baseline; NaN where one is missing.
    max_reach_mm
        Highest that the top of the name may lie above the baseline.
    """
    highest = float(samples_mm[np.isfinite(samples_mm)].max(initial=_MIN_NAME_MM))
    return min(highest + _NAME_LIFT_MM, max_reach_mm - NAME_HEIGHT_MM)


def whole_boxes(length: float) -> float:
    """Return a length in mm, rounded up to whole large boxes."""
    return math.ceil(round(length / BOX_MM, 6)) * BOX_MM
