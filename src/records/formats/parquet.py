"""Parquet as `src.processed.export` writes it: a row per record, with its signal as nested lists.

Rows are read a row group at a time. It needs pyarrow, of requirements-datasets.txt.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.records.facts import millivolts_per_unit, parse_age, parse_sex
from src.records.formats.arrays import MAX_LEADS, choose_rate, choose_scale
from src.records.formats.errors import open_error, package_error
from src.records.formats.index_table import ID_NAMES
from src.records.formats.stated_facts import names_or_standard
from src.records.record import ECGRecord, RecordError, RecordRequest
from src.utils import Float32Array, import_extra, storable

MAGIC = b"PAR1"
_EXTRA = "-r requirements-datasets.txt"
_SIGNAL = "signal"
# The name of the column in the footer, after its length
_COLUMN = b"\x06signal"
# Unique in a file of several datasets, where ids need not be
_KEY = "key"
_COLUMNS = ("fs", "n_valid", "lead_present", "age", "sex", "patient_id", "labels")
_MAX_ROWS = 1_000_000
_MAX_NAMED_BYTES = 2**26
# Samples of a row group, which are decoded together, and those for a byte of the file
_MAX_VALUES = 2**25
_FEW_VALUES = 2**21
_MAX_RATIO = 20
_MAX_COLUMNS = 1000


def is_parquet(head: bytes) -> bool:
    """Return whether a table has a column of signals, by its first bytes and its footer."""
    return head.startswith(MAGIC) and _COLUMN in head


@dataclass(frozen=True)
class _Table:
    """What a file says of its records.

    Attributes
    ----------
    rows
        Id -> place of each record.
    starts
        Row with which each row group begins, and the number of rows.
    columns
        Columns to read, besides the signal.
    leads, unit
        As the metadata of the file state them, or nothing.
    """

    rows: Mapping[str, int]
    starts: tuple[int, ...]
    columns: tuple[str, ...]
    leads: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class _Row:
    """A record as it is stored: its signal, shape (n_leads, n_samples), and other columns."""

    signal: Float32Array
    stated: Mapping[str, object] = field(default_factory=dict)


def parquet_parts(path: Path) -> tuple[str, ...]:
    """Return the ids of the records of a file.

    Raises
    ------
    RecordError
        If pyarrow is missing, or the file is damaged or no table of records.
    """
    return tuple(_table(path).rows)


def read_parquet(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the record that `request.part` names.

    Raises
    ------
    RecordError
        If the file is damaged, has no such record, or its rate or unit is neither stated nor given
        nor can be assumed.
    """
    table = _table(path)
    part = request.part or (next(iter(table.rows)) if len(table.rows) == 1 else "")
    if part not in table.rows:
        raise RecordError(
            path,
            f"holds {len(table.rows)} records: name one that it has, such as "
            f"{path.name}::{next(iter(table.rows))}",
        )
    row = _row(path, table, table.rows[part])
    stated = row.stated
    n_valid = stated.get("n_valid")
    signal = row.signal[:, : n_valid if isinstance(n_valid, int) and n_valid > 0 else None]
    leads, flags = _lead_names(path, table, len(signal))
    signal, leads = _present(path, signal, leads, stated.get("lead_present"))
    rate = stated.get("fs")
    fs_flags: tuple[str, ...] = ()
    if isinstance(rate, float) and math.isfinite(rate) and rate > 0:
        fs = rate
    else:
        fs, fs_flags = choose_rate(path, signal.shape[1], request.hints.fs)
    signal, unit_flags = _to_millivolts(path, table, signal, request.hints.gain_per_mv)
    labels = stated.get("labels")
    return ECGRecord(
        record_id=part,
        signal=signal,
        fs=fs,
        leads=leads,
        codes=tuple(map(str, labels)) if isinstance(labels, list) else (),
        age=parse_age(stated.get("age")),
        sex=parse_sex(stated.get("sex")),
        patient_id=str(stated["patient_id"]) if stated.get("patient_id") else None,
        flags=(*fs_flags, *unit_flags, *flags),
    )


# What is stated -----------------------------------------------------------------------------------


def _lead_names(path: Path, table: _Table, n_leads: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return lead names and flags."""
    if table.leads and len(table.leads) != n_leads:
        raise RecordError(
            path, f"names {len(table.leads)} leads, a signal has {n_leads}: expected as many"
        )
    return names_or_standard(table.leads, n_leads)


def _present(
    path: Path, signal: Float32Array, leads: tuple[str, ...], present: object
) -> tuple[Float32Array, tuple[str, ...]]:
    """Return the leads that the record has; the others are zeros."""
    if present is None:
        return signal, leads
    if not isinstance(present, list) or len(present) != len(leads) or not any(present):
        raise RecordError(path, f"has lead_present {present}: expected a value for each lead")
    kept = [place for place, is_present in enumerate(present) if is_present]
    if len(kept) == len(leads):
        return signal, leads
    return signal[kept], tuple(leads[place] for place in kept)


def _to_millivolts(
    path: Path, table: _Table, signal: Float32Array, given: float | None
) -> tuple[Float32Array, tuple[str, ...]]:
    """Return the signal in mV, and flags."""
    signal = np.array(signal, np.float32, order="C")
    signal[~np.isfinite(signal)] = np.nan
    if table.unit:
        factor = millivolts_per_unit(table.unit)
        if factor is None:
            raise RecordError(path, f"its unit is {table.unit[:40]}: expected mV, uV or V")
        return signal if factor == 1 else signal * np.float32(factor), ()
    scale = choose_scale(path, signal, given)
    return signal * np.float32(scale.mv_per_unit), scale.flags


# The file -----------------------------------------------------------------------------------------


def _table(path: Path) -> _Table:
    """Return what a file says of its records, kept for each of them."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_table(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _cached_table(name: str, mtime_ns: int, size: int) -> _Table:
    path = Path(name)
    try:
        return _read_table(path, _open(path), size)
    except RecordError:
        raise
    # pyarrow raises errors of any type on a damaged file.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "Parquet") from None


def _open(path: Path) -> Any:
    """Return a file opened by pyarrow."""
    try:
        parquet = import_extra("pyarrow.parquet", "reading Parquet", _EXTRA)
    except ValueError as error:
        raise RecordError(path, str(error)) from None
    return parquet.ParquetFile(path)


def _read_table(path: Path, file: Any, size: int) -> _Table:
    metadata, schema = file.metadata, file.schema_arrow
    names = list(schema.names)[: _MAX_COLUMNS + 1]
    ids = [name for name in (*ID_NAMES, _KEY) if name in names]
    if _SIGNAL not in names or not ids or len(names) > _MAX_COLUMNS:
        listed = ", ".join(names[:10])
        raise RecordError(
            path,
            f"has columns {listed}: expected {_SIGNAL} and one of {', '.join((*ID_NAMES, _KEY))}",
        )
    kind = schema.field(_SIGNAL).type
    if not _is_nested(kind) or not _is_nested(kind.value_type):
        raise RecordError(
            path, f"column {_SIGNAL} is of {str(kind)[:80]}: expected a list of leads, each a list"
        )
    n_rows = int(metadata.num_rows)
    if not 0 < n_rows <= min(_MAX_ROWS, max(_FEW_VALUES, size)):
        raise RecordError(path, f"states {n_rows} rows in {size} bytes: expected those of records")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum([group.num_rows for group in groups])])
    columns = tuple(name for name in _COLUMNS if name in names)
    _check_size(path, groups, [*columns, *ids], size)
    stated = {key.decode("latin-1"): value for key, value in (schema.metadata or {}).items()}
    return _Table(
        _find_ids(path, file, ids, n_rows),
        tuple(starts.tolist()),
        columns,
        _listed(stated.get("leads", b"")),
        storable(stated.get("unit", b"")[:40].decode("latin-1")),
    )


def _is_nested(kind: Any) -> bool:
    return hasattr(kind, "value_type") and "list" in str(kind)[:20]


def _check_size(path: Path, groups: Sequence[Any], names: Sequence[str], size: int) -> None:
    """Refuse row groups that claim more samples, or more of other columns, than a file may hold."""
    most = min(_MAX_VALUES, max(_FEW_VALUES, _MAX_RATIO * size))
    n_named = 0
    for number, group in enumerate(groups):
        for i in range(group.num_columns):
            column = group.column(i)
            root = str(column.path_in_schema)[:80].split(".")[0]
            if root == _SIGNAL and column.num_values > most:
                raise RecordError(
                    path,
                    f"row group {number} states {column.num_values} samples, the limit is {most} "
                    "for its size: write fewer records in a group (row_group_size=64)",
                )
            if root in names:
                n_named += max(int(column.total_uncompressed_size), 8 * int(column.num_values))
    if n_named > max(_MAX_NAMED_BYTES, _MAX_RATIO * size):
        raise RecordError(path, f"states {n_named} bytes of ids and facts in {size} bytes")


def _listed(text: bytes) -> tuple[str, ...]:
    """Return the names of a JSON list, or nothing."""
    try:
        names = json.loads(text[:10_000]) if text else []
    except (ValueError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(storable(name) for name in names) if is_list else ()


def _find_ids(path: Path, file: Any, names: Sequence[str], n_rows: int) -> dict[str, int]:
    """Return the row of each record, by the first column of ids that names each once."""
    for name in names:
        cells = file.read([name], use_threads=False).column(0).cast("string").to_pylist()
        ids = [storable((cell or "").strip()) for cell in cells]
        if all(ids) and len(set(ids)) == len(ids) == n_rows:
            return {record_id: row for row, record_id in enumerate(ids)}
    raise RecordError(
        path, f"column {names[-1]} does not name each record once: expected an id for each row"
    )


def _row(path: Path, table: _Table, row: int) -> _Row:
    """Return a row of a file."""
    group = int(np.searchsorted(table.starts, row, side="right")) - 1
    status = os.stat(path)
    rows = _read_group(str(path), status.st_mtime_ns, status.st_size, group)
    return rows[row - table.starts[group]]


# Records are read in order, so that the last group is enough.
@lru_cache(maxsize=1)
def _read_group(name: str, mtime_ns: int, size: int, group: int) -> list[_Row]:
    path = Path(name)
    table = _table(path)
    try:
        read = _open(path).read_row_group(group, [*table.columns, _SIGNAL], use_threads=False)
        stated = [read.column(column).to_pylist() for column in table.columns]
        facts = [
            dict(zip(table.columns, cells, strict=True)) for cells in zip(*stated, strict=True)
        ]
        signals = _signals(path, read.column(_SIGNAL).combine_chunks())
        return [_Row(signal, facts[row] if facts else {}) for row, signal in enumerate(signals)]
    except RecordError:
        raise
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "Parquet") from None


def _signals(path: Path, column: Any) -> list[NDArray[Any]]:
    """Return the signal of each row, shape (n_leads, n_samples), without an object per sample."""
    if column.null_count:
        raise RecordError(path, f"column {_SIGNAL} has no value in {column.null_count} rows")
    leads = column.flatten()
    if leads.null_count:
        raise RecordError(path, f"column {_SIGNAL} has {leads.null_count} leads without samples")
    values = leads.flatten().to_numpy(zero_copy_only=False)
    n_leads = column.value_lengths().to_numpy()
    n_samples = leads.value_lengths().to_numpy()
    signals: list[NDArray[Any]] = []
    lead = sample = 0
    for count in n_leads.tolist():
        lengths = n_samples[lead : lead + count]
        if not 0 < count <= MAX_LEADS or lengths.min() != lengths.max() or not lengths[0]:
            raise RecordError(
                path,
                f"row {len(signals)} of a group has {count} leads of {lengths.tolist()[:20]} "
                f"samples: expected 1 to {MAX_LEADS} of one length",
            )
        stop = sample + int(count * lengths[0])
        signals.append(values[sample:stop].reshape(count, -1))
        lead, sample = lead + count, stop
    return signals
