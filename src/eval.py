"""From a model to `Predictions`, and from a checkpoint to the tables of a split or the rows of new
files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from src.config import FALLBACK_LABEL, LoaderConfig
from src.dataloaders import make_loader
from src.labels.text_tables import split_list
from src.learning.calibration import Calibration, fit_calibration, measure_calibration
from src.learning.checkpoints import Checkpoint, ModelCard, load_checkpoint
from src.learning.leaks import refuse_overlap
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.thresholds import ThresholdRule, Thresholds, choose_thresholds
from src.model import load_model, predict_logits, to_scores
from src.processed.datasets import Batch, ECGDataset, View
from src.processed.manifest import load_manifest, patients_of, select_rows
from src.processed.mirror import local_copy
from src.processed.record_files import load_record_file
from src.processed.splits import SPLIT_NAMES
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    encode_targets,
    load_records,
)
from src.utils import Rich, save_json

if TYPE_CHECKING:
    import pandas as pd


FITTED_ON = "val"


def predict(
    model: nn.Module, loader: DataLoader[Batch], *, device: str = "cpu", crop_samples: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets, each (n_records, n_classes), on the CPU and in the loader's
    order.
    """
    model.eval()
    logits, targets = [], []
    with torch.inference_mode():
        for batch in loader:
            answer = predict_logits(model, batch.signal.to(device, non_blocking=True), crop_samples)
            logits.append(answer.float().cpu())
            targets.append(batch.target.cpu())
    return torch.cat(logits), torch.cat(targets)


@dataclass(frozen=True)
class Evaluation(Rich):
    """What `evaluate` found on one split."""

    split: str
    predictions: Predictions
    metrics: dict[str, Any]

    def __str__(self) -> str:
        from src.learning.text import format_evaluation

        return (
            f"{self.split}: {self.metrics['n_records']} records\n{format_evaluation(self.metrics)}"
        )

    def _repr_html_(self) -> str:
        from src.learning.text import html_evaluation

        return html_evaluation(self.split, self.metrics)


def evaluate(
    checkpoint: str | Path,
    processed: str | Path,
    *,
    split: str = "test",
    out: str | Path | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    keep_other: bool = False,
    options: EvaluationOptions | None = None,
    allow_overlap: bool = False,
) -> Evaluation:
    """Judge a checkpoint on a split of a processed folder.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``.
    processed
        The folder that preprocessing filled.
    split
        train, val or test.
    out
        Gets ``predictions_<split>.npz`` and ``metrics_<split>.json``; `evaluate_predictions`
        says what is in them.
    batch_size, device
        Records at a time, and the torch device that judges them.
    keep_other
        Judge records with the fallback label too.
    options
        Intervals, thresholds, calibration and the Challenge's score; by default none of them.
    allow_overlap
        Judge records that are recordings the model was trained on, too.

    Raises
    ------
    ValueError
        If the split is empty, the records have none of the checkpoint's classes, or another shape
        than it was trained on; if val or test holds recordings that the model was trained on, and
        `allow_overlap` is not set; if thresholds or a calibration would be chosen on the split that
        is judged, or an option does not fit the model.
    """
    processed = local_copy(processed)
    options, loaded = options or EvaluationOptions(), load_checkpoint(checkpoint, device)
    options.check(split, loaded.card.single_label)
    records = split_records(loaded, processed, split, keep_other=keep_other, everyone=True)
    if not allow_overlap:
        refuse_overlap(loaded.card.train_hashes, records.keys, records.signal_hashes, split)

    def predicted(chosen: LabelledRecords) -> Predictions:
        return predict_records(loaded, chosen, batch_size=batch_size, device=device)

    validation = None
    if options.needs_validation:
        learned_on = split_records(loaded, processed, FITTED_ON, keep_other=keep_other)
        if not allow_overlap:
            refuse_overlap(
                loaded.card.train_hashes, learned_on.keys, learned_on.signal_hashes, FITTED_ON
            )
        validation = predicted(learned_on)
    everyone = predicted(records)
    predictions = (
        everyone
        if _task_of(loaded.card).keep_negative
        else everyone.subset(np.flatnonzero((everyone.y_true == 1).any(axis=1)))
    )
    rows = select_rows(load_manifest(processed), predictions.keys)
    predictions, metrics = evaluate_predictions(predictions, rows, options, validation, everyone)
    if out is not None:
        predictions.save(Path(out) / f"predictions_{split}.npz")
        save_json(
            {"split": split, "checkpoint": str(checkpoint), **metrics},
            Path(out) / f"metrics_{split}.json",
        )
    return Evaluation(split, predictions, metrics)


def split_records(
    checkpoint: Checkpoint,
    processed: str | Path,
    split: str,
    *,
    keep_other: bool = False,
    everyone: bool = False,
) -> LabelledRecords:
    """Return the records of a split that a checkpoint can be judged on, of which one at least
    carries a class; see `evaluate`.

    With several labels those without a class are among them where the model was validated on such,
    or for `everyone`.
    """
    card = checkpoint.card
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}: expected one of {', '.join(SPLIT_NAMES)}")
    learned = FALLBACK_LABEL in card.classes and bool(
        card.config.get("train", {}).get("keep_other")
    )
    splits = load_records(processed, keep_other=keep_other or learned)
    task = _task_of(card)
    keep_negative = task.keep_negative or (everyone and not task.single_label)
    records = choose_records(splits[split], replace(task, keep_negative=keep_negative))
    judged = records if task.keep_negative else choose_records(records, task)
    if not len(judged):
        raise ValueError(_why_empty(processed, split, splits, card))
    return records


def _task_of(card: ModelCard) -> Task:
    """Return the task that a model was validated on."""
    keep_negative = bool(card.config.get("train", {}).get("keep_negative"))
    return Task(
        card.classes, card.single_label, keep_negative=keep_negative and not card.single_label
    )


def predict_records(
    checkpoint: Checkpoint, records: LabelledRecords, *, batch_size: int, device: str
) -> Predictions:
    """Return the predictions of a checkpoint for records of a processed folder, at least one."""
    card = checkpoint.card
    _check_input(records.paths[0], card, checkpoint.path)
    targets = encode_targets(records, card.classes)
    dataset = ECGDataset(
        records.paths, targets, View(card.leads, card.normalization), records.datasets
    )
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
    logits, _ = predict(
        load_model(checkpoint, device), loader, device=device, crop_samples=card.crop_samples
    )
    thresholds = np.array(card.thresholds) if card.thresholds else None
    return Predictions(
        keys=records.keys,
        y_true=targets,
        y_score=to_scores(logits, card.single_label),
        classes=card.classes,
        single_label=card.single_label,
        thresholds=thresholds,
    )


def _why_empty(processed: str | Path, split: str, splits: Any, card: ModelCard) -> str:
    if len(splits[split]):
        return (
            f"{processed}: none of the {len(splits[split])} records of split {split} "
            "carries a class of the checkpoint "
            f"({', '.join(card.classes)}); was it trained on other labels?"
        )
    there = (
        ", ".join(f"{name} ({len(records)})" for name, records in splits.items() if len(records))
        or "none"
    )
    return f"{processed}: split {split} has no records; splits with records: {there}"


def _check_input(record: Path, card: ModelCard, path: Path) -> None:
    """Refuse records of another length or rate, which give no error of their own and scores that
    mean nothing.
    """
    arrays = load_record_file(record)
    held, fs, wanted = arrays["signal"].shape[1], float(arrays["fs"]), card.preprocess
    if held != wanted.n_samples or not math.isclose(fs, wanted.fs, rel_tol=1e-6):
        raise ValueError(
            f"{path}: was trained on {wanted.n_samples} samples at {wanted.fs:g} Hz, the "
            f"records are {held} samples at "
            f"{fs:g} Hz; preprocess with --fs {wanted.fs:g} --n-samples {wanted.n_samples}"
        )


@dataclass(frozen=True)
class EvaluationOptions:
    """What to do beyond the metrics.

    Attributes
    ----------
    intervals
        Bootstrap resamples for confidence intervals; 0 gives none.
    thresholds
        ``f1``, ``sensitivity=X`` or ``none``, which leaves those of the checkpoint, or 0.5.
    calibrate
        Calibrate the probabilities first.
    challenge_weights
        The Challenge's ``weights.csv``, to score with it as well.
    """

    intervals: int = 0
    thresholds: str = "none"
    calibrate: bool = False
    challenge_weights: str | Path | None = None

    def __post_init__(self) -> None:
        if self.intervals < 0:
            raise ValueError(
                f"intervals is {self.intervals}: expected a number of resamples, or 0 for none"
            )
        ThresholdRule.parse(self.thresholds)

    @property
    def needs_validation(self) -> bool:
        """Whether something is learned on validation records."""
        return self.calibrate or self.thresholds != "none"

    def check(self, split: str, single_label: bool) -> None:
        """Refuse what cannot or must not be done, before a model has run.

        Parameters
        ----------
        split
            The split to be judged.
        single_label
            Whether the model answers one label per record.

        Raises
        ------
        ValueError
            If something would be learned on the split that is judged, thresholds are asked for one
            label per record, or the weights cannot be read.
        """
        if self.needs_validation and split == FITTED_ON:
            what = "the calibration" if self.calibrate else "thresholds"
            raise ValueError(
                f"split is {split!r}, and {what} would be chosen on it: numbers from the "
                "records that they were chosen on "
                "say nothing; judge test, or leave out --thresholds and --calibrate"
            )
        if single_label and self.thresholds != "none":
            raise ValueError(
                f"thresholds is {self.thresholds!r}, but the model answers one label per "
                "record, the most probable: "
                "thresholds are for models of several labels (--target multi)"
            )
        if self.challenge_weights is not None:
            from src.learning.challenge_score import WeightTable

            WeightTable.load(self.challenge_weights)


def evaluate_predictions(
    predictions: Predictions,
    rows: pd.DataFrame,
    options: EvaluationOptions,
    validation: Predictions | None = None,
    everyone: Predictions | None = None,
) -> tuple[Predictions, dict[str, Any]]:
    """Judge the predictions for a split.

    Parameters
    ----------
    predictions
        The split judged.
    rows
        Its rows of the manifest, as `src.subgroups.select_rows` gives them.
    options
        What to do beyond the metrics.
    validation
        The same model's predictions for the validation split; needed where something is learned.
    everyone
        Those for the split with the records that carry none of the classes, where the metrics with
        and without them are wanted side by side.

    Returns
    -------
    Predictions
        With calibrated probabilities and chosen thresholds.
    dict
        What `compute_metrics` gives, with ``reliability``, ``subgroups`` and, as asked for,
        ``calibration``, ``thresholds``, ``intervals`` and ``challenge``; with `everyone` and
        several labels ``protocols``: ``labelled`` (the records that carry a class) and ``all``
        (those that were looked at for one) -> n_records, accuracy, macro averages, frequent. Plain
        JSON values.

    Raises
    ------
    ValueError
        If a record is in both sets, there is no validation record to learn on, or an option does
        not fit the model.
    """
    from src.learning.subgroups import compute_subgroups

    maps, learned = (
        _fit_on_validation(predictions, options, validation)
        if options.needs_validation
        else ((), {})
    )
    for learned_map in maps:
        predictions = learned_map.apply(predictions)
        everyone = everyone and learned_map.apply(everyone)
    metrics = compute_metrics(predictions)
    metrics |= {
        "reliability": measure_calibration(predictions),
        **learned,
        "subgroups": compute_subgroups(predictions, rows),
    }
    if everyone is not None and not everyone.single_label:
        metrics["protocols"] = _evaluate_protocols(everyone)
    if options.intervals:
        from src.learning.intervals import bootstrap_intervals

        metrics["intervals"] = bootstrap_intervals(
            predictions, patients_of(rows), n_resamples=options.intervals
        )
    if options.challenge_weights is not None:
        from src.learning.challenge_score import WeightTable, compute_challenge_scores

        labels = [split_list(cell) for cell in rows["labels"]]
        metrics["challenge"] = compute_challenge_scores(
            predictions, WeightTable.load(options.challenge_weights), labels
        )
    return predictions, metrics


def _evaluate_protocols(everyone: Predictions) -> dict[str, dict[str, Any]]:
    """Judge the records that carry a class, as published results on PTB-XL do, and all that were
    looked at for one.
    """
    rows = {
        "labelled": (everyone.y_true == 1).any(axis=1),
        "all": ~np.isnan(everyone.y_true).all(axis=1),
    }
    names = (
        "n_records",
        "accuracy",
        "f1_macro",
        "auroc_macro",
        "average_precision_macro",
        "frequent",
    )
    found = {
        name: compute_metrics(everyone.subset(np.flatnonzero(which)))
        for name, which in rows.items()
        if which.any()
    }
    return {
        protocol: {name: metrics[name] for name in names} for protocol, metrics in found.items()
    }


def _fit_on_validation(
    predictions: Predictions, options: EvaluationOptions, validation: Predictions | None
) -> tuple[tuple[Calibration | Thresholds, ...], dict[str, Any]]:
    """Fit a calibration, then thresholds for the calibrated probabilities; returns what to apply
    and what to tell.
    """
    if validation is None or not validation.keys:
        raise ValueError("there are no validation records to choose thresholds or a calibration on")
    both = set(validation.keys) & set(predictions.keys)
    if both:
        raise ValueError(
            f"{len(both)} records judged are validation records too, such as {min(both)}: "
            "expected none"
        )
    origin = {"learned_on": FITTED_ON, "n_records": len(validation.keys)}
    maps: tuple[Calibration | Thresholds, ...] = ()
    learned: dict[str, Any] = {}
    if options.calibrate:
        calibration = fit_calibration(validation)
        learned["calibration"] = {
            **origin,
            **calibration.to_json(),
            "reliability_before": measure_calibration(predictions),
        }
        maps, validation = (calibration,), calibration.apply(validation)
    rule = ThresholdRule.parse(options.thresholds)
    if rule is not None:
        thresholds = choose_thresholds(validation, rule)
        learned["thresholds"] = {**origin, **thresholds.to_json()}
        maps = (*maps, thresholds)
    return maps, learned
