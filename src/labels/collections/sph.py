"""SPH, Shandong Provincial Hospital (Liu et al. 2022): AHA codes in metadata.csv."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from src.labels.collections.annotation import label_record, load_sources
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    index_stems,
    report_missing,
    settle_sexes,
    sex_text,
)
from src.labels.crosswalk import known_codes, load_class_set
from src.labels.ids import id_text
from src.labels.text_tables import read_table

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("all",)
_COLUMNS = ("ecg_id", "aha_code", "patient_id", "age", "sex")
_MODIFIERS = range(300, 400)  # AHA/ACC/HRS statement, table of modifiers


def build_sph(request: Request) -> pd.DataFrame:
    """Build the rows of SPH from the AHA/ACC/HRS statements in metadata.csv."""
    table = find_table(request.root, "metadata.csv")
    classes = request.classes or load_class_set("crosswalk")
    source = load_sources()["sph"]
    paths = index_stems(request.root, (".h5", ".hdf5", ".hea", ".mat"))
    report = CodeReport(request.dataset, "aha", classes.name)
    rows: list[Row] = []
    missing: list[str] = []
    for record in read_table(table, _COLUMNS).rows:
        stem = re.sub(r"\.(h5|hdf5)$", "", record["ecg_id"], flags=re.IGNORECASE)
        if stem not in paths:
            missing.append(stem)
            continue
        result = report.add(label_record(split_statements(record["aha_code"]), source, classes))
        rows.append(
            Row(
                record_id=stem,
                labels=result.labels,
                annotated=result.annotated,
                patient_id=id_text(record["patient_id"]),
                path=paths[stem],
                age=age_text(record["age"]),
                sex=sex_text(record["sex"]),
            )
        )
    report_missing(request.dataset, missing)
    report.log()
    return build_frame(request.dataset, settle_sexes(request.dataset, rows))


def split_statements(text: str) -> list[str]:
    """Return the AHA codes of a cell such as ``22;60+310;145+362``, each once.

    A statement gives its primary code. A primary code and a modifier that together are another
    diagnosis (145+362 is ST depression) give that code as well.
    """
    codes: list[str] = []
    for statement in text.split(";"):
        numbers = re.findall(r"\d+", statement)
        modifiers = [number for number in numbers if int(number) in _MODIFIERS]
        for primary in numbers:
            if primary in modifiers:
                continue
            pairs = [f"{primary}+{modifier}" for modifier in modifiers]
            codes += [primary, *(pair for pair in pairs if pair in known_codes("aha"))]
    return list(dict.fromkeys(codes))
