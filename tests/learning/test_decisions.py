"""Calibration and thresholds together, and in the card of a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from src.learning.calibration import Calibration
from src.learning.checkpoints import (
    FittedOn,
    LogitScale,
    ModelCard,
    load_checkpoint,
    save_checkpoint,
)
from src.learning.decisions import (
    fit_decisions,
    put_into_card,
    summarize_calibration,
    summarize_thresholds,
)
from src.learning.predictions import Predictions
from src.learning.thresholds import ThresholdRule
from src.processed.targets import LabelledRecords

CARD = ModelCard(("A", "B"), single_label=False)


def records(n: int, *datasets: str) -> LabelledRecords:
    """Return records of which only the number and the datasets matter."""
    names = tuple(datasets[i % len(datasets)] for i in range(n))
    texts = tuple(f"{name}__{i}" for i, name in enumerate(names))
    return LabelledRecords(Path(), texts, ((),) * n, ((),) * n, texts, names, ("",) * n, (1.0,) * n)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_second_calibration_comes_on_top_of_the_first() -> None:
    """Logit 2: first 2 * 3 + 1 = 7, then 7 * 0.5 - 1 = 2.5."""
    card = ModelCard(
        ("A", "B"), False, calibration=LogitScale((3.0, 1.0), (1.0, 0.0)), thresholds=(0.3, 0.7)
    )
    second = Calibration("platt", ("A", "B"), np.array([0.5, 1.0]), np.array([-1.0, 0.0]), ("B",))
    new = put_into_card(card, (second,), records(5, "d", "e"), "val")
    assert new.calibration is not None
    found = new.calibration.apply(torch.tensor([[2.0, 2.0]], dtype=torch.float64))
    assert found.tolist() == [[2.5, 2.0]]
    assert new.calibration_on == FittedOn("platt", "val", 5, ("d", "e"), ("B",))
    # The thresholds move along: log odds of 0.3 times 0.5, less 1. That of B stays to the bit.
    assert new.thresholds[0] == pytest.approx(sigmoid(0.5 * math.log(0.3 / 0.7) - 1))
    assert new.thresholds[1] == 0.7
    assert new.thresholds_on is None


def test_decisions_are_fitted_in_turn_and_unchanged_classes_keep_theirs() -> None:
    """B has no positive record, so its threshold of the checkpoint stays."""
    predictions = Predictions(
        ("d__0", "d__1", "d__2", "d__3"),
        np.array([[0, 0], [0, 0], [1, 0], [1, 0]], np.float32),
        np.array([[0.1, 0.2], [0.2, 0.3], [0.3, 0.4], [0.4, 0.5]]),
        ("A", "B"),
        single_label=False,
        thresholds=np.array([0.5, 0.9]),
    )
    fits = fit_decisions(predictions, calibrate=True, rule=ThresholdRule())
    card = put_into_card(CARD, fits, records(4, "d"), "val")
    assert card.thresholds_on == FittedOn("f1", "val", 4, ("d",), ("B",))
    assert card.thresholds[1] == 0.9 and card.calibration is not None
    assert (card.calibration.slope[1], card.calibration.intercept[1]) == (1.0, 0.0)
    for fit in fits:
        predictions = fit.apply(predictions)
    assert predictions.y_pred.tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]
    assert predictions.thresholds is not None
    assert card.thresholds == tuple(predictions.thresholds.tolist())
    assert fit_decisions(predictions, calibrate=False, rule=None) == ()
    assert put_into_card(CARD, (), records(4, "d"), "val") == CARD


def test_a_calibration_leaves_what_thresholds_decide(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    predictions = Predictions(
        tuple(f"d__{i}" for i in range(40)),
        (rng.random((40, 2)) < 0.3).astype(np.float32),
        rng.random((40, 2)),
        ("A", "B"),
        single_label=False,
        thresholds=np.array([0.35, 0.6]),
    )
    (calibration,) = fit_decisions(predictions, calibrate=True, rule=None)
    calibrated = calibration.apply(predictions)
    assert not np.allclose(calibrated.y_score, predictions.y_score)
    assert (calibrated.y_pred == predictions.y_pred).all()


def test_what_they_were_chosen_on_is_in_the_checkpoint(tmp_path: Path) -> None:
    chosen_on = FittedOn("f1", "val", 12, ("mine",), ("B",))
    card = ModelCard(
        ("A", "B"),
        False,
        calibration=LogitScale((2.0, 1.0), (0.5, 0.0)),
        calibration_on=FittedOn("platt", "val", 12, ("mine",), ("B",)),
        thresholds=(0.2, 0.5),
        thresholds_on=chosen_on,
    )
    save_checkpoint(tmp_path / "a.pth", card, {})
    loaded = load_checkpoint(tmp_path / "a.pth").card
    assert loaded == card
    assert str(chosen_on) == "f1, chosen on 12 records of split val of mine"
    predictions = Predictions(
        ("d__0",), [[1, 0]], [[0.3, 0.3]], ("A", "B"), False, thresholds=np.array([0.2, 0.5])
    )
    thresholds = summarize_thresholds(loaded, predictions)
    assert thresholds is not None and thresholds["values"] == {"A": 0.2, "B": 0.5}
    assert (thresholds["rule"], thresholds["n_records"]) == ("f1", 12)
    calibration = summarize_calibration(loaded)
    assert calibration is not None
    assert calibration["values"]["A"] == {"slope": 2.0, "intercept": 0.5}
    assert summarize_calibration(CARD) is None and summarize_thresholds(CARD, predictions) is None


def test_a_card_predicts_labels() -> None:
    several = ModelCard(("A", "B", "C"), False, thresholds=(0.2, 0.9, 0.5))
    assert several.predict_labels([0.2, 0.89, 0.7]) == ("A", "C")
    assert several.predict_labels([0.1, 0.1, 0.1]) == ()
    assert ModelCard(("A", "B"), False).predict_labels([0.5, 0.49]) == ("A",)
    assert ModelCard(("A", "B"), True).predict_labels([0.1, 0.2]) == ("B",)
