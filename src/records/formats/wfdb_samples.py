"""Samples of a WFDB record: ADC values from a signal file, their checksums, and their scale to mV.

Format: WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

from functools import lru_cache
from io import FileIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.records.facts import millivolts_per_unit
from src.records.formats.wfdb_header import SignalSpec
from src.utils import Float32Array

# ADC value that marks a missing sample, by storage format (signal(5)).
MISSING = {
    "16": -(2**15),
    "61": -(2**15),
    "160": -(2**15),
    "212": -(2**11),
    "80": -(2**7),
    "24": -(2**23),
    "32": -(2**31),
}
# The same with the formats that only the package decodes.
MISSING_IN_PACKAGE = {
    **MISSING,
    "508": -(2**7),
    "516": -(2**15),
    "524": -(2**23),
    "310": -(2**9),
    "311": -(2**9),
}
_DTYPES = {"16": "<i2", "61": ">i2", "160": "<u2", "80": "u1", "32": "<i4"}
# These formats store the ADC value plus this offset, as an unsigned number.
_OFFSET_BINARY = {"160": 2**15, "80": 2**7}


def count_values(n_bytes: int, fmt: str) -> int:
    """Return how many samples of a storage format fit into a number of bytes."""
    if fmt == "212":
        return n_bytes * 2 // 3
    if fmt == "24":
        return n_bytes // 3
    return n_bytes // np.dtype(_DTYPES[fmt]).itemsize


def decode_values(stream: FileIO, spec: SignalSpec, first: int, count: int) -> NDArray[Any]:
    """Return ADC values of a signal file in the order in which they are stored, shape (count,).

    Parameters
    ----------
    stream
        The file.
    spec
        A signal of the file, for its storage format and byte offset.
    first
        Index of the first value.
    count
        Number of values.
    """
    if spec.fmt == "212":
        return _decode_212(stream, spec.byte_offset, first, count)
    if spec.fmt == "24":
        return _decode_24(stream, spec.byte_offset, first, count)
    dtype = np.dtype(_DTYPES[spec.fmt])
    values = _read_values(stream, spec.byte_offset + dtype.itemsize * first, dtype, count)
    if spec.fmt in _OFFSET_BINARY:
        return (values.astype(np.int32) - _OFFSET_BINARY[spec.fmt]).astype(np.int16)
    return values


def _read_values(stream: FileIO, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Read `count` values, or fewer at the end of the file, in half the time of ``np.fromfile``."""
    values = np.empty(count, dtype)
    unread = values.view(np.uint8).data
    stream.seek(offset)
    # A read may return less than was asked for, as over a network.
    while n_bytes := stream.readinto(unread):
        unread = unread[n_bytes:]
    return values[: (values.nbytes - len(unread)) // dtype.itemsize]


def _decode_24(stream: FileIO, offset: int, first: int, count: int) -> NDArray[np.int32]:
    """Decode 24-bit two's complement values, the lowest byte first."""
    raw = _read_values(stream, offset + 3 * first, np.dtype(np.uint8), 3 * count)
    triples = raw.reshape(-1, 3).astype(np.int32)  # (count, 3)
    # The highest byte carries the sign.
    high = triples[:, 2].astype(np.int8).astype(np.int32)
    return (triples[:, 0] | triples[:, 1] << 8 | (high << 16)).astype(np.int32)


def _decode_212(stream: FileIO, offset: int, first: int, count: int) -> NDArray[np.int16]:
    """Decode pairs of 12-bit two's complement values packed in three bytes."""
    pair, skip = divmod(first, 2)
    n_pairs = (skip + count + 1) // 2
    raw = _read_values(stream, offset + 3 * pair, np.dtype(np.uint8), 3 * n_pairs)
    # An odd number of values ends within a pair, whose last byte is not stored.
    raw = np.pad(raw, (0, 3 * n_pairs - len(raw)))
    triples = raw.reshape(-1, 3).astype(np.int16)  # (n_pairs, 3)
    values = np.empty((n_pairs, 2), np.int16)
    # The middle byte holds the four high bits of both values, those of the first below.
    values[:, 0] = triples[:, 0] | (triples[:, 1] & 0x0F) << 8
    values[:, 1] = triples[:, 2] | (triples[:, 1] & 0xF0) << 4
    values[values > 2047] -= 4096
    return values.reshape(-1)[skip : skip + count]


def integrity_flags(adc: NDArray[Any], group: list[SignalSpec]) -> list[str]:
    """Compare samples, shape (n_leads, n_samples), with the header's initial values and checksums.

    A checksum of 0 is not compared, since several sources write it without computing one. Both
    describe the samples as stored, so signals that were shifted are not compared.
    """
    sums = _checksums(adc).tolist()
    first = adc[:, 0].tolist()
    flags = []
    for row, spec in enumerate(group):
        if spec.skew:
            continue
        # Sources write checksums as signed or as unsigned 16-bit numbers.
        if spec.checksum and spec.checksum & 0xFFFF != sums[row]:
            flags.append(f"checksum_mismatch:{spec.description}")
        if spec.checksum != 0 and spec.initial is not None and spec.initial != first[row]:
            flags.append(f"initial_value_mismatch:{spec.description}")
    return flags


def _checksums(adc: NDArray[Any]) -> NDArray[Any]:
    """Return the 16 low bits of the sum of each row, shape (n_leads,)."""
    if adc.dtype == np.int16:
        # Sums of 16 bits overflow without changing their low bits, and are four times as fast.
        return np.asarray(adc.view(np.uint16).sum(axis=1, dtype=np.uint16))
    return np.asarray(adc.sum(axis=1, dtype=np.int64) & 0xFFFF)


def to_millivolts(adc: NDArray[Any], group: list[SignalSpec], missing: int | None) -> Float32Array:
    """Return (adc - baseline) / gain in mV, shape (n_leads, n_samples), NaN for missing samples.

    Parameters
    ----------
    adc
        ADC values, shape (n_leads, n_samples).
    group
        The signals that they are of.
    missing
        ADC value of a missing sample, or None if the format has none.
    """
    per_mv, baselines = _scale(
        tuple([(spec.gain, millivolts_per_unit(spec.units), spec.baseline) for spec in group]),
        adc.dtype.itemsize > 2,
    )
    # The marker is the lowest value of its format, so the minimum tells whether one is missing.
    absent = adc == missing if missing is not None and adc.min() == missing else None
    values: NDArray[Any] = adc.astype(per_mv.dtype)
    if baselines is not None:
        values -= baselines
    values /= per_mv
    if absent is not None:
        values[absent] = np.nan
    return values.astype(np.float32, copy=False)


# Records of a collection share their gains and baselines.
@lru_cache(maxsize=64)
def _scale(
    signals: tuple[tuple[float, float | None, int], ...], wide: bool
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return ADC values per mV, and baselines unless all are 0, both of shape (n_leads, 1).

    Parameters
    ----------
    signals
        Gain in ADC values per unit, mV per unit, and baseline of each signal.
    wide
        Whether ADC values have more than 16 bits. These, and large baselines, need double
        precision. An int16 less a baseline is exact in single precision.
    """
    gains, mv_per_unit, baselines = zip(*signals, strict=True)
    dtype = np.float64 if wide or max(map(abs, baselines)) > 2**23 else np.float32
    # A signal that is not a voltage has no mV per unit. It is left out later.
    per_mv = [gain / (mv or 1.0) for gain, mv in zip(gains, mv_per_unit, strict=True)]
    per_mv_column = np.array(per_mv, dtype)[:, None]
    if not any(baselines):
        return per_mv_column, None
    return per_mv_column, np.array(baselines, dtype)[:, None]
