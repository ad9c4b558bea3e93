"""`Predictions`, what a classifier said of a set of records, and the numbers that judge it.

Every metric looks only at annotated entries: a target of NaN says that the record's source did not
look for the class.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.npz import read_npz
from src.ranking import Floats, Ranking
from src.utils import atomic_path, printable

DEFAULT_THRESHOLD = 0.5
_SHOWN = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "AP",
}
FREQUENT = 10
"""Positives from which on a class counts for the macro averages over frequent classes: with fewer,
luck decides its score.
"""
_ROUNDING = 1e-6  # by how much a probability in single precision may pass 0 or 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Targets and probabilities of a set of records; saved, so that metrics and figures need no
    model.

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
        True where exactly one class is present in every record. None finds out: every record is
        annotated for all classes and carries one.
    thresholds
        Probability from which a class is called present, shape (n_classes,); None means 0.5. Not
        used with one label per record, where the most probable class is called.

    Raises
    ------
    ValueError
        If shapes disagree, a name stands twice, or a target, a probability or a threshold is out of
        range.
    """

    keys: tuple[str, ...]
    y_true: NDArray[np.float32]
    y_score: Floats
    classes: tuple[str, ...]
    single_label: bool | None = None
    thresholds: Floats | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(str(key) for key in self.keys))
        object.__setattr__(self, "classes", tuple(str(name) for name in self.classes))
        object.__setattr__(self, "y_true", np.asarray(self.y_true, np.float32))
        object.__setattr__(self, "y_score", np.asarray(self.y_score, np.float64))
        self._check_arrays()
        object.__setattr__(self, "y_score", self.y_score.clip(0, 1))
        if self.thresholds is not None:
            object.__setattr__(
                self, "thresholds", _check_thresholds(self.thresholds, len(self.classes))
            )
        one_each = (self.y_true == 1).sum(axis=1) == 1
        if self.single_label is None:
            single = (
                bool(len(self.keys)) and bool(one_each.all()) and not np.isnan(self.y_true).any()
            )
            object.__setattr__(self, "single_label", single)
        elif self.single_label and not one_each.all():
            row = int(np.argmin(one_each))
            n = int((self.y_true[row] == 1).sum())
            raise ValueError(
                f"y_true of {self.keys[row]} has {n} classes present: expected one, or "
                "single_label=False"
            )

    def _check_arrays(self) -> None:
        expected = (len(self.keys), len(self.classes))
        for name in ("y_true", "y_score"):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ValueError(
                    f"{name} has shape {shape}: expected {expected}, a row per key and a "
                    "column per class"
                )
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes are {self.classes}: expected one or more names, each once")
        if not (np.isnan(self.y_true) | (self.y_true == 0) | (self.y_true == 1)).all():
            raise ValueError(
                "y_true holds other values than 0, 1 and NaN: give a column of outcomes "
                "for each class"
            )
        if not ((self.y_score >= -_ROUNDING) & (self.y_score <= 1 + _ROUNDING)).all():
            raise ValueError(
                "y_score holds values that are no probabilities: expected 0 to 1, as "
                "softmax or sigmoid gives"
            )

    @property
    def y_pred(self) -> NDArray[np.int64]:
        """Decisions, 1 present or 0 absent, shape (n_records, n_classes).

        With one label per record it is the most probable of the classes that the record's source
        looked for, the first of equals.
        """
        if self.single_label:
            scores = np.where(np.isnan(self.y_true), -1.0, self.y_score)
            called: NDArray[np.int64] = np.eye(len(self.classes), dtype=np.int64)[
                scores.argmax(axis=1)
            ]
            return called
        thresholds = DEFAULT_THRESHOLD if self.thresholds is None else self.thresholds
        return (self.y_score >= thresholds).astype(np.int64)

    def subset(self, rows: NDArray[np.intp]) -> Predictions:
        """Return the predictions for the records at the positions `rows`."""
        keys = tuple(self.keys[row] for row in rows)
        return dataclasses.replace(
            self, keys=keys, y_true=self.y_true[rows], y_score=self.y_score[rows]
        )

    def save(self, path: str | Path) -> None:
        """Write a compressed .npz, whole or not at all."""
        arrays: dict[str, Any] = {
            "keys": np.array(self.keys, dtype=np.str_),
            "y_true": self.y_true,
            "y_score": self.y_score,
            "classes": np.array(self.classes, dtype=np.str_),
            "single_label": np.array(self.single_label),
        }
        if self.thresholds is not None:
            arrays["thresholds"] = self.thresholds
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
        missing = [
            name
            for name in ("keys", "y_true", "y_score", "classes", "single_label")
            if name not in arrays
        ]
        if missing:
            raise ValueError(
                f"{path}: {', '.join(missing)} missing; expected predictions as evaluate "
                "writes them"
            )
        try:
            return cls(
                keys=tuple(arrays["keys"].tolist()),
                y_true=arrays["y_true"],
                y_score=arrays["y_score"],
                classes=tuple(arrays["classes"].tolist()),
                single_label=bool(arrays["single_label"]),
                thresholds=arrays.get("thresholds"),
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {printable(str(error), 1000)}") from None


def _check_thresholds(thresholds: Floats, n_classes: int) -> Floats:
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (n_classes,) or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(
            f"thresholds are {thresholds.tolist()}: expected {n_classes} numbers from 0 "
            "to 1, one per class"
        )
    return thresholds


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return read_npz(path)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror or error}); evaluate writes such files"
        ) from None
    except ValueError as error:
        raise ValueError(
            f"{path}: not a predictions file ({printable(str(error))}); evaluate writes such files"
        ) from None


# Metrics ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Counts:
    """Decisions against outcomes, each array (..., n_classes)."""

    true_positive: Floats
    false_positive: Floats
    false_negative: Floats

    @classmethod
    def of(cls, predictions: Predictions, weights: Floats | None = None) -> Counts:
        """Count over the annotated entries, under each of `weights` (n_weightings, n_records) where
        given.
        """
        called, outcome = predictions.y_pred == 1, predictions.y_true

        def total(entries: NDArray[np.bool_]) -> Floats:
            return (
                entries.sum(axis=0, dtype=np.float64)
                if weights is None
                else weights @ entries.astype(np.float64)
            )

        return cls(
            total(called & (outcome == 1)),
            total(called & (outcome == 0)),
            total(~called & (outcome == 1)),
        )

    @property
    def support(self) -> Floats:
        """Records that have the class."""
        return self.true_positive + self.false_negative

    @property
    def precision(self) -> Floats:
        """Share of the calls that are right; 0 without a call, NaN for a class without a
        positive.
        """
        return self._share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Floats:
        """Share of the positives that are called, the sensitivity; NaN for a class without a
        positive.
        """
        return self._share(self.true_positive, self.support)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall; NaN for a class without a positive."""
        return self._share(
            2 * self.true_positive,
            2 * self.true_positive + self.false_positive + self.false_negative,
        )

    def _share(self, part: Floats, whole: Floats) -> Floats:
        share = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        return np.where(self.support > 0, share, np.nan)


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Judge predictions.

    Returns
    -------
    dict
        ``n_records``, ``n_classes``, ``single_label``; ``accuracy`` (of the most probable class;
        with several labels per record, the share of records whose annotated entries are all right);
        ``f1_macro``, ``f1_micro``, ``f1_weighted``, ``precision_macro``, ``recall_macro``,
        ``auroc_macro``, ``average_precision_macro``; ``frequent``: min_positives, n_classes and the
        five macro averages over the classes with that many positives; ``per_class``: name ->
        precision, recall, f1, support, n_annotated, threshold, auroc, average_precision;
        ``confusion_matrix`` (rows the truth, columns the calls; None with several labels per
        record); ``undefined_classes``. Plain JSON values, None where a value does not exist.

    Raises
    ------
    ValueError
        If there is no record.

    Notes
    -----
    Without a positive a class has no precision, recall or F1, and without a positive or a negative
    no AUROC and no average precision. Such classes are named in ``undefined_classes`` and left out
    of the macro averages concerned. A class that is there but never called has precision and F1 of
    0.
    """
    if not predictions.keys:
        raise ValueError("there are no predictions to judge: expected one record or more")
    counts = Counts.of(predictions)
    columns = _columns(predictions, counts)
    rows = [
        {name: _plain(values[i]) for name, values in columns.items()}
        for i in range(len(predictions.classes))
    ]
    frequent = columns["support"] >= FREQUENT
    return {
        "n_records": len(predictions.keys),
        "n_classes": len(predictions.classes),
        "single_label": predictions.single_label,
        "accuracy": _accuracy(predictions),
        **_macros(columns),
        **_pooled_f1(counts),
        "frequent": {
            "min_positives": FREQUENT,
            "n_classes": int(frequent.sum()),
            **_macros({name: values[frequent] for name, values in columns.items()}),
        },
        "per_class": dict(zip(predictions.classes, rows, strict=True)),
        "confusion_matrix": _confusion_matrix(predictions) if predictions.single_label else None,
        "undefined_classes": [
            name
            for name, row in zip(predictions.classes, rows, strict=True)
            if row["auroc"] is None
        ],
    }


def _macros(columns: dict[str, NDArray[Any]]) -> dict[str, float | None]:
    """Return the averages over the classes that have the metric."""
    return {f"{name}_macro": mean_defined(columns[name]) for name in _SHOWN}


def _columns(predictions: Predictions, counts: Counts) -> dict[str, NDArray[Any]]:
    """Return metric -> its value for each class, NaN where it does not exist."""
    pairs = zip(predictions.y_true.T, predictions.y_score.T, strict=True)
    areas = np.array(
        [np.concatenate(Ranking.of(*pair).areas()) for pair in pairs]
    )  # (n_classes, 2)
    n_classes = len(predictions.classes)
    thresholds = (
        np.full(n_classes, DEFAULT_THRESHOLD)
        if predictions.thresholds is None
        else predictions.thresholds
    )
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "support": counts.support.astype(np.int64),
        "n_annotated": (~np.isnan(predictions.y_true)).sum(axis=0),
        "threshold": np.full(n_classes, np.nan) if predictions.single_label else thresholds,
        "auroc": areas[:, 0],
        "average_precision": areas[:, 1],
    }


def _plain(value: np.generic) -> Any:
    """Return a plain number, None for NaN."""
    return None if np.isnan(value) else value.item()


def mean_defined(values: Floats) -> float | None:
    """Return the mean of the values that are not NaN, None without one."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _pooled_f1(counts: Counts) -> dict[str, float | None]:
    """Return F1 over all entries, and the mean of the classes' F1 weighted by how many records have
    them.
    """
    true, wrong = counts.true_positive.sum(), (counts.false_positive + counts.false_negative).sum()
    support = counts.support
    weighted = np.nansum(counts.f1 * support) / support.sum() if support.any() else None
    return {
        "f1_micro": float(2 * true / (2 * true + wrong)) if support.any() else None,
        "f1_weighted": None if weighted is None else float(weighted),
    }


def _accuracy(predictions: Predictions) -> float | None:
    known = ~np.isnan(predictions.y_true)
    right = ((predictions.y_pred == predictions.y_true) | ~known).all(axis=1)[known.any(axis=1)]
    return float(right.mean()) if len(right) else None


def _confusion_matrix(predictions: Predictions) -> list[list[int]]:
    present = (predictions.y_true == 1).astype(np.int64)
    matrix: list[list[int]] = (present.T @ predictions.y_pred).tolist()
    return matrix


# Text ---------------------------------------------------------------------------------------------


def format_metrics(metrics: dict[str, Any]) -> str:
    """Return the metrics as an aligned plain table: a row per class, the macro averages, and the
    pooled values below.
    """
    table = [["class", "positive", "annotated", "threshold", *_SHOWN.values()]]
    for name, row in metrics["per_class"].items():
        numbers = [_number(row[key]) for key in ("threshold", *_SHOWN)]
        table.append([name, str(row["support"]), str(row["n_annotated"]), *numbers])
    table.append(["macro", "", str(metrics["n_records"]), "", *_averages(metrics)])
    if metrics["frequent"]["n_classes"] < metrics["n_classes"]:
        table.append(
            [
                f"macro, {FREQUENT} positives or more",
                f"{metrics['frequent']['n_classes']} classes",
                "",
                "",
                *_averages(metrics["frequent"]),
            ]
        )
    if metrics["single_label"]:
        table = [
            row[:3] + row[4:] for row in table
        ]  # the most probable class is called, without thresholds
    pooled = {"accuracy": "accuracy", "F1 micro": "f1_micro", "F1 weighted": "f1_weighted"}
    lines = [
        format_table(table),
        ", ".join(f"{shown} {_number(metrics[key])}" for shown, key in pooled.items()),
    ]
    if metrics["undefined_classes"]:
        lines.append(
            "positives or negatives only, left out of averages: "
            f"{', '.join(metrics['undefined_classes'])}"
        )
    return "\n".join(lines)


def _averages(metrics: dict[str, Any]) -> list[str]:
    return [_number(metrics[f"{key}_macro"]) for key in _SHOWN]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def format_table(table: list[list[str]]) -> str:
    """Return rows of cells as lines, the first to the left and the numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in table
    )
