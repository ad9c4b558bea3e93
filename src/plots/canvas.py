"""Parts shared by all figures: the Figure class, sizes in mm, the palette, and saving.

Figures do not touch pyplot or matplotlib's global state, so they can be drawn in threads, notebooks
and jobs without a display. Sizes are those of a journal column or page.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from src.utils import atomic_path, printable, printable_lines

logger = logging.getLogger(__name__)

Style = dict[str, Any]
"""Keyword arguments of matplotlib."""

MM_PER_INCH = 25.4
COLUMN_MM = 89.0
"""Width of one column of a journal page; two columns with their gap are `PAGE_MM`."""
PAGE_MM = 183.0
TITLE_PT, LABEL_PT, TICK_PT = 9.0, 8.0, 7.0
"""Type sizes; journals ask for 7 pt at least."""
_PAD_MM = 1.5
NAME_LIMIT = 36
"""Characters of a class or a collection that a figure shows; most names have 25 or fewer."""
_USUAL_NAME_MM = 20.0
SAVE_SUFFIXES = (".png", ".svg", ".pdf")

BLACK, GREY, LIGHT_GREY = "#000000", "#767676", "#d9d9d9"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's colours for colour-blind readers, without yellow: too pale for lines on white."""
BLUE, ORANGE = PALETTE[0], PALETTE[1]

# Without dates and versions, the same figure gives the same bytes
_METADATA: dict[str, Style] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

# A saved figure keeps its size, whatever a notebook sets
_SIZE: dict[Any, Any] = {"savefig.bbox": None}
SAVE_SETTINGS: dict[str, dict[Any, Any]] = {
    ".png": _SIZE,
    ".svg": {**_SIZE, "svg.hashsalt": "figure"},  # fixes the ids of the elements
    ".pdf": {**_SIZE, "pdf.fonttype": 42},  # text that an editor can change, as journals ask
}
"""Settings of matplotlib while a figure is saved, by suffix."""


class PageFigure(Figure):
    """A Figure that notebooks display as the value of a cell, without ``%matplotlib inline``."""

    def _repr_png_(self) -> bytes:
        # matplotlib comes with it; figures that are not displayed need not load it.
        from PIL import Image

        full, small = io.BytesIO(), io.BytesIO()
        self.savefig(full, format="png")
        # A palette of 256 colours looks the same, and notebooks take a third of the space.
        with Image.open(full) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png")
        return small.getvalue()


def new_figure(
    width_mm: float,
    height_mm: float,
    *,
    dpi: float = 150,
    layout: Literal["constrained", "compressed"] | None = "constrained",
) -> PageFigure:
    """Return an empty white figure of a size on paper, for one of matplotlib's layouts."""
    size = (width_mm / MM_PER_INCH, height_mm / MM_PER_INCH)
    figure = PageFigure(figsize=size, dpi=dpi, layout=layout, facecolor="white")
    if layout is None:
        figure.set_layout_engine("none")  # whatever the user's rcParams say
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=_PAD_MM / MM_PER_INCH, h_pad=_PAD_MM / MM_PER_INCH)
    return figure


def rows_page_mm(names: Sequence[str], width_mm: float = COLUMN_MM) -> float:
    """Return the width of a page with one name per row, whose panel keeps its size.

    A column has room for names of a usual length; longer ones widen the page up to `PAGE_MM`,
    instead of squeezing the panel.
    """
    longest = longest_mm(plain_text(name, NAME_LIMIT) for name in names)
    return min(width_mm + max(0.0, longest - _USUAL_NAME_MM), PAGE_MM)


def style_axes(axes: Axes, *, grid: str | None = None, title: str | None = None) -> Axes:
    """Style a panel: type sizes, a frame left and below only, a pale `grid` (x, y or both)."""
    axes.tick_params(labelsize=TICK_PT, length=2.5, width=0.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(LABEL_PT)
        axis.get_offset_text().set_fontsize(TICK_PT)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
    if grid is not None:
        axes.grid(axis=grid, color=LIGHT_GREY, linewidth=0.5)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    if title is not None:
        axes.set_title(printable_lines(title), fontsize=TITLE_PT, loc="left")
    return axes


# Text ---------------------------------------------------------------------------------------------


def plain_text(text: object, limit: int = 40) -> str:
    """Return a text for a label: shortened with an ellipsis, and ``$`` not read as mathematics.

    Marks that steer or hide are escaped; see `src.utils.printable`.
    The ellipsis stands in the middle: names of diagnoses often differ only in their last word.
    """
    name = printable(str(text), None)
    if len(name) > limit:
        n_last = (limit - 1) // 2
        first, last = name[: limit - 1 - n_last], name[len(name) - n_last :]
        name = f"{first}\N{HORIZONTAL ELLIPSIS}{last}"
    return name.replace("$", r"\$")


@lru_cache(maxsize=10_000)
def text_mm(text: str, size_pt: float, *, bold: bool = False) -> float:
    """Return the width of a line of text on paper, in mm."""
    font = FontProperties(size=size_pt, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        # A letter that the font lacks is told once, where it is drawn
        warnings.simplefilter("ignore")
        width_pt, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width_pt) * MM_PER_INCH / 72


def longest_mm(texts: Iterable[str], size_pt: float = TICK_PT) -> float:
    """Return the width of the longest of several labels, in mm."""
    return max((text_mm(text.replace(r"\$", "$"), size_pt) for text in texts), default=0.0)


def wrap_text(
    text: str, width_mm: float, size_pt: float, *, bold: bool = False, max_lines: int = 4
) -> list[str]:
    """Break a text into lines of at most a width; text beyond the last line becomes an ellipsis.

    A word longer than a line is broken, since names of classes and records have no blanks.
    """
    lines = [""]
    for word in printable_lines(" ".join(text.split())).split(" "):
        rest = word
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if text_mm(joined, size_pt, bold=bold) <= width_mm:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while text_mm(rest, size_pt, bold=bold) > width_mm:
            n = max(1, int(len(rest) * width_mm / text_mm(rest, size_pt, bold=bold)))
            while n > 1 and text_mm(rest[:n], size_pt, bold=bold) > width_mm:
                n -= 1
            lines[-1], rest = rest[:n], rest[n:]
            lines.append("")
        lines[-1] = rest
    if len(lines) > max_lines:
        lines = lines[:max_lines]
        lines[-1] = f"{lines[-1][:-2].rstrip(' ,;')}\N{HORIZONTAL ELLIPSIS}"
    return [line.replace("$", r"\$") for line in lines if line]


def name_some(names: Sequence[str], n_shown: int = 6) -> str:
    """Return names separated by commas, the last of many as their number."""
    shown = [printable(name, None)[:NAME_LIMIT] for name in names[:n_shown]]
    if len(names) > n_shown:
        shown[-1] += f" and {len(names) - n_shown} more"
    return ", ".join(shown)


# Rows and panels ----------------------------------------------------------------------------------


def name_rows(axes: Axes, names: Sequence[str], limit: int = NAME_LIMIT) -> None:
    """Label the y axis with one name per row, the first at the top, and half a row of margin."""
    axes.set_yticks(range(len(names)), [plain_text(name, limit) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def write_column(axes: Axes, title: str, texts: Sequence[str]) -> None:
    """Write a column of numbers to the right of a panel, one per row, under a title in grey."""
    style: Style = {"textcoords": "offset points", "ha": "right", "fontsize": TICK_PT}
    in_rows: Style = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
    for row, text in enumerate(texts):
        axes.annotate(text, (1, row), (32, 0), **in_rows, **style)
    above: Style = {"xycoords": "axes fraction", "va": "bottom", "color": GREY}
    axes.annotate(title, (1, 1), (32, 2), **above, **style)


def mark_empty(axes: Axes, text: str) -> None:
    """Write a remark into a panel that has nothing to show, and hide its axes."""
    style: Style = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, text, fontsize=LABEL_PT, color=GREY, **style)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def save_figure(figure: Figure, path: str | Path, dpi: float | None = None) -> Path:
    """Save a figure atomically, and create its folder.

    A reader sees the old file or the new one, never a part. The file holds no date and no version,
    so that equal figures give equal bytes. The page keeps its size in mm.

    Parameters
    ----------
    figure
        Any matplotlib figure.
    path
        Ends in .png, .svg or .pdf, which sets the format.
    dpi
        Pixels per inch of a .png, and of images in the other formats; by default those of the
        figure.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the suffix is unknown or `dpi` is not positive.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SAVE_SUFFIXES:
        raise ValueError(
            f"{path}: cannot save a figure as {suffix or 'a file without suffix'!r}: "
            f"use one of {', '.join(SAVE_SUFFIXES)}"
        )
    dpi = figure.dpi if dpi is None else dpi
    if not dpi > 0:
        raise ValueError(f"dpi is {dpi}: expected a positive number of pixels per inch")
    with matplotlib.rc_context(SAVE_SETTINGS[suffix]), atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    logger.debug("wrote %s", path)
    return path


def as_number(value: object) -> float:
    """Return a number as a float, and None as NaN, which matplotlib leaves out."""
    return float(value) if isinstance(value, SupportsFloat) else math.nan
