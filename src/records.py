"""Bytes on disk to an `ECGRecord`: mV, leads by name. Picks the reader by the file; the readers are in `src.formats`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from src.formats.base import ECGRecord, RecordError
from src.formats.mat import read_mat
from src.formats.wfdb import iter_windows, read_wfdb

__all__ = ["READABLE_SUFFIXES", "ECGRecord", "RecordError", "iter_records", "read_record", "resolve_record"]

READABLE_SUFFIXES = (".hea", ".mat")
"""Suffixes that name a record of their own, most telling first; a .dat belongs to its .hea."""


def resolve_record(path: str | Path) -> Path:
    """Return the file that describes the record: the .hea where there is one, else the .mat.

    Parameters
    ----------
    path
        A .hea, .dat or .mat file, or the record's name without a suffix.

    Raises
    ------
    RecordError
        If there is no such file or its format is unknown.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".hea" and path.is_file():
        return path
    if suffix in (".dat", ".mat") and path.is_file():
        header = _sibling(path.with_suffix(""), ".hea")
        if header is not None:
            return header
        if suffix == ".mat":
            return path
        raise RecordError(path, f"its header {path.with_suffix('.hea').name} is not in the folder")
    for candidate in READABLE_SUFFIXES:
        found = _sibling(path, candidate)
        if found is not None:
            return found
    if path.is_file():
        raise RecordError(path, f"unknown format {path.suffix or 'without suffix'!r}: expected .hea, .dat or .mat")
    raise RecordError(path, "no such record: expected a .hea, .dat or .mat file, or a record name beside one")


def _sibling(stem: Path, suffix: str) -> Path | None:
    """Return the file ``stem + suffix`` in either case, since with_suffix would cut names that hold a dot."""
    for spelled in (suffix, suffix.upper()):
        candidate = stem.with_name(stem.name + spelled)
        if candidate.is_file():
            return candidate
    return None


def read_record(
    path: str | Path, *, source_fs: float | None = None, source_gain_per_mv: float | None = None
) -> ECGRecord:
    """Read one record.

    Parameters
    ----------
    path
        A .hea, .dat or .mat file, or the record's name without a suffix.
    source_fs
        Sampling rate in Hz, for a file that does not say its own.
    source_gain_per_mv
        ADC units per mV, for a file that does not say them.

    Raises
    ------
    RecordError
        A ValueError that names the file and says what was expected.
    """
    file = resolve_record(path)
    try:
        return read_wfdb(file) if file.suffix.lower() == ".hea" else read_mat(file, source_fs, source_gain_per_mv)
    except RecordError:
        raise
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise RecordError(file, f"not readable ({type(error).__name__}: {error})") from None


def iter_records(
    path: str | Path, *, window_s: float | None = None, stride_s: float | None = None
) -> Iterator[ECGRecord]:
    """Yield the records of a file one at a time: the record itself, or the windows of a long one.

    Parameters
    ----------
    path
        As for `read_record`.
    window_s
        Window length in seconds; None yields the record whole. A WFDB record is read from disk window by window.
    stride_s
        Seconds from the start of one window to the next; by default the window length.

    Raises
    ------
    RecordError
        If the file is unreadable.
    ValueError
        If a window or stride is not positive.
    """
    if window_s is None:
        yield read_record(path)
        return
    stride_s = window_s if stride_s is None else stride_s
    if window_s <= 0 or stride_s <= 0:
        raise ValueError(f"window_s is {window_s} and stride_s {stride_s}: expected positive seconds")
    file = resolve_record(path)
    if file.suffix.lower() == ".hea":
        yield from iter_windows(file, window_s, stride_s)
    else:
        yield from _iter_slices(read_record(path), window_s, stride_s)


def _iter_slices(record: ECGRecord, window_s: float, stride_s: float) -> Iterator[ECGRecord]:
    size, step = round(window_s * record.fs), round(stride_s * record.fs)
    for index, start in enumerate(range(0, record.n_samples - size + 1, step)):
        yield dataclasses.replace(
            record, record_id=f"{record.record_id}__w{index:05d}", signal=record.signal[:, start : start + size]
        )
