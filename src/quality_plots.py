"""The page on the quality of one collection: which flags its records carry, and in which leads."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from src.figures import (
    BLACK,
    GREY,
    LABEL_PT,
    PAGE_MM,
    TICK_PT,
    new_figure,
    plain_text,
    style_axes,
    write_column,
)
from src.leads import STANDARD_LEADS
from src.store import split_list

if TYPE_CHECKING:
    import pandas as pd

_MAX_ROWS = 24
_WHOLE = "record"  # column of flags that concern no single lead


def plot_collection_quality(manifest: pd.DataFrame, dataset: str) -> Figure:
    """Draw one page on a collection: the share of its records with each quality flag, by lead.

    Parameters
    ----------
    manifest
        As `src.store.load_manifest` returns it; records that could not be read have no flags and do
        not count.
    dataset
        The collection.

    Raises
    ------
    ValueError
        If it has no record that was read.
    """
    rows = manifest[(manifest["dataset"] == dataset) & manifest["status"].isin(["ok", "rejected"])]
    if not len(rows):
        known = ", ".join(sorted(set(manifest["dataset"]))) or "none"
        raise ValueError(f"no record of {dataset!r} was read: the manifest has {known}")
    cells, records = _count_flags(rows["quality_flags"].tolist())
    kinds = [kind for kind, _ in records.most_common(_MAX_ROWS)]
    flagged = int((rows["quality_flags"] != "").sum())
    figure = new_figure(PAGE_MM, 34 + 6.0 * max(len(kinds), 3))
    title = (
        f"{plain_text(dataset)}: {len(rows):,} records read, {flagged:,} with a flag "
        f"({flagged / len(rows):.1%})"
    )
    axes = style_axes(figure.subplots(), title=title)
    if kinds:
        _draw_shares(
            axes,
            kinds,
            np.array([[cells[kind, lead] for lead in (*STANDARD_LEADS, _WHOLE)] for kind in kinds])
            / len(rows),
        )
        write_column(axes, "records", [f"{records[kind]:,}" for kind in kinds])
    else:
        axes.text(
            0.5,
            0.5,
            "no flags",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=LABEL_PT,
            color=GREY,
        )
        axes.set_axis_off()
    return figure


def _count_flags(flags: list[str]) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Return in how many records each kind has each lead, and in how many each kind is at all."""
    cells: Counter[tuple[str, str]] = Counter()
    records: Counter[str] = Counter()
    for cell in flags:
        found = {
            (kind, lead if lead in STANDARD_LEADS else _WHOLE)
            for kind, _, lead in (flag.partition(":") for flag in split_list(cell))
        }
        cells.update(found)
        records.update({kind for kind, _ in found})
    return cells, records


def _draw_shares(axes: Axes, kinds: list[str], shares: NDArray[np.float64]) -> None:
    top = max(0.05, float(shares.max()))  # a few flagged records stay pale
    edges = [np.arange(size + 1) - 0.5 for size in shares.shape]
    image = axes.pcolormesh(
        edges[1],
        edges[0],
        shares,
        cmap="Blues",
        vmin=0,
        vmax=top,
        edgecolors="white",
        linewidth=0.6,
    )
    for (row, column), share in np.ndenumerate(shares):
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": TICK_PT}
        text = "" if not share else "<0.1" if share < 0.001 else f"{100 * share:.1f}"
        axes.text(column, row, text, color="white" if share > 0.6 * top else BLACK, **style)
    axes.set_xticks(np.arange(shares.shape[1]), [*STANDARD_LEADS, _WHOLE])
    axes.set_yticks(np.arange(len(kinds)), [plain_text(kind, 26) for kind in kinds])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Lead (numbers: % of records)")
    bar = axes.figure.colorbar(
        image, ax=axes, format=PercentFormatter(1.0, decimals=0), aspect=20, pad=0.08
    )
    bar.set_label("Share of records", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)
