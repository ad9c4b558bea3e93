"""Leads of XML recordings, put together to a signal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.facts import parse_age, years_between
from src.records.record import RecordError
from src.utils import Float32Array

# ADC value that marks a missing sample.
_MISSING = -(2**15)


class XmlWave(NamedTuple):
    """A waveform: its signal in mV (n_leads, n_samples), names of its leads, rate and flags."""

    signal: Float32Array
    names: tuple[str, ...]
    fs: float
    flags: tuple[str, ...]


def to_millivolts(
    counts: NDArray[np.float64], mv_per_unit: float, zero: float = 0, *, n_bits: int = 16
) -> Float32Array:
    """Return (counts + zero) x `mv_per_unit`, NaN where a sample of 16 bits is missing."""
    values = (counts + zero) * mv_per_unit
    if n_bits == 16:
        values[counts == _MISSING] = np.nan
    return values.astype(np.float32)


def stack_leads(path: Path, leads: Sequence[tuple[str, Float32Array]], fs: float) -> XmlWave:
    """Return leads as one waveform; a lead without samples is absent.

    Raises
    ------
    RecordError
        If there is none, or they are not of one length.
    """
    kept = [(name, row) for name, row in leads if len(row)]
    lengths = sorted({len(row) for _, row in kept})
    if len(lengths) != 1:
        raise RecordError(
            path, f"leads have {lengths or 'no'} samples: expected the same number in each"
        )
    flags = tuple(f"no_samples:{name}" for name, row in leads if not len(row))
    return XmlWave(np.stack([row for _, row in kept]), tuple(name for name, _ in kept), fs, flags)


def age_at(born: date | None, recorded: date | None) -> float | None:
    """Return the whole years from a birth to a recording, or None."""
    if born is None or recorded is None:
        return None
    return parse_age(years_between(born, recorded))


def date_of(text: str) -> date | None:
    """Return the date that a text such as 2011-12-01 or 20111201 begins with, or None."""
    length = 10 if text[4:5] == "-" else 8
    try:
        return date.fromisoformat(text[:length])
    except ValueError:
        return None
