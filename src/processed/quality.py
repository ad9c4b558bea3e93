"""Signal quality: measures of each lead of a recording, and the flags that limits make of them.

Everything is computed from blocks of 0.2 s, so that a recording is read few times and no Fourier
transform is needed. Noise and hum are measured in the quietest block of each second, which lies
between heart beats. docs/quality.md says what each flag means and how far the flags agree with the
readers of PTB-XL.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS, QualityConfig
from src.utils import Float32Array

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


Bools = NDArray[np.bool_]

MAINS_HZ = (50.0, 60.0)

_BLOCK_S = 0.2
_BLOCKS_PER_S = 5
# A Hann window of 0.2 s suppresses a tone 10 Hz away, so 40 and 70 Hz measure the noise next to the
# mains frequencies.
_TONES_HZ = (30.0, 40.0, *MAINS_HZ, 70.0)
# Tones above this share of fs cannot be measured.
_HIGHEST_SHARE = 0.45
# A mains tone must be this many times as large as the noise next to it.
_HUM_RATIO = 3.0

# A rail is at least this share of the range away from the mean; nearer, it is a baseline in coarse
# steps.
_CLIPPED_REACH = 0.25
# A lower rate is enough to check equations between leads.
_EQUATION_HZ = 100.0
# Einthoven and Goldberger: III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2.
# Each row is the sum of the six limb leads that is 0 if its equation holds.
_EQUATIONS = np.array(
    [
        [1, -1, 1, 0, 0, 0],
        [0.5, 0.5, 0, 1, 0, 0],
        [-1, 0.5, 0, 0, 1, 0],
        [0.5, -1, 0, 0, 0, 1],
    ],
    np.float32,
)
_N_EQUATIONS = len(_EQUATIONS)
_EQUATION_NAMES = STANDARD_LEADS[2:6]
# A smaller residual is rounding.
_MIN_RESIDUAL_MV = 0.01

# Leads I and II as sums of V1 to V6, by least squares over folds 1 to 8 of PTB-XL (Wagner et al.,
# Sci Data 2020)
_I_FROM_CHEST = (-0.51, 0.19, 0.04, -0.05, 0.16, 0.22)
_II_FROM_CHEST = (-0.07, -0.09, 0.12, 0.07, 0.10, 0.32)
# Leads I and II as they would be without the swap of two limb electrodes, as sums of the recorded
# leads I and II
_SWAPS = {"RA-LA": ((-1, 0), (-1, 1)), "RA-LL": ((1, -1), (0, -1))}
_SWAP_NAMES = tuple(_SWAPS)
# Where the order of the chest leads is reversed, a swap of arms explains them nearly as well. A
# swap is named only if it does so this many times better.
_SWAP_OVER_ORDER = 1.2
# The leads next to each lead: limb leads by the angle at which they see the heart
_NEIGHBOURS = (
    ("aVL", "aVR"),
    ("aVR", "aVF"),
    ("aVF", "aVL"),
    ("I", "II"),
    ("I", "III"),
    ("II", "III"),
    ("V2", "V2"),
    ("V1", "V3"),
    ("V2", "V4"),
    ("V3", "V5"),
    ("V4", "V6"),
    ("V5", "V5"),
)
_NEIGHBOUR_ROWS = np.array([[STANDARD_LEADS.index(name) for name in two] for two in _NEIGHBOURS])
# Beats are looked for among the means of 20 ms, which hold little hum, in spans of 0.2 s.
_BEAT_HZ = 50
_SPAN_STEPS = 10
# A span with a beat has this share of the slope of the second steepest span.
_BEAT_SHARE = 0.3
# Fewer beats than this per second are none: 12 in a minute.
_MIN_BEATS_PER_S = 0.2
# A lead of less than this share of `QualityConfig.off_mv` is off even if it seems to have beats.
_STEPS_SHARE = 0.25
# Share of a lead's range: smaller slopes are rounding errors.
_MIN_SLOPE = 1e-4


def _lead_sums() -> Float32Array:
    """Return weights (4 + 2 * 4, 12): each row is a sum of the twelve leads that should be small.

    First the equations between limb leads. Then the parts of leads I and II that the chest leads do
    not explain: as recorded, with each of the two swaps undone, and with the chest leads in reverse
    order.
    """
    rows = [[*row, 0, 0, 0, 0, 0, 0] for row in _EQUATIONS]
    as_recorded = ((1, 0), (0, 1))
    for lead_i, lead_ii in (as_recorded, *_SWAPS.values()):
        rows.append([*lead_i, 0, 0, 0, 0, *(-weight for weight in _I_FROM_CHEST)])
        rows.append([*lead_ii, 0, 0, 0, 0, *(-weight for weight in _II_FROM_CHEST)])
    rows.append([1, 0, 0, 0, 0, 0, *(-weight for weight in reversed(_I_FROM_CHEST))])
    rows.append([0, 1, 0, 0, 0, 0, *(-weight for weight in reversed(_II_FROM_CHEST))])
    return np.array(rows, np.float32)


_SUMS = _lead_sums()
_SQUARED_WEIGHTS = _SUMS[:_N_EQUATIONS] ** 2
_EQUATION_LEADS = (_SQUARED_WEIGHTS > 0).astype(np.float32)
_SWAP_LEADS = np.flatnonzero((_SUMS[_N_EQUATIONS:] != 0).any(axis=0))

# Share of a collection's records with a suspicious gain at which its gain is doubted
_MANY_GAINS = 0.2


# Measures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QualityMeasures:
    """Quality measures of n recordings; shape (n, 12) unless stated, in mV, absent leads have 0.

    Attributes
    ----------
    lowest_mv, highest_mv
        The extremes.
    amplitude_mv
        Range within a second, median over seconds.
    still_s
        Longest stretch without any change, in seconds.
    clipped
        Share of samples at rest at the highest or lowest value, where it is far from the mean and
        several blocks reach it.
    wander_mv
        Range of the means of the seconds.
    noise_mv
        Amplitude at 30 to 40 Hz in the quietest block of a second, median over seconds.
    burst_mv
        Amplitude at 30 to 40 Hz in the median block of a second: its maximum over seconds minus its
        median over seconds.
    hum_mv
        Amplitude at 50 and 60 Hz in the quietest blocks, shape (2, n, 12); 0 where fs is too low to
        measure it.
    beside_hum_mv
        The larger of the amplitudes at 40 and 70 Hz in the same blocks.
    left_over_mv
        Residual of the equations for III, aVR, aVL and aVF, root mean square, shape (n, 4); 0 where
        a lead is absent.
    left_over
        The same as a share of the leads in the equation, shape (n, 4).
    swap_ratios
        For RA and LA, then RA and LL: how many times better the chest leads explain leads I and II
        once these limb electrodes are exchanged, then once the order of the chest leads is
        reversed, shape (n, 3). 0 where a lead is absent, or where they explain everything as
        recorded.
    mean_mv
        The mean.
    evenness
        Mean of the slopes' sizes over their root mean square: a third with beats, 0.8 for noise,
        0.9 for a sine wave; 1 for a lead without slopes.
    beats_per_s
        Stretches per second that are nearly as steep as the steepest.
    """

    lowest_mv: Float32Array
    highest_mv: Float32Array
    amplitude_mv: Float32Array
    still_s: Float32Array
    clipped: Float32Array
    wander_mv: Float32Array
    noise_mv: Float32Array
    burst_mv: Float32Array
    hum_mv: Float32Array
    beside_hum_mv: Float32Array
    left_over_mv: Float32Array
    left_over: Float32Array
    swap_ratios: Float32Array
    mean_mv: Float32Array
    evenness: Float32Array
    beats_per_s: Float32Array


def measure_quality(signals: Sequence[Float32Array], fs: float, present: Bools) -> QualityMeasures:
    """Measure recordings of one rate and length; several at a time cost less each.

    Parameters
    ----------
    signals
        n of shape (12, n_samples) in the standard lead order, finite, mV; zeros for an absent lead.
    fs
        Hz.
    present
        Mask of the leads that the recordings have, shape (n, 12).
    """
    # Squares of damaged samples may overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        return _measure(signals, fs, present)


def _measure(signals: Sequence[Float32Array], fs: float, present: Bools) -> QualityMeasures:
    # Each recording is read once while it is in the processor's cache. All later steps work on the
    # few values per block, for all recordings together.
    size = max(1, min(round(_BLOCK_S * fs), signals[0].shape[1]))
    blocks = [_measure_blocks(signal, fs, size) for signal in signals]
    high = np.stack([one.high for one in blocks])  # (n, 12, n_blocks)
    low = np.stack([one.low for one in blocks])  # (n, 12, n_blocks)
    rest = np.stack([one.rest for one in blocks])  # (n, 12, n_rest)
    products = np.stack([one.lead_products for one in blocks])  # (n, 12, 12)
    slopes = np.stack([one.slopes for one in blocks])  # (n, 12, n_slopes)
    waves = np.stack([one.waves for one in blocks], axis=1)  # (1 + 2 * n_tones, n, 12, n_blocks)
    means = waves[0]
    n_blocks = high.shape[-1]

    # The extremes also count the samples after the last whole block.
    highest = high.max(axis=-1)
    lowest = low.min(axis=-1)
    if rest.size:
        highest = np.maximum(highest, rest.max(axis=-1))
        lowest = np.minimum(lowest, rest.min(axis=-1))

    # A lead is clipped at the top, at the bottom, or at both.
    # Added block by block, so that rounding does not depend on how many recordings there are
    mean = reduce(np.add, np.moveaxis(means, -1, 0)) / np.float32(n_blocks)
    reach = _CLIPPED_REACH * (highest - lowest)
    clipped_high = _clipped_share(signals, high, highest, highest - mean > reach)
    clipped_low = _clipped_share(signals, low, lowest, mean - lowest > reach)

    range_per_second = _per_second(high).max(axis=-1) - _per_second(low).min(axis=-1)
    mean_per_second = _per_second(means).sum(axis=-1) / min(_BLOCKS_PER_S, n_blocks)
    noise, burst, hum, beside_hum = _measure_noise(waves[1:])
    residual_mv, residual, swap_ratios = _compare_leads(products, present)
    evenness, beats_per_s = _measure_beats(slopes, highest - lowest)
    return QualityMeasures(
        lowest_mv=lowest,
        highest_mv=highest,
        amplitude_mv=_median(range_per_second),
        still_s=_longest_run(high == low) * np.float32(size / fs),
        clipped=clipped_high + clipped_low,
        wander_mv=mean_per_second.max(axis=-1) - mean_per_second.min(axis=-1),
        noise_mv=noise,
        burst_mv=burst,
        hum_mv=hum,
        beside_hum_mv=beside_hum,
        left_over_mv=residual_mv,
        left_over=residual,
        swap_ratios=swap_ratios,
        mean_mv=mean,
        evenness=evenness,
        beats_per_s=beats_per_s,
    )


class _BlockMeasures(NamedTuple):
    """Values per block of one recording; few later steps need its samples again.

    Attributes
    ----------
    high, low
        Extremes of the blocks, shape (12, n_blocks).
    rest
        The samples after the last whole block, shape (12, n_rest).
    waves
        Means of the blocks, then cosines and sines of the tones, shape (1 + 2 * n_tones, 12,
        n_blocks).
    lead_products
        Mean products of the leads with each other, without wander, in mV^2, shape (12, 12).
    slopes
        Sizes of the differences between neighbouring means of 20 ms, shape (12, n_slopes).
    """

    high: Float32Array
    low: Float32Array
    rest: Float32Array
    waves: Float32Array
    lead_products: Float32Array
    slopes: Float32Array


def _measure_blocks(signal: Float32Array, fs: float, size: int) -> _BlockMeasures:
    """Return the measures of the blocks of `size` samples of one recording."""
    n_blocks = signal.shape[1] // size
    whole = np.ascontiguousarray(signal[:, : n_blocks * size])
    blocks = whole.reshape(12 * n_blocks, size)

    # One matrix product gives the mean and all tones of every block. The last column is padding.
    waves = (blocks @ _tone_filters(size, fs)).T[: 1 + 2 * len(_TONES_HZ)]
    waves = waves.reshape(-1, 12, n_blocks)

    # reduceat takes two thirds of the time of a reduction over so short an axis.
    samples = blocks.reshape(-1)
    starts = _block_starts(12 * n_blocks, size)
    high = np.maximum.reduceat(samples, starts).reshape(12, n_blocks)
    low = np.minimum.reduceat(samples, starts).reshape(12, n_blocks)
    rest = signal[:, n_blocks * size :]
    products = _lead_products(signal, fs)
    return _BlockMeasures(high, low, rest, waves, products, _slope_sizes(signal, fs))


def _slope_sizes(signal: Float32Array, fs: float) -> Float32Array:
    """Return the sizes of the differences between neighbouring means of 20 ms (12, n_slopes)."""
    width = max(1, min(round(fs / _BEAT_HZ), signal.shape[1]))
    whole = np.ascontiguousarray(signal[:, : signal.shape[1] // width * width])
    means = (whole.reshape(-1, width) @ np.full(width, 1 / width, np.float32)).reshape(12, -1)
    return np.asarray(np.abs(means[:, 1:] - means[:, :-1]), np.float32)


def _measure_beats(slopes: Float32Array, ranges: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return the evenness of slopes (n, 12, n_slopes) and the beats per second, both (n, 12)."""
    n_spans = slopes.shape[-1] // _SPAN_STEPS
    if n_spans < 2:
        # Too short to tell anything
        return np.zeros_like(ranges), np.full_like(ranges, 1 / _SPAN_STEPS)
    n_slopes = slopes.shape[-1]
    mean = slopes.mean(axis=-1)
    size = np.sqrt(np.vecdot(slopes, slopes) / n_slopes)
    steep_enough = size > _MIN_SLOPE * ranges
    evenness = np.divide(mean, size, out=np.ones_like(mean), where=steep_enough)

    # The second steepest span is the measure, so that one spike does not hide the beats.
    spans = slopes[..., : n_spans * _SPAN_STEPS].reshape(*mean.shape, n_spans, _SPAN_STEPS)
    steepest = reduce(np.maximum, np.moveaxis(spans, -1, 0))  # (n, 12, n_spans)
    second = np.partition(steepest, -2, axis=-1)[..., -2:-1]
    is_steep = steepest > _BEAT_SHARE * second
    # Neighbouring steep spans are one beat.
    n_beats = is_steep[..., 0] + (is_steep[..., 1:] & ~is_steep[..., :-1]).sum(axis=-1)
    return evenness, n_beats.astype(np.float32) * np.float32(_BEAT_HZ / n_slopes)


@lru_cache(maxsize=64)
def _block_starts(n_blocks: int, size: int) -> NDArray[np.intp]:
    return np.arange(0, n_blocks * size, size)


@lru_cache(maxsize=64)
def _tone_filters(size: int, fs: float) -> Float32Array:
    """Return columns (size, 2 + 2 * n_tones): for the mean, cosines and sines of the tones, zeros.

    The tones are in a Hann window. With an even number of columns the product takes three quarters
    of the time, hence the zeros.
    """
    time = np.arange(size) / fs
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    # This scale makes a tone of 1 mV give 1.
    scale = 2 * window / window.sum()
    measurable = np.array([[hz <= _HIGHEST_SHARE * fs] for hz in _TONES_HZ])  # (n_tones, 1)
    angles = 2 * np.pi * np.array(_TONES_HZ)[:, None] * time  # (n_tones, size)
    rows = np.concatenate(
        [
            np.full((1, size), 1 / size),
            measurable * scale * np.cos(angles),
            measurable * scale * np.sin(angles),
            np.zeros((1, size)),
        ]
    )
    return np.ascontiguousarray(rows.T, np.float32)


def _per_second(values: Float32Array) -> Float32Array:
    """Return values of blocks (..., n_blocks) as (..., n_seconds, 5).

    Fewer than five blocks are one second. Blocks after the last whole second are dropped.
    """
    per_second = min(_BLOCKS_PER_S, values.shape[-1])
    n_seconds = values.shape[-1] // per_second
    whole = values[..., : n_seconds * per_second]
    return whole.reshape(*values.shape[:-1], n_seconds, per_second)


def _median(values: Float32Array) -> Float32Array:
    """Return the median over the last axis, for short rows in a tenth of the time of NumPy's."""
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    if n % 2:
        median_: Float32Array = ordered[..., n // 2]
    else:
        median_ = (ordered[..., n // 2 - 1] + ordered[..., n // 2]) * np.float32(0.5)
    return median_


def _measure_noise(
    waves: Float32Array,
) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Return noise, burst, hum, and the amplitude beside it; hum is (2, n, 12), the others (n, 12).

    `waves` holds cosines and sines, shape (2 * n_tones, n, 12, n_blocks).
    """
    # The power of each tone, then that of 30 and 40 Hz together
    n_tones = len(_TONES_HZ)
    squares = waves * waves
    power = np.empty((n_tones + 1, *waves.shape[1:]), np.float32)
    np.add(squares[:n_tones], squares[n_tones:], out=power[:n_tones])
    np.add(power[0], power[1], out=power[n_tones])

    # The quietest block of a second lies between two beats. A reduction over a list of arrays is
    # faster than one over a short last axis.
    seconds = _per_second(power)  # (n_tones + 1, n, 12, n_seconds, 5)
    quietest = reduce(np.minimum, np.moveaxis(seconds, -1, 0))
    quiet = _median(np.sqrt(quietest))  # (n_tones + 1, n, 12)
    noise = quiet[-1]
    hum = quiet[2:4]
    beside_hum = np.maximum(quiet[1], quiet[4])

    # A burst of muscle noise lasts longer than a beat, so it raises the median block of a second.
    usual = _median(np.sqrt(seconds[-1]))  # (n, 12, n_seconds)
    burst = usual.max(axis=-1) - _median(usual)
    return noise, burst, hum, beside_hum


def _longest_run(still: Bools) -> Float32Array:
    """Return the longest run of True along the last axis."""
    # Absent leads have no other blocks, and few of the others have any.
    is_still = still.all(axis=-1)
    longest = np.where(is_still, still.shape[-1], 0).astype(np.float32)
    for recording, lead in np.argwhere(still.any(axis=-1) & ~is_still).tolist():
        bordered = np.concatenate(([0], still[recording, lead].view(np.int8), [0]))
        edges = np.flatnonzero(np.diff(bordered))
        longest[recording, lead] = np.diff(edges)[::2].max()
    return longest


def _clipped_share(
    signals: Sequence[Float32Array], extremes: Float32Array, rails: Float32Array, far: Bools
) -> Float32Array:
    """Return the share of samples that rest at a rail, shape (n, 12).

    Parameters
    ----------
    signals
        n of shape (12, n_samples).
    extremes
        Highest or lowest values of the blocks, shape (n, 12, n_blocks).
    rails
        The highest or lowest value of each lead, shape (n, 12).
    far
        Mask of the rails that are far from the mean, shape (n, 12).
    """
    share = np.zeros(rails.shape, np.float32)
    # A real peak reaches the extreme once, a rail in several blocks. Few leads get past this test.
    n_blocks_at_rail = (extremes == rails[..., None]).sum(axis=-1)
    for recording, lead in np.argwhere((n_blocks_at_rail >= 2) & far).tolist():
        at_rail = signals[recording][lead] == rails[recording, lead]
        at_rest = at_rail[2:] & at_rail[1:-1] & at_rail[:-2]
        share[recording, lead] = at_rest.mean()
    return share


def _lead_products(signal: Float32Array, fs: float) -> Float32Array:
    """Return the mean products of the leads with each other in mV^2, shape (12, 12)."""
    # Every n-th sample is enough: aliasing is the same in all leads, so it keeps their equations.
    thinned = signal[:, :: max(1, round(fs / _EQUATION_HZ))]
    per_second = min(round(_EQUATION_HZ), thinned.shape[1])
    whole = thinned[:, : thinned.shape[1] // per_second * per_second]
    seconds = np.ascontiguousarray(whole).reshape(-1, per_second)  # (12 * n_seconds, per_second)

    # Without the mean of each second, wander and offsets count for nothing.
    means: Float32Array = seconds @ np.full(per_second, 1 / per_second, np.float32)
    centred: Float32Array = (seconds - means[:, None]).reshape(12, -1)
    products: Float32Array = centred @ centred.T / np.float32(centred.shape[1])
    return products


def _compare_leads(
    products: Float32Array, present: Bools
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return residuals of the limb lead equations, in mV and as a share, and the swap ratios.

    Limb electrodes are swapped if undoing the swap leaves less of leads I and II that the chest
    leads do not explain.
    """
    # The mean square of a sum w of leads is w P w, with the mean products P of the leads.
    powers = np.vecdot(_SUMS @ products, _SUMS)  # (n, n_sums)

    # An equation with an absent lead says nothing.
    complete = (~present) @ _EQUATION_LEADS.T == 0
    residual_mv: Float32Array = np.sqrt(np.maximum(powers[:, :_N_EQUATIONS], 0)) * complete

    # The size of an equation's terms, as if its leads were uncorrelated
    lead_powers = np.diagonal(products, axis1=1, axis2=2)[:, None]  # (n, 1, 12)
    whole = np.sqrt(np.maximum(np.vecdot(lead_powers, _SQUARED_WEIGHTS), 0))
    residual = np.divide(residual_mv, whole, out=np.zeros_like(residual_mv), where=whole > 0)

    # Unexplained power of leads I and II together: as recorded, then with each swap undone
    unexplained = powers[:, _N_EQUATIONS::2] + powers[:, _N_EQUATIONS + 1 :: 2]  # (n, 4)
    as_recorded = unexplained[:, :1]
    swaps_undone = np.maximum(unexplained[:, 1:], np.float32(1e-12))
    all_present = present[:, _SWAP_LEADS].all(axis=1, keepdims=True)
    comparable = all_present & (as_recorded > _MIN_RESIDUAL_MV**2)
    swap_ratios = np.where(comparable, as_recorded / swaps_undone, np.float32(0))
    return residual_mv, residual, swap_ratios


# Flags --------------------------------------------------------------------------------------------


def quality_flags(
    measures: QualityMeasures, present: Bools, limits: QualityConfig, max_amplitude_mv: float
) -> list[list[str]]:
    """Return the flags of each recording: ``kind:LEAD``, or ``kind`` for the whole recording.

    Parameters
    ----------
    measures
        Of n recordings.
    present
        Mask of the leads that the recordings have, shape (n, 12).
    limits
        Each flag's limit.
    max_amplitude_mv
        Limit of the flag ``amplitude``.
    """
    # A flat lead is not clipped as well, and a lead that is flat throughout has no flat part.
    still = measures.still_s >= limits.flat_part_s
    has_beats = _find_beats(measures, limits)
    leads_by_kind = {
        "amplitude": np.maximum(measures.highest_mv, -measures.lowest_mv) > max_amplitude_mv,
        "flat_part": still & (measures.highest_mv > measures.lowest_mv),
        "clipped": ~still & (measures.clipped > limits.clipped_share),
        "wander": measures.wander_mv > limits.wander_mv,
        "lead_off": _find_off(measures, limits, has_beats),
        "offset": np.abs(measures.mean_mv) > limits.offset_mv,
        "gain_high": _find_odd_gains(measures, limits, present),
        "noise": measures.noise_mv > limits.noise_mv,
        "burst": measures.burst_mv > limits.burst_mv,
    }
    # Hum is a tone: as large a noise at all frequencies is none.
    is_tone = measures.hum_mv > _HUM_RATIO * measures.beside_hum_mv
    hum = (measures.hum_mv > limits.hum_mv) & is_tone
    for hz, hum_leads in zip(MAINS_HZ, hum, strict=True):
        leads_by_kind[f"hum{hz:.0f}"] = hum_leads

    flags: list[list[str]] = [[] for _ in present]
    for kind, leads in leads_by_kind.items():
        for recording, lead in np.argwhere(leads & present).tolist():
            flags[recording].append(f"{kind}:{STANDARD_LEADS[lead]}")
    for own_flags, amplitudes in zip(flags, measures.amplitude_mv.tolist(), strict=True):
        own_flags.extend(_gain_flags(amplitudes, limits))
    _add_limb_flags(flags, measures, limits)
    for recording in np.flatnonzero(~(has_beats & present).any(axis=1)).tolist():
        flags[recording].append("not_an_ecg")
    return flags


def _find_beats(measures: QualityMeasures, limits: QualityConfig) -> Bools:
    """Return the mask of the leads (n, 12) that have anything like beats.

    Slopes of beats are few and large. Those of noise, waves and drifts are much the same
    everywhere, and a lone step or spike is no rhythm.
    """
    uneven = measures.evenness <= limits.beat_evenness
    return np.asarray(uneven & (measures.beats_per_s >= _MIN_BEATS_PER_S))


def _find_off(measures: QualityMeasures, limits: QualityConfig, has_beats: Bools) -> Bools:
    """Return the mask of the leads (n, 12) that change, but less than any view of a heart.

    A small lead with beats is no such lead, unless it is so small that its beats may be steps of
    the converter.
    """
    changes = measures.highest_mv > measures.lowest_mv
    amplitudes = measures.amplitude_mv
    is_small = (amplitudes < limits.off_mv) & ~has_beats
    return np.asarray(changes & (is_small | (amplitudes < _STEPS_SHARE * limits.off_mv)))


def _find_odd_gains(measures: QualityMeasures, limits: QualityConfig, present: Bools) -> Bools:
    """Return the mask of the leads (n, 12) that are far larger than their neighbours.

    A neighbour that is absent or off tells nothing.
    """
    amplitudes = measures.amplitude_mv
    live = amplitudes * (present & (amplitudes >= limits.off_mv))
    neighbours = live[:, _NEIGHBOUR_ROWS].max(axis=-1)
    return np.asarray((neighbours > 0) & (amplitudes > limits.gain_ratio * neighbours))


def _gain_flags(amplitudes: list[float], limits: QualityConfig) -> list[str]:
    """Return the gain flags of a recording from the median amplitude of its live leads.

    Single leads are often small, all leads hardly ever.
    """
    live = [amplitude for amplitude in amplitudes if amplitude > 0]
    if not live:
        return []
    typical = median(live)
    flags = []
    if typical < limits.amplitude_low_mv:
        flags.append("gain_low")
    if typical > limits.amplitude_high_mv:
        flags.append("gain_high")
    return flags


def _add_limb_flags(
    flags: list[list[str]], measures: QualityMeasures, limits: QualityConfig
) -> None:
    wrong_share = measures.left_over > limits.equation_share
    wrong = wrong_share & (measures.left_over_mv > _MIN_RESIDUAL_MV)
    for recording, equation in np.argwhere(wrong).tolist():
        flags[recording].append(f"limb_equation:{_EQUATION_NAMES[equation]}")

    # All equations hold with swapped electrodes, so a swap does not explain a wrong one.
    swaps = measures.swap_ratios[:, :-1]
    best_swap = swaps.max(axis=1)
    reversed_order = measures.swap_ratios[:, -1]
    is_swap = best_swap > _SWAP_OVER_ORDER * reversed_order
    consistent = ~wrong.any(axis=1)
    likeliest = swaps.argmax(axis=1).tolist()
    for recording in np.flatnonzero(
        consistent & is_swap & (best_swap > limits.swap_ratio)
    ).tolist():
        flags[recording].append(f"limb_swap:{_SWAP_NAMES[likeliest[recording]]}")
    for recording in np.flatnonzero(~is_swap & (reversed_order > limits.swap_ratio)).tolist():
        flags[recording].append("chest_order")


def find_rejection(flags: Sequence[str], rules: Sequence[str]) -> str:
    """Return the reason why flags reject a recording, "" if they do not.

    Parameters
    ----------
    flags
        As ``kind:LEAD`` or ``kind``.
    rules
        ``kind``, or ``kind:N`` for N leads or more.
    """
    for rule in rules:
        kind, _, number = rule.partition(":")
        leads = []
        for flag in flags:
            flag_kind, _, lead = flag.partition(":")
            if flag_kind == kind:
                leads.append(lead)
        if len(leads) >= int(number or 1):
            names = ", ".join([name for name in leads if name])
            where = f" in {names}" if names else ""
            return f"quality: {kind}{where}, which reject_flags={rule} keeps out"
    return ""


def report_gains(ok: pd.DataFrame) -> None:
    """Log the collections in which many records look as if their gain were wrong.

    By nature, hardly one record in a thousand does.
    """
    for flag, size in (("gain_low", "small"), ("gain_high", "large")):
        # The flag of the whole recording, not that of a lead such as gain_high:V4
        flagged = ok["quality_flags"].str.contains(rf"(?:^|;){flag}(?:;|$)", regex=True)
        share = flagged.groupby(ok["dataset"]).mean()
        for name in share[share > _MANY_GAINS].index:
            logger.warning(
                "%s: voltages of %.0f %% of the records are too %s for an ECG; check the gain: "
                "correct the headers, or give --source-gain if they do not state it",
                name,
                100 * share[name],
                size,
            )
