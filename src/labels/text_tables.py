"""Small tables as text: reading those of others, and cells that are safe in a spreadsheet."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.utils import atomic_path

if TYPE_CHECKING:
    import pandas as pd


LIST_SEPARATOR = ";"

_DELIMITERS = ",;\t|"
_EXPORT = "open it in a spreadsheet and export the sheet as 'CSV UTF-8'"
# First bytes of files that users take for tables of text -> what they are, and what to do.
_NOT_TEXT = {
    b"PK\x03\x04": ("is an Excel workbook (.xlsx, .ods) or another zip archive", _EXPORT),
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook (.xls)", _EXPORT),
    b"\x1f\x8b": ("is compressed with gzip", "unpack it first"),
    b"PAR1": ("is a Parquet file", "save it with pandas' to_csv"),
    b"ARROW1": ("is a Feather file", "save it with pandas' to_csv"),
    b"\x89HDF": ("is an HDF5 file", "save its labels with pandas' to_csv"),
    b"SQLite": ("is an SQLite database", "export the table of labels as CSV"),
    b"%PDF": ("is a PDF document", "save the table as CSV"),
}
# The start of a formula, and of the text that `safe_cell` makes from one.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_RISKY = frozenset("=+-@\t\r\n'")  # first characters that `_FORMULA` matches


# Cells --------------------------------------------------------------------------------------------


def safe_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs as a formula.

    A text that begins like a formula gets an apostrophe in front; numbers stay as they are.
    `plain_cell` removes the apostrophe. The rule follows OWASP on CSV injection.
    """
    if text[:1] not in _RISKY or not _FORMULA.match(text) or _is_number(text):
        return text
    return f"'{text}"


def plain_cell(text: str) -> str:
    """Return the text of a cell that `safe_cell` wrote."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def join_list(values: Iterable[str]) -> str:
    """Join labels or flags for a CSV cell."""
    return LIST_SEPARATOR.join(values)


def split_list(cell: str) -> tuple[str, ...]:
    """Split a CSV cell of labels or flags, without blanks and repeats."""
    parts = (item.strip() for item in cell.split(LIST_SEPARATOR))
    return tuple(dict.fromkeys(part for part in parts if part))


def is_plain_name(dataset: str) -> bool:
    """Return whether a dataset's name is safe in a record key, and as a folder on every system."""
    return (
        bool(dataset)
        and dataset.strip(". ") == dataset
        and "__" not in dataset
        and not re.search(r'[/\\:*?"<>|\x00-\x1f]', dataset)
    )


# Data frames of texts -----------------------------------------------------------------------------


def map_cells(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Apply `safe_cell` or `plain_cell` to a table of texts, in the columns that may need it."""
    changed = frame.copy(deep=False)
    for name in frame:
        cells = frame[name].tolist()
        if any(cell[:1] in _RISKY for cell in cells):
            changed[name] = [change(cell) for cell in cells]
    return changed


def save_frame(
    frame: pd.DataFrame, path: Path, errors: Literal["strict", "backslashreplace"] = "strict"
) -> None:
    """Write a table of texts as CSV, atomically and safe to open in a spreadsheet.

    `errors` decides about characters that UTF-8 cannot encode, as in `open`.
    """
    safe = map_cells(frame, safe_cell)
    with atomic_path(path) as temporary:
        safe.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", errors=errors)


def zip_cells(*columns: pd.Series[Any]) -> Iterator[tuple[Any, ...]]:
    """Iterate over the rows of some columns.

    The columns become lists first: iterating over a column of texts takes ten times as long.
    """
    return zip(*(column.tolist() for column in columns), strict=True)


# Tables of others ---------------------------------------------------------------------------------


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
    names
        Column names as the table writes them, in the order of `header`.
    """

    header: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]
    names: tuple[str, ...] = ()


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 if it begins with that byte order mark.

    Raises
    ------
    ValueError
        If it cannot be read, is a workbook or another file that is no text, or is in another
        encoding.
    """
    try:
        raw = path.read_bytes()
        for start, (kind, remedy) in _NOT_TEXT.items():
            if raw.startswith(start):
                raise ValueError(f"{path}: {kind}, expected a CSV table: {remedy}")
        is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}): expected a table of text"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 at byte {error.start}: save the table in that encoding, in a "
            "spreadsheet as 'CSV UTF-8'"
        ) from None


def find_delimiter(header: str) -> str:
    """Return the most frequent of comma, semicolon, tab and bar in the first line of a table."""
    return max(_DELIMITERS, key=header.count)


def find_repeated(names: Iterable[str]) -> list[str]:
    """Return the column names that stand more than once; nameless columns do not count."""
    return [name for name, count in Counter(names).items() if name and count > 1]


def read_table(path: Path, required: Iterable[str] = ()) -> TextTable:
    """Read a table with a header, whatever its encoding mark, delimiter and quotes.

    The delimiter is a comma, semicolon, tab or bar, whichever is most frequent in the header.

    Raises
    ------
    ValueError
        If it cannot be read, a column of `required` is missing, a column is repeated, or a row is
        longer than the header.
    """
    text = read_text(path)
    delimiter = find_delimiter(text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [[cell.strip() for cell in line] for line in reader]
    except csv.Error as error:
        raise ValueError(f"{path}: not a table ({error}, line {reader.line_num})") from None
    names = tuple(lines[0]) if lines else ()
    header = tuple(name.lower() for name in names)
    _check_header(path, header, required)
    rows: list[dict[str, str]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        if any(line[len(header) :]):
            raise ValueError(
                f"{path}: row {number} has more cells than the header: put quotes round a "
                f"cell that holds {delimiter!r}"
            )
        rows.append(dict.fromkeys(header, "") | dict(zip(header, line, strict=False)))
        numbers.append(number)
    return TextTable(header, tuple(rows), tuple(numbers), names)


def _check_header(path: Path, header: tuple[str, ...], required: Iterable[str]) -> None:
    """Raise a ValueError unless the header has each required column, and each column once."""
    present = set(header)
    if missing := [name for name in required if name.lower() not in present]:
        raise ValueError(
            f"{path}: columns {', '.join(missing)} are missing: found {', '.join(header) or 'none'}"
        )
    if repeated := find_repeated(header):
        raise ValueError(
            f"{path}: columns {', '.join(repeated)} are repeated in the header: expected each "
            "name once"
        )
