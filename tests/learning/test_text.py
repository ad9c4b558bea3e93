from __future__ import annotations

import numpy as np

from src.learning.comparison import compare_predictions
from src.learning.intervals import bootstrap_intervals
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.text import (
    format_challenge,
    format_comparison,
    format_intervals,
    format_metrics,
    format_table,
    html_evaluation,
)


def make(*, single_label: bool = False) -> Predictions:
    """Four records of class A and one of B, all predicted right but the last."""
    y_true = np.eye(2)[[0, 0, 0, 0, 1]]
    y_score = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.55, 0.45]])
    return Predictions(tuple("abcde"), y_true, y_score, ("A", "B"), single_label=single_label)


def test_columns_are_aligned() -> None:
    assert format_table([["name", "n"], ["a", "100"]]) == "name    n\na     100"


def test_metrics_by_hand() -> None:
    """B is never predicted, so precision, recall and F1 are 0, but its only record ranks first.

    This record is predicted as A: precision 4/5, F1 8/9.
    """
    *table, pooled = format_metrics(compute_metrics(make())).splitlines()
    assert len({len(line) for line in table}) == 1
    assert [" ".join(line.split()) for line in table] == [
        "class positive annotated threshold precision recall F1 AUROC AP",
        "A 4 5 0.500 0.800 1.000 0.889 1.000 1.000",
        "B 1 5 0.500 0.000 0.000 0.000 1.000 1.000",
        "macro 5 0.400 0.500 0.444 1.000 1.000",
        "macro, 10 positives or more 0 classes - - - - -",
    ]
    assert pooled == "accuracy 0.800, F1 micro 0.800, F1 weighted 0.711"


def test_one_label_per_record_has_no_threshold() -> None:
    text = format_metrics(compute_metrics(make(single_label=True)))
    assert "threshold" not in text and len({len(line) for line in text.splitlines()[:-1]}) == 1


def test_undefined_classes_are_named() -> None:
    nothing = Predictions(("a",), [[np.nan, np.nan]], [[0.1, 0.2]], ("A", "B"))
    text = format_metrics(compute_metrics(nothing))
    assert text.endswith("no positive (or no negative) record, excluded from the averages: A, B")


def test_classes_of_few_patients_are_named() -> None:
    patients = ("p", "p", "q", "q", "r")
    intervals = bootstrap_intervals(make(), patients, n_resamples=20)
    warning = (
        "fewer than 20 patients with (or without) these classes, whose intervals are uncertain: "
    )
    assert format_intervals(intervals).startswith("95% intervals over 3 patients: auroc_macro ")
    assert f"{warning}A, B" in format_intervals(intervals)
    comparison = compare_predictions(make(), make(), patients, n_resamples=20)
    assert format_comparison(comparison).endswith(f"{warning}A, B")


def test_a_missing_difference_is_a_dash() -> None:
    everywhere = Predictions(("a", "b"), [[1, 1], [1, 0]], np.full((2, 2), 0.7), ("A", "B"), False)
    lines = format_comparison(compare_predictions(everywhere, everywhere, n_resamples=5))
    [row] = [line for line in lines.splitlines() if line.startswith("A auroc")]
    assert row.split() == ["A", "auroc", *["-"] * 5]


def test_challenge_scores_are_one_line() -> None:
    scores = dict.fromkeys(("auroc", "auprc", "f_measure", "f2_measure", "g2_measure"), 0.5)
    text = format_challenge({**scores, "auprc": None, "challenge_score": -0.25, "accuracy": 1.0})
    assert text == (
        "Challenge: challenge_score -0.250, auroc 0.500, auprc -, f_measure 0.500, "
        "f2_measure 0.500, g2_measure 0.500, accuracy 1.000"
    )


def test_a_page_shows_values_with_their_intervals() -> None:
    metrics = compute_metrics(make())
    assert " to " not in html_evaluation("test", metrics)
    intervals = bootstrap_intervals(make(), n_resamples=20)
    low, high = intervals["f1_macro"]
    page = html_evaluation("test", {**metrics, "intervals": intervals})
    assert f"0.444 ({low:.3f} to {high:.3f})" in page
