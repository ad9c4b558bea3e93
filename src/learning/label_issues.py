"""Suspicious labels by confident learning: records whose predictions contradict their labels.

A class is predicted confidently from the mean probability on that its own records have. A record
that is confidently predicted as another class than its label says is suspicious: it counts off the
diagonal of the confident joint (Northcutt, Jiang and Chuang, JAIR 70, 2021). With several labels
per record, each class is such a problem of its own: present or absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import Predictions
from src.utils import Float64Array


@dataclass(frozen=True)
class LabelIssue:
    """A label that the predictions contradict.

    Attributes
    ----------
    key
        The record.
    class_name
        The class in doubt: the given one, or with several labels the one to add or to drop.
    probability
        Of that class.
    score
        How clearly the predictions contradict the label, 0 to 1: half of 1 plus the probability of
        what is suggested less that of what is given (the normalized margin).
    add, drop
        The class that the record should get and the one that it should lose, "" for none.
    """

    key: str
    class_name: str
    probability: float
    score: float
    add: str = ""
    drop: str = ""

    @property
    def suggestion(self) -> str:
        """The change in words: ``change to AF``, ``add AF`` or ``drop NORM``."""
        if self.add and self.drop:
            return f"change to {self.add}"
        return f"add {self.add}" if self.add else f"drop {self.drop}"


def find_label_issues(predictions: Predictions) -> list[LabelIssue]:
    """Return the labels that predictions contradict, the clearest first.

    Classes that were not annotated for a record count neither for it nor for their threshold.

    Parameters
    ----------
    predictions
        Of networks that were not trained on these records; others repeat what they were taught.
    """
    find = _find_changes if predictions.single_label else _find_additions_and_drops
    issues = find(predictions)
    # Equal scores in the order of keys, so that the ranking does not depend on that of the file
    return sorted(issues, key=lambda issue: (-issue.score, issue.key, issue.class_name))


def _find_changes(predictions: Predictions) -> list[LabelIssue]:
    y_score, names = predictions.y_score, predictions.classes
    given = (predictions.y_true == 1).argmax(axis=1)
    suggested = suggest_classes(y_score, given, ~np.isnan(predictions.y_true))
    issues = []
    for row in np.flatnonzero(suggested != given).tolist():
        before, after = int(given[row]), int(suggested[row])
        probability = float(y_score[row, before])
        issues.append(
            LabelIssue(
                predictions.keys[row],
                names[before],
                probability,
                _score(float(y_score[row, after]), probability),
                add=names[after],
                drop=names[before],
            )
        )
    return issues


def _find_additions_and_drops(predictions: Predictions) -> list[LabelIssue]:
    issues = []
    for column, name in enumerate(predictions.classes):
        rows = np.flatnonzero(~np.isnan(predictions.y_true[:, column]))
        present = predictions.y_score[rows, column]
        both = np.stack([1 - present, present], axis=1)  # (n_annotated, 2)
        given = predictions.y_true[rows, column].astype(np.intp)
        suggested = suggest_classes(both, given, np.ones(both.shape, bool))
        for place in np.flatnonzero(suggested != given).tolist():
            is_new = bool(suggested[place])
            score = _score(float(both[place, suggested[place]]), float(both[place, given[place]]))
            issues.append(
                LabelIssue(
                    predictions.keys[int(rows[place])],
                    name,
                    float(present[place]),
                    score,
                    add=name if is_new else "",
                    drop="" if is_new else name,
                )
            )
    return issues


def suggest_classes(
    y_score: Float64Array, given: NDArray[np.intp], annotated: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the class that each record is confidently predicted as, else the given one.

    Parameters
    ----------
    y_score
        Probabilities, shape (n_records, n_classes).
    given
        Column of the given class, shape (n_records,).
    annotated
        Which classes count, shape (n_records, n_classes).
    """
    confident = annotated & (y_score >= class_thresholds(y_score, given))
    best: NDArray[np.intp] = np.where(confident, y_score, -1.0).argmax(axis=1)
    return np.where(confident.any(axis=1), best, given)


def class_thresholds(y_score: Float64Array, given: NDArray[np.intp]) -> Float64Array:
    """Return the mean probability of each class over its own records, shape (n_classes,).

    It is infinite for a class without records, which is never suggested.
    """
    thresholds = np.full(y_score.shape[1], np.inf)
    for column in np.unique(given).tolist():
        thresholds[column] = y_score[given == column, column].mean()
    return thresholds


def _score(suggested: float, given: float) -> float:
    return (1 + suggested - given) / 2
