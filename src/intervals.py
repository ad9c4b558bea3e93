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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.metrics import FREQUENT, Counts, Predictions, compute_metrics, format_table
from src.ranking import Floats, Ranking

METRICS = ("auroc", "f1", "average_precision")
MACROS = tuple(f"{name}_macro" for name in METRICS)
_CHUNK = 2**16  # weights held at a time, few enough to stay in the processor's cache
_FEW = 10  # patients below which a class is named
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
    groups = _groups(predictions, patients, n_resamples, level)
    (draws,) = _resample([predictions], groups, n_resamples, seed)
    n_patients = _patients_by_class(predictions, groups)
    frequent = (predictions.y_true == 1).sum(axis=0) >= FREQUENT
    ends = {
        name: _interval(np.where(n_patients > 1, values, np.nan), level)
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
        "few_patients": _few(predictions, n_patients),
    }


def _groups(
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


def _patients_by_class(predictions: Predictions, groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the number of patients that bring each class's positives, or its negatives where they
    are fewer.
    """
    return np.array(
        [
            min(len(np.unique(groups[t == outcome])) for outcome in (0, 1))
            for t in predictions.y_true.T
        ]
    )


def _few(predictions: Predictions, n_patients: NDArray[np.intp]) -> list[str]:
    return [name for name, n in zip(predictions.classes, n_patients, strict=True) if 0 < n < _FEW]


def _resample(
    sets: Sequence[Predictions], groups: NDArray[np.intp], n_resamples: int, seed: int
) -> list[dict[str, Floats]]:
    """Return for each set of predictions metric -> (n_resamples, n_classes); all see the same
    resamples.
    """
    rankings = [
        [Ranking.of(t, s) for t, s in zip(p.y_true.T, p.y_score.T, strict=True)] for p in sets
    ]
    parts: list[list[dict[str, Floats]]] = [[] for _ in sets]
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
    y_true: NDArray[np.float32],
    groups: NDArray[np.intp],
    n_resamples: int,
    rng: np.random.Generator,
) -> Iterator[Floats]:
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


def _rare_patients(
    y_true: NDArray[np.float32], groups: NDArray[np.intp], n_patients: int
) -> Floats:
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


def _macro_intervals(draws: dict[str, Floats], level: float) -> dict[str, list[float] | None]:
    return {
        macro: _interval(_macro(draws[name]), level)[0]
        for name, macro in zip(METRICS, MACROS, strict=True)
    }


def _macro(values: Floats) -> Floats:
    """Average (n_resamples, n_classes) over the classes that have the metric, which keeps them in
    every resample.
    """
    defined = ~np.isnan(values).any(axis=0)
    return (
        values[:, defined].mean(axis=1, keepdims=True)
        if defined.any()
        else np.full((len(values), 1), np.nan)
    )


def _interval(values: Floats, level: float) -> list[list[float] | None]:
    """Return the central interval of each column (n_resamples, n_columns), None for a column
    without values.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return [None if math.isnan(a) else [float(a), float(b)] for a, b in zip(low, high, strict=True)]


# Two sets of predictions --------------------------------------------------------------------------


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
    groups = _groups(a, patients, n_resamples, level)
    draws_a, draws_b = _resample([a, b], groups, n_resamples, seed)
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
            found_a[macro], found_b[macro], _macro(changes[name])[:, 0], level
        )
    n_patients, delong = _patients_by_class(a, groups), _delong_by_class(a, b)
    result |= {"per_class": {}, "few_patients": _few(a, n_patients)}
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
    a: float | None, b: float | None, changes: Floats, level: float
) -> dict[str, Any] | None:
    if a is None or b is None:
        return None
    interval = _interval(changes[:, None], level)[0]
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


def _share_below(values: Floats, points: Floats) -> Floats:
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


# Text ---------------------------------------------------------------------------------------------


def format_intervals(intervals: dict[str, Any]) -> str:
    """Return the intervals of the macro averages as text."""
    line = (
        f"{intervals['level']:.0%} intervals over {intervals['n_patients']} patients: "
        f"{_ranges(intervals)}"
    )
    if intervals["frequent"] != {macro: intervals[macro] for macro in MACROS}:
        line += (
            f"\nover the classes with {FREQUENT} positives or more: "
            f"{_ranges(intervals['frequent'])}"
        )
    return line + _warn_of_few(intervals["few_patients"])


def _ranges(intervals: dict[str, Any]) -> str:
    return ", ".join(f"{macro} {_range(intervals[macro])}" for macro in MACROS)


def _warn_of_few(classes: Sequence[str]) -> str:
    if not classes:
        return ""
    return (
        f"\nfewer than {_FEW} patients with or without, intervals too narrow to trust: "
        f"{', '.join(classes)}"
    )


def format_comparison(result: dict[str, Any]) -> str:
    """Return what `compare_predictions` found as an aligned plain table."""
    table = [
        ["metric", "A", "B", "B - A", f"{result['level']:.0%} interval", "p", "DeLong p (Holm)"]
    ]
    rows: list[tuple[str, Any, Any]] = [(macro, result[macro], None) for macro in MACROS]
    for name, tests in result["per_class"].items():
        rows += [
            (f"{name} auroc", tests["auroc"], tests["delong"]),
            (f"{name} f1", tests["f1"], None),
        ]
    for name, found, delong in rows:
        if found is None:
            table.append([name, *["-"] * 5, ""])
            continue
        holm_p = "" if delong is None else f"{delong['p_value']:.4f} ({delong['p_value_holm']:.4f})"
        numbers = [
            f"{found['a']:.3f}",
            f"{found['b']:.3f}",
            f"{found['difference']:+.3f}",
            _range(found["interval"]),
        ]
        p_value = "-" if found["p_value"] is None else f"{found['p_value']:.4f}"
        table.append([name, *numbers, p_value, holm_p])
    units = (
        f"{result['n_records']} records of {result['n_patients']} patients, "
        f"{result['n_resamples']} resamples of patients"
    )
    return f"{units}\n{format_table(table)}{_warn_of_few(result['few_patients'])}"


def _range(interval: list[float] | None) -> str:
    return "-" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
