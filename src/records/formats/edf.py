"""EDF, EDF+ and BDF: the ECG channels of polysomnographs, Holter recorders and amplifiers.

Read here because a window of a long recording needs only its own data records, and because EDF+D
with gaps, truncated files and decimal commas have to be noticed. Formats: Kemp et al.,
Electroencephalogr Clin Neurophysiol 1992;82:391-393 (EDF), and Kemp and Olivan, Clin Neurophysiol
2003;114:1755-1761 (EDF+). BDF has samples of 24 bits and is the same otherwise
(https://www.biosemi.com/faq/file_format.htm).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.channels import MIN_LEAD_FS, Channel, at_rate, find_ecg
from src.records.facts import millivolts_per_unit, parse_age, parse_sex, years_between
from src.records.formats.stated_facts import amplitude_of, unit_by_amplitude
from src.records.record import (
    MAX_VALUES,
    ECGRecord,
    Extent,
    ReadingHints,
    RecordError,
    RecordRequest,
)
from src.utils import Float32Array

_MAIN_BYTES = 256
# EDF allows 9999; the largest amplifiers have some hundreds
_MAX_CHANNELS = 1000
_MAX_SAMPLES = 10_000_000
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
# The beginning of a file -> bytes of a sample.
_MAGICS = {b"0       ": 2, b"\xffBIOSEMI": 3}
# Width of each field of a channel in bytes. The header has the first field of all channels, then
# the second of all channels, and so on.
_FIELDS = {
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "low": 8,
    "high": 8,
    "digital_low": 8,
    "digital_high": 8,
    "filter": 80,
    "n": 8,
    "reserved": 32,
}
_CHANNEL_BYTES = sum(_FIELDS.values())
# The time of a data record, as text
_TIME = re.compile(rb"([+-]\d{1,18}(?:\.\d{0,18})?)")
# Samples by which a missing unit is judged
_PROBED_SAMPLES = 100_000
# Data records and continuous runs of a file with gaps, and values of a signal that is mostly gaps.
_MAX_TIMED = 1_000_000
_MAX_RUNS = 2_000
_FEW_VALUES = 2**26
_VALUES_PER_BYTE = 4
# Seconds between data records may be off by this much, since files round their times.
_TIME_TOLERANCE_S = 1e-3


@dataclass(frozen=True)
class EdfChannel:
    """One channel of a header.

    Attributes
    ----------
    label
        Name of the channel.
    transducer
        Its sensor.
    unit
        Physical unit as in the header.
    first
        Index of its first sample in a data record.
    n
        Its samples in a data record.
    scale, offset
        Physical value = digital value x scale + offset. A scale of 0 marks a range that is no
        range.
    """

    label: str
    transducer: str
    unit: str
    first: int
    n: int
    scale: float
    offset: float


@dataclass(frozen=True)
class EdfHeader:
    """A parsed header.

    Attributes
    ----------
    path
        The file.
    patient, recording
        The local patient and recording identification.
    plus
        ``EDF+C`` (continuous), ``EDF+D`` (may have gaps), or empty for plain EDF. BDF+ is called
        EDF+ here.
    n_bytes
        Length of the header.
    n_records
        Number of data records.
    duration_s
        Length of a data record in seconds; 0 if the header does not say it.
    record_size
        Samples of all channels in a data record.
    channels
        The channels in the order of the file, annotations included.
    sample_bytes
        Bytes of a sample: 2, or 3 for BDF.
    """

    path: Path
    patient: str
    recording: str
    plus: str
    n_bytes: int
    n_records: int
    duration_s: float
    record_size: int
    channels: tuple[EdfChannel, ...]
    sample_bytes: int = 2


class _Selection(NamedTuple):
    """The ECG channels of a file, its samples per data record and rate, and remarks."""

    channels: tuple[EdfChannel, ...]
    n: int
    fs: float
    flags: tuple[str, ...]
    unused: tuple[str, ...]


def read_edf(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the ECG channels of an EDF or EDF+ file; gaps of an EDF+D file are NaN.

    Raises
    ------
    RecordError
        If the header is damaged, the file is shorter than it promises, or has no ECG channel.
    """
    header = read_edf_header(path)
    selection = _select_channels(header, request.hints)
    runs = _find_runs(header, selection)
    total = runs[-1].stop
    stop = total if request.stop is None else min(request.stop, total)
    if stop <= request.start:
        raise RecordError(path, "holds no samples: expected one or more")
    if (stop - request.start) * len(selection.channels) > MAX_VALUES:
        raise RecordError(
            path,
            f"holds {len(selection.channels)} ECG channels of {total} samples, gaps included: the "
            f"limit is {MAX_VALUES} values, read it in windows (window_s)",
        )
    _check_gaps(header, (stop - request.start) * len(selection.channels))
    patient_id, sex, age = _patient(header)
    scales, unit_flags = _millivolts(header, selection, request.hints.gain_per_mv)
    return ECGRecord(
        record_id=path.stem,
        signal=_read_runs(header, selection, scales, runs, request.start, stop),
        fs=selection.fs,
        leads=tuple(channel.label for channel in selection.channels),
        age=age,
        sex=sex,
        patient_id=patient_id,
        flags=(*selection.flags, *unit_flags, *_gap_flags(runs, selection.fs)),
        unused=selection.unused,
    )


def edf_extent(path: Path, request: RecordRequest) -> Extent:
    """Return the length, rate and continuous runs of the ECG channels."""
    header = read_edf_header(path)
    selection = _select_channels(header, request.hints)
    runs = _find_runs(header, selection)
    spans = tuple((run.start, run.stop) for run in runs) if len(runs) > 1 else ()
    return Extent(runs[-1].stop, selection.fs, spans)


# Header -------------------------------------------------------------------------------------------


def read_edf_header(path: Path) -> EdfHeader:
    """Read the header and check it against the size of the file.

    Raises
    ------
    RecordError
        If it is not an EDF header, or promises more than the file holds.
    """
    with open(path, "rb") as stream:
        main = stream.read(_MAIN_BYTES)
        sample_bytes = _MAGICS.get(main[:8].strip().ljust(8))
        if len(main) < _MAIN_BYTES or sample_bytes is None:
            raise RecordError(
                path, f"starts with {main[:8]!r}: expected an EDF header of version 0, or BDF"
            )
        n_channels = _integer(path, main[252:256], "number of channels")
        if not 1 <= n_channels <= _MAX_CHANNELS:
            raise RecordError(
                path, f"promises {n_channels} channels: expected 1 to {_MAX_CHANNELS}"
            )
        table = stream.read(_CHANNEL_BYTES * n_channels)
        file_size = stream.seek(0, 2)
    if len(table) < _CHANNEL_BYTES * n_channels:
        raise RecordError(path, f"ends within the header of its {n_channels} channels")
    n_bytes = _integer(path, main[184:192], "header size")
    duration_s = _number(path, main[244:252], "duration of a data record")
    if n_bytes != _MAIN_BYTES + len(table):
        raise RecordError(
            path,
            f"header size is {n_bytes}: expected {_MAIN_BYTES + len(table)} for "
            f"{n_channels} channels",
        )
    channels = _parse_channels(path, table, n_channels)
    record_size = sum(channel.n for channel in channels)
    if not record_size or duration_s < 0:
        raise RecordError(
            path,
            "data records hold no samples: expected ECG channels, this may be a file of "
            "annotations only",
        )
    n_stored = (file_size - n_bytes) // (sample_bytes * record_size)
    n_promised = _integer(path, main[236:244], "number of data records")
    if n_promised > n_stored:
        raise RecordError(path, f"holds {n_stored} data records, the header promises {n_promised}")
    return EdfHeader(
        path=path,
        patient=_text(main[8:88]),
        recording=_text(main[88:168]),
        plus=_text(main[192:197]).replace("BDF+", "EDF+"),
        n_bytes=n_bytes,
        # A recorder writes -1 while it is recording, and the right number when it ends.
        n_records=n_stored if n_promised < 0 else n_promised,
        duration_s=duration_s,
        record_size=record_size,
        channels=channels,
        sample_bytes=sample_bytes,
    )


def _parse_channels(path: Path, table: bytes, n_channels: int) -> tuple[EdfChannel, ...]:
    """Parse the fields of all channels."""
    columns: dict[str, list[bytes]] = {}
    at = 0
    for name, width in _FIELDS.items():
        columns[name] = [table[at + i * width : at + (i + 1) * width] for i in range(n_channels)]
        at += width * n_channels
    channels = []
    first = 0
    for i in range(n_channels):
        n = _integer(path, columns["n"][i], "samples of a channel")
        if not 0 <= n <= _MAX_SAMPLES:
            raise RecordError(path, f"a data record promises {n} samples of channel {i + 1}")
        label = _text(columns["label"][i])
        scale, offset = _scale(
            [columns[name][i] for name in ("low", "high", "digital_low", "digital_high")]
        )
        transducer = _text(columns["transducer"][i])
        unit = _text(columns["unit"][i])
        channels.append(EdfChannel(label, transducer, unit, first, n, scale, offset))
        first += n
    return tuple(channels)


def _scale(fields: list[bytes]) -> tuple[float, float]:
    """Return scale and offset from the physical and the digital range.

    Both are 0 if there is no such range: a channel that is no ECG may say anything there.
    """
    low, high, digital_low, digital_high = map(_finite, fields)
    if low is None or high is None or digital_low is None or digital_high is None:
        return 0.0, 0.0
    if digital_high == digital_low:
        return 0.0, 0.0
    scale = (high - low) / (digital_high - digital_low)
    return scale, low - scale * digital_low


def _text(raw: bytes) -> str:
    # EDF is ASCII, but recorders write names and the micro sign of uV in the encoding of their
    # place. Latin-1 keeps each byte.
    return raw.decode("latin-1").strip(" \0")


def _integer(path: Path, raw: bytes, what: str) -> int:
    value = _number(path, raw, what)
    if value != int(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected an integer")
    return int(value)


def _number(path: Path, raw: bytes, what: str) -> float:
    try:
        value = _float(raw)
    except ValueError:
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a number") from None
    if not math.isfinite(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a finite number")
    return value


def _finite(raw: bytes) -> float | None:
    """Return a finite number, or None if there is none."""
    try:
        value = _float(raw)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _float(raw: bytes) -> float:
    # Some exporters write a decimal comma.
    return float(_text(raw).replace(",", "."))


# Channels -----------------------------------------------------------------------------------------


def _select_channels(header: EdfHeader, hints: ReadingHints) -> _Selection:
    """Return the ECG channels; see `src.records.channels.find_ecg`.

    The rate is the highest of theirs. Others are brought to it, or left out if they are too slow
    for an ECG.

    Raises
    ------
    RecordError
        If no ECG channel is a voltage.
    """
    channels = [channel for channel in header.channels if channel.label not in _ANNOTATIONS]
    found = find_ecg(
        tuple(Channel(item.label, item.transducer, item.unit, item.n) for item in channels),
        hints.leads,
    )
    usable = [row for row in found.rows if channels[row].scale and channels[row].n]
    broken = sorted(set(found.rows) - set(usable))
    if not usable:
        names = ", ".join(f"{channel.label} ({channel.unit})" for channel in channels[:20])
        raise RecordError(
            header.path,
            f"no ECG channel: channels are {names or 'none'}, expected a name such as ECG or II, "
            "in uV, mV or V; name others with --leads NAME=CHANNEL:LEAD",
        )
    n = max(channels[row].n for row in usable)
    fs = _rate(header, n, hints)
    flags = [f"not_a_voltage:{channels[row].label}" for row in found.not_voltages]
    flags += [f"broken_scale:{channels[row].label}" for row in broken]
    slow = [row for row in usable if channels[row].n < n]
    left_out = {row for row in slow if channels[row].n * fs / n < MIN_LEAD_FS}
    flags += [
        f"{'other_rate' if row in left_out else 'upsampled'}:{channels[row].label}" for row in slow
    ]
    kept = [row for row in usable if row not in left_out]
    taken = set(kept)
    unused = [channel.label for row, channel in enumerate(channels) if row not in taken]
    return _Selection(tuple(channels[row] for row in kept), n, fs, tuple(flags), tuple(unused))


def _rate(header: EdfHeader, n: int, hints: ReadingHints) -> float:
    """Return the rate of `n` samples in each data record."""
    if header.duration_s:
        return n / header.duration_s
    if not hints.fs:
        raise RecordError(
            header.path,
            "says that a data record lasts 0 s: give --source-fs NAME=HZ (source_fs=)",
        )
    return hints.fs


def _millivolts(
    header: EdfHeader, selection: _Selection, gain_per_mv: float | None
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return mV per unit of each channel, and flags of assumptions.

    A channel without a unit has the one given, else the one that explains its amplitude, else mV.
    """
    silent = tuple(channel for channel in selection.channels if not channel.unit)
    assumed = 1.0
    flags: tuple[str, ...] = ()
    if silent and gain_per_mv:
        assumed = 1.0 / gain_per_mv
    elif silent:
        assumed = _unit_by_amplitude(header, silent, header.path.stat().st_mtime_ns)
        flags = tuple(f"unit_assumed:{channel.label}" for channel in silent)
    per_unit = [
        (millivolts_per_unit(channel.unit) or 1.0) if channel.unit else assumed
        for channel in selection.channels
    ]
    return tuple(per_unit), flags


# The windows of a long record share the unit of the whole.
@lru_cache(maxsize=8)
def _unit_by_amplitude(header: EdfHeader, channels: tuple[EdfChannel, ...], mtime_ns: int) -> float:
    """Return mV per unit of channels without one, judged by the first data records.

    Raises
    ------
    RecordError
        If no unit explains their amplitude.
    """
    n_records = min(header.n_records, max(1, _PROBED_SAMPLES // max(c.n for c in channels)))
    amplitudes = []
    for channel in channels:
        values = _read_channel(header, channel, 1.0, 0, n_records * channel.n, channel.n, n_records)
        amplitudes.append(amplitude_of(values[None]))
    amplitude = float(np.median(amplitudes))
    factor = unit_by_amplitude(amplitude, 1)
    if factor is None:
        raise RecordError(
            header.path,
            f"says no unit, and an amplitude of {amplitude:.3g} fits no voltage: give "
            "--source-gain NAME=UNITS_PER_MV (source_gain_per_mv=)",
        )
    return factor


# Samples ------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """Data records that follow each other without a gap.

    Attributes
    ----------
    start, stop
        Its first sample and the one after its last, counted from the beginning of the recording
        with gaps included.
    first_record
        Its first data record.
    """

    start: int
    stop: int
    first_record: int


def _read_runs(
    header: EdfHeader,
    selection: _Selection,
    scales: tuple[float, ...],
    runs: tuple[_Run, ...],
    start: int,
    stop: int,
) -> Float32Array:
    """Return samples `start` to `stop` in mV, shape (n_leads, n_samples), NaN within gaps."""
    signal = np.full((len(selection.channels), stop - start), np.nan, np.float32)
    for run in runs:
        begin, end = max(run.start, start), min(run.stop, stop)
        if begin >= end:
            continue
        first = run.first_record * selection.n + begin - run.start
        last_record = run.first_record + (run.stop - run.start) // selection.n
        for row, channel in enumerate(selection.channels):
            signal[row, begin - start : end - start] = _read_channel(
                header, channel, scales[row], first, end - begin, selection.n, last_record
            )
    return signal


def _read_channel(
    header: EdfHeader,
    channel: EdfChannel,
    per_unit: float,
    start: int,
    n_samples: int,
    n: int,
    last_record: int,
) -> Float32Array:
    """Return `n_samples` of a channel in mV from sample `start` on, counted at `n` a data record.

    Data records up to `last_record` are used.
    """
    # Only the data records that the samples lie in are read from disk. A slower channel needs the
    # next sample as well, to lie between.
    is_slower = channel.n < n
    first = start // n
    last = min(-(-(start + n_samples) // n) + is_slower, last_record)
    digital = _digital(header, channel, first, last)
    scale, offset = channel.scale * per_unit, channel.offset * per_unit
    if not is_slower:
        digital = digital[start - first * n : start - first * n + n_samples]
        return (digital * scale + offset).astype(np.float32)
    step = channel.n / n
    values = (digital * scale + offset).astype(np.float32)
    return at_rate(values, (start - first * n) * step, step, n_samples)


def _digital(
    header: EdfHeader, channel: EdfChannel, first: int, last: int
) -> NDArray[np.int16] | NDArray[np.int32]:
    """Return the samples of a channel in data records `first` to `last`, as they are stored."""
    stored = _bytes(header, channel)[first:last]  # (n_records, bytes)
    if header.sample_bytes == 2:
        return stored.reshape(-1).view("<i2")
    # The three bytes become the upper ones of four, and the shift back keeps the sign.
    wide = np.zeros((stored.size // 3, 4), np.uint8)
    wide[:, 1:] = stored.reshape(-1, 3)
    return wide.view("<i4")[:, 0] >> 8


def _bytes(header: EdfHeader, channel: EdfChannel) -> NDArray[np.uint8]:
    """Return the bytes of a channel in each data record as they lie on disk, (n_records, n)."""
    width = header.sample_bytes
    shape = (header.n_records, width * header.record_size)
    records = np.memmap(header.path, np.uint8, "r", offset=header.n_bytes, shape=shape)
    return records[:, width * channel.first : width * (channel.first + channel.n)]


# Gaps ---------------------------------------------------------------------------------------------


def _find_runs(header: EdfHeader, selection: _Selection) -> tuple[_Run, ...]:
    """Return the continuous runs of a recording: one, unless it is EDF+D with gaps."""
    n, fs = selection.n, selection.fs
    if header.plus != "EDF+D" or not header.n_records:
        return (_Run(0, header.n_records * n, 0),)
    starts = np.array(_start_times(header, header.path.stat().st_mtime_ns))
    steps = np.diff(starts) - n / fs
    if (steps < -_TIME_TOLERANCE_S).any():
        first = int(np.flatnonzero(steps < -_TIME_TOLERANCE_S)[0])
        raise RecordError(
            header.path,
            f"is EDF+D and data record {first + 2} begins before the one before it has ended: "
            "expected data records in the order of time",
        )
    firsts = [0, *(np.flatnonzero(steps > _TIME_TOLERANCE_S) + 1).tolist()]
    if len(firsts) > _MAX_RUNS:
        raise RecordError(
            header.path, f"is EDF+D with {len(firsts) - 1} gaps, the limit is {_MAX_RUNS}"
        )
    runs: list[_Run] = []
    for first, following in zip(firsts, [*firsts[1:], header.n_records], strict=True):
        begin = round((starts[first] - starts[0]) * fs)
        # Rounded times never make runs overlap.
        begin = max(begin, runs[-1].stop if runs else 0)
        runs.append(_Run(begin, begin + (following - first) * n, first))
    return tuple(runs)


def _check_gaps(header: EdfHeader, n_values: int) -> None:
    """Refuse a signal that is far larger than the file, since it is mostly gaps."""
    n_bytes = header.sample_bytes * header.n_records * header.record_size
    if n_values > max(_FEW_VALUES, _VALUES_PER_BYTE * n_bytes):
        raise RecordError(
            header.path,
            f"has gaps: {n_values} values of {n_bytes} bytes, read it in windows (window_s)",
        )


def _gap_flags(runs: tuple[_Run, ...], fs: float) -> tuple[str, ...]:
    """Return a flag that says after how many seconds the first gap is."""
    return (f"gap_after:{runs[0].stop / fs:g}s",) if len(runs) > 1 else ()


# A long record is read window by window, and its times are read once.
@lru_cache(maxsize=8)
def _start_times(header: EdfHeader, mtime_ns: int) -> tuple[float, ...]:
    """Return the time of each data record of an EDF+D file in seconds.

    A data record gives its time as the first text of the first annotation channel: ``+12.5``.

    Raises
    ------
    RecordError
        If a data record does not give its time.
    """
    annotations = next((item for item in header.channels if item.label in _ANNOTATIONS), None)
    if annotations is None:
        raise RecordError(
            header.path, "is EDF+D without annotations: expected the time of each data record"
        )
    texts = np.ascontiguousarray(_bytes(header, annotations))
    if len(texts) > _MAX_TIMED:
        raise RecordError(
            header.path, f"is EDF+D of {len(texts)} data records, the limit is {_MAX_TIMED}"
        )
    starts: list[float] = []
    for text in texts:
        match = _TIME.match(text.tobytes())
        if match is None:
            raise RecordError(
                header.path, f"is EDF+D and data record {len(starts)} does not give its time"
            )
        starts.append(float(match[1]))
    return tuple(starts)


# Patient ------------------------------------------------------------------------------------------


def _patient(header: EdfHeader) -> tuple[str | None, str | None, float | None]:
    """Return patient id, sex and age in years.

    EDF+ defines ``id sex birthdate name``, with X for unknown. Plain EDF has free text there.
    """
    parts = header.patient.split()
    if not header.plus.startswith("EDF+") or len(parts) < 3:
        return None, None, None
    patient_id, sex, born = parts[:3]
    started = re.match(r"Startdate\s+(\S+)", header.recording)
    age = _age(born, started[1]) if started else None
    return (None if patient_id == "X" else patient_id), parse_sex(sex), age


def _age(born: str, recorded: str) -> float | None:
    """Return the whole years between two dates such as 02-MAY-1951."""
    try:
        birthday = datetime.strptime(born, "%d-%b-%Y")
        day = datetime.strptime(recorded, "%d-%b-%Y")
    except ValueError:
        return None
    return parse_age(years_between(birthday, day))
