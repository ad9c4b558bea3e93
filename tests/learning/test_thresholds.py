from __future__ import annotations

import json

import numpy as np
import pytest

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.thresholds import ThresholdRule, choose_thresholds

NAN = float("nan")


def multi(y_true: object, y_score: object) -> Predictions:
    y_true = np.asarray(y_true, float)
    keys, classes = tuple(f"r{i}" for i in range(len(y_true))), tuple("ABCD"[: y_true.shape[1]])
    return Predictions(keys, y_true, y_score, classes, single_label=False)


def test_rules() -> None:
    assert ThresholdRule.parse("none") is None and ThresholdRule.parse("f1") == ThresholdRule()
    assert (
        str(ThresholdRule.parse("sensitivity=0.9")) == "sensitivity=0.9"
        and str(ThresholdRule()) == "f1"
    )
    for text in (
        "sensitivity",
        "sensitivity=0",
        "sensitivity=1.5",
        "sensitivity=high",
        "specificity=0.9",
        "F1",
    ):
        with pytest.raises(ValueError, match=f"thresholds is '{text}'"):
            ThresholdRule.parse(text)


def test_thresholds_by_hand() -> None:
    """Scores 0.9+ 0.8- 0.6+ 0.4+ 0.2-: F1 of predicting the top k is 1/2, 2/5, 2/3, 6/7 and 3/4."""
    validation = multi([[1], [0], [1], [1], [0]], [[0.9], [0.8], [0.6], [0.4], [0.2]])
    assert choose_thresholds(validation, ThresholdRule()).values == pytest.approx([0.3])
    for wanted, threshold in ((1.0, 0.3), (2 / 3, 0.5), (0.6, 0.5), (1 / 3, 0.85), (0.1, 0.85)):
        assert choose_thresholds(validation, ThresholdRule(wanted)).values == pytest.approx(
            [threshold]
        ), wanted


def test_thresholds_do_what_they_promise() -> None:
    rng = np.random.default_rng(0)
    y_true = (rng.random((300, 3)) < 0.2).astype(float)
    validation = multi(y_true, (rng.random((300, 3)) + y_true) / 2)
    sensitive = compute_metrics(
        choose_thresholds(validation, ThresholdRule(0.9)).apply(validation)
    )["per_class"]
    assert all(0.9 <= row["recall"] < 0.92 for row in sensitive.values())
    best = compute_metrics(choose_thresholds(validation, ThresholdRule()).apply(validation))[
        "per_class"
    ]
    for fixed in np.linspace(0.05, 0.95, 19):
        other = Predictions(
            validation.keys,
            y_true,
            validation.y_score,
            validation.classes,
            False,
            np.full(3, fixed),
        )
        others = compute_metrics(other)["per_class"]
        assert all(best[name]["f1"] >= others[name]["f1"] for name in best)


def test_classes_without_an_outcome_keep_their_threshold() -> None:
    validation = multi([[1, 0, NAN, 1], [0, 0, NAN, NAN]], np.full((2, 4), 0.3))
    chosen = choose_thresholds(validation, ThresholdRule())
    assert chosen.unchanged == ("B", "C", "D") and chosen.values[1:].tolist() == [0.5] * 3
    json.dumps(chosen.to_json(), allow_nan=False)


def test_thresholds_need_several_labels() -> None:
    with pytest.raises(ValueError, match="the most probable class is predicted"):
        choose_thresholds(Predictions(("r",), [[1, 0]], [[0.7, 0.3]], ("A", "B")), ThresholdRule())
