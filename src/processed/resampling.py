"""Resampling with an anti-alias filter, computed as matrix products with a bank of filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.processed.signals import row_sums
from src.utils import Float32Array, Float64Array

# Outputs per matrix product: more of them multiply more zeros, fewer copy more samples.
_OUTPUTS = 32


@lru_cache(maxsize=256)
def rate_ratio(source_fs: float, target_fs: float) -> Fraction:
    """Return target / source as the fraction up / down, with down at most 1000.

    It is exact for usual rates, and within 0.1 % for odd ones up to a hundred times the target.
    """
    return Fraction(target_fs / source_fs).limit_denominator(1000)


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
    parts: tuple[tuple[int, NDArray[np.floating]], ...]

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
        parts.append((int(first), weights))
    return _FilterBank(down * repetitions, period, tuple(parts))


@lru_cache(maxsize=64)
def _single_precision_bank(up: int, down: int) -> _FilterBank:
    bank = _filter_bank(up, down)
    parts: list[tuple[int, NDArray[np.floating]]] = []
    for first, weights in bank.parts:
        parts.append((first, weights.astype(np.float32)))
    return replace(bank, parts=tuple(parts))


def _apply(bank: _FilterBank, signal: NDArray[Any], n_out: int) -> NDArray[Any]:
    """Return the filtered signal (n_leads, n_out); samples before and after it count as zeros."""
    n_leads, n_samples = signal.shape
    n_blocks = -(-n_out // bank.period)
    width = bank.before + max(n_samples, (n_blocks - 1) * bank.step + bank.after)
    padded = np.zeros((n_leads, width), signal.dtype)
    padded[:, bank.before : bank.before + n_samples] = signal

    outputs = []
    for first, weights in bank.parts:
        # One window per block, as rows of a matrix, gives the same outputs of all blocks at once.
        views = np.lib.stride_tricks.sliding_window_view(
            padded[:, bank.before + first :], len(weights), axis=1
        )
        windows = views[:, :: bank.step][:, :n_blocks]  # (n_leads, n_blocks, n_inputs)
        rows = np.ascontiguousarray(windows).reshape(-1, len(weights))
        outputs.append((rows @ weights).reshape(n_leads, n_blocks, -1))
    joined = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
    return joined.reshape(n_leads, -1)[:, :n_out]  # (n_leads, n_blocks * period), cut


@lru_cache(maxsize=16)
def _step_response(up: int, down: int, n_samples: int, n_out: int) -> Float32Array:
    """Return a constant signal of 1 after resampling, shape (n_out,).

    It is 1 except at the edges, where the zeros outside the signal come in.
    """
    response = _apply(_filter_bank(up, down), np.ones((1, n_samples)), n_out)
    return np.asarray(response[0], np.float32)


def resample(signal: Float32Array, source_fs: float, target_fs: float) -> Float32Array:
    """Resample with an anti-aliased polyphase filter.

    The result equals that of ``scipy.signal.resample_poly`` within rounding.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples).
    source_fs, target_fs
        Hz; any positive rates, 257 and non-integers included.

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
    # The offset is resampled apart, so that single precision is as exact for a lead far from zero.
    offset = (row_sums(signal) / n_samples).astype(np.float32)[:, None]
    resampled: Float32Array = _apply(_single_precision_bank(up, down), signal - offset, n_out)
    resampled += offset * _step_response(up, down, n_samples, n_out)
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
