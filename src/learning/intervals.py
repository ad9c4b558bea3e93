"""Confidence intervals of metrics, and paired tests of two sets of predictions, with the patient as
the unit.

Notes
-----
Recordings of one patient are alike, so resampling records would make intervals too narrow; here
each patient's records are drawn together (cluster bootstrap; Davison and Hinkley, Bootstrap Methods
and their Application, 1997, ch. 3).

A resample gives every patient a Poisson(1) count, independent of the others' (Poisson bootstrap;
Hanley and MacGibbon, Comput. Methods Programs Biomed. 2006). A resample that has lost all positives
or all negatives of a class has no macro average, and drawing whole resamples until none is lost
takes for ever where many classes are rare. As the counts are independent, only those of the
patients who bring what was lost are drawn again. The result is a resample under the condition that
no class is lost: exactly so where the patients concerned are others for each class, nearly so else.
Drawing within classes would keep them too, but would hide how much F1 and average precision owe to
the prevalence.

What one patient alone brings never varies, so a class with a single patient among its positives or
its negatives has no interval; it stays in the macro averages, whose intervals are too narrow by its
share. Classes with fewer than 10 are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.learning.metrics import FREQUENT, Counts, Ranking
from src.learning.predictions import Predictions
from src.utils import Float32Array, Float64Array

METRICS = ("auroc", "f1", "average_precision")
MACROS = tuple(f"{name}_macro" for name in METRICS)
_CHUNK = 2**16  # weights held at a time, few enough to stay in the processor's cache
FEW_PATIENTS = 10  # patients below which a class is named
_SAFE = 50  # patients of whom a resample loses all with probability exp(-50)


# Resampling ---------------------------------------------------------------------------------------


def bootstrap_intervals(
    predictions: Predictions,
    patients: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Return percentile intervals of the macro AUROC, F1 and average precision and of each class.

    Parameters
    ----------
    predictions
        The records judged; their decisions are held fixed.
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
    dict
        ``method``, ``level``, ``n_resamples``, ``n_patients``, ``seed``; ``auroc_macro``,
        ``f1_macro`` and ``average_precision_macro``: [low, high]; ``frequent``: the same three over
        the classes with `src.metrics.FREQUENT` positives or more; ``per_class``: name -> auroc, f1,
        average_precision: [low, high], None where there is none; ``few_patients``: classes with
        few, as in the notes above.

    Raises
    ------
    ValueError
        If there is no record, `patients` has another length, or a number is out of range.
    """
    groups = patient_groups(predictions, patients, n_resamples, level)
    (draws,) = resample_patients([predictions], groups, n_resamples, seed)
    n_patients = count_patients_by_class(predictions, groups)
    frequent = (predictions.y_true == 1).sum(axis=0) >= FREQUENT
    ends = {
        name: percentile_intervals(np.where(n_patients > 1, values, np.nan), level)
        for name, values in draws.items()
    }
    return {
        "method": "percentile bootstrap over patients",
        "level": level,
        "n_resamples": n_resamples,
        "n_patients": int(groups.max()) + 1,
        "seed": seed,
        **_macro_intervals(draws, level),
        "frequent": _macro_intervals(
            {name: values[:, frequent] for name, values in draws.items()}, level
        ),
        "per_class": {
            c: {name: ends[name][i] for name in METRICS} for i, c in enumerate(predictions.classes)
        },
        "few_patients": few_patients(predictions, n_patients),
    }


def patient_groups(
    predictions: Predictions, patients: Sequence[str] | None, n_resamples: int, level: float
) -> NDArray[np.intp]:
    """Check the arguments and return the number of each record's patient, from 0 up."""
    n_records = len(predictions.keys)
    if not n_records:
        raise ValueError("there are no predictions to judge: expected one record or more")
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
    """Return the number of patients that bring each class's positives, or its negatives where they
    are fewer.
    """
    return np.array(
        [
            min(len(np.unique(groups[t == outcome])) for outcome in (0, 1))
            for t in predictions.y_true.T
        ]
    )


def few_patients(predictions: Predictions, n_patients: NDArray[np.intp]) -> list[str]:
    """Return the classes of fewer than `FEW_PATIENTS` patients with or without them."""
    return [
        name
        for name, n in zip(predictions.classes, n_patients, strict=True)
        if 0 < n < FEW_PATIENTS
    ]


def resample_patients(
    sets: Sequence[Predictions], groups: NDArray[np.intp], n_resamples: int, seed: int
) -> list[dict[str, Float64Array]]:
    """Return for each set of predictions metric -> (n_resamples, n_classes); all see the same
    resamples.
    """
    rankings = [
        [Ranking.of(t, s) for t, s in zip(p.y_true.T, p.y_score.T, strict=True)] for p in sets
    ]
    parts: list[list[dict[str, Float64Array]]] = [[] for _ in sets]
    for weights in _draw(sets[0].y_true, groups, n_resamples, np.random.default_rng(seed)):
        for part, predictions, ranks in zip(parts, sets, rankings, strict=True):
            auroc, precision = np.stack([ranking.areas(weights) for ranking in ranks], axis=-1)
            part.append(
                {
                    "auroc": auroc,
                    "f1": Counts.of(predictions, weights).f1,
                    "average_precision": precision,
                }
            )
    return [
        {name: np.concatenate([chunk[name] for chunk in part]) for name in METRICS}
        for part in parts
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
        weights = rng.poisson(1.0, (min(size, n_resamples - start), n_patients)).astype(np.float64)
        while (lost := weights @ needed == 0).any():
            rows = np.flatnonzero(lost.any(axis=1))
            again = lost[rows].astype(np.float64) @ needed.T > 0
            weights[rows] = np.where(again, rng.poisson(1.0, again.shape), weights[rows])
        yield weights[:, groups]


def _rare_patients(y_true: Float32Array, groups: NDArray[np.intp], n_patients: int) -> Float64Array:
    """Return who brings what a resample may lose, (n_patients, n_needs): a class's positives or its
    negatives, where few.
    """
    needs = [
        np.isin(np.arange(n_patients), groups[column == outcome])
        for column in y_true.T
        for outcome in (1, 0)
    ]
    rare = [who for who in needs if 0 < who.sum() <= _SAFE]
    return np.array(rare, np.float64).T if rare else np.ones((n_patients, 0))


def _macro_intervals(draws: dict[str, Float64Array], level: float) -> dict[str, list[float] | None]:
    return {
        macro: percentile_intervals(macro_average(draws[name]), level)[0]
        for name, macro in zip(METRICS, MACROS, strict=True)
    }


def macro_average(values: Float64Array) -> Float64Array:
    """Average (n_resamples, n_classes) over the classes that have the metric, which keeps them in
    every resample.
    """
    defined = ~np.isnan(values).any(axis=0)
    return (
        values[:, defined].mean(axis=1, keepdims=True)
        if defined.any()
        else np.full((len(values), 1), np.nan)
    )


def percentile_intervals(values: Float64Array, level: float) -> list[list[float] | None]:
    """Return the central interval of each column (n_resamples, n_columns), None for a column
    without values.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return [None if math.isnan(a) else [float(a), float(b)] for a, b in zip(low, high, strict=True)]
