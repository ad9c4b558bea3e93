"""What disturbs a recording: its frequencies, its forms for batches, and swaps of electrodes.

`src.learning.augment` adds the forms to training batches, and `src.learning.disturbances` uses the
same frequencies, swaps and sets of leads to test a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from src.config import STANDARD_LEADS

WANDER_HZ = (0.05, 0.5)
"""Frequencies of baseline wander, which respiration and movements cause."""
N_WANDER_TONES = 5

MAINS_HZ = (50.0, 60.0)

LEAD_SUBSETS = (
    "I II V1 V2 V3 V4 V5 V6",
    " ".join(STANDARD_LEADS[:6]),
    "I II V2",
    "I II",
    "II",
    "I",
)
"""Leads that devices with fewer than twelve record: 8, 6, 3, 2 and 1 of them."""

LIMB_SWAPS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "arms": {
        "I": ("I", -1),
        "II": ("III", 1),
        "III": ("II", 1),
        "aVR": ("aVL", 1),
        "aVL": ("aVR", 1),
    },
    "left arm and leg": {
        "I": ("II", 1),
        "II": ("I", 1),
        "III": ("III", -1),
        "aVL": ("aVF", 1),
        "aVF": ("aVL", 1),
    },
    "right arm and leg": {
        "I": ("III", -1),
        "II": ("II", -1),
        "III": ("I", -1),
        "aVR": ("aVF", 1),
        "aVF": ("aVR", 1),
    },
}
"""Electrodes that are swapped -> lead -> the lead, with its sign, that it then records.

Chest leads stay as they are, since the mean of the three limb electrodes does.
"""

# Each limb lead as a sum of I and II (Einthoven, Goldberger)
_OF_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}


def add_tones(
    hz: torch.Tensor, amplitude: torch.Tensor, n_leads: int, n_samples: int, fs: float
) -> torch.Tensor:
    """Return sums of tones with random phases, shape (B, n_leads, n_samples).

    Parameters
    ----------
    hz
        Frequencies of each record, shape (B, n_tones). Its leads share them.
    amplitude
        Of each tone of a record, shape (B, 1, 1).
    n_leads, n_samples
        Size of the records.
    fs
        Hz.
    """
    time = torch.arange(n_samples, device=hz.device) / fs
    angle = 2 * math.pi * hz[:, :, None] * time  # (B, n_tones, T)
    phase = 2 * math.pi * torch.rand(len(hz), n_leads, hz.shape[1], device=hz.device)
    # sin(a + p) = sin(a) cos(p) + cos(a) sin(p): the sines of a record serve all of its leads.
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, 2 n_tones, T)
    shares = torch.cat([phase.cos(), phase.sin()], dim=2)  # (B, n_leads, 2 n_tones)
    return torch.bmm(amplitude * shares, waves)


def draw_wander(signal: torch.Tensor, most: float, fs: float) -> torch.Tensor:
    """Draw slow tones for each lead; their sum reaches `most` at most."""
    n_records, n_leads, n_samples = signal.shape
    low, high = WANDER_HZ
    hz = low + (high - low) * torch.rand(n_records, N_WANDER_TONES, device=signal.device)
    amplitude = _draw_amplitude(signal, most / N_WANDER_TONES)
    return add_tones(hz, amplitude, n_leads, n_samples, fs)


def draw_hum(signal: torch.Tensor, most: float, fs: float) -> torch.Tensor:
    """Draw mains hum of 50 or 60 Hz with an amplitude of at most `most`."""
    n_records, n_leads, n_samples = signal.shape
    mains = torch.tensor(mains_below(fs), device=signal.device)
    hz = mains[torch.randint(len(mains), (n_records, 1), device=signal.device)]
    return add_tones(hz, _draw_amplitude(signal, most), n_leads, n_samples, fs)


def mains_below(fs: float) -> list[float]:
    """Return the frequencies of mains that signals of this sampling rate can hold."""
    return [hz for hz in MAINS_HZ if hz < fs / 2]


def draw_noise(signal: torch.Tensor, most: float, _: float) -> torch.Tensor:
    """Draw noise between white and pink, with a root mean square of at most `most`."""
    n_samples = signal.shape[2]
    bins = torch.arange(n_samples // 2 + 1, device=signal.device)
    # All but the bins of 0 and of half the sampling rate stand for two frequencies.
    counts = torch.full_like(bins, 2.0, dtype=torch.float32)
    counts[0] = 1
    if n_samples % 2 == 0:
        counts[-1] = 1
    pink = torch.where(bins > 0, 1 / bins.clamp(min=1), 0.0)  # power falls with the frequency
    pink = pink * n_samples / (pink * counts).sum()
    share = torch.rand(len(signal), 1, 1, device=signal.device)
    power = share * pink + (1 - share)  # (B, 1, n_bins), 1 in the mean over the frequencies
    spectrum = torch.fft.rfft(torch.randn_like(signal)) * power.sqrt()
    noise: torch.Tensor = torch.fft.irfft(spectrum, n=n_samples)
    return noise * _draw_amplitude(signal, most)


def draw_offset(signal: torch.Tensor, most: float, _: float) -> torch.Tensor:
    """Draw a constant for each lead, from minus to plus `most`."""
    return (2 * torch.rand(*signal.shape[:2], 1, device=signal.device) - 1) * most


def _draw_amplitude(signal: torch.Tensor, most: float) -> torch.Tensor:
    """Draw a number from 0 to `most` for each record, shape (B, 1, 1)."""
    return most * torch.rand(len(signal), 1, 1, device=signal.device)


def limb_swap_maps(leads: Sequence[str], is_same_scale: bool) -> torch.Tensor:
    """Return the linear maps of a network's leads under swaps of limb electrodes.

    Parameters
    ----------
    leads
        The leads of the network, in its order.
    is_same_scale
        Whether all leads have one unit, so that one can be computed from two others.

    Returns
    -------
    Tensor
        Shape (n_swaps, n_leads, n_leads). Swaps that would need an absent lead are left out.
    """
    maps = []
    for sources in LIMB_SWAPS.values():
        rows = [_swapped_row(lead, sources, leads, is_same_scale) for lead in leads]
        found = [row for row in rows if row is not None]
        if len(found) == len(leads) and not sources.keys().isdisjoint(leads):
            maps.append(torch.stack(found))
    return torch.stack(maps) if maps else torch.zeros(0, len(leads), len(leads))


def _swapped_row(
    lead: str, sources: Mapping[str, tuple[str, int]], leads: Sequence[str], is_same_scale: bool
) -> torch.Tensor | None:
    """Return the weights of the leads in a lead after a swap, None where they do not suffice."""
    source, sign = sources.get(lead, (lead, 1))
    weights = {source: 1.0}
    if source not in leads:
        if not (is_same_scale and "I" in leads and "II" in leads):
            return None
        weights = dict(zip(("I", "II"), _OF_I_AND_II[source], strict=True))
    return torch.tensor([sign * weights.get(name, 0.0) for name in leads])
