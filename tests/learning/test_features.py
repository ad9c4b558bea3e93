"""Features of records: saved, loaded, and refused where they do not fit together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from src.learning.features import Features

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def make(**changed: object) -> Features:
    values = {"keys": ("d__1", "d__2"), "splits": ("train", "test"), "values": VALUES}
    return Features(**{**values, "random_values": -VALUES, "train_hashes": ("ab",), **changed})


def test_saved_features_come_back(tmp_path: Path) -> None:
    make().save(tmp_path / "f.npz")
    loaded = Features.load(tmp_path / "f.npz")
    assert (loaded.keys, loaded.splits) == (("d__1", "d__2"), ("train", "test"))
    assert loaded.train_hashes == ("ab",) and loaded.values.dtype == np.float32
    np.testing.assert_array_equal(loaded.values, VALUES)
    np.testing.assert_array_equal(loaded.random_values, -VALUES)
    make(train_hashes=()).save(tmp_path / "f.npz")
    assert Features.load(tmp_path / "f.npz").train_hashes == ()


def test_parquet_has_a_column_for_each_feature(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    make().save(tmp_path / "f.parquet")
    rows = parquet.read_table(tmp_path / "f.parquet").to_pylist()
    assert rows[1] == {
        "key": "d__2",
        "split": "test",
        "feature_0000": 3.0,
        "feature_0001": 4.0,
        "feature_0002": 5.0,
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keys": ("a", "a")}, "expected each record once"),
        ({"splits": ("train",)}, "2 keys and 1 splits"),
        ({"splits": ("train", "dev")}, "in one of train, val, test"),
        ({"random_values": VALUES[:, :2]}, r"random_values has shape \(2, 2\)"),
        ({"values": VALUES[:1]}, r"values has shape \(1, 3\)"),
        ({"values": VALUES * np.nan}, "values holds values that are not finite"),
    ],
)
def test_wrong_features_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changed)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    with pytest.raises(ValueError, match=r"f\.csv: expected a name that ends in \.npz or \.parq"):
        make().save(tmp_path / "f.csv")
    with pytest.raises(ValueError, match=re.escape(f"{path}: no features")):
        Features.load(path)
    make().save(path)
    with np.load(path) as arrays:
        good = dict(arrays)
    for name, value in (
        ("keys", np.zeros(2)),
        ("features", np.array([["a"]])),
        ("features", np.zeros(2)),
        ("train_hashes", np.zeros(2)),
    ):
        np.savez(path, **{**good, name: value})
        with pytest.raises(ValueError, match=f"{name} is .*; embed writes such files"):
            Features.load(path)
