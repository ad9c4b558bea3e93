"""XLI, the compression of Philips Sierra XML: second differences, packed by LZW in 10-bit codes.

Each lead is a chunk: its size, two bytes without meaning here, the first difference, and the codes.
They give the upper bytes of all values, then the lower bytes. Described by C. Watford in
sierra-ecg-tools; LZW by Welch, Computer 17 (1984), 8-19.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.records.record import RecordError

_HEADER = struct.Struct("<iHh")
_BITS = 10
_LAST_CODE = 2**_BITS - 2
# Differences are stored with this added.
_BIAS = 64
# Bytes of codes of a file, which take half a second: over ten minutes of twelve leads.
_MAX_BYTES = 2**20


def decode_xli(path: Path, raw: bytes, n_leads: int, n_samples: int) -> NDArray[np.int64]:
    """Return the samples of the first leads of a file, shape (n_leads, n_samples).

    Parameters
    ----------
    path
        The file, for error messages.
    raw
        The chunks of all leads. Further channels, which hold no ECG, are not decoded.
    n_leads, n_samples
        Leads, and samples of each, that the file promises.

    Raises
    ------
    RecordError
        If a chunk is absent or damaged, or holds another number of samples.
    """
    if len(raw) > _MAX_BYTES:
        raise RecordError(
            path, f"has {len(raw)} bytes of XLI, over {_MAX_BYTES}: expected a rhythm"
        )
    counts = np.empty((n_leads, n_samples), np.int64)
    at = 0
    for row in range(n_leads):
        if len(raw) - at < _HEADER.size:
            raise RecordError(path, f"holds the samples of {row} of its {n_leads} leads")
        size, _, first = _HEADER.unpack_from(raw, at)
        at += _HEADER.size
        if not 0 < size <= len(raw) - at:
            raise RecordError(path, f"lead {row + 1} claims {size} bytes, {len(raw) - at} are left")
        packed = unpack_lzw(raw[at : at + size], 2 * n_samples)
        at += size
        if packed is None or len(packed) != 2 * n_samples:
            held = "damaged codes" if packed is None else f"{len(packed) // 2} samples"
            raise RecordError(path, f"lead {row + 1} holds {held}, its facts promise {n_samples}")
        counts[row] = _integrated(packed, first)
    if counts.size and np.abs(counts).max() > 2**15:
        raise RecordError(path, "has samples beyond 16 bits: its XLI is damaged")
    return counts


def unpack_lzw(codes: bytes, n_bytes: int) -> bytes | None:
    """Return the bytes that codes of 10 bits stand for, or None if a code is damaged.

    Decoding stops when more than `n_bytes` + 1 are there, so that its cost is bounded.
    """
    table = [bytes([value]) for value in range(256)]
    parts: list[bytes] = []
    n_left = n_bytes + 1
    previous = b""
    for code in _split_codes(codes):
        if code > _LAST_CODE:
            break
        if code < len(table):
            entry = table[code]
        elif code == len(table) and previous:
            entry = previous + previous[:1]
        else:
            return None
        if previous and len(table) <= _LAST_CODE:
            table.append(previous + entry[:1])
        parts.append(entry)
        n_left -= len(entry)
        if n_left < 0:
            break
        previous = entry
    unpacked = b"".join(parts)
    # A last odd byte has no partner.
    return unpacked[:-1] if len(unpacked) == n_bytes + 1 else unpacked


def _split_codes(codes: bytes) -> list[int]:
    """Return the whole codes in a run of bits; four of them take five bytes."""
    n_codes = 8 * len(codes) // _BITS
    padded = (
        np.frombuffer(codes + bytes(-len(codes) % 5), np.uint8).reshape(-1, 5).astype(np.uint16)
    )
    a, b, c, d, e = padded.T
    four = np.stack(
        [
            a << 2 | b >> 6,
            (b & 63) << 4 | c >> 4,
            (c & 15) << 6 | d >> 2,
            (d & 3) << 8 | e,
        ],
        axis=1,
    )
    listed: list[int] = four.ravel()[:n_codes].tolist()
    return listed


def _integrated(packed: bytes, first: int) -> NDArray[np.int64]:
    """Return the samples of a lead from its bytes.

    The first two values are samples. Then z[i] = 2 z[i-1] - z[i-2] - e[i], where e[2] is in the
    header of the chunk, and e[i] is the value before, without the bias.
    """
    upper, lower = np.frombuffer(packed, np.uint8).reshape(2, -1).astype(np.int64)
    stored = (upper << 8 | lower).astype(np.uint16).astype(np.int16).astype(np.int64)
    if len(stored) < 3:
        return stored
    errors = stored[1:-1] - _BIAS
    errors[0] = first
    slopes = stored[1] - stored[0] - np.cumsum(errors)
    stored[2:] = stored[1] + np.cumsum(slopes)
    return stored
