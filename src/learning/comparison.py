"""Comparison of two models on the same records: paired bootstrap and DeLong's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from src.learning.intervals import (
    ResampledMetrics,
    count_patients_by_class,
    few_patients,
    patient_groups,
    resample_patients,
)
from src.learning.leaks import refuse_predicted_overlap
from src.learning.predictions import Predictions
from src.learning.results import (
    ClassComparison,
    Comparison,
    DeLongSummary,
    Difference,
    IntervalName,
    MacroDifferences,
)
from src.processed.manifest import find_keys, load_manifest, patients_of, select_rows
from src.utils import Float64Array

# Paired bootstrap ---------------------------------------------------------------------------------


def compare_predictions(
    a: Predictions,
    b: Predictions,
    patients: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Test whether `b` differs from `a` on the same records.

    Parameters
    ----------
    a, b
        Predictions for the same records and classes, in any order.
    patients, n_resamples, level, seed
        As for `bootstrap_intervals`; `patients` in the order of `a`.

    Returns
    -------
    Comparison
        ``auroc_macro``, ``f1_macro``, ``average_precision_macro``: each a, b, difference (b minus
        a), interval and p_value; ``per_class``: name -> auroc and f1 likewise, and ``delong``: z,
        p_value, p_value_holm (adjusted for the number of classes after Holm, Scand. J. Stat. 1979);
        ``few_patients`` as for `bootstrap_intervals`. None where a value does not exist.

    Raises
    ------
    ValueError
        If the records, the classes or the targets are not the same.

    Notes
    -----
    Both sets see the same resamples of patients. The interval and the two-sided p value come from
    the difference of the logits (`src.learning.intervals`), so the interval leaves out 0 where p is
    below 1 - level; p is never below 2 / (n_resamples + 1).
    DeLong's test assumes independent records, so prefer the bootstrap where patients have several.
    """
    b = _in_order_of(a, b)
    groups = patient_groups(a, patients, n_resamples, level)
    of_a, of_b = resample_patients([a, b], groups, n_resamples, seed)
    auroc = of_a["auroc"].differences(of_b["auroc"], level)
    f1 = of_a["f1"].differences(of_b["f1"], level)
    delong = _delong_by_class(a, b)
    per_class: dict[str, ClassComparison] = {}
    for i, name in enumerate(a.classes):
        per_class[name] = {"auroc": auroc[i], "f1": f1[i], "delong": delong[name]}
    return {
        "n_records": len(a.keys),
        "n_patients": int(groups.max()) + 1,
        "n_resamples": n_resamples,
        "level": level,
        "seed": seed,
        **_macro_differences(of_a, of_b, level),
        "per_class": per_class,
        "few_patients": few_patients(a, count_patients_by_class(a, groups)),
    }


def _macro_differences(a: ResampledMetrics, b: ResampledMetrics, level: float) -> MacroDifferences:
    def difference(name: IntervalName) -> Difference | None:
        return a[name].average().differences(b[name].average(), level)[0]

    return {
        "auroc_macro": difference("auroc"),
        "f1_macro": difference("f1"),
        "average_precision_macro": difference("average_precision"),
    }


def _in_order_of(a: Predictions, b: Predictions) -> Predictions:
    """Return `b` with the records and classes of `a` in their order; refuse other targets."""
    rows = _positions("records", a.keys, find_keys(b.keys, a.keys))
    columns = _positions("classes", a.classes, b.classes)
    cells = np.ix_(rows, columns)
    ordered = Predictions(
        keys=a.keys,
        y_true=b.y_true[cells],
        y_score=b.y_score[cells],
        classes=a.classes,
        single_label=b.single_label,
        thresholds=None if b.thresholds is None else b.thresholds[columns],
    )
    # NaN differs from itself, but both may lack the same annotation
    same = np.nan_to_num(a.y_true, nan=-1) == np.nan_to_num(ordered.y_true, nan=-1)
    differing = ~same.all(axis=1)
    if differing.any():
        first = a.keys[int(differing.argmax())]
        raise ValueError(
            f"the targets of {differing.sum()} records differ, such as {first}: evaluate both "
            "models on the same labels"
        )
    return ordered


def _positions(kind: str, names_a: Sequence[str], names_b: Sequence[str]) -> list[int]:
    """Return the position of each of `names_a` in `names_b`; refuse names that only one has.

    `kind` says in the errors what they name.
    """
    for which, names in (("first", names_a), ("second", names_b)):
        if len(set(names)) < len(names):
            raise ValueError(f"the {which} predictions hold {kind} twice: expected each once")
    if unpaired := sorted(set(names_a) ^ set(names_b)):
        raise ValueError(
            f"{len(unpaired)} {kind} are in only one of the two predictions, such as "
            f"{unpaired[0]}: expected the same in both"
        )
    place = {name: i for i, name in enumerate(names_b)}
    return [place[name] for name in names_a]


# DeLong's test ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeLong:
    """Two correlated AUROCs, with the standard error, z and two-sided p value of b minus a."""

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
    positive = scores[:, outcome == 1]  # (2, n_positive)
    negative = scores[:, outcome == 0]  # (2, n_negative)
    n_positive, n_negative = positive.shape[1], negative.shape[1]
    if min(n_positive, n_negative) < 2:
        raise ValueError(
            f"{n_positive} positives and {n_negative} negatives: expected two of each or more"
        )

    # The structural components V10 and V01 of the paper: for each positive the share of negatives
    # that it outranks, for each negative the share of positives that outrank it
    wins = np.stack([_share_below(negative[k], positive[k]) for k in range(2)])
    losses = np.stack([1 - _share_below(positive[k], negative[k]) for k in range(2)])

    # An AUROC is the mean of either. The records of both outcomes are independent samples, so the
    # (2, 2) covariance of the two AUROCs is the sum of the covariances of the two means
    auroc_a, auroc_b = (float(value) for value in wins.mean(axis=1))
    covariance = np.cov(wins) / n_positive + np.cov(losses) / n_negative

    # The variance of a difference subtracts what the models have in common; rounding may leave it
    # just below 0
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = math.sqrt(max(0.0, variance))
    if math.isclose(auroc_a, auroc_b, abs_tol=1e-12):
        z = 0.0
    elif error == 0:
        z = math.copysign(math.inf, auroc_b - auroc_a)
    else:
        z = (auroc_b - auroc_a) / error
    # Both tails of the standard normal distribution
    p_value = math.erfc(abs(z) / math.sqrt(2))
    return DeLong(auroc_a, auroc_b, error, z, p_value)


def _share_below(values: Float64Array, points: Float64Array) -> Float64Array:
    """Return for each of `points` the share of `values` below it, equal ones counting half."""
    ordered = np.sort(values)
    # Twice the mean rank of the lower and the upper end of equal values
    twice = np.searchsorted(ordered, points, "left") + np.searchsorted(ordered, points, "right")
    return np.asarray(twice / (2 * len(ordered)), np.float64)


def _delong_by_class(a: Predictions, b: Predictions) -> dict[str, DeLongSummary | None]:
    tests: dict[str, DeLong] = {}
    for i, name in enumerate(a.classes):
        outcome = a.y_true[:, i]
        if min((outcome == 1).sum(), (outcome == 0).sum()) >= 2:
            tests[name] = delong_test(outcome, a.y_score[:, i], b.y_score[:, i])
    adjusted = holm([test.p_value for test in tests.values()])
    summaries: dict[str, DeLongSummary | None] = dict.fromkeys(a.classes)
    for (name, test), p_value_holm in zip(tests.items(), adjusted, strict=True):
        summaries[name] = {"z": test.z, "p_value": test.p_value, "p_value_holm": p_value_holm}
    return summaries


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm, Scand. J. Stat. 1979), in the same order."""
    order = np.argsort(p_values)
    # The smallest is multiplied by n, the next by n - 1, ...; none may be less than one before it
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


# Saved predictions --------------------------------------------------------------------------------


def compare_prediction_files(
    a: str | Path,
    b: str | Path,
    manifest: str | Path | None = None,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    allow_overlap: bool = False,
) -> Comparison:
    """Compare two saved sets of predictions for the same records; see `compare_predictions`.

    Parameters
    ----------
    a, b
        Files that `evaluate` wrote.
    manifest
        ``manifest.csv`` or its folder, for the patients; None makes each record its own patient.
    n_resamples, seed
        As for `src.learning.intervals.bootstrap_intervals`.
    allow_overlap
        Include recordings that a model was trained on.

    Raises
    ------
    ValueError
        If a file is missing or wrong, the records are not the same, or a model was trained on some
        of them and `allow_overlap` is not set.
    """
    first, second = Predictions.load(a), Predictions.load(b)
    if not allow_overlap:
        refuse_predicted_overlap(first, a)
        refuse_predicted_overlap(second, b)
    patients = None
    if manifest is not None:
        folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
        if not (folder / "manifest.csv").is_file():
            raise ValueError(
                f"{manifest}: no manifest; expected manifest.csv of a processed folder"
            )
        patients = patients_of(select_rows(load_manifest(folder), first.keys))
    return compare_predictions(first, second, patients, n_resamples=n_resamples, seed=seed)
