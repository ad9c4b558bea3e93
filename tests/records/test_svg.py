"""The SVG of a recording: places in mm, gaps, decimation and layout."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.svg import draw_ecg_svg

UNITS_PER_MM = 20


def lines(svg: str) -> list[np.ndarray]:
    """Return the points of each line of the trace, in mm."""
    path = re.search(r'class="ecg-trace" d="([^"]*)"', svg)
    assert path
    found = []
    for part in path[1].split("M")[1:]:
        if "v" in part:  # a tick between two leads
            continue
        start, _, steps = part.partition("l")
        numbers = np.array([int(number) for number in re.findall(r"-?\d+", steps)]).reshape(-1, 2)
        first = np.array([int(number) for number in re.findall(r"-?\d+", start)[:2]])
        found.append(np.vstack([first, first + numbers.cumsum(axis=0)]) / UNITS_PER_MM)
    return found


def spikes(n_leads: int, fs: float, seconds: float = 10.0) -> np.ndarray:
    signal = np.zeros((n_leads, round(seconds * fs)), np.float32)
    signal[:, round(0.5 * fs) :: round(fs)] = 1.0
    return signal


def test_the_twelve_leads_stand_in_rows_over_lead_ii() -> None:
    svg = draw_ecg_svg(spikes(12, 100.0), 100.0, STANDARD_LEADS)
    root = ElementTree.fromstring(svg)
    names = [element.text for element in root.iter("text")]
    assert names == [*STANDARD_LEADS, "II"]
    drawn = lines(svg)
    assert [line[0, 0] for line in drawn] == [
        0,
        0,
        0,
        62.5,
        62.5,
        62.5,
        125,
        125,
        125,
        187.5,
        187.5,
        187.5,
        0,
    ]
    assert [len(line) for line in drawn] == [250] * 12 + [1000]


@pytest.mark.parametrize("fs", [100.0, 500.0, 1000.0])
def test_boxes_are_true(fs: float) -> None:
    (line,) = lines(draw_ecg_svg(spikes(1, fs, 4.0), fs, ["I"]))
    top = line[line[:, 1] == line[:, 1].min()]
    assert np.diff(top[:, 0]) == pytest.approx([25.0] * 3, abs=0.2)  # one second
    assert line[:, 1].max() - line[:, 1].min() == pytest.approx(10.0)  # one mV
    assert len(line) <= 4 * 25 / 0.2 * 2


def test_a_gap_lifts_the_pen_and_an_absent_lead_is_empty() -> None:
    signal = spikes(2, 100.0, 2.0)
    signal[0, 50:60] = np.nan
    svg = draw_ecg_svg(signal, 100.0, ["I", "X"], lead_present=[True, False])
    assert [len(line) for line in lines(svg)] == [50, 140]
    assert "NaN" not in svg and "nan" not in svg


def test_names_are_escaped() -> None:
    svg = draw_ecg_svg(spikes(1, 100.0), 100.0, ["<b>"], label='"><script>')
    assert "<script" not in svg and [
        element.text for element in ElementTree.fromstring(svg).iter("text")
    ] == ["<b>"]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 10\): expected \(1, n_samples\)"):
        draw_ecg_svg(np.zeros((2, 10), np.float32), 100.0, ["I"])


def test_stretches_are_shaded_for_and_against() -> None:
    shade = np.zeros((1, 50), np.float32)
    shade[0, [0, 1, 49]] = [1.0, 0.1, -0.4]
    root = ElementTree.fromstring(draw_ecg_svg(spikes(1, 100.0, 2.0), 100.0, ["I"], shade=shade))
    boxes = {
        path.get("class"): (path.get("fill-opacity"), path.get("d"))
        for path in root.iter("path")
        if "fill-opacity" in path.attrib
    }
    assert {name: opacity for name, (opacity, _) in boxes.items()} == {
        "ecg-for": "0.75",
        "ecg-against": "0.3",
    }
    assert str(boxes["ecg-for"][1]).startswith("M0 ") and str(boxes["ecg-against"][1]).startswith(
        f"M{49 * UNITS_PER_MM} "
    )
