"""The types that readers share: the record, its error, a read request and a record's extent.

Also here: the limits on sampling rate and size, and the checks that every record passes.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.records.svg import draw_ecg_svg
from src.utils import Float32Array, Rich, html_facts, printable, printable_lines, storable

# Hz. No ECG is recorded at a rate outside this range, so such a rate means a damaged header.
MIN_FS = 1.0
MAX_FS = 1e6
# A 24-hour record of 12 leads at 360 Hz has 373 million values. Larger requests are refused before
# memory is allocated.
MAX_VALUES = 400_000_000
# The squares of larger samples overflow single precision.
_MAX_MV = 1e15
# A file of many and the id of one of its records: exams_part0.h5::123
_PART = re.compile(r"^(.+\.(?:h5|hdf5|hdf|npy|npz|parquet|mat))::(.+)$", re.IGNORECASE | re.DOTALL)
_MAX_MESSAGE = 1000


class RecordError(ValueError):
    """A file that cannot be read as an ECG record.

    The message names the file, the problem and what was expected.

    Parameters
    ----------
    path
        The file; kept as the attribute `path`.
    message
        The problem, without the file's name; kept as the attribute `message`.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        message = printable(message, _MAX_MESSAGE)
        super().__init__(f"{printable(str(path), _MAX_MESSAGE)}: {message}")
        self.path = str(path)
        self.message = message

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, str]]:
        # An exception is pickled with its text alone, and would be rebuilt with one argument.
        return RecordError, (self.path, self.message)


@dataclass(frozen=True, eq=False)
class ECGRecord(Rich):
    """One recording in mV, with lead names and codes as its source writes them.

    Attributes
    ----------
    record_id
        The file's stem; a window of a long record adds ``__w00012``.
    signal
        Shape (n_leads, n_samples), float32, in mV; NaN where a sample is missing.
    fs
        Sampling rate in Hz.
    leads
        Lead names as the source writes them, in its order.
    codes
        Diagnosis codes as the source writes them.
    age
        Years, or None.
    sex
        ``female``, ``male`` or None.
    patient_id
        Patient id in the source, or None.
    flags
        Quality and integrity flags, such as ``checksum_mismatch:V1``.
    unused
        Names of the channels of the file that are not part of the signal.
    before, after
        For a window of a longer record: what was recorded just before and after it, shape
        (n_leads, any), for resampling; else None.
    first_sample, n_whole
        For a window: its first sample in the record, and the samples of the whole record. For a
        record 0, and 0 where it is whole.
    """

    record_id: str
    signal: Float32Array
    fs: float
    leads: tuple[str, ...]
    codes: tuple[str, ...] = ()
    age: float | None = None
    sex: str | None = None
    patient_id: str | None = None
    flags: tuple[str, ...] = field(default=())
    unused: tuple[str, ...] = ()
    before: Float32Array | None = field(default=None, repr=False)
    after: Float32Array | None = field(default=None, repr=False)
    first_sample: int = 0
    n_whole: int = 0

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[0] != len(self.leads):
            raise ValueError(
                f"record {self.record_id}: signal has shape {self.signal.shape}, expected "
                f"({len(self.leads)}, n_samples)"
            )
        if not (math.isfinite(self.fs) and self.fs > 0):
            raise ValueError(
                f"record {self.record_id}: fs is {self.fs}, expected a positive rate in Hz"
            )

    @property
    def n_leads(self) -> int:
        """The number of leads."""
        return int(self.signal.shape[0])

    @property
    def n_samples(self) -> int:
        """The number of samples per lead."""
        return int(self.signal.shape[1])

    @property
    def duration_s(self) -> float:
        """The length in seconds."""
        return self.n_samples / self.fs

    def __str__(self) -> str:
        return printable_lines(
            f"{self.record_id}: {self.n_leads} leads ({' '.join(self.leads)}), "
            f"{self.duration_s:g} s at {self.fs:g} Hz"
        )

    def _repr_html_(self) -> str:
        facts = {
            "record": self.record_id,
            "leads": self.n_leads,
            "length": f"{self.duration_s:g} s",
            "rate": f"{self.fs:g} Hz",
            "age": None if self.age is None else f"{self.age:g}",
            "sex": self.sex,
            "patient": self.patient_id,
            "codes": ", ".join(self.codes),
            "flags": ", ".join(self.flags),
            "channels not used": ", ".join(self.unused),
        }
        html = html_facts(facts)
        if self.signal.size:
            html += draw_ecg_svg(self.signal, self.fs, self.leads, label=str(self))
        return html


@dataclass(frozen=True)
class ReadingHints:
    """Facts about a record for files that do not state them; a file's own statement has priority.

    Attributes
    ----------
    fs
        Sampling rate in Hz, or None.
    gain_per_mv
        ADC units per mV, or None.
    leads
        Leads of the channels, by place (``II``) or by name (``ECG1:II``); see
        `src.records.channels.LeadNames`.
    """

    fs: float | None = None
    gain_per_mv: float | None = None
    leads: tuple[str, ...] = ()


NO_HINTS = ReadingHints()


@dataclass(frozen=True)
class RecordRequest:
    """The part of a file to read, and settings for what the file leaves out.

    Attributes
    ----------
    part
        Id of a record in a file of many; empty if the file has one record.
    hints
        Facts used if the file does not state them.
    start
        First sample to read.
    stop
        Sample after the last one to read; None reads to the end.
    """

    part: str = ""
    hints: ReadingHints = NO_HINTS
    start: int = 0
    stop: int | None = None


class Extent(NamedTuple):
    """The length of a record, known before its samples are read.

    Attributes
    ----------
    n_samples
        Samples per lead.
    fs
        Sampling rate in Hz.
    runs
        First sample of each continuous run and the one after its last; empty without gaps.
    """

    n_samples: int
    fs: float
    runs: tuple[tuple[int, int], ...] = ()


def split_part(path: str | Path) -> tuple[Path, str]:
    """Split a path into its file and the record id after ``::``.

    Parameters
    ----------
    path
        A file, or ``file::id`` for one of the records of an HDF5 file.

    Returns
    -------
    file
        The file.
    part
        The id, empty if the path has none.
    """
    text = os.fspath(path)
    match = _PART.match(text) if "::" in text else None
    if match is not None:
        return Path(match[1]), match[2]
    # This runs for each record, and building a Path again costs more than the rest.
    return (path if isinstance(path, Path) else Path(text)), ""


def checked_record(path: str | Path, record: ECGRecord) -> ECGRecord:
    """Check that the rest of the pipeline can rely on a record.

    Parameters
    ----------
    path
        The file, for error messages.
    record
        A record as a reader returned it.

    Returns
    -------
    ECGRecord
        The record, its texts made storable and its flags printable (see `src.utils`).

    Raises
    ------
    RecordError
        If it has no samples, a sample beyond single precision, or an implausible sampling rate.
    """
    if not record.signal.size:
        raise RecordError(path, "holds no samples: expected one or more")
    # The sum of squares is fast and nearly always finite. Only otherwise is each sample compared.
    if not _has_finite_power(record.signal) and (np.abs(record.signal) > _MAX_MV).any():
        raise RecordError(
            path, "has samples beyond any voltage: are its gain and baseline damaged?"
        )
    if not MIN_FS <= record.fs <= MAX_FS:
        raise RecordError(
            path, f"its sampling rate is {record.fs:g} Hz: expected {MIN_FS:g} to {MAX_FS:g}"
        )
    leads = _storable_texts(record.leads)
    codes = _storable_texts(record.codes)
    flags = _printable_texts(record.flags)
    unused = _storable_texts(record.unused)
    patient_id = storable(record.patient_id) if record.patient_id else None
    as_read = (record.leads, record.codes, record.flags, record.unused, record.patient_id)
    if (leads, codes, flags, unused, patient_id) == as_read:
        return record
    return replace(
        record, leads=leads, codes=codes, flags=flags, unused=unused, patient_id=patient_id
    )


# Records of a collection share their leads, codes and flags.
@lru_cache(maxsize=1024)
def _storable_texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(storable, texts))


@lru_cache(maxsize=1024)
def _printable_texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(printable, texts))


def all_finite(signal: Float32Array) -> bool:
    """Return whether a signal has neither NaN nor infinity, without testing each sample if it can.

    Parameters
    ----------
    signal
        Any shape; fast where it is contiguous.
    """
    return _has_finite_power(signal) or bool(np.isfinite(signal).all())


def _has_finite_power(signal: Float32Array) -> bool:
    """Return whether the sum of squares is known to be finite.

    A NaN, an infinity or a far too large sample makes it infinite or NaN. A signal that is not
    contiguous gives False, since it would have to be copied.
    """
    if not signal.flags.c_contiguous:
        return False
    flat = signal.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.dot(flat, flat))
