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

from src.labels.ids import clean_id
from src.utils import MAX_TABLE_BYTES, atomic_path, printable, read_regular

if TYPE_CHECKING:
    import pandas as pd


LIST_SEPARATOR = ";"

_DELIMITERS = ",;\t|"
_MAX_LINE = 2**16
# Cells of a table, with those that short rows lack: the most for each byte of it, and for any.
_MAX_CELLS_PER_BYTE = 4
_MANY_CELLS = 10**6
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
# Where a spreadsheet may begin a cell: at the start, and behind each sign that some of them split
# at. A comma is none of these, because CSV puts a cell that holds one in quotes.
_BEGIN = r"(?:^|(?<=[;|\t\r\n]))"
# Quotes and blanks, which some spreadsheets pass over at the start of a cell, and the sign that
# begins a formula, also as East Asian spreadsheets write it.
_SIGN = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_PASSED = (
    " \"'\x0b\x0c\x1c-\x1f\x85\xa0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
_PASSED_OVER = f"[{_PASSED}]*"
_AHEAD = rf"(?={_PASSED_OVER}{_SIGN})"
# A cell that begins with a tab or line end counts too.
_BLANK_AHEAD = rf"(?={_PASSED_OVER}[\t\r\n])"
_FORMULA = re.compile(rf"{_BEGIN}{_AHEAD}|^{_BLANK_AHEAD}")
_SAFE_FORMULA = re.compile(rf"{_BEGIN}'{_AHEAD}|^'{_BLANK_AHEAD}")
# Both need one of these, and most cells have none.
_RISKY = re.compile(rf"{_SIGN}|[\t\r\n]")
# Whether a text may begin like a formula, and whether a part behind a separator does.
_RISKY_START = re.compile(rf"{_SIGN}|[{_PASSED}\t\r\n]")
_RISKY_PART = re.compile(rf"[;|\t\r\n]{_PASSED_OVER}{_SIGN}")


# Cells --------------------------------------------------------------------------------------------


def safe_cell(text: str) -> str:
    """Return a text as a cell that no spreadsheet runs as a formula, wherever it begins a cell.

    An apostrophe is put before each part that begins like a formula: the start of the text, and
    what follows a semicolon, bar, tab or line end, at which spreadsheets of many countries split.
    Numbers stay as they are. `plain_cell` removes the apostrophes. The rule follows OWASP on CSV
    injection.
    """
    if _RISKY.search(text) is None or _is_number(text):
        return text
    return _FORMULA.sub("'", text)


def plain_cell(text: str) -> str:
    """Return the text of a cell that `safe_cell` wrote."""
    if "'" not in text or _RISKY.search(text) is None:
        return text
    return _SAFE_FORMULA.sub("", text)


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
        if _may_hold_formula(cells):
            changed[name] = [change(cell) for cell in cells]
    return changed


def _may_hold_formula(cells: list[str]) -> bool:
    """Return whether a cell of a column may be changed; far faster than a look at each cell."""
    if any(map(_RISKY_START.match, {cell[:1] for cell in cells})):
        return True
    text = ",".join(cells)
    return any(sign in text for sign in ";|\t\r\n") and _RISKY_PART.search(text) is not None


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


def read_text(path: Path, max_bytes: int = MAX_TABLE_BYTES) -> str:
    """Read a text file in UTF-8, or in UTF-16 if it begins with that byte order mark.

    Raises
    ------
    ValueError
        If it is missing, a folder, pipe or device, larger than `max_bytes`, sparse,
        a workbook or another file that is no text, or in another encoding.
    """
    shown = printable(str(path), 1000)

    def check_head(head: bytes) -> None:
        if problem := _find_head_problem(head):
            raise ValueError(f"{shown}: {problem}")

    try:
        raw = read_regular(path, max_bytes, check_head)
        return raw.decode(_find_encoding(raw))
    except OSError as error:
        raise ValueError(
            f"{shown}: cannot be read ({error.strerror}): expected a table of text"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown}: not UTF-8 at byte {error.start}: save the table in that encoding, in a "
            "spreadsheet as 'CSV UTF-8'"
        ) from None


def _find_head_problem(head: bytes) -> str:
    """Return why a file is no table, by its first bytes; empty if nothing tells."""
    for start, (kind, remedy) in _NOT_TEXT.items():
        if head.startswith(start):
            return f"{kind}, expected a CSV table: {remedy}"
    if len(head) >= _MAX_LINE and b"\n" not in head and b"\r" not in head:
        return f"its first line has over {_MAX_LINE} bytes: expected the names of columns"
    return ""


def _find_encoding(raw: bytes) -> str:
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf16 else "utf-8-sig"


def find_delimiter(header: str) -> str:
    """Return the most frequent of comma, semicolon, tab and bar in the first line of a table."""
    return max(_DELIMITERS, key=header.count)


def find_repeated(names: Iterable[str]) -> list[str]:
    """Return the column names that stand more than once, in any case and Unicode form.

    Nameless columns do not count.
    """
    counts = Counter(column_name(name) for name in names)
    return [name for name, count in counts.items() if name and count > 1]


def column_name(text: str) -> str:
    """Return a column's name as it is looked up: in lower case, without what nobody sees."""
    return clean_id(text).lower()


def require_filled(path: Path, text: str, n_columns: int) -> None:
    """Refuse a table whose rows are far shorter than its header, since each row gets all columns.

    Raises
    ------
    ValueError
        The message names the file.
    """
    n_cells = n_columns * (text.count("\n") + text.count("\r"))
    if n_cells > max(_MANY_CELLS, _MAX_CELLS_PER_BYTE * len(text)):
        raise ValueError(
            f"{printable(str(path), 1000)}: its rows are far shorter than its header of "
            f"{n_columns} columns: expected a cell for each"
        )


@dataclass(frozen=True)
class TableLines:
    """The header of a table, and its other lines, which are parsed as they are asked for.

    Attributes
    ----------
    header, names
        As in `TextTable`.
    lines
        Number and stripped cells of each row but the blank ones, no more cells than `header`.
    """

    header: tuple[str, ...]
    names: tuple[str, ...]
    lines: Iterator[tuple[int, list[str]]]


def read_table(path: Path, required: Iterable[str] = ()) -> TextTable:
    """Read a table with a header, whatever its encoding mark, delimiter and quotes.

    The delimiter is a comma, semicolon, tab or bar, whichever is most frequent in the header.

    Raises
    ------
    ValueError
        If it cannot be read, a column of `required` is missing, a column is repeated, or a row is
        longer than the header.
    """
    table = open_table(path, required)
    rows: list[dict[str, str]] = []
    numbers: list[int] = []
    for number, line in table.lines:
        rows.append(dict.fromkeys(table.header, "") | dict(zip(table.header, line, strict=False)))
        numbers.append(number)
    return TextTable(table.header, tuple(rows), tuple(numbers), table.names)


def open_table(path: Path, required: Iterable[str] = ()) -> TableLines:
    """Read a table as `read_table`, a row at a time, for tables of many rows."""
    text = read_text(path)
    first_line = text.split("\n", 1)[0]
    delimiter = find_delimiter(first_line)
    require_filled(path, text, first_line.count(delimiter) + 1)
    lines = _parse_lines(path, text, delimiter)
    names = tuple(next(lines, []))
    header = tuple(map(column_name, names))
    _check_header(path, header, required)
    return TableLines(header, names, _number_rows(path, lines, len(header), delimiter))


def _parse_lines(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for line in reader:
            yield [cell.strip() for cell in line]
    except csv.Error as error:
        shown = printable(f"{path}: not a table ({error}, line {reader.line_num})", 1000)
        raise ValueError(shown) from None


def _number_rows(
    path: Path, lines: Iterator[list[str]], n_columns: int, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=2):
        if not any(line):
            continue
        if any(line[n_columns:]):
            raise ValueError(
                f"{printable(str(path), 1000)}: row {number} has more cells than the header: put "
                f"quotes round a cell that holds {delimiter!r}"
            )
        yield number, line[:n_columns]


def _check_header(path: Path, header: tuple[str, ...], required: Iterable[str]) -> None:
    """Raise a ValueError unless the header has each required column, and each column once."""
    present = set(header)
    shown = printable(str(path), 1000)
    if missing := [name for name in required if name.lower() not in present]:
        found = printable(", ".join(header), 1000) or "none"
        raise ValueError(f"{shown}: columns {', '.join(missing)} are missing: found {found}")
    if repeated := find_repeated(header):
        names = printable(", ".join(repeated), 1000)
        raise ValueError(
            f"{shown}: columns {names} are repeated in the header: expected each name once"
        )
