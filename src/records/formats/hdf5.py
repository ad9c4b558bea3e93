"""HDF5: one record in a file (SPH's dataset ``ecg``) or many (CODE-15%'s ``tracings``).

A file of many records is never loaded whole: its ids are listed once, and a record is read by its
row. What the file states in attributes, datasets and groups is used (see `stated_facts`).
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

from src.records.formats.arrays import check_lead_count
from src.records.formats.errors import open_error
from src.records.formats.hdf5_access import (
    attribute_names,
    member,
    member_names,
    open_hdf5,
    read_attribute,
    read_fact,
    read_values,
)
from src.records.formats.stated_facts import (
    MIN_SAMPLES,
    Choice,
    Facts,
    Place,
    Probe,
    SignalKind,
    amplitude_of,
    as_text,
    choose_channels,
    count_of_leads,
    fact_of,
    find_facts,
    is_whole,
    lead_names,
    names_or_standard,
    sampling_rate,
    stated_rates,
    stated_units,
    voltage_scale,
)
from src.records.record import MAX_VALUES, ECGRecord, Extent, RecordError, RecordRequest

if TYPE_CHECKING:
    import h5py


# Names under which sources store signals and ids.
_SIGNAL_NAMES = (
    "ecg",
    "tracings",
    "signal",
    "signals",
    "data",
    "val",
    "ECG",
    "p_signal",
    "d_signal",
)
_ID_NAMES = ("exam_id", "id_exam", "record_id", "ecg_id", "ids", "id")
# Hz. SPH and CODE-15% give their rate in their papers, not in their files.
_PUBLISHED_FS = {"ecg": 500.0, "tracings": 400.0}

_MAX_RECORDS = 10_000_000
# Bytes of a record, and records that a file of any size may have.
_MIN_RECORD_BYTES = 100
_FEW_RECORDS = 100_000
_MAX_BLOCK_BYTES = 2**27
# Values of a fact of a file of few records.
_FEW_VALUES = 10_000
# Groups that are searched for signals and for what is stated of them.
_MAX_GROUPS = 100
# Records whose amplitude is measured to find the unit.
_N_PROBED = 64


@dataclass(frozen=True)
class _Layout:
    """The structure of a file.

    Attributes
    ----------
    name
        Name of the dataset of signals, with its group.
    shape
        Its shape: of one record, or (n_records, ...) of many. Leads come first or last.
    is_integer
        Whether samples are integers, so that their unit cannot be guessed.
    leads_last
        Whether a record is stored as samples by leads.
    block
        Number of rows that are read at a time.
    rows
        Row of each record id; empty for a file of one record.
    facts
        What the file states about its signals.
    """

    name: str
    shape: tuple[int, ...]
    is_integer: bool
    leads_last: bool
    block: int
    rows: dict[str, int]
    facts: Facts

    @property
    def has_many(self) -> bool:
        """Whether the first axis counts records."""
        return len(self.shape) == 3

    @property
    def n_leads(self) -> int:
        """The number of leads."""
        return self.shape[-1 if self.leads_last else -2]

    @property
    def n_samples(self) -> int:
        """The number of samples per lead, padding included."""
        return self.shape[-2 if self.leads_last else -1]

    @property
    def published_fs(self) -> float | None:
        """The rate that the source of a known layout publishes, or None."""
        return _PUBLISHED_FS.get(self.name.rpartition("/")[2])

    @property
    def kind(self) -> SignalKind:
        """What name and type say of the samples."""
        name = self.name.rpartition("/")[2]
        return SignalKind(
            is_physical=name.startswith("p_"),
            is_integer=self.is_integer,
            is_code=name == "tracings",
        )

    def place(self, row: int | None) -> Place:
        """Return the place of a record."""
        n_records = self.shape[0] if self.has_many else 1
        return Place(row, n_records, self.n_leads, tuple(range(self.n_leads)))


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
    names, choice, place = _chosen(path, layout, row, request)
    fs, fs_flags = sampling_rate(path, layout.facts, place, request.hints, layout.published_fs)
    values = _read_rows(path, layout, row, request.start, request.stop)
    if choice.unused:
        values = values[list(choice.kept)]
    # The samples of a whole file are here already. Otherwise the file is probed for its unit.
    is_whole_file = not (layout.has_many or request.start or request.stop)

    def probe() -> Probe:
        if is_whole_file:
            return Probe(amplitude_of(values), 1, is_whole(values))
        status = os.stat(path)
        return _probe(str(path), status.st_mtime_ns, status.st_size, choice.kept)

    gain_per_mv = request.hints.gain_per_mv
    scale = voltage_scale(path, layout.facts, place, layout.kind, gain_per_mv, probe)
    if row is not None:
        values = _without_padding(path, values, request.part)
    kept_names = tuple([names[row] for row in choice.kept]) if names else ()
    leads, lead_flags = names_or_standard(kept_names, len(choice.kept))
    return ECGRecord(
        record_id=request.part or path.stem,
        signal=scale.apply(values),
        fs=fs,
        leads=leads,
        flags=(*fs_flags, *scale.flags, *choice.flags, *lead_flags),
        unused=choice.unused,
    )


def hdf5_extent(path: Path, request: RecordRequest) -> Extent | None:
    """Return the length of a file's only record.

    Returns None for a file of many, whose records have to be read to find their padding, and for a
    file without a rate.
    """
    layout = _layout(path)
    if layout.has_many:
        return None
    _, _, place = _chosen(path, layout, None, request)
    rates, _ = stated_rates(path, layout.facts, place)
    fs = rates[0] if rates else request.hints.fs or layout.published_fs
    return None if fs is None else Extent(layout.n_samples, float(fs))


def _chosen(
    path: Path, layout: _Layout, row: int | None, request: RecordRequest
) -> tuple[tuple[str, ...], Choice, Place]:
    """Return the names of a record's channels, which are its ECG, and the place of these."""
    place = layout.place(row)
    names = lead_names(path, layout.facts, place)
    check_lead_count(path, layout.shape, layout.n_leads, names)
    units = stated_units(path, layout.facts, place)
    choice = choose_channels(path, names, units, request.hints.leads)
    return names, choice, place._replace(kept=choice.kept)


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
        name, group, dataset = _find_signals(Path(path), file)
        shape = tuple(int(n) for n in dataset.shape)
        facts = _stated_facts(Path(path), file, group, dataset)
        axis = count_of_leads(facts, (shape[-2], shape[-1]))
        return _Layout(
            name=name,
            shape=shape,
            is_integer=dataset.dtype.kind in "iu",
            # The shorter side is the leads.
            leads_last=shape[-1] < shape[-2] if axis is None else axis == 1,
            block=_rows_per_block(dataset),
            rows=_rows(Path(path), file, group, dataset) if len(shape) == 3 else {},
            facts=facts,
        )


def _find_signals(path: Path, file: h5py.File) -> tuple[str, h5py.Group, h5py.Dataset]:
    """Return the name of the dataset of signals, its group, and the dataset.

    It is beside the groups of the file, or else in one of them.
    """
    import h5py

    names = member_names(path, file)
    for name in _SIGNAL_NAMES:
        item = member(path, file, name) if name in names else None
        if isinstance(item, h5py.Dataset) and _may_be_signals(path, name, item):
            return name, file, item
    for group_name in names[:_MAX_GROUPS]:
        group = _inner_group(path, file, group_name)
        if group is None:
            continue
        held = member_names(path, group)
        for name in [name for name in _SIGNAL_NAMES if name in held]:
            item = member(path, group, name)
            if isinstance(item, h5py.Dataset) and _may_be_signals(path, name, item):
                return f"{group_name}/{name}", group, item
    listed = ", ".join(sorted(names)[:10]) or "nothing"
    raise RecordError(
        path,
        f"holds {listed}: expected signals of 2 or 3 dimensions called {', '.join(_SIGNAL_NAMES)}",
    )


def _inner_group(path: Path, group: h5py.Group, name: str) -> h5py.Group | None:
    """Return a group inside a group, and None for anything else and for what leads elsewhere."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    item = group[name]
    return item if isinstance(item, h5py.Group) else None


def _may_be_signals(path: Path, name: str, item: h5py.Dataset) -> bool:
    """Return whether a dataset has the type and dimensions of signals.

    Raises
    ------
    RecordError
        If it has, but is empty or too large.
    """
    if item.dtype.kind not in "iuf" or item.ndim not in (2, 3):
        return False
    if not item.size:
        raise RecordError(path, f"{name} has shape {item.shape}: expected leads and samples")
    if math.prod(item.shape[-2:]) > MAX_VALUES:
        raise RecordError(
            path,
            f"a record of {name} has shape {item.shape[-2:]}, the limit is {MAX_VALUES} values",
        )
    return True


def _stated_facts(path: Path, file: h5py.File, group: h5py.Group, dataset: h5py.Dataset) -> Facts:
    """Return what is stated about the signals: by them, in their group, and around it."""
    levels: list[Mapping[str, object]] = [_attributes(dataset)]
    # One value for each lead of each record at most.
    n_most = max(_FEW_VALUES, math.prod(dataset.shape) // max(dataset.shape[-2:]))
    for around in [group, file] if group.name != "/" else [file]:
        levels += [_attributes(around), _stated_in(path, around, n_most, 0)]
    return find_facts(levels)


def _attributes(item: h5py.Dataset | h5py.Group) -> dict[str, object]:
    """Return the attributes of an object that state a fact."""
    return {name: read_attribute(item, name) for name in attribute_names(item) if fact_of(name)}


def _stated_in(path: Path, group: h5py.Group, n_most: int, depth: int) -> dict[str, object]:
    """Return the datasets in a group that state a fact, and the groups in it that do."""
    import h5py

    stated: dict[str, object] = {}
    n_groups = 0
    for name in member_names(path, group):
        if fact_of(name):
            item = member(path, group, name)
            if isinstance(item, h5py.Dataset):
                stated[name] = read_fact(path, item, n_most)
        elif depth == 0 and n_groups < _MAX_GROUPS:
            inner = _inner_group(path, group, name)
            n_groups += 1
            # What is in a group of other signals is said of those.
            if inner is not None and not _has_signals(path, inner):
                stated[name] = {**_stated_in(path, inner, n_most, 1), **_attributes(inner)}
    return stated


def _has_signals(path: Path, group: h5py.Group) -> bool:
    """Return whether a group holds signals, as far as names and sizes tell."""
    import h5py

    for name in member_names(path, group)[:_MAX_GROUPS]:
        link = group.get(name, getlink=True)
        if fact_of(name) or not isinstance(link, h5py.HardLink):
            continue
        item = group[name]
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
            continue
        # The shape of values in other files must not be asked for.
        is_outside = item.is_virtual or item.external
        if is_outside or max(item.shape or (0,), default=0) >= MIN_SAMPLES:
            return True
    return False


def _rows(path: Path, file: h5py.File, group: h5py.Group, dataset: h5py.Dataset) -> dict[str, int]:
    """Return the row of each record id.

    Without ids in the file, an id is the file's stem and the row.
    """
    n_records = int(dataset.shape[0])
    # Each record is listed by its id, whether its samples are there or not.
    limit = min(_MAX_RECORDS, max(_FEW_RECORDS, path.stat().st_size // _MIN_RECORD_BYTES))
    if n_records > limit:
        raise RecordError(path, f"promises {n_records} records, the limit is {limit} for its size")
    ids = _read_ids(path, file, group, n_records)
    if ids is None:
        return {f"{path.stem}-{row:05d}": row for row in range(n_records)}
    rows: dict[str, int] = {}
    for row, value in enumerate(ids):
        name = _as_id(value)
        rows[name if name not in rows else f"{name}-row{row}"] = row
    # CODE-15%'s files end in a row of zeros with the id 0, which is not a record. A damaged float
    # there makes NumPy warn.
    with np.errstate(invalid="ignore"):
        if "0" in rows and n_records > 1 and not read_values(path, dataset, rows["0"]).any():
            del rows["0"]
    return rows


def _read_ids(
    path: Path, file: h5py.File, group: h5py.Group, n_records: int
) -> list[object] | None:
    """Return an id for each record, beside the signals or in the root, or None."""
    import h5py

    for around in (group, file):
        names = set(member_names(path, around))
        for name in [name for name in _ID_NAMES if name in names]:
            item = member(path, around, name)
            if isinstance(item, h5py.Dataset) and item.shape and item.size == n_records:
                ids = read_fact(path, item, _MAX_RECORDS)
                if ids is not None:
                    return list(np.ravel(ids).tolist())
    return None


def _as_id(value: object) -> str:
    """Return an id as text, without spaces and slashes around it."""
    # Ids that went through a table with missing values are stored as 12.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = as_text(value) if isinstance(value, (str, bytes)) else str(value)
    return text.strip("/")


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
) -> NDArray[Any]:
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
    # Always a copy: the block is kept for the records beside this one. Large integers need more
    # digits than single precision has.
    is_wide = raw.dtype.kind in "iu" and raw.dtype.itemsize > 2
    values = np.array(by_lead, np.float64 if is_wide else np.float32, order="C")
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
        dataset = _dataset(path, file, layout)
        return read_values(path, dataset, axes if row is None else (row, *axes))


def _dataset(path: Path, file: h5py.File, layout: _Layout) -> h5py.Dataset:
    """Return the dataset of signals of a file that is open again."""
    import h5py

    dataset = member(path, file, layout.name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape != layout.shape:
        raise RecordError(path, "has changed while it was read")
    return dataset


# HDF5 decodes a chunk of rows for each of them. Records are read in order, so the last block is
# enough.
@lru_cache(maxsize=1)
def _read_block(path: str, mtime_ns: int, size: int, index: int) -> NDArray[Any]:
    """Return the rows that are stored together, shape (block, ...)."""
    layout = _layout(Path(path))
    with open_hdf5(Path(path)) as file:
        rows = slice(index * layout.block, (index + 1) * layout.block)
        return read_values(Path(path), _dataset(Path(path), file, layout), rows)


def _rows_per_block(dataset: h5py.Dataset) -> int:
    """Return the number of rows in a storage chunk if memory allows, else 1."""
    n_rows = int(dataset.chunks[0]) if dataset.chunks and dataset.ndim == 3 else 1
    n_bytes = n_rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return n_rows if n_bytes <= _MAX_BLOCK_BYTES else 1


def _without_padding(path: Path, values: NDArray[Any], part: str) -> NDArray[Any]:
    """Cut off the samples at both ends that are zero in all leads."""
    nonzero = np.flatnonzero((values != 0).any(axis=0))
    if not nonzero.size:
        raise RecordError(path, f"record {part} holds zeros only: expected samples")
    return np.ascontiguousarray(values[:, nonzero[0] : nonzero[-1] + 1])


# Unit ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _probe(path: str, mtime_ns: int, size: int, kept: tuple[int, ...]) -> Probe:
    """Look at the samples of some records of a file, in its unit; `kept` are the rows of leads."""
    layout = _layout(Path(path))
    rows: list[int | None] = list(layout.rows.values()) if layout.has_many else [None]
    # Two runs of neighbours, at the start and in the middle: a chunk is then decoded once.
    middle, half = len(rows) // 2, _N_PROBED // 2
    probed_rows = rows[:half] + rows[max(middle, half) :][:half]
    amplitudes = []
    are_whole = True
    for row in probed_rows:
        values = _read_rows(Path(path), layout, row, 0, 100_000)[list(kept)]
        amplitude = amplitude_of(values)
        # Flat records say nothing about the unit.
        if amplitude:
            amplitudes.append(amplitude)
            are_whole = are_whole and is_whole(values)
    typical = float(np.median(amplitudes)) if amplitudes else 0.0
    return Probe(typical, len(amplitudes), are_whole)
