"""What may be wrong with a recording, done to a clean one: to test a network, not to train it.

A disturbance is a kind with a strength, and changes an `ECGRecord` as a device, an electrode or
a person might have. `list_disturbances` returns each kind with its strengths; a new one is a
function and a row of the table `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from src.learning.interference import (
    LEAD_SUBSETS,
    LIMB_SWAPS,
    MAINS_HZ,
    N_WANDER_TONES,
    WANDER_HZ,
)
from src.records.record import ECGRecord

_HUM_FS = 500.0
"""Rate at which hum is added, because slower recordings hold none."""


@dataclass(frozen=True)
class Disturbance:
    """A kind of disturbance at one strength.

    Attributes
    ----------
    kind
        Name of the kind.
    strength
        The strength with its unit; empty where there is only one.
    apply
        Changes a record; the generator draws phases, signs and noise.
    """

    kind: str
    strength: str
    apply: Callable[[ECGRecord, np.random.Generator], ECGRecord]


# Kinds --------------------------------------------------------------------------------------------


def keep_leads(record: ECGRecord, _: np.random.Generator, leads: str) -> ECGRecord:
    """Keep some leads: standard names, separated by blanks."""
    kept = leads.split()
    rows = [row for row, lead in enumerate(record.leads) if lead in kept]
    return replace(
        record, signal=record.signal[rows], leads=tuple(record.leads[row] for row in rows)
    )


def add_noise(record: ECGRecord, rng: np.random.Generator, snr_db: float) -> ECGRecord:
    """Add white noise to each lead, `snr_db` below the power of the lead about its mean."""
    size = record.signal.std(axis=1, keepdims=True) * 10 ** (-snr_db / 20)
    return _add(record, size * rng.standard_normal(record.signal.shape, np.float32))


def add_wander(record: ECGRecord, rng: np.random.Generator, mv: float) -> ECGRecord:
    """Add slow tones of 0.05 to 0.5 Hz to each lead; their sum reaches `mv` at most."""
    n_leads, n_samples = record.signal.shape
    hz = rng.uniform(*WANDER_HZ, (n_leads, N_WANDER_TONES, 1))
    phase = rng.uniform(0, 2 * np.pi, hz.shape)
    tones = np.sin(2 * np.pi * hz * np.arange(n_samples) / record.fs + phase)
    return _add(record, tones.mean(axis=1) * mv)


def add_hum(record: ECGRecord, rng: np.random.Generator, mv: float) -> ECGRecord:
    """Add mains hum of 50 Hz and amplitude `mv` to each lead, at a rate of at least 500 Hz."""
    if record.fs < _HUM_FS:
        record = change_rate(record, rng, _HUM_FS)
    n_leads, n_samples = record.signal.shape
    phase = rng.uniform(0, 2 * np.pi, (n_leads, 1))
    return _add(
        record, mv * np.sin(2 * np.pi * MAINS_HZ[0] * np.arange(n_samples) / record.fs + phase)
    )


def add_offsets(record: ECGRecord, rng: np.random.Generator, mv: float) -> ECGRecord:
    """Add `mv` to each lead, up or down."""
    return _add(record, mv * rng.choice([-1.0, 1.0], (len(record.signal), 1)))


def scale(record: ECGRecord, _: np.random.Generator, factor: float) -> ECGRecord:
    """Multiply the voltages of all leads."""
    return replace(record, signal=record.signal * np.float32(factor))


def swap_electrodes(record: ECGRecord, _: np.random.Generator, swapped: str) -> ECGRecord:
    """Swap two limb electrodes, as `LIMB_SWAPS` names them."""
    rows = {lead: row for row, lead in enumerate(record.leads)}
    signal = record.signal.copy()
    for lead, (source, sign) in LIMB_SWAPS[swapped].items():
        if lead in rows and source in rows:
            signal[rows[lead]] = sign * record.signal[rows[source]]
    return replace(record, signal=signal)


def shorten(record: ECGRecord, _: np.random.Generator, seconds: float) -> ECGRecord:
    """Keep the first seconds."""
    return replace(record, signal=record.signal[:, : round(seconds * record.fs)])


def change_rate(record: ECGRecord, _: np.random.Generator, fs: float) -> ECGRecord:
    """Return a record as a device of another sampling rate would have written it."""
    ratio = Fraction(fs / record.fs).limit_denominator(1000)
    signal = resample_poly(
        record.signal, ratio.numerator, ratio.denominator, axis=1, padtype="edge"
    )
    return replace(record, signal=signal.astype(np.float32), fs=fs)


def _add(record: ECGRecord, disturbance: NDArray[np.floating]) -> ECGRecord:
    return replace(record, signal=(record.signal + disturbance).astype(np.float32))


# All kinds and strengths --------------------------------------------------------------------------


class _Kind(NamedTuple):
    name: str
    change: Callable[[ECGRecord, np.random.Generator, Any], ECGRecord]
    values: tuple[Any, ...]
    format: str


_KINDS = (
    _Kind("none", lambda record, _, __: record, ("",), "{}"),
    _Kind("leads", keep_leads, LEAD_SUBSETS, "{}"),
    _Kind("noise", add_noise, (20, 10, 5, 0), "{:g} dB"),
    _Kind("wander", add_wander, (0.25, 0.5, 1.0), "{:g} mV"),
    _Kind("hum", add_hum, (0.1, 0.3), "{:g} mV"),
    _Kind("offset", add_offsets, (0.1, 0.5, 1.0), "{:g} mV"),
    _Kind("gain", scale, (0.5, 0.8, 1.2, 2.0), "x {:g}"),
    _Kind("limb swap", swap_electrodes, tuple(LIMB_SWAPS), "{}"),
    _Kind("length", shorten, (7.5, 5.0, 2.5), "{:g} s"),
    _Kind("rate", change_rate, (1000.0, 500.0, 360.0, 128.0), "{:g} Hz"),
)

KINDS = tuple(dict.fromkeys(kind.name for kind in _KINDS))
"""Names of the kinds, of which ``none`` changes nothing."""


def list_disturbances(kinds: Collection[str] = KINDS) -> list[Disturbance]:
    """Return each kind at each of its strengths, ``none`` first.

    Raises
    ------
    ValueError
        If a kind is unknown.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"kinds has {', '.join(unknown)}: expected some of {', '.join(KINDS)}")
    found = []
    for kind in _KINDS:
        if kind.name not in kinds and kind.name != KINDS[0]:
            continue
        for value in kind.values:
            change = partial(_change, kind.change, value)
            found.append(Disturbance(kind.name, kind.format.format(value), change))
    return found


def _change(
    change: Callable[[ECGRecord, np.random.Generator, Any], ECGRecord],
    value: Any,
    record: ECGRecord,
    rng: np.random.Generator,
) -> ECGRecord:
    return change(record, rng, value)
