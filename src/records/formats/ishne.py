"""ISHNE Holter recordings (``.ecg``): 16-bit samples, all leads of an instant side by side.

What a header leaves at 0 is not stated, and given or assumed as for plain arrays.

Format: Badilini F., The ISHNE Holter Standard Output File Format, Ann. Noninvasive Electrocardiol.
3 (1998), 263-266.
"""

from __future__ import annotations

import binascii
import os
import struct
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.records.facts import years_between
from src.records.formats.arrays import Rate, choose_rate, choose_scale
from src.records.formats.errors import open_error
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest
from src.utils import Float32Array

_MAGIC = b"ISHNE1.0"
# Bytes before the block of variable length: magic, checksum and fixed header.
_HEADER = 522
_MAX_LEADS = 12
_MAX_AGE = 120
# Lengths and positions of the blocks, and the version.
_BLOCKS = struct.Struct("<iiiih")
# Sex, race, and the dates and the time as three numbers each.
_PERSON = struct.Struct("<hh3h3h3h3h")
# Number of leads, then of each lead its kind, quality and resolution in nV.
_LEADS = struct.Struct("<h12h12h12h")
_RATE_AT = 272
_NAMES = {
    2: "X",
    3: "Y",
    4: "Z",
    5: "I",
    6: "II",
    7: "III",
    8: "aVR",
    9: "aVL",
    10: "aVF",
    **{10 + i: f"V{i}" for i in range(1, 7)},
    17: "ES",
    18: "AS",
    19: "AI",
}
# Qualities of a lead that was disconnected from time to time, or often.
_LOOSE = (4, 5)
# Samples that tell the unit where no resolution is stated.
_PROBED = 100_000


@dataclass(frozen=True)
class _Header:
    """The header of a file.

    Attributes
    ----------
    data_at
        Byte at which the samples begin.
    n_samples
        Samples of each lead.
    names, nanovolts
        Name and nV per unit of each lead.
    fs
        Sampling rate in Hz, 0 if the file has none.
    age, sex, patient_id
        Of the patient.
    flags
        Loose leads, and a checksum that is wrong.
    """

    data_at: int
    n_samples: int
    names: tuple[str, ...]
    nanovolts: tuple[int, ...]
    fs: float
    age: float | None
    sex: str | None
    patient_id: str | None
    flags: tuple[str, ...]


def is_ishne(head: bytes) -> bool:
    """Return whether a file is an ISHNE recording, by its first bytes."""
    return head.startswith(_MAGIC)


def read_ishne(path: Path, request: RecordRequest) -> ECGRecord:
    """Read samples `request.start` to `request.stop` of all leads.

    Raises
    ------
    RecordError
        If the file is damaged, or its rate or resolution is neither known nor given.
    """
    header = _header(path)
    rate = _rate(path, header, request.hints.fs)
    per_unit, unit_flags = _millivolts(path, header, request.hints.gain_per_mv)
    counts = _counts(path, header, request.start, request.stop)
    return ECGRecord(
        record_id=path.stem,
        signal=np.ascontiguousarray((counts * per_unit).T),
        fs=rate.fs,
        leads=header.names,
        age=header.age,
        sex=header.sex,
        patient_id=header.patient_id,
        flags=(*header.flags, *rate.flags, *unit_flags),
    )


def ishne_extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return the length of a recording."""
    header = _header(path)
    return Extent(header.n_samples, _rate(path, header, request.hints.fs).fs)


def _rate(path: Path, header: _Header, given: float | None) -> Rate:
    """Return the rate that the header states, or else as for plain arrays."""
    return Rate(header.fs) if header.fs else choose_rate(path, header.n_samples, given)


def _millivolts(
    path: Path, header: _Header, gain_per_mv: float | None
) -> tuple[Float32Array, tuple[str, ...]]:
    """Return mV per unit of each lead, shape (n_leads,), and flags."""
    stated = np.array(header.nanovolts, np.float32) * np.float32(1e-6)
    silent = stated <= 0
    if not silent.any():
        return stated, ()
    # The beginning tells the unit of all windows.
    start = _counts(path, header, 0, _PROBED)[:, silent]
    scale = choose_scale(path, np.ascontiguousarray(start.T), gain_per_mv, may_be_counts=True)
    return np.where(silent, np.float32(scale.mv_per_unit), stated), scale.flags


def _counts(path: Path, header: _Header, start: int, stop: int | None) -> Float32Array:
    """Return samples `start` to `stop`, shape (n_samples, n_leads)."""
    n_leads = len(header.names)
    stop = header.n_samples if stop is None else min(stop, header.n_samples)
    n_values = max(0, stop - start) * n_leads
    if n_values > MAX_VALUES:
        raise RecordError(
            path, f"has {n_values} values, the limit is {MAX_VALUES}: read it with --window-s"
        )
    try:
        with open(path, "rb") as file:
            file.seek(header.data_at + 2 * n_leads * start)
            raw = file.read(2 * n_values)
    except OSError as error:
        raise open_error(path, error) from None
    if len(raw) < 2 * n_values:
        raise RecordError(path, f"ends at sample {start + len(raw) // 2 // n_leads}")
    return np.frombuffer(raw, "<i2").reshape(-1, n_leads).astype(np.float32)


# Header -------------------------------------------------------------------------------------------


def _header(path: Path) -> _Header:
    """Return a file's header, cached for the windows of a long recording."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_header(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _cached_header(name: str, mtime_ns: int, size: int) -> _Header:
    path = Path(name)
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER)
            if not is_ishne(head) or len(head) < _HEADER:
                raise RecordError(path, "is no ISHNE recording: expected a header of 522 bytes")
            block_size, promised, _, data_at, _ = _BLOCKS.unpack_from(head, 10)
            data_at = data_at or _HEADER + max(0, block_size)
            if not _HEADER <= data_at <= size:
                raise RecordError(
                    path, f"says that its samples begin at byte {data_at}, it has {size}"
                )
            flags = _check_sum(head, file.read(min(data_at - _HEADER, 2**20)), data_at)
    except OSError as error:
        raise open_error(path, error) from None
    n_stored = (size - data_at) // 2
    n_leads, *facts = _LEADS.unpack_from(head, 156)
    if n_leads == 0 and promised > 0 and n_stored % promised == 0:
        n_leads = n_stored // promised
        flags = (*flags, f"n_leads_assumed:{n_leads}")
    if not 1 <= n_leads <= _MAX_LEADS:
        raise RecordError(path, f"has {n_leads} leads: expected 1 to {_MAX_LEADS}")
    names = tuple(_NAMES.get(kind, "") for kind in facts[:n_leads])
    qualities = facts[_MAX_LEADS : _MAX_LEADS + n_leads]
    loose = [f"lead_off:{name}" for name, q in zip(names, qualities, strict=True) if q in _LOOSE]
    age, sex, patient_id = _patient(head)
    return _Header(
        data_at=data_at,
        n_samples=_n_samples(path, promised, n_stored, n_leads),
        names=names,
        nanovolts=tuple(facts[2 * _MAX_LEADS : 2 * _MAX_LEADS + n_leads]),
        fs=float(max(0, struct.unpack_from("<h", head, _RATE_AT)[0])),
        age=age,
        sex=sex,
        patient_id=patient_id,
        flags=(*flags, *loose),
    )


def _n_samples(path: Path, promised: int, n_stored: int, n_leads: int) -> int:
    """Return the samples of each lead.

    Writers state the samples of a lead, those of all leads together, or none.
    """
    per_lead = n_stored // n_leads
    if promised in (0, n_stored) or promised == per_lead * n_leads:
        return per_lead
    if not 0 < promised <= per_lead:
        raise RecordError(
            path, f"promises {promised} samples of {n_leads} leads, {per_lead} are stored"
        )
    return promised


def _check_sum(head: bytes, block: bytes, data_at: int) -> tuple[str, ...]:
    """Return a flag if the checksum of the header is wrong; many writers leave it at 0."""
    stated = struct.unpack_from("<H", head, len(_MAGIC))[0]
    if not stated or len(head) + len(block) < data_at:
        return ()
    computed = binascii.crc_hqx(head[10:] + block, 0xFFFF)
    # Some writers store its bytes the other way round.
    swapped = (computed & 0xFF) << 8 | computed >> 8
    return () if stated in (computed, swapped) else ("checksum_mismatch",)


def _patient(head: bytes) -> tuple[float | None, str | None, str | None]:
    """Return age in years at the recording, sex and patient id."""
    sex, _, *days = _PERSON.unpack_from(head, 128)
    patient_id = head[108:128].split(b"\0")[0].decode("latin-1").strip()
    born, recorded = _date(days[:3]), _date(days[3:6])
    age = None
    if born is not None and recorded is not None:
        age = float(years_between(born, recorded))
    is_plausible = age is not None and 0 <= age <= _MAX_AGE
    return age if is_plausible else None, {1: "male", 2: "female"}.get(sex), patient_id or None


def _date(numbers: list[int]) -> date | None:
    """Return a date from day, month and year, or None."""
    day, month, year = numbers
    try:
        return date(year, month, day)
    except ValueError:
        return None
