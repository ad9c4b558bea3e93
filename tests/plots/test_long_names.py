"""Every figure with 71 classes whose names have 25 characters: whole names, on the page."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from src.config import STANDARD_LEADS
from src.plots.balance import plot_class_balance, plot_source_balance
from src.plots.confusion_matrix import plot_confusion_matrix
from src.plots.curves import plot_precision_recall_curves, plot_roc_curves
from src.plots.f1_scores import plot_f1_scores
from src.plots.gallery import GalleryRecord, plot_gallery
from src.plots.reliability import plot_reliability_diagram
from src.plots.saliency import plot_saliency

NAMES = [f"intraventricular_block_{n:02d}" for n in range(71)]
SOURCES = ["hospital_of_the_holy_spirit", "university_hospital_center"]
RNG = np.random.default_rng(0)


def scores(n: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    truth = (RNG.random((200, n)) < np.linspace(0.5, 0.05, n)).astype(float)
    truth[:, -1] = 0
    return truth, np.clip(0.3 * truth + 0.7 * RNG.random((200, n)), 0, 1), NAMES[:n]


def counts(groups: list[str]) -> dict[str, dict[str, int]]:
    return {group: {name: n + 1 for n, name in enumerate(NAMES)} for group in groups}


def gallery() -> Figure:
    several = " + ".join(NAMES[:5])
    title = f"{SOURCES[0]}__record_2021_000017\ntrue: {several}\npredicted: {NAMES[6]}"
    note = ", ".join(f"{name} 0.50" for name in NAMES[:9])
    signal = np.sin(np.arange(12_000)).reshape(12, 1000)
    record = GalleryRecord(title, f"probabilities: {note}", signal, 100.0, STANDARD_LEADS)
    return plot_gallery([record, record])


def f1_scores() -> Figure:
    rows = {name: {"f1": 0.5, "support": 20} for name in NAMES}
    return plot_f1_scores(rows, {NAMES[0]: (0.2, 0.8)}, level=0.9)


def saliency() -> Figure:
    signal = RNG.normal(0, 0.3, (12, 1000))
    title = f"{SOURCES[0]}__record_2021_000017: {NAMES[0]} 0.90, {NAMES[1]} 0.05"
    return plot_saliency(signal, signal, 100.0, STANDARD_LEADS, class_name=NAMES[0], title=title)


FIGURES: dict[str, Callable[[], Figure]] = {
    "roc": lambda: plot_roc_curves(*scores(71)),
    "roc of few": lambda: plot_roc_curves(*scores(4)),
    "precision and recall": lambda: plot_precision_recall_curves(*scores(71)),
    "f1": f1_scores,
    "confusion": lambda: plot_confusion_matrix(np.eye(71), NAMES),
    "confusion of few": lambda: plot_confusion_matrix(np.eye(9), NAMES[:9]),
    "reliability": lambda: plot_reliability_diagram(*scores(6)),
    "class balance": lambda: plot_class_balance(counts(["train", "val", "test"])),
    "source balance": lambda: plot_source_balance(counts(SOURCES)),
    "gallery": gallery,
    "saliency": saliency,
}


def visible_texts(figure: Figure) -> list[Text]:
    """Return the texts that are drawn: not the labels of ticks outside of their axis."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    hidden |= {id(tick.label1), id(tick.label2)}
    found = figure.findobj(lambda item: isinstance(item, Text) and item.get_visible())
    return [text for text in found if text.get_text() and id(text) not in hidden]


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_leaves_the_page(name: str) -> None:
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    shown = 0
    for text in visible_texts(figure):
        box = text.get_window_extent()
        assert box.x0 > -2 and box.x1 < width + 2, text.get_text()
        assert box.y0 > -2 and box.y1 < height + 2, text.get_text()
        shown += 1
    assert shown > 5


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "gallery"])
def test_names_of_25_characters_are_whole(name: str) -> None:
    figure = FIGURES[name]()
    text = " ".join(text.get_text() for text in visible_texts(figure))
    assert NAMES[0] in text
    if name not in ("saliency", "reliability"):
        assert "\N{HORIZONTAL ELLIPSIS}" not in text


@pytest.mark.parametrize("name", ["f1", "class balance", "source balance", "confusion"])
def test_names_below_each_other_do_not_touch(name: str) -> None:
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(abs(one.y0 - other.y0) >= 0.8 * one.height for one, other in pairwise(boxes))


def test_headings_of_mistakes_name_record_true_and_predicted() -> None:
    title, note = (text.get_text() for text in gallery().texts[:2])
    lines = title.split("\n")
    assert lines[0].endswith("record_2021_000017") and lines[1].startswith("true: ")
    assert lines[-1] == f"predicted: {NAMES[6]}"
    assert note.startswith("probabilities: ") and note.count("\n") >= 1


def test_intervals_name_their_level() -> None:
    assert "90 % interval" in f1_scores().axes[0].get_xlabel()
    legend = plot_reliability_diagram(*scores(6)).legends[0]
    assert "95 % interval" in legend.get_title().get_text()


def test_the_saliency_figure_has_a_colour_key_with_its_class() -> None:
    [axes] = saliency().axes
    texts = [text.get_text() for text in axes.texts]
    assert {"against", f"for {NAMES[0]}"} <= set(texts)
    [key] = [image for image in axes.images if image.get_gid() == "shade-key"]
    colors = np.asarray(key.get_array())[0]  # (n_steps, RGBA), from against to for
    assert colors[0, 2] > colors[0, 0] and colors[-1, 0] > colors[-1, 2]
    assert not colors[len(colors) // 2, 3]
