from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from src.processed.normalization import Normalization, fit_normalization, high_pass

STD = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
PRESENT = np.array([[True, True], [True, False]])


def test_zscore_and_millivolts() -> None:
    assert (Normalization().gains(STD, ["a", "b"]) == 1).all()
    np.testing.assert_array_equal(Normalization("none").gains(STD, ["a", "b"]), STD)


def test_global_statistics_pool_the_present_leads_of_a_collection() -> None:
    fitted = fit_normalization("global", STD, PRESENT, ["a", "b"])
    # a: variance (1 + 4) / 2; b has one lead present; all: (1 + 4 + 9) / 3
    assert fitted.std_mv["a"] == pytest.approx(2.5**0.5, abs=1e-6) and fitted.std_mv["b"] == 3
    assert fitted.std_mv[""] == pytest.approx((14 / 3) ** 0.5, abs=1e-6)
    gains = fitted.gains(STD, ["b", "unseen"])
    np.testing.assert_allclose(gains[0], STD[0] / 3)
    np.testing.assert_allclose(gains[1], [3 / fitted.std_mv[""], 0])  # the absent lead stays 0


def test_a_millivolt_in_the_unit_of_the_signals() -> None:
    scaled = Normalization("global", {"": 0.5, "a": 0.25})
    np.testing.assert_allclose(scaled.units_per_mv(["a", "b", "a"]), [4, 2, 4])
    for mode in ("none", "zscore"):
        np.testing.assert_array_equal(Normalization(mode).units_per_mv(["a", "b"]), [1, 1])


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="normalization is 'minmax'"):
        Normalization("minmax")
    with pytest.raises(ValueError, match="expected a positive standard deviation"):
        Normalization("global", {"a": 1.0})
    with pytest.raises(ValueError, match="highpass_hz is -1"):
        Normalization(highpass_hz=-1)
    with pytest.raises(ValueError, match="less than half the sampling rate of 100 Hz"):
        high_pass(np.ones((1, 100), np.float32), 100, 50)


def test_the_high_pass_takes_out_wander_and_keeps_the_beats_where_they_are() -> None:
    time = np.arange(1000) / 100
    wander, tone = np.sin(2 * np.pi * 0.1 * time), np.sin(2 * np.pi * 8 * time)
    filtered = high_pass((tone + 3 * wander + 5)[None].astype(np.float32), 100, 0.5)[0]
    # Zero phase: the tone is neither shifted nor damped by more than a hundredth.
    np.testing.assert_allclose(filtered[200:-200], tone[200:-200], atol=0.03)
    frequencies, response = scipy.signal.freqz_sos(
        scipy.signal.butter(2, 0.5, "highpass", fs=100, output="sos"), [0.5], fs=100
    )
    assert abs(response[0]) ** 2 == pytest.approx(0.5, abs=1e-6) and frequencies[0] == 0.5


@pytest.mark.parametrize("mode", ["zscore", "none"])
def test_padding_and_absent_leads_stay_zero_after_the_high_pass(mode: str) -> None:
    signal = np.zeros((2, 400), np.float32)
    signal[0, :300] = np.random.default_rng(0).normal(1, 1, 300)
    out = Normalization(mode, highpass_hz=0.5).remove_wander(signal, 300, 100)
    assert not out[1].any() and not out[0, 300:].any()
    assert out[0, :300].mean() == pytest.approx(0, abs=1e-6)
    if mode == "zscore":
        assert out[0, :300].std() == pytest.approx(1, abs=1e-5)
    short = Normalization(mode, highpass_hz=0.5).remove_wander(signal[:, :3], 3, 100)
    assert np.isfinite(short).all()
