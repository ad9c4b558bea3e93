"""MATLAB files without a WFDB header: versions 4 to 7.2 through SciPy, 7.3 through h5py.

Known layouts: the Challenge's matrix ``val``, the CPSC 2018 structure ``ECG`` (sex, age, data in mV
at 500 Hz), and a plain matrix called data, signal or ecg. Scalars ``fs`` and ``gain`` and lead
names are used if they are beside the matrix.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.config import STANDARD_LEADS
from src.records.facts import parse_age, parse_sex
from src.records.formats.errors import open_error, package_error, read_whole
from src.records.formats.hdf5_access import members, read_values
from src.records.formats.mat_check import plain_mat
from src.records.record import MAX_VALUES, ECGRecord, RecordError
from src.utils import Float64Array

if TYPE_CHECKING:
    import h5py

_MAX_BYTES = 2**30
# Hz. CPSC 2018 publishes the rate, its files do not have it.
_CPSC2018_FS = 500.0
_MATRIX_NAMES = ("val", "data", "signal", "signals", "ecg", "ECG", "ecg_signal")
_FS_NAMES = ("fs", "Fs", "FS", "freq", "sampling_rate", "SamplingFrequency")
_GAIN_NAMES = ("gain", "gain_per_mv", "adc_gain")
_LEAD_NAMES = ("leads", "lead_names", "sig_name")
_KNOWN_NAMES = (*_MATRIX_NAMES, *_FS_NAMES, *_GAIN_NAMES, *_LEAD_NAMES)
_STRUCT_FIELDS = ("data", "age", "sex", *_FS_NAMES)
# A matrix of any other name must have at least this many samples to be taken for the signal.
_MIN_SAMPLES = 100
# Lead names in a cell array, and letters of a name.
_MAX_TEXTS = 1000
_NUMERIC = {
    "double",
    "single",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Marks a missing sample in 16-bit files.
_MISSING = -(2**15)


def read_mat(path: Path, source_fs: float | None, source_gain_per_mv: float | None) -> ECGRecord:
    """Read a .mat file that has no .hea beside it.

    Parameters
    ----------
    path
        The file.
    source_fs
        Sampling rate in Hz, used if the file has none.
    source_gain_per_mv
        ADC units per mV, used if the file has no gain; 1 if the matrix is in mV.

    Raises
    ------
    RecordError
        If the file is damaged, has no signal matrix, or the rate or gain is neither in the file nor
        given.
    """
    variables = _load_variables(path)
    for name in ("ECG", "ecg"):
        struct = variables.get(name)
        if isinstance(struct, dict):
            return _from_struct(path, struct, source_fs, source_gain_per_mv)
    matrix = _find_matrix(path, variables)
    fs = _positive_scalar(variables, _FS_NAMES) or source_fs
    gain = _positive_scalar(variables, _GAIN_NAMES) or source_gain_per_mv
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


def load_counts(path: Path) -> NDArray[np.int32]:
    """Return the signal matrix of a .mat file as ADC values, shape (n_samples, n_leads).

    A missing sample is -32768.

    Raises
    ------
    RecordError
        If the file is damaged or has no matrix of integers.
    """
    matrix = np.nan_to_num(_find_matrix(path, _load_variables(path)), nan=float(_MISSING))
    if np.abs(matrix).max() >= 2**31 or (matrix != np.rint(matrix)).any():
        raise RecordError(
            path, "holds numbers that are no ADC values: expected integers, as its header says"
        )
    return np.ascontiguousarray(matrix.T.astype(np.int32))


def _from_struct(
    path: Path, struct: Mapping[str, object], source_fs: float | None, source_gain: float | None
) -> ECGRecord:
    """Read the CPSC 2018 layout, in which `data` is in mV."""
    data = struct.get("data")
    if not isinstance(data, np.ndarray):
        raise RecordError(
            path,
            f"structure ECG has fields {', '.join(struct) or 'none'}: expected a matrix 'data'",
        )
    matrix = _as_leads_by_samples(path, data)
    leads, flags = _lead_names(matrix.shape[0], {})
    fs = _positive_scalar(struct, _FS_NAMES) or source_fs
    if fs is None:
        flags = (*flags, "fs_assumed")
    return ECGRecord(
        path.stem,
        (matrix / (source_gain or 1.0)).astype(np.float32),
        float(fs or _CPSC2018_FS),
        leads,
        age=parse_age(_as_scalar(struct.get("age"))),
        sex=parse_sex(struct.get("sex")),
        flags=flags,
    )


def _find_matrix(path: Path, variables: Mapping[str, object]) -> Float64Array:
    """Return the signal matrix, shape (n_leads, n_samples): that of a known name, or the only one.

    Missing samples are NaN.
    """
    for name in _MATRIX_NAMES:
        value = variables.get(name)
        if isinstance(value, np.ndarray):
            return _as_leads_by_samples(path, value)
    others = [
        value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and _may_be_signal(name, value.shape)
    ]
    if len(others) == 1:
        return _as_leads_by_samples(path, others[0])
    names = ", ".join(sorted(variables)) or "nothing"
    raise RecordError(
        path,
        f"holds {names}: expected a matrix called {', '.join(_MATRIX_NAMES)}, one matrix alone, "
        "or a structure ECG",
    )


def _may_be_signal(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a variable of an unknown name has the shape of a signal matrix."""
    return name not in _KNOWN_NAMES and len(shape) == 2 and max(shape) >= _MIN_SAMPLES


def _as_leads_by_samples(path: Path, matrix: NDArray[Any]) -> Float64Array:
    """Return a matrix as (n_leads, n_samples), NaN where a sample is missing.

    The shorter side is the leads.
    """
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
        values[matrix == _MISSING] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


def _lead_names(
    n_leads: int, variables: Mapping[str, object]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return lead names and flags.

    All known sources store twelve unnamed leads in the standard order.
    """
    for key in _LEAD_NAMES:
        names = variables.get(key)
        if isinstance(names, np.ndarray) and names.size == n_leads and names.dtype.kind in "UO":
            return tuple(str(name).strip() for name in names.ravel()), ()
    if n_leads == len(STANDARD_LEADS):
        return STANDARD_LEADS, ("lead_names_assumed",)
    return ("",) * n_leads, ()


def _positive_scalar(variables: Mapping[str, object], names: Iterable[str]) -> float | None:
    """Return the first positive number among the variables of these names."""
    for name in names:
        value = _as_scalar(variables.get(name))
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
            return float(value)
    return None


def _as_scalar(value: object) -> object:
    """Return the element of an array of one, and anything else as it is."""
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        return value.item()
    return value


# Loading ------------------------------------------------------------------------------------------


def _load_variables(path: Path) -> dict[str, object]:
    """Load the variables that matter by name: numbers, strings, and structures as dictionaries.

    Nothing that runs code is loaded. If no variable matters, all names are returned with None, for
    the error message.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(520)
    except OSError as error:
        raise open_error(path, error) from None
    if not head:
        raise RecordError(path, "file is empty: expected a MAT file")
    # MATLAB writes 512 bytes of text before the signature of HDF5.
    is_hdf5 = head.startswith(b"MATLAB 7.3") or _HDF5_SIGNATURE in head
    try:
        return _load_hdf5(path) if is_hdf5 else _load_scipy(path)
    except RecordError:
        raise
    # SciPy and h5py raise whatever a damaged file makes them meet.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "a MAT file") from None


def _load_scipy(path: Path) -> dict[str, object]:
    """Load the variables of a file of versions 4 to 7.2."""
    import scipy.io

    raw = read_whole(path, _MAX_BYTES, "a recording; convert longer ones to WFDB")
    content = io.BytesIO(plain_mat(path, raw))
    with warnings.catch_warnings():
        # SciPy warns of duplicate names and unreadable variables. Missing ones are noticed later.
        warnings.simplefilter("ignore")
        listed = scipy.io.whosmat(content)
        shapes = {name: shape for name, shape, _ in listed}
        others = [
            name for name, shape, kind in listed if kind in _NUMERIC and _may_be_signal(name, shape)
        ]
        names = _names_to_load(shapes, others)
        for name in names:
            if math.prod(shapes[name]) > MAX_VALUES:
                raise RecordError(
                    path, f"variable {name} of shape {shapes[name]} is over {MAX_VALUES} values"
                )
        # SciPy takes an empty list of names for all of them.
        loaded = {}
        if names:
            loaded = scipy.io.loadmat(content, variable_names=names, simplify_cells=True)
    # SciPy adds __header__, __version__ and __globals__.
    variables = {name: value for name, value in loaded.items() if not name.startswith("__")}
    return variables or dict.fromkeys(shapes)


def _names_to_load(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """Return the known names, and the only other matrix if no known name is one of a matrix.

    Parameters
    ----------
    names
        All names in the file.
    others
        The matrices of unknown names that may be the signal.
    """
    known = [name for name in names if name in _KNOWN_NAMES]
    if len(others) == 1 and not set(known) & set(_MATRIX_NAMES):
        return [*known, *others]
    return known


def _load_hdf5(path: Path) -> dict[str, object]:
    """Load the variables of a file of version 7.3."""
    import h5py

    with h5py.File(path, "r") as file:
        # MATLAB keeps the elements of cell arrays in #refs#.
        items = {
            name: item for name, item in members(path, file).items() if not name.startswith("#")
        }
        others = [
            name
            for name, item in items.items()
            if isinstance(item, h5py.Dataset)
            and item.dtype.kind in "iuf"
            and _may_be_signal(name, item.shape)
        ]
        loaded = {name: _hdf5_value(path, items[name]) for name in _names_to_load(items, others)}
        return loaded or dict.fromkeys(items)


def _hdf5_value(path: Path, item: h5py.Dataset | h5py.Group) -> object:
    """Return a dataset as an array or text, and a group as a dictionary of its known fields."""
    import h5py

    if isinstance(item, h5py.Group):
        # Unknown fields keep their names, for error messages.
        return {
            name: _hdf5_value(path, child) if name in _STRUCT_FIELDS else None
            for name, child in members(path, item).items()
            if isinstance(child, h5py.Dataset)
        }
    if item.dtype.kind == "O":
        return _cell_texts(path, item) if item.name.strip("/") in _LEAD_NAMES else None
    values = read_values(path, item)
    if item.attrs.get("MATLAB_class", b"") == b"char":
        # MATLAB stores a matrix of characters column by column: each column is a text.
        columns = list(map(_text, np.atleast_2d(values).T))
        is_single_text = min(values.shape, default=0) <= 1
        return "".join(columns) if is_single_text else np.array(columns, object)
    # MATLAB stores matrices column by column, so HDF5 shows them transposed.
    return values.T


def _cell_texts(path: Path, item: h5py.Dataset) -> NDArray[np.object_] | None:
    """Return the texts of a cell array, or None if it holds anything else.

    Its elements are references to datasets of characters.
    """
    import h5py

    if item.dtype != h5py.ref_dtype or item.size > _MAX_TEXTS:
        return None
    elements = [item.file[reference] for reference in np.ravel(read_values(path, item))]
    for element in elements:
        if not isinstance(element, h5py.Dataset) or element.size >= _MAX_TEXTS:
            return None
        if element.attrs.get("MATLAB_class", b"") != b"char":
            return None
    return np.array([_text(np.ravel(read_values(path, element))) for element in elements], object)


def _text(codes: NDArray[Any]) -> str:
    return "".join(chr(int(code)) for code in codes)
