"""Bytes on disk to an `ECGRecord`: mV, leads by name. Picks the reader by the file; the readers are
in `src.formats`.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.records.formats.dicom import read_dicom
from src.records.formats.edf import edf_extent, read_edf
from src.records.formats.errors import open_error
from src.records.formats.hdf5 import hdf5_extent, hdf5_parts, read_hdf5
from src.records.formats.mat import read_mat
from src.records.formats.scp import read_scp
from src.records.formats.wfdb import read_wfdb, wfdb_extent
from src.records.formats.xml_ecg import is_ecg_xml, read_xml
from src.records.record import (
    ECGRecord,
    Extent,
    RecordError,
    RecordRequest,
    checked_record,
    split_part,
)
from src.records.windows import cut_windows, window_name, window_spans


@dataclass(frozen=True)
class _Format:
    """How files of a suffix are read.

    With an `extent` the windows of a long record are read one by one, else cut from the whole.
    `parts` lists the ids of a file that may hold many records. `claims` tells records from other
    files of the suffix.
    """

    read: Callable[[Path, RecordRequest], ECGRecord]
    extent: Callable[[Path, RecordRequest], Extent | None] | None = None
    parts: Callable[[Path], tuple[str, ...]] | None = None
    claims: Callable[[Path], bool] | None = None


_HDF5 = _Format(read_hdf5, hdf5_extent, hdf5_parts)


_FORMATS = {
    ".hea": _Format(
        lambda path, request: read_wfdb(path, request.start, request.stop),
        lambda path, _: wfdb_extent(path),
    ),
    ".mat": _Format(
        lambda path, request: read_mat(path, request.source_fs, request.source_gain_per_mv)
    ),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".hdf": _HDF5,
    ".edf": _Format(read_edf, lambda path, _: edf_extent(path)),
    ".dcm": _Format(read_dicom),
    ".xml": _Format(read_xml, claims=is_ecg_xml),
    ".scp": _Format(read_scp),
}


READABLE_SUFFIXES = tuple(_FORMATS)
"""Suffixes that name a record of their own, most telling first; a .dat belongs to its .hea."""


_BROKEN = (ValueError, ArithmeticError, LookupError, MemoryError, struct.error)
"""What readers meet in damaged files beside the problems that they name."""


MANY_SUFFIXES = frozenset(suffix for suffix, kind in _FORMATS.items() if kind.parts)
"""Those whose files may hold many records."""


def resolve_record(path: str | Path) -> Path:
    """Return the file that describes the record: the .hea where there is one, else the first of
    `READABLE_SUFFIXES`.

    Parameters
    ----------
    path
        A record file, the .dat of a WFDB record, the record's name without a suffix, or
        ``file::id`` for one of the records of an HDF5 file of many, which is returned as it is.

    Raises
    ------
    RecordError
        If there is no such file or its format is unknown.
    """
    file, part = split_part(path)
    suffix = file.suffix.lower()
    if suffix == ".hea" and os.path.isfile(file):
        return file
    if suffix in (".dat", ".mat") and os.path.isfile(file):
        header = _sibling(file.with_suffix(""), ".hea")
        if header is not None:
            return header
        if suffix == ".dat":
            raise RecordError(
                file, f"its header {file.with_suffix('.hea').name} is not in the folder"
            )
    if suffix in _FORMATS and os.path.isfile(file):
        return Path(f"{file}::{part}") if part else file
    for candidate in READABLE_SUFFIXES:
        found = _sibling(file, candidate)
        if found is not None:
            return found
    known = ", ".join((*READABLE_SUFFIXES, ".dat"))
    if os.path.isfile(file):
        raise RecordError(
            file, f"unknown format {file.suffix or 'without suffix'!r}: expected one of {known}"
        )
    raise RecordError(
        file, f"no such record: expected a file of {known}, or a record name beside one"
    )


def _sibling(stem: Path, suffix: str) -> Path | None:
    """Return the file ``stem + suffix`` in either case, since with_suffix would cut names that hold
    a dot.

    Names that no file system takes are no file, and neither are pipes and devices, which would be
    waited for.
    """
    candidates = (Path(f"{stem}{spelled}") for spelled in (suffix, suffix.upper()) if stem.name)
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)


def record_name(path: str | Path) -> str:
    """Return the id of the record at a path: the stem of its file, or the id inside a file of many.

    What is no record goes by its stem too.
    """
    part = split_part(path)[1]
    if part:
        return part
    try:
        return resolve_record(path).stem
    except RecordError:
        return Path(path).stem


def may_be_record(path: str | Path) -> bool:
    """Tell whether a file is read as a record of its own: by its suffix, and of an XML file by its
    root element too.
    """
    kind = _FORMATS.get(os.path.splitext(path)[1].lower())
    return kind is not None and (kind.claims is None or kind.claims(Path(path)))


def list_parts(path: str | Path) -> tuple[str, ...]:
    """Return the ids of the records of a file of many, and none for a file of one record.

    Raises
    ------
    RecordError
        If the file may hold many records and cannot be read.
    """
    parts = _format(Path(path)).parts
    return parts(Path(path)) if parts else ()


def list_records(path: str | Path) -> list[Path]:
    """Return the path of each record of a file, as `read_record` takes them: the file itself, or
    ``file::id`` for many.

    Raises
    ------
    RecordError
        If the file is missing, or may hold many records and cannot be read.
    """
    file = resolve_record(path)
    if split_part(file)[1]:
        return [file]
    return [Path(f"{file}::{part}") for part in list_parts(file)] or [file]


def _format(file: Path) -> _Format:
    return _FORMATS[split_part(file)[0].suffix.lower()]


def read_record(
    path: str | Path, *, source_fs: float | None = None, source_gain_per_mv: float | None = None
) -> ECGRecord:
    """Read one record.

    Parameters
    ----------
    path
        As for `resolve_record`.
    source_fs
        Sampling rate in Hz, for a file that does not say its own.
    source_gain_per_mv
        ADC units per mV, for a file that does not say them.

    Raises
    ------
    RecordError
        A ValueError that names the file and says what was expected.
    """
    return _read(
        resolve_record(path),
        RecordRequest(source_fs=source_fs, source_gain_per_mv=source_gain_per_mv),
    )


class RecordStart(NamedTuple):
    """The first `seconds` of a record that was looked up and can be read; `n_samples` of the whole
    where only a part will be.
    """

    file: Path
    request: RecordRequest
    seconds: float
    n_samples: int | None

    def read(self) -> tuple[ECGRecord, int]:
        """Read the first seconds of the record.

        Returns
        -------
        record
            As of `read_record`, but for the end. Checksums cover the whole record, so they are not
            compared when only a part is read.
        n_samples
            Length of the whole record.

        Raises
        ------
        RecordError
            As `read_record`.
        """
        record = _read(self.file, self.request)
        n_samples = record.n_samples if self.n_samples is None else self.n_samples
        if (
            record.n_samples > 2 * self.seconds * record.fs
        ):  # of a format that is read whole; several records are held at a time
            record = dataclasses.replace(
                record, signal=record.signal[:, : round(self.seconds * record.fs)].copy()
            )
        return record, n_samples


def find_start(
    path: str | Path,
    seconds: float,
    *,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
) -> RecordStart:
    """Look up the first `seconds` of a record without reading samples.

    Only that part is then read from disk, where the format allows it. Look up several records
    before reading any: the code that parses headers then stays in the processor's caches.
    """
    file = resolve_record(path)
    request = RecordRequest(source_fs=source_fs, source_gain_per_mv=source_gain_per_mv)
    extent = _extent(file, request)
    if extent is None or extent.n_samples <= 2 * seconds * extent.fs:  # there is little to save
        return RecordStart(file, request, seconds, None)
    return RecordStart(
        file,
        dataclasses.replace(request, stop=round(seconds * extent.fs)),
        seconds,
        extent.n_samples,
    )


def _read(path: Path, request: RecordRequest) -> ECGRecord:
    file, part = split_part(path)
    with (
        _named_errors(path),
        np.errstate(all="ignore"),
    ):  # numbers of a damaged file; what comes of them is checked
        return checked_record(
            path,
            _format(file).read(file, dataclasses.replace(request, part=part) if part else request),
        )


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn whatever a broken file makes a reader raise into a `RecordError` that names it."""
    try:
        yield
    except RecordError:
        raise
    except OSError as error:
        raise open_error(path, error) from None
    except _BROKEN as error:
        raise RecordError(path, f"not readable ({type(error).__name__}: {error})") from None


def iter_records(
    path: str | Path,
    *,
    window_s: float | None = None,
    stride_s: float | None = None,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
) -> Iterator[ECGRecord]:
    """Yield the records of a file one at a time: its only one, each of many, or the windows of a
    long one.

    Parameters
    ----------
    path, source_fs, source_gain_per_mv
        As for `read_record`.
    window_s
        Window length in seconds; None yields records whole. WFDB, HDF5 and EDF records are read
        from disk window by window. The samples after the last full window are left out; a record
        shorter than a window is its only window.
    stride_s
        Seconds from the start of one window to the next; by default the window length.

    Raises
    ------
    RecordError
        If the file is unreadable.
    ValueError
        If a window or stride is not positive.
    """
    stride_s = window_s if stride_s is None else stride_s
    if (window_s is not None and window_s <= 0) or (stride_s is not None and stride_s <= 0):
        raise ValueError(
            f"window_s is {window_s} and stride_s {stride_s}: expected positive seconds"
        )
    request = RecordRequest(source_fs=source_fs, source_gain_per_mv=source_gain_per_mv)
    for record in list_records(path):
        if window_s is None or stride_s is None:
            yield _read(record, request)
        else:
            yield from _iter_windows(record, request, window_s, stride_s)


def _iter_windows(
    path: Path, request: RecordRequest, window_s: float, stride_s: float
) -> Iterator[ECGRecord]:
    """Yield windows, each read from disk as it comes where the format allows it."""
    extent = _extent(path, request)
    if extent is None:
        yield from cut_windows(_read(path, request), window_s, stride_s)
        return
    for index, (start, stop) in enumerate(window_spans(extent, window_s, stride_s)):
        window = _read(path, dataclasses.replace(request, start=start, stop=stop))
        yield dataclasses.replace(window, record_id=window_name(window.record_id, index))


def _extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return a record's length where its format tells it without reading the samples."""
    extent = _format(path).extent
    with _named_errors(path):
        return extent(split_part(path)[0], request) if extent else None
