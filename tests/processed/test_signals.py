from __future__ import annotations

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.processed.signals import fill_gaps, fit_length, order_leads, standardize
from src.records.record import all_finite

RNG = np.random.default_rng(0)


def test_leads_are_found_by_name_and_absent_ones_are_zero() -> None:
    signal = np.array([[1, 1], [2, 2], [3, 3]], np.float32)
    ordered = order_leads(signal, ["v5", "MLII", "RESP"])
    assert ordered.signal[1].tolist() == [2, 2] and ordered.signal[10].tolist() == [1, 1]
    assert ordered.present.nonzero()[0].tolist() == [1, 10]
    assert not ordered.signal[~ordered.present].any()
    assert ordered.flags == ("unknown_lead:RESP",)


def test_a_single_unnamed_lead_is_lead_one_with_a_flag() -> None:
    ordered = order_leads(np.ones((1, 4), np.float32), ["ECG"])
    assert ordered.present[0] and ordered.present.sum() == 1
    assert ordered.flags == ("single_lead_as_I",)


def test_the_first_of_two_leads_of_one_name_is_taken() -> None:
    ordered = order_leads(np.array([[1.0], [2.0]], np.float32), ["II", "MLII"])
    assert ordered.signal[1, 0] == 1 and ordered.flags == ("repeated_lead:MLII",)


def test_short_gaps_are_interpolated_and_long_ones_stay() -> None:
    nan = np.nan
    signal = np.array([[nan, 2, nan, 4, 5, nan, nan, nan, 9, nan]], np.float32)
    filled, longest = fill_gaps(signal, 2)
    assert longest == 3
    np.testing.assert_array_equal(filled, [[2, 2, 3, 4, 5, nan, nan, nan, 9, 9]])
    assert np.isnan(signal[0, 0])  # the input is left alone


def test_a_signal_without_gaps_is_returned_as_it_is() -> None:
    signal = np.ones((2, 3), np.float32)
    assert fill_gaps(signal, 5) == (signal, 0)


def test_standardize_turns_back_and_leaves_flat_leads_zero() -> None:
    signal = np.array([[1, 2, 3, 4], [7, 7, 7, 7]], np.float32)
    scaled = standardize(signal)
    np.testing.assert_allclose(scaled.signal[0], (signal[0] - 2.5) / np.sqrt(1.25), atol=1e-6)
    assert scaled.signal[1].tolist() == [0, 0, 0, 0]
    assert scaled.std.tolist() == pytest.approx([np.sqrt(1.25), 0]) and scaled.mean.tolist() == [
        2.5,
        7,
    ]
    np.testing.assert_allclose(
        scaled.signal * scaled.std[:, None] + scaled.mean[:, None], signal, atol=1e-6
    )


def test_standardize_is_exact_with_a_large_offset() -> None:
    signal = (RNG.normal(size=(1, 5000)) * 0.1 + 80).astype(np.float32)
    exact = signal.astype(np.float64)
    expected = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(standardize(signal).signal, expected, atol=2e-4)


def test_fit_length() -> None:
    signal = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fit_length(signal, 2).tolist() == [[0, 1], [3, 4]]
    assert fit_length(signal, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]
    assert fit_length(signal, 3) is signal


def test_leads_in_order_are_not_copied() -> None:
    signal = np.ones((12, 5), np.float32)
    assert order_leads(signal, STANDARD_LEADS).signal is signal


@pytest.mark.parametrize("n_samples", [1, 60, 1023, 1024, 1025, 4999, 5000])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_standardize_is_as_good_as_in_double_precision(n_samples: int, offset: float) -> None:
    signal = (np.cumsum(RNG.normal(size=(12, n_samples)), axis=1) * 0.05 + offset).astype(
        np.float32
    )
    signal[5] = 2.5
    exact = signal.astype(np.float64)
    std = exact.std(axis=1, keepdims=True)
    expected = np.where(
        std > 1e-6, (exact - exact.mean(axis=1, keepdims=True)) / np.where(std > 0, std, 1), 0
    )
    np.testing.assert_allclose(standardize(signal).signal, expected, atol=5e-6 * (1 + offset))


def test_an_hour_is_standardized_too() -> None:
    signal = np.linspace(-1, 1, 1_800_000, dtype=np.float32)[None]
    scaled = standardize(signal)
    np.testing.assert_allclose(scaled.signal[0, [0, -1]], [-(3**0.5), 3**0.5], atol=1e-4)


def test_part_of_a_wider_array_is_standardized_as_a_copy_of_it() -> None:
    wide = RNG.normal(size=(12, 700)).astype(np.float32)
    np.testing.assert_array_equal(
        standardize(wide[:, :600]).signal, standardize(wide[:, :600].copy()).signal
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, True), (3e38, True), (np.nan, False), (np.inf, False), (-np.inf, False)],
)
def test_one_sample_that_is_no_number_is_found(value: float, expected: bool) -> None:
    signal = np.ones((12, 100), np.float32)
    signal[7, 93] = value
    assert all_finite(signal) is expected and all_finite(signal[:, 1:]) is expected
