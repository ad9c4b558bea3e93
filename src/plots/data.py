"""Figures of the data: how classes, sources and quality are spread. `src.plots` offers them too."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from src.config import STANDARD_LEADS
from src.labels.text_tables import split_list
from src.plots.canvas import (
    BLACK,
    COLUMN_MM,
    GREY,
    LABEL_PT,
    LIGHT_GREY,
    PAGE_MM,
    PALETTE,
    TICK_PT,
    name_rows,
    new_figure,
    plain_text,
    style_axes,
    write_column,
)
from src.utils import Float64Array

if TYPE_CHECKING:
    import pandas as pd


_MARKERS = "os^Dv"
_CHARACTER_MM = 1.35  # of a name at TICK_PT, on average
_STATUS_COLORS = {
    "ok": "#0072B2",
    "missing": "#BBBBBB",
    "unreadable": "#D55E00",
    "rejected": "#E69F00",
}

_MAX_ROWS = 24
_WHOLE = "record"  # column of flags that concern no single lead


# Balance ------------------------------------------------------------------------------------------


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
    figure = new_figure(COLUMN_MM, 22 + _rows_mm(len(names)))
    axes = style_axes(figure.subplots(), grid="x")
    largest = [max(of_class.get(name, 0) for of_class in counts.values()) for name in names]
    axes.hlines(range(len(names)), 0, largest, colors=LIGHT_GREY, linewidth=1)
    for number, (split, of_class) in enumerate(counts.items()):
        aside = 0.22 * (
            number - (len(counts) - 1) / 2
        )  # markers stay apart where numbers are equal
        style: dict[str, Any] = {
            "marker": _MARKERS[number % 5],
            "color": PALETTE[number % len(PALETTE)],
        }
        style |= {
            "markersize": 3,
            "linestyle": "",
            "clip_on": False,
            "zorder": 3,
            "label": plain_text(split),
        }
        axes.plot([of_class.get(name, 0) for name in names], np.arange(len(names)) + aside, **style)
    name_rows(axes, names, limit=26)
    _count_axis(axes, max(largest))
    write_column(axes, "total", [f"{totals[name]:,}" for name in names])
    style = {"ncols": len(counts), "fontsize": TICK_PT, "frameon": False, "handletextpad": 0.1}
    figure.legend(loc="outside upper right", **style)
    return figure


def _rows_mm(n_rows: int) -> float:
    """Return the height of rows of text; many stand closer, so that the 71 classes of PTB-XL fit a
    page.
    """
    return n_rows * (4.2 if n_rows <= 40 else 3.6)


def _totals(counts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for of_class in counts.values():
        totals.update({name: int(count) for name, count in of_class.items()})
    if not totals:
        raise ValueError(
            f"counts has no class in {list(counts) or 'it'}: give at least one split or "
            "source with one class"
        )
    return totals


def _count_axis(axes: Axes, largest: int) -> None:
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


def plot_source_balance(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw which source each class comes from: the numbers of records, coloured by their share of
    the class.

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
    names, sources = [name for name, _ in totals.most_common()], list(counts)
    table = np.array(
        [[counts[source].get(name, 0) for source in sources] for name in names], dtype=float
    )
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    width = min(max(COLUMN_MM, 60.0 + 13 * len(sources)), PAGE_MM)
    figure = new_figure(width, 30 + _rows_mm(max(len(names), 5)))
    axes = style_axes(figure.subplots())
    image = axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    for (row, column), count in np.ndenumerate(table):
        color = "white" if share[row, column] > 0.6 else BLACK if count else GREY
        middle: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": TICK_PT,
            "color": color,
        }
        axes.text(column + 0.5, row + 0.5, f"{count:,.0f}", **middle)
    axes.set_yticks(np.arange(len(names)) + 0.5, [plain_text(name, 30) for name in names])
    turned: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    if (
        len(sources) * max(map(len, sources)) * _CHARACTER_MM < width - 42
    ):  # the names of classes and the scale take the rest
        turned = {}
    axes.set_xticks(
        np.arange(len(sources)) + 0.5, [plain_text(source, 24) for source in sources], **turned
    )
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    percent = PercentFormatter(1.0, decimals=0)
    shrink = min(1.0, 40 / (_rows_mm(len(names)) + 8))
    bar = figure.colorbar(image, ax=axes, format=percent, aspect=30, shrink=shrink)
    bar.set_label("Share of the class's records", fontsize=LABEL_PT)
    bar.ax.tick_params(labelsize=TICK_PT)
    return figure


def plot_ages(ages: Sequence[float | None], sexes: Sequence[str | None]) -> Figure:
    """Draw how many records there are by age in bands of five years, women and men beside each
    other.

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
        _say_empty(axes, "no ages known")
        return figure
    low, high = 5 * math.floor(years[known].min() / 5), 5 * math.floor(years[known].max() / 5) + 5
    groups = [
        ("women", "female", PALETTE[1]),
        ("men", "male", PALETTE[0]),
        ("sex unknown", None, GREY),
    ]
    members = [
        (name, np.array([known[i] and sex == wanted for i, sex in enumerate(sexes)]), color)
        for name, wanted, color in groups
    ]
    drawn = [(name, rows, color) for name, rows, color in members if rows.any()]
    axes.hist(
        [years[rows] for _, rows, _ in drawn],
        bins=np.arange(low, high + 1, 5).tolist(),
        color=[color for *_, color in drawn],
        label=[f"{name} ({int(rows.sum()):,})" for name, rows, _ in drawn],
    )
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set(xlabel="Age in years", ylabel="Records", xlim=(low, high))
    place: dict[str, Any] = {
        "loc": "outside upper right",
        "ncols": 3,
        "fontsize": TICK_PT,
        "frameon": False,
    }
    figure.legend(**place)
    return figure


# Quality ------------------------------------------------------------------------------------------


def plot_quality_summary(manifest: pd.DataFrame) -> Figure:
    """Draw one page on what became of the records: status, sampling rates, quality flags and
    reasons.

    Flags of several leads count once per record (``flat:V1;flat:V2`` is one ``flat``), and reasons
    that differ only in numbers or file names count together.

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
    figure = new_figure(PAGE_MM, 140 if reasons else 93)
    # Two parts, each with room for its own labels only
    upper, *lower = figure.subfigures(
        1 + bool(reasons), 1, squeeze=False, height_ratios=(2, 1)[: 1 + bool(reasons)]
    ).flat
    panels = upper.subplot_mosaic([["status", "flags"], ["rates", "flags"]], height_ratios=(1.2, 1))
    _draw_status(panels["status"], columns["dataset"], columns["status"])
    rates = _count(map(_rate_name, columns["fs"]))
    _draw_bars(panels["rates"], "Sampling rates", rates, empty="no rate known")
    flags = _count(kind for cell in columns["flags"] for kind in flag_kinds(cell))
    _draw_bars(panels["flags"], "Quality flags", flags, empty="no flags", n_shown=12, min_rows=10)
    for part in lower:
        _draw_bars(part.subplots(), "Reasons for records left out", reasons, empty="", width=55)
    return figure


def _count(names: Iterable[str]) -> Counter[str]:
    """Count names, without the empty one."""
    return Counter(name for name in names if name)


def _manifest_columns(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns that the page shows as lists of text, empty where a cell is."""
    flags = "quality_flags" if "quality_flags" in manifest.columns else "flags"
    sources = {
        "dataset": "dataset",
        "status": "status",
        "reason": "reason",
        "flags": flags,
        "fs": "fs",
    }
    missing = [name for name in sources.values() if name not in manifest.columns]
    if missing:
        raise ValueError(
            f"the manifest has no column {', '.join(missing)}: give what load_manifest returns"
        )
    texts = {name: manifest[column].astype(object) for name, column in sources.items()}
    return {name: text.where(text.notna(), "").map(str).tolist() for name, text in texts.items()}


def _draw_status(axes: Axes, datasets: Sequence[str], statuses: Sequence[str]) -> None:
    style_axes(axes, grid="x", title="Records by status")
    if not datasets:
        _say_empty(axes, "no records")
        return
    names = [name for name, _ in Counter(datasets).most_common()]
    pairs = Counter(zip(datasets, statuses, strict=True))
    extra = sorted(set(statuses) - set(_STATUS_COLORS))
    colors = {**_STATUS_COLORS, **dict.fromkeys(extra, PALETTE[4])}
    left = np.zeros(len(names))
    for status in [name for name in colors if name in set(statuses)]:
        values = np.array([pairs[name, status] for name in names])
        label = f"{plain_text(status) or 'none'} ({int(values.sum()):,})"
        axes.barh(
            range(len(names)), values, left=left, color=colors[status], height=0.7, label=label
        )
        left += values
    name_rows(axes, names, limit=24)
    _linear_counts(axes, float(left.max()))
    axes.set_xlabel("Records")
    axes.set_ylim(max(len(names), 4) - 0.5, -0.5)
    below_label: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0),
        "borderaxespad": 3.8,
    }
    axes.legend(fontsize=TICK_PT, frameon=False, ncols=2, **below_label)


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
        _say_empty(axes, empty)
        return
    shown = counts.most_common(n_shown)
    rest = len(counts) - len(shown)
    if rest:
        shown = [
            *shown[:-1],
            (f"{rest + 1} others", sum(counts.values()) - sum(n for _, n in shown[:-1])),
        ]
    values = [count for _, count in shown]
    axes.barh(range(len(shown)), values, color=PALETTE[0], height=0.7)
    name_rows(
        axes, ["\n".join(textwrap.wrap(name, width)[:2]) for name, _ in shown], limit=2 * width + 1
    )
    axes.set_ylim(max(len(shown), min_rows) - 0.5, -0.5)  # few bars stay thin
    _linear_counts(axes, 1.12 * max(values))
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": TICK_PT}
    for row, value in enumerate(values):
        axes.annotate(f"{value:,}", (value, row), (2, 0), **style)
    axes.set_xlabel("Records")


def _linear_counts(axes: Axes, largest: float) -> None:
    axes.set_xlim(0, 1.02 * max(largest, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _say_empty(axes: Axes, text: str) -> None:
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, text, fontsize=LABEL_PT, color=GREY, **place)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _rate_name(text: str) -> str:
    try:
        return f"{float(text):g} Hz"
    except ValueError:
        return ""


def flag_kinds(cell: str) -> list[str]:
    """Return the flags of one record without the leads they concern, each once."""
    return list(dict.fromkeys(flag.split(":")[0].strip() for flag in cell.split(";")))


def reason_kind(reason: str) -> str:
    """Return a reason without what differs by record: remarks in parentheses, file names and
    numbers.
    """
    text = re.sub(r"\s*\([^)]*\)", "", reason)
    text = re.sub(r"\S*[/\\]\S*?(?=:?(?:\s|$))|\S+\.(?:hea|dat|mat)\b", "(file)", text)
    return re.sub(r"(?<![A-Za-z])\d+(?:\.\d+)?", "#", text).strip()


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


def _draw_shares(axes: Axes, kinds: list[str], shares: Float64Array) -> None:
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
