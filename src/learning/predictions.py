"""`Predictions`: probabilities of a model beside the true labels, saved and loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.processed.npz import read_npz
from src.utils import Float32Array, Float64Array, atomic_path, printable

_ARRAYS = ("keys", "y_true", "y_score", "classes", "single_label")
_FURTHER_ARRAYS = ("thresholds", "signal_hashes", "train_hashes", "out_of_fold")
MAX_TEXT_BYTES = 16_384
DEFAULT_THRESHOLD = 0.5

ROUNDING = 1e-6
"""A probability in single precision may pass 0 or 1 by this much."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Targets and probabilities of a set of records; saved, metrics and figures need no model.

    Attributes
    ----------
    keys
        Record keys, length n_records.
    y_true
        Shape (n_records, n_classes): 1 present, 0 absent, NaN where the record's source did not
        look for the class.
    y_score
        Probabilities, shape (n_records, n_classes).
    classes
        Class names, in the order of the columns.
    single_label
        True where exactly one class is present in every record. None sets it by the targets: True
        if every record is annotated for all classes and has exactly one.
    thresholds
        Probability from which a class is predicted, shape (n_classes,); None means 0.5. Not used
        with one label per record, where the most probable class is predicted.
    signal_hashes
        Fingerprints of the recordings, length n_records; empty where not known.
    train_hashes
        Fingerprints of the recordings that the model was trained on; empty where not known, as in
        older files.
    out_of_fold
        True where several networks predicted, each the records that it was not trained on;
        `train_hashes` are those of all of them.

    Raises
    ------
    ValueError
        If shapes disagree, a class is named twice, or a target, a probability or a threshold is out
        of range.
    """

    keys: tuple[str, ...]
    y_true: Float32Array
    y_score: Float64Array
    classes: tuple[str, ...]
    single_label: bool | None = None
    thresholds: Float64Array | None = None
    signal_hashes: tuple[str, ...] = ()
    train_hashes: tuple[str, ...] = ()
    out_of_fold: bool = False

    def __post_init__(self) -> None:
        self._set("keys", tuple(str(key) for key in self.keys))
        self._set("classes", tuple(str(name) for name in self.classes))
        self._set("y_true", np.asarray(self.y_true, np.float32))
        self._set("y_score", np.asarray(self.y_score, np.float64))
        self._check_arrays()
        self._set("y_score", self.y_score.clip(0, 1))
        if self.thresholds is not None:
            self._set("thresholds", _check_thresholds(self.thresholds, len(self.classes)))
        has_one = (self.y_true == 1).sum(axis=1) == 1  # (n_records,)
        if self.single_label is None:
            all_annotated = not np.isnan(self.y_true).any()
            self._set("single_label", bool(self.keys and has_one.all() and all_annotated))
        elif self.single_label and not has_one.all():
            row = int(np.argmin(has_one))
            n_present = int((self.y_true[row] == 1).sum())
            raise ValueError(
                f"y_true of {self.keys[row]} has {n_present} classes present: expected one, or "
                "single_label=False"
            )

    def _set(self, name: str, value: object) -> None:
        # Assignment is blocked, as the class is frozen
        object.__setattr__(self, name, value)

    def _check_arrays(self) -> None:
        expected = (len(self.keys), len(self.classes))
        for name in ("y_true", "y_score"):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(
                    f"{name} has shape {shape}: expected {expected}, a row per key and a "
                    "column per class"
                )
        if self.signal_hashes and len(self.signal_hashes) != len(self.keys):
            raise ValueError(
                f"{len(self.signal_hashes)} signal_hashes for {len(self.keys)} records: expected "
                "one for each, or none"
            )
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes are {self.classes}: expected one or more names, each once")
        if not (np.isnan(self.y_true) | (self.y_true == 0) | (self.y_true == 1)).all():
            raise ValueError(
                "y_true holds other values than 0, 1 and NaN: give a column of outcomes for each "
                "class"
            )
        # NaN fails both comparisons
        if not ((self.y_score >= -ROUNDING) & (self.y_score <= 1 + ROUNDING)).all():
            raise ValueError(
                "y_score holds values that are not probabilities: expected 0 to 1, as softmax or "
                "sigmoid gives"
            )

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """Predicted classes, 1 present or 0 absent, shape (n_records, n_classes).

        With one label per record it is the most probable of the classes that the record's source
        looked for, the first of equals.
        """
        if self.single_label:
            # Entries that are not annotated go below any probability
            scores = np.where(np.isnan(self.y_true), -1.0, self.y_score)
            one_hot = np.eye(len(self.classes), dtype=np.int64)
            predicted: NDArray[np.int64] = one_hot[scores.argmax(axis=1)]
            return predicted
        thresholds = DEFAULT_THRESHOLD if self.thresholds is None else self.thresholds
        return (self.y_score >= thresholds).astype(np.int64)

    def subset(self, rows: NDArray[np.intp]) -> Predictions:
        """Return the predictions for the records at the positions `rows`."""
        hashes = self.signal_hashes
        return dataclasses.replace(
            self,
            keys=tuple(self.keys[row] for row in rows),
            y_true=self.y_true[rows],
            y_score=self.y_score[rows],
            signal_hashes=tuple(hashes[row] for row in rows) if hashes else (),
        )

    def save(self, path: str | Path) -> None:
        """Write a compressed .npz, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {
            "keys": np.array(self.keys, dtype=np.str_),
            "y_true": self.y_true,
            "y_score": self.y_score,
            "classes": np.array(self.classes, dtype=np.str_),
            "single_label": np.array(self.single_label),
        }
        if self.thresholds is not None:
            arrays["thresholds"] = self.thresholds
        if self.out_of_fold:
            arrays["out_of_fold"] = np.array(self.out_of_fold)
        for name, hashes in (
            ("signal_hashes", self.signal_hashes),
            ("train_hashes", self.train_hashes),
        ):
            if hashes:
                # A quarter of the size of text
                arrays[name] = np.array([text.encode("ascii", "replace") for text in hashes])
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is missing, not of this kind, or its arrays do not fit together; the message
            names the file.
        """
        arrays = _read_archive(Path(path))
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise ValueError(
                f"{path}: {', '.join(missing)} missing; expected predictions as evaluate writes "
                "them"
            )
        try:
            _check_arrays(arrays)
            return cls(
                keys=tuple(arrays["keys"].tolist()),
                y_true=arrays["y_true"],
                y_score=arrays["y_score"],
                classes=tuple(arrays["classes"].tolist()),
                single_label=bool(arrays["single_label"]),
                thresholds=arrays.get("thresholds"),
                signal_hashes=_read_hashes(arrays, "signal_hashes"),
                train_hashes=_read_hashes(arrays, "train_hashes"),
                out_of_fold=bool(arrays.get("out_of_fold", False)),
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {printable(str(error), 1000)}") from None


def check_same_classes(classes: tuple[str, ...], predictions: Predictions) -> None:
    """Refuse predictions of other classes than a calibration or thresholds were fitted for."""
    if classes != predictions.classes:
        raise ValueError(
            f"fitted for classes {', '.join(classes)}: the predictions have "
            f"{', '.join(predictions.classes)}"
        )


def _check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays of other kinds or sizes, before a list is made of millions of texts."""
    keys, classes = arrays["keys"], arrays["classes"]
    expected = {
        "keys": ("U", keys.shape[:1]),
        "classes": ("U", classes.shape[:1]),
        "y_true": ("fiub", keys.shape[:1] + classes.shape[:1]),
        "y_score": ("fiub", keys.shape[:1] + classes.shape[:1]),
    }
    for name, (kinds, shape) in expected.items():
        array = arrays[name]
        if array.dtype.kind not in kinds or array.shape != shape:
            raise ValueError(
                f"{name} is {array.dtype} of shape {array.shape}: expected shape {shape}, a row "
                "for each of keys and a column for each of classes"
            )
        if array.dtype.itemsize > MAX_TEXT_BYTES:
            raise ValueError(
                f"{name} has texts of {array.dtype.itemsize} bytes: expected {MAX_TEXT_BYTES}"
            )


def _check_thresholds(thresholds: Float64Array, n_classes: int) -> Float64Array:
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (n_classes,) or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(
            f"thresholds are {thresholds.tolist()}: expected {n_classes} numbers from 0 to 1, one "
            "per class"
        )
    return thresholds


def _read_hashes(arrays: Mapping[str, NDArray[Any]], name: str) -> tuple[str, ...]:
    """Return the fingerprints that a file holds, none where it was written without."""
    if name not in arrays:
        return ()
    hashes = arrays[name]
    if hashes.dtype.kind != "S" or hashes.ndim != 1:
        raise ValueError(
            f"{name} is {hashes.dtype} of shape {hashes.shape}: expected a list of fingerprints"
        )
    return tuple(text.decode("ascii", "replace") for text in hashes.tolist())


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return read_npz(path, optional=(*_ARRAYS, *_FURTHER_ARRAYS))
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror or error}); evaluate writes such files"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path}: not a predictions file ({printable(str(error))}); evaluate writes such files"
        ) from None
