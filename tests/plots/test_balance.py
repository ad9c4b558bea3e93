"""Class and source balance, by their texts and marks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.plots.balance import plot_class_balance, plot_source_balance

SPLITS = {"train": {"NORM": 800, "AF": 8}, "val": {"NORM": 100, "AF": 0}, "test": {"NORM": 1334}}


def _draw(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_class_balance_has_a_marker_per_split_and_totals() -> None:
    figure = _draw(plot_class_balance(SPLITS))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["NORM", "AF"]
    assert {line.get_label(): list(line.get_xdata()) for line in axes.lines} == {
        "train": [800, 8],
        "val": [100, 0],
        "test": [1334, 0],
    }
    assert {"2,234", "8", "total"} == set(_texts(figure))
    assert (axes.get_xlabel(), axes.get_xlim()[0]) == ("Records", 0)
    assert "1k" in [label.get_text() for label in axes.get_xticklabels()]


@pytest.mark.parametrize("plot", [plot_class_balance, plot_source_balance])
@pytest.mark.parametrize("n", [1, 71])
def test_balance_fits_a_page(plot, n: int) -> None:
    figure = _draw(plot({"one": {f"class {i}": i for i in range(n)}}))
    assert figure.get_figheight() * 25.4 < 297


@pytest.mark.parametrize("plot", [plot_class_balance, plot_source_balance])
@pytest.mark.parametrize("counts", [{}, {"train": {}}])
def test_balance_without_a_class_is_refused(plot, counts: dict) -> None:
    with pytest.raises(ValueError, match="no class"):
        plot(counts)


def test_source_balance_colours_by_the_share_of_the_class() -> None:
    figure = _draw(plot_source_balance({"ptbxl": {"NORM": 75, "MI": 4}, "georgia": {"NORM": 25}}))
    shares = figure.axes[0].collections[0].get_array()
    assert np.asarray(shares).reshape(2, 2).tolist() == [[0.75, 0.25], [1.0, 0.0]]
    assert _texts(figure) == ["75", "25", "4", "0"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["ptbxl", "georgia"]


@pytest.mark.parametrize(
    ("names", "turned"),
    [(("a", "b"), False), (("synthetic_challenge", "synthetic_mat", "synthetic_wfdb"), True)],
)
def test_names_of_sources_are_turned_where_they_would_touch(
    names: tuple[str, ...], turned: bool
) -> None:
    axes = _draw(plot_source_balance({name: {"AF": 1} for name in names})).axes[0]
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(bool(label.get_rotation()) == turned for label in axes.get_xticklabels())
    assert turned or all(left.x1 < right.x0 for left, right in pairwise(boxes))
