"""`Features`: what a network computes of each record before its head, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.config import SPLIT_NAMES
from src.learning.predictions import MAX_TEXT_BYTES
from src.processed.export import EXTRA
from src.processed.npz import read_npz
from src.utils import Float32Array, atomic_path, import_extra, printable

_ARRAYS = ("keys", "splits", "features", "random_features", "train_hashes")


@dataclass(frozen=True, eq=False)
class Features:
    """Features of records, from a trained network and from the same network untrained.

    Attributes
    ----------
    keys, splits
        Record key and split of each record, length n_records.
    values
        Of the trained network, shape (n_records, n_features).
    random_values
        Of a network of the same architecture with random weights, of the same shape.
    train_hashes
        Fingerprints of the recordings that the network was trained on.

    Raises
    ------
    ValueError
        If shapes disagree, a record stands twice, or a value is not finite.
    """

    keys: tuple[str, ...]
    splits: tuple[str, ...]
    values: Float32Array
    random_values: Float32Array
    train_hashes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.keys)
        if len(set(self.keys)) < n or len(self.splits) != n or set(self.splits) - set(SPLIT_NAMES):
            raise ValueError(
                f"{n} keys and {len(self.splits)} splits: expected each record once, in one of "
                f"{', '.join(SPLIT_NAMES)}"
            )
        for name in ("values", "random_values"):
            array = getattr(self, name)
            if array.ndim != 2 or len(array) != n or array.shape != self.values.shape:
                raise ValueError(
                    f"{name} has shape {array.shape}: expected a row for each of {n} records"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite: train the network anew")

    def save(self, path: str | Path) -> None:
        """Write a ``.npz``, or by that suffix a ``.parquet`` with a column for each feature.

        Parquet is for other programs: it leaves out the features of the untrained network.

        Raises
        ------
        ValueError
            If the suffix is another, or Parquet is asked for without pyarrow.
        """
        suffix = Path(path).suffix.lower()
        if suffix == ".parquet":
            self._save_parquet(Path(path))
        elif suffix == ".npz":
            arrays: dict[str, NDArray[Any]] = {
                "keys": np.array(self.keys, dtype=np.str_),
                "splits": np.array(self.splits, dtype=np.str_),
                "features": self.values,
                "random_features": self.random_values,
                "train_hashes": np.array([text.encode() for text in self.train_hashes], "S"),
            }
            with atomic_path(path) as temporary, open(temporary, "wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **arrays)
        else:
            raise ValueError(f"{path}: expected a name that ends in .npz or .parquet")

    def _save_parquet(self, path: Path) -> None:
        pyarrow = import_extra("pyarrow", "writing Parquet", EXTRA)
        parquet = import_extra("pyarrow.parquet", "writing Parquet", EXTRA)
        columns: dict[str, object] = {"key": list(self.keys), "split": list(self.splits)}
        for i, column in enumerate(self.values.T):
            columns[f"feature_{i:04d}"] = np.ascontiguousarray(column)
        with atomic_path(path) as temporary:
            parquet.write_table(pyarrow.table(columns), str(temporary), compression="zstd")

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Read the ``.npz`` that `save` wrote.

        Raises
        ------
        ValueError
            If the file is missing, not of this kind, or its arrays do not fit together; the message
            names the file.
        """
        shown = printable(str(path), 1000)
        try:
            arrays = read_npz(path, *_ARRAYS)
            _check_arrays(arrays)
            return cls(
                keys=tuple(arrays["keys"].tolist()),
                splits=tuple(arrays["splits"].tolist()),
                values=arrays["features"],
                random_values=arrays["random_features"],
                train_hashes=tuple(
                    text.decode("ascii", "replace") for text in arrays["train_hashes"].tolist()
                ),
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{shown}: no features ({printable(str(error), 1000)}); embed writes such files"
            ) from None


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays of other kinds or sizes, before lists are made of them."""
    kinds = {"keys": "U", "splits": "U", "train_hashes": "S"}
    for name, array in arrays.items():
        is_text = name in kinds
        if array.dtype.kind != kinds.get(name, "f") or array.ndim != (1 if is_text else 2):
            raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
        if is_text and array.dtype.itemsize > MAX_TEXT_BYTES:
            raise ValueError(f"{name} has texts of {array.dtype.itemsize} bytes")
