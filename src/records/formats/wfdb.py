"""WFDB records: a header beside samples in .dat or .mat files, in one piece or in segments.

The common storage formats (16, 24, 32, 61, 80, 160 and 212, with a byte offset as in the PhysioNet
Challenges' ``16+24``) are decoded in `wfdb_samples`, all others by the ``wfdb`` package.
Format: WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.mat import load_counts
from src.records.formats.wfdb_header import GAP, Header, Segment, SignalSpec, read_header
from src.records.formats.wfdb_package import check_amount, decode_through_package
from src.records.formats.wfdb_samples import (
    MISSING,
    MISSING_IN_PACKAGE,
    count_values,
    decode_values,
    integrity_flags,
    to_millivolts,
)
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError
from src.utils import Float32Array

# MAT files of versions 5 and 7.3 begin with this word, those of version 4 do not.
_MATLAB = b"MATLAB "


def read_wfdb(path: Path, start: int = 0, stop: int | None = None) -> ECGRecord:
    """Read a WFDB record, or samples `start` to `stop` of it.

    Parameters
    ----------
    path
        The header (.hea).
    start
        First sample to read.
    stop
        Sample after the last one to read; None reads to the end.

    Raises
    ------
    RecordError
        If the header or a signal file is missing, damaged, shorter than promised or in an unknown
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
    # Checksums and initial values are those of the whole record.
    is_whole = start == 0 and stop == total
    if all(_is_simple(spec) for spec in header.signals):
        signal, flags = _read_simple(header, start, stop, is_whole)
    else:
        signal, flags = _read_by_package(header, start, stop, is_whole)
    return _build_record(header, signal, flags)


def _read_simple(
    header: Header, start: int, stop: int, is_whole: bool
) -> tuple[Float32Array, list[str]]:
    """Return the signal in mV, shape (n_leads, n_samples), and integrity flags."""
    parts: list[Float32Array] = []
    flags: list[str] = []
    for group in _file_groups(header):
        adc = _read_adc(header, group, start, stop)
        if is_whole:
            flags += integrity_flags(adc, group)
        parts.append(to_millivolts(adc, group, MISSING[group[0].fmt]))
    # Nearly all records have one signal file, and need no copy.
    signal = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return signal, flags


def _read_by_package(
    header: Header, start: int, stop: int, is_whole: bool
) -> tuple[Float32Array, list[str]]:
    """Return the same as `_read_simple`, decoded by the ``wfdb`` package."""
    parts: list[Float32Array] = []
    flags: list[str] = []
    decoded = decode_through_package(header, start, stop)
    for spec, counts in zip(header.signals, decoded, strict=True):
        if is_whole:
            flags += integrity_flags(counts[None], [spec])
        adc = _frame_means(counts, spec)[None]  # (1, n_samples)
        parts.append(to_millivolts(adc, [spec], MISSING_IN_PACKAGE.get(spec.fmt)))
    return np.concatenate(parts), flags


def _check_limit(header: Header, n_values: int) -> None:
    if n_values > MAX_VALUES:
        raise RecordError(
            header.path,
            f"is asked for {n_values} values at once, the limit is {MAX_VALUES}: read it in "
            "windows (window_s)",
        )


def wfdb_extent(path: Path) -> Extent:
    """Return the length and rate of a record, from its header alone where it gives them."""
    header = read_header(path)
    n_samples = sum(segment.n_samples for segment in header.segments) or _n_samples(header)
    return Extent(n_samples, header.fs)


# Segments -----------------------------------------------------------------------------------------


def _read_segments(header: Header, start: int, stop: int | None) -> ECGRecord:
    """Join samples `start` to `stop` from the segments that hold them.

    Gaps, and leads that a segment does not have, are NaN.
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
    n_values = (stop - start) * len(leads)
    _check_limit(header, n_values)
    check_amount(header, n_values, {segment.name for segment in header.segments})
    signal = np.full((len(leads), stop - start), np.nan, np.float32)
    # Segments repeat their flags: a dict keeps each once, in order.
    flags: dict[str, None] = {}
    first = 0
    for segment in header.segments:
        begin = max(first, start)
        end = min(first + segment.n_samples, stop)
        if segment.name != GAP and begin < end:
            target = signal[:, begin - start : end - start]
            found = _fill_from_segment(header, segment, leads, begin - first, target)
            flags |= dict.fromkeys(found)
        first += segment.n_samples
    return _with_patient_facts(header, signal, leads, tuple(flags))


def _segment_leads(header: Header) -> tuple[str, ...]:
    """Return the names of a record's voltages.

    They are those of the layout segment, which has no samples, or of the first segment that is not
    a gap.
    """
    names = [segment.name for segment in header.segments if segment.name != GAP]
    if not names:
        raise RecordError(header.path, "has no segment but gaps: expected samples")
    leads = tuple(
        spec.description
        for spec in _segment_header(header, names[0]).signals
        if millivolts_per_unit(spec.units) is not None
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
    with _segment_errors(header, name):
        segment_header = read_header(path)
    if segment_header.segments:
        raise RecordError(
            header.path, f"segment {name} is made of segments itself: expected samples"
        )
    return segment_header


def _fill_from_segment(
    header: Header, segment: Segment, leads: tuple[str, ...], start: int, target: Float32Array
) -> tuple[str, ...]:
    """Fill `target` with a segment's samples from `start` on, and return the segment's flags.

    The rows of `target` are `leads`. A lead that the segment does not have is left as it is.
    """
    segment_header = _segment_header(header, segment.name)
    # A monitor writes such segments while the ECG is disconnected: that part stays NaN.
    if _lacks_voltage(segment_header):
        return tuple(_not_voltage_flags(segment_header))
    _check_segment(header, segment, segment_header)
    with _segment_errors(header, segment.name):
        part = read_wfdb(segment_header.path, start, start + target.shape[1])
    for name, row in zip(part.leads, part.signal, strict=True):
        if name not in leads:
            raise RecordError(
                header.path,
                f"segment {segment.name} has lead {name!r}, the record has {', '.join(leads)}",
            )
        target[leads.index(name)] = row
    return part.flags


def _check_segment(header: Header, segment: Segment, segment_header: Header) -> None:
    """Check that a segment has the rate and length that the record's header gives."""
    with _segment_errors(header, segment.name):
        n_samples = _n_samples(segment_header)
    if segment_header.fs != header.fs or n_samples != segment.n_samples:
        raise RecordError(
            header.path,
            f"segment {segment.name} has {n_samples} samples at {segment_header.fs:g} Hz, the "
            f"record says {segment.n_samples} at {header.fs:g} Hz",
        )


@contextmanager
def _segment_errors(header: Header, name: str) -> Iterator[None]:
    """Re-raise an error of a segment's own files under the name of the requested record."""
    try:
        yield
    except RecordError as error:
        raise RecordError(header.path, f"segment {name}: {error.message}") from None


# One piece ----------------------------------------------------------------------------------------


def _is_simple(spec: SignalSpec) -> bool:
    """Return whether a signal is decoded here, and not by the package."""
    return spec.fmt in MISSING and spec.samples_per_frame == 1 and not spec.skew


def _frame_means(counts: NDArray[Any], spec: SignalSpec) -> NDArray[Any]:
    """Return the mean ADC value of each frame, shape (n_frames,).

    Means are truncated to integers, as the WFDB library does. A frame with a missing sample is
    missing.
    """
    if spec.samples_per_frame == 1:
        return counts
    frames = counts.reshape(-1, spec.samples_per_frame)  # (n_frames, samples_per_frame)
    means: NDArray[Any] = np.trunc(frames.mean(axis=1)).astype(counts.dtype)
    marker = MISSING_IN_PACKAGE.get(spec.fmt)
    if marker is not None:
        means[(frames == marker).any(axis=1)] = marker
    return means


def _file_groups(header: Header) -> list[list[SignalSpec]]:
    """Group the signals that are interleaved in one file.

    The byte offset of a group is that of its first signal, as in the WFDB library.

    Raises
    ------
    RecordError
        If the signals of a file are not listed side by side, as the format demands, or are of
        several formats.
    """
    groups = [list(group) for _, group in groupby(header.signals, key=lambda spec: spec.file)]
    n_files = len({group[0].file for group in groups})
    has_mixed_formats = any(len({spec.fmt for spec in group}) > 1 for group in groups)
    if n_files < len(groups) or has_mixed_formats:
        raise RecordError(
            header.path,
            "lists the signals of a file apart or in several formats: expected them side by side "
            "in one format",
        )
    return groups


def _lacks_voltage(header: Header) -> bool:
    """Return whether a header lists signals and none of them is a voltage."""
    return bool(header.signals) and all(
        millivolts_per_unit(spec.units) is None for spec in header.signals
    )


def _not_voltage_flags(header: Header) -> list[str]:
    """Return a flag for each signal that is not a voltage."""
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
    """Return the number of samples in the header, or else computed from the first file's size."""
    if header.n_samples is not None:
        return header.n_samples
    group = _file_groups(header)[0]
    path = sibling_file(header, group[0].file, "signal file")
    if group[0].fmt not in MISSING:
        raise RecordError(
            header.path,
            f"does not give its number of samples, which storage format {group[0].fmt} needs",
        )
    n_bytes = os.stat(path).st_size - group[0].byte_offset
    n_per_frame = sum(spec.samples_per_frame for spec in group)
    return max(0, count_values(n_bytes, group[0].fmt) // n_per_frame)


def sibling_file(header: Header, name: str, what: str) -> str:
    """Find a file in the header's folder, also under a name in other case.

    File systems disagree about case, so headers that were copied may name their files wrongly.

    Parameters
    ----------
    header
        The header.
    name
        The name that it gives.
    what
        The kind of file, for error messages.

    Raises
    ------
    RecordError
        If there is no such file, or it is a link to another folder while the header is none. A
        downloaded header could otherwise have any file of this machine read.
    """
    # Building a Path takes as long as finding the file.
    folder = os.path.dirname(header.path)  # noqa: PTH120
    path = os.path.join(folder, name)
    if _is_regular(path):
        return path
    if not os.path.isfile(path):
        listed = folder or os.curdir
        names = _names_by_lower_case(listed, os.stat(listed).st_mtime_ns)
        path = os.path.join(folder, names.get(name.lower(), name))
    if not os.path.isfile(path):
        raise RecordError(header.path, f"{what} {name} is not in the folder")
    # Whole collections are linked file by file, header included: these links may lead elsewhere.
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
    """Return whether there is a file of this name that is not a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


# Cached because many headers of a folder may name their files in other case.
@lru_cache(maxsize=4)
def _names_by_lower_case(folder: str, mtime_ns: int) -> dict[str, str]:
    """Return the names in a folder, by their lower-case form."""
    return {name.lower(): name for name in os.listdir(folder)}


def _read_adc(header: Header, group: list[SignalSpec], start: int, stop: int) -> NDArray[Any]:
    """Return ADC values, shape (n_leads, n_samples), of the leads that share a file."""
    spec = group[0]
    width = len(group)
    path = sibling_file(header, spec.file, "signal file")
    # Unbuffered: the samples are read in one call, straight into their array.
    with open(path, "rb", buffering=0) as stream:
        if stream.read(len(_MATLAB)) == _MATLAB:
            counts = _read_resaved_mat(path, header, width)
            return np.ascontiguousarray(counts[start:stop].T)
        n_stored = count_values(stream.seek(0, 2) - spec.byte_offset, spec.fmt) // width
        # A truncated file is refused even if the requested part of it is there.
        n_promised = max(stop, header.n_samples or 0)
        if n_stored < n_promised:
            raise RecordError(
                path,
                f"holds {max(n_stored, 0)} samples of {width} leads, the header promises "
                f"{n_promised}",
            )
        _check_limit(header, (stop - start) * len(header.signals))
        values = decode_values(stream, spec, start * width, (stop - start) * width)
    frames = values.reshape(stop - start, width)  # (n_samples, n_leads)
    # Transposed now and not as float32, since fewer bytes move.
    return np.ascontiguousarray(frames.T)


def _read_resaved_mat(path: str, header: Header, width: int) -> NDArray[Any]:
    """Return the ADC values, shape (n_samples, n_leads), of a MAT file of version 5 or 7.3.

    Headers of the Challenges point behind the 24 bytes that begin a MAT file of version 4. If
    somebody saved the file again in another version, as SciPy does by default, no sample is there.
    """
    counts = load_counts(Path(path))
    if counts.shape[1] != width or len(counts) < (header.n_samples or 0):
        raise RecordError(
            path,
            f"holds {counts.shape[0]} samples of {counts.shape[1]} leads, the header promises "
            f"{header.n_samples} of {width}",
        )
    return counts


def _build_record(header: Header, signal: Float32Array, flags: list[str]) -> ECGRecord:
    """Return the record of all signals that are voltages, with the patient's facts."""
    kept = [
        i for i, spec in enumerate(header.signals) if millivolts_per_unit(spec.units) is not None
    ]
    if len(kept) < len(header.signals):
        flags = [*flags, *_not_voltage_flags(header)]
        signal = signal[kept]
    leads = []
    for i in kept:
        spec = header.signals[i]
        leads.append(spec.description)
        if spec.gain_assumed:
            flags.append(f"gain_assumed:{spec.description}")
    return _with_patient_facts(header, signal, tuple(leads), tuple(flags))


def _with_patient_facts(
    header: Header, signal: Float32Array, leads: tuple[str, ...], flags: tuple[str, ...]
) -> ECGRecord:
    """Return the record with age, sex and codes from the header's comments."""
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
