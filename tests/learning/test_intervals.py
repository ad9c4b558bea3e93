from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from src.learning.comparison import compare_predictions, delong_test
from src.learning.intervals import MACROS, _draw, bootstrap_intervals
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.text import format_comparison, format_intervals


def make(
    n: int = 200, n_classes: int = 3, skill: float = 1.0, seed: int = 0, noise: int = 1
) -> Predictions:
    rng = np.random.default_rng(seed)
    y_true = np.eye(n_classes)[rng.integers(0, n_classes, n)]
    logits = np.random.default_rng(noise).normal(size=(n, n_classes)) + skill * y_true
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(
        tuple(f"r{i}" for i in range(n)), y_true, scores, tuple("ABCDEFGH"[:n_classes])
    )


def test_intervals_hold_the_value_and_narrow_with_more_records() -> None:
    widths = []
    for n in (100, 1600):
        predictions = make(n)
        found, metrics = (
            bootstrap_intervals(predictions, n_resamples=400),
            compute_metrics(predictions),
        )
        for macro in MACROS:
            assert found[macro][0] < metrics[macro] < found[macro][1]
        assert found["per_class"]["A"]["auroc"][0] < metrics["per_class"]["A"]["auroc"]
        widths.append(found["auroc_macro"][1] - found["auroc_macro"][0])
    assert widths[1] == pytest.approx(
        widths[0] / 4, rel=0.4
    )  # as the square root of the number of records
    json.dumps(found, allow_nan=False)
    assert "auroc_macro [0." in format_intervals(found)


def test_the_seed_decides_the_interval() -> None:
    a, b, c = (bootstrap_intervals(make(), n_resamples=50, seed=seed) for seed in (1, 1, 2))
    assert a == b and a["f1_macro"] != c["f1_macro"]


def test_the_spread_of_an_auroc_is_that_of_delong() -> None:
    predictions = make(800, n_classes=2)
    low, high = bootstrap_intervals(predictions, n_resamples=2000)["per_class"]["B"]["auroc"]
    outcome, score = predictions.y_true[:, 1], predictions.y_score[:, 1]
    error = delong_test(
        outcome, np.zeros(800), score
    ).standard_error  # a constant score has no variance of its own
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.08)


def test_records_of_one_patient_are_drawn_together() -> None:
    """Every record five times over: by patient the interval stays as it was, by record it would
    shrink.
    """
    once = make(150)
    keys = tuple(f"{key}-{i}" for i in range(5) for key in once.keys)
    five = Predictions(
        keys, np.tile(once.y_true, (5, 1)), np.tile(once.y_score, (5, 1)), once.classes
    )
    width = {}
    for name, p, patients in (
        ("once", once, None),
        ("five", five, once.keys * 5),
        ("records", five, None),
    ):
        low, high = bootstrap_intervals(p, patients, n_resamples=500)["auroc_macro"]
        width[name] = high - low
    assert width["five"] == pytest.approx(width["once"], rel=0.15)
    assert width["records"] < 0.6 * width["once"]


def test_no_resample_loses_a_class() -> None:
    y_true = np.zeros((60, 25), np.float32)
    y_true[np.arange(20), np.arange(20)] = (
        1  # twenty classes with a single positive each: e^-20 would keep them all
    )
    y_true[:58, 21], y_true[:2, 22], y_true[:, 23], y_true[5, 24] = 1, 1, 1, np.nan
    groups = np.arange(60)
    weights = np.concatenate(list(_draw(y_true, groups, 300, np.random.default_rng(0))))
    assert weights.shape == (300, 60) and (weights.sum(axis=0) > 0).all()
    for column in y_true.T:
        for outcome in (1, 0):
            assert (
                not (column == outcome).any()
                or (weights[:, column == outcome].sum(axis=1) > 0).all()
            )
    assert weights[:, 0].mean() == pytest.approx(
        1 / (1 - math.exp(-1)), rel=0.1
    )  # Poisson(1), given that it is not 0
    assert weights[:, 30:50].mean() == pytest.approx(1, rel=0.05)


def test_classes_without_values_have_no_interval() -> None:
    y_true = [[1, 0], [0, 0], [1, 0], [0, 0]]
    predictions = Predictions(
        tuple("abcd"), y_true, [[0.9, 0.1], [0.1, 0.2], [0.8, 0.3], [0.2, 0.1]], ("A", "B")
    )
    found = bootstrap_intervals(predictions, n_resamples=50)
    assert found["per_class"]["B"] == {"auroc": None, "f1": None, "average_precision": None}
    # Two of two positives outrank both negatives: that says little
    low, high = found["auroc_macro"]
    assert low < 0.5 and high == 1


def test_a_class_of_one_patient_has_no_interval() -> None:
    once = make(60)
    patients = ["p" if row[0] else f"p{i}" for i, row in enumerate(once.y_true)]
    found = bootstrap_intervals(once, patients, n_resamples=50)
    assert found["per_class"]["A"]["auroc"] is None and found["per_class"]["B"]["auroc"] is not None
    assert found["few_patients"] == ["A"] and "uncertain: A" in format_intervals(found)
    compared = compare_predictions(once, make(60, skill=2.0), patients, n_resamples=50)
    assert (
        compared["per_class"]["A"]["f1"]["p_value"] is None
        and compared["per_class"]["B"]["f1"]["p_value"] is not None
    )
    assert "uncertain: A" in format_comparison(compared)


def test_frequent_classes_have_an_interval_of_their_own() -> None:
    once = make(120, n_classes=2)
    rare = np.zeros((120, 1))
    rare[:9] = 1
    scores = np.column_stack([once.y_score, np.linspace(1, 0, 120)])
    predictions = Predictions(
        once.keys, np.column_stack([once.y_true, rare]), scores, ("A", "B", "C"), single_label=False
    )
    found, without = (
        bootstrap_intervals(predictions, n_resamples=60),
        Predictions(once.keys, once.y_true, once.y_score, ("A", "B"), single_label=False),
    )
    assert found["frequent"] == {
        macro: bootstrap_intervals(without, n_resamples=60)[macro] for macro in MACROS
    }
    assert found["frequent"]["auroc_macro"] != found[
        "auroc_macro"
    ] and "or more: auroc_macro [0." in format_intervals(found)


def test_a_thousand_resamples_of_many_classes_take_seconds() -> None:
    """As many records and classes as a fold of PTB-XL has with all its statements."""
    rng = np.random.default_rng(0)
    y_true = (rng.random((2183, 71)) < np.geomspace(0.001, 0.7, 71)).astype(np.float32)
    predictions = Predictions(
        tuple(map(str, range(2183))),
        y_true,
        rng.random((2183, 71)),
        tuple(map(str, range(71))),
        single_label=False,
    )
    began = time.process_time()
    bootstrap_intervals(predictions, n_resamples=1000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patients": ["p"]}, "1 patients for 200 records"),
        ({"n_resamples": 0}, "n_resamples is 0"),
        ({"level": 95}, "between 0 and 1"),
    ],
)
def test_wrong_arguments(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(make(), **values)
