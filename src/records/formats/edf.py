"""EDF and EDF+: the ECG channels of polysomnographs and Holter recorders.

Read here because a window of a long recording needs only its own data records, and because EDF+D
with gaps, truncated files and decimal commas have to be noticed. Formats: Kemp et al.,
Electroencephalogr Clin Neurophysiol 1992;82:391-393 (EDF), and Kemp and Olivan, Clin Neurophysiol
2003;114:1755-1761 (EDF+).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.records.facts import millivolts_per_unit, parse_age, parse_sex, years_between
from src.records.leads import canonical_lead, is_unnamed
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest
from src.utils import Float32Array

_MAIN_BYTES = 256
_MAX_CHANNELS = 9999
_MAX_SAMPLES = 10_000_000
_ANNOTATIONS = "EDF Annotations"
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
_ECG_WORD = re.compile(r"ECG|EKG", re.IGNORECASE)
# C3 is an ECG lead on the chest, and an EEG electrode on the scalp.
_AMBIGUOUS = re.compile(r"C?\d", re.IGNORECASE)
# Seconds between data records may be off by this much, since files round their times.
_TIME_TOLERANCE_S = 1e-3


@dataclass(frozen=True)
class Channel:
    """One channel of a header.

    Attributes
    ----------
    label
        Name of the channel.
    unit
        Physical unit as in the header.
    first
        Index of its first sample in a data record.
    n
        Its samples in a data record.
    scale, offset
        Physical value = digital value x scale + offset.
    """

    label: str
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
        ``EDF+C`` (continuous), ``EDF+D`` (may have gaps), or empty for plain EDF.
    n_bytes
        Length of the header.
    n_records
        Number of data records.
    duration_s
        Length of a data record in seconds.
    record_size
        Samples of all channels in a data record.
    channels
        The channels in the order of the file, annotations included.
    """

    path: Path
    patient: str
    recording: str
    plus: str
    n_bytes: int
    n_records: int
    duration_s: float
    record_size: int
    channels: tuple[Channel, ...]


def read_edf(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the ECG channels of an EDF or EDF+ file.

    Raises
    ------
    RecordError
        If the header is damaged, the file is shorter than it promises, has gaps in time, or has no
        ECG channel.
    """
    header = read_edf_header(path)
    channels, flags = _ecg_channels(header)
    n = channels[0].n
    total = header.n_records * n
    stop = total if request.stop is None else min(request.stop, total)
    if stop <= request.start:
        raise RecordError(path, "holds no samples: expected one or more")
    if header.plus == "EDF+D":
        _check_continuous(header, path.stat().st_mtime_ns)
    if (stop - request.start) * len(channels) > MAX_VALUES:
        raise RecordError(
            path,
            f"holds {len(channels)} ECG channels of {total} samples, the limit is "
            f"{MAX_VALUES} values",
        )
    patient_id, sex, age = _patient(header)
    return ECGRecord(
        record_id=path.stem,
        signal=_read_channels(header, channels, request.start, stop),
        fs=n / header.duration_s,
        leads=tuple(channel.label for channel in channels),
        age=age,
        sex=sex,
        patient_id=patient_id,
        flags=flags,
    )


def edf_extent(path: Path) -> Extent:
    """Return the length and rate of the ECG channels, from the header."""
    header = read_edf_header(path)
    channels, _ = _ecg_channels(header)
    n = channels[0].n
    return Extent(header.n_records * n, n / header.duration_s)


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
        # BioSemi's BDF, with 24-bit samples, starts with 0xff instead.
        if len(main) < _MAIN_BYTES or main[:8].strip() != b"0":
            raise RecordError(
                path, f"starts with {main[:8]!r}: expected an EDF header of version 0"
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
    if not (record_size and duration_s > 0):
        raise RecordError(
            path,
            "data records hold no samples: expected ECG channels, this may be a file of "
            "annotations only",
        )
    n_stored = (file_size - n_bytes) // (2 * record_size)
    n_promised = _integer(path, main[236:244], "number of data records")
    if n_promised > n_stored:
        raise RecordError(path, f"holds {n_stored} data records, the header promises {n_promised}")
    return EdfHeader(
        path=path,
        patient=_text(main[8:88]),
        recording=_text(main[88:168]),
        plus=_text(main[192:197]),
        n_bytes=n_bytes,
        # A recorder writes -1 while it is recording, and the right number when it ends.
        n_records=n_stored if n_promised < 0 else n_promised,
        duration_s=duration_s,
        record_size=record_size,
        channels=channels,
    )


def _parse_channels(path: Path, table: bytes, n_channels: int) -> tuple[Channel, ...]:
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
        low, high, digital_low, digital_high = (
            _number(path, columns[name][i], f"range of channel {label!r}")
            for name in ("low", "high", "digital_low", "digital_high")
        )
        # Without a digital range a channel cannot be scaled. If it is an ECG, it is left out later.
        scale = 0.0
        if digital_high != digital_low:
            scale = (high - low) / (digital_high - digital_low)
        offset = low - scale * digital_low
        channels.append(Channel(label, _text(columns["unit"][i]), first, n, scale, offset))
        first += n
    return tuple(channels)


def _text(raw: bytes) -> str:
    # EDF is ASCII, but many recorders write the micro sign of uV in Latin-1.
    return raw.decode("latin-1").strip(" \0")


def _integer(path: Path, raw: bytes, what: str) -> int:
    value = _number(path, raw, what)
    if value != int(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected an integer")
    return int(value)


def _number(path: Path, raw: bytes, what: str) -> float:
    try:
        # Some exporters write a decimal comma.
        value = float(_text(raw).replace(",", "."))
    except ValueError:
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a number") from None
    if not math.isfinite(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a finite number")
    return value


# Channels -----------------------------------------------------------------------------------------


def _ecg_channels(header: EdfHeader) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """Return the ECG channels and flags for channels left out.

    A record has one rate, so channels of another rate than most are left out.

    Raises
    ------
    RecordError
        If no ECG channel is a voltage.
    """
    channels = [channel for channel in header.channels if channel.label != _ANNOTATIONS]
    ecg = [channel for channel in channels if _ECG_WORD.search(channel.label)]
    if not ecg:
        ecg = _with_lead_names(channels)
    # A recording of a single channel without a name is taken for an ECG.
    if not ecg and len(channels) == 1 and is_unnamed(channels[0].label):
        ecg = channels
    voltages = [
        channel
        for channel in ecg
        if millivolts_per_unit(channel.unit) is not None and channel.scale and channel.n
    ]
    if not voltages:
        names = ", ".join(f"{channel.label} ({channel.unit})" for channel in channels[:20])
        raise RecordError(
            header.path,
            f"no ECG channel: channels are {names or 'none'}, expected a name such as ECG or II, "
            "in uV, mV or V",
        )
    n = Counter(channel.n for channel in voltages).most_common(1)[0][0]
    kept = tuple(channel for channel in voltages if channel.n == n)
    flags = [f"not_a_voltage:{channel.label}" for channel in ecg if channel not in voltages]
    flags += [f"other_rate:{channel.label}" for channel in voltages if channel.n != n]
    flags += [f"unit_assumed:{channel.label}" for channel in kept if not channel.unit]
    return kept, tuple(flags)


def _with_lead_names(channels: list[Channel]) -> list[Channel]:
    """Return the channels named after a lead, unless all names are those of an EEG as well."""
    leads = [channel for channel in channels if canonical_lead(channel.label)]
    is_ecg = any(not _AMBIGUOUS.fullmatch(channel.label) for channel in leads)
    return leads if is_ecg else []


def _read_channels(
    header: EdfHeader, channels: tuple[Channel, ...], start: int, stop: int
) -> Float32Array:
    """Return samples `start` to `stop` of channels in mV, shape (n_leads, n_samples)."""
    n = channels[0].n
    # Only the data records that the samples lie in are read from disk.
    first, last = start // n, -(-stop // n)
    records = _records(header)[first:last]
    signal = np.empty((len(channels), stop - start), np.float32)
    for row, channel in enumerate(channels):
        digital = records[:, channel.first : channel.first + n].reshape(-1)
        digital = digital[start - first * n : stop - first * n]
        per_unit = millivolts_per_unit(channel.unit) or 1.0
        signal[row] = digital * (channel.scale * per_unit) + channel.offset * per_unit
    return signal


def _records(header: EdfHeader) -> NDArray[np.int16]:
    """Return the data records as they lie on disk, shape (n_records, record_size)."""
    shape = (header.n_records, header.record_size)
    return np.memmap(header.path, "<i2", "r", offset=header.n_bytes, shape=shape)


# A long record is read window by window, and checked once.
@lru_cache(maxsize=8)
def _check_continuous(header: EdfHeader, mtime_ns: int) -> None:
    """Refuse an EDF+D recording with gaps.

    A data record gives its time as the first text of the first annotation channel: ``+12.5``.

    Raises
    ------
    RecordError
        If a data record does not give its time, or does not follow the one before at once.
    """
    annotations = next((item for item in header.channels if item.label == _ANNOTATIONS), None)
    if annotations is None:
        raise RecordError(
            header.path, "is EDF+D without annotations: expected the time of each data record"
        )
    columns = slice(annotations.first, annotations.first + annotations.n)
    texts = np.ascontiguousarray(_records(header)[:, columns])  # (n_records, n)
    starts: list[float] = []
    for text in texts:
        match = re.match(rb"([+-]\d+(?:\.\d*)?)", text.tobytes())
        if match is None:
            raise RecordError(
                header.path, f"is EDF+D and data record {len(starts)} does not give its time"
            )
        starts.append(float(match[1]))
    gaps = np.flatnonzero(np.abs(np.diff(starts) - header.duration_s) > _TIME_TOLERANCE_S)
    if gaps.size:
        raise RecordError(
            header.path,
            f"is EDF+D with {gaps.size} gaps, the first after "
            f"{starts[gaps[0]] - starts[0]:g} s: expected a continuous recording",
        )


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
