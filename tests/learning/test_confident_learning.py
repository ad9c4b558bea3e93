"""Confident learning on values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from src.learning.label_issues import class_thresholds, find_label_issues, suggest_classes
from src.learning.predictions import Predictions

NAN = float("nan")


def test_thresholds_are_the_mean_probability_of_the_own_records() -> None:
    y_score = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    thresholds = class_thresholds(y_score, np.array([0, 0, 1]))
    assert thresholds == pytest.approx([0.7, 0.8, np.inf])


def test_a_record_below_every_threshold_keeps_its_class() -> None:
    y_score = np.array([[0.9, 0.1], [0.1, 0.9], [0.45, 0.55], [0.1, 0.9]])
    given = np.array([0, 1, 0, 0])
    # Thresholds: (0.9 + 0.45 + 0.1) / 3 = 0.483 and 0.9
    suggested = suggest_classes(y_score, given, np.ones((4, 2), bool))
    assert suggested.tolist() == [0, 1, 0, 1]


def test_one_label_is_changed_and_ranked_by_the_normalized_margin() -> None:
    y_true = np.eye(3)[[0, 0, 0, 1, 1, 1]]
    y_score = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.7, 0.2, 0.1],
            [0.1, 0.9, 0.0],
            [0.1, 0.8, 0.1],
            [0.2, 0.8, 0.0],
            [0.65, 0.3, 0.05],
        ]
    )
    issues = find_label_issues(Predictions(tuple("abcdef"), y_true, y_score, ("X", "Y", "Z")))
    # Thresholds: X 1.6 / 3 = 0.533, Y 1.9 / 3 = 0.633, and none for Z
    found = [(issue.key, issue.suggestion, issue.class_name) for issue in issues]
    assert found == [("c", "change to Y", "X"), ("f", "change to X", "Y")]
    assert [issue.score for issue in issues] == pytest.approx([0.9, 0.675])
    assert [issue.probability for issue in issues] == pytest.approx([0.1, 0.3])


def test_each_of_several_labels_is_added_or_dropped() -> None:
    y_true = [[1, 0], [1, 1], [0, 1], [1, 0], [0, 0]]
    y_score = [[0.9, 0.1], [0.8, 0.9], [0.9, 0.8], [0.1, 0.2], [0.2, 0.05]]
    issues = find_label_issues(
        Predictions(tuple("abcde"), np.array(y_true), np.array(y_score), ("X", "Y"))
    )
    # X: present from 0.6, absent from 1 - 0.55; Y: present from 0.85, absent from 1 - 0.117
    found = [(issue.key, issue.suggestion) for issue in issues]
    assert found == [("c", "add X"), ("d", "drop X")]
    assert [issue.score for issue in issues] == pytest.approx([0.9, 0.9])


def test_what_was_not_annotated_never_counts() -> None:
    y_true = np.array([[1, NAN], [0, NAN], [NAN, 1], [NAN, 0], [0, 1]])
    y_score = np.array([[0.9, 1.0], [0.1, 1.0], [1.0, 0.9], [1.0, 0.1], [0.1, 0.9]])
    predictions = Predictions(tuple("abcde"), y_true, y_score, ("X", "Y"))
    assert find_label_issues(predictions) == []
    one = Predictions(("a", "b"), [[1, NAN, 0]] * 2, [[0.1, 0.8, 0.1]] * 2, ("X", "Y", "Z"), True)  # type: ignore[arg-type]
    assert find_label_issues(one) == []
