"""Pure signal functions: order leads, fill gaps, standardize, cut or pad."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.channels import name_leads
from src.records.record import all_finite
from src.utils import Float32Array, Float64Array


class OrderedLeads(NamedTuple):
    """A signal whose rows are the wanted leads.

    Attributes
    ----------
    signal
        Shape (n_wanted, n_samples), mV; zeros for an absent lead.
    present
        Mask of the leads that the source has, shape (n_wanted,).
    flags
        Remarks about names of leads.
    """

    signal: Float32Array
    present: NDArray[np.bool_]
    flags: tuple[str, ...]


def order_leads(
    signal: Float32Array, leads: Sequence[str], wanted: Sequence[str] = STANDARD_LEADS
) -> OrderedLeads:
    """Return leads in the wanted order by name; an absent lead becomes zeros, never another lead.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), mV.
    leads
        Names as in the source. A single lead without a name is taken as lead I, with a flag.
    wanted
        Standard names in the order of the rows to return.
    """
    rows, present, flags = _find_leads(tuple(leads), tuple(wanted))
    # Leads that are in order already are not copied.
    if rows == tuple(range(len(leads))):
        return OrderedLeads(signal, present, flags)
    ordered = np.zeros((len(wanted), signal.shape[1]), np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            ordered[i] = signal[row]
    return OrderedLeads(ordered, present, flags)


@lru_cache(maxsize=256)
def _find_leads(
    leads: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[tuple[int | None, ...], NDArray[np.bool_], tuple[str, ...]]:
    """Return the row of each wanted lead or None, the mask of those present, and flags.

    A name that is unknown or repeated gives a flag.
    """
    names, assumptions = name_leads(leads)
    flags = list(assumptions)
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if name is None:
            flags.append(f"unknown_lead:{leads[row]}")
        elif name in rows:
            flags.append(f"repeated_lead:{leads[row]}")
        else:
            rows[name] = row
    present = np.array([name in rows for name in wanted])
    # The cached array is shared by all callers.
    present.setflags(write=False)
    return tuple(rows.get(name) for name in wanted), present, tuple(flags)


def fill_gaps(signal: Float32Array, max_gap: int) -> tuple[Float32Array, int]:
    """Interpolate linearly over short gaps, which are runs of NaN or infinity.

    Gaps at the ends take the nearest value.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples).
    max_gap
        Longest gap to fill, in samples; longer ones stay as they are.

    Returns
    -------
    signal
        A copy of the same shape, or the signal itself if it has no gap.
    longest
        The longest gap in samples, 0 if there is none.
    """
    if all_finite(signal):
        return signal, 0
    missing = ~np.isfinite(signal)
    filled = signal.copy()
    longest = 0
    for lead in np.flatnonzero(missing.any(axis=1)):
        starts, ends = _runs(missing[lead])
        longest = max(longest, int((ends - starts).max()))
        finite = np.flatnonzero(~missing[lead])
        if not finite.size:
            continue
        values = signal[lead, finite]
        for start, end in zip(starts, ends, strict=True):
            if end - start <= max_gap:
                filled[lead, start:end] = np.interp(np.arange(start, end), finite, values)
    return filled, longest


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the starts and ends (exclusive) of the runs of True."""
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


class Standardized(NamedTuple):
    """A z-scored signal (n_leads, n_samples) with the mean and std (n_leads,) that restore it.

    The restored signal is signal * std + mean.
    """

    signal: Float32Array
    mean: Float32Array
    std: Float32Array


def standardize(signal: Float32Array, flat_std: float = 1e-6) -> Standardized:
    """Z-score each lead over its samples; a flat lead becomes zeros with std 0, its mean kept.

    Parameters
    ----------
    signal
        Shape (n_leads, n_samples), finite, mV.
    flat_std
        Leads whose standard deviation is at most this are flat.
    """
    mean = row_sums(signal) / signal.shape[1]
    centred = signal - mean.astype(np.float32)[:, None]
    std = np.sqrt(row_sums(centred, squared=True) / signal.shape[1])
    flat = std <= flat_std
    # One multiplication per sample; a division takes longer.
    centred *= (1 / np.where(flat, 1.0, std)).astype(np.float32)[:, None]
    if flat.any():
        centred[flat] = 0.0
        std[flat] = 0.0
    return Standardized(centred, mean.astype(np.float32), std.astype(np.float32))


# At most this many samples are summed in single precision, where rounding does not matter yet.
# These sums are added in double precision.
_RUN = 1024
_ONES = np.ones(_RUN, np.float32)


def row_sums(signal: Float32Array, squared: bool = False) -> Float64Array:
    """Return the sum of each row, or of its squares, shape (n_rows,).

    It takes the time of single precision and is nearly as exact as double precision.
    """
    n_samples = signal.shape[1]
    n_runs = -(-n_samples // _RUN)
    size = n_samples // n_runs
    runs = signal[:, : n_runs * size].reshape(len(signal), n_runs, size)
    run_sums = np.vecdot(runs, runs if squared else _ONES[:size])  # (n_rows, n_runs)
    sums: Float64Array = run_sums.sum(axis=1, dtype=np.float64)
    if n_runs * size == n_samples:
        return sums
    # Runs of one size leave a few samples over.
    return sums + row_sums(signal[:, n_runs * size :], squared)


def fit_length(signal: Float32Array, n_samples: int) -> Float32Array:
    """Cut the end off or pad it with zeros, to shape (n_leads, n_samples)."""
    n_missing = n_samples - signal.shape[1]
    if n_missing == 0:
        return signal
    if n_missing < 0:
        return np.ascontiguousarray(signal[:, :n_samples])
    return np.pad(signal, ((0, 0), (0, n_missing)))
