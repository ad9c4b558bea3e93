"""Several recordings on a page: order, scale and headings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.plots.canvas import MM_PER_INCH
from src.plots.gallery import GalleryRecord, plot_gallery


def record(title: str, height_mv: float = 1.0) -> GalleryRecord:
    signal = np.zeros((12, 1000), np.float32)
    signal[:, 50::100] = height_mv
    return GalleryRecord(title, "a note", signal, 100.0, STANDARD_LEADS)


def test_records_stand_below_each_other_without_overlap() -> None:
    figure = plot_gallery([record("one"), record("two", 4.0), record("$three$")])
    figure.draw_without_rendering()
    *headings, scale = [text.get_text() for text in figure.texts]
    assert headings[::2] == ["one", "two", r"\$three\$"] and scale == "a large box: 0.2 s, 0.5 mV"
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    assert boxes[1].height > boxes[0].height  # taller waves take more room
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.height for box in boxes)


def box_widths(*records: GalleryRecord) -> list[float]:
    """Return the width of a large box of each paper in mm."""
    figure = plot_gallery(records)
    figure.draw_without_rendering()
    return [
        np.ptp(axes.transData.transform([[0, 0], [5, 0]])[:, 0]) / figure.dpi * MM_PER_INCH
        for axes in figure.axes
    ]


def test_all_have_the_same_scale() -> None:
    widths = box_widths(record("one"), record("two", 4.0))
    assert widths[0] == pytest.approx(widths[1]) and 2 < widths[0] < 5


def test_windows_of_beats_are_drawn_no_larger_than_on_paper() -> None:
    beat = GalleryRecord("a beat", "", np.zeros((2, 200)), 100.0, ("II", "V1"))
    assert box_widths(beat) == [pytest.approx(5.0)]
    widths = box_widths(beat, record("ten seconds"))
    assert widths[0] == pytest.approx(widths[1]) and widths[0] < 5


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(ValueError, match="no record to draw"):
        plot_gallery([])
