"""What a page is made of: sections of tables, figures, facts and notes, without a word of HTML.

`src.report_page.page` turns them into HTML and escapes every text on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

NOTHING = "\N{EN DASH}"

Interval = Sequence[float] | None


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes
    ----------
    text
        As shown.
    order
        What the column is sorted by: a number, or None for what comes last; texts are sorted by
        themselves.
    detail
        Smaller, after the text.
    bar
        A share from 0 to 1 drawn behind the text.
    """

    text: str
    order: float | None = None
    detail: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells below named columns; `folded` tables show their caption until they are
    opened.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers, and stand to the right."""
        return [
            any(row[place].order is not None for row in self.rows)
            for place in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Picture:
    """A figure as ``<svg>`` text that is known to be safe; `plain` ones keep their white paper in a
    dark page.
    """

    kind: ClassVar[str] = "picture"
    svg: str
    caption: str
    width_mm: float
    plain: bool = False


@dataclass(frozen=True)
class Pictures:
    """Figures beside each other, where there is room."""

    kind: ClassVar[str] = "pictures"
    items: Sequence[Picture]


@dataclass(frozen=True)
class Facts:
    """Names with their values; `large` ones are the first that a reader looks for."""

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
    """A record of the gallery: its drawing as safe ``<svg>`` text, and its place in the browser."""

    key: str
    title: str
    note: str
    svg: str
    place: int


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


Block = Table | Pictures | Facts | Note | Heading | Gallery | Browser


@dataclass(frozen=True)
class Section:
    """A section of the page; one without blocks is left out."""

    ident: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


# Cells --------------------------------------------------------------------------------------------


def text(value: object) -> Cell:
    """Return a text, a dash where there is none."""
    return Cell(str(value)) if value not in (None, "") else Cell(NOTHING)


def whole(value: int) -> Cell:
    """Return a count."""
    return Cell(f"{value:,}", float(value))


def number(value: float | None, digits: int = 3, *, unit: str = "") -> Cell:
    """Return a number with so many digits after the point, a dash for None or NaN."""
    if value is None or math.isnan(value):
        return Cell(NOTHING)
    return Cell(f"{value:.{digits}f}{unit}", float(value))


def score(value: float | None, interval: Interval = None) -> Cell:
    """Return a score between 0 and 1 with a bar, and its interval where there is one."""
    cell = number(value)
    if cell.order is None:
        return cell
    detail = f"{interval[0]:.3f}\N{EN DASH}{interval[1]:.3f}" if interval else ""
    return Cell(cell.text, cell.order, detail, min(max(cell.order, 0.0), 1.0))


def share(part: int, of: int, *, with_bar: bool = False) -> Cell:
    """Return a share in percent, a dash where there is no whole."""
    if not of:
        return Cell(NOTHING)
    shown = f"{part / of:.1%}" if part == 0 or part / of >= 0.001 else "<0.1%"
    return Cell(shown, part / of, bar=part / of if with_bar else None)


def join_counts(counts: Mapping[str, int], limit: int = 4) -> Cell:
    """Return names with their counts, the most frequent first."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} ({count:,})" if len(counts) > 1 else name for name, count in order[:limit]]
    rest = len(counts) - len(shown)
    return text(", ".join(shown) + (f" and {rest} more" if rest else ""))


def dense(table: Table) -> Table:
    """Return the table without columns that hold nothing."""
    keep = [
        place
        for place in range(len(table.columns))
        if any(row[place].text != NOTHING for row in table.rows)
    ]
    rows = [[row[place] for place in keep] for row in table.rows]
    return replace(table, columns=[table.columns[place] for place in keep], rows=rows)
