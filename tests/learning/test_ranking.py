from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from src.learning.metrics import Ranking


def test_weights_count_records_so_many_times() -> None:
    rng = np.random.default_rng(0)
    y_true, y_score = rng.integers(0, 2, 60).astype(float), np.round(rng.random(60), 1)
    y_true[:5] = np.nan
    weights = rng.integers(0, 4, (8, 60)).astype(float)
    ranking = Ranking.of(y_true, y_score)
    auroc, precision = ranking.auroc(weights), ranking.average_precision(weights)
    for row, w in enumerate(weights):
        w = np.where(np.isnan(y_true), 0, w).astype(int)
        t, s = np.repeat(y_true, w), np.repeat(y_score, w)
        assert auroc[row] == pytest.approx(roc_auc_score(t, s), abs=1e-12)
        assert precision[row] == pytest.approx(average_precision_score(t, s), abs=1e-12)


@pytest.mark.parametrize("y_true", [[1, 1], [0, 0], [np.nan, 1], [np.nan, np.nan]])
def test_without_both_outcomes_there_is_no_area(y_true: list[float]) -> None:
    ranking = Ranking.of(y_true, [0.1, 0.2])
    assert np.isnan(ranking.auroc()).all() and np.isnan(ranking.average_precision()).all()
    assert np.isnan(ranking.auroc(np.zeros((3, 2)))).tolist() == [True] * 3


def test_a_weighting_without_positives_has_no_area() -> None:
    ranking = Ranking.of([1, 0, 0], [0.9, 0.1, 0.2])
    weights = np.array([[0.0, 1, 1], [1, 0, 0], [1, 1, 1]])
    assert np.isnan(ranking.auroc(weights)).tolist() == [True, True, False]
    assert np.isnan(ranking.average_precision(weights)).tolist() == [True, True, False]
