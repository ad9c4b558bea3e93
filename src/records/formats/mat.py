"""MATLAB files without a WFDB header: versions 4 to 7.2 through SciPy, 7.3 through h5py.

Known layouts: the Challenge's matrix ``val``, the CPSC 2018 structure ``ECG`` (sex, age, data in mV
at 500 Hz), and a plain matrix called data, signal or ecg. Scalars ``fs`` and ``gain`` beside the
matrix are used when they are there.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.facts import parse_age, parse_sex
from src.records.formats.errors import open_error, package_error, read_whole
from src.records.formats.hdf5 import members, read_values
from src.records.formats.mat_check import plain_mat
from src.records.record import MAX_VALUES, ECGRecord, RecordError

_MAX_BYTES = 2**30
CPSC2018_FS = 500.0  # the published rate; the files do not carry it
_MATRIX_NAMES = ("val", "data", "signal", "signals", "ecg", "ECG", "ecg_signal")
_FS_NAMES = ("fs", "Fs", "FS", "freq", "sampling_rate", "SamplingFrequency")
_GAIN_NAMES = ("gain", "gain_per_mv", "adc_gain")
_LEAD_NAMES = ("leads", "lead_names", "sig_name")
_KNOWN_NAMES = (*_MATRIX_NAMES, *_FS_NAMES, *_GAIN_NAMES, *_LEAD_NAMES)
_STRUCT_FIELDS = ("data", "age", "sex", *_FS_NAMES)
_MIN_SAMPLES = 100  # of a matrix of another name
_MAX_TEXTS = 1000  # leads, or letters of a name
_NUMERIC = {
    "double",
    "single",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


def read_mat(path: Path, source_fs: float | None, source_gain_per_mv: float | None) -> ECGRecord:
    """Read a .mat file that has no .hea beside it.

    Parameters
    ----------
    path
        The file.
    source_fs
        Sampling rate in Hz for a file that does not say its own.
    source_gain_per_mv
        ADC units per mV for a file that does not say them; 1 when the matrix is in mV already.

    Raises
    ------
    RecordError
        If the file is broken, holds no signal matrix, or the rate or gain is neither in the file
        nor given.
    """
    variables = _load_variables(path)
    struct = next(
        (variables[name] for name in ("ECG", "ecg") if isinstance(variables.get(name), dict)), None
    )
    if struct is not None:
        return _from_struct(path, struct, source_fs, source_gain_per_mv)
    matrix = _find_matrix(path, variables)
    fs = _scalar(variables, _FS_NAMES) or source_fs
    gain = _scalar(variables, _GAIN_NAMES) or source_gain_per_mv
    if not fs:
        raise RecordError(
            path, "has no header and no sampling rate: give --source-fs NAME=HZ (source_fs=)"
        )
    if not gain:
        raise RecordError(
            path,
            "has no header and no gain: give --source-gain NAME=ADU_PER_MV "
            "(source_gain_per_mv=), 1 if it is in mV",
        )
    leads, flags = _lead_names(matrix.shape[0], variables)
    return ECGRecord(path.stem, (matrix / gain).astype(np.float32), float(fs), leads, flags=flags)


def load_counts(path: Path) -> np.ndarray[Any, Any]:
    """Return the matrix of a .mat file as whole ADC values, int32 (n_samples, n_leads), with -32768
    for a missing sample.

    Raises
    ------
    RecordError
        If the file is broken or holds no matrix of whole numbers.
    """
    matrix = np.nan_to_num(_find_matrix(path, _load_variables(path)), nan=-(2.0**15))
    if np.abs(matrix).max() >= 2**31 or (matrix != np.rint(matrix)).any():
        raise RecordError(
            path, "holds numbers that are no ADC values: expected whole ones, as its header says"
        )
    return np.ascontiguousarray(matrix.T.astype(np.int32))


def _from_struct(
    path: Path, struct: dict[str, Any], source_fs: float | None, source_gain: float | None
) -> ECGRecord:
    """Read the CPSC 2018 layout; `data` is in mV."""
    if not isinstance(struct.get("data"), np.ndarray):
        raise RecordError(
            path,
            f"structure ECG has fields {', '.join(struct) or 'none'}: expected a matrix 'data'",
        )
    matrix = _as_leads_by_samples(path, struct["data"])
    leads, flags = _lead_names(matrix.shape[0], {})
    fs = _scalar(struct, _FS_NAMES) or source_fs
    if fs is None:
        flags = (*flags, "fs_assumed")
    return ECGRecord(
        path.stem,
        (matrix / (source_gain or 1.0)).astype(np.float32),
        float(fs or CPSC2018_FS),
        leads,
        age=parse_age(_plain(struct.get("age"))),
        sex=parse_sex(struct.get("sex")),
        flags=flags,
    )


def _find_matrix(path: Path, variables: dict[str, Any]) -> np.ndarray[Any, Any]:
    for name in _MATRIX_NAMES:
        if isinstance(variables.get(name), np.ndarray):
            return _as_leads_by_samples(path, variables[name])
    matrices = [
        name
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and _is_matrix(name, value.shape)
    ]
    if len(matrices) == 1:  # whatever its name
        return _as_leads_by_samples(path, variables[matrices[0]])
    there = ", ".join(sorted(variables)) or "nothing"
    raise RecordError(
        path,
        f"holds {there}: expected a matrix called {', '.join(_MATRIX_NAMES)}, one matrix "
        "alone, or a structure ECG",
    )


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a variable of a name that means nothing here may be the signal: two-dimensional,
    and of more than a few samples.
    """
    return name not in _KNOWN_NAMES and len(shape) == 2 and max(shape) >= _MIN_SAMPLES


def _as_leads_by_samples(path: Path, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return float64 (n_leads, n_samples); the shorter side is the leads."""
    matrix = np.atleast_2d(np.squeeze(matrix))
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
        raise RecordError(
            path,
            f"signal matrix has shape {matrix.shape} and type {matrix.dtype}: expected "
            "leads x samples",
        )
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    if not matrix.size:
        raise RecordError(path, "signal matrix is empty: expected leads x samples")
    values = matrix.astype(np.float64)
    if matrix.dtype == np.int16:
        values[matrix == -(2**15)] = np.nan  # the marker of a missing sample in 16-bit files
    values[~np.isfinite(values)] = np.nan
    return values


def _lead_names(n_leads: int, variables: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return lead names and flags; twelve unnamed rows are in the standard order by the custom of
    all sources.
    """
    for key in _LEAD_NAMES:
        named = variables.get(key)
        if isinstance(named, np.ndarray) and named.size == n_leads and named.dtype.kind in "UO":
            return tuple(str(name).strip() for name in named.ravel()), ()
    if n_leads == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return tuple("" for _ in range(n_leads)), ()


def _scalar(variables: dict[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = _plain(variables.get(name))
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
            return float(value)
    return None


def _plain(value: Any) -> Any:
    return (
        value.item() if isinstance(value, (np.ndarray, np.generic)) and value.size == 1 else value
    )


def _load_variables(path: Path) -> dict[str, Any]:
    """Load numeric matrices, strings and structures; nothing that runs code is ever loaded."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(520)
    except OSError as error:
        raise open_error(path, error) from None
    if not head:
        raise RecordError(path, "file is empty: expected a MAT file")
    hdf5 = b"\x89HDF\r\n\x1a\n"
    try:
        return (
            _load_hdf5(path)
            if head.startswith((b"MATLAB 7.3", hdf5)) or hdf5 in head
            else _load_scipy(path)
        )
    except RecordError:
        raise
    # SciPy and h5py raise whatever a broken file makes them meet
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "a MAT file") from None


def _load_scipy(path: Path) -> dict[str, Any]:
    import scipy.io

    content = io.BytesIO(
        plain_mat(path, read_whole(path, _MAX_BYTES, "a recording; convert longer ones to WFDB"))
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # duplicate names and unreadable variables are judged by what was found
        listed = scipy.io.whosmat(content)
        shapes = {name: shape for name, shape, _ in listed}
        others = [
            name for name, shape, kind in listed if kind in _NUMERIC and _is_matrix(name, shape)
        ]
        wanted = _wanted(shapes, others)
        for name in wanted:
            if math.prod(shapes[name]) > MAX_VALUES:
                raise RecordError(
                    path, f"variable {name} of shape {shapes[name]} is over {MAX_VALUES} values"
                )
        loaded = (
            scipy.io.loadmat(content, variable_names=wanted, simplify_cells=True) if wanted else {}
        )
    variables = {name: value for name, value in loaded.items() if not name.startswith("__")}
    return variables or dict.fromkeys(shapes)


def _wanted(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """Return the variables to load: those of known names, and the only other matrix where none of
    them is one.
    """
    known = [name for name in names if name in _KNOWN_NAMES]
    return known + list(others if len(others) == 1 and not set(known) & set(_MATRIX_NAMES) else ())


def _load_hdf5(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path, "r") as file:
        held = {
            name: item for name, item in members(path, file).items() if not name.startswith("#")
        }
        numeric = [
            name
            for name, item in held.items()
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf"
        ]
        wanted = _wanted(held, [name for name in numeric if _is_matrix(name, held[name].shape)])
        return {name: _hdf5_value(path, held[name]) for name in wanted} or dict.fromkeys(held)


def _hdf5_value(path: Path, item: Any) -> Any:
    """Return a dataset as an array (MATLAB stores it transposed) or a group as a dictionary of
    them.
    """
    import h5py

    if isinstance(item, h5py.Group):
        held = members(path, item)
        return {
            name: _hdf5_value(path, child) if name in _STRUCT_FIELDS else None
            for name, child in held.items()
            if isinstance(child, h5py.Dataset)
        }
    if item.dtype.kind == "O":
        return _cell_texts(path, item) if item.name.strip("/") in _LEAD_NAMES else None
    values = read_values(path, item)
    if item.attrs.get("MATLAB_class", b"") == b"char":
        columns = list(map(_text, np.atleast_2d(values).T))  # of a matrix, one for each text
        return "".join(columns) if min(values.shape, default=0) <= 1 else np.array(columns, object)
    return values.T


def _cell_texts(path: Path, item: Any) -> NDArray[np.object_] | None:
    """Return the texts of a cell array, which are data sets that it refers to; None where it holds
    anything else.
    """
    import h5py

    if item.dtype != h5py.ref_dtype or item.size > _MAX_TEXTS:
        return None
    found = [item.file[reference] for reference in np.ravel(read_values(path, item))]
    if not all(
        isinstance(part, h5py.Dataset)
        and part.attrs.get("MATLAB_class", b"") == b"char"
        and part.size < _MAX_TEXTS
        for part in found
    ):
        return None
    return np.array([_text(np.ravel(read_values(path, part))) for part in found], object)


def _text(codes: NDArray[Any]) -> str:
    return "".join(chr(int(code)) for code in codes)
