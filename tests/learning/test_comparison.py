from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.__main__ import build_parser
from src.learning.comparison import (
    compare_prediction_files,
    compare_predictions,
    delong_test,
    holm,
)
from src.learning.predictions import Predictions
from src.learning.text import format_comparison
from src.processed.manifest import MANIFEST_COLUMNS, save_manifest


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


def test_a_better_model_is_told_from_an_equal_one() -> None:
    weak, strong, equal = (
        make(400, skill=0.5),
        make(400, skill=2.0, noise=2),
        make(400, skill=0.5, noise=3),
    )
    better = compare_predictions(weak, strong, n_resamples=300)
    assert better["auroc_macro"]["p_value"] < 0.01 and better["auroc_macro"]["interval"][0] > 0
    assert better["per_class"]["A"]["delong"]["p_value_holm"] < 0.01
    same = compare_predictions(weak, equal, n_resamples=300)
    assert (
        same["auroc_macro"]["p_value"] > 0.05
        and same["auroc_macro"]["interval"][0] < 0 < same["auroc_macro"]["interval"][1]
    )
    itself = compare_predictions(weak, weak, n_resamples=20)
    assert itself["f1_macro"]["p_value"] == 1 and itself["f1_macro"]["interval"] == [0, 0]
    json.dumps(better, allow_nan=False)
    assert "A auroc" in format_comparison(better)


def test_the_order_of_records_and_classes_does_not_matter() -> None:
    a, b = make(100), make(100, skill=2.0)
    rows, columns = np.random.default_rng(0).permutation(100), [2, 0, 1]
    keys, classes = tuple(b.keys[i] for i in rows), tuple(b.classes[i] for i in columns)
    shuffled = Predictions(keys, b.y_true[rows][:, columns], b.y_score[rows][:, columns], classes)
    assert compare_predictions(a, shuffled, n_resamples=20) == compare_predictions(
        a, b, n_resamples=20
    )


def test_predictions_for_other_records_are_refused() -> None:
    a = make(20)
    with pytest.raises(
        ValueError, match=r"1 records are in only one of the two predictions, such as r20"
    ):
        compare_predictions(a, make(21))
    with pytest.raises(ValueError, match=r"1 classes are in only one"):
        compare_predictions(a, make(20, n_classes=4))
    with pytest.raises(ValueError, match=r"the targets of \d+ records differ"):
        compare_predictions(a, make(20, seed=5))


# DeLong's test ------------------------------------------------------------------------------------


def test_delong_by_hand() -> None:
    """Two positives and two negatives, worked out on paper.

    A: positives 4, 2, negatives 3, 1: wins of the positives 1, 1/2, losses of the negatives (share
    of positives above) 1/2, 1; AUROC 3/4. B: positives 4, 3, negatives 2, 3: wins 1, 3/4, losses 1,
    3/4; AUROC 7/8. Differences B - A: wins 0, 1/4 with variance 1/32, losses 1/2, -1/4 with
    variance 9/32; (1/32 + 9/32) / 2 = 5/32.
    """
    test = delong_test([1, 1, 0, 0], [4, 2, 3, 1], [4, 3, 2, 3])
    assert (test.auroc_a, test.auroc_b) == (0.75, 0.875)
    assert test.standard_error == pytest.approx(math.sqrt(5 / 32))
    assert test.z == pytest.approx(0.125 / math.sqrt(5 / 32))
    assert test.p_value == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(test.z / math.sqrt(2)))))


def test_delong_equals_its_definition_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    outcome = rng.integers(0, 2, 80)
    scores = [np.round(rng.normal(size=80) + skill * outcome, 1) for skill in (0.5, 1.0)]
    kernels = []
    for score in scores:
        x, y = score[outcome == 1][:, None], score[outcome == 0][None]
        kernels.append((x > y) + 0.5 * (x == y))
    d = kernels[1] - kernels[0]
    m, n = d.shape
    variance = np.var(d.mean(axis=1), ddof=1) / m + np.var(d.mean(axis=0), ddof=1) / n
    test = delong_test(outcome, *scores)
    assert test.auroc_b - test.auroc_a == pytest.approx(d.mean(), abs=1e-12)
    assert test.standard_error == pytest.approx(math.sqrt(variance), abs=1e-12)


def test_delong_without_difference_or_variance() -> None:
    assert delong_test([1, 1, 0, 0], [4, 3, 2, 1], [8, 7, 6, 5]).p_value == 1
    with pytest.raises(ValueError, match="1 positives and 2 negatives"):
        delong_test([1, 0, 0, np.nan], [1, 2, 3, 4], [1, 2, 3, 4])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


# Saved predictions --------------------------------------------------------------------------------


def test_saved_predictions_are_compared(tmp_path: Path) -> None:
    predictions = replace(make(120, 2), keys=tuple(f"d__r{i}" for i in range(120)))
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    predictions.save(a)
    predictions.save(b)
    rows = pd.DataFrame(
        {
            "dataset": "d",
            "record_id": [f"r{i}" for i in range(120)],
            "patient_id": [str(i // 2) for i in range(120)],
        }
    )
    save_manifest(rows.reindex(columns=list(MANIFEST_COLUMNS), fill_value=""), tmp_path)
    for manifest in (tmp_path, tmp_path / "manifest.csv"):
        comparison = compare_prediction_files(a, b, manifest, n_resamples=10)
        assert comparison["n_patients"] == 60
        assert comparison["auroc_macro"]["difference"] == 0
    assert compare_prediction_files(a, b, n_resamples=10)["n_patients"] == 120
    with pytest.raises(ValueError, match="no manifest; expected"):
        compare_prediction_files(a, b, tmp_path / "elsewhere" / "manifest.csv")


def test_the_command_line_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(120).save(tmp_path / "a.npz")
    args = build_parser().parse_args(
        ["compare-predictions", *[str(tmp_path / "a.npz")] * 2, "--resamples", "10"]
    )
    assert args.run_command(args) == 0
    assert "120 records of 120 patients, 10 resamples" in capsys.readouterr().out
