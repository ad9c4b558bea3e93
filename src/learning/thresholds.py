"""Decision thresholds, chosen on the validation split."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions, check_same_classes
from src.utils import Float64Array

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: for the greatest F1, or as the highest that reaches
    `sensitivity`.
    """

    sensitivity: float | None = None

    @classmethod
    def parse(cls, text: str) -> ThresholdRule | None:
        """Read ``f1``, ``sensitivity=0.9`` or ``none``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        name, _, value = text.partition("=")
        if text in ("none", "f1"):
            return cls() if text == "f1" else None
        try:
            wanted = float(value) if name == "sensitivity" else math.nan
        except ValueError:
            wanted = math.nan
        if not 0 < wanted <= 1:
            raise ValueError(
                f"thresholds is {text!r}: expected f1, none, or sensitivity=X with X "
                "above 0 and up to 1"
            )
        return cls(wanted)

    def __str__(self) -> str:
        return "f1" if self.sensitivity is None else f"sensitivity={self.sensitivity:g}"


@dataclass(frozen=True, eq=False)
class Thresholds:
    """A threshold per class, and the classes left at 0.5 because there was no positive or no
    negative to choose by.
    """

    rule: ThresholdRule
    classes: tuple[str, ...]
    values: Float64Array
    unchanged: tuple[str, ...]

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions decided by these thresholds."""
        check_same_classes(self.classes, predictions)
        return dataclasses.replace(predictions, thresholds=self.values)

    def to_json(self) -> dict[str, Any]:
        """Return rule, values by class and unchanged classes as plain values."""
        values = dict(zip(self.classes, self.values.tolist(), strict=True))
        return {"rule": str(self.rule), "values": values, "unchanged": list(self.unchanged)}


def choose_thresholds(validation: Predictions, rule: ThresholdRule) -> Thresholds:
    """Choose the probability from which each class is called present.

    Each lies halfway between the least score that is called and the next below it. Of equally good
    ones the highest is taken.

    Parameters
    ----------
    validation
        Predictions for records that neither train nor test.
    rule
        What to aim at.

    Raises
    ------
    ValueError
        With one label per record, where the most probable class is called.
    """
    if validation.single_label:
        raise ValueError(
            "thresholds are for several labels per record: with one label the most "
            "probable class is called"
        )
    values, unchanged = np.full(len(validation.classes), DEFAULT_THRESHOLD), []
    for i, name in enumerate(validation.classes):
        known = ~np.isnan(validation.y_true[:, i])
        positive = validation.y_true[known, i] == 1
        if not positive.any() or positive.all():
            unchanged.append(name)
            continue
        values[i] = _choose_threshold(positive, validation.y_score[known, i], rule)
    if unchanged:
        logger.warning(
            "no threshold can be chosen for %s: validation has positives or negatives only",
            ", ".join(unchanged),
        )
    return Thresholds(rule, validation.classes, values, tuple(unchanged))


def _choose_threshold(
    positive: NDArray[np.bool_], score: Float64Array, rule: ThresholdRule
) -> float:
    levels, place = np.unique(score, return_inverse=True)
    at_level = [
        np.bincount(place, weights=weights, minlength=len(levels))
        for weights in (positive, np.ones(len(score)))
    ]
    found, called = (
        np.cumsum(counts[::-1])[::-1] for counts in at_level
    )  # when everything from this level up is called
    if rule.sensitivity is None:
        f1 = 2 * found / (called + positive.sum())
        best = int(np.flatnonzero(f1 == f1.max())[-1])
    else:
        best = int(np.flatnonzero(found >= rule.sensitivity * positive.sum() - 1e-9)[-1])
    below = float(levels[best - 1]) if best else 0.0
    middle = (below + float(levels[best])) / 2
    return middle if middle > below else float(levels[best])
