"""Decision thresholds, chosen on the validation split."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions, check_same_classes
from src.learning.results import ThresholdValues
from src.utils import Float64Array

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThresholdRule:
    """Rule for choosing a threshold: the greatest F1, or the highest that reaches `sensitivity`."""

    sensitivity: float | None = None

    @classmethod
    def parse(cls, text: str) -> ThresholdRule | None:
        """Read ``f1``, ``sensitivity=0.9`` or ``none``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        if text == "none":
            return None
        if text == "f1":
            return cls()
        name, _, value = text.partition("=")
        try:
            sensitivity = float(value) if name == "sensitivity" else math.nan
        except ValueError:
            sensitivity = math.nan
        # NaN lies in no range
        if not 0 < sensitivity <= 1:
            raise ValueError(
                f"thresholds is {text!r}: expected f1, none, or sensitivity=X with X above 0 and "
                "up to 1"
            )
        return cls(sensitivity)

    def __str__(self) -> str:
        return "f1" if self.sensitivity is None else f"sensitivity={self.sensitivity:g}"


@dataclass(frozen=True, eq=False)
class Thresholds:
    """A threshold per class.

    Classes in `unchanged` have no positive or no negative to choose by and keep what they had: the
    threshold of the predictions, or 0.5.
    """

    rule: ThresholdRule
    classes: tuple[str, ...]
    values: Float64Array
    unchanged: tuple[str, ...]

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions decided by these thresholds."""
        check_same_classes(self.classes, predictions)
        return dataclasses.replace(predictions, thresholds=self.values)

    def to_json(self) -> ThresholdValues:
        """Return rule, values by class and unchanged classes as plain values."""
        values = dict(zip(self.classes, self.values.tolist(), strict=True))
        return {"rule": str(self.rule), "values": values, "unchanged": list(self.unchanged)}


def choose_thresholds(validation: Predictions, rule: ThresholdRule) -> Thresholds:
    """Choose for each class the probability from which it is predicted.

    A threshold lies halfway between the lowest score that is predicted and the next score below.
    Of equally good ones the highest is taken.

    Parameters
    ----------
    validation
        Predictions for records that neither train nor test.
    rule
        The aim: the greatest F1, or a sensitivity.

    Raises
    ------
    ValueError
        With one label per record, where the most probable class is predicted.
    """
    if validation.single_label:
        raise ValueError(
            "thresholds are for several labels per record: with one label the most probable class "
            "is predicted"
        )
    values = np.full(len(validation.classes), DEFAULT_THRESHOLD)
    if validation.thresholds is not None:
        values = validation.thresholds.copy()
    unchanged = []
    for i, name in enumerate(validation.classes):
        annotated = ~np.isnan(validation.y_true[:, i])
        positive = validation.y_true[annotated, i] == 1
        if not positive.any() or positive.all():
            unchanged.append(name)
            continue
        values[i] = _choose_threshold(positive, validation.y_score[annotated, i], rule)
    if unchanged:
        logger.warning(
            "no threshold can be chosen for %s: the records have positives or negatives only",
            ", ".join(unchanged),
        )
    return Thresholds(rule, validation.classes, values, tuple(unchanged))


def _choose_threshold(
    positive: NDArray[np.bool_], score: Float64Array, rule: ThresholdRule
) -> float:
    # Each distinct score is a candidate: the class is predicted from this score upwards
    candidates, place = np.unique(score, return_inverse=True)
    n_positive_at = np.bincount(place, weights=positive, minlength=len(candidates))
    n_records_at = np.bincount(place, minlength=len(candidates))
    n_hits = np.cumsum(n_positive_at[::-1])[::-1]
    n_predicted = np.cumsum(n_records_at[::-1])[::-1]
    n_positive = positive.sum()
    if rule.sensitivity is None:
        f1 = 2 * n_hits / (n_predicted + n_positive)
        good = f1 == f1.max()
    else:
        # Allow for rounding, as 0.9 * 10 may exceed 9
        good = n_hits >= rule.sensitivity * n_positive - 1e-9
    best = int(np.flatnonzero(good)[-1])
    # Move the threshold away from the score itself, so that new scores near it fall on either side
    lowest = float(candidates[best])
    below = float(candidates[best - 1]) if best else 0.0
    middle = (below + lowest) / 2
    # Neighbouring floating-point numbers have no middle
    return middle if middle > below else lowest
