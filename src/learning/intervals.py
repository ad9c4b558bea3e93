"""Confidence intervals of metrics, by a bootstrap over patients.

Notes
-----
Recordings of one patient are alike, so resampling records would make intervals too narrow. Here
each patient's records are drawn together (cluster bootstrap; Davison and Hinkley, Bootstrap Methods
and their Application, 1997, ch. 3).

A resample gives every patient a Poisson(1) count, independent of the others' (Poisson bootstrap;
Hanley and MacGibbon, Comput. Methods Programs Biomed. 2006). A resample that has lost all positives
or all negatives of a class has no macro average. Drawing whole resamples until none is lost would
take too long where many classes are rare. As the counts are independent, only the patients who
contribute the lost positives or negatives are drawn again. The result is a resample under the
condition that no class is lost: exactly so where the classes concern different patients, nearly so
elsewhere. Drawing within classes would keep them too, but would hide how much F1 and average
precision owe to the prevalence.

The contribution of a single patient never varies. A class with only one patient among its positives
or its negatives therefore has no interval. It stays in the macro averages, whose intervals are too
narrow by its share. Classes with fewer than 10 patients are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from src.learning.metrics import FREQUENT, Counts, Ranking
from src.learning.predictions import Predictions
from src.learning.results import (
    ClassIntervals,
    Interval,
    IntervalName,
    Intervals,
    MacroIntervals,
    MacroName,
)
from src.utils import Float32Array, Float64Array

METRICS: tuple[IntervalName, ...] = ("auroc", "f1", "average_precision")
MACROS: tuple[MacroName, ...] = ("auroc_macro", "f1_macro", "average_precision_macro")

FEW_PATIENTS = 10
"""Number of patients below which a class is named."""

# Weights held at a time, few enough to stay in the processor's cache
_CHUNK = 2**16

# A resample loses all of this many patients with probability exp(-50), so more are safe
_SAFE = 50

Draws = dict[IntervalName, Float64Array]
"""Metric -> its value in each resample, (n_resamples, n_classes)."""


# Intervals ----------------------------------------------------------------------------------------


def bootstrap_intervals(
    predictions: Predictions,
    patients: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return percentile intervals of AUROC, F1 and average precision, macro and per class.

    Parameters
    ----------
    predictions
        The records evaluated. Their decisions (thresholds) are held fixed.
    patients
        Patient of each record, length n_records; None makes each record its own patient.
    n_resamples
        1,000 settle the ends of a 95 % interval.
    level
        Coverage, such as 0.95.
    seed
        The same seed gives the same intervals.

    Returns
    -------
    Intervals
        ``method``, ``level``, ``n_resamples``, ``n_patients``, ``seed``; ``auroc_macro``,
        ``f1_macro`` and ``average_precision_macro``: [low, high]; ``frequent``: the same three over
        the classes with `src.learning.metrics.FREQUENT` positives or more; ``per_class``: name ->
        auroc, f1, average_precision: [low, high], None where there is none; ``few_patients``:
        classes with few, as in the notes above.

    Raises
    ------
    ValueError
        If there is no record, `patients` has another length, or a number is out of range.
    """
    groups = patient_groups(predictions, patients, n_resamples, level)
    (draws,) = resample_patients([predictions], groups, n_resamples, seed)
    n_patients = count_patients_by_class(predictions, groups)
    # Frequent in the data, not in a resample, so that every resample averages the same classes
    frequent = (predictions.y_true == 1).sum(axis=0) >= FREQUENT
    draws_of_frequent: Draws = {name: values[:, frequent] for name, values in draws.items()}
    return {
        "method": "percentile bootstrap over patients",
        "level": level,
        "n_resamples": n_resamples,
        "n_patients": int(groups.max()) + 1,
        "seed": seed,
        **_macro_intervals(draws, level),
        "frequent": _macro_intervals(draws_of_frequent, level),
        "per_class": _class_intervals(predictions, draws, n_patients, level),
        "few_patients": few_patients(predictions, n_patients),
    }


def _macro_intervals(draws: Draws, level: float) -> MacroIntervals:
    def interval(name: IntervalName) -> Interval | None:
        return percentile_intervals(macro_average(draws[name]), level)[0]

    return {
        "auroc_macro": interval("auroc"),
        "f1_macro": interval("f1"),
        "average_precision_macro": interval("average_precision"),
    }


def _class_intervals(
    predictions: Predictions, draws: Draws, n_patients: NDArray[np.intp], level: float
) -> dict[str, ClassIntervals]:
    intervals: dict[IntervalName, list[Interval | None]] = {}
    for name, values in draws.items():
        # A single patient gives every resample the same values, which would be an interval of 0
        varying = np.where(n_patients > 1, values, np.nan)
        intervals[name] = percentile_intervals(varying, level)
    rows: dict[str, ClassIntervals] = {}
    for i, class_name in enumerate(predictions.classes):
        rows[class_name] = {
            "auroc": intervals["auroc"][i],
            "f1": intervals["f1"][i],
            "average_precision": intervals["average_precision"][i],
        }
    return rows


def macro_average(values: Float64Array) -> Float64Array:
    """Average (n_resamples, n_classes) over the classes that have the metric in every resample."""
    defined = ~np.isnan(values).any(axis=0)
    if not defined.any():
        return np.full((len(values), 1), np.nan)
    average: Float64Array = values[:, defined].mean(axis=1, keepdims=True)
    return average


def percentile_intervals(values: Float64Array, level: float) -> list[Interval | None]:
    """Return the central interval of each column (n_resamples, n_columns), None for one of NaN."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return [None if math.isnan(a) else [float(a), float(b)] for a, b in zip(low, high, strict=True)]


# Patients -----------------------------------------------------------------------------------------


def patient_groups(
    predictions: Predictions, patients: Sequence[str] | None, n_resamples: int, level: float
) -> NDArray[np.intp]:
    """Check the arguments and return the number of each record's patient, from 0 up."""
    n_records = len(predictions.keys)
    if not n_records:
        raise ValueError("there are no predictions to evaluate: expected one record or more")
    if n_resamples < 1:
        raise ValueError(
            f"n_resamples is {n_resamples}: expected 1 or more, 1000 for a publication"
        )
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a coverage between 0 and 1, such as 0.95")
    if patients is None:
        return np.arange(n_records)
    if len(patients) != n_records:
        raise ValueError(f"{len(patients)} patients for {n_records} records: expected one for each")
    return np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)[1]


def count_patients_by_class(predictions: Predictions, groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the number of patients with each class or without it, whichever is less."""
    n_patients = []
    for outcome in predictions.y_true.T:
        without, with_class = (len(np.unique(groups[outcome == value])) for value in (0, 1))
        n_patients.append(min(without, with_class))
    return np.array(n_patients)


def few_patients(predictions: Predictions, n_patients: NDArray[np.intp]) -> list[str]:
    """Return the classes of fewer than `FEW_PATIENTS` patients with or without them."""
    return [
        name
        for name, n in zip(predictions.classes, n_patients, strict=True)
        if 0 < n < FEW_PATIENTS
    ]


# Resampling ---------------------------------------------------------------------------------------


def resample_patients(
    sets: Sequence[Predictions], groups: NDArray[np.intp], n_resamples: int, seed: int
) -> list[Draws]:
    """Return the metrics of each set of predictions in resamples, which all sets share."""
    # Ranking sorts the scores once, however many resamples follow
    rankings = [
        [Ranking.of(t, s) for t, s in zip(p.y_true.T, p.y_score.T, strict=True)] for p in sets
    ]
    chunks: list[list[Draws]] = [[] for _ in sets]
    for weights in _draw(sets[0].y_true, groups, n_resamples, np.random.default_rng(seed)):
        for chunks_of_set, predictions, ranks in zip(chunks, sets, rankings, strict=True):
            auroc, precision = np.stack([ranking.areas(weights) for ranking in ranks], axis=-1)
            f1 = Counts.of(predictions, weights).f1
            chunks_of_set.append({"auroc": auroc, "f1": f1, "average_precision": precision})
    return [
        {name: np.concatenate([chunk[name] for chunk in chunks_of_set]) for name in METRICS}
        for chunks_of_set in chunks
    ]


def _draw(
    y_true: Float32Array,
    groups: NDArray[np.intp],
    n_resamples: int,
    rng: np.random.Generator,
) -> Iterator[Float64Array]:
    """Yield how often each record is drawn, (n, n_records) at a time, `n_resamples` in all."""
    n_patients = int(groups.max()) + 1
    needed = _rare_patients(y_true, groups, n_patients)
    size = max(1, _CHUNK // len(groups))
    for start in range(0, n_resamples, size):
        n = min(size, n_resamples - start)
        weights = rng.poisson(1.0, (n, n_patients)).astype(np.float64)
        # Draw again only the patients whose absence lost a class, until none is lost
        while (lost := weights @ needed == 0).any():
            rows = np.flatnonzero(lost.any(axis=1))
            again = lost[rows].astype(np.float64) @ needed.T > 0
            weights[rows] = np.where(again, rng.poisson(1.0, again.shape), weights[rows])
        yield weights[:, groups]


def _rare_patients(y_true: Float32Array, groups: NDArray[np.intp], n_patients: int) -> Float64Array:
    """Return the patients with an outcome that a resample may lose, (n_patients, n_outcomes).

    An outcome is a class's positives or its negatives; only those of few patients can be lost.
    """
    rare = []
    for column in y_true.T:
        for outcome in (1, 0):
            has_outcome = np.isin(np.arange(n_patients), groups[column == outcome])
            if 0 < has_outcome.sum() <= _SAFE:
                rare.append(has_outcome)
    return np.array(rare, np.float64).T if rare else np.ones((n_patients, 0))
