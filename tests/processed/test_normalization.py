from __future__ import annotations

import numpy as np
import pytest

from src.processed.normalization import Normalization, fit_normalization

MEAN = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
STD = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
PRESENT = np.array([[True, True], [True, False]])


def test_zscore_and_millivolts() -> None:
    gain, bias = Normalization().affine(MEAN, STD, PRESENT, ["a", "b"])
    assert (gain == 1).all() and (bias == 0).all()
    gain, bias = Normalization("none").affine(MEAN, STD, PRESENT, ["a", "b"])
    np.testing.assert_array_equal(gain, STD)
    np.testing.assert_array_equal(bias, MEAN)


def test_global_statistics_pool_the_present_leads_of_a_collection() -> None:
    fitted = fit_normalization("global", MEAN, STD, PRESENT, ["a", "b"])
    # a: mean (0 + 1) / 2; variance ((1 + 0.25) + (4 + 0.25)) / 2 = 2.75; b has one lead present
    assert fitted.mean_mv["a"] == 0.5 and fitted.std_mv["a"] == pytest.approx(2.75**0.5, abs=1e-6)
    assert fitted.mean_mv["b"] == 2 and fitted.std_mv["b"] == 3
    assert fitted.mean_mv[""] == 1
    gain, bias = fitted.affine(MEAN, STD, PRESENT, ["b", "unseen"])
    np.testing.assert_allclose(gain[0], STD[0] / 3)
    np.testing.assert_allclose(bias[0], (MEAN[0] - 2) / 3)
    assert bias[1, 1] == 0  # the absent lead stays 0


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="normalization is 'minmax'"):
        Normalization("minmax")
    with pytest.raises(ValueError, match="expected a mean and a positive"):
        Normalization("global", {"a": 0.0}, {"a": 1.0})
