"""HDF5: one record per file (SPH's dataset ``ecg``) or many (CODE-15%'s ``tracings`` with their
``exam_id``).

A file of many records is never held whole: its ids are listed once, and a record is read by its
row. What a hostile file can do is bounded: no external link or storage is followed, and a data set
that promises more values than its bytes can hold is refused before memory is taken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.facts import millivolts_per_unit
from src.records.formats.errors import open_error, package_error
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest
from src.utils import Float32Array

if TYPE_CHECKING:
    import h5py


SIGNAL_NAMES = ("ecg", "tracings", "signal", "signals", "data", "val", "ECG", "p_signal")
_ID_NAMES = ("exam_id", "id_exam", "record_id", "ecg_id", "ids", "id")
_FS_NAMES = ("fs", "Fs", "sampling_rate", "sampling_frequency", "sample_rate", "freq")
_UNIT_NAMES = ("units", "unit")
_LEAD_NAMES = ("leads", "lead_names", "sig_name")
PUBLISHED_FS = {
    "ecg": 500.0,
    "tracings": 400.0,
}  # Hz; SPH and CODE-15% say it in their papers, not in their files
_MAX_NUMBERS = 1_000_000  # of a data set that says the same of each record

_MAX_RECORDS = 10_000_000
_MAX_CHUNK_BYTES = 2**29
_MAX_BLOCK_BYTES = 2**27
_SMALL_BYTES = 2**26
# no compression finds so much in ECGs; values that were never written, or a zip bomb, give more
_MAX_RATIO = 100
_N_PROBED = 64
_MANY = 8  # records from which on a median tells units apart that differ by ten
# Amplitude from, up to, and mV per unit.
_RANGES_OF_MANY = ((3e-4, 3e-3, 1e3), (0.3, 3.0, 1.0), (3.0, 30.0, 0.1), (300.0, 3000.0, 1e-3))
_UNIT_OF = {1e3: "V", 0.1: "0.1mV", 1e-3: "uV"}
_RANGES_OF_ONE = ((1e-4, 1e-2, 1e3), (0.03, 30.0, 1.0), (100.0, 10_000.0, 1e-3))


@dataclass(frozen=True)
class _Layout:
    """What a file holds.

    The shape of its signals, whether they are integer counts, how many rows are read at a time, and
    the row of each id where it holds many records.
    """

    name: str
    shape: tuple[int, ...]
    counts: bool
    block: int
    rows: dict[str, int]
    fs: float | None
    unit: str
    leads: tuple[str, ...]

    @property
    def many(self) -> bool:
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
    """Return the ids of the records of a file of many, and none for a file of one.

    Raises
    ------
    RecordError
        If the file is unreadable or holds no signals.
    """
    layout = _layout(path)
    return tuple(layout.rows) if layout.many else ()


def read_hdf5(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the record of a file, or the one that `request.part` names; the zeros around a padded
    record are cut off.

    Raises
    ------
    RecordError
        If the file is broken, holds no such record, or its unit or rate is neither known nor given.
    """
    layout = _layout(path)
    row = _row(path, layout, request.part)
    fs = layout.fs or request.hints.fs or PUBLISHED_FS.get(layout.name)
    if fs is None:
        raise RecordError(path, "says no sampling rate: give --source-fs NAME=HZ (source_fs=)")
    flags = () if layout.fs or request.hints.fs else ("fs_assumed",)
    values = _read_rows(path, layout, row, request.start, request.stop)
    alone = None if layout.many or request.start or request.stop else (_amplitude(values), 1)
    scale, unit_flags = _millivolts(path, layout, request.hints.gain_per_mv, alone)
    if row is not None:
        values = _without_padding(path, values, request.part)
    leads, lead_flags = _lead_names(layout)
    return ECGRecord(
        record_id=request.part or path.stem,
        signal=values if scale == 1 else values * np.float32(scale),
        fs=float(fs),
        leads=leads,
        flags=(*flags, *unit_flags, *lead_flags),
    )


def hdf5_extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return the length of a file's only record; that of a padded one is known after reading it."""
    layout = _layout(path)
    fs = layout.fs or request.hints.fs or PUBLISHED_FS.get(layout.name)
    return None if layout.many or fs is None else Extent(max(layout.shape), float(fs))


# Layout -------------------------------------------------------------------------------------------


def _layout(path: Path) -> _Layout:
    """Return a file's layout, kept for the files seen last so that their ids are listed once."""
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
        rows = _rows(Path(path), file, items, dataset) if len(shape) == 3 else {}
        return _Layout(
            name=name,
            shape=shape,
            counts=dataset.dtype.kind in "iu",
            block=_rows_per_block(dataset),
            rows=rows,
            fs=_number(dataset, file, items, _FS_NAMES),
            unit=_text(dataset, file, _UNIT_NAMES),
            leads=_names(dataset, file, items, min(shape[-2:])),
        )


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading; whatever the library meets in a broken one, also later, becomes one
    kind of error.

    Raises
    ------
    RecordError
        If it is no HDF5 file, or damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise package_error(path, error, "HDF5") from None


def members(path: Path, group: h5py.Group) -> dict[str, Any]:
    """Return the members of a group by name; a link that leads out of the file is refused.

    Raises
    ------
    RecordError
        If there is such a link.
    """
    import h5py

    found = {}
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise RecordError(
                path, f"{name} is a link to another file: expected the data in the file itself"
            )
        item = group.get(name)
        if item is not None:  # a soft link may lead nowhere
            found[name] = item
    return found


def read_values(path: Path, dataset: h5py.Dataset, selection: Any = ()) -> NDArray[Any]:
    """Read a data set or a selection of it, after checking that its bytes can hold what it
    promises.

    Raises
    ------
    RecordError
        If it lies outside the file, was never written, or is too large.
    """
    if dataset.is_virtual or dataset.external:
        raise RecordError(
            path, f"{dataset.name} is stored outside the file: expected the data in the file itself"
        )
    nbytes = int(dataset.size or 0) * dataset.dtype.itemsize
    stored = int(dataset.id.get_storage_size())
    chunk = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    if nbytes > _SMALL_BYTES and nbytes > stored * _MAX_RATIO:
        raise RecordError(
            path,
            f"{dataset.name} promises {nbytes} bytes, {stored} are stored: expected the samples",
        )
    if chunk > _MAX_CHUNK_BYTES:
        raise RecordError(
            path,
            f"{dataset.name} is stored in chunks of {chunk} bytes, the limit is {_MAX_CHUNK_BYTES}",
        )
    if selection == () and int(dataset.size or 0) > MAX_VALUES:
        raise RecordError(
            path, f"{dataset.name} of shape {dataset.shape} is over {MAX_VALUES} values"
        )
    return np.asarray(dataset[selection])


def _find_signals(path: Path, items: dict[str, Any]) -> tuple[str, h5py.Dataset]:
    import h5py

    for name in SIGNAL_NAMES:
        item = items.get(name)
        if (
            not isinstance(item, h5py.Dataset)
            or item.dtype.kind not in "iuf"
            or item.ndim not in (2, 3)
        ):
            continue
        if not item.size:
            raise RecordError(path, f"{name} has shape {item.shape}: expected leads and samples")
        if math.prod(item.shape[-2:]) > MAX_VALUES:
            raise RecordError(
                path,
                f"a record of {name} has shape {item.shape[-2:]}, the limit is {MAX_VALUES} values",
            )
        return name, item
    there = ", ".join(sorted(items)[:10]) or "nothing"
    raise RecordError(
        path,
        f"holds {there}: expected signals of 2 or 3 dimensions called {', '.join(SIGNAL_NAMES)}",
    )


def _rows(
    path: Path, file: h5py.File, items: dict[str, Any], dataset: h5py.Dataset
) -> dict[str, int]:
    """Return id -> row; without ids a record is called by the file's stem and its row.

    CODE-15%'s files end in a row of zeros with the id 0, which is no record.
    """
    import h5py

    n_records = int(dataset.shape[0])
    if n_records > _MAX_RECORDS:
        raise RecordError(path, f"promises {n_records} records, the limit is {_MAX_RECORDS}")
    found = next(
        (
            items[n]
            for n in _ID_NAMES
            if isinstance(items.get(n), h5py.Dataset) and items[n].size == n_records
        ),
        None,
    )
    if found is None:
        return {f"{path.stem}-{row:05d}": row for row in range(n_records)}
    rows: dict[str, int] = {}
    for row, value in enumerate(np.ravel(read_values(path, found)).tolist()):
        name = _id_text(value)
        rows[name if name not in rows else f"{name}-row{row}"] = row
    with np.errstate(invalid="ignore"):  # damaged floats
        if "0" in rows and n_records > 1 and not read_values(path, dataset, rows["0"]).any():
            del rows["0"]
    return rows


def _id_text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip().strip("/")


def _attribute(dataset: h5py.Dataset, file: h5py.File, name: str) -> Any:
    """Return what an attribute of the data set says, or else one of the file; None where there is
    none.
    """
    return dataset.attrs.get(name, file.attrs.get(name))


def _number(
    dataset: h5py.Dataset, file: h5py.File, items: dict[str, Any], names: tuple[str, ...]
) -> float | None:
    """Return a positive number from the attributes of the data set or the file, or from a data set
    that holds it once or for each record.
    """
    for name in names:
        held = _attribute(dataset, file, name)
        item = items.get(name)
        if (
            held is None
            and item is not None
            and getattr(item, "dtype", np.dtype("O")).kind in "iuf"
            and 0 < (item.size or 0) <= _MAX_NUMBERS
        ):
            held = read_values(Path(file.filename), item)
        try:
            values = np.ravel([] if held is None else held).astype(np.float64)
        except (TypeError, ValueError):  # text that is no number
            continue
        if values.size and (values == values[0]).all() and 0 < values[0] <= 1e6:
            return float(values[0])
    return None


def _text(dataset: h5py.Dataset, file: h5py.File, names: tuple[str, ...]) -> str:
    for name in names:
        held = _attribute(dataset, file, name)
        if isinstance(held, (str, bytes)):
            return _id_text(held)
    return ""


def _names(
    dataset: h5py.Dataset, file: h5py.File, items: dict[str, Any], n_leads: int
) -> tuple[str, ...]:
    """Return the names of the leads where an attribute or a data set of strings lists them."""
    for name in _LEAD_NAMES:
        held = _attribute(dataset, file, name)
        if held is None and getattr(items.get(name), "size", None) == n_leads:
            held = items[name][()]
        values = np.ravel([] if held is None else held)
        if values.size == n_leads and values.dtype.kind in "OSU":
            return tuple(_id_text(value) for value in values.tolist())
    return ()


def _lead_names(layout: _Layout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and flags; twelve unnamed leads stand in the standard order, as SPH and CODE-15%
    publish them.
    """
    if layout.leads:
        return layout.leads, ()
    if layout.n_leads == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return ("",) * layout.n_leads, ()


# Samples ------------------------------------------------------------------------------------------


def _row(path: Path, layout: _Layout, part: str) -> int | None:
    if not layout.many:
        if part:
            raise RecordError(path, f"holds one record: expected the file's name without ::{part}")
        return None
    if not part and len(layout.rows) == 1:
        return next(iter(layout.rows.values()))
    if part not in layout.rows:
        shown = ", ".join(list(layout.rows)[:3])
        asked = f"no record {part!r}" if part else "many records"
        raise RecordError(
            path,
            f"holds {asked}, {len(layout.rows)} in all ({shown}, ...): name one as {path.name}::ID",
        )
    return layout.rows[part]


def _read_rows(
    path: Path, layout: _Layout, row: int | None, start: int, stop: int | None
) -> Float32Array:
    """Return float32 values (n_leads, n_samples) in the unit of the file, NaN where one is not
    finite.
    """
    if row is not None and layout.block > 1:
        status = os.stat(path)
        block = _read_block(str(path), status.st_mtime_ns, status.st_size, row // layout.block)
        raw = block[row % layout.block]
        raw = raw[start:stop] if layout.leads_last else raw[:, start:stop]
    else:
        samples, whole = slice(start, stop), slice(None)
        axes = (samples, whole) if layout.leads_last else (whole, samples)
        with open_hdf5(path) as file:
            raw = read_values(
                path, members(path, file)[layout.name], axes if row is None else (row, *axes)
            )
    values = np.array(
        raw.T if layout.leads_last else raw, np.float32, order="C"
    )  # a copy: the block is kept for neighbours
    if not values.size:
        raise RecordError(path, "holds no samples: expected one or more")
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = np.nan
    return values


@lru_cache(maxsize=1)
def _read_block(path: str, mtime_ns: int, size: int, index: int) -> NDArray[Any]:
    """Return the rows that are stored together, so that neighbours do not each decode them all."""
    layout = _layout(Path(path))
    with open_hdf5(Path(path)) as file:
        rows = slice(index * layout.block, (index + 1) * layout.block)
        return read_values(Path(path), members(Path(path), file)[layout.name], rows)


def _rows_per_block(dataset: h5py.Dataset) -> int:
    """Return how many rows to read at a time: those of a storage chunk where it holds several and
    memory allows it.
    """
    rows = int(dataset.chunks[0]) if dataset.chunks and dataset.ndim == 3 else 1
    fits = rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize <= _MAX_BLOCK_BYTES
    return rows if fits else 1


def _without_padding(path: Path, values: Float32Array, part: str) -> Float32Array:
    """Cut off the zeros of all leads at both ends."""
    live = np.flatnonzero((values != 0).any(axis=0))
    if not live.size:
        raise RecordError(path, f"record {part} holds zeros only: expected samples")
    return np.ascontiguousarray(values[:, live[0] : live[-1] + 1])


# Unit ---------------------------------------------------------------------------------------------


def _millivolts(
    path: Path, layout: _Layout, gain_per_mv: float | None, probed: tuple[float, int] | None
) -> tuple[float, tuple[str, ...]]:
    """Return mV per unit of the file and flags: as the file says, as given, or by the amplitude of
    its signals.
    """
    if layout.unit:
        factor = millivolts_per_unit(layout.unit)
        if factor is None:
            raise RecordError(path, f"its unit is {layout.unit}: expected mV, uV or V")
        return factor, ()
    if gain_per_mv:
        return 1.0 / gain_per_mv, ()
    if layout.counts:
        raise RecordError(
            path,
            "holds integers and says no unit: give --source-gain NAME=ADU_PER_MV "
            "(source_gain_per_mv=)",
        )
    status = os.stat(path)
    amplitude, n_probed = probed or _typical_amplitude(
        str(path), status.st_mtime_ns, status.st_size
    )
    factor = unit_by_amplitude(amplitude, n_probed)
    if factor is None:
        raise RecordError(
            path,
            f"says no unit, and beats of {amplitude:.3g} are no voltage: give "
            "--source-gain NAME=UNITS_PER_MV (source_gain_per_mv=)",
        )
    return factor, () if factor == 1 else (f"unit_assumed:{_UNIT_OF[factor]}",)


def unit_by_amplitude(amplitude: float, n_records: int) -> float | None:
    """Return mV per unit for signals of a typical amplitude, or None where no unit explains it.

    Parameters
    ----------
    amplitude
        Median over records and leads of the range from the 1st to the 99th percentile. In mV it is
        near 1: single records of PTB-XL and the Challenges have 0.3 to 6.2, the median of several
        0.9 to 1.2.
    n_records
        How many records it is the median of. Only several tell mV from tenths of it, the unit of
        the CODE studies.
    """
    if not amplitude or math.isnan(amplitude):
        return 1.0
    ranges = _RANGES_OF_MANY if n_records >= _MANY else _RANGES_OF_ONE
    return next((factor for low, high, factor in ranges if low <= amplitude < high), None)


@lru_cache(maxsize=32)
def _typical_amplitude(path: str, mtime_ns: int, size: int) -> tuple[float, int]:
    """Return the amplitude for `unit_by_amplitude` in the unit of the file, and the records it was
    taken from.
    """
    layout = _layout(Path(path))
    rows: list[int | None] = list(layout.rows.values()) if layout.many else [None]
    middle, half = len(rows) // 2, _N_PROBED // 2
    chosen = (
        rows[:half] + rows[max(middle, half) :][:half]
    )  # neighbours, as they may be stored in one chunk
    probed = [_amplitude(_read_rows(Path(path), layout, row, 0, 100_000)) for row in chosen]
    amplitudes = [value for value in probed if value]
    return (float(np.median(amplitudes)) if amplitudes else 0.0), len(amplitudes)


def _amplitude(values: Float32Array) -> float:
    """Return the median over leads of the range from the 1st to the 99th percentile, 0 where all
    are flat.
    """
    thin = np.nan_to_num(values[:, :: max(1, values.shape[1] // 2000)])
    thin = thin[:, (thin != 0).any(axis=0)]
    if not thin.shape[1]:
        return 0.0
    with np.errstate(all="ignore"):  # damaged floats may be as large as floats get
        low, high = np.percentile(thin, (1, 99), axis=1)
        live = (high - low)[high > low]
    return float(np.median(live)) if live.size else 0.0
