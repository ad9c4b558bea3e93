"""F1 bars, by their texts and marks."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from src.plots.f1_scores import plot_f1_scores


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()  # layout and text warn here if they do
    return figure


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
    assert (axes.get_xlabel(), axes.get_xlim()) == (
        "F1 score (lines: 95 % interval)",
        (0.0, 1.0),
    )


@pytest.mark.parametrize("n", [1, 71])
def test_f1_bars_fit_a_page(n: int) -> None:
    figure = _draw(plot_f1_scores({f"class {i}": {"f1": i / 71, "support": i} for i in range(n)}))
    assert figure.get_figheight() * 25.4 < 297
    assert len(figure.axes[0].patches) == n


def test_f1_without_a_defined_score_has_no_macro_line() -> None:
    assert not plot_f1_scores({"a": {"f1": None}}).axes[0].lines
    with pytest.raises(ValueError, match="no class"):
        plot_f1_scores({})
