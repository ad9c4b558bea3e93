"""The record every reader returns, its error, what is asked of a reader, and what readers share:
units, age and sex.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.records.svg import draw_ecg_svg
from src.utils import Float32Array, Rich, html_facts, printable

MIN_FS, MAX_FS = 1.0, 1e6  # Hz; what lies beyond is no rate of an ECG but a damaged header
# what a 24-hour record of 12 leads at 360 Hz holds; more is refused before it is allocated
MAX_VALUES = 400_000_000
_MAX_MV = 1e15  # squares of larger samples overflow single precision
_PART = re.compile(r"^(.+\.(?:h5|hdf5|hdf))::(.+)$", re.IGNORECASE | re.DOTALL)
_MAX_MESSAGE = 1000


class RecordError(ValueError):
    """A file that cannot be read as an ECG record; the message names the file and what was
    expected.
    """

    def __init__(self, path: str | Path, message: str) -> None:
        message = printable(message, _MAX_MESSAGE)
        super().__init__(f"{printable(str(path), _MAX_MESSAGE)}: {message}")
        self.path = str(path)
        self.message = message

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, str]]:
        return RecordError, (
            self.path,
            self.message,
        )  # crosses process boundaries with both arguments


@dataclass(frozen=True, eq=False)
class ECGRecord(Rich):
    """One recording in physical units, as its source has it.

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
        Or None.
    flags
        Remarks on quality and integrity, such as ``checksum_mismatch:V1``.
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
        return (
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
        }
        return html_facts(facts) + (
            draw_ecg_svg(self.signal, self.fs, self.leads, label=str(self))
            if self.signal.size
            else ""
        )


@dataclass(frozen=True)
class ReadingHints:
    """Facts about a record for files that do not state them; a file's own statement has priority.

    Attributes
    ----------
    fs
        Sampling rate in Hz, or None.
    gain_per_mv
        ADC units per mV, or None.
    """

    fs: float | None = None
    gain_per_mv: float | None = None


NO_HINTS = ReadingHints()


@dataclass(frozen=True)
class RecordRequest:
    """What is asked of a reader beside the path.

    Attributes
    ----------
    part
        The id of a record inside a file of many; empty for the only one.
    hints
        Facts that the file may not state.
    start, stop
        The samples wanted; None is up to the end.
    """

    part: str = ""
    hints: ReadingHints = NO_HINTS
    start: int = 0
    stop: int | None = None


class Extent(NamedTuple):
    """The length of a record in samples per lead and its rate in Hz, known before its samples are
    read.
    """

    n_samples: int
    fs: float


def split_part(path: str | Path) -> tuple[Path, str]:
    """Return the file, and the id after ``::`` that names one of the records of a file of many, or
    nothing.
    """
    text = os.fspath(path)
    match = _PART.match(text) if "::" in text else None
    return (
        (Path(match[1]), match[2])
        if match
        else (path if isinstance(path, Path) else Path(text), "")
    )


def checked_record(path: str | Path, record: ECGRecord) -> ECGRecord:
    """Return a record that the pipeline can rely on: finite or missing samples, a plausible rate,
    texts that can be written.

    Raises
    ------
    RecordError
        If there are no samples, one is beyond single precision, or the rate is none that an ECG is
        recorded at.
    """
    if not record.signal.size:
        raise RecordError(path, "holds no samples: expected one or more")
    if not _has_finite_power(record.signal) and (np.abs(record.signal) > _MAX_MV).any():
        raise RecordError(
            path, "has samples beyond any voltage: are its gain and baseline damaged?"
        )
    if not MIN_FS <= record.fs <= MAX_FS:
        raise RecordError(
            path, f"its sampling rate is {record.fs:g} Hz: expected {MIN_FS:g} to {MAX_FS:g}"
        )
    texts: dict[str, Any] = {
        name: _printable_texts(getattr(record, name)) for name in ("leads", "codes", "flags")
    }
    patient_id = printable(record.patient_id) if record.patient_id else None
    if patient_id == record.patient_id and all(
        getattr(record, name) == text for name, text in texts.items()
    ):
        return record
    return replace(record, **texts, patient_id=patient_id)


@lru_cache(maxsize=1024)  # records of a collection have leads, codes and flags in common
def _printable_texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(printable, texts))


def all_finite(signal: Float32Array) -> bool:
    """Tell whether there is neither NaN nor infinity in a signal, at a fraction of the time of
    asking for each sample.
    """
    return _has_finite_power(signal) or bool(np.isfinite(signal).all())


def _has_finite_power(signal: Float32Array) -> bool:
    """Tell whether the sum of squares is finite, which it cannot be with NaN, infinity or a far too
    large sample in it.
    """
    flat = signal.reshape(-1) if signal.flags.c_contiguous else None
    with np.errstate(over="ignore", invalid="ignore"):
        return flat is not None and math.isfinite(np.dot(flat, flat))
