from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from src.config import STANDARD_LEADS
from src.processed.resampling import rate_ratio, resample, source_samples_needed
from src.processed.signals import fill_gaps, fit_length, order_leads, standardize
from src.records.reading import read_record
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


@pytest.mark.parametrize(
    "source_fs", [100.0, 128.0, 250.0, 257.0, 360.0, 400.0, 1000.0, 128.5, 249.9]
)
@pytest.mark.parametrize("target_fs", [500.0, 100.0])
def test_resampling_equals_scipy(source_fs: float, target_fs: float) -> None:
    signal = RNG.normal(size=(2, 1501)).astype(np.float32)
    ratio = rate_ratio(source_fs, target_fs)
    expected = resample_poly(signal.astype(np.float64), ratio.numerator, ratio.denominator, axis=1)
    np.testing.assert_allclose(resample(signal, source_fs, target_fs), expected, atol=1e-5)


def test_resampling_keeps_a_tone_and_removes_what_would_alias() -> None:
    t = np.arange(10_000) / 1000
    slow, fast = np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 400 * t)
    both = np.stack([slow, fast]).astype(np.float32)
    out = resample(both, 1000, 250)[:, 100:-100]
    np.testing.assert_allclose(
        out[0], np.sin(2 * np.pi * 10 * np.arange(2500) / 250)[100:-100], atol=2e-3
    )
    assert np.abs(out[1]).max() < 0.01


@pytest.mark.parametrize(
    ("source_fs", "target_fs"), [(1000.0, 500.0), (257.0, 500.0), (100.0, 500.0), (500.0, 100.0)]
)
def test_the_samples_needed_decide_the_output(source_fs: float, target_fs: float) -> None:
    signal = RNG.normal(size=(1, 9000)).astype(np.float32)
    n = source_samples_needed(1000, source_fs, target_fs)
    whole, part = (
        resample(signal, source_fs, target_fs),
        resample(signal[:, :n], source_fs, target_fs),
    )
    np.testing.assert_allclose(part[:, :1000], whole[:, :1000], atol=1e-6)
    assert n < 5200


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


@pytest.mark.parametrize(
    ("source_fs", "target_fs"),
    [
        (1000.0, 500.0),
        (257.0, 500.0),
        (360.0, 500.0),
        (500.0, 100.0),
        (999.0, 1000.0),
        (100.0, 500.0),
    ],
)
@pytest.mark.parametrize("n_samples", [1, 2, 31, 640, 5001])
def test_resampling_of_offset_leads_of_any_length_equals_scipy(
    source_fs: float, target_fs: float, n_samples: int
) -> None:
    ratio = rate_ratio(source_fs, target_fs)
    signal = (RNG.normal(size=(3, n_samples)) + np.array([[0], [3], [-300]])).astype(np.float32)
    expected = resample_poly(signal.astype(np.float64), ratio.numerator, ratio.denominator, axis=1)
    resampled = resample(signal, source_fs, target_fs)
    assert resampled.dtype == np.float32 and resampled.shape == expected.shape
    np.testing.assert_allclose(resampled, expected, rtol=1e-6, atol=3e-6)


def test_real_recordings_resample_as_with_scipy(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("challenge2021").rglob("*.hea"))[::10]:
        record = read_record(path)
        signal, target = np.nan_to_num(record.signal), 257.0
        ratio = rate_ratio(record.fs, target)
        expected = resample_poly(
            signal.astype(np.float64), ratio.numerator, ratio.denominator, axis=1
        )
        np.testing.assert_allclose(
            resample(signal, record.fs, target),
            expected,
            atol=1e-6 * max(1.0, np.abs(signal).max()),
        )
