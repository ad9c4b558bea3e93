"""Our own files on disk: record files (.npz), the manifest and its journal."""

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
from src.utils import Float32Array, printable, stable_hash

if TYPE_CHECKING:
    import pandas as pd


FORMAT_VERSION = 1
"""Part of every config hash: raised when the content of a record file changes meaning."""
_ZIP64_LIMIT = 2**31
_SHARD_DIGITS = 3
_SHARDS = tuple(f"{number:0{_SHARD_DIGITS}x}" for number in range(16**_SHARD_DIGITS))


# Names --------------------------------------------------------------------------------------------


def record_key(dataset: str, record_id: str) -> str:
    """Return the key that names a record in splits, predictions and files:
    ``<dataset>__<record_id>``.
    """
    return f"{dataset}__{record_id}"


def record_keys(frame: pd.DataFrame) -> pd.Series[str]:
    """Return the key of each row of a manifest."""
    return frame["dataset"] + record_key("", "") + frame["record_id"]


def record_path(processed: str | Path, key: str) -> Path:
    """Return the record file of a key below the folder `processed`, in a subfolder by its hash
    where there are such.
    """
    return Path(next(record_paths(processed, [key])))


def record_paths(processed: str | Path, keys: Iterable[str]) -> Iterator[str]:
    """Yield the record files of some keys, as `record_path` gives that of one, at a tenth of its
    cost.
    """
    folder, sharded = f"{processed}/records", is_sharded(processed)
    for key in keys:
        yield (
            f"{folder}/{stable_hash(key, _SHARD_DIGITS)}/{_file_name(key)}.npz"
            if sharded
            else f"{folder}/{_file_name(key)}.npz"
        )


def is_sharded(processed: str | Path) -> bool:
    """Tell whether the record files of a folder lie in subfolders, as very many do."""
    return os.path.isdir(f"{processed}/records/{_SHARDS[0]}")  # noqa: PTH112  it runs per file


def make_record_folders(processed: Path, *, sharded: bool) -> list[Path]:
    """Make the folders of the record files and return them; where there are record files already
    they stay as they lie.
    """
    folder = processed / "records"
    folder.mkdir(parents=True, exist_ok=True)
    with os.scandir(folder) as entries:
        is_new = not any(entry.name.endswith(".npz") for entry in entries)
    if is_sharded(processed) or (sharded and is_new):
        shards = [folder / name for name in _SHARDS]
        for shard in reversed(shards):  # the first comes last, since it tells that all are there
            shard.mkdir(exist_ok=True)
        return [folder, *shards]
    return [folder]


@lru_cache(maxsize=65536)
def _file_name(key: str) -> str:
    """Escape what a file system may refuse; plain keys stay as they are, overlong ones end in a
    hash.
    """
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*%]', lambda match: f"%{ord(match[0]):02X}", key)
    return (
        name
        if len(name.encode()) <= 240
        else f"{name.encode()[:200].decode(errors='ignore')}~{stable_hash(key)}"
    )


# Record files -------------------------------------------------------------------------------------


def save_record_files(
    files: Iterable[tuple[str | Path, Mapping[str, Any]]], batch: FileBatch
) -> None:
    """Write the arrays of each path as a deflated .npz, which gets that name when the batch is
    committed.

    Raises
    ------
    OSError
        If one cannot be written; the message names the file.
    """
    for path, write in [(path, _prepare_file(arrays)) for path, arrays in files]:
        try:
            write(batch.add(path))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}; mend that and run the same command again",
                str(path),
            ) from None


def _prepare_file(arrays: Mapping[str, Any]) -> Callable[[str | Path], None]:
    """Return what writes a record file of these arrays to a path."""
    values = {name: np.asarray(value) for name, value in arrays.items()}
    if sum(array.nbytes for array in values.values()) > _ZIP64_LIMIT:
        return lambda path: np.savez_compressed(path, allow_pickle=False, **values)
    return Archive(values).write


def load_record_file(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a record file, or all of them.

    Raises
    ------
    ValueError
        If the file is missing or no record file; the message names it.
    """
    return _read_arrays(path, *names)


def load_signal(path: str | Path) -> Float32Array:
    """Read only the signal of a record file, shape (n_leads, n_samples)."""
    return _read_arrays(path, "signal")["signal"]


def _read_arrays(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Read the named arrays of a record file, or all of them, and hold them to what a record file
    is.
    """
    try:
        arrays = read_npz(path, *names)
        _check_arrays(arrays)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a record file ({printable(str(error))}); delete it and run "
            "preprocess again, which makes it anew"
        ) from None
    return arrays


# Kind and number of axes of each array.
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
}


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        kinds, n_axes = _ARRAYS.get(name, (array.dtype.kind, array.ndim))
        if array.dtype.kind not in kinds or array.ndim != n_axes:
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    n_leads = {
        array.shape[0]
        for name, array in arrays.items()
        if name == "signal" or name.startswith("lead_")
    }
    if len(n_leads) > 1:
        raise ValueError(f"arrays are of {sorted(n_leads)} leads")
    if (
        "n_valid" in arrays
        and "signal" in arrays
        and not 0 < arrays["n_valid"] <= arrays["signal"].shape[1]
    ):
        raise ValueError(f"n_valid is {arrays['n_valid']} of {arrays['signal'].shape[1]} samples")


def to_millivolts(arrays: Mapping[str, NDArray[Any]]) -> Float32Array:
    """Return the voltages of a record file in mV, shape (n_leads, n_valid): z-score times std plus
    mean.
    """
    n_valid = int(arrays["n_valid"])
    signal: Float32Array = arrays["signal"][:, :n_valid]
    voltages: Float32Array = signal * arrays["lead_std"][:, None] + arrays["lead_mean"][:, None]
    return voltages
