"""The rhythm of a recording, measured on the times of its QRS complexes.

Convolutions over a few seconds see each beat and its neighbours; whether the intervals of a whole
recording vary, and how, is told by a few numbers, once its beats are found. The measurements are
those of heart rate variability (Task Force of the ESC and NASPE, Eur Heart J 17:354, 1996): spread
of the intervals, spread of their steps, shortest and longest; and how high the complexes are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.learning.layers import max_pool

# A QRS complex is the steepest point within 0.2 s, and above 0.4 of the way from the floor to the
# usual height.
_APART_S = 0.2
_SHARE = 0.4
# Slopes are taken over 0.03 s and averaged over 0.09 s, about a QRS complex.
_SLOPE_S, _QRS_S = 0.03, 0.09
# The usual height is the median of the maxima around places 0.625 s apart.
_WINDOW_S = 1.25

_MOST_BEATS = 64
# Longer and shorter intervals, in seconds, count as these.
_INTERVALS_S = (0.2, 4.0)
# Added to spreads before the logarithm: half a per cent of an interval
_LEAST = 0.005
# Heights are at most this many times the usual one.
_HIGHEST = 20.0
# Measurements are clipped at this many standard deviations.
_LARGEST = 4.0

N_MEASURES = 16


class Beats(NamedTuple):
    """The QRS complexes of recordings, in order of time.

    Attributes
    ----------
    times_s
        Seconds from the beginning, (B, 64).
    heights
        How steep they are, as a share of the recording's usual, (B, 64).
    found
        Which of the 64 places hold a beat, (B, 64); these come first. The other fields mean nothing
        elsewhere.
    floor
        How steep the recording is between them, as such a share, (B, 1).
    """

    times_s: Tensor
    heights: Tensor
    found: Tensor
    floor: Tensor


class RhythmFeatures(nn.Module):
    """Features of the rhythm, from signals (B, n_leads, T) to (B, 32).

    They are measured on the first 64 beats, without gradients.

    Parameters
    ----------
    fs
        Sampling rate of the signals in Hz.
    """

    n_features = 32

    def __init__(self, fs: float) -> None:
        super().__init__()
        self.fs = fs
        self.scale = nn.BatchNorm1d(N_MEASURES, affine=False)
        self.body = nn.Sequential(
            nn.Linear(N_MEASURES, 64), nn.GELU(), nn.Linear(64, self.n_features), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, 32) of signals (B, n_leads, T), absent leads zero."""
        # Shares of small numbers need the precision.
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            measured = measure_rhythm(find_beats(x.float(), self.fs))
        # A single recording has no spread: it is scaled by what was learned so far.
        scaled = functional.batch_norm(
            measured.to(x.dtype),
            self.scale.running_mean,
            self.scale.running_var,
            training=self.training and measured.shape[0] > 1,
        )
        features: Tensor = self.body(scaled.clamp(-_LARGEST, _LARGEST))
        return features


def find_beats(x: Tensor, fs: float) -> Beats:
    """Find the QRS complexes of signals (B, n_leads, T) at `fs` Hz by how steep all leads are."""
    steep = _measure_steepness(x, fs)  # (B, T)
    window = round(_WINDOW_S * fs)
    maxima = max_pool(steep[:, None], window | 1, window // 2)[:, 0]
    # Where nothing moves up to the end, there is padding.
    height = _quantile(maxima, maxima > 0, 0.5)  # (B, 1)
    n_samples = x.shape[2]
    places = torch.arange(n_samples, device=x.device).expand_as(steep)
    is_valid = places <= (places * (steep > 0)).amax(dim=1, keepdim=True)
    floor = _quantile(steep[:, ::4], is_valid[:, ::4], 0.5)
    apart = round(_APART_S * fs)
    # Of equal maxima the first counts: it is above all before it, and not below those after it.
    highest = _running_maximum(functional.pad(steep, (apart, apart)), apart)  # (B, T + apart + 1)
    before, after = highest[:, : -apart - 1], highest[:, apart + 1 :]
    is_high = steep > floor + _SHARE * (height - floor)
    is_beat = is_high & (steep > before) & (steep >= after)
    places = places.masked_fill(~is_beat, n_samples).topk(_MOST_BEATS, dim=1, largest=False)[0]
    found = places < n_samples
    places = places.clamp(max=n_samples - 1)
    # Between samples the maximum is that of a parabola through three.
    around = functional.pad(steep, (1, 1))
    left, top, right = (around.gather(1, places + step) for step in range(3))
    shift = ((left - right) / (2 * (left - 2 * top + right) - 1e-6)).clamp(-0.5, 0.5)
    height = height + 1e-6
    heights, level = (part.clamp(max=_HIGHEST) for part in (top / height, floor / height))
    return Beats((places + shift) / fs, heights, found, level)


def _measure_steepness(x: Tensor, fs: float) -> Tensor:
    """Return how steep signals (B, n_leads, T) are, as a mean over leads of like weight: (B, T)."""
    reach = max(1, round(_SLOPE_S * fs / 2))
    slopes = x[:, :, 2 * reach :] - x[:, :, : -2 * reach]
    usual = slopes.square().mean(dim=2).sqrt() + 1e-6  # (B, n_leads)
    steep = torch.einsum("blt,bl->bt", slopes.abs(), 1 / usual) / x.shape[1]
    half = max(1, round(_QRS_S * fs / 2))
    smooth = functional.avg_pool1d(
        functional.pad(steep, (reach, reach))[:, None],
        2 * half + 1,
        1,
        half,
        count_include_pad=False,
    )
    return smooth[:, 0]


def measure_rhythm(beats: Beats) -> Tensor:
    """Measure the rhythm of recordings, (B, 16), from their beats.

    In order: logarithm of the median interval, which is in seconds; number of intervals; logarithms
    of their spread, and of the root mean square, the median and the largest of their steps; how
    alike intervals are to the next and to the one after; longest, shortest and both quartiles;
    smallest, median and largest height; floor. Intervals are logarithms relative to their median.
    Those of a recording of fewer than two beats are zeros.
    """
    known = beats.found[:, 1:]  # (B, 63)
    logs = beats.times_s.diff(dim=1).clamp(*_INTERVALS_S).log()
    median = _quantile(logs, known, 0.5)
    logs = (logs - median).where(known, 0.0)
    n_known = known.sum(dim=1, keepdim=True)
    n_intervals = n_known.clamp(min=1)
    apart = (logs - logs.sum(dim=1, keepdim=True) / n_intervals).where(known, 0.0)
    variance = apart.square().sum(dim=1, keepdim=True) / n_intervals
    # In bigeminy each interval is unlike the next, and like the one after that.
    alike = [
        (apart[:, lag:] * apart[:, :-lag]).sum(dim=1, keepdim=True)
        / (n_intervals * variance + 1e-4)
        for lag in (1, 2)
    ]
    steps, stepped = logs.diff(dim=1).abs(), known[:, 1:]
    steps = steps.where(stepped, 0.0)
    n_steps = stepped.sum(dim=1, keepdim=True).clamp(min=1)
    of_steps = [
        (steps.square().sum(dim=1, keepdim=True) / n_steps).sqrt(),
        _quantile(steps, stepped, 0.5),
        steps.amax(dim=1, keepdim=True),
    ]
    heights = beats.heights
    parts = [median, n_known.to(logs.dtype), (variance.sqrt() + _LEAST).log()]
    parts += [(part + _LEAST).log() for part in of_steps]
    parts += alike
    parts += [logs.amax(dim=1, keepdim=True), logs.amin(dim=1, keepdim=True)]
    parts += [_quantile(logs, known, share) for share in (0.25, 0.75)]
    parts += [_quantile(heights, beats.found, share) for share in (0.0, 0.5, 1.0)]
    parts += [beats.floor]
    return torch.cat(parts, dim=1)


def _running_maximum(x: Tensor, n: int) -> Tensor:
    """Return the maxima (B, T - n + 1) of each `n` samples of (B, T), by maxima of halves."""
    width = 1
    while width < n:
        step = min(width, n - width)
        x = torch.maximum(x[:, :-step], x[:, step:])
        width += step
    return x


def _quantile(values: Tensor, is_known: Tensor, share: float) -> Tensor:
    """Return a quantile (B, 1) of the values (B, n) that are known, the upper of two; else 0."""
    ranked = values.masked_fill(~is_known, torch.inf).sort(dim=1)[0]
    n_known = is_known.sum(dim=1, keepdim=True)
    place = ((n_known - 1).clamp(min=0) * share + 0.5).long()
    return ranked.gather(1, place).where(n_known > 0, 0.0)
