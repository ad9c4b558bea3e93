"""The confusion matrix, by their texts and marks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.plots.confusion_matrix import plot_confusion_matrix


def _draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()  # layout and text warn here if they do
    return figure


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
