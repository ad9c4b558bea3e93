"""Rare WFDB storage formats and multi-frequency records, decoded by the ``wfdb`` package.

The package trusts the header, so the header is checked here first.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from src.records.formats.errors import package_error
from src.records.formats.wfdb_header import Header, SignalSpec
from src.records.record import RecordError

_FORMATS = {"8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524"}
# FLAC, in which the package decodes all samples before those that are asked for
_COMPRESSED = {"508", "516", "524"}
# Values decoded at a time: the package needs about twenty bytes for each.
_MAX_VALUES = 30_000_000
# Up to this number, memory is taken without a look at the files.
_FEW_VALUES = 10_000_000
# No compression of an ECG gives more.
_VALUES_PER_BYTE = 100


def decode_through_package(header: Header, start: int, stop: int) -> list[NDArray[Any]]:
    """Return the ADC values of each signal, shape (n_frames * samples_per_frame,).

    Parameters
    ----------
    header
        The header of a record in one piece.
    start, stop
        The first frame, and the frame after the last one.

    Raises
    ------
    RecordError
        If a storage format is unknown, or the samples are not as the header says.
    """
    unknown = sorted({spec.fmt for spec in header.signals} - _FORMATS)
    if unknown:
        raise RecordError(
            header.path, f"not readable as WFDB: storage format {', '.join(unknown)} is unknown"
        )
    # Format 8 stores differences, so a value is the sum of all before it.
    is_differences = any(spec.fmt == "8" for spec in header.signals)
    first = 0 if is_differences else start
    n_values = (stop - first) * sum(spec.samples_per_frame for spec in header.signals)
    if n_values > _MAX_VALUES:
        if first < start:
            raise RecordError(
                header.path,
                "is of storage format 8, which is read from its beginning on, up to "
                f"{_MAX_VALUES} values: store it in format 16",
            )
        raise RecordError(
            header.path,
            f"is asked for {n_values} values at once, the limit is {_MAX_VALUES}: read it in "
            "windows (window_s)",
        )
    if n_values > _FEW_VALUES:
        check_amount(header, n_values, {spec.file for spec in header.signals}, _VALUES_PER_BYTE)
    decoded = _decode_frames(header, first, stop)
    n_decoded = [len(values) for values in decoded]
    n_promised = [(stop - first) * spec.samples_per_frame for spec in header.signals]
    if n_decoded != n_promised:
        raise RecordError(
            header.path,
            f"signals have {n_decoded[:12]} samples, the header promises {n_promised[:12]}",
        )
    return [
        values[(start - first) * spec.samples_per_frame :]
        for values, spec in zip(decoded, header.signals, strict=True)
    ]


def _decode_frames(header: Header, first: int, stop: int) -> list[NDArray[Any]]:
    """Return the ADC values of frames `first` to `stop` of each signal, as stored."""
    signals = header.signals
    n_frames = header.n_samples or 0
    n_values = n_frames * sum(spec.samples_per_frame for spec in signals)
    is_compressed = all(spec.fmt in _COMPRESSED for spec in signals)
    if not is_compressed or not stop - first < n_frames or n_values > _MAX_VALUES:
        return _decode(header.path, signals, n_frames, first, stop)
    # A record that is read in windows is decoded once
    stamps = []
    for spec in signals:
        with suppress(OSError):
            status = os.stat(header.path.parent / spec.file)
            stamps.append((status.st_size, status.st_mtime_ns))
    decoded = _decode_whole(header.path, signals, n_frames, tuple(stamps))
    return [
        values[first * spec.samples_per_frame : stop * spec.samples_per_frame]
        for values, spec in zip(decoded, signals, strict=True)
    ]


@lru_cache(maxsize=1)
def _decode_whole(
    path: Path, signals: tuple[SignalSpec, ...], n_frames: int, stamps: tuple[tuple[int, int], ...]
) -> list[NDArray[Any]]:
    """Return all ADC values of a record whose files have these sizes and times."""
    decoded = _decode(path, signals, n_frames, 0, n_frames)
    for values in decoded:
        values.setflags(write=False)
    return decoded


def _decode(
    path: Path, signals: Sequence[SignalSpec], n_frames: int, first: int, stop: int
) -> list[NDArray[Any]]:
    """Return the ADC values of frames `first` to `stop` of `n_frames`, as stored."""
    # The package finds files by the names in the header, which may differ in case from those on
    # disk. It is given what was parsed here: it misreads headers without the later fields.
    try:
        with warnings.catch_warnings():
            # The package and pandas warn of their own code and of unusual headers.
            warnings.simplefilter("ignore")
            # Imported here because it loads pandas, and few records need it.
            from wfdb.io._signal import _rd_segment

            decoded: list[NDArray[Any]] = _rd_segment(
                file_name=[spec.file for spec in signals],
                dir_name=str(path.parent),
                pn_dir=None,
                fmt=[spec.fmt for spec in signals],
                n_sig=len(signals),
                sig_len=n_frames,
                byte_offset=[spec.byte_offset for spec in signals],
                samps_per_frame=[spec.samples_per_frame for spec in signals],
                skew=[0] * len(signals),
                init_value=[spec.initial or 0 for spec in signals],
                sampfrom=first,
                sampto=stop,
                channels=list(range(len(signals))),
                # Skews are undone after reading.
                ignore_skew=True,
            )
    # The package raises whatever its parsers meet in a damaged file.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "WFDB") from None
    return decoded


def check_amount(header: Header, n_values: int, names: Iterable[str], values_per_byte: int) -> None:
    """Refuse far more values than a record's files can hold, before memory is taken for them.

    Parameters
    ----------
    header
        The header.
    n_values
        How many values are asked for.
    names
        Names of the record's files or segments. All files of the same stem count.
    values_per_byte
        Most values for each byte of the files.

    Raises
    ------
    RecordError
        If the files are too small for so many values.
    """
    stems = {name.rpartition(".")[0].lower() or name.lower() for name in names}
    n_bytes = 0
    with os.scandir(header.path.parent) as entries:
        for entry in entries:
            if entry.name.rpartition(".")[0].lower() in stems:
                n_bytes += entry.stat().st_size
    if n_values > values_per_byte * n_bytes:
        raise RecordError(
            header.path,
            f"promises {n_values} values, its files have {n_bytes} bytes: expected the samples",
        )
