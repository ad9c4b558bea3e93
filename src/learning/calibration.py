"""What is learned on the validation split once training is over: decision thresholds and calibrated
probabilities.

Nothing here may see the split that is judged; `src.eval.evaluate` refuses it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.learning.metrics import mean_defined
from src.learning.predictions import Predictions, check_same_classes
from src.utils import Float64Array

_TINY = 1e-12  # probabilities are kept this far from 0 and 1 before their logarithm is taken
_SLOPES = (0.01, 100.0)  # rising, so that calibration never turns a ranking round


# Reliability --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reliability:
    """Outcomes by predicted probability, in bins; each array (n_bins,), the means NaN in an empty
    bin.
    """

    counts: Float64Array
    predicted: Float64Array
    observed: Float64Array

    @classmethod
    def of(cls, outcome: ArrayLike, score: ArrayLike, n_bins: int = 10) -> Reliability:
        """Sort outcomes (n,) of 0 and 1 by their probabilities (n,) into bins of equal width; 1.0
        belongs to the last.
        """
        outcome, score = np.asarray(outcome, np.float64), np.asarray(score, np.float64)
        place = np.minimum((score * n_bins).astype(int), n_bins - 1)
        counts = np.bincount(place, minlength=n_bins).astype(np.float64)
        safe = np.where(counts > 0, counts, np.nan)
        sums = (np.bincount(place, weights=values, minlength=n_bins) for values in (score, outcome))
        return cls(counts, *(total / safe for total in sums))

    @property
    def error(self) -> float:
        """The expected calibration error: mean distance of frequency and probability (Naeini et
        al., AAAI 2015).
        """
        if not self.counts.sum():
            return math.nan
        return float(
            np.nansum(self.counts * np.abs(self.observed - self.predicted)) / self.counts.sum()
        )

    def interval(self) -> tuple[Float64Array, Float64Array]:
        """Return Wilson's 95 % interval (1927) of the observed frequencies."""
        z, n = 1.959964, np.where(self.counts > 0, self.counts, np.nan)
        middle = (self.observed + z**2 / (2 * n)) / (1 + z**2 / n)
        half = (
            z
            / (1 + z**2 / n)
            * np.sqrt(self.observed * (1 - self.observed) / n + z**2 / (4 * n**2))
        )
        return middle - half, middle + half


def measure_calibration(predictions: Predictions, n_bins: int = 10) -> dict[str, Any]:
    """Say how far the probabilities are from frequencies.

    Returns
    -------
    dict
        ``ece`` (expected calibration error over all annotated entries), ``ece_macro`` (mean of the
        classes' errors), ``ece_top`` (of the most probable class and whether it is right, Guo et
        al., ICML 2017; None with several labels per record), ``brier`` (mean squared error over all
        annotated entries), ``per_class``: name -> error. None where nothing is annotated.
    """
    known = ~np.isnan(predictions.y_true)
    columns = zip(known.T, predictions.y_true.T, predictions.y_score.T, strict=True)
    errors = np.array([Reliability.of(t[k], s[k], n_bins).error for k, t, s in columns])
    pooled = Reliability.of(predictions.y_true[known], predictions.y_score[known], n_bins).error
    top = None
    if predictions.single_label:
        called = predictions.y_pred == 1
        top = Reliability.of(
            predictions.y_true[called] == 1, predictions.y_score[called], n_bins
        ).error
    return {
        "n_bins": n_bins,
        "ece": None if math.isnan(pooled) else pooled,
        "ece_macro": mean_defined(errors),
        "ece_top": top,
        "brier": mean_defined((predictions.y_score - predictions.y_true).ravel() ** 2),
        "per_class": {
            c: None if math.isnan(e) else float(e)
            for c, e in zip(predictions.classes, errors, strict=True)
        },
    }


# Calibration --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map from probabilities to calibrated ones: ``temperature`` for one label per record,
    ``platt`` for several.

    Attributes
    ----------
    slope, intercept
        Per class, of the logarithms of the probabilities before a softmax, or of their log odds
        before a sigmoid. A temperature T is the slope 1 / T of every class.
    unchanged
        Classes that there was nothing to fit by.
    """

    method: str
    classes: tuple[str, ...]
    slope: Float64Array
    intercept: Float64Array
    unchanged: tuple[str, ...] = ()

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions with calibrated probabilities and no thresholds, which belong to the
        old ones.
        """
        check_same_classes(self.classes, predictions)
        if bool(predictions.single_label) != (self.method == "temperature"):
            raise ValueError(
                f"{self.method} calibration does not fit predictions with "
                f"single_label={predictions.single_label}"
            )
        if self.method == "temperature":
            scores = np.exp(_log_softmax(_log(predictions.y_score) * self.slope))
        else:
            scores = _sigmoid(_log_odds(predictions.y_score) * self.slope + self.intercept)
        return dataclasses.replace(predictions, y_score=scores, thresholds=None)

    def to_json(self) -> dict[str, Any]:
        """Return the method and its parameters as plain values."""
        if self.method == "temperature":
            return {"method": self.method, "temperature": float(1 / self.slope[0])}
        pairs = zip(self.classes, self.slope.tolist(), self.intercept.tolist(), strict=True)
        values = {
            name: {"slope": slope, "intercept": intercept} for name, slope, intercept in pairs
        }
        return {"method": self.method, "values": values, "unchanged": list(self.unchanged)}


def fit_calibration(validation: Predictions) -> Calibration:
    """Fit a calibration on predictions for records that neither train nor test.

    With one label per record a temperature (Guo et al., ICML 2017), which leaves every decision as
    it was; with several a sigmoid for each class, fitted to Platt's smoothed targets (Platt,
    Advances in Large Margin Classifiers, 1999).

    Raises
    ------
    ValueError
        If there is no record.
    """
    if not validation.keys:
        raise ValueError("there are no predictions to calibrate on: expected validation records")
    n_classes = len(validation.classes)
    if validation.single_label:
        slope = np.full(n_classes, 1 / _fit_temperature(validation))
        return Calibration("temperature", validation.classes, slope, np.zeros(n_classes))
    parameters, unchanged = np.tile([1.0, 0.0], (n_classes, 1)), []
    for i, name in enumerate(validation.classes):
        known = ~np.isnan(validation.y_true[:, i])
        positive = validation.y_true[known, i] == 1
        if not positive.any() or positive.all():
            unchanged.append(name)
        else:
            parameters[i] = _fit_sigmoid(positive, _log_odds(validation.y_score[known, i]))
    return Calibration(
        "platt", validation.classes, parameters[:, 0], parameters[:, 1], tuple(unchanged)
    )


def _fit_temperature(validation: Predictions) -> float:
    """Minimise the cross-entropy over the temperature; it has one minimum, being convex in 1 /
    T.
    """
    from scipy.optimize import minimize_scalar

    unknown = np.isnan(validation.y_true)
    log_scores, right = np.where(unknown, -np.inf, _log(validation.y_score)), validation.y_true == 1

    def loss(log_temperature: float) -> float:
        return -float(_log_softmax(log_scores * math.exp(-log_temperature))[right].mean())

    found = minimize_scalar(
        loss, bounds=tuple(np.log(_SLOPES)), method="bounded", options={"xatol": 1e-8}
    )
    return math.exp(found.x)


def _fit_sigmoid(positive: NDArray[np.bool_], log_odds: Float64Array) -> Float64Array:
    """Return slope and intercept that minimise the cross-entropy, which is convex in them."""
    from scipy.optimize import minimize

    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss(parameters: Float64Array) -> tuple[float, Float64Array]:
        logits = parameters[0] * log_odds + parameters[1]
        value = np.logaddexp(0, logits) - target * logits
        slope = _sigmoid(logits) - target
        return float(value.mean()), np.array([(slope * log_odds).mean(), slope.mean()])

    bounds = [_SLOPES, (None, None)]
    found = minimize(
        loss,
        [1.0, 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return np.asarray(found.x, np.float64)


def _log(scores: Float64Array) -> Float64Array:
    logarithms: Float64Array = np.log(np.maximum(scores, _TINY))
    return logarithms


def _log_odds(scores: Float64Array) -> Float64Array:
    scores = np.clip(scores, _TINY, 1 - _TINY)
    odds: Float64Array = np.log(scores) - np.log1p(-scores)
    return odds


def _sigmoid(logits: Float64Array) -> Float64Array:
    probabilities: Float64Array = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def _log_softmax(logits: Float64Array) -> Float64Array:
    logits = logits - logits.max(axis=1, keepdims=True)
    normalised: Float64Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return normalised
