"""The content of a page without HTML: sections of tables, figures, facts and notes.

`src.plots.report.page` turns them into HTML and escapes every text on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from src.utils import EN_DASH, format_range

NOTHING = EN_DASH
"""Text of a cell without a value."""

Interval = Sequence[float] | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes
    ----------
    text
        As shown.
    order
        Number by which the column is sorted; None comes last. A column without numbers is sorted by
        its texts.
    detail
        Shown smaller, after the text.
    bar
        Length of the bar behind the text, from 0 to 1.
    """

    text: str
    order: float | None = None
    detail: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells below named columns; `folded` ones show only their caption until opened."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are aligned to the right."""
        columns = range(len(self.columns))
        return [any(row[column].order is not None for row in self.rows) for column in columns]


@dataclass(frozen=True)
class Picture:
    """A figure as safe ``<svg>`` text; `plain` ones keep their white paper in a dark page."""

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str
    width_mm: float
    plain: bool = False


@dataclass(frozen=True)
class Pictures:
    """Figures, side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    items: Sequence[Picture]


@dataclass(frozen=True)
class Facts:
    """Names with their values; `large` for the main results."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, Cell]]
    large: bool = False


@dataclass(frozen=True)
class Note:
    """A remark, or a warning."""

    kind: ClassVar[str] = "note"
    text: str
    warns: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Card:
    """A record of the gallery: its ECG as safe ``<svg>`` text, and its place in the browser.

    `shade_class` is the class that its saliency map explains, "" without one.
    """

    key: str
    title: str
    note: str
    svg: str
    place: int
    shade_class: str = ""


@dataclass(frozen=True)
class Gallery:
    """Records below each other."""

    kind: ClassVar[str] = "gallery"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Browser:
    """Records to zoom into; `records` are plain JSON values for the page's script."""

    kind: ClassVar[str] = "browser"
    records: Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class Decider:
    """Buttons and keys to decide on the records of the browser; `records` are in its order."""

    kind: ClassVar[str] = "decider"
    records: Sequence[Mapping[str, str]]


Block = Table | Pictures | Facts | Note | Heading | Gallery | Browser | Decider


@dataclass(frozen=True)
class Section:
    """A section of the page; one without blocks is left out."""

    ident: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


# Cells --------------------------------------------------------------------------------------------


def text(value: object) -> Cell:
    """Return a text, a dash for None or an empty one."""
    return Cell(NOTHING if value in (None, "") else str(value))


def whole(value: int) -> Cell:
    """Return a count."""
    return Cell(f"{value:,}", float(value))


def number(value: float | None, digits: int = 3, *, unit: str = "") -> Cell:
    """Return a number with `digits` after the point, a dash for None or NaN."""
    if value is None or math.isnan(value):
        return Cell(NOTHING)
    return Cell(f"{value:.{digits}f}{unit}", float(value))


def score(value: float | None, interval: Interval = None) -> Cell:
    """Return a score between 0 and 1 with a bar, and its interval where there is one."""
    cell = number(value)
    if cell.order is None:
        return cell
    detail = ""
    if interval:
        low, high = interval
        detail = format_range(low, high)
    return Cell(cell.text, cell.order, detail, min(max(cell.order, 0.0), 1.0))


def share(part: int, of: int, *, with_bar: bool = False) -> Cell:
    """Return a share in percent, a dash for a share of 0."""
    if not of:
        return Cell(NOTHING)
    fraction = part / of
    is_tiny = 0 < fraction < 0.001
    return Cell(
        "<0.1%" if is_tiny else f"{fraction:.1%}", fraction, bar=fraction if with_bar else None
    )


def join_counts(counts: Mapping[str, int], limit: int = 4) -> Cell:
    """Return names with their counts, the most frequent first; a single name without its count."""
    if len(counts) == 1:
        return text(next(iter(counts)))
    # Equal counts in the order of names, so that the page is the same each time
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({count:,})" for name, count in order[:limit])
    rest = len(counts) - limit
    return text(f"{shown} and {rest} more" if rest > 0 else shown)


def drop_empty_columns(table: Table) -> Table:
    """Return the table without its empty columns."""
    # By their texts: a column may hold numbers in some rows and dashes in the others
    kept = []
    for column in range(len(table.columns)):
        if any(row[column].text != NOTHING for row in table.rows):
            kept.append(column)
    rows = [[row[column] for column in kept] for row in table.rows]
    return replace(table, columns=[table.columns[column] for column in kept], rows=rows)
