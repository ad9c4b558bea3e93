"""The label mapping: load and validate the table, write it, and replace the rows of a dataset.

Columns: dataset, record_id, mapped_label (several separated by ``;``), and optionally patient_id,
fold, path, age, sex, annotated (the classes that this source looked for; empty means all), weight
(how often the record is drawn in training relative to others; empty means 1), start_s and end_s
(the seconds of the record to which the labels belong; both empty mean the whole record). A record
may have many rows with times.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from src.labels.cells import is_printed
from src.labels.ids import clean_id, id_key, id_text, is_nobody, name_patients
from src.labels.intervals import LabelInterval, find_overlap
from src.labels.text_tables import (
    column_name,
    find_delimiter,
    find_repeated,
    is_plain_name,
    map_cells,
    plain_cell,
    read_text,
    require_filled,
    save_frame,
    split_list,
    zip_cells,
)
from src.locks import lock_file
from src.records.facts import parse_age, parse_sex
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


REQUIRED_COLUMNS = ("dataset", "record_id", "mapped_label")
# Facts of a record, of which its rows state one value
_FACTS = ("patient_id", "fold", "path", "age", "sex", "weight")
TIME_COLUMNS = ("start_s", "end_s")
OPTIONAL_COLUMNS = (*_FACTS[:-1], "annotated", "weight", *TIME_COLUMNS)
COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
_PROBLEMS_SHOWN = 50
_MAX_COLUMNS = 1000
_MAX_AGE = 120
_MAX_WEIGHT = 1000.0
_MAX_SECONDS = 1e7  # 115 days
_NO_LABEL = ("nan", "nat", "<na>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FOLD = re.compile(r"|\d{1,9}(\.0+)?")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_LAST_SLASH = re.compile(r"[/\\](?=[^/\\]*$)")


class MappingError(ValueError):
    """A mapping table with problems; the message lists their row number, column and value."""

    def __init__(self, path: str | Path, problems: list[str]) -> None:
        lines = [printable(text, 1000) for text in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > len(lines):
            lines.append(f"... and {len(problems) - len(lines)} more")
        start = f"{len(problems)} problems in the label mapping\n  "
        if len(problems) == 1:
            start = "1 problem in the label mapping: "
        super().__init__(f"{printable(str(path), 1000)}: {start}" + "\n  ".join(lines))
        self.problems = problems


@dataclass(frozen=True)
class LabelRow:
    """What the mapping table says of one record.

    Without a value, `fold` and `age` are None, and texts are empty. Where its rows have times,
    `intervals` holds them, `labels` all their labels, and `annotated` nothing.
    """

    dataset: str
    record_id: str
    labels: tuple[str, ...]
    patient_id: str = ""
    fold: int | None = None
    path: str = ""
    age: float | None = None
    sex: str = ""
    annotated: tuple[str, ...] = ()
    weight: float = 1.0
    intervals: tuple[LabelInterval, ...] = ()


def load_mapping(path: str | Path) -> pd.DataFrame:
    """Read and validate a mapping table.

    Returns
    -------
    DataFrame
        All of `COLUMNS` as strings, empty if the file lacks them.

    Raises
    ------
    MappingError
        If the file is missing, not a table, lacks a column, or any row is wrong; lists every
        problem.
    """
    frame = _read_table(Path(path))
    problems = find_problems(frame)
    if problems:
        raise MappingError(path, problems)
    return frame


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table as texts, with all of `COLUMNS`."""
    frame = _read_csv(path)
    names = list(frame.columns)
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        found = printable(", ".join(names)) or "none"
        raise MappingError(path, [f"columns {', '.join(missing)} are missing: found {found}"])
    for name in OPTIONAL_COLUMNS:
        if name not in names:
            frame[name] = ""
    stripped: pd.DataFrame = frame[list(COLUMNS)].apply(lambda column: column.str.strip())
    return _settle_ids(map_cells(stripped, plain_cell))


def _settle_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose patients, folds and datasets each have one spelling.

    A patient who is spelled in several ways gets the first of them. Words such as *unknown* become
    empty, because the records that carry them are not those of one person.
    """
    given = frame["patient_id"].tolist()
    patients = name_patients(frame["dataset"].tolist(), given)
    nobody = Counter(cell for cell, name in zip(given, patients, strict=True) if cell and not name)
    if nobody:
        shown = ", ".join(f"{printable(repr(cell))} ({n})" for cell, n in nobody.most_common(5))
        logger.warning("patient_id names no patient, and is read as empty: %s", shown)
    respelled = {cell: name for cell, name in zip(given, patients, strict=True) if name != cell}
    respelled = {cell: name for cell, name in respelled.items() if name}
    if respelled:
        pairs = [f"{cell!a} is {name!a}" for cell, name in sorted(respelled.items())[:5]]
        logger.warning(
            "patient_id spells %d patients in several ways: %s",
            len(set(respelled.values())),
            printable(", ".join(pairs)),
        )
    return frame.assign(
        patient_id=patients,
        fold=_change_cells(frame["fold"], lambda cell: "" if is_nobody(cell) else id_text(cell)),
        dataset=_change_cells(frame["dataset"], clean_id),
    )


def _change_cells(column: pd.Series[str], change: Callable[[str], str]) -> list[str]:
    """Return the changed cells of a column; each distinct cell is changed once."""
    cells = column.tolist()
    changed = {cell: change(cell) for cell in set(cells)}
    return [changed[cell] for cell in cells]


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a table as texts, with column names in lower case."""
    import pandas as pd

    if not path.exists():
        raise MappingError(
            path, ["no such file: expected a CSV with dataset,record_id,mapped_label"]
        )
    try:
        text = read_text(path)
    except ValueError as error:
        raise MappingError(
            path, [str(error).removeprefix(f"{printable(str(path), 1000)}: ")]
        ) from None
    first_line = text.split("\n", 1)[0]
    delimiter = find_delimiter(first_line)
    n_columns = first_line.count(delimiter) + 1
    require_filled(path, text, min(n_columns, _MAX_COLUMNS))
    if n_columns > _MAX_COLUMNS:
        problem = f"the first line has {n_columns} columns: expected at most {_MAX_COLUMNS}"
        raise MappingError(path, [problem])
    try:
        # pandas gives the second of two equal names another one, so they are looked for before.
        header = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
        if repeated := find_repeated(header):
            problem = f"columns {', '.join(repeated)} are repeated"
            raise MappingError(path, [f"{problem}: expected one of each, in any case"])
        with warnings.catch_warnings():
            # With a mere warning, a row longer than the header would lose cells.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                dtype=str,
                sep=delimiter,
                keep_default_na=False,
                na_filter=False,
                index_col=False,
            )
    except (
        csv.Error,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        pd.errors.ParserWarning,
    ) as error:
        problem = f"not a CSV table in UTF-8 ({printable(str(error).strip())})"
        raise MappingError(path, [problem]) from None
    frame.columns = [column_name(str(name)) for name in frame.columns]
    return frame


# Validation ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _CellRule:
    """A problem that single cells of a column may have."""

    column: str
    is_wrong: Callable[[str], bool]
    message: str


_CELL_RULES = (
    _CellRule("dataset", lambda cell: not cell, "is empty: expected the name of a collection"),
    _CellRule(
        "dataset",
        lambda cell: bool(cell) and not is_plain_name(cell),
        "is no plain name: expected one without slashes, ':' or '__'",
    ),
    _CellRule("record_id", lambda cell: not cell, "is empty: expected the record's name or path"),
    _CellRule(
        "mapped_label",
        lambda cell: is_printed(cell) or cell.casefold() in _NO_LABEL,
        "is no label: expected labels separated by ; (labels csv reads printed lists and nan)",
    ),
    _CellRule("fold", lambda cell: not _FOLD.fullmatch(cell), "expected an integer or nothing"),
    _CellRule(
        "age",
        lambda cell: bool(cell) and _read_age(cell) is None,
        "expected years from 0 to 120 or nothing",
    ),
    _CellRule(
        "sex",
        lambda cell: bool(cell) and parse_sex(cell) is None,
        "expected F, M or nothing",
    ),
    _CellRule(
        "weight",
        lambda cell: bool(cell) and not _is_within(cell, _MAX_WEIGHT),
        "expected a number from 0 to 1000 or nothing",
    ),
    *(
        _CellRule(
            column,
            lambda cell: bool(cell) and not _is_within(cell, _MAX_SECONDS),
            "expected seconds from the record's beginning or nothing",
        )
        for column in TIME_COLUMNS
    ),
    *(
        _CellRule(
            column,
            lambda cell: bool(_CONTROL.search(cell)),
            "holds a control character: expected plain text",
        )
        for column in COLUMNS
    ),
)


def find_problems(frame: pd.DataFrame) -> list[str]:
    """Return every problem of a table, with its row (the header is row 1), column and value."""
    problems: list[tuple[int, str]] = []
    cells = {name: frame[name].to_numpy(object) for name in COLUMNS}

    def report(mask: NDArray[np.bool_], column: str, message: str) -> None:
        for position in mask.nonzero()[0].tolist():
            number = position + 2
            value = printable(repr(cells[column][position]))
            problems.append((number, f"row {number}, column {column}, value {value}: {message}"))

    for rule in _CELL_RULES:
        report(_test_cells(frame[rule.column], rule.is_wrong), rule.column, rule.message)
    report(
        _repeated_ids(frame),
        "record_id",
        "is repeated in its dataset: expected one row per record, its labels separated by ;",
    )
    if _has_times(frame).any():
        problems += _find_time_problems(frame)
    has_no_label = _test_cells(frame["mapped_label"], lambda cell: not split_list(cell))
    report(
        has_no_label & (cells["annotated"] == ""),
        "mapped_label",
        "is empty: expected a label, or the classes looked for in annotated",
    )
    # One test per pair of cells. Neither cell holds the end of a line.
    pairs = frame["annotated"] + "\n" + frame["mapped_label"]
    report(
        _test_cells(pairs, _lists_too_few),
        "mapped_label",
        "has a label that the column annotated does not list",
    )
    problems += _conflicting_sexes(frame)
    problems += _shared_folders(frame)
    return [text for _, text in sorted(problems)]


def _test_cells(column: pd.Series[str], test: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Return which cells pass a test; each distinct cell is tested once."""
    import pandas as pd

    codes, cells = pd.factorize(column.to_numpy(object))
    return np.array([test(cell) for cell in cells], bool)[codes]


def _repeated_ids(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows have the dataset and record id of an earlier row, in any Unicode form."""
    ids = frame.assign(record_id=_change_cells(frame["record_id"], clean_id))
    has_times = _has_times(frame)
    repeated = np.zeros(len(frame), bool)
    repeated[~has_times] = ids[~has_times].duplicated(["dataset", "record_id"]).to_numpy()
    has_key = (frame["dataset"] != "").to_numpy(bool) & (frame["record_id"] != "").to_numpy(bool)
    return repeated & has_key


def _lists_too_few(pair: str) -> bool:
    annotated, _, labels = pair.partition("\n")
    return bool(annotated) and not set(split_list(annotated)) >= set(split_list(labels))


def _is_within(text: str, highest: float) -> bool:
    try:
        return 0 <= float(text) <= highest
    except ValueError:
        return False


def _read_age(text: str) -> float | None:
    """Return an age in years, also one such as ``>89``; None if it is no age."""
    return float(text) if _is_within(text, _MAX_AGE) else parse_age(text)


def _conflicting_sexes(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield rows that state another sex of a patient than an earlier row of the dataset."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for number, (dataset, patient, text) in enumerate(
        zip_cells(frame["dataset"], frame["patient_id"], frame["sex"]), start=2
    ):
        sex = parse_sex(text) if text and not is_nobody(patient) else None
        if not sex:
            continue
        row, earlier_sex = first.setdefault((dataset, id_key(patient)), (number, sex))
        if sex != earlier_sex:
            yield (
                number,
                f"row {number}, column sex, value {text!r}: patient {patient!r} is "
                f"{earlier_sex} in row {row}",
            )


def _shared_folders(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield the first row of each dataset with absolute paths in an earlier dataset's folder."""
    owners: dict[str, tuple[int, str]] = {}
    reported: set[tuple[str, str]] = set()
    for number, (dataset, path) in enumerate(zip_cells(frame["dataset"], frame["path"]), start=2):
        if not path or not _ABSOLUTE.match(path):
            continue
        folder = _LAST_SLASH.split(path)[0]
        row, owner = owners.setdefault(folder, (number, dataset))
        if owner != dataset and (owner, dataset) not in reported:
            reported.add((owner, dataset))
            yield (
                number,
                f"row {number}, column path, value {path!r}: {folder} is the folder of "
                f"dataset {owner!r} too (row {row})",
            )


# Times --------------------------------------------------------------------------------------------


def _has_times(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows state a time."""
    return ((frame["start_s"] != "") | (frame["end_s"] != "")).to_numpy(bool)


def _find_time_problems(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield rows with half a time or one that runs backwards, and rows that contradict another."""
    usable = []
    times = list(zip_cells(frame["start_s"], frame["end_s"]))
    for position in _has_times(frame).nonzero()[0].tolist():
        number = position + 2
        start, end = times[position]
        if not (start and end):
            given, empty = ("start_s", "end_s") if start else ("end_s", "start_s")
            value = printable(repr(start or end))
            yield (
                number,
                f"row {number}, column {given}, value {value}: {empty} is empty: expected both "
                "times, or none for the whole record",
            )
        elif _is_within(start, _MAX_SECONDS) and _is_within(end, _MAX_SECONDS):
            if float(end) < float(start):
                yield (
                    number,
                    f"row {number}, column end_s, value {printable(repr(end))}: is before start_s "
                    f"{printable(repr(start))}: expected an end at or after the start",
                )
            else:
                usable.append(position)
    yield from _find_overlaps(frame, usable)
    timed = set(frame["record_id"].to_numpy(object)[_has_times(frame)].tolist())
    numbered = frame.reset_index(drop=True)
    yield from _find_contradictions(numbered[numbered["record_id"].isin(timed)])


def _find_overlaps(frame: pd.DataFrame, usable: list[int]) -> Iterator[tuple[int, str]]:
    """Yield a row of each record whose times overlap those of another row."""
    timed = frame.iloc[usable]
    record_ids = _change_cells(timed["record_id"], clean_id)
    records: dict[tuple[str, str], list[LabelInterval]] = {}
    columns = (timed["dataset"].tolist(), record_ids, usable)
    spans = zip_cells(timed["start_s"], timed["end_s"])
    for dataset, record_id, position, (start, end) in zip(*columns, spans, strict=True):
        # The number of the row stands where the label would, to be named in a message
        interval = LabelInterval(float(start), float(end), (str(position + 2),))
        records.setdefault((dataset, record_id), []).append(interval)
    for (_, record_id), intervals in records.items():
        if (pair := find_overlap(intervals)) is not None:
            earlier, later = pair
            number = int(later.labels[0])
            yield (
                number,
                f"row {number}, column start_s, value '{later.start_s:g}': record "
                f"{printable(repr(record_id))} has a label from {earlier.start_s:g} to "
                f"{earlier.end_s:g} s in row {earlier.labels[0]} already: expected times that do "
                "not overlap, with labels of one time separated by ;",
            )


def _find_contradictions(frame: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """Yield rows that state another patient, fold, path, age, sex or weight of their record.

    The index of the table counts its rows from 0.
    """
    for column in _FACTS:
        stated = frame[["dataset", "record_id", column]].drop_duplicates()
        stated = stated[(stated[column] != "").to_numpy(bool)]
        first: dict[tuple[str, str], tuple[int, str]] = {}
        for index, (dataset, record_id, cell) in zip(
            stated.index.tolist(),
            zip_cells(stated["dataset"], stated["record_id"], stated[column]),
            strict=True,
        ):
            number = index + 2
            row, earlier = first.setdefault((dataset, clean_id(record_id)), (number, cell))
            if cell != earlier:
                yield (
                    number,
                    f"row {number}, column {column}, value {printable(repr(cell))}: row {row} of "
                    f"the same record says {printable(repr(earlier))}: expected one value",
                )


# Rows ---------------------------------------------------------------------------------------------


def iter_rows(frame: pd.DataFrame) -> Iterable[LabelRow]:
    """Yield the rows of a validated table, those of a record with times as one."""
    has_times = _has_times(frame)
    if not has_times.any():
        yield from map(_build_row, frame.itertuples(index=False, name=None))
        return
    # Of a record with times, every row counts, also one of the whole record.
    keys = list(zip(frame["dataset"], _change_cells(frame["record_id"], clean_id), strict=True))
    waiting: dict[tuple[str, str], list[LabelRow]] = {}
    for position in has_times.nonzero()[0].tolist():
        waiting.setdefault(keys[position], [])
    for key, cells in zip(keys, frame.itertuples(index=False, name=None), strict=True):
        if key in waiting:
            waiting[key].append(_build_row(cells))
        else:
            yield _build_row(cells)
    for rows in waiting.values():
        yield _join_intervals(rows)


def _build_row(cells: tuple[str, ...]) -> LabelRow:
    dataset, record_id, label, patient_id, fold, path, age, sex, annotated, weight, *times = cells
    labels, classes = _split_cell(label), _split_cell(annotated)
    start, end = times
    interval = LabelInterval(float(start), float(end), labels, classes) if start else None
    return LabelRow(
        dataset=dataset,
        record_id=record_id,
        labels=labels,
        patient_id=patient_id,
        fold=int(float(fold)) if fold else None,
        path=path,
        age=_read_age(age) if age else None,
        sex=parse_sex(sex) or "",
        annotated=classes,
        weight=float(weight) if weight else 1.0,
        intervals=() if interval is None else (interval,),
    )


@lru_cache(maxsize=4096)
def _split_cell(cell: str) -> tuple[str, ...]:
    return split_list(cell)


def _join_intervals(rows: Sequence[LabelRow]) -> LabelRow:
    """Return the rows of one record as one, with the first value that they state of each fact."""
    intervals: list[LabelInterval] = []
    for row in rows:
        whole = LabelInterval(0.0, math.inf, row.labels, row.annotated)
        intervals += row.intervals or [whole]
    return replace(
        rows[0],
        labels=tuple(dict.fromkeys(label for row in rows for label in row.labels)),
        patient_id=next((row.patient_id for row in rows if row.patient_id), ""),
        fold=next((row.fold for row in rows if row.fold is not None), None),
        path=next((row.path for row in rows if row.path), ""),
        age=next((row.age for row in rows if row.age is not None), None),
        sex=next((row.sex for row in rows if row.sex), ""),
        annotated=(),
        weight=next((row.weight for row in rows if row.weight != 1), 1.0),
        intervals=tuple(intervals),
    )


def save_mapping(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a mapping table atomically, without empty optional columns.

    The file is safe to open in a spreadsheet.
    """
    used = [name for name in COLUMNS if name in REQUIRED_COLUMNS or (frame[name] != "").any()]
    save_frame(frame[used], Path(path))


def update_mapping(path: str | Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the rows of the datasets in `rows` in the table at `path`, and keep every other row.

    Another process that updates the table at this moment is waited for.

    Raises
    ------
    MappingError
        If the existing or the new rows are wrong; nothing is written then.
    ValueError
        If `path` names a device, a pipe or a folder.
    """
    rows = _settle_ids(rows.reindex(columns=list(COLUMNS), fill_value="").fillna("").astype(str))
    problems = find_problems(rows)
    if problems:
        raise MappingError("new rows", problems)
    with lock_file(path, "updating the label mapping") as table:
        if table.exists():
            rows = _replace_rows(table, rows)
        save_mapping(rows, table)
    return rows


def _replace_rows(table: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table, with new `rows` in the place of those of their datasets."""
    import pandas as pd

    existing = load_mapping(table)
    kept = existing[~existing["dataset"].isin(set(rows["dataset"]))]
    logger.info(
        "%s: %d rows of other datasets kept, %d replaced",
        table,
        len(kept),
        len(existing) - len(kept),
    )
    _warn_of_same_paths(kept, rows)
    return pd.concat([kept, rows], ignore_index=True)


def _warn_of_same_paths(kept: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Warn of datasets with the paths of the new rows.

    One folder under two names cannot be preprocessed in one run.
    """
    new_paths = set(rows["path"]) - {""}
    for name, other in kept.groupby("dataset"):
        if new_paths and set(other["path"]) - {""} == new_paths:
            logger.warning(
                "dataset %r has the same %d paths as %r (%s): if it is the same folder, "
                "use one name at a time",
                rows["dataset"].iloc[0],
                len(new_paths),
                name,
                f"rows {other.index[0] + 2} to {other.index[-1] + 2}",
            )
