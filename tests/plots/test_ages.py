"""Ages by sex, by texts and bars."""

from __future__ import annotations

import pytest

from src.plots.ages import plot_ages


def test_ages_stand_in_bands_of_five_years_by_sex() -> None:
    figure = plot_ages(
        [61, 64.9, 65, 30, None, float("nan")], ["female", "female", "male", None, "male", "female"]
    )
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_xlim() == (30, 70) and axes.get_ylabel() == "Records"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "women (2)",
        "men (1)",
        "sex unknown (1)",
    ]
    counts = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert counts == [[0, 0, 0, 0, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0]]


def test_ages_of_one_group_and_of_none() -> None:
    assert [
        text.get_text() for text in plot_ages([0, 3], ["male", "male"]).legends[0].get_texts()
    ] == ["men (2)"]
    assert "no ages known" in [
        text.get_text() for text in plot_ages([None], ["male"]).axes[0].texts
    ]
    with pytest.raises(ValueError, match="1 ages and 2 sexes"):
        plot_ages([50], ["male", "female"])
