"""Timelines drawn: rows, bars, gaps, strips and the axis of time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from src.plots.timeline import TimelineStrip, format_time, plot_timeline

CLASSES = ["N", "AFIB"]
START = [0.0, 10.0, 20.0, 40.0]
END = [10.0, 20.0, 30.0, 50.0]
SCORES = [[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [0.4, 0.6]]
PREDICTED = [("N",), ("AFIB",), (), ("AFIB",)]


def strip(start_s: float, height_mv: float = 1.0) -> TimelineStrip:
    signal = np.zeros((2, 1000), np.float32)
    signal[:, 50::100] = height_mv
    return TimelineStrip(f"AFIB {start_s:g}", start_s, signal, 100.0, ("V1", "II"))


def draw(**options: object) -> Figure:
    figure = plot_timeline(START, END, SCORES, CLASSES, predicted=PREDICTED, **options)  # type: ignore[arg-type]
    figure.draw_without_rendering()
    return figure


def spans(figure: Figure, panel: int, number: int) -> list[tuple[float, float]]:
    """Return beginning and end of the boxes of a collection of a panel."""
    [*collections] = [
        each for each in figure.axes[panel].collections if isinstance(each, PolyCollection)
    ]
    boxes = [path.get_extents() for path in collections[number].get_paths()]
    return [(box.x0, box.x1) for box in boxes]


def test_bars_gaps_and_shades_are_where_the_windows_are() -> None:
    figure = draw()
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES
    assert axes.get_xlim() == (0, 50)
    # What is white has a prediction; the rest of the panel is grey.
    assert spans(figure, 0, 0) == [(0, 20), (40, 50)]
    assert spans(figure, 0, 1) == [(0, 10)] and spans(figure, 0, 2) == [(10, 20), (40, 50)]
    for row, image in enumerate(axes.images):
        values = np.ma.filled(image.get_array(), np.nan)[0]
        n = len(values)
        for seconds, window in ((5, 0), (15, 1), (25, 2), (35, 2), (45, 3)):
            found = values[int(seconds / 50 * n)]
            np.testing.assert_allclose(found, SCORES[window][row], equal_nan=True)


def test_many_windows_share_columns_by_their_mean() -> None:
    n = 8640
    starts = 10.0 * np.arange(n)
    scores = np.tile([[0.0], [1.0]], (n // 2, 1))
    figure = plot_timeline(starts, starts + 10, scores, ["A"], predicted=[("A",)] + [()] * (n - 1))
    values = np.asarray(figure.axes[0].images[0].get_array())
    assert values.shape[1] <= 1500 and values.min() >= 0.3 and values.max() <= 0.7
    # A window of a day is wide enough to be seen.
    [(start, end)] = spans(figure, 0, 1)
    assert start == 0 and end == pytest.approx(86_400 / 1500)
    assert figure.axes[0].get_xlabel().startswith("Time (hours")


def test_of_many_classes_those_predicted_most_are_drawn() -> None:
    names = [f"c{i}" for i in range(71)]
    scores = np.full((4, 71), 0.1)
    scores[:, 30:] = 0.2
    predicted = [("c5", "c6"), ("c5",), ("c5",), ()]
    figure = plot_timeline(START, END, scores, names, predicted=predicted)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["c5", "c6", *names[30:52]]
    assert any("47 classes of lower probability" in text.get_text() for text in figure.texts)


def test_true_classes_are_above_the_predictions() -> None:
    figure = draw(true=[("AFIB",), ("VT",), (), ("AFIB",)])
    above, below = figure.axes[:2]
    assert [label.get_text() for label in above.get_yticklabels()] == ["AFIB", "VT"]
    assert above.get_window_extent().y0 > below.get_window_extent().y1
    assert above.get_xlim() == below.get_xlim()
    assert spans(figure, 0, 1) == [(0, 10), (40, 50)]


def test_strips_are_lettered_in_the_order_of_time() -> None:
    figure = draw(strips=[strip(40), strip(0), strip(10), strip(20), strip(30)])
    texts = [text.get_text() for text in figure.texts]
    shown = [text for text in texts if "AFIB" in text]
    assert shown == [
        "a   0:00   AFIB 0",
        "b   0:10   AFIB 10",
        "c   0:20   AFIB 20",
        "d   0:40   AFIB 40",
    ]
    [bands] = [axes for axes in figure.axes if axes.get_label().startswith("Probability")]
    assert [text.get_text() for text in bands.texts] == ["a", "b", "c", "d"]


def test_nothing_overlaps_or_leaves_the_page() -> None:
    figure = draw(true=PREDICTED, strips=[strip(0, 4), strip(10)], title="record " * 60)
    page = figure.bbox
    boxes = [axes.get_window_extent() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)
    assert all(box.x1 <= page.width and box.y1 <= page.height for box in boxes)
    panels = sorted((axes.get_window_extent() for axes in figure.axes), key=lambda box: -box.y1)
    assert all(one.y0 >= two.y1 for one, two in pairwise(panels))


def test_without_any_prediction_all_is_grey() -> None:
    figure = plot_timeline([0, 10], [10, 20], np.full((2, 1), np.nan), ["A"])
    figure.draw_without_rendering()
    assert spans(figure, 0, 0) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (57.5, "0:57.5"), (59.99999999, "1:00"), (3599, "59:59"), (86_400, "24:00:00")],
)
def test_times(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="one or more windows and a column for each of 2 classes"):
        plot_timeline([], [], np.zeros((0, 2)), CLASSES)
    with pytest.raises(ValueError, match=r"scores \(4, 2\)"):
        plot_timeline(START, END, SCORES, ["A"])
    with pytest.raises(ValueError, match="true has 1 rows: expected one for each of 4"):
        plot_timeline(START, END, SCORES, CLASSES, true=[("N",)])
