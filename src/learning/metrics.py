"""`Predictions`, what a classifier said of a set of records, and the numbers that judge it.

Every metric looks only at annotated entries: a target of NaN says that the record's source did not
look for the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.learning.predictions import DEFAULT_THRESHOLD, Predictions
from src.utils import Float64Array

AVERAGED_METRICS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
}
FREQUENT = 10
"""Positives from which on a class counts for the macro averages over frequent classes: with fewer,
luck decides its score.
"""


# Metrics ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Counts:
    """Decisions against outcomes, each array (..., n_classes)."""

    true_positive: Float64Array
    false_positive: Float64Array
    false_negative: Float64Array

    @classmethod
    def of(cls, predictions: Predictions, weights: Float64Array | None = None) -> Counts:
        """Count over the annotated entries, under each of `weights` (n_weightings, n_records) where
        given.
        """
        called, outcome = predictions.y_pred == 1, predictions.y_true

        def total(entries: NDArray[np.bool_]) -> Float64Array:
            return (
                entries.sum(axis=0, dtype=np.float64)
                if weights is None
                else weights @ entries.astype(np.float64)
            )

        return cls(
            total(called & (outcome == 1)),
            total(called & (outcome == 0)),
            total(~called & (outcome == 1)),
        )

    @property
    def support(self) -> Float64Array:
        """Records that have the class."""
        return self.true_positive + self.false_negative

    @property
    def precision(self) -> Float64Array:
        """Share of the calls that are right; 0 without a call, NaN for a class without a
        positive.
        """
        return self._share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Float64Array:
        """Share of the positives that are called, the sensitivity; NaN for a class without a
        positive.
        """
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


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Judge predictions.

    Returns
    -------
    dict
        ``n_records``, ``n_classes``, ``single_label``; ``accuracy`` (of the most probable class;
        with several labels per record, the share of records whose annotated entries are all right);
        ``f1_macro``, ``f1_micro``, ``f1_weighted``, ``precision_macro``, ``recall_macro``,
        ``auroc_macro``, ``average_precision_macro``; ``frequent``: min_positives, n_classes and the
        five macro averages over the classes with that many positives; ``per_class``: name ->
        precision, recall, f1, support, n_annotated, threshold, auroc, average_precision;
        ``confusion_matrix`` (rows the truth, columns the calls; None with several labels per
        record); ``undefined_classes``. Plain JSON values, None where a value does not exist.

    Raises
    ------
    ValueError
        If there is no record.

    Notes
    -----
    Without a positive a class has no precision, recall or F1, and without a positive or a negative
    no AUROC and no average precision. Such classes are named in ``undefined_classes`` and left out
    of the macro averages concerned. A class that is there but never called has precision and F1 of
    0.
    """
    if not predictions.keys:
        raise ValueError("there are no predictions to judge: expected one record or more")
    counts = Counts.of(predictions)
    columns = _columns(predictions, counts)
    rows = [
        {name: _plain(values[i]) for name, values in columns.items()}
        for i in range(len(predictions.classes))
    ]
    frequent = columns["support"] >= FREQUENT
    return {
        "n_records": len(predictions.keys),
        "n_classes": len(predictions.classes),
        "single_label": predictions.single_label,
        "accuracy": _accuracy(predictions),
        **_macros(columns),
        **_pooled_f1(counts),
        "frequent": {
            "min_positives": FREQUENT,
            "n_classes": int(frequent.sum()),
            **_macros({name: values[frequent] for name, values in columns.items()}),
        },
        "per_class": dict(zip(predictions.classes, rows, strict=True)),
        "confusion_matrix": _confusion_matrix(predictions) if predictions.single_label else None,
        "undefined_classes": [
            name
            for name, row in zip(predictions.classes, rows, strict=True)
            if row["auroc"] is None
        ],
    }


def _macros(columns: dict[str, NDArray[Any]]) -> dict[str, float | None]:
    """Return the averages over the classes that have the metric."""
    return {f"{name}_macro": mean_defined(columns[name]) for name in AVERAGED_METRICS}


def _columns(predictions: Predictions, counts: Counts) -> dict[str, NDArray[Any]]:
    """Return metric -> its value for each class, NaN where it does not exist."""
    pairs = zip(predictions.y_true.T, predictions.y_score.T, strict=True)
    areas = np.array(
        [np.concatenate(Ranking.of(*pair).areas()) for pair in pairs]
    )  # (n_classes, 2)
    n_classes = len(predictions.classes)
    thresholds = (
        np.full(n_classes, DEFAULT_THRESHOLD)
        if predictions.thresholds is None
        else predictions.thresholds
    )
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "support": counts.support.astype(np.int64),
        "n_annotated": (~np.isnan(predictions.y_true)).sum(axis=0),
        "threshold": np.full(n_classes, np.nan) if predictions.single_label else thresholds,
        "auroc": areas[:, 0],
        "average_precision": areas[:, 1],
    }


def _plain(value: np.generic) -> Any:
    """Return a plain number, None for NaN."""
    return None if np.isnan(value) else value.item()


def mean_defined(values: Float64Array) -> float | None:
    """Return the mean of the values that are not NaN, None without one."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _pooled_f1(counts: Counts) -> dict[str, float | None]:
    """Return F1 over all entries, and the mean of the classes' F1 weighted by how many records have
    them.
    """
    true, wrong = counts.true_positive.sum(), (counts.false_positive + counts.false_negative).sum()
    support = counts.support
    weighted = np.nansum(counts.f1 * support) / support.sum() if support.any() else None
    return {
        "f1_micro": float(2 * true / (2 * true + wrong)) if support.any() else None,
        "f1_weighted": None if weighted is None else float(weighted),
    }


def _accuracy(predictions: Predictions) -> float | None:
    known = ~np.isnan(predictions.y_true)
    right = ((predictions.y_pred == predictions.y_true) | ~known).all(axis=1)[known.any(axis=1)]
    return float(right.mean()) if len(right) else None


def _confusion_matrix(predictions: Predictions) -> list[list[int]]:
    present = (predictions.y_true == 1).astype(np.int64)
    matrix: list[list[int]] = (present.T @ predictions.y_pred).tolist()
    return matrix


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
    A weighting counts each record so many times; a bootstrap resample is one. Shape (n_weightings,
    n_records) below is that of the arrays ranked, so that one weighting serves every class.
    """

    rows: NDArray[np.intp]
    positive: NDArray[np.bool_]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, y_true: ArrayLike, y_score: ArrayLike) -> Ranking:
        """Rank the scores (n_records,) of one class; records with the outcome NaN are left out."""
        outcome, score = np.asarray(y_true, np.float64), np.asarray(y_score, np.float64)
        known = np.flatnonzero(~np.isnan(outcome))
        rows = known[np.argsort(score[known], kind="stable")]
        is_first = np.append(True, np.diff(score[rows]) > 0)[: len(rows)]
        return cls(rows, outcome[rows] > 0, np.flatnonzero(is_first))

    def auroc(self, weights: Float64Array | None = None) -> Float64Array:
        """Return the area below the ROC curve under each weighting, shape (n_weightings,).

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

    def average_precision(self, weights: Float64Array | None = None) -> Float64Array:
        """Return the average precision under each weighting, shape (n_weightings,).

        The sum over thresholds of precision times the step in recall, without interpolation;
        parameters and NaN as for `auroc`.
        """
        return self.areas(weights)[1]

    def areas(self, weights: Float64Array | None = None) -> tuple[Float64Array, Float64Array]:
        """Return `auroc` and `average_precision`, which share most of the work.

        Only groups of equal scores with a positive in them add to either area, so rare classes cost
        little.
        """
        n_weightings = 1 if weights is None else len(weights)
        places = np.flatnonzero(self.positive)
        if not len(places):
            return np.full(n_weightings, np.nan), np.full(n_weightings, np.nan)
        group = np.searchsorted(self.starts, places, "right") - 1
        first = np.flatnonzero(
            np.append(True, np.diff(group) > 0)
        )  # of the positives in each such group
        ends = np.append(self.starts[1:], len(self.rows))[group[first]]
        ordered = (
            np.ones((1, len(self.rows))) if weights is None else np.take(weights, self.rows, axis=1)
        )
        found = _running_sum(ordered[:, places])
        called = _running_sum(ordered)
        found_below, found_up_to = found[:, first], found[:, np.append(first[1:], len(places))]
        called_below, called_up_to = called[:, self.starts[group[first]]], called[:, ends]
        step, n_positive, n_all = found_up_to - found_below, found[:, -1], called[:, -1]
        negatives_below = (
            called_below - found_below + called_up_to - found_up_to
        ) / 2  # those of equal score by half
        from_here_up = n_all[:, None] - called_below
        precision = np.divide(
            n_positive[:, None] - found_below,
            from_here_up,
            out=np.zeros_like(step),
            where=from_here_up > 0,
        )
        n_negative = n_all - n_positive
        auroc = _ratio((step * negatives_below).sum(axis=1), n_positive * n_negative)
        return auroc, _ratio(
            (step * precision).sum(axis=1), np.where(n_negative > 0, n_positive, 0.0)
        )


def _running_sum(values: Float64Array) -> Float64Array:
    """Return the sum of the first 0, 1, ... n values of each row, shape (n_rows, n + 1)."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _ratio(numerator: Float64Array, denominator: Float64Array) -> Float64Array:
    """Divide, giving NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0
    )
