"""The table beside an array of many records, which names them in the order of the array."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from src.records.record import RecordError
from src.utils import read_regular, storable

ID_NAMES = ("record_id", "ecg_id", "exam_id", "id_exam", "ids", "id")
"""Columns that name records, in order of preference."""

_MAX_BYTES = 2**26
_MAX_COLUMNS = 10_000


def find_index(path: Path) -> Path | None:
    """Return the table that names the records of a file: X.csv, X_index.csv or index.csv for X.npy.

    Tables may be separated by tabs (``.tsv``).
    """
    for stem in (path.stem, f"{path.stem}_index", "index"):
        for suffix in (".csv", ".tsv"):
            table = path.with_name(f"{stem}{suffix}")
            if os.path.isfile(table):
                return table
    return None


def read_ids(path: Path, table: Path, n_records: int) -> tuple[str, ...]:
    """Return the ids that a table states, one for each record of a file.

    Raises
    ------
    RecordError
        If it cannot be read, or does not name each record once.
    """
    try:
        if table.stat().st_size > _MAX_BYTES:
            raise RecordError(path, f"its index {table.name} has over {_MAX_BYTES} bytes")
        text = read_regular(table).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RecordError(path, f"its index {table.name} cannot be read ({error})") from None
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter="\t" if table.suffix == ".tsv" else ","
    )
    try:
        header = [name.strip().lower() for name in next(lines, [])[: _MAX_COLUMNS + 1]]
        column = next((header.index(name) for name in ID_NAMES if name in header), None)
        if column is None or len(header) > _MAX_COLUMNS:
            raise RecordError(
                path,
                f"its index {table.name} has columns {', '.join(header[:20])}: expected one of "
                f"{', '.join(ID_NAMES)}",
            )
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise RecordError(path, f"its index {table.name} is no table ({error})") from None
    if len(rows) != n_records:
        raise RecordError(
            path, f"its index {table.name} has {len(rows)} rows, {n_records} records are stored"
        )
    ids = tuple(storable(row[column].strip()) if column < len(row) else "" for row in rows)
    seen: set[str] = set()
    for number, name in enumerate(ids, 2):
        if not name or name in seen:
            raise RecordError(
                path,
                f"its index {table.name} names {name!r} in line {number}: expected an id of its "
                "own for each record",
            )
        seen.add(name)
    return ids
