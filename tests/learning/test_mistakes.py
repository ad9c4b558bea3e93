"""Worst, doubtful and typical records, by hand-worked scores."""

from __future__ import annotations

import numpy as np
import pytest

from src.learning.mistakes import find_doubtful, find_typical, find_worst, measure_errors
from src.learning.predictions import Predictions

NAN = np.nan


def single() -> Predictions:
    truth = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    scores = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.45, 0.4, 0.15], [0.05, 0.05, 0.9]]
    return Predictions(("a", "b", "c", "d"), np.array(truth), np.array(scores), ("N", "AF", "MI"))


def several() -> Predictions:
    truth = [[1, 0, NAN], [0, 1, 0], [0, 0, 0]]
    scores = [[0.4, 0.2, 0.99], [0.1, 0.9, 0.2], [0.75, 0.1, 0.3]]
    thresholds = np.array([0.5, 0.5, 0.25])
    return Predictions(
        ("a", "b", "c"), np.array(truth), np.array(scores), ("N", "AF", "MI"), False, thresholds
    )


def test_errors_with_one_label_are_predicted_less_true() -> None:
    assert measure_errors(single()) == pytest.approx([0, 0.7, 0.05, 0])


def test_errors_with_several_labels_are_distances_from_thresholds() -> None:
    assert measure_errors(several()) == pytest.approx(
        [0.1, 0, 0.25]
    )  # what nobody looked for is no error


def test_the_worst_come_first_and_right_ones_never() -> None:
    worst = find_worst(single())
    assert [record.key for record in worst] == ["b", "c"]
    assert str(worst[0]) == "true: N, predicted: AF" and list(worst[0].scores) == ["AF", "N", "MI"]
    assert [record.key for record in find_worst(single(), 1)] == ["b"]
    assert str(find_worst(several())[0]) == "true: none, predicted: N + MI"


def test_typical_records_are_right_and_stand_once() -> None:
    assert [record.key for record in find_typical(single())] == ["a", "d"]
    assert [(record.key, record.error) for record in find_typical(several())] == [("b", 0.0)]
    assert find_typical(single(), 1)[0].true == ("N",)


def test_the_most_doubtful_of_the_right_ones_come_first() -> None:
    # a is right by 0.7 - 0.2, d by 0.9 - 0.05
    assert [record.key for record in find_doubtful(single())] == ["a", "d"]
    assert [record.key for record in find_doubtful(single(), 1)] == ["a"]
    two = several()
    two.y_true[0, 0] = 0
    # a is 0.1 below its threshold, what nobody looked for does not count; b is 0.05 below
    assert [record.key for record in find_doubtful(two)] == ["b", "a"]


def test_a_tie_that_is_predicted_wrongly_counts() -> None:
    tie = Predictions(("a",), np.array([[0, 1]]), np.array([[0.5, 0.5]]), ("N", "AF"))
    assert measure_errors(tie) == pytest.approx([0]) and find_worst(tie)[0].key == "a"
