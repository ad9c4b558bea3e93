"""LUDB, Lobachevsky University (Kalyakulina et al. 2020): diagnoses in the header comments.

As on physionet.org/content/ludb/1.0.1, a header has ``#<age>: 51``, ``#<sex>: F`` and, after
``#<diagnoses>:``, a statement in each line, such as ``#Rhythm: Sinus bradycardia.`` and
``#Electric axis of the heart: left axis deviation.`` Each of its 200 records is of its own person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.labels.collections.annotation import Source
from src.labels.collections.phrases import label_meaning, load_phrases
from src.labels.collections.rows import (
    CodeReport,
    Request,
    Row,
    age_text,
    build_frame,
    list_files,
    log_unknown_statements,
    read_comments,
    report_missing,
    sex_text,
)
from src.labels.crosswalk import OWN_NAMES, TABLES
from src.records.formats.wfdb_header import parse_comments

if TYPE_CHECKING:
    import pandas as pd


TASKS = ("rhythm", "axis", "conduction", "all")
_AXIS = "axis"
_AXIS_LINE = "electric axis"
# What LUDB describes throughout, in the order of the PTB-XL superclasses
_SUPERCLASSES = ("NORM", "STTC", "CD", "HYP")


def build_ludb(request: Request) -> pd.DataFrame:
    """Build the rows of LUDB: rhythm, electrical axis or conduction, or all of its statements.

    A record without a line on the axis has an undetermined one, which is not annotated.
    """
    task = "" if request.task == "all" or request.classes else request.task
    phrases = load_phrases(TABLES / "ludb_phrases.csv", task)
    axes = load_phrases(TABLES / "ludb_phrases.csv", _AXIS).classes
    known = load_phrases(TABLES / "ludb_phrases.csv")
    source = Source("ludb", OWN_NAMES, phrases.classes, _SUPERCLASSES)
    report = CodeReport(request.dataset, OWN_NAMES, "the statements of LUDB")
    rows: list[Row] = []
    unreadable: list[str] = []
    silent: list[str] = []
    unknown: Counter[str] = Counter()
    for file in list_files(request.root, (".hea",)):
        path = file[:-4]
        try:
            comments = read_comments(request.root / file)
        except (OSError, ValueError):
            # Such as a pipe, or a file that is far too large for a header
            unreadable.append(path)
            continue
        statements = _statements(comments)
        if not statements:
            silent.append(path)
            continue
        unknown.update(known.read_all(statements)[1])
        meaning, _ = phrases.read_all(statements)
        has_axis = any(text.lower().startswith(_AXIS_LINE) for text in statements)
        looked_for = [name for name in phrases.classes if has_axis or name not in axes]
        result = report.add(label_meaning(meaning, looked_for, request.classes, source))
        facts = parse_comments(comments)
        name = path.rsplit("/", 1)[-1]
        rows.append(
            Row(
                record_id=name,
                labels=result.labels,
                annotated=result.annotated,
                patient_id=name,
                path=path,
                age=age_text(facts.get("age")),
                sex=sex_text(facts.get("sex")),
            )
        )
    report_missing(request.dataset, unreadable, "have an unreadable header and are skipped")
    report_missing(request.dataset, silent, "have no <diagnoses> in their header and are skipped")
    log_unknown_statements(request.dataset, unknown)
    report.log()
    return build_frame(request.dataset, rows)


def _statements(comments: Sequence[str]) -> list[str]:
    """Return the lines after ``<diagnoses>:``."""
    lines = iter(comments)
    for line in lines:
        if line.lower().startswith("<diagnoses>"):
            break
    return [line.strip().rstrip(".") for line in lines if line.strip()]
