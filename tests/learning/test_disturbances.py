"""Disturbances of recordings, held against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from src.config import STANDARD_LEADS
from src.learning.disturbances import KINDS, list_disturbances
from src.records.record import ECGRecord


@pytest.fixture
def record() -> ECGRecord:
    """Ten seconds at 100 Hz: a tone of 2 Hz whose amplitude is the number of the lead, in mV."""
    tone = np.sin(2 * np.pi * 2 * np.arange(1000) / 100)
    signal = (np.arange(1, 13)[:, None] * tone).astype(np.float32)
    return ECGRecord("r", signal, 100.0, STANDARD_LEADS)


def disturb(record: ECGRecord, kind: str, strength: str) -> ECGRecord:
    [found] = [each for each in list_disturbances([kind]) if each.strength == strength]
    return found.apply(record, np.random.default_rng(0))


def test_each_kind_changes_a_record_and_leaves_the_original(record: ECGRecord) -> None:
    before = record.signal.copy()
    found = list_disturbances()
    assert tuple(dict.fromkeys(each.kind for each in found)) == KINDS
    assert found[0].apply(record, np.random.default_rng(0)) is record
    for each in found[1:]:
        changed = each.apply(record, np.random.default_rng(0))
        assert changed.signal.dtype == np.float32 and np.isfinite(changed.signal).all()
        assert changed.signal.shape != before.shape or np.abs(changed.signal - before).max() > 0.01
        np.testing.assert_array_equal(record.signal, before)


def test_leads_are_kept_by_their_names(record: ECGRecord) -> None:
    kept = disturb(record, "leads", "I II V2")
    assert kept.leads == ("I", "II", "V2")
    np.testing.assert_array_equal(kept.signal, record.signal[[0, 1, 7]])


@pytest.mark.parametrize(("strength", "ratio"), [("20 dB", 0.1), ("10 dB", 0.3162), ("0 dB", 1.0)])
def test_noise_has_the_power_that_it_says(record: ECGRecord, strength: str, ratio: float) -> None:
    noise = disturb(record, "noise", strength).signal - record.signal
    # A tone of amplitude a has a root mean square of a / sqrt(2)
    expected = ratio * np.arange(1, 13) / np.sqrt(2)
    np.testing.assert_allclose(noise.std(axis=1), expected, rtol=0.1)


def test_offsets_are_constant_and_go_up_and_down(record: ECGRecord) -> None:
    offsets = disturb(record, "offset", "0.5 mV").signal - record.signal
    np.testing.assert_allclose(np.abs(offsets), 0.5, atol=1e-5)
    assert {round(value, 1) for value in offsets.mean(axis=1).tolist()} == {-0.5, 0.5}
    np.testing.assert_allclose(np.ptp(offsets, axis=1), 0, atol=1e-5)


def test_gain_length_and_wander_are_as_their_names_say(record: ECGRecord) -> None:
    np.testing.assert_allclose(
        disturb(record, "gain", "x 0.8").signal, record.signal * 0.8, rtol=1e-6
    )
    assert disturb(record, "length", "2.5 s").signal.shape == (12, 250)
    wander = disturb(record, "wander", "1 mV").signal - record.signal
    power = np.abs(np.fft.rfft(wander - wander.mean(axis=1, keepdims=True))) ** 2
    # Bins of 0.1 Hz
    assert power[:, :11].sum() > 0.95 * power.sum() and np.abs(wander).max() <= 1 + 1e-5


def test_hum_is_added_at_a_rate_that_can_hold_it(record: ECGRecord) -> None:
    clean, hum = disturb(record, "rate", "500 Hz"), disturb(record, "hum", "0.3 mV")
    assert clean.fs == hum.fs == 500.0 and hum.signal.shape == (12, 5000)
    spectrum = np.abs(np.fft.rfft(hum.signal - clean.signal, axis=1)) * 2 / 5000
    assert (spectrum.argmax(axis=1) == 500).all()  # of 0.1 Hz each
    np.testing.assert_allclose(spectrum.max(axis=1), 0.3, rtol=1e-3)


def test_swapped_arms_keep_what_the_leads_have_in_common(record: ECGRecord) -> None:
    i, ii = record.signal[0], record.signal[1]
    limb = np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2])
    whole = ECGRecord("r", np.concatenate([limb, record.signal[6:]]), 100.0, STANDARD_LEADS)
    swapped = disturb(whole, "limb swap", "arms").signal
    # Both arms change places: I = LA - RA turns over, II = LL - RA becomes LL - LA
    np.testing.assert_allclose(swapped[0], -i, atol=1e-6)
    np.testing.assert_allclose(swapped[1], ii - i, atol=1e-6)
    np.testing.assert_allclose(swapped[2], swapped[1] - swapped[0], atol=1e-5)
    np.testing.assert_allclose(swapped[3], -(swapped[0] + swapped[1]) / 2, atol=1e-5)
    np.testing.assert_array_equal(swapped[5:], whole.signal[5:])


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="kinds has dust: expected some of none, leads"):
        list_disturbances(["dust"])
