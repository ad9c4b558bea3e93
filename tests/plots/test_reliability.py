"""The reliability diagram, against hand-worked values."""

from __future__ import annotations

import numpy as np
import pytest

from src.plots.reliability import plot_reliability_diagram


def _scores(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (rng.random((n, k)) < np.linspace(0.5, 0.1, k)).astype(float)
    return truth, np.clip(0.3 * truth + 0.7 * rng.random((n, k)), 0, 1)


def test_reliability_by_hand() -> None:
    truth = [[0], [1], [1], [1], [np.nan]]
    figure = plot_reliability_diagram(truth, [[0.2], [0.3], [0.8], [1.0], [0.9]], ["AF"], n_bins=2)
    figure.draw_without_rendering()
    top, bottom = figure.axes
    pool = next(line for line in top.lines if line.get_label() == "all classes")
    assert pool.get_xydata() == pytest.approx(np.array([[0.25, 0.5], [0.9, 1.0]]))
    assert (
        figure.legends[0].get_title().get_text().startswith("ECE 0.175;")
    )  # (2 * .25 + 2 * .1) / 4
    low, high = np.array(top.collections[0].get_segments())[0][:, 1]
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2
    assert bottom.get_xlabel() == "Predicted probability"
    assert bottom.patches[0].get_data().values.tolist() == [2, 2]


def test_reliability_draws_few_classes_one_by_one() -> None:
    truth, scores = _scores(500, 7)
    names = [f"class {i}" for i in range(7)]
    few = plot_reliability_diagram(truth[:, :6], scores[:, :6], names[:6]).legends[0]
    many = plot_reliability_diagram(truth, scores, names).legends[0]
    assert [len(legend.get_texts()) for legend in (few, many)] == [7, 1]


def test_reliability_without_an_outcome_is_an_empty_diagram() -> None:
    figure = plot_reliability_diagram(np.full((3, 1), np.nan), np.full((3, 1), 0.5), ["a"])
    figure.draw_without_rendering()
    assert figure.legends[0].get_title().get_text() == "no outcome"
    plot_reliability_diagram(np.empty((0, 1)), np.empty((0, 1)), ["a"]).draw_without_rendering()


def test_refuses_shapes_and_scores_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"expected both \(n_records, 2\)"):
        plot_reliability_diagram([[1]], [[0.5]], ["a", "b"])
    with pytest.raises(ValueError, match="finite"):
        plot_reliability_diagram([[1]], [[np.nan]], ["a"])
    with pytest.raises(ValueError, match="0, 1 and NaN"):
        plot_reliability_diagram([[2]], [[0.5]], ["a"])


def test_reliability_refuses_logits_and_no_bins() -> None:
    with pytest.raises(ValueError, match="from -2 to -2: expected probabilities"):
        plot_reliability_diagram([[1]], [[-2.0]], ["a"])
    with pytest.raises(ValueError, match="n_bins is 0"):
        plot_reliability_diagram([[1]], [[0.5]], ["a"], n_bins=0)


def test_a_name_that_begins_with_an_underscore_is_in_the_legend() -> None:
    truth, scores = (
        np.tile([[1.0, 0.0], [0.0, 1.0]], (30, 1)),
        np.tile([[0.8, 0.3], [0.2, 0.7]], (30, 1)),
    )
    legend = plot_reliability_diagram(truth, scores, ["_AF", "NORM"]).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "_AF",
        "NORM",
        "all classes",
    ]
