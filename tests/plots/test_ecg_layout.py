"""The layout of an ECG page, against hand-worked places in mm."""

from __future__ import annotations

import numpy as np
import pytest

from src.plots.ecg_layout import PageLayout, Scale, lay_out_page

CUSTOMARY = Scale(fs=100.0, speed=25.0, gain=10.0)


def _lay_out(signal: np.ndarray, leads: tuple[str, ...]) -> PageLayout:
    return lay_out_page(
        signal,
        leads,
        CUSTOMARY,
        layout="3x4",
        rhythm_lead="II",
        duration_s=10.0,
        lead_present=None,
    )


def test_samples_lie_behind_the_calibration_pulse() -> None:
    assert CUSTOMARY.calibration_mm == 10.0  # 5 mm of pulse and a box, in whole boxes
    assert CUSTOMARY.x([0, 100]).tolist() == [10.0, 35.0]


def test_a_flat_lead_has_the_room_of_its_pulse() -> None:
    page = _lay_out(np.zeros((1, 1000)), ("I",))
    # 10 mm of pulse and 2 mm of gap above the baseline, 2 mm below it, in whole boxes
    assert (page.baselines, page.height) == ([5.0], 20.0)
    assert page.width == 260.0
    assert page.footer == "25 mm/s   10 mm/mV   100 Hz"
    (trace,) = page.traces
    assert (trace.left, trace.right, trace.name_y, trace.reach) == (10.0, 260.0, 4.0, (7.0, 0.0))


def test_rows_make_room_for_tall_waves() -> None:
    signal = np.zeros((2, 1000))
    signal[0, 500], signal[1, 500] = -2.0, 1.5
    page = _lay_out(signal, ("I", "II"))
    # 20 mm below the first baseline, 15 mm above the second and 2 mm of gap make 8 boxes
    assert np.diff(page.baselines).tolist() == [-40.0]


@pytest.mark.parametrize(
    ("leads", "names"), [(("v5", "MLII"), ["V5", "MLII"]), (("ECG", "x"), ["ECG", "x"])]
)
def test_a_stack_keeps_the_names_of_the_source(leads: tuple[str, ...], names: list[str]) -> None:
    page = _lay_out(np.zeros((2, 3000)), leads)
    assert [trace.name for trace in page.traces] == names
    assert page.footer.endswith("first 10 s of 30 s")
