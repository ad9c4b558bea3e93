"""MAT files of many records: cells, arrays of structures, stacks, and a matrix per lead.

Whether a file may hold many is told by the names, classes and shapes of its variables, which are
read without their values, so that files of one record are not loaded twice.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.records.formats.arrays import MAX_LEADS
from src.records.formats.errors import open_error, package_error
from src.records.formats.hdf5_access import member, member_names, open_hdf5
from src.records.formats.index_table import ID_NAMES, find_index, read_ids
from src.records.formats.mat import (
    MATRIX_NAMES,
    has_known_signals,
    is_hdf5_mat,
    load_variables,
    read_mat,
    record_of,
    signal_matrix,
    signal_stack,
)
from src.records.formats.stated_facts import (
    MIN_SAMPLES,
    Probe,
    amplitude_of,
    as_values,
    fact_of,
    is_whole,
)
from src.records.leads import canonical_lead
from src.records.record import ECGRecord, RecordError, RecordRequest
from src.utils import storable

# Classes of version 5
_CELL, _STRUCT = 1, 2
_NUMBERS = range(6, 16)
# Types of an element of version 5
_MATRIX, _COMPRESSED = 14, 15
_HEAD_BYTES = 512
_MAX_VARIABLES = 1000
_MAX_RECORDS = 100_000
_PROBED_RECORDS = 64

Variables = Mapping[str, object]


class _Variable(NamedTuple):
    """Name, class and shape of a variable; the class is one of version 5, 6 to 15 for numbers."""

    name: str
    kind: int
    shape: tuple[int, ...]


class _Found(NamedTuple):
    """Records in the variables of a file.

    Attributes
    ----------
    used
        Names of the variables that hold them.
    n_records
        Number of records.
    n_leads
        Number of leads of each, or 0 if it is not known.
    at
        Returns the variables of a record.
    flags
        What was assumed.
    """

    used: tuple[str, ...]
    n_records: int
    n_leads: int
    at: Callable[[int], Variables]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Records:
    """The records of a file: the row of each id, and what is found in the variables."""

    rows: Mapping[str, int]
    variables: Variables
    found: _Found


def mat_parts(path: Path) -> tuple[str, ...]:
    """Return the ids of the records of a file of many, and nothing for one of one record.

    They are those of a variable or field such as ``record_id``, of the table beside the file, else
    the file's stem and the row.

    Raises
    ------
    RecordError
        If the file is damaged, or its ids do not name each record once.
    """
    records = _records(path)
    return () if records is None else tuple(records.rows)


def read_mat_record(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the record of a file of one, or the record that `request.part` names.

    Raises
    ------
    RecordError
        As `read_mat`, and if there is no such record.
    """
    records = _records(path)
    if records is None:
        return read_mat(path, request.hints)
    if request.part not in records.rows:
        raise RecordError(
            path,
            f"holds {len(records.rows)} records: name one that it has, such as "
            f"{path.name}::{next(iter(records.rows))}",
        )

    def probe() -> Probe:
        status = os.stat(path)
        return _probe(str(path), status.st_mtime_ns, status.st_size)

    variables = _variables_at(path, records, records.rows[request.part])
    record = record_of(path, variables, request.hints, probe=probe, record_id=request.part)
    flags = records.found.flags
    return replace(record, flags=(*record.flags, *flags)) if flags else record


def _records(path: Path) -> _Records | None:
    """Return the records of a file of many, kept for each of them; None for a file of one."""
    if not may_hold_many(path):
        return None
    try:
        status = os.stat(path)
        table = find_index(path)
        stamp = os.stat(table).st_mtime_ns if table else 0
    except OSError as error:
        raise open_error(path, error) from None
    name = str(path)
    return _cached_records(name, status.st_mtime_ns, status.st_size, str(table or ""), stamp)


@lru_cache(maxsize=1)
def _cached_records(name: str, mtime_ns: int, size: int, table: str, stamp: int) -> _Records | None:
    path = Path(name)
    variables = load_variables(path)
    found = _find_records(path, variables)
    if found is None:
        return None
    if found.n_records > _MAX_RECORDS:
        raise RecordError(path, f"holds {found.n_records} records, the limit is {_MAX_RECORDS}")
    ids = _find_ids(path, variables, found)
    if not ids:
        ids = tuple(f"{path.stem}-{row:05}" for row in range(found.n_records))
        if table:
            ids = read_ids(path, Path(table), found.n_records)
    return _Records({name: row for row, name in enumerate(ids)}, variables, found)


@lru_cache(maxsize=1)
def _probe(name: str, mtime_ns: int, size: int) -> Probe:
    """Look at the samples of some records, which tell the unit of all."""
    path = Path(name)
    records = _records(path)
    if records is None:
        raise RecordError(path, "has changed while it was read")
    n_records = len(records.rows)
    rows = np.linspace(0, n_records - 1, min(n_records, _PROBED_RECORDS)).astype(int)
    matrices = [signal_matrix(path, records.found.at(row)) for row in rows.tolist()]
    amplitudes = [amplitude for matrix in matrices if (amplitude := amplitude_of(matrix))]
    typical = float(np.median(amplitudes)) if amplitudes else 0.0
    return Probe(typical, len(amplitudes), all(map(is_whole, matrices)))


# Variables without their values -------------------------------------------------------------------


def may_hold_many(path: Path) -> bool:
    """Return whether a file may hold many records, by the classes and shapes of its variables."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES + 8)
            if is_hdf5_mat(head):
                variables = _list_hdf5(path)
            elif head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
                variables = list(_iter_version_5(stream, "<" if head[126:128] == b"IM" else ">"))
            else:
                return False
    except OSError as error:
        raise open_error(path, error) from None
    wide = [item for item in variables if _is_wide(item)]
    n_leads = sum(canonical_lead(item.name) is not None for item in wide)
    return n_leads > 1 or any(
        (item.kind in (_CELL, _STRUCT) and math.prod(item.shape) > 1)
        or (item.kind in _NUMBERS and sum(n > 1 for n in item.shape) == 3)
        for item in variables
    )


def _is_wide(item: _Variable) -> bool:
    """Return whether a variable is a matrix of numbers, not a vector."""
    return item.kind in _NUMBERS and len(item.shape) == 2 and min(item.shape) > 1


def _iter_version_5(stream: BinaryIO, order: str) -> Iterator[_Variable]:
    """Yield the variables of a file of version 5; ends where it is damaged."""
    at = 128
    for _ in range(_MAX_VARIABLES):
        stream.seek(at)
        head = stream.read(_HEAD_BYTES)
        if len(head) < 8:
            return
        kind, size = struct.unpack_from(f"{order}II", head)
        at += 8 + size
        if kind == _COMPRESSED:
            try:
                head = zlib.decompressobj().decompress(head[8:], _HEAD_BYTES)
            except zlib.error:
                return
        elif kind != _MATRIX:
            return
        variable = _parse_version_5(head, order)
        if variable is not None:
            yield variable


def _parse_version_5(head: bytes, order: str) -> _Variable | None:
    """Return the variable whose element begins with some bytes: flags, dimensions, name."""
    try:
        flags = struct.unpack_from(f"{order}I", head, 16)[0]
        n_bytes = struct.unpack_from(f"{order}I", head, 28)[0]
        shape = struct.unpack_from(f"{order}{min(n_bytes, 128) // 4}i", head, 32)
        at = 32 + n_bytes + -n_bytes % 8
        tag, length = struct.unpack_from(f"{order}II", head, at)
    except struct.error:
        return None
    # A short name is in the tag itself, with its length in the high half.
    is_short = tag >> 16
    name = head[at + 4 : at + 4 + is_short] if is_short else head[at + 8 : at + 8 + length]
    return _Variable(name.decode("latin-1"), flags & 0xFF, shape)


def _list_hdf5(path: Path) -> list[_Variable]:
    """Return the variables of a file of version 7.3; a field of structures counts as one."""
    import h5py

    variables = []
    try:
        with open_hdf5(path, "a MAT file") as file:
            names = [name for name in member_names(path, file) if not name.startswith("#")]
            for name in names[:_MAX_VARIABLES]:
                item = member(path, file, name)
                fields = [item]
                if isinstance(item, h5py.Group):
                    fields = [member(path, item, held) for held in member_names(path, item)[:100]]
                for held in fields:
                    if isinstance(held, h5py.Dataset) and held.shape is not None:
                        is_cell = held.dtype == h5py.ref_dtype
                        kind = _CELL if is_cell else 6 if held is item else 0
                        variables.append(_Variable(name, kind, held.shape[::-1]))
    except RecordError:
        raise
    # h5py raises whatever a damaged file makes it meet.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "a MAT file") from None
    return variables


# Records among the variables ----------------------------------------------------------------------


def _find_records(path: Path, variables: Variables) -> _Found | None:
    """Return the records of a file, or None if it holds one.

    A matrix of a known name, or vectors of leads, are one record; but as many vectors as there are
    ids, or more than leads, are many.
    """
    many = [_find_cells(name, value) for name, value in variables.items()]
    found = next((item for item in many if item is not None), None)
    if found is not None and _find_ids(path, variables, found):
        return found
    if has_known_signals(variables):
        return None
    return found or _find_stack(path, variables) or _find_lead_matrices(path, variables)


def _find_cells(name: str, value: object) -> _Found | None:
    """Return the records of a cell array or of an array of structures."""
    elements = _elements(value)
    if len(elements) < 2:
        return None
    if all(isinstance(element, Mapping) for element in elements):
        if not all(any(map(_is_signal, element.values())) for element in elements):
            return None
        return _Found((name,), len(elements), 0, lambda row: {name: elements[row]})
    if not all(_is_signal(element) for element in elements):
        return None
    key = name if name in MATRIX_NAMES else "signal"
    return _Found((name,), len(elements), 0, lambda row: {key: elements[row]})


def _elements(value: object) -> list[Any]:
    """Return the elements of a cell array or of an array of structures, else nothing."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return list(value.ravel().tolist())
    if isinstance(value, list):
        return value
    if not isinstance(value, Mapping):
        return []
    # In version 7.3, each field of an array of structures is a list.
    fields = {name: held for name, held in value.items() if isinstance(held, list)}
    counts = {len(held) for held in fields.values()}
    is_signal = any(held and all(map(_is_signal, held)) for held in fields.values())
    if not is_signal or len(counts) != 1:
        return []
    beside = {name: held for name, held in value.items() if name not in fields}
    return [
        {**beside, **{name: held[row] for name, held in fields.items()}}
        for row in range(counts.pop())
    ]


def _is_signal(value: object) -> bool:
    """Return whether a value is a matrix of numbers as long as a signal, or a vector."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype.kind in "iuf"
        and 0 < value.ndim < 3
        and max(value.shape) >= MIN_SAMPLES
        and (value.ndim == 1 or min(value.shape) <= MAX_LEADS)
    )


def _find_stack(path: Path, variables: Variables) -> _Found | None:
    """Return the records of an array of three dimensions."""
    arrays = {name: value for name, value in variables.items() if isinstance(value, np.ndarray)}
    names = signal_stack(arrays)
    if not names:
        return None
    stack = arrays[names[0]]
    axis, flags = _record_axis(path, stack.shape, _id_counts(variables))
    stack = np.moveaxis(stack, axis, 0)
    key = names[0] if names[0] in MATRIX_NAMES else "signal"
    n_leads = min(stack.shape[1:])
    return _Found(names, len(stack), n_leads, lambda row: {key: stack[row]}, flags)


def _record_axis(
    path: Path, shape: tuple[int, ...], id_counts: set[int]
) -> tuple[int, tuple[str, ...]]:
    """Return which axis of a stack counts records, the first or the last, and flags.

    It is the one of which there are as many ids, else the one beside which a record has a plausible
    shape. If both have, it is the first, as in other formats.
    """
    sides = {0: shape[1:], 2: shape[:2]}
    by_ids = [axis for axis in sides if shape[axis] in id_counts]
    if len(by_ids) == 1:
        return by_ids[0], ()
    fitting = [
        axis for axis, side in sides.items() if min(side) <= MAX_LEADS and max(side) >= MIN_SAMPLES
    ]
    if not fitting:
        raise RecordError(
            path,
            f"has a stack of shape {shape}: expected records x leads x samples, or records x "
            f"samples x leads, with at most {MAX_LEADS} leads and at least {MIN_SAMPLES} samples",
        )
    return fitting[0], ("records_first_assumed",) if len(fitting) > 1 else ()


def _find_lead_matrices(path: Path, variables: Variables) -> _Found | None:
    """Return the records of matrices that are called like leads, records x samples each."""
    matrices: dict[str, NDArray[Any]] = {
        name: value
        for name, value in variables.items()
        if canonical_lead(name)
        and isinstance(value, np.ndarray)
        and value.dtype.kind in "iuf"
        and value.ndim == 2
        and min(value.shape) > 1
        and max(value.shape) >= MIN_SAMPLES
    }
    shapes = {value.shape for value in matrices.values()}
    if len(matrices) < 2:
        return None
    if len(shapes) > 1:
        raise RecordError(path, f"has leads of shapes {sorted(shapes)[:5]}: expected one shape")
    n_rows, n_columns = shapes.pop()
    counts = _id_counts(variables)
    # The rows are records, unless the ids say that the columns are.
    by_column = n_columns in counts and n_rows not in counts
    if by_column:
        matrices = {name: value.T for name, value in matrices.items()}

    def at(row: int) -> Variables:
        return {name: value[row] for name, value in matrices.items()}

    count = n_columns if by_column else n_rows
    flags = () if {n_rows, n_columns} & counts else ("records_first_assumed",)
    return _Found(tuple(matrices), count, len(matrices), at, flags)


# Ids and facts ------------------------------------------------------------------------------------


def _id_values(value: object) -> tuple[str, ...]:
    """Return ids as texts."""
    values = as_values(value)
    if values is None:
        return ()
    plain = values.ravel().tolist()
    return tuple(
        storable(f"{item:.0f}" if isinstance(item, float) and item.is_integer() else str(item))
        for item in plain[: _MAX_RECORDS + 1]
    )


def _id_counts(variables: Variables) -> set[int]:
    """Return the number of ids in the variables that name records."""
    named = [value for name, value in variables.items() if name.lower() in ID_NAMES]
    return {len(_id_values(value)) for value in named}


def _find_ids(path: Path, variables: Variables, found: _Found) -> tuple[str, ...]:
    """Return the ids that a variable, or a field of the structures, gives; else nothing."""
    for name in ID_NAMES:
        for held in [held for held in variables if held.lower() == name]:
            ids = _id_values(variables[held])
            if len(ids) == found.n_records:
                return _distinct(path, held, ids)
    elements = [next(iter(found.at(row).values()), None) for row in range(found.n_records)]
    fields = [element for element in elements if isinstance(element, Mapping)]
    for name in ID_NAMES:
        if len(fields) == found.n_records and all(name in element for element in fields):
            ids = tuple("".join(_id_values(element[name])) for element in fields)
            return _distinct(path, name, ids)
    return ()


def _distinct(path: Path, name: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(ids)) < len(ids) or not all(ids):
        raise RecordError(
            path, f"{name} has {len(set(ids))} ids of {len(ids)} records: expected one for each"
        )
    return ids


def _variables_at(path: Path, records: _Records, row: int) -> Variables:
    """Return the variables of a record, with what is stated for it or for all."""
    found = records.found
    beside = {
        name: _fact_at(path, name, value, row, found)
        for name, value in records.variables.items()
        if name not in found.used and (fact_of(name) or isinstance(value, Mapping))
    }
    return {**beside, **found.at(row)}


def _fact_at(path: Path, name: str, value: object, row: int, found: _Found) -> object:
    """Return a fact of a record: its own, where there is a value for each record."""
    if isinstance(value, Mapping) or fact_of(name) == "leads":
        return value
    size = value.size if isinstance(value, np.ndarray) else 0
    size = len(value) if isinstance(value, list) else size
    if size == found.n_records == found.n_leads:
        raise RecordError(
            path,
            f"{name} has {size} values for as many records of as many leads: expected one, or a "
            "value for each lead of each record",
        )
    if isinstance(value, list):
        return value[row] if size == found.n_records else value
    if not isinstance(value, np.ndarray):
        return value
    if size == found.n_records:
        return value.ravel()[row : row + 1]
    return value[row] if value.ndim == 2 and len(value) == found.n_records else value
