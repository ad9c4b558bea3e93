"""The ages of women and men as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.plots.canvas import (
    COLUMN_MM,
    GREY,
    PALETTE,
    TICK_PT,
    Style,
    mark_empty,
    new_figure,
    style_axes,
)

_BAND_YEARS = 5
_GROUPS = (
    ("women", "female", PALETTE[1]),
    ("men", "male", PALETTE[0]),
    ("sex unknown", None, GREY),
)


def plot_ages(ages: Sequence[float | None], sexes: Sequence[str | None]) -> Figure:
    """Draw the number of records by age in bands of five years, women and men beside each other.

    Parameters
    ----------
    ages
        Years, None where unknown; a NaN counts as unknown too.
    sexes
        ``female``, ``male`` or None, as many.

    Raises
    ------
    ValueError
        If there are not as many ages as sexes.
    """
    years = np.array([np.nan if age is None else age for age in ages], dtype=float)
    if len(years) != len(sexes):
        raise ValueError(
            f"{len(years)} ages and {len(sexes)} sexes: expected one of each per record"
        )
    figure = new_figure(COLUMN_MM, 62)
    axes = style_axes(figure.subplots(), grid="y")
    known = np.isfinite(years)
    if not known.any():
        mark_empty(axes, "no ages known")
        return figure

    # A group without a record gets no entry in the legend, and no empty bars between the others
    samples, colors, labels = [], [], []
    for name, sex, color in _GROUPS:
        members = known & np.array([other == sex for other in sexes])
        if members.any():
            samples.append(years[members])
            colors.append(color)
            labels.append(f"{name} ({int(members.sum()):,})")
    # Bands begin at multiples of five, so that ages of several collections can be compared
    low = _BAND_YEARS * math.floor(years[known].min() / _BAND_YEARS)
    high = _BAND_YEARS * math.floor(years[known].max() / _BAND_YEARS) + _BAND_YEARS
    bands = np.arange(low, high + 1, _BAND_YEARS).tolist()
    axes.hist(samples, bins=bands, color=colors, label=labels)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="Age in years", ylabel="Records", xlim=(low, high))
    style: Style = {"fontsize": TICK_PT, "frameon": False}
    figure.legend(loc="outside upper right", ncols=3, **style)
    return figure
