from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from src.learning.calibration import Reliability, fit_calibration, measure_calibration
from src.learning.predictions import Predictions

NAN = float("nan")


def multi(y_true: object, y_score: object) -> Predictions:
    y_true = np.asarray(y_true, float)
    keys, classes = tuple(f"r{i}" for i in range(len(y_true))), tuple("ABCD"[: y_true.shape[1]])
    return Predictions(keys, y_true, y_score, classes, single_label=False)


def single(n: int, sharpness: float, seed: int = 0) -> Predictions:
    """Records whose outcomes follow softmax(logits), with the scores softmax(sharpness *
    logits).
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 1.5
    y_true = np.eye(3)[(logits + rng.gumbel(size=(n, 3))).argmax(axis=1)]
    scores = np.exp(sharpness * logits)
    return Predictions(
        tuple(map(str, range(n))), y_true, scores / scores.sum(axis=1, keepdims=True), tuple("ABC")
    )


# Reliability --------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    """Bins of a half: 0.1 and 0.3 (mean 0.2, one of two there), 0.9 and 1.0 (mean 0.95, both
    there).
    """
    bins = Reliability.of([0, 1, 1, 1], [0.1, 0.3, 0.9, 1.0], n_bins=2)
    assert bins.counts.tolist() == [2, 2] and bins.observed.tolist() == [0.5, 1]
    assert bins.predicted == pytest.approx([0.2, 0.95])
    assert bins.error == pytest.approx((0.3 + 0.05) / 2)
    assert math.isnan(Reliability.of([], []).error)


def test_measured_calibration() -> None:
    found = measure_calibration(multi([[1, NAN], [0, NAN]], [[0.75, 0.1], [0.25, 0.1]]), n_bins=4)
    assert (
        found["per_class"] == {"A": 0.25, "B": None}
        and found["ece_macro"] == 0.25
        and found["ece_top"] is None
    )
    assert found["brier"] == pytest.approx(0.25**2)
    good, sharp = (
        measure_calibration(single(20_000, sharpness))["ece_top"] for sharpness in (1.0, 3.0)
    )
    assert good < 0.02 and sharp > 0.1


# Calibration --------------------------------------------------------------------------------------


def test_the_temperature_is_found_and_decisions_stay() -> None:
    calibration = fit_calibration(single(20_000, sharpness=2.5))
    assert calibration.to_json() == {
        "method": "temperature",
        "temperature": pytest.approx(2.5, rel=0.05),
    }
    test = single(5000, sharpness=2.5, seed=1)
    calibrated = calibration.apply(test)
    assert (calibrated.y_pred == test.y_pred).all() and calibrated.y_score.sum(
        axis=1
    ) == pytest.approx(1)
    assert measure_calibration(calibrated)["ece_top"] < 0.03 < measure_calibration(test)["ece_top"]


def test_the_temperature_looks_at_annotated_classes_only() -> None:
    whole = single(500, 2.0)
    wider = np.hstack([whole.y_true, np.full((500, 1), NAN)])
    scores = np.hstack([whole.y_score * 0.5, np.full((500, 1), 0.5)])
    masked = Predictions(whole.keys, wider, scores, tuple("ABCD"), single_label=True)
    temperatures = [fit_calibration(p).to_json()["temperature"] for p in (whole, masked)]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-5)


def test_sigmoids_equal_logistic_regression_on_smoothed_targets() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=400)
    y_true = (rng.random(400) < 1 / (1 + np.exp(-(0.6 * logits - 1)))).astype(float)
    n1, n0 = y_true.sum(), 400 - y_true.sum()
    smoothed = np.where(y_true == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    rows, sides = np.tile(logits, 2)[:, None], np.repeat([1, 0], 400)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(
        rows, sides, sample_weight=np.append(smoothed, 1 - smoothed)
    )
    y_true = np.append(y_true, NAN)  # not annotated, so not looked at
    found = fit_calibration(
        multi(y_true[:, None], 1 / (1 + np.exp(-np.append(logits, 9.0)))[:, None])
    )
    assert found.slope == pytest.approx(oracle.coef_[0], abs=1e-5)
    assert found.intercept == pytest.approx(oracle.intercept_, abs=1e-5)


def test_calibration_of_extremes_stays_finite() -> None:
    validation = multi(
        [[1, 0], [0, 0], [1, 0], [0, 0]], [[1.0, 0.2], [0.0, 0.1], [1.0, 0.3], [0.0, 0.4]]
    )
    calibration = fit_calibration(validation)
    assert calibration.unchanged == ("B",) and calibration.slope[0] > 0
    calibrated = calibration.apply(validation)
    assert calibrated.y_score[:, 1] == pytest.approx(validation.y_score[:, 1])
    assert ((calibrated.y_score > 0) & (calibrated.y_score < 1)).all()
    json.dumps(calibration.to_json(), allow_nan=False)


def test_a_calibration_fits_its_own_classes_and_kind_only() -> None:
    calibration = fit_calibration(single(50, 1.0))
    with pytest.raises(ValueError, match="fitted for classes A, B, C: the predictions have A"):
        calibration.apply(multi([[1]], [[0.5]]))
    with pytest.raises(ValueError, match="temperature calibration does not fit"):
        calibration.apply(multi(np.ones((1, 3)), np.full((1, 3), 0.5)))
    with pytest.raises(ValueError, match="expected validation records"):
        fit_calibration(multi(np.zeros((0, 2)), np.zeros((0, 2))))
