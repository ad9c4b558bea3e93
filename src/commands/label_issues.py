"""Suspicious labels of a processed folder: those that out-of-fold predictions contradict."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.labels.text_tables import join_list, save_frame
from src.learning.label_issues import LabelIssue, find_label_issues
from src.learning.leaks import TrainingRecordings
from src.learning.predictions import Predictions
from src.learning.score_files import load_scores
from src.learning.score_tables import ScoreTable, folder_labels
from src.learning.text import format_table
from src.plots.report.issues import write_issue_page
from src.processed.mirror import local_copy
from src.processed.record_files import key_parts
from src.processed.targets import (
    LabelledRecords,
    choose_records,
    find_classes,
    join_records,
    load_records,
)
from src.utils import printable

logger = logging.getLogger(__name__)

_PATIENTS_SHOWN = 10


@dataclass(frozen=True, eq=False)
class IssueReport:
    """The suspicious labels of a processed folder, and the records that were looked at.

    Attributes
    ----------
    issues
        The clearest first.
    predictions
        Of all records looked at, with their labels.
    records
        The same records.
    """

    issues: list[LabelIssue]
    predictions: Predictions
    records: LabelledRecords

    @property
    def frame(self) -> pd.DataFrame:
        """A row of texts for each issue, as the CSV holds them."""
        row_of = {key: row for row, key in enumerate(self.records.keys)}
        rows = []
        for rank, issue in enumerate(self.issues, 1):
            row = row_of[issue.key]
            dataset, record_id = key_parts(issue.key)
            rows.append(
                {
                    "rank": str(rank),
                    "dataset": dataset,
                    "record_id": record_id,
                    "class": issue.class_name,
                    "given": join_list(self.records.labels[row]),
                    "probability": f"{issue.probability:.4f}",
                    "score": f"{issue.score:.4f}",
                    "patient": self.records.patients[row],
                    "suggestion": issue.suggestion,
                }
            )
        return pd.DataFrame(rows, columns=list(_COLUMNS), dtype=str)

    def count_classes(self) -> list[tuple[str, int, int, int]]:
        """Return for each class its name, its records, and how often to drop and to add it."""
        drops = Counter(issue.drop for issue in self.issues)
        adds = Counter(issue.add for issue in self.issues)
        n_given = (self.predictions.y_true == 1).sum(axis=0).tolist()
        return [
            (name, int(n), drops[name], adds[name])
            for name, n in zip(self.predictions.classes, n_given, strict=True)
        ]

    def count_patients(self) -> list[tuple[str, int, int]]:
        """Return patient, records and suspicious records, those with most of these first."""
        patient_of = dict(zip(self.records.keys, self.records.patients, strict=True))
        n_records = Counter(self.records.patients)
        suspicious = Counter(patient_of[key] for key in {issue.key for issue in self.issues})
        ranked = sorted(suspicious.items(), key=lambda item: (-item[1], item[0]))
        return [(patient, n_records[patient], n) for patient, n in ranked]

    def __str__(self) -> str:
        n_records = len({issue.key for issue in self.issues})
        by_class = [["class", "records", "to lose it", "to get it"]]
        by_class += [[name, *map(str, counts)] for name, *counts in self.count_classes()]
        patients = self.count_patients()
        by_patient = [["patient", "records", "suspicious"]]
        by_patient += [
            [patient, str(n), str(found)] for patient, n, found in patients[:_PATIENTS_SHOWN]
        ]
        lines = [
            f"{len(self.issues)} suspicious labels in {n_records} of {len(self.records)} records, "
            f"of {len(patients)} patients",
            format_table(by_class),
        ]
        if patients:
            lines += ["patients with most suspicious records", format_table(by_patient)]
        return "\n".join(lines)


_COLUMNS = (
    "rank",
    "dataset",
    "record_id",
    "class",
    "given",
    "probability",
    "score",
    "patient",
    "suggestion",
)


def run_label_issues(
    predictions: str | Path | Predictions,
    processed: str | Path,
    out: str | Path | None = None,
    *,
    target: str = "auto",
    page: str | Path | None = None,
    n_examples: int = 50,
) -> IssueReport:
    """Rank the labels of a processed folder that out-of-fold predictions contradict.

    Parameters
    ----------
    predictions
        Those of cross-fit or cross-validate, of any split, or a file as for
        `src.eval.evaluate_predictions`.
    processed
        The folder that preprocessing filled. Records without a prediction are passed over.
    out
        Gets a row for each suspicious label; None writes none.
    target
        ``single``, ``multi`` or ``auto``, as for `src.eval.evaluate_predictions`.
    page, n_examples
        The page to write, with the ECGs of the first `n_examples` records, on which a reader
        decides; None writes none.

    Raises
    ------
    ValueError
        If the networks were trained on the records that they predict, or no record with a class has
        a prediction.
    """
    if n_examples < 1:
        raise ValueError(f"n_examples is {n_examples}: expected 1 or more records")
    processed = local_copy(processed)
    splits = load_records(processed)
    table = _load_table(predictions, splits)
    records, predicted = _select_predicted(table, splits, target)
    _refuse_trained_on(table, records)
    report = IssueReport(find_label_issues(predicted), predicted, records)
    if out is not None:
        save_frame(report.frame, Path(out))
    if page is not None:
        write_issue_page(
            page,
            processed,
            report.issues,
            report.predictions,
            report.records,
            by_class=report.count_classes(),
            by_patient=report.count_patients(),
            n_examples=n_examples,
        )
    return report


def _load_table(
    predictions: str | Path | Predictions, splits: dict[str, LabelledRecords]
) -> ScoreTable:
    if isinstance(predictions, Predictions):
        table = ScoreTable.of(predictions)
    else:
        table = load_scores(predictions, folder_labels(splits))
    return table.resolve([key for records in splits.values() for key in records.keys])


def _select_predicted(
    table: ScoreTable, splits: dict[str, LabelledRecords], target: str
) -> tuple[LabelledRecords, Predictions]:
    """Return the records that have a prediction and labels to hold against it."""
    everyone = join_records(list(splits.values()))
    has = {key for key, scored in zip(table.keys, table.has_scores, strict=True) if scored}
    rows = [row for row, key in enumerate(everyone.keys) if key in has]
    task = table.choose_task(splits, target, keep_negative=True)
    chosen = choose_records(everyone.subset(rows), task)
    if not len(chosen) or not set(find_classes(chosen)).intersection(task.classes):
        raise ValueError(
            f"{table.source}: predicts no record of the processed folder that carries one of its "
            f"classes ({printable(', '.join(task.classes), 500)})"
        )
    n_unknown = len(has.difference(everyone.keys))
    if n_unknown:
        logger.warning(
            "%s: %d of its records are not in the processed folder", table.source, n_unknown
        )
    logger.info(
        "%s: %s, %d records, %d others have no prediction or no such label",
        table.source,
        task.description,
        len(chosen),
        len(everyone) - len(chosen),
    )
    return chosen, table.predict(chosen, task)


def _refuse_trained_on(table: ScoreTable, records: LabelledRecords) -> None:
    """Refuse predictions of a network for records that it was trained on.

    Out-of-fold predictions carry the recordings of all networks, and say that they are such.
    """
    if table.out_of_fold:
        return
    training = TrainingRecordings(table.train_hashes)
    if not training.are_known:
        logger.warning(
            "%s: does not say which recordings its model was trained on; of those it repeats the "
            "labels, so that wrong ones among them are not found",
            table.source,
        )
    if n_known := training.count(records.signal_hashes):
        raise ValueError(
            f"{table.source}: its network was trained on {n_known} of the {len(records)} records "
            "and repeats their labels: expected out-of-fold predictions, which cross-fit and "
            "cross-validate write (with --resume also those of a finished run again)"
        )


def describe_next_step(page: str | Path | None, issues: Sequence[LabelIssue]) -> str:
    """Return what to do with the page; "" without one."""
    if page is None or not issues:
        return ""
    return (
        f"{page}: open it in a browser, decide, save the decisions and apply them with relabel "
        "--decisions FILE --mapping CSV --out NEW"
    )
