"""Two models on the same records: paired bootstrap and DeLong's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from src.learning.intervals import (
    MACROS,
    METRICS,
    count_patients_by_class,
    few_patients,
    macro_average,
    patient_groups,
    percentile_intervals,
    resample_patients,
)
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.processed.manifest import load_manifest, patients_of, select_rows
from src.utils import Float64Array


def compare_predictions(
    a: Predictions,
    b: Predictions,
    patients: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Test whether `b` differs from `a` on the same records.

    Parameters
    ----------
    a, b
        Predictions for the same records and classes, in any order.
    patients, n_resamples, level, seed
        As for `bootstrap_intervals`; `patients` in the order of `a`.

    Returns
    -------
    dict
        ``auroc_macro``, ``f1_macro``, ``average_precision_macro``: each a, b, difference (b minus
        a), interval and p_value; ``per_class``: name -> auroc and f1 likewise, and ``delong``: z,
        p_value, p_value_holm (adjusted for the number of classes after Holm, Scand. J. Stat. 1979);
        ``few_patients`` as for `bootstrap_intervals`. None where there is none.

    Raises
    ------
    ValueError
        If the records, the classes or the targets are not the same.

    Notes
    -----
    Both sets see the same resamples of patients. The two-sided p value is the smallest level at
    which the percentile interval of the difference leaves out 0, never below 2 / (n_resamples + 1).
    DeLong's test takes records for independent, so the bootstrap comes first where patients have
    several.
    """
    b = _in_order_of(a, b)
    groups = patient_groups(a, patients, n_resamples, level)
    draws_a, draws_b = resample_patients([a, b], groups, n_resamples, seed)
    changes = {name: draws_b[name] - draws_a[name] for name in METRICS}
    found_a, found_b = compute_metrics(a), compute_metrics(b)
    result: dict[str, Any] = {
        "n_records": len(a.keys),
        "n_patients": int(groups.max()) + 1,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
    }
    for name, macro in zip(METRICS, MACROS, strict=True):
        result[macro] = _difference(
            found_a[macro], found_b[macro], macro_average(changes[name])[:, 0], level
        )
    n_patients, delong = count_patients_by_class(a, groups), _delong_by_class(a, b)
    result |= {"per_class": {}, "few_patients": few_patients(a, n_patients)}
    for i, c in enumerate(a.classes):
        row_a, row_b = found_a["per_class"][c], found_b["per_class"][c]
        varied = {
            name: np.where(n_patients[i] > 1, changes[name][:, i], np.nan)
            for name in ("auroc", "f1")
        }
        tests = {
            name: _difference(row_a[name], row_b[name], varied[name], level) for name in varied
        }
        result["per_class"][c] = {**tests, "delong": delong[c]}
    return result


def _in_order_of(a: Predictions, b: Predictions) -> Predictions:
    """Return `b` with the records and classes in the order of `a`, after checking that both judge
    the same.
    """
    for name, ours, theirs in (("records", a.keys, b.keys), ("classes", a.classes, b.classes)):
        for which, values in (("first", ours), ("second", theirs)):
            if len(set(values)) < len(values):
                raise ValueError(f"the {which} predictions hold {name} twice: expected each once")
        if other := sorted(set(ours) ^ set(theirs)):
            only = f"{len(other)} {name} are in one of the two predictions alone"
            raise ValueError(f"{only}, such as {other[0]}: expected the same in both")
    row, column = ({value: i for i, value in enumerate(values)} for values in (b.keys, b.classes))
    rows, columns = [row[key] for key in a.keys], [column[name] for name in a.classes]
    cells = np.ix_(rows, columns)
    thresholds = None if b.thresholds is None else b.thresholds[columns]
    ordered = Predictions(
        a.keys, b.y_true[cells], b.y_score[cells], a.classes, b.single_label, thresholds
    )
    differing = ~np.equal(
        np.nan_to_num(a.y_true, nan=-1), np.nan_to_num(ordered.y_true, nan=-1)
    ).all(axis=1)
    if differing.any():
        first = a.keys[int(differing.argmax())]
        raise ValueError(
            f"the targets of {differing.sum()} records differ, such as {first}: judge "
            "both on the same labels"
        )
    return ordered


def _difference(
    a: float | None, b: float | None, changes: Float64Array, level: float
) -> dict[str, Any] | None:
    if a is None or b is None:
        return None
    interval = percentile_intervals(changes[:, None], level)[0]
    beyond = min(int((changes <= 0).sum()), int((changes >= 0).sum()))
    p_value = None if interval is None else min(1.0, 2 * (1 + beyond) / (len(changes) + 1))
    return {"a": a, "b": b, "difference": b - a, "interval": interval, "p_value": p_value}


@dataclass(frozen=True)
class DeLong:
    """Two correlated AUROCs, the standard error of their difference, its z and two-sided p
    value.
    """

    auroc_a: float
    auroc_b: float
    standard_error: float
    z: float
    p_value: float


def delong_test(y_true: ArrayLike, score_a: ArrayLike, score_b: ArrayLike) -> DeLong:
    """Compare two AUROCs on the same records (DeLong, DeLong and Clarke-Pearson, Biometrics 1988).

    Parameters
    ----------
    y_true
        Outcomes of one class, shape (n_records,), NaN left out.
    score_a, score_b
        Scores, shape (n_records,).

    Raises
    ------
    ValueError
        With fewer than two positives or two negatives, which have no variance.
    """
    outcome = np.asarray(y_true, np.float64)
    scores = np.stack([np.asarray(score_a, np.float64), np.asarray(score_b, np.float64)])
    positive, negative = scores[:, outcome == 1], scores[:, outcome == 0]
    n_positive, n_negative = positive.shape[1], negative.shape[1]
    if min(n_positive, n_negative) < 2:
        raise ValueError(
            f"{n_positive} positives and {n_negative} negatives: expected two of each or more"
        )
    wins = np.stack(
        [_share_below(n, p) for n, p in zip(negative, positive, strict=True)]
    )  # (2, n_positive)
    losses = np.stack(
        [1 - _share_below(p, n) for n, p in zip(negative, positive, strict=True)]
    )  # (2, n_negative)
    covariance = np.cov(wins) / n_positive + np.cov(losses) / n_negative
    error = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    a, b = (float(value) for value in wins.mean(axis=1))
    z = (
        0.0
        if math.isclose(a, b, abs_tol=1e-12)
        else math.copysign(math.inf, b - a)
        if error == 0
        else (b - a) / error
    )
    return DeLong(a, b, error, z, math.erfc(abs(z) / math.sqrt(2)))


def _share_below(values: Float64Array, points: Float64Array) -> Float64Array:
    """Return for each of `points` the share of `values` below it, equal ones counting half."""
    ordered = np.sort(values)
    twice = np.searchsorted(ordered, points, "left") + np.searchsorted(ordered, points, "right")
    return np.asarray(twice / (2 * len(ordered)), np.float64)


def _delong_by_class(a: Predictions, b: Predictions) -> dict[str, dict[str, float] | None]:
    tests: dict[str, DeLong] = {}
    for i, name in enumerate(a.classes):
        outcome = a.y_true[:, i]
        if min((outcome == 1).sum(), (outcome == 0).sum()) >= 2:
            tests[name] = delong_test(outcome, a.y_score[:, i], b.y_score[:, i])
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return {
        name: {"z": tests[name].z, "p_value": tests[name].p_value, "p_value_holm": adjusted[name]}
        if name in tests
        else None
        for name in a.classes
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm, Scand. J. Stat. 1979), in the same order."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def compare_prediction_files(
    a: str | Path,
    b: str | Path,
    manifest: str | Path | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two saved sets of predictions for the same records; see
    `src.intervals.compare_predictions`.

    Parameters
    ----------
    a, b
        Files that `evaluate` wrote.
    manifest
        ``manifest.csv`` or its folder, for the patients; None makes each record its own patient.
    n_resamples, seed
        As for `src.intervals.bootstrap_intervals`.

    Raises
    ------
    ValueError
        If a file is missing or wrong, or the records are not the same.
    """
    from src.learning.comparison import compare_predictions

    first, second, patients = Predictions.load(a), Predictions.load(b), None
    if manifest is not None:
        folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
        if not (folder / "manifest.csv").is_file():
            raise ValueError(
                f"{manifest}: no manifest; expected manifest.csv of a processed folder"
            )
        patients = patients_of(select_rows(load_manifest(folder), first.keys))
    return compare_predictions(first, second, patients, n_resamples=n_resamples, seed=seed)
