"""The mapping table: load it, validate it whole, write it, and extend it without touching another dataset's rows.

Columns: dataset, record_id, mapped_label (several separated by ``;``), and optionally patient_id, fold, path, age, sex,
annotated (the classes that this source looked for; empty means all).
"""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.formats.base import parse_sex
from src.store import is_plain_name, split_list
from src.text_tables import map_cells, plain_cell, safe_cell
from src.utils import atomic_path, printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

REQUIRED_COLUMNS = ("dataset", "record_id", "mapped_label")
OPTIONAL_COLUMNS = ("patient_id", "fold", "path", "age", "sex", "annotated")
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
_PROBLEMS_SHOWN = 50
_MAX_COLUMNS = 1000
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"


class MappingError(ValueError):
    """A mapping table with problems; the message lists them with row number, column and value."""

    def __init__(self, path: str | Path, problems: list[str]) -> None:
        shown = [printable(text, 1000) for text in problems[:_PROBLEMS_SHOWN]]
        more = [f"... and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        start = "1 problem in the label mapping: " if len(problems) == 1 else f"{len(problems)} problems in the label mapping\n  "
        super().__init__(f"{path}: {start}" + "\n  ".join([*shown, *more]))
        self.problems = problems


@dataclass(frozen=True)
class LabelRow:
    """One row of the mapping table; `fold` and `age` are None and texts empty where the table does not say."""

    dataset: str
    record_id: str
    labels: tuple[str, ...]
    patient_id: str = ""
    fold: int | None = None
    path: str = ""
    age: float | None = None
    sex: str = ""
    annotated: tuple[str, ...] = ()


def load_mapping(path: str | Path) -> pd.DataFrame:
    """Read and validate a mapping table.

    Returns
    -------
    DataFrame
        All of `COLUMNS` as strings, empty where the file has none.

    Raises
    ------
    MappingError
        If the file is missing, not a table, lacks a column, or any row is wrong; lists every problem.
    """
    frame = _read_table(Path(path))
    problems = find_problems(frame)
    if problems:
        raise MappingError(path, problems)
    return frame


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        text = path.read_text(encoding="utf-8-sig")
        if (n_columns := text.split("\n", 1)[0].count(",") + 1) > _MAX_COLUMNS:
            raise MappingError(path, [f"the first line has {n_columns} columns: expected a header of {_MAX_COLUMNS} at most"])
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the header would lose cells
            frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, na_filter=False, index_col=False)
    except FileNotFoundError:
        raise MappingError(path, ["no such file: expected a CSV with dataset,record_id,mapped_label"]) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
        raise MappingError(path, [f"not a CSV table in UTF-8 ({printable(str(error).strip())})"]) from None
    frame.columns = [str(name).strip().lower() for name in frame.columns]
    missing = [name for name in REQUIRED_COLUMNS if name not in frame.columns]
    if missing:
        found = printable(", ".join(frame.columns)) or "none"
        raise MappingError(path, [f"columns {', '.join(missing)} are missing: found {found}"])
    for name in OPTIONAL_COLUMNS:
        if name not in frame.columns:
            frame[name] = ""
    stripped: pd.DataFrame = frame[list(COLUMNS)].apply(lambda column: column.str.strip())
    return map_cells(stripped, plain_cell)


def find_problems(frame: pd.DataFrame) -> list[str]:
    """Return every problem of a table as text with its row (the header is row 1), column and value."""
    problems: list[tuple[int, str]] = []

    def report(mask: pd.Series[bool], column: str, message: str) -> None:
        for position in mask.to_numpy().nonzero()[0]:
            value = frame[column].iloc[position]
            problems.append((int(position) + 2, f"row {position + 2}, column {column}, value {printable(repr(value))}: {message}"))

    report(frame["dataset"] == "", "dataset", "is empty: expected the name of a collection")
    report((frame["dataset"] != "") & ~frame["dataset"].map(is_plain_name), "dataset", "is no plain name: expected one without slashes, ':' or '__'")  # fmt: skip
    for name in COLUMNS:
        report(frame[name].str.contains(_CONTROL), name, "holds a control character: expected plain text")
    report(frame["record_id"] == "", "record_id", "is empty: expected the record's name or path")
    named = (frame["dataset"] != "") & (frame["record_id"] != "")
    report(named & frame.duplicated(["dataset", "record_id"]), "record_id", "stands twice in its dataset: expected one row a record")  # fmt: skip
    blank = frame["mapped_label"].map(lambda cell: not split_list(cell))
    report(blank & (frame["annotated"] == ""), "mapped_label", "is empty: expected a label, or the classes looked for in annotated")  # fmt: skip
    report(~frame["fold"].str.fullmatch(r"|\d{1,9}(\.0+)?"), "fold", "expected an integer or nothing")
    age = frame["age"].where(frame["age"] != "", "0")
    report(~age.map(_is_age), "age", "expected years from 0 to 120 or nothing")
    report(~frame["sex"].map(lambda cell: cell == "" or parse_sex(cell) is not None), "sex", "expected F, M or nothing")
    outside = np.array([not set(split_list(a)) >= set(split_list(b)) for a, b in zip(frame["annotated"], frame["mapped_label"], strict=True)], bool)  # fmt: skip
    report((frame["annotated"] != "") & outside, "mapped_label", "has a label that the column annotated does not list")
    problems += [*_torn_patients(frame), *_shared_folders(frame)]
    return [text for _, text in sorted(problems)]


def _torn_patients(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield the rows that give a patient another sex than an earlier row of the dataset does."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for number, (dataset, patient, text) in enumerate(zip(frame["dataset"], frame["patient_id"], frame["sex"], strict=True), start=2):
        sex = parse_sex(text)
        if patient and sex:
            row, known = first.setdefault((dataset, patient), (number, sex))
            if sex != known:
                yield number, f"row {number}, column sex, value {text!r}: patient {patient!r} is {known} in row {row}"


def _shared_folders(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield the first row of each dataset whose absolute paths name a folder that an earlier dataset names too."""
    owners: dict[str, tuple[int, str]] = {}
    reported: set[tuple[str, str]] = set()
    for number, (dataset, path) in enumerate(zip(frame["dataset"], frame["path"], strict=True), start=2):
        folder = re.split(r"[/\\](?=[^/\\]*$)", path)[0]
        if not re.match(r"[/\\]|[A-Za-z]:[/\\]", path):
            continue
        row, owner = owners.setdefault(folder, (number, dataset))
        if owner != dataset and (owner, dataset) not in reported:
            reported.add((owner, dataset))
            yield number, f"row {number}, column path, value {path!r}: {folder} is the folder of dataset {owner!r} too (row {row})"


def _is_age(text: str) -> bool:
    try:
        return 0 <= float(text) <= 120
    except ValueError:
        return False


def iter_rows(frame: pd.DataFrame) -> Iterable[LabelRow]:
    """Yield the rows of a validated table."""
    for row in frame.itertuples(index=False, name=None):
        dataset, record_id, label, patient_id, fold, path, age, sex, annotated = row
        yield LabelRow(
            dataset=dataset,
            record_id=record_id,
            labels=split_list(label),
            patient_id=patient_id,
            fold=int(float(fold)) if fold else None,
            path=path,
            age=float(age) if age and math.isfinite(float(age)) else None,
            sex=parse_sex(sex) or "",
            annotated=split_list(annotated),
        )


def save_mapping(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a mapping table atomically, with the optional columns that hold anything; it is safe to open in a spreadsheet."""
    used = [name for name in COLUMNS if name in REQUIRED_COLUMNS or (frame[name] != "").any()]
    with atomic_path(path) as temporary:
        map_cells(frame[used], safe_cell).to_csv(temporary, index=False, lineterminator="\n")


def update_mapping(path: str | Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the rows of the datasets in `rows` in the table at `path`, and keep every other row.

    Raises
    ------
    MappingError
        If the existing or the new rows are wrong; nothing is written then.
    """
    import pandas as pd

    rows = rows.reindex(columns=list(COLUMNS), fill_value="").fillna("").astype(str)
    problems = find_problems(rows)
    if problems:
        raise MappingError("new rows", problems)
    if Path(path).exists():
        existing = load_mapping(path)
        kept = existing[~existing["dataset"].isin(set(rows["dataset"]))]
        logger.info("%s: %d rows of other datasets kept, %d replaced", path, len(kept), len(existing) - len(kept))
        _report_same_paths(kept, rows)
        rows = pd.concat([kept, rows], ignore_index=True)
    save_mapping(rows, path)
    return rows


def _report_same_paths(kept: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Log the datasets whose paths are those of the new rows: one folder under two names cannot be preprocessed together."""
    new = set(rows["path"]) - {""}
    for name, other in kept.groupby("dataset"):
        if new and set(other["path"]) - {""} == new:
            at = f"rows {other.index[0] + 2} to {other.index[-1] + 2}"
            logger.warning("dataset %r has the same %d paths as %r (%s): if it is the same folder, use one name at a time", rows["dataset"].iloc[0], len(new), name, at)
