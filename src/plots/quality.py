"""The quality of records as figures: flags, status, rates and reasons for records left out."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from src.config import STANDARD_LEADS
from src.labels.text_tables import split_list
from src.plots.canvas import (
    BLACK,
    GREY,
    LABEL_PT,
    PAGE_MM,
    PALETTE,
    TICK_PT,
    Style,
    mark_empty,
    name_rows,
    new_figure,
    plain_text,
    style_axes,
    write_column,
)
from src.utils import Float64Array

if TYPE_CHECKING:
    import pandas as pd


_STATUS_COLORS = {
    "ok": "#0072B2",
    "missing": "#BBBBBB",
    "unreadable": "#D55E00",
    "rejected": "#E69F00",
}
_MAX_ROWS = 24
_MAX_REASON = 1000  # characters
_WHOLE = "record"
"""Column of the flags that concern no single lead."""


# All records --------------------------------------------------------------------------------------


def plot_quality_summary(manifest: pd.DataFrame) -> Figure:
    """Draw one page on a manifest: status, sampling rates, quality flags and reasons.

    Flags of several leads count once per record (``flat:V1;flat:V2`` is one ``flat``). Reasons that
    differ only in numbers or file names count together.

    Parameters
    ----------
    manifest
        Columns dataset, status, reason, fs and quality_flags (or flags), the flags separated by
        ``;``.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    columns = _manifest_columns(manifest)
    reasons = _count(map(reason_kind, columns["reason"]))
    # The upper and the lower part each make room for their own labels only
    figure = new_figure(PAGE_MM, 140 if reasons else 93)
    heights = (2, 1) if reasons else (2,)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights).flat
    upper = next(parts)
    panels = upper.subplot_mosaic([["status", "flags"], ["rates", "flags"]], height_ratios=(1.2, 1))
    _draw_status(panels["status"], columns["dataset"], columns["status"])
    rates = _count(map(_rate_name, columns["fs"]))
    _draw_bars(panels["rates"], "Sampling rates", rates, empty="no rate known")
    flags = _count(kind for cell in columns["flags"] for kind in flag_kinds(cell))
    _draw_bars(panels["flags"], "Quality flags", flags, empty="no flags", n_shown=12, min_rows=10)
    for lower in parts:
        title = "Reasons for records left out"
        _draw_bars(lower.subplots(), title, reasons, empty="", width=55)
    return figure


def flag_kinds(cell: str) -> list[str]:
    """Return the flags of one record without the leads they concern, each once."""
    return list(dict.fromkeys(flag.split(":")[0].strip() for flag in cell.split(";")))


def reason_kind(reason: str) -> str:
    """Return a reason without details of a record: parentheses, file names and numbers."""
    reason = reason[:_MAX_REASON]
    # Parentheses hold leads and numbers of one record, which would make every reason unique
    text = re.sub(r"\s*\([^)]*\)", "", reason)
    text = re.sub(r"\S*[/\\]\S*?(?=:?(?:\s|$))|\S+\.(?:hea|dat|mat)\b", "(file)", text)
    return re.sub(r"(?<![A-Za-z])\d+(?:\.\d+)?", "#", text).strip()


def _count(names: Iterable[str]) -> Counter[str]:
    """Count names, without the empty one."""
    return Counter(name for name in names if name)


def _manifest_columns(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns that the page shows as lists of text, empty where a cell is."""
    flags = "quality_flags" if "quality_flags" in manifest.columns else "flags"
    wanted = ("dataset", "status", "reason", flags, "fs")
    missing = [name for name in wanted if name not in manifest.columns]
    if missing:
        raise ValueError(
            f"the manifest has no column {', '.join(missing)}: give the table of load_manifest"
        )
    columns = {}
    for name in wanted:
        cells = manifest[name].astype(object)
        columns[name] = cells.where(cells.notna(), "").map(str).tolist()
    columns["flags"] = columns[flags]
    return columns


def _rate_name(text: str) -> str:
    try:
        return f"{float(text):g} Hz"
    except ValueError:
        return ""


def _draw_status(axes: Axes, datasets: Sequence[str], statuses: Sequence[str]) -> None:
    """Draw a bar for each dataset, divided by status."""
    style_axes(axes, grid="x", title="Records by status")
    if not datasets:
        mark_empty(axes, "no records")
        return
    names = [name for name, _ in Counter(datasets).most_common()]
    counts = Counter(zip(datasets, statuses, strict=True))
    # A manifest of a later version may have other statuses
    unknown = sorted(set(statuses) - set(_STATUS_COLORS))
    colors = {**_STATUS_COLORS, **dict.fromkeys(unknown, PALETTE[4])}
    left = np.zeros(len(names))
    for status, color in colors.items():
        if status not in statuses:
            continue
        values = np.array([counts[name, status] for name in names])
        label = f"{plain_text(status) or 'none'} ({int(values.sum()):,})"
        axes.barh(range(len(names)), values, left=left, color=color, height=0.7, label=label)
        left += values
    name_rows(axes, names)
    _scale_counts(axes, float(left.max()))
    axes.set_xlabel("Records")
    axes.set_ylim(max(len(names), 4) - 0.5, -0.5)
    # Below the label of the axis
    place: Style = {"bbox_to_anchor": (0.5, 0), "borderaxespad": 3.8, "ncols": 2}
    axes.legend(loc="upper center", fontsize=TICK_PT, frameon=False, **place)


def _draw_bars(
    axes: Axes,
    title: str,
    counts: Counter[str],
    *,
    empty: str,
    n_shown: int = 6,
    min_rows: int = 4,
    width: int = 30,
) -> None:
    """Draw the most frequent items as bars, each with its number of records."""
    style_axes(axes, grid="x", title=title)
    if not counts:
        mark_empty(axes, empty)
        return
    shown = counts.most_common(n_shown)
    n_others = len(counts) - len(shown)
    if n_others:
        # The last bar gives way to one for it and all others
        shown.pop()
        rest = counts.total() - sum(count for _, count in shown)
        shown.append((f"{n_others + 1} others", rest))
    values = [count for _, count in shown]
    axes.barh(range(len(shown)), values, color=PALETTE[0], height=0.7)
    names = ["\n".join(textwrap.wrap(name, width)[:2]) for name, _ in shown]
    name_rows(axes, names, limit=2 * width + 1)
    axes.set_ylim(max(len(shown), min_rows) - 0.5, -0.5)  # few bars stay thin
    _scale_counts(axes, 1.12 * max(values))
    style: Style = {"textcoords": "offset points", "va": "center", "fontsize": TICK_PT}
    for row, value in enumerate(values):
        axes.annotate(f"{value:,}", (value, row), (2, 0), **style)
    axes.set_xlabel("Records")


def _scale_counts(axes: Axes, largest: float) -> None:
    axes.set_xlim(0, 1.02 * max(largest, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


# One collection -----------------------------------------------------------------------------------


def plot_collection_quality(manifest: pd.DataFrame, dataset: str) -> Figure:
    """Draw one page on a collection: the share of its records with each quality flag, by lead.

    Parameters
    ----------
    manifest
        As `src.processed.manifest.load_manifest` returns it. Records that could not be read have no
        flags and do not count.
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
    by_lead, by_record = _count_flags(rows["quality_flags"].tolist())
    kinds = [kind for kind, _ in by_record.most_common(_MAX_ROWS)]
    n_flagged = int((rows["quality_flags"] != "").sum())
    figure = new_figure(PAGE_MM, 34 + 6.0 * max(len(kinds), 3))
    title = (
        f"{plain_text(dataset)}: {len(rows):,} records read, {n_flagged:,} with a flag "
        f"({n_flagged / len(rows):.1%})"
    )
    axes = style_axes(figure.subplots(), title=title)
    if not kinds:
        style: Style = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        axes.text(0.5, 0.5, "no flags", fontsize=LABEL_PT, color=GREY, **style)
        axes.set_axis_off()
        return figure
    columns = (*STANDARD_LEADS, _WHOLE)
    counts = np.array([[by_lead[kind, lead] for lead in columns] for kind in kinds])
    _draw_shares(axes, kinds, columns, counts / len(rows))
    write_column(axes, "records", [f"{by_record[kind]:,}" for kind in kinds])
    return figure


def _count_flags(cells: Sequence[str]) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """Count the records with each kind of flag in each lead, and those with each kind at all."""
    by_lead: Counter[tuple[str, str]] = Counter()
    by_record: Counter[str] = Counter()
    for cell in cells:
        # Dictionaries keep the order, and so the page is the same each time
        flags: dict[tuple[str, str], None] = {}
        for flag in split_list(cell):
            kind, _, lead = flag.partition(":")
            flags[kind, lead if lead in STANDARD_LEADS else _WHOLE] = None
        by_lead.update(flags.keys())
        by_record.update(dict.fromkeys(kind for kind, _ in flags).keys())
    return by_lead, by_record


def _draw_shares(
    axes: Axes, kinds: Sequence[str], columns: Sequence[str], shares: Float64Array
) -> None:
    """Draw shares of records, (n_kinds, n_columns), as coloured cells with percentages."""
    rows_edges, column_edges = (np.arange(size + 1) - 0.5 for size in shares.shape)
    cells: Style = {"cmap": "Blues", "edgecolors": "white", "linewidth": 0.6}
    # One scale for all collections, so that their pages can be compared. It is that of square
    # roots, in which 1 % still has a colour
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.pcolormesh(column_edges, rows_edges, shares, norm=norm, **cells)
    style: Style = {"ha": "center", "va": "center", "fontsize": TICK_PT}
    for (row, column), share in np.ndenumerate(shares):
        color = "white" if norm(share) > 0.6 else BLACK
        axes.text(column, row, _percentage(share), color=color, **style)
    axes.set_xticks(np.arange(len(columns)), columns)
    axes.set_yticks(np.arange(len(kinds)), [plain_text(kind, 26) for kind in kinds])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("Lead (numbers: % of records)")
    percent = PercentFormatter(1.0, decimals=0)
    bar = axes.figure.colorbar(image, ax=axes, format=percent, aspect=20, pad=0.08)
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_label("Share of records", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)


def _percentage(share: float) -> str:
    if not share:
        return ""
    return "<0.1" if share < 0.001 else f"{100 * share:.1f}"
