"""Coverage of the intervals: how often a 95 % interval holds the true value, by simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from src.learning.comparison import compare_predictions
from src.learning.intervals import bootstrap_intervals
from src.learning.predictions import Predictions

NORMAL = NormalDist()
REPEATS = 300


def draw(
    rng: np.random.Generator, n_positive: int, n_negative: int, *aurocs: float, common: float = 0.0
) -> list[Predictions]:
    """Return scores with the true AUROCs for the same records, as normal in each outcome.

    `common` is the correlation of the models' scores within an outcome.
    """
    outcome = np.repeat([1.0, 0.0], [n_positive, n_negative])[:, None]
    shared = rng.normal(size=outcome.shape)
    drawn = []
    for auroc in aurocs:
        noise = math.sqrt(common) * shared + math.sqrt(1 - common) * rng.normal(size=outcome.shape)
        score = math.sqrt(2) * NORMAL.inv_cdf(auroc) * outcome + noise
        y_score = 1 / (1 + np.exp(-score))
        keys = tuple(map(str, range(len(outcome))))
        drawn.append(Predictions(keys, outcome, y_score, ("A",), single_label=False))
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("auroc", [0.7, 0.85, 0.95, 0.99])
@pytest.mark.parametrize(("n_positive", "n_negative"), [(10, 200), (20, 200), (20, 2000)])
def test_an_interval_of_auroc_covers(n_positive: int, n_negative: int, auroc: float) -> None:
    rng = np.random.default_rng(round(1000 * auroc) + n_positive + n_negative)
    hits = 0
    for seed in range(REPEATS):
        (predictions,) = draw(rng, n_positive, n_negative, auroc)
        low, high = bootstrap_intervals(predictions, n_resamples=300, seed=seed)["auroc_macro"]
        hits += low <= auroc <= high
    # A coverage of .94 gives less than .9 by chance once in five hundred times
    assert hits / REPEATS >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(0.85, 0.85), (0.85, 0.9), (0.97, 0.97)])
def test_an_interval_of_a_difference_covers(a: float, b: float) -> None:
    rng = np.random.default_rng(round(1000 * a))
    hits = 0
    for seed in range(REPEATS):
        first, second = draw(rng, 15, 200, a, b, common=0.5)
        found = compare_predictions(first, second, n_resamples=300, seed=seed)["auroc_macro"]
        low, high = found["interval"]
        hits += low <= b - a <= high
        assert (low <= 0 <= high) == (found["p_value"] >= 0.05)
    assert hits / REPEATS >= 0.9
