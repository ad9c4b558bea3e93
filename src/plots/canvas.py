"""What all figures share: a Figure that needs no pyplot, paper sizes in mm, the palette, and
saving.

Figures keep away from matplotlib's global state, so they can be drawn in threads, notebooks and
jobs without a display.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from src.utils import atomic_path

logger = logging.getLogger(__name__)


MM_PER_INCH = 25.4
COLUMN_MM = 89.0
"""Width of one column of a journal page; two columns with their gap are `PAGE_MM`."""
PAGE_MM = 183.0
TITLE_PT, LABEL_PT, TICK_PT = 9.0, 8.0, 7.0
_PAD_MM = 1.5
SAVE_SUFFIXES = (".png", ".svg", ".pdf")

BLACK, GREY, LIGHT_GREY = "#000000", "#767676", "#d9d9d9"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Okabe and Ito's colours for colour-blind readers, without the yellow, too pale for lines on
white.
"""

# Dates and versions left out: the same figure gives the same bytes
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

_SIZE: dict[Any, Any] = {"savefig.bbox": None}  # that of the figure, whatever a notebook sets
SAVE_SETTINGS: dict[str, dict[Any, Any]] = {
    ".png": _SIZE,
    ".svg": {**_SIZE, "svg.hashsalt": "figure"},  # fixes the ids of the elements
    ".pdf": {**_SIZE, "pdf.fonttype": 42},  # text that an editor can change, as journals ask
}
"""Settings of matplotlib while a figure is saved, by suffix."""

BLUE, ORANGE = PALETTE[0], PALETTE[1]


class PageFigure(Figure):
    """A Figure that shows itself as the value of a notebook cell, with or without ``%matplotlib
    inline``.
    """

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


def new_figure(
    width_mm: float,
    height_mm: float,
    *,
    dpi: float = 150,
    layout: Literal["constrained", "compressed"] | None = "constrained",
) -> PageFigure:
    """Return an empty white figure of the given size on paper."""
    size = (width_mm / MM_PER_INCH, height_mm / MM_PER_INCH)
    figure = PageFigure(figsize=size, dpi=dpi, layout=layout, facecolor="white")
    if layout is None:
        figure.set_layout_engine("none")  # whatever the user's rcParams say
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=_PAD_MM / MM_PER_INCH, h_pad=_PAD_MM / MM_PER_INCH)
    return figure


def style_axes(axes: Axes, *, grid: str | None = None, title: str | None = None) -> Axes:
    """Set a panel's type sizes, drop its upper and right frame and lay a pale `grid` (x, y or
    both).
    """
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
        axes.set_title(title, fontsize=TITLE_PT, loc="left")
    return axes


def plain_text(text: object, limit: int = 40) -> str:
    """Return a name fit for a label: shortened with an ellipsis, its ``$`` not read as
    mathematics.
    """
    name = str(text)
    name = name if len(name) <= limit else name[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return name.replace("$", r"\$")


def name_rows(axes: Axes, names: Sequence[str], limit: int = 40) -> None:
    """Label the y axis with one name per row, the first at the top, and leave half a row above and
    below.
    """
    axes.set_yticks(range(len(names)), [plain_text(name, limit) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def write_column(axes: Axes, title: str, texts: Sequence[str]) -> None:
    """Write a column of numbers to the right of a panel, one per row, under a title in grey."""
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": TICK_PT}
    for row, text in enumerate(texts):
        axes.annotate(
            text, (1, row), (32, 0), xycoords=axes.get_yaxis_transform(), va="center", **style
        )
    axes.annotate(
        title, (1, 1), (32, 2), xycoords="axes fraction", va="bottom", color=GREY, **style
    )


def save_figure(figure: Figure, path: str | Path, dpi: float | None = None) -> Path:
    """Save a figure, making its folder; a reader sees the old file or the new one, never a part.

    The file holds no date and no version, so that equal figures give equal bytes. The page keeps
    its size in mm.

    Parameters
    ----------
    figure
        Any matplotlib figure.
    path
        Ends in .png, .svg or .pdf, which sets the format.
    dpi
        Pixels per inch of a .png, and of the images within the others; by default those of the
        figure.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the suffix is another one or `dpi` is not positive.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SAVE_SUFFIXES:
        raise ValueError(
            f"{path}: a figure cannot be saved as {suffix or 'a file without suffix'!r}: "
            f"end the name in one of {', '.join(SAVE_SUFFIXES)}"
        )
    dpi = figure.dpi if dpi is None else dpi
    if not dpi > 0:
        raise ValueError(f"dpi is {dpi}: expected a positive number of pixels per inch")
    with matplotlib.rc_context(SAVE_SETTINGS[suffix]), atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    logger.debug("wrote %s", path)
    return path


def as_number(value: float | None) -> float:
    """Return a number as a float, NaN for None, which is not drawn."""
    return math.nan if value is None else float(value)
