"""Disturbances of batches, held against electrodes, powers and frequencies worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.config import STANDARD_LEADS
from src.learning import interference
from src.learning.interference import LEAD_SUBSETS, LIMB_SWAPS, limb_swap_maps

SILENT = torch.zeros(200, 3, 1000)


def leads_of(
    right_arm: torch.Tensor, left_arm: torch.Tensor, left_leg: torch.Tensor, chest: torch.Tensor
) -> torch.Tensor:
    """Return the twelve leads of the potentials of electrodes, shape (12, n_samples)."""
    center = (right_arm + left_arm + left_leg) / 3
    limbs = [
        left_arm - right_arm,
        left_leg - right_arm,
        left_leg - left_arm,
        right_arm - (left_arm + left_leg) / 2,
        left_arm - (right_arm + left_leg) / 2,
        left_leg - (right_arm + left_arm) / 2,
    ]
    return torch.cat([torch.stack(limbs), chest - center])


@pytest.mark.parametrize("leads", [STANDARD_LEADS, ("II", "V3", "I"), ("aVF", "I", "II", "III")])
def test_swaps_are_those_of_the_electrodes(leads: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    right_arm, left_arm, left_leg = torch.randn(3, 50, dtype=torch.float64)
    chest = torch.randn(6, 50, dtype=torch.float64)
    rows = [STANDARD_LEADS.index(lead) for lead in leads]
    usual = leads_of(right_arm, left_arm, left_leg, chest)[rows]
    swapped = {
        "arms": leads_of(left_arm, right_arm, left_leg, chest),
        "left arm and leg": leads_of(right_arm, left_leg, left_arm, chest),
        "right arm and leg": leads_of(left_leg, left_arm, right_arm, chest),
    }
    maps = limb_swap_maps(leads, is_same_scale=True).double()
    for name, found in zip(LIMB_SWAPS, maps @ usual, strict=True):
        torch.testing.assert_close(found, swapped[name][rows])


def test_swaps_that_need_an_absent_lead_are_left_out() -> None:
    assert len(limb_swap_maps(STANDARD_LEADS, is_same_scale=False)) == 3
    # Of lead I alone, only that of the arms is known: it turns over
    torch.testing.assert_close(limb_swap_maps(("I",), True), torch.tensor([[[-1.0]]]))
    assert len(limb_swap_maps(("I", "II"), is_same_scale=False)) == 1  # I and II change places
    assert len(limb_swap_maps(("V1", "V2"), is_same_scale=True)) == 0


def test_sets_of_leads_are_those_of_devices() -> None:
    assert [len(names.split()) for names in LEAD_SUBSETS] == [8, 6, 3, 2, 1, 1]
    assert all(set(names.split()) <= set(STANDARD_LEADS) for names in LEAD_SUBSETS)


def test_noise_has_its_root_mean_square_and_falls_with_the_frequency() -> None:
    torch.manual_seed(0)
    noise = interference.draw_noise(SILENT, 0.3, 100.0)
    rms = noise.square().mean(dim=2).sqrt()  # (B, n_leads)
    torch.testing.assert_close(rms[:, 0], rms[:, 1], atol=0.06, rtol=0.3)
    # Drawn from 0 to 0.3 for each record
    assert 0.28 < rms.max() < 0.36 and rms.mean() == pytest.approx(0.15, abs=0.02)
    power = torch.fft.rfft(noise).abs().square().mean(dim=(0, 1))
    assert power[1:10].mean() > 10 * power[250:].mean() and power[250:].mean() > 0


@pytest.mark.parametrize("n_samples", [250, 251])
def test_pink_and_white_noise_have_one_power(
    monkeypatch: pytest.MonkeyPatch, n_samples: int
) -> None:
    for share in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand", lambda *s, share=share, **_: torch.full(s, share))
        monkeypatch.setattr(interference, "_draw_amplitude", lambda *_: torch.ones(1))
        noise = interference.draw_noise(torch.zeros(400, 4, n_samples), 1.0, 100.0)
        assert noise.square().mean() == pytest.approx(1, rel=0.03)


def test_wander_is_slow_and_bounded() -> None:
    torch.manual_seed(0)
    wander = interference.draw_wander(torch.zeros(50, 12, 6000), 0.5, 100.0)
    assert wander.abs().max() <= 0.5 and wander.abs().amax(dim=(1, 2)).min() < 0.1
    power = np.abs(np.fft.rfft(wander[:, 0].numpy() * np.hanning(6000))) ** 2
    hz = np.fft.rfftfreq(6000, 0.01)
    assert power[:, (hz > 0.02) & (hz < 0.55)].sum() > 0.99 * power.sum()


def test_hum_is_of_the_mains_that_the_rate_can_hold() -> None:
    torch.manual_seed(0)
    assert interference.mains_below(100.0) == [] and interference.mains_below(110.0) == [50.0]
    hum = interference.draw_hum(torch.zeros(64, 2, 500), 0.1, 500.0)
    peaks = np.fft.rfftfreq(500, 1 / 500)[np.abs(np.fft.rfft(hum.numpy())).argmax(axis=2)]
    assert set(peaks.ravel().tolist()) == {50.0, 60.0}
    assert (peaks[:, 0] == peaks[:, 1]).all()
    # A tone of amplitude a has a root mean square of a / sqrt(2), the same in all leads
    rms = hum.square().mean(dim=2).sqrt() * 2**0.5
    torch.testing.assert_close(rms[:, 0], rms[:, 1], atol=1e-4, rtol=1e-3)
    assert 0.09 < rms.max() <= 0.1001


def test_offsets_are_constants_on_both_sides() -> None:
    torch.manual_seed(0)
    offset = interference.draw_offset(SILENT, 0.4, 100.0)
    assert offset.shape == (200, 3, 1) and -0.4 <= offset.min() < -0.35 < 0.35 < offset.max() <= 0.4
