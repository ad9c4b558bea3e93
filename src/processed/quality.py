"""How good a recording is: what is measured on each lead, and the flags that limits make of it.

Everything is taken from blocks of 0.2 s, so that a recording is read few times and no Fourier
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
# A Hann window of 0.2 s puts nothing of a tone 10 Hz away, so 40 and 70 Hz say how much there is
# beside the mains
_TONES_HZ = (30.0, 40.0, *MAINS_HZ, 70.0)
_HIGHEST_SHARE = 0.45  # of fs: tones above it are not there
_HUM_RATIO = 3.0  # times what is beside it makes a tone of it

_CLIPPED_REACH = 0.25  # of the range, from the mean: nearer the rail is a baseline in coarse steps
_THIN_HZ = 100.0  # enough for equations between leads
# Rows give 0 for limb leads that follow Einthoven and Goldberger: III = II - I, aVR = -(I + II) /
# 2, aVL = I - II / 2, aVF = II - I / 2
_EQUATIONS = np.array(
    [[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-1, 0.5, 0, 0, 1, 0], [0.5, -1, 0, 0, 0, 1]],
    np.float32,
)
_EQUATION_NAMES = STANDARD_LEADS[2:6]
_MIN_LEFT_OVER_MV = 0.01  # less is rounding
# Leads I and II as sums of V1 to V6, by least squares over folds 1 to 8 of PTB-XL (Wagner et al.,
# Sci Data 2020)
_I_FROM_CHEST = (-0.51, 0.19, 0.04, -0.05, 0.16, 0.22)
_II_FROM_CHEST = (-0.07, -0.09, 0.12, 0.07, 0.10, 0.32)
# What leads I and II would be, in terms of those recorded, had two limb electrodes not been swapped
_SWAPS = {"RA-LA": ((-1, 0), (-1, 1)), "RA-LL": ((1, -1), (0, -1))}
# Sums of the twelve leads: those of the equations, then what the chest leads leave over of I and of
# II as recorded, and with each of the swaps undone
_SUMS = np.array(
    [
        *([*row, 0, 0, 0, 0, 0, 0] for row in _EQUATIONS),
        *(
            [*limb, 0, 0, 0, 0, *(-weight for weight in chest)]
            for limbs in (((1, 0), (0, 1)), *_SWAPS.values())
            for limb, chest in zip(limbs, (_I_FROM_CHEST, _II_FROM_CHEST), strict=True)
        ),
    ],
    np.float32,
)
_SQUARED = _SUMS[: len(_EQUATIONS)] ** 2
_EQUATION_LEADS = (_SQUARED > 0).astype(np.float32)
_SWAPS_IN_ORDER = tuple(_SWAPS)
_SWAP_LEADS = np.flatnonzero((_SUMS[len(_EQUATIONS) :] != 0).any(axis=0))

_MANY_GAINS = 0.2  # of a collection's records


# Measures -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QualityMeasures:
    """What was measured of n recordings; arrays have shape (n, 12), voltages are in mV, absent
    leads have 0.

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
        How much the median block of a second has more at 30 to 40 Hz than that of the median
        second, at most.
    hum_mv
        Amplitude at 50 and 60 Hz in the quietest blocks, shape (2, n, 12); 0 where fs is too low to
        tell.
    beside_hum_mv
        The larger of the amplitudes at 40 and 70 Hz in the same blocks.
    left_over_mv
        What the equations for III, aVR, aVL and aVF leave over, root mean square, shape (n, 4); 0
        where a lead is absent.
    left_over
        The same as a share of the leads in the equation, shape (n, 4).
    swap_ratios
        For RA and LA, then RA and LL: how many times better the chest leads explain leads I and II
        once these limb electrodes are exchanged, shape (n, 2). 0 where a lead is absent, or where
        they explain all as it is.
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


def measure_quality(signals: Sequence[Float32Array], fs: float, present: Bools) -> QualityMeasures:
    """Measure recordings of one rate and length; several at a time cost less each.

    Parameters
    ----------
    signals
        n of shape (12, n_samples) in the standard lead order, finite, mV; zeros for an absent lead.
    fs
        Hz.
    present
        Which leads there are, shape (n, 12).
    """
    with np.errstate(over="ignore", invalid="ignore"):  # squares of damaged samples
        return _measure(signals, fs, present)


def _measure(signals: Sequence[Float32Array], fs: float, present: Bools) -> QualityMeasures:
    size = max(1, min(round(_BLOCK_S * fs), signals[0].shape[1]))
    seen = [_pass_over(signal, fs, size) for signal in signals]
    high, low, rest, products = (
        np.stack([getattr(one, name) for one in seen])
        for name in ("high", "low", "rest", "products")
    )
    waves = np.stack([one.waves for one in seen], axis=1)  # (1 + 2 * n_tones, n, 12, n_blocks)
    n_blocks = high.shape[-1]
    highest, lowest = high.max(axis=-1), low.min(axis=-1)
    if rest.size:
        highest, lowest = (
            np.maximum(highest, rest.max(axis=-1)),
            np.minimum(lowest, rest.min(axis=-1)),
        )
    means = waves[0]
    noise, burst, hum, beside = _noise(waves[1:])
    left_over_mv, left_over, swap_ratios = _compare_leads(products, present)
    middle, far = means.sum(axis=-1) / n_blocks, _CLIPPED_REACH * (highest - lowest)
    wander = _per_second(means).sum(axis=-1) / min(_BLOCKS_PER_S, n_blocks)
    return QualityMeasures(
        lowest_mv=lowest,
        highest_mv=highest,
        amplitude_mv=_median(_per_second(high).max(axis=-1) - _per_second(low).min(axis=-1)),
        still_s=_longest_run(high == low) * np.float32(size / fs),
        clipped=_clipped(signals, high, highest, highest - middle > far)
        + _clipped(signals, low, lowest, middle - lowest > far),
        wander_mv=wander.max(axis=-1) - wander.min(axis=-1),
        noise_mv=noise,
        burst_mv=burst,
        hum_mv=hum,
        beside_hum_mv=beside,
        left_over_mv=left_over_mv,
        left_over=left_over,
        swap_ratios=swap_ratios,
    )


class _Seen(NamedTuple):
    """What a pass over the samples of a recording leaves; all that follows needs no more of most
    recordings.

    Attributes
    ----------
    high, low
        Extremes of the blocks, shape (12, n_blocks).
    rest
        The samples that blocks leave over.
    waves
        Means of the blocks, then cosines and sines of the tones, shape (1 + 2 * n_tones, 12,
        n_blocks).
    products
        Of the leads with each other without wander, in mV^2, shape (12, 12).
    """

    high: Float32Array
    low: Float32Array
    rest: Float32Array
    waves: Float32Array
    products: Float32Array


def _pass_over(signal: Float32Array, fs: float, size: int) -> _Seen:
    n_blocks = signal.shape[1] // size
    blocks = np.ascontiguousarray(signal[:, : n_blocks * size]).reshape(12 * n_blocks, size)
    waves = (blocks @ _tones(size, fs)).T[: 1 + 2 * len(_TONES_HZ)].reshape(-1, 12, n_blocks)
    # reduceat takes two thirds of the time of a reduction over so short an axis
    high, low = (
        find.reduceat(blocks.reshape(-1), _starts(12 * n_blocks, size)).reshape(12, n_blocks)
        for find in (np.maximum, np.minimum)
    )
    return _Seen(high, low, signal[:, n_blocks * size :], waves, _lead_products(signal, fs))


@lru_cache(maxsize=64)
def _starts(n_blocks: int, size: int) -> NDArray[np.intp]:
    return np.arange(0, n_blocks * size, size)


@lru_cache(maxsize=64)
def _tones(size: int, fs: float) -> Float32Array:
    """Return columns (size, 2 + 2 * n_tones): for the mean, cosines and sines of the tones in a
    Hann window, then zeros.

    With an even number of columns the product takes three quarters of the time.
    """
    time = np.arange(size) / fs
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)
    scale = 2 * window / window.sum()
    there = np.array([[hz <= _HIGHEST_SHARE * fs] for hz in _TONES_HZ])
    angles = 2 * np.pi * np.array(_TONES_HZ)[:, None] * time
    mean, none = np.full((1, size), 1 / size), np.zeros((1, size))
    rows = np.concatenate(
        [mean, there * scale * np.cos(angles), there * scale * np.sin(angles), none]
    )
    return np.ascontiguousarray(rows.T, np.float32)


def _per_second(values: Float32Array) -> Float32Array:
    """Return values of blocks (..., n_blocks) as (..., n_seconds, 5); fewer than five blocks are
    one second.
    """
    per = min(_BLOCKS_PER_S, values.shape[-1])
    n_seconds = values.shape[-1] // per
    return values[..., : n_seconds * per].reshape(*values.shape[:-1], n_seconds, per)


def _median(values: Float32Array) -> Float32Array:
    """Return the median over the last axis; for short rows this takes a tenth of the time of
    NumPy's.
    """
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    middle: Float32Array = (
        ordered[..., n // 2]
        if n % 2
        else (ordered[..., n // 2 - 1] + ordered[..., n // 2]) * np.float32(0.5)
    )
    return middle


def _noise(waves: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
    """Return noise and burst (n, 12), hum and what is beside it (2, n, 12) and (n, 12), of cosines
    and sines (2 * n_tones, n, 12, n_blocks).
    """
    n_tones = len(_TONES_HZ)
    squares = waves * waves
    power = np.empty(
        (n_tones + 1, *waves.shape[1:]), np.float32
    )  # of each tone, then of 30 and 40 Hz together
    np.add(squares[:n_tones], squares[n_tones:], out=power[:n_tones])
    np.add(power[0], power[1], out=power[n_tones])
    seconds = _per_second(power)
    quietest = reduce(np.minimum, np.moveaxis(seconds, -1, 0))  # faster than over a short last axis
    quiet = _median(np.sqrt(quietest))  # (n_tones + 1, n, 12)
    usual = _median(np.sqrt(seconds[-1]))  # (n, 12, n_seconds)
    return (
        quiet[-1],
        usual.max(axis=-1) - _median(usual),
        quiet[2:4],
        np.maximum(quiet[1], quiet[4]),
    )


def _longest_run(still: Bools) -> Float32Array:
    """Return the longest run of True in each row, the last axis."""
    longest = np.zeros(still.shape[:-1], np.float32)
    for recording, lead in np.argwhere(still.any(axis=-1)).tolist():
        edges = np.flatnonzero(
            np.diff(np.concatenate(([0], still[recording, lead].view(np.int8), [0])))
        )
        longest[recording, lead] = np.diff(edges)[::2].max()
    return longest


def _clipped(
    signals: Sequence[Float32Array], extremes: Float32Array, rails: Float32Array, far: Bools
) -> Float32Array:
    """Return the share of samples that stand still at a rail far off (n, 12), where the extremes of
    several blocks reach it.
    """
    share = np.zeros(rails.shape, np.float32)
    for recording, lead in np.argwhere(
        ((extremes == rails[..., None]).sum(axis=-1) >= 2) & far
    ).tolist():
        at = signals[recording][lead] == rails[recording, lead]
        share[recording, lead] = (at[2:] & at[1:-1] & at[:-2]).mean()
    return share


def _lead_products(signal: Float32Array, fs: float) -> Float32Array:
    """Return the mean products of the leads with each other in mV^2, shape (12, 12), without what
    changes in seconds.
    """
    thin = signal[:, :: max(1, round(fs / _THIN_HZ))]
    per = min(round(_THIN_HZ), thin.shape[1])
    beats = np.ascontiguousarray(thin[:, : thin.shape[1] // per * per]).reshape(-1, per)
    beats = (beats - (beats @ np.full(per, 1 / per, np.float32))[:, None]).reshape(12, -1)
    products: Float32Array = beats @ beats.T / np.float32(beats.shape[1])
    return products


def _compare_leads(
    products: Float32Array, present: Bools
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Return what the limb lead equations leave over, in mV and as a share, and the evidence for
    swapped electrodes.

    Limb electrodes are swapped where the chest leads leave less of leads I and II unexplained once
    that is undone.
    """
    powers = np.vecdot(_SUMS @ products, _SUMS)  # (n, n_sums)
    there = (~present) @ _EQUATION_LEADS.T == 0
    left_over = np.sqrt(np.maximum(powers[:, : len(_EQUATIONS)], 0)) * there
    whole = np.sqrt(
        np.maximum(np.vecdot(np.diagonal(products, axis1=1, axis2=2)[:, None], _SQUARED), 0)
    )
    share = np.divide(left_over, whole, out=np.zeros_like(left_over), where=whole > 0)
    unexplained = (
        powers[:, len(_EQUATIONS) :: 2] + powers[:, len(_EQUATIONS) + 1 :: 2]
    )  # as recorded, then with each swap undone
    as_recorded = unexplained[:, :1]
    telling = present[:, _SWAP_LEADS].all(axis=1, keepdims=True) & (
        as_recorded > _MIN_LEFT_OVER_MV**2
    )
    return (
        left_over,
        share,
        np.where(
            telling, as_recorded / np.maximum(unexplained[:, 1:], np.float32(1e-12)), np.float32(0)
        ),
    )


# Flags --------------------------------------------------------------------------------------------


def quality_flags(
    measures: QualityMeasures, present: Bools, limits: QualityConfig, max_amplitude_mv: float
) -> list[list[str]]:
    """Return the flags of each recording, ``kind:LEAD`` or for the recording as a whole ``kind``;
    `present` is (n, 12).
    """
    still = measures.still_s >= limits.flat_part_s
    passed = {
        "amplitude": np.maximum(measures.highest_mv, -measures.lowest_mv) > max_amplitude_mv,
        "flat_part": still & (measures.highest_mv > measures.lowest_mv),
        "clipped": ~still & (measures.clipped > limits.clipped_share),
        "wander": measures.wander_mv > limits.wander_mv,
        "noise": measures.noise_mv > limits.noise_mv,
        "burst": measures.burst_mv > limits.burst_mv,
    }
    heard = (measures.hum_mv > limits.hum_mv) & (
        measures.hum_mv > _HUM_RATIO * measures.beside_hum_mv
    )
    passed |= {f"hum{hz:.0f}": hum for hz, hum in zip(MAINS_HZ, heard, strict=True)}
    flags: list[list[str]] = [[] for _ in present]
    for kind, leads in passed.items():
        for recording, lead in np.argwhere(leads & present).tolist():
            flags[recording].append(f"{kind}:{STANDARD_LEADS[lead]}")
    for found, amplitudes in zip(flags, measures.amplitude_mv.tolist(), strict=True):
        found += _gain_flags(amplitudes, limits)
    _add_limb_flags(flags, measures, limits)
    return flags


def _gain_flags(amplitudes: list[float], limits: QualityConfig) -> list[str]:
    """Judge the median of the leads that are not flat: single leads are often small, all leads
    hardly ever.
    """
    live = [amplitude for amplitude in amplitudes if amplitude > 0]
    if not live:
        return []
    typical = median(live)
    return ["gain_low"] * (typical < limits.amplitude_low_mv) + ["gain_high"] * (
        typical > limits.amplitude_high_mv
    )


def _add_limb_flags(
    flags: list[list[str]], measures: QualityMeasures, limits: QualityConfig
) -> None:
    wrong = (measures.left_over > limits.equation_share) & (
        measures.left_over_mv > _MIN_LEFT_OVER_MV
    )
    for recording, equation in np.argwhere(wrong).tolist():
        flags[recording].append(f"limb_equation:{_EQUATION_NAMES[equation]}")
    likely = measures.swap_ratios.argmax(axis=1).tolist()
    swapped = (measures.swap_ratios.max(axis=1) > limits.swap_ratio) & ~wrong.any(
        axis=1
    )  # no exchange explains a wrong equation
    for recording in np.flatnonzero(swapped).tolist():
        flags[recording].append(f"limb_swap:{_SWAPS_IN_ORDER[likely[recording]]}")


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
            return (
                f"quality: {kind}{f' in {leads}' if leads else ''}, which reject_flags={rule} "
                "keeps out"
            )
    return ""


def report_gains(ok: pd.DataFrame) -> None:
    """Log collections in which many records look as if their gain were wrong: hardly one record in
    a thousand does by nature.
    """
    for flag, size in (("gain_low", "small"), ("gain_high", "large")):
        share = ok["quality_flags"].str.contains(flag, regex=False).groupby(ok["dataset"]).mean()
        for name in share[share > _MANY_GAINS].index:
            logger.warning(
                "%s: voltages of %.0f %% of the records are too %s for hearts; is the gain "
                "right? mend the headers, or give "
                "--source-gain where they say none",
                name,
                100 * share[name],
                size,
            )
