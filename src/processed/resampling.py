"""Resampling with an anti-alias filter, as a bank of short filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.processed.signals import row_sums
from src.utils import Float32Array, Float64Array

_OUTPUTS = 32  # of a filter at a time: more cost needless products, fewer needless copies


@lru_cache(maxsize=256)
def rate_ratio(source_fs: float, target_fs: float) -> Fraction:
    """Return target / source as up / down with a denominator up to 1000: exact for usual rates, for
    odd ones within 0.1 % up to a hundred times the target.
    """
    return Fraction(target_fs / source_fs).limit_denominator(1000)


@lru_cache(maxsize=64)
def _anti_alias_filter(up: int, down: int) -> Float64Array:
    """Return the low-pass of SciPy's resample_poly: a sinc in a Kaiser window (5.0) over 10 periods
    of the lower rate.
    """
    widest = max(up, down)
    taps = np.sinc(np.arange(-10 * widest, 10 * widest + 1) / widest) * np.kaiser(
        20 * widest + 1, 5.0
    )
    return np.asarray(taps * (up / taps.sum()))


@dataclass(frozen=True)
class _FilterBank:
    """A polyphase filter as matrix products: every `step` input samples give `period` output
    samples.

    Each of `parts` is the input sample, relative to the first of a block, with which a window
    begins, and weights (n_inputs, n_outputs) that turn the window into the next outputs of the
    block. Products of the zeros in it cost less than picking the others.
    """

    step: int
    period: int
    parts: tuple[tuple[int, Float64Array], ...]

    @property
    def before(self) -> int:
        """How many samples before a block its windows reach."""
        return max(0, -self.parts[0][0])

    @property
    def after(self) -> int:
        """The sample after the last that a block's windows reach."""
        first, weights = self.parts[-1]
        return first + len(weights)


@lru_cache(maxsize=64)
def _filter_bank(up: int, down: int) -> _FilterBank:
    taps, blocks = _anti_alias_filter(up, down), max(1, _OUTPUTS // up)
    half, period = len(taps) // 2, up * blocks
    parts = []
    for outputs in np.array_split(np.arange(period), max(1, period // (2 * _OUTPUTS))):
        first = -((half - outputs[0] * down) // up)
        inputs = np.arange(first, (outputs[-1] * down + half) // up + 1)
        places = outputs * down - inputs[:, None] * up + half
        inside = (places >= 0) & (places < len(taps))
        parts.append((int(first), np.where(inside, taps[places.clip(0, len(taps) - 1)], 0.0)))
    return _FilterBank(down * blocks, period, tuple(parts))


@lru_cache(maxsize=64)
def _single_bank(up: int, down: int) -> _FilterBank:
    bank = _filter_bank(up, down)
    return replace(
        bank, parts=tuple((first, weights.astype(np.float32)) for first, weights in bank.parts)
    )


def _apply(bank: _FilterBank, signal: NDArray[Any], n_out: int) -> NDArray[Any]:
    """Return the filtered signal (n_leads, n_out); samples before and after it count as zeros."""
    n_leads, n_blocks = len(signal), -(-n_out // bank.period)
    width = bank.before + max(signal.shape[1], (n_blocks - 1) * bank.step + bank.after)
    padded = np.zeros((n_leads, width), signal.dtype)
    padded[:, bank.before : bank.before + signal.shape[1]] = signal
    windows = np.lib.stride_tricks.sliding_window_view
    out = []
    for first, weights in bank.parts:
        part = windows(padded[:, bank.before + first :], len(weights), axis=1)[:, :: bank.step][
            :, :n_blocks
        ]
        out.append(
            (np.ascontiguousarray(part).reshape(-1, len(weights)) @ weights).reshape(
                n_leads, n_blocks, -1
            )
        )
    joined = out[0] if len(out) == 1 else np.concatenate(out, axis=2)
    return joined.reshape(n_leads, -1)[:, :n_out]


@lru_cache(maxsize=16)
def _step_response(up: int, down: int, n_samples: int, n_out: int) -> Float32Array:
    """Return what a constant 1 becomes: 1 but for the edges, where zeros come in."""
    return np.asarray(_apply(_filter_bank(up, down), np.ones((1, n_samples)), n_out)[0], np.float32)


def resample(signal: Float32Array, source_fs: float, target_fs: float) -> Float32Array:
    """Resample by an anti-aliased polyphase filter; equal to ``scipy.signal.resample_poly`` within
    rounding.

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
    up, down, n_samples = ratio.numerator, ratio.denominator, signal.shape[1]
    n_out = -(-n_samples * up // down)
    # The offset goes its own way, so that single precision is as exact for a lead far from zero
    offset = (row_sums(signal) / n_samples).astype(np.float32)[:, None]
    resampled: Float32Array = _apply(_single_bank(up, down), signal - offset, n_out)
    resampled += offset * _step_response(up, down, n_samples, n_out)
    return resampled


def source_samples_needed(n_samples: int, source_fs: float, target_fs: float) -> int:
    """Return how many source samples decide the first `n_samples` after resampling, filter tails
    included.
    """
    ratio = rate_ratio(source_fs, target_fs)
    if ratio == 1:
        return n_samples
    tail = 10 * max(ratio.numerator, ratio.denominator) // ratio.numerator + 2
    return -(-n_samples * ratio.denominator // ratio.numerator) + tail
