"""CPSC 2018 (Liu et al. 2018) and SPH (Liu et al. 2022), which come with a table of codes each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import Source, label_record, load_sources
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    find_table,
    id_text,
    index_stems,
    report_missing,
    settle_sexes,
    sex_text,
)
from src.labels.crosswalk import known_codes, load_class_set
from src.labels.text_tables import read_table

if TYPE_CHECKING:
    import pandas as pd


CPSC_TASKS = ("nine",)
SPH_TASKS = ("all",)
_CPSC_COLUMNS = ("first_label", "second_label", "third_label")
_MODIFIERS = range(300, 400)  # AHA/ACC/HRS statement, table of modifiers


def build_cpsc2018(request: Request) -> pd.DataFrame:
    """CPSC 2018 as first published: nine classes from REFERENCE.csv, or a table of SNOMED CT
    columns.
    """
    table, source = _cpsc_table(request.root)
    classes = request.classes or load_class_set("crosswalk")
    found = index_stems(request.root, (".hea", ".mat"))
    report = CodeReport(request.dataset, source.vocabulary, classes.name)
    rows, missing = [], []
    for record in read_table(table).rows:
        name = record.get("recording") or record.get("record") or ""
        if name not in found:
            missing.append(name)
            continue
        result = report.add(label_record(_cpsc_codes(record, source, table), source, classes))
        age, sex = age_text(record.get("age")), sex_text(record.get("gender") or record.get("sex"))
        rows.append(Row(name, result.labels, result.annotated, path=found[name], age=age, sex=sex))
    report_missing(request.dataset, missing)
    report.log()
    return build_frame(request.dataset, rows)


def _cpsc_table(root: Path) -> tuple[Path, Source]:
    """Return the table of labels and the source that its columns make."""
    try:
        path = find_table(root, "REFERENCE.csv")
    except ValueError:
        path = _snomed_table(root)
        columns = tuple(name for name in read_table(path).header if name.isdigit())
        held = load_sources()["cpsc"]
        return path, Source("cpsc", "snomed", tuple(_same(columns, held.codes)), held.superclasses)
    read_table(path, ("recording", *_CPSC_COLUMNS))
    return path, load_sources()["cpsc2018"]


def _same(columns: tuple[str, ...], codes: tuple[str, ...]) -> list[str]:
    """Return the columns whose scored class CPSC 2018 annotates; its RBBB may stand under the
    Challenge's other code.
    """
    scored = load_class_set("challenge2021").annotated("snomed", codes)
    return [
        code
        for code in columns
        if code in codes
        or set(load_class_set("challenge2021").annotated("snomed", [code])) & set(scored)
    ]


def _snomed_table(root: Path) -> Path:
    for path in sorted(root.glob("*.csv")):
        header = read_table(path).header
        if "record" in header and any(name in known_codes("snomed") for name in header):
            return path
    raise ValueError(
        f"{root}: no REFERENCE.csv with Recording,{','.join(_CPSC_COLUMNS)}, nor a CSV "
        "with record and SNOMED CT columns"
    )


def _cpsc_codes(record: dict[str, str], source: Source, table: Path) -> list[str]:
    if source.vocabulary == "snomed":
        return [
            name for name, cell in record.items() if name.isdigit() and cell not in {"", "0", "0.0"}
        ]
    codes = [
        id_text(record[name])
        for name in _CPSC_COLUMNS
        if record.get(name) and record[name].lower() != "nan"
    ]
    if not codes:
        raise ValueError(
            f"{table}: record {record['recording']!r} has no label: expected 1 to 9 in First_label"
        )
    return codes


def build_sph(request: Request) -> pd.DataFrame:
    """SPH (Shandong Provincial Hospital): AHA/ACC/HRS statements from metadata.csv."""
    table = find_table(request.root, "metadata.csv")
    classes = request.classes or load_class_set("crosswalk")
    found = index_stems(request.root, (".h5", ".hdf5", ".hea", ".mat"))
    report = CodeReport(request.dataset, "aha", classes.name)
    rows, missing = [], []
    for record in read_table(table, ("ecg_id", "aha_code", "patient_id", "age", "sex")).rows:
        stem = re.sub(r"\.(h5|hdf5)$", "", record["ecg_id"], flags=re.IGNORECASE)
        if stem not in found:
            missing.append(stem)
            continue
        result = report.add(
            label_record(split_statements(record["aha_code"]), load_sources()["sph"], classes)
        )
        age, sex = age_text(record["age"]), sex_text(record["sex"])
        rows.append(
            Row(
                stem,
                result.labels,
                result.annotated,
                id_text(record["patient_id"]),
                path=found[stem],
                age=age,
                sex=sex,
            )
        )
    report_missing(request.dataset, missing)
    report.log()
    return build_frame(request.dataset, settle_sexes(request.dataset, rows))


def split_statements(text: str) -> list[str]:
    """Return the AHA codes of a cell such as ``22;60+310;145+362``, each once.

    Of a statement with modifiers the primary code is kept; together with a modifier that makes
    another diagnosis of it (145+362 is ST depression) it gives that code as well.
    """
    codes: list[str] = []
    for statement in text.split(";"):
        tokens = re.findall(r"\d+", statement)
        modifiers = [token for token in tokens if int(token) in _MODIFIERS]
        for primary in (token for token in tokens if token not in modifiers):
            pairs = (f"{primary}+{modifier}" for modifier in modifiers)
            codes += [primary, *(pair for pair in pairs if pair in known_codes("aha"))]
    return list(dict.fromkeys(codes))
