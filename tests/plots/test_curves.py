"""ROC and precision-recall curves, against hand-worked values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, roc_auc_score

from src.plots.curves import plot_precision_recall_curves, plot_roc_curves

CURVES = [plot_roc_curves, plot_precision_recall_curves]


def _scores(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (rng.random((n, k)) < np.linspace(0.5, 0.1, k)).astype(float)
    return truth, np.clip(0.3 * truth + 0.7 * rng.random((n, k)), 0, 1)


def _legend(figure: Figure) -> tuple[str, list[str]]:
    figure.draw_without_rendering()
    return figure.legends[0].get_title().get_text(), [
        text.get_text() for text in figure.legends[0].get_texts()
    ]


def _curve(figure: Figure, gid: str) -> np.ndarray:
    (line,) = (line for line in figure.axes[0].lines if line.get_gid() == gid)
    return line.get_xydata()


def test_roc_by_hand() -> None:
    figure = plot_roc_curves([[0], [0], [1], [1]], [[0.1], [0.4], [0.35], [0.8]], ["AF"])
    assert _curve(figure, "curve-AF").tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert _legend(figure) == ("AUROC 0.750 (1 class)", ["AF  0.750"])
    assert "false positive rate" in figure.axes[0].get_xlabel()
    assert "Sensitivity" in figure.axes[0].get_ylabel()


def test_areas_are_those_of_scikit_learn_over_the_annotated_records() -> None:
    truth, scores = _scores(200, 3)
    truth[:50, 1] = np.nan
    known = ~np.isnan(truth[:, 1])
    _, roc = _legend(plot_roc_curves(truth, scores, ["a", "b", "c"]))
    _, pr = _legend(plot_precision_recall_curves(truth, scores, ["a", "b", "c"]))
    assert f"b  {roc_auc_score(truth[known, 1], scores[known, 1]):.3f}" in roc
    assert f"b  {average_precision_score(truth[known, 1], scores[known, 1]):.3f}" in pr


def test_the_mean_roc_curve_has_the_macro_area() -> None:
    truth, scores = _scores(400, 4)
    mean = _curve(plot_roc_curves(truth, scores, list("abcd")), "macro")
    assert np.trapezoid(mean[:, 1], mean[:, 0]) == pytest.approx(
        roc_auc_score(truth, scores, average="macro"), abs=2e-3
    )


@pytest.mark.parametrize("plot", CURVES)
def test_a_class_of_one_outcome_has_no_curve_and_is_named(plot) -> None:
    truth, scores = _scores(50, 3)
    truth[:, 1], truth[:, 2] = 0, np.nan
    title, names = _legend(plot(truth, scores, ["a", "never", "unknown"]))
    assert title.endswith("positives or negatives only: never, unknown")
    assert len(names) == 1
    title, names = _legend(plot(truth[:, 1:2], scores[:, 1:2], ["never"]))
    assert title.startswith("no curve")
    assert names == []


@pytest.mark.parametrize("plot", CURVES)
def test_of_many_classes_the_most_frequent_are_named(plot) -> None:
    truth, scores = _scores(300, 30)
    names = [f"class {i}" for i in range(30)]
    figure = plot(truth, scores, names)
    title, named = _legend(figure)
    assert len(named) == 12
    assert "grey: the 18 rarer classes" in title
    assert sum((line.get_gid() or "").startswith("curve-") for line in figure.axes[0].lines) == 30


def test_large_sets_are_drawn_with_the_points_that_show() -> None:
    truth, scores = _scores(40_000, 1)
    curve = _curve(plot_precision_recall_curves(truth, scores, ["a"]), "curve-a")
    assert len(curve) < 6000
    assert curve[0, 0] == pytest.approx(1.0)
    assert curve[-1].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("plot", CURVES)
def test_refuses_shapes_and_scores_that_do_not_fit(plot) -> None:
    with pytest.raises(ValueError, match=r"expected both \(n_records, 2\)"):
        plot([[1]], [[0.5]], ["a", "b"])
    with pytest.raises(ValueError, match="finite"):
        plot([[1]], [[np.nan]], ["a"])
    with pytest.raises(ValueError, match="0, 1 and NaN"):
        plot([[2]], [[0.5]], ["a"])
