"""PTB-XL (Wagner et al. 2020): ptbxl_database.csv beside the recordings.

The task and class of a statement are the same in all versions of PTB-XL; they are in
``src/labels/tables/ptbxl_statements.csv``.
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
    StemPaths,
    age_text,
    build_frame,
    find_table,
    index_stems,
    report_missing,
    settle_sexes,
)
from src.labels.crosswalk import SUPERCLASSES, TABLES
from src.labels.ids import id_text
from src.labels.text_tables import read_table
from src.utils import printable

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


TASKS = ("superclass", "subclass", "diagnostic", "form", "rhythm", "all")
OPTIONS = ("rate", "min_likelihood", "unvalidated_weight")
_MAX_CELL = 10_000  # characters; no record has a longer cell of statements
_SUFFIX = {100: "_lr", 500: "_hr"}
_COLUMNS = ("patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
_VALIDATED = "validated_by_human"
_TRUE = ("true", "1", "1.0")
_AGE_ABOVE_89 = "300"  # the code of PTB-XL
_AGE_WRITTEN = "90"
_SEX = {"0": "M", "1": "F"}

Labeller = Callable[[Sequence[str]], RecordLabels]
"""From the statements of a record to its labels."""


def build_ptbxl(request: Request) -> pd.DataFrame:
    """Build the rows of PTB-XL: SCP-ECG statements by task, official folds, patients."""
    options = request.options
    table = find_table(request.root, "ptbxl_database.csv")
    rate, paths = _find_signals(request.root, options.rate)
    label, report = _make_labeller(request)
    is_weighted = options.unvalidated_weight != 1
    columns = (*_COLUMNS, _VALIDATED) if is_weighted else _COLUMNS
    rows: list[Row] = []
    missing: list[str] = []
    n_ungraded = 0
    for record in read_table(table, columns).rows:
        stem = Path(record["filename_lr" if rate == 100 else "filename_hr"]).name
        if stem not in paths:
            missing.append(stem)
            continue
        likelihoods = _parse_statements(record["scp_codes"], table, stem)
        statements = _likely(likelihoods, options.min_likelihood)
        n_ungraded += any(
            likelihood == 0 and code not in statements for code, likelihood in likelihoods.items()
        )
        row = _row(record, stem, paths[stem], report.add(label(statements)))
        if is_weighted and record[_VALIDATED].strip().lower() not in _TRUE:
            row.weight = f"{options.unvalidated_weight:g}"
        rows.append(row)
    report_missing(request.dataset, missing)
    report.log()
    if n_ungraded:
        logger.warning(
            "%s: min_likelihood %g ignores the ungraded statements of %d records",
            request.dataset,
            options.min_likelihood,
            n_ungraded,
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


def _find_signals(root: Path, rate: int | None) -> tuple[int, StemPaths]:
    """Return the rate to use in Hz, and stem -> path of its records.

    Without a requested rate it is 500 Hz where such records exist, else 100 Hz.
    """
    if rate is not None and rate not in _SUFFIX:
        raise ValueError(f"rate is {rate}: expected 100 or 500 Hz for PTB-XL")
    by_rate = {hz: StemPaths() for hz in _SUFFIX}
    for stem, path in index_stems(root, (".hea",)).items():
        for hz, suffix in _SUFFIX.items():
            if stem.endswith(suffix):
                by_rate[hz][stem] = path
    if rate is None:
        rate = 500 if by_rate[500] else 100
        if by_rate[500] and by_rate[100]:
            logger.info(
                "%s: holds 100 and 500 Hz; the labels are for 500 Hz (choose with --rate)", root
            )
    if not by_rate[rate]:
        other = 600 - rate
        hint = "expected records100 or records500 below it"
        if by_rate[other]:
            hint = f"it holds {len(by_rate[other])} at {other} Hz"
        raise ValueError(f"{root}: no PTB-XL recordings at {rate} Hz; {hint}")
    return rate, by_rate[rate]


def _parse_statements(text: str, table: Path, stem: str) -> dict[str, float]:
    """Return statement -> likelihood in percent, from a cell such as ``{'NORM': 100.0}``."""
    try:
        parsed = ast.literal_eval(text[:_MAX_CELL])
        return {str(code): float(likelihood) for code, likelihood in parsed.items()}
    except (ValueError, SyntaxError, AttributeError, TypeError, RecursionError, MemoryError):
        raise ValueError(
            f"{table}: record {stem}, scp_codes {printable(repr(text))} is not a table of "
            "statement: likelihood"
        ) from None


def _likely(likelihoods: Mapping[str, float], minimum: float) -> list[str]:
    """Return the statements of at least a likelihood; with a minimum of 0, all of them.

    Likelihood 0 means ungraded, not absent.
    """
    if minimum <= 0:
        return list(likelihoods)
    return [code for code, likelihood in likelihoods.items() if likelihood >= minimum]


# Tasks --------------------------------------------------------------------------------------------


def _make_labeller(request: Request) -> tuple[Labeller, CodeReport]:
    """Return the function that labels a record, and a report for codes without a place."""
    classes = request.classes
    if classes is None or classes.by_superclass:
        task = "superclass" if classes else request.task
        return _task_labeller(task.split("+")), CodeReport(request.dataset, "scp", task)
    source = load_sources()["ptbxl"]
    return (
        lambda codes: label_record(codes, source, classes),
        CodeReport(request.dataset, "scp", classes.name),
    )


def _task_labeller(tasks: Sequence[str]) -> Labeller:
    """Return the function from statements to the classes of the tasks, in order."""
    tables = [load_task(name) for name in tasks]
    ordered: dict[str, None] = {}
    for name, table in zip(tasks, tables, strict=True):
        classes = SUPERCLASSES if name == "superclass" else sorted(set(table.values()) - {""})
        ordered |= dict.fromkeys(classes)
    annotated = tuple(ordered)

    def label(codes: Sequence[str]) -> RecordLabels:
        present = {table.get(code) for table in tables for code in codes}
        unknown = Counter(code for code in codes if code not in tables[0])
        if codes and len(unknown) == len(codes):
            return RecordLabels((OTHER,), (*annotated, OTHER), unknown)
        labels = tuple(name for name in annotated if name in present)
        return RecordLabels(labels, annotated, unknown)

    return label


def load_task(task: str) -> dict[str, str]:
    """Return statement -> class for all 71 statements; empty for those outside the task."""
    rows = read_table(
        TABLES / "ptbxl_statements.csv", ("statement", "superclass", "subclass", "form", "rhythm")
    ).rows
    if task in ("superclass", "subclass"):
        return {row["statement"]: row[task] for row in rows}
    # A statement with a superclass is a diagnostic one.
    column = "superclass" if task == "diagnostic" else task
    class_of = {}
    for row in rows:
        is_in_task = task == "all" or row[column]
        class_of[row["statement"]] = row["statement"] if is_in_task else ""
    return class_of
