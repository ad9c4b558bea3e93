"""How good a recording is: what is measured on each lead, and the flags that limits make of it.

Everything is taken from blocks of 0.2 s, so that a recording is read few times and no Fourier transform is needed.
Noise and hum are measured in the quietest block of each second, which lies between heart beats. docs/quality.md says
what each flag means and how far the flags agree with the readers of PTB-XL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from src.config import QualityConfig
from src.leads import STANDARD_LEADS

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

MAINS_HZ = (50.0, 60.0)

_BLOCK_S = 0.2
_BLOCKS_PER_S = 5
# A Hann window of 0.2 s puts nothing of a tone 10 Hz away, so 40 and 70 Hz say how much there is beside the mains
_TONES_HZ = (30.0, 40.0, *MAINS_HZ, 70.0)
_HIGHEST_SHARE = 0.45  # of fs: tones above it are not there
_HUM_RATIO = 3.0  # times what is beside it makes a tone of it

_CLIPPED_REACH = 0.25  # of the range, from the mean: nearer the rail is a baseline in coarse steps
_THIN_HZ = 100.0  # enough for equations between leads
# Rows give 0 for limb leads that follow Einthoven and Goldberger: III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2,
# aVF = II - I / 2
_EQUATIONS = np.array(
    [[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-1, 0.5, 0, 0, 1, 0], [0.5, -1, 0, 0, 0, 1]], np.float32
)
_EQUATION_NAMES = STANDARD_LEADS[2:6]
_MIN_LEFT_OVER_MV = 0.01  # less is rounding
# Leads I and II as sums of V1 to V6, by least squares over folds 1 to 8 of PTB-XL (Wagner et al., Sci Data 2020)
_I_FROM_CHEST = (-0.51, 0.19, 0.04, -0.05, 0.16, 0.22)
_II_FROM_CHEST = (-0.07, -0.09, 0.12, 0.07, 0.10, 0.32)
# What leads I and II would be, in terms of those recorded, had two limb electrodes not been swapped
_SWAPS = {"RA-LA": ((-1, 0), (-1, 1)), "RA-LL": ((1, -1), (0, -1))}


# Measures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QualityMeasures:
    """What was measured; arrays have shape (12,), voltages are in mV, absent leads have 0.

    Attributes
    ----------
    lowest_mv, highest_mv
        The extremes.
    amplitude_mv
        Range within a second, median over seconds.
    still_s
        Longest stretch without any change, in seconds.
    clipped
        Share of samples at rest at the highest or lowest value, where it is far from the mean and several blocks reach it.
    wander_mv
        Range of the means of the seconds.
    noise_mv
        Amplitude at 30 to 40 Hz in the quietest block of a second, median over seconds.
    burst_mv
        How much the median block of a second has more at 30 to 40 Hz than that of the median second, at most.
    hum_mv
        Amplitude at 50 and 60 Hz in the quietest blocks, shape (2, 12); 0 where fs is too low to tell.
    beside_hum_mv
        The larger of the amplitudes at 40 and 70 Hz in the same blocks.
    left_over_mv
        What the equations for III, aVR, aVL and aVF leave over, root mean square, shape (4,); 0 where a lead is absent.
    left_over
        The same as a share of the leads in the equation, shape (4,).
    swap_ratios
        By pair of limb electrodes: how many times better the chest leads explain leads I and II once the pair is
        exchanged. Empty where a lead is absent.
    """

    lowest_mv: Floats
    highest_mv: Floats
    amplitude_mv: Floats
    still_s: Floats
    clipped: Floats
    wander_mv: Floats
    noise_mv: Floats
    burst_mv: Floats
    hum_mv: Floats
    beside_hum_mv: Floats
    left_over_mv: Floats
    left_over: Floats
    swap_ratios: dict[str, float]


def measure_quality(signal: Floats, fs: float, present: Bools) -> QualityMeasures:
    """Measure a recording.

    Parameters
    ----------
    signal
        Shape (12, n_samples) in the standard lead order, finite, mV; zeros for an absent lead.
    fs
        Hz.
    present
        Which leads there are, shape (12,).
    """
    size = max(1, min(round(_BLOCK_S * fs), signal.shape[1]))
    n_blocks = signal.shape[1] // size
    rest = signal[:, n_blocks * size - 1 :]  # what blocks leave over, and one sample more so that it is never empty
    blocks = signal[:, : n_blocks * size].reshape(12, n_blocks, size)
    high, low = blocks.max(axis=2), blocks.min(axis=2)
    highest, lowest = np.maximum(high.max(axis=1), rest.max(axis=1)), np.minimum(low.min(axis=1), rest.min(axis=1))
    tones = (blocks.reshape(-1, size) @ _tones(size, fs)).reshape(12, n_blocks, -1)
    noise, burst, hum, beside = _noise(np.hypot(tones[..., 1::2], tones[..., 2::2]))
    left_over_mv, left_over, swap_ratios = _compare_leads(signal, fs, present)
    middle, far = tones[..., 0].mean(axis=1), _CLIPPED_REACH * (highest - lowest)
    return QualityMeasures(
        lowest_mv=lowest,
        highest_mv=highest,
        amplitude_mv=np.median(_per_second(high).max(axis=2) - _per_second(low).min(axis=2), axis=1),
        still_s=_longest_run(high == low) * np.float32(size / fs),
        clipped=_clipped(signal, high, highest, highest - middle > far) + _clipped(signal, low, lowest, middle - lowest > far),
        wander_mv=np.ptp(_per_second(tones[..., 0]).mean(axis=2), axis=1),
        noise_mv=noise,
        burst_mv=burst,
        hum_mv=hum,
        beside_hum_mv=beside,
        left_over_mv=left_over_mv,
        left_over=left_over,
        swap_ratios=swap_ratios,
    )


@lru_cache(maxsize=64)
def _tones(size: int, fs: float) -> Floats:
    """Return columns (size, 1 + 2 * n_tones): for the mean, then cosine and sine of each tone in a Hann window."""
    time = np.arange(size) / fs
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    columns = [np.full(size, 1 / size)]
    for hz in _TONES_HZ:
        scale = 2 * window / window.sum() * (hz <= _HIGHEST_SHARE * fs)
        columns += [scale * np.cos(2 * np.pi * hz * time), scale * np.sin(2 * np.pi * hz * time)]
    return np.stack(columns, axis=1).astype(np.float32)


def _per_second(values: Floats) -> Floats:
    """Return values of blocks (12, n_blocks, ...) as (12, n_seconds, 5, ...); fewer than five blocks are one second."""
    per = min(_BLOCKS_PER_S, values.shape[1])
    n_seconds = values.shape[1] // per
    return values[:, : n_seconds * per].reshape(12, n_seconds, per, *values.shape[2:])


def _noise(amplitudes: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return noise and burst (12,), hum and what is beside it (2, 12) and (12,), of tones (12, n_blocks, n_tones)."""
    seconds = _per_second(amplitudes)  # (12, n_seconds, 5, n_tones)
    both = np.hypot(seconds[..., 0], seconds[..., 1])
    usual = np.median(both, axis=2)
    quiet = np.median(seconds.min(axis=2), axis=1).T  # (n_tones, 12)
    noise = np.median(both.min(axis=2), axis=1)
    return noise, usual.max(axis=1) - np.median(usual, axis=1), quiet[2:4], np.maximum(quiet[1], quiet[4])


def _longest_run(still: Bools) -> Floats:
    """Return the longest run of True in each row."""
    longest = np.zeros(len(still), np.float32)
    for row in np.flatnonzero(still.any(axis=1)):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], still[row].view(np.int8), [0]))))
        longest[row] = np.diff(edges)[::2].max()
    return longest


def _clipped(signal: Floats, extremes: Floats, rails: Floats, far: Bools) -> Floats:
    """Return the share of samples that stand still at a rail far off (12,), where the extremes of several blocks reach it."""
    share = np.zeros(12, np.float32)
    for lead in np.flatnonzero(((extremes == rails[:, None]).sum(axis=1) >= 2) & far):
        at = signal[lead] == rails[lead]
        share[lead] = (at[2:] & at[1:-1] & at[:-2]).mean()
    return share


def _compare_leads(signal: Floats, fs: float, present: Bools) -> tuple[Floats, Floats, dict[str, float]]:
    """Return what the limb lead equations leave over, in mV and as a share, and the evidence for swapped electrodes."""
    thin = signal[:, :: max(1, round(fs / _THIN_HZ))]
    per = min(round(_THIN_HZ), thin.shape[1])
    beats = thin[:, : thin.shape[1] // per * per].reshape(12, -1, per)
    beats = (beats - beats.mean(axis=2, keepdims=True)).reshape(12, -1)  # no wander
    products = beats @ beats.T / beats.shape[1]  # (12, 12), mV^2: all that follows needs no more
    limb = products[:6, :6]
    there = ((_EQUATIONS != 0) <= present[:6]).all(axis=1)
    left_over = np.sqrt(np.maximum(((_EQUATIONS @ limb) * _EQUATIONS).sum(axis=1), 0)) * there
    whole = np.sqrt(np.maximum(_EQUATIONS**2 @ np.diagonal(limb), 0))
    share = np.divide(left_over, whole, out=np.zeros_like(left_over), where=whole > 0)
    return left_over, share, _swap_ratios(products) if present[[0, 1, *range(6, 12)]].all() else {}


def _swap_ratios(products: Floats) -> dict[str, float]:
    """Return by swap how many times less of leads I and II the chest leads leave unexplained once it is undone."""
    as_recorded = _unexplained(products, ((1, 0), (0, 1)))
    if as_recorded <= _MIN_LEFT_OVER_MV**2:
        return {}
    return {name: as_recorded / max(_unexplained(products, limb), 1e-12) for name, limb in _SWAPS.items()}


def _unexplained(products: Floats, limb: tuple[tuple[int, int], tuple[int, int]]) -> float:
    """Return the power in mV^2 that the chest leads leave over of two sums of leads I and II."""
    total = 0.0
    for (first, second), chest in zip(limb, (_I_FROM_CHEST, _II_FROM_CHEST), strict=True):
        weights = np.array([first, second, 0, 0, 0, 0, *(-value for value in chest)], np.float32)
        total += float(weights @ products @ weights)
    return total


# Flags ---------------------------------------------------------------------------------------------------------------


def quality_flags(measures: QualityMeasures, present: Bools, limits: QualityConfig, max_amplitude_mv: float) -> list[str]:
    """Return the flags of a recording, ``kind:LEAD`` or for the recording as a whole ``kind``."""
    still = measures.still_s >= limits.flat_part_s
    flags = [
        *_lead_flags("amplitude", np.maximum(measures.highest_mv, -measures.lowest_mv) > max_amplitude_mv, present),
        *_lead_flags("flat_part", still & (measures.highest_mv > measures.lowest_mv), present),
        *_lead_flags("clipped", ~still & (measures.clipped > limits.clipped_share), present),
        *_lead_flags("wander", measures.wander_mv > limits.wander_mv, present),
        *_lead_flags("noise", measures.noise_mv > limits.noise_mv, present),
        *_lead_flags("burst", measures.burst_mv > limits.burst_mv, present),
    ]
    for hz, hum in zip(MAINS_HZ, measures.hum_mv, strict=True):
        heard = (hum > limits.hum_mv) & (hum > _HUM_RATIO * measures.beside_hum_mv)
        flags += _lead_flags(f"hum{hz:.0f}", heard, present)
    return [*flags, *_gain_flags(measures, limits), *_limb_flags(measures, limits)]


def _lead_flags(kind: str, which: Bools, present: Bools) -> Iterator[str]:
    for lead in np.flatnonzero(which & present):
        yield f"{kind}:{STANDARD_LEADS[lead]}"


def _gain_flags(measures: QualityMeasures, limits: QualityConfig) -> list[str]:
    """Judge the median of the leads that are not flat: single leads are often small, all leads hardly ever."""
    live = measures.amplitude_mv[measures.amplitude_mv > 0]
    if not live.size:
        return []
    typical = float(np.median(live))
    return ["gain_low"] * (typical < limits.amplitude_low_mv) + ["gain_high"] * (typical > limits.amplitude_high_mv)


def _limb_flags(measures: QualityMeasures, limits: QualityConfig) -> list[str]:
    wrong = (measures.left_over > limits.equation_share) & (measures.left_over_mv > _MIN_LEFT_OVER_MV)
    if wrong.any():  # then no exchange of electrodes explains it
        return [f"limb_equation:{_EQUATION_NAMES[i]}" for i in np.flatnonzero(wrong)]
    likely = max(measures.swap_ratios, key=measures.swap_ratios.__getitem__, default="")
    return [f"limb_swap:{likely}"] if measures.swap_ratios.get(likely, 0.0) > limits.swap_ratio else []


def find_rejection(flags: Sequence[str], rules: Sequence[str]) -> str:
    """Return why flags reject a recording, or "" where they do not.

    Parameters
    ----------
    flags
        As ``kind:LEAD`` or ``kind``.
    rules
        ``kind``, or ``kind:N`` for N leads or more.
    """
    for rule in rules:
        kind, _, number = rule.partition(":")
        found = [flag.partition(":")[2] for flag in flags if flag.partition(":")[0] == kind]
        if len(found) >= int(number or 1):
            leads = ", ".join(name for name in found if name)
            return f"quality: {kind}{f' in {leads}' if leads else ''}, which reject_flags={rule} keeps out"
    return ""
