"""A linear probe: logistic regression on a network's features, beside an untrained network's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.config import TrainConfig
from src.eval import FITTED_ON, Evaluation, EvaluationOptions, evaluate_predictions
from src.learning.features import Features
from src.learning.predictions import Predictions
from src.learning.results import MacroName
from src.learning.text import format_table
from src.processed.manifest import find_keys
from src.processed.mirror import local_copy
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    choose_task,
    encode_targets,
    load_records,
)
from src.utils import Float32Array, Float64Array, format_interval, format_number

PREDICTIONS_FILE = "predictions_probe.npz"
_MAX_ITERATIONS = 1000
_SCORES: tuple[MacroName, ...] = ("auroc_macro", "f1_macro", "average_precision_macro")


@dataclass(frozen=True)
class Probe:
    """Evaluations of a probe on a network's features, and of one on an untrained network's."""

    features: Evaluation
    random: Evaluation

    def __str__(self) -> str:
        table = [["features of", "records", *_SCORES]]
        for name, evaluation in (
            ("the network", self.features),
            ("the same, untrained", self.random),
        ):
            metrics = evaluation.metrics
            intervals = metrics.get("intervals")
            cells = []
            for score in _SCORES:
                cell = format_number(metrics[score])
                if intervals is not None:
                    cell += f" {format_interval(intervals[score])}"
                cells.append(cell)
            table.append([name, str(metrics["n_records"]), *cells])
        return f"{self.features.split}:\n{format_table(table)}"


def run_probe(
    features: str | Path,
    processed: str | Path,
    out: str | Path,
    *,
    split: str = "test",
    target: str = "auto",
    classes: Sequence[str] = (),
    strength: float = 0.1,
    options: EvaluationOptions | None = None,
    allow_overlap: bool = False,
) -> Probe:
    """Fit a logistic regression on features of train and evaluate it on another split.

    Parameters
    ----------
    features
        The ``.npz`` that `src.commands.embed.embed` wrote for this processed folder.
    processed
        The folder that preprocessing filled.
    out
        Gets ``predictions_probe.npz`` (val and test), and what `evaluate_predictions` writes; the
        folder ``random`` in it gets the same of the untrained network.
    split
        val or test.
    target, classes
        The task, chosen from the training records as by train.
    strength
        Inverse of the strength of the L2 penalty: C of scikit-learn, on standardized features.
    options, allow_overlap
        As for `evaluate_predictions`.

    Raises
    ------
    ValueError
        If the features lack a record, `split` is train, or as `evaluate_predictions`.
    """
    if split not in ("val", "test"):
        raise ValueError(f"split is {split!r}: expected val or test, as train is fitted on")
    if not strength > 0:
        raise ValueError(f"strength is {strength}: expected a number above 0")
    processed = local_copy(processed)
    options = options or EvaluationOptions()
    found = Features.load(features)
    splits = load_records(processed)
    task = choose_task(splits["train"], TrainConfig(classes=tuple(classes), target=target))
    options.check(split, task.single_label)
    chosen = {name: choose_records(records, task, name) for name, records in splits.items()}
    rows = {name: _rows_of(found, records, features) for name, records in chosen.items()}
    evaluations = []
    for folder, values in ((Path(out), found.values), (Path(out) / "random", found.random_values)):
        # Of the untrained network only the probe has seen recordings
        seen = found.train_hashes if values is found.values else ()
        predictions = _predict(values, chosen, rows, task, strength, seen)
        predictions.save(folder / PREDICTIONS_FILE)
        evaluation = evaluate_predictions(
            folder / PREDICTIONS_FILE,
            processed,
            split=split,
            out=folder,
            options=options,
            allow_overlap=allow_overlap,
        )
        evaluations.append(evaluation)
    return Probe(*evaluations)


def _rows_of(features: Features, records: LabelledRecords, path: str | Path) -> NDArray[np.intp]:
    """Return the row of each record among the features."""
    place = {key: row for row, key in enumerate(find_keys(features.keys, records.keys))}
    absent = [key for key in records.keys if key not in place]
    if absent:
        raise ValueError(
            f"{path}: has no features of {len(absent)} records, such as {absent[0]}: run embed "
            "with this processed folder"
        )
    return np.array([place[key] for key in records.keys], np.intp)


def _predict(
    values: Float32Array,
    records: Mapping[str, LabelledRecords],
    rows: Mapping[str, NDArray[np.intp]],
    task: Task,
    strength: float,
    train_hashes: Sequence[str],
) -> Predictions:
    """Fit on train, and return the predictions for val and test."""
    held_out = [name for name in (FITTED_ON, "test") if len(records[name])]
    fitted, predicted = rows["train"], np.concatenate([rows[name] for name in held_out])
    targets = encode_targets(records["train"], task.classes)
    mean, spread = values[fitted].mean(axis=0), values[fitted].std(axis=0)
    scaled = (values - mean) / np.where(spread > 0, spread, 1)
    fit = fit_exclusive if task.single_label else fit_each
    return Predictions(
        keys=tuple(key for name in held_out for key in records[name].keys),
        y_true=np.concatenate([encode_targets(records[name], task.classes) for name in held_out]),
        y_score=fit(scaled[fitted], targets, scaled[predicted], strength),
        classes=task.classes,
        single_label=task.single_label,
        signal_hashes=tuple(item for name in held_out for item in records[name].signal_hashes),
        train_hashes=tuple({*train_hashes, *records["train"].signal_hashes}),
    )


def fit_exclusive(
    x: Float32Array, targets: Float32Array, x_new: Float32Array, strength: float
) -> Float64Array:
    """Return probabilities of classes of which each record has one, shape (n_new, n_classes)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
    model.fit(x, (targets == 1).argmax(axis=1))
    scores = np.zeros((len(x_new), targets.shape[1]))
    scores[:, model.classes_] = model.predict_proba(x_new)
    return scores


def fit_each(
    x: Float32Array, targets: Float32Array, x_new: Float32Array, strength: float
) -> Float64Array:
    """Return probabilities of classes one by one, each from the records annotated for it.

    A class that all or none of them carry gets that share.
    """
    from sklearn.linear_model import LogisticRegression

    scores = np.zeros((len(x_new), targets.shape[1]))
    for column, target in enumerate(targets.T):
        is_annotated = ~np.isnan(target)
        outcomes = target[is_annotated] == 1
        if outcomes.all() or not outcomes.any():
            scores[:, column] = float(outcomes.any())
            continue
        model = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS)
        scores[:, column] = model.fit(x[is_annotated], outcomes).predict_proba(x_new)[:, 1]
    return scores
