"""Records that a model gets most wrong, and records that it gets most and least clearly right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions
from src.utils import Float64Array

# Most probable classes that a record lists, beside those that are true or predicted
_N_SCORES = 3


@dataclass(frozen=True)
class RankedRecord:
    """True and predicted classes of one record.

    Attributes
    ----------
    key
        The record.
    true, predicted
        Classes that are present, and annotated classes that the model predicts.
    scores
        Class -> probability, of those classes and of the three most probable.
    error
        How far a probability lies on the wrong side of the decision, 0 to 1; 0 where everything is
        right.
    """

    key: str
    true: tuple[str, ...]
    predicted: tuple[str, ...]
    scores: dict[str, float]
    error: float

    @property
    def lines(self) -> tuple[str, str]:
        """The true classes and the predicted ones in words."""
        true = " + ".join(self.true) or "none"
        predicted = " + ".join(self.predicted) or "none"
        return f"true: {true}", f"predicted: {predicted}"

    def __str__(self) -> str:
        return ", ".join(self.lines)


def measure_errors(predictions: Predictions) -> Float64Array:
    """Return how far each record is on the wrong side of the decision, shape (n_records,).

    With one label per record it is the probability of the predicted class less that of the true
    one; with several, the greatest distance of a wrong entry from its threshold. It is 0 for a
    record that is right. Entries that are not annotated do not count.
    """
    wrong = _wrong_entries(predictions)
    if predictions.single_label:
        predicted = (predictions.y_score * predictions.y_pred).sum(axis=1)
        true = np.where(predictions.y_true == 1, predictions.y_score, 0).sum(axis=1)
        return np.where(wrong.any(axis=1), predicted - true, 0.0)
    thresholds = DEFAULT_THRESHOLD if predictions.thresholds is None else predictions.thresholds
    distances = np.abs(predictions.y_score - thresholds)
    errors: Float64Array = np.where(wrong, distances, 0).max(axis=1)
    return errors


def find_worst(predictions: Predictions, n_records: int = 6) -> list[RankedRecord]:
    """Return the records that are most wrong, the worst first; fewer where fewer are wrong."""
    errors = measure_errors(predictions)
    # By the entries, not by the error: a tie that is decided wrongly has an error of 0
    is_wrong = np.asarray(_wrong_entries(predictions).any(axis=1))
    order = [row for row in np.argsort(-errors, kind="stable") if is_wrong[row]]
    return [rank_record(predictions, int(row), float(errors[row])) for row in order[:n_records]]


def find_doubtful(predictions: Predictions, n_records: int = 6) -> list[RankedRecord]:
    """Return the records that are right by the least distance, the most doubtful first.

    With one label per record it is the probability of the true class less the highest of the
    others; with several, the least distance of an annotated entry from its threshold.
    """
    y_score = predictions.y_score
    if predictions.single_label:
        is_true = predictions.y_true == 1
        best_other = np.where(is_true, -np.inf, y_score).max(axis=1)
        margins = np.where(is_true, y_score, 0).sum(axis=1) - best_other
    else:
        thresholds = DEFAULT_THRESHOLD if predictions.thresholds is None else predictions.thresholds
        annotated = ~np.isnan(predictions.y_true)
        margins = np.where(annotated, np.abs(y_score - thresholds), np.inf).min(axis=1)
    is_wrong = np.asarray(_wrong_entries(predictions).any(axis=1))
    order = [int(row) for row in np.argsort(margins, kind="stable") if not is_wrong[row]]
    return [rank_record(predictions, row) for row in order[:n_records]]


def find_typical(predictions: Predictions, n_records: int = 6) -> list[RankedRecord]:
    """Return for each class the right record that has the class with the highest probability.

    The classes with most records come first, and no record appears twice.
    """
    is_right = ~_wrong_entries(predictions).any(axis=1)
    rows: list[int] = []
    for column in np.argsort(-(predictions.y_true == 1).sum(axis=0), kind="stable"):
        candidates = np.flatnonzero(is_right & (predictions.y_true[:, column] == 1))
        if len(candidates) and len(rows) < n_records:
            best = int(candidates[predictions.y_score[candidates, column].argmax()])
            if best not in rows:
                rows.append(best)
    return [rank_record(predictions, row) for row in rows]


def _wrong_entries(predictions: Predictions) -> NDArray[np.bool_]:
    """Return a mask of the annotated entries that are decided wrongly, (n_records, n_classes)."""
    annotated = ~np.isnan(predictions.y_true)
    wrong: NDArray[np.bool_] = (predictions.y_pred != predictions.y_true) & annotated
    return wrong


def rank_record(predictions: Predictions, row: int, error: float = 0.0) -> RankedRecord:
    """Return true and predicted classes of the record in a row of the predictions."""
    outcome, scores = predictions.y_true[row], predictions.y_score[row]
    true = outcome == 1
    predicted = (predictions.y_pred[row] == 1) & ~np.isnan(outcome)
    most_probable = np.argsort(-scores, kind="stable")[:_N_SCORES]
    columns = dict.fromkeys([*np.flatnonzero(true | predicted), *most_probable])
    by_score = sorted(columns, key=lambda column: -scores[column])
    return RankedRecord(
        key=predictions.keys[row],
        true=_class_names(predictions, true),
        predicted=_class_names(predictions, predicted),
        scores={predictions.classes[column]: float(scores[column]) for column in by_score},
        error=error,
    )


def _class_names(predictions: Predictions, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(predictions.classes[column] for column in np.flatnonzero(chosen))
