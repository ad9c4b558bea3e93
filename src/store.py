"""Our own files on disk: record files (.npz), the manifest and its journal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.durable import FileBatch
from src.npz import Archive, read_npz
from src.text_tables import map_cells, plain_cell, safe_cell, zip_cells
from src.utils import atomic_path, printable, stable_hash

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
"""Part of every config hash: raised when the content of a record file changes meaning."""

INTERRUPTED = "was being made anew when the run was interrupted: run preprocess again"
"""The reason of a row whose record file may be an older one, until preprocessing has run to its
end.
"""

LIST_SEPARATOR = ";"
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


def patients_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the patient of each row of a manifest, named with its dataset; a record without one is
    its own patient.
    """
    cells = zip_cells(record_keys(rows), rows["dataset"], rows["patient_id"])
    return tuple(f"{dataset}/{patient}" if patient else key for key, dataset, patient in cells)


def is_plain_name(dataset: str) -> bool:
    """Tell whether a dataset's name can stand in a key, and alone as a folder's name on every
    system.
    """
    return (
        bool(dataset)
        and dataset.strip(". ") == dataset
        and "__" not in dataset
        and not re.search(r'[/\\:*?"<>|\x00-\x1f]', dataset)
    )


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


def load_signal(path: str | Path) -> NDArray[np.float32]:
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


def to_millivolts(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the voltages of a record file in mV, shape (n_leads, n_valid): z-score times std plus
    mean.
    """
    n_valid = int(arrays["n_valid"])
    signal: NDArray[np.float32] = arrays["signal"][:, :n_valid]
    voltages: NDArray[np.float32] = (
        signal * arrays["lead_std"][:, None] + arrays["lead_mean"][:, None]
    )
    return voltages


# Manifest -----------------------------------------------------------------------------------------


class ManifestRow(NamedTuple):
    """What became of one attempted record; lists are joined with ``;``."""

    dataset: str
    record_id: str
    patient_id: str = ""
    source_path: str = ""
    fs: float | str = ""
    n_samples: int | str = ""
    labels: str = ""
    annotated: str = ""
    label_source: str = ""
    fold: int | str = ""
    split: str = ""
    status: str = ""
    reason: str = ""
    quality_flags: str = ""
    signal_hash: str = ""
    age: float | str = ""
    sex: str = ""
    weight: float | str = ""
    config_hash: str = ""
    input_hash: str = ""


MANIFEST_COLUMNS = ManifestRow._fields


def join_list(values: Iterable[str]) -> str:
    """Join labels or flags for a CSV cell."""
    return LIST_SEPARATOR.join(values)


def split_list(cell: str) -> tuple[str, ...]:
    """Split a CSV cell of labels or flags; blanks and repeats are dropped."""
    return tuple(
        dict.fromkeys(
            part for part in (item.strip() for item in cell.split(LIST_SEPARATOR)) if part
        )
    )


class Journal:
    """Rows appended as they come, a JSON list a line, so that a killed run can go on; deleted once
    the manifest holds them.
    """

    def __init__(self, processed: Path) -> None:
        self.path = processed / "manifest.partial.jsonl"

    def append(self, rows: Iterable[ManifestRow]) -> None:
        """Add rows and bring them to the disk; a line that an earlier run left torn keeps to
        itself.
        """
        text = "".join(json.dumps(list(map(str, row))) + "\n" for row in rows)
        with open(self.path, "ab+") as stream:
            if (
                stream.seek(0, os.SEEK_END)
                and (stream.seek(-1, os.SEEK_END), stream.read(1))[1] != b"\n"
            ):
                text = "\n" + text
            stream.write(text.encode("ascii"))
            stream.flush()
            os.fsync(stream.fileno())

    def load(self) -> pd.DataFrame:
        """Return the rows that are whole."""
        import pandas as pd

        rows = []
        if self.path.exists():
            with open(self.path, "rb") as stream:
                rows = [row for line in stream if (row := _journal_row(line)) is not None]
        return pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS), dtype=str)

    def remove(self) -> None:
        """Delete the journal."""
        self.path.unlink(missing_ok=True)


def _journal_row(line: bytes) -> list[str] | None:
    """Return the cells of a line, or None where it is torn or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(row, list)
        and len(row) == len(MANIFEST_COLUMNS)
        and all(isinstance(cell, str) for cell in row)
    )
    return row if whole else None


_LATER_COLUMNS = ("weight",)
"""What manifests of earlier versions do not have; it is empty then."""


def load_manifest(processed: str | Path, columns: Sequence[str] = MANIFEST_COLUMNS) -> pd.DataFrame:
    """Read ``manifest.csv`` as strings, empty cells as empty strings; a folder without one gives no
    rows.

    Parameters
    ----------
    processed
        The folder that preprocessing filled.
    columns
        Those wanted, the dataset among them; the fewer, the less time and memory it takes.

    Raises
    ------
    ValueError
        If the file is not a manifest.
    """
    import pandas as pd

    path = Path(processed) / "manifest.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(columns), dtype=str)
    wanted = (
        None if columns is MANIFEST_COLUMNS else lambda name: name in columns
    )  # all are checked for rows that are too long
    try:
        _check_header(path)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, usecols=wanted)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a manifest ({error}); delete it and run preprocess again"
        ) from None
    missing = [name for name in columns if name not in frame.columns and name not in _LATER_COLUMNS]
    if missing:
        raise ValueError(
            f"{path}: columns {', '.join(missing)} are missing; delete it and run preprocess again"
        )
    frame = map_cells(frame.reindex(columns=list(columns), fill_value=""), plain_cell)
    strange = [name for name in frame["dataset"].unique() if not is_plain_name(name)]
    if strange:
        raise ValueError(
            f"{path}: {printable(repr(strange[0]))} is no dataset name; delete it and run "
            "preprocess again"
        )
    return frame


def _check_header(path: Path) -> None:
    """Refuse a first line far wider than a manifest's: pandas takes seconds over many thousand
    columns.

    Raises
    ------
    ValueError
        With the number of columns.
    """
    with open(path, "rb") as stream:
        n_columns = stream.readline(2**20).count(b",") + 1
    if n_columns > 10 * len(MANIFEST_COLUMNS):
        raise ValueError(
            f"{path}: not a manifest (it has {n_columns} columns); delete it and run "
            "preprocess again"
        )


def save_manifest(frame: pd.DataFrame, processed: str | Path) -> None:
    """Write ``manifest.csv`` atomically; its texts are safe to open in a spreadsheet."""
    safe = map_cells(frame[list(MANIFEST_COLUMNS)], safe_cell)
    with atomic_path(Path(processed) / "manifest.csv") as temporary:
        safe.to_csv(
            temporary, index=False, lineterminator="\n", encoding="utf-8", errors="backslashreplace"
        )
