"""NumPy archives (``.npz``): arrays by name, of one record or of many.

What is stated beside the signals is understood as in MAT files. The arrays are read whole, since
they may be compressed; a large one belongs in an ``.npy``, which is read in part.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.records.formats.arrays import array_from_bytes, runs_like_signal
from src.records.formats.errors import check_written, open_error
from src.records.formats.index_table import ID_NAMES, find_index, read_ids
from src.records.formats.mat import record_of, signal_stack
from src.records.formats.stated_facts import Probe, amplitude_of, is_whole
from src.records.record import ECGRecord, RecordError, RecordRequest
from src.utils import storable

_MAX_BYTES = 2**27
# Values of a record, which take eight bytes each on the way.
_MAX_VALUES = 2**25
_MAX_MEMBERS = 1000
_LOCAL = struct.Struct("<4s5HIIIHH")
_MAGIC = b"PK\x03\x04"
_PROBED_RECORDS = 64
_MAX_PROBED_MEMBERS = 20


def is_npz(head: bytes) -> bool:
    """Return whether a file is an archive of arrays one of which runs as a signal does.

    Arrays beyond the first bytes are not seen.
    """
    return any(runs_like_signal(array) for array in _first_arrays(head))


def _first_arrays(head: bytes) -> Iterator[bytes]:
    """Yield the beginnings of the arrays in the first bytes of an archive."""
    at = 0
    for _ in range(_MAX_PROBED_MEMBERS):
        if len(head) - at < _LOCAL.size or not head.startswith(_MAGIC, at):
            return
        _, _, _, method, _, _, _, size, _, n_name, n_extra = _LOCAL.unpack_from(head, at)
        name_at = at + _LOCAL.size
        data_at = name_at + n_name + n_extra
        extra = head[name_at + n_name : data_at]
        if extra[:4] == b"\1\0\x10\0":
            # The sizes of an archive of 64 bits, as NumPy writes it
            size = struct.unpack_from("<Q", extra, 12)[0] if len(extra) >= 20 else 0
        if not head[name_at : name_at + n_name].endswith(b".npy"):
            return
        content = head[data_at : data_at + size]
        if method == zipfile.ZIP_DEFLATED:
            try:
                content = zlib.decompressobj(-15).decompress(content, 2**16)
            except zlib.error:
                return
        yield content
        at = data_at + size


def npz_parts(path: Path) -> tuple[str, ...]:
    """Return the ids of the records of an archive of many, and nothing for one of one record.

    Raises
    ------
    RecordError
        If the archive is damaged, or its ids do not name each record once.
    """
    found = signal_stack(_arrays(path))
    return tuple(_rows(path, found[0])) if found else ()


def read_npz(path: Path, request: RecordRequest) -> ECGRecord:
    """Read the only record of an archive, or the one that `request.part` names.

    Raises
    ------
    RecordError
        If it is damaged, has no such record, or its rate or unit is neither known nor given.
    """
    arrays = _arrays(path)
    found = signal_stack(arrays)
    largest = max((a.size for a in arrays.values() if not found or a.ndim < 3), default=0)
    if largest > _MAX_VALUES:
        raise RecordError(
            path, f"has an array of {largest} values, over {_MAX_VALUES}: save it as .npy"
        )
    if not found:
        return record_of(path, arrays, request.hints)
    name, stack = found[0], arrays[found[0]]
    rows = _rows(path, name)
    if request.part not in rows:
        raise RecordError(
            path,
            f"holds {len(rows)} records: name one that it has, such as "
            f"{path.name}::{next(iter(rows))}",
        )

    def probe() -> Probe:
        chosen = np.linspace(0, len(stack) - 1, min(len(stack), _PROBED_RECORDS)).astype(int)
        values = stack[chosen].astype(np.float64)
        amplitudes = [amplitude_of(value) for value in values]
        return Probe(float(np.median(amplitudes)), len(stack), is_whole(values[0]))

    row = rows[request.part]
    beside = {key: value for key, value in arrays.items() if key != name}
    record = {**_facts_of(beside, row, len(stack)), name: stack[row]}
    return record_of(path, record, request.hints, probe=probe, record_id=request.part)


def _facts_of(arrays: dict[str, NDArray[Any]], row: int, n_records: int) -> dict[str, NDArray[Any]]:
    """Return what is stated about a record: of its own where there is a value for each record."""
    return {
        name: values[row : row + 1] if values.shape[:1] == (n_records,) else values
        for name, values in arrays.items()
        if values.ndim < 3
    }


def _rows(path: Path, name: str) -> dict[str, int]:
    """Return the row of each record, by the ids in the archive, else in a table beside it."""
    arrays = _arrays(path)
    n_records = len(arrays[name])
    given = next((arrays[key] for key in ID_NAMES if key in arrays), None)
    table = find_index(path)
    if given is not None:
        ids = tuple(storable(str(value).strip()) for value in given.ravel()[: n_records + 1])
        if len(ids) != n_records or len(set(ids)) != n_records or not all(ids):
            raise RecordError(
                path, f"names {len(set(ids))} ids of {n_records} records: expected one for each"
            )
    elif table is not None:
        ids = read_ids(path, table, n_records)
    else:
        ids = tuple(f"{path.stem}-{row:05}" for row in range(n_records))
    return {record_id: row for row, record_id in enumerate(ids)}


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive by name, kept for its records."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from None
    return _cached_arrays(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _cached_arrays(name: str, mtime_ns: int, size: int) -> dict[str, NDArray[Any]]:
    path = Path(name)
    check_written(path, size)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            n_bytes = sum(info.file_size for info in members)
            if n_bytes > _MAX_BYTES or len(members) > _MAX_MEMBERS:
                raise RecordError(
                    path,
                    f"holds {len(members)} arrays of {n_bytes} bytes: expected {_MAX_MEMBERS} of "
                    f"{_MAX_BYTES} at most; save large arrays as .npy",
                )
            if len({info.filename for info in members}) < len(members):
                raise RecordError(path, "has two arrays of one name: expected each once")
            return {
                info.filename.removesuffix(".npy"): array_from_bytes(path, archive.read(info))
                for info in members
            }
    except RecordError:
        raise
    except OSError as error:
        raise open_error(path, error) from None
    # zipfile raises errors of any type on a damaged file.
    except Exception as error:  # noqa: BLE001
        raise RecordError(path, f"is no NumPy archive ({type(error).__name__}: {error})") from None
