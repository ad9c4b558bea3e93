"""Any table of labels with one row per record."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import RecordLabels, Source, label_record
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    id_text,
    sex_text,
)
from src.labels.crosswalk import OWN_NAMES
from src.labels.mapping import COLUMNS
from src.labels.text_tables import LIST_SEPARATOR, TextTable, read_table

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


TASKS = ("labels",)
_FREE_COLUMNS = COLUMNS[1:]  # the dataset is given by name
_SEPARATORS = f"{LIST_SEPARATOR},|"  # signs that tables put between labels


def build_csv(request: Request) -> pd.DataFrame:
    """Any CSV table: name the columns for record_id and mapped_label, and for others it has."""
    path = _find_table(request)
    table = read_table(path)
    columns = _columns(request, table, path)
    cells = [{name: record[theirs] for name, theirs in columns.items()} for record in table.rows]
    labels = [_split(row["mapped_label"], request.separator) for row in cells]
    _check_labels(request, labels)
    results = [
        RecordLabels(names, _split(row.get("annotated", ""), request.separator))
        for names, row in zip(labels, cells, strict=True)
    ]
    if request.classes is not None:
        results = _translate(labels, request)
    rows = [_row(row, result) for row, result in zip(cells, results, strict=True)]
    _report_unread(request.dataset, cells, rows)
    return build_frame(request.dataset, rows)


def _find_table(request: Request) -> Path:
    """Return the named table, which may lie in the root, or the only one there."""
    if request.table is not None:
        return request.table if request.table.is_file() else request.root / request.table
    tables = sorted(path for pattern in ("*.csv", "*.tsv") for path in request.root.glob(pattern))
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables[:5]) or "none"
        raise ValueError(
            f"{request.root}: expected one .csv or .tsv table, found {found}; name the "
            "one to read with --table"
        )
    return tables[0]


def _columns(request: Request, table: TextTable, path: Path) -> dict[str, str]:
    """Return our column -> theirs, for those that were named and those that have our name
    already.
    """
    if wrong := [name for name in request.columns if name not in _FREE_COLUMNS]:
        raise ValueError(
            f"columns {', '.join(wrong)} are unknown: expected {', '.join(_FREE_COLUMNS)}"
        )
    named = {name: theirs.strip().lower() for name, theirs in request.columns.items()}
    columns = {name: name for name in _FREE_COLUMNS if name in table.header} | named
    found = ", ".join(table.header) or "none"
    if missing := [theirs for theirs in columns.values() if theirs not in table.header]:
        raise ValueError(f"{path}: columns {', '.join(missing)} are missing: found {found}")
    if missing := [name for name in ("record_id", "mapped_label") if name not in columns]:
        raise ValueError(
            f"{path}: which columns are {' and '.join(missing)}? It has {found}; say it "
            f"as in --columns {missing[0]}=NAME"
        )
    return columns


def _split(cell: str, separator: str) -> tuple[str, ...]:
    """Split a cell into labels, each once; a list as Python or JSON writes it loses its brackets,
    commas and quotes.
    """
    if listed := re.fullmatch(r"\[(.*)\]", cell, re.DOTALL):
        parts = [
            part.strip().strip("'\"")
            for part in listed[1].split(separator if separator in cell else ",")
        ]
    else:
        parts = cell.split(separator)
    return tuple(dict.fromkeys(label for part in parts if (label := part.strip())))


def _check_labels(request: Request, labels: Sequence[Sequence[str]]) -> None:
    """Log a sign that often separates labels and was left inside them; the mapping's own separator
    cannot stay.
    """
    used = dict.fromkeys(label for names in labels for label in names)
    for sign in _SEPARATORS:
        if holding := [label for label in used if sign in label]:
            shown = ", ".join(repr(label) for label in holding[:5])
            text = (
                f"{request.dataset}: {len(holding)} labels hold {sign!r} ({shown}); if it "
                f"stands between labels, give --separator {sign!r}"
            )
            if sign == LIST_SEPARATOR:
                raise ValueError(f"{text}, else rename them: the mapping separates labels by it")
            logger.warning(text)


def _translate(labels: Sequence[Sequence[str]], request: Request) -> list[RecordLabels]:
    """Translate a table's own label names, of which those that occur count as looked for."""
    assert request.classes is not None
    used = tuple(dict.fromkeys(label for names in labels for label in names))
    meanings = [
        request.classes.meanings[OWN_NAMES, name]
        for name in used
        if (OWN_NAMES, name) in request.classes.meanings
    ]
    source = Source(
        request.dataset,
        OWN_NAMES,
        used,
        tuple({label for meaning in meanings for label in meaning.labels}),
    )
    report = CodeReport(request.dataset, OWN_NAMES, request.classes.name)
    results = [report.add(label_record(names, source, request.classes)) for names in labels]
    report.log()
    return results


def _row(cells: dict[str, str], result: RecordLabels) -> Row:
    return Row(
        record_id=cells["record_id"],
        labels=result.labels,
        annotated=result.annotated,
        patient_id=id_text(cells.get("patient_id", "")),
        fold=id_text(cells.get("fold", "")),
        path=cells.get("path", ""),
        age=age_text(cells.get("age", "")),
        sex=sex_text(cells.get("sex", "")),
        weight=cells.get("weight", ""),
    )


def _report_unread(dataset: str, cells: Sequence[dict[str, str]], rows: Sequence[Row]) -> None:
    """Log the ages and sexes that were left empty because their spelling means nothing here."""
    for name in ("age", "sex"):
        texts = {
            row.get(name, "")
            for row, read in zip(cells, rows, strict=True)
            if row.get(name) and not getattr(read, name)
        }
        if texts:
            logger.warning(
                "%s: %s not understood and left empty: %s",
                dataset,
                name,
                ", ".join(sorted(texts)[:10]),
            )
