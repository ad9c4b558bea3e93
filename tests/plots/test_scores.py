"""Training history, confusion matrix and F1 bars, by what is on the page."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

import src.plots
from src.plots.history import plot_training_history
from src.plots.scores import plot_confusion_matrix, plot_f1_scores

HISTORY = [
    {
        "epoch": 1,
        "train_loss": 1.0,
        "val_loss": 1.1,
        "val_f1_macro": 0.5,
        "val_auroc_macro": 0.7,
        "lr": 1e-3,
    },
    {
        "epoch": 2,
        "train_loss": 0.8,
        "val_loss": 0.9,
        "val_f1_macro": 0.7,
        "val_auroc_macro": 0.9,
        "lr": 5e-4,
    },
    {
        "epoch": 3,
        "train_loss": 0.7,
        "val_loss": 1.0,
        "val_f1_macro": 0.8,
        "val_auroc_macro": 0.8,
        "lr": 1e-4,
    },
]


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _draw(figure: Figure) -> Figure:
    figure.canvas.draw()  # layout and text warn here if they do
    return figure


def test_everything_promised_is_offered() -> None:
    offered = dir(src.plots)
    assert all(callable(getattr(src.plots, name)) for name in offered)
    assert {"plot_ecg", "plot_training_history", "save_figure"} < set(offered)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        getattr(src.plots, "plot_nothing")  # noqa: B009  the checker would know that it is not there


# History ------------------------------------------------------------------------------------------


def test_history_has_a_panel_for_losses_scores_and_rate() -> None:
    figure = _draw(plot_training_history(HISTORY))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "Loss",
        "Validation score",
        "Learning rate",
    ]
    assert figure.axes[-1].get_xlabel() == "Epoch"
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["training"].tolist() == [1.0, 0.8, 0.7]
    assert lines["validation"].tolist() == [1.1, 0.9, 1.0]


@pytest.mark.parametrize(("chosen", "marked"), [(None, 2), (3, 3)])
def test_history_marks_the_best_epoch(chosen: int | None, marked: int) -> None:
    figure = plot_training_history(HISTORY, best_epoch=chosen)
    assert f"best: epoch {marked}" in _texts(figure)
    assert all(list(axes.lines[-1].get_xdata()) == [marked, marked] for axes in figure.axes)


def test_history_tolerates_what_is_missing() -> None:
    rows = [
        {"epoch": 1, "train_loss": 2.0, "val_f1_macro": None},
        {"epoch": 2, "train_loss": 1.0, "lr": None},
    ]
    figure = _draw(plot_training_history(rows))
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss"]
    assert "best: epoch 2" in _texts(figure)
    gaps = (
        _draw(plot_training_history([*HISTORY, {"epoch": 4, "train_loss": math.nan}]))
        .axes[0]
        .lines[0]
        .get_ydata()
    )
    assert np.isnan(gaps).tolist() == [False, False, False, True]


def test_history_of_one_epoch_shows_points_and_a_whole_epoch() -> None:
    figure = _draw(plot_training_history(HISTORY[:1]))
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert [tick for tick in figure.axes[-1].get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_history_without_an_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="no epoch"):
        plot_training_history([])


# Confusion matrix ---------------------------------------------------------------------------------


def test_confusion_matrix_shows_counts_and_shares_of_the_true_class() -> None:
    figure = _draw(plot_confusion_matrix([[3, 1], [0, 1000]], ["AF", "NORM"]))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "0", "1,000\n100%"]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert figure.axes[1].get_ylabel() == "Share of the true class"


def test_confusion_matrix_leaves_a_class_without_records_uncoloured() -> None:
    shares = plot_confusion_matrix([[0, 0], [1, 1]], ["a", "b"]).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shares).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(("n", "n_texts"), [(1, 1), (20, 400), (30, 0)])
def test_confusion_matrix_of_many_classes_drops_the_numbers(n: int, n_texts: int) -> None:
    figure = _draw(plot_confusion_matrix(np.eye(n), [f"class {i}" for i in range(n)]))
    assert len(figure.axes[0].texts) == n_texts
    assert figure.get_figwidth() * 25.4 <= 183.01


@pytest.mark.parametrize(
    ("matrix", "classes"), [([[1, 2]], ["a"]), ([[1]], ["a", "b"]), ([[-1]], ["a"]), ([], [])]
)
def test_confusion_matrix_refuses_other_shapes_and_negative_counts(
    matrix: list, classes: list[str]
) -> None:
    with pytest.raises(ValueError, match="the matrix h"):
        plot_confusion_matrix(matrix, classes)


# F1 -----------------------------------------------------------------------------------------------


def test_f1_bars_are_sorted_with_support_macro_and_interval() -> None:
    per_class = {
        "a": {"f1": 0.2, "support": 1234},
        "b": {"f1": 0.8, "support": 5},
        "c": {"f1": None, "support": 0},
    }
    figure = _draw(plot_f1_scores(per_class, {"b": (0.7, 0.9)}))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    assert [bar.get_width() for bar in axes.patches][:2] == [0.8, 0.2]
    assert {"undefined", "macro 0.500", "n", "1,234"} <= set(_texts(figure))
    assert axes.collections[0].get_segments()[0].tolist() == [[0.7, 0.0], [0.9, 0.0]]
    assert (axes.get_xlabel(), axes.get_xlim()) == ("F1 score", (0.0, 1.0))


@pytest.mark.parametrize("n", [1, 71])
def test_f1_bars_fit_a_page(n: int) -> None:
    figure = _draw(plot_f1_scores({f"class {i}": {"f1": i / 71, "support": i} for i in range(n)}))
    assert figure.get_figheight() * 25.4 < 297
    assert len(figure.axes[0].patches) == n


def test_f1_without_a_defined_score_has_no_macro_line() -> None:
    assert not plot_f1_scores({"a": {"f1": None}}).axes[0].lines
    with pytest.raises(ValueError, match="no class"):
        plot_f1_scores({})
