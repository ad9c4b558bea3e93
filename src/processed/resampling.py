"""Resampling with an anti-alias filter, computed as matrix products with a bank of filters.

Beyond its ends a signal is taken to keep its first and last value (SciPy's padtype ``edge``), or to
be what was recorded there, if it is a window of a longer recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from src.processed.signals import row_sums
from src.utils import Float32Array, Float64Array

# Outputs per matrix product: more of them multiply more zeros, fewer copy more samples.
_OUTPUTS = 32
# Fractions of usual rates have smaller terms. The bank of a larger one takes megabytes.
_USUAL_TERM = 1000
_LARGEST_TERM = 30_000
# Rates farther apart than this are left to the caller to refuse.
_MAX_RATE_ERROR = 1e-3
# A ratio is close enough if the signal drifts by this share of an output sample in 10 s.
_MAX_DRIFT = 0.1
_DRIFT_S = 10.0


@lru_cache(maxsize=256)
def rate_ratio(source_fs: float, target_fs: float) -> Fraction:
    """Return target / source as the fraction up / down.

    It is exact for usual rates. For odd ones such as 500.24 Hz the signal drifts by less than half
    an output sample in 10 s. A source of more than some hundred times the target has no such
    fraction: the result is then off by more than 0.1 %.
    """
    exact = target_fs / source_fs
    ratio = Fraction(exact).limit_denominator(_USUAL_TERM)
    if abs(ratio / exact - 1) > _MAX_RATE_ERROR:
        return ratio
    allowed = _MAX_DRIFT / (_DRIFT_S * target_fs)
    # Terms are doubled until the fraction is close enough, because small ones are faster.
    largest = _USUAL_TERM
    while abs(ratio / exact - 1) > allowed and largest < _LARGEST_TERM:
        largest = min(2 * largest, _LARGEST_TERM)
        # The larger of the two terms is limited.
        ratio = Fraction(exact).limit_denominator(int(largest / max(1.0, exact)) or 1)
    return ratio


@lru_cache(maxsize=64)
def _anti_alias_filter(up: int, down: int) -> Float64Array:
    """Return the low-pass filter of ``scipy.signal.resample_poly``.

    It is a sinc in a Kaiser window (beta 5.0), 10 periods of the lower rate to each side.
    """
    period = max(up, down)
    sinc = np.sinc(np.arange(-10 * period, 10 * period + 1) / period)
    taps = sinc * np.kaiser(20 * period + 1, 5.0)
    return np.asarray(taps * (up / taps.sum()))


@dataclass(frozen=True)
class _FilterBank:
    """A polyphase filter as matrix products.

    Attributes
    ----------
    step
        Input samples per block.
    period
        Output samples per block.
    parts
        The outputs of a block in order, some at a time: the first input sample of their window,
        relative to that of the block, and weights (n_inputs, n_outputs) that turn the window into
        outputs. Many weights are zero; multiplying them costs less than selecting the others.
    """

    step: int
    period: int
    parts: tuple[tuple[int, Float32Array], ...]

    @property
    def before(self) -> int:
        """Number of samples that the windows reach before a block."""
        return max(0, -self.parts[0][0])

    @property
    def after(self) -> int:
        """End of the last window, relative to the first sample of the block (exclusive)."""
        first, weights = self.parts[-1]
        return first + len(weights)


@lru_cache(maxsize=64)
def _filter_bank(up: int, down: int) -> _FilterBank:
    taps = _anti_alias_filter(up, down)
    half = len(taps) // 2
    # The filter repeats every `up` outputs. Several repetitions make a block of about `_OUTPUTS`;
    # many outputs per repetition are divided into parts of that size.
    repetitions = max(1, _OUTPUTS // up)
    period = up * repetitions
    n_parts = max(1, period // (2 * _OUTPUTS))
    parts = []
    for outputs in np.array_split(np.arange(period), n_parts):
        # At the common rate, output m is at m * down and input n at n * up. The tap between them
        # is their distance from the centre of the filter.
        first = -((half - outputs[0] * down) // up)
        last = (outputs[-1] * down + half) // up
        inputs = np.arange(first, last + 1)
        tap_index = outputs * down - inputs[:, None] * up + half  # (n_inputs, n_outputs)
        inside = (tap_index >= 0) & (tap_index < len(taps))
        weights = np.where(inside, taps[tap_index.clip(0, len(taps) - 1)], 0.0)
        parts.append((int(first), weights.astype(np.float32)))
    return _FilterBank(down * repetitions, period, tuple(parts))


def _apply(bank: _FilterBank, padded: Float32Array, n_out: int) -> Float32Array:
    """Return the filtered signal (n_leads, n_out).

    Its first sample is column `bank.before` of `padded`, as from `_pad`.
    """
    n_leads = len(padded)
    n_blocks = -(-n_out // bank.period)
    outputs: list[Float32Array] = []
    for first, weights in bank.parts:
        # One window per block, as rows of a matrix, gives the same outputs of all blocks at once.
        views = np.lib.stride_tricks.sliding_window_view(
            padded[:, bank.before + first :], len(weights), axis=1
        )
        windows = views[:, :: bank.step][:, :n_blocks]  # (n_leads, n_blocks, n_inputs)
        rows = np.ascontiguousarray(windows).reshape(-1, len(weights))
        outputs.append((rows @ weights).reshape(n_leads, n_blocks, -1))
        if n_blocks == 1 and sum([part.shape[2] for part in outputs]) >= n_out:
            break
    joined = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
    return joined.reshape(n_leads, -1)[:, :n_out]  # (n_leads, n_blocks * period), cut


def _pad(
    bank: _FilterBank,
    signal: Float32Array,
    n_out: int,
    before: Float32Array | None,
    after: Float32Array | None,
) -> Float32Array:
    """Return the signal with the samples around it that the filter reaches.

    Those that are not known repeat the nearest known one.
    """
    n_samples = signal.shape[1]
    n_blocks = -(-n_out // bank.period)
    width = bank.before + max(n_samples, (n_blocks - 1) * bank.step + bank.after)
    padded = np.empty((len(signal), width), signal.dtype)
    start = bank.before
    stop = start + n_samples
    padded[:, start:stop] = signal
    if before is not None:
        n_before = min(start, before.shape[1])
        padded[:, start - n_before : start] = before[:, before.shape[1] - n_before :]
        start -= n_before
    if after is not None:
        n_after = min(width - stop, after.shape[1])
        padded[:, stop : stop + n_after] = after[:, :n_after]
        stop += n_after
    padded[:, :start] = padded[:, start : start + 1]
    padded[:, stop:] = padded[:, stop - 1 : stop]
    return padded


@lru_cache(maxsize=16)
def _constant_response(up: int, down: int, n_out: int) -> Float32Array:
    """Return a constant signal of 1 after resampling, shape (n_out,): the filter's ripple."""
    taps = _anti_alias_filter(up, down)
    # Output m uses every `up`-th tap, from the one that an input sample meets first.
    phases = (np.arange(n_out) * down + len(taps) // 2) % up
    sums = np.add.reduceat(
        np.concatenate([taps[phase::up] for phase in range(up)]),
        np.cumsum([0, *[len(taps[phase::up]) for phase in range(up - 1)]]),
    )
    return sums[phases].astype(np.float32)


def resample(
    signal: Float32Array,
    source_fs: float,
    target_fs: float,
    *,
    before: Float32Array | None = None,
    after: Float32Array | None = None,
) -> Float32Array:
    """Resample with an anti-aliased polyphase filter.

    The result equals that of ``scipy.signal.resample_poly`` with ``padtype="edge"`` within
    rounding.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples).
    source_fs, target_fs
        Hz; any positive rates, 257 and non-integers included.
    before, after
        The samples that were recorded before the first and after the last, shape (n_leads, any),
        where `signal` is a window of a longer recording. Output starts at the first of `signal`.

    Returns
    -------
    ndarray
        Shape (n_leads, ceil(n_samples * up / down)), float32.
    """
    ratio = rate_ratio(source_fs, target_fs)
    if ratio == 1:
        return signal
    up = ratio.numerator
    down = ratio.denominator
    n_samples = signal.shape[1]
    n_out = -(-n_samples * up // down)
    bank = _filter_bank(up, down)
    padded = _pad(bank, signal, n_out, before, after)
    # The offset is resampled apart, so that single precision is as exact for a lead far from zero.
    offset = (row_sums(signal) / n_samples).astype(np.float32)[:, None]
    padded -= offset
    resampled = _apply(bank, padded, n_out)
    resampled += offset * _constant_response(up, down, n_out)
    return resampled


def source_samples_needed(n_samples: int, source_fs: float, target_fs: float) -> int:
    """Return the number of source samples that decide the first `n_samples` after resampling.

    It includes the tail of the filter.
    """
    ratio = rate_ratio(source_fs, target_fs)
    if ratio == 1:
        return n_samples
    tail = 10 * max(ratio.numerator, ratio.denominator) // ratio.numerator + 2
    return -(-n_samples * ratio.denominator // ratio.numerator) + tail
