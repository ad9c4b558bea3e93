"""Which records a model gets most wrong, and which it gets most clearly right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions
from src.utils import Float64Array


@dataclass(frozen=True)
class RankedRecord:
    """What a model said of one record.

    Attributes
    ----------
    key
        The record.
    true, called
        Classes that are there, and those that the model calls, of the annotated ones.
    scores
        Class -> probability, of those classes and of any other that comes next.
    error
        How far a probability lies on the wrong side of the decision, 0 to 1; 0 where everything is
        right.
    """

    key: str
    true: tuple[str, ...]
    predicted: tuple[str, ...]
    scores: dict[str, float]
    error: float

    def __str__(self) -> str:
        return f"{' + '.join(self.true) or 'none'}, called {' + '.join(self.predicted) or 'none'}"


def measure_errors(predictions: Predictions) -> Float64Array:
    """Return for each record how far it is on the wrong side of the decision, shape (n_records,), 0
    where it is right.

    With one label per record it is the probability of the class called less that of the true one;
    with several, the greatest distance of a wrong entry from its threshold. Entries that are not
    annotated do not count.
    """
    wrong = _wrong(predictions)
    if predictions.single_label:
        called = (predictions.y_score * predictions.y_pred).sum(axis=1)
        true = np.where(predictions.y_true == 1, predictions.y_score, 0).sum(axis=1)
        return np.where(wrong.any(axis=1), called - true, 0.0)
    thresholds = DEFAULT_THRESHOLD if predictions.thresholds is None else predictions.thresholds
    errors: Float64Array = np.where(wrong, np.abs(predictions.y_score - thresholds), 0).max(axis=1)
    return errors


def find_worst(predictions: Predictions, n_records: int = 6) -> list[RankedRecord]:
    """Return the records that are most wrong, the worst first; fewer where fewer are wrong."""
    errors, is_wrong = measure_errors(predictions), _wrong(predictions).sum(axis=1) > 0
    order = [
        row for row in np.argsort(-errors, kind="stable") if is_wrong[row]
    ]  # a tie is an error of 0
    return [_verdict(predictions, int(row), float(errors[row])) for row in order[:n_records]]


def find_typical(predictions: Predictions, n_records: int = 6) -> list[RankedRecord]:
    """Return for each class the record that is right and has the class with the highest
    probability.

    The classes with most records come first, and no record stands twice.
    """
    present = (predictions.y_true == 1) & ~_wrong(predictions).any(axis=1, keepdims=True)
    rows: list[int] = []
    for column in np.argsort(-(predictions.y_true == 1).sum(axis=0), kind="stable"):
        candidates = np.flatnonzero(present[:, column])
        if len(candidates) and len(rows) < n_records:
            best = int(candidates[predictions.y_score[candidates, column].argmax()])
            rows += [best] if best not in rows else []
    return [_verdict(predictions, row, 0.0) for row in rows]


def _wrong(predictions: Predictions) -> NDArray[np.bool_]:
    """Return which annotated entries are decided wrongly, shape (n_records, n_classes)."""
    wrong: NDArray[np.bool_] = (predictions.y_pred != predictions.y_true) & ~np.isnan(
        predictions.y_true
    )
    return wrong


def _verdict(predictions: Predictions, row: int, error: float) -> RankedRecord:
    outcome, scores = predictions.y_true[row], predictions.y_score[row]
    called = (predictions.y_pred[row] == 1) & ~np.isnan(outcome)
    shown = dict.fromkeys(
        [*np.flatnonzero((outcome == 1) | called), *np.argsort(-scores, kind="stable")[:3]]
    )
    by_score = sorted(shown, key=lambda column: -scores[column])
    return RankedRecord(
        key=predictions.keys[row],
        true=_names(predictions, outcome == 1),
        predicted=_names(predictions, called),
        scores={predictions.classes[column]: float(scores[column]) for column in by_score},
        error=error,
    )


def _names(predictions: Predictions, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(predictions.classes[column] for column in np.flatnonzero(chosen))
