"""Cells of labels in the tables of others: lists as programs print them, and flags of a class."""

from __future__ import annotations

import ast
import math
import re

from src.labels.ids import id_text, is_empty_cell
from src.utils import printable

_MAX_CELL = 10_000  # characters
_PRESENT = frozenset({"1", "true", "yes", "y", "t", "x", "+", "positive", "present"})
_ABSENT = frozenset({"0", "false", "no", "n", "f", "negative", "absent"})
# Names before the brackets of a printed list: array(['AF', 'PVC'], dtype=object)
_WRAPPER = re.compile(
    r"(?:(?:np|numpy|pd)\.)?(?:array|Index|list|tuple|set|frozenset|dict|Counter|OrderedDict|"
    r"dict_keys|dict_items)\((.*)\)",
    re.DOTALL,
)
_DTYPE = re.compile(r",\s*(?:dtype|shape|length|name)=['\"]?[<>|=\w]*['\"]?$")
_SCALAR = re.compile(r"(?:np|numpy)\.str_\(\s*")
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def read_flag(cell: str) -> bool | None:
    """Return whether a class is present, from a cell such as True, 1.0, no or blank; else None."""
    word = id_text(cell).casefold()
    if word in _PRESENT:
        return True
    if word in _ABSENT or is_empty_cell(cell):
        return False
    return None


def is_word_flag(cell: str) -> bool:
    """Return whether a cell is a flag in words, such as True, and no number or blank."""
    return read_flag(cell) is not None and not is_empty_cell(cell) and not _is_number(cell)


def is_printed(cell: str) -> bool:
    """Return whether a cell is a list, tuple, set, array or dictionary as a program prints it."""
    return _contents(cell.strip()) is not None


def split_labels(cell: str, separator: str) -> tuple[str, ...]:
    """Split a cell into its labels, each once.

    Lists, tuples, sets, arrays and dictionaries are understood as Python, NumPy, pandas and JSON
    print them. Numbers lose a ``.0``, and words for a missing value such as nan are no label.

    Parameters
    ----------
    cell
        The text of the cell.
    separator
        The text between two labels, where the cell is no printed list.

    Raises
    ------
    ValueError
        If it cannot be told which labels are meant; the message says what to do.
    """
    text = cell.strip()
    contents = _contents(text)
    if contents is None:
        parts = text.split(separator)
    elif len(text) > _MAX_CELL:
        raise ValueError(f"has {len(text)} characters: expected at most {_MAX_CELL}")
    elif contents.startswith("{") and ":" in contents:
        parts = _keys(contents)
    else:
        parts = _items(contents[1:-1], separator)
    labels = map(_clean_label, parts)
    return tuple(dict.fromkeys(label for label in labels if not is_empty_cell(label)))


def _clean_label(text: str) -> str:
    """Return a label as `id_text` cleans an id, but with ends of lines and tabs inside it."""
    return "\n".join("\t".join(map(id_text, line.split("\t"))) for line in text.strip().split("\n"))


def _contents(text: str) -> str | None:
    """Return a printed list with its brackets, without a name around it; None if it is none."""
    if len(text) > _MAX_CELL:
        return text if text[:1] in ("[", "{") else None
    while wrapped := _WRAPPER.fullmatch(text):
        text = _DTYPE.sub("", wrapped[1].strip()) or "[]"
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    # Round brackets are also a part of names: (possible) or (AFIB).
    is_tuple = text[0] == "(" and (text[1:-1].strip()[:1] in ("'", '"') or "np.str_" in text)
    return text if text[0] != "(" or is_tuple else None


def _items(text: str, separator: str) -> list[str]:
    """Return the items between brackets, with or without quotes and commas."""
    text = _SCALAR.sub("", text)
    if re.search(r"(?:^|\s|,)\.\.\.(?:$|\s|,)", text):
        raise ValueError("is cut off where it says ...: export the table with whole lists")
    if text.lstrip()[:1] not in ("'", '"'):
        sign = separator if separator in text else ","
        parts = text.split(sign)
        if len(parts) == 1 and all(_is_number(part) for part in text.split()):
            parts = text.split()
        return [part.strip().strip("'\"") for part in parts]
    items = []
    position = 0
    for match in _QUOTED.finditer(text):
        between = text[position : match.start()]
        items += between.replace(separator, ",").replace(")", "").split(",")
        items.append(_unescape(match[1] if match[1] is not None else match[2]))
        position = match.end()
    items += text[position:].replace(separator, ",").replace(")", "").split(",")
    return items


def _unescape(text: str) -> str:
    r"""Return the text of a quoted item: ``\'`` is an apostrophe."""
    return re.sub(r"\\(['\"\\])", r"\1", text)


def _keys(text: str) -> list[str]:
    """Return the keys of a dictionary whose value says that they are present.

    Raises
    ------
    ValueError
        If it is no dictionary, or a value 0 may mean *not graded*, as in PTB-XL.
    """
    shown = printable(repr(text[:80]))
    names = {"nan": "None", "null": "None", "true": "True", "false": "False"}
    literal = re.sub(r"\b(nan|null|true|false)\b", lambda match: names[match[1]], text)
    try:
        parsed = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"is {shown}, no dictionary of labels: write them as A;B") from None
    if not isinstance(parsed, dict):
        return [str(item) for item in parsed]
    values = {str(key): _read_value(value) for key, value in parsed.items()}
    if None in values.values():
        raise ValueError(
            f"is {shown}, a dictionary: expected labels with numbers or True and False; write the "
            "labels of a record as A;B"
        )
    is_graded = any(value not in (0.0, 1.0) for value in values.values())
    if is_graded and 0.0 in values.values():
        raise ValueError(
            f"is {shown}, in which 0 may mean absent or not graded: write the labels of a record "
            "as A;B, or use labels ptbxl for the table of PTB-XL"
        )
    return [key for key, value in values.items() if value]


def _read_value(value: object) -> float | None:
    """Return the value of a label in a dictionary as a number, 0 for none; None if it is no number.

    NaN was written as None.
    """
    if value is None:
        return 0.0
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    flag = read_flag(value) if isinstance(value, str) else None
    return None if flag is None else float(flag)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(?:\.\d*)?", text.strip()) is not None
