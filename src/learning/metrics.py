"""Metrics of predictions: precision, recall, F1, AUROC, average precision and their averages.

Every metric looks only at annotated entries. A target of NaN means that the record's source did not
look for the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions
from src.learning.results import (
    ClassMetrics,
    FrequentAverages,
    MacroAverages,
    MetricName,
    Metrics,
)
from src.utils import Float32Array, Float64Array

WeightArray = Float32Array | Float64Array
"""How many times each record counts, (n_weightings, n_records)."""

AVERAGED_METRICS: dict[MetricName, str] = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
}
"""Metrics that have a macro average, and their names in tables."""

FREQUENT = 10
"""Positives from which on a class counts for the macro averages over frequent classes.

With fewer, luck decides its score.
"""


# Metrics ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Counts:
    """Decisions against outcomes, each array (..., n_classes)."""

    true_positive: Float64Array
    false_positive: Float64Array
    false_negative: Float64Array

    @classmethod
    def of(cls, predictions: Predictions, weights: WeightArray | None = None) -> Counts:
        """Count annotated entries, once or under each of `weights` (n_weightings, n_records)."""
        predicted = predictions.y_pred == 1
        # NaN equals neither 0 nor 1, so entries that are not annotated count nowhere
        outcome = predictions.y_true

        def total(entries: NDArray[np.bool_]) -> Float64Array:
            if weights is None:
                n_entries: Float64Array = entries.sum(axis=0, dtype=np.float64)
                return n_entries
            # Whole numbers below 2**24 are exact in single precision too
            weight = weights @ entries.astype(weights.dtype)
            return np.asarray(weight, np.float64)

        return cls(
            true_positive=total(predicted & (outcome == 1)),
            false_positive=total(predicted & (outcome == 0)),
            false_negative=total(~predicted & (outcome == 1)),
        )

    @property
    def support(self) -> Float64Array:
        """Number of records with the class."""
        return self.true_positive + self.false_negative

    @property
    def precision(self) -> Float64Array:
        """Share of predicted positives that are true.

        0 where the class is never predicted, NaN for a class without a positive.
        """
        return self._share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Float64Array:
        """Share of positives that are predicted (sensitivity); NaN for a class without one."""
        return self._share(self.true_positive, self.support)

    @property
    def f1(self) -> Float64Array:
        """Harmonic mean of precision and recall; NaN for a class without a positive."""
        return self._share(
            2 * self.true_positive,
            2 * self.true_positive + self.false_positive + self.false_negative,
        )

    def _share(self, part: Float64Array, whole: Float64Array) -> Float64Array:
        share = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        return np.where(self.support > 0, share, np.nan)


def compute_metrics(predictions: Predictions) -> Metrics:
    """Compute the metrics of a set of predictions, per class and averaged.

    Returns
    -------
    Metrics
        ``n_records``, ``n_classes``, ``single_label``; ``accuracy`` (of the most probable class;
        with several labels per record, the share of records whose annotated entries are all right);
        ``f1_macro``, ``f1_micro``, ``f1_weighted``, ``precision_macro``, ``recall_macro``,
        ``auroc_macro``, ``average_precision_macro``; ``frequent``: min_positives, n_classes and the
        five macro averages over the classes with that many positives; ``per_class``: name ->
        precision, recall, f1, support, n_annotated, threshold, auroc, average_precision;
        ``confusion_matrix`` (a row per true class, a column per predicted class; None with several
        labels per record); ``undefined_classes``. Plain JSON values, None where a value does not
        exist.

    Raises
    ------
    ValueError
        If there is no record.

    Notes
    -----
    Without a positive a class has no precision, recall or F1, and without a positive or a negative
    no AUROC and no average precision. Such classes are named in ``undefined_classes`` and left out
    of the macro averages concerned. A class that has positives but is never predicted has precision
    and F1 of 0.
    """
    if not predictions.keys:
        raise ValueError("there are no predictions to evaluate: expected one record or more")
    counts = Counts.of(predictions)
    columns = _metric_columns(predictions, counts)
    rows = _class_rows(predictions, counts, columns)
    f1_micro, f1_weighted = _pooled_f1(counts)
    return {
        "n_records": len(predictions.keys),
        "n_classes": len(predictions.classes),
        "single_label": predictions.single_label,
        "accuracy": _accuracy(predictions),
        **_macro_averages(columns),
        "f1_micro": f1_micro,
        "f1_weighted": f1_weighted,
        "frequent": _frequent_averages(columns, counts.support),
        "per_class": rows,
        "confusion_matrix": _confusion_matrix(predictions) if predictions.single_label else None,
        "undefined_classes": [name for name, row in rows.items() if row["auroc"] is None],
    }


def _metric_columns(predictions: Predictions, counts: Counts) -> dict[MetricName, Float64Array]:
    """Return metric -> its value for each class, NaN where it does not exist."""
    auroc = np.empty(len(predictions.classes))
    average_precision = np.empty(len(predictions.classes))
    for i in range(len(predictions.classes)):
        ranking = Ranking.of(predictions.y_true[:, i], predictions.y_score[:, i])
        roc_areas, precisions = ranking.areas()  # one weighting, each (1,)
        auroc[i], average_precision[i] = roc_areas[0], precisions[0]
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "auroc": auroc,
        "average_precision": average_precision,
    }


def _class_rows(
    predictions: Predictions, counts: Counts, columns: dict[MetricName, Float64Array]
) -> dict[str, ClassMetrics]:
    n_annotated = (~np.isnan(predictions.y_true)).sum(axis=0)
    thresholds = predictions.thresholds
    if thresholds is None:
        thresholds = np.full(len(predictions.classes), DEFAULT_THRESHOLD)
    rows: dict[str, ClassMetrics] = {}
    for i, name in enumerate(predictions.classes):
        rows[name] = {
            "precision": none_for_nan(columns["precision"][i]),
            "recall": none_for_nan(columns["recall"][i]),
            "f1": none_for_nan(columns["f1"][i]),
            "support": int(counts.support[i]),
            "n_annotated": int(n_annotated[i]),
            "threshold": None if predictions.single_label else float(thresholds[i]),
            "auroc": none_for_nan(columns["auroc"][i]),
            "average_precision": none_for_nan(columns["average_precision"][i]),
        }
    return rows


def _macro_averages(columns: dict[MetricName, Float64Array]) -> MacroAverages:
    """Return the mean of each metric over the classes that have it."""
    return {
        "precision_macro": mean_defined(columns["precision"]),
        "recall_macro": mean_defined(columns["recall"]),
        "f1_macro": mean_defined(columns["f1"]),
        "auroc_macro": mean_defined(columns["auroc"]),
        "average_precision_macro": mean_defined(columns["average_precision"]),
    }


def _frequent_averages(
    columns: dict[MetricName, Float64Array], support: Float64Array
) -> FrequentAverages:
    frequent = support >= FREQUENT
    averages = _macro_averages({name: values[frequent] for name, values in columns.items()})
    return {"min_positives": FREQUENT, "n_classes": int(frequent.sum()), **averages}


def none_for_nan(value: float) -> float | None:
    """Return a plain number, None for NaN."""
    return None if math.isnan(value) else float(value)


def mean_defined(values: Float64Array) -> float | None:
    """Return the mean of the values that are not NaN, None without one."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _pooled_f1(counts: Counts) -> tuple[float | None, float | None]:
    """Return F1 over all entries, and the mean of the classes' F1 weighted by their support."""
    support = counts.support
    if not support.any():
        return None, None
    right = counts.true_positive.sum()
    wrong = (counts.false_positive + counts.false_negative).sum()
    weighted = np.nansum(counts.f1 * support) / support.sum()
    return float(2 * right / (2 * right + wrong)), float(weighted)


def _accuracy(predictions: Predictions) -> float | None:
    """Return the share of annotated records whose annotated entries are all right."""
    annotated = ~np.isnan(predictions.y_true)
    right = ((predictions.y_pred == predictions.y_true) | ~annotated).all(axis=1)
    right = right[annotated.any(axis=1)]
    return float(right.mean()) if len(right) else None


def _confusion_matrix(predictions: Predictions) -> list[list[int]]:
    present = (predictions.y_true == 1).astype(np.int64)
    matrix: list[list[int]] = (present.T @ predictions.y_pred).tolist()
    return matrix


# Areas under curves -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranking:
    """The annotated records of one class in the order of their scores.

    Attributes
    ----------
    rows
        Positions of these records in the arrays that were ranked, by rising score, shape (n,).
    positive
        Their outcomes, shape (n,).
    starts
        Where each group of equal scores starts, shape (n_groups,).

    Notes
    -----
    A weighting says how many times each record counts; a bootstrap resample is one. Weights below
    have a column for every record of the arrays that were ranked, (n_weightings, n_records), so
    that one weighting serves every class.
    """

    rows: NDArray[np.intp]
    positive: NDArray[np.bool_]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, y_true: ArrayLike, y_score: ArrayLike) -> Ranking:
        """Rank the scores (n_records,) of one class, without records whose outcome is NaN."""
        outcome, score = np.asarray(y_true, np.float64), np.asarray(y_score, np.float64)
        annotated = np.flatnonzero(~np.isnan(outcome))
        rows = annotated[np.argsort(score[annotated], kind="stable")]
        # The slice keeps an empty ranking empty
        is_first = np.append(True, np.diff(score[rows]) > 0)[: len(rows)]
        return cls(rows, outcome[rows] > 0, np.flatnonzero(is_first))

    def auroc(self, weights: WeightArray | None = None) -> Float64Array:
        """Return the area under the ROC curve for each weighting, shape (n_weightings,).

        It is the probability that a positive outranks a negative, ties counting half (Hanley and
        McNeil, Radiology 1982).

        Parameters
        ----------
        weights
            Shape (n_weightings, n_records); None counts every record once.

        Returns
        -------
        Float64Array
            NaN where a weighting leaves no positive or no negative.
        """
        return self.areas(weights)[0]

    def average_precision(self, weights: WeightArray | None = None) -> Float64Array:
        """Return the average precision for each weighting, shape (n_weightings,).

        It is the sum over thresholds of precision times the step in recall, without interpolation.
        Parameters and NaN are as for `auroc`.
        """
        return self.areas(weights)[1]

    def areas(self, weights: WeightArray | None = None) -> tuple[Float64Array, Float64Array]:
        """Return `auroc` and `average_precision`, which share most of the work.

        Only groups of equal scores with a positive in them add to either area, so rare classes cost
        little.
        """
        n_weightings = 1 if weights is None else len(weights)
        positives = np.flatnonzero(self.positive)
        if not len(positives):
            return np.full(n_weightings, np.nan), np.full(n_weightings, np.nan)

        # Groups of equal scores with a positive: where they start and end in the ranking
        group = np.unique(np.searchsorted(self.starts, positives, "right") - 1)
        starts, ends = self.starts[group], np.append(self.starts[1:], len(self.rows))[group]

        # The weight before each start and each end, (n_groups, n_weightings). The ranking falls
        # into stretches between them; their order makes every second sum one up to an end.
        edges = np.stack([starts, ends], axis=1).ravel()
        sums = self._sums_up_to(np.append(edges, len(self.rows)), self.rows, weights)
        all_below, all_up_to, n_all = sums[:-1:2], sums[1:-1:2], sums[-1]
        bounds = np.append(np.searchsorted(positives, starts), len(positives))
        sums = self._sums_up_to(bounds, self.rows[positives], weights)
        positive_below, positive_up_to, n_positive = sums[:-1], sums[1:], sums[-1]
        in_group = positive_up_to - positive_below

        # A positive outranks the negatives below it, and half of those with its score
        negatives_below = (all_below - positive_below + all_up_to - positive_up_to) / 2
        n_negative = n_all - n_positive
        pairs = (in_group * negatives_below).sum(axis=0, dtype=np.float64)
        auroc = _ratio(pairs, n_positive.astype(np.float64) * n_negative)

        # Precision if everything from the group's score upwards is predicted
        predicted = n_all - all_below
        precision = np.divide(
            n_positive - positive_below,
            predicted,
            out=np.zeros_like(in_group),
            where=predicted > 0,
        )
        # Without a negative there is no average precision, as there is no AUROC
        denominator = np.where(n_negative > 0, n_positive, 0).astype(np.float64)
        return auroc, _ratio((in_group * precision).sum(axis=0, dtype=np.float64), denominator)

    @staticmethod
    def _sums_up_to(
        bounds: NDArray[np.intp], rows: NDArray[np.intp], weights: WeightArray | None
    ) -> WeightArray:
        """Return the weight of the first ``bounds[i]`` of `rows`, (n_bounds, n_weightings)."""
        if weights is None:
            return bounds[:, None].astype(np.float64)
        # A sparse matrix of ones adds up each stretch in one pass, without a copy of the weights
        from scipy.sparse import csr_array

        indptr = np.append(0, bounds)
        ones = np.ones(indptr[-1], weights.dtype)
        stretches = csr_array(
            (ones, rows[: indptr[-1]], indptr), shape=(len(bounds), weights.shape[1])
        )
        sums: WeightArray = stretches @ weights.T
        return np.cumsum(sums, axis=0, out=sums)


def _ratio(numerator: Float64Array, denominator: Float64Array) -> Float64Array:
    """Divide, giving NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )
