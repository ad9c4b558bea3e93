"""Record files (.npz): their names, writing, reading, and the way back to millivolts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.processed.files import FileBatch
from src.processed.npz import Archive, read_npz
from src.utils import Float32Array, make_folder, printable, stable_hash

if TYPE_CHECKING:
    import pandas as pd


FORMAT_VERSION = 2
"""Part of every config hash; to be raised when the content of a record file changes its meaning."""
RR_SIDE = 5
"""RR intervals before and after a beat that its record file holds."""
# Larger archives are left to NumPy, which writes the ZIP64 format.
_ZIP64_LIMIT = 2**31
_SHARD_DIGITS = 3
# Behind the name of a dataset that ends in ``_``; no name holds it.
_MARK = ":"
_SHORTENED = re.compile(rb".{197,200}~[0-9a-f]{16}", re.DOTALL)
_SHARDS = tuple(f"{number:0{_SHARD_DIGITS}x}" for number in range(16**_SHARD_DIGITS))


# Names --------------------------------------------------------------------------------------------


def record_key(dataset: str, record_id: str) -> str:
    """Return the key ``<dataset>__<record_id>`` of a record in splits, predictions and files.

    No two records share one. The name of a dataset holds no ``__``, so a key is split at the first
    of them. A name that ends in ``_`` is followed by ``:``, which no name holds: otherwise record
    ``_b`` of dataset ``a`` and record ``b`` of dataset ``a_`` would have one key.
    """
    mark = _MARK if dataset.endswith("_") else ""
    return f"{dataset}{mark}__{record_id}"


def record_keys(frame: pd.DataFrame) -> pd.Series[str]:
    """Return the key of each row of a manifest."""
    datasets = frame["dataset"]
    return (
        datasets.map({name: record_key(name, "") for name in datasets.unique()}).astype(
            datasets.dtype
        )
        + frame["record_id"]
    )


def key_parts(key: str) -> tuple[str, str]:
    """Return the dataset and the record id of a key."""
    dataset, _, record_id = key.partition("__")
    if dataset.endswith(f"_{_MARK}"):
        dataset = dataset.removesuffix(_MARK)
    return dataset, record_id


def earlier_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return key -> the key that earlier versions gave to the record, where it was another."""
    earlier = {}
    for key in keys:
        # The plain search is cheaper, and there are millions of keys.
        if f"{_MARK}__" in key:
            dataset, record_id = key_parts(key)
            if dataset.endswith("_"):
                earlier[key] = f"{dataset}__{record_id}"
    return earlier


def record_path(processed: str | Path, key: str) -> Path:
    """Return the path of the record file of a key; it may be in a subfolder named by its hash.

    The file of an earlier version is found under its name, unless another record has it.
    """
    path = Path(next(record_paths(processed, [key])))
    earlier = earlier_keys([key])
    if not earlier or path.exists():
        return path
    file = Path(next(record_paths(processed, earlier.values())))
    return file if _is_file_of(file, key) else path


def _is_file_of(path: Path, key: str) -> bool:
    """Return whether a record file says that it is of the record of a key."""
    try:
        arrays = load_record_file(path, "dataset", "record_id")
    except ValueError:
        return False
    return (str(arrays["dataset"]), str(arrays["record_id"])) == key_parts(key)


def rename_earlier_files(processed: str | Path, keys: Iterable[str]) -> None:
    """Give files of an earlier version the names of today, so that no two records share one.

    It takes none from a record that has that name today.
    """
    for key in earlier_keys(keys):
        name_today = Path(next(record_paths(processed, [key])))
        found = record_path(processed, key)
        if found != name_today:
            name_today.parent.mkdir(exist_ok=True)
            found.replace(name_today)


def record_paths(processed: str | Path, keys: Iterable[str]) -> Iterator[str]:
    """Yield the paths of the record files of some keys, at a tenth of the cost of `record_path`.

    Files that an earlier version named are not looked for.
    """
    folder = f"{processed}/records"
    if not is_sharded(processed):
        for key in keys:
            yield f"{folder}/{_file_name(key)}.npz"
        return
    for key in keys:
        yield f"{folder}/{stable_hash(key, _SHARD_DIGITS)}/{_file_name(key)}.npz"


def is_sharded(processed: str | Path) -> bool:
    """Return whether the record files of a folder are in subfolders, as very many are."""
    # It runs for each file, and a Path takes longer to make than the call.
    return os.path.isdir(f"{processed}/records/{_SHARDS[0]}")  # noqa: PTH112


def make_record_folders(processed: Path, *, sharded: bool) -> list[Path]:
    """Create the folders of the record files and return them.

    Parameters
    ----------
    processed
        The processed folder.
    sharded
        Use subfolders. A folder that holds record files already keeps its layout.
    """
    folder = make_folder(processed / "records")
    with os.scandir(folder) as entries:
        is_new = not any(entry.name.endswith(".npz") for entry in entries)
    if is_sharded(processed) or (sharded and is_new):
        shards = [folder / name for name in _SHARDS]
        # `is_sharded` looks for the first one, so it is created last.
        for shard in reversed(shards):
            shard.mkdir(exist_ok=True)
        return [folder, *shards]
    return [folder]


@lru_cache(maxsize=65536)
def _file_name(key: str) -> str:
    """Return a key as a file name: refused characters are escaped, a long name ends in a hash."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*%]', lambda match: f"%{ord(match[0]):02X}", key)
    encoded = name.encode()
    # File systems take names of up to 255 bytes. A name that looks like a shortened one is hashed
    # too: it may be made to be that of another key.
    if len(encoded) <= 240 and not _SHORTENED.fullmatch(encoded):
        return name
    return f"{encoded[:200].decode(errors='ignore')}~{stable_hash(key)}"


# Record files -------------------------------------------------------------------------------------


def save_record_files(
    files: Iterable[tuple[str | Path, Mapping[str, Any]]], batch: FileBatch
) -> None:
    """Write the arrays for each path to a deflated .npz file.

    The files get their names when the batch is committed.

    Raises
    ------
    OSError
        If one cannot be written; the message names the file.
    """
    # All are prepared first, while the processor's caches hold the code for it.
    prepared = [(path, _prepare_file(arrays)) for path, arrays in files]
    for path, write in prepared:
        try:
            write(batch.add(path))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}; fix this and run the same command again",
                str(path),
            ) from None


def _prepare_file(arrays: Mapping[str, Any]) -> Callable[[str | Path], None]:
    """Return a function that writes a record file with these arrays to a path."""
    values = {name: np.asarray(value) for name, value in arrays.items()}
    if sum(array.nbytes for array in values.values()) > _ZIP64_LIMIT:
        return lambda path: np.savez_compressed(path, allow_pickle=False, **values)
    return Archive(values).write


def load_record_file(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a record file, or all of them.

    Raises
    ------
    ValueError
        If the file is missing or not a record file; the message names it.
    """
    try:
        arrays = read_npz(path, *names)
        _check_arrays(arrays)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a record file ({printable(str(error))}); delete it and run preprocess "
            "again, which rewrites it"
        ) from None
    return arrays


def load_signal(path: str | Path) -> Float32Array:
    """Read only the signal of a record file, shape (n_leads, n_samples)."""
    return load_record_file(path, "signal")["signal"]


# Kinds of NumPy type and number of axes of each array
_ARRAYS = {
    "signal": ("f", 2),
    "lead_mean": ("f", 1),
    "lead_std": ("f", 1),
    "lead_present": ("b", 1),
    "n_valid": ("iu", 0),
    "fs": ("f", 0),
    "label": ("U", 1),
    "annotated": ("U", 1),
    "record_id": ("U", 0),
    "dataset": ("U", 0),
    "config_hash": ("U", 0),
    # Only around beats
    "rr_s": ("f", 1),
}


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that a record file cannot hold, and arrays that do not fit together."""
    for name, array in arrays.items():
        kinds, n_axes = _ARRAYS.get(name, (array.dtype.kind, array.ndim))
        if array.dtype.kind not in kinds or array.ndim != n_axes:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        if name in _ARRAYS and array.dtype.kind == "f" and array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype}: expected float32")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")

    n_leads = set()
    for name, array in arrays.items():
        if name == "signal" or name.startswith("lead_"):
            n_leads.add(array.shape[0])
    if len(n_leads) > 1:
        raise ValueError(f"arrays are of {sorted(n_leads)} leads")

    if "n_valid" in arrays and "signal" in arrays:
        n_valid = arrays["n_valid"]
        n_samples = arrays["signal"].shape[1]
        if not 0 < n_valid <= n_samples:
            raise ValueError(f"n_valid is {n_valid} of {n_samples} samples")


def to_millivolts(arrays: Mapping[str, NDArray[Any]]) -> Float32Array:
    """Return the voltages of a record file in mV, shape (n_leads, n_valid).

    They are z-score * std + mean.
    """
    n_valid = int(arrays["n_valid"])
    signal: Float32Array = arrays["signal"][:, :n_valid]
    voltages: Float32Array = signal * arrays["lead_std"][:, None] + arrays["lead_mean"][:, None]
    return voltages
