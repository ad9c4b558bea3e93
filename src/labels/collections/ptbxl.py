"""PTB-XL (Wagner et al. 2020): ptbxl_database.csv beside the recordings.

Which statement belongs to which task and class is the same in all its versions, and stands in
``src/tables/ptbxl_statements.csv``.
"""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.labels.collections.annotation import OTHER, RecordLabels, label_record, load_sources
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
)
from src.labels.crosswalk import SUPERCLASSES, TABLES
from src.labels.text_tables import read_table
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


TASKS = ("superclass", "subclass", "diagnostic", "form", "rhythm", "all")
_MAX_CELL = 10_000  # characters; a longer table of codes is no record's
_SUFFIX = {100: "_lr", 500: "_hr"}
_COLUMNS = ("patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
_VALIDATED, _TRUE = "validated_by_human", ("true", "1", "1.0")
_AGE_ABOVE_89, _AGE_WRITTEN = "300", "90"
_SEX = {"0": "M", "1": "F"}


def build_ptbxl(request: Request) -> pd.DataFrame:
    """PTB-XL: SCP-ECG statements by task, official folds, patients."""
    table = find_table(request.root, "ptbxl_database.csv")
    rate, found = _find_signals(request.root, request.rate)
    label, report = _labeller(request)
    rows, missing, ungraded = [], [], 0
    weighted = request.unvalidated_weight != 1
    for record in read_table(table, (*_COLUMNS, _VALIDATED) if weighted else _COLUMNS).rows:
        stem = Path(record["filename_lr" if rate == 100 else "filename_hr"]).name
        if stem not in found:
            missing.append(stem)
            continue
        statements = _parse_statements(record["scp_codes"], table, stem)
        counted = _graded(statements, request.min_likelihood)
        ungraded += any(
            likelihood == 0 for code, likelihood in statements.items() if code not in counted
        )
        row = _row(record, stem, found[stem], report.add(label(counted)))
        if weighted and record[_VALIDATED].strip().lower() not in _TRUE:
            row.weight = f"{request.unvalidated_weight:g}"
        rows.append(row)
    report_missing(request.dataset, missing)
    report.log()
    if ungraded:
        logger.warning(
            "%s: min_likelihood %g leaves out the ungraded statements of %d records",
            request.dataset,
            request.min_likelihood,
            ungraded,
        )
    return build_frame(request.dataset, settle_sexes(request.dataset, rows))


def _row(record: Mapping[str, str], stem: str, path: str, result: RecordLabels) -> Row:
    age = id_text(record["age"])
    return Row(
        record_id=stem,
        labels=result.labels,
        annotated=result.annotated,
        patient_id=id_text(record["patient_id"]),
        fold=id_text(record["strat_fold"]),
        path=path,
        age=_AGE_WRITTEN if age == _AGE_ABOVE_89 else age_text(age),
        sex=_SEX.get(id_text(record["sex"]), ""),
    )


def _find_signals(root: Path, rate: int | None) -> tuple[int, dict[str, str]]:
    """Return the rate to use, the wanted one or else 500 before 100, and stem -> path of its
    records.
    """
    if rate is not None and rate not in _SUFFIX:
        raise ValueError(f"rate is {rate}: expected 100 or 500 Hz for PTB-XL")
    stems = index_stems(root, (".hea",))
    held = {
        hz: {stem: path for stem, path in stems.items() if stem.endswith(suffix)}
        for hz, suffix in _SUFFIX.items()
    }
    if rate is None:
        rate = 500 if held[500] else 100
        if held[500] and held[100]:
            logger.info(
                "%s: holds 100 and 500 Hz; the labels are for 500 Hz (choose with --rate)", root
            )
    if not held[rate]:
        other = 600 - rate
        hint = (
            f"; it holds {len(held[other])} at {other} Hz"
            if held[other]
            else "; expected records100 or records500 below it"
        )
        raise ValueError(f"{root}: no PTB-XL recordings at {rate} Hz{hint}")
    return rate, held[rate]


def _parse_statements(text: str, table: Path, stem: str) -> dict[str, float]:
    try:
        parsed = ast.literal_eval(text[:_MAX_CELL])
        return {str(code): float(likelihood) for code, likelihood in parsed.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"{table}: record {stem}, scp_codes {printable(repr(text))} is not a table of "
            "statement: likelihood"
        ) from None


def _graded(statements: Mapping[str, float], minimum: float) -> list[str]:
    """Return the statements that count: all when the minimum is 0, as likelihood 0 means ungraded
    and not absent.
    """
    return [
        code for code, likelihood in statements.items() if minimum <= 0 or likelihood >= minimum
    ]


def _labeller(request: Request) -> tuple[Callable[[Sequence[str]], RecordLabels], CodeReport]:
    """Return the function from a record's statements to its labels, and the report of codes without
    a place.
    """
    if request.classes is not None and not request.classes.by_superclass:
        classes, source = request.classes, load_sources()["ptbxl"]
        return lambda codes: label_record(codes, source, classes), CodeReport(
            request.dataset, "scp", classes.name
        )
    task = "superclass" if request.classes else request.task
    tables = [load_task(name) for name in task.split("+")]
    named = [
        SUPERCLASSES if name == "superclass" else sorted(set(table.values()) - {""})
        for name, table in zip(task.split("+"), tables, strict=True)
    ]
    ordered = tuple(dict.fromkeys(name for names in named for name in names))

    def by_task(codes: Sequence[str]) -> RecordLabels:
        present = {table.get(code) for table in tables for code in codes}
        unknown = Counter(code for code in codes if code not in tables[0])
        labels = tuple(name for name in ordered if name in present)
        if codes and len(unknown) == len(codes):
            return RecordLabels((OTHER,), (*ordered, OTHER), unknown)
        return RecordLabels(labels, ordered, unknown)

    return by_task, CodeReport(request.dataset, "scp", task)


def load_task(task: str) -> dict[str, str]:
    """Return statement -> class of all 71 statements, empty for those that are outside the task."""
    rows = read_table(
        TABLES / "ptbxl_statements.csv", ("statement", "superclass", "subclass", "form", "rhythm")
    ).rows
    if task in ("superclass", "subclass"):
        return {row["statement"]: row[task] for row in rows}
    column = (
        "superclass" if task == "diagnostic" else task
    )  # a statement with a superclass is a diagnostic one
    return {
        row["statement"]: row["statement"] if task == "all" or row[column] else "" for row in rows
    }
