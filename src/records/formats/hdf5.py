"""HDF5: one record in a file (SPH's dataset ``ecg``) or many (CODE-15%'s ``tracings``).

A file of many records is never loaded whole: its ids are listed once, and a record is read by its
row. Files without a unit are in the one that explains the amplitude of their signals.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.facts import millivolts_per_unit
from src.records.formats.errors import open_error
from src.records.formats.hdf5_access import members, open_hdf5, read_values
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest
from src.utils import Float32Array

if TYPE_CHECKING:
    import h5py


# Names under which sources store signals, ids, rates, units and leads.
_SIGNAL_NAMES = ("ecg", "tracings", "signal", "signals", "data", "val", "ECG", "p_signal")
_ID_NAMES = ("exam_id", "id_exam", "record_id", "ecg_id", "ids", "id")
_FS_NAMES = ("fs", "Fs", "sampling_rate", "sampling_frequency", "sample_rate", "freq")
_UNIT_NAMES = ("units", "unit")
_LEAD_NAMES = ("leads", "lead_names", "sig_name")
# Hz. SPH and CODE-15% give their rate in their papers, not in their files.
_PUBLISHED_FS = {"ecg": 500.0, "tracings": 400.0}

_MAX_RECORDS = 10_000_000
# Of a dataset that gives the rate of each record.
_MAX_RATES = 1_000_000
_MAX_BLOCK_BYTES = 2**27
_MAX_FS = 1e6

# Records whose amplitude is measured to find the unit.
_N_PROBED = 64
# The median of at least this many records tells units apart that differ by a factor of ten.
_MANY = 8
# Lowest amplitude, highest amplitude, and mV per unit.
_RANGES_OF_MANY = ((3e-4, 3e-3, 1e3), (0.3, 3.0, 1.0), (3.0, 30.0, 0.1), (300.0, 3000.0, 1e-3))
_RANGES_OF_ONE = ((1e-4, 1e-2, 1e3), (0.03, 30.0, 1.0), (100.0, 10_000.0, 1e-3))
# mV per unit -> its name in a flag.
_UNIT_OF = {1e3: "V", 0.1: "0.1mV", 1e-3: "uV"}


@dataclass(frozen=True)
class _Layout:
    """The structure of a file.

    Attributes
    ----------
    name
        Name of the dataset of signals.
    shape
        Its shape: of one record, or (n_records, ...) of many. Leads come first or last.
    is_integer
        Whether samples are integers, so that their unit cannot be guessed.
    block
        Number of rows that are read at a time.
    rows
        Row of each record id; empty for a file of one record.
    fs
        Sampling rate in Hz, or None if the file has none.
    unit
        Unit of the samples, or empty if the file has none.
    leads
        Lead names, or nothing if the file has none.
    """

    name: str
    shape: tuple[int, ...]
    is_integer: bool
    block: int
    rows: dict[str, int]
    fs: float | None
    unit: str
    leads: tuple[str, ...]

    @property
    def has_many(self) -> bool:
        """Whether the first axis counts records."""
        return len(self.shape) == 3

    @property
    def leads_last(self) -> bool:
        """Whether a record is stored as samples by leads; the shorter side is the leads."""
        return self.shape[-1] < self.shape[-2]

    @property
    def n_leads(self) -> int:
        """The number of leads."""
        return min(self.shape[-2:])


def hdf5_parts(path: Path) -> tuple[str, ...]:
    """Return the ids of the records of a file of many, and nothing for a file of one.

    Raises
    ------
    RecordError
        If the file is unreadable or has no signals.
    """
    layout = _layout(path)
    return tuple(layout.rows) if layout.has_many else ()


def read_hdf5(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the only record of a file, or the one that `request.part` names.

    Collections of many records pad them with zeros to the same length, which are cut off.

    Raises
    ------
    RecordError
        If the file is damaged, has no such record, or its unit or rate is neither known nor given.
    """
    layout = _layout(path)
    row = _row(path, layout, request.part)
    fs = layout.fs or request.hints.fs or _PUBLISHED_FS.get(layout.name)
    if fs is None:
        raise RecordError(path, "says no sampling rate: give --source-fs NAME=HZ (source_fs=)")
    fs_flags = () if layout.fs or request.hints.fs else ("fs_assumed",)
    values = _read_rows(path, layout, row, request.start, request.stop)
    # The samples of a whole file are here already. Otherwise the file is probed for its unit.
    is_whole_file = not (layout.has_many or request.start or request.stop)
    amplitude = (_amplitude(values), 1) if is_whole_file else None
    scale, unit_flags = _millivolts(path, layout, request.hints.gain_per_mv, amplitude)
    if row is not None:
        values = _without_padding(path, values, request.part)
    leads, lead_flags = _lead_names(layout)
    return ECGRecord(
        record_id=request.part or path.stem,
        signal=values if scale == 1 else values * np.float32(scale),
        fs=float(fs),
        leads=leads,
        flags=(*fs_flags, *unit_flags, *lead_flags),
    )


def hdf5_extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return the length of a file's only record.

    Returns None for a file of many, whose records have to be read to find their padding, and for a
    file without a rate.
    """
    layout = _layout(path)
    fs = layout.fs or request.hints.fs or _PUBLISHED_FS.get(layout.name)
    return None if layout.has_many or fs is None else Extent(max(layout.shape), float(fs))


# Layout -------------------------------------------------------------------------------------------


def _layout(path: Path) -> _Layout:
    """Return a file's layout, cached so that the ids of a file of many are listed once."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_layout(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _cached_layout(path: str, mtime_ns: int, size: int) -> _Layout:
    with open_hdf5(Path(path)) as file:
        items = members(Path(path), file)
        name, dataset = _find_signals(Path(path), items)
        shape = tuple(int(n) for n in dataset.shape)
        return _Layout(
            name=name,
            shape=shape,
            is_integer=dataset.dtype.kind in "iu",
            block=_rows_per_block(dataset),
            rows=_rows(Path(path), file, items, dataset) if len(shape) == 3 else {},
            fs=_sampling_rate(dataset, file, items),
            unit=_unit(dataset, file),
            leads=_stored_lead_names(dataset, file, items, min(shape[-2:])),
        )


def _find_signals(
    path: Path, items: Mapping[str, h5py.Dataset | h5py.Group]
) -> tuple[str, h5py.Dataset]:
    """Return the name of the dataset of signals, and the dataset."""
    import h5py

    for name in _SIGNAL_NAMES:
        item = items.get(name)
        if not isinstance(item, h5py.Dataset):
            continue
        if item.dtype.kind not in "iuf" or item.ndim not in (2, 3):
            continue
        if not item.size:
            raise RecordError(path, f"{name} has shape {item.shape}: expected leads and samples")
        if math.prod(item.shape[-2:]) > MAX_VALUES:
            raise RecordError(
                path,
                f"a record of {name} has shape {item.shape[-2:]}, the limit is {MAX_VALUES} values",
            )
        return name, item
    names = ", ".join(sorted(items)[:10]) or "nothing"
    raise RecordError(
        path,
        f"holds {names}: expected signals of 2 or 3 dimensions called {', '.join(_SIGNAL_NAMES)}",
    )


def _rows(
    path: Path,
    file: h5py.File,
    items: Mapping[str, h5py.Dataset | h5py.Group],
    dataset: h5py.Dataset,
) -> dict[str, int]:
    """Return the row of each record id.

    Without ids in the file, an id is the file's stem and the row.
    """
    n_records = int(dataset.shape[0])
    if n_records > _MAX_RECORDS:
        raise RecordError(path, f"promises {n_records} records, the limit is {_MAX_RECORDS}")
    ids = _find_ids(items, n_records)
    if ids is None:
        return {f"{path.stem}-{row:05d}": row for row in range(n_records)}
    rows: dict[str, int] = {}
    for row, value in enumerate(np.ravel(read_values(path, ids)).tolist()):
        name = _as_text(value)
        rows[name if name not in rows else f"{name}-row{row}"] = row
    # CODE-15%'s files end in a row of zeros with the id 0, which is not a record. A damaged float
    # there makes NumPy warn.
    with np.errstate(invalid="ignore"):
        if "0" in rows and n_records > 1 and not read_values(path, dataset, rows["0"]).any():
            del rows["0"]
    return rows


def _find_ids(
    items: Mapping[str, h5py.Dataset | h5py.Group], n_records: int
) -> h5py.Dataset | None:
    """Return the dataset that has an id for each record."""
    import h5py

    for name in _ID_NAMES:
        item = items.get(name)
        if isinstance(item, h5py.Dataset) and item.size == n_records:
            return item
    return None


def _as_text(value: object) -> str:
    """Return an id, unit or name as text, without spaces and slashes around it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    # Ids that went through a table with missing values are stored as 12.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().strip("/")


def _attribute(dataset: h5py.Dataset, file: h5py.File, name: str) -> object:
    """Return an attribute of the dataset, or else of the file, or None."""
    return dataset.attrs.get(name, file.attrs.get(name))


def _sampling_rate(
    dataset: h5py.Dataset, file: h5py.File, items: Mapping[str, h5py.Dataset | h5py.Group]
) -> float | None:
    """Return the sampling rate in Hz, or None if the file has none.

    It is an attribute of the signals or the file, or a dataset that holds it once or for each
    record. Records of different rates in a file give None.
    """
    for name in _FS_NAMES:
        stored = _attribute(dataset, file, name)
        item = items.get(name)
        if stored is None and item is not None and _is_list_of_numbers(item):
            stored = read_values(Path(file.filename), item)
        if stored is None:
            continue
        try:
            rates = np.ravel(np.asarray(stored)).astype(np.float64)
        # A text that is not a number.
        except (TypeError, ValueError):
            continue
        if rates.size and (rates == rates[0]).all() and 0 < rates[0] <= _MAX_FS:
            return float(rates[0])
    return None


def _is_list_of_numbers(item: h5py.Dataset | h5py.Group) -> bool:
    """Return whether a member of a file is a dataset of at least one number, and not too many."""
    kind = getattr(item, "dtype", np.dtype("O")).kind
    return kind in "iuf" and 0 < (item.size or 0) <= _MAX_RATES


def _unit(dataset: h5py.Dataset, file: h5py.File) -> str:
    """Return the unit of the samples, or nothing if the file has none."""
    for name in _UNIT_NAMES:
        stored = _attribute(dataset, file, name)
        if isinstance(stored, (str, bytes)):
            return _as_text(stored)
    return ""


def _stored_lead_names(
    dataset: h5py.Dataset,
    file: h5py.File,
    items: Mapping[str, h5py.Dataset | h5py.Group],
    n_leads: int,
) -> tuple[str, ...]:
    """Return lead names from an attribute or a dataset of strings, or nothing if there is none."""
    for name in _LEAD_NAMES:
        stored = _attribute(dataset, file, name)
        if stored is None and getattr(items.get(name), "size", None) == n_leads:
            stored = items[name][()]
        if stored is None:
            continue
        names = np.ravel(np.asarray(stored))
        if names.size == n_leads and names.dtype.kind in "OSU":
            return tuple(_as_text(value) for value in names.tolist())
    return ()


def _lead_names(layout: _Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return lead names and flags.

    Twelve unnamed leads are in the standard order, as SPH and CODE-15% publish them.
    """
    if layout.leads:
        return layout.leads, ()
    if layout.n_leads == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return ("",) * layout.n_leads, ()


# Samples ------------------------------------------------------------------------------------------


def _row(path: Path, layout: _Layout, part: str) -> int | None:
    """Return the row of a record id, or None for a file of one record."""
    if not layout.has_many:
        if part:
            raise RecordError(path, f"holds one record: expected the file's name without ::{part}")
        return None
    if not part and len(layout.rows) == 1:
        return next(iter(layout.rows.values()))
    if part not in layout.rows:
        shown = ", ".join(list(layout.rows)[:3])
        problem = f"no record {part!r}" if part else "many records"
        raise RecordError(
            path,
            f"holds {problem}, {len(layout.rows)} in all ({shown}, ...): name one as "
            f"{path.name}::ID",
        )
    return layout.rows[part]


def _read_rows(
    path: Path, layout: _Layout, row: int | None, start: int, stop: int | None
) -> Float32Array:
    """Return samples `start` to `stop` of a record in the unit of the file.

    The shape is (n_leads, n_samples). Samples that are not finite are NaN.
    """
    if row is not None and layout.block > 1:
        status = os.stat(path)
        block = _read_block(str(path), status.st_mtime_ns, status.st_size, row // layout.block)
        raw = block[row % layout.block]
        raw = raw[start:stop] if layout.leads_last else raw[:, start:stop]
    else:
        raw = _read_slice(path, layout, row, start, stop)
    by_lead = raw.T if layout.leads_last else raw  # (n_leads, n_samples)
    # Always a copy: the block is kept for the records beside this one.
    values = np.array(by_lead, np.float32, order="C")
    if not values.size:
        raise RecordError(path, "holds no samples: expected one or more")
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = np.nan
    return values


def _read_slice(
    path: Path, layout: _Layout, row: int | None, start: int, stop: int | None
) -> NDArray[Any]:
    """Return samples `start` to `stop` of a record as they are stored."""
    samples = slice(start, stop)
    whole = slice(None)
    axes = (samples, whole) if layout.leads_last else (whole, samples)
    with open_hdf5(path) as file:
        dataset = members(path, file)[layout.name]
        return read_values(path, dataset, axes if row is None else (row, *axes))


# HDF5 decodes a chunk of rows for each of them. Records are read in order, so the last block is
# enough.
@lru_cache(maxsize=1)
def _read_block(path: str, mtime_ns: int, size: int, index: int) -> NDArray[Any]:
    """Return the rows that are stored together, shape (block, ...)."""
    layout = _layout(Path(path))
    with open_hdf5(Path(path)) as file:
        rows = slice(index * layout.block, (index + 1) * layout.block)
        return read_values(Path(path), members(Path(path), file)[layout.name], rows)


def _rows_per_block(dataset: h5py.Dataset) -> int:
    """Return the number of rows in a storage chunk if memory allows, else 1."""
    n_rows = int(dataset.chunks[0]) if dataset.chunks and dataset.ndim == 3 else 1
    n_bytes = n_rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return n_rows if n_bytes <= _MAX_BLOCK_BYTES else 1


def _without_padding(path: Path, values: Float32Array, part: str) -> Float32Array:
    """Cut off the samples at both ends that are zero in all leads."""
    nonzero = np.flatnonzero((values != 0).any(axis=0))
    if not nonzero.size:
        raise RecordError(path, f"record {part} holds zeros only: expected samples")
    return np.ascontiguousarray(values[:, nonzero[0] : nonzero[-1] + 1])


# Unit ---------------------------------------------------------------------------------------------


def _millivolts(
    path: Path, layout: _Layout, gain_per_mv: float | None, amplitude: tuple[float, int] | None
) -> tuple[float, tuple[str, ...]]:
    """Return mV per unit of the file, and flags.

    The unit is that of the file, else the one given, else the one that explains the amplitude of
    the signals.

    Parameters
    ----------
    path
        The file.
    layout
        Its layout.
    gain_per_mv
        Units per mV as the user gave them, or None.
    amplitude
        Arguments for `unit_by_amplitude` if they are known; None measures several records.
    """
    if layout.unit:
        factor = millivolts_per_unit(layout.unit)
        if factor is None:
            raise RecordError(path, f"its unit is {layout.unit}: expected mV, uV or V")
        return factor, ()
    if gain_per_mv:
        return 1.0 / gain_per_mv, ()
    # Integers are ADC values, and the gains of converters are of any size.
    if layout.is_integer:
        raise RecordError(
            path,
            "holds integers and says no unit: give --source-gain NAME=ADU_PER_MV "
            "(source_gain_per_mv=)",
        )
    if amplitude is None:
        status = os.stat(path)
        amplitude = _typical_amplitude(str(path), status.st_mtime_ns, status.st_size)
    factor = unit_by_amplitude(*amplitude)
    if factor is None:
        raise RecordError(
            path,
            f"says no unit, and an amplitude of {amplitude[0]:.3g} fits no voltage: give "
            "--source-gain NAME=UNITS_PER_MV (source_gain_per_mv=)",
        )
    return factor, () if factor == 1 else (f"unit_assumed:{_UNIT_OF[factor]}",)


def unit_by_amplitude(amplitude: float, n_records: int) -> float | None:
    """Return mV per unit for signals of a typical amplitude, or None if no unit explains it.

    Parameters
    ----------
    amplitude
        Median over records and leads of the range from the 1st to the 99th percentile. In mV it is
        near 1: single records of PTB-XL and the Challenges have 0.3 to 6.2, the median of several
        0.9 to 1.2.
    n_records
        Number of records in the median. Only the median of several tells mV from tenths of mV, the
        unit of the CODE studies.
    """
    # Flat signals look the same in any unit.
    if not amplitude or math.isnan(amplitude):
        return 1.0
    ranges = _RANGES_OF_MANY if n_records >= _MANY else _RANGES_OF_ONE
    for low, high, factor in ranges:
        if low <= amplitude < high:
            return factor
    return None


@lru_cache(maxsize=32)
def _typical_amplitude(path: str, mtime_ns: int, size: int) -> tuple[float, int]:
    """Return the amplitude in the unit of the file, and the number of records that it is of."""
    layout = _layout(Path(path))
    rows: list[int | None] = list(layout.rows.values()) if layout.has_many else [None]
    # Two runs of neighbours, at the start and in the middle: a chunk is then decoded once.
    middle, half = len(rows) // 2, _N_PROBED // 2
    probed_rows = rows[:half] + rows[max(middle, half) :][:half]
    amplitudes = []
    for row in probed_rows:
        amplitude = _amplitude(_read_rows(Path(path), layout, row, 0, 100_000))
        # Flat records say nothing about the unit.
        if amplitude:
            amplitudes.append(amplitude)
    return (float(np.median(amplitudes)) if amplitudes else 0.0), len(amplitudes)


def _amplitude(values: Float32Array) -> float:
    """Return the median over leads of the range from the 1st to the 99th percentile.

    Flat leads do not count. The amplitude is 0 if all leads are flat.
    """
    # About two thousand samples are enough.
    thinned = np.nan_to_num(values[:, :: max(1, values.shape[1] // 2000)])
    thinned = thinned[:, (thinned != 0).any(axis=0)]
    if not thinned.shape[1]:
        return 0.0
    # Damaged floats may be as large as floats get.
    with np.errstate(all="ignore"):
        low, high = np.percentile(thinned, (1, 99), axis=1)
        ranges = (high - low)[high > low]
    return float(np.median(ranges)) if ranges.size else 0.0
