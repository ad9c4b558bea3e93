"""MATLAB files without a WFDB header: versions 4 to 7.2 through SciPy, 7.3 through h5py.

Known layouts: the Challenge's matrix ``val``, the CPSC 2018 structure ``ECG`` (sex, age, data in mV
at 500 Hz), a plain matrix called data, signal or ecg, one vector for each lead under its name, and
each of these inside a structure. What the file states beside them is used (see `stated_facts`).
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.records.facts import parse_age, parse_sex
from src.records.formats.arrays import MAX_LEADS, check_lead_count
from src.records.formats.errors import open_error, package_error, read_whole
from src.records.formats.hdf5_access import (
    dereference,
    member,
    member_names,
    open_hdf5,
    read_attribute,
    read_fact,
    read_values,
)
from src.records.formats.mat_check import plain_mat
from src.records.formats.stated_facts import (
    MIN_SAMPLES,
    Facts,
    Place,
    Probe,
    SignalKind,
    Statement,
    amplitude_of,
    as_structure,
    choose_channels,
    count_of_leads,
    fact_of,
    find_facts,
    is_whole,
    lead_names,
    names_or_standard,
    sampling_rate,
    stated_units,
    voltage_scale,
)
from src.records.leads import canonical_lead
from src.records.record import MAX_VALUES, ECGRecord, ReadingHints, RecordError
from src.utils import Float64Array

if TYPE_CHECKING:
    import h5py

_MAX_BYTES = 2**30
# Hz. CPSC 2018 publishes the rate, its files do not have it.
_CPSC2018_FS = 500.0
MATRIX_NAMES = (
    "val",
    "data",
    "signal",
    "signals",
    "ecg",
    "ECG",
    "ecg_signal",
    "p_signal",
    "d_signal",
)
_STRUCT_NAMES = ("ECG", "ecg")
# Datasets and groups that are read of a file of version 7.3.
_MAX_READ = 5000
# Values of a fact, elements of a cell array, and structures within structures.
_MAX_FACT_VALUES = 10_000
_MAX_CELLS = 1000
# Bytes that a file of version 7.3 may hold, if it is small, and by its size.
_SMALL_BYTES = 2**27
_MAX_RATIO = 20
_MAX_DEPTH = 5
_NUMERIC = {
    "double",
    "single",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
# Classes of variables that hold numbers, text or these in structures, and no code.
_DATA_CLASSES = {*_NUMERIC, "char", "cell", "struct", "logical"}
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Marks a missing sample in 16-bit files.
_MISSING = -(2**15)


@dataclass(frozen=True)
class _Signals:
    """The signals of a file.

    Attributes
    ----------
    name
        Name of the matrix.
    matrix
        Two dimensions, or one for a single lead.
    leads
        Names of its rows, if it was put together of vectors with names.
    levels
        What is beside the matrix, then what is around that, and so on.
    is_cpsc2018
        Whether this is the field `data` of a structure ECG.
    """

    name: str
    matrix: NDArray[Any]
    leads: tuple[str, ...]
    levels: tuple[Mapping[str, object], ...]
    is_cpsc2018: bool


def read_mat(path: Path, hints: ReadingHints) -> ECGRecord:
    """Read a .mat file that has no .hea beside it.

    Parameters
    ----------
    path
        The file.
    hints
        Rate and gain, used if the file states none.

    Raises
    ------
    RecordError
        If the file is damaged, has no signal matrix, or the rate or gain is neither in the file nor
        given, and the gain cannot be told from the amplitude.
    """
    return record_of(path, load_variables(path), hints)


def record_of(
    path: Path,
    variables: Mapping[str, object],
    hints: ReadingHints,
    *,
    probe: Callable[[], Probe] | None = None,
    record_id: str = "",
) -> ECGRecord:
    """Return the record that variables hold, as in a MAT file.

    Parameters
    ----------
    path
        The file, for error messages.
    variables
        Arrays, texts and structures by name.
    hints
        Rate and gain, used if the file states none.
    probe
        Measures the amplitude that tells the unit, by default of the record.
    record_id
        Its id, by default the stem of the file.

    Raises
    ------
    RecordError
        As `read_mat`.
    """
    signals = _find_signals(path, variables)
    facts = find_facts(signals.levels)
    matrix = _as_leads_by_samples(path, signals.matrix, facts)
    place = Place(None, 1, matrix.shape[0], tuple(range(matrix.shape[0])))
    names = signals.leads or lead_names(path, facts, place)
    check_lead_count(path, signals.matrix.shape, len(matrix), names)
    choice = choose_channels(path, names, stated_units(path, facts, place), hints.leads)
    place = place._replace(kept=choice.kept)
    if choice.unused:
        matrix = matrix[list(choice.kept)]
    published = _CPSC2018_FS if signals.is_cpsc2018 else None
    fs, fs_flags = sampling_rate(path, facts, place, hints, published)
    kind = SignalKind(
        is_physical=signals.name.startswith("p_"), is_integer=signals.matrix.dtype.kind in "iu"
    )
    scale = voltage_scale(path, facts, place, kind, hints.gain_per_mv, probe or _probe_of(matrix))
    kept_names = tuple([names[row] for row in choice.kept]) if names else ()
    leads, lead_flags = names_or_standard(kept_names, matrix.shape[0])
    return ECGRecord(
        record_id or path.stem,
        scale.apply(matrix),
        fs,
        leads,
        age=parse_age(_first(facts.age)),
        sex=parse_sex(_first(facts.sex)),
        flags=(*fs_flags, *scale.flags, *choice.flags, *lead_flags),
        unused=choice.unused,
    )


def signal_stack(variables: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Return the name of the array of three dimensions that holds many records, or nothing.

    It has a known name, or is the only one, and no matrix of a known name is beside it.
    """
    stacks = [
        name
        for name, values in variables.items()
        if values.ndim == 3 and values.dtype.kind in "iuf" and min(values.shape) > 0
    ]
    known = [name for name in MATRIX_NAMES if name in stacks]
    beside = [_as_matrix(variables.get(name)) for name in MATRIX_NAMES if name not in stacks]
    if any(matrix is not None for matrix in beside):
        return ()
    if known:
        return tuple(known[:1])
    return tuple(stacks) if len(stacks) == 1 else ()


def has_known_signals(variables: Mapping[str, object]) -> bool:
    """Return whether variables hold one record: a matrix of a known name, or vectors of leads."""
    for chain in _chains(variables):
        found = _find_known(chain) or _find_lead_vectors(chain) if chain else None
        if found is not None:
            shape = np.squeeze(found.matrix).shape
            return len(shape) < 3 and (len(shape) < 2 or min(shape) <= MAX_LEADS)
    return False


def signal_matrix(path: Path, variables: Mapping[str, object]) -> Float64Array:
    """Return the signals of a record, shape (n_leads, n_samples), in the unit of the file."""
    return _as_leads_by_samples(path, _find_signals(path, variables).matrix, Facts())


def load_counts(path: Path) -> NDArray[np.int32]:
    """Return the signal matrix of a .mat file as ADC values, shape (n_samples, n_leads).

    A missing sample is -32768.

    Raises
    ------
    RecordError
        If the file is damaged or has no matrix of integers.
    """
    signals = _find_signals(path, load_variables(path))
    matrix = _as_leads_by_samples(path, signals.matrix, Facts())
    matrix = np.nan_to_num(matrix, nan=float(_MISSING))
    if np.abs(matrix).max() >= 2**31 or (matrix != np.rint(matrix)).any():
        raise RecordError(
            path, "holds numbers that are no ADC values: expected integers, as its header says"
        )
    return np.ascontiguousarray(matrix.T.astype(np.int32))


def _probe_of(matrix: Float64Array) -> Callable[[], Probe]:
    return lambda: Probe(amplitude_of(matrix), 1, is_whole(matrix))


def _first(statement: Statement | None) -> object:
    return None if statement is None else statement.values.flat[0]


# Finding the signals ------------------------------------------------------------------------------


def _find_signals(path: Path, variables: Mapping[str, object]) -> _Signals:
    """Return the matrix of a known name, else the vectors of leads, else the only matrix.

    Structures are searched after what is beside them, and one called ECG before others.
    """
    levels = [chain for chain in _chains(variables) if chain]
    for find in (_find_known, _find_lead_vectors, _find_only):
        for chain in levels:
            signals = find(chain)
            if signals is not None:
                return signals
    struct = next((as_structure(variables.get(name)) for name in _STRUCT_NAMES), None)
    if struct is not None:
        raise RecordError(
            path,
            f"structure ECG has fields {', '.join(struct) or 'none'}: expected a matrix 'data'",
        )
    if any(_is_empty(variables.get(name)) for name in MATRIX_NAMES):
        raise RecordError(path, "signal matrix is empty: expected leads x samples")
    names = ", ".join(sorted(variables)) or "nothing"
    raise RecordError(
        path,
        f"holds {names}: expected a matrix called {', '.join(MATRIX_NAMES)}, one matrix alone, "
        "or a structure ECG",
    )


# The names on the way to a structure with the structure itself, the innermost first.
_Chain = tuple[tuple[str, Mapping[str, object]], ...]


def _chains(variables: Mapping[str, object]) -> Iterator[_Chain]:
    """Yield the variables, then each structure among them, then those inside, with all around."""
    current: list[_Chain] = [(("", variables),)]
    for _ in range(_MAX_DEPTH):
        yield from current
        inner: list[_Chain] = []
        for chain in current:
            structures = {name: as_structure(value) for name, value in chain[0][1].items()}
            ordered = sorted(structures, key=lambda name: name not in _STRUCT_NAMES)
            inner += [
                ((name, structure), *chain)
                for name in ordered
                if (structure := structures[name]) is not None
            ]
        current = inner[:_MAX_CELLS]


def _signals(
    name: str, matrix: NDArray[Any], chain: _Chain, leads: tuple[str, ...] = ()
) -> _Signals:
    levels = tuple(level for _, level in chain)
    is_cpsc2018 = chain[0][0] in _STRUCT_NAMES and name == "data"
    return _Signals(name, matrix, leads, levels, is_cpsc2018)


def _find_known(chain: _Chain) -> _Signals | None:
    """Return the matrix of a known name."""
    for name in MATRIX_NAMES:
        matrix = _as_matrix(chain[0][1].get(name))
        if matrix is not None:
            return _signals(name, matrix, chain)
    return None


def _find_lead_vectors(chain: _Chain) -> _Signals | None:
    """Return the vectors that have names of leads as one matrix."""
    vectors = {
        name: np.ravel(value)
        for name, value in chain[0][1].items()
        if canonical_lead(name)
        and isinstance(value, np.ndarray)
        and value.dtype.kind in "iuf"
        and value.size == max(value.shape, default=0) >= MIN_SAMPLES
    }
    if not vectors or len({len(vector) for vector in vectors.values()}) > 1:
        return None
    return _signals("leads", np.stack(list(vectors.values())), chain, tuple(vectors))


def _find_only(chain: _Chain) -> _Signals | None:
    """Return the only matrix of any name that may be a signal."""
    others = {
        name: value
        for name, value in chain[0][1].items()
        if isinstance(value, np.ndarray)
        and value.dtype.kind in "iuf"
        and _may_be_signal(name, value.shape)
    }
    return _signals(*next(iter(others.items())), chain) if len(others) == 1 else None


def _as_matrix(value: object) -> NDArray[Any] | None:
    """Return a matrix, or a cell array of one matrix or of vectors of one length as a matrix."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return value if value.size > 1 else None
    cells = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(cells, list) or len(cells) > _MAX_CELLS:
        return None
    arrays = [cell for cell in cells if isinstance(cell, np.ndarray) and cell.dtype.kind in "iuf"]
    if len(arrays) == 1:
        return arrays[0] if arrays[0].size > 1 else None
    if not arrays or len(arrays) < len(cells) or len({array.size for array in arrays}) > 1:
        return None
    if any(array.size != max(array.shape, default=0) for array in arrays):
        return None
    return np.stack([array.ravel() for array in arrays])


def _is_empty(value: object) -> bool:
    return isinstance(value, np.ndarray) and not value.size


def _may_be_signal(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a variable of an unknown name has the shape of a signal matrix."""
    return (
        name not in MATRIX_NAMES
        and fact_of(name) is None
        and len(shape) in (1, 2)
        and max(shape) >= MIN_SAMPLES
    )


def _as_leads_by_samples(path: Path, matrix: NDArray[Any], facts: Facts) -> Float64Array:
    """Return a matrix as (n_leads, n_samples), NaN where a sample is missing.

    The leads are the side that has as many names or gains as the file states, else the shorter.
    """
    matrix = np.atleast_2d(np.squeeze(matrix))
    if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
        raise RecordError(
            path,
            f"signal matrix has shape {matrix.shape} and type {matrix.dtype}: expected "
            "leads x samples",
        )
    axis = count_of_leads(facts, (matrix.shape[0], matrix.shape[1]))
    if axis == 1 or (axis is None and matrix.shape[0] > matrix.shape[1]):
        matrix = matrix.T
    values = matrix.astype(np.float64)
    if matrix.dtype == np.int16:
        values[matrix == _MISSING] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values


# Loading ------------------------------------------------------------------------------------------


def load_variables(path: Path) -> dict[str, object]:
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
    try:
        return _load_hdf5(path) if is_hdf5_mat(head) else _load_scipy(path)
    except RecordError:
        raise
    # SciPy and h5py raise whatever a damaged file makes them meet.
    except Exception as error:  # noqa: BLE001
        raise package_error(path, error, "a MAT file") from None


def is_hdf5_mat(head: bytes) -> bool:
    """Return whether a file is of version 7.3, by its first 520 bytes."""
    # MATLAB writes 512 bytes of text before the signature of HDF5.
    return head.startswith(b"MATLAB 7.3") or _HDF5_SIGNATURE in head


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
        held = {name: shape for name, shape, kind in listed if kind in _DATA_CLASSES}
        names = _names_to_load(held)
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
    return {**dict.fromkeys(shapes), **variables}


def _names_to_load(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names of variables to load: possible signals, and what is small.

    Large matrices of unknown names are loaded only if no matrix has a known name, and there is one,
    or they are named as leads.
    """
    large = [
        name
        for name, shape in shapes.items()
        if math.prod(shape) > _MAX_FACT_VALUES and name not in MATRIX_NAMES
    ]
    others = [name for name in large if canonical_lead(name) is None]
    has_known = any(name in MATRIX_NAMES and math.prod(shapes[name]) > 1 for name in shapes)
    left_out = {*(large if has_known else ()), *(others if len(others) > 1 else ())}
    return [name for name in shapes if name not in left_out]


def _load_hdf5(path: Path) -> dict[str, object]:
    """Load the variables of a file of version 7.3."""
    import h5py

    with open_hdf5(path, "a MAT file") as file:
        # MATLAB keeps the elements of cell arrays in #refs#.
        names = [name for name in member_names(path, file) if not name.startswith("#")]
        if len(names) > _MAX_CELLS:
            raise RecordError(path, f"holds {len(names)} variables: expected those of a recording")
        items = {name: member(path, file, name) for name in names}
        shapes = {
            name: tuple(item.shape or ()) if isinstance(item, h5py.Dataset) else ()
            for name, item in items.items()
            if item is not None
        }
        budget = _Budget(path, max(_SMALL_BYTES, _MAX_RATIO * path.stat().st_size))
        loaded: dict[str, object] = dict.fromkeys(items)
        for name in _names_to_load(shapes):
            loaded[name] = _hdf5_value(path, items[name], budget, 0)
        return loaded


class _Budget:
    """Bounds what is read of a file, since cells may name one large matrix many times.

    Parameters
    ----------
    path
        The file, for error messages.
    n_bytes
        Number of bytes that may be read.
    """

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self.n_values = _MAX_READ

    def take(self, n_bytes: int) -> None:
        """Count a value of so many bytes, and refuse the file if there are too many."""
        self.n_bytes -= n_bytes
        self.n_values -= 1
        if min(self.n_bytes, self.n_values) < 0:
            raise RecordError(
                self.path,
                "holds more in structures and cells than its bytes can: expected a recording",
            )


def _hdf5_value(
    path: Path, item: h5py.Dataset | h5py.Group | None, budget: _Budget, depth: int
) -> object:
    """Return a dataset as an array or text, a cell array as a list, and a group as a dictionary."""
    import h5py

    budget.take(0)
    if item is None or depth > _MAX_DEPTH:
        return None
    if isinstance(item, h5py.Group):
        return {
            name: _hdf5_value(path, member(path, item, name), budget, depth + 1)
            for name in member_names(path, item)
        }
    # An empty matrix is stored as its dimensions.
    if read_attribute(item, "MATLAB_empty") or item.shape is None:
        return np.empty((0, 0))
    budget.take(int(item.size) * item.dtype.itemsize)
    if item.dtype == h5py.ref_dtype:
        return _cell_values(path, item, budget, depth)
    if _matlab_class(item) == "char":
        return _char_texts(read_fact(path, item, _MAX_FACT_VALUES))
    if item.dtype.kind not in "biuf":
        # A text that another program wrote
        return read_fact(path, item, _MAX_FACT_VALUES)
    # MATLAB stores matrices column by column, so HDF5 shows them transposed.
    return read_values(path, item).T


def _matlab_class(item: h5py.Dataset) -> str:
    held = read_attribute(item, "MATLAB_class")
    return held.decode("latin-1") if isinstance(held, bytes) else str(held)


def _cell_values(
    path: Path, item: h5py.Dataset, budget: _Budget, depth: int
) -> list[object] | None:
    """Return the elements of a cell array, or of a field of an array of structures.

    They are references to datasets and groups.
    """
    if not 0 < int(item.size) <= _MAX_CELLS:
        return None
    return [
        _hdf5_value(path, dereference(path, item.file, reference), budget, depth + 1)
        for reference in np.ravel(read_values(path, item))
    ]


def _char_texts(codes: NDArray[Any] | None) -> object:
    """Return characters as a text, or as several if they are a matrix.

    MATLAB stores a matrix of characters column by column: each column is a text.
    """
    if codes is None or codes.dtype.kind not in "iu":
        return None
    columns = [_text(column) for column in np.atleast_2d(codes).T]
    is_single_text = min(codes.shape, default=0) <= 1
    return "".join(columns) if is_single_text else np.array(columns, object)


def _text(codes: NDArray[Any]) -> str:
    return "".join(chr(code) for code in codes.tolist() if 0 <= code < 0x110000)
