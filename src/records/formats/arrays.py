"""Plain arrays in NumPy files (``.npy``), and what arrays of any kind do not say.

Three dimensions are many records, which a table beside the array names (see `index_table`).

An array has neither a rate nor a unit nor lead names. They are those that the user gives, or they
are assumed and flagged, or the record is refused with the option that helps.
"""

from __future__ import annotations

import ast
import math
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.formats.errors import open_error
from src.records.formats.index_table import find_index, read_ids
from src.records.formats.stated_facts import (
    amplitude_of,
    is_whole,
    names_or_standard,
    unit_by_amplitude,
)
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest
from src.utils import Float32Array, holds_unicode

MAX_LEADS = 64
# Samples from which numbers without lead names may be a signal.
MIN_SAMPLES = 100
# Different values that a lead has at least; codes and grades have fewer.
_MIN_LEVELS = 12
# Mean step between neighbours, as a part of that between any two samples. It is 1 for numbers in
# no order, such as ages in a table; an ECG at 100 Hz with noise has 0.6.
_MAX_ROUGHNESS = 0.85
# Rates at which a recording of 10 s is assumed where nothing says the rate.
_COMMON_RATES = (100, 125, 128, 200, 240, 250, 256, 257, 300, 360, 400, 500, 512, 1000)
_USUAL_S = 10
_UNIT_NAMES = {1e3: "V", 1.0: "mV", 0.1: "0.1mV", 1e-3: "uV"}
_MISSING = -(2**15)
_MAX_HEADER = 10_000
_NPY = b"\x93NUMPY"
_PROBED = 100_000
# Records of a file of any size, and bytes of each further one.
_FEW_RECORDS = 100_000
_MIN_RECORD_BYTES = 400
# Records of a file of many whose amplitude tells the unit.
_PROBED_RECORDS = 64


def check_lead_count(
    path: Path, shape: tuple[int, ...], n_leads: int, names: tuple[str, ...]
) -> None:
    """Refuse a matrix without names whose shorter side is more than leads.

    Raises
    ------
    RecordError
        If there are more than 64 leads, and no name for each.
    """
    if n_leads > MAX_LEADS and not names:
        raise RecordError(
            path, f"has signals of shape {shape}: expected at most {MAX_LEADS} leads without names"
        )


class Rate(NamedTuple):
    """A sampling rate in Hz, and flags of what was assumed."""

    fs: float
    flags: tuple[str, ...] = ()


class Scale(NamedTuple):
    """mV per unit, and flags of what was assumed."""

    mv_per_unit: float
    flags: tuple[str, ...] = ()


# What arrays do not say ---------------------------------------------------------------------------


def choose_rate(path: Path, n_samples: int, given: float | None) -> Rate:
    """Return the rate that is given, else that of a recording of 10 s.

    Parameters
    ----------
    path
        The file, for error messages.
    n_samples
        Samples of each lead.
    given
        Rate in Hz as the user gave it, or None.

    Raises
    ------
    RecordError
        If none is given, and 10 s would not have a common rate.
    """
    if given:
        return Rate(given)
    if n_samples % _USUAL_S == 0 and n_samples // _USUAL_S in _COMMON_RATES:
        return Rate(float(n_samples // _USUAL_S), ("fs_assumed",))
    raise RecordError(path, "says no sampling rate: give --source-fs NAME=HZ (source_fs=)")


def choose_scale(
    path: Path, values: Float32Array, given: float | None, *, may_be_counts: bool = False
) -> Scale:
    """Return the scale that is given, else that of the unit which explains the amplitude.

    Parameters
    ----------
    path
        The file, for error messages.
    values
        Samples in an unknown unit, shape (n_leads, n_samples).
    given
        Units per mV as the user gave them, or None.
    may_be_counts
        Whether whole numbers are accepted, since the format has no others.

    Raises
    ------
    RecordError
        If none is given, and samples are whole numbers, as converters of any gain give them, or no
        unit explains the amplitude.
    """
    if given:
        return Scale(1 / given)
    amplitude = amplitude_of(values)
    factor = unit_by_amplitude(amplitude, 1)
    if not may_be_counts and amplitude and is_whole(values):
        raise RecordError(
            path,
            "holds whole numbers and says no unit and no gain: give --source-gain NAME=ADU_PER_MV "
            "(source_gain_per_mv=), 1000 if it is in uV",
        )
    if factor is None:
        raise RecordError(
            path,
            f"says no unit, and an amplitude of {amplitude:.3g} fits no voltage: give "
            "--source-gain NAME=UNITS_PER_MV (source_gain_per_mv=)",
        )
    return Scale(factor, (f"unit_assumed:{_UNIT_NAMES[factor]}",))


def looks_like_signal(values: NDArray[Any]) -> bool:
    """Return whether numbers may be the samples of leads, shape (n_leads, n_samples).

    They are told from ids, ages, codes and features by the steps between neighbours, which are
    small in a signal, and by the number of levels.
    """
    if values.shape[1] < MIN_SAMPLES or not 0 < values.shape[0] <= MAX_LEADS:
        return False
    shuffled = np.random.default_rng(0).permutation(values.shape[1])
    for row in np.asarray(values, np.float64):
        steps = np.diff(row)
        # Ids count.
        is_counting = np.all(steps == steps[0])
        if is_counting or np.unique(row[:5000]).size < _MIN_LEVELS:
            continue
        usual = np.nanmean(np.abs(np.diff(row[shuffled])))
        if np.nanmean(np.abs(steps)) < _MAX_ROUGHNESS * usual:
            return True
    return False


# NumPy files --------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """An array in a file: where its values begin, their type, and its shape and order."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool

    @property
    def has_many(self) -> bool:
        """Whether the first axis counts records."""
        return len(self.shape) == 3

    @property
    def record_shape(self) -> tuple[int, ...]:
        """The shape of a record."""
        return self.shape[1:] if self.has_many else self.shape

    @property
    def n_leads(self) -> int:
        """The number of leads: the shorter side."""
        return min(self.record_shape) if len(self.record_shape) == 2 else 1

    @property
    def n_samples(self) -> int:
        """The number of samples of each lead."""
        return max(self.record_shape)


def is_npy(head: bytes) -> bool:
    """Return whether a file is an array that may be a recording, by its first bytes."""
    if not head.startswith(_NPY):
        return False
    try:
        if np.dtype(_stated(Path("array"), head)[1]["descr"]).kind in "USb":
            # Ids or classes
            return False
        _parse_header(Path("array"), head)
    except RecordError:
        # It is an array, and reading it says what is wrong.
        return True
    return runs_like_signal(head)


def runs_like_signal(head: bytes) -> bool:
    """Return whether an array of numbers runs as a signal does, by its first bytes."""
    try:
        layout = _parse_header(Path("array"), head)
    except RecordError:
        return False
    if layout.has_many and layout.is_fortran:
        # The samples of a record are far apart.
        return True
    n_values = (len(head) - layout.offset) // layout.dtype.itemsize
    n_values = min(n_values, math.prod(layout.record_shape))
    if layout.n_samples < MIN_SAMPLES or n_values < 1:
        return False
    values = np.frombuffer(head, layout.dtype, n_values, layout.offset)
    with np.errstate(all="ignore"):
        return looks_like_signal(_leads_first(values, layout))


def array_from_bytes(path: Path, raw: bytes) -> NDArray[Any]:
    """Return the array of numbers or texts that the bytes of an ``.npy`` hold.

    Raises
    ------
    RecordError
        If they are damaged, or hold objects.
    """
    start, stated = _stated(path, raw)
    dtype, shape = np.dtype(stated["descr"]), tuple(stated["shape"])
    if dtype.kind not in "iufbUS" or dtype.hasobject:
        raise RecordError(path, f"holds values of type {dtype}: expected numbers or texts")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise RecordError(path, f"has shape {shape}: expected whole numbers")
    n_values = math.prod(shape)
    if n_values * dtype.itemsize != len(raw) - start:
        raise RecordError(path, f"promises shape {shape}, {len(raw) - start} bytes are stored")
    if not n_values:
        return np.empty(shape, dtype)
    order: Any = "F" if stated["fortran_order"] else "C"
    values = np.frombuffer(raw, dtype, n_values, start).reshape(shape, order=order)
    if not holds_unicode(values):
        raise RecordError(path, "holds text that is not Unicode: write the array again")
    return values


def _leads_first(values: NDArray[Any], layout: _Layout) -> NDArray[Any]:
    """Return the first values of a file by lead; with leads one after another, the first lead."""
    by_sample = layout.record_shape[0] == layout.n_samples
    is_interleaved = layout.n_leads > 1 and by_sample != layout.is_fortran
    if not is_interleaved:
        return values[: layout.n_samples][None]
    n_whole = len(values) // layout.n_leads * layout.n_leads
    return values[:n_whole].reshape(-1, layout.n_leads).T


def npy_parts(path: Path) -> tuple[str, ...]:
    """Return the ids of the records of an array of many, and nothing for one of one record.

    They are those of the table beside it, else the file's stem and the row.

    Raises
    ------
    RecordError
        If the array is damaged, or its table does not name each record once.
    """
    layout = _layout(path)
    return tuple(_rows(path, layout.shape[0])) if layout.has_many else ()


def read_npy(path: Path, request: RecordRequest) -> ECGRecord:
    """Read samples `request.start` to `request.stop` of an array; its shorter side is the leads.

    Of an array of many, the record that `request.part` names is read.

    Raises
    ------
    RecordError
        If it is damaged, not of numbers in one to three dimensions, has no such record, or its rate
        or unit is neither given nor can be assumed.
    """
    layout = _layout(path)
    array = _open_array(path, layout)
    stored = _record(path, layout, array, request.part) if layout.has_many else array
    rate = choose_rate(path, layout.n_samples, request.hints.fs)
    scale = _scale(path, array, layout, request.hints.gain_per_mv)
    by_lead = _by_lead(stored)
    values = _as_floats(by_lead[:, request.start : request.stop])
    leads, lead_flags = names_or_standard((), layout.n_leads)
    return ECGRecord(
        record_id=request.part or path.stem,
        signal=values * np.float32(scale.mv_per_unit),
        fs=rate.fs,
        leads=leads,
        flags=(*rate.flags, *scale.flags, *lead_flags),
    )


def npy_extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return the length of an array, or of a record of an array of many."""
    layout = _layout(path)
    rate = choose_rate(path, layout.n_samples, request.hints.fs)
    return Extent(layout.n_samples, rate.fs)


def _scale(path: Path, array: NDArray[Any], layout: _Layout, given: float | None) -> Scale:
    """Return the scale of a file; the beginning of it tells the unit of all windows and records."""
    if not layout.has_many:
        return choose_scale(path, _as_floats(_by_lead(array)[:, :_PROBED]), given)
    if given:
        return Scale(1 / given)
    status = os.stat(path)
    return _scale_of_many(str(path), status.st_mtime_ns, status.st_size)


# Records are read one by one, and their scale is found once.
@lru_cache(maxsize=8)
def _scale_of_many(name: str, mtime_ns: int, size: int) -> Scale:
    path = Path(name)
    layout = _cached_layout(name, mtime_ns, size)
    array = _open_array(path, layout)
    n_each = max(1, _PROBED // _PROBED_RECORDS)
    rows = np.linspace(0, layout.shape[0] - 1, min(layout.shape[0], _PROBED_RECORDS)).astype(int)
    probed = [_as_floats(_by_lead(array[row])[:, :n_each]) for row in rows]
    return choose_scale(path, np.concatenate(probed, axis=1), None)


def _rows(path: Path, n_records: int) -> dict[str, int]:
    """Return the row of each record of an array of many, cached for its records."""
    table = find_index(path)
    try:
        stamp = os.stat(table).st_mtime_ns if table else 0
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_rows(str(path), str(table or ""), stamp, n_records)


@lru_cache(maxsize=8)
def _cached_rows(name: str, table: str, stamp: int, n_records: int) -> dict[str, int]:
    path = Path(name)
    if table:
        ids = read_ids(path, Path(table), n_records)
    else:
        ids = tuple(f"{path.stem}-{row:05}" for row in range(n_records))
    return {record_id: row for row, record_id in enumerate(ids)}


def _record(path: Path, layout: _Layout, array: NDArray[Any], part: str) -> NDArray[Any]:
    """Return the record of an array of many that is asked for."""
    rows = _rows(path, layout.shape[0])
    example = f"{path.name}::{next(iter(rows))}"
    if not part:
        raise RecordError(path, f"holds {len(rows)} records: name one, such as {example}")
    if part not in rows:
        raise RecordError(path, f"has no record {part!r}: expected one such as {example}")
    record: NDArray[Any] = array[rows[part]]
    return record


def _as_floats(values: NDArray[Any]) -> Float32Array:
    """Return a copy of samples as 32-bit floats, with NaN where one is missing."""
    floats = np.array(values, np.float32, order="C")
    floats[~np.isfinite(floats)] = np.nan
    # As in MAT files and WFDB.
    if values.dtype == np.int16:
        floats[values == _MISSING] = np.nan
    return floats


def _open_array(path: Path, layout: _Layout) -> NDArray[Any]:
    """Return the array in a file without reading it."""
    try:
        array: NDArray[Any] = np.memmap(
            path,
            layout.dtype,
            "r",
            layout.offset,
            layout.shape,
            order="F" if layout.is_fortran else "C",
        )
    except OSError as error:
        raise open_error(path, error) from None
    return array


def _by_lead(array: NDArray[Any]) -> NDArray[Any]:
    """Return a record with a row for each lead."""
    if array.ndim == 1:
        return array[None]
    return array.T if array.shape[0] > array.shape[1] else array


def _layout(path: Path) -> _Layout:
    """Return the layout of a file, cached for the windows of a long recording."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_layout(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _cached_layout(name: str, mtime_ns: int, size: int) -> _Layout:
    path = Path(name).absolute()
    try:
        with open(path, "rb") as file:
            layout = _parse_header(path, file.read(2**16))
    except OSError as error:
        raise open_error(path, error) from None
    n_values = math.prod(layout.shape)
    n_stored = (size - layout.offset) // layout.dtype.itemsize
    if math.prod(layout.record_shape) > MAX_VALUES:
        raise RecordError(path, f"has shape {layout.shape}, the limit is {MAX_VALUES} values")
    if n_values > n_stored:
        raise RecordError(path, f"promises shape {layout.shape}, {n_stored} values are stored")
    return layout


def _stated(path: Path, head: bytes) -> tuple[int, dict[str, Any]]:
    """Return the byte at which values begin, and type, order and shape as the header states them.

    No code of the file is run.
    """
    if not head.startswith(_NPY) or len(head) < 12:
        raise RecordError(path, "is no NumPy array: expected .npy")
    start, width = (10, "<H") if head[6] == 1 else (12, "<I")
    length = struct.unpack_from(width, head, 8)[0]
    if length > min(len(head) - start, _MAX_HEADER):
        raise RecordError(path, f"has a header of {length} bytes: expected {_MAX_HEADER} at most")
    try:
        stated = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
        # Both are made here, so that a damaged header is told in one place.
        np.dtype(stated["descr"]), tuple(stated["shape"]), bool(stated["fortran_order"])
    # A damaged header may be anything.
    except Exception as error:  # noqa: BLE001
        raise RecordError(path, f"has a header that is damaged ({type(error).__name__})") from None
    return start + length, stated


def _has_index(path: Path) -> bool:
    """Return whether a table is beside a file; the first bytes of one have no folder."""
    return path.is_absolute() and find_index(path) is not None


def _parse_header(path: Path, head: bytes) -> _Layout:
    """Return the layout that the first bytes of a file state."""
    start, stated = _stated(path, head)
    dtype, shape = np.dtype(stated["descr"]), tuple(stated["shape"])
    is_fortran = bool(stated["fortran_order"])
    if dtype.kind not in "iuf" or dtype.hasobject:
        raise RecordError(path, f"holds values of type {dtype}: expected numbers")
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise RecordError(path, f"has shape {shape}: expected leads and samples")
    if len(shape) == 4 and 1 in shape[1:]:
        # As networks for images take them: records x 1 x samples x leads
        place = shape.index(1, 1)
        shape = shape[:place] + shape[place + 1 :]
    # A table beside an array says that its first axis counts records, also of one lead.
    if len(shape) == 3 and 1 in shape and (shape[0] == 1 or not _has_index(path)):
        shape = tuple(np.delete(shape, shape.index(1)).tolist())
    if len(shape) not in (1, 2, 3):
        raise RecordError(path, f"has shape {shape}: expected leads and samples, or many of these")
    if len(shape) > 1 and min(shape[-2:]) > MAX_LEADS:
        raise RecordError(path, f"has shape {shape}: expected at most {MAX_LEADS} leads")
    n_bytes = math.prod(shape) * dtype.itemsize
    if len(shape) == 3 and shape[0] > max(_FEW_RECORDS, n_bytes // _MIN_RECORD_BYTES):
        raise RecordError(path, f"has shape {shape}: expected fewer and longer records")
    return _Layout(start, dtype, shape, is_fortran)
