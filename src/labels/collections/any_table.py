"""Any table of labels with one row per record, such as a CSV of the user's own."""

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
    sex_text,
)
from src.labels.crosswalk import OWN_NAMES, ClassSet
from src.labels.ids import id_text
from src.labels.mapping import COLUMNS
from src.labels.text_tables import LIST_SEPARATOR, TextTable, read_table

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


TASKS = ("labels",)
OPTIONS = ("columns", "table", "separator")
_FREE_COLUMNS = COLUMNS[1:]  # all but the dataset, which has an option of its own
_SEPARATORS = f"{LIST_SEPARATOR},|"  # signs that tables commonly put between labels


def build_csv(request: Request) -> pd.DataFrame:
    """Build rows from any table that has columns for record_id and mapped_label."""
    separator = request.options.separator
    path = _find_table(request)
    table = read_table(path)
    columns = _match_columns(request, table, path)
    cells = [{ours: record[theirs] for ours, theirs in columns.items()} for record in table.rows]
    labels = [_split(row["mapped_label"], separator) for row in cells]
    _check_labels(request.dataset, labels)
    if request.classes is not None:
        results = _translate(labels, request.dataset, request.classes)
    else:
        annotated = [_split(row.get("annotated", ""), separator) for row in cells]
        results = list(map(RecordLabels, labels, annotated))
    rows = [_row(row, result) for row, result in zip(cells, results, strict=True)]
    _report_unread(request.dataset, cells, rows)
    return build_frame(request.dataset, rows)


def _find_table(request: Request) -> Path:
    """Return the table given by path or by its name in the root, else the only one there."""
    root = request.root
    if request.options.table:
        table = Path(request.options.table)
        return table if table.is_file() else root / table
    tables = sorted(path for pattern in ("*.csv", "*.tsv") for path in root.glob(pattern))
    if len(tables) != 1:
        names = ", ".join(path.name for path in tables[:5]) or "none"
        raise ValueError(
            f"{root}: expected one .csv or .tsv table, found {names}; name the "
            "one to read with --table"
        )
    return tables[0]


def _match_columns(request: Request, table: TextTable, path: Path) -> dict[str, str]:
    """Return our column -> theirs, for columns given as options or named as ours."""
    given = request.options.columns
    if wrong := [name for name in given if name not in _FREE_COLUMNS]:
        raise ValueError(
            f"columns {', '.join(wrong)} are unknown: expected {', '.join(_FREE_COLUMNS)}"
        )
    columns = {name: name for name in _FREE_COLUMNS if name in table.header}
    columns |= {name: theirs.strip().lower() for name, theirs in given.items()}
    header = ", ".join(table.header) or "none"
    if absent := [theirs for theirs in columns.values() if theirs not in table.header]:
        raise ValueError(f"{path}: columns {', '.join(absent)} are missing: found {header}")
    if missing := [name for name in ("record_id", "mapped_label") if name not in columns]:
        raise ValueError(
            f"{path}: which columns are {' and '.join(missing)}? It has {header}; name them "
            f"as in --columns {missing[0]}=NAME"
        )
    return columns


def _split(cell: str, separator: str) -> tuple[str, ...]:
    """Split a cell into labels, each once.

    A list as written by Python or JSON loses its brackets, commas and quotes.
    """
    listed = re.fullmatch(r"\[(.*)\]", cell, re.DOTALL)
    if listed:
        items = listed[1].split(separator if separator in cell else ",")
        parts = [item.strip().strip("'\"") for item in items]
    else:
        parts = cell.split(separator)
    return tuple(dict.fromkeys(label for part in parts if (label := part.strip())))


def _check_labels(dataset: str, labels: Sequence[Sequence[str]]) -> None:
    """Warn if labels contain a sign that often separates them.

    The mapping's own separator inside a label is an error.
    """
    used = dict.fromkeys(label for names in labels for label in names)
    for sign in _SEPARATORS:
        suspects = [label for label in used if sign in label]
        if not suspects:
            continue
        noun = "label contains" if len(suspects) == 1 else "labels contain"
        shown = ", ".join(repr(label) for label in suspects[:5])
        text = (
            f"{dataset}: {len(suspects)} {noun} {sign!r} ({shown}); if it "
            f"separates labels, use --separator {sign!r}"
        )
        if sign == LIST_SEPARATOR:
            raise ValueError(f"{text}, else rename them: it separates labels in the mapping")
        logger.warning(text)


def _translate(
    labels: Sequence[Sequence[str]], dataset: str, classes: ClassSet
) -> list[RecordLabels]:
    """Translate a table's own label names; the source looked for all names that occur."""
    used = tuple(dict.fromkeys(label for names in labels for label in names))
    superclasses: set[str] = set()
    for name in used:
        if (OWN_NAMES, name) in classes.meanings:
            superclasses.update(classes.meanings[OWN_NAMES, name].labels)
    source = Source(dataset, OWN_NAMES, used, tuple(superclasses))
    report = CodeReport(dataset, OWN_NAMES, classes.name)
    results = [report.add(label_record(names, source, classes)) for names in labels]
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
    """Log the ages and sexes that were left empty because they could not be parsed."""
    for name in ("age", "sex"):
        unread = set()
        for texts, row in zip(cells, rows, strict=True):
            if texts.get(name) and not getattr(row, name):
                unread.add(texts[name])
        if unread:
            logger.warning(
                "%s: %s not understood and left empty: %s",
                dataset,
                name,
                ", ".join(sorted(unread)[:10]),
            )
