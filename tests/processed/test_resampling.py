from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from src.processed.resampling import rate_ratio, resample, source_samples_needed
from src.records.reading import read_record
from src.utils import Float32Array, Float64Array

RNG = np.random.default_rng(0)


def scipy_resample(signal: Float32Array, ratio: Fraction) -> Float64Array:
    """Return what SciPy makes of a signal that keeps its first and last value."""
    exact = signal.astype(np.float64)
    resampled: Float64Array = resample_poly(
        exact, ratio.numerator, ratio.denominator, axis=1, padtype="edge"
    )
    return resampled


def test_rates_give_short_fractions() -> None:
    assert rate_ratio(1000, 500) == Fraction(1, 2)
    assert rate_ratio(360, 500) == Fraction(25, 18)
    assert rate_ratio(257, 500) == Fraction(500, 257)
    assert float(rate_ratio(128.57, 500)) == pytest.approx(500 / 128.57, rel=1e-3)


def test_equal_rates_copy_nothing() -> None:
    signal = np.ones((2, 10), np.float32)
    assert resample(signal, 250.0, 250.0) is signal
    assert source_samples_needed(10, 250.0, 250.0) == 10


def test_the_filter_has_ten_periods_of_the_lower_rate_to_each_side() -> None:
    # 1000 to 500 Hz: 20 source samples for 10 outputs, then a tail of 10 periods of 2 samples.
    assert source_samples_needed(10, 1000.0, 500.0) == 20 + 20 + 2
    impulse = np.zeros((1, 201), np.float32)
    impulse[0, 100] = 1.0
    response = resample(impulse, 1000.0, 500.0)[0]  # its centre is sample 50
    assert response.shape == (101,) and response[50] == pytest.approx(0.5, abs=0.01)
    assert np.abs(response[:39]).max() < 1e-6 and np.abs(response[62:]).max() < 1e-6


@pytest.mark.parametrize(
    "source_fs", [100.0, 128.0, 250.0, 257.0, 360.0, 400.0, 1000.0, 128.5, 249.9]
)
@pytest.mark.parametrize("target_fs", [500.0, 100.0])
def test_resampling_equals_scipy(source_fs: float, target_fs: float) -> None:
    signal = RNG.normal(size=(2, 1501)).astype(np.float32)
    ratio = rate_ratio(source_fs, target_fs)
    expected = scipy_resample(signal, ratio)
    np.testing.assert_allclose(resample(signal, source_fs, target_fs), expected, atol=1e-5)


@pytest.mark.parametrize("source_fs", [500.24, 499.9, 257.0, 128.57, 1000.3, 359.98, 249.77])
@pytest.mark.parametrize("target_fs", [100.0, 500.0])
def test_odd_rates_drift_less_than_half_a_sample_in_ten_seconds(
    source_fs: float, target_fs: float
) -> None:
    signal = np.zeros((1, round(10 * source_fs) + 20), np.float32)
    # A slow bump at 9.9 s: its centre of mass tells where it went.
    time = np.arange(signal.shape[1]) / source_fs
    signal[0] = np.exp(-0.5 * ((time - 9.9) / 0.02) ** 2)
    out = resample(signal, source_fs, target_fs)[0]
    centre = (out * np.arange(len(out))).sum() / out.sum()
    assert abs(centre - 9.9 * target_fs) < 0.5


def test_an_edge_keeps_its_value() -> None:
    """A constant stays one, and a record that begins high begins high afterwards."""
    constant = np.full((1, 5000), 1.5, np.float32)
    np.testing.assert_allclose(resample(constant, 500.0, 100.0), 1.5, atol=2e-6)
    slow = (1 + np.arange(5000, dtype=np.float32) / 1000)[None]
    out = resample(slow, 500.0, 100.0)[0]
    assert out[0] == pytest.approx(1.0, abs=0.005) and out[-1] == pytest.approx(5.995, abs=0.01)


@pytest.mark.parametrize(
    ("source_fs", "target_fs"), [(1000.0, 500.0), (400.0, 500.0), (500.0, 100.0)]
)
def test_a_window_is_resampled_with_the_samples_around_it(
    source_fs: float, target_fs: float
) -> None:
    signal = RNG.normal(size=(2, 6000)).astype(np.float32) + 3
    whole = resample(signal, source_fs, target_fs)
    before, window, after = np.split(signal, [2000, 4000], axis=1)
    part = resample(window, source_fs, target_fs, before=before, after=after)
    first = round(2000 * target_fs / source_fs)
    np.testing.assert_allclose(part, whole[:, first : first + part.shape[1]], atol=2e-6)
    alone = resample(window, source_fs, target_fs)
    none = np.zeros((2, 0), np.float32)
    np.testing.assert_array_equal(
        resample(window, source_fs, target_fs, before=none, after=none), alone
    )


def test_the_first_sample_is_as_close_to_that_of_ptbxl_as_others(
    real_data: Callable[[str], Path],
) -> None:
    """PTB-XL publishes each record at 500 and at 100 Hz; its 100 Hz files end differently."""
    slow_files = {path.stem[:5]: path for path in real_data("ptbxl100").rglob("*.hea")}
    differences = []
    for path in sorted(real_data("ptbxl500").rglob("*.hea")):
        if path.stem[:5] in slow_files:
            slow = read_record(slow_files[path.stem[:5]]).signal
            differences.append(abs(resample(read_record(path).signal, 500.0, 100.0) - slow))
    difference = np.concatenate(differences)  # (n_leads, 1000), mV
    worst_inner = difference[:, 50:950].max(axis=1)
    assert len(difference) == 468 and (difference[:, 0] > worst_inner).mean() < 0.06


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
    expected = scipy_resample(signal, ratio)
    resampled = resample(signal, source_fs, target_fs)
    assert resampled.dtype == np.float32 and resampled.shape == expected.shape
    np.testing.assert_allclose(resampled, expected, rtol=1e-6, atol=3e-6)


def test_real_recordings_resample_as_with_scipy(real_data: Callable[[str], Path]) -> None:
    for path in sorted(real_data("challenge2021").rglob("*.hea"))[::10]:
        record = read_record(path)
        signal, target = np.nan_to_num(record.signal), 257.0
        ratio = rate_ratio(record.fs, target)
        expected = scipy_resample(signal, ratio)
        np.testing.assert_allclose(
            resample(signal, record.fs, target),
            expected,
            atol=1e-6 * max(1.0, np.abs(signal).max()),
        )
