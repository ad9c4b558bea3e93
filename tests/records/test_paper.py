"""Geometry of ECG paper: places of leads, medians as baselines, heights of names, whole boxes."""

from __future__ import annotations

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.records.paper import (
    Strip,
    arrange_strips,
    centre_leads,
    check_signal_shape,
    name_height,
    whole_boxes,
)


def test_the_twelve_leads_stand_in_columns_over_a_rhythm_strip() -> None:
    strips = arrange_strips(STANDARD_LEADS[::-1])
    assert strips[0] == Strip(lead=11, row=0, first_column=0, stop_column=1)  # I
    assert strips[1] == Strip(lead=8, row=0, first_column=1, stop_column=2)  # aVR
    assert strips[-1] == Strip(lead=10, row=3, first_column=0, stop_column=4)  # II
    assert len(strips) == 13
    assert len(arrange_strips(STANDARD_LEADS, "6x2", None)) == 12


@pytest.mark.parametrize("leads", [("MLII", "V5"), ("II", *STANDARD_LEADS[1:])])
def test_other_leads_are_stacked(leads: tuple[str, ...]) -> None:
    assert arrange_strips(leads) == [Strip(row, row, 0, 1) for row in range(len(leads))]


def test_an_unknown_rhythm_lead_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rhythm_lead is 'X': choose one of .*V6, or None"):
        arrange_strips(STANDARD_LEADS, rhythm_lead="X")


def test_leads_are_centred_about_their_medians() -> None:
    signal = np.array([[1.0, 2.0, np.nan, 6.0], [1.0, 1.0, 1.0, np.inf], [5.0, 5.0, 5.0, 5.0]])
    centred = centre_leads(signal, [True, True, False])
    np.testing.assert_array_equal(centred[0], [-1.0, 0.0, np.nan, 4.0])
    np.testing.assert_array_equal(centred[1], [0.0, 0.0, 0.0, np.nan])
    assert np.isnan(centred[2]).all()


def test_a_name_clears_the_samples_below_it() -> None:
    assert name_height(np.array([-2.0, np.nan, 5.0]), 30.0) == 6.0
    assert name_height(np.array([]), 30.0) == 4.0
    assert name_height(np.array([100.0]), 30.0) == 27.0


def test_lengths_are_rounded_up_to_boxes_of_5_mm() -> None:
    assert [whole_boxes(length) for length in (0.0, 5.0, 5.0000001, 5.1, 11)] == [0, 5, 5, 10, 15]


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 10\): expected \(1, n_samples\)"):
        check_signal_shape(np.zeros((2, 10)), ["I"])
