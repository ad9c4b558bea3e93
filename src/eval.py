"""A model on a split: predict its records, evaluate the predictions.

`evaluate` goes from a checkpoint and a processed folder to metrics, `evaluate_predictions` from the
predictions of any program. The steps that they take follow in order: choose the records
(`split_records`), predict them (`predict_records`, `predict`), and compute the numbers
(`compute_evaluation`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader

from src.config import FALLBACK_LABEL, SPLIT_NAMES, LoaderConfig
from src.dataloaders import make_loader
from src.labels.text_tables import split_list
from src.learning.calibration import Calibration, measure_calibration
from src.learning.checkpoints import (
    Checkpoint,
    FittedOn,
    ModelCard,
    load_checkpoint,
    save_checkpoint,
)
from src.learning.conformal import Conformal, check_coverage
from src.learning.decisions import (
    Fit,
    fit_decisions,
    put_into_card,
    summarize_calibration,
    summarize_coverage,
    summarize_thresholds,
)
from src.learning.leaks import TrainingRecordings, refuse_overlap, refuse_to_fit_on
from src.learning.metrics import compute_metrics
from src.learning.predictions import Predictions
from src.learning.results import EvaluationMetrics, OptionalResults, ProtocolMetrics
from src.learning.thresholds import ThresholdRule, Thresholds
from src.learning.unlike import MIN_RECORDS, Reference
from src.model import (
    PartFeatures,
    describe_inputs,
    load_members,
    load_model,
    needs_rr,
    to_scores,
)
from src.processed.datasets import AnyBatch, ECGDataset, View
from src.processed.manifest import load_manifest, patients_of, select_rows
from src.processed.mirror import local_copy
from src.processed.record_files import load_record_file, record_keys
from src.processed.targets import (
    LabelledRecords,
    Task,
    choose_records,
    encode_targets,
    load_records,
)
from src.utils import Rich, printable, save_json

if TYPE_CHECKING:
    import pandas as pd

    from src.learning.score_tables import FoundRecords, ScoreTable

logger = logging.getLogger(__name__)


FITTED_ON = "val"
"""Split that thresholds, calibrations and limits are fitted on."""

# Recordings by which unlike ones are told: fifty of them lie beyond the last hundredth
_MAX_SUMMARIZED = 5000


# Options and result -------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvaluationOptions:
    """Steps of an evaluation beyond the metrics.

    Attributes
    ----------
    intervals
        Bootstrap resamples for confidence intervals; 0 gives none.
    thresholds
        ``f1``, ``sensitivity=X`` or ``none``, which leaves those of the checkpoint, or 0.5.
    calibrate
        Calibrate the probabilities first.
    coverage
        Fit limits with which the true label stays plausible in this share of the records, such as
        0.9 (`src.learning.conformal`); None leaves those of the checkpoint.
    challenge_weights
        The Challenge's ``weights.csv``, to compute its scores as well.
    """

    intervals: int = 0
    thresholds: str = "none"
    calibrate: bool = False
    challenge_weights: str | Path | None = None
    coverage: float | None = None

    def __post_init__(self) -> None:
        if self.intervals < 0:
            raise ValueError(
                f"intervals is {self.intervals}: expected a number of resamples, or 0 for none"
            )
        ThresholdRule.parse(self.thresholds)
        if self.coverage is not None:
            check_coverage(self.coverage)

    @property
    def needs_validation(self) -> bool:
        """Whether something is fitted on validation records."""
        return self.calibrate or self.thresholds != "none" or self.coverage is not None

    def check(self, split: str, single_label: bool) -> None:
        """Refuse options that cannot or must not be used, before a model has run.

        Parameters
        ----------
        split
            The split to be evaluated.
        single_label
            Whether the model predicts one label per record.

        Raises
        ------
        ValueError
            If something would be fitted on the split that is evaluated, thresholds are asked for
            with one label per record, or the weights cannot be read.
        """
        if self.needs_validation and split == FITTED_ON:
            fitted = "the calibration" if self.calibrate else "thresholds or limits of coverage"
            raise ValueError(
                f"split is {split!r}, and {fitted} would be chosen on it: numbers from the records "
                "that they were chosen on say nothing; evaluate test, or leave out --thresholds, "
                "--calibrate and --coverage"
            )
        if single_label and self.thresholds != "none":
            raise ValueError(
                f"thresholds is {self.thresholds!r}, but the model predicts one label per record, "
                "the most probable: thresholds are for models of several labels (--target multi)"
            )
        if self.challenge_weights is not None:
            from src.learning.challenge_score import WeightTable

            WeightTable.load(self.challenge_weights)


@dataclass(frozen=True)
class Evaluation(Rich):
    """Predictions and metrics of one split, as `evaluate` returns them.

    `fits` is what was fitted on validation and applied to the predictions.
    """

    split: str
    predictions: Predictions
    metrics: EvaluationMetrics
    fits: tuple[Fit, ...] = ()

    def __str__(self) -> str:
        from src.learning.text import format_evaluation

        n_records = self.metrics["n_records"]
        return f"{self.split}: {n_records} records\n{format_evaluation(self.metrics)}"

    def _repr_html_(self) -> str:
        from src.learning.text import html_evaluation

        return html_evaluation(self.split, self.metrics)


# From a checkpoint to its metrics -----------------------------------------------------------------


def evaluate(
    checkpoint: str | Path | Sequence[str | Path] | Checkpoint,
    processed: str | Path,
    *,
    split: str = "test",
    out: str | Path | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    keep_other: bool = False,
    options: EvaluationOptions | None = None,
    allow_overlap: bool = False,
    save: str | Path | None = None,
    unlike: bool = False,
) -> Evaluation:
    """Evaluate a checkpoint on a split of a processed folder.

    Parameters
    ----------
    checkpoint
        A ``best.pth`` or ``latest.pth``, several that are used as one, or one that is loaded.
    processed
        The folder that preprocessing filled.
    split
        train, val or test.
    out
        Folder for ``predictions_<split>.npz`` and ``metrics_<split>.json``; the latter holds
        ``split``, ``checkpoint`` and the metrics of `compute_evaluation`.
    batch_size, device
        Records at a time, and the torch device that predicts them.
    keep_other
        Include records with the fallback label.
    options
        Intervals, thresholds, calibration and the Challenge's scores; by default none of them.
    allow_overlap
        Include recordings that the model was trained on.
    save
        Also write the checkpoint to this file, with the thresholds, the calibration and the limits
        of coverage that were fitted; it may be the checkpoint's own.
    unlike
        Add the training recordings of the folder in short to what is saved, by which `predict`
        tells recordings that are unlike them (`src.learning.unlike`).

    Raises
    ------
    ValueError
        If the split is empty, the records have none of the checkpoint's classes, or another shape
        than it was trained on; if val or test holds recordings that the model was trained on, and
        `allow_overlap` is not set; if thresholds or a calibration would be fitted on the split that
        is evaluated, or an option does not fit the model; if there is nothing to save, or several
        checkpoints to save it into.
    """
    processed = local_copy(processed)
    options = options or EvaluationOptions()
    loaded = load_checkpoint(checkpoint, device)
    options.check(split, loaded.card.single_label)
    _check_save(loaded, options, save, unlike)

    n_trained_on: dict[str, int] = {}

    def select(name: str, *, everyone: bool = False) -> LabelledRecords:
        records = split_records(loaded, processed, name, keep_other=keep_other, everyone=everyone)
        if save is not None and name == FITTED_ON:
            refuse_to_fit_on(loaded.card.train_hashes, records, name)
        n_trained_on[name] = refuse_overlap(
            loaded.card.train_hashes,
            records.keys,
            records.signal_hashes,
            name,
            allow_overlap=allow_overlap,
        )
        return records

    records = select(split, everyone=True)
    validation, fitted_on = None, records
    if options.needs_validation:
        fitted_on = select(FITTED_ON)
        validation = predict_records(loaded, fitted_on, batch_size=batch_size, device=device)
    else:
        _warn_chosen_on(loaded.card, split, records)
    everyone = predict_records(loaded, records, batch_size=batch_size, device=device)
    evaluation = _evaluate_split(
        everyone,
        _task_of(loaded.card),
        processed,
        split,
        options,
        validation,
        fitted_on.patients,
    )
    _note_training(evaluation, n_trained_on[split])
    _note_decisions(evaluation, loaded.card, processed)
    if out is not None:
        _save_evaluation(evaluation, out, {"checkpoint": loaded.name})
    if save is not None:
        card = put_into_card(loaded.card, evaluation.fits, fitted_on, FITTED_ON)
        reference = loaded.reference
        if unlike:
            reference = summarize_training(loaded, processed, batch_size=batch_size, device=device)
        save_checkpoint(save, card, loaded.weights, loaded.state, reference)
    return evaluation


def _check_save(
    checkpoint: Checkpoint, options: EvaluationOptions, save: str | Path | None, unlike: bool
) -> None:
    """Refuse to save nothing, or into several checkpoints."""
    if save is None:
        if unlike:
            raise ValueError(
                "unlike is given, but nothing is saved: expected --save FILE beside it"
            )
        return
    require_one(checkpoint)
    if not options.needs_validation and not unlike:
        raise ValueError(
            "save is given, but nothing is fitted: expected --calibrate, --thresholds, --coverage "
            "or --unlike beside it"
        )


def summarize_training(
    checkpoint: Checkpoint, processed: str | Path, *, batch_size: int, device: str
) -> Reference:
    """Return the training recordings of a folder in short, as a network sees them.

    Of many recordings, a sample is drawn, which does not change.

    Raises
    ------
    ValueError
        If the folder has fewer than four recordings that the model was trained on.
    """
    card = checkpoint.card
    records = load_records(processed, keep_other=True)["train"]
    trained_on = TrainingRecordings(card.train_hashes)
    if trained_on.are_known:
        records = records.subset(np.flatnonzero(trained_on.contains(records.signal_hashes)))
    if len(records) > _MAX_SUMMARIZED:
        drawn = np.random.default_rng(0).permutation(len(records))[:_MAX_SUMMARIZED]
        records = records.subset(np.sort(drawn).tolist())
    if len(records) < MIN_RECORDS:
        raise ValueError(
            f"{processed}: holds {len(records)} recordings of split train that the model was "
            f"trained on: expected {MIN_RECORDS} or more, by which to tell unlike ones"
        )
    check_input(records.paths[0], card, checkpoint.path)
    parts = PartFeatures(load_model(checkpoint, device))
    no_targets = np.zeros((len(records), 0), np.float32)
    view = View(card.leads, card.normalization)
    dataset = ECGDataset(records.paths, no_targets, view, records.datasets)
    loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
    features, _ = predict(partial(describe_inputs, parts, card), loader, device=device)
    return Reference.fit(features.numpy(), parts.sizes)


def require_one(checkpoint: Checkpoint) -> None:
    """Refuse several checkpoints where something is to be saved into one."""
    if checkpoint.members:
        raise ValueError(
            f"{checkpoint.name}: {len(checkpoint.members)} checkpoints are used as one: expected "
            "one to save what is fitted into; calibrate each of them by itself"
        )


def _warn_chosen_on(card: ModelCard, split: str, records: LabelledRecords) -> None:
    """Warn if thresholds or calibration of a checkpoint come from the split to be evaluated."""
    for name, chosen_on in (
        ("thresholds", card.thresholds_on),
        ("calibration", card.calibration_on),
        ("limits of coverage", card.coverage_on),
    ):
        if chosen_on is None or chosen_on.split != split:
            continue
        if set(chosen_on.datasets) & set(records.datasets):
            logger.warning(
                "the %s of the checkpoint: %s: numbers from the records that they were chosen on "
                "say nothing",
                name,
                printable(str(chosen_on)),
            )


def _note_decisions(evaluation: Evaluation, card: ModelCard, processed: str | Path) -> None:
    """Add to the metrics what the checkpoint held before: thresholds, calibration and limits."""
    from src.learning.subgroups import find_groups

    metrics = evaluation.metrics
    thresholds = summarize_thresholds(card, evaluation.predictions)
    if thresholds is not None and "thresholds" not in metrics:
        metrics["thresholds"] = thresholds
    calibration = summarize_calibration(card)
    if calibration is not None and "calibration" not in metrics:
        metrics["calibration"] = calibration
    has_new = "coverage" in metrics or any(isinstance(fit, Calibration) for fit in evaluation.fits)
    if card.coverage is not None and card.coverage_on is not None and not has_new:
        rows = select_rows(load_manifest(processed), evaluation.predictions.keys)
        metrics["coverage"] = summarize_coverage(
            card.coverage, evaluation.predictions, find_groups(rows), card.coverage_on
        )


def evaluate_predictions(
    predictions: str | Path | Predictions,
    processed: str | Path,
    *,
    split: str = "test",
    out: str | Path | None = None,
    target: str = "auto",
    keep_negative: bool = False,
    keep_other: bool = False,
    options: EvaluationOptions | None = None,
    allow_missing: bool = False,
    allow_overlap: bool = False,
) -> Evaluation:
    """Evaluate the predictions of any program on a split of a processed folder.

    Parameters
    ----------
    predictions
        A file (`src.learning.score_files.load_scores`), or predictions. Labels are taken from the
        processed folder, never from them.
    processed
        The folder that preprocessing filled.
    split
        train, val or test.
    out
        Folder for ``predictions_<split>.npz`` and ``metrics_<split>.json``; the latter holds
        ``split``, ``predictions`` (their file) and the metrics of `compute_evaluation`.
    target, keep_negative
        The task; see `src.learning.score_tables.ScoreTable.choose_task`.
    keep_other
        Include records with the fallback label.
    options
        As for `evaluate`; what is fitted is fitted on the predictions for val.
    allow_missing
        Evaluate the other records where some of the split have no prediction.
    allow_overlap
        Include recordings that the model was trained on, where the predictions say which these are.

    Raises
    ------
    ValueError
        As `evaluate`; or if the file cannot be read, names a record twice or ambiguously, holds a
        value that is no probability or no label of the folder, or lacks a record of the split and
        `allow_missing` is not set.

    Notes
    -----
    Only our own predictions hold the fingerprints of the training recordings. Without these it
    cannot be known whether the model was trained on evaluated records: ``trained_on`` of the
    metrics is then ``unknown``.
    """
    from src.learning.score_tables import report_others, show_names

    _check_split(split)
    processed = local_copy(processed)
    options = options or EvaluationOptions()
    if out is not None:
        _refuse_to_overwrite(predictions, Path(out), split)
    splits = load_records(processed, keep_other=keep_other)
    manifest = load_manifest(processed)
    rows = manifest[manifest["status"] == "ok"]
    split_of = dict(zip(record_keys(rows), rows["split"], strict=True))
    table = _load_table(predictions, splits).resolve(split_of)
    task = table.choose_task(splits, target, keep_negative=keep_negative)
    logger.info("%s: %s, classes %s", table.source, task.description, show_names(task.classes))
    options.check(split, task.single_label)
    for name in (split, FITTED_ON) if options.needs_validation else (split,):
        if not len(splits[name]):
            raise ValueError(_describe_empty_split(processed, name, splits, task))

    select = partial(
        _select_predicted,
        table,
        splits,
        task,
        allow_missing=allow_missing,
        allow_overlap=allow_overlap,
    )
    found, n_trained_on = select(split, everyone=True)
    validation: Predictions | None = None
    patients: tuple[str, ...] = ()
    if options.needs_validation:
        fitted_on = select(FITTED_ON)[0].records
        validation, patients = table.predict(fitted_on, task), fitted_on.patients
    report_others(
        table, found.records.keys + (validation.keys if validation else ()), split_of, split
    )
    evaluation = _evaluate_split(
        table.predict(found.records, task),
        task,
        processed,
        split,
        options,
        validation,
        patients,
        has_everyone=found.has_negative,
    )
    _note_training(evaluation, n_trained_on)
    if found.n_missing:
        evaluation.metrics["n_missing"] = found.n_missing
    if out is not None:
        _save_evaluation(evaluation, out, {"predictions": table.source})
    return evaluation


def _select_predicted(
    table: ScoreTable,
    splits: Mapping[str, LabelledRecords],
    task: Task,
    split: str,
    *,
    everyone: bool = False,
    allow_missing: bool,
    allow_overlap: bool,
) -> tuple[FoundRecords, int]:
    """Return the records of a split that a table predicts, and how many were trained on.

    Those are refused, unless `allow_overlap` is set.
    """
    from src.learning.score_tables import find_records

    found = find_records(
        table, splits[split], task, split, everyone=everyone, allow_missing=allow_missing
    )
    n_trained_on = refuse_overlap(
        table.train_hashes,
        found.records.keys,
        found.records.signal_hashes,
        split,
        allow_overlap=allow_overlap,
        source=table.source,
    )
    return found, n_trained_on


def _load_table(
    predictions: str | Path | Predictions, splits: dict[str, LabelledRecords]
) -> ScoreTable:
    from src.learning.score_files import load_scores
    from src.learning.score_tables import ScoreTable, folder_labels

    if isinstance(predictions, Predictions):
        return ScoreTable.of(predictions)
    return load_scores(predictions, folder_labels(splits))


def _refuse_to_overwrite(predictions: object, out: Path, split: str) -> None:
    """Refuse a folder in which the evaluation would replace the predictions that it reads."""
    if not isinstance(predictions, (str, Path)):
        return
    written = out / f"predictions_{split}.npz"
    if written.exists() and Path(predictions).exists() and written.samefile(predictions):
        raise ValueError(f"{written}: is read by this evaluation: expected another folder for out")


def _evaluate_split(
    everyone: Predictions,
    task: Task,
    processed: str | Path,
    split: str,
    options: EvaluationOptions,
    validation: Predictions | None,
    patients: Sequence[str],
    *,
    has_everyone: bool = True,
) -> Evaluation:
    """Evaluate predictions for a split that include records without any class of the task.

    `has_everyone` tells whether they include all of these, and `patients` whose records the
    validation records are.
    """
    predictions = everyone
    if not task.keep_negative:
        has_class = (everyone.y_true == 1).any(axis=1)
        predictions = everyone.subset(np.flatnonzero(has_class))
    manifest = load_manifest(processed)
    rows = select_rows(manifest, predictions.keys)
    fits = _fit_on_validation(predictions, options, validation, patients)
    predictions, metrics = _compute(
        predictions, rows, options, validation, everyone if has_everyone else None, fits
    )
    _report_surprises(predictions, rows, manifest, split)
    return Evaluation(split, predictions, metrics, fits)


def _note_training(evaluation: Evaluation, n_trained_on: int) -> None:
    """Add to the metrics how many records the model was trained on, or that this is unknown."""
    if evaluation.split == "train":
        return
    if n_trained_on:
        evaluation.metrics["n_trained_on"] = n_trained_on
    elif not TrainingRecordings(evaluation.predictions.train_hashes).are_known:
        evaluation.metrics["trained_on"] = "unknown"


def _save_evaluation(evaluation: Evaluation, out: str | Path, source: Mapping[str, str]) -> None:
    """Write predictions and metrics of a split; `source` says what was evaluated."""
    split = evaluation.split
    evaluation.predictions.save(Path(out) / f"predictions_{split}.npz")
    metrics = {"split": split, **source, **evaluation.metrics}
    save_json(metrics, Path(out) / f"metrics_{split}.json")


def _report_surprises(
    predictions: Predictions, rows: pd.DataFrame, manifest: pd.DataFrame, split: str
) -> None:
    """Log datasets that are trained on and not evaluated, and classes that are never predicted."""
    trained = manifest[(manifest["split"] == "train") & (manifest["label_source"] == "mapping")]
    absent = sorted(set(trained["dataset"]) - set(rows["dataset"]))
    if absent:
        logger.warning(
            "split %s has no record of %s, which train has: the numbers are of %s only",
            split,
            ", ".join(absent),
            ", ".join(sorted(set(rows["dataset"]))),
        )
    if predictions.single_label or predictions.thresholds is not None or not len(rows):
        return
    highest = predictions.y_score.max(axis=0)
    low = [
        f"{name} ({score:.2f})"
        for name, score in zip(predictions.classes, highest, strict=True)
        if score < 0.5
    ]
    if low:
        logger.warning(
            "no prediction of these classes reaches 0.5, so they are never predicted (highest "
            "probability): %s; --thresholds f1 chooses thresholds on val",
            ", ".join(low),
        )


# Records ------------------------------------------------------------------------------------------


def split_records(
    checkpoint: Checkpoint,
    processed: str | Path,
    split: str,
    *,
    keep_other: bool = False,
    everyone: bool = False,
) -> LabelledRecords:
    """Return the records of a split that a checkpoint can be evaluated on; see `evaluate`.

    At least one of them carries a class. With several labels, records without a class are included
    if the model was validated on such records, or with `everyone`.
    """
    card = checkpoint.card
    _check_split(split)
    # A model that was trained on the fallback label is evaluated on it
    trained_on_other = FALLBACK_LABEL in card.classes and _train_setting(card, "keep_other")
    splits = load_records(processed, keep_other=keep_other or trained_on_other)
    task = _task_of(card)
    keep_negative = task.keep_negative or (everyone and not task.single_label)
    records = choose_records(splits[split], replace(task, keep_negative=keep_negative))
    evaluated = records if task.keep_negative else choose_records(records, task)
    if not len(evaluated):
        raise ValueError(_describe_empty_split(processed, split, splits, task))
    return records


def _check_split(split: str) -> None:
    if split not in SPLIT_NAMES:
        raise ValueError(f"split is {split!r}: expected one of {', '.join(SPLIT_NAMES)}")


def _task_of(card: ModelCard) -> Task:
    """Return the task that a model was validated on, which it is evaluated on too."""
    keep_negative = not card.single_label and _train_setting(card, "keep_negative")
    return Task(card.classes, card.single_label, keep_negative=keep_negative)


def _train_setting(card: ModelCard, name: str) -> bool:
    """Return a setting of the training; checkpoints of before the setting lack it."""
    return bool(card.config.get("train", {}).get(name))


def _describe_empty_split(
    processed: str | Path, split: str, splits: dict[str, LabelledRecords], task: Task
) -> str:
    if len(splits[split]):
        return (
            f"{processed}: none of the {len(splits[split])} records of split {split} carries a "
            f"class of the checkpoint ({', '.join(task.classes)}); was it trained on other labels?"
        )
    sizes = [f"{name} ({len(records)})" for name, records in splits.items() if len(records)]
    return (
        f"{processed}: split {split} has no records; splits with records: "
        f"{', '.join(sizes) or 'none'}"
    )


# Predictions --------------------------------------------------------------------------------------


def predict_records(
    checkpoint: Checkpoint, records: LabelledRecords, *, batch_size: int, device: str
) -> Predictions:
    """Return the predictions of a checkpoint for one or more records of a processed folder."""
    card = checkpoint.card
    check_input(records.paths[0], card, checkpoint.path)
    targets = encode_targets(records, card.classes)
    members = load_members(checkpoint, device)
    logits = torch.zeros(len(records), len(card.classes))
    for member in members:
        view = View(card.leads, member.card.normalization, rr=needs_rr(member.model))
        dataset = ECGDataset(records.paths, targets, view, records.datasets)
        loader = make_loader(dataset, LoaderConfig(batch_size=batch_size))
        logits += predict(member.predict, loader, device=device)[0]
    return Predictions(
        keys=records.keys,
        y_true=targets,
        y_score=to_scores(logits / len(members), card.single_label),
        classes=card.classes,
        single_label=card.single_label,
        thresholds=np.array(card.thresholds) if card.thresholds else None,
        signal_hashes=records.signal_hashes,
        train_hashes=card.train_hashes,
    )


def check_input(record: Path, card: ModelCard, path: Path) -> None:
    """Refuse records of another length or rate than the model was trained on.

    The network takes them without an error, but the scores would mean nothing.
    """
    arrays = load_record_file(record)
    n_samples, fs = arrays["signal"].shape[1], float(arrays["fs"])
    expected = card.preprocess
    if n_samples != expected.n_samples or not math.isclose(fs, expected.fs, rel_tol=1e-6):
        raise ValueError(
            f"{path}: was trained on {expected.n_samples} samples at {expected.fs:g} Hz, the "
            f"records are {n_samples} samples at {fs:g} Hz; preprocess with --fs "
            f"{expected.fs:g} --n-samples {expected.n_samples}"
        )
    if expected.cuts_beats and "rr_s" not in arrays:
        raise ValueError(
            f"{path}: was trained on windows around beats, and {record} is none: preprocess with "
            f"--beats CSV --before-s {expected.before_s:g} --after-s {expected.after_s:g}"
        )


def predict(
    model: Callable[..., torch.Tensor],
    loader: DataLoader[AnyBatch],
    *,
    device: str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets, each (n_records, n_classes), on the CPU in the loader's order.

    Parameters
    ----------
    model
        Maps signals (B, n_leads, n_samples) to logits, in evaluation mode. It is called with the
        RR intervals as well where the batches have them.
    loader
        Batches of records.
    device
        The torch device of the model.
    """
    logits, targets = [], []
    with torch.inference_mode():
        for batch in loader:
            signal = batch.signal.to(device, non_blocking=True)  # (B, n_leads, n_samples)
            rr = () if batch.rr is None else (batch.rr.to(device, non_blocking=True),)
            logits.append(model(signal, *rr).float().cpu())
            targets.append(batch.target.cpu())
    return torch.cat(logits), torch.cat(targets)


# Metrics ------------------------------------------------------------------------------------------


def compute_evaluation(
    predictions: Predictions,
    rows: pd.DataFrame,
    options: EvaluationOptions,
    validation: Predictions | None = None,
    everyone: Predictions | None = None,
    patients: Sequence[str] = (),
) -> tuple[Predictions, EvaluationMetrics]:
    """Evaluate the predictions for a split.

    Parameters
    ----------
    predictions
        The split to evaluate.
    rows
        Its rows of the manifest, as `src.processed.manifest.select_rows` gives them.
    options
        Steps beyond the metrics.
    validation
        The same model's predictions for the validation split; needed where something is fitted.
    everyone
        Those for the split including records without any of the classes; given where metrics with
        and without these records are wanted side by side.
    patients
        The patients of the validation records; empty means one each.

    Returns
    -------
    Predictions
        With calibrated probabilities and chosen thresholds.
    EvaluationMetrics
        The result of `compute_metrics`, with ``reliability``, ``subgroups`` and, as asked for,
        ``calibration``, ``thresholds``, ``coverage``, ``intervals`` and ``challenge``; with
        `everyone` and several labels ``protocols``: ``labelled`` (the records that carry a class)
        and ``all`` (those that were annotated for one) -> n_records, accuracy, macro averages,
        frequent. Plain JSON values.

    Raises
    ------
    ValueError
        If a record is in both sets, there is no validation record to fit on, or an option does not
        fit the model.
    """
    fits = _fit_on_validation(predictions, options, validation, patients)
    return _compute(predictions, rows, options, validation, everyone, fits)


def _compute(
    predictions: Predictions,
    rows: pd.DataFrame,
    options: EvaluationOptions,
    validation: Predictions | None,
    everyone: Predictions | None,
    fits: tuple[Fit, ...],
) -> tuple[Predictions, EvaluationMetrics]:
    """Do what `compute_evaluation` does, with what was fitted on validation."""
    from src.learning.subgroups import compute_subgroups, find_groups

    fitted: OptionalResults = {}
    if validation is not None:
        fitted = _summarize_fits(fits, predictions, len(validation.keys))
    for fit in fits:
        predictions = fit.apply(predictions)
        if everyone is not None:
            everyone = fit.apply(everyone)
    metrics: EvaluationMetrics = {
        **compute_metrics(predictions),
        "reliability": measure_calibration(predictions),
        **fitted,
        "subgroups": compute_subgroups(predictions, rows),
    }
    for fit in fits:
        if isinstance(fit, Conformal) and validation is not None:
            fitted_on = FittedOn("", FITTED_ON, len(validation.keys), (), fit.undecided)
            metrics["coverage"] = summarize_coverage(
                fit.limits, predictions, find_groups(rows), fitted_on
            )
    if everyone is not None and not everyone.single_label:
        metrics["protocols"] = _evaluate_protocols(everyone)
    if options.intervals:
        from src.learning.intervals import bootstrap_intervals

        metrics["intervals"] = bootstrap_intervals(
            predictions, patients_of(rows), n_resamples=options.intervals
        )
    if options.challenge_weights is not None:
        from src.learning.challenge_score import WeightTable, compute_challenge_scores

        # From the manifest, which also has the labels that the model does not know
        labels = [split_list(cell) for cell in rows["labels"]]
        metrics["challenge"] = compute_challenge_scores(
            predictions, WeightTable.load(options.challenge_weights), labels
        )
    return predictions, metrics


def _fit_on_validation(
    predictions: Predictions,
    options: EvaluationOptions,
    validation: Predictions | None,
    patients: Sequence[str],
) -> tuple[Fit, ...]:
    """Fit on validation what the options ask for; see `src.learning.decisions.fit_decisions`."""
    if not options.needs_validation:
        return ()
    if validation is None or not validation.keys:
        raise ValueError(
            "there are no validation records to choose thresholds, a calibration or limits on"
        )
    if shared := set(validation.keys) & set(predictions.keys):
        raise ValueError(
            f"{len(shared)} evaluated records are validation records too, such as {min(shared)}: "
            "expected none"
        )
    rule = ThresholdRule.parse(options.thresholds)
    return fit_decisions(
        validation,
        calibrate=options.calibrate,
        rule=rule,
        coverage=options.coverage,
        patients=patients,
    )


def _summarize_fits(
    fits: tuple[Fit, ...], predictions: Predictions, n_records: int
) -> OptionalResults:
    """Return the part of the metrics on what was fitted, before it is applied to predictions."""
    fitted: OptionalResults = {}
    for fit in fits:
        if isinstance(fit, Calibration):
            fitted["calibration"] = {
                "learned_on": FITTED_ON,
                "n_records": n_records,
                **fit.to_json(),
                "reliability_before": measure_calibration(predictions),
            }
        elif isinstance(fit, Thresholds):
            fitted["thresholds"] = {
                "learned_on": FITTED_ON,
                "n_records": n_records,
                **fit.to_json(),
            }
    return fitted


def _evaluate_protocols(everyone: Predictions) -> dict[str, ProtocolMetrics]:
    """Evaluate the records that carry a class, and all that were annotated for one.

    Published results on PTB-XL are of the former.
    """
    masks = {
        "labelled": (everyone.y_true == 1).any(axis=1),
        "all": ~np.isnan(everyone.y_true).all(axis=1),
    }
    protocols: dict[str, ProtocolMetrics] = {}
    for name, mask in masks.items():
        if not mask.any():
            continue
        metrics = compute_metrics(everyone.subset(np.flatnonzero(mask)))
        protocols[name] = {
            "n_records": metrics["n_records"],
            "accuracy": metrics["accuracy"],
            "f1_macro": metrics["f1_macro"],
            "auroc_macro": metrics["auroc_macro"],
            "average_precision_macro": metrics["average_precision_macro"],
            "frequent": metrics["frequent"],
        }
    return protocols
