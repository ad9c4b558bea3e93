"""Reading a record file: its suffix or its content picks the reader, which gives an `ECGRecord`.

The readers themselves are in `src.records.formats`, one module per format.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.records.channels import name_channels
from src.records.formats.arrays import is_npy, npy_extent, npy_parts, read_npy
from src.records.formats.dicom import is_dicom, read_dicom
from src.records.formats.edf import edf_extent, read_edf
from src.records.formats.errors import HEAD_BYTES, check_written, open_error
from src.records.formats.hdf5 import hdf5_extent, hdf5_parts, read_hdf5
from src.records.formats.ishne import is_ishne, ishne_extent, read_ishne
from src.records.formats.mat_many import mat_parts, read_mat_record
from src.records.formats.npz import is_npz, npz_parts, read_npz
from src.records.formats.parquet import MAGIC as PARQUET_MAGIC
from src.records.formats.parquet import is_parquet, parquet_parts, read_parquet
from src.records.formats.scp import is_scp, read_scp
from src.records.formats.text_arrays import explain_text, is_text_signal, read_text
from src.records.formats.unread import Unread, describe_known, describe_unread
from src.records.formats.wfdb import read_wfdb, wfdb_extent
from src.records.formats.xml_ecg import is_ecg_xml, read_xml
from src.records.record import (
    NO_HINTS,
    ECGRecord,
    Extent,
    ReadingHints,
    RecordError,
    RecordRequest,
    checked_record,
    split_part,
)
from src.records.windows import MARGIN_S, cut_window, cut_windows, window_name, window_spans


@dataclass(frozen=True)
class _Format:
    """How files of a format are read.

    Attributes
    ----------
    read
        The reader.
    extent
        Returns the length of a record before its samples are read. The windows of a long record
        are then read one by one; without it they are cut from the whole record.
    parts
        Lists the ids of the records in a file that may hold many.
    begins
        Returns whether a file is of the format, by its first bytes. It is then found under any
        suffix and under none.
    is_told_by_suffix
        Whether a file of the suffix is a record whatever it begins with.
    """

    read: Callable[[Path, RecordRequest], ECGRecord]
    extent: Callable[[Path, RecordRequest], Extent | None] | None = None
    parts: Callable[[Path], tuple[str, ...]] | None = None
    begins: Callable[[bytes], bool] | None = None
    is_told_by_suffix: bool = True


def _begins_with(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginnings)


_HDF5 = _Format(read_hdf5, hdf5_extent, hdf5_parts)
_EDF = _Format(read_edf, edf_extent, begins=_begins_with(b"0       ", b"\xffBIOSEMI"))
_PARQUET = _Format(read_parquet, parts=parquet_parts, begins=is_parquet, is_told_by_suffix=False)
_TEXT = _Format(read_text, begins=is_text_signal, is_told_by_suffix=False)

_FORMATS = {
    ".hea": _Format(read_wfdb, wfdb_extent),
    ".mat": _Format(
        read_mat_record,
        parts=mat_parts,
        begins=_begins_with(b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"),
    ),
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".hdf": _HDF5,
    ".edf": _EDF,
    ".bdf": _EDF,
    ".dcm": _Format(read_dicom, begins=is_dicom),
    ".xml": _Format(read_xml, begins=is_ecg_xml, is_told_by_suffix=False),
    ".scp": _Format(read_scp, begins=is_scp),
    ".ecg": _Format(read_ishne, ishne_extent, begins=is_ishne, is_told_by_suffix=False),
    ".npy": _Format(read_npy, npy_extent, npy_parts, begins=is_npy, is_told_by_suffix=False),
    ".npz": _Format(read_npz, parts=npz_parts, begins=is_npz, is_told_by_suffix=False),
    ".parquet": _PARQUET,
    ".csv": _TEXT,
    ".tsv": _TEXT,
    ".txt": _TEXT,
    ".asc": _TEXT,
}

READABLE_SUFFIXES = tuple(_FORMATS)
"""Suffixes of files that are a record of their own, in order of preference; a .dat belongs to its
.hea.
"""

MANY_SUFFIXES = frozenset(suffix for suffix, kind in _FORMATS.items() if kind.parts)
"""Suffixes of files that may hold many records."""

LOCAL_SUFFIXES = frozenset(suffix for suffix, kind in _FORMATS.items() if kind in (_HDF5, _PARQUET))
"""Suffixes of files that are not read from a URL, as most hold many records."""

# Samples per lead that are read in one go where many parts of a record are wanted
_SAMPLES_TOGETHER = 2**18

# A suffix, not the end of a name such as 1.2.840.99.1.
_SUFFIX = re.compile(r"\.[A-Za-z]\w*")

_BROKEN = (ValueError, ArithmeticError, LookupError, MemoryError, struct.error)
"""Errors that readers meet in damaged files, besides those that they report themselves."""


# Finding records --------------------------------------------------------------------------------


def resolve_record(path: str | Path) -> Path:
    """Return the file that describes a record: its .hea, else the first of `READABLE_SUFFIXES`.

    Parameters
    ----------
    path
        A record file, the .dat of a WFDB record, the record's name without a suffix, or
        ``file::id`` for one of the records of an HDF5 file of many, which is returned as is.

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
        header = _find_sibling(file.with_suffix(""), ".hea")
        if header is not None:
            return header
        if suffix == ".dat":
            raise RecordError(
                file, f"its header {file.with_suffix('.hea').name} is not in the folder"
            )
    if suffix in _FORMATS and os.path.isfile(file):
        return Path(f"{file}::{part}") if part else file
    for candidate in READABLE_SUFFIXES:
        sibling = _find_sibling(file, candidate)
        if sibling is not None and may_be_record(sibling):
            return sibling
    suffixes = ", ".join((*READABLE_SUFFIXES, ".dat"))
    if os.path.isfile(file):
        head = read_head(file)
        if _format_by_content(head) is not None:
            return file
        reason = describe_unread(file.name, head).reason
        raise RecordError(
            file,
            f"unknown format {file.suffix or 'without suffix'!r}: {reason}; expected one of "
            f"{suffixes}",
        )
    raise RecordError(
        file, f"no such record: expected a file of {suffixes}, or a record name beside one"
    )


def _find_sibling(stem: Path, suffix: str) -> Path | None:
    """Return the file ``stem + suffix``, in lower or upper case, or None if there is none.

    The suffix is appended, as `Path.with_suffix` would cut a name that holds a dot. Names that no
    file system accepts are not files, and neither are pipes and devices, which would block.
    """
    if not stem.name:
        return None
    for spelling in (suffix, suffix.upper()):
        candidate = Path(f"{stem}{spelling}")
        if os.path.isfile(candidate):
            return candidate
    return None


def record_name(path: str | Path) -> str:
    """Return the id of the record at a path: the stem of its file, or the id in a file of many.

    A path that is no record is named by its stem as well.
    """
    part = split_part(path)[1]
    if part:
        return part
    try:
        return record_stem(resolve_record(path).name)
    except RecordError:
        return record_stem(Path(path).name)


def record_stem(name: str) -> str:
    """Return the name of a file without its suffix; ``1.2.840.99.1`` of a DICOM file has none."""
    stem, suffix = os.path.splitext(name)
    return stem if _SUFFIX.fullmatch(suffix) else name


def is_told_by_suffix(name: str) -> bool:
    """Return whether a file is a record by its suffix alone."""
    kind = _FORMATS.get(os.path.splitext(name)[1].lower())
    return kind is not None and kind.is_told_by_suffix


def may_be_record(path: str | Path) -> bool:
    """Return whether a file is a record, by its suffix or its first bytes."""
    if is_told_by_suffix(os.fspath(path)):
        return True
    try:
        return explain_unread(Path(path).name, read_head(path)) is None
    except RecordError:
        # Reading it will report the problem.
        return os.path.splitext(path)[1].lower() in _FORMATS


def explain_unread(name: str, head: bytes) -> Unread | None:
    """Return why a file is no record, by its name and first bytes, or None if it is one.

    Parameters
    ----------
    name
        Its name; its suffix is not one that tells a record.
    head
        Its first `HEAD_BYTES`.
    """
    kind = _FORMATS.get(os.path.splitext(name)[1].lower())
    if kind is not None and kind.begins is not None and kind.begins(head):
        return None
    if _format_by_content(head) is not None:
        return None
    known = describe_known(name, head)
    if kind is _TEXT and known is None:
        reason = explain_text(head) or ""
        return Unread(reason, is_side_file=not reason.startswith("holds numbers"))
    return known or describe_unread(name, head)


def read_head(path: str | Path) -> bytes:
    """Return the first `HEAD_BYTES` of a file; of Parquet, its mark and the begin of its footer.

    Raises
    ------
    RecordError
        If it cannot be opened.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
            if not head.startswith(PARQUET_MAGIC):
                return head
            # The footer names the columns. Its length is before the mark that ends the file.
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, end - 8))
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(max(0, end - 8 - length))
            return PARQUET_MAGIC + stream.read(HEAD_BYTES)
    except OSError as error:
        raise open_error(path, error) from None


def _format_by_content(head: bytes) -> _Format | None:
    """Return the format that the first bytes of a file are of, or None.

    Text is not tried: numbers may be anything where no suffix says that they are a signal.
    """
    for kind in dict.fromkeys(_FORMATS.values()):
        if kind is not _TEXT and kind.begins is not None and kind.begins(head):
            return kind
    return None


def list_parts(path: str | Path) -> tuple[str, ...]:
    """Return the ids of the records of a file of many, and none for a file of one record.

    Raises
    ------
    RecordError
        If the file may hold many records and cannot be read.
    """
    list_ids = _format_of(Path(path)).parts
    if list_ids is None:
        return ()
    try:
        return list_ids(Path(path))
    except RecordError:
        if _other_format(Path(path)) is None:
            raise
        return ()


def list_records(path: str | Path) -> list[Path]:
    """Return the path of each record of a file, as `read_record` takes them.

    That is the file itself, or ``file::id`` for each of many records.

    Raises
    ------
    RecordError
        If the file is missing, or may hold many records and cannot be read.
    """
    file = resolve_record(path)
    if split_part(file)[1]:
        return [file]
    return [Path(f"{file}::{part}") for part in list_parts(file)] or [file]


# Reading ----------------------------------------------------------------------------------------


def read_record(
    path: str | Path,
    *,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
) -> ECGRecord:
    """Read one record.

    Parameters
    ----------
    path
        As for `resolve_record`.
    source_fs
        Sampling rate in Hz, for a file that does not state it.
    source_gain_per_mv
        ADC units per mV, for a file that does not state them.
    leads
        Leads of the channels, for a file that does not state them: by place, as in
        ``("II", "V5")``, or by name, as in ``("ECG1:II", "ECG2:V5")``.

    Raises
    ------
    RecordError
        A ValueError that names the file and says what was expected.
    """
    return read_with_hints(path, ReadingHints(source_fs, source_gain_per_mv, tuple(leads)))


def read_with_hints(path: str | Path, hints: ReadingHints) -> ECGRecord:
    """Read one record, as `read_record` does."""
    return _read(resolve_record(path), RecordRequest(hints=hints))


def iter_records(
    path: str | Path,
    *,
    window_s: float | None = None,
    stride_s: float | None = None,
    source_fs: float | None = None,
    source_gain_per_mv: float | None = None,
    leads: Sequence[str] = (),
) -> Iterator[ECGRecord]:
    """Yield the records of a file one at a time, whole or as windows.

    Parameters
    ----------
    path, source_fs, source_gain_per_mv, leads
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
    hints = ReadingHints(source_fs, source_gain_per_mv, tuple(leads))
    return iter_with_hints(path, hints, window_s=window_s, stride_s=stride_s)


def iter_with_hints(
    path: str | Path, hints: ReadingHints, *, window_s: float | None, stride_s: float | None
) -> Iterator[ECGRecord]:
    """Yield the records of a file one at a time, as `iter_records` does."""
    if stride_s is None:
        stride_s = window_s
    if (window_s is not None and window_s <= 0) or (stride_s is not None and stride_s <= 0):
        raise ValueError(
            f"window_s is {window_s} and stride_s {stride_s}: expected positive seconds"
        )
    request = RecordRequest(hints=hints)
    for record in list_records(path):
        if window_s is None or stride_s is None:
            yield _read(record, request)
        else:
            yield from _iter_windows(record, request, window_s, stride_s)


def _iter_windows(
    path: Path, request: RecordRequest, window_s: float, stride_s: float
) -> Iterator[ECGRecord]:
    """Yield the windows of a record, each read from disk when needed if the format allows it."""
    extent = _extent(path, request)
    if extent is None:
        yield from cut_windows(_read(path, request), window_s, stride_s)
        return
    margin = round(MARGIN_S * extent.fs)
    for index, (start, stop) in enumerate(window_spans(extent, window_s, stride_s)):
        # The samples around a window are read with it.
        first = max(0, start - margin)
        last = min(stop + margin, extent.n_samples)
        part = _read(path, dataclasses.replace(request, start=first, stop=last))
        name = window_name(part.record_id, index)
        whole = extent.n_samples
        yield cut_window(part, name, start - first, stop - first, first=first, n_whole=whole)


def iter_cuts(
    path: str | Path, hints: ReadingHints, choose: Callable[[Extent], Sequence[tuple[int, int]]]
) -> Iterator[ECGRecord]:
    """Yield parts of a record in their order, some of them read together.

    Parameters
    ----------
    path, hints
        As for `read_with_hints`.
    choose
        Returns the first sample of each part, and the one after its last, for the extent of the
        record; the parts are in order of time and may overlap.

    Raises
    ------
    RecordError
        If the file is unreadable.
    """
    file = resolve_record(path)
    request = RecordRequest(hints=hints)
    extent = _extent(file, request)
    if extent is None:
        record = _read(file, request)
        for start, stop in choose(Extent(record.n_samples, record.fs)):
            yield cut_window(record, record.record_id, start, stop)
        return
    margin = round(MARGIN_S * extent.fs)
    for group in _group_parts(choose(extent)):
        first = max(0, group[0][0] - margin)
        last = min(group[-1][1] + margin, extent.n_samples)
        piece = _read(file, dataclasses.replace(request, start=first, stop=last))
        for start, stop in group:
            yield cut_window(
                piece,
                piece.record_id,
                start - first,
                stop - first,
                first=first,
                n_whole=extent.n_samples,
            )


def _group_parts(parts: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield parts that are read together, as they lie within `_SAMPLES_TOGETHER`."""
    group: list[tuple[int, int]] = []
    for part in parts:
        if group and part[1] - group[0][0] > _SAMPLES_TOGETHER:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def find_windows(
    path: str | Path, hints: ReadingHints, window_s: float, stride_s: float
) -> tuple[Extent, list[tuple[int, int]]]:
    """Return the extent of a record, and the first and last sample + 1 of each of its windows.

    The samples are read only where the format does not state their number.
    """
    file = resolve_record(path)
    request = RecordRequest(hints=hints)
    extent = _extent(file, request)
    if extent is None:
        record = _read(file, request)
        extent = Extent(record.n_samples, record.fs)
    return extent, list(window_spans(extent, window_s, stride_s))


class RecordStart(NamedTuple):
    """The first seconds of a record: located, but not yet read.

    Attributes
    ----------
    file
        The file that describes the record.
    request
        The part of it to read.
    seconds
        The length wanted.
    n_samples
        Samples per lead of the whole record, or None if it is read whole.
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
            As from `read_record`, but cut. Checksums cover the whole record, so they are not
            compared when only a part is read.
        n_samples
            Length of the whole record in samples per lead.

        Raises
        ------
        RecordError
            As `read_record`.
        """
        record = _read(self.file, self.request)
        n_samples = record.n_samples if self.n_samples is None else self.n_samples
        # Some formats are read whole. A copy of the start frees the rest, as callers hold several
        # records at a time.
        if record.n_samples > 2 * self.seconds * record.fs:
            start = record.signal[:, : round(self.seconds * record.fs)].copy()
            record = dataclasses.replace(record, signal=start)
        return record, n_samples


def find_start(path: str | Path, seconds: float, hints: ReadingHints = NO_HINTS) -> RecordStart:
    """Locate the first `seconds` of a record without reading samples.

    Only that part is then read from disk, where the format allows it. Locate several records
    before reading any: the code that parses headers then stays in the processor's caches.
    """
    file = resolve_record(path)
    request = RecordRequest(hints=hints)
    extent = _extent(file, request)
    # A record up to twice as long is read whole: there is little to save.
    if extent is None or extent.n_samples <= 2 * seconds * extent.fs:
        return RecordStart(file, request, seconds, None)
    request = dataclasses.replace(request, stop=round(seconds * extent.fs))
    return RecordStart(file, request, seconds, extent.n_samples)


def _read(path: Path, request: RecordRequest) -> ECGRecord:
    file, part = split_part(path)
    if part:
        request = dataclasses.replace(request, part=part)
    kind = _format_of(file)
    try:
        record = _read_as(kind, path, file, request)
    except RecordError:
        other = _other_format(file)
        if other is None:
            raise
        record = _read_as(other, path, file, request)
    # Readers name a record by the stem of its file, which cuts a name without a suffix.
    if file.suffix.lower() not in _FORMATS and not part:
        record = dataclasses.replace(record, record_id=record_stem(file.name))
    return record


def _read_as(kind: _Format, path: Path, file: Path, request: RecordRequest) -> ECGRecord:
    # Damaged files hold numbers that overflow; `checked_record` checks the outcome.
    with _named_errors(path), np.errstate(all="ignore"):
        check_written(file, os.stat(file).st_size)
        record = checked_record(path, kind.read(file, request))
        if not request.hints.leads:
            return record
        try:
            return name_channels(record, request.hints.leads)
        except ValueError as error:
            raise RecordError(path, str(error)) from None


def _extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return a record's length if its format states it outside the samples."""
    file, _ = split_part(path)
    kind = _format_of(file)
    try:
        return _extent_as(kind, path, file, request)
    except RecordError:
        other = _other_format(file)
        if other is None:
            raise
        return _extent_as(other, path, file, request)


def _extent_as(kind: _Format, path: Path, file: Path, request: RecordRequest) -> Extent | None:
    if kind.extent is None:
        return None
    with _named_errors(path):
        return kind.extent(file, request)


def _format_of(file: Path) -> _Format:
    """Return the format of a record, by its suffix, or else by its content.

    Raises
    ------
    RecordError
        If it cannot be opened, or is of no format.
    """
    kind = _FORMATS.get(split_part(file)[0].suffix.lower())
    if kind is not None:
        return kind
    head = read_head(file)
    by_content = _format_by_content(head)
    if by_content is None:
        raise RecordError(file, describe_unread(file.name, head).reason)
    return by_content


def _other_format(file: Path) -> _Format | None:
    """Return the format of a file whose suffix is that of another one, or None.

    It is asked for a file that could not be read, so that others are not opened twice.
    """
    try:
        kind = _format_by_content(read_head(file))
    except RecordError:
        return None
    return None if kind is _FORMATS.get(file.suffix.lower()) else kind


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn every error that a broken file causes into a `RecordError` that names the file."""
    try:
        yield
    except RecordError:
        raise
    except OSError as error:
        raise open_error(path, error) from None
    except _BROKEN as error:
        raise RecordError(path, f"not readable ({type(error).__name__}: {error})") from None
