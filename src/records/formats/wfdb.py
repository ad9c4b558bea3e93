"""WFDB records: samples in .dat or .mat files beside a header, in one piece or in segments.

The common storage formats (16, 24, 32, 61, 80, 160, 212, with a byte offset as in the PhysioNet
Challenges' ``16+24``) are read here. Everything rarer goes through the ``wfdb`` package. Format:
WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.mat import load_counts
from src.records.formats.wfdb_header import Header, SignalSpec, read_header
from src.records.formats.wfdb_package import check_amount, decode_through_package
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError
from src.utils import Float32Array

# Storage format -> the ADC value that marks a missing sample (signal(5)).
_MISSING = {
    "16": -(2**15),
    "61": -(2**15),
    "160": -(2**15),
    "212": -(2**11),
    "80": -(2**7),
    "24": -(2**23),
    "32": -(2**31),
}
_MISSING_RARE = {
    **_MISSING,
    "508": -(2**7),
    "516": -(2**15),
    "524": -(2**23),
    "310": -(2**9),
    "311": -(2**9),
}
_DTYPES = {"16": "<i2", "61": ">i2", "160": "<u2", "80": "u1", "32": "<i4"}
_OFFSET_BINARY = {"160": 2**15, "80": 2**7}
_MATLAB = b"MATLAB "  # how MAT files of versions 5 and 7.3 begin, and those of version 4 do not


def read_wfdb(path: Path, start: int = 0, stop: int | None = None) -> ECGRecord:
    """Read the record of the header `path`, or its samples from `start` up to `stop`.

    Raises
    ------
    RecordError
        If the header or a signal file is missing, broken, shorter than promised or in an unknown
        format.
    """
    header = read_header(path)
    if header.segments:
        return _read_segments(header, start, stop)
    _check_units(header)
    total = _n_samples(header)
    stop = total if stop is None else min(stop, total)
    if stop <= start:
        raise RecordError(path, "holds no samples: expected one or more")
    whole = start == 0 and stop == total
    leads: list[Float32Array] = []
    flags: list[str] = []
    if all(_is_simple(spec) for spec in header.signals):
        for group in _groups(header):
            adc = _read_adc(header, group, start, stop)
            flags += _integrity_flags(adc, group) if whole else []
            leads.append(_to_millivolts(adc, group, _MISSING[group[0].fmt]))
    else:
        for spec, counts in zip(
            header.signals, decode_through_package(header, start, stop), strict=True
        ):
            flags += _integrity_flags(counts[None], [spec]) if whole else []
            leads.append(
                _to_millivolts(
                    _frame_means(counts, spec)[None], [spec], _MISSING_RARE.get(spec.fmt)
                )
            )
    signal = leads[0] if len(leads) == 1 else np.concatenate(leads)
    return _build_record(header, signal, flags)


def _limit(header: Header, n_values: int) -> None:
    if n_values > MAX_VALUES:
        raise RecordError(
            header.path,
            f"is asked for {n_values} values at once, the limit is {MAX_VALUES}: read it "
            "in windows (window_s)",
        )


def wfdb_extent(path: Path) -> Extent:
    """Return the length of a record."""
    header = read_header(path)
    return Extent(
        sum(segment.n_samples for segment in header.segments) or _n_samples(header), header.fs
    )


# Segments -----------------------------------------------------------------------------------------


def _read_segments(header: Header, start: int, stop: int | None) -> ECGRecord:
    """Put samples `start` to `stop` together from the segments that they lie in; gaps and leads not
    in a segment are NaN.
    """
    total = sum(segment.n_samples for segment in header.segments)
    if header.n_samples not in (None, total):
        raise RecordError(
            header.path,
            f"segments have {total} samples, the record line promises {header.n_samples}",
        )
    stop = total if stop is None else min(stop, total)
    if stop <= start:
        raise RecordError(header.path, "holds no samples: expected one or more")
    leads = _segment_leads(header)
    _limit(header, (stop - start) * len(leads))
    check_amount(header, (stop - start) * len(leads), {segment.name for segment in header.segments})
    signal = np.full((len(leads), stop - start), np.nan, np.float32)
    flags: dict[str, None] = {}
    first = 0
    for segment in header.segments:
        begin, end = max(first, start), min(first + segment.n_samples, stop)
        if segment.name == "~" or begin >= end:
            pass
        elif _lacks_voltage(
            held := _segment_header(header, segment.name)
        ):  # as while the ECG was off
            flags |= dict.fromkeys(_other_signals(held))
        else:
            part = _read_segment(
                header, segment.name, segment.n_samples, begin - first, end - first
            )
            for row, name in enumerate(part.leads):
                if name not in leads:
                    raise RecordError(
                        header.path,
                        f"segment {segment.name} has lead {name!r}, the record has "
                        f"{', '.join(leads)}",
                    )
                signal[leads.index(name), begin - start : end - start] = part.signal[row]
            flags |= dict.fromkeys(part.flags)
        first += segment.n_samples
    return _describe(header, signal, leads, tuple(flags))


def _segment_leads(header: Header) -> tuple[str, ...]:
    """Return the voltages of the layout segment, which has no samples, or else of the first segment
    that is no gap.
    """
    names = [segment.name for segment in header.segments if segment.name != "~"]
    if not names:
        raise RecordError(header.path, "has no segment but gaps: expected samples")
    signals = _segment_header(header, names[0]).signals
    leads = tuple(
        spec.description for spec in signals if millivolts_per_unit(spec.units) is not None
    )
    if not leads or len(set(leads)) != len(leads):
        raise RecordError(
            header.path,
            f"segment {names[0]} has leads {', '.join(leads) or 'that are no voltages'}: "
            "expected voltages of different names",
        )
    return leads


def _segment_header(header: Header, name: str) -> Header:
    path = Path(sibling_file(header, f"{name}.hea", "segment"))
    with _errors_of_segment(header, name):
        found = read_header(path)
    if found.segments:
        raise RecordError(
            header.path, f"segment {name} is made of segments itself: expected samples"
        )
    return found


def _read_segment(header: Header, name: str, n_samples: int, start: int, stop: int) -> ECGRecord:
    """Read a part of a segment, which must have the rate and the length that the record says."""
    found = _segment_header(header, name)
    with _errors_of_segment(header, name):
        held = _n_samples(found)
    if found.fs != header.fs or held != n_samples:
        raise RecordError(
            header.path,
            f"segment {name} has {held} samples at {found.fs:g} Hz, the record says "
            f"{n_samples} at {header.fs:g} Hz",
        )
    with _errors_of_segment(header, name):
        return read_wfdb(found.path, start, stop)


@contextmanager
def _errors_of_segment(header: Header, name: str) -> Iterator[None]:
    """Have what is wrong with a segment's own files name the record that was asked for, and the
    segment.
    """
    try:
        yield
    except RecordError as error:
        raise RecordError(header.path, f"segment {name}: {error.message}") from None


# One piece ----------------------------------------------------------------------------------------


def _is_simple(spec: SignalSpec) -> bool:
    return spec.fmt in _MISSING and spec.samples_per_frame == 1 and not spec.skew


def _frame_means(counts: NDArray[Any], spec: SignalSpec) -> NDArray[Any]:
    """Return the mean of the samples of each frame, cut to a whole ADC value as the WFDB library
    does; one missing makes it missing.
    """
    if spec.samples_per_frame == 1:
        return counts
    frames = counts.reshape(-1, spec.samples_per_frame)
    means = np.trunc(frames.mean(axis=1)).astype(counts.dtype)
    marker = _MISSING_RARE.get(spec.fmt)
    return means if marker is None else np.where((frames == marker).any(axis=1), marker, means)


def _groups(header: Header) -> list[list[SignalSpec]]:
    """Group the signals that are interleaved in one file; as in the WFDB library, the first says
    where the samples begin.

    Raises
    ------
    RecordError
        If those of a file do not stand side by side, which the format demands, or are of several
        formats.
    """
    groups = [list(group) for _, group in groupby(header.signals, key=lambda spec: spec.file)]
    if len({group[0].file for group in groups}) < len(groups) or any(
        len({spec.fmt for spec in group}) > 1 for group in groups
    ):
        raise RecordError(
            header.path,
            "lists the signals of a file apart or in several formats: expected them side "
            "by side in one",
        )
    return groups


def _lacks_voltage(header: Header) -> bool:
    return bool(header.signals) and all(
        millivolts_per_unit(spec.units) is None for spec in header.signals
    )


def _other_signals(header: Header) -> list[str]:
    """Return a flag for each signal that is no voltage."""
    return [
        f"not_a_voltage:{spec.description}"
        for spec in header.signals
        if millivolts_per_unit(spec.units) is None
    ]


def _check_units(header: Header) -> None:
    if _lacks_voltage(header):
        units = ", ".join(sorted({spec.units for spec in header.signals}))
        raise RecordError(
            header.path, f"no lead is a voltage: units are {units}, expected mV, uV or V"
        )


def _n_samples(header: Header) -> int:
    """Return the promised number of samples, or what the first file holds when the header does not
    promise any.
    """
    if header.n_samples is not None:
        return header.n_samples
    group = _groups(header)[0]
    path = sibling_file(header, group[0].file, "signal file")
    if group[0].fmt not in _MISSING:
        raise RecordError(
            header.path,
            f"does not say its number of samples, which storage format {group[0].fmt} needs",
        )
    n_bytes = os.stat(path).st_size - group[0].byte_offset
    return max(
        0, _values_in(n_bytes, group[0].fmt) // sum(spec.samples_per_frame for spec in group)
    )


def _values_in(n_bytes: int, fmt: str) -> int:
    if fmt == "212":
        return n_bytes * 2 // 3
    return n_bytes // (3 if fmt == "24" else np.dtype(_DTYPES[fmt]).itemsize)


def sibling_file(header: Header, name: str, what: str) -> str:
    """Find a file beside the header, in other case too, as file systems disagree about it.

    Raises
    ------
    RecordError
        If it is not there, or is a link to another folder while the header is none: a header from
        elsewhere could otherwise have any file of this machine read.
    """
    # a Path takes as long to make as the file to find
    folder = os.path.dirname(header.path)  # noqa: PTH120
    path = os.path.join(folder, name)
    if _is_regular(path):
        return path
    if not os.path.isfile(path):
        listed = folder or os.curdir
        path = os.path.join(
            folder, _names(listed, os.stat(listed).st_mtime_ns).get(name.lower(), name)
        )
    if not os.path.isfile(path):
        raise RecordError(header.path, f"{what} {name} is not in the folder")
    if (
        Path(path).is_symlink()
        and not header.path.is_symlink()
        and Path(path).resolve().parent != Path(folder).resolve()
    ):
        raise RecordError(
            header.path,
            f"{what} {name} is a link to another folder: link the header too, or copy the file",
        )
    return path


def _is_regular(path: str) -> bool:
    """Tell whether there is a file of this name that is no link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=4)
def _names(folder: str, mtime_ns: int) -> dict[str, str]:
    """Return lower-case name -> name of what is in a folder, kept because many headers may miss
    their files.
    """
    return {name.lower(): name for name in os.listdir(folder)}


def _read_adc(header: Header, group: list[SignalSpec], start: int, stop: int) -> NDArray[Any]:
    """Return ADC values, shape (n_leads, n_samples), of the leads that share a file."""
    spec, width = group[0], len(group)
    path = sibling_file(header, spec.file, "signal file")
    with open(path, "rb", buffering=0) as stream:
        if stream.read(len(_MATLAB)) == _MATLAB:
            return np.ascontiguousarray(_read_saved_again(path, header, width)[start:stop].T)
        held = _values_in(stream.seek(0, 2) - spec.byte_offset, spec.fmt) // width
        promised = max(
            stop, header.n_samples or 0
        )  # a torn file is refused whatever part of it is asked for
        if held < promised:
            raise RecordError(
                path,
                f"holds {max(held, 0)} samples of {width} leads, the header promises {promised}",
            )
        _limit(header, (stop - start) * len(header.signals))
        values = _decode(stream, spec, start * width, (stop - start) * width)
    return np.ascontiguousarray(
        values.reshape(stop - start, width).T
    )  # before it is made wider, as fewer bytes move


def _read_saved_again(path: str, header: Header, width: int) -> NDArray[Any]:
    """Return the ADC values, shape (n_samples, n_leads), of a MAT file that was saved anew in
    version 5 or 7.3.

    Headers of the Challenges point behind the 24 bytes that begin a MAT file of version 4; in one
    of another version, that is what SciPy writes by default, no sample stands there.
    """
    counts = load_counts(Path(path))
    if counts.shape[1] != width or len(counts) < (header.n_samples or 0):
        raise RecordError(
            path,
            f"holds {counts.shape[0]} samples of {counts.shape[1]} leads, the header "
            f"promises {header.n_samples} of {width}",
        )
    return counts


def _decode(stream: FileIO, spec: SignalSpec, first: int, count: int) -> NDArray[Any]:
    """Decode `count` values from value `first` on."""
    if spec.fmt == "212":
        return _decode_212(stream, spec.byte_offset, first, count)
    if spec.fmt == "24":
        parts = (
            _read_values(stream, spec.byte_offset + 3 * first, np.dtype(np.uint8), 3 * count)
            .reshape(-1, 3)
            .astype(np.int32)
        )
        return (
            parts[:, 0] | parts[:, 1] << 8 | (parts[:, 2].astype(np.int8).astype(np.int32) << 16)
        ).astype(np.int32)
    dtype = np.dtype(_DTYPES[spec.fmt])
    values = _read_values(stream, spec.byte_offset + dtype.itemsize * first, dtype, count)
    if spec.fmt in _OFFSET_BINARY:
        return (values.astype(np.int32) - _OFFSET_BINARY[spec.fmt]).astype(np.int16)
    return values


def _read_values(stream: FileIO, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Read `count` values, or those up to the end of the file; this takes half the time of
    ``np.fromfile``.
    """
    values = np.empty(count, dtype)
    left = values.view(np.uint8).data
    stream.seek(offset)
    while n_bytes := stream.readinto(left):
        left = left[n_bytes:]
    return values[: (values.nbytes - len(left)) // dtype.itemsize]


def _decode_212(stream: FileIO, offset: int, first: int, count: int) -> NDArray[np.int16]:
    """Decode pairs of 12-bit two's complement values packed in three bytes."""
    pair, skip = divmod(first, 2)
    n_pairs = (skip + count + 1) // 2
    raw = _read_values(stream, offset + 3 * pair, np.dtype(np.uint8), 3 * n_pairs)
    raw = np.pad(raw, (0, 3 * n_pairs - len(raw))).reshape(-1, 3).astype(np.int16)
    values = np.empty((n_pairs, 2), np.int16)
    values[:, 0] = raw[:, 0] | (raw[:, 1] & 0x0F) << 8
    values[:, 1] = raw[:, 2] | (raw[:, 1] & 0xF0) << 4
    values[values > 2047] -= 4096
    return values.reshape(-1)[skip : skip + count]


def _integrity_flags(adc: NDArray[Any], group: list[SignalSpec]) -> list[str]:
    """Compare the samples (n_leads, n_samples) with the initial values and checksums of the header.

    A checksum of 0 is what several sources write without computing one, so it accuses nobody. Both
    are of the samples as they are stored, so those that were shifted are not compared.
    """
    sums = _checksums(adc).tolist()
    first = adc[:, 0].tolist()
    flags = []
    for row, spec in enumerate(group):
        if spec.skew:
            continue
        if spec.checksum and spec.checksum & 0xFFFF != sums[row]:
            flags.append(f"checksum_mismatch:{spec.description}")
        if spec.checksum != 0 and spec.initial is not None and spec.initial != first[row]:
            flags.append(f"initial_value_mismatch:{spec.description}")
    return flags


def _checksums(adc: NDArray[Any]) -> NDArray[Any]:
    """Return the 16 low bits of the sum of each row; sums of 16 bits may run over, which makes them
    four times as fast.
    """
    if adc.dtype == np.int16:
        return np.asarray(adc.view(np.uint16).sum(axis=1, dtype=np.uint16))
    return np.asarray(adc.sum(axis=1, dtype=np.int64) & 0xFFFF)


def _to_millivolts(adc: NDArray[Any], group: list[SignalSpec], missing: int | None) -> Float32Array:
    """Return (adc - baseline) / gain in mV, shape (n_leads, n_samples), NaN where a sample is
    missing.
    """
    per_mv, baselines = _scale(
        tuple([(spec.gain, millivolts_per_unit(spec.units), spec.baseline) for spec in group]),
        adc.dtype.itemsize > 2,
    )
    absent = adc == missing if missing is not None and adc.min() == missing else None
    values: NDArray[Any] = adc.astype(per_mv.dtype)
    if baselines is not None:
        values -= baselines
    values /= per_mv
    if absent is not None:
        values[absent] = np.nan
    return values.astype(np.float32, copy=False)


@lru_cache(maxsize=64)  # records of a collection have gains and baselines in common
def _scale(
    signals: tuple[tuple[float, float | None, int], ...], wide: bool
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return ADC values per mV and, unless all are 0, baselines, shape (n_leads, 1), of signals of
    a gain, mV per unit and baseline.

    They are in double precision where the ADC values are `wide` or a baseline is, else in single
    precision, in which int16 less a baseline is exact.
    """
    gains, mv_per_unit, baselines = zip(*signals, strict=True)
    dtype = np.float64 if wide or max(map(abs, baselines)) > 2**23 else np.float32
    per_mv = [gain / (mv or 1.0) for gain, mv in zip(gains, mv_per_unit, strict=True)]
    return np.array(per_mv, dtype)[:, None], np.array(baselines, dtype)[:, None] if any(
        baselines
    ) else None


def _build_record(header: Header, signal: Float32Array, flags: list[str]) -> ECGRecord:
    """Attach what the header says of the patient, and leave out channels that are no voltages."""
    keep = [
        i for i, spec in enumerate(header.signals) if millivolts_per_unit(spec.units) is not None
    ]
    if len(keep) < len(header.signals):
        flags = [*flags, *_other_signals(header)]
        signal = signal[keep]
    flags = [
        *flags,
        *(
            f"gain_assumed:{header.signals[i].description}"
            for i in keep
            if header.signals[i].gain_assumed
        ),
    ]
    return _describe(
        header, signal, tuple(header.signals[i].description for i in keep), tuple(flags)
    )


def _describe(
    header: Header, signal: Float32Array, leads: tuple[str, ...], flags: tuple[str, ...]
) -> ECGRecord:
    """Return the record with what the header's comments say of the patient."""
    facts = header.facts
    return ECGRecord(
        record_id=header.path.stem,
        signal=signal,
        fs=header.fs,
        leads=leads,
        codes=tuple(filter(None, re.split(r"[,;\s]+", facts["dx"]))) if "dx" in facts else (),
        age=parse_age(facts.get("age")),
        sex=parse_sex(facts.get("sex")),
        flags=flags,
    )
