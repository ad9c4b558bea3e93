"""CPSC 2018 (Liu et al. 2018): nine classes, in REFERENCE.csv or a table of SNOMED CT columns."""

from __future__ import annotations

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
    index_stems,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import known_codes, load_class_set
from src.labels.ids import id_text
from src.labels.text_tables import read_table

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("nine",)
_LABEL_COLUMNS = ("first_label", "second_label", "third_label")


def build_cpsc2018(request: Request) -> pd.DataFrame:
    """Build the rows of CPSC 2018 as first published, or from a table of SNOMED CT columns."""
    table, source = _find_labels(request.root)
    classes = request.classes or load_class_set("crosswalk")
    paths = index_stems(request.root, (".hea", ".mat"))
    report = CodeReport(request.dataset, source.vocabulary, classes.name)
    rows: list[Row] = []
    missing: list[str] = []
    for record in read_table(table).rows:
        name = record.get("recording") or record.get("record") or ""
        if name not in paths:
            missing.append(name)
            continue
        codes = _snomed_codes(record) if source.vocabulary == "snomed" else _codes(record, table)
        result = report.add(label_record(codes, source, classes))
        rows.append(
            Row(
                record_id=name,
                labels=result.labels,
                annotated=result.annotated,
                path=paths[name],
                age=age_text(record.get("age")),
                sex=sex_text(record.get("gender") or record.get("sex")),
            )
        )
    report_missing(request.dataset, missing)
    report.log()
    return build_frame(request.dataset, rows)


def _find_labels(root: Path) -> tuple[Path, Source]:
    """Return the table of labels, and the source that its columns make."""
    try:
        path = find_table(root, "REFERENCE.csv")
    except ValueError:
        path = _find_snomed_table(root)
        columns = [name for name in read_table(path).header if name.isdigit()]
        source = load_sources()["cpsc"]
        codes = _same_classes(columns, source.codes)
        return path, Source("cpsc", "snomed", codes, source.superclasses)
    read_table(path, ("recording", *_LABEL_COLUMNS))
    return path, load_sources()["cpsc2018"]


def _find_snomed_table(root: Path) -> Path:
    for path in sorted(root.glob("*.csv")):
        header = read_table(path).header
        if "record" in header and any(name in known_codes("snomed") for name in header):
            return path
    raise ValueError(
        f"{root}: no REFERENCE.csv with Recording,{','.join(_LABEL_COLUMNS)}, nor a CSV "
        "with record and SNOMED CT columns"
    )


def _same_classes(columns: list[str], codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns whose scored class CPSC 2018 annotates.

    Its RBBB may be listed under the Challenge's other code.
    """
    challenge = load_class_set("challenge2021")
    scored = set(challenge.annotated("snomed", codes))
    same = []
    for code in columns:
        if code in codes or scored & set(challenge.annotated("snomed", [code])):
            same.append(code)
    return tuple(same)


def _snomed_codes(record: dict[str, str]) -> list[str]:
    """Return the SNOMED CT columns that are set in a row."""
    return [
        name for name, cell in record.items() if name.isdigit() and cell not in {"", "0", "0.0"}
    ]


def _codes(record: dict[str, str], table: Path) -> list[str]:
    """Return the numbers of the classes, 1 to 9, in the label columns of a row."""
    cells = [record.get(name, "") for name in _LABEL_COLUMNS]
    codes = [id_text(cell) for cell in cells if cell and cell.lower() != "nan"]
    if not codes:
        raise ValueError(
            f"{table}: record {record['recording']!r} has no label: expected 1 to 9 in First_label"
        )
    return codes
