"""Class and source balance and the quality page, by what is on them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from src.plots.data import (
    plot_ages,
    plot_class_balance,
    plot_quality_summary,
    plot_source_balance,
)

SPLITS = {"train": {"NORM": 800, "AF": 8}, "val": {"NORM": 100, "AF": 0}, "test": {"NORM": 1334}}


def _draw(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _bars(figure: Figure, title: str) -> dict[str, float]:
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == title)
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, [bar.get_width() for bar in axes.patches], strict=True))


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


MANIFEST = pd.DataFrame(
    [
        ("ptbxl", "ok", "", "flat:V1;flat:V2;short", "500.0"),
        ("ptbxl", "ok", "", "short", 500),
        ("georgia", "ok", "", None, 250.0),
        ("georgia", "unreadable", "E00001.mat: 30 bytes, header promises 120", "", np.nan),
        ("georgia", "unreadable", "deep/E00002.mat: 7 bytes, header promises 480", "", ""),
        ("georgia", "odd", "0.5 s are missing (leads V1)", "", 250),
    ],
    columns=["dataset", "status", "reason", "quality_flags", "fs"],
)


@pytest.mark.parametrize("flags", ["quality_flags", "flags"])
def test_quality_page_counts_status_flags_rates_and_reasons(flags: str) -> None:
    figure = _draw(plot_quality_summary(MANIFEST.rename(columns={"quality_flags": flags})))
    assert _bars(figure, "Quality flags") == {"short": 2, "flat": 1}
    assert _bars(figure, "Sampling rates") == {"500 Hz": 2, "250 Hz": 2}
    assert _bars(figure, "Reasons for records left out") == {
        "(file): # bytes, header promises #": 2,
        "# s are missing": 1,
    }
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == [
        "ok (3)",
        "unreadable (2)",
        "odd (1)",
    ]
    assert all(axes.get_xlabel() == "Records" for axes in figure.axes)


def test_quality_page_adds_up_what_it_cannot_show() -> None:
    rates = [100 + i for i in range(9) for _ in range(10 - i)]
    page = plot_quality_summary(
        pd.DataFrame({"dataset": "a", "status": "ok", "reason": "", "flags": "", "fs": rates})
    )
    shown = _bars(_draw(page), "Sampling rates")
    assert list(shown)[-1] == "4 others"
    assert sum(shown.values()) == len(rates)


def test_quality_page_of_nothing_says_so() -> None:
    figure = _draw(plot_quality_summary(MANIFEST[:0]))
    assert _texts(figure) == ["no records", "no flags", "no rate known"]


def test_quality_page_is_shorter_where_no_record_is_left_out() -> None:
    complete = plot_quality_summary(MANIFEST[MANIFEST["status"] == "ok"].assign(reason=""))
    assert complete.get_figheight() < plot_quality_summary(MANIFEST).get_figheight()


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


def test_quality_page_names_a_missing_column() -> None:
    with pytest.raises(ValueError, match="no column status, fs"):
        plot_quality_summary(MANIFEST.drop(columns=["status", "fs"]))


# Ages ---------------------------------------------------------------------------------------------


def test_ages_stand_in_bands_of_five_years_by_sex() -> None:
    figure = plot_ages(
        [61, 64.9, 65, 30, None, float("nan")], ["female", "female", "male", None, "male", "female"]
    )
    figure.canvas.draw()
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
