"""WFDB records: a header in text (.hea) and samples in .dat or .mat files.

The header and the common storage formats (16, 24, 32, 61, 80, 160, 212, with a byte offset as in the PhysioNet
Challenges' ``16+24``) are read here, since the ``wfdb`` package spends more time in its header parser than the whole
pipeline takes, and refuses headers that the Challenges ship. Everything rarer goes through the ``wfdb`` package.
Format: WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.formats.base import ECGRecord, Extent, RecordError, Signal, millivolts_per_unit, parse_age, parse_sex

DEFAULT_FS = 250.0  # header(5): when the record line gives none
DEFAULT_GAIN = 200.0  # header(5): when a gain is absent or 0, the signal is uncalibrated and 200 is assumed
_MAX_HEADER_BYTES = 4_000_000

# Storage format -> the ADC value that marks a missing sample (signal(5)).
_MISSING = {"16": -(2**15), "61": -(2**15), "160": -(2**15), "212": -(2**11), "80": -(2**7), "24": -(2**23), "32": -(2**31)}
_DTYPES = {"16": "<i2", "61": ">i2", "160": "<u2", "80": "u1", "32": "<i4"}
_OFFSET_BINARY = {"160": 2**15, "80": 2**7}

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SIGNAL_LINE = re.compile(
    rf"""^(?P<file>.+?)\s+(?P<fmt>\d+)(?:x(?P<frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?
    (?:\s+(?P<gain>{_NUMBER}|[-+]?nan|[-+]?inf)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<units>\S*))?
    (?:\s+(?P<adc_res>-?\d+)(?:\s+(?P<adc_zero>-?\d+)(?:\s+(?P<initial>-?\d+)(?:\s+(?P<checksum>-?\d+)
    (?:\s+(?P<block>\d+)(?:\s+(?P<description>.*))?)?)?)?)?)?)?\s*$""",
    re.VERBOSE | re.IGNORECASE,
)
_RECORD_LINE = re.compile(
    rf"^(?P<name>\S+?)(?:/(?P<segments>\d+))?\s+(?P<n_leads>\d+)(?:\s+(?P<fs>{_NUMBER}|nan|inf)(?:/\S+)?(?:\s+(?P<n>\d+)(?:\s.*)?)?)?\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SignalSpec:
    """One signal line of a header."""

    file: str
    fmt: str
    samples_per_frame: int
    byte_offset: int
    gain: float
    gain_assumed: bool
    baseline: int
    units: str
    initial: int | None
    checksum: int | None
    description: str


@dataclass(frozen=True)
class Header:
    """A parsed header; `n_samples` is None when it does not say."""

    path: Path
    n_segments: int
    fs: float
    n_samples: int | None
    signals: tuple[SignalSpec, ...]
    comments: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Read a .hea file.

    Raises
    ------
    RecordError
        If the file is missing, empty or not a WFDB header.
    """
    try:
        with open(path, "rb") as stream:
            raw = stream.read(_MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise RecordError(path, f"cannot be read ({error.strerror})") from None
    if len(raw) > _MAX_HEADER_BYTES:
        raise RecordError(path, f"header is over {_MAX_HEADER_BYTES} bytes: expected a short text file")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return parse_header(text, path)


def parse_header(text: str, path: Path) -> Header:
    """Parse the text of a header; see `read_header`."""
    stripped = [line.strip() for line in re.split(r"\r\n|\r|\n", text.lstrip("\ufeff"))]
    lines = [line for line in stripped if line and not line.startswith("#")]
    comments = tuple(line[1:].strip() for line in stripped if line.startswith("#"))
    if not lines:
        raise RecordError(path, "header is empty: expected a record line 'name n_leads fs n_samples'")
    match = _RECORD_LINE.match(lines[0])
    if match is None:
        raise RecordError(path, f"record line {lines[0][:80]!r} is not 'name n_leads fs n_samples'")
    n_leads, fs = int(match["n_leads"]), float(match["fs"] or DEFAULT_FS)
    if n_leads == 0:
        raise RecordError(path, "header promises zero leads: expected one or more")
    if not (math.isfinite(fs) and 0 < fs <= 1e6):
        raise RecordError(path, f"sampling rate is {match['fs']}: expected Hz above 0 and up to 1e6")
    n_samples = int(match["n"]) if match["n"] and int(match["n"]) else None
    n_segments = int(match["segments"] or 0)
    signals = () if n_segments else _parse_signals(lines[1:], n_leads, path)
    return Header(path, n_segments, fs, n_samples, signals, comments)


def _parse_signals(lines: list[str], n_leads: int, path: Path) -> tuple[SignalSpec, ...]:
    if len(lines) != n_leads:
        raise RecordError(path, f"record line promises {n_leads} leads, {len(lines)} signal lines follow")
    return tuple(_parse_signal(line, path) for line in lines)


def _parse_signal(line: str, path: Path) -> SignalSpec:
    match = _SIGNAL_LINE.match(line)
    if match is None:
        raise RecordError(path, f"signal line {line[:80]!r} is not 'file format gain/units ...'")
    gain = float(match["gain"] or 0)
    if not math.isfinite(gain) or (gain and not 1e-12 < abs(gain) < 1e12):
        raise RecordError(path, f"gain {match['gain']} is implausible: expected ADC units per physical unit")
    adc_zero = int(match["adc_zero"] or 0)
    baseline = int(match["baseline"]) if match["baseline"] else adc_zero
    if abs(baseline) > 2**40:
        raise RecordError(path, f"baseline {baseline} is implausible: expected an ADC value")
    return SignalSpec(
        file=_inside_folder(match["file"], path),
        fmt=match["fmt"],
        samples_per_frame=int(match["frame"] or 1),
        byte_offset=int(match["offset"] or 0),
        gain=gain or DEFAULT_GAIN,
        gain_assumed=not gain,
        baseline=baseline,
        units=match["units"] or "",
        initial=int(match["initial"]) if match["initial"] else None,
        checksum=int(match["checksum"]) if match["checksum"] else None,
        description=(match["description"] or "").strip(),
    )


def _inside_folder(name: str, path: Path) -> str:
    """Refuse a signal file outside the header's own folder, which a hostile header may point to."""
    if "/" in name or "\\" in name or "\0" in name or name in {".", ".."} or re.match(r"^[A-Za-z]:", name):
        raise RecordError(path, f"signal file {name!r} is not a plain file name in the header's folder")
    return name


def read_wfdb(path: Path, start: int = 0, stop: int | None = None) -> ECGRecord:
    """Read the record of the header `path`, or its samples from `start` up to `stop`.

    Raises
    ------
    RecordError
        If the header or a signal file is missing, broken, shorter than promised or in an unknown format.
    """
    header = read_header(path)
    _check_units(header)
    if header.n_segments or not all(_is_simple(spec) for spec in header.signals):
        return _read_through_package(header, start, stop)
    total = _n_samples(header)
    stop = total if stop is None else min(stop, total)
    leads: list[Signal] = []
    flags: list[str] = []
    for group in _groups(header.signals):
        adc = _read_adc(header, group, start, stop)
        if start == 0 and stop == total:
            flags += _integrity_flags(adc, group)
        leads.append(_to_millivolts(adc, group, _MISSING[group[0].fmt]))
    signal = leads[0] if len(leads) == 1 else np.concatenate(leads)
    return _build_record(header, signal, flags)


def wfdb_extent(path: Path) -> Extent | None:
    """Return the length of a record, or None where only reading it tells."""
    header = read_header(path)
    if header.n_samples is not None:
        return Extent(header.n_samples, header.fs)
    simple = not header.n_segments and all(_is_simple(spec) for spec in header.signals)
    return Extent(_n_samples(header), header.fs) if simple else None


def _is_simple(spec: SignalSpec) -> bool:
    return spec.fmt in _MISSING and spec.samples_per_frame == 1


def _groups(signals: tuple[SignalSpec, ...]) -> list[list[SignalSpec]]:
    """Group the signals that are interleaved in one file; the format says that they stand side by side."""
    return [list(group) for _, group in groupby(signals, key=lambda spec: (spec.file, spec.fmt, spec.byte_offset))]


def _check_units(header: Header) -> None:
    if header.signals and all(millivolts_per_unit(spec.units) is None for spec in header.signals):
        units = ", ".join(sorted({spec.units for spec in header.signals}))
        raise RecordError(header.path, f"no lead is a voltage: units are {units}, expected mV, uV or V")


def _n_samples(header: Header) -> int:
    """Return the promised number of samples, or what the first file holds when the header does not promise any."""
    if header.n_samples is not None:
        return header.n_samples
    group = _groups(header.signals)[0]
    path = _signal_path(header, group[0])
    n_bytes = path.stat().st_size - group[0].byte_offset
    return max(0, _values_in(n_bytes, group[0].fmt) // len(group))


def _values_in(n_bytes: int, fmt: str) -> int:
    if fmt == "212":
        return n_bytes * 2 // 3
    return n_bytes // (3 if fmt == "24" else np.dtype(_DTYPES[fmt]).itemsize)


def _signal_path(header: Header, spec: SignalSpec) -> Path:
    """Find the signal file beside the header, in other case too, as file systems disagree about it."""
    path = header.path.with_name(spec.file)
    if path.is_file():
        return path
    wanted = spec.file.lower()
    for other in header.path.parent.iterdir():
        if other.name.lower() == wanted and other.is_file():
            return other
    raise RecordError(header.path, f"signal file {spec.file} is not in the folder")


def _read_adc(header: Header, group: list[SignalSpec], start: int, stop: int) -> NDArray[Any]:
    """Return ADC values, shape (n_samples, n_leads), of the leads that share a file."""
    spec, width = group[0], len(group)
    path = _signal_path(header, spec)
    with open(path, "rb") as stream:
        held = _values_in(stream.seek(0, 2) - spec.byte_offset, spec.fmt) // width
        promised = max(stop, header.n_samples or 0)  # a torn file is refused whatever part of it is asked for
        if held < promised:
            raise RecordError(path, f"holds {max(held, 0)} samples of {width} leads, the header promises {promised}")
        if stop - start <= 0:
            raise RecordError(path, "holds no samples: expected one or more")
        values = _decode(stream, spec, start * width, (stop - start) * width)
    return values.reshape(stop - start, width)


def _decode(stream: Any, spec: SignalSpec, first: int, count: int) -> NDArray[Any]:
    """Decode `count` values from value `first` on."""
    if spec.fmt == "212":
        return _decode_212(stream, spec.byte_offset, first, count)
    if spec.fmt == "24":
        stream.seek(spec.byte_offset + 3 * first)
        parts = np.fromfile(stream, np.uint8, 3 * count).reshape(-1, 3).astype(np.int32)
        return (parts[:, 0] | parts[:, 1] << 8 | (parts[:, 2].astype(np.int8).astype(np.int32) << 16)).astype(np.int32)
    dtype = np.dtype(_DTYPES[spec.fmt])
    stream.seek(spec.byte_offset + dtype.itemsize * first)
    values = np.fromfile(stream, dtype, count)
    if spec.fmt in _OFFSET_BINARY:
        return (values.astype(np.int32) - _OFFSET_BINARY[spec.fmt]).astype(np.int16)
    return values


def _decode_212(stream: Any, offset: int, first: int, count: int) -> NDArray[np.int16]:
    """Decode pairs of 12-bit two's complement values packed in three bytes."""
    pair, skip = divmod(first, 2)
    n_pairs = (skip + count + 1) // 2
    stream.seek(offset + 3 * pair)
    raw = np.fromfile(stream, np.uint8, 3 * n_pairs)
    raw = np.pad(raw, (0, 3 * n_pairs - len(raw))).reshape(-1, 3).astype(np.int16)
    values = np.empty((n_pairs, 2), np.int16)
    values[:, 0] = raw[:, 0] | (raw[:, 1] & 0x0F) << 8
    values[:, 1] = raw[:, 2] | (raw[:, 1] & 0xF0) << 4
    values[values > 2047] -= 4096
    return values.reshape(-1)[skip : skip + count]


def _integrity_flags(adc: NDArray[Any], group: list[SignalSpec]) -> list[str]:
    """Compare the samples with the initial values and checksums of the header.

    A checksum of 0 is what several sources write without computing one, so it accuses nobody.
    """
    sums = adc.sum(axis=0, dtype=np.int64) & 0xFFFF
    flags = []
    for column, spec in enumerate(group):
        if spec.checksum and spec.checksum & 0xFFFF != sums[column]:
            flags.append(f"checksum_mismatch:{spec.description}")
        if spec.checksum and spec.initial is not None and spec.initial != adc[0, column]:
            flags.append(f"initial_value_mismatch:{spec.description}")
    return flags


def _to_millivolts(adc: NDArray[Any], group: list[SignalSpec], missing: int) -> Signal:
    """Return (adc - baseline) / gain in mV, shape (n_leads, n_samples), NaN where a sample is missing."""
    wide = adc.dtype.itemsize > 2 or any(abs(spec.baseline) > 2**23 for spec in group)
    dtype = np.float64 if wide else np.float32  # int16 less a baseline is exact in float32
    baseline = np.array([spec.baseline for spec in group], dtype)[:, None]
    per_mv = np.array([spec.gain / (millivolts_per_unit(spec.units) or 1.0) for spec in group], dtype)[:, None]
    values: NDArray[Any] = np.ascontiguousarray(adc.T, dtype)
    absent = values == missing if values.min() == missing else None
    values -= baseline
    values /= per_mv
    if absent is not None:
        values[absent] = np.nan
    return values.astype(np.float32, copy=False)


def _build_record(header: Header, signal: Signal, flags: list[str]) -> ECGRecord:
    """Attach what the header says of the patient, and leave out channels that are no voltages."""
    keep = [i for i, spec in enumerate(header.signals) if millivolts_per_unit(spec.units) is not None]
    if len(keep) < len(header.signals):
        left_out = [spec for spec in header.signals if millivolts_per_unit(spec.units) is None]
        flags = [*flags, *(f"not_a_voltage:{spec.description}" for spec in left_out)]
        signal = signal[keep]
    flags = [*flags, *(f"gain_assumed:{header.signals[i].description}" for i in keep if header.signals[i].gain_assumed)]
    facts = parse_comments(header.comments)
    return ECGRecord(
        record_id=header.path.stem,
        signal=signal,
        fs=header.fs,
        leads=tuple(header.signals[i].description for i in keep),
        codes=tuple(code for code in re.split(r"[,;\s]+", facts.get("dx", "")) if code),
        age=parse_age(facts.get("age")),
        sex=parse_sex(facts.get("sex")),
        flags=tuple(flags),
    )


def parse_comments(comments: tuple[str, ...]) -> dict[str, str]:
    """Return the ``key: value`` facts of a header's comments with lower-case keys.

    The MIT-BIH style ``69 M 1085 1629 x1`` and the ``<age>: 69 <sex>: M`` style are understood for age and sex.
    """
    facts: dict[str, str] = {}
    for comment in comments:
        if match := re.match(r"^(\d+|-1)\s+([MF?])\b", comment):
            facts.setdefault("age", match[1])
            facts.setdefault("sex", match[2])
        elif tagged := re.findall(r"<(\w+)>:?\s*([^<]*)", comment):
            facts.update({key.lower(): value.strip() for key, value in tagged})
        elif ":" in comment:
            key, value = comment.split(":", 1)
            facts.setdefault(key.strip().lower(), value.strip())
    return facts


def _read_through_package(header: Header, start: int, stop: int | None) -> ECGRecord:
    """Read multi-segment records, several samples per frame and the rarer storage formats with the wfdb package."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package's own, of pandas and of odd headers
            import wfdb

            record = wfdb.rdrecord(str(header.path.with_suffix("")), sampfrom=start, sampto=stop)
    except Exception as error:  # noqa: BLE001  the package raises whatever its parsers meet
        raise RecordError(header.path, f"not readable as WFDB ({type(error).__name__}: {error})") from None
    if record.p_signal is None or not record.p_signal.size:
        raise RecordError(header.path, "holds no samples: expected one or more")
    factors = [millivolts_per_unit(unit) for unit in record.units]
    keep = [i for i, factor in enumerate(factors) if factor is not None]
    if not keep:
        raise RecordError(header.path, f"no lead is a voltage: units are {', '.join(record.units)}, expected mV, uV or V")
    scale = np.array([factors[i] for i in keep], np.float64)[:, None]
    facts = parse_comments(tuple(record.comments or ()))
    return ECGRecord(
        record_id=header.path.stem,
        signal=(record.p_signal.T[keep] * scale).astype(np.float32),
        fs=float(record.fs),
        leads=tuple(str(record.sig_name[i] or "") for i in keep),
        codes=tuple(code for code in re.split(r"[,;\s]+", facts.get("dx", "")) if code),
        age=parse_age(facts.get("age")),
        sex=parse_sex(facts.get("sex")),
        flags=tuple(f"not_a_voltage:{name}" for i, name in enumerate(record.sig_name) if i not in keep),
    )
