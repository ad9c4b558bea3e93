"""The page of suspicious labels: their ECGs, and keys to keep, change or drop them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.labels.text_tables import join_list
from src.learning.label_issues import LabelIssue
from src.learning.mistakes import rank_record
from src.learning.predictions import Predictions
from src.plots.report.content import (
    Block,
    Browser,
    Decider,
    Facts,
    Note,
    Section,
    Table,
    text,
    whole,
)
from src.plots.report.examples import EncodedExample, Example, encode_example, load_example
from src.plots.report.page import render_page
from src.processed.manifest import load_manifest, select_rows
from src.processed.record_files import key_parts
from src.processed.targets import LabelledRecords
from src.utils import atomic_path

logger = logging.getLogger(__name__)

_NONE = "The predictions contradict no label."
_HOW = (
    "Keep: the labels are right. Change: the record gets the labels in the field, at first those "
    "suggested. Drop: the record loses its labels and is neither trained on nor evaluated. Save "
    "decisions writes decisions.csv; python -m src relabel writes a label mapping with them."
)


def write_issue_page(
    out: str | Path,
    processed: Path,
    issues: Sequence[LabelIssue],
    predictions: Predictions,
    records: LabelledRecords,
    *,
    by_class: Sequence[tuple[str, int, int, int]],
    by_patient: Sequence[tuple[str, int, int]],
    n_examples: int,
) -> None:
    """Write a page, a single HTML file that needs no network, on which a reader decides on labels.

    Parameters
    ----------
    out
        The page.
    processed
        The processed folder.
    issues
        The suspicious labels, the clearest first.
    predictions, records
        All records that were looked at, in the same order.
    by_class
        For each class its name, its records, and how many should lose and get it.
    by_patient
        Patient, records and suspicious records.
    n_examples
        Number of records shown with their ECG.
    """
    of_record: dict[str, list[LabelIssue]] = {}
    for issue in issues:
        of_record.setdefault(issue.key, []).append(issue)
    shown = list(of_record)[:n_examples]
    row_of = {key: row for row, key in enumerate(records.keys)}
    manifest = select_rows(load_manifest(processed), shown)
    examples, choices = [], []
    for key, row in zip(shown, manifest.to_dict("records"), strict=True):
        example = load_example(processed, rank_record(predictions, row_of[key]), row)
        given = records.labels[row_of[key]]
        examples.append(_encode(example, of_record[key], given))
        choices.append(_choice(key, of_record[key], given, str(row["source_path"])))
    decide: list[Block] = (
        [Note(_HOW), Decider(choices), Browser(examples)] if shown else [Note(_NONE)]
    )
    counts = [_class_table(by_class), _patient_table(by_patient)]
    sections = [
        Section("browser", "Decide", decide),
        Section("counts", "Suspicious labels", counts),
    ]
    facts = [
        ("records", whole(len(records))),
        ("suspicious records", whole(len(of_record))),
        ("patients of these", whole(len(by_patient))),
        ("shown here", whole(len(shown))),
    ]
    page = render_page("Suspicious labels", [Facts(facts, large=True)], sections)
    with atomic_path(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("%s: %.1f MB", out, len(page) / 1e6)


def _encode(example: Example, issues: Sequence[LabelIssue], given: Sequence[str]) -> EncodedExample:
    encoded = encode_example(example)
    encoded["title"] = f"given {join_list(given) or 'none'}: {_suggestions(issues)}"
    encoded["note"] = f"score {issues[0].score:.3f}; {encoded['note']}"
    return encoded


def _suggestions(issues: Sequence[LabelIssue]) -> str:
    return ", ".join(issue.suggestion for issue in issues)


def _choice(
    key: str, issues: Sequence[LabelIssue], given: Sequence[str], path: str
) -> dict[str, str]:
    """Return what the page's script needs to write a decision; lists are joined with ``;``."""
    dropped = {issue.drop for issue in issues}
    suggested = [name for name in given if name not in dropped]
    suggested += [issue.add for issue in issues if issue.add]
    dataset, record_id = key_parts(key)
    return {
        "dataset": dataset,
        "record_id": record_id,
        "given": join_list(given),
        "suggested": join_list(suggested),
        "suggestion": _suggestions(issues),
        "path": path,
    }


def _class_table(by_class: Sequence[tuple[str, int, int, int]]) -> Table:
    rows = [[text(name), *map(whole, counts)] for name, *counts in by_class]
    return Table("By class", ("class", "records", "to lose it", "to get it"), rows)


def _patient_table(by_patient: Sequence[tuple[str, int, int]]) -> Table:
    rows = [[text(patient), whole(n), whole(found)] for patient, n, found in by_patient]
    return Table("By patient", ("patient", "records", "suspicious"), rows, folded=len(rows) > 20)
