"""Tables that others wrote: text with a header, whatever its encoding mark, delimiter and
quotes.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


_DELIMITERS = ",;\t|"
_FORMULA = re.compile(
    r"'*[=+\-@\t\r\n]"
)  # what a spreadsheet may run, and what `safe_cell` made of it
_RISKY = frozenset("=+-@\t\r\n'")

LIST_SEPARATOR = ";"


def safe_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet takes for a formula: behind an apostrophe if it
    begins like one.

    Numbers stay as they are. `plain_cell` takes the apostrophe away again. The rule is OWASP's on
    CSV injection.
    """
    if text[:1] not in _RISKY or not _FORMULA.match(text) or _is_number(text):
        return text
    return f"'{text}"


def plain_cell(text: str) -> str:
    """Return the text of a cell that `safe_cell` wrote."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def map_cells(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table of texts with `safe_cell` or `plain_cell` applied to the columns in which it
    may matter.
    """
    changed = frame.copy(deep=False)
    for name in frame:
        cells = frame[name].tolist()
        if any(cell[:1] in _RISKY for cell in cells):
            changed[name] = [change(cell) for cell in cells]
    return changed


def zip_cells(*columns: pd.Series[Any]) -> Iterator[tuple[Any, ...]]:
    """Go through columns of a table side by side, as lists: a column of texts itself takes ten
    times as long.
    """
    return zip(*(column.tolist() for column in columns), strict=True)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class TextTable:
    """A table as text.

    Attributes
    ----------
    header
        Column names in lower case.
    rows
        Column name -> cell, stripped, for every row but the blank ones.
    numbers
        The number of each row, where the header is row 1.
    """

    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 where it begins with that mark.

    Raises
    ------
    ValueError
        If it cannot be read or is in another encoding.
    """
    try:
        raw = path.read_bytes()
        is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): expected a table of text"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 at byte {error.start}: save the table in that encoding"
        ) from None


def read_table(path: Path, required: Iterable[str] = ()) -> TextTable:
    """Read a table with a header; a comma, semicolon, tab or bar separates its cells, whichever the
    header has most of.

    Raises
    ------
    ValueError
        If it cannot be read, a column of `required` is missing or stands twice, or a row is longer
        than the header.
    """
    text = read_text(path)
    delimiter = max(_DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [[cell.strip() for cell in line] for line in reader]
    except csv.Error as error:
        raise ValueError(f"{path}: not a table ({error}, line {reader.line_num})") from None
    header = tuple(name.lower() for name in lines[0]) if lines else ()
    if missing := [name for name in required if name.lower() not in header]:
        raise ValueError(
            f"{path}: columns {', '.join(missing)} are missing: found {', '.join(header) or 'none'}"
        )
    if twice := [name for name in required if header.count(name.lower()) > 1]:
        raise ValueError(
            f"{path}: columns {', '.join(twice)} stand twice in the header: expected each name once"
        )
    filled = [(number, line) for number, line in enumerate(lines[1:], start=2) if any(line)]
    if long := [number for number, line in filled if any(line[len(header) :])]:
        raise ValueError(
            f"{path}: row {long[0]} has more cells than the header: put quotes round a "
            f"cell that holds {delimiter!r}"
        )
    rows = tuple(
        dict.fromkeys(header, "") | dict(zip(header, line, strict=False)) for _, line in filled
    )
    return TextTable(header, rows, tuple(number for number, _ in filled))


def is_plain_name(dataset: str) -> bool:
    """Tell whether a dataset's name can stand in a key, and alone as a folder's name on every
    system.
    """
    return (
        bool(dataset)
        and dataset.strip(". ") == dataset
        and "__" not in dataset
        and not re.search(r'[/\\:*?"<>|\x00-\x1f]', dataset)
    )


def join_list(values: Iterable[str]) -> str:
    """Join labels or flags for a CSV cell."""
    return LIST_SEPARATOR.join(values)


def split_list(cell: str) -> tuple[str, ...]:
    """Split a CSV cell of labels or flags; blanks and repeats are dropped."""
    return tuple(
        dict.fromkeys(
            part for part in (item.strip() for item in cell.split(LIST_SEPARATOR)) if part
        )
    )
