"""EDF and EDF+: the ECG channels of a recording, as a polysomnograph or a Holter recorder writes
them.

Format: Kemp et al., Electroencephalogr Clin Neurophysiol 1992;82:391-393 (EDF) and Kemp and Olivan,
Clin Neurophysiol 2003;114:1755-1761 (EDF+). Read here, since a window of a long recording needs
only its own data records.
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
_ANNOTATIONS = "EDF Annotations"
# Width of each field of a channel, in the order in which they follow for all channels.
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
_MARKED = re.compile(r"ECG|EKG", re.IGNORECASE)
_AMBIGUOUS = re.compile(
    r"C?\d", re.IGNORECASE
)  # C3 is a lead on the chest and an electrode on the scalp


@dataclass(frozen=True)
class Channel:
    """One channel of a header: where its samples lie in a data record and what turns them into
    `unit`.
    """

    label: str
    unit: str
    first: int
    n: int
    scale: float
    offset: float


@dataclass(frozen=True)
class EdfHeader:
    """A parsed header; `duration_s` and `record_size` (in samples of all channels) are those of a
    data record.
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
        If the header is broken, the file is shorter than it promises, has gaps in time, or holds no
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
    code, sex, age = _patient(header)
    return ECGRecord(
        record_id=path.stem,
        signal=_read_channels(header, channels, request.start, stop),
        fs=n / header.duration_s,
        leads=tuple(channel.label for channel in channels),
        age=age,
        sex=sex,
        patient_id=code,
        flags=flags,
    )


def edf_extent(path: Path) -> Extent:
    """Return the length of the ECG channels."""
    header = read_edf_header(path)
    n = _ecg_channels(header)[0][0].n
    return Extent(header.n_records * n, n / header.duration_s)


# Header -------------------------------------------------------------------------------------------


def read_edf_header(path: Path) -> EdfHeader:
    """Read the header and check it against the size of the file.

    Raises
    ------
    RecordError
        If it is no EDF header or promises more than the file holds.
    """
    with open(path, "rb") as stream:
        main = stream.read(_MAIN_BYTES)
        if len(main) < _MAIN_BYTES or main[:8].strip() != b"0":
            raise RecordError(
                path, f"starts with {main[:8]!r}: expected an EDF header of version 0"
            )
        n_channels = _integer(path, main[252:256], "number of channels")
        if not 1 <= n_channels <= 9999:
            raise RecordError(path, f"promises {n_channels} channels: expected 1 to 9999")
        table = stream.read(_CHANNEL_BYTES * n_channels)
        size = stream.seek(0, 2)
    if len(table) < _CHANNEL_BYTES * n_channels:
        raise RecordError(path, f"ends within the header of its {n_channels} channels")
    n_bytes, duration_s = (
        _integer(path, main[184:192], "header size"),
        _number(path, main[244:252], "duration of a data record"),
    )
    if n_bytes != _MAIN_BYTES + len(table):
        raise RecordError(
            path,
            f"header size is {n_bytes}: expected {_MAIN_BYTES + len(table)} for "
            f"{n_channels} channels",
        )
    channels = _channels(path, table, n_channels)
    record_size = sum(channel.n for channel in channels)
    if not (record_size and duration_s > 0):
        raise RecordError(
            path,
            "data records hold no samples: expected ECG channels, this may be a file of "
            "annotations only",
        )
    held = (size - n_bytes) // (2 * record_size)
    promised = _integer(path, main[236:244], "number of data records")
    if promised > held:
        raise RecordError(path, f"holds {held} data records, the header promises {promised}")
    return EdfHeader(
        path=path,
        patient=_text(main[8:88]),
        recording=_text(main[88:168]),
        plus=_text(main[192:197]),
        n_bytes=n_bytes,
        n_records=held if promised < 0 else promised,  # -1 while the recorder was still writing
        duration_s=duration_s,
        record_size=record_size,
        channels=channels,
    )


def _channels(path: Path, table: bytes, n_channels: int) -> tuple[Channel, ...]:
    columns: dict[str, list[bytes]] = {}
    at = 0
    for name, width in _FIELDS.items():
        columns[name] = [table[at + i * width : at + (i + 1) * width] for i in range(n_channels)]
        at += width * n_channels
    channels = []
    first = 0
    for i in range(n_channels):
        n = _integer(path, columns["n"][i], "samples of a channel")
        if not 0 <= n <= 10_000_000:
            raise RecordError(path, f"a data record promises {n} samples of channel {i + 1}")
        label = _text(columns["label"][i])
        low, high, digital_low, digital_high = (
            _number(path, columns[name][i], f"range of channel {label!r}")
            for name in ("low", "high", "digital_low", "digital_high")
        )
        scale = (high - low) / (digital_high - digital_low) if digital_high != digital_low else 0.0
        channels.append(
            Channel(label, _text(columns["unit"][i]), first, n, scale, low - scale * digital_low)
        )
        first += n
    return tuple(channels)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip(" \0")


def _integer(path: Path, raw: bytes, what: str) -> int:
    value = _number(path, raw, what)
    if value != int(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected an integer")
    return int(value)


def _number(path: Path, raw: bytes, what: str) -> float:
    try:
        value = float(_text(raw).replace(",", "."))  # some exporters write a decimal comma
    except ValueError:
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a number") from None
    if not math.isfinite(value):
        raise RecordError(path, f"{what} is {_text(raw)!r}: expected a finite number")
    return value


# Channels -----------------------------------------------------------------------------------------


def _ecg_channels(header: EdfHeader) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """Return the ECG channels of the rate that most of them have, and flags for those left out."""
    named = [channel for channel in header.channels if channel.label != _ANNOTATIONS]
    chosen = [channel for channel in named if _MARKED.search(channel.label)] or _by_lead_name(named)
    if not chosen and len(named) == 1 and is_unnamed(named[0].label):
        chosen = named
    voltages = [
        channel
        for channel in chosen
        if millivolts_per_unit(channel.unit) is not None and channel.scale and channel.n
    ]
    if not voltages:
        there = ", ".join(f"{channel.label} ({channel.unit})" for channel in named[:20]) or "none"
        raise RecordError(
            header.path,
            f"no ECG channel: channels are {there}, expected a name such as ECG or II, in "
            "uV, mV or V",
        )
    n = Counter(channel.n for channel in voltages).most_common(1)[0][0]
    flags = [f"not_a_voltage:{channel.label}" for channel in chosen if channel not in voltages]
    flags += [f"other_rate:{channel.label}" for channel in voltages if channel.n != n]
    kept = tuple(channel for channel in voltages if channel.n == n)
    flags += [f"unit_assumed:{channel.label}" for channel in kept if not channel.unit]
    return kept, tuple(flags)


def _by_lead_name(channels: list[Channel]) -> list[Channel]:
    """Return the channels called by a lead's name; names that an EEG has too count only beside
    others.
    """
    leads = [channel for channel in channels if canonical_lead(channel.label)]
    return leads if any(not _AMBIGUOUS.fullmatch(channel.label) for channel in leads) else []


def _read_channels(
    header: EdfHeader, channels: tuple[Channel, ...], start: int, stop: int
) -> Float32Array:
    """Return samples `start` to `stop` of the channels in mV, shape (n_leads, n_samples), from the
    data records they touch.
    """
    n = channels[0].n
    first, last = start // n, -(-stop // n)
    records = _records(header)[first:last]
    signal = np.empty((len(channels), stop - start), np.float32)
    for row, channel in enumerate(channels):
        digital = records[:, channel.first : channel.first + n].reshape(-1)[
            start - first * n : stop - first * n
        ]
        per_unit = millivolts_per_unit(channel.unit) or 1.0
        signal[row] = digital * (channel.scale * per_unit) + channel.offset * per_unit
    return signal


def _records(header: EdfHeader) -> NDArray[np.int16]:
    """Return the data records as they lie on disk, shape (n_records, record_size)."""
    shape = (header.n_records, header.record_size)
    return np.memmap(header.path, "<i2", "r", offset=header.n_bytes, shape=shape)


@lru_cache(maxsize=8)  # a long record is read window by window
def _check_continuous(header: EdfHeader, mtime_ns: int) -> None:
    """Refuse a recording with gaps: each data record starts with its time in the first annotation
    channel.

    Raises
    ------
    RecordError
        If a data record does not follow the one before at once.
    """
    times = next((channel for channel in header.channels if channel.label == _ANNOTATIONS), None)
    if times is None:
        raise RecordError(
            header.path, "is EDF+D without annotations: expected the time of each data record"
        )
    columns = np.ascontiguousarray(_records(header)[:, times.first : times.first + times.n])
    starts: list[float] = []
    for row in columns:
        match = re.match(rb"([+-]\d+(?:\.\d*)?)", row.tobytes())
        if match is None:
            raise RecordError(
                header.path, f"is EDF+D and data record {len(starts)} does not say its time"
            )
        starts.append(float(match[1]))
    late = np.flatnonzero(np.abs(np.diff(starts) - header.duration_s) > 1e-3)
    if late.size:
        raise RecordError(
            header.path,
            f"is EDF+D with {late.size} gaps, the first after "
            f"{starts[late[0]] - starts[0]:g} s: expected a continuous recording",
        )


def _patient(header: EdfHeader) -> tuple[str | None, str | None, float | None]:
    """Return code, sex and age in years from the fields that EDF+ defines; plain EDF has free text
    there.
    """
    parts = header.patient.split()
    if not header.plus.startswith("EDF+") or len(parts) < 3:
        return None, None, None
    code, sex, born = parts[:3]
    started = re.match(r"Startdate\s+(\S+)", header.recording)
    age = _years(born, started[1]) if started else None
    return (None if code == "X" else code), parse_sex(sex), age


def _years(born: str, at: str) -> float | None:
    try:
        return parse_age(
            years_between(datetime.strptime(born, "%d-%b-%Y"), datetime.strptime(at, "%d-%b-%Y"))
        )
    except ValueError:
        return None
