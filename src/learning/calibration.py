"""Reliability of probabilities, and calibrations fitted on the validation split.

A calibration must not see the split that is evaluated; `src.eval.evaluate` refuses it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.learning.metrics import mean_defined, none_for_nan
from src.learning.predictions import Predictions, check_same_classes
from src.learning.results import CalibrationErrors, CalibrationParameters, SigmoidParameters
from src.utils import Float64Array

logger = logging.getLogger(__name__)

# Probabilities are kept this far from 0 and 1 before their logarithm is taken
_TINY = 1e-12

# Limits of a slope: always positive, so that calibration never reverses a ranking
_SLOPES = (0.01, 100.0)


# Reliability --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Reliability:
    """Outcomes by predicted probability, in bins of equal width.

    Attributes
    ----------
    counts
        Entries in each bin, shape (n_bins,).
    predicted
        Their mean probability, shape (n_bins,), NaN in an empty bin.
    observed
        Their frequency of positives, shape (n_bins,), NaN in an empty bin.
    """

    counts: Float64Array
    predicted: Float64Array
    observed: Float64Array

    @classmethod
    def of(cls, outcome: ArrayLike, score: ArrayLike, n_bins: int = 10) -> Reliability:
        """Sort outcomes (n,) of 0 and 1 by their probabilities (n,) into bins of equal width."""
        outcome, score = np.asarray(outcome, np.float64), np.asarray(score, np.float64)
        # A probability of 1.0 belongs to the last bin
        place = np.minimum((score * n_bins).astype(int), n_bins - 1)
        counts = np.bincount(place, minlength=n_bins).astype(np.float64)
        # Dividing by NaN gives NaN in empty bins
        divisor = np.where(counts > 0, counts, np.nan)
        predicted = np.bincount(place, weights=score, minlength=n_bins) / divisor
        observed = np.bincount(place, weights=outcome, minlength=n_bins) / divisor
        return cls(counts, predicted, observed)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of frequency and probability over entries.

        Naeini et al., AAAI 2015. NaN without entries.
        """
        if not self.counts.sum():
            return math.nan
        distances = np.abs(self.observed - self.predicted)
        return float(np.nansum(self.counts * distances) / self.counts.sum())

    def interval(self) -> tuple[Float64Array, Float64Array]:
        """Return the ends of Wilson's 95 % interval (1927) of the observed frequencies."""
        z = 1.959964
        n = np.where(self.counts > 0, self.counts, np.nan)
        middle = (self.observed + z**2 / (2 * n)) / (1 + z**2 / n)
        spread = np.sqrt(self.observed * (1 - self.observed) / n + z**2 / (4 * n**2))
        half = z / (1 + z**2 / n) * spread
        return middle - half, middle + half


def measure_calibration(predictions: Predictions, n_bins: int = 10) -> CalibrationErrors:
    """Measure how far the probabilities are from frequencies.

    Returns
    -------
    CalibrationErrors
        ``ece`` (expected calibration error over all annotated entries), ``ece_macro`` (mean of the
        classes' errors), ``ece_top`` (of the most probable class and whether it is right, Guo et
        al., ICML 2017; None with several labels per record), ``brier`` (mean squared error over all
        annotated entries), ``per_class``: name -> error. None where nothing is annotated.
    """
    y_true, y_score = predictions.y_true, predictions.y_score
    annotated = ~np.isnan(y_true)
    errors = np.empty(len(predictions.classes))
    for i in range(len(errors)):
        rows = annotated[:, i]
        errors[i] = Reliability.of(y_true[rows, i], y_score[rows, i], n_bins).error
    top = None
    if predictions.single_label:
        predicted = predictions.y_pred == 1
        top = Reliability.of(y_true[predicted] == 1, y_score[predicted], n_bins).error
    return {
        "n_bins": n_bins,
        "ece": none_for_nan(Reliability.of(y_true[annotated], y_score[annotated], n_bins).error),
        "ece_macro": mean_defined(errors),
        "ece_top": top,
        "brier": mean_defined((y_score - y_true).ravel() ** 2),
        "per_class": {
            name: none_for_nan(error)
            for name, error in zip(predictions.classes, errors, strict=True)
        },
    }


# Calibration --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map from probabilities to calibrated probabilities.

    Attributes
    ----------
    method
        ``temperature`` with one label per record, ``platt`` with several.
    classes
        Class names, in the order of the columns.
    slope, intercept
        Per class, of the logarithms of the probabilities before a softmax, or of their log odds
        before a sigmoid. A temperature T is the slope 1 / T of every class.
    unchanged
        Classes without a positive or without a negative, which nothing could be fitted to.
    """

    method: str
    classes: tuple[str, ...]
    slope: Float64Array
    intercept: Float64Array
    unchanged: tuple[str, ...] = ()

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions with calibrated probabilities.

        Their thresholds move with the probabilities, so that what these decide stays as it was.
        """
        check_same_classes(self.classes, predictions)
        if bool(predictions.single_label) != (self.method == "temperature"):
            raise ValueError(
                f"{self.method} calibration does not fit predictions with "
                f"single_label={predictions.single_label}"
            )
        if self.method == "temperature":
            scores = np.exp(_log_softmax(_log(predictions.y_score) * self.slope))
            return dataclasses.replace(predictions, y_score=scores, thresholds=None)
        scores = self.map_scores(predictions.y_score)
        thresholds = predictions.thresholds
        if thresholds is not None:
            thresholds = self.map_scores(thresholds)
        return dataclasses.replace(predictions, y_score=scores, thresholds=thresholds)

    def map_scores(self, scores: Float64Array) -> Float64Array:
        """Return the calibrated probabilities (..., n_classes) of a sigmoid for each class."""
        is_changed = (self.slope != 1) | (self.intercept != 0)
        mapped = _sigmoid(_log_odds(scores) * self.slope + self.intercept)
        return np.where(is_changed, mapped, scores)

    def to_json(self) -> CalibrationParameters:
        """Return the method and its parameters as plain values."""
        if self.method == "temperature":
            return {"method": self.method, "temperature": float(1 / self.slope[0])}
        values: dict[str, SigmoidParameters] = {}
        for i, name in enumerate(self.classes):
            values[name] = {"slope": float(self.slope[i]), "intercept": float(self.intercept[i])}
        return {"method": self.method, "values": values, "unchanged": list(self.unchanged)}


def fit_calibration(validation: Predictions) -> Calibration:
    """Fit a calibration on predictions for records that neither train nor test.

    With one label per record it is a temperature (Guo et al., ICML 2017), which leaves every
    decision as it was. With several labels it is a sigmoid for each class, fitted to Platt's
    smoothed targets (Platt, Advances in Large Margin Classifiers, 1999).

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
    # The identity, for classes that nothing can be fitted to
    parameters = np.tile([1.0, 0.0], (n_classes, 1))  # (n_classes, 2): slope, intercept
    unchanged = []
    for i, name in enumerate(validation.classes):
        annotated = ~np.isnan(validation.y_true[:, i])
        positive = validation.y_true[annotated, i] == 1
        if not positive.any() or positive.all():
            unchanged.append(name)
        else:
            parameters[i] = _fit_sigmoid(positive, _log_odds(validation.y_score[annotated, i]))
    return Calibration(
        "platt", validation.classes, parameters[:, 0], parameters[:, 1], tuple(unchanged)
    )


def _fit_temperature(validation: Predictions) -> float:
    """Minimise the cross-entropy over the temperature T; being convex in 1 / T, it has one minimum.

    A class that is not annotated takes no part in the softmax of its record.
    """
    from scipy.optimize import minimize_scalar

    not_annotated = np.isnan(validation.y_true)
    log_scores = np.where(not_annotated, -np.inf, _log(validation.y_score))
    true = validation.y_true == 1

    def loss(log_temperature: float) -> float:
        return -float(_log_softmax(log_scores * math.exp(-log_temperature))[true].mean())

    result = minimize_scalar(
        loss, bounds=tuple(np.log(_SLOPES)), method="bounded", options={"xatol": 1e-8}
    )
    temperature = math.exp(result.x)
    if not 1.01 * _SLOPES[0] < temperature < 0.99 * _SLOPES[1]:
        logger.warning(
            "the temperature %.3g is at its limit, since %d records are %s: calibrate on more",
            temperature,
            len(validation.keys),
            "all predicted right" if temperature < 1 else "predicted no better than by chance",
        )
    return temperature


def _fit_sigmoid(positive: NDArray[np.bool_], log_odds: Float64Array) -> Float64Array:
    """Return slope and intercept that minimise the cross-entropy, which is convex in them."""
    from scipy.optimize import minimize

    # Platt's targets stay short of 0 and 1, so that classes which the scores separate do not send
    # the slope to infinity
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))

    def loss(parameters: Float64Array) -> tuple[float, Float64Array]:
        """Return the cross-entropy and its gradient by slope and intercept."""
        logits = parameters[0] * log_odds + parameters[1]
        value = np.logaddexp(0, logits) - target * logits
        residual = _sigmoid(logits) - target
        return float(value.mean()), np.array([(residual * log_odds).mean(), residual.mean()])

    result = minimize(
        loss,
        [1.0, 0.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[_SLOPES, (None, None)],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return np.asarray(result.x, np.float64)


def _log(scores: Float64Array) -> Float64Array:
    logarithms: Float64Array = np.log(np.maximum(scores, _TINY))
    return logarithms


def _log_odds(scores: Float64Array) -> Float64Array:
    scores = np.clip(scores, _TINY, 1 - _TINY)
    odds: Float64Array = np.log(scores) - np.log1p(-scores)
    return odds


def _sigmoid(logits: Float64Array) -> Float64Array:
    # 1 / (1 + exp(-x)) without overflow
    probabilities: Float64Array = np.exp(-np.logaddexp(0, -logits))
    return probabilities


def _log_softmax(logits: Float64Array) -> Float64Array:
    # The exponentials of logits that are at most 0 cannot overflow
    logits = logits - logits.max(axis=1, keepdims=True)
    normalised: Float64Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return normalised
