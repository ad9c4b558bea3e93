from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.__main__ import build_parser
from src.eval import EvaluationOptions, evaluate_predictions
from src.learning.comparison import compare_prediction_files
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.text import format_evaluation
from src.processed.manifest import MANIFEST_COLUMNS, save_manifest


def make(name: str, single: bool, n: int = 120, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    y_true = np.eye(2)[rng.integers(0, 2, n)]
    scores = np.clip(0.3 * rng.random((n, 2)) + 0.2 * y_true, 0.01, 0.99)
    return Predictions(
        tuple(f"d__{name}{i}" for i in range(n)), y_true, scores, ("NSR", "AF"), single_label=single
    )


def rows_of(predictions: Predictions) -> pd.DataFrame:
    n = len(predictions.keys)
    labels = ["NSR" if row[0] else "AF" for row in predictions.y_true]
    cells = {
        "dataset": "d",
        "record_id": [key[3:] for key in predictions.keys],
        "labels": labels,
        "age": "50",
        "sex": "F",
    }
    return pd.DataFrame(
        {**cells, "patient_id": [str(i // 2) for i in range(n)]}, index=list(predictions.keys)
    )


def test_without_options_nothing_is_learned() -> None:
    test = make("t", single=True)
    predictions, metrics = evaluate_predictions(test, rows_of(test), EvaluationOptions())
    assert predictions is test and metrics | compute_metrics(test) == metrics
    assert (
        metrics["subgroups"]["sex"]["female"]["n_records"] == 120
        and metrics["reliability"]["ece"] > 0
    )
    assert not {"thresholds", "calibration", "intervals", "challenge"} & metrics.keys()
    assert format_evaluation(metrics).startswith("class")


def test_everything_at_once(tmp_path: Path) -> None:
    weights = tmp_path / "weights.csv"
    weights.write_text(",426783006,164889003\n426783006,1,0.5\n164889003,0.5,1\n")
    test, validation = make("t", single=False), make("v", single=False, seed=1)
    options = EvaluationOptions(50, "sensitivity=0.9", True, weights)
    predictions, metrics = evaluate_predictions(test, rows_of(test), options, validation)
    assert metrics["thresholds"]["learned_on"] == metrics["calibration"]["learned_on"] == "val"
    assert metrics["thresholds"]["values"] == dict(
        zip(test.classes, predictions.thresholds, strict=True)
    )
    assert metrics["per_class"]["AF"]["threshold"] == metrics["thresholds"]["values"]["AF"] != 0.5
    assert (
        metrics["per_class"]["AF"]["recall"]
        > 0.75
        > compute_metrics(test)["per_class"]["AF"]["recall"]
    )
    assert metrics["reliability"]["ece"] < metrics["calibration"]["reliability_before"]["ece"]
    assert metrics["intervals"]["n_patients"] == 60 and metrics["challenge"]["challenge_score"] > 0
    json.dumps(metrics, allow_nan=False)
    text = format_evaluation(metrics)
    assert "95% intervals over 60 patients" in text and "Challenge: challenge_score" in text


def test_the_records_judged_teach_nothing() -> None:
    """Other outcomes of the test records leave thresholds and calibration as they were."""
    test, validation = make("t", single=False), make("v", single=False, seed=1)
    turned = Predictions(test.keys, 1 - test.y_true, test.y_score, test.classes, single_label=False)
    options = EvaluationOptions(thresholds="f1", calibrate=True)
    found = [evaluate_predictions(p, rows_of(p), options, validation) for p in (test, turned)]
    assert found[0][1]["thresholds"] == found[1][1]["thresholds"]
    np.testing.assert_array_equal(found[0][0].y_score, found[1][0].y_score)


def test_records_without_a_class_are_judged_beside_the_others() -> None:
    """Two of five records carry no class and score high for one; a sixth was not looked at for
    any.
    """
    y_true = [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [np.nan, np.nan]]
    y_score = [[0.8, 0.1], [0.6, 0.2], [0.3, 0.7], [0.7, 0.1], [0.1, 0.1], [0.9, 0.9]]
    everyone = Predictions(
        tuple(f"d__r{i}" for i in range(6)), y_true, y_score, ("NSR", "AF"), single_label=False
    )
    labelled = everyone.subset(np.arange(3))
    rows, validation = rows_of(labelled), make("v", single=False, seed=1)
    _, metrics = evaluate_predictions(labelled, rows, EvaluationOptions(), None, everyone)
    found = metrics["protocols"]
    assert (found["labelled"]["n_records"], found["all"]["n_records"]) == (3, 5)
    assert found["labelled"]["auroc_macro"] == metrics["auroc_macro"] == 1
    assert found["all"]["auroc_macro"] == pytest.approx(
        (5 / 6 + 1) / 2
    )  # 0.7 outranks one positive of two, among three negatives
    assert found["all"]["frequent"] == {"min_positives": 10, "n_classes": 0} | dict.fromkeys(
        list(found["all"]["frequent"])[2:]
    )
    assert "5 records with and without one: macro F1" in format_evaluation(metrics)
    _, learned = evaluate_predictions(
        labelled, rows, EvaluationOptions(thresholds="sensitivity=1"), validation, everyone
    )
    assert (
        learned["protocols"]["labelled"]["f1_macro"] == learned["f1_macro"] != metrics["f1_macro"]
    )
    assert "protocols" not in evaluate_predictions(labelled, rows, EvaluationOptions())[1]
    assert "with and without" not in format_evaluation(
        evaluate_predictions(labelled, rows, EvaluationOptions(), None, labelled)[1]
    )


@pytest.mark.parametrize(
    "options", [EvaluationOptions(thresholds="f1"), EvaluationOptions(calibrate=True)]
)
def test_learning_on_the_split_judged_is_refused(options: EvaluationOptions) -> None:
    test = make("t", single=False)
    with pytest.raises(ValueError, match="would be chosen on it"):
        options.check("val", single_label=False)
    options.check("test", single_label=False)
    EvaluationOptions(intervals=10).check("val", single_label=False)
    with pytest.raises(ValueError, match="120 evaluated records are validation records too"):
        evaluate_predictions(test, rows_of(test), options, test)
    with pytest.raises(ValueError, match="no validation records"):
        evaluate_predictions(test, rows_of(test), options)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="intervals is -1"):
        EvaluationOptions(intervals=-1)
    with pytest.raises(ValueError, match="thresholds is 'best'"):
        EvaluationOptions(thresholds="best")
    with pytest.raises(ValueError, match="predicts one label per record"):
        EvaluationOptions(thresholds="f1").check("test", single_label=True)
    with pytest.raises(ValueError, match=r"absent\.csv: cannot be read"):
        EvaluationOptions(challenge_weights="absent.csv").check("test", single_label=True)


def test_saved_predictions_are_compared(tmp_path: Path) -> None:
    a, b = make("t", single=True), make("t", single=True)
    a.save(tmp_path / "a.npz")
    b.save(tmp_path / "b.npz")
    rows = rows_of(a).reindex(columns=list(MANIFEST_COLUMNS), fill_value="")
    save_manifest(rows, tmp_path)
    for manifest in (tmp_path, tmp_path / "manifest.csv"):
        found = compare_prediction_files(
            tmp_path / "a.npz", tmp_path / "b.npz", manifest, n_resamples=10
        )
        assert found["n_patients"] == 60 and found["auroc_macro"]["difference"] == 0
    assert (
        compare_prediction_files(tmp_path / "a.npz", tmp_path / "b.npz", n_resamples=10)[
            "n_patients"
        ]
        == 120
    )
    with pytest.raises(ValueError, match="no manifest; expected"):
        compare_prediction_files(
            tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "elsewhere" / "manifest.csv"
        )


def test_the_command_line_compares_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("t", single=True).save(tmp_path / "a.npz")
    args = build_parser().parse_args(
        ["compare-predictions", *[str(tmp_path / "a.npz")] * 2, "--resamples", "10"]
    )
    assert args.run_command(args) == 0
    assert "120 records of 120 patients, 10 resamples" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(
            [
                "evaluate",
                "--checkpoint",
                "c",
                "--processed",
                "p",
                "--out",
                "o",
                "--thresholds",
                "best",
            ]
        )
    assert "expected f1, none, or sensitivity=X" in capsys.readouterr().err.replace("\n", " ")
