"""`manifest.csv`: a row for each attempted record, and the journal of a running preprocessing."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.config import PreprocessConfig, load_dataclass
from src.labels.ids import clean_id, name_patients
from src.labels.text_tables import (
    find_repeated,
    is_plain_name,
    map_cells,
    plain_cell,
    save_frame,
    split_list,
    zip_cells,
)
from src.processed.record_files import earlier_keys, record_key, record_keys
from src.utils import open_regular, output_file, printable, require_whole

if TYPE_CHECKING:
    import pandas as pd


logger = logging.getLogger(__name__)

CONFIG_FILE = "preprocess_config.json"
INTERRUPTED = "was being made anew when the run was interrupted: run preprocess again"
"""Reason of a row whose record file may be outdated, until a preprocessing run has finished."""
COPY_REASON = "the same recording as "
"""First words of the reason of a row that was rejected as a copy."""
# Quality flags of a dataset in the summary of a run, and the lowest share of records for one
_FLAGS_SHOWN = 4
_LOWEST_SHARE = 0.05
# Columns that manifests of earlier versions lack; they are read as empty.
_LATER_COLUMNS = ("weight", "label_cover", "beat_s", "rr_before_s", "rr_after_s")


def load_preprocess_config(processed: str | Path) -> PreprocessConfig:
    """Return the preprocessing settings of a processed folder.

    Raises
    ------
    ValueError
        If preprocessing did not make the folder.
    """
    path = Path(processed) / CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{processed}: no processed records here; run preprocess with --out {processed} first"
        )
    return load_dataclass(PreprocessConfig, path)


def patients_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the patient of each row of a manifest as ``<dataset>/<patient_id>``.

    A patient whose id is spelled in several ways has one name. A record without a patient is its
    own patient, named by its key, and so are the windows of such a record.
    """
    from src.records.windows import window_parent

    names = name_patients(rows["dataset"].tolist(), rows["patient_id"].tolist())
    patients = []
    for name, (dataset, record_id, given) in zip(
        names, zip_cells(rows["dataset"], rows["record_id"], rows["patient_id"]), strict=True
    ):
        if name:
            patients.append(f"{dataset}/{name}")
        elif given:
            # A word such as unknown names nobody; the windows of a record are of one patient.
            patients.append(f"{dataset}/{window_parent(record_id)}")
        else:
            patients.append(record_key(dataset, record_id))
    return tuple(patients)


def report_patients(
    datasets: Sequence[str], record_ids: Sequence[str], patient_ids: Sequence[str]
) -> None:
    """Log the datasets of which no patient is known, or whose records are all of one patient.

    Each sequence has an entry per record; an empty patient is not known. The id of a record that
    stands for the patient of its windows is no patient.
    """
    from src.records.windows import window_parent

    names = name_patients(datasets, patient_ids)
    records: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    for name, dataset, record_id in zip(names, datasets, record_ids, strict=True):
        parent = window_parent(record_id)
        records.setdefault(dataset, set()).add(parent)
        patients.setdefault(dataset, set()).add("" if name == parent else name)
    nameless = [name for name, known in patients.items() if known == {""}]
    if nameless:
        logger.warning(
            "no patient is known of %s, or each record is of another (column patient_id of the "
            "label mapping): unless it is so, two records of one person may be in two splits",
            ", ".join(nameless),
        )
    for dataset, known in patients.items():
        if len(known) == 1 and "" not in known and len(records[dataset]) > 1:
            logger.warning(
                "all %d records of %s are of one patient, %s, and so in one split: expected "
                "several patients, to test on others than those trained on",
                len(records[dataset]),
                dataset,
                printable(repr(known.pop())),
            )


def summarize_quality(ok: pd.DataFrame) -> dict[str, str]:
    """Return dataset -> its most frequent quality flags with their share of the ok records.

    Flags of fewer than 5 % of the records are left out, and datasets without others.
    """
    summary = {}
    for dataset, rows in ok.groupby("dataset")["quality_flags"]:
        counts: Counter[str] = Counter()
        for cell in rows.tolist():
            counts.update({flag.partition(":")[0] for flag in split_list(cell)})
        frequent = [
            f"{kind} {count / len(rows):.0%}"
            for kind, count in counts.most_common(_FLAGS_SHOWN)
            if count >= _LOWEST_SHARE * len(rows)
        ]
        if frequent:
            summary[str(dataset)] = ", ".join(frequent)
    return summary


class ManifestRow(NamedTuple):
    """The result of one attempted record; lists are joined with ``;``."""

    dataset: str
    record_id: str
    patient_id: str = ""
    source_path: str = ""
    fs: float | str = ""
    n_samples: int | str = ""
    labels: str = ""
    annotated: str = ""
    label_source: str = ""
    fold: int | str = ""
    split: str = ""
    status: str = ""
    reason: str = ""
    quality_flags: str = ""
    signal_hash: str = ""
    age: float | str = ""
    sex: str = ""
    weight: float | str = ""
    config_hash: str = ""
    input_hash: str = ""
    label_cover: str = ""
    beat_s: float | str = ""
    rr_before_s: float | str = ""
    rr_after_s: float | str = ""


MANIFEST_COLUMNS = ManifestRow._fields
_EARLIER_LENGTHS = (
    MANIFEST_COLUMNS.index("label_cover"),
    MANIFEST_COLUMNS.index("beat_s"),
)


class Journal:
    """Rows of a running preprocessing, one JSON list a line, so that a killed run can be resumed.

    It is deleted once the manifest holds its rows.
    """

    def __init__(self, processed: Path) -> None:
        self.path = processed / "manifest.partial.jsonl"

    def append(self, rows: Iterable[ManifestRow]) -> None:
        """Append rows and sync them to the disk."""
        text = "".join([json.dumps([str(cell) for cell in row]) + "\n" for row in rows])
        with open(output_file(self.path), "ab+") as stream:
            # A killed run may have left an incomplete line, which must not swallow the next row.
            is_empty = stream.seek(0, os.SEEK_END) == 0
            if not is_empty:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    text = "\n" + text
            stream.write(text.encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())

    def load(self) -> pd.DataFrame:
        """Return the complete rows."""
        import pandas as pd

        rows = []
        if self.path.exists():
            with open_regular(self.path) as stream:
                for line in stream:
                    # Other lines are not parsed, of which a damaged file may have millions.
                    row = _parse_journal_line(line) if _looks_like_a_row(line) else None
                    if row is not None:
                        rows.append(row)
        return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS), dtype=str)

    def remove(self) -> None:
        """Delete the journal."""
        self.path.unlink(missing_ok=True)


def _looks_like_a_row(line: bytes) -> bool:
    """Return whether a line begins, ends and is divided as the rows of a journal are."""
    n_least = min(_EARLIER_LENGTHS)
    return line.startswith(b'["') and line.endswith(b'"]\n') and line.count(b'", "') + 1 >= n_least


def _parse_journal_line(line: bytes) -> list[str] | None:
    """Return the cells of a line, or None if it is incomplete or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(row, list) and len(row) in _EARLIER_LENGTHS:
        # A run of an earlier version, which had no cover of labels or no beats
        row += [""] * (len(MANIFEST_COLUMNS) - len(row))
    if not isinstance(row, list) or len(row) != len(MANIFEST_COLUMNS):
        return None
    if not all(isinstance(cell, str) for cell in row):
        return None
    are_right = (
        _CELL_RULES[name].is_right(cell)
        for name, cell in zip(MANIFEST_COLUMNS, row, strict=True)
        if name in _CELL_RULES
    )
    return row if all(are_right) else None


def load_manifest(processed: str | Path, columns: Sequence[str] = MANIFEST_COLUMNS) -> pd.DataFrame:
    """Read ``manifest.csv`` as strings, empty cells as empty strings.

    A folder without a manifest gives no rows.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    columns
        Columns to read, the dataset among them; fewer take less time and memory.

    Raises
    ------
    ValueError
        If the file is not a manifest; the message names the row, column and value of a wrong cell.
    """
    import pandas as pd

    path = Path(processed) / "manifest.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(columns), dtype=str)
    # pandas reports rows that are too long only if it reads all columns.
    usecols = None if columns is MANIFEST_COLUMNS else lambda name: name in columns
    try:
        _check_header(path)
        require_whole(path)
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, na_filter=False, usecols=usecols
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a manifest ({printable(str(error).strip())}); delete it and run "
            "preprocess again"
        ) from None
    missing = set(columns) - set(frame.columns) - set(_LATER_COLUMNS)
    if missing:
        raise ValueError(
            f"{path}: columns {', '.join([name for name in columns if name in missing])} are "
            "missing; delete it and run preprocess again"
        )
    frame = map_cells(frame.reindex(columns=list(columns), fill_value=""), plain_cell)
    for column, rule in _CELL_RULES.items():
        if column in frame:
            _check_cells(frame[column], rule, path)
    return frame


class _CellRule(NamedTuple):
    """What the cells of a column are, as a test and in words."""

    is_right: Callable[[str], bool]
    expected: str


def _is_number(least: float, *, above: bool = False) -> Callable[[str], bool]:
    """Return a test for no text, and for a finite number of at least `least` or above it."""

    def test(cell: str) -> bool:
        if not cell:
            return True
        if not _NUMBER.fullmatch(cell) or not math.isfinite(float(cell)):
            return False
        return float(cell) > least if above else float(cell) >= least

    return test


def _is_one_of(*words: str) -> _CellRule:
    return _CellRule(words.__contains__, f"one of {', '.join(filter(None, words))}")


_NUMBER = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[-+]?[0-9]{1,3})?")
_WHOLE = re.compile(r"(?:-?[0-9]{1,15})?")
_CELL_RULES = {
    "dataset": _CellRule(is_plain_name, "a valid dataset name"),
    "fs": _CellRule(_is_number(0, above=True), "a rate in Hz or nothing"),
    "n_samples": _CellRule(lambda cell: bool(_WHOLE.fullmatch(cell)), "a whole number or nothing"),
    "label_source": _is_one_of("", "mapping", "fallback"),
    "fold": _CellRule(lambda cell: bool(_WHOLE.fullmatch(cell)), "a whole number or nothing"),
    "split": _is_one_of("", "train", "val", "test"),
    "status": _is_one_of("", "ok", "missing", "unreadable", "rejected"),
    "age": _CellRule(_is_number(0), "years or nothing"),
    "weight": _CellRule(_is_number(0), "a number of 0 or more, or nothing"),
    **{
        name: _CellRule(_is_number(0), "seconds or nothing")
        for name in ("beat_s", "rr_before_s", "rr_after_s")
    },
}


def _check_cells(column: pd.Series[str], rule: _CellRule, path: Path) -> None:
    """Refuse a cell of another kind than its column; each distinct cell is tested once."""
    wrong = [cell for cell in column.unique() if not rule.is_right(cell)]
    if wrong:
        row = int((column == wrong[0]).to_numpy().argmax()) + 2
        raise ValueError(
            f"{path}: row {row}, column {column.name}, value {printable(repr(wrong[0]), 60)}: "
            f"expected {rule.expected}; restore it, or delete the file and run preprocess again"
        )


def _check_header(path: Path) -> None:
    """Refuse a first line with far more columns than a manifest has, or with one of them twice, and
    a first row of more cells than columns.

    pandas takes seconds over many thousand columns, and gives a second column another name. Of the
    cells that the first row has too many it makes an index, in time that grows with their square.

    Raises
    ------
    ValueError
        The message gives the number of columns or cells, or the columns that are repeated.
    """
    with open_regular(path) as stream:
        header = stream.readline(2**20)
        lines = (
            line.decode(errors="replace") for line in iter(lambda: stream.readline(2**20), b"")
        )
        try:
            n_cells = len(next(csv.reader(lines), []))
        except csv.Error as error:
            raise ValueError(
                f"{path}: not a manifest ({error}); delete it and run preprocess again"
            ) from None
    n_columns = header.count(b",") + 1
    if n_columns > 10 * len(MANIFEST_COLUMNS):
        raise ValueError(
            f"{path}: not a manifest (it has {n_columns} columns); delete it and run "
            "preprocess again"
        )
    if n_cells > n_columns:
        raise ValueError(
            f"{path}: not a manifest (its first row has {n_cells} cells for {n_columns} columns); "
            "delete it and run preprocess again"
        )
    names = [name.strip().strip('"') for name in header.decode(errors="replace").split(",")]
    if repeated := find_repeated(names):
        raise ValueError(
            f"{path}: columns {printable(', '.join(repeated))} are repeated; delete it and run "
            "preprocess again"
        )


def save_manifest(frame: pd.DataFrame, processed: str | Path) -> None:
    """Write ``manifest.csv`` atomically; its texts are safe to open in a spreadsheet."""
    path = Path(processed) / "manifest.csv"
    save_frame(frame[list(MANIFEST_COLUMNS)], path, errors="backslashreplace")


def select_rows(manifest: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a manifest for record keys, in the order of the keys.

    Raises
    ------
    ValueError
        If a record is not in the manifest.
    """
    rows = manifest.set_axis(record_keys(manifest).tolist())
    keys = find_keys(keys, rows.index)
    absent = [key for key in keys if key not in rows.index]
    if absent:
        raise ValueError(
            f"{len(absent)} records are not in the manifest, such as {absent[0]}: give the "
            "manifest of their processed folder"
        )
    return rows[~rows.index.duplicated()].loc[list(keys)]


def find_keys(keys: Iterable[str], known: Collection[str]) -> list[str]:
    """Return keys as `known` spells them; those that it lacks stay as they are.

    Files of predictions may have keys in another Unicode form, or of an earlier version.
    """
    keys = list(keys)
    exact = set(known)
    if exact.issuperset(keys):
        return keys
    spellings = {earlier: key for key, earlier in earlier_keys(exact).items()}
    spellings |= {clean_id(key): key for key in exact}
    return [key if key in exact else spellings.get(clean_id(key), key) for key in keys]


def is_rejected_copy(manifest: pd.DataFrame) -> pd.Series[bool]:
    """Return a mask of the rows rejected as copies of another recording."""
    return (manifest["status"] == "rejected") & manifest["reason"].str.startswith(COPY_REASON)
