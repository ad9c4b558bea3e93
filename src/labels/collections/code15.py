"""CODE-15% (Ribeiro et al. 2020): exams.csv beside HDF5 parts.

As on zenodo.org/records/4916206: a row per exam with exam_id, age, is_male, a column of True and
False for each of six findings, patient_id, normal_ecg and trace_file (``exams_part3.hdf5``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.cells import read_flag
from src.labels.collections.annotation import RecordLabels, Source, label_record
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    list_files,
    report_missing,
    settle_sexes,
)
from src.labels.crosswalk import OWN_NAMES, ClassSet
from src.labels.ids import id_text, is_empty_cell
from src.labels.text_tables import open_table
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("findings", "normal")
# Its columns -> the classes of the crosswalk
_FINDINGS = {
    "1davb": "IAVB",
    "rbbb": "RBBB",
    "lbbb": "LBBB",
    "sb": "SB",
    "st": "STach",
    "af": "AF",
}
_NORMAL = {"normal_ecg": "NORM"}
_COLUMNS = ("exam_id", "age", "is_male", "patient_id", "trace_file")


def build_code15(request: Request) -> pd.DataFrame:
    """Build the rows of CODE-15%: six findings, and with the task ``normal`` a normal ECG too.

    Records of parts that are not below the root are skipped.
    """
    with_normal = request.task == "normal" or request.classes is not None
    class_of = {**_FINDINGS, **(_NORMAL if with_normal else {})}
    source = Source("code15", OWN_NAMES, tuple(class_of.values()), ("NORM",))
    report = CodeReport(request.dataset, OWN_NAMES, "the findings of CODE-15%")
    parts = find_parts(request.root)
    path = find_table(request.root, "exams.csv")
    table = open_table(path, (*_COLUMNS, *class_of))
    rows: list[Row] = []
    missing: list[str] = []
    for number, cells in table.lines:
        record = dict.fromkeys(table.header, "") | dict(zip(table.header, cells, strict=False))
        name = id_text(record["exam_id"])
        if record["trace_file"] not in parts:
            missing.append(name)
            continue
        result = report.add(_label(path, number, record, class_of, request.classes, source))
        rows.append(exam_row(record, parts[record["trace_file"]], result))
    report_missing(request.dataset, missing, "are in parts that are not below the root, skipped")
    report.log()
    return build_frame(request.dataset, settle_sexes(request.dataset, rows))


def find_parts(root: Path) -> dict[str, str]:
    """Return the name of each HDF5 file below a folder -> its path relative to it."""
    return {file.rsplit("/", 1)[-1]: file for file in list_files(root, (".hdf5", ".h5"))}


def exam_row(record: Mapping[str, str], part: str, result: RecordLabels) -> Row:
    """Return the row of an exam, with its patient, age and sex."""
    is_male = None if is_empty_cell(record["is_male"]) else read_flag(record["is_male"])
    sex = "" if is_male is None else "M" if is_male else "F"
    return Row(
        record_id=id_text(record["exam_id"]),
        labels=result.labels,
        annotated=result.annotated,
        patient_id=id_text(record["patient_id"]),
        path=part,
        age=age_text(record["age"]),
        sex=sex,
    )


def _label(
    path: Path,
    number: int,
    record: Mapping[str, str],
    class_of: Mapping[str, str],
    classes: ClassSet | None,
    source: Source,
) -> RecordLabels:
    """Return the labels of a row; an empty cell leaves its class open."""
    present, looked_for = read_flags(path, number, record, class_of)
    if classes is None:
        return RecordLabels(present, looked_for)
    return label_record(
        present, Source("code15", OWN_NAMES, looked_for, source.superclasses), classes
    )


def read_flags(
    path: Path, number: int, record: Mapping[str, str], class_of: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes that a row flags, and those for which it has a flag.

    Raises
    ------
    ValueError
        If a cell is no flag; the message names file, row and column.
    """
    present: list[str] = []
    looked_for: list[str] = []
    for column, name in class_of.items():
        cell = record[column]
        if is_empty_cell(cell):
            continue
        flag = read_flag(cell)
        if flag is None:
            raise ValueError(
                f"{path}: row {number}, column {column} is {printable(repr(cell), 60)}: expected "
                "True or False"
            )
        looked_for.append(name)
        if flag:
            present.append(name)
    return tuple(present), tuple(looked_for)
