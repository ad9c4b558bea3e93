"""Chapman-Shaoxing and Ningbo (Zheng et al. 2020): WFDB with SNOMED CT codes, or the CSV original.

ecg-arrhythmia 1.0.0 on PhysioNet has ``WFDBRecords/01/010/JS00001.hea`` with a line ``#Dx``. The
original on figshare has ``ECGData/MUSE_*.csv`` (a column per lead, in uV at 500 Hz) and
``Diagnostics.xlsx`` with FileName, Rhythm, Beat, PatientAge and Gender, which is to be saved as
``Diagnostics.csv``. What its acronyms mean in SNOMED CT is from ConditionNames_SNOMED-CT.csv of
ecg-arrhythmia.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import label_record, load_sources
from src.labels.collections.challenge import TASKS as TASKS
from src.labels.collections.challenge import build_sources, class_set_of
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    index_stems,
    log_unknown_statements,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import TABLES
from src.labels.text_tables import read_table

if TYPE_CHECKING:
    import pandas as pd


_COLUMNS = ("filename", "rhythm", "beat", "patientage", "gender")
_NONE = frozenset({"", "NONE", "NAN"})
# The measured samples, beside denoised ones
_ORIGINAL = "ECGData"


def build_chapman(request: Request) -> pd.DataFrame:
    """Build the rows of Chapman-Shaoxing and Ningbo, from headers or from Diagnostics.csv.

    Rows of the CSV original name the measured signals in ``ECGData``, or the denoised ones where
    only these are there.
    """
    try:
        table = find_table(request.root, "Diagnostics.csv")
    except ValueError:
        _refuse_workbook(request.root)
        return build_sources(request, ("chapman", "ningbo"))
    return _build_original(request, table)


def _refuse_workbook(root: Path) -> None:
    try:
        workbook = find_table(root, "Diagnostics.xlsx")
    except ValueError:
        return
    raise ValueError(f"{workbook}: is a workbook: save it as Diagnostics.csv beside it")


def _build_original(request: Request, table: Path) -> pd.DataFrame:
    classes = class_set_of(request)
    source = load_sources()["chapman"]
    code_of = {
        row["acronym"]: row["snomed"]
        for row in read_table(TABLES / "chapman_acronyms.csv", ("acronym", "snomed")).rows
    }
    stems = index_stems(request.root, (".csv",))
    for stem, path in index_stems(request.root / _ORIGINAL, (".csv",)).items():
        stems[stem] = f"{_ORIGINAL}/{path}"
    report = CodeReport(request.dataset, "snomed", classes.name)
    rows: list[Row] = []
    missing: list[str] = []
    unknown: Counter[str] = Counter()
    for record in read_table(table, _COLUMNS).rows:
        name = record["filename"]
        if name not in stems:
            missing.append(name)
            continue
        words = re.split(r"[\s,;]+", f"{record['rhythm']} {record['beat']}")
        acronyms = [word for word in dict.fromkeys(words) if word.upper() not in _NONE]
        unknown.update(word for word in acronyms if word not in code_of)
        codes = [code_of[word] for word in acronyms if code_of.get(word)]
        result = report.add(label_record(list(dict.fromkeys(codes)), source, classes))
        rows.append(
            Row(
                record_id=name,
                labels=result.labels,
                annotated=result.annotated,
                path=f"{stems[name]}.csv",
                age=age_text(record["patientage"]),
                sex=sex_text(record["gender"]),
            )
        )
    report_missing(request.dataset, missing)
    log_unknown_statements(request.dataset, unknown)
    report.log()
    return build_frame(request.dataset, rows)
