"""Challenge 2025 (Reyna et al. 2025): Chagas disease, in headers or in tables of CODE-15%.

Its preparation writes WFDB files whose headers have ``# Chagas label: True`` and
``# Source: CODE-15%``, SaMi-Trop or PTB-XL. Without them, ``code15_chagas_labels.csv`` (exam_id,
chagas) is read beside ``exams.csv`` and the HDF5 parts of CODE-15%. Labels of CODE-15% are what
patients reported, those of SaMi-Trop and PTB-XL are tested or follow from the region.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import RecordLabels, Source, label_record
from src.labels.collections.challenge import CHAGAS, build_chagas
from src.labels.collections.code15 import exam_row, find_parts, read_flags
from src.labels.collections.rows import (
    Request,
    Row,
    build_frame,
    find_table,
    list_files,
    report_missing,
    settle_sexes,
)
from src.labels.crosswalk import OWN_NAMES
from src.labels.ids import id_text
from src.labels.text_tables import open_table, read_table

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("chagas",)
_LABELS = "code15_chagas_labels.csv"
_EXAMS = ("exam_id", "patient_id")


def build_chagas2025(request: Request) -> pd.DataFrame:
    """Build the rows of the Challenge 2025; patients of CODE-15% where exams.csv is there.

    Without patients, exams of one person may be in two splits.
    """
    if list_files(request.root, (".hea",)):
        return build_chagas(request, _read_patients(request.root))
    return _build_tables(request, find_table(request.root, _LABELS))


def _read_patients(root: Path) -> dict[str, str]:
    """Return exam -> patient of CODE-15%; nothing without exams.csv."""
    try:
        table = open_table(find_table(root, "exams.csv"), _EXAMS)
    except ValueError:
        return {}
    exam, patient = map(table.header.index, _EXAMS)
    most = max(exam, patient)
    return {id_text(row[exam]): id_text(row[patient]) for _, row in table.lines if len(row) > most}


def _build_tables(request: Request, path: Path) -> pd.DataFrame:
    """Build the rows of the HDF5 parts of CODE-15%."""
    table = read_table(path, ("exam_id", "chagas"))
    labels = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        present, looked_for = read_flags(path, number, row, {"chagas": CHAGAS})
        labels[id_text(row["exam_id"])] = (present, looked_for)
    parts = find_parts(request.root)
    columns = ("exam_id", "age", "is_male", "patient_id", "trace_file")
    exams = open_table(find_table(request.root, "exams.csv"), columns)
    rows: list[Row] = []
    missing: list[str] = []
    for _, cells in exams.lines:
        record = dict.fromkeys(exams.header, "") | dict(zip(exams.header, cells, strict=False))
        name = id_text(record["exam_id"])
        if name not in labels or record["trace_file"] not in parts:
            missing.append(name)
            continue
        result = RecordLabels(*labels[name])
        if request.classes is not None:
            source = Source("chagas2025", OWN_NAMES, result.annotated)
            result = label_record(result.labels, source, request.classes)
        rows.append(exam_row(record, parts[record["trace_file"]], result))
    report_missing(request.dataset, missing, "have no Chagas label or no part, skipped")
    return build_frame(request.dataset, settle_sexes(request.dataset, rows))
