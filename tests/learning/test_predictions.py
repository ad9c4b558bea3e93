from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions

NAN = float("nan")


def make(y_true: object, y_score: object, **values: object) -> Predictions:
    y_true = np.asarray(y_true, float)
    keys = tuple(f"r{i}" for i in range(len(y_true)))
    return Predictions(keys, y_true, y_score, tuple("ABCDEFGH"[: y_true.shape[1]]), **values)


def test_one_label_per_record_is_recognised() -> None:
    assert make([[1, 0], [0, 1]], [[0.9, 0.1], [0.4, 0.6]]).single_label is True
    assert make([[1, 1], [0, 1]], np.zeros((2, 2))).single_label is False
    assert make([[1, NAN], [0, 1]], np.zeros((2, 2))).single_label is False


def test_decisions() -> None:
    scores = [[0.5, 0.5, 0.0], [0.1, 0.2, 0.3]]
    assert make(np.eye(3)[:2], scores).y_pred.tolist() == [[1, 0, 0], [0, 0, 1]]
    multi = {"single_label": False}
    assert make(np.eye(3)[:2], scores, **multi).y_pred.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert make(np.eye(3)[:2], scores, thresholds=[0.6, 0.2, 0.3], **multi).y_pred.tolist() == [
        [0, 1, 0],
        [0, 1, 1],
    ]


def test_a_class_that_was_not_looked_for_is_not_predicted_among_exclusive_ones() -> None:
    predictions = make([[1, 0, NAN]], [[0.3, 0.1, 0.6]], single_label=True)
    assert (
        predictions.y_pred.tolist() == [[1, 0, 0]] and compute_metrics(predictions)["accuracy"] == 1
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"y_score": np.zeros((2, 3))}, r"y_score has shape \(2, 3\): expected \(2, 2\)"),
        ({"y_score": np.full((2, 2), NAN)}, "expected 0 to 1"),
        ({"y_score": np.full((2, 2), 1.1)}, "expected 0 to 1"),
        ({"y_true": np.full((2, 2), 0.5)}, "other values than 0, 1 and NaN"),
        ({"classes": ("A", "A")}, "each once"),
        ({"thresholds": [0.5]}, "expected 2 numbers from 0 to 1"),
        ({"thresholds": [0.5, NAN]}, "expected 2 numbers from 0 to 1"),
        ({"y_true": np.ones((2, 2)), "single_label": True}, "y_true of r0 has 2 classes present"),
    ],
)
def test_wrong_arrays_are_refused(values: dict[str, object], message: str) -> None:
    good = {"keys": ("r0", "r1"), "y_true": np.eye(2), "y_score": np.eye(2), "classes": ("A", "B")}
    with pytest.raises(ValueError, match=message):
        Predictions(**{**good, **values})


@pytest.mark.parametrize("thresholds", [None, [0.25, 0.75]])
def test_saved_predictions_come_back(tmp_path: Path, thresholds: list[float] | None) -> None:
    saved = make([[1, NAN], [0, 1]], [[0.1, 1 / 3], [0.2, 0.9]], thresholds=thresholds)
    saved.save(tmp_path / "p.npz")
    loaded = Predictions.load(tmp_path / "p.npz")
    assert (loaded.keys, loaded.classes, loaded.single_label) == (saved.keys, saved.classes, False)
    np.testing.assert_array_equal(loaded.y_true, saved.y_true)
    np.testing.assert_array_equal(loaded.y_score, saved.y_score)
    assert (
        (loaded.thresholds is None)
        if thresholds is None
        else loaded.thresholds.tolist() == thresholds
    )
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(ValueError, match=re.escape(f"{path}: cannot be read")):
        Predictions.load(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match=re.escape(f"{path}: not a predictions file")):
        Predictions.load(path)
    np.savez(path, keys=np.array(["a"]), y_true=np.zeros((1, 1)))
    with pytest.raises(
        ValueError, match=re.escape(f"{path}: y_score, classes, single_label missing")
    ):
        Predictions.load(path)
    np.savez(
        path,
        keys=np.array(["a"]),
        y_true=np.ones((1, 1)),
        y_score=[[2.0]],
        classes=["A"],
        single_label=True,
    )
    with pytest.raises(ValueError, match=re.escape(f"{path}: y_score holds")):
        Predictions.load(path)


def test_recordings_are_saved_by_their_fingerprints_and_old_files_have_none(tmp_path: Path) -> None:
    saved = make(
        [[1, NAN], [0, 1]],
        [[0.1, 0.3], [0.2, 0.9]],
        signal_hashes=("1a", "1b"),
        train_hashes=("c",),
    )
    saved.save(tmp_path / "p.npz")
    loaded = Predictions.load(tmp_path / "p.npz")
    assert loaded.signal_hashes == ("1a", "1b") and loaded.train_hashes == ("c",)
    assert loaded.subset(np.array([1])).signal_hashes == ("1b",)
    make([[1, 0]], [[0.1, 0.3]]).save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as arrays:
        assert sorted(arrays) == ["classes", "keys", "single_label", "y_score", "y_true"]
    assert Predictions.load(tmp_path / "old.npz").train_hashes == ()
    with np.load(tmp_path / "p.npz") as arrays:
        np.savez(tmp_path / "bad.npz", **{**arrays, "train_hashes": np.zeros((2, 2))})
        np.savez(tmp_path / "short.npz", **{**arrays, "signal_hashes": np.array([b"1a"])})
    with pytest.raises(ValueError, match=r"bad\.npz: train_hashes is float64 of shape \(2, 2\)"):
        Predictions.load(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r"short\.npz: 1 signal_hashes for 2 records"):
        Predictions.load(tmp_path / "short.npz")
