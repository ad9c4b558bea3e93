"""Pure signal functions: leads in order, gaps filled, resampled, standardized, cut or padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.formats.base import all_finite
from src.leads import STANDARD_LEADS, canonical_lead, is_unnamed

Signal = NDArray[np.float32]

_OUTPUTS = 32  # of a filter at a time: more cost needless products, fewer needless copies


class OrderedLeads(NamedTuple):
    """A signal whose rows are the wanted leads; `present` tells which of them the source had."""

    signal: Signal
    present: NDArray[np.bool_]
    flags: tuple[str, ...]


def order_leads(
    signal: Signal, leads: Sequence[str], wanted: Sequence[str] = STANDARD_LEADS
) -> OrderedLeads:
    """Put leads in the wanted order by name; an absent lead becomes zeros, never another lead.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), mV.
    leads
        Names as in the source. A single lead that has no name of its own is taken as lead I, with a
        flag.
    wanted
        Standard names in the order of the rows to return.
    """
    rows, present, flags = _find_leads(tuple(leads), tuple(wanted))
    if rows == tuple(range(len(leads))):
        return OrderedLeads(signal, present, flags)  # already in order: no copy
    ordered = np.zeros((len(wanted), signal.shape[1]), np.float32)
    for place, row in enumerate(rows):
        if row is not None:
            ordered[place] = signal[row]
    return OrderedLeads(ordered, present, flags)


@lru_cache(maxsize=256)
def _find_leads(
    leads: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[tuple[int | None, ...], NDArray[np.bool_], tuple[str, ...]]:
    """Return the row of each wanted lead, which of them are there, and a flag for each name that is
    taken for none or is odd.
    """
    flags: list[str] = []
    if len(leads) == 1 and is_unnamed(leads[0]):
        names: list[str | None] = ["I"]
        flags.append("single_lead_as_I")
    else:
        names = [canonical_lead(name) for name in leads]
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is None:
            flags.append(f"unknown_lead:{leads[row]}")
        elif name in rows:
            flags.append(f"repeated_lead:{leads[row]}")
        else:
            rows[name] = row
    present = np.array([name in rows for name in wanted])
    present.setflags(write=False)  # it is shared
    return tuple(rows.get(name) for name in wanted), present, tuple(flags)


def fill_gaps(signal: Signal, max_gap: int) -> tuple[Signal, int]:
    """Interpolate linearly over runs of NaN or infinity up to `max_gap` samples, in a copy; the
    ends take the nearest value.

    Returns
    -------
    signal
        Shape as given; runs longer than `max_gap` stay as they are.
    longest
        The longest run in samples, 0 where there is none.
    """
    if all_finite(signal):
        return signal, 0
    missing = ~np.isfinite(signal)
    filled = signal.copy()
    longest = 0
    for lead in np.flatnonzero(missing.any(axis=1)):
        starts, ends = _runs(missing[lead])
        longest = max(longest, int((ends - starts).max()))
        known = np.flatnonzero(~missing[lead])
        if not known.size:
            continue
        for start, end in zip(starts, ends, strict=True):
            if end - start <= max_gap:
                filled[lead, start:end] = np.interp(
                    np.arange(start, end), known, signal[lead, known]
                )
    return filled, longest


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the starts and ends (exclusive) of the runs of True."""
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


@lru_cache(maxsize=256)
def rate_ratio(source_fs: float, target_fs: float) -> Fraction:
    """Return target / source as up / down with a denominator up to 1000: exact for usual rates, for
    odd ones within 0.1 % up to a hundred times the target.
    """
    return Fraction(target_fs / source_fs).limit_denominator(1000)


@lru_cache(maxsize=64)
def _anti_alias_filter(up: int, down: int) -> NDArray[np.float64]:
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
    parts: tuple[tuple[int, NDArray[np.float64]], ...]

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
def _step_response(up: int, down: int, n_samples: int, n_out: int) -> Signal:
    """Return what a constant 1 becomes: 1 but for the edges, where zeros come in."""
    return np.asarray(_apply(_filter_bank(up, down), np.ones((1, n_samples)), n_out)[0], np.float32)


def resample(signal: Signal, source_fs: float, target_fs: float) -> Signal:
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
    offset = (_row_sums(signal) / n_samples).astype(np.float32)[:, None]
    resampled: Signal = _apply(_single_bank(up, down), signal - offset, n_out)
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


class Standardized(NamedTuple):
    """A z-scored signal with what turns it back: signal * std + mean, per lead."""

    signal: Signal
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def standardize(signal: Signal, flat_std: float = 1e-6) -> Standardized:
    """Z-score each lead over its samples; a flat lead becomes zeros with std 0, its mean kept.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), finite, mV.
    flat_std
        Leads whose standard deviation is at most this are flat.
    """
    mean = _row_sums(signal) / signal.shape[1]
    centred = signal - mean.astype(np.float32)[:, None]
    std = np.sqrt(_row_sums(centred, squared=True) / signal.shape[1])
    flat = std <= flat_std
    centred *= (1 / np.where(flat, 1.0, std)).astype(np.float32)[:, None]
    if flat.any():
        centred[flat], std[flat] = 0.0, 0.0
    return Standardized(centred, mean.astype(np.float32), std.astype(np.float32))


# samples at most summed in single precision, which loses nothing that matters; such sums are added
# in double precision
_RUN = 1024
_ONES = np.ones(_RUN, np.float32)


def _row_sums(signal: Signal, squared: bool = False) -> NDArray[np.float64]:
    """Return the sum of each row, or of its squares, at the speed of single precision and nearly as
    exact as in double.
    """
    n_samples = signal.shape[1]
    n_runs = -(-n_samples // _RUN)
    size = n_samples // n_runs
    runs = signal[:, : n_runs * size].reshape(len(signal), n_runs, size)
    sums: NDArray[np.float64] = np.vecdot(runs, runs if squared else _ONES[:size]).sum(
        axis=1, dtype=np.float64
    )
    if n_runs * size == n_samples:
        return sums
    return sums + _row_sums(signal[:, n_runs * size :], squared)


def fit_length(signal: Signal, n_samples: int) -> Signal:
    """Cut the end off, or pad it with zeros, so that there are `n_samples`."""
    held = signal.shape[1]
    if held == n_samples:
        return signal
    if held > n_samples:
        return np.ascontiguousarray(signal[:, :n_samples])
    return np.pad(signal, ((0, 0), (0, n_samples - held)))
