"""How records are spread over classes, splits and sources, as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from src.plots.canvas import (
    BLACK,
    COLUMN_MM,
    GREY,
    LABEL_PT,
    LIGHT_GREY,
    NAME_LIMIT,
    PAGE_MM,
    PALETTE,
    TICK_PT,
    Style,
    longest_mm,
    name_rows,
    new_figure,
    plain_text,
    rows_page_mm,
    style_axes,
    write_column,
)
from src.utils import Float64Array

_MARKERS = "os^Dv"
_SCALE_MM = 24.0  # beside the cells, with the gaps around it
_NAME_GAP_MM = 1.5  # between the names of two columns


def plot_class_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw how many records carry each class in each split, on a logarithmic axis that has a zero.

    Equal distances between the markers of a row mean equal proportions between splits, for rare and
    common classes.

    Parameters
    ----------
    counts
        Split -> class -> number of records. A class that a split does not name counts 0.

    Raises
    ------
    ValueError
        If there is no class.
    """
    totals = _totals(counts)
    names = [name for name, _ in totals.most_common()]
    figure = new_figure(rows_page_mm(names), 22 + _rows_mm(len(names)))
    axes = style_axes(figure.subplots(), grid="x")
    # The line ends at the largest split: its length is read as the size of the class
    largest = [max(of_class.get(name, 0) for of_class in counts.values()) for name in names]
    axes.hlines(range(len(names)), 0, largest, colors=LIGHT_GREY, linewidth=1)
    marks: Style = {"markersize": 3, "linestyle": "", "clip_on": False, "zorder": 3}
    for number, (split, of_class) in enumerate(counts.items()):
        # Markers stay apart where numbers are equal
        rows = np.arange(len(names)) + 0.22 * (number - (len(counts) - 1) / 2)
        axes.plot(
            [of_class.get(name, 0) for name in names],
            rows,
            marker=_MARKERS[number % len(_MARKERS)],
            color=PALETTE[number % len(PALETTE)],
            label=plain_text(split),
            **marks,
        )
    name_rows(axes, names)
    _scale_counts(axes, max(largest))
    write_column(axes, "total", [f"{totals[name]:,}" for name in names])
    style: Style = {"fontsize": TICK_PT, "frameon": False, "handletextpad": 0.1}
    figure.legend(loc="outside upper right", ncols=len(counts), **style)
    return figure


def plot_source_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw which source each class comes from: numbers of records, coloured by share of the class.

    A dark cell alone in its row is a class that a model can tell by the source instead of the
    heart.

    Parameters
    ----------
    counts
        Source -> class -> number of records.

    Raises
    ------
    ValueError
        If there is no class.
    """
    totals = _totals(counts)
    names = [name for name, _ in totals.most_common()]
    sources = list(counts)
    table = np.array(
        [[counts[source].get(name, 0) for source in sources] for name in names], dtype=float
    )
    # By class, not by source: a small source may still hold all records of a rare class
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    width = rows_page_mm(names, min(max(COLUMN_MM, 60.0 + 13 * len(sources)), PAGE_MM))
    names_mm = longest_mm(plain_text(name, NAME_LIMIT) for name in names)
    figure = new_figure(width, 30 + _rows_mm(max(len(names), 5)))
    axes = style_axes(figure.subplots())
    image = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    _write_counts(axes, table, share)
    axes.set_yticks(np.arange(len(names)) + 0.5, [plain_text(name, NAME_LIMIT) for name in names])
    _name_sources(axes, sources, width - names_mm - _SCALE_MM)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # A scale as long as 71 rows would be mostly empty
    shrink = min(1.0, 40 / (_rows_mm(len(names)) + 8))
    percent = PercentFormatter(1.0, decimals=0)
    bar = figure.colorbar(image, ax=axes, format=percent, aspect=30, shrink=shrink)
    bar.set_label("Share of the class's records", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)
    return figure


def _totals(counts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """Return the number of records of each class in all groups."""
    totals: Counter[str] = Counter()
    for of_class in counts.values():
        totals.update({name: int(count) for name, count in of_class.items()})
    if not totals:
        raise ValueError(
            f"counts has no class in {list(counts) or 'it'}: give at least one split or source "
            "with one class"
        )
    return totals


def _rows_mm(n_rows: int) -> float:
    """Return the height of rows of text; many stand closer, so that PTB-XL's 71 fit a page."""
    return n_rows * (4.2 if n_rows <= 40 else 3.6)


def _scale_counts(axes: Axes, largest: int) -> None:
    """Scale the x axis as log, but linear from 0 to 1, so that an empty class stays on the page."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    powers = [10**power for power in range(len(str(max(largest, 1))) + 1)]
    axes.set_xlim(0, max(1.6 * largest, 10))
    axes.xaxis.set_major_locator(FixedLocator([0, *powers]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if value < 1e3 else f"{value / 1e3:g}k")
    )
    axes.set_xlabel("Records")


def _write_counts(axes: Axes, table: Float64Array, share: Float64Array) -> None:
    """Write the number of records into each cell, legible on its colour."""
    style: Style = {"ha": "center", "va": "center", "fontsize": TICK_PT}
    for (row, column), count in np.ndenumerate(table):
        if share[row, column] > 0.6:
            color = "white"
        else:
            color = BLACK if count else GREY
        axes.text(column + 0.5, row + 0.5, f"{count:,.0f}", color=color, **style)


def _name_sources(axes: Axes, sources: Sequence[str], room_mm: float) -> None:
    """Name the columns, the names turned where they would touch."""
    names = [plain_text(source, NAME_LIMIT) for source in sources]
    turned: Style = {}
    if len(sources) * (longest_mm(names) + _NAME_GAP_MM) >= room_mm:
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(np.arange(len(sources)) + 0.5, names, **turned)
