"""Confidence intervals of metrics, by a bootstrap over patients on the logit scale.

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

The percentiles of the resamples are no good interval: with 10 to 20 positives, 95 % of them cover
the true AUROC .85 to .91 of the time, and .75 near an AUROC of .99. Three things make the interval
cover as it says. The standard error is taken on the logit scale, on which a metric near 1 is nearly
normal and no end leaves 0 to 1. It is multiplied by a quantile of Student's t with as many degrees
of freedom as the rarer outcome has patients less one (Hesterberg, Am. Stat. 2015); a macro average
has those of Welch and Satterthwaite. And each resample counts a fraction of a patient, `PRIOR` on
average, at the value 0.5, as a weak prior would: otherwise a class whose few positives all outrank
the negatives would have an interval without width.

The contribution of a single patient never varies. A class with only one patient among its positives
or its negatives therefore has no interval. It stays in the macro averages. Classes with fewer than
20 patients are named: their intervals are wide, and the least certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.learning.metrics import FREQUENT, Counts, Ranking, WeightArray, none_for_nan
from src.learning.predictions import Predictions
from src.learning.results import (
    ClassIntervals,
    Difference,
    Interval,
    IntervalName,
    Intervals,
    MacroIntervals,
    MacroName,
)
from src.utils import Float32Array, Float64Array

METRICS: tuple[IntervalName, ...] = ("auroc", "f1", "average_precision")
MACROS: tuple[MacroName, ...] = ("auroc_macro", "f1_macro", "average_precision_macro")

FEW_PATIENTS = 20
"""Number of patients below which a class is named."""

PRIOR = 0.4
"""Patients that each resample counts at the value 0.5, on average; chosen by simulated coverage."""

# Weights held at a time, few enough to stay in the processor's cache, and at least so many
# resamples, so that the work shared by them is small
_CHUNK = 2**18
_MIN_CHUNK = 16

# A resample loses all of this many patients with probability exp(-50), so more are safe
_SAFE = 50

# Up to so many records, sums of counts are exact in single precision
_EXACT = 2**22


# Intervals ----------------------------------------------------------------------------------------


def bootstrap_intervals(
    predictions: Predictions,
    patients: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return intervals of AUROC, F1 and average precision, macro and per class.

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
    (resampled,) = resample_patients([predictions], groups, n_resamples, seed)
    # Frequent in the data, not in a resample, so that every resample averages the same classes
    frequent = (predictions.y_true == 1).sum(axis=0) >= FREQUENT
    return {
        "method": "bootstrap over patients on the logit scale",
        "level": level,
        "n_resamples": n_resamples,
        "n_patients": int(groups.max()) + 1,
        "seed": seed,
        **_macro_intervals(resampled, level),
        "frequent": _macro_intervals(
            {name: values.of(frequent) for name, values in resampled.items()}, level
        ),
        "per_class": _class_intervals(predictions, resampled, level),
        "few_patients": few_patients(predictions, count_patients_by_class(predictions, groups)),
    }


def _macro_intervals(resampled: ResampledMetrics, level: float) -> MacroIntervals:
    def interval(name: IntervalName) -> Interval | None:
        return resampled[name].average().intervals(level)[0]

    return {
        "auroc_macro": interval("auroc"),
        "f1_macro": interval("f1"),
        "average_precision_macro": interval("average_precision"),
    }


def _class_intervals(
    predictions: Predictions, resampled: ResampledMetrics, level: float
) -> dict[str, ClassIntervals]:
    intervals = {name: values.intervals(level) for name, values in resampled.items()}
    rows: dict[str, ClassIntervals] = {}
    for i, class_name in enumerate(predictions.classes):
        rows[class_name] = {
            "auroc": intervals["auroc"][i],
            "f1": intervals["f1"][i],
            "average_precision": intervals["average_precision"][i],
        }
    return rows


# Values of the resamples --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of some classes, in the data and in every resample.

    Attributes
    ----------
    estimates
        Its values in the data, shape (n_columns,), NaN where undefined.
    values
        Those of the resamples with their share of the prior, so above 0 and below 1, shape
        (n_resamples, n_columns).
    edges
        Distance from 0 and 1 that the prior keeps on average, shape (n_columns,).
    freedom
        Degrees of freedom of the standard errors, shape (n_columns,); below 1 there is no interval.
    """

    estimates: Float64Array
    values: Float64Array
    edges: Float64Array
    freedom: Float64Array

    @classmethod
    def with_prior(
        cls,
        estimates: Float64Array,
        draws: Float64Array,
        n_patients: NDArray[np.intp],
        prior: Float64Array,
    ) -> Resampled:
        """Blend draws (n_resamples, n_classes) with 0.5, weighing patients against the prior."""
        n: Float64Array = np.maximum(n_patients, 1).astype(np.float64)
        values = (draws * n + 0.5 * prior) / (n + prior)
        freedom = np.asarray(n_patients - 1, np.float64)
        return cls(estimates, values, 0.5 * PRIOR / (n + PRIOR), freedom)

    def of(self, columns: NDArray[np.bool_] | slice) -> Resampled:
        """Return some of the columns."""
        return Resampled(
            self.estimates[columns],
            self.values[:, columns],
            self.edges[columns],
            self.freedom[columns],
        )

    def average(self) -> Resampled:
        """Return the macro average as one column, over the classes that have the metric."""
        defined = self.of(np.asarray(~np.isnan(self.values).any(axis=0)))
        if not len(defined.estimates):
            nan = np.full(1, np.nan)
            return Resampled(nan, np.full((len(self.values), 1), np.nan), nan, nan)
        # Degrees of freedom of a sum of estimates (Welch, Biometrika 1947; Satterthwaite 1946)
        variances = defined.values.var(axis=0)
        parts = (variances**2 / np.maximum(defined.freedom, 1)).sum()
        freedom = variances.sum() ** 2 / parts if parts else np.inf
        return Resampled(
            defined.estimates.mean(keepdims=True),
            defined.values.mean(axis=1, keepdims=True),
            defined.edges.mean(keepdims=True),
            np.array([max(1.0, freedom)]),
        )

    @property
    def centers(self) -> Float64Array:
        """The values in the data on the logit scale, no nearer to 0 and 1 than the edges."""
        return _logit(self.estimates.clip(self.edges, 1 - self.edges))

    def intervals(self, level: float) -> list[Interval | None]:
        """Return the interval of each column, None where there is none."""
        reach = _quantile(level, self.freedom) * _logit(self.values).std(axis=0)
        # The prior draws a perfect score inwards, but the interval holds the value in the data
        low = np.minimum(_expit(self.centers - reach), self.estimates)
        high = np.maximum(_expit(self.centers + reach), self.estimates)
        return _to_intervals(low, high)

    def differences(self, other: Resampled, level: float) -> list[Difference | None]:
        """Return `other` minus this for each column, both drawn in the same resamples.

        The difference of the logits is nearly normal; it is turned into a difference of values at
        the mean of the two logits.
        """
        change = other.centers - self.centers
        # Paired: both models see the same resample, so its luck cancels out in the difference
        error = (_logit(other.values) - _logit(self.values)).std(axis=0)
        reach = _quantile(level, self.freedom) * error
        middle = (self.centers + other.centers) / 2

        def to_values(logits: Float64Array) -> Float64Array:
            return _expit(middle + logits / 2) - _expit(middle - logits / 2)

        found = other.estimates - self.estimates
        low = np.minimum(to_values(change - reach), found)
        high = np.maximum(to_values(change + reach), found)
        p_values = _p_values(change, error, self.freedom, len(self.values))
        rows: list[Difference | None] = []
        for i, interval in enumerate(_to_intervals(low, high)):
            if np.isnan(found[i]):
                rows.append(None)
                continue
            rows.append(
                {
                    "a": float(self.estimates[i]),
                    "b": float(other.estimates[i]),
                    "difference": float(found[i]),
                    "interval": interval,
                    "p_value": None if interval is None else none_for_nan(p_values[i]),
                }
            )
        return rows


ResampledMetrics = dict[IntervalName, Resampled]
"""Metric -> its values, a column for each class."""


def _logit(values: Float64Array) -> Float64Array:
    logits: Float64Array = np.log(values / (1 - values))
    return logits


def _expit(logits: Float64Array) -> Float64Array:
    return np.asarray(1 / (1 + np.exp(-logits)), np.float64)


def _quantile(level: float, freedom: Float64Array) -> Float64Array:
    """Return how many standard errors an interval reaches to each side, NaN below 1 degree."""
    from scipy.special import stdtrit

    known = np.where(freedom >= 1, freedom, np.nan)
    return np.asarray(stdtrit(known, 0.5 + level / 2), np.float64)


def _p_values(
    change: Float64Array, error: Float64Array, freedom: Float64Array, n_resamples: int
) -> Float64Array:
    """Return two-sided p values of changes with a standard error, none below what is resolved."""
    from scipy.special import stdtr

    equal = np.abs(change) < 1e-12
    t = np.divide(np.abs(change), error, out=np.full_like(change, np.inf), where=error > 0)
    p_values = np.where(equal, 1.0, 2 * stdtr(np.maximum(freedom, 1), -t))
    return np.maximum(p_values, 2 / (n_resamples + 1)).clip(max=1.0)


def _to_intervals(low: Float64Array, high: Float64Array) -> list[Interval | None]:
    return [
        None if np.isnan(a) or np.isnan(b) else [float(a), float(b)]
        for a, b in zip(low, high, strict=True)
    ]


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
) -> list[ResampledMetrics]:
    """Return the metrics of each set of predictions in resamples, which all sets share."""
    # Ranking sorts the scores once, however many resamples follow
    rankings = [
        [Ranking.of(t, s) for t, s in zip(p.y_true.T, p.y_score.T, strict=True)] for p in sets
    ]
    rng = np.random.default_rng(seed)
    n_patients = count_patients_by_class(sets[0], groups)
    prior = np.random.default_rng([seed, 1]).exponential(PRIOR, (len(n_patients), n_resamples)).T
    chunks: list[list[dict[IntervalName, Float64Array]]] = [[] for _ in sets]
    for weights in _draw(sets[0].y_true, groups, n_resamples, rng):
        for chunks_of_set, predictions, ranks in zip(chunks, sets, rankings, strict=True):
            chunks_of_set.append(_compute_metrics(predictions, ranks, weights))
    resampled: list[ResampledMetrics] = []
    for chunks_of_set, predictions, ranks in zip(chunks, sets, rankings, strict=True):
        in_data = _compute_metrics(predictions, ranks)
        of_set: ResampledMetrics = {}
        for name in METRICS:
            draws = np.concatenate([chunk[name] for chunk in chunks_of_set])
            of_set[name] = Resampled.with_prior(in_data[name][0], draws, n_patients, prior)
        resampled.append(of_set)
    return resampled


def _compute_metrics(
    predictions: Predictions, rankings: Sequence[Ranking], weights: WeightArray | None = None
) -> dict[IntervalName, Float64Array]:
    """Return metric -> its values under each weighting, (n_weightings, n_classes)."""
    areas = [ranking.areas(weights) for ranking in rankings]
    auroc, precision = np.moveaxis(np.array(areas), 0, -1)
    f1 = np.atleast_2d(Counts.of(predictions, weights).f1)
    return {"auroc": auroc, "f1": f1, "average_precision": precision}


def _draw(
    y_true: Float32Array,
    groups: NDArray[np.intp],
    n_resamples: int,
    rng: np.random.Generator,
) -> Iterator[WeightArray]:
    """Yield how often each record is drawn, (n, n_records) at a time, `n_resamples` in all."""
    n_patients = int(groups.max()) + 1
    needed = _rare_patients(y_true, groups, n_patients)
    size = max(_MIN_CHUNK, _CHUNK // len(groups))
    is_large = len(groups) >= _EXACT
    for start in range(0, n_resamples, size):
        n = min(size, n_resamples - start)
        weights = rng.poisson(1.0, (n, n_patients)).astype(np.float64)
        # Draw again only the patients whose absence lost a class, until none is lost
        while (lost := weights @ needed == 0).any():
            rows = np.flatnonzero(lost.any(axis=1))
            again = lost[rows].astype(np.float64) @ needed.T > 0
            weights[rows] = np.where(again, rng.poisson(1.0, again.shape), weights[rows])
        # The transpose of rows by record, which is how the ranking reads it
        by_patient: WeightArray = weights.T.copy()
        if not is_large:
            by_patient = weights.T.astype(np.float32, order="C")
        yield by_patient[groups].T


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
